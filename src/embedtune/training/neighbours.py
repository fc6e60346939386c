"""Which pairs the base finds alike: in one batch, their passages are hard negatives of each other
at no further cost (Hofstätter et al. 2021, arXiv:2104.06967; Merrick 2024, arXiv:2407.18887).
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from embedtune.embed import Matrix
from embedtune.records import Pair, Role
from embedtune.training.ranking import Excluded

log = logging.getLogger(__name__)

NEAREST = 32  # that are known of a pair; most of them are taken by others
MOST_PAIRS = 20_000  # beyond, one epoch is trained, and reading all texts first costs a quarter
BLOCK = 1024  # rows compared at once
CLOSEST = 3  # that a pair would meet first
DOUBT = 0.5  # share of their passages that may be above a query's own, as the base ranks them


def nearest_pairs(
    pairs: Sequence[Pair], excluded: Excluded, embed: Callable[[Sequence[str], Role], Matrix]
) -> list[list[int]]:
    """For each pair the places of those nearest to it, nearest first; those left out whose passage
    is masked for the other.

    How near two are is the cosine of the query of each with the passage of the other, added. Where
    the base would often rank the neighbour's passage above the own one, neighbours are answers that
    nobody judged (rows of paraphrases are such), or the base cannot tell: then none are given.
    """
    queries = _units([pair.anchor for pair in pairs], "query", embed)
    passages = _units([pair.positive for pair in pairs], "document", embed)
    barred = [excluded(pair.query) for pair in pairs]
    found, doubtful, asked = [], 0, 0
    for first in range(0, len(pairs), BLOCK):
        scores = queries[first : first + BLOCK] @ passages.T
        nearness = scores + passages[first : first + BLOCK] @ queries.T
        for row, order in enumerate(np.argsort(-nearness, axis=1, kind="stable"), first):
            others = order[order != row][:NEAREST].tolist()
            own = [
                other
                for other in others
                if pairs[other].chunk not in barred[row] and pairs[row].chunk not in barred[other]
            ]
            found.append(own)
            closest = scores[row - first, own[:CLOSEST]]
            doubtful += int((closest > scores[row - first, row]).sum())
            asked += len(closest)
    if doubtful > DOUBT * asked:
        log.warning(
            "batches are drawn at random: of the pairs nearest to each other %.0f %% have a "
            "passage that the base ranks above the query's own", 100 * doubtful / asked,
        )  # fmt: skip
        return []
    return found


def _units(
    texts: Sequence[str], role: Role, embed: Callable[[Sequence[str], Role], Matrix]
) -> Matrix:
    """Vectors of length 1, each different text embedded once."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = embed(list(place), role)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12))[[place[text] for text in texts]]
