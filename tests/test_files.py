import gzip
import json
import os
from pathlib import Path

import pytest

from embedtune.errors import ResourceError
from embedtune.files import (
    number_in,
    read_json,
    read_jsonl,
    read_table,
    visible,
    write_json,
    write_jsonl,
    write_text,
)
from embedtune.records import Reject


def jsonl(path: Path, data: str | bytes) -> tuple[list[tuple[int, dict]], list[Reject]]:  # type: ignore[type-arg]
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    rejects: list[Reject] = []
    return list(read_jsonl(path, rejects, "load")), rejects


def table(path: Path, data: str | bytes) -> tuple[list[tuple[int, dict]], list[Reject]]:  # type: ignore[type-arg]
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    rejects: list[Reject] = []
    return list(read_table(path, rejects, "load")), rejects


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


# ---- writing


def test_files_are_written_whole_and_leave_no_scratch(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "水泵\n")
    write_json(tmp_path / "deep" / "a.json", {"名": 1})
    write_jsonl(tmp_path / "deep" / "a.jsonl", [{"a": "水"}, {"a": 2}])
    assert (tmp_path / "deep" / "a.jsonl").read_text("utf-8") == '{"a": "水"}\n{"a": 2}\n'
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.json", "a.jsonl", "a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"a": float("nan")})
    assert read_json(target) == {"a": 1}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        handle = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(handle, b"x")
        finally:
            os.close(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"a\.txt: cannot write: No space left"):
        write_text(tmp_path / "a.txt", "words")
    assert list(tmp_path.iterdir()) == []


# ---- JSON lines


def test_rows_come_with_their_line_numbers(file: Path) -> None:
    rows, rejects = jsonl(file, '{"a": 1}\n\n{"a": "\u2028 is text"}\n')
    assert rows == [(1, {"a": 1}), (3, {"a": "\u2028 is text"})]
    assert rejects == []


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ('{"a": 1', "json", "column 8"),
        ('{"a": 1, "a": 2}', "repeated-key", 'the key "a" stands twice'),
        ('{"a": NaN}', "json", "NaN"),
        ('{"a": -Infinity}', "json", "Infinity"),
        ("[1, 2]", "json", "expected an object, found list"),
        ('"text"', "json", "expected an object, found str"),
        ("<html>not found</html>", "json", "column 1"),
        ("[" * 100_000, "json", "not JSON"),
    ],
)
def test_a_broken_line_is_rejected_and_the_others_read(
    file: Path, line: str, code: str, message: str
) -> None:
    rows, rejects = jsonl(file, f'{{"a": 0}}\n{line}\n{{"a": 2}}\n')
    assert [number for number, _ in rows] == [1, 3]
    [reject] = rejects
    assert (reject.code, reject.line, reject.file) == (code, 2, str(file))
    assert message in reject.message
    assert len(reject.excerpt) <= 80


def test_a_cut_last_line_says_so(file: Path) -> None:
    rows, [reject] = jsonl(file, '{"a": 1}\n{"a": "unfin')
    assert len(rows) == 1
    assert "the file ends inside a record" in reject.message


def test_an_array_is_accepted(file: Path) -> None:
    rows, [reject] = jsonl(file, '[{"a": 1}, 5, {"a": 2}]')
    assert rows == [(1, {"a": 1}), (3, {"a": 2})]
    assert reject.line == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "gbk"])
def test_encodings_and_line_ends(file: Path, encoding: str) -> None:
    text = '{"text": "公司应当披露年度报告，说明经营的情况。"}\r\n' * 3
    rows, rejects = jsonl(file, text.encode(encoding))
    assert [row["text"] for _, row in rows] == ["公司应当披露年度报告，说明经营的情况。"] * 3
    assert rejects == []


def test_an_encoding_that_cannot_be_told_is_one_reject(file: Path) -> None:
    rows, [reject] = jsonl(file, b'{"text": "\x9d\x81\x8d\x90 \xfe\xfa"}\n' * 3)
    assert rows == []
    assert reject.code == "encoding"


def test_half_characters_and_nul_do_not_get_in(file: Path) -> None:
    [(_, row)], _ = jsonl(file, '{"a": ["x\\ud83d", {"k\\u0000": "\\u0000y"}]}\n')
    assert row == {"a": ["x\ufffd", {"k": "y"}]}
    json.dumps(row, ensure_ascii=False).encode()


def test_one_bad_item_of_an_array_is_rejected_and_its_field_named(file: Path) -> None:
    rows, rejects = jsonl(file, '[{"a": 1}, {"a": 1, "a": 2}, {"b": {"c": [NaN]}}, {"a": 3}]')
    assert rows == [(1, {"a": 1}), (4, {"a": 3})]
    assert [(r.line, r.code, r.field) for r in rejects] == [
        (2, "repeated-key", "a"), (3, "json", "b")]  # fmt: skip


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a"', "[" * 100_000, '[{"a": 1}]x'])
def test_a_broken_array_is_one_reject(file: Path, text: str) -> None:
    rows, [reject] = jsonl(file, text)
    assert rows == []
    assert "a JSON array that cannot be read" in reject.message


@pytest.mark.parametrize("page", ["<html><p>404</p>\n</html>", "\n <!DOCTYPE HTML>\n<html>\n"])
def test_a_web_page_is_named_as_one(tmp_path: Path, page: str) -> None:
    rows, [reject] = jsonl(tmp_path / "a.jsonl", page)
    assert (rows, reject.code) == ([], "html")
    rows, [reject] = table(tmp_path / "a.csv", page)
    assert (rows, reject.code) == ([], "html")


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress('{"a": "水"}\n'.encode())
    rows, rejects = jsonl(tmp_path / "a.jsonl.gz", packed)
    assert (rows, rejects) == ([(1, {"a": "水"})], [])
    for broken in (packed[:-6], b"not packed", packed[:12] + b"\xff\xff" + packed[14:]):
        rows, [reject] = jsonl(tmp_path / "a.jsonl.gz", broken)
        assert (rows, reject.code) == ([], "gzip")


def test_what_had_to_be_assumed_or_mended_is_told(tmp_path: Path) -> None:
    def told(name: str, data: bytes) -> list[str]:
        (tmp_path / name).write_bytes(data)
        notes: list[str] = []
        read = read_table if name.endswith("csv") else read_jsonl
        assert list(read(tmp_path / name, [], "load", notes))  # type: ignore[operator]
        return notes

    assert told("a.jsonl", b'{"a": "b"}\n') == []
    assert told("a.jsonl", b'[{"a": "b"}]') == [
        "a.jsonl: a JSON array, not a row a line; its items are read"
    ]
    assert told("a.json", b'[{"a": "b"}]') == []
    assert told("a.jsonl", b'{"a": 1}\n{"a": ["\\ud83d"]}\n{"a": "\\u0000"}\n') == [
        "a.jsonl: NUL removed or half characters (lone surrogates) replaced in 2 rows, the first "
        "in 2"
    ]
    assert told("a.csv", b"a;b\n1;2\n") == ["a.csv: the separator is taken to be ';'"]
    chinese = "问题,答案\n公司应当怎样披露报告？,按照国务院的规定进行披露。\n"
    assert told("a.csv", chinese.encode("gb18030")) == ["a.csv: read as gb18030"]
    assert told("a.csv", chinese.encode("utf-8-sig")) == []


# ---- tables


def test_cells_stay_the_text_they_are(tmp_path: Path) -> None:
    cells = ["NA", "null", "None", "007", "1e5", "2024-01-02", "TRUE", " x "]
    rows, rejects = table(
        tmp_path / "a.csv", "id,text\n" + "".join(f"{n},{c}\n" for n, c in enumerate(cells))
    )
    assert [row["text"] for _, row in rows] == cells
    assert rejects == []


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    rows, _ = table(tmp_path / "a.csv", f"a{separator}b\n1{separator}2\n")
    assert rows == [(2, {"a": "1", "b": "2"})]


def test_the_first_row_with_a_cell_too_many_shifts_nothing(tmp_path: Path) -> None:
    rows, [reject] = table(tmp_path / "a.csv", "q,p\n1,2,3\n4,5\n")
    assert rows == [(3, {"q": "4", "p": "5"})]
    assert (reject.line, reject.code) == (2, "cells")
    assert "3 cells where the header has 2 (separator ',')" in reject.message


def test_an_unclosed_quote_is_named_where_it_opens(tmp_path: Path) -> None:
    rows, [reject] = table(tmp_path / "a.csv", 'q,p\n1,2\n3,"open\n4,5\n')
    assert [line for line, _ in rows] == [2]
    assert (reject.line, reject.code) == (3, "csv")


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    rows, _ = table(tmp_path / "a.csv", 'q,p\n1,"two\nlines"\n\n3,4\n')
    assert [line for line, _ in rows] == [2, 5]


@pytest.mark.parametrize("header", ["q,q", "q,", "q,p,q"])
def test_a_header_that_repeats_is_refused(tmp_path: Path, header: str) -> None:
    rows, [reject] = table(tmp_path / "a.csv", f"{header}\n1,2\n")
    assert rows == []
    assert reject.code == "header"


def test_the_unnamed_index_that_pandas_writes_is_a_column(tmp_path: Path) -> None:
    rows, rejects = table(tmp_path / "a.csv", ",q\n0,one\n1,two\n")
    assert rows == [(2, {"Unnamed: 0": "0", "q": "one"}), (3, {"Unnamed: 0": "1", "q": "two"})]
    assert rejects == []


def test_quotes_of_a_tab_file_that_do_not_pair_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('q\tp\n"Stop" he said\t6" pipe\n"open\tx\nlast\t"y"\n', "utf-8")
    notes: list[str] = []
    rows = [row for _, row in read_table(path, [], "load", notes)]
    assert rows == [
        {"q": '"Stop" he said', "p": '6" pipe'}, {"q": '"open', "p": "x"},
        {"q": "last", "p": '"y"'},
    ]  # fmt: skip
    assert notes == ["a.tsv: quotes are read as characters, as they do not pair"]
    rows, _ = table(path, 'q\tp\n"two\nlines"\t"a\tb"\n')
    assert [row for _, row in rows] == [{"q": "two\nlines", "p": "a\tb"}]


def test_what_is_left_unread_after_an_open_quote_is_told(tmp_path: Path) -> None:
    _, [reject] = table(tmp_path / "a.csv", 'q,p\n1,"open\n3,4\n5,6\n')
    assert "the 2 lines after it are not read" in reject.message
    assert reject.excerpt == '1,"open'


def test_a_repeated_header_row_is_no_data(tmp_path: Path) -> None:
    rows, [reject] = table(tmp_path / "a.csv", "q,p\n1,2\nq,p\n3,4\n")
    assert len(rows) == 2
    assert (reject.line, reject.unusable) == (3, False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_the_mark_is_no_part_of_the_first_column(tmp_path: Path, encoding: str) -> None:
    text = "问题,答案\r\n公司应当怎样披露报告？,按照国务院的规定进行披露。\r\n"
    [(line, row)], _ = table(tmp_path / "a.csv", text.encode(encoding))
    assert (line, list(row)) == (2, ["问题", "答案"])


# ---- the rest


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 文字", "plain 文字"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("\u202egnp", "\\u202egnp"),
        ("\ud83d", "\\ud83d"),
        ("x" * 100, "x" * 79 + "…"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), ("0.5", 0.5), ("0,8", None), ("1_0", None), (True, None), (None, None),
     ("nan", None), ("1e999", None), ([], None)],
)  # fmt: skip
def test_number_in(value: object, number: float | None) -> None:
    assert number_in(value) == number
