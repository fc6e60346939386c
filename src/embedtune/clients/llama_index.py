"""An index as a retriever of LlamaIndex (extra ``llama-index``)."""

import asyncio
from typing import Any

from embedtune.errors import ConfigError
from embedtune.retrieve.index import Found, Index

try:
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ConfigError(
        f"this retriever needs {error.name}: pip install 'embedtune[llama-index]'"
    ) from error


class EmbedtuneRetriever(BaseRetriever):
    """Passages of an index as nodes with scores, best first. ``how``: auto, dense, bm25 or hybrid.

    Asked with ``aretrieve``, it searches in a thread.
    """

    def __init__(self, index: Index, *, k: int = 6, how: Any = "auto") -> None:
        self._index = index
        self._k = k
        self._how = how
        super().__init__()

    @classmethod
    def open(cls, place: str, *, k: int = 6, how: Any = "auto") -> "EmbedtuneRetriever":
        """Over the index that ``embedtune index`` filled."""
        return cls(Index.open(place), k=k, how=how)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        [found] = self._index.search([query_bundle.query_str], self._k, self._how)
        return [_node(hit) for hit in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Found) -> NodeWithScore:
    chunk = hit.chunk
    metadata = {
        "source": chunk.source or chunk.document,
        "page": chunk.page,
        "section": " > ".join(chunk.section),
        "title": chunk.title,
    }
    node = TextNode(
        id_=chunk.id,
        text=chunk.text,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
    )
    return NodeWithScore(node=node, score=float(hit.score))
