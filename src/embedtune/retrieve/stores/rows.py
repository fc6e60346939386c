"""What all databases do alike with passages, vectors and scores."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from embedtune.embed import Matrix
from embedtune.errors import ConfigError, IntegrityError, ServiceError
from embedtune.records import Chunk, as_row, chunk_from_row
from embedtune.retrieve import Hit
from embedtune.retrieve.order import tie_breaker
from embedtune.retrieve.stores import IndexInfo, VectorStore

PORTION = 100  # rows in one request: some megabytes, which all servers take
SPARE = 32  # hits asked for over k, so that ids decide among equal scores at the end
DECIMALS = 6  # scores closer than this are equal: databases count in float32

T = TypeVar("T")


def info_text(info: IndexInfo) -> str:
    """JSON that ``read_info`` reads."""
    return json.dumps({"embedtune": 1, **asdict(info)}, ensure_ascii=True, sort_keys=True)


def read_info(text: str | None, name: str) -> IndexInfo:
    """What an index in a database was made with.

    Raises:
        ConfigError: What stands there is not ours; nothing of ours may replace it.
        IntegrityError: It is ours, but damaged.
    """
    if not text or '"embedtune"' not in text:
        raise ConfigError(
            f"{name}: that name is taken by something embedtune did not make; choose another one"
        )
    try:
        row = json.loads(text)
        known = {own.name for own in fields(IndexInfo)}
        return IndexInfo(**{name: value for name, value in row.items() if name in known})
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{name}: its description is damaged ({error}); index again") from None


def chunk_text(chunk: Chunk) -> str:
    """JSON that ``read_chunk`` reads."""
    return json.dumps(as_row(chunk), ensure_ascii=False)


def read_chunk(text: str) -> Chunk:
    return chunk_from_row(json.loads(text))


def check_rows(chunks: Sequence[Chunk], vectors: Matrix, info: IndexInfo | None, name: str) -> None:
    """Raises IntegrityError for vectors that do not fit the index or the passages."""
    check_queries(vectors, info, name)
    if len(chunks) != len(vectors):
        raise IntegrityError(f"{name}: {len(vectors)} vectors for {len(chunks)} passages")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = chunks[int(bad.argmax())].id
        raise IntegrityError(f"{name}: a vector with NaN or infinite numbers, of passage {first!r}")


def check_queries(queries: Matrix, info: IndexInfo | None, name: str) -> None:
    """Raises IntegrityError where there is no index, or one of another dimension."""
    if info is None:
        raise IntegrityError(f"{name}: there is no index; make one first")
    if len(queries) and queries.shape[1] != info.dimension:
        raise IntegrityError(
            f"{name}: holds vectors of {info.dimension} dimensions by {info.model}, "
            f"not of {queries.shape[1]}"
        )


def ranked(found: Iterable[tuple[str, float]], k: int) -> list[Hit]:
    """The ``k`` best, equal scores by a hash of the id."""
    hits = [Hit(id, round(score, DECIMALS)) for id, score in found if math.isfinite(score)]
    return sorted(hits, key=lambda hit: (-hit.score, tie_breaker(hit.chunk)))[:k]


def portions(items: Sequence[T], size: int = PORTION) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def stacked(ids: Sequence[str], found: Mapping[str, Any], dimension: int) -> Matrix:
    """(n, dimension) float32 of the vectors of ``ids``; KeyError where one is missing."""
    rows = [np.asarray(found[id], np.float32) for id in ids]
    return np.stack(rows) if rows else np.zeros((0, dimension), np.float32)


def every_chunk(store: VectorStore) -> Iterator[Chunk]:
    """All passages in order of id, a portion at a time."""
    for part in portions(sorted(store.digests())):
        try:
            yield from store.chunks(part)
        except KeyError as error:
            raise ServiceError(
                f"{store.name}: passages were removed while they were read; run the same command "
                "again"
            ) from error
