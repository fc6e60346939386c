"""Which rows answer a query: as the evaluator counts them, and what is held against nobody."""

import dataclasses

import numpy as np
import pytest

from embedtune.evaluation.encoded import answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import parse_system
from embedtune.records import Chunk, Query, RetrievalSet, Span
from embedtune.retrieve.dense import nearest

HASHING = parse_system("hashing")
TEXTS = {
    "a1": ("d1", "The dock charges a mower within the hour"),
    "a2": ("d2", "The dock charges a mower within the hour"),  # equal to a1
    "a3": ("d3", "The dock charges a mower within the hour, usually"),  # nearly
    "b1": ("d1", "Blades are changed every spring"),
    "c1": ("d4", "割草机每周清洗一次"),
    "c2": ("d4", "割草机每周清洗一次。"),
}
TWINS = [("a1", "a2"), ("a1", "a3"), ("a2", "a3"), ("c1", "c2")]


@pytest.fixture
def awkward() -> RetrievalSet:
    """Equal and nearly equal passages, grades, two questions of one text."""
    chunks = tuple(Chunk(id, document, 0, 50, "", text) for id, (document, text) in TEXTS.items())
    queries = (
        Query("q1", "how long does a mower charge in the dock"),
        Query("q2", "when are blades changed", evidence=Span("d1", 0, 20)),
        Query("q3", "割草机多久清洗一次"),
        Query("q4", "When are blades changed"),
    )
    qrels = {
        "test": {"q1": {"a1": 1, "a2": 2}, "q2": {"b1": 1}, "q3": {"c2": 3}},
        "dev": {"q4": {"c1": 1}},
    }
    return RetrievalSet("awkward", chunks, queries, qrels)


def test_rankings_of_rows_score_as_the_evaluator_scores_them(awkward):
    settings = EvaluationSettings(metric="ndcg@3")
    evaluator = Evaluator(awkward, settings, near_duplicates=TWINS)
    own = evaluator.score(HASHING, "test").per_query
    answers = answers_of(evaluator, "test", TWINS)
    encoded = encode(evaluator, HASHING, "test")
    found = nearest(encoded.asked, encoded.rows, answers.ids, 6, similarity="cosine").indices
    for metric in settings.metrics:
        assert answers.values(found, metric) == pytest.approx(own[metric])
    assert encoded.dimensions[0] == encoded.rows.shape[1] == 256
    assert len(answers.ids) == len(encoded.rows) == 5  # a1 and a2 are one text


def test_a_row_stands_for_what_is_judged_and_the_judged_one_comes_first(awkward):
    evaluator = Evaluator(awkward, near_duplicates=TWINS)
    answers = answers_of(evaluator, "test", TWINS)
    row = {id: place for place, id in enumerate(answers.ids)}
    first, _, third = answers.relevant
    assert first == {row["a1"]: ("a1", "a2"), row["a3"]: ("a2",)}  # the better of its twins
    assert third == {row["c1"]: ("c2",), row["c2"]: ("c2",)}


def test_what_may_be_an_answer_is_held_against_nobody(awkward):
    evaluator = Evaluator(awkward, near_duplicates=TWINS)
    answers = answers_of(evaluator, "test", TWINS)
    names = [{answers.ids[row] for row in rows} for rows in answers.masked]
    # q2: b1 is judged; a1 overlaps its evidence; c1 answers q4, which asks the same in dev,
    # and c2 is nearly c1
    assert names == [{"a1", "a3"}, {"b1", "a1", "c1", "c2"}, {"c1", "c2"}]


def test_some_of_the_queries(awkward):
    answers = answers_of(Evaluator(awkward, near_duplicates=TWINS), "test", TWINS)
    some = answers.only([2, 0])
    assert [query.id for query in some.queries] == ["q3", "q1"]
    row = answers.ids.index("c2")
    assert some.values([[row], [row]], "hit@1") == {"q3": 1.0, "q1": 0.0}


def test_the_similarity_is_the_models_unless_the_settings_say_otherwise(awkward):
    chosen = EvaluationSettings(similarity="euclidean")
    assert encode(Evaluator(awkward), HASHING, "dev").similarity == "cosine"
    assert encode(Evaluator(awkward, chosen), HASHING, "dev").similarity == "euclidean"


def test_the_order_of_the_data_changes_nothing(awkward):
    turned = dataclasses.replace(
        awkward, chunks=awkward.chunks[::-1], queries=awkward.queries[::-1]
    )
    values = []
    for data in (awkward, turned):
        evaluator = Evaluator(data, near_duplicates=TWINS)
        answers, encoded = answers_of(evaluator, "test", TWINS), encode(evaluator, HASHING, "test")
        found = nearest(encoded.asked, encoded.rows, answers.ids, 6).indices
        values.append(answers.values(np.asarray(found), "ndcg@10"))
    assert values[0] == pytest.approx(values[1])
