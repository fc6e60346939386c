"""What a base model costs and reads, and which is taken."""

import numpy as np
import pytest

from embedtune.embed.facts import ModelFacts
from embedtune.embed.tokens import WordTokens, load_tokens
from embedtune.evaluation.candidates import (
    Candidate,
    coverage_of,
    measure_speed,
    pick,
    ranked,
)
from embedtune.evaluation.compare import difference
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import parse_system
from embedtune.results import SystemScores

SETTINGS = EvaluationSettings()
HEAVY, LIGHT = ModelFacts(parameters=100, computing=80), ModelFacts(parameters=90, computing=20)


def candidate(
    name: str, mean: float, facts: ModelFacts, *, queries: int = 200, noise: float = 0.05,
    seed: int = 0, unreadable: float | None = None,
) -> Candidate:  # fmt: skip
    """Scores of exactly that mean, with noise of its own."""
    values = np.random.default_rng(seed).normal(0, noise, queries)
    values += mean - values.mean()
    per_query = {f"q{i}": float(value) for i, value in enumerate(values)}
    scores = SystemScores(name, "dense", {"ndcg@10": float(values.mean())},
                          {"ndcg@10": per_query}, {})  # fmt: skip
    return Candidate(name, parse_system(name), scores, facts=facts, unreadable=unreadable)


def picked(*candidates: Candidate):
    own = ranked(candidates, "ndcg@10")
    queries = next(one.scores.per_query["ndcg@10"] for one in own if one.scores)
    return pick(own, {query: query for query in queries}, SETTINGS)


def test_the_best_is_taken_where_a_lighter_one_is_clearly_worse():
    found = picked(candidate("light", 0.6, LIGHT, seed=1), candidate("heavy", 0.7, HEAVY))
    assert (found.name, found.code, found.alike) == ("heavy", "best", ())


def test_a_lighter_one_that_cannot_be_told_from_the_best_is_taken_instead():
    found = picked(candidate("light", 0.695, LIGHT, seed=1), candidate("heavy", 0.7, HEAVY))
    assert (found.name, found.code, found.best) == ("light", "lighter", "heavy")
    assert found.below.mean == pytest.approx(0.005)
    assert found.below.low < 0 < found.below.high
    assert found.alike == ("light",)


def test_a_small_gap_that_is_sure_keeps_the_best():
    heavy = candidate("heavy", 0.7, HEAVY)
    values = {query: value - 0.005 for query, value in heavy.scores.per_query["ndcg@10"].items()}
    scores = SystemScores("light", "dense", {"ndcg@10": 0.695}, {"ndcg@10": values}, {})
    found = picked(heavy, Candidate("light", parse_system("light"), scores, facts=LIGHT))
    assert (found.name, found.code) == ("heavy", "best")


def test_few_queries_are_no_reason_to_take_what_seems_much_worse():
    settings = {"queries": 8, "noise": 0.3}
    best = candidate("heavy", 0.7, HEAVY, **settings)
    worse = candidate("light", 0.6, LIGHT, seed=1, **settings)
    groups = {f"q{i}": f"q{i}" for i in range(8)}
    assert difference(best.scores, worse.scores, groups, SETTINGS).low < 0  # not to be told
    far = picked(best, worse)
    near = picked(best, candidate("light", 0.69, LIGHT, seed=1, **settings))
    assert (far.name, near.name) == ("heavy", "light")


def test_of_equal_weights_the_better_one_is_taken():
    found = picked(candidate("m?pooling=cls", 0.699, HEAVY, seed=1), candidate("m", 0.7, HEAVY))
    assert (found.name, found.code, found.alike) == ("m", "best", ("m?pooling=cls",))


def test_tables_that_are_looked_up_weigh_less_than_what_computes():
    table = ModelFacts(parameters=400, computing=20)
    found = picked(candidate("many-words", 0.699, table, seed=1), candidate("heavy", 0.7, HEAVY))
    assert found.name == "many-words"


def test_what_cannot_read_the_text_stands_behind_and_is_taken_only_where_nothing_else_is():
    blind = candidate("blind", 0.8, LIGHT, unreadable=0.4)
    failed = Candidate("broken", parse_system("broken"), error="damaged", exit_code=7)
    service = candidate("hashing", 0.9, LIGHT)
    reads = candidate("reads", 0.5, HEAVY, seed=1)
    order = [own.name for own in ranked([failed, blind, reads, service], "ndcg@10")]
    assert order == ["hashing", "reads", "blind", "broken"]
    found = picked(failed, blind, reads, service)
    assert (found.name, found.code) == ("reads", "only")
    found = picked(failed, blind, service)
    assert (found.name, found.code) == ("blind", "unreadable")
    assert picked(failed, service) is None  # no model that could be trained


def test_coverage_counts_words_signs_and_what_is_cut():
    found = coverage_of(
        [("one two three", ""), ("one, two", ""), ("一二三四五", ""), ("", "en")], WordTokens(3)
    )
    assert [(own.language, own.texts) for own in found] == [("en", 3), ("zh", 1)]
    english, chinese = found
    assert (english.per_word, english.cut, english.unknown) == (1.0, 0.0, 0.0)
    assert (chinese.per_word, chinese.cut) == (1.0, 1.0)  # five of three are read


def test_coverage_of_a_models_own_tokenizer(tiny_model):
    # [CLS] robot [UNK] [SEP]: the second sign is not in its vocabulary
    [found] = coverage_of([("robot 图", "en")], load_tokens(str(tiny_model)))
    assert found.unknown == pytest.approx(1 / 4)
    assert found.per_word == pytest.approx(2 / 2)


class Timed:
    """Takes 10 ms a passage and 5 ms a query by its own clock, and 10 s to load."""

    def __init__(self, passage: float = 0.01) -> None:
        self.now, self.loaded, self.passage, self.texts = 0.0, False, passage, 0

    def embed(self, texts, role):
        self.now += len(texts) * (self.passage if role == "document" else 0.005)
        self.now += 0.0 if self.loaded else 10.0
        self.loaded = True
        self.texts += len(texts)

    def clock(self) -> float:
        return self.now


def test_speed_leaves_loading_out():
    model = Timed()
    found = measure_speed(
        model, [f"passage {i}" for i in range(1000)], [f"query {i}" for i in range(50)],
        clock=model.clock,
    )  # fmt: skip
    assert found.passages_per_second == pytest.approx(100)
    assert found.query_ms == pytest.approx(5)
    assert found.passages == 240


def test_speed_of_a_slow_model_is_measured_on_few_texts():
    model = Timed(passage=1.0)
    found = measure_speed(model, [f"{i}" for i in range(1000)], ["q"], clock=model.clock)
    assert found.passages_per_second == pytest.approx(1)
    assert model.texts < 40
    assert measure_speed(model, [], ["q"]) is None
