"""Chance by simulation and by hand; each flag on and off."""

import math

import numpy as np
import pytest

from embedtune.embed.tokens import WordTokens
from embedtune.evaluation import health
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.metrics import score
from embedtune.evaluation.systems import parse_system
from embedtune.language import SCRIPTS
from embedtune.records import Chunk, Query
from embedtune.results import SystemScores


@pytest.mark.parametrize("grades", [[1], [1, 1, 1], [3, 1], [1] * 15])
def test_chance_levels_are_what_random_rankings_get(grades: list[int]):
    corpus, draws = 40, 4000
    rng = np.random.default_rng(1)
    judged = {f"c{i}": grade for i, grade in enumerate(grades)}
    ids = np.array([f"c{i}" for i in range(corpus)])
    rankings = [list(ids[rng.permutation(corpus)[:10]]) for _ in range(draws)]
    drawn = score(rankings, [judged] * draws, ["ndcg@10", "hit@5"])
    for name, expected in (
        ("ndcg@10", health.chance_ndcg(grades, corpus, 10)),
        ("hit@5", health.chance_hit(len(grades), corpus, 5)),
    ):
        error = drawn[name].std() / math.sqrt(draws)
        assert drawn[name].mean() == pytest.approx(expected, abs=4 * error + 1e-9), name


def test_chance_by_hand():
    # 55 chunks, one relevant, 5 places: the seed with hit rate 0.0899 was at chance
    assert health.chance_hit(1, 55, 5) == pytest.approx(5 / 55)
    assert health.chance_ndcg([1], 4, 2) == pytest.approx((1 + 1 / math.log2(3)) / 4)
    assert health.chance_hit(3, 3, 10) == 1.0
    assert health.chance({"q": {"a": 1}, "r": {"b": 1, "c": 0}}, 10, 5)["hit@5"] == 0.5


def scores(name: str, mean: float, low: float) -> SystemScores:
    return SystemScores(name, "dense", {"ndcg@10": mean}, {}, {}, {}, {"ndcg@10": (low, 1.0)})


# one relevant of 100: chance nDCG@10 is 4.54 / 100
JUDGED = {"q": {"a": 1}}


@pytest.mark.parametrize(
    ("base", "bm25", "codes"),
    [
        ((0.60, 0.5), (0.50, 0.4), []),
        ((0.05, 0.01), (0.06, 0.02), ["broken-test-set"]),
        ((0.05, 0.01), (0.50, 0.4), ["unsuitable-base"]),
        ((0.13, 0.10), (0.12, 0.1), ["broken-test-set"]),  # under 3 x chance
        ((0.20, 0.04), (0.10, 0.0), ["broken-test-set"]),  # the interval holds chance
    ],
)
def test_a_test_set_nobody_beats_chance_on_is_broken(base, bm25, codes):
    flags = health.chance_flags(scores("m", *base), [scores("bm25", *bm25)], JUDGED, 100)
    assert [flag.code for flag in flags] == codes
    assert [flag.blocks for flag in flags] == [code == "broken-test-set" for code in codes]


@pytest.mark.parametrize(
    ("query", "passage", "shared"),
    [
        ("一二三四五六七八九十甲乙", "前一二三四五六七八九十甲乙后", True),
        ("一二三四五六七八九十甲乙", "一二三四五六七八九十甲，丙", False),
        ("一二三四五六，七八九十甲乙", "一二三四五六七八九十甲乙", True),
        ("GPU一二三四五六七八九十甲乙", "用GPU一二三四五六七八九十甲乙后", True),
        ("a b c d e f g h", "x A, b c d e f g H!", True),
        ("a b c d e f g", "a b c d e f g", False),
        ("the company was", "the company was", False),
        ("", "", False),
    ],
)
def test_a_copied_run_is_twelve_chinese_characters_or_eight_words(query, passage, shared):
    assert health.shares_run(query, passage) is shared


def test_copied_queries_are_flagged_from_thirty_per_cent():
    passage = Chunk("c", "d", 0, 1, "", "one two three four five six seven eight nine ten")
    queries = [Query(f"q{i}", "what is it") for i in range(7)]
    copies = [Query(f"p{i}", "two three four five six seven eight nine?") for i in range(3)]
    judged = {query.id: {"c": 1} for query in (*queries, *copies)}
    [flag] = health.copied_flag([*queries, *copies], {"c": passage}, judged)
    assert flag.blocks
    assert flag.numbers["share"] == pytest.approx(0.3)
    assert health.copied_flag([*queries, *copies[:2]], {"c": passage}, judged) == ()


def test_few_queries_and_leakage():
    assert health.few_queries_flag(50) == ()
    assert health.few_queries_flag(49)[0].blocks
    assert health.leakage_flag(0, 10, removed=False) == ()
    assert health.leakage_flag(3, 10, removed=False)[0].blocks
    assert not health.leakage_flag(3, 10, removed=True)[0].blocks


class ReadsNoChinese(WordTokens):
    def unknown(self, texts):
        return [len(SCRIPTS["han"].findall(text)) for text in texts]


def test_a_language_the_model_cannot_read_or_cuts_is_flagged_by_name():
    chunks = [
        Chunk("a", "d", 0, 1, "", "保护投资者的合法权益"),
        Chunk("b", "d", 0, 1, "", "a plain English text that is a little longer than the limit"),
    ]
    queries = [Query("q", "投资者怎样 protected"), Query("r", "English text", language="en")]
    flags = health.language_flags(queries, chunks, ReadsNoChinese(max_tokens=10))
    assert [(flag.code, flag.language) for flag in flags] == [
        ("cut-texts", "en"),
        ("unknown-tokens", "zh"),
    ]
    assert "cannot read the Chinese text" in flags[1].message
    assert health.language_flags(queries, chunks, WordTokens()) == ()


@pytest.mark.model
def test_minilm_is_flagged_on_chinese_and_not_on_english(small):
    from embedtune.embed.tokens import load_tokens

    evaluator = Evaluator(small)
    assert parse_system("bm25").kind == "bm25"
    flags = health.language_flags(
        evaluator.queries("test"), small.chunks, load_tokens("all-MiniLM-L6-v2")
    )
    assert [(flag.code, flag.language) for flag in flags] == [("unknown-tokens", "zh")]
