"""Retrievers: the contract. Dense, lexical and fused search all answer it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Hit(NamedTuple):
    """A chunk found, by id; a higher score is better."""

    chunk: str
    score: float


class Retriever(Protocol):
    name: str

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most ``k`` hits a query, best first; equal scores are ordered by a hash of the id."""
        ...
