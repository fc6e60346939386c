"""Which pairs the base finds alike: in one batch, their passages are hard negatives of each other
at no further cost (Hofstätter et al. 2021, arXiv:2104.06967; Merrick 2024, arXiv:2407.18887).
"""

from collections.abc import Callable, Sequence

import numpy as np

from embedtune.embed import Matrix
from embedtune.records import Pair, Role

NEAREST = 32  # that are known of a pair; most of them are taken by others or are no negatives
MOST_PAIRS = 20_000  # beyond, one epoch is trained, and reading all texts first costs a quarter
BLOCK = 1024  # rows compared at once


def nearest_pairs(
    pairs: Sequence[Pair], embed: Callable[[Sequence[str], Role], Matrix]
) -> list[list[int]]:
    """For each pair the places of those nearest to it, nearest first.

    How near two are is the cosine of the query of each with the passage of the other, added.
    """
    queries = _units([pair.anchor for pair in pairs], "query", embed)
    passages = _units([pair.positive for pair in pairs], "document", embed)
    most = min(NEAREST, len(pairs) - 1)
    found = []
    for first in range(0, len(pairs), BLOCK):
        rows = slice(first, first + BLOCK)
        nearness = queries[rows] @ passages.T + passages[rows] @ queries.T
        own = np.arange(len(nearness))
        nearness[own, first + own] = -np.inf
        order = np.argsort(-nearness, axis=1, kind="stable")
        found += order[:, :most].tolist()
    return found


def _units(
    texts: Sequence[str], role: Role, embed: Callable[[Sequence[str], Role], Matrix]
) -> Matrix:
    """Vectors of length 1, each different text embedded once."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = embed(list(place), role)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12))[[place[text] for text in texts]]
