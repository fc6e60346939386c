"""Parts of the queries: figures by hand, intervals only where there is enough."""

import numpy as np
import pytest

from embedtune.evaluation.breakdown import answering, breakdowns, part_of, question_word
from embedtune.evaluation.statistics import Sums, bootstrap_t
from embedtune.records import Chunk, Query, Span
from embedtune.results import SystemScores

METRIC = "ndcg@10"


def scores(name, values):
    return SystemScores(name, "dense", {}, {METRIC: values}, {})


def broken(queries, chunks, qrels, base, candidate):
    """Breakdowns by their property; each query is its own group."""
    found = breakdowns(
        scores("base", base), scores("tuned", candidate), METRIC, queries=queries, chunks=chunks,
        qrels=qrels, groups={query.id: query.id for query in queries}, seed=1,
    )  # fmt: skip
    return {breakdown.by: breakdown for breakdown in found}


CHUNKS = [
    Chunk("a", "d1", 0, 20, "", "short text", section=("Rules",), source="rules.md"),
    Chunk("b", "d2", 0, 20, "", "a longer text of seven words here", source="plan.md"),
    Chunk("c", "d2", 20, 40, "", "这一段有八个汉字", section=("计划", "二"), source="plan.md"),
]
QUERIES = [
    Query("q1", "how much is it", "en", style="question"),
    Query("q2", "rules fee", "en", style="keywords"),
    Query("q3", "什么时候开始？", "zh", style="question"),
    Query("q4", "plan start date and place", "en"),
]
QRELS = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"c": 1}, "q4": {"b": 1}}


def test_means_and_differences_by_hand():
    base = {"q1": 0.0, "q2": 1.0, "q3": 0.5, "q4": 0.5}
    after = {"q1": 1.0, "q2": 0.5, "q3": 0.5, "q4": 1.0}
    by = broken(QUERIES, CHUNKS, QRELS, base, after)
    rules, plan = sorted(by["document"].parts, key=lambda part: part.name, reverse=True)
    assert (rules.name, rules.queries, rules.groups) == ("rules.md", 2, 2)
    assert (rules.base, rules.candidate, rules.difference) == pytest.approx((0.5, 0.75, 0.25))
    assert (rules.gained, rules.lost) == (1, 1)
    assert (plan.name, plan.difference, plan.gained) == ("plan.md", 0.25, 1)
    assert [part.name for part in by["language"].parts] == ["en", "zh"]
    assert {part.name: part.queries for part in by["section"].parts} == {
        "rules.md › Rules": 2, "plan.md › 计划 › 二": 1}  # fmt: skip
    assert {part.name: part.queries for part in by["style"].parts} == {"question": 2, "keywords": 1}
    # 4, 2, 7 and 5 words or characters: thirds of four
    lengths = {part.name: part.queries for part in by["query-length"].parts}
    assert lengths == {"≤4": 2, "5": 1, ">5": 1}
    questions = {part.name: part.queries for part in by["question"].parts}
    assert questions == {"how-many": 1, "none": 2, "when": 1}


def test_parts_that_are_too_small_have_no_interval():
    values = {f"q{number:02}": number % 3 / 2 for number in range(40)}
    zero = dict.fromkeys(values, 0.0)

    def part(queries, groups):
        names = list(values)[:queries]
        return part_of("x", names, zero, values,
                       {q: f"g{int(q[1:]) % groups}" for q in names}, 1)  # fmt: skip

    assert part(19, 19).low is None
    assert part(40, 9).low is None
    full = part(20, 10)
    sums = [values[f"q{g:02}"] + values[f"q{g + 10:02}"] for g in range(10)]
    [[low, high]] = bootstrap_t(Sums(np.array([sums]), np.full(10, 2.0)), seed=1)
    assert (full.low, full.high) == pytest.approx((max(low, -1), min(high, 1)))


def test_the_largest_parts_are_shown_and_the_rest_is_added_up():
    queries, chunks, qrels = [], [], {}
    for number in range(15):
        chunks.append(Chunk(f"c{number}", f"d{number:02}", 0, 1, "", "text"))
        for twice in range(2 if number < 5 else 1):
            queries.append(Query(f"q{number}-{twice}", "words", "en"))
            qrels[f"q{number}-{twice}"] = {f"c{number}": 1}
    zero = {query.id: 0.0 for query in queries}
    after = zero | {"q14-0": 0.75, "q13-0": 0.25}
    documents = broken(queries, chunks, qrels, zero, after)["document"]
    assert [part.name for part in documents.parts[:6]] == [f"d{n:02}" for n in range(6)]
    assert len(documents.parts) == 12
    assert documents.rest_parts == 3
    assert (documents.rest.queries, documents.rest.groups) == (3, 3)
    assert documents.rest.difference == pytest.approx(1 / 3)
    assert documents.rest.low is None


def test_what_all_queries_share_is_no_breakdown():
    same = [Query("q1", "why", "en"), Query("q2", "why", "en")]
    values = {"q1": 0.5, "q2": 0.5}
    assert broken(same, CHUNKS[:1], {"q1": {"a": 1}, "q2": {"a": 1}}, values, values) == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is the fee?", "what"), ("how long does it take", "how-many"),
        ("How do I reset it", "how"), ("who signs", "who"), ("Can I leave early?", "yes-no"),
        ("In which room?", "which"), ("the canteen", "none"), ("somewhat later", "none"),
        ("I wonder why it broke", "why"), ("It beeps. Is that normal", "yes-no"),
        ("费用是多少", "how-many"), ("怎么重置", "how"), ("为什么坏了", "why"), ("由谁签字", "who"),
        ("什么时候发货", "when"), ("发票是否可以补开", "yes-no"), ("可以退货吗", "yes-no"),
        ("在哪里领取", "where"), ("哪个部门负责", "which"), ("什么是保证金", "what"),
        ("保证金 退还", "none"), ("试用期几个月", "how-many"),
    ],
)  # fmt: skip
def test_questions_are_told_by_their_words(text, kind):
    assert question_word(text) == kind


def test_the_passage_that_stands_for_all_holds_most_of_the_evidence():
    chunks = {"a": Chunk("a", "d", 0, 10, "", ""), "b": Chunk("b", "d", 8, 30, "", "")}
    query = Query("q", "?", evidence=Span("d", 5, 20))
    assert answering(query, {"a": 1, "b": 1}, chunks) == "b"
    assert answering(Query("q", "?"), {"a": 1, "b": 2}, chunks) == "b"
    assert answering(Query("q", "?"), {"b": 1, "a": 1}, chunks) == "a"
    assert answering(query, {"a": 0}, chunks) is None
