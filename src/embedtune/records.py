"""What flows between the stages. All records are frozen; ids are hashes of content.

Offsets are character offsets into ``Document.text``, end exclusive, everywhere.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal

Role = Literal["query", "document"]
Qrels = Mapping[str, Mapping[str, int]]  # query id -> chunk id -> grade (>= 1 is relevant)
Progress = Callable[[int, int], None]  # (done, total), called as often as the stage likes


def no_progress(done: int, total: int) -> None:
    """The default ``Progress``: says nothing."""


def content_id(kind: str, *parts: object) -> str:
    """A short id, equal for equal content: ``kind`` + 16 hex digits of a SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return f"{kind}{digest.hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one document."""

    document: str
    start: int
    end: int

    def overlap(self, other: "Span") -> int:
        """Characters in common; 0 for different documents."""
        if self.document != other.document:
            return 0
        return max(0, min(self.end, other.end) - max(self.start, other.start))

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Document:
    """One source file (or one row of a table file), as Markdown-like text.

    ``pages`` holds (offset, page number) where each page begins, in order; empty when the
    source has none. ``meta`` holds what was found out while reading (encoding, sha256 of the
    file as read, …), all values as text.
    """

    id: str
    source: str
    title: str
    text: str
    kind: str
    language: str
    pages: tuple[tuple[int, int], ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage that is embedded and retrieved.

    ``title`` is the context put before the text (heading path, document title, or nothing).
    A passage of a BEIR folder is a chunk whose ``document`` is its group (or its own id).
    """

    id: str
    document: str
    start: int
    end: int
    title: str
    text: str
    section: tuple[str, ...] = ()
    page: int | None = None
    language: str = ""
    kind: str = "text"  # text, table or code
    tokens: int = 0
    source: str = ""  # file name shown to people

    @property
    def span(self) -> Span:
        return Span(self.document, self.start, self.end)

    @property
    def embedded(self) -> str:
        """The text that every system sees: title + space + text, stripped."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Query:
    """A question and where its answer stands.

    ``evidence`` is the stretch of a document that answers it; judgements are derived from it,
    so that they survive re-chunking. Queries that come with judgements (BEIR) have none.
    ``more_evidence`` are further stretches, of any document, that answer it too (found by the
    round trip, marked by a reviewer, or the second passage of a comparison).
    ``origin`` is one of llm, scripted, extractive, user, beir.
    """

    id: str
    text: str
    language: str = ""
    style: str = ""
    origin: str = ""
    document: str = ""
    chunk: str = ""  # the chunk it was written from
    evidence: Span | None = None
    flags: tuple[str, ...] = ()
    more_evidence: tuple[Span, ...] = ()
    persona: str = ""
    answer: str = ""  # in words, where answers were asked for

    @property
    def spans(self) -> tuple[Span, ...]:
        """All stretches that answer it, the one it was written from first."""
        return ((self.evidence,) if self.evidence else ()) + self.more_evidence


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that was left out, and why. Never dropped silently: counted and listed."""

    stage: str
    code: str  # short and stable, e.g. "empty-file"
    message: str
    file: str = ""
    line: int | None = None
    field: str = ""
    excerpt: str = ""
    item: str = ""  # id of the record, where it has one
    unusable: bool = (
        True  # False: duplicates and quality filters, which do not change the exit code
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """The account of a stage: ``total = accepted + rejected + duplicates``."""

    total: int
    accepted: int
    rejected: int = 0
    duplicates: int = 0

    def __post_init__(self) -> None:
        if self.total != self.accepted + self.rejected + self.duplicates:
            raise ValueError(f"counts do not add up: {self}")


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Corpus, queries and judgements by split: what training and evaluation work on."""

    name: str
    chunks: tuple[Chunk, ...]
    queries: tuple[Query, ...]
    qrels: Mapping[str, Qrels]  # "train" | "dev" | "test" | … -> judgements
    given_splits: bool = False  # the splits came with the data and are never moved
    shared_passages: bool = False  # all splits search the same passages by design (labelled texts)

    def queries_of(self, split: str) -> tuple[Query, ...]:
        """The queries judged in ``split``, in the order of ``queries``."""
        return tuple(query for query in self.queries if query.id in self.qrels[split])


@dataclass(frozen=True, slots=True)
class Pair:
    """A training example: a query and one passage that answers it."""

    query: str  # ids
    chunk: str
    anchor: str  # texts
    positive: str
    negatives: tuple[tuple[str, str], ...] = ()  # (chunk id, text), hardest first


def as_row(record: Any) -> dict[str, Any]:  # any of the dataclasses above
    """A record as a JSON-ready mapping, empty optional fields left out."""
    required = {own.name for own in fields(record) if own.default is own.default_factory is MISSING}
    return {
        key: value
        for key, value in asdict(record).items()
        if key in required or value not in (None, (), {}, "")
    }


def document_from_row(row: Mapping[str, Any]) -> Document:
    pages = tuple((int(start), int(page)) for start, page in row.get("pages", ()))
    return Document(
        **{
            **row,
            "pages": pages,
            "title": row.get("title", ""),
            "text": row.get("text", ""),
            "language": row.get("language", ""),
        }
    )


def chunk_from_row(row: Mapping[str, Any]) -> Chunk:
    return Chunk(
        **{
            **row,
            "title": row.get("title", ""),
            "text": row.get("text", ""),
            "section": tuple(row.get("section", ())),
        }
    )


def query_from_row(row: Mapping[str, Any]) -> Query:
    evidence = row.get("evidence")
    return Query(
        **{
            **row,
            "evidence": Span(**evidence) if evidence else None,
            "more_evidence": tuple(Span(**span) for span in row.get("more_evidence", ())),
            "flags": tuple(row.get("flags", ())),
        }
    )


def reject_from_row(row: Mapping[str, Any]) -> Reject:
    return Reject(**row)


def unusable(rejects: Iterable[Reject]) -> bool:
    """Whether any reject was unusable input, which makes a command end with exit code 4."""
    return any(reject.unusable for reject in rejects)
