"""Judgements that survive re-chunking, and what may not be a negative."""

from itertools import pairwise

import pytest

from embedtune.records import Chunk, Query, Span
from embedtune.relevance import Overlaps, Relevance, judge, merge_qrels, twins_of

TEXT = (
    "Orchard robots charge at night. 机器人在夜间充电，白天采摘苹果。Grippers need cleaning weekly."
)


def cut(*borders: int, document: str = "guide") -> list[Chunk]:
    return [
        Chunk(f"{document}:{start}-{end}", document, start, end, "", f"{document}{start}{end}")
        for start, end in pairwise(borders)
    ]


def ask(
    start: int, end: int, name: str = "q", text: str = "when?", document: str = "guide"
) -> Query:
    return Query(name, text, evidence=Span(document, start, end))


def test_every_chunk_that_holds_half_of_the_evidence_is_relevant():
    chunks = cut(0, 20, 40, 60)
    assert judge([ask(10, 30)], chunks, []) == {"q": {"guide:0-20": 1, "guide:20-40": 1}}
    assert judge([ask(11, 30)], chunks, []) == {"q": {"guide:20-40": 1}}


def test_when_none_holds_half_the_best_one_is_relevant():
    chunks = cut(0, 10, 24, 30, 40)
    # evidence of 36: 6, 14, 6 and 10 characters of it
    assert judge([ask(4, 40)], chunks, []) == {"q": {"guide:10-24": 1}}


def test_judgements_follow_the_evidence_to_other_chunks():
    query = ask(32, 48)
    for borders in ((0, 32, 48, 70), (0, 30, 70), (0, 40, 70), (0, 10, 20, 30, 50, 70)):
        relevant = judge([query], cut(*borders), [])["q"]
        for chunk in cut(*borders):
            holds_half = chunk.span.overlap(query.evidence) >= 8
            assert (chunk.id in relevant) == holds_half


def test_overlapping_chunks_are_all_judged():
    chunks = [Chunk("a", "guide", 0, 50, "", "a"), Chunk("b", "guide", 30, 80, "", "b"),
              Chunk("c", "other", 0, 80, "", "c")]  # fmt: skip
    assert judge([ask(32, 48)], chunks, []) == {"q": {"a": 1, "b": 1}}


def test_near_duplicates_of_a_relevant_chunk_are_relevant():
    chunks = [*cut(0, 20, 40), *cut(0, 20, document="copy")]
    assert judge([ask(0, 20)], chunks, [(0, 2)]) == {"q": {"guide:0-20": 1, "copy:0-20": 1}}


def test_evidence_outside_all_chunks_gives_no_entry():
    assert judge([ask(100, 120), ask(0, 9, document="gone"), Query("r", "?")], cut(0, 20), []) == {}


def test_what_may_not_be_a_negative():
    chunks = [*cut(0, 20, 40, 60), *cut(0, 20, 40, document="copy")]
    queries = [ask(15, 40, "q", "When do they charge?"), ask(0, 20, "r", "Where?", "copy")]
    near = [(0, 3)]  # guide:0-20 and copy:0-20
    known = Relevance(queries, chunks, judge(queries, chunks, near), near)
    # relevant: guide:20-40; overlapping the evidence only: guide:0-20
    assert known.excluded("q") == {"guide:20-40", "guide:0-20"}
    assert known.excluded("r") == {"copy:0-20", "guide:0-20"}


def test_queries_of_one_text_share_what_they_exclude():
    chunks = cut(0, 20, 40, 60)
    queries = [ask(0, 20, "q", "When  do they CHARGE?"), ask(40, 60, "r", "when do they charge?")]
    known = Relevance(queries, chunks, judge(queries, chunks, []), [])
    assert known.excluded("q") == known.excluded("r") == {"guide:0-20", "guide:40-60"}


def test_a_judgement_of_zero_excludes_nothing():
    chunks = cut(0, 20, 40)
    known = Relevance([Query("q", "?")], chunks, {"q": {"guide:0-20": 0, "guide:20-40": 2}}, [])
    assert known.excluded("q") == {"guide:20-40"}


def test_equal_texts_share_their_near_duplicates_even_where_pairs_are_a_star():
    texts = {"a": "same", "b": "same", "c": "Same ", "d": "near", "e": "-"}
    chunks = [Chunk(name, name, 0, 5, "", text) for name, text in texts.items()]
    star = [(0, 1), (0, 2), (0, 3)]
    twins = twins_of(chunks, star)
    assert twins["c"] >= {"a", "b", "d"}
    assert twins["d"] >= {"a", "b", "c"}
    assert "e" not in twins


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, 25), (19, 20), (20, 21), (0, 60), (59, 60)])
def test_overlaps_agree_with_looking_at_every_chunk(start, end):
    chunks = [Chunk(f"{i}", "guide", i, i + (7 * i) % 23 + 1, "", "x") for i in range(40)]
    span = Span("guide", start, end)
    found = {chunk.id for chunk in Overlaps(chunks).of(span)}
    assert found == {chunk.id for chunk in chunks if chunk.span.overlap(span) > 0}


def test_a_query_judged_in_two_parts_keeps_both_judgements():
    assert merge_qrels([{"q": {"a": 1}}, {"q": {"b": 1}, "r": {"c": 1}}]) == {
        "q": {"a": 1, "b": 1}, "r": {"c": 1}}  # fmt: skip
