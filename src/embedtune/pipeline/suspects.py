"""Negatives of a training that may be answers nobody judged, as the base and BM25 see them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embedtune.embed import Embedder, Matrix
from embedtune.evaluation.diagnose import Suspects, looks_right
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.records import Query, RetrievalSet
from embedtune.relevance import Relevance
from embedtune.retrieve.bm25 import BM25


def suspects_among(
    data: RetrievalSet,
    evaluator: Evaluator,
    base: System,
    *,
    negatives: Mapping[str, Sequence[str]],
    near_duplicates: Sequence[tuple[str, str]],
    batch_size: int,
) -> tuple[Suspects | None, Suspects | None]:
    """Which of the training's negatives look like answers: its own, and those of the batch.

    What training itself masks, such as near-duplicates of answers, does not count.

    Args:
        data: A sample, whose train queries are looked at.
        negatives: Query -> passages that training held against it.
        near_duplicates: Pairs of ids of passages in ``data``.
        batch_size: Pairs of a step.
    """
    asked = data.queries_of("train") if data.qrels.get("train") else ()
    if not asked:
        return None, None
    views = _Views(data, evaluator.vectors(base), asked, evaluator.embedder(base))
    place = {chunk.id: number for number, chunk in enumerate(data.chunks)}
    twins = [(place[one], place[other]) for one, other in near_duplicates]
    relevance = Relevance(data.queries, data.chunks, data.qrels["train"], twins)
    positives = sorted({id for query in asked for id in _right(data, query.id)})
    own, batch = list[bool](), list[bool]()
    for query in asked:
        barred, answers = relevance.excluded(query.id), _right(data, query.id)
        suspect = views.suspects(query.id, answers)
        given = negatives.get(query.id, ())
        own += [suspect(other) for other in given if other in place and other not in barred]
        batch += [suspect(other) for other in positives if other not in barred]
    share = float(np.mean(batch)) if batch else 0.0
    return (
        Suspects(len(own), float(np.mean(own))) if own else None,
        Suspects(len(batch), share, per_batch=share * (batch_size - 1)) if batch else None,
    )


class _Views:
    """Queries and passages as the base and BM25 see them."""

    def __init__(
        self,
        data: RetrievalSet,
        encoded: tuple[list[str], Matrix],
        asked: Sequence[Query],
        embedder: Embedder,
    ) -> None:
        texts = {chunk.id: chunk.embedded for chunk in data.chunks}
        row_of = {texts[id]: row for row, id in enumerate(encoded[0])}
        self._rows = {id: row_of[text] for id, text in texts.items()}
        self._place = {chunk.id: place for place, chunk in enumerate(data.chunks)}
        self._passages = _units(encoded[1])
        vectors = _units(embedder.embed([query.text for query in asked], "query"))
        self._asked = {query.id: vector for query, vector in zip(asked, vectors, strict=True)}
        self._texts = {query.id: query.text for query in asked}
        self._words = BM25(data.chunks)

    def suspects(self, query: str, answers: Sequence[str]) -> Callable[[str], bool]:
        """Passage -> whether it may answer the query as well as its ``answers`` do."""
        meaning = _from_mean(self._passages @ self._asked[query])
        words = self._words.scores(self._texts[query])
        likeness = [
            _from_mean(self._passages @ self._passages[self._rows[answer]]) for answer in answers
        ]

        def view(passage: str) -> tuple[float, float]:
            return float(meaning[self._rows[passage]]), float(words[self._place[passage]])

        def suspect(passage: str) -> bool:
            own, row = view(passage), self._rows[passage]
            return any(
                looks_right(view(answer), own, float(like[row]))
                for answer, like in zip(answers, likeness, strict=True)
            )

        return suspect


def _from_mean(cosines: Matrix) -> Matrix:
    """Cosines as shares of the way from their mean to 1: in a space where all texts are close
    together, as those of some good models, a high cosine says nothing."""
    mean = float(cosines.mean())
    return (cosines - mean) / max(1 - mean, 1e-9)


def _right(data: RetrievalSet, query: str) -> list[str]:
    return [chunk for chunk, grade in data.qrels["train"][query].items() if grade > 0]


def _units(vectors: Matrix) -> Matrix:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
