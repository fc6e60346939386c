"""Decisions about queries: read back exactly, applied, and honoured over every rule."""

import csv
import io
import json

import pytest

from embedtune.errors import ConfigError
from embedtune.files import neutralised, unneutralised
from embedtune.queries.checks import query_id
from embedtune.queries.filter import FilterSettings, filter_queries
from embedtune.queries.review import (
    Decision,
    apply_decisions,
    read_decisions,
    save_decisions,
)
from embedtune.records import Chunk, Query, Span

CHUNKS = {
    f"c{n}": Chunk(f"c{n}", "d", 20 * n, 20 * n + 20, "", f"passage number {n}...")
    for n in range(3)
}
QUERIES = [
    Query("q1", "what does the ferry cost", origin="llm", chunk="c0", evidence=Span("d", 0, 20)),
    Query("q2", "轮渡几点开", origin="llm", chunk="c1", evidence=Span("d", 20, 40)),
    Query("q3", "according to this passage, who pays", origin="llm", chunk="c2",
          evidence=Span("d", 40, 60)),
]  # fmt: skip


def test_queries_are_rejected_edited_kept_and_widened():
    found = apply_decisions(
        QUERIES,
        [
            Decision("q1", "reject", note="nobody asks that"),
            Decision("q2", "edit", "末班轮渡几点开？"),
            Decision("q3", "keep", relevant=(Span("d", 0, 20),)),
            Decision("gone", "keep"),
        ],
    )
    assert [query.text for query in found.queries] == ["末班轮渡几点开？", QUERIES[2].text]
    assert found.queries[0].id != "q2"
    assert found.queries[0].language == "zh"
    assert found.queries[1].more_evidence == (Span("d", 0, 20),)
    assert all("reviewed" in query.flags for query in found.queries)
    (reject,) = found.rejects
    assert "nobody asks that" in reject.message
    assert not reject.unusable
    assert (found.applied, found.unknown) == (3, 1)


def test_the_last_decision_about_a_query_holds():
    found = apply_decisions(QUERIES[:1], [Decision("q1", "reject"), Decision("q1", "keep")])
    assert len(found.queries) == 1


def test_an_edit_that_repeats_another_query_is_a_duplicate():
    one, other = QUERIES[0], Query("q9", "ferry fare", origin="llm", evidence=Span("d", 0, 20))
    edited = [Decision("q1", "edit", "same words"), Decision("q9", "edit", "same words")]
    found = apply_decisions([one, other], edited)
    assert len(found.queries) == 1
    assert [reject.code for reject in found.rejects] == ["duplicate"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_edit_into_an_undecided_query_makes_one_of_two(order):
    """Text and evidence, and so the id, are then the same: none is lost without a word."""
    there = Span("d", 0, 20)
    made = query_id("ferry fare", there)
    fare = Query(
        made, "ferry fare", origin="llm", evidence=there, more_evidence=(Span("d", 60, 70),)
    )
    asked = [(QUERIES[0], fare)[n] for n in order]
    marked = Decision("q1", "edit", "ferry fare", (Span("d", 40, 60),))
    found = apply_decisions(asked, [marked])
    assert len(found.queries) + len(found.rejects) == 2
    assert [(reject.code, reject.unusable) for reject in found.rejects] == [("duplicate", False)]
    (kept,) = found.queries
    assert kept.id == made
    assert set(kept.more_evidence) == {Span("d", 40, 60), Span("d", 60, 70)}
    assert "reviewed" in kept.flags


def test_repeated_ids_are_counted_each():
    found = apply_decisions([QUERIES[0]] * 3, [])
    assert (len(found.queries), len(found.rejects)) == (1, 2)


def test_decisions_applied_twice_change_nothing_more():
    made = [Decision("q1", "edit", "末班轮渡几点开？", (Span("d", 40, 60),)),
            Decision("q2", "keep", relevant=(Span("d", 0, 20),))]  # fmt: skip
    once = apply_decisions(QUERIES, made)
    twice = apply_decisions(once.queries, made)
    assert twice.queries == once.queries
    assert (twice.applied, twice.unknown) == (1, 1)  # q1 has another id now


def test_a_decision_that_is_taken_back_is_none(tmp_path):
    made = [Decision("q1", "reject"), Decision("q2", "keep"), Decision("q1", "undecided")]
    found = apply_decisions(QUERIES, made)
    assert (len(found.queries), found.applied, found.rejects) == (3, 1, ())
    path = tmp_path / "decisions.jsonl"
    assert save_decisions(path, made) == 1
    assert [decision.query for decision in read_decisions(path, CHUNKS)[0]] == ["q2"]


def test_no_filter_leaves_out_what_somebody_kept():
    kept = apply_decisions(QUERIES, [Decision("q3", "keep")]).queries
    assert len(filter_queries(QUERIES, list(CHUNKS.values()), [], FilterSettings()).queries) == 2
    assert len(filter_queries(kept, list(CHUNKS.values()), [], FilterSettings()).queries) == 3


def test_saved_decisions_are_read_back_the_same(tmp_path):
    made = [
        Decision("q1", "reject", note="=1+1"),
        Decision("q2", "edit", "=SUM(末班)"),
        Decision("q3", "keep", relevant=(Span("d", 0, 20), Span("d", 20, 40))),
    ]
    path = tmp_path / "decisions.jsonl"
    assert save_decisions(path, [Decision("q1", "keep"), *made]) == 3
    found, rejects = read_decisions(path, CHUNKS)
    assert not rejects
    assert sorted(found, key=lambda decision: decision.query) == made


def table(tmp_path, *rows):
    out = io.StringIO()
    names = ["id", "decision", "text", "also_relevant", "note", "query"]
    writer = csv.DictWriter(out, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "review.csv"
    path.write_bytes(out.getvalue().encode("utf-8-sig"))
    return path


def test_a_filled_in_table_gives_decisions_and_untouched_rows_none(tmp_path):
    path = table(
        tmp_path,
        {"id": "q0", "text": "as it was", "query": "as it was"},
        {"id": "q1", "decision": "Reject", "text": "x", "query": "x", "note": "why"},
        {"id": "q2", "text": "末班轮渡几点开？", "query": "轮渡几点开"},
        {"id": "q3", "text": "who pays", "query": "who pays", "also_relevant": "c0, c1"},
        {"id": "q4", "text": "'=ferry price", "query": "'=ferry price", "decision": "keep"},
    )
    found, rejects = read_decisions(path, CHUNKS)
    assert not rejects
    assert found == [
        Decision("q1", "reject", note="why"),
        Decision("q2", "edit", "末班轮渡几点开？"),
        Decision("q3", "keep", relevant=(CHUNKS["c0"].span, CHUNKS["c1"].span)),
        Decision("q4", "keep"),
    ]


@pytest.mark.parametrize("text", ["=1+1", "+7", "-x", "@me", "\tindent", "plain", "'quoted", ""])
def test_cells_survive_the_way_through_a_spreadsheet(text):
    assert unneutralised(neutralised(text)) == text
    assert neutralised(text)[:1] not in ("=", "+", "-", "@", "\t")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"decision": "keep"}, "query"),
        ({"query": "q1", "decision": "maybe"}, "decision"),
        ({"query": "q1"}, "decision"),
        ({"query": "q1", "decision": "edit"}, "text"),
        ({"query": "q1", "decision": "edit", "text": 7}, "text"),
        ({"query": "q1", "decision": "keep", "relevant": [{"document": "d"}]}, "relevant"),
        ({"query": "q1", "decision": "keep", "relevant": "c1"}, "relevant"),
        (
            {
                "query": "q1",
                "decision": "keep",
                "relevant": [{"document": "d", "start": 9, "end": 2}],
            },
            "relevant",
        ),
    ],
)
def test_an_unusable_row_is_named_with_line_and_field(tmp_path, row, field):
    path = tmp_path / "decisions.jsonl"
    rows = [{"query": "q2", "decision": "keep"}, row]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found, rejects = read_decisions(path, CHUNKS)
    assert [decision.query for decision in found] == ["q2"]
    (reject,) = rejects
    assert (reject.line, reject.field, reject.unusable) == (2, field, True)


def test_a_wording_that_is_no_query_is_named_not_passed_over(tmp_path):
    long = {"id": "q3", "text": "x" * 600, "query": "who pays", "decision": "reject"}
    mark = {"id": "q1", "text": "?", "query": "who pays"}
    path = table(tmp_path, mark, {"id": "q2", "text": "", "query": "who pays"}, long)
    found, rejects = read_decisions(path, CHUNKS)
    assert [(reject.line, reject.field) for reject in rejects] == [(2, "text")]
    assert found == [Decision("q3", "reject")]  # an empty cell is no wording


def test_an_unknown_passage_in_the_table_is_named(tmp_path):
    _, rejects = read_decisions(table(tmp_path, {"id": "q1", "also_relevant": "c77"}), CHUNKS)
    assert "c77" in rejects[0].message


def test_a_missing_file_is_a_fault_of_the_command(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_decisions(tmp_path / "none.jsonl", CHUNKS)
