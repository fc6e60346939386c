"""An index in a collection of Milvus: its Lite form in a file, or a server.

What made the vectors stands in the collection's properties. The key of a row is a hash of the
passage's id, so that no id needs quoting. A passage is kept as pieces of JSON, since Milvus
limits a text to 64 KiB. Searches are exact (FLAT). A file of Milvus Lite is held by one process
until that ends.
"""

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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

PROPERTY = "embedtune"
METRICS = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
PIECE = 16_000  # characters: under 65,535 bytes in any script
PIECES = 4_000  # of one passage
LONGEST_ID = 4_096  # bytes
MOST_HITS = 16_384  # that Milvus gives
TIMEOUT = 10.0  # seconds


class MilvusStore(DatabaseStore):
    """``milvus:FILE.db?collection=NAME`` (Lite), ``milvus://host:19530/database?collection=NAME``.

    The password, or token, is in the address or in ``MILVUS_TOKEN``.
    """

    def __init__(self, address: str) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Lite complains of its own client
        pymilvus = client_of("pymilvus", "Milvus", "milvus")
        place = read_address(
            address, option="collection", port=19530, secret_variable="MILVUS_TOKEN"
        )
        self.name, self._collection = place.label, place.name
        for library in ("pymilvus", "grpc._server"):  # what they log, they raise too
            logging.getLogger(library).setLevel(logging.CRITICAL)
        with self._errors():
            if place.folder:
                self._client = pymilvus.MilvusClient(os.path.expanduser(place.folder))
            else:
                token = f"{place.user}:{place.secret}" if place.user else place.secret
                scheme = "https" if place.tls else "http"
                self._client = pymilvus.MilvusClient(
                    f"{scheme}://{place.host}:{place.port}", token=token, db_name=place.path,
                    timeout=TIMEOUT,
                )  # fmt: skip
        self.info()

    def info(self) -> IndexInfo | None:
        with self._errors():
            there = self._client.has_collection(self._collection)
            about = self._client.describe_collection(self._collection) if there else {}
        text = about.get("properties", {}).get(PROPERTY)
        self._known = read_info(text, self.name) if there else None
        if self._known:
            with self._errors():
                self._client.load_collection(self._collection)
        return self._known

    def create(self, info: IndexInfo) -> None:
        from pymilvus import DataType

        self.drop()
        with self._errors():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
            schema.add_field("id", DataType.VARCHAR, max_length=LONGEST_ID)
            schema.add_field("digest", DataType.VARCHAR, max_length=64)
            schema.add_field(
                "chunk", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=PIECES,
                max_length=4 * PIECE,
            )  # fmt: skip
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=info.dimension)
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type=METRICS[info.similarity])
            self._client.create_collection(
                self._collection, schema=schema, index_params=index,
                properties={PROPERTY: info_text(info)}, consistency_level="Strong",
            )  # fmt: skip
        self._known = info

    def digests(self) -> Mapping[str, str]:
        if not self._known:
            return {}
        found: dict[str, str] = {}
        with self._errors():
            rows = self._client.query_iterator(
                self._collection, batch_size=1000, output_fields=["id", "digest"]
            )
            while part := rows.next():
                found.update((row["id"], row["digest"]) for row in part)
            rows.close()
        return found

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        check_rows(chunks, vectors, self._known, self.name)
        rows = [
            {"key": _key(chunk.id), "id": chunk.id, "digest": digest_of(chunk),
             "chunk": _pieces(chunk_text(chunk)), "vector": vector}
            for chunk, vector in zip(chunks, vectors.astype(np.float32), strict=True)
        ]  # fmt: skip
        with self._errors():
            for part in portions(rows):
                self._client.upsert(self._collection, list(part))
            self._client.flush(self._collection)

    def remove(self, ids: Sequence[str]) -> None:
        if self._known:
            with self._errors():
                for part in portions(ids):
                    self._client.delete(self._collection, ids=list(map(_key, part)))

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        info = self._known
        check_queries(queries, info, self.name)
        if info is None or not len(queries):
            return []
        found: list[list[Hit]] = []
        most = min(k + SPARE, MOST_HITS)
        with self._errors():
            for part in portions(queries.astype(np.float32)):
                for hits in self._client.search(
                    self._collection, list(part), limit=most, output_fields=["id"]
                ):
                    scored = ((hit["entity"]["id"], _score(hit["distance"], info)) for hit in hits)
                    found.append(ranked(scored, k))
        return found

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        rows = self._rows(ids, "chunk")
        return {row["id"]: read_chunk("".join(row["chunk"])) for row in rows}

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        return {row["id"]: row["vector"] for row in self._rows(ids, "vector")}

    def _delete(self) -> None:
        with self._errors():
            self._client.drop_collection(self._collection)

    def set_alias(self, alias: str) -> None:
        """From now on ``alias`` stands for this collection, in one step."""
        with self._errors():
            aliases = self._client.list_aliases().get("aliases", [])
            change = self._client.alter_alias if alias in aliases else self._client.create_alias
            change(self._collection, alias)

    def close(self) -> None:
        self._client.close()

    def _rows(self, ids: Sequence[str], field: str) -> Iterator[Mapping[str, Any]]:
        for part in portions(ids if self._known else ()):
            with self._errors():
                found = self._client.get(
                    self._collection, ids=list(map(_key, part)), output_fields=["id", field]
                )
            yield from found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            told = visible(getattr(error, "message", "") or error, 300)
            advice = ""
            if "Open local milvus" in told:
                advice = "; another process may have it open: Milvus Lite lets one in at a time"
            raise ServiceError(f"{self.name}: {told}{advice}") from error


def _key(id: str) -> str:
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()


def _pieces(text: str) -> list[str]:
    return [text[first : first + PIECE] for first in range(0, len(text), PIECE)]


def _score(distance: float, info: IndexInfo) -> float:
    return -math.sqrt(max(0.0, distance)) if info.similarity == "euclidean" else distance
