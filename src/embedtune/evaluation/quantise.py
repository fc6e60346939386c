"""Vectors in fewer bytes, searched as an index searches them.

``int8`` stores each number as one of 256 steps between the least and the greatest that calibration
vectors have in that dimension, and compares the query as it is with the decoded rows (as FAISS'
SQ8 does). ``binary`` stores signs, and counts the bits in which query and row differ.
``binary+rescore`` lets the bits find 4 times as many as are wanted, and orders these by the
original vectors, which then lie on a disk (pgvector's and Qdrant's way).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix, Similarity
from embedtune.errors import ConfigError
from embedtune.retrieve import dense
from embedtune.retrieve.order import tie_breakers

Precision = Literal["float32", "float16", "int8", "binary", "binary+rescore"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RESCORED = 4  # times the hits wanted
STEPS = 255


@dataclass(frozen=True, slots=True)
class Quantised:
    """Rows as an index keeps them.

    ``codes``: (n, d) float32, float16 or int8, or (n, words) uint64 of bits. ``low`` and ``step``:
    (d,) float32, of int8. ``exact``: (n, d) float32, of binary+rescore.
    """

    precision: Precision
    similarity: Similarity
    dimension: int
    codes: npt.NDArray[np.generic]
    low: Matrix | None = None
    step: Matrix | None = None
    exact: Matrix | None = None

    def decoded(self) -> Matrix:
        """(n, d) float32: what the codes stand for; signs as 1 and -1."""
        if self.codes.dtype == np.uint64:
            bits = np.unpackbits(self.codes.view(np.uint8), axis=1, count=self.dimension)
            return bits.astype(np.float32) * 2 - 1
        if self.low is None or self.step is None:
            return self.codes.astype(np.float32, copy=False)
        return (self.codes.astype(np.float32) + 128) * self.step + self.low


def quantise(
    vectors: Matrix,
    precision: Precision,
    *,
    similarity: Similarity = "cosine",
    calibration: Matrix | None = None,
) -> Quantised:
    """(n, d) float32 vectors as an index of that precision keeps them.

    For cosine they are scaled to length 1 first, so that a shortened vector may be given as it
    was cut.

    Args:
        calibration: Vectors that the ranges of int8 are taken from; ``vectors`` themselves by
            default. What lies outside of a range is put at its end.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    rows = _prepared(vectors, similarity)
    dimension = rows.shape[1]
    if precision in ("float32", "float16"):
        return Quantised(precision, similarity, dimension, rows.astype(precision))
    if precision == "int8":
        known = rows if calibration is None else _prepared(calibration, similarity)
        low, high = known.min(axis=0), known.max(axis=0)
        step = np.maximum((high - low) / np.float32(STEPS), np.finfo(np.float32).tiny)
        codes = np.clip(np.rint((rows - low) / step), 0, STEPS) - 128
        return Quantised(precision, similarity, dimension, codes.astype(np.int8), low, step)
    exact = rows if precision == "binary+rescore" else None
    return Quantised(precision, similarity, dimension, _signs(rows), exact=exact)


def bytes_per_vector(dimension: int, precision: Precision) -> int:
    """What the search keeps in memory of each vector. ``binary+rescore`` has the original, of 4
    bytes a number, on a disk besides."""
    if precision in ("binary", "binary+rescore"):
        return -(-dimension // 8)
    return dimension * np.dtype(precision).itemsize


def scores(queries: Matrix, index: Quantised) -> Matrix:
    """(n, m) float32 of all with all, greater is better: cosine or dot, negative distances, and
    for bits 1 less twice the share in which they differ. Nothing is rescored."""
    asked = _prepared(queries, index.similarity)
    if index.codes.dtype != np.uint64:
        return _by_decoded(asked, index.decoded(), index.similarity)
    made = np.empty((len(asked), len(index.codes)), np.float32)
    for row, bits in enumerate(_signs(asked)):
        made[row] = _agreement(_differences(bits, index.codes), index.dimension)
    return made


def nearest(
    queries: Matrix, index: Quantised, ids: Sequence[str], k: int, *, rescored: int | None = None
) -> dense.Neighbours:
    """The ``k`` best rows of each query, as `retrieve.dense.nearest` gives them: equal scores, of
    which bits have many, are ordered by a hash of the id.

    Args:
        rescored: How many the bits find for binary+rescore, ``k`` at least; None: 4 times ``k``.
    """
    asked = _prepared(queries, index.similarity)
    plain: Similarity = "dot" if index.similarity == "cosine" else index.similarity
    if index.codes.dtype != np.uint64:
        return dense.nearest(asked, index.decoded(), ids, k, similarity=plain)
    k = min(k, len(ids))
    found = dense.Neighbours(np.zeros((len(asked), k), np.int64), np.zeros((len(asked), k)))
    ties = tie_breakers(ids)
    wanted = k
    if index.exact is not None:
        wanted = min(max(k, rescored or k * RESCORED), len(ids))
    for row, bits in enumerate(_signs(asked)):
        differing = _differences(bits, index.codes)
        rows = _least(differing, ties, wanted)
        if index.exact is None:
            values = _agreement(differing[rows], index.dimension).astype(np.float64)
        else:
            pairs = np.zeros(len(rows), np.int64)
            values = dense.pair_scores(asked[row : row + 1], index.exact, pairs, rows, plain)
            best = np.lexsort((ties[rows], -values))[:k]
            rows, values = rows[best], values[best]
        found.indices[row], found.scores[row] = rows, values
    return found


def _prepared(vectors: Matrix, similarity: Similarity) -> Matrix:
    rows = np.asarray(vectors, np.float32)
    scales = dense.scales_of(rows, similarity)
    return rows if scales is None else rows * scales


def _by_decoded(queries: Matrix, rows: Matrix, similarity: Similarity) -> Matrix:
    if similarity != "euclidean":
        return queries @ rows.T
    squares = dense.similarities(queries, rows, "euclidean", scales=None)
    return -np.sqrt(np.maximum(-squares, 0))


def _signs(rows: Matrix) -> npt.NDArray[np.uint64]:
    """(n, words): one bit a number, set where it is above 0; the last word is filled with zeros."""
    bits = np.packbits(rows > 0, axis=1)
    filled = np.zeros((len(rows), -(-bits.shape[1] // 8) * 8), np.uint8)
    filled[:, : bits.shape[1]] = bits
    return filled.view(np.uint64)


def _differences(bits: np.ndarray, codes: np.ndarray) -> npt.NDArray[np.int64]:
    """(m,): Hamming distances."""
    return np.bitwise_count(codes ^ bits).sum(axis=1, dtype=np.int64)


def _agreement(differing: npt.NDArray[np.int64], dimension: int) -> Matrix:
    return (1 - 2 * differing / dimension).astype(np.float32)


def _least(values: np.ndarray, ties: np.ndarray, k: int) -> npt.NDArray[np.int64]:
    """The ``k`` rows of least value, least first, equal ones by the hash."""
    if k < len(values):
        rows = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    else:
        rows = np.arange(len(values))
    return rows[np.lexsort((ties[rows], values[rows]))][:k]
