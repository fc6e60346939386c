"""Vectors of one split, and which rows of the index answer each of its queries."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.evaluation import metrics
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.judged import distinct_texts
from embedtune.evaluation.systems import System, matryoshka_dimensions
from embedtune.records import Query, RetrievalSet
from embedtune.relevance import Relevance, merge_qrels
from embedtune.retrieve.dense import Rows, check_vectors


@dataclass(frozen=True, slots=True)
class Encoded:
    """What one system makes of the corpus and of a split's queries, as the model gives it.

    ``rows``: (n, d) float32, equal texts once, in the order of ``Answers.ids``. ``asked``: (q, d)
    float32, in the order of ``Answers.queries``. ``dimensions``: those worth reporting, all first.
    """

    system: str
    similarity: Similarity
    rows: Matrix
    asked: Matrix
    dimensions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a split asks, and what counts as an answer.

    ``relevant``: of each query row -> ids of the judged chunks that row stands for, as `Evaluator`
    counts them. ``masked``: of each query the rows that may not be held against a system: these,
    near-duplicates, and what overlaps the evidence.
    """

    split: str
    ids: tuple[str, ...]
    queries: tuple[Query, ...]
    judgements: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, str]
    relevant: tuple[Mapping[int, tuple[str, ...]], ...]
    masked: tuple[Rows, ...]

    def only(self, places: Sequence[int]) -> "Answers":
        """The same for some of the queries."""
        return Answers(
            self.split,
            self.ids,
            tuple(self.queries[place] for place in places),
            self.judgements,
            self.groups,
            tuple(self.relevant[place] for place in places),
            tuple(self.masked[place] for place in places),
        )

    def values(self, found: Iterable[Sequence[int]], metric: str) -> dict[str, float]:
        """Query id -> value of ``metric`` for rankings of rows, best first."""
        rankings = []
        for rows, stands_for in zip(found, self.relevant, strict=True):
            names = (stands_for.get(int(row)) or (self.ids[row],) for row in rows)
            rankings.append(list(dict.fromkeys(name for some in names for name in some)))
        judged = [self.judgements[query.id] for query in self.queries]
        scored = metrics.score(rankings, judged, (metric,))[metric]
        return {query.id: float(v) for query, v in zip(self.queries, scored, strict=True)}


def encode(evaluator: Evaluator, system: System, split: str) -> Encoded:
    """The vectors of a system that has an embedder; an embedder that records encodes nothing twice.

    Raises:
        IntegrityError: See ``check_vectors``; also where a corpus is all one vector, unless the
            evaluator allows it.
    """
    embedder = evaluator.embedder(system)
    _, rows = evaluator.vectors(system)
    texts = [query.text for query in evaluator.queries(split)]
    asked = embedder.embed(texts, "query")
    check_vectors(asked, texts, embedder.name, allow_collapsed=True)
    wanted = evaluator.settings.similarity
    similarity = embedder.similarity if wanted == "auto" else wanted
    dimensions = matryoshka_dimensions(embedder, rows.shape[1])
    return Encoded(system.label, similarity, rows, asked, dimensions)


def answers_of(
    evaluator: Evaluator, split: str, near_duplicates: Iterable[tuple[str, str]]
) -> Answers:
    """What the evaluator's data asks in ``split``.

    Args:
        near_duplicates: The pairs of chunk ids that the evaluator was given.
    """
    data, queries = evaluator.data, evaluator.queries(split)
    judgements = evaluator.judgements(split)
    entries, copies = distinct_texts(data.chunks)
    row_of = {copy: row for row, entry in enumerate(entries) for copy in copies[entry]}
    twins: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in (pairs := list(near_duplicates)):
        twins[one].add(other)
        twins[other].add(one)
    excluded = _exclusions(data, pairs)
    relevant, masked = [], []
    for query in queries:
        grades = judgements[query.id]
        own: defaultdict[int, list[str]] = defaultdict(list)
        for chunk in sorted(grades):
            own[row_of[chunk]].append(chunk)
        near: defaultdict[int, set[str]] = defaultdict(set)
        for chunk in grades:
            for twin in twins.get(chunk, ()):
                near[row_of[twin]].add(chunk)
        stands_for = {
            row: (max(chunks, key=lambda chunk: (grades[chunk], chunk)),)
            for row, chunks in near.items()
        } | {row: tuple(chunks) for row, chunks in own.items()}
        barred = {row_of[chunk] for chunk in excluded.excluded(query.id)} | stands_for.keys()
        relevant.append(stands_for)
        masked.append(np.array(sorted(barred), np.int64))
    return Answers(
        split,
        tuple(entries),
        queries,
        judgements,
        evaluator.groups(split),
        tuple(relevant),
        tuple(masked),
    )


def _exclusions(data: RetrievalSet, pairs: Sequence[tuple[str, str]]) -> Relevance:
    place = {chunk.id: number for number, chunk in enumerate(data.chunks)}
    by_number = [(place[one], place[other]) for one, other in pairs]
    return Relevance(data.queries, data.chunks, merge_qrels(data.qrels.values()), by_number)
