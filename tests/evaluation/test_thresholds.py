"""Scores of right and wrong hits, and thresholds, on score tables written by hand."""

import json

import numpy as np
import pytest

from embedtune.evaluation.encoded import Answers, Encoded
from embedtune.evaluation.thresholds import (
    _cache,
    _Cases,
    _choose,
    _no_answer,
    area_under_curve,
    score_advice,
    share,
)
from embedtune.records import Query, Span


def table(scores, relevant, *, masked=None, queries=None, split="test", groups=None):
    """A system whose score of query i and row j is ``scores[i][j]``."""
    asked = np.asarray(scores, np.float32)
    rows = np.eye(asked.shape[1], dtype=np.float32)
    encoded = Encoded("table", "dot", rows, asked, (asked.shape[1],))
    queries = queries or [Query(f"q{place}", f"question {place}") for place in range(len(asked))]
    answers = Answers(
        split=split,
        ids=tuple(f"c{row}" for row in range(asked.shape[1])),
        queries=tuple(queries),
        judgements={
            query.id: {f"c{row}": 1 for row in own}
            for query, own in zip(queries, relevant, strict=True)
        },
        groups={query.id: f"g{place % (groups or 99)}" for place, query in enumerate(queries)},
        relevant=tuple({row: (f"c{row}",) for row in own} for own in relevant),
        masked=tuple(np.array(sorted(own)) for own in masked or relevant),
    )
    return encoded, answers


def spread_of(planted):
    advice = score_advice([planted[0]], planted[1], precisions=[0.9], seed=1)
    return advice, advice.spreads[0]


def test_the_best_right_and_the_best_wrong_passage_of_each_query_are_counted():
    scores = [[0.9, 0.5, 0.1], [0.2, 0.6, 0.4], [0.3, 0.3, 0.0]]
    advice, spread = spread_of(table(scores, [{0, 2}, {2}, {0}]))
    # right: 0.9, 0.4, 0.3; wrong: 0.5, 0.6, 0.3
    assert (advice.edges[0], advice.edges[-1]) == (pytest.approx(0.3), pytest.approx(0.9))
    width = 0.6 / 30
    assert [place for place, n in enumerate(spread.relevant) if n] == [0, int(0.1 / width), 29]
    assert [place for place, n in enumerate(spread.irrelevant) if n] == [0, 10, 15]
    assert sum(spread.relevant) == sum(spread.irrelevant) == spread.queries == 3
    # of 9 pairs: 0.9 wins 3, 0.4 wins 1, 0.3 wins none and ties one
    assert spread.auc == pytest.approx(4.5 / 9)


def test_a_near_duplicate_of_an_answer_is_no_wrong_hit():
    scores = [[0.9, 0.8, 0.1]]
    held, _ = spread_of(table(scores, [{0}]))
    masked, _ = spread_of(table(scores, [{0}], masked=[{0, 1}]))
    assert held.edges[0] == pytest.approx(0.8)  # of the best wrong one
    assert masked.edges[0] == pytest.approx(0.1)


def test_a_query_that_every_passage_answers_has_no_wrong_hit():
    _, spread = spread_of(table([[0.9, 0.8], [0.7, 0.1]], [{0, 1}, {0}]))
    assert spread.queries == 1


def test_the_area_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    right, wrong = rng.normal(0.5, 1, 70).round(1), rng.normal(0, 1, 90).round(1)
    expected = roc_auc_score(np.r_[np.ones(70), np.zeros(90)], np.r_[right, wrong])
    assert area_under_curve(right, wrong) == pytest.approx(expected)
    assert area_under_curve(right, np.zeros(0)) == 0.5


def test_each_query_is_asked_with_and_without_its_answers():
    scores = [[0.9, 0.5, 0.1], [0.2, 0.6, 0.4]]
    cases = _no_answer(*table(scores, [{0}, {2}], masked=[{0, 1}, {2}]))
    assert cases.found == pytest.approx([0.9, 0.6])
    assert cases.right.all()
    assert cases.missing == pytest.approx([0.1, 0.6])


def wilson_low(right, used):
    from scipy.stats import binomtest

    return binomtest(right, used).proportion_ci(0.8, method="wilson").low


def test_the_lowest_threshold_that_dev_supports_is_chosen():
    rng = np.random.default_rng(5)
    found, missing = rng.normal(1.2, 0.5, 120).round(2), rng.normal(0, 0.5, 120).round(2)
    right = rng.random(120) < 0.97
    cases = _Cases(tuple("q" * 120), found, right, missing)

    def shown(score):
        used = (found >= score).sum() + (missing >= score).sum()
        return wilson_low(int((right & (found >= score)).sum()), int(used))

    scores = sorted({*found, *missing})
    for wanted in (0.6, 0.8, 0.88):
        enough = [score for score in scores if shown(score) >= wanted]
        reached, threshold = _choose(cases, wanted)
        below = [score for score in scores if score < enough[0]]
        assert threshold == pytest.approx((enough[0] + below[-1]) / 2)
        assert reached == pytest.approx(max(map(shown, scores)))


def test_where_dev_shows_no_such_precision_there_is_no_threshold():
    same = np.linspace(0, 1, 50)
    reached, threshold = _choose(_Cases(tuple("q" * 50), same, np.ones(50, bool), same), 0.9)
    assert threshold is None
    assert reached == pytest.approx(max(wilson_low(n, 2 * n) for n in range(1, 51)))


def test_a_threshold_is_chosen_on_dev_and_measured_on_test():
    eye = np.eye(40, 41)
    dev = table(0.5 * eye + 0.3, [{place} for place in range(40)], split="dev")  # 0.8 and 0.3
    test_scores = 0.5 * eye + 0.3
    test_scores[:10] -= 0.4  # right at 0.4: refused
    test_scores[30:, 40] = 0.9  # wrong, and above any threshold
    test = table(test_scores, [{place} for place in range(40)])
    result = score_advice(
        [test[0]], test[1], precisions=[0.9], seed=1, dev=([dev[0]], dev[1])
    )  # fmt: skip
    advice, cache = result.advice
    assert (advice.use, advice.code, advice.dev, advice.test) == ("no-answer", "", 40, 40)
    [found] = advice.thresholds
    assert 0.3 < found.threshold < 0.8
    assert (found.precision.value, found.precision.count) == (pytest.approx(30 / 40), 40)
    assert (found.recall.value, found.recall.count) == (pytest.approx(30 / 40), 40)
    assert found.false_hits.value == pytest.approx(10 / 40)
    for part in (found.precision, found.recall, found.false_hits):
        assert part.low < part.value < part.high
    assert (cache.use, cache.code, cache.test) == ("cache", "few-paraphrases", 0)
    json.dumps(result.as_json(), allow_nan=False)


def test_without_dev_or_with_few_queries_nothing_is_advised():
    test = table(np.eye(40), [{place} for place in range(40)])
    few = table(np.eye(20), [{place} for place in range(20)], split="dev")
    without = score_advice([test[0]], test[1], precisions=[0.9], seed=1)
    assert {advice.code for advice in without.advice} == {"no-dev"}
    short = score_advice([test[0]], test[1], precisions=[0.9], seed=1, dev=([few[0]], few[1]))
    assert [advice.code for advice in short.advice] == ["few-queries", "few-paraphrases"]
    assert not short.advice[0].thresholds


# ---- cache


def questions(*spans, texts=None):
    return [
        Query(f"q{place}", (texts or {}).get(place, f"question {place}"), evidence=span)
        for place, span in enumerate(spans)
    ]


def test_the_nearest_other_question_answers_where_it_has_the_same_passage():
    # scores among queries are products of their rows
    asked = [[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]
    cases = _cache(*table(asked, [{0}, {0}, {1}, {2}]))
    assert cases.queries == ("q0", "q1")  # q2 and q3 have no paraphrase
    assert cases.found == pytest.approx([0.9, 0.8])
    assert cases.right.tolist() == [False, True]  # q0 is nearest to q2, q1 to q0
    assert cases.missing == pytest.approx([0.9, 0.78])


def test_the_same_words_are_no_paraphrase():
    asked = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]
    same = questions(None, None, None, texts={0: "How long?", 1: "how  long?"})
    cases = _cache(*table(asked, [{0}, {0}, {0}], queries=same))
    assert cases.queries == ("q0", "q1", "q2")
    assert cases.found == pytest.approx([0.5, 0.5, 0.5])
    assert np.isneginf(cases.missing).all()


def test_paraphrases_rest_on_the_same_evidence_where_it_is_known():
    asked = [[1.0, 0.0], [0.9, 0.1], [0.8, 0.2]]
    spans = questions(Span("d", 0, 20), Span("d", 10, 60), Span("d", 11, 100))
    cases = _cache(*table(asked, [{0}, {0}, {0}], queries=spans))
    # 10 of the 20 characters of q0 are in q1, 9 in q2; q1 and q2 share 49
    assert cases.right.tolist() == [True, True, False]  # q2 is nearest to q0
    assert cases.missing == pytest.approx([0.8, -np.inf, 0.8])
    only = _cache(*table(asked[::2], [{0}, {0}], queries=spans[::2]))
    assert not len(only)


# ---- shares


def test_a_share_is_a_ratio_over_groups_that_have_cases():
    own = share([1, 0, 1, 1, 0, 0], [1, 2, 1, 1, 1, 0], ["a", "a", "b", "b", "c", "d"], seed=1)
    assert (own.value, own.count) == (pytest.approx(3 / 6), 6)
    assert 0 <= own.low < own.value < own.high <= 1


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_alike_the_bound_is_that_of_so_many_groups(right):
    from scipy.stats import binomtest

    groups = [f"g{place % 8}" for place in range(40)]
    own = share([right] * 40, [1] * 40, groups, seed=1)
    exact = binomtest(8 * right, 8).proportion_ci(0.95, method="exact")
    assert (own.low, own.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_a_share_of_nothing_says_nothing():
    own = share([False], [0], ["a"], seed=1)
    assert (own.value, own.low, own.high, own.count) == (0, 0, 1, 0)
