"""A second look at the first hits: query and passage are read together, and one number says how
well they fit. Slow, so only the best of a first search are read."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedtune.errors import IntegrityError
from embedtune.files import visible
from embedtune.records import Progress, no_progress
from embedtune.retrieve.order import Ranking, tie_breaker
from embedtune.store import Store, content_key

DEPTH = 50  # hits of the first search that are read
BATCH = 32
PORTION = 512  # pairs between two commits: what a kill can cost
DECIMALS = 6  # scores closer than this are equal: they move with what else is in the batch

Pair = tuple[str, str]  # query, passage
Values = npt.NDArray[np.float32]


class Reranker(Protocol):
    name: str  # goes into cache keys: model and revision

    def scores(self, pairs: Sequence[Pair]) -> Values:
        """(n,) float32, greater fits better."""
        ...


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder; scores are its numbers before any sigmoid, which
    would make one of the many that fit well.

    Args:
        load: Gives the model; called when first needed, so that a cached run loads nothing.
    """

    def __init__(self, name: str, load: Callable[[], Any]) -> None:  # a CrossEncoder
        self.name = name
        self._load = load

    @functools.cached_property
    def _model(self) -> Any:
        return self._load()

    def scores(self, pairs: Sequence[Pair]) -> Values:
        import torch

        if not pairs:
            return np.zeros(0, np.float32)
        found = self._model.predict(
            list(pairs), batch_size=BATCH, show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )  # fmt: skip
        return np.asarray(found, np.float32)


class ScriptedReranker:
    """Scores from a table; pairs that it does not hold have 0. For tests and dry runs."""

    name = "scripted"

    def __init__(self, table: Mapping[Pair, float]) -> None:
        self._table = table

    def scores(self, pairs: Sequence[Pair]) -> Values:
        return np.array([self._table.get(pair, 0.0) for pair in pairs], np.float32)


class RecordedReranker:
    """The wrapped reranker's scores, kept in a store by model, query and passage: no pair is read
    twice, by any system or run."""

    def __init__(
        self, reranker: Reranker, store: Store, *, progress: Progress = no_progress
    ) -> None:
        self.name = reranker.name
        self._reranker = reranker
        self._store = store
        self._progress = progress

    def scores(self, pairs: Sequence[Pair]) -> Values:
        keys = [
            content_key({"reranker": self.name, "query": query, "passage": passage})
            for query, passage in pairs
        ]
        known = {key: row[0] for key, row in self._store.vectors(keys).items()}
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        # like lengths together
        ordered = sorted(missing, key=lambda key: (-sum(map(len, missing[key])), key))
        for first in range(0, len(ordered), PORTION):
            part = ordered[first : first + PORTION]
            found = self._reranker.scores([missing[key] for key in part])
            check_scores(found, [missing[key] for key in part], self.name)
            known.update(zip(part, found, strict=True))
            self._store.put_vectors({k: [v] for k, v in zip(part, found, strict=True)})
            self._progress(first + len(part), len(ordered))
        return np.array([known[key] for key in keys], np.float32)


def check_scores(found: Values, pairs: Sequence[Pair], name: str) -> None:
    """Raises IntegrityError where scores are missing or no finite numbers."""
    if found.shape != (len(pairs),):
        raise IntegrityError(f"{name}: scores of shape {found.shape} for {len(pairs)} pairs")
    bad = ~np.isfinite(found)
    if bad.any():
        query, _ = pairs[int(bad.argmax())]
        raise IntegrityError(
            f"{name}: {int(bad.sum())} of {len(pairs)} scores are NaN or infinite, the first for "
            f'the query "{visible(query)}"; the model is damaged'
        )


def rerank(
    reranker: Reranker,
    queries: Mapping[str, str],
    rankings: Mapping[str, Ranking],
    passages: Mapping[str, str],
    *,
    depth: int = DEPTH,
) -> dict[str, Ranking]:
    """The first ``depth`` hits of each ranking, ordered by the reranker; what stood behind them
    is left out. Equal scores are ordered by a hash of the id.

    Args:
        queries: Query id -> text, of ``rankings`` at least.
        rankings: Query id -> (chunk id, score), best first.
        passages: Chunk id -> text.

    Raises:
        IntegrityError: A score is no number.
    """
    read = [(query, hit[0]) for query, ranking in rankings.items() for hit in ranking[:depth]]
    pairs = [(queries[query], passages[chunk]) for query, chunk in read]
    found = reranker.scores(pairs)
    check_scores(found, pairs, reranker.name)
    reranked: dict[str, Ranking] = {query: [] for query in rankings}
    for (query, chunk), score in zip(read, found, strict=True):
        reranked[query].append((chunk, round(float(score), DECIMALS)))
    for ranking in reranked.values():
        ranking.sort(key=lambda hit: (-hit[1], tie_breaker(hit[0])))
    return reranked
