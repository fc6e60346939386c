"""Which chunks answer a query, and which may never be held against it."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from embedtune.records import Chunk, Qrels, Query, Span
from embedtune.similar import normalise


def judge(
    queries: Iterable[Query], chunks: Sequence[Chunk], near_duplicates: Iterable[tuple[int, int]]
) -> dict[str, dict[str, int]]:
    """Judgements that survive re-chunking, from each query's evidence.

    Every chunk that holds at least half of a stretch of evidence is relevant (grade 1); if none
    does, the one that holds most of it. Near-duplicates of a relevant chunk are relevant too.
    Queries whose evidence touches no chunk get no entry.

    Args:
        near_duplicates: Pairs of indices into ``chunks``.
    """
    twins = twins_of(chunks, near_duplicates)
    overlaps = Overlaps(chunks)
    qrels: dict[str, dict[str, int]] = {}
    for query in queries:
        relevant: set[str] = set()
        for evidence in query.spans:
            held = [(chunk.span.overlap(evidence), chunk) for chunk in overlaps.of(evidence)]
            enough = min(max((overlap for overlap, _ in held), default=0), evidence.length / 2)
            relevant |= {chunk.id for overlap, chunk in held if overlap >= enough}
        for chunk_id in tuple(relevant):
            relevant |= twins.get(chunk_id, frozenset())
        if relevant:
            qrels[query.id] = dict.fromkeys(sorted(relevant), 1)
    return qrels


class Relevance:
    """Answers one question: which chunks are no negatives for this query?

    Those judged relevant, near-duplicates of one, those that overlap the evidence, and all that
    holds for another query of the same text.
    """

    def __init__(
        self,
        queries: Iterable[Query],
        chunks: Sequence[Chunk],
        qrels: Qrels,
        near_duplicates: Iterable[tuple[int, int]],
    ) -> None:
        twins = twins_of(chunks, near_duplicates)
        overlaps = Overlaps(chunks)
        by_text: dict[str, set[str]] = defaultdict(set)
        self._text_of: dict[str, str] = {}
        for query in queries:
            text = self._text_of[query.id] = normalise(query.text)
            excluded = by_text[text]
            for chunk_id, grade in qrels.get(query.id, {}).items():
                if grade > 0:
                    excluded.add(chunk_id)
                    excluded |= twins.get(chunk_id, frozenset())
            for evidence in query.spans:
                excluded.update(chunk.id for chunk in overlaps.of(evidence))
        self._excluded = {text: frozenset(ids) for text, ids in by_text.items()}

    def excluded(self, query_id: str) -> frozenset[str]:
        """Ids of the chunks that may never be a negative for the query."""
        return self._excluded[self._text_of[query_id]]


def merge_qrels(parts: Iterable[Qrels]) -> dict[str, dict[str, int]]:
    """The judgements of several splits as one; what a query has in any of them."""
    merged: dict[str, dict[str, int]] = {}
    for part in parts:
        for query, grades in part.items():
            merged.setdefault(query, {}).update(grades)
    return merged


def twins_of(
    chunks: Sequence[Chunk], near_duplicates: Iterable[tuple[int, int]]
) -> dict[str, frozenset[str]]:
    """Chunk id -> ids of its near-duplicates (itself among them); no entry without any.

    What holds for one of several chunks of equal text holds for all, even where the pairs list
    equal texts as a star (see ``near_duplicates``).
    """
    near_duplicates = list(near_duplicates)
    if not near_duplicates:  # equal texts are near-duplicates, and would be listed
        return {}
    first: dict[str, int] = {}
    text_of = [first.setdefault(normalise(chunk.embedded), i) for i, chunk in enumerate(chunks)]
    copies: defaultdict[int, list[str]] = defaultdict(list)
    for chunk, text in zip(chunks, text_of, strict=True):
        copies[text].append(chunk.id)
    near: defaultdict[int, set[int]] = defaultdict(set)
    for one, other in near_duplicates:
        near[text_of[one]].add(text_of[other])
        near[text_of[other]].add(text_of[one])
    shared = {
        text: frozenset(chunk for alike in {text, *texts} for chunk in copies[alike])
        for text, texts in near.items()
    }
    return {
        chunk.id: shared[text]
        for chunk, text in zip(chunks, text_of, strict=True)
        if text in shared
    }


class Overlaps:
    """Finds the chunks that overlap a stretch of a document."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks: defaultdict[str, list[Chunk]] = defaultdict(list)
        for chunk in chunks:
            self._chunks[chunk.document].append(chunk)
        for own in self._chunks.values():
            own.sort(key=lambda chunk: chunk.start)
        self._longest = {
            document: max(chunk.span.length for chunk in own)
            for document, own in self._chunks.items()
        }

    def of(self, span: Span) -> Iterator[Chunk]:
        own = self._chunks.get(span.document, [])
        if not own:
            return
        begin = bisect_left(
            own, span.start - self._longest[span.document], key=lambda chunk: chunk.start
        )
        for chunk in own[begin : bisect_left(own, span.end, key=lambda chunk: chunk.start)]:
            if chunk.span.overlap(span) > 0:
                yield chunk
