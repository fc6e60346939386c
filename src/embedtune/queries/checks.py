"""What holds for every query, whoever wrote it: where its evidence stands, and what is none."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from embedtune.files import clean_text, visible
from embedtune.language import language_of
from embedtune.queries.parse import without_mark
from embedtune.queries.worth import weight
from embedtune.quotes import find_quote, skeleton
from embedtune.records import Chunk, Document, Query, Reject, Span, content_id
from embedtune.similar import normalise

STAGE = "generate"
LONGEST_QUERY = 500  # characters
GENERIC = 3  # a text asked of more places than this says nothing about any of them

# What a passage may hold to steer a model; its queries are kept and flagged with the rule's name.
SUSPICIOUS = {
    "instruction": re.compile(
        r"\b(ignore|disregard|forget|override)\b[^.\n]{0,40}\b(instructions?|prompts?|rules?)\b"
        r"|\b(ignore|disregard|forget)\b[^.\n]{0,20}\b(above|previous (text|messages?))\b"
        r"|(忽略|无视|忘记|不要理会)[^。\n]{0,20}(指令|指示|提示词|要求|规则)"
        r"|(忽略|无视|忘记|不要理会)[^。\n]{0,4}(以上|上述|之前|前面)",
        re.IGNORECASE,
    ),
    "role": re.compile(
        r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|^\s*(system|assistant)\s*:|\byou are now\b"
        r"|你现在是一[个名]",
        re.IGNORECASE | re.MULTILINE,
    ),
    "delimiter": re.compile(r"={4,}\s*passage\b", re.IGNORECASE),
}
LINK = re.compile(r"https?://[^\s，。）)\"']+")


def query_id(text: str, evidence: Span) -> str:
    """Equal for the same question about the same place."""
    return content_id("q", text, evidence.document, evidence.start, evidence.end)


def locate(evidence: str, chunk: Chunk, document: Document | None = None) -> Span | None:
    """Where ``evidence`` stands in the document: within the chunk, or over its border.

    A quote that reaches beyond the chunk counts when at least half of it lies inside. In a table
    it is the whole row, found by its cells if not by its wording.
    """
    text, start = chunk.text, chunk.start
    if document is not None:
        text = document.text[chunk.start : chunk.end]
    found = find_quote(evidence, text)
    if chunk.kind == "table":
        found = _rows(text, found) if found else _row_of(evidence, chunk.title, text)
    if found is None and document is not None:
        start = max(0, chunk.start - 2 * len(evidence))
        found = find_quote(evidence, document.text[start : chunk.end + 2 * len(evidence)])
    if found is None:
        return None
    span = Span(chunk.document, start + found[0], start + found[1])
    return span if 2 * span.overlap(chunk.span) >= span.length else None


def _rows(table: str, found: tuple[int, int]) -> tuple[int, int]:
    """The whole lines that ``found`` touches."""
    end = table.find("\n", max(found[1] - 1, found[0]))
    return table.rfind("\n", 0, found[0]) + 1, len(table) if end < 0 else end


def _row_of(evidence: str, title: str, table: str) -> tuple[int, int] | None:
    """The one row that holds the words of ``evidence``, but for those that name its columns."""
    lines = [match.span() for match in re.finditer(r"[^\n]+", table)]
    wanted = _cells(evidence)
    ruled = len(lines) > 1 and not _cells(table[slice(*lines[1])])  # |---| under the names
    header = _cells(f"{title} {table[slice(*lines[0])]}" if ruled else title)
    if len(wanted - header) < 2:
        return None
    rows = [line for line in lines if wanted - header <= _cells(table[slice(*line)])]
    return rows[0] if len(rows) == 1 else None


def _cells(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", normalise(text)))


def suspicions(text: str) -> tuple[str, ...]:
    """Flags that say by which rule ``text`` seems to address the model."""
    return tuple(f"suspicious-{name}" for name, rule in SUSPICIOUS.items() if rule.search(text))


def clean_line(text: str) -> str:
    """One line without control characters and broken characters."""
    text = clean_text(text).replace("\ufffd", "")
    return " ".join(
        "".join(character if character.isprintable() else " " for character in text).split()
    )


def clean_query(text: str) -> str:
    """One line without control characters, broken characters, list marks and outer quotes."""
    return " ".join(without_mark(clean_line(text)).split())


def text_fault(text: str, passage: str, language: str = "") -> tuple[str, str] | None:
    """(code, message) of what makes ``text`` no query for ``passage``, or None.

    ``language`` is the one it should be in; only scripts are told apart.
    """
    letters = skeleton(text)
    if not letters:
        return "empty", "an empty query"
    if weight(text) < 4:
        return "too-short", "too short to be searched for"
    if len(text) > LONGEST_QUERY:
        return "too-long", f"{len(text):,} characters, at most {LONGEST_QUERY} make a query"
    held = skeleton(passage)
    if held and held in letters:
        return "copy", "the passage itself instead of a query"
    found = language_of(text)
    if language and found != language and "other" not in (found, language):
        # names and codes of the passage are no language: "DGX H100" may be asked of any text
        words = re.findall(r"[^\W_]+", text.casefold())
        folded = passage.casefold()
        if found != "en" or not all(word in folded for word in words):
            return "wrong-language", f"written in {found} where {language} is due"
    return None


def settle_repeats(
    queries: Iterable[Query], rejects: list[Reject]
) -> tuple[list[Query], list[Reject]]:
    """(queries kept, duplicates) where one text was given more than once.

    The same text about overlapping evidence is one query: the one with the longer evidence, then
    the earlier, stays. About different places it is flagged ``repeated``, and, for more than
    three places, rejected as ``generic``: it says nothing about any of them.
    """
    listed = list(queries)
    by_text: dict[str, list[int]] = defaultdict(list)
    for index, query in enumerate(listed):
        by_text[normalise(query.text)].append(index)
    duplicates: list[Reject] = []
    kept: dict[int, Query] = {}
    for indices in by_text.values():
        places: list[int] = []
        for index in sorted(indices, key=lambda index: (-_length(listed[index]), index)):
            first = next((place for place in places if _meet(listed[place], listed[index])), None)
            if first is None:
                places.append(index)
            else:
                duplicates.append(
                    _repeat(listed[index], "duplicate", f"the same as {listed[first].id}")
                )
        if len(places) > GENERIC:
            rejects.extend(
                _repeat(listed[place], "generic", f"asked of {len(places)} different places")
                for place in sorted(places)
            )
            continue
        for place in places:
            query = listed[place]
            if len(places) > 1:
                query = replace(query, flags=(*query.flags, "repeated"))
            kept[place] = query
    return [kept[index] for index in sorted(kept)], duplicates


def _length(query: Query) -> int:
    return query.evidence.length if query.evidence else 0


def _meet(one: Query, other: Query) -> bool:
    if one.evidence is None or other.evidence is None:
        return one.id == other.id
    return one.evidence.overlap(other.evidence) > 0


def _repeat(query: Query, code: str, message: str) -> Reject:
    return Reject(STAGE, code, message, item=query.chunk or query.id, excerpt=visible(query.text),
                  unusable=False)  # fmt: skip
