"""Exact nearest neighbours, tile by tile, at one or several dimensions in one pass.

The scores of a tile are computed in float32 with matrix products small enough to stay in the
cache; those over the first columns are a part of those over more columns. What may still belong
to a query's best ``k`` is kept; at the end these few are scored again in float64, so that equal
vectors have equal scores wherever they stand, and ordered by score, then by a hash of the id.
"""

import itertools
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedtune.embed import Embedder, Matrix, Similarity
from embedtune.errors import IntegrityError
from embedtune.files import disk_errors, visible
from embedtune.records import Chunk, Role
from embedtune.retrieve import Hit
from embedtune.retrieve.order import tie_breakers

logger = logging.getLogger(__name__)

CHUNK_BLOCK = 8192  # chunks that are held as float32 at a time
QUERY_BLOCK = 8192  # searched in one pass over the chunks
TILE = 512  # queries and chunks in one product: 1 MiB of scores, which stays in the cache
PAIRS = 512  # scored exactly at a time
DECIMALS = 9  # scores closer than this are equal


Rows = npt.NDArray[np.int64]


class Neighbours(NamedTuple):
    """Best first: (n, k) rows of the chunk matrix, and (n, k) scores."""

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


def check_vectors(
    vectors: Matrix, texts: Sequence[str], system: str, *, allow_collapsed: bool = False
) -> None:
    """Refuse vectors nobody can search with: not finite, zero, or one and the same for all texts.

    Args:
        allow_collapsed: Let the last pass, for a model that is known not to read the texts.

    Raises:
        IntegrityError: Names the system, what is wrong, and a text it is wrong for.
    """
    if len(vectors) != len(texts):
        raise IntegrityError(f"{system}: {len(vectors)} vectors for {len(texts)} texts")
    if not len(vectors):
        return
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    for fault, rows in (
        ("with NaN or infinite numbers", ~np.isfinite(norms)),
        ("of only zeros", norms == 0),
    ):
        if rows.any():
            example = visible(texts[int(np.flatnonzero(rows)[0])])
            raise IntegrityError(
                f"{system}: {int(rows.sum())} of {len(vectors)} vectors {fault}, the first for "
                f'"{example}"; the model or its answers are damaged'
            )
    if allow_collapsed:
        return
    unlike = next((row for row, text in enumerate(texts) if text != texts[0]), None)
    if unlike is None or not np.allclose(vectors[unlike], vectors[0], rtol=1e-5, atol=1e-7):
        return
    if np.allclose(vectors, vectors[0], rtol=1e-5, atol=1e-7):
        raise IntegrityError(
            f"{system}: all {len(vectors)} vectors are the same although the texts differ; "
            "the model has collapsed, nothing can be ranked"
        )


def nearest(
    queries: Matrix,
    chunks: Matrix,
    ids: Sequence[str],
    k: int,
    *,
    similarity: Similarity = "cosine",
    dimension: int | None = None,
    without: Sequence[Rows] | None = None,
) -> Neighbours:
    """The ``k`` best chunks of each query, exactly. Euclidean scores are negative distances.

    Args:
        queries, chunks: (n, d) and (m, d) float32 as the model gives them; a memory map will do.
        ids: (m,) ids, which order equal scores.
        k: Cut to the number of chunks.
        dimension: Only the first so many numbers of each vector are used (Matryoshka); they are
            scaled to length 1 again for cosine only.
        without: For each query, rows of ``chunks`` it must not be given. Where fewer than ``k``
            are left, the rest of its row is index -1 with a score of minus infinity.

    Memory beyond the vectors is bounded by a block, whatever the number of chunks.
    """
    chosen = dimension or queries.shape[1]
    return nearest_at(
        queries, chunks, ids, k, [chosen], similarity=similarity, without=without
    )[chosen]  # fmt: skip


def nearest_at(
    queries: Matrix,
    chunks: Matrix,
    ids: Sequence[str],
    k: int,
    dimensions: Iterable[int],
    *,
    similarity: Similarity = "cosine",
    without: Sequence[Rows] | None = None,
) -> dict[int, Neighbours]:
    """What ``nearest`` finds at each of several dimensions, from one pass over the chunks.

    It costs little more than the largest dimension alone: the products over the first 128
    columns are those over the first 64 plus the next 64.
    """
    k = min(k, len(ids))
    edges = sorted(set(dimensions))
    if not k or not len(queries):
        none = Neighbours(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k)))
        return dict.fromkeys(edges, none)
    ties = tie_breakers(ids)
    found: list[list[Neighbours]] = []
    for first in range(0, len(queries), QUERY_BLOCK):
        part = slice(first, first + QUERY_BLOCK)
        barred = without[part] if without is not None else None
        found += _search(queries[part], chunks, ties, k, edges, similarity, barred)
    return {
        edge: Neighbours(*(np.concatenate(parts) for parts in zip(*tiles, strict=True)))
        for edge, tiles in zip(edges, zip(*found, strict=True), strict=True)
    }


def similarities(
    queries: Matrix, chunks: Matrix, similarity: Similarity, *, scales: Matrix | None
) -> Matrix:
    """(n, m) float32 scores of all with all, as negative squared distances for euclidean.

    Args:
        scales: ``scales_of`` these chunks.
    """
    return _block_scores(_scaled(queries, similarity), _block(chunks, scales), similarity)


def scales_of(vectors: Matrix, similarity: Similarity) -> Matrix | None:
    """(n, 1) float32 factors that make the rows as long as 1, for cosine."""
    if similarity != "cosine":
        return None
    scales = np.empty((len(vectors), 1), np.float32)
    for first in range(0, len(vectors), CHUNK_BLOCK):
        part = np.asarray(vectors[first : first + CHUNK_BLOCK], np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", part, part))
        scales[first : first + CHUNK_BLOCK, 0] = 1 / np.maximum(norms, 1e-30)
    return scales


def pair_scores(
    queries: Matrix,
    chunks: Matrix,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    similarity: Similarity,
) -> npt.NDArray[np.float64]:
    """The score of query ``rows[i]`` with chunk ``columns[i]``, as ``nearest`` gives it."""
    exact = np.empty(len(rows))
    precise = np.asarray(queries, np.float64)
    for first in range(0, len(rows), PAIRS):
        part = slice(first, first + PAIRS)
        left = precise[rows[part]]
        right = chunks[columns[part]].astype(np.float64)
        if similarity == "euclidean":
            exact[part] = -np.sqrt(np.square(left - right).sum(axis=1))
        else:
            exact[part] = (left * right).sum(axis=1)
        if similarity == "cosine":
            for side in (left, right):
                norms = np.sqrt(np.einsum("ij,ij->i", side, side))
                exact[part] /= np.maximum(norms, 1e-30)
    return exact.round(DECIMALS)


def _scaled(vectors: Matrix, similarity: Similarity, dtype: type = np.float32) -> np.ndarray:
    if similarity != "cosine":
        return np.asarray(vectors, dtype=dtype)
    precise = np.asarray(vectors, dtype=np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", precise, precise))
    return (precise / np.maximum(norms, 1e-30)[:, None]).astype(dtype)


def _block(chunks: Matrix, scales: np.ndarray | None) -> Matrix:
    block = np.asarray(chunks, np.float32)
    return block if scales is None else block * scales


def _block_scores(queries: Matrix, block: Matrix, similarity: Similarity) -> Matrix:
    scores = queries @ block.T
    if similarity == "euclidean":
        scores *= 2
        scores -= np.einsum("ij,ij->i", block, block)
        scores -= np.einsum("ij,ij->i", queries, queries)[:, None]
    return scores


class _Kept(NamedTuple):
    """Entries of the score matrix: query, chunk, score."""

    rows: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]

    def of(self, chosen: np.ndarray) -> "_Kept":
        return _Kept(self.rows[chosen], self.columns[chosen], self.scores[chosen])

    @classmethod
    def joined(cls, parts: Iterable["_Kept"]) -> "_Kept":
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _Side(NamedTuple):
    """One block of chunks between two edges, as ``_collect`` multiplies it."""

    factors: Matrix  # (m, width + 3)
    scale: npt.NDArray[np.float32]  # (m,) what a score is multiplied by
    largest: np.float32  # norm of a chunk


class _Best:
    """What may be among the ``k`` best chunks of some queries at one edge, as far as was looked.

    The float32 scores order the chunks of one query; they are as long as the query for cosine,
    and half of (the query's square less the squared distance) for euclidean.

    Args:
        lengths: Norms of the queries as they are multiplied.
        barred: ``row * len(chunks) + column`` of what must not be found.
    """

    def __init__(
        self, queries: Matrix, lengths: np.ndarray, chunks: Matrix, ties: np.ndarray, k: int,
        similarity: Similarity, barred: Rows,
    ) -> None:  # fmt: skip
        self._queries, self._lengths, self._chunks, self._ties = queries, lengths, chunks, ties
        self._k, self._similarity, self._barred = k, similarity, barred
        self._floor = np.full(len(queries), -np.inf, np.float32)  # score of the k-th best so far
        self._largest = np.float32(-1)
        nothing = np.zeros(0, np.int32)
        self._parts, self._fresh = [_Kept(nothing, nothing, np.zeros(0, np.float32))], 0

    def expect(self, largest: np.float32) -> None:
        """Chunks of up to this norm are coming."""
        if largest <= self._largest:
            return
        self._largest = largest
        # float32 products may be off by this much, and what they decide is rounded in the end
        if self._similarity == "cosine":
            self._reach = self._lengths
            self._slack = 1e-5 * self._reach
        elif self._similarity == "dot":
            self._reach = self._lengths * largest
            self._slack = 1e-5 * self._reach + 1e-8
        else:
            self._reach = (self._lengths + largest) ** 2
            self._slack = 1e-5 * self._reach + 1e-8 * (self._lengths + largest)
        self._aim()

    def _aim(self) -> None:
        unknown = np.isneginf(self._floor)
        self.wanted = np.where(unknown, -2 * self._reach, self._floor - self._slack)

    def start(self, scores: Matrix) -> npt.NDArray[np.bool_]:
        """Which of the first chunks may be among the best, from the scores of all of them."""
        if scores.shape[1] > self._k and not len(self._barred):
            self._floor = np.partition(scores, -self._k, axis=1)[:, -self._k]
            self._aim()
        return scores >= self.wanted[:, None]

    def add(self, more: _Kept) -> None:
        self._parts.append(more)
        self._fresh += len(more.rows)
        if self._fresh >= len(self._floor) * max(self._k, 64):
            self._settle()

    def _settle(self) -> None:
        kept = _Kept.joined(self._parts)
        if len(self._barred):
            entries = kept.rows.astype(np.int64) * len(self._chunks) + kept.columns
            kept = kept.of(~np.isin(entries, self._barred))
        counts = np.bincount(kept.rows, minlength=len(self._floor))
        full = np.flatnonzero(counts >= self._k)
        keys = np.sort((kept.rows.astype(np.int64) << 32) + _sortable(kept.scores))
        kth = keys[np.cumsum(counts)[full] - self._k] - (full << 32)
        self._floor[full] = _sortable(kth.astype(np.int32).view(np.float32)).view(np.float32)
        kept = kept.of(kept.scores >= (self._floor - self._slack)[kept.rows])
        crowded = np.bincount(kept.rows, minlength=len(self._floor)) > 4 * self._k
        if crowded.any():  # vectors that are equal, or nearly: only exact scores and ties part them
            among = crowded[kept.rows]
            some = kept.of(among)
            kept = _Kept.joined([kept.of(~among), some.of(self._in_order(some)[0])])
        self._parts, self._fresh = [kept], 0
        self._aim()

    def _in_order(self, kept: _Kept) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Which are the ``k`` best of their query, query by query, best first; their scores."""
        exact = pair_scores(self._queries, self._chunks, kept.rows, kept.columns, self._similarity)
        order = np.lexsort((self._ties[kept.columns], -exact, kept.rows))
        order = order[_place_in_row(kept.rows[order]) < self._k]
        return order, exact[order]

    def neighbours(self) -> Neighbours:
        self._settle()
        kept = self._parts[0]
        order, exact = self._in_order(kept)
        rows, place = kept.rows[order], _place_in_row(kept.rows[order])
        shape = len(self._floor), self._k
        found = Neighbours(np.full(shape, -1, np.int64), np.full(shape, -np.inf))
        found.indices[rows, place], found.scores[rows, place] = kept.columns[order], exact
        return found


def _sortable(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Whole numbers in the order of the scores; the bits of one are made the other's again."""
    bits = scores.view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _search(
    queries: Matrix,
    chunks: Matrix,
    ties: np.ndarray,
    k: int,
    edges: Sequence[int],
    similarity: Similarity,
    without: Sequence[Rows] | None,
) -> list[list[Neighbours]]:
    """For each tile of queries, the neighbours at each edge."""
    tiles = [
        _tile(
            np.asarray(queries[first : first + TILE, : edges[-1]], np.float32),
            chunks, ties, k, edges, similarity,
            without[first : first + TILE] if without is not None else (),
        )
        for first in range(0, len(queries), TILE)
    ]  # fmt: skip
    width = min(CHUNK_BLOCK, TILE * TILE // min(TILE, len(queries)))
    starts = np.arange(0, len(chunks), width)
    # chunks of one kind often lie together; floors rise sooner when all kinds are met early
    order = np.random.default_rng(0).permutation(starts).tolist()
    for number, first in enumerate(order):
        block = np.asarray(chunks[first : first + width, : edges[-1]], np.float32)
        blocks = _chunk_sides(block, edges, similarity)
        for sides, bests in tiles:
            _look(sides, bests, blocks, first, start=number == 0)
    return [[best.neighbours() for best in bests] for _, bests in tiles]


def _tile(
    queries: Matrix, chunks: Matrix, ties: np.ndarray, k: int, edges: Sequence[int],
    similarity: Similarity, without: Sequence[Rows],
) -> tuple[list[Matrix], list[_Best]]:  # fmt: skip
    """For each edge, what the chunks' factors are multiplied by, and what was found: nothing."""
    barred = [row * len(chunks) + columns for row, columns in enumerate(without)]
    entries = np.concatenate([*barred, np.zeros(0, np.int64)]).astype(np.int64)
    scaled = _scaled(queries, similarity)
    ones = np.ones((len(queries), 3), np.float32)
    sides = [
        np.concatenate([scaled[:, low:high], ones], axis=1)
        for low, high in itertools.pairwise((0, *edges))
    ]
    bests = [
        _Best(queries[:, :edge], np.linalg.norm(scaled[:, :edge], axis=1), chunks[:, :edge], ties,
              k, similarity, entries)
        for edge in edges
    ]  # fmt: skip
    return sides, bests


def _look(
    queries: Sequence[Matrix], bests: Sequence[_Best], chunks: Sequence[_Side], first: int,
    *, start: bool,
) -> None:  # fmt: skip
    """Add to each edge's best the chunks of this block that may be among them.

    With q · c over the columns so far, a chunk is wanted where (q · c + shift) / scale ≥ wanted,
    that is q · c + shift - wanted · scale ≥ 0. The last three factors make the product just that
    (and undo it for the edge before), so that all scores are compared with 0 in one go.
    """
    total, before = np.float32(0), np.float32(0)
    for factors, best, block in zip(queries, bests, chunks, strict=True):
        best.expect(block.largest)
        wanted = best.wanted
        factors[:, -3], factors[:, -2] = -wanted, before
        total = np.add(factors @ block.factors.T, total)
        before = wanted
        passed = total >= 0
        if start:
            passed &= best.start(total / block.scale + wanted[:, None])
        flat = np.flatnonzero(passed)
        rows, columns = np.divmod(flat.astype(np.int32), np.int32(len(block.scale)))
        scores = total.ravel()[flat] / block.scale[columns] + wanted[rows]
        best.add(_Kept(rows, columns + np.int32(first), scores))


def _chunk_sides(block: Matrix, edges: Sequence[int], similarity: Similarity) -> list[_Side]:
    parts = [block[:, low:high] for low, high in itertools.pairwise((0, *edges))]
    squares = np.cumsum(
        [np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in parts], axis=0
    )
    sides = []
    if similarity == "cosine":
        factor = 1 / np.maximum(np.sqrt(squares[-1]), 1e-30)
        squares = squares * factor**2
        parts = [part * factor[:, None].astype(np.float32) for part in parts]
    scale_before = shift_before = np.zeros(len(block), np.float32)
    for part, square in zip(parts, squares, strict=True):
        norm = np.sqrt(square).astype(np.float32)
        scale = np.ones_like(norm)
        shift = np.zeros_like(norm)
        if similarity == "cosine":
            scale = np.where(norm > 0, norm, scale)
        elif similarity == "euclidean":
            shift = (-square / 2).astype(np.float32)
        factors = np.column_stack([part, scale, scale_before, shift - shift_before])
        sides.append(_Side(factors, scale, norm.max()))
        scale_before, shift_before = scale, shift
    return sides


def _place_in_row(rows: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else rows
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))


def vectors_on_disk(
    embedder: Embedder, texts: Iterable[str], role: Role, *, folder: Path | None = None
) -> Matrix:
    """(n, d) float32: the checked vectors of ``texts``, mapped from a file without a name.

    Memory holds one portion at a time, of texts as of vectors. The file lies in ``folder`` (the
    system's temporary one by default) and is gone when nobody holds the vectors any more.

    Raises:
        IntegrityError: See ``check_vectors``.
        ResourceError: The disk is full.
    """
    remaining, count, width = iter(texts), 0, 0
    with (
        disk_errors(folder or Path(tempfile.gettempdir())),
        tempfile.TemporaryFile(dir=folder) as file,
    ):
        while part := list(itertools.islice(remaining, CHUNK_BLOCK)):
            vectors = embedder.embed(part, role)
            check_vectors(vectors, part, embedder.name)
            file.write(np.ascontiguousarray(vectors, np.float32).data)
            count, width = count + len(part), vectors.shape[1]
        file.flush()
        if not count:
            return np.zeros((0, embedder.dimension), np.float32)
        return np.memmap(file, np.float32, mode="r", shape=(count, width))


class DenseRetriever:
    """Search over chunks with one embedder. The vectors are kept; queries are embedded anew."""

    def __init__(self, embedder: Embedder, chunks: Sequence[Chunk]) -> None:
        self.name = embedder.name
        self._embedder = embedder
        self._ids = [chunk.id for chunk in chunks]
        texts = [chunk.embedded for chunk in chunks]
        self._vectors = embedder.embed(texts, "document")
        check_vectors(self._vectors, texts, embedder.name)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        vectors = self._embedder.embed(queries, "query")
        check_vectors(vectors, queries, self.name)
        found = nearest(vectors, self._vectors, self._ids, k, similarity=self._embedder.similarity)
        return [
            [Hit(self._ids[index], float(score)) for index, score in zip(*row, strict=True)]
            for row in zip(found.indices, found.scores, strict=True)
        ]
