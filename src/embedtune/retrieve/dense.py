"""Exact nearest neighbours, block by block.

The scores of one block are computed in float32 with one matrix product. What may still belong
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

CHUNK_BLOCK = 8192  # 2048 x 8192 float32 scores: 64 MiB at a time
QUERY_BLOCK = 2048
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
    k = min(k, len(ids))
    if not k or not len(queries):
        return Neighbours(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k)))
    ties = tie_breakers(ids)
    chunks = chunks[:, :dimension]
    scales = scales_of(chunks, similarity)
    found = []
    for first in range(0, len(queries), QUERY_BLOCK):
        part = slice(first, first + QUERY_BLOCK)
        barred = without[part] if without is not None else ()
        found.append(_nearest_block(queries[part, :dimension], chunks, scales, ties, k,
                                    similarity, barred))  # fmt: skip
    return Neighbours(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


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
    precise = _scaled(queries, similarity, np.float64)
    for first in range(0, len(rows), CHUNK_BLOCK):
        part = slice(first, first + CHUNK_BLOCK)
        left = precise[rows[part]]
        right = _scaled(chunks[columns[part]], similarity, np.float64)
        if similarity == "euclidean":
            exact[part] = -np.sqrt(np.square(left - right).sum(axis=1))
        else:
            exact[part] = (left * right).sum(axis=1)
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

    rows: np.ndarray
    columns: np.ndarray
    scores: np.ndarray

    def of(self, chosen: np.ndarray) -> "_Kept":
        return _Kept(self.rows[chosen], self.columns[chosen], self.scores[chosen])


def _nearest_block(
    raw_queries: Matrix,
    chunks: Matrix,
    scales: np.ndarray | None,
    ties: np.ndarray,
    k: int,
    similarity: Similarity,
    without: Sequence[Rows],
) -> Neighbours:
    queries = _scaled(raw_queries, similarity)
    count = len(queries)
    barred_rows = np.repeat(np.arange(count), [len(rows) for rows in without] or 0)
    barred = np.concatenate([*without, np.zeros(0, np.int64)]).astype(np.int64)
    lowest = np.finfo(np.float32).min  # what is barred lies below it
    floor = np.full(count, -np.inf, np.float32)  # score of the k-th best so far
    kept = _Kept(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    fresh: list[_Kept] = []
    slack = 0.0
    for first in range(0, len(chunks), CHUNK_BLOCK):
        part = slice(first, first + CHUNK_BLOCK)
        block = _block(chunks[part], None if scales is None else scales[part])
        scores = _block_scores(queries, block, similarity)
        # float32 products may be off by this much; equal vectors must not be lost to it
        size = 1.0 if similarity == "cosine" else float(np.abs(scores).max())
        slack = max(slack, 1e-5 * max(1.0, size))
        here = (barred >= first) & (barred < first + len(block))
        scores[barred_rows[here], barred[here] - first] = -np.inf
        if first == 0 and len(block) > k:
            floor = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
        flat = np.flatnonzero(scores >= np.maximum(floor - slack, lowest)[:, None])
        rows, columns = np.divmod(flat, len(block))
        fresh.append(_Kept(rows, columns + first, scores.ravel()[flat]))
        last = first + CHUNK_BLOCK >= len(chunks)
        if last or sum(len(some.rows) for some in fresh) >= count * k:
            kept, floor = _best([kept, *fresh], floor, slack, ties, k)
            fresh = []
    exact = pair_scores(raw_queries, chunks, kept.rows, kept.columns, similarity)
    order = np.lexsort((ties[kept.columns], -exact, kept.rows))
    place = _place_in_row(kept.rows[order])
    order, place = order[place < k], place[place < k]
    found = Neighbours(np.full((count, k), -1, np.int64), np.full((count, k), -np.inf))
    found.indices[kept.rows[order], place] = kept.columns[order]
    found.scores[kept.rows[order], place] = exact[order]
    return found


def _best(
    parts: Sequence[_Kept], floor: np.ndarray, slack: float, ties: np.ndarray, k: int
) -> tuple[_Kept, np.ndarray]:
    """What may still be among the k best of its row, and the new floor."""
    kept = _Kept(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    kept = kept.of(np.lexsort((ties[kept.columns], -kept.scores, kept.rows)))
    place = _place_in_row(kept.rows)
    last = place == k - 1
    floor = floor.copy()
    floor[kept.rows[last]] = kept.scores[last]
    # ties beyond 4 k are cut by the same hash that orders them
    return kept.of((kept.scores >= floor[kept.rows] - slack) & (place < 4 * k)), floor


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
