"""An index as a retriever of LangChain (extra ``langchain``)."""

from typing import Any

from embedtune.errors import ConfigError
from embedtune.retrieve.index import Found, Index

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise ConfigError(
        f"this retriever needs {error.name}: pip install 'embedtune[langchain]'"
    ) from error


class EmbedtuneRetriever(BaseRetriever):
    """Passages of an index as documents, best first. ``how``: auto, dense, bm25 or hybrid.

    Asked with ``ainvoke``, it searches in a thread.
    """

    index: Any  # an Index, which is no pydantic type
    k: int = 6
    how: str = "auto"

    @classmethod
    def open(cls, place: str, *, k: int = 6, how: str = "auto") -> "EmbedtuneRetriever":
        """Over the index that ``embedtune index`` filled."""
        return cls(index=Index.open(place), k=k, how=how)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        [found] = self.index.search([query], self.k, self.how)
        return [_document(hit) for hit in found]


def _document(hit: Found) -> Document:
    chunk = hit.chunk
    return Document(
        id=chunk.id,
        page_content=chunk.text,
        metadata={
            "source": chunk.source or chunk.document,
            "page": chunk.page,
            "section": " > ".join(chunk.section),
            "title": chunk.title,
            "score": float(hit.score),
        },
    )
