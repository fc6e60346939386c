"""Approximate nearest neighbours by FAISS: an inverted file (IVF), its lists mapped from disk.

Training and adding have a fixed seed and order, so that equal vectors make an equal index (a graph
as HNSW makes it depends on the timing of its threads).
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple  # FAISS has no types

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix, Similarity
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import visible

logger = logging.getLogger(__name__)

FEWEST = 4096  # vectors; exact search of fewer takes no time
SAMPLE = 200  # passages that are searched with, to measure recall
RECALL = 0.98  # lists are read until this share of the exact ten is found
BLOCK = 16384
INSTALL = "pip install 'embedtune[faiss]'"

Rows = npt.NDArray[np.int64]


class Made(NamedTuple):
    """``probes``: lists read for a query. ``recall``: of the exact ten best, those found."""

    probes: int
    recall: float
    write: Callable[[Path], None]


def build(vectors: Matrix, similarity: Similarity) -> Made:
    """An index of the rows of ``vectors``, and how many of its lists a search must read.

    Recall is measured with passages as queries, each looking for the ten nearest others.

    Raises:
        ConfigError: FAISS is not installed, or there are too few vectors.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(f"--approximate needs FAISS: {INSTALL}") from error
    count, width = vectors.shape
    if count < FEWEST:
        raise ConfigError(
            f"--approximate: {count:,} passages are searched exactly in no time; expected at "
            f"least {FEWEST:,}"
        )
    lists = min(int(4 * math.sqrt(count)), count // 39)  # FAISS wants 39 vectors a list
    euclidean = similarity == "euclidean"
    metric = faiss.METRIC_L2 if euclidean else faiss.METRIC_INNER_PRODUCT
    coarse = faiss.IndexFlatL2(width) if euclidean else faiss.IndexFlatIP(width)
    index = faiss.IndexIVFFlat(coarse, width, lists, metric)
    index.cp.seed = 0
    chosen = np.sort(np.random.default_rng(0).choice(count, min(count, 64 * lists), replace=False))
    index.train(_prepared(vectors[chosen], similarity))
    for first in range(0, count, BLOCK):
        index.add(_prepared(vectors[first : first + BLOCK], similarity))
    probes, recall = _tuned(index, vectors, similarity, lists)
    return Made(probes, recall, lambda path: faiss.write_index(index, str(path)))


def load(path: Path) -> Any | None:
    """The index of FAISS in a file; None where FAISS is not installed.

    Raises:
        IntegrityError: The file is none.
    """
    try:
        import faiss
    except ImportError:
        logger.warning("FAISS is not installed, the search is exact and slower; %s", INSTALL)
        return None
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise IntegrityError(f"{path}: no index of FAISS ({visible(error)})") from error


def candidates(
    index: Any, queries: Matrix, k: int, probes: int, similarity: Similarity
) -> list[Rows]:
    """For each query the rows that may be among its best ``k``."""
    import faiss

    parameters = faiss.SearchParametersIVF(nprobe=probes)
    _, rows = index.search(_prepared(queries, similarity), k + 10, params=parameters)
    return [row[row >= 0] for row in rows]


def _prepared(vectors: Matrix, similarity: Similarity) -> Matrix:
    block = np.ascontiguousarray(vectors, np.float32)
    if similarity != "cosine":
        return block
    return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)


def _tuned(index: Any, vectors: Matrix, similarity: Similarity, lists: int) -> tuple[int, float]:
    """The fewest probes, doubled from 4, with enough recall; and the recall."""
    import faiss

    count = len(vectors)
    sample = np.sort(np.random.default_rng(1).choice(count, SAMPLE, replace=False))
    queries = _prepared(vectors[sample], similarity)
    exact = index.search(queries, 11, params=faiss.SearchParametersIVF(nprobe=lists))[1]
    probes = 4
    while True:
        parameters = faiss.SearchParametersIVF(nprobe=min(probes, lists))
        found = index.search(queries, 11, params=parameters)[1]
        recall = float(np.mean([
            len({*one} & {*other} - {own}) / len({*one} - {own})
            for own, one, other in zip(sample.tolist(), exact.tolist(), found.tolist(), strict=True)
        ]))  # fmt: skip
        if recall >= RECALL or probes >= lists:
            return min(probes, lists), recall
        probes *= 2
