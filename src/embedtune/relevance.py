"""Which chunks answer a query, and which may never be held against it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from embedtune.records import Chunk, Qrels, Query
from embedtune.similar import normalise


def judge(
    queries: Iterable[Query], chunks: Sequence[Chunk], near_duplicates: Iterable[tuple[int, int]]
) -> dict[str, dict[str, int]]:
    """Judgements that survive re-chunking, from each query's evidence.

    Every chunk that holds at least half of the evidence is relevant (grade 1); if none does,
    the one that holds most of it. Near-duplicates of a relevant chunk are relevant too.
    Queries whose evidence touches no chunk get no entry.

    Args:
        near_duplicates: Pairs of indices into ``chunks``.
    """
    twins = _neighbours(chunks, near_duplicates)
    by_document = _by_document(chunks)
    qrels: dict[str, dict[str, int]] = {}
    for query in queries:
        if query.evidence is None:
            continue
        evidence = query.evidence
        held = [
            (overlap, chunk)
            for chunk in by_document[evidence.document]
            if (overlap := chunk.span.overlap(evidence)) > 0
        ]
        if not held:
            continue
        enough = max(overlap for overlap, _ in held)
        enough = min(enough, evidence.length / 2)
        relevant = {chunk.id for overlap, chunk in held if overlap >= enough}
        for chunk_id in tuple(relevant):
            relevant |= twins[chunk_id]
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
        twins = _neighbours(chunks, near_duplicates)
        by_document = _by_document(chunks)
        by_text: dict[str, set[str]] = defaultdict(set)
        self._text_of: dict[str, str] = {}
        for query in queries:
            text = self._text_of[query.id] = normalise(query.text)
            excluded = by_text[text]
            for chunk_id, grade in qrels.get(query.id, {}).items():
                if grade > 0:
                    excluded.add(chunk_id)
                    excluded |= twins[chunk_id]
            if query.evidence is not None:
                excluded.update(
                    chunk.id
                    for chunk in by_document[query.evidence.document]
                    if chunk.span.overlap(query.evidence) > 0
                )
        self._excluded = {text: frozenset(ids) for text, ids in by_text.items()}

    def excluded(self, query_id: str) -> frozenset[str]:
        """Ids of the chunks that may never be a negative for the query."""
        return self._excluded[self._text_of[query_id]]


def merge_qrels(parts: Iterable[Qrels]) -> dict[str, Mapping[str, int]]:
    """The judgements of several splits as one (a query is judged in one split only)."""
    return {query: grades for part in parts for query, grades in part.items()}


def _neighbours(
    chunks: Sequence[Chunk], pairs: Iterable[tuple[int, int]]
) -> defaultdict[str, set[str]]:
    twins: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in pairs:
        twins[chunks[one].id].add(chunks[other].id)
        twins[chunks[other].id].add(chunks[one].id)
    return twins


def _by_document(chunks: Sequence[Chunk]) -> defaultdict[str, list[Chunk]]:
    grouped: defaultdict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        grouped[chunk.document].append(chunk)
    return grouped
