"""Readers for text files: plain text, Markdown, tables (CSV, TSV) and JSON Lines."""

import re
from collections.abc import Iterator

import yaml

from embedtune.decode import Decoded, Undecodable, decode
from embedtune.documents.outline import TABLE_RULE, open_fence
from embedtune.documents.reading import Broken, Part
from embedtune.files import json_rows, table_rows, visible
from embedtune.records import Reject

TEXT_COLUMNS = ("text", "content", "body", "passage", "正文", "内容", "文本")
TITLE_COLUMNS = ("title", "heading", "subject", "标题", "题目")
ID_COLUMNS = ("_id", "id", "编号")


def decoded(
    data: bytes, broken_bytes: str
) -> tuple[str, dict[str, str], list[tuple[int | None, str]]]:
    """Text, what goes into ``Document.meta``, and notes.

    Raises:
        Broken: The encoding cannot be told, or bytes are broken and shall not be replaced.
    """
    try:
        result: Decoded = decode(data, replace_broken=broken_bytes == "replace")
    except Undecodable as error:
        raise Broken("encoding", str(error)) from error
    meta = {"encoding": result.encoding}
    notes: list[tuple[int | None, str]] = []
    if result.replaced:
        meta["replaced_bytes"] = str(result.replaced)
        meta["first_broken_line"] = str(result.first_bad_line)
        notes.append((result.first_bad_line, f"{result.replaced} broken bytes replaced by U+FFFD"))
    elif result.encoding not in ("utf-8", "utf-8-sig"):
        notes.append((None, f"read as {result.encoding}"))
    return result.text, meta, notes


def read_text(data: bytes, broken_bytes: str) -> Part:
    text, meta, notes = decoded(data, broken_bytes)
    return Part(kind="text", text=text, meta=meta, notes=notes)


def read_markdown(data: bytes, broken_bytes: str) -> Part:
    """Markdown as it stands; front matter goes into ``meta`` when it is YAML, else stays."""
    text, meta, notes = decoded(data, broken_bytes)
    part = Part(kind="markdown", text=text.replace("\r\n", "\n"), meta=meta, notes=notes)
    _front_matter(part)
    heading = re.search(r"^#[ \t]+(\S.*?)[ \t]*#*$", part.text, re.MULTILINE)
    if not part.title and heading:
        part.title = heading[1]
    if line := open_fence(part.text):
        part.note("a code fence is never closed; read as text", line)
    _ragged_tables(part)
    return part


def _front_matter(part: Part) -> None:
    match = re.match(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", part.text, re.DOTALL)
    if not match:
        return
    try:
        values = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        part.note("the front matter is not a YAML mapping; kept as text", 1)
        return
    part.meta["front_matter"] = match[1]
    part.title = str(values.get("title") or "")
    part.text = part.text[match.end() :]


def _ragged_tables(part: Part) -> None:
    lines = part.text.split("\n")
    for number, line in enumerate(lines):
        if "|" not in line or not TABLE_RULE.match(line) or not number:
            continue
        columns = _cells(line)
        for row in range(number + 1, len(lines)):
            if "|" not in lines[row]:
                break
            if _cells(lines[row]) != columns:
                part.note(
                    f"a table row of {_cells(lines[row])} cells under {columns} columns; kept",
                    row + 1,
                )
                break


def _cells(line: str) -> int:
    return len(re.split(r"(?<!\\)\|", line.strip().strip("|")))


def read_table(data: bytes, broken_bytes: str, *, tabs: bool) -> Iterator[Part | Reject]:
    """CSV or TSV: a document a row where a column holds text, else one Markdown table."""
    text, meta, notes = decoded(data, broken_bytes)
    rejects: list[Reject] = []
    rows = list(table_rows(text, rejects, "read", file="", separator="\t" if tabs else None))
    yield from rejects
    if not rows:
        if rejects:
            return
        raise Broken("no-rows", "no row can be used")
    columns = list(rows[0][1])
    body = _named(columns, TEXT_COLUMNS)
    if body is None:
        notes.append(
            (None, f"{len(rows)} rows without a text column ({', '.join(TEXT_COLUMNS)}): one table")
        )
        lines = [_table_row(columns), "|" + " --- |" * len(columns)]
        lines += [_table_row(row.values()) for _, row in rows]
        yield Part(kind="csv", text="\n".join(lines), meta=meta, notes=notes)
        return
    title = _named(columns, TITLE_COLUMNS)
    notes.append((None, f"{len(rows)} rows with a column {visible(body)!r}: one document a row"))
    for line, row in rows:
        if not row[body].strip():
            yield Reject(
                "read", "no-text", f"the column {visible(body)!r} is empty", line=line, field=body
            )
            continue
        others = [
            f"{name}: {' '.join(value.split())}"
            for name, value in row.items()
            if name not in (body, title, *ID_COLUMNS) and value.strip()
        ]
        yield Part(
            kind="csv",
            text="\n".join([row[body].strip(), *([""] if others else []), *others]),
            title=row[title] if title else "",
            line=line,
            meta={**meta, **_row_id(row)},
            notes=notes,
        )
        notes = []  # once is enough


def _table_row(cells: "Iterator[str] | list[str]") -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _named(columns: list[str], names: tuple[str, ...]) -> str | None:
    lowered = {column.lower(): column for column in reversed(columns)}
    return next((lowered[name] for name in names if name in lowered), None)


def _row_id(row: dict[str, object]) -> dict[str, str]:
    return next(({"row_id": str(row[name])} for name in ID_COLUMNS if row.get(name)), {})


def read_json_lines(data: bytes, broken_bytes: str) -> Iterator[Part | Reject]:
    """A document a row: ``text`` (or content, body, …), with ``title`` and ``_id``."""
    text, meta, notes = decoded(data, broken_bytes)
    rejects: list[Reject] = []
    found = 0
    for line, row in json_rows(text, rejects, "read", file=""):
        body = next((name for name in TEXT_COLUMNS if name in row), None)
        value = row.get(body) if body else None
        if not isinstance(value, str) or not value.strip():
            shown = (
                "no " + " or ".join(TEXT_COLUMNS[:3])
                if body is None
                else f"{visible(repr(value), 30)}"
            )
            why = f"{shown}; each line needs a text that is not empty"
            rejects.append(
                Reject("read", "field", why, line=line, field=body or "text", excerpt=visible(row))
            )
            continue
        title = next((row[name] for name in TITLE_COLUMNS if isinstance(row.get(name), str)), "")
        yield Part(kind="jsonl", text=value, title=title, line=line,
                   meta={**meta, **_row_id(row)}, notes=notes if not found else [])  # fmt: skip
        found += 1
    yield from rejects
    if not found and not rejects:
        raise Broken("no-rows", "no row can be used")
