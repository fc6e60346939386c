"""What passes between the process of the user and the readers: tasks, parts, recognised pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from embedtune.documents.clean import clean


class Broken(Exception):
    """The file, or the part, cannot be used. ``code`` is short and stable.

    ``unusable`` is False for what is no fault of the input: a picture without any text.
    """

    def __init__(
        self, code: str, message: str, line: int | None = None, *, unusable: bool = True
    ) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.unusable = unusable


@dataclass(frozen=True, slots=True)
class Task:
    """A file to read, or a page of it to recognise."""

    path: str
    kind: str
    listed: tuple[int, int]  # size and time of change when it was found; both must still hold
    most_bytes: int
    seconds: int
    entry: int | None = None  # the place in an archive, when the file is one of its members
    password: str | None = None
    tables: bool = True
    boilerplate: Literal["auto", "keep"] = "auto"
    broken_bytes: str = "replace"
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)  # role -> of rows
    ocr: str = ""  # the engine; empty: none
    no_ocr: str = ""  # why there is none, and what to do about it
    page: int | None = None  # counted from 1

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        size, changed = row["listed"]
        return cls(**{**row, "listed": (size, changed)})


@dataclass(frozen=True, slots=True)
class SeenLine:
    """A recognised line; places in points, ``base`` above the foot of the page."""

    text: str
    left: float
    right: float
    base: float
    size: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A page as OCR sees it, in reading order."""

    lines: tuple[SeenLine, ...] = ()
    confidence: float = 0.0  # 0 to 1, mean over the characters
    failed: str = ""  # why there is nothing

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        lines = tuple(SeenLine(*line) for line in row.get("lines", ()))
        return cls(lines, row.get("confidence", 0.0), row.get("message", ""))


@dataclass(frozen=True, slots=True)
class Ocr:
    """What a reader may do about pages that hold no text.

    ``recognise`` takes page numbers (from 1) and gives every one of them back. Without an
    ``engine`` there is none, and ``advice`` says what the user can do.
    """

    engine: str = ""
    advice: str = ""
    recognise: Callable[[Sequence[int]], Mapping[int, Seen]] = lambda _: {}


@dataclass(slots=True)
class Part:
    """One document found in a file, with what was noticed on the way."""

    kind: str
    text: str = ""
    title: str = ""
    pages: list[tuple[int, int]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    line: int | None = None  # in a file of rows
    notes: list[tuple[int | None, str]] = field(default_factory=list)  # line, message
    rejects: list[tuple[str, str]] = field(default_factory=list)  # code, message

    def note(self, message: str, line: int | None = None) -> None:
        self.notes.append((line, message))

    def reject(self, code: str, message: str) -> None:
        """Something of the document is missing; the rest is kept."""
        self.rejects.append((code, message))

    def cleaned(self) -> "Part":
        """Control characters and the like replaced and counted (``meta``)."""
        text, title = clean(self.text), clean(self.title)
        self.text = text.text
        self.title = " ".join(title.text.split())
        removed, replaced = text.removed + title.removed, text.replaced + title.replaced
        if removed:
            self.meta["removed_marks"] = str(removed)
        if replaced:
            self.meta["replaced_characters"] = str(replaced)
            self.note(f"{replaced} control or broken characters replaced by U+FFFD")
        return self

    def as_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}
