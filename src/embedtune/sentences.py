"""Where sentences end, in English and Chinese text."""

import re
from collections.abc import Iterator

_END = re.compile(
    r"[。！？；…]+[”’」』）】》\"')\]]*(?![\u0300-\u036f\u200d\ufe0f])"
    r"|(?<![.!?])[.!?]+(?![.!?])[”’\"')\]]*(?=\s+[^\sa-z])|\n"  # linear in dotted leaders
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|No|Nos|Inc|Corp|Co|Ltd|St|vs|cf|Fig|Eq|Sec|Art|al|e\.g|i\.e|U\.S|approx)"
    r"|\b[A-Z]|^\s*\d{1,3})\.$"
)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the sentences, without the white space around them. A line's end ends one too."""
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text[max(start, match.end() - 12) : match.end()]):
            continue
        if bare := stripped(text, start, match.end()):
            yield bare
        start = match.end()
    if bare := stripped(text, start, end):
        yield bare


def stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without the white space around it; None where nothing is left."""
    piece = text[start:end]
    bare = piece.strip()
    if not bare:
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(bare)
