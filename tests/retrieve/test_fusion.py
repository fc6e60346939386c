"""Two rankings as one: by standardised scores and by reciprocal ranks, against sums by hand."""

import math
import statistics

import pytest

from embedtune.retrieve import Hit
from embedtune.retrieve.fusion import CHOICES, RANKS, FusedRetriever, Fusion, fuse
from embedtune.retrieve.order import tie_breaker

DENSE = [("a", 0.9), ("b", 0.5), ("c", 0.4)]
LEXICAL = [("c", 12.0), ("b", 6.0), ("a", 3.0)]


def by_hand(fusion: Fusion) -> dict[str, float]:
    sums = dict.fromkeys("abc", 0.0)
    for ranking, weight in ((DENSE, fusion.weight), (LEXICAL, 1 - fusion.weight)):
        values = [score for _, score in ranking]
        for chunk, score in ranking:
            standing = (score - statistics.fmean(values)) / statistics.pstdev(values)
            sums[chunk] += weight * standing
    return sums


@pytest.mark.parametrize("weight", [0.3, 0.5, 0.8])
def test_scores_are_standardised_and_weighted(weight):
    fusion = Fusion("scores", weight)
    fused = fuse([DENSE, LEXICAL], fusion)
    expected = by_hand(fusion)
    assert [hit.chunk for hit in fused] == sorted(expected, key=lambda chunk: -expected[chunk])
    assert {hit.chunk: hit.score for hit in fused} == pytest.approx(expected)


def test_the_weight_is_that_of_the_first_ranking():
    assert fuse([DENSE, LEXICAL], Fusion("scores", 0.9))[0].chunk == "a"
    assert fuse([DENSE, LEXICAL], Fusion("scores", 0.1))[0].chunk == "c"
    assert fuse([DENSE, LEXICAL], Fusion("ranks", 0.9))[0].chunk == "a"
    assert fuse([DENSE, LEXICAL], Fusion("ranks", 0.1))[0].chunk == "c"


def test_what_a_full_ranking_does_not_have_counts_as_its_last():
    one, other = [("a", 5.0), ("b", 3.0)], [("c", 5.0), ("a", 1.0)]
    fused = {hit.chunk: hit.score for hit in fuse([one, other], Fusion("scores"), depth=2)}
    # both rankings standardise to 1 and -1
    assert fused == pytest.approx({"a": 0.5 - 0.5, "b": -0.5 - 0.5, "c": -0.5 + 0.5})


def test_what_an_ended_ranking_does_not_have_counts_as_zero():
    dense = [("a", 0.9), ("b", 0.7)]
    fused = {hit.chunk: hit.score for hit in fuse([dense, [("b", 4.0)]], Fusion("scores"))}
    # 4 and the 0 of what shares no term: 1 and -1, so that the one match tells
    assert fused == pytest.approx({"a": 0.5 - 0.5, "b": -0.5 + 0.5})


def test_an_empty_ranking_changes_no_order():
    assert [hit.chunk for hit in fuse([DENSE, []], Fusion("scores"))] == ["a", "b", "c"]
    assert fuse([[], []], Fusion("scores")) == []
    assert [hit.chunk for hit in fuse([[], LEXICAL], Fusion("scores"))] == ["c", "b", "a"]


def test_scores_that_are_all_the_same_tell_nothing():
    same = [(chunk, 1.0) for chunk in "abc"]
    fused = fuse([same, LEXICAL], Fusion("scores"))
    assert [hit.chunk for hit in fused] == ["c", "b", "a"]


def test_ranks_are_added_as_weighted_reciprocals():
    fused = fuse(
        [[("a", 9.0), ("b", 8.0)], [("b", 0.5), ("c", 0.4)]], Fusion("ranks", weight=0.75, k=10)
    )
    assert {hit.chunk: hit.score for hit in fused} == pytest.approx(
        {"a": 0.75 / 11, "b": 0.75 / 12 + 0.25 / 11, "c": 0.25 / 12}
    )
    assert [hit.chunk for hit in fused] == ["b", "a", "c"]


def test_only_the_first_hundred_are_read_and_ties_are_broken_by_id():
    long = [(f"c{i}", float(-i)) for i in range(150)]
    assert len(fuse([long])) == len(fuse([long], Fusion("scores"))) == 100
    for fusion in (RANKS, Fusion("scores")):
        both = fuse([[("x", 1.0)], [("y", 1.0)]], fusion)
        assert [hit.chunk for hit in both] == sorted("xy", key=tie_breaker)


def test_the_order_of_the_rankings_changes_nothing_at_equal_weights():
    for fusion in (RANKS, Fusion("scores")):
        assert fuse([DENSE, LEXICAL], fusion) == fuse([LEXICAL, DENSE], fusion)


def test_dev_chooses_from_a_few_and_the_first_weighs_both_equally():
    for method, choices in CHOICES.items():
        assert choices[0] == Fusion(method)
        assert math.isclose(choices[0].weight, 0.5)
        assert len(set(choices)) == len(choices) <= 6


def test_a_fused_retriever_asks_all_and_cuts_to_k():
    class Fixed:
        def __init__(self, name: str, ids: str) -> None:
            self.name, self.ids = name, ids

        def search(self, queries, k):
            return [[Hit(id, 1.0) for id in self.ids][:k] for _ in queries]

    fused = FusedRetriever([Fixed("one", "ab"), Fixed("two", "bc")])
    assert fused.name == "one + two"
    [hits] = fused.search(["q"], 1)
    assert [hit.chunk for hit in hits] == ["b"]
