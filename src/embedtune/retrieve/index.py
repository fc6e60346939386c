"""An index: passages with vectors in a store, searched by meaning, by words, or by both."""

import logging
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from embedtune.embed import Embedder, Matrix, document_name
from embedtune.embed.opening import open_embedder
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import visible
from embedtune.records import Chunk, Progress, no_progress
from embedtune.retrieve import Hit
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.dense import check_vectors, scales_of, similarities
from embedtune.retrieve.disk import DiskStore
from embedtune.retrieve.fusion import DEPTH, Fusion, fuse
from embedtune.retrieve.rerank import DEPTH as READ
from embedtune.retrieve.rerank import Reranker, rerank
from embedtune.retrieve.stores import (
    How,
    IndexInfo,
    VectorStore,
    digest_of,
    open_store,
    text_digest,
)

logger = logging.getLogger(__name__)

PORTION = 256  # passages embedded between two commits: what a kill can cost
WORDS = "bm25-stems"  # the file that the disk store keeps of them
REVISION = re.compile(r"@([0-9a-f]{16}.*)$")


class Found(NamedTuple):
    """A passage found; a higher score is better. Scores of one search can be compared, those of
    different ``how`` cannot."""

    chunk: Chunk
    score: float


class Index:
    """An index open for searching; from any number of threads.

    It shows what the place held when it was opened.
    """

    def __init__(self, store: VectorStore, info: IndexInfo, embedder: Embedder) -> None:
        self.store = store
        self.info = info
        self.embedder = embedder
        self._words: BM25 | None = None
        self._making_words = threading.Lock()
        self._embedding = threading.Lock()  # models are loaded and used by one thread at a time

    @classmethod
    def open(cls, place: str | Path, embedder: Embedder | None = None) -> Self:
        """The index at a place; see `stores.open_store`.

        Args:
            embedder: Of the model that made it; None opens that from where it was then.

        Raises:
            ConfigError: There is no index; its model is not found.
            IntegrityError: Another model made it; files are damaged.
            ServiceError: A database or a hub cannot be reached.
        """
        store = open_store(place)
        info = store.info()
        if info is None:
            store.close()
            raise ConfigError(f"{store.name}: holds no index; make one with `embedtune index`")
        if embedder is None:
            try:
                embedder = open_embedder(info.source)
            except ConfigError as error:
                raise ConfigError(
                    f"{store.name}: made with the model {visible(info.model)}, which cannot be "
                    f"opened: {error}; say where it is now with --model"
                ) from error
        check_model(store, info, embedder)
        return cls(store, info, embedder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    def search(
        self,
        queries: Sequence[str],
        k: int,
        how: How | Literal["auto"] = "auto",
        *,
        reranker: Reranker | None = None,
        depth: int = READ,
    ) -> list[list[Found]]:
        """At most ``k`` passages a query, best first; equal scores are ordered by a hash of the id.

        Args:
            how: "auto" is what the index says, which has it from the verdict of its run.
            reranker: Reads the first ``depth`` passages again; its scores are those given.

        Raises:
            ConfigError: A query is empty, or there is no such way to search.
        """
        for number, query in enumerate(queries, 1):
            if not query.strip():
                which = f"query {number} of {len(queries)}" if len(queries) > 1 else "the query"
                raise ConfigError(f"{which} is empty")
        if not queries:
            return []
        count = max(k, depth) if reranker else k
        hits = self._hits(queries, count, self.info.how if how == "auto" else how)
        ids = list(dict.fromkeys(hit.chunk for row in hits for hit in row))
        chunks = dict(zip(ids, self.store.chunks(ids), strict=True))
        if reranker:
            texts = {id: chunk.embedded for id, chunk in chunks.items()}
            names = {str(number): query for number, query in enumerate(queries)}
            rankings = dict(zip(names, map(list, hits), strict=True))
            with self._embedding:
                ranked = rerank(reranker, names, rankings, texts, depth=depth)
            hits = [[Hit(*hit) for hit in ranked[name]] for name in names]
        return [[Found(chunks[hit.chunk], hit.score) for hit in row[:k]] for row in hits]

    def rate(self, query: str, texts: Sequence[str]) -> Matrix:
        """(n,) float32: how near each text is to the query by the index's model, higher is nearer.
        Nothing is stored."""
        with self._embedding:
            asked = self.embedder.embed([query], "query")
            vectors = self.embedder.embed(texts, "document")
        check_vectors(asked, [query], self.embedder.name, allow_collapsed=True)
        check_vectors(vectors, texts, self.embedder.name, allow_collapsed=True)
        kind = self.info.similarity
        return similarities(asked, vectors, kind, scales=scales_of(vectors, kind))[0]

    def _hits(self, queries: Sequence[str], k: int, how: str) -> list[list[Hit]]:
        if how == "dense":
            return self._dense(queries, k)
        if how == "bm25":
            return self._bm25().search(queries, k)
        if how != "hybrid":
            raise ConfigError(f"how {visible(repr(how))}: expected auto, dense, bm25 or hybrid")
        fusion = Fusion(weight=self.info.weight)
        both = self._dense(queries, max(k, DEPTH)), self._bm25().search(queries, max(k, DEPTH))
        return [fuse(rankings, fusion)[:k] for rankings in zip(*both, strict=True)]

    def _dense(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        with self._embedding:
            vectors = self.embedder.embed(queries, "query")
        check_vectors(vectors, queries, self.embedder.name, allow_collapsed=True)
        return self.store.nearest(vectors, k)

    def _bm25(self) -> BM25:
        with self._making_words:
            if self._words is None:
                self._words = words_of(self.store)
            return self._words


def same_model(one: str, other: str) -> bool:
    """Whether two embedders' names mean the same vectors. A folder may have been renamed: then
    the hash of its content in them is the same."""
    first, second = REVISION.search(one), REVISION.search(other)
    return one == other or bool(first and second and first[1] == second[1])


def check_model(store: VectorStore, info: IndexInfo, embedder: Embedder) -> None:
    """Raises IntegrityError where the vectors of the store are another model's."""
    if not same_model(info.model, document_name(embedder)):
        raise IntegrityError(
            f"{store.name}: its vectors were made by {visible(info.model)}, the model is "
            f"{visible(document_name(embedder))}; give the model that made it (--model), or "
            "index again"
        )


def words_of(store: VectorStore) -> BM25:
    """BM25 over the passages of a store: as it was kept, or made now."""
    if isinstance(store, DiskStore) and (path := store.derived(WORDS)):
        return BM25.load(path, store.ids())
    return BM25(list(store.all_chunks()))


def keep_words(store: VectorStore) -> None:
    """Leave BM25 beside the vectors, where the store has a place for it and it is not there."""
    if isinstance(store, DiskStore) and not store.derived(WORDS):
        store.keep(WORDS, ".npz", BM25(list(store.all_chunks())).save)


# ---- bringing an index up to date


@dataclass(frozen=True, slots=True)
class Update:
    """What became of the passages of an index. ``embedded``: texts the model was asked for; others
    had a passage of the same text there already."""

    added: int
    changed: int
    removed: int
    unchanged: int
    embedded: int

    def line(self) -> str:
        return (
            f"{self.added:,} added, {self.changed:,} changed, {self.removed:,} removed, "
            f"{self.unchanged:,} unchanged; {self.embedded:,} embedded"
        )


def prepare(
    store: VectorStore,
    embedder: Embedder,
    *,
    source: str,
    how: How | None = None,
    weight: float | None = None,
    min_score: float | None = None,
    fresh: bool = False,
) -> IndexInfo:
    """Make the place ready for vectors of that embedder; what is there of the same model stays.

    Args:
        source: Opens the embedder again, see ``IndexInfo``.
        how, weight, min_score: None leaves them as they are.
        fresh: Begin with nothing, whatever is there.

    Raises:
        IntegrityError: It holds vectors of another model.
    """
    there = None if fresh else store.info()
    told: dict[str, Any] = {"how": how, "weight": weight, "min_score": min_score}
    told = {name: value for name, value in told.items() if value is not None}
    if there is None:
        made = IndexInfo(
            document_name(embedder), source, embedder.dimension, embedder.similarity, **told
        )
        store.create(made)
        return made
    check_same(store, embedder)
    now = replace(there, source=source, **told)
    if now != there and isinstance(store, DiskStore):
        store.describe(now)
    return now


def check_same(store: VectorStore, embedder: Embedder) -> None:
    """Raises IntegrityError where a store that is to be added to holds vectors of another model."""
    there = store.info()
    if there is not None and not same_model(there.model, document_name(embedder)):
        raise IntegrityError(
            f"{store.name}: holds vectors of {visible(there.model)}, the model is "
            f"{visible(document_name(embedder))}; index into another place, or with --fresh "
            "into this one"
        )


def update(
    store: VectorStore,
    chunks: Iterable[Chunk],
    embedder: Embedder,
    progress: Progress = no_progress,
) -> Update:
    """Make a store hold just these passages; only texts that are not there are embedded.

    Passages are stored in portions as they come, so that a kill costs one portion; what is no more
    is removed at the end.

    Raises:
        IntegrityError: Two different passages have one id; a vector is damaged.
    """
    wanted: dict[str, Chunk] = {}
    for chunk in chunks:
        if wanted.setdefault(chunk.id, chunk) != chunk:
            raise IntegrityError(f"two different passages have the id {visible(chunk.id)}")
    there = dict(store.digests())
    digests = {id: digest_of(chunk) for id, chunk in wanted.items()}
    new = [wanted[id] for id, digest in digests.items() if there.get(id) != digest]
    new.sort(key=lambda chunk: (-len(chunk.embedded), chunk.embedded, chunk.id))
    # text -> a stored passage of it, whose vector stays as it is while this goes on
    having = {
        digest[:16]: id
        for id, digest in there.items()
        if id not in digests or digests[id][:16] == digest[:16]
    }
    embedded = 0
    for first in range(0, len(new), PORTION):
        part = new[first : first + PORTION]
        known = [chunk for chunk in part if text_digest(chunk) in having]
        fresh = [chunk for chunk in part if text_digest(chunk) not in having]
        if known:
            store.put(known, store.vectors([having[text_digest(chunk)] for chunk in known]))
        if fresh:
            texts = [chunk.embedded for chunk in fresh]
            vectors = embedder.embed(texts, "document")
            check_vectors(vectors, texts, embedder.name)
            store.put(fresh, vectors)
            embedded += len(fresh)
        progress(first + len(part), len(new))
    gone = sorted(there.keys() - wanted.keys())
    store.remove(gone)
    added = len(digests.keys() - there.keys())
    changed = len(new) - added
    return Update(added, changed, len(gone), len(wanted) - len(new), embedded)
