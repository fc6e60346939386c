"""What the indexes in databases share: one of these is over its own client only."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from embedtune.embed import Matrix
from embedtune.errors import ConfigError
from embedtune.records import Chunk
from embedtune.retrieve.stores import IndexInfo
from embedtune.retrieve.stores.rows import every_chunk, stacked


def client_of(module: str, database: str, extra: str) -> Any:  # a module
    """The database's own client.

    Raises:
        ConfigError: It is not installed; says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"indexes in {database} need a client: pip install 'embedtune[{extra}]'"
        ) from error


class DatabaseStore:
    """A `VectorStore` in a database. ``_known`` is what made its vectors, as it was last seen."""

    name: str
    _known: IndexInfo | None = None

    def info(self) -> IndexInfo | None:
        raise NotImplementedError

    def digests(self) -> Mapping[str, str]:
        raise NotImplementedError

    def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        found = self._chunks_of(ids)
        return [found[id] for id in ids]

    def vectors(self, ids: Sequence[str]) -> Matrix:
        found = self._vectors_of(ids)
        return stacked(ids, found, self._known.dimension if self._known else 0)

    def all_chunks(self) -> Iterator[Chunk]:
        return every_chunk(self)

    def drop(self) -> None:
        """The index goes, with all that is in it."""
        if self.info():  # refuses what is not ours
            self._delete()
            self._known = None

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        """By id; those that are not there are left out."""
        raise NotImplementedError

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:  # rows of numbers
        raise NotImplementedError

    def _delete(self) -> None:
        raise NotImplementedError
