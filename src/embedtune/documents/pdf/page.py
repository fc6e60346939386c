"""A page of a PDF while it is read: its lines, what is drawn on it, and what is left of it."""

from dataclasses import dataclass, field

from embedtune.documents.pdf.lines import Line
from embedtune.documents.pdf.order import Item
from embedtune.documents.pdf.rules import Rules
from embedtune.documents.reading import Seen


@dataclass(slots=True)
class Page:
    number: int
    lines: list[Line] = field(default_factory=list)
    blank: bool = False  # nothing at all is drawn on it
    failed: str = ""
    scanned: bool = False  # what there is to read is drawn, not text
    seen: Seen | None = None  # what OCR found
    rules: Rules | None = None  # None: tables are not looked for
    items: list[Item] = field(default_factory=list)  # what is left of it, in reading order

    @property
    def unread(self) -> bool:
        """It may hold text that is not known."""
        return bool(self.failed) or (self.scanned and (self.seen is None or bool(self.seen.failed)))
