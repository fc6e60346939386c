"""Rows of words on a PDF page and the pieces they fall into: cells of a table, if it is one."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median

from embedtune.documents.pdf.lines import Word, columns, gaps, joined, spread_out

WIDE_GAP = 1.0  # em between two cells; in justified text it is less
FIGURE_GAP = 0.45  # em between two figures, or before a sign of currency
SAME_ROW = 0.4  # em between baselines of one row
PROSE_LETTERS = 20  # of a line of a column of running text
PROSE_FILLED = 0.7  # of its width that most of its lines fill

_SIGN = r"(?:[A-Z]{0,3}[$€£¥￥₩]|RMB|USD|EUR|CNY|HKD|Rs\.?)"
CURRENCY = re.compile(rf"\(?{_SIGN}")
_NUMBER = r"[(\[（]?[-+−–~<>≤≥±]?\d(?:[\d,.:/'’\-–%]*[\d%])?(?:e[-+]?\d+)?[)\]）]?"
FIGURE = re.compile(
    rf"\(?{_SIGN}?\s?{_NUMBER}\s?(?:%|‰|pts|bps|x|倍|元|万|亿|万元|亿元)?[)）]?(?:[*†‡]|\s?\(\w\))*"
    rf"|\(?{_SIGN}?\s?(?:—|–|-|--|–\s?–)\s?%?\)?(?:\s?\(\w\))*|[nN]/?[aA]|不适用|nm"
)
_VALUE = re.compile(rf"(?:{_NUMBER}|[—–])%?")
SUFFIX = re.compile(r"(?:%|‰|\)|\)\s?%|pts|bps)")
_MARK = re.compile(r"(?:\(\w\)|[*†‡]+)")
YEAR = re.compile(
    r"(?:FY|fiscal|Q[1-4]|H[12])?\s?'?(?:19|20)\d\d(?:[AEF]|年度?|年末)?(?:[/-]\d\d(?:\d\d)?)?"
    r"|\d{4}[-/.年]\d{1,2}(?:[-/.月]\d{1,2})?[日月]?|\d{1,2}/\d{1,2}/\d{2,4}|Q[1-4]",
    re.IGNORECASE,
)
_BULLET = re.compile(r"[•●▪◦‣∙·■□–—*-]")
_NUMBERING = re.compile(
    r"[•●▪◦‣∙·■□–—*-]|[(（]?[A-Za-z0-9ivxIVX]{1,4}[.)）．、]|[(（]?[一二三四五六七八九十]{1,3}[)）、．.]"
    r"|[①-⑳]|\d{1,2}(?:\.\d{1,2}){1,3}\.?|第[一二三四五六七八九十百千零〇0-9]+[章节条款篇编]"
    r"|(?:Item|Part|Section|Chapter|Article|Note|Table|Figure)\s+\w{1,4}[.:]?|[注表图]\s?\d+[:：.]?",
    re.IGNORECASE,
)
LEADER = re.compile(r"(?:\.\s?){4,}|…{2,}|·{4,}")


@dataclass(slots=True)
class Piece:
    """Words of one row that stand together: a cell, or a line of one."""

    words: list[Word]

    @property
    def left(self) -> float:
        return self.words[0].left

    @property
    def right(self) -> float:
        return max(word.right for word in self.words)

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @property
    def text(self) -> str:
        return joined(word.text for word in self.words)

    @property
    def bold(self) -> bool:
        return all(word.bold for word in self.words)

    @property
    def figure(self) -> bool:
        return bool(FIGURE.fullmatch(self.text))

    @property
    def year(self) -> bool:
        return bool(YEAR.fullmatch(self.text))


@dataclass(slots=True)
class Row:
    """Words on one baseline."""

    base: float
    em: float
    pieces: list[Piece] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.pieces[0].left

    @property
    def right(self) -> float:
        return self.pieces[-1].right

    @property
    def text(self) -> str:
        return " ".join(piece.text for piece in self.pieces)

    @property
    def several(self) -> bool:
        """Whether there are cells: a number before a text makes none, nor dots up to a page."""
        if any(LEADER.search(piece.text) for piece in self.pieces):
            return False
        return len(self.pieces) > 2 or (
            len(self.pieces) == 2 and not _NUMBERING.fullmatch(self.pieces[0].text)
        )

    @property
    def bold(self) -> bool:
        return all(piece.bold for piece in self.pieces)

    @property
    def words(self) -> Iterator[Word]:
        for piece in self.pieces:
            yield from piece.words


def rows_of(words: Iterable[Word]) -> list[Row]:
    """Words by their baselines, from top to bottom."""
    rows: list[tuple[float, list[Word]]] = []
    for word in sorted(words, key=lambda word: (-word.base, word.left)):
        if rows and rows[-1][0] - word.base <= SAME_ROW * word.size:
            rows[-1][1].append(word)
        else:
            rows.append((word.base, [word]))
    found = []
    for _, members in rows:
        members.sort(key=lambda word: word.left)
        em = median(word.size for word in members)
        found.append(Row(median(word.base for word in members), em, _pieces(members, em)))
    return found


def _pieces(words: list[Word], em: float) -> list[Piece]:
    if spread_out(words) and len(words) > 3 and max(gaps(words)) < 2 * WIDE_GAP * em:
        return [Piece(words)]
    pieces = [Piece([words[0]])]
    for word in words[1:]:
        before = pieces[-1].words[-1]
        gap = word.left - max(w.right for w in pieces[-1].words)
        figures = _VALUE.fullmatch(before.text) and _VALUE.fullmatch(word.text)
        sign = CURRENCY.fullmatch(word.text)
        narrow = (figures or sign) and not word.fixed
        limit = FIGURE_GAP if narrow else WIDE_GAP
        if gap > limit * em:
            pieces.append(Piece([word]))
        else:
            pieces[-1].words.append(word)
    merged = [pieces[0]]
    for piece in pieces[1:]:
        if _one_cell(merged[-1], piece, em):
            merged[-1].words += piece.words
        else:
            merged.append(piece)
    if len(merged) > 1 and _BULLET.fullmatch(merged[0].text):
        merged[:2] = [Piece(merged[0].words + merged[1].words)]
    return merged


def _one_cell(before: Piece, after: Piece, em: float) -> bool:
    """A sign of currency and its figure, a figure and its per cent or its footnote."""
    if CURRENCY.fullmatch(before.text):
        return after.figure
    if not before.figure:
        return False
    gap = after.left - before.right
    if SUFFIX.fullmatch(after.text):
        return gap < 2 * em
    small = after.words[0].size < 0.95 * before.words[-1].size
    return bool(_MARK.fullmatch(after.text)) and gap < (1.0 if small else 0.35) * em


def figure_text(text: str) -> str:
    """Sign, number and per cent without blanks between them."""
    if not FIGURE.fullmatch(text):
        return text
    text = re.sub(rf"({_SIGN})\s+", r"\1", text)
    return re.sub(r"(?<=[\d)—–-])\s+(?=[%‰)])", "", text)


def is_prose(pieces: list[Piece]) -> bool:
    """A column of running text: long lines of like length."""
    if len(pieces) < 3 or median(columns(piece.text) for piece in pieces) < PROSE_LETTERS:
        return False
    widths = [piece.right - piece.left for piece in pieces]
    filled = sum(width > PROSE_FILLED * max(widths) for width in widths)
    return filled >= 0.6 * len(pieces)
