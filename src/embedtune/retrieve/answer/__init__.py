"""Answers from passages that a search found, with citations that hold: by a language model, or
in the documents' own words."""

from dataclasses import dataclass
from typing import Any, Literal

from embedtune.records import Chunk

Status = Literal["answered", "uncited", "quoted", "not-in-documents"]
Reason = Literal["", "nothing-found", "weak", "model"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it is shown to the model under ``number``; ``text`` may be cut to fit."""

    number: int
    chunk: Chunk
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that the answer names. ``quote`` is the part of it that is most like the sentence
    it stands behind, word for word."""

    number: int
    chunk: Chunk
    score: float
    quote: str

    @property
    def place(self) -> str:
        """Where it stands, for people: file, page and section."""
        parts = [self.chunk.source or self.chunk.document]
        if self.chunk.page is not None:
            parts.append(f"p. {self.chunk.page}")
        if self.chunk.section:
            parts.append(" > ".join(self.chunk.section))
        return ", ".join(" ".join(part.split()) for part in parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "id": self.chunk.id,
            "source": self.chunk.source or self.chunk.document,
            "page": self.chunk.page,
            "section": list(self.chunk.section),
            "score": self.score,
            "quote": self.quote,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` says what it is worth: ``uncited`` text names no passage and may be made up;
    ``quoted`` text is the documents' own, no model was asked.

    ``reason`` (of ``not-in-documents``): no passage was found, the best was too weak (then no
    model was asked), or the model said so. ``best`` is the vector score of the best passage where
    it was compared with a threshold. ``removed`` are the numbers of passages that do not exist,
    as the model wrote them. ``finish`` is the model's: stop, length, content_filter, refusal.
    """

    question: str
    text: str
    status: Status
    reason: Reason = ""
    citations: tuple[Citation, ...] = ()
    passages: tuple[Passage, ...] = ()
    removed: tuple[int, ...] = ()
    best: float | None = None
    finish: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "answer": self.text,
            "status": self.status,
            "reason": self.reason,
            "citations": [citation.as_json() for citation in self.citations],
            "removed": list(self.removed),
            "best": self.best,
            "finish": self.finish,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens},
            "passages": [
                {"number": own.number, "id": own.chunk.id, "score": own.score, "text": own.text}
                for own in self.passages
            ],
        }
