"""Queries written by a language model, one request a chunk, each tied to its evidence."""

import logging
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from embedtune.errors import ConfigError
from embedtune.files import clean_text, read_text, visible
from embedtune.language import language_of
from embedtune.llm import ChatAnswer, ChatRequest
from embedtune.llm.recorded import RecordedChat, Reply, Usage
from embedtune.queries.parse import Item, parse_queries, without_mark
from embedtune.queries.prompts import QUERIES_SCHEMA, STYLES, Style, queries_prompt
from embedtune.quotes import find_quote, skeleton
from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Progress,
    Query,
    Reject,
    Span,
    content_id,
    no_progress,
)
from embedtune.settings import PositiveInt, Settings
from embedtune.similar import normalise

logger = logging.getLogger(__name__)

STAGE = "generate"
EXAMPLES_SHOWN = 5
LONGEST_QUERY = 500  # characters
GENERIC = 3  # a text asked of more places than this says nothing about any of them

# What a passage may hold to steer a model; its queries are kept and flagged with the rule's name.
SUSPICIOUS = {
    "instruction": re.compile(
        r"\b(ignore|disregard|forget|override)\b[^.\n]{0,40}\b(instructions?|prompts?|rules?)\b"
        r"|(忽略|无视|忘记|不要理会)[^。\n]{0,20}(指令|指示|提示词|要求|规则)",
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


class QuerySettings(Settings):
    """Where queries come from, and what they should look like."""

    model_config = ConfigDict(populate_by_name=True)

    source: Literal["llm", "extractive", "file"] = Field(
        "llm",
        alias="from",
        description="llm: written by the language model; extractive: taken from the text, free of "
        "charge; file: only the real queries in queries.file",
    )
    file: Path | None = Field(
        None,
        description="Real queries, beside those of any source: a line each (query, tab, quote or "
        "file name), JSONL or CSV",
    )
    per_chunk: PositiveInt = Field(2, description="Queries asked for a chunk")
    language: Literal["document", "en", "zh"] = Field(
        "document", description="Language of the queries; document is each chunk's own"
    )
    styles: Annotated[tuple[Style, ...], Field(min_length=1)] = Field(
        ("question", "keywords", "colloquial"),
        description=f"Styles to take turns in: {', '.join(STYLES)}",
    )
    examples: Path | None = Field(
        None, description="Text file of real queries, a line each, whose tone is imitated"
    )
    ungrounded: Literal["flag", "reject"] = Field(
        "flag", description="What to do with a query whose evidence is not in the passage"
    )
    min_characters: PositiveInt = Field(
        20, description="Letters and digits (Chinese counts double) below which a chunk is not sent"
    )
    max_characters: PositiveInt = Field(
        12_000, description="Characters of a chunk that are sent; the rest is left out and counted"
    )


@dataclass(frozen=True, slots=True)
class Generation:
    """Queries and the account of how they came about.

    ``counts`` covers every query given, and every chunk or line that gave none.
    """

    queries: tuple[Query, ...]
    rejects: tuple[Reject, ...]
    counts: Counts
    usage: Usage | None = None
    notes: tuple[str, ...] = ()


def generate_queries(
    chunks: Sequence[Chunk],
    documents: Iterable[Document],
    chat: RecordedChat,
    settings: QuerySettings,
    progress: Progress = no_progress,
) -> Generation:
    """``per_chunk`` queries of each chunk, with the evidence they rest on.

    The result depends on the answers only, not on the order in which they came. Evidence that
    is not found in the passage leaves the query flagged ``not-grounded`` with the whole chunk
    as evidence. Other flags: ``repaired`` (the answer was not clean JSON), ``repeated`` (the
    same text is asked of another place), ``suspicious-…`` (the passage tries to steer models).

    Raises:
        ServiceError: The model cannot be reached or the budget is used up; what was answered is
            stored, the same call goes on from there.
        Interrupted: Ctrl-C.
        ConfigError: The file of examples cannot be read.
    """
    by_id = {document.id: document for document in documents}
    examples = _examples(settings.examples)
    rejects: list[Reject] = []
    sent = []
    for chunk in chunks:
        if weight(chunk.text) < settings.min_characters:
            rejects.append(_reject(chunk, "too-small", "too little text to ask about", usable=True))
        else:
            sent.append(chunk)
    cut = sum(len(chunk.text) > settings.max_characters for chunk in sent)
    replies = chat.ask_all(
        [_request(chunk, by_id.get(chunk.document), chat, settings, examples) for chunk in sent],
        _check,
        progress,
    )
    origin = "scripted" if chat.provider == "scripted" else "llm"
    queries: list[Query] = []
    fewer = repaired = 0
    for chunk, reply in zip(sent, replies, strict=True):
        given = _read(chunk, by_id.get(chunk.document), reply, origin, settings, rejects)
        fewer += not reply.code and len(given) < settings.per_chunk and origin == "llm"
        repaired += any("repaired" in query.flags for query in given)
        queries += given
    kept, duplicates = settle_repeats(queries, rejects)
    notes = list(chat.notes)
    if cut:
        notes.append(f"{cut} chunks were sent cut to {settings.max_characters:,} characters")
    if fewer:
        notes.append(f"{fewer} of {len(sent)} chunks gave fewer than {settings.per_chunk} queries")
    if repaired:
        notes.append(f"{repaired} answers were repaired before they could be read")
    notes.append(f"answers: {chat.usage.line()}")
    counts = Counts(
        len(kept) + len(rejects) + len(duplicates), len(kept), len(rejects), len(duplicates)
    )
    return Generation(tuple(kept), (*rejects, *duplicates), counts, chat.usage, tuple(notes))


# ---- asking


def _request(
    chunk: Chunk,
    document: Document | None,
    chat: RecordedChat,
    settings: QuerySettings,
    examples: Mapping[str, Sequence[str]],
) -> ChatRequest:
    language = settings.language if settings.language != "document" else _language(chunk)
    turn = turn_of(chunk)
    styles = tuple(
        settings.styles[(turn + place) % len(settings.styles)]
        for place in range(settings.per_chunk)
    )
    shown = examples.get(language, ())
    shown = [shown[(turn + place) % len(shown)] for place in range(min(EXAMPLES_SHOWN, len(shown)))]
    passage = chunk.text[: settings.max_characters]
    source = document.title or document.source if document else chunk.source
    system, user = queries_prompt(
        passage,
        language=language if language in ("en", "zh") else "",
        styles=styles,
        digest=content_id("", passage),
        source=visible(source, 200),
        section=visible(" › ".join(chunk.section), 200),
        examples=shown,
    )
    return ChatRequest(
        system,
        user,
        schema=QUERIES_SCHEMA,
        temperature=chat.settings.temperature,
        max_tokens=chat.settings.max_tokens,
        facts={"text": chunk.text, "source": document.source if document else chunk.source},
    )


def _check(request: ChatRequest, answer: ChatAnswer) -> str:
    parsed = parse_queries(answer.text)
    return f"{parsed.code}: {parsed.message}" if parsed.code else ""


def _examples(path: Path | None) -> dict[str, list[str]]:
    """Real queries by language, each once, in the order of the file."""
    if path is None:
        return {}
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"queries.examples: {path} cannot be read ({error})") from error
    grouped: dict[str, list[str]] = defaultdict(list)
    for line in dict.fromkeys(clean_query(line.partition("\t")[0]) for line in lines):
        if line:
            grouped[language_of(line)].append(line[:LONGEST_QUERY])
    if not grouped:
        raise ConfigError(f"queries.examples: {path} holds no line of text")
    return grouped


def turn_of(chunk: Chunk) -> int:
    """Where a chunk stands in any round of turns; stable, and even over the chunks."""
    return zlib.crc32(chunk.id.encode("utf-8", "surrogatepass"))


def _language(chunk: Chunk) -> str:
    return chunk.language or language_of(chunk.text)


# ---- reading


def _read(
    chunk: Chunk,
    document: Document | None,
    reply: Reply,
    origin: str,
    settings: QuerySettings,
    rejects: list[Reject],
) -> list[Query]:
    """The usable queries of one reply; whatever is not joins ``rejects``."""
    if reply.code or reply.answer is None:
        excerpt = reply.answer.text if reply.answer else ""
        rejects.append(_reject(chunk, reply.code, reply.message, excerpt))
        return []
    parsed = parse_queries(reply.answer.text)
    for fault in parsed.faults:
        rejects.append(_reject(chunk, fault.code, fault.message, field=fault.field))
    if not parsed.items and not parsed.faults and origin == "llm":
        rejects.append(_reject(chunk, "no-queries", "the model found nothing to ask", usable=True))
    language = settings.language if settings.language != "document" else _language(chunk)
    suspicious = tuple(
        f"suspicious-{name}" for name, rule in SUSPICIOUS.items() if rule.search(chunk.text)
    )
    queries: list[Query] = []
    for number, item in enumerate(parsed.items):
        text = clean_query(item.query)
        field = f"queries[{number}]"
        if len(queries) >= settings.per_chunk and origin == "llm":
            message = f"more than the {settings.per_chunk} asked for"
            rejects.append(_reject(chunk, "surplus", message, text, field, usable=True))
            continue
        if fault := text_fault(text, chunk.text, language):
            rejects.append(_reject(chunk, *fault, excerpt=text, field=field))
            continue
        evidence = locate(item.evidence, chunk, document)
        flags = (("repaired",) if parsed.repaired else ()) + suspicious
        if any(link not in chunk.text for link in LINK.findall(text)):
            flags += ("suspicious-link",)
        if evidence is None:
            if settings.ungrounded == "reject":
                rejects.append(_reject(chunk, "not-grounded", "its evidence is not in the passage",
                                       item.evidence, f"{field}.evidence"))  # fmt: skip
                continue
            flags += ("not-grounded",)
        queries.append(
            _query(chunk, text, _style(item, len(queries), chunk, settings), origin,
                   evidence or chunk.span, flags))  # fmt: skip
    return queries


def _query(
    chunk: Chunk, text: str, style: str, origin: str, evidence: Span, flags: tuple[str, ...]
) -> Query:
    return Query(
        id=query_id(text, evidence),
        text=text,
        language=language_of(text),
        style=style,
        origin=origin,
        document=chunk.document,
        chunk=chunk.id,
        evidence=evidence,
        flags=flags,
    )


def query_id(text: str, evidence: Span) -> str:
    """Equal for the same question about the same place."""
    return content_id("q", text, evidence.document, evidence.start, evidence.end)


def _style(item: Item, place: int, chunk: Chunk, settings: QuerySettings) -> str:
    """The style the model names, else the one it was asked for at this place."""
    if item.style in STYLES:
        return item.style
    return settings.styles[(turn_of(chunk) + place) % len(settings.styles)]


def locate(evidence: str, chunk: Chunk, document: Document | None = None) -> Span | None:
    """Where ``evidence`` stands in the document: within the chunk, or over its border.

    A quote that reaches beyond the chunk counts when at least half of it lies inside.
    """
    text, start = chunk.text, chunk.start
    if document is not None:
        text = document.text[chunk.start : chunk.end]
    found = find_quote(evidence, text)
    if found is None and document is not None:
        start = max(0, chunk.start - 2 * len(evidence))
        found = find_quote(evidence, document.text[start : chunk.end + 2 * len(evidence)])
    if found is None:
        return None
    span = Span(chunk.document, start + found[0], start + found[1])
    return span if 2 * span.overlap(chunk.span) >= span.length else None


# ---- checking


def weight(text: str) -> int:
    """How much ``text`` says: its letters and digits, those of Chinese and the like twice."""
    letters = skeleton(text)
    return len(letters) + sum(character >= "\u2e80" for character in letters)


def clean_query(text: str) -> str:
    """One line without control characters, broken characters, list marks and outer quotes."""
    text = clean_text(text).replace("\ufffd", "")
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(without_mark(" ".join(text.split())).split())


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


def _reject(
    chunk: Chunk,
    code: str,
    message: str,
    excerpt: str = "",
    field: str = "",
    *,
    usable: bool = False,
) -> Reject:
    return Reject(STAGE, code, message, file=chunk.source, field=field, excerpt=visible(excerpt),
                  item=chunk.id, unusable=not usable)  # fmt: skip
