"""Rows of CSV, TSV, JSON Lines and JSON: which column is what, and what becomes of bad rows."""

import json
from pathlib import Path

import pytest

from embedtune.documents.read import DocumentSettings, read_documents
from embedtune.documents.reading import Broken, Part
from embedtune.documents.rows import Columns, read_json, read_json_lines, read_table
from embedtune.errors import ConfigError
from embedtune.records import Reject, unusable

CSV = "nr,subject,body,state\n7,Oil,Once a year.,open\n8,水,每天一次。,\n"


def table(text: str | bytes, /, *, tabs: bool = False, **columns: object) -> list[Part | Reject]:
    data = text if isinstance(text, bytes) else text.encode()
    named = Columns.of(columns)  # type: ignore[arg-type]  # names, or lists of them
    return list(read_table(data, "replace", tabs=tabs, columns=named))


def lines(text: str | list[object], /, **columns: object) -> list[Part | Reject]:
    rows = text if isinstance(text, str) else "\n".join(map(json.dumps, text))
    named = Columns.of(columns)  # type: ignore[arg-type]
    return list(read_json_lines(rows.encode(), "replace", columns=named))


def rejects(items: list[Part | Reject]) -> list[tuple[int | None, str, str]]:
    return [(item.line, item.code, item.field) for item in items if isinstance(item, Reject)]


def texts(items: list[Part | Reject]) -> list[str]:
    return [item.text for item in items if isinstance(item, Part)]


# ---- which column is what


def test_columns_with_usual_names_are_found_and_the_others_kept_below_the_text() -> None:
    first, second = table(CSV)
    assert (first.text, first.title, first.line) == ("Once a year.\n\nnr: 7\nstate: open", "Oil", 2)
    assert second.text == "每天一次。\n\nnr: 8"
    assert [note for _, note in first.notes] == ["2 rows with a column 'body': one document a row"]
    assert second.notes == []


def test_named_columns_and_nothing_else() -> None:
    first, second = table(CSV, text="state", title="subject", id="nr")
    assert (first.text, first.title) == ("open", "Oil")
    assert first.meta["row_id"] == "7"
    assert (second.line, second.code, second.field) == (3, "no-text", "state")


def test_several_text_columns_are_joined_in_the_order_named() -> None:
    first, second = table(CSV, text=["state", "body"], id=["nr", "subject"])
    assert (first.text, first.meta["row_id"]) == ("open\n\nOnce a year.", "7 Oil")
    assert second.text == "每天一次。"


def test_names_are_matched_as_written_before_they_are_matched_loosely() -> None:
    assert texts(table("Body,body\none,two\n", text="body")) == ["two"]
    assert texts(table("Body,x\none,two\n", text=" BODY ")) == ["one"]


def test_a_column_that_is_absent_names_those_that_are_there() -> None:
    with pytest.raises(Broken) as caught:
        table(CSV, text="content", title="subject", id="number")
    assert (caught.value.code, str(caught.value)) == (
        "columns", "no column 'content', 'number', which documents.columns names; the columns are: "
        "nr, subject, body, state")  # fmt: skip


def test_rows_of_json_with_the_named_columns() -> None:
    rows = [{"q": "How?", "a": "So.", "nr": 7, "x": "left out"}, {"q": "Why?", "a": None},
            {"q": "", "a": " "}, {"q": 5}, {"a": ["x"]}]  # fmt: skip
    found = lines(rows, text=["q", "a"], id="nr")
    assert texts(found) == ["How?\n\nSo.", "Why?"]  # one of two texts is enough
    assert found[0].meta["row_id"] == "7"
    assert rejects(found) == [(3, "no-text", "q"), (4, "field", "q"), (5, "field", "a")]
    assert rejects(lines(rows[3:], text="q")) == [(1, "field", "q"), (2, "columns", "q")]


def test_a_column_that_no_row_of_json_has() -> None:
    for columns in ({"text": "body"}, {"text": ["a", "body"]}, {"text": "a", "title": "body"}):
        with pytest.raises(Broken, match=r"no column 'body', .*; the columns are: a, b, c"):
            lines([{"a": "x", "b": 1}, {"c": "y"}], **columns)


# ---- bad tables (D07, D08, D09)


@pytest.mark.parametrize(("text", "found", "bad"), [
    ("text,n\na,1,2\nb,3\n", ["b\n\nn: 3"], [(2, "cells", "")]),  # one cell too many, first row
    ("text,n\na\nb,3\n", ["b\n\nn: 3"], [(2, "cells", "")]),
    ('text,n\nb,3\n"open,1\nc,2\n', ["b\n\nn: 3"], [(3, "csv", "")]),
    ("text,text\na,b\n", [], [(1, "header", "")]),
    ("text,n\na,1\ntext,n\nb,2\n", ["a\n\nn: 1", "b\n\nn: 2"], [(3, "header", "")]),
    ("text,n\n,1\n  ,2\na,3\n", ["a\n\nn: 3"], [(2, "no-text", "text"), (3, "no-text", "text")]),
])  # fmt: skip
def test_rows_never_shift_and_bad_ones_are_named(
    text: str, found: list[str], bad: list[tuple[int, str, str]]
) -> None:
    items = table(text)
    assert texts(items) == found
    assert sorted(rejects(items)) == bad


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_guessed_and_said(separator: str) -> None:
    (part,) = table("text;n\na, b;1\n".replace(";", separator))
    assert part.text == "a, b\n\nn: 1"
    assert repr(separator) in part.notes[0][1]


def test_cells_stay_exactly_the_text_they_are() -> None:
    cells = ["NA", "null", "None", "007", "1e5", "2024-01-02", "TRUE", "=1+1"]
    assert texts(table("text\n" + "\n".join(cells))) == cells


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_other_encodings_line_ends_and_marks(encoding: str) -> None:
    text = "正文,编号\r\n入冬之前应当把上方的水管放空，并让阀门保持半开状态。,七\r\n"
    (part,) = table(text.encode(encoding))
    assert part.text == "入冬之前应当把上方的水管放空，并让阀门保持半开状态。"
    assert part.meta["row_id"] == "七"
    assert part.meta["encoding"] == encoding


def test_a_table_without_a_text_column_is_one_table() -> None:
    (part,) = table("part,price\nvalve,3\na|b,\n")
    assert part.text == "| part | price |\n| --- | --- |\n| valve | 3 |\n| a\\|b |  |"
    assert part.line is None
    (wide,) = table(",".join(f"c{n}" for n in range(10_000)) + "\n" + ",".join("x" * 10_000))
    assert wide.text.count("|") == 3 * 10_001


def test_a_tab_separated_table_may_hold_commas() -> None:
    assert texts(table("text\tn\na, b; c\t1\n", tabs=True)) == ["a, b; c\n\nn: 1"]


@pytest.mark.parametrize("text", ["", "\n\n", "text\n"])
def test_a_table_without_rows(text: str) -> None:
    with pytest.raises(Broken, match="no row"):
        table(text)


# ---- JSON


def json_file(value: object, /, **columns: object) -> list[Part | Reject]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    named = Columns.of(columns)  # type: ignore[arg-type]
    return list(read_json(text.encode(), "replace", columns=named))


def test_an_array_of_rows_is_read_like_lines() -> None:
    rows = [{"text": "One.", "title": "A", "_id": "x"}, {"content": "二。"}, {"n": 1}, "words"]
    for items in (json_file(rows), lines(json.dumps(rows))):
        assert texts(items) == ["One.", "二。"]
        assert (items[0].title, items[0].meta["row_id"], items[0].line) == ("A", "x", 1)
        assert rejects(items) == [(3, "field", "text"), (4, "json", "")]
    assert "a JSON array, not a row a line" in lines(json.dumps(rows))[0].notes[0][1]


def test_lines_under_the_extension_json_are_read() -> None:
    assert texts(json_file('{"text": "a"}\n{"text": "b"}\n')) == ["a", "b"]


@pytest.mark.parametrize(("text", "code", "says"), [
    ('{"name": "x", "scripts": {}}', "json-kind", "a JSON object with name, scripts; read are"),
    ("{}", "json-kind", "a JSON object with no key"),
    ("[1, 2, 3]", "json-kind", "JSON without any object (the first is int)"),
    ('"words"', "json-kind", "JSON without any object (the first is str)"),
    ("[]", "no-rows", "no row can be used"),
    ('{"a": 1,\n "b" 2}', "json", "not JSON: Expecting ':' delimiter at column 6"),
    ('{"a": 1, "a": 2}', "json", '"a" stands twice'),
    ('{"a": NaN}', "json", "NaN is not a number JSON knows"),
])  # fmt: skip
def test_json_of_another_kind_is_named(text: str, code: str, says: str) -> None:
    with pytest.raises(Broken) as caught:
        json_file(text)
    assert (caught.value.code, says in str(caught.value)) == (code, True)


def test_broken_lines_are_named_and_the_others_read() -> None:
    items = lines('{"text": "a"}\n{"text": \n{"text": "b", "text": "c"}\n{"text": "d"')
    assert texts(items) == ["a"]
    assert [(line, code) for line, code, _ in rejects(items)] == [
        (2, "json"), (3, "repeated-key"), (4, "json")]  # fmt: skip


# ---- through the reader of folders


def read(folder: Path, **columns: object):  # type: ignore[no-untyped-def]
    return read_documents([folder], DocumentSettings(columns=columns))  # type: ignore[arg-type]


def test_a_column_absent_in_one_file_is_a_reject_in_all_a_fault_of_the_settings(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text("note,n\nOil once a year.,1\n")
    (tmp_path / "b.csv").write_text("body,n\nWater every day.,1\n")
    (tmp_path / "c.jsonl").write_text('{"body": "Drains in May."}\n{"note": "Filters in June."}\n')
    reading = read(tmp_path, text="body")
    assert [document.text for document in reading.documents] == [
        "Water every day.", "Drains in May."]  # fmt: skip
    assert [(reject.file, reject.code) for reject in reading.rejects] == [
        ("a.csv", "columns"), ("c.jsonl", "columns")]  # fmt: skip
    assert unusable(reading.rejects)
    counts = reading.counts
    assert (counts.total, counts.accepted, counts.rejected) == (4, 2, 2)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text="bdy")
    assert caught.value.exit_code == 2
    assert [line.split(": no column")[0] for line in caught.value.lines] == [
        f"documents.columns: {name}" for name in ("a.csv", "b.csv", "c.jsonl")]  # fmt: skip


def test_a_workbook_without_the_column_stops_only_when_no_file_has_it(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["Part", "Price"])
    book.active.append(["valve", 3])
    book.save(tmp_path / "prices.xlsx")
    with pytest.raises(ConfigError, match=r"prices.xlsx: no column 'body'"):
        read(tmp_path, text="body")
    (tmp_path / "b.csv").write_text("body,n\nWater every day.,1\n")
    reading = read(tmp_path, text="body")
    assert [document.source for document in reading.documents] == ["b.csv:2", "prices.xlsx"]
    assert not reading.rejects
    assert "without_columns" not in reading.documents[1].meta
