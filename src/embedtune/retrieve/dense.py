"""Exact nearest neighbours, block by block.

The scores of one block are computed in float32 with one matrix product. What may still belong
to a query's best ``k`` is kept; at the end these few are scored again in float64, so that equal
vectors have equal scores wherever they stand, and ordered by score, then by a hash of the id.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedtune.embed import Embedder, Matrix, Similarity
from embedtune.errors import IntegrityError
from embedtune.files import visible
from embedtune.records import Chunk
from embedtune.retrieve import Hit
from embedtune.retrieve.order import tie_breakers

logger = logging.getLogger(__name__)

CHUNK_BLOCK = 8192  # 512 x 8192 float32 scores: 16 MiB at a time
QUERY_BLOCK = 512
DECIMALS = 9  # scores closer than this are equal


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


def _scaled(vectors: Matrix, similarity: Similarity, dtype: type = np.float32) -> np.ndarray:
    if similarity != "cosine":
        return np.asarray(vectors, dtype=dtype)
    precise = np.asarray(vectors, dtype=np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", precise, precise))
    return (precise / np.maximum(norms, 1e-30)[:, None]).astype(dtype)


def nearest(
    queries: Matrix,
    chunks: Matrix,
    ids: Sequence[str],
    k: int,
    *,
    similarity: Similarity = "cosine",
    dimension: int | None = None,
) -> Neighbours:
    """The ``k`` best chunks of each query, exactly. Euclidean scores are negative distances.

    Args:
        queries, chunks: (n, d) and (m, d) float32 as the model gives them; a memory map will do.
        ids: (m,) ids, which order equal scores.
        k: Cut to the number of chunks.
        dimension: Only the first so many numbers of each vector are used (Matryoshka); they are
            scaled to length 1 again for cosine only.

    Memory beyond the vectors is bounded by a block, whatever the number of chunks.
    """
    k = min(k, len(ids))
    if not k or not len(queries):
        return Neighbours(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k)))
    ties = tie_breakers(ids)
    found = [
        _nearest_block(queries[first : first + QUERY_BLOCK, :dimension], chunks[:, :dimension],
                       ties, k, similarity)
        for first in range(0, len(queries), QUERY_BLOCK)
    ]  # fmt: skip
    return Neighbours(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _nearest_block(
    raw_queries: Matrix, chunks: Matrix, ties: np.ndarray, k: int, similarity: Similarity
) -> Neighbours:
    queries = _scaled(raw_queries, similarity)
    query_norms = np.einsum("ij,ij->i", queries, queries)
    floor = np.full(len(queries), -np.inf, np.float32)  # score of the k-th best so far
    kept_rows = np.zeros(0, np.int64)
    kept_columns = np.zeros(0, np.int64)
    kept_scores = np.zeros(0, np.float32)
    for first in range(0, len(chunks), CHUNK_BLOCK):
        block = _scaled(chunks[first : first + CHUNK_BLOCK], similarity)
        scores = queries @ block.T
        if similarity == "euclidean":
            scores *= 2
            scores -= np.einsum("ij,ij->i", block, block)
            scores -= query_norms[:, None]
        # float32 products may be off by this much; equal vectors must not be lost to it
        slack = 1e-5 * (1 if similarity == "cosine" else max(1.0, float(np.abs(scores).max())))
        if not np.isfinite(floor[0]) and scores.shape[1] > k:
            best = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
            floor = np.maximum(floor, best)
        flat = np.flatnonzero(scores >= (floor - slack)[:, None])
        rows, columns = np.divmod(flat, scores.shape[1])
        kept_rows = np.concatenate([kept_rows, rows])
        kept_columns = np.concatenate([kept_columns, columns + first])
        kept_scores = np.concatenate([kept_scores, scores.ravel()[flat]])
        order = np.lexsort((ties[kept_columns], -kept_scores, kept_rows))
        kept_rows, kept_columns, kept_scores = (
            kept_rows[order],
            kept_columns[order],
            kept_scores[order],
        )
        place = _place_in_row(kept_rows)
        last = place == k - 1
        floor[kept_rows[last]] = kept_scores[last]
        # ties beyond 4 k are cut by the same hash that orders them
        keep = (kept_scores >= floor[kept_rows] - slack) & (place < 4 * k)
        kept_rows, kept_columns, kept_scores = (
            kept_rows[keep],
            kept_columns[keep],
            kept_scores[keep],
        )
    exact = _exact_scores(raw_queries, chunks, kept_rows, kept_columns, similarity)
    order = np.lexsort((ties[kept_columns], -exact, kept_rows))
    chosen = order[_place_in_row(kept_rows[order]) < k]
    shape = (len(queries), k)
    return Neighbours(kept_columns[chosen].reshape(shape), exact[chosen].reshape(shape))


def _place_in_row(rows: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else rows
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))


def _exact_scores(
    queries: Matrix, chunks: Matrix, rows: np.ndarray, columns: np.ndarray, similarity: Similarity
) -> np.ndarray:
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
