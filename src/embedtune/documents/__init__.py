"""Documents: files read to text with pages and sections, and cut into chunks."""

from embedtune.documents.chunk import Chunking, ChunkSettings, chunk_documents
from embedtune.documents.read import DocumentSettings, Reading, read_documents

__all__ = [
    "ChunkSettings",
    "Chunking",
    "DocumentSettings",
    "Reading",
    "chunk_documents",
    "read_documents",
]
