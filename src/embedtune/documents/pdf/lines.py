"""Lines and words of a PDF page with their places, as pdfium gives them, and how they join."""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from embedtune.documents.clean import clean

HYPHEN = "\ufffe"  # stands for a hyphen at a line end
JUMP = 0.7  # em between baselines of two lines
EVEN = 1.25  # times the smallest gap between words that the others have in justified text
SOFT_HYPHENS = (0x02, 0xFFFE)  # pdfium's signs for it
FORCE_BOLD = 0x40000  # flags of fonts
FIXED_PITCH = 0x1


@dataclass(frozen=True, slots=True)
class Word:
    """Characters without white space or a wide gap between them; places in points."""

    text: str
    left: float
    right: float
    base: float  # height of the baseline above the foot of the page
    size: float  # of the type as it is shown
    bold: bool
    fixed: bool = False  # all letters are of one width


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
    side: int = 0  # of a page with two columns: -1 in the left, 1 in the right, 0 across


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
    return _TextPage(handle).lines()


class _TextPage:
    """Asks pdfium about characters, by their place in the text; keeps what ctypes writes into."""

    def __init__(self, handle: Any) -> None:
        import pypdfium2.raw as pdfium

        self._pdfium = pdfium
        self._handle = handle
        self._sides = [ctypes.c_double() for _ in range(4)]
        self._references = [ctypes.byref(side) for side in self._sides]
        self._font = ctypes.create_string_buffer(128)
        self._flags = ctypes.c_int()
        self._matrix = pdfium.FS_MATRIX()
        self._types: dict[tuple[bytes, int], tuple[bool, bool]] = {}
        self._turn = Turn()
        count = pdfium.FPDFText_CountChars(handle)
        read = pdfium.FPDFText_GetUnicode
        self._codes = [read(handle, place) for place in range(count)]

    def lines(self) -> tuple[list[Line], Turn]:
        drawn = list(self._drawn())
        weights: Counter[int] = Counter()
        for line in drawn:
            weights[line.quarters] += line.end - line.start
        if weights:
            self._turn = Turn(weights.most_common(1)[0][0])
        return [line for place in drawn for line in self._lines(place)], self._turn

    def _drawn(self) -> Iterator[_Drawn]:
        codes, start = self._codes, 0
        for place in range(len(codes) + 1):
            if place == len(codes) or codes[place] == 10 or codes[place] in SOFT_HYPHENS:
                # a hyphen at a line end stands in the place of the line end
                end = min(place + 1, len(codes))
                shown = [here for here in range(start, end) if _shown(codes[here])]
                if shown:
                    yield _Drawn(start, end, *self._direction(shown[len(shown) // 2]))
                start = place + 1

    def _direction(self, place: int) -> tuple[int, float]:
        """In which of four directions a character is written, and how much it is scaled."""
        matrix = self._matrix
        if not self._pdfium.FPDFText_GetMatrix(self._handle, place, ctypes.byref(matrix)):
            return 0, 1.0
        quarters = round(math.atan2(matrix.b, matrix.a) / (math.pi / 2)) % 4
        return quarters, math.hypot(matrix.c, matrix.d) or 1.0

    def _lines(self, drawn: _Drawn) -> Iterator[Line]:
        """Mostly one; now and then pdfium does not see where a line ends."""
        words = list(self._words(drawn))
        jumps = [
            number
            for number, (before, word) in enumerate(pairwise(words), 1)
            if abs(before.base - word.base) > JUMP * max(before.size, word.size)
        ]
        if not jumps:
            codes = (code for code in self._codes[drawn.start : drawn.end] if code not in (10, 13))
            yield self._line(words, clean(_text(codes)).text, drawn)
            return
        for start, end in pairwise([0, *jumps, len(words)]):
            text = clean(joined(word.text for word in words[start:end])).text
            yield self._line(words[start:end], text, drawn)

    def _line(self, words: list[Word], text: str, drawn: _Drawn) -> Line:
        middle = words[len(words) // 2]
        return Line(
            text=" ".join(text.split()),
            left=min(word.left for word in words),
            right=max(word.right for word in words),
            base=middle.base,
            size=middle.size,
            bold=all(word.bold for word in (words[0], middle, words[-1])),
            words=tuple(words),
            turned=drawn.quarters != self._turn.quarters,
        )

    def _words(self, drawn: _Drawn) -> Iterator[Word]:
        codes, start = self._codes, drawn.start
        while start < drawn.end:
            if not _shown(codes[start]):
                start += 1
                continue
            size = self._pdfium.FPDFText_GetFontSize(self._handle, start) * drawn.scale
            first = self._box(start)
            end = start + 1
            while end < drawn.end and _shown(codes[end]):
                # Chinese has no spaces, so that only a gap parts words
                if codes[end] >= 0x2E80 and self._box(end)[0] - self._box(end - 1)[2] > size:
                    break
                end += 1
            last = self._box(end - 1) if end - 1 > start else first
            hyphen = end < drawn.end and codes[end] in SOFT_HYPHENS
            text = _text(codes[start : end + hyphen])
            yield Word(
                text,
                min(first[0], last[0]),
                max(first[2], last[2]),
                self._baseline(start),
                round(size, 1),
                *self._type(start),
            )
            start = end

    def _box(self, place: int) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        self._pdfium.FPDFText_GetCharBox(self._handle, place, *self._references)
        left, right, bottom, top = self._sides
        box = left.value, bottom.value, right.value, top.value
        return self._turn.box(*box) if self._turn.quarters else box

    def _baseline(self, place: int) -> float:
        self._pdfium.FPDFText_GetCharOrigin(self._handle, place, *self._references[:2])
        return self._turn.point(self._sides[0].value, self._sides[1].value)[1]

    def _type(self, place: int) -> tuple[bool, bool]:
        """Whether a character is bold, and of a type of fixed width."""
        self._pdfium.FPDFText_GetFontInfo(
            self._handle, place, self._font, 128, ctypes.byref(self._flags)
        )
        key = self._font.value, self._flags.value
        if key not in self._types:
            name, flags = key
            self._types[key] = (
                bool(_BOLD.search(name)) or bool(flags & FORCE_BOLD),
                bool(_FIXED.search(name)) or bool(flags & FIXED_PITCH),
            )
        return self._types[key]


_BOLD = re.compile(rb"bold|black|heavy|-medi\b|^cmbx?\d", re.IGNORECASE)  # those of TeX too
_HALF = re.compile("[\ud800-\udfff]")
_PRIVATE_BULLET = re.compile(r"(?<!\S)[\uf000-\uf0ff](?!\S)")  # of symbol fonts
_FIXED = re.compile(rb"courier|mono|consol|menlo|typewriter|tt\d+$", re.IGNORECASE)


def _text(codes: Iterable[int]) -> str:
    """pdfium gives characters beyond the first 65,536 in two halves."""
    text = "".join(HYPHEN if code in SOFT_HYPHENS else chr(code) for code in codes)
    if _HALF.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _PRIVATE_BULLET.sub("•", text)


def _shown(code: int) -> bool:
    return code > 32 and code not in SOFT_HYPHENS and not (code >= 128 and chr(code).isspace())


# ---- gaps


def gaps(words: Sequence[Word]) -> list[float]:
    """Points between words beside each other."""
    return [word.left - before.right for before, word in pairwise(words)]


def spread_out(words: Sequence[Word]) -> bool:
    """Words of a line that was stretched to the width of its column: all gaps are alike."""
    found = gaps(words)
    figures = any(any(map(str.isdigit, word.text)) for word in words)
    return len(found) > 1 and not figures and max(found) < EVEN * min(found)


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
    """Words or lines as running text: a space between them, none beside Chinese characters, and
    none after ``HYPHEN``."""
    text = ""
    for piece in filter(None, pieces):
        if not text or text.endswith(HYPHEN) or (unspaced(text[-1]) and unspaced(piece[0])):
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


def has_letters(text: str) -> bool:
    return any(character.isalpha() for character in text)
