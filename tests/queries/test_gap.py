"""Generated queries beside real ones."""

import pytest

from embedtune.queries.gap import query_gap
from embedtune.records import Chunk, Query

CHUNKS = {"c": Chunk("c", "d", 0, 50, "", "Night tows cost 240 crowns for each started hour.")}


def asked(texts, origin):
    return [Query(f"{origin}{n}", text, origin=origin, chunk="c") for n, text in enumerate(texts)]


def test_equal_distributions_are_not_apart():
    texts = [f"night tows number {n}" for n in range(12)]
    gap = query_gap(asked(texts, "llm"), asked(texts, "user"), CHUNKS)
    assert gap is not None
    assert {measure.apart for measure in gap.measures} == {0.0}
    assert len(gap.lines()) == 1


def test_long_questions_against_short_keywords_are_told_with_figures():
    real = ["tow price", "夜间拖车"] * 6
    written = ["What exactly do night tows cost in crowns for every started hour of driving?"] * 5
    gap = query_gap(asked(written, "llm"), asked(real, "user"), CHUNKS)
    assert gap is not None
    by_name = {measure.name: measure for measure in gap.measures}
    assert by_name["length in content words"].apart == 1
    questions = by_name["share of full questions"]
    assert (questions.generated, questions.real, questions.apart) == (1, 0, 1)
    # tows, cost, crowns, started, hour, night of exactly, night, tows, cost, crowns, every, …
    assert by_name["share of words taken from the passage"].generated == pytest.approx(6 / 9)
    assert any("length" in line for line in gap.lines())
    assert (gap.as_json()["generated"], gap.as_json()["real"]) == (5, 12)


@pytest.mark.parametrize(
    "text", ["夜间拖车多少钱", "怎么申请退款", "can i get a tow", "Is it free?"]
)
def test_questions_are_told_in_both_languages(text):
    gap = query_gap(asked([text], "llm"), asked(["拖车 价格"] * 10, "user"), CHUNKS)
    assert gap is not None
    (share,) = [m for m in gap.measures if m.name == "share of full questions"]
    assert (share.generated, share.real) == (1, 0)


def test_the_probability_of_more_counts_ties_half():
    # lengths 1, 2 against 2: A = (0 + 0.5) / 2 = 0.25, so apart = 0.5
    gap = query_gap(
        asked(["tows", "tows crowns"], "llm"), asked(["cost hour"] * 10, "user"), CHUNKS
    )
    assert gap is not None
    assert gap.measures[0].apart == pytest.approx(0.5)


def test_too_few_real_queries_say_nothing():
    assert query_gap(asked(["a b"], "llm"), asked(["c d"] * 9, "user"), CHUNKS) is None
    assert query_gap([], asked(["c d"] * 20, "user"), CHUNKS) is None
