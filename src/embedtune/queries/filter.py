"""Generated queries that would teach or test the wrong thing, left out with a reason each.

Real queries (origin ``user``) and reviewed ones pass untouched: users ask what they ask, and
people outrank rules. The rules go from free to paid: wording, copies, duplicates, the round trip
through a retriever, a language model's opinion.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from embedtune.embed import Embedder
from embedtune.embed.tokens import Tokens
from embedtune.files import visible
from embedtune.llm.recorded import RecordedChat, Usage
from embedtune.queries.checks import GENERIC, locate
from embedtune.queries.judge import Opinion, ask_opinions
from embedtune.queries.review import REVIEWED
from embedtune.queries.wording import (
    Wording,
    context_of,
    copied_share,
    frequencies,
    same_question,
    wording_of,
)
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
from embedtune.relevance import Overlaps
from embedtune.relevance import judge as relevant_chunks
from embedtune.retrieve import Retriever
from embedtune.settings import Settings
from embedtune.similar import near_duplicates

STAGE = "filter"
READABLE = 0.20  # share of unknown tokens above which vectors of a text say nothing
CELLS = 1 << 25  # cosines held at a time
NEAREST = 32  # earlier queries that one is compared with, of those whose vectors are close
SAME_EVIDENCE = 90.0  # partial_ratio at which a passage holds a query's evidence too
SHORTEST_EVIDENCE = 20  # characters; shorter evidence stands anywhere by chance
DEPTH = 10  # hits in which other passages that answer are looked for
POOL = 5  # passages the judge sees, the query's own among them
WRITTEN = ("llm", "scripted")  # origins that the wording rules apply to


class FilterSettings(Settings):
    """Which generated queries are left out. Real queries are never filtered."""

    context: bool = Field(
        True,
        description="Leave out queries that need their passage at hand (this passage, 本条).",
    )
    copies: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.5,
        description="Leave out queries of whose long n-grams (6 words, 10 Chinese characters) at "
        "least this share stands in the passage; null keeps them.",
    )
    duplicates: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.9,
        description="Cosine of two queries' vectors (above that of unrelated ones) from which they "
        "are one, if they differ in no number, negation, rare or exchanged word; null compares "
        "letters only.",
    )
    round_trip: NonNegativeInt = Field(
        0,
        description="A query's passage must be among so many that BM25 and the base model find "
        "for it together; 0: not asked, since what it drops are mostly good questions in other "
        "words than the passage's, the ones tuning is for.",
    )
    judge: bool = Field(
        False,
        description="Have the language model score each query from 0 to 10 and name all passages "
        "that answer it: one more request a query.",
    )
    judge_min: Annotated[int, Field(ge=0, le=10)] = Field(
        7, description="Score below which a judged query is left out."
    )


@dataclass(frozen=True, slots=True)
class Filtering:
    """Queries kept, some with more evidence than before; and the account."""

    queries: tuple[Query, ...]
    rejects: tuple[Reject, ...]  # duplicates among them
    counts: Counts
    usage: Usage | None = None
    notes: tuple[str, ...] = ()


def filter_queries(
    queries: Sequence[Query],
    chunks: Sequence[Chunk],
    documents: Iterable[Document],
    settings: FilterSettings,
    *,
    alike: Sequence[tuple[int, int]] = (),
    embedder: Embedder | None = None,
    tokens: Tokens | None = None,
    retriever: Retriever | None = None,
    chat: RecordedChat | None = None,
    progress: Progress = no_progress,
) -> Filtering:
    """Leave out what is no use as a training example or a test question.

    Duplicates are told by normalised text, near-duplicate text (``similar``) and cosine; not so two
    that differ in a number, a negation, a rare word of the corpus, or in one of its words that
    stands in the place of another (buyer, seller); nor two about different passages that have less
    than half of their words in common. The first one stays (a real one before all) and takes over
    the other's evidence; one that was asked of more than three places says nothing about any
    (``generic``). Passages that are found before the query's own and hold its evidence nearly word
    for word become relevant too; so do those the judge names.

    A query's passages are looked up by its evidence where its chunk is no longer there.

    Args:
        alike: Near-duplicate chunks, as index pairs.
        embedder: Compares queries; without it only letters are compared.
        tokens: The embedder's; texts of which it does not know over 20 % are not compared by it.
        retriever: Finds the passages for round trip and judge; without it neither is done.
        chat: The judge, when ``settings.judge``.

    Raises:
        ServiceError, Interrupted: See ``RecordedChat.ask_many``; the same call goes on.
    """
    by_id = {document.id: document for document in documents}
    corpus = {chunk.id: chunk for chunk in chunks}
    rejects: list[Reject] = []
    notes: list[str] = []
    kept = list(queries)
    passages = _passages(queries, chunks)

    def drop(query: Query, code: str, message: str) -> None:
        rejects.append(
            Reject(
                STAGE,
                code,
                message,
                item=query.id,
                excerpt=visible(query.text),
                unusable=code == "not-judged",
            )
        )

    kept = _without(kept, drop, _wording_fault(settings, passages))
    kept, merged = _without_duplicates(kept, drop, settings, chunks, embedder, tokens)
    if merged:
        notes.append(f"{merged} duplicates gave their evidence to the query that stayed")
    if retriever is not None:
        judged = relevant_chunks(kept, chunks, alike)
        found = _search(kept, retriever, max(settings.round_trip, DEPTH))
        if settings.round_trip:
            kept = _without(kept, drop, _round_trip(settings.round_trip, judged, found))
        kept, widened = _widened(kept, judged, found, corpus, by_id)
        if widened:
            notes.append(
                f"{widened} queries have further passages that hold their evidence; they are "
                "relevant too"
            )
        if settings.judge and chat is not None:
            own = {query.id: passages[query.id] for query in kept}
            kept = _judged(kept, drop, settings, judged, found, own, corpus, by_id, chat, progress)
            notes.append(f"judge: {chat.usage.line()}")
    overlaps = Overlaps(chunks)
    astray = [span for query in kept for span in query.more_evidence if not any(overlaps.of(span))]
    if astray:
        notes.append(
            f"{len(astray)} further passages of queries stand in no chunk now; they do not count"
        )
    duplicates = sum(reject.code == "duplicate" for reject in rejects)
    return Filtering(
        tuple(kept),
        tuple(rejects),
        Counts(len(queries), len(kept), len(rejects) - duplicates, duplicates),
        chat.usage if settings.judge and chat is not None else None,
        tuple(notes),
    )


Drop = Callable[[Query, str, str], None]
Fault = Callable[[Query], tuple[str, str] | None]


def _settled(query: Query) -> bool:
    """Whether no rule may leave it out."""
    return query.origin == "user" or REVIEWED in query.flags


def _passages(queries: Sequence[Query], chunks: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    """Query id -> the chunks it was written from, or those that hold its evidence now."""
    corpus = {chunk.id: chunk for chunk in chunks}
    overlaps = Overlaps(chunks)
    passages: dict[str, list[Chunk]] = {}
    for query in queries:
        own = [corpus[query.chunk]] if query.chunk in corpus else []
        for span in query.spans:
            if not any(chunk.span.overlap(span) for chunk in own):
                held = sorted(overlaps.of(span), key=lambda c: (-c.span.overlap(span), c.id))
                own += held[:1]
        passages[query.id] = own
    return passages


def _without(queries: Iterable[Query], drop: Drop, fault_of: Fault) -> list[Query]:
    kept = []
    for query in queries:
        fault = fault_of(query)
        if fault is None:
            kept.append(query)
        else:
            drop(query, *fault)
    return kept


# ---- wording


def _wording_fault(settings: FilterSettings, passages: dict[str, list[Chunk]]) -> Fault:
    def fault(query: Query) -> tuple[str, str] | None:
        if query.origin not in WRITTEN or _settled(query):
            return None
        if settings.context and (words := context_of(query.text)):
            return "context", f"it needs its passage at hand: {visible(words, 40)!r}"
        if settings.copies is not None:
            shares = [copied_share(query.text, chunk.embedded) for chunk in passages[query.id]]
            share = max(shares, default=0.0)
            if share >= settings.copies:
                return "copied", f"{share:.0%} of its long n-grams are taken from the passage"
        return None

    return fault


# ---- duplicates


def _without_duplicates(
    queries: Sequence[Query],
    drop: Drop,
    settings: FilterSettings,
    chunks: Sequence[Chunk],
    embedder: Embedder | None,
    tokens: Tokens | None,
) -> tuple[list[Query], int]:
    """The first of each kind, real ones before all; and how many took over further evidence."""
    order = sorted(range(len(queries)), key=lambda index: (not _settled(queries[index]), index))
    ranked = [queries[index] for index in order]
    texts = [query.text for query in ranked]
    pairs = set(near_duplicates(texts))
    if embedder is not None and settings.duplicates is not None:
        readable = _readable(texts, tokens)
        vectors = embedder.embed([texts[index] for index in readable], "query")
        pairs |= {
            (readable[one], readable[other]) for one, other in _close(vectors, settings.duplicates)
        }
    stands_for = _same_as(ranked, sorted(pairs), chunks)
    groups: dict[int, list[int]] = {}
    for other, first in sorted(stands_for.items()):
        drop(ranked[other], "duplicate", f"asks the same as {visible(ranked[first].text)!r}")
        groups.setdefault(first, []).append(other)
    kept, merged = {}, 0
    for index, query in enumerate(ranked):
        if index in stands_for:
            continue
        more = _taken_over(query, [ranked[other] for other in groups.get(index, ())])
        if len(more) >= GENERIC and not _settled(query):
            drop(query, "generic", f"asked of more than {GENERIC} different places")
            continue
        merged += bool(more)
        kept[order[index]] = replace(query, more_evidence=(*query.more_evidence, *more))
    return [kept[index] for index in sorted(kept)], merged


def _same_as(
    queries: Sequence[Query], pairs: Iterable[tuple[int, int]], chunks: Sequence[Chunk]
) -> dict[int, int]:
    """Index -> index of the earlier query that asks the same; ``pairs`` (i < j) are candidates."""
    wordings: dict[int, Wording] = {}
    frequent: dict[str, float] | None = None

    def wording(index: int) -> Wording:
        if index not in wordings:
            wordings[index] = wording_of(queries[index].text)
        return wordings[index]

    stands_for: dict[int, int] = {}
    for one, other in pairs:
        first = stands_for.get(one, one)
        if other in stands_for or _settled(queries[other]):
            continue
        if frequent is None:
            frequent = frequencies(chunks)
        a, b = wording(first), wording(other)
        if same_question(a, b, frequent) and (
            queries[first].chunk == queries[other].chunk
            or 2 * len(a.terms & b.terms) >= len(a.terms | b.terms)
        ):
            stands_for[other] = first
    return stands_for


def _taken_over(query: Query, others: Iterable[Query]) -> list[Span]:
    """The evidence of its duplicates that the query has not; of a query that may be left out, no
    more than is needed to know it."""
    more: list[Span] = []
    for other in others:
        for span in other.spans:
            if len(more) >= GENERIC and not _settled(query):
                return more
            if not any(map(span.overlap, (*query.spans, *more))):
                more.append(span)
    return more


def _readable(texts: Sequence[str], tokens: Tokens | None) -> list[int]:
    if tokens is None:
        return list(range(len(texts)))
    counts, unknown = tokens.count(texts), tokens.unknown(texts)
    return [index for index in range(len(texts)) if unknown[index] <= READABLE * counts[index]]


def _close(vectors: np.ndarray, share: float) -> Iterable[tuple[int, int]]:
    """Index pairs (i < j) of rows with a cosine of at least m + share * (1 - m).

    m is the mean cosine of all rows to each other, if positive: models whose vectors all lie in a
    narrow cone call everything alike.
    """
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = len(rows)
    if count < 2:
        return
    total = np.sum(np.sum(rows, axis=0, dtype=np.float64) ** 2)
    mean = max(0.0, (total - count) / (count * (count - 1)))
    threshold = mean + share * (1 - mean)
    block = max(1, CELLS // count)
    for start in range(0, count, block):
        stop = min(start + block, count)
        scores = rows[start:stop] @ rows[:stop].T
        for place, own in enumerate(scores, start):
            near = np.flatnonzero(own[:place] >= threshold)
            if len(near) > NEAREST:
                near = near[np.argsort(-own[near], kind="stable")[:NEAREST]]
            yield from ((int(earlier), place) for earlier in near)


# ---- round trip


def _search(queries: Sequence[Query], retriever: Retriever, k: int) -> dict[str, list[str]]:
    """Query id -> ids of the chunks found, best first."""
    found = retriever.search([query.text for query in queries], k)
    return {
        query.id: [hit.chunk for hit in hits] for query, hits in zip(queries, found, strict=True)
    }


def _round_trip(k: int, judged: dict[str, dict[str, int]], found: dict[str, list[str]]) -> Fault:
    def fault(query: Query) -> tuple[str, str] | None:
        own = judged.get(query.id, {})
        if _settled(query) or not own or not own.keys().isdisjoint(found[query.id][:k]):
            return None
        return "round-trip", f"its passage is not among the {k} best found for it"

    return fault


def _widened(
    queries: Sequence[Query],
    judged: dict[str, dict[str, int]],
    found: dict[str, list[str]],
    corpus: dict[str, Chunk],
    documents: dict[str, Document],
) -> tuple[list[Query], int]:
    """Queries with the passages that were found before their own and answer equally well."""
    kept, widened = [], 0
    for query in queries:
        own = judged.get(query.id, {})
        hits = found[query.id][:DEPTH]
        first = next((rank for rank, chunk in enumerate(hits) if chunk in own), len(hits))
        more = _holding(query, [corpus[chunk] for chunk in hits[:first]], documents)
        widened += bool(more)
        kept.append(replace(query, more_evidence=(*query.more_evidence, *more)))
    return kept, widened


def _holding(
    query: Query, chunks: Sequence[Chunk], documents: dict[str, Document]
) -> tuple[Span, ...]:
    """Where else the query's evidence stands, nearly word for word and with the same numbers."""
    from rapidfuzz import fuzz

    if not chunks or query.evidence is None or query.evidence.document not in documents:
        return ()
    if "not-grounded" in query.flags:
        return ()
    text = documents[query.evidence.document].text[query.evidence.start : query.evidence.end]
    if len(text) < SHORTEST_EVIDENCE:
        return ()
    numbers = set(re.findall(r"\d+", text))
    spans = []
    for chunk in chunks:
        if len(chunk.text) < len(text):
            continue
        place = fuzz.partial_ratio_alignment(text, chunk.text, score_cutoff=SAME_EVIDENCE)
        if place is None:
            continue
        held = chunk.text[place.dest_start : place.dest_end]
        span = Span(chunk.document, chunk.start + place.dest_start, chunk.start + place.dest_end)
        known = (*query.spans, *spans)
        if numbers <= set(re.findall(r"\d+", held)) and not any(map(span.overlap, known)):
            spans.append(span)
    return tuple(spans)


# ---- judge


def _judged(
    queries: Sequence[Query],
    drop: Drop,
    settings: FilterSettings,
    judged: dict[str, dict[str, int]],
    found: dict[str, list[str]],
    passages: dict[str, list[Chunk]],
    corpus: dict[str, Chunk],
    documents: dict[str, Document],
    chat: RecordedChat,
    progress: Progress,
) -> list[Query]:
    asked = [query for query in queries if not _settled(query) and passages[query.id]]
    pools = [_pool(passages[query.id], found[query.id], corpus) for query in asked]
    opinions = ask_opinions(asked, pools, chat, progress)
    by_id = dict(zip((query.id for query in asked), zip(pools, opinions, strict=True), strict=True))
    kept = []
    for query in queries:
        if query.id not in by_id:
            kept.append(query)
            continue
        pool, opinion = by_id[query.id]
        own = judged.get(query.id, {}).keys() | {chunk.id for chunk in passages[query.id]}
        if fault := _opinion_fault(opinion, settings, pool, own):
            drop(query, *fault)
            continue
        more = list(query.more_evidence)
        for place, evidence in opinion.answers:
            chunk = pool[place]
            span = locate(evidence, chunk, documents.get(chunk.document)) or chunk.span
            if chunk.id not in own and not any(map(span.overlap, (*query.spans, *more))):
                more.append(span)
        kept.append(replace(query, more_evidence=tuple(more)))
    return kept


def _pool(own: Sequence[Chunk], found: Sequence[str], corpus: dict[str, Chunk]) -> list[Chunk]:
    """The query's own chunks and those found first, in an order that tells nothing."""
    mine = [chunk.id for chunk in own[:POOL]]
    others = [chunk for chunk in found if chunk not in mine]
    return [corpus[chunk] for chunk in sorted([*mine, *others[: POOL - len(mine)]])]


def _opinion_fault(
    opinion: Opinion, settings: FilterSettings, pool: Sequence[Chunk], own: Iterable[str]
) -> tuple[str, str] | None:
    if opinion.code:
        return "not-judged", f"the judge gave no usable answer ({opinion.code}: {opinion.message})"
    if opinion.score < settings.judge_min:
        why = visible(opinion.reason)
        return "judge", f"scored {opinion.score} of 10, kept from {settings.judge_min}: {why}"
    if pool and not any(pool[place].id in own for place, _ in opinion.answers):
        return "judge", "the judge does not find its answer in its own passage"
    return None
