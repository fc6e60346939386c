"""Chance levels against counting every ranking."""

import math
from itertools import permutations

import pytest

from embedtune.chance import chance_hit, chance_ndcg


def mean_over_rankings(grades, corpus, k):
    """(nDCG@k, hit@k), averaged over all orders of a small corpus."""
    gains = [*grades, *[0] * (corpus - len(grades))]
    ideal = sum(gain / math.log2(place + 2)
                for place, gain in enumerate(sorted(grades, reverse=True)[:k]))  # fmt: skip
    ndcg, hit, total = 0.0, 0, 0
    for order in permutations(gains):
        ndcg += sum(gain / math.log2(place + 2) for place, gain in enumerate(order[:k])) / ideal
        hit += any(order[:k])
        total += 1
    return ndcg / total, hit / total


@pytest.mark.parametrize(("grades", "corpus", "k"), [
    ([1], 5, 2), ([1, 1], 6, 3), ([2, 1], 6, 10), ([1, 1, 1], 5, 1), ([3], 4, 4),
])  # fmt: skip
def test_chance_is_the_mean_over_all_rankings(grades, corpus, k):
    ndcg, hit = mean_over_rankings(grades, corpus, k)
    assert chance_ndcg(grades, corpus, k) == pytest.approx(ndcg)
    assert chance_hit(len(grades), corpus, k) == pytest.approx(hit)


def test_nothing_relevant_has_no_chance():
    assert chance_ndcg([], 10) == chance_ndcg([0, 0], 10) == chance_hit(0, 10, 5) == 0
