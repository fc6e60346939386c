"""What a random ranking scores."""

import math
from collections.abc import Iterable


def chance_ndcg(grades: Iterable[int], corpus: int, k: int = 10) -> float:
    """Expected nDCG@k of a random ranking: (R/N) * sum of 1/log2(i+1) for i <= k, over the ideal.

    With grades, R is their sum.

    Args:
        corpus: Number of different texts searched.
    """
    gains = sorted((grade for grade in grades if grade > 0), reverse=True)
    if not gains:
        return 0.0
    k = min(k, corpus)
    discounts = [1 / math.log2(place + 2) for place in range(k)]
    ideal = sum(gain * discount for gain, discount in zip(gains, discounts, strict=False))
    return sum(gains) / corpus * sum(discounts) / ideal


def chance_hit(relevant: int, corpus: int, k: int) -> float:
    """Probability that a random ranking has one of ``relevant`` among its first ``k``
    (hypergeometric)."""
    missed = 1.0
    for draw in range(min(k, corpus)):
        missed *= max(0, corpus - relevant - draw) / (corpus - draw)
    return 1 - missed
