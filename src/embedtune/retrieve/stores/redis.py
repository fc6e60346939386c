"""An index in Redis 8, or Redis with its search module.

A passage is a hash of four fields (id, digest, chunk as JSON, vector as float32); the search index
over them is flat, so that searches are exact. What made the vectors is a key beside them.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedtune.embed import Matrix
from embedtune.errors import ConfigError, ServiceError
from embedtune.files import visible
from embedtune.records import Chunk
from embedtune.retrieve import Hit
from embedtune.retrieve.stores import IndexInfo, digest_of
from embedtune.retrieve.stores.address import read_address
from embedtune.retrieve.stores.database import DatabaseStore, client_of
from embedtune.retrieve.stores.rows import (
    SPARE,
    check_queries,
    check_rows,
    chunk_text,
    info_text,
    portions,
    ranked,
    read_chunk,
    read_info,
)

METRICS = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
TIMEOUT = 30.0  # seconds


class RedisStore(DatabaseStore):
    """``redis://host:6379/DATABASE?index=NAME``.

    The password is in the address or in ``REDIS_PASSWORD``.
    """

    def __init__(self, address: str) -> None:
        redis = client_of("redis", "Redis", "redis")
        place = read_address(address, option="index", port=6379, secret_variable="REDIS_PASSWORD")
        if not place.host or not (place.path.isdecimal() or not place.path):
            raise ConfigError(f"index {place.label}: expected redis://host:6379/0?index=NAME")
        self.name, self._index = place.label, place.name
        self._about, self._prefix = f"{place.name}:about", f"{place.name}:chunk:"
        self._client = redis.Redis(
            host=place.host, port=place.port, db=int(place.path or 0), ssl=place.tls,
            username=place.user or None, password=place.secret or None,
            socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT,
        )  # fmt: skip
        self.info()

    def info(self) -> IndexInfo | None:
        with self._errors():
            text = self._client.get(self._about)
            taken = text is None and self._index.encode() in self._client.execute_command(
                "FT._LIST"
            )
        there = text is not None or taken
        self._known = read_info(text.decode() if text else None, self.name) if there else None
        return self._known

    def create(self, info: IndexInfo) -> None:
        self.drop()
        with self._errors():
            self._client.execute_command(
                "FT.CREATE", self._index, "ON", "HASH", "PREFIX", "1", self._prefix, "SCHEMA",
                "id", "TAG", "NOINDEX", "vector", "VECTOR", "FLAT", "6", "TYPE", "FLOAT32",
                "DIM", info.dimension, "DISTANCE_METRIC", METRICS[info.similarity],
            )  # fmt: skip
            self._client.set(self._about, info_text(info))
        self._known = info

    def digests(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for part in portions(self._keys()):
            with self._errors():
                pipe = self._client.pipeline(transaction=False)
                for key in part:
                    pipe.hmget(key, "id", "digest")
                found.update((id.decode(), digest.decode()) for id, digest in pipe.execute())
        return found

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        check_rows(chunks, vectors, self._known, self.name)
        for rows in portions(range(len(chunks))):
            with self._errors():
                pipe = self._client.pipeline(transaction=True)
                for row in rows:
                    own = chunks[row]
                    fields = {
                        "id": own.id, "digest": digest_of(own), "chunk": chunk_text(own),
                        "vector": vectors[row].astype("<f4").tobytes(),
                    }  # fmt: skip
                    pipe.hset(self._key(own.id), mapping=fields)
                pipe.execute()

    def remove(self, ids: Sequence[str]) -> None:
        for part in portions(ids if self._known else ()):
            with self._errors():
                self._client.delete(*map(self._key, part))

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        info = self._known
        check_queries(queries, info, self.name)
        if info is None:
            return []
        most = k + SPARE
        hits: list[list[Hit]] = []
        for query in queries:
            with self._errors():
                _, *found = self._client.execute_command(
                    "FT.SEARCH", self._index, f"*=>[KNN {most} @vector $query AS distance]",
                    "PARAMS", "2", "query", query.astype("<f4").tobytes(), "RETURN", "2", "id",
                    "distance", "LIMIT", "0", most, "DIALECT", "2",
                )  # fmt: skip
            rows = [dict(zip(own[::2], own[1::2], strict=True)) for own in found[1::2]]
            scored = ((row[b"id"].decode(), _score(float(row[b"distance"]), info)) for row in rows)
            hits.append(ranked(scored, k))
        return hits

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        return {id: read_chunk(data.decode()) for id, data in self._field(ids, "chunk").items()}

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return {id: np.frombuffer(data, "<f4") for id, data in self._field(ids, "vector").items()}

    def _delete(self) -> None:
        keys = self._keys()
        with self._errors():
            if self._index.encode() in self._client.execute_command("FT._LIST"):
                self._client.execute_command("FT.DROPINDEX", self._index)
            for part in portions(keys):
                self._client.delete(*part)
            self._client.delete(self._about)

    def set_alias(self, alias: str) -> None:
        """From now on ``alias`` stands for this index, in one step."""
        with self._errors():
            self._client.execute_command("FT.ALIASUPDATE", alias, self._index)

    def close(self) -> None:
        self._client.close()

    def _key(self, id: str) -> str:
        return self._prefix + hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()

    def _keys(self) -> list[bytes]:
        with self._errors():
            return list(self._client.scan_iter(f"{self._prefix}*", count=1000))

    def _field(self, ids: Sequence[str], field: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for part in portions(ids if self._known else ()):
            with self._errors():
                pipe = self._client.pipeline(transaction=False)
                for id in part:
                    pipe.hget(self._key(id), field)
                values = pipe.execute()
            found.update(
                (id, value) for id, value in zip(part, values, strict=True) if value is not None
            )
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as error:
            advice = ""
            if "unknown command" in str(error).lower():
                advice = "; vector search needs Redis 8, or the module RediSearch"
            raise ServiceError(f"{self.name}: {visible(error, 300)}{advice}") from error


def _score(distance: float, info: IndexInfo) -> float:
    return -math.sqrt(max(0.0, distance)) if info.similarity == "euclidean" else 1 - distance
