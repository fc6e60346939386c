"""Rows of the four formats as retrieval data: passages, queries and judgements."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedtune.datasets.formats import LabelledRow, PairRow, Row, ScoredRow
from embedtune.language import language_of
from embedtune.records import Chunk, Qrels, Query, RetrievalSet, content_id
from embedtune.similar import normalise

Parts = Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Judged:
    data: RetrievalSet
    negatives: Mapping[str, tuple[str, ...]]  # query id -> chunk ids, as given
    notes: tuple[str, ...] = ()


def query_id(text: str) -> str:
    """Questions that differ in case, width and white space only are one."""
    return content_id("q", normalise(text))


def chunk_id(text: str) -> str:
    """Passages are one where they are equal."""
    return content_id("c", text)


def judge_pairs(name: str, parts: Mapping[str, Sequence[PairRow]], given: bool) -> Judged:
    """A query's positives are relevant; all positives and negatives are the corpus.

    The same question with a second positive has two relevant passages. A negative that is a
    positive of the same question elsewhere is none.
    """
    corpus = _Corpus()
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    negatives: dict[str, dict[str, None]] = defaultdict(dict)  # ordered sets
    for split, rows in parts.items():
        part = qrels.setdefault(split, {})
        for row in rows:
            query = query_id(row.anchor)
            queries.setdefault(query, _query(query, row.anchor))
            part.setdefault(query, {})[corpus.add(row.positive, row.group)] = 1
            for text in row.negatives:
                negatives[query][corpus.add(text, "")] = None
    kept, contradicted = _without_positives(negatives, qrels)
    notes = (
        f"{contradicted} negatives are a positive of the same question elsewhere; they are not "
        "used as negatives",
    )
    data = RetrievalSet(name, corpus.chunks, tuple(queries.values()), qrels, given)
    return Judged(data, kept, notes[: bool(contradicted)])


def _without_positives(
    negatives: Mapping[str, Mapping[str, None]], qrels: Mapping[str, Qrels]
) -> tuple[dict[str, tuple[str, ...]], int]:
    kept, contradicted = {}, 0
    for query, given in negatives.items():
        relevant = {chunk for part in qrels.values() for chunk in part.get(query, ())}
        left = tuple(chunk for chunk in given if chunk not in relevant)
        contradicted += len(given) - len(left)
        if left:
            kept[query] = left
    return kept, contradicted


def judge_scored(
    name: str, parts: Mapping[str, Sequence[ScoredRow]], given: bool, threshold: float
) -> Judged:
    """Of a pair scored ``threshold`` or more, the second text answers the first.

    All second texts are the corpus; pairs scored 0 are negatives. A pair of equal texts is left
    out: finding it shows nothing.
    """
    corpus = _Corpus()
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    negatives: dict[str, dict[str, None]] = defaultdict(dict)
    used = equal = 0
    for split, rows in parts.items():
        part = qrels.setdefault(split, {})
        for row in rows:
            chunk, query = corpus.add(row.sentence2, ""), query_id(row.sentence1)
            if row.score >= threshold and normalise(row.sentence1) == normalise(row.sentence2):
                equal += 1
            elif row.score >= threshold:
                used += 1
                queries.setdefault(query, _query(query, row.sentence1))
                part.setdefault(query, {})[chunk] = 1
            elif row.score == 0:
                negatives[query][chunk] = None
    kept, _ = _without_positives(
        {query: found for query, found in negatives.items() if query in queries}, qrels
    )
    total = sum(map(len, parts.values()))
    note = f"for retrieval, {used} of {total} pairs count as relevant: those scored {threshold:g}"
    note += " or more" + (f"; {equal} more are of two equal texts" if equal else "")
    data = RetrievalSet(name, corpus.chunks, tuple(queries.values()), qrels, given)
    return Judged(data, kept, (note,))


def judge_labelled(name: str, parts: Mapping[str, Sequence[LabelledRow]], given: bool) -> Judged:
    """Train texts are the corpus; those of a query's label are relevant to it, but itself not.

    So hit@1 is the accuracy of the nearest neighbour. Without a train part, all texts are.
    """
    source = parts.get("train") or [row for rows in parts.values() for row in rows]
    corpus = _Corpus()
    members: dict[str, dict[str, int]] = defaultdict(dict)
    for row in source:
        members[row.label][corpus.add(row.text, "")] = 1
    own = {chunk.id: query_id(chunk.text) for chunk in corpus.chunks}
    copies: dict[str, set[str]] = defaultdict(set)  # query -> the chunks that are its own text
    for chunk, query in own.items():
        copies[query].add(chunk)
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, Mapping[str, int]]] = {}
    unknown: dict[str, int] = defaultdict(int)
    for split, rows in parts.items():
        labels: dict[str, dict[str, None]] = defaultdict(dict)
        for row in rows:
            query = query_id(row.text)
            queries.setdefault(query, _query(query, row.text))
            labels[query][row.label] = None
        judged = qrels.setdefault(split, {})
        for query, found in labels.items():
            groups = tuple(members[label] for label in found if label in members)
            relevant = _Peers(groups, frozenset(copies.get(query, ())))
            if len(relevant):
                judged[query] = relevant
            else:
                unknown[", ".join(found)] += 1
    notes = ()
    if unknown:
        shown = ", ".join(sorted(unknown)[:3])
        notes = (
            f"{sum(unknown.values())} texts have a label that no other train text has, e.g. "
            f"{shown}; they cannot be judged",
        )
    data = RetrievalSet(name, corpus.chunks, tuple(queries.values()), qrels, given, True)
    return Judged(data, {}, notes)


class _Peers(Mapping[str, int]):
    """The judgements of one text: all members of its classes but itself.

    A million judgements would take gigabytes as dictionaries of their own.
    """

    __slots__ = ("_groups", "_own")

    def __init__(self, groups: tuple[Mapping[str, int], ...], own: frozenset[str]) -> None:
        self._groups, self._own = groups, own

    def __getitem__(self, chunk: str) -> int:
        if chunk in self._own:
            raise KeyError(chunk)
        for group in self._groups:
            if chunk in group:
                return group[chunk]
        raise KeyError(chunk)

    def __iter__(self) -> Iterator[str]:
        for place, group in enumerate(self._groups):
            for chunk in group:
                if chunk not in self._own and not any(
                    chunk in before for before in self._groups[:place]
                ):
                    yield chunk

    def __len__(self) -> int:
        if len(self._groups) == 1:
            (group,) = self._groups
            return len(group) - sum(chunk in group for chunk in self._own)
        return sum(1 for _ in self)


class _Corpus:
    """Passages by text. Each is a document of its own, unless a group is named."""

    def __init__(self) -> None:
        self._chunks: dict[str, Chunk] = {}
        self._ends: dict[str, int] = defaultdict(int)

    def add(self, text: str, group: str) -> str:
        identity = chunk_id(text)
        if identity not in self._chunks or (group and self._chunks[identity].document == identity):
            document = group or identity
            start = self._ends[group] if group else 0
            if group:
                self._ends[group] += len(text)
            self._chunks[identity] = Chunk(
                identity, document, start, start + len(text), "", text, language=language_of(text)
            )
        return identity

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return tuple(self._chunks.values())


def _query(identity: str, text: str) -> Query:
    return Query(identity, text, language=language_of(text), origin="user")
