"""Reading what a language model wrote: the JSON asked for, or what can safely be made of it.

Anything repaired is marked; what would have to be guessed is refused with a reason code. An
answer that breaks off is never read as if it were whole.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedtune.files import clean_text, visible
from embedtune.queries.loose import Broken, BrokenOff, read_value

LONGEST = 1_000_000  # characters of an answer
FALSE_STARTS = 50  # brackets in prose that are tried as JSON

QUERY_NAMES = ("query", "question", "text", "q", "问题", "查询")
EVIDENCE_NAMES = (
    "evidence", "evidence_1", "evidence1", "quote", "answer", "证据", "证据1", "原文", "依据",
)  # fmt: skip
SECOND_NAMES = ("evidence_2", "evidence2", "证据2")
ANSWER_NAMES = ("answer", "答案", "回答")
LIST_NAMES = ("queries", "questions", "问题", "查询")


@dataclass(frozen=True, slots=True)
class Item:
    """One query as the model gave it, cleaned of what breaks files, nothing else.

    ``second`` is the evidence in the second passage of a comparison.
    """

    query: str
    style: str = ""
    evidence: str = ""
    second: str = ""
    answer: str = ""


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
            return Parsed(items=tuple(items), repaired=True)
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


# A bracket counts only when JSON may follow it, so that "[1]" or "{name}" in prose do not.
OPENING = re.compile(
    r"[{｛]\s*[\"'“”‘’＂「}｝]|[\[［]\s*[\[［{｛\"'“”‘’＂「\]］]|[{｛]\s*\w+\s*[:：]"
)
THOUGHT = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning|reflection)"


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
    if match := re.match(rf"<{THOUGHT}>", bare, re.IGNORECASE):
        return Found(code="cut", message=f"the answer breaks off within {match[0]}")
    values: list[Any] = []
    position = starts = 0
    while (match := OPENING.search(bare, position)) and starts < FALSE_STARTS:
        try:
            value, position = read_value(bare, match.start())
        except BrokenOff:
            return Found(code="cut", message=f"the JSON breaks off: {visible(bare[-60:])}")
        except Broken as error:
            if error.begun:  # what was left of it could be read as if it were all
                break
            starts += 1
            position = match.start() + 1
        else:
            values.append(value)
    else:
        if values:
            return Found(tuple(values), repaired=True)
    return Found(code="not-json", message=f"no JSON found in: {visible(bare)}")


def _without_thinking(text: str) -> str:
    """Reasoning models put their thoughts before the answer."""
    return re.sub(
        rf"^.*</{THOUGHT}>", "", text, count=1, flags=re.DOTALL | re.IGNORECASE
    ).strip()  # fmt: skip


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
    given = next((entry[key] for key in EVIDENCE_NAMES if key in entry), "")
    listed = given if isinstance(given, list) else [given]
    texts = [clean_text(part) for part in listed if isinstance(part, str)]
    second = _text(entry, SECOND_NAMES) or (texts[1] if len(texts) > 1 else "")
    return Item(
        clean_text(entry[name]),
        style=_text(entry, ("style", "风格")),
        evidence=texts[0] if texts else "",
        second=second,
        answer=_text(entry, ANSWER_NAMES),
    )


def _text(entry: dict[str, Any], names: Sequence[str]) -> str:
    value = next((entry[name] for name in names if name in entry), "")
    return clean_text(value) if isinstance(value, str) else ""


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
LABEL = re.compile(
    r"^[\s>*•·–—-]*(?P<name>evidence|quote|source|style|answer|证据|原文|依据|风格|答案|回答)"
    r"(?:\*\*)?\s*[:：](?:\*\*)?\s*",
    re.IGNORECASE,
)
LABELLED = {  # what a label under a query says -> the field it fills
    **dict.fromkeys(("evidence", "quote", "source", "证据", "原文", "依据"), "evidence"),
    **dict.fromkeys(("style", "风格"), "style"),
    **dict.fromkeys(("answer", "答案", "回答"), "answer"),
}
ENDS_IN_QUESTION_MARK = re.compile(r"[?？][\"'”’」*\s]*$")
OUTER_QUOTES = ('""', "''", "“”", "「」", "‘’", "＂＂")


def without_mark(line: str) -> str:
    """A line without its number, bullet or ``Q1:``, bold marks and surrounding quotes."""
    return _unquoted(MARK.sub("", line, count=1).strip().strip("*").strip())


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] + text[-1] in OUTER_QUOTES:
        return text[1:-1].strip()
    return text


def _list_items(text: str) -> list[Item]:
    """The entries of a numbered or bulleted list, or lines that all ask something.

    ``Evidence: …`` and the like under an entry belong to it. Preambles ("Here are 2 questions:",
    "以下是…") and closing words carry no mark and are left out.
    """
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")
    ]
    plain = [line for line in lines if not LABEL.match(line)]
    marked = [line for line in plain if MARK.match(line)]
    if not marked:
        marked = [line for line in plain if ENDS_IN_QUESTION_MARK.search(line)]
        others = [line for line in plain if line not in marked]
        # a preamble is one line with a colon; anything else makes the guess unsafe
        if any(not line.rstrip().endswith((":", "：")) for line in others):
            return []
    items: list[Item] = []
    for line in lines:
        if (label := LABEL.match(line)) and items:
            value = clean_text(_unquoted(line[label.end() :].strip().strip("*").strip()))
            items[-1] = replace(items[-1], **{LABELLED[label["name"].lower()]: value})
        elif line in marked and (query := without_mark(line)):
            items.append(Item(clean_text(query)))
    return items
