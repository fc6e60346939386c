"""An index in a collection of Chroma: a folder, or its server.

What made the vectors stands in the collection's metadata; a passage's text is Chroma's document,
the rest of it JSON in the metadata beside the digest. Chroma searches with HNSW, which is not
exact: it looks at `SEARCHED` candidates at least, and tells its recall nowhere.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedtune.embed import Matrix
from embedtune.errors import ServiceError
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

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

PROPERTY = "embedtune"
SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}
SEARCHED = 400
PAGE = 1000  # digests in one request


class ChromaStore(DatabaseStore):
    """``chroma:FOLDER?collection=NAME``, ``chroma://host:8000?collection=NAME``.

    A token is in the address as a password, or in ``CHROMA_TOKEN``.
    """

    def __init__(self, address: str) -> None:
        chromadb = client_of("chromadb", "Chroma", "chroma")
        place = read_address(
            address, option="collection", port=8000, secret_variable="CHROMA_TOKEN"
        )
        self.name, self._collection = place.label, place.name
        quiet = chromadb.config.Settings(anonymized_telemetry=False)
        with self._errors():
            if place.folder:
                folder = os.path.expanduser(place.folder)
                self._client = chromadb.PersistentClient(folder, settings=quiet)
            else:
                headers = {"Authorization": f"Bearer {place.secret}"} if place.secret else None
                self._client = chromadb.HttpClient(
                    host=place.host, port=place.port, ssl=place.tls, headers=headers,
                    settings=quiet,
                )  # fmt: skip
        self._open: Collection | None = None
        self.info()

    def info(self) -> IndexInfo | None:
        from chromadb.errors import NotFoundError

        with self._errors():
            try:
                self._open = self._client.get_collection(self._collection, embedding_function=None)
            except NotFoundError:
                self._open = None
        about = self._open.metadata if self._open else None
        self._known = read_info((about or {}).get(PROPERTY), self.name) if self._open else None
        return self._known

    def create(self, info: IndexInfo) -> None:
        self.drop()
        space = {"space": SPACES[info.similarity], "ef_construction": 200, "ef_search": SEARCHED}
        with self._errors():
            self._open = self._client.create_collection(
                self._collection, embedding_function=None, configuration={"hnsw": space},
                metadata={PROPERTY: info_text(info)},
            )  # fmt: skip
        self._known = info

    def digests(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        while self._open:
            with self._errors():
                part = self._open.get(limit=PAGE, offset=len(found), include=["metadatas"])
            if not part["ids"]:
                break
            found.update(
                (id, str(own["digest"]))
                for id, own in zip(part["ids"], part["metadatas"] or (), strict=True)
            )
        return found

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        check_rows(chunks, vectors, self._known, self.name)
        if not self._open:
            return
        for rows in portions(range(len(chunks))):
            own = [chunks[row] for row in rows]
            with self._errors():
                self._open.upsert(
                    ids=[chunk.id for chunk in own],
                    embeddings=vectors[rows.start : rows.stop].astype(np.float32),
                    documents=[chunk.text for chunk in own],
                    metadatas=[
                        {"digest": digest_of(chunk), "chunk": chunk_text(replace(chunk, text=""))}
                        for chunk in own
                    ],
                )

    def remove(self, ids: Sequence[str]) -> None:
        for part in portions(ids if self._open else ()):
            with self._errors():
                self._open.delete(ids=list(part))

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        info = self._known
        check_queries(queries, info, self.name)
        if info is None or not self._open or not len(queries):
            return []
        hits: list[list[Hit]] = []
        with self._errors():
            count = self._open.count()
            for part in portions(queries.astype(np.float32) if count and k else ()):
                found = self._open.query(
                    query_embeddings=part, n_results=min(k + SPARE, count), include=["distances"]
                )
                for ids, distances in zip(found["ids"], found["distances"] or (), strict=True):
                    scores = (_score(float(distance), info) for distance in distances)
                    hits.append(ranked(zip(ids, scores, strict=True), k))
        return hits or [[] for _ in queries]

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        return {
            id: replace(read_chunk(str(own["chunk"])), text=text)
            for part in self._get(ids, ["metadatas", "documents"])
            for id, own, text in zip(
                part["ids"], part["metadatas"] or (), part["documents"] or (), strict=True
            )
        }

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return {
            id: vector
            for part in self._get(ids, ["embeddings"])
            for id, vector in zip(part["ids"], part["embeddings"], strict=True)
        }

    def _delete(self) -> None:
        with self._errors():
            self._client.delete_collection(self._collection)
        self._open = None

    def close(self) -> None:
        self._client.close()

    def _get(self, ids: Sequence[str], include: list[str]) -> Iterator[Mapping[str, Any]]:
        for part in portions(ids if self._open else ()):
            with self._errors():
                found = self._open.get(ids=list(part), include=include)
            yield found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import httpx
        from chromadb.errors import ChromaError

        try:
            yield
        except (ChromaError, httpx.HTTPError, ValueError) as error:
            raise ServiceError(f"{self.name}: {visible(error, 300)}") from error


def _score(distance: float, info: IndexInfo) -> float:
    return -math.sqrt(max(0.0, distance)) if info.similarity == "euclidean" else 1 - distance
