"""Reciprocal rank fusion (Cormack, Clarke & Buettcher, SIGIR 2009)."""

from collections.abc import Sequence

from embedtune.retrieve import Hit, Retriever
from embedtune.retrieve.order import tie_breaker

DEPTH = 100
DEFAULT_K = 60
CHOICES_OF_K = (10, 60)  # one is chosen on dev


def fuse(
    rankings: Sequence[Sequence[tuple[str, float]]], *, k: int = DEFAULT_K, depth: int = DEPTH
) -> list[Hit]:
    """One ranking from several of the same query: score = sum of 1 / (k + rank), rank from 1.

    Only the first ``depth`` of each ranking count; equal sums are ordered by a hash of the id.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, (chunk, _) in enumerate(ranking[:depth], 1):
            scores[chunk] = scores.get(chunk, 0.0) + 1 / (k + rank)
    hits = [Hit(chunk, round(score, 12)) for chunk, score in scores.items()]
    return sorted(hits, key=lambda hit: (-hit.score, tie_breaker(hit.chunk)))


class FusedRetriever:
    """Several retrievers over the same chunks, asked together."""

    def __init__(self, retrievers: Sequence[Retriever], *, k: int = DEFAULT_K) -> None:
        self.name = " + ".join(retriever.name for retriever in retrievers)
        self._retrievers = retrievers
        self._k = k

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        found = [retriever.search(queries, max(k, DEPTH)) for retriever in self._retrievers]
        return [fuse(rankings, k=self._k)[:k] for rankings in zip(*found, strict=True)]
