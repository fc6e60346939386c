"""Where the vectors of an index are kept: the contract, and the table from names to stores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from embedtune.embed import Matrix, Similarity
from embedtune.records import Chunk
from embedtune.retrieve import Hit


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What made the vectors of an index. A query embedded by another model finds nothing in it.

    ``model`` is the embedder's name (model and revision); ``source`` is the name or folder by
    which that embedder can be opened again.
    """

    model: str
    source: str
    dimension: int
    similarity: Similarity


class VectorStore(Protocol):
    """Passages with one vector each, in files or in a database. One writer at a time."""

    name: str  # for messages: kind and place, never a password

    def info(self) -> IndexInfo | None:
        """What made its vectors; None where nothing was stored yet."""
        ...

    def create(self, info: IndexInfo) -> None:
        """Make the empty place for vectors of that kind; what it held before is removed."""
        ...

    def digests(self) -> Mapping[str, str]:
        """Passage id -> digest of what was stored for it (``digest_of``)."""
        ...

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        """Store passages, replacing those of the same id. Kept when it returns."""
        ...

    def remove(self, ids: Sequence[str]) -> None: ...

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        """At most ``k`` hits a query, best first, scores as `retrieve.dense` gives them."""
        ...

    def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        """The passages of those ids, in that order; KeyError where one is not there."""
        ...

    def all_chunks(self) -> Iterator[Chunk]:
        """Every passage, in order of id."""
        ...

    def close(self) -> None: ...
