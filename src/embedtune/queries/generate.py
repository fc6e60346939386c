"""Queries written by a language model, one request a chunk, each tied to its evidence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from embedtune.files import visible
from embedtune.language import language_of
from embedtune.llm import ChatAnswer, ChatRequest
from embedtune.llm.recorded import RecordedChat, Reply, Usage
from embedtune.queries.answers import LONGEST_ANSWER, unsupported
from embedtune.queries.asking import Asking, QuerySettings, plan_requests
from embedtune.queries.checks import (
    LINK,
    STAGE,
    clean_line,
    clean_query,
    locate,
    query_id,
    settle_repeats,
    suspicions,
    text_fault,
)
from embedtune.queries.examples import copied_example
from embedtune.queries.parse import Item, parse_queries
from embedtune.queries.prompts import COMPARISON, STYLES
from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Progress,
    Query,
    Reject,
    Span,
    no_progress,
)
from embedtune.similar import normalise

WRITTEN = "llm"


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
    *,
    real: Sequence[Query] = (),
) -> Generation:
    """``per_chunk`` queries of each chunk, with the evidence they rest on.

    The result depends on the answers only, not on the order in which they came. Evidence that
    is not found in the passage leaves the query flagged ``not-grounded`` with the whole chunk
    as evidence. Other flags: ``answer-not-grounded`` and ``answer-missing`` (with
    ``settings.answers``), ``repaired`` (the answer was not clean JSON), ``repeated`` (the same
    text is asked of another place), ``suspicious-…`` (the passage tries to steer models).

    A comparison is written from two chunks: its evidence stands in the first, its
    ``more_evidence`` in the second.

    Args:
        real: The user's own queries; those flagged by ``mark_examples`` are shown as examples.

    Raises:
        ServiceError: The model cannot be reached or the budget is used up; what was answered is
            stored, the same call goes on from there.
        Interrupted: Ctrl-C.
        ConfigError: The file of examples cannot be read.
    """
    plan = plan_requests(chunks, documents, settings, real)
    rejects = list(plan.rejects)
    queries: list[Query] = []
    fewer = 0
    replies = ask(plan.askings, chat, progress)
    for asking, reply in zip(plan.askings, replies, strict=True):
        given = read_reply(asking, reply, chat, settings, rejects)
        queries += given
        missing = len(given) < len(asking.styles) and COMPARISON not in asking.styles
        fewer += not reply.code and missing and _origin(chat) == WRITTEN
    kept, duplicates = settle_repeats(queries, rejects)
    notes = [*chat.notes, *plan.notes]
    if fewer:
        notes.append(
            f"{fewer} of {len(plan.askings)} requests gave fewer than {settings.per_chunk} queries"
        )
    if repaired := len({query.chunk for query in queries if "repaired" in query.flags}):
        notes.append(f"{repaired} answers were repaired before they could be read")
    if unanswered := sum("answer-missing" in query.flags for query in kept):
        notes.append(f"{unanswered} queries came without an answer in words")
    notes.append(f"answers: {chat.usage.line()}")
    counts = Counts(
        len(kept) + len(rejects) + len(duplicates), len(kept), len(rejects), len(duplicates)
    )
    return Generation(tuple(kept), (*rejects, *duplicates), counts, chat.usage, tuple(notes))


def ask(
    askings: Sequence[Asking], chat: RecordedChat, progress: Progress = no_progress
) -> list[Reply]:
    """One reply a request; answers that are in the store are not asked for again."""
    return chat.ask_all([_request(asking, chat) for asking in askings], _check, progress)


def _request(asking: Asking, chat: RecordedChat) -> ChatRequest:
    prompt, document, first = asking.prompt, asking.document, asking.passages[0]
    # a scripted model knows what it was told of single passages only
    shown = {"text": first.text} if len(asking.passages) == 1 else {}
    return ChatRequest(
        prompt.system,
        prompt.user,
        schema=prompt.schema,
        temperature=chat.settings.temperature,
        max_tokens=chat.settings.max_tokens,
        facts={**shown, "source": document.source if document else first.source},
    )


def _check(request: ChatRequest, answer: ChatAnswer) -> str:
    parsed = parse_queries(answer.text)
    return f"{parsed.code}: {parsed.message}" if parsed.code else ""


# ---- reading


def read_reply(
    asking: Asking,
    reply: Reply,
    chat: RecordedChat,
    settings: QuerySettings,
    rejects: list[Reject],
) -> list[Query]:
    """The usable queries of one reply; whatever is not joins ``rejects``."""
    if reply.code or reply.answer is None:
        excerpt = reply.answer.text if reply.answer else ""
        rejects.append(_reject(asking, reply.code, reply.message, excerpt))
        return []
    parsed = parse_queries(reply.answer.text)
    for fault in parsed.faults:
        rejects.append(_reject(asking, fault.code, fault.message, field=fault.field))
    origin = _origin(chat)
    if not parsed.items and not parsed.faults and origin == WRITTEN:
        message = "the model found nothing to ask"
        rejects.append(_reject(asking, "no-queries", message, usable=True))
    flags = suspicions(f"{asking.context}\n{asking.text}")
    if parsed.repaired:
        flags = ("repaired", *flags)
    queries: list[Query] = []
    for number, item in enumerate(parsed.items):
        field = f"queries[{number}]"
        if len(queries) >= len(asking.styles) and origin == WRITTEN:
            message = f"more than the {len(asking.styles)} asked for"
            rejects.append(_reject(asking, "surplus", message, item.query, field, usable=True))
            continue
        found = _query(item, field, len(queries), asking, settings)
        if isinstance(found, Query):
            queries.append(replace(found, origin=origin, flags=(*flags, *found.flags)))
        else:
            rejects.append(found)
    return queries


def _query(
    item: Item, field: str, place: int, asking: Asking, settings: QuerySettings
) -> Query | Reject:
    """The query an item makes, flagged with what is doubtful about it, or why it makes none."""
    text = clean_query(item.query)
    if fault := _text_fault(text, asking):
        return _reject(asking, *fault, text, field)
    if copied_example(text, asking.examples):
        message = "an example instead of a query for the passage"
        return _reject(asking, "copied-example", message, text, field, usable=True)
    flags: tuple[str, ...] = ()
    spans, grounded = _evidence(item, asking)
    answer, answer_flag, unknown = _answer(item, text, asking) if settings.answers else ("",) * 3
    if any(link not in asking.text for link in LINK.findall(f"{text} {answer}")):
        flags += ("suspicious-link",)
    if not grounded:
        if settings.ungrounded == "reject":
            message = "its evidence is not in the passage"
            return _reject(asking, "not-grounded", message, item.evidence, f"{field}.evidence")
        flags += ("not-grounded",)
    if answer_flag:
        if settings.ungrounded == "reject" and unknown:
            message = f"{unknown} of its answer is not in the passage"
            return _reject(asking, answer_flag, message, answer, f"{field}.answer")
        flags += (answer_flag,)
    first = asking.passages[0]
    return Query(
        id=query_id(text, spans[0]),
        text=text,
        language=language_of(text),
        style=_style(item, place, asking),
        document=first.document,
        chunk=first.id,
        evidence=spans[0],
        flags=flags,
        more_evidence=spans[1:],
        persona=asking.persona,
        answer=answer,
    )


def _reject(
    asking: Asking,
    code: str,
    message: str,
    excerpt: str = "",
    field: str = "",
    *,
    usable: bool = False,
) -> Reject:
    return Reject(
        STAGE, code, message, file=asking.passages[0].source, field=field,
        excerpt=visible(excerpt), item=asking.item, unusable=not usable,
    )  # fmt: skip


def _origin(chat: RecordedChat) -> str:
    return "scripted" if chat.provider == "scripted" else WRITTEN


def _text_fault(text: str, asking: Asking) -> tuple[str, str] | None:
    fault = text_fault(text, asking.text, asking.language)
    if fault is None and len(asking.passages) > 1:
        alone = (text_fault(text, chunk.text) for chunk in asking.passages)
        fault = next(filter(None, alone), None)
    return fault


def _evidence(item: Item, asking: Asking) -> tuple[tuple[Span, ...], bool]:
    """A span in each passage, the whole of it where the evidence is not found; and whether all
    of it was."""
    quotes = [item.evidence, item.second][: len(asking.passages)]
    found = [_locate(*each, asking) for each in zip(quotes, asking.passages, strict=True)]
    if len(found) == 2 and not any(found):  # given the other way round
        quotes.reverse()
        found = [_locate(*each, asking) for each in zip(quotes, asking.passages, strict=True)]
    spans = tuple(span or chunk.span for span, chunk in zip(found, asking.passages, strict=True))
    return spans, all(found)


def _locate(quote: str, chunk: Chunk, asking: Asking) -> Span | None:
    return locate(quote, chunk, asking.document)


def _answer(item: Item, query: str, asking: Asking) -> tuple[str, str, str]:
    """(answer, flag or "", what of it the passage does not say)."""
    answer = clean_line(item.answer)
    if not answer or len(answer) > LONGEST_ANSWER or normalise(answer) == normalise(query):
        return "", "answer-missing", ""
    passage = "\n".join([*(chunk.embedded for chunk in asking.passages), asking.context])
    missing = unsupported(answer, passage, query)
    return answer, "answer-not-grounded" if missing else "", missing


def _style(item: Item, place: int, asking: Asking) -> str:
    """The style the model names, else the one it was asked for at this place."""
    if item.style in STYLES and item.style != COMPARISON and COMPARISON not in asking.styles:
        return item.style
    return asking.styles[place % len(asking.styles)]
