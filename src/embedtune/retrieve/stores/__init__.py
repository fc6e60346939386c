"""Where the vectors of an index are kept: the contract, and the table from names to stores."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from embedtune.embed import Matrix, Similarity
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import read_json, visible
from embedtune.records import Chunk, as_row
from embedtune.retrieve import Hit

How = Literal["dense", "bm25", "hybrid"]

STORES: dict[str, str] = {  # name before the colon of an address -> what opens that address
    "pgvector": "embedtune.retrieve.stores.pgvector:PgvectorStore",
    "milvus": "embedtune.retrieve.stores.milvus:MilvusStore",
    "chroma": "embedtune.retrieve.stores.chroma:ChromaStore",
    "qdrant": "embedtune.retrieve.stores.qdrant:QdrantStore",
    "redis": "embedtune.retrieve.stores.redis:RedisStore",
}
DISK = "embedtune.retrieve.disk:DiskStore"  # any other place is a folder

POINTER = "current.json"  # a folder with {"place": ADDRESS} stands for the index at ADDRESS


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What made the vectors of an index. A query embedded by another model finds nothing in it.

    ``model`` is the embedder's name (model and revision); ``source`` is the name or folder by
    which that embedder can be opened again. ``how`` is the search that was found best, and
    ``weight`` the share of the vectors in a hybrid one. ``min_score`` is the least vector score of
    the best passage at which a question should be answered; None where nobody knows.
    """

    model: str
    source: str
    dimension: int
    similarity: Similarity
    how: How = "hybrid"
    weight: float = 0.5
    min_score: float | None = None


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

    def vectors(self, ids: Sequence[str]) -> Matrix:
        """(n, dimension) float32: the vectors of those passages, in that order, as they were put;
        KeyError where one is not there."""
        ...

    def all_chunks(self) -> Iterator[Chunk]:
        """Every passage, in order of id."""
        ...

    def drop(self) -> None:
        """Delete the index with all that is in it; of what is not there nothing."""
        ...

    def close(self) -> None: ...


def digest_of(chunk: Chunk) -> str:
    """Of a passage as it is stored: 16 hex digits of its embedded text, a dash, and 16 of all of
    it. Passages of one text have one vector, so the first half says what need not be embedded."""
    return f"{text_digest(chunk)}-{_hash(json.dumps(as_row(chunk), sort_keys=True))}"


def text_digest(chunk: Chunk) -> str:
    """The first half of ``digest_of``."""
    return _hash(chunk.embedded)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def open_store(place: str | Path) -> VectorStore:
    """The store at an address (``pgvector://…``) or in a folder, which need not exist yet.

    A folder with a ``current.json`` stands for the place that this names.

    Raises:
        ConfigError: No store has that name; an extra is not installed; the folder is no index.
        IntegrityError: ``current.json`` is damaged.
    """
    address = followed(place)
    kind, colon, _ = address.partition(":")
    if colon and kind in STORES:
        module, name = STORES[kind].split(":")
        return getattr(import_module(module), name)(address)
    if "://" in address:
        known = ", ".join(sorted(STORES)) or "none"
        raise ConfigError(
            f"{visible(kind)}: no such store of vectors; expected a folder, or one of {known}"
        )
    module, name = DISK.split(":")
    return getattr(import_module(module), name)(Path(address).expanduser())


def followed(place: str | Path) -> str:
    """The place itself, or the one that its ``current.json`` names; a relative one is beside it."""
    address = str(place)
    if not address.strip():
        raise ConfigError("the place of an index is empty; expected a folder or an address")
    pointer = Path(address).expanduser() / POINTER
    if address.partition(":")[0] in STORES or not pointer.is_file():
        return address
    try:
        target = read_json(pointer)["place"]
        if not isinstance(target, str) or not target:
            raise ValueError("place is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f'{pointer}: damaged ({error}); expected {{"place": "a folder or an address"}}'
        ) from error
    if target.partition(":")[0] in STORES or "://" in target:
        return target
    return str(pointer.parent / Path(target).expanduser())
