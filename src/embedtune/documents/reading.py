"""What a reader of one file gives back, before it becomes documents."""

from dataclasses import dataclass, field
from typing import Any

from embedtune.documents.clean import clean


class Broken(Exception):
    """The file, or the part, cannot be used. ``code`` is short and stable."""

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.line = line


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
        text, removed, replaced = clean(self.text)
        self.text = text
        self.title = " ".join(clean(self.title).text.split())
        if removed:
            self.meta["removed_marks"] = str(removed)
        if replaced:
            self.meta["replaced_characters"] = str(replaced)
            self.note(f"{replaced} control or broken characters replaced by U+FFFD")
        return self

    def as_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}
