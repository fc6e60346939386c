"""Metrics against trec_eval (through ir-measures) and by hand."""

import math

import ir_measures
import numpy as np
import pytest

from embedtune.errors import ConfigError
from embedtune.evaluation.metrics import STANDARD, parse_metric, score, split_metric


def random_rankings(seed: int) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    """Graded judgements; some rankings are short or empty, some relevant chunks unreachable."""
    rng = np.random.default_rng(seed)
    chunks = [f"c{number}" for number in range(60)]
    rankings, qrels = {}, {}
    for number in range(40):
        length = int(rng.choice([0, 1, 3, 8, 40, 60]))
        rankings[f"q{number}"] = list(rng.permutation(chunks)[:length])
        judged = rng.choice(chunks, size=int(rng.integers(1, 15)), replace=False)
        grades = {str(chunk): int(rng.integers(0, 4)) for chunk in judged}
        grades[f"unreachable{number}"] = int(rng.integers(1, 3))
        qrels[f"q{number}"] = grades
    return rankings, qrels


PAIRS = [
    *((f"ndcg@{k}", f"nDCG@{k}") for k in (1, 5, 10, 20)),
    *((f"hit@{k}", f"Success@{k}") for k in (1, 5)),
    *((f"accuracy@{k}", f"Success@{k}") for k in (3,)),
    *((f"recall@{k}", f"R@{k}") for k in (1, 10, 100)),
    *((f"precision@{k}", f"P@{k}") for k in (1, 10)),
    *((f"mrr@{k}", f"RR@{k}") for k in (10,)),
    *((f"map@{k}", f"AP@{k}") for k in (10, 100)),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_metric_equals_trec_eval_for_each_query(ours: str, theirs: str, seed: int):
    rankings, qrels = random_rankings(seed)
    measure = ir_measures.parse_measure(theirs)
    run = {
        query: {chunk: float(100 - rank) for rank, chunk in enumerate(ranking)}
        for query, ranking in rankings.items()
    }
    # a measure may have several providers; pytrec_eval is trec_eval itself
    oracle = {value.query_id: value.value for value in ir_measures.iter_calc([measure], qrels, run)}

    mine = score(list(rankings.values()), list(qrels.values()), [ours])[ours]

    for query, value in zip(rankings, mine, strict=True):
        assert value == pytest.approx(oracle.get(query, 0.0), abs=1e-9), query


def test_unjudged_queries_and_unjudged_chunks_count_nothing():
    values = score([["a", "b"], ["a"]], [{}, {"b": 1}])
    assert all(not value.any() for value in values.values())


def test_ndcg_by_hand_uses_the_grade_as_gain():
    # found grades 1, 0, 3; ideal 3, 2, 1
    [value] = score([["x", "y", "z"]], [{"x": 1, "z": 3, "w": 2}], ["ndcg@3"])["ndcg@3"]
    found = 1 + 3 / math.log2(4)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert value == pytest.approx(found / ideal)


def test_standard_metrics_have_the_promised_names():
    assert STANDARD == ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10", "map@100")


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "success@5", "ndcg@5000", "", "@5"])
def test_an_unknown_metric_is_refused_with_the_known_ones(name: str):
    with pytest.raises(ConfigError, match=r"ndcg@k.*map@k"):
        parse_metric(name)


@pytest.mark.parametrize(
    ("name", "similarity", "metric"),
    [
        ("ndcg@10", "", "ndcg@10"),
        ("dot_ndcg@10", "dot", "ndcg@10"),
        ("euclidean_accuracy@3", "euclidean", "accuracy@3"),
        ("cosine_map@100", "cosine", "map@100"),
    ],
)
def test_a_metric_may_name_its_similarity(name: str, similarity: str, metric: str):
    assert split_metric(name) == (similarity, metric)


@pytest.mark.parametrize("name", ["dot_", "dot_ndcg", "hamming_ndcg@10", "dot_dot_ndcg@10"])
def test_a_similarity_before_no_metric_is_refused(name: str):
    with pytest.raises(ConfigError, match="unknown metric"):
        parse_metric(split_metric(name)[1])
