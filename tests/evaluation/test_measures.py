"""Triplets and scored pairs against sentence-transformers, scikit-learn and scipy; intervals."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from embedtune.datasets.formats import PairRow, ScoredRow
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.measures import intervals_of, similarities_of_rows
from embedtune.evaluation.scored import (
    Steps,
    best_of,
    check_scores,
    is_yes_or_no,
    measure_labelled_pairs,
    measure_scored,
    pearson,
    spearman,
)
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import parse_system
from embedtune.evaluation.triplets import measure_triplets
from embedtune.records import Chunk, Query, RetrievalSet
from measures import (
    GivenVectors,
    our_pairs,
    our_ranking,
    our_triplets,
    their_pairs,
    their_ranking,
    their_triplets,
)


def draw(rows: int, seed: int, width: int = 24) -> np.ndarray:
    """(rows, width) float32 of very different lengths, so that no similarity ranks as another."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, width)) * rng.uniform(0.2, 5, (rows, 1)) + 0.3
    return vectors.astype(np.float32)


def given(texts: list[str], seed: int) -> GivenVectors:
    return GivenVectors(dict(zip(texts, draw(len(texts), seed), strict=True)))


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], abs=1e-6), name


def test_triplet_accuracy_equals_that_of_sentence_transformers():
    rows = [PairRow(f"a{n}", f"p{n}", (f"n{n}",)) for n in range(80)]
    model = given([t for row in rows for t in (row.anchor, row.positive, *row.negatives)], 1)
    ours = our_triplets(model, rows)
    assert_same(ours, their_triplets(model, rows))
    assert len(set(ours.values())) > 2  # the similarities do differ


@pytest.mark.parametrize("labels", [False, True])
def test_scored_pairs_equal_those_of_sentence_transformers(labels: bool):
    rng = np.random.default_rng(2)
    rows = [ScoredRow(f"l{n}", f"r{n}", round(float(rng.random()), 1)) for n in range(120)]
    model = given([text for row in rows for text in (row.sentence1, row.sentence2)], 3)
    for row in rows:  # make the similarity follow the score, more or less
        model.vectors[row.sentence2] += np.float32(2 * row.score) * model.vectors[row.sentence1]
    ours = our_pairs(model, rows, labels)
    assert_same(ours, their_pairs(model, rows, labels))
    assert max(ours.values()) > 0.5


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dimension", [None, 8])
def test_rankings_of_unnormalised_vectors_equal_those_of_sentence_transformers(
    similarity: str, dimension: int | None
):
    rng = np.random.default_rng(4)
    chunks = tuple(Chunk(f"c{n}", f"c{n}", 0, 1, "", f"text {n}") for n in range(150))
    queries = tuple(Query(f"q{n}", f"ask {n}") for n in range(40))
    judged = {
        query.id: {str(c): 1 for c in rng.choice([chunk.id for chunk in chunks], 4, replace=False)}
        for query in queries
    }
    data = RetrievalSet("drawn", chunks, queries, {"dev": judged})
    model = given([item.text for item in (*chunks, *queries)], 5)
    arguments = (model, data, "dev", similarity, dimension)
    assert_same(our_ranking(*arguments), their_ranking(*arguments))


def test_the_score_in_training_is_that_of_the_table_at_any_similarity_and_dimension(small):
    texts = [chunk.embedded for chunk in small.chunks] + [query.text for query in small.queries]
    found = {}
    for metric, dimension in (("ndcg@10", "full"), ("dot_ndcg@10", 4), ("euclidean_mrr@10", 6)):
        settings = EvaluationSettings(metric=metric, dimension=dimension)
        evaluator = Evaluator(small, settings, embedder_of=lambda _: given(texts, 6))
        table = evaluator.score(parse_system("x"), "test").metrics[settings.metric]
        assert evaluator.score_embedder(given(texts, 6), "test") == pytest.approx(table)
        found[metric] = table
    assert len(set(found.values())) == 3


def test_a_metric_with_a_similarity_sets_it_and_contradicts_no_other():
    settings = EvaluationSettings(metric="dot_ndcg@10", dimension=128)
    assert (settings.metric, settings.similarity) == ("ndcg@10", "dot")
    assert EvaluationSettings(metric="dot_ndcg@10", similarity="dot").similarity == "dot"
    with pytest.raises(ValueError, match="similarity says cosine; set one of them"):
        EvaluationSettings(metric="dot_ndcg@10", similarity="cosine")


def test_similarities_by_hand():
    left, right = np.array([[3, 4], [1, 0]], np.float32), np.array([[4, 3], [0, 2]], np.float32)
    found = similarities_of_rows(left, right)
    assert found["cosine"].tolist() == [0.96, 0]
    assert found["dot"].tolist() == [24, 0]
    assert found["euclidean"].tolist() == pytest.approx([-math.sqrt(2), -math.sqrt(5)])
    assert found["manhattan"].tolist() == [-2, -3]


def test_a_negative_as_near_as_the_positive_is_no_hit():
    anchor, near, far = np.eye(3, dtype=np.float32)[:, None]
    means, _ = measure_triplets(anchor, near, near, ["g"], seed=None)
    assert set(means.values()) == {0.0}
    means, ends = measure_triplets(anchor, anchor, far, ["g"], seed=1)
    assert set(means.values()) == {1.0}
    assert set(ends.values()) == {(0.0, 1.0)}  # one group says nothing of others


# ---- weighted figures, on which intervals stand


def repeated(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.repeat(values, counts)


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_counts_a_row_so_many_times(seed: int):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, 50)
    similarity = rng.integers(0, 12, 50) / 10  # with ties
    scores = rng.integers(0, 5, 50) / 4
    labels = (rng.random(50) < similarity).astype(float)
    weights = counts[None].astype(float)
    many, wanted, told = (repeated(values, counts) for values in (similarity, scores, labels))

    assert pearson(similarity, scores)(weights)[0] == pytest.approx(
        stats.pearsonr(many, wanted).statistic
    )
    assert spearman(similarity, scores)(weights)[0] == pytest.approx(
        stats.spearmanr(many, wanted).statistic
    )
    steps = Steps(similarity, labels)
    assert steps.average_precision(weights)[0] == pytest.approx(
        sklearn.average_precision_score(told, many)
    )
    cuts = [*np.unique(many), 9]
    assert best_of(steps.f1)(weights)[0] == pytest.approx(
        max(sklearn.f1_score(told, many >= cut, zero_division=0) for cut in cuts)
    )
    assert best_of(steps.accuracy)(weights)[0] == pytest.approx(
        max(sklearn.accuracy_score(told, many >= cut) for cut in cuts)
    )


def test_thresholds_give_the_figures_they_stand_beside():
    rng = np.random.default_rng(7)
    labels = (rng.random(200) < 0.4).astype(float)
    left = draw(200, 8)
    right = draw(200, 9) + left * labels[:, None].astype(np.float32)
    values, _ = measure_labelled_pairs(left, right, labels, list(map(str, range(200))), seed=None)
    for name, similarity in similarities_of_rows(left, right).items():
        distance = name in ("euclidean", "manhattan")
        for figure, function in (("f1", sklearn.f1_score), ("accuracy", sklearn.accuracy_score)):
            cut = values[f"{name}_{figure}_threshold"]
            told = -similarity <= cut if distance else similarity >= cut
            assert function(labels, told) == pytest.approx(values[f"{name}_{figure}"])


def test_the_interval_of_a_correlation_is_near_that_of_fishers_z():
    rng = np.random.default_rng(10)
    one = rng.normal(size=600)
    other = 0.7 * one + rng.normal(size=600)
    value = stats.pearsonr(one, other)
    expected = value.confidence_interval(0.95)
    ends = intervals_of({"r": pearson(one, other)}, list(map(str, range(600))), (-1, 1), seed=1)[
        "r"
    ]
    assert ends == pytest.approx((expected.low, expected.high), abs=0.02)


def test_copies_within_a_group_tell_nothing_new():
    rng = np.random.default_rng(11)
    one, groups = rng.normal(size=80), [f"g{n}" for n in range(80)]
    other = one + rng.normal(size=80)

    def width(copies: int, groups: list[str]) -> float:
        figure = pearson(np.tile(one, copies), np.tile(other, copies))
        [(low, high)] = intervals_of({"r": figure}, groups, (-1, 1), seed=1).values()
        return high - low

    assert width(4, groups * 4) == pytest.approx(width(1, groups))
    alone = [f"{group}-{copy}" for copy in range(4) for group in groups]
    assert width(4, alone) < 0.6 * width(1, groups)


def test_figures_have_intervals_around_them_and_the_order_of_rows_changes_none():
    rng = np.random.default_rng(12)
    scores = rng.integers(0, 6, 90) / 5
    left = draw(90, 13)
    right = draw(90, 14) + left * scores[:, None].astype(np.float32)
    groups = [f"g{n % 30}" for n in range(90)]
    order = rng.permutation(90)
    for function in (measure_scored, measure_labelled_pairs):
        wanted = scores if function is measure_scored else (scores > 0.5).astype(float)
        values, ends = function(left, right, wanted, groups, seed=3)
        for name, (low, high) in ends.items():
            assert low < values[name] < high or high == 1.0, name
        again = function(left[order], right[order], wanted[order], [groups[n] for n in order],
                         seed=3)  # fmt: skip
        assert again[0] == pytest.approx(values)
        for name, interval in again[1].items():
            assert interval == pytest.approx(ends[name]), name


# ---- nothing to measure


@pytest.mark.parametrize(("scores", "said"), [([], "no scored pairs"), ([0.4, 0.4], "are 0.4")])
def test_scores_that_are_all_alike_give_no_figure(scores: list[float], said: str):
    with pytest.raises(NothingUsable, match=said):
        check_scores(scores, "pairs")


def test_zeros_and_ones_are_labels():
    assert is_yes_or_no([0.0, 1.0, 1.0])
    assert not is_yes_or_no([0.0, 0.5, 1.0])


def test_a_system_to_which_all_pairs_are_alike_is_named_not_scored_zero():
    one = np.ones((5, 3), np.float32)
    with pytest.raises(IntegrityError, match="all pairs are equally alike"):
        measure_scored(one, one, np.arange(5) / 4, list("abcde"), seed=1)
