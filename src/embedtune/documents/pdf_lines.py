"""Lines and words of a PDF page with their places, as pdfium gives them, and how they join."""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedtune.documents.clean import clean

HYPHEN = "\ufffe"  # stands for a hyphen at a line end
SOFT_HYPHENS = (0x02, 0xFFFE)  # pdfium's signs for it


@dataclass(frozen=True, slots=True)
class Word:
    """Characters without white space or a wide gap between them; places in points."""

    text: str
    left: float
    right: float
    base: float  # height of the baseline above the foot of the page
    size: float  # of the type as it is shown
    bold: bool


@dataclass(slots=True)
class Line:
    text: str
    left: float
    right: float
    base: float
    size: float
    bold: bool
    words: tuple[Word, ...] = ()  # from left to right; none of a line that OCR found
    turned: bool = False  # written in another direction than the page


@dataclass(frozen=True, slots=True)
class Turn:
    """A quarter turn that makes the text of a page run from left to right."""

    quarters: int = 0

    def point(self, x: float, y: float) -> tuple[float, float]:
        return ((x, y), (y, -x), (-x, -y), (-y, x))[self.quarters]

    def box(
        self, left: float, bottom: float, right: float, top: float
    ) -> tuple[float, float, float, float]:
        (x0, y0), (x1, y1) = self.point(left, bottom), self.point(right, top)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


# ---- from pdfium


@dataclass(slots=True)
class _Drawn:
    """A line before the direction of the page is known."""

    start: int  # in the text of the page
    end: int
    quarters: int
    scale: float  # of the type, by the matrix


def read_lines(handle: Any) -> tuple[list[Line], Turn]:  # Any: a pointer that ctypes made
    """The lines of a text page in pdfium's order. ``handle`` is its raw text page."""
    import pypdfium2.raw as pdfium

    count = pdfium.FPDFText_CountChars(handle)
    codes = [pdfium.FPDFText_GetUnicode(handle, place) for place in range(count)]
    drawn: list[_Drawn] = []
    start = 0
    for place in range(count + 1):
        if place == count or codes[place] == 10 or codes[place] in SOFT_HYPHENS:
            # a hyphen at a line end stands in the place of the line end
            end = min(place + 1, count)
            if any(_shown(code) for code in codes[start:end]):
                drawn.append(_Drawn(start, end, *_direction(handle, (start + end) // 2)))
            start = place + 1
    weights: Counter[int] = Counter()
    for line in drawn:
        weights[line.quarters] += line.end - line.start
    turn = Turn(weights.most_common(1)[0][0] if weights else 0)
    return [_line(handle, codes, line, turn) for line in drawn], turn


def _shown(code: int) -> bool:
    return code > 32 and code not in SOFT_HYPHENS and not chr(code).isspace()


def _direction(handle: Any, place: int) -> tuple[int, float]:
    """In which of four directions a character is written, and how much it is scaled."""
    import pypdfium2.raw as pdfium

    matrix = pdfium.FS_MATRIX()
    if not pdfium.FPDFText_GetMatrix(handle, place, matrix):
        return 0, 1.0
    quarters = round(math.atan2(matrix.b, matrix.a) / (math.pi / 2)) % 4
    return quarters, math.hypot(matrix.c, matrix.d) or 1.0


def _line(handle: Any, codes: Sequence[int], drawn: _Drawn, turn: Turn) -> Line:
    text = clean(
        "".join(
            HYPHEN if code in SOFT_HYPHENS else chr(code)
            for code in codes[drawn.start : drawn.end]
            if code not in (10, 13)
        )
    ).text
    words = tuple(_words(handle, codes, drawn, turn))
    middle = words[len(words) // 2]
    return Line(
        text=" ".join(text.split()),
        left=min(word.left for word in words),
        right=max(word.right for word in words),
        base=middle.base,
        size=middle.size,
        bold=all(word.bold for word in (words[0], middle, words[-1])),
        words=words,
        turned=drawn.quarters != turn.quarters,
    )


def _words(handle: Any, codes: Sequence[int], drawn: _Drawn, turn: Turn) -> Iterable[Word]:
    import pypdfium2.raw as pdfium

    start = drawn.start
    while start < drawn.end:
        if not _shown(codes[start]):
            start += 1
            continue
        end = start + 1
        first = _box(handle, start, turn)
        right = first[2]
        size = pdfium.FPDFText_GetFontSize(handle, start) * drawn.scale
        while end < drawn.end and _shown(codes[end]):
            if codes[end] >= 0x2E80:  # no spaces between them, so that only a gap parts words
                box = _box(handle, end, turn)
                if box[0] - right > size:
                    break
                right = box[2]
            end += 1
        left, right = first[0], _box(handle, end - 1, turn)[2]
        text = "".join(map(chr, codes[start:end]))
        if end < drawn.end and codes[end] in SOFT_HYPHENS:
            text += HYPHEN
        yield Word(
            text,
            min(left, right),
            max(first[2], right),
            _origin(handle, start, turn)[1],
            round(size, 1),
            _bold(handle, start),
        )
        start = end


def _box(handle: Any, place: int, turn: Turn) -> tuple[float, float, float, float]:
    import pypdfium2.raw as pdfium

    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(handle, place, left, right, bottom, top)
    return turn.box(left.value, bottom.value, right.value, top.value)


def _origin(handle: Any, place: int, turn: Turn) -> tuple[float, float]:
    import pypdfium2.raw as pdfium

    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(handle, place, x, y)
    return turn.point(x.value, y.value)


_BOLD = re.compile(rb"bold|black|heavy|semibold", re.IGNORECASE)


def _bold(handle: Any, place: int) -> bool:
    import pypdfium2.raw as pdfium

    name, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    pdfium.FPDFText_GetFontInfo(handle, place, name, 128, flags)
    return bool(_BOLD.search(name.value)) or bool(flags.value & 0x40000)


# ---- joining


def line_of(words: Sequence[Word], like: Line) -> Line:
    """Some of the words of a line as a line."""
    return replace(
        like,
        text=clean(joined(word.text for word in words)).text,
        left=words[0].left,
        right=words[-1].right,
        words=tuple(words),
    )


def joined(pieces: Iterable[str]) -> str:
    """Words or lines as running text: a space between them, none beside Chinese characters."""
    text = ""
    for piece in filter(None, pieces):
        if text.endswith(HYPHEN):
            text = text[:-1] + ("" if piece[:1].islower() else "-") + piece
        elif not text or (unspaced(text[-1]) and unspaced(piece[0])):
            text += piece
        else:
            text += f" {piece}"
    return text


def columns(text: str) -> int:
    """Width of a text in letters; a Chinese character is as wide as two."""
    return sum(1 + (ord(character) >= 0x2E80) for character in text) or 1


def unspaced(character: str) -> bool:
    """Chinese and Japanese characters and their punctuation: no space stands beside them."""
    return (
        "\u2e80" <= character < "\uac00" or character >= "\uf900" or character in ("“", "”", "…")
    ) and bool(character)
