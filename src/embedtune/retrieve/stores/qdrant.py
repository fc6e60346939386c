"""An index in a collection of Qdrant: a server, or the local mode of its client in a folder.

What made the vectors stands in the collection's metadata. The key of a point is made of the
passage's id. Searches are asked to be exact. For cosine, Qdrant keeps vectors at length 1.
"""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedtune.embed import Matrix
from embedtune.errors import ServiceError
from embedtune.files import visible
from embedtune.records import Chunk, as_row, chunk_from_row
from embedtune.retrieve import Hit
from embedtune.retrieve.stores import IndexInfo, digest_of
from embedtune.retrieve.stores.address import read_address
from embedtune.retrieve.stores.database import DatabaseStore, client_of
from embedtune.retrieve.stores.rows import (
    SPARE,
    check_queries,
    check_rows,
    info_text,
    portions,
    ranked,
    read_info,
)

PROPERTY = "embedtune"
DISTANCES = {"cosine": "Cosine", "dot": "Dot", "euclidean": "Euclid"}
KEYS = uuid.UUID("6f0ad9a2-5b0e-4a53-9d3e-b7a3a4a9d1c7")  # of our own, for keys made of ids
TIMEOUT = 30  # seconds


class QdrantStore(DatabaseStore):
    """``qdrant:FOLDER?collection=NAME``, ``qdrant://host:6333?collection=NAME``.

    The key of a service is in the address as a password, or in ``QDRANT_API_KEY``.
    """

    def __init__(self, address: str) -> None:
        qdrant_client = client_of("qdrant_client", "Qdrant", "qdrant")
        place = read_address(
            address, option="collection", port=6333, secret_variable="QDRANT_API_KEY"
        )
        self.name, self._collection, self._local = place.label, place.name, bool(place.folder)
        with self._errors():
            if place.folder:
                # searches may come from the threads of a server
                self._client = qdrant_client.QdrantClient(
                    path=os.path.expanduser(place.folder), force_disable_check_same_thread=True
                )
            else:
                self._client = qdrant_client.QdrantClient(
                    host=place.host, port=place.port, https=place.tls,
                    api_key=place.secret or None, timeout=TIMEOUT, check_compatibility=False,
                )  # fmt: skip
        self.info()

    def info(self) -> IndexInfo | None:
        with self._errors():
            there = self._client.collection_exists(self._collection)
            about = self._client.get_collection(self._collection) if there else None
        text = (about.config.metadata or {}).get(PROPERTY) if about else None
        self._known = read_info(text, self.name) if about else None
        return self._known

    def create(self, info: IndexInfo) -> None:
        from qdrant_client import models

        self.drop()
        with self._errors():
            self._client.create_collection(
                self._collection,
                vectors_config=models.VectorParams(
                    size=info.dimension, distance=models.Distance(DISTANCES[info.similarity])
                ),
                metadata={PROPERTY: info_text(info)},
            )
        self._known = info

    def digests(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        place: Any = None  # a point's key; None at the beginning and at the end
        while self._known:
            with self._errors():
                points, place = self._client.scroll(
                    self._collection, limit=1000, offset=place, with_payload=["id", "digest"]
                )
            found.update((point.payload["id"], point.payload["digest"]) for point in points)
            if place is None:
                break
        return found

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        from qdrant_client import models

        check_rows(chunks, vectors, self._known, self.name)
        points = [
            models.PointStruct(
                id=_key(chunk.id), vector=vector.tolist(),
                payload={"id": chunk.id, "digest": digest_of(chunk), "chunk": as_row(chunk)},
            )
            for chunk, vector in zip(chunks, vectors.astype(np.float32), strict=True)
        ]  # fmt: skip
        for part in portions(points):
            with self._errors():
                self._client.upsert(self._collection, list(part), wait=True)

    def remove(self, ids: Sequence[str]) -> None:
        for part in portions(ids if self._known else ()):
            with self._errors():
                self._client.delete(self._collection, list(map(_key, part)), wait=True)

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        from qdrant_client import models

        info = self._known
        check_queries(queries, info, self.name)
        if info is None:
            return []
        exact = None if self._local else models.SearchParams(exact=True)  # local is exact anyway
        sign = -1 if info.similarity == "euclidean" else 1
        hits: list[list[Hit]] = []
        for part in portions(queries.astype(np.float32)):
            asked = [
                models.QueryRequest(
                    query=query.tolist(), limit=k + SPARE, with_payload=["id"], params=exact
                )
                for query in part
            ]
            with self._errors():
                answers = self._client.query_batch_points(self._collection, asked)
            hits += [
                ranked(((point.payload["id"], sign * point.score) for point in own.points), k)
                for own in answers
            ]
        return hits

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        payloads = (point.payload for point in self._points(ids))
        return {payload["id"]: chunk_from_row(payload["chunk"]) for payload in payloads}

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return {point.payload["id"]: point.vector for point in self._points(ids, vectors=True)}

    def _delete(self) -> None:
        with self._errors():
            self._client.delete_collection(self._collection)

    def set_alias(self, alias: str) -> None:
        """From now on ``alias`` stands for this collection, in one step."""
        from qdrant_client import models

        with self._errors():
            there = {own.alias_name for own in self._client.get_aliases().aliases}
            gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            made = models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=self._collection, alias_name=alias)
            )
            self._client.update_collection_aliases([gone, made] if alias in there else [made])

    def close(self) -> None:
        self._client.close()

    def _points(self, ids: Sequence[str], *, vectors: bool = False) -> Iterator[Any]:
        for part in portions(ids if self._known else ()):
            with self._errors():
                found = self._client.retrieve(
                    self._collection, list(map(_key, part)), with_vectors=vectors,
                    with_payload=["id"] if vectors else ["id", "chunk"],
                )  # fmt: skip
            yield from found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except (ApiException, RuntimeError, ValueError) as error:
            advice = ""
            if "already accessed" in str(error):
                advice = " (one index at a time is open in a folder)"
            raise ServiceError(f"{self.name}: {visible(error, 300)}{advice}") from error


def _key(id: str) -> str:
    return str(uuid.uuid5(KEYS, id))
