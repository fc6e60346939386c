"""Reading what a language model wrote: the JSON asked for, or what can safely be made of it.

Anything repaired is marked; what would have to be guessed is refused with a reason code. An
answer that breaks off is never read as if it were whole.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedtune.files import clean_text, visible

LONGEST = 1_000_000  # characters of an answer

QUERY_NAMES = ("query", "question", "text", "q", "问题", "查询")
EVIDENCE_NAMES = ("evidence", "quote", "answer", "证据", "原文")
LIST_NAMES = ("queries", "questions", "问题", "查询")


@dataclass(frozen=True, slots=True)
class Item:
    """One query as the model gave it, cleaned of what breaks files, nothing else."""

    query: str
    style: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """An item that is none: where, and why."""

    code: str
    message: str
    field: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """``code`` is empty when the answer as a whole could be read."""

    items: tuple[Item, ...] = ()
    faults: tuple[Fault, ...] = ()
    repaired: bool = False
    code: str = ""
    message: str = ""


def parse_queries(text: str) -> Parsed:
    """The queries in an answer. Reason codes: ``empty-answer``, ``answer-too-long``, ``cut``,
    ``ambiguous``, ``schema``, ``not-json``."""
    if not text.strip():
        return Parsed(code="empty-answer", message="the answer is empty")
    found = read_json_answer(text)
    if found.code == "not-json":
        items = _list_items(_without_thinking(text))
        if items:
            return Parsed(items=tuple(Item(item) for item in items), repaired=True)
    if found.code:
        return Parsed(code=found.code, message=found.message)
    values, repaired = found.values, found.repaired
    lists = [_query_list(value) for value in values]
    if len(values) > 1:
        known = [entries for entries in lists if entries is not None]
        singles = [value for value in values if _is_query(value)]
        if singles and len(singles) == len(values):
            entries: Any = singles
        elif known and all(entries == known[0] for entries in known):
            entries = known[0]
        elif known:
            return Parsed(code="ambiguous", message=f"{len(known)} different lists of queries")
        else:
            return Parsed(code="schema", message=_expected(values[0]))
    else:
        entries = lists[0] if lists[0] is not None else values if _is_query(values[0]) else None
        if entries is None:
            return Parsed(code="schema", message=_expected(values[0]))
        repaired |= not isinstance(values[0], dict) or "queries" not in values[0]
    items, faults = [], []
    for number, entry in enumerate(entries):
        item = _item(entry, f"queries[{number}]")
        if isinstance(item, Item):
            repaired |= not (isinstance(entry, dict) and "query" in entry)
            items.append(item)
        else:
            faults.append(item)
    return Parsed(tuple(items), tuple(faults), repaired)


# ---- JSON in whatever wrapping


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON values of an answer, or why there is none."""

    values: tuple[Any, ...] = ()
    repaired: bool = False
    code: str = ""
    message: str = ""


def read_json_answer(text: str) -> Found:
    """The objects and lists in an answer: plain, fenced, among words, slightly damaged.

    Never empty without a code.
    """
    if len(text) > LONGEST:
        return Found(code="answer-too-long", message=f"the answer has {len(text):,} characters")
    bare = text.strip().lstrip("\ufeff")
    try:
        return Found((json.loads(bare),))
    except (ValueError, RecursionError):
        pass
    bare = _without_thinking(bare)
    values = []
    for piece, whole in _pieces(bare):
        if not whole:
            return Found(code="cut", message=f"the JSON breaks off: {visible(piece[-60:])}")
        value = _lenient(piece)
        if value is not None:
            values.append(value)
    if not values:
        return Found(code="not-json", message=f"no JSON found in: {visible(bare)}")
    return Found(tuple(values), repaired=True)


def _without_thinking(text: str) -> str:
    """Reasoning models put their thoughts before the answer."""
    return re.sub(r"^.*</think(?:ing)?>", "", text, count=1, flags=re.DOTALL).strip()


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Outermost {…} and […] that look like JSON, each with whether it is closed.

    A bracket counts only when JSON may follow it, so that "[1]" or "{name}" in prose do not.
    """
    opening = re.compile(r"\{\s*[\"'“”‘’}]|\[\s*[\[{\"'“”‘’\]]|\{\s*\w+\s*:")
    position = 0
    while match := opening.search(text, position):
        end = _closing(text, match.start())
        if end is None:
            yield text[match.start() :], False
            return
        yield text[match.start() : end], True
        position = end


def _closing(text: str, start: int) -> int | None:
    """Offset after the bracket that closes the one at ``start``, strings skipped."""
    for quotes in ('"', "\"'"):  # an apostrophe in prose must not open a string, if it need not
        end = _closing_with(text, start, quotes)
        if end is not None:
            return end
    return None


def _closing_with(text: str, start: int, quotes: str) -> int | None:
    depth, inside, position = 0, "", start
    while position < len(text):
        character = text[position]
        if inside:
            if character == "\\":
                position += 1
            elif character == inside:
                inside = ""
        elif character in quotes:
            inside = character
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None


def _lenient(piece: str) -> Any:  # a JSON value, or None
    """JSON with the slips models make: trailing commas, line breaks in strings, single quotes,
    typographic quotes as delimiters."""
    no_trailing = re.sub(r",(\s*[}\]])", r"\1", piece)
    curly = no_trailing.translate(str.maketrans("“”", '""'))
    for candidate in (piece, no_trailing, curly):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    if "'" in piece:
        constants = {"true": "True", "false": "False", "null": "None"}
        python = re.sub(r"\b(true|false|null)\b", lambda match: constants[match[0]], no_trailing)
        try:
            value = ast.literal_eval(python.replace("\n", " "))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
        return value if isinstance(value, dict | list) else None
    return None


# ---- the schema, read generously


def _query_list(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        for name in LIST_NAMES:
            if isinstance(value.get(name), list):
                return value[name]
        return None
    if isinstance(value, list) and all(
        isinstance(entry, str) or _is_query(entry) for entry in value
    ):
        return value
    return None


def _is_query(value: Any) -> bool:
    return isinstance(value, dict) and any(name in value for name in QUERY_NAMES)


def _item(entry: Any, field: str) -> Item | Fault:
    if isinstance(entry, str):
        return Item(clean_text(entry))
    if not isinstance(entry, dict):
        return Fault("schema", f"expected an object, found {_kind(entry)}", field)
    name = next((name for name in QUERY_NAMES if name in entry), None)
    if name is None:
        return Fault("schema", 'has no "query"', field)
    if not isinstance(entry[name], str):
        return Fault("schema", f"expected text, found {_kind(entry[name])}", f"{field}.{name}")
    style = entry.get("style")
    evidence = next((entry[key] for key in EVIDENCE_NAMES if key in entry), "")
    if isinstance(evidence, list) and all(isinstance(part, str) for part in evidence) and evidence:
        evidence = evidence[0]
    return Item(
        clean_text(entry[name]),
        style if isinstance(style, str) else "",
        clean_text(evidence) if isinstance(evidence, str) else "",
    )


def _expected(value: Any) -> str:
    where = "queries: " if isinstance(value, dict) and "queries" in value else ""
    found = _kind(value["queries"]) if where else _kind(value)
    return f"{where}expected {'a list' if where else 'an object with queries'}, found {found}"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false",
             int: "a number", float: "a number"}  # fmt: skip
    return "nothing" if value is None else kinds.get(type(value), type(value).__name__)


# ---- lists in words

MARK = re.compile(
    r"""^\s*(?:>\s*)?(?:\*\*)?\s*
    (?:
      (?:Q(?:uestion|uery)?|问题?|查询)\s*[0-9０-９一二三四五六七八九十]*\s*[:：.、)）]
      | [(（\[]?[0-9０-９]{1,3}[)）\].:：、．](?!\d)
      | [一二三四五六七八九十]{1,3}[、.．]
      | [-*•·–—]\s
    )\s*(?:\*\*)?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
ENDS_IN_QUESTION_MARK = re.compile(r"[?？][\"'”’」*\s]*$")


OUTER_QUOTES = ('""', "''", "“”", "「」", "‘’")


def without_mark(line: str) -> str:
    """A line without its number, bullet or ``Q1:``, bold marks and surrounding quotes."""
    line = MARK.sub("", line, count=1) if MARK.match(line) else line
    line = line.strip().strip("*").strip()
    if len(line) > 1 and (line[0], line[-1]) in {
        ('"', '"'),
        ("'", "'"),
        ("“", "”"),
        ("「", "」"),
        ("‘", "’"),
    }:
        line = line[1:-1].strip()
    return line


def _list_items(text: str) -> Sequence[str]:
    """The entries of a numbered or bulleted list, or lines that all ask something.

    Preambles ("Here are 2 questions:") and closing words carry no mark and are left out.
    """
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")
    ]
    marked = [line for line in lines if MARK.match(line)]
    if not marked:
        marked = [line for line in lines if ENDS_IN_QUESTION_MARK.search(line)]
        others = [line for line in lines if line not in marked]
        # a preamble is one line with a colon; anything else makes the guess unsafe
        if any(not line.rstrip().endswith((":", "：")) for line in others):
            return ()
    return [clean_text(item) for line in marked if (item := without_mark(line))]
