"""Readers for text files: plain text and Markdown."""

import re

import yaml

from embedtune.decode import Decoded, Undecodable, decode
from embedtune.documents.outline import TABLE_RULE, open_fence
from embedtune.documents.reading import Broken, Part


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
