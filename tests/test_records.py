"""Records: content ids, spans, counts, and rows that come back as they were."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Query,
    Reject,
    RetrievalSet,
    Span,
    as_row,
    chunk_from_row,
    content_id,
    document_from_row,
    query_from_row,
    reject_from_row,
    unusable,
)


def test_ids_follow_the_content_and_where_it_is_divided():
    assert content_id("c", "果园", 1) == content_id("c", "果园", "1")
    assert content_id("c", "ab", "c") != content_id("c", "a", "bc")
    assert content_id("c", "abc") != content_id("c", "abc", "")
    assert content_id("q", "abc").startswith("q")
    assert len(content_id("q", "abc")) == 17
    assert content_id("q", "\ud83d")  # a lone surrogate is no crash


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_overlap_is_the_number_of_shared_positions(a, b, c, d):
    one, other = Span("x", min(a, b), max(a, b)), Span("x", min(c, d), max(c, d))
    shared = len(set(range(one.start, one.end)) & set(range(other.start, other.end)))
    assert one.overlap(other) == other.overlap(one) == shared
    assert one.overlap(Span("y", 0, 50)) == 0


def test_counts_must_add_up():
    assert Counts(10, 6, 3, 1).total == 10
    with pytest.raises(ValueError, match="add up"):
        Counts(10, 6, 3)


FULL = {
    "pages": Document("d1", "指南.pdf", "", "正文 text", "pdf", "zh", ((0, 1), (4, 2)), {"a": "b"}),
    "chunk": Chunk("c1", "d1", 0, 4, "标题", "正文", ("一", "二"), 3, "zh", "table", 9, "指南.pdf"),
    "query": Query("q1", "什么?", "zh", "colloquial", "llm", "d1", "c1", Span("d1", 0, 4), ("x",)),
    "reject": Reject("read", "empty", "nothing in it", "a.txt", 1, "text", "…", "d1", False),
}


@pytest.mark.parametrize(
    ("record", "back"),
    [
        (FULL["pages"], document_from_row),
        (Document("d2", "empty.txt", "", "", "txt", ""), document_from_row),
        (FULL["chunk"], chunk_from_row),
        (Chunk("c2", "d1", 0, 0, "", ""), chunk_from_row),
        (FULL["query"], query_from_row),
        (Query("q2", ""), query_from_row),
        (FULL["reject"], reject_from_row),
        (Reject("read", "empty-file", "nothing in it"), reject_from_row),
    ],
)
def test_a_row_through_json_is_the_same_record(record, back):
    assert back(json.loads(json.dumps(as_row(record), ensure_ascii=False))) == record


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Query("q", "?").text = "!"


def test_embedded_text_is_title_space_text_stripped():
    assert Chunk("c", "d", 0, 1, "Charging", "At night.").embedded == "Charging At night."
    assert Chunk("c", "d", 0, 1, "", " 夜间充电。\n").embedded == "夜间充电。"


def test_queries_of_a_split_keep_their_order():
    queries = tuple(Query(name, name) for name in "cab")
    data = RetrievalSet("x", (), queries, {"test": {"a": {"p": 1}, "c": {"p": 1}}})
    assert [query.id for query in data.queries_of("test")] == ["c", "a"]


def test_duplicates_and_filters_are_not_unusable_input():
    assert not unusable([Reject("s", "copy", "m", unusable=False)])
    assert unusable([Reject("s", "copy", "m", unusable=False), Reject("s", "bad", "m")])
