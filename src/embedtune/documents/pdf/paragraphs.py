"""Lines of PDF pages joined to paragraphs, by gaps, indents and lines that end early; and headings,
known by bold or larger type."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from embedtune.documents.outline import ARTICLE, named_rank
from embedtune.documents.pdf.lines import (
    HYPHEN,
    Line,
    columns,
    gaps,
    has_letters,
    spread_out,
    unspaced,
)
from embedtune.documents.pdf.order import Item
from embedtune.documents.pdf.page import Page
from embedtune.documents.pdf.rows import LEADER
from embedtune.documents.pdf.tables import Table
from embedtune.documents.reading import Part

WIDE_GAP = 1.2  # em between two words that are cells rather
LARGE = 1.3  # times the size of the body: a title, above all numbered headings
LARGER = 1.05
TITLE_PAGES = 2  # the document's title stands on one of the first
TITLE_RANKS = 3  # sizes of titles told apart: ranks 1, 2, 3
LARGER_RANK = 23  # beside numbered headings (outline.py)
BOLD_RANK = 28


def compose(pages: list[Page], part: Part) -> None:
    """Join the lines; fills text, page offsets, headings and title of ``part``."""
    words = _words(line for page in pages for line in page.lines)
    texts = {page.number: [item for item in page.items if isinstance(item, Line)] for page in pages}
    usual = usual_size(line for lines in texts.values() for line in lines)
    sizes = {line.size for lines in texts.values() for line in lines if line.size >= usual * LARGE}
    titles = sorted(sizes, reverse=True)
    pieces: list[str] = []
    length = 0
    headings: list[str] = []
    above: Item | None = None
    rank_above = 0
    mended = 0
    torn = False  # what a page said is not known
    for page in pages:
        torn |= page.unread
        lines = texts[page.number]
        layouts = _layouts(lines, usual)
        number = 0  # of the line
        for place, item in enumerate(page.items):
            if isinstance(item, Table):
                text, rank = _mended_cells(item.markdown(), words), 0
                joint = "\n" if item.continues and isinstance(above, Table) else "\n\n"
            else:
                text, rank = item.text, _rank(lines, number, layouts[item.side], titles)
                number += 1
                joint = "\n\n"
                if isinstance(above, Line):
                    joint = _joint_of(above, item, layouts, new_page=place == 0)
                    alike = item.size == above.size and item.bold == above.bold
                    same = rank_above and rank and alike
                    if (rank or rank_above) and not (same and joint in (" ", "", HYPHEN)):
                        joint = "\n\n"
            if torn:
                joint = "\n\n"
            torn = False
            if above is None:
                joint = ""
            if joint == HYPHEN:
                joint, mended = "", mended + 1
                pieces[-1], cut = _mend(pieces[-1], text, words)
                length -= cut
            begin = length + len(joint)
            if place == 0:
                part.pages.append((begin, page.number))
            if rank and (joint == "\n\n" or above is None):
                headings.append(f"{begin}:{rank}")
                if not part.title and rank <= TITLE_RANKS and page.number <= TITLE_PAGES:
                    part.title = text
            pieces.append(joint + text)
            length += len(pieces[-1])
            above, rank_above = item, rank
    part.text = "".join(pieces).replace(HYPHEN, "-")
    part.meta["headings"] = " ".join(headings)
    if mended:
        part.meta["mended_hyphens"] = str(mended)


def usual_size(lines: Iterable[Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 1.0


def _layouts(lines: Sequence[Line], usual: float) -> "dict[int, Layout]":
    """Of each side of a page, and of lines across it."""
    return {
        side: Layout([line for line in lines if line.side == side], usual)
        for side in {line.side for line in lines}
    }


def _joint_of(above: Line, line: Line, layouts: "dict[int, Layout]", *, new_page: bool) -> str:
    """What stands between two lines, which may be in two columns."""
    layout = layouts[line.side]
    if above.side == line.side:
        return _joint(above, line, layout, new_page=new_page)
    if not above.side or not line.side or above.side not in layouts:
        return "\n\n"
    by = layout.left - layouts[above.side].left
    moved = replace(above, left=above.left + by, right=above.right + by)
    return _joint(moved, line, layout, new_page=True)


class Layout:
    """What is usual on a page: edges of the text, type size, line distance, width of a letter."""

    def __init__(self, lines: list[Line], usual: float) -> None:
        long = [line for line in lines if len(line.text) > 3]
        self.left = _low([line.left for line in long], 0.1)
        self.right = -_low([-line.right for line in long], 0.1)
        self.size = usual_size(lines) if len(long) > 5 else usual
        gaps = [
            upper.base - lower.base
            for upper, lower in pairwise(lines)
            if 0 < upper.base - lower.base < 4 * self.size
        ]
        self.gap = _low(gaps, 0.4) or self.size * 1.2
        widths = [(line.right - line.left) / columns(line.text) for line in long]
        self.letter = median(widths) if widths else self.size / 2

    def stretched(self, line: Line) -> bool:
        """A line of far-off cells: a row of a table, or of a table of contents."""
        if line.words:  # the gap after the number of a paragraph does not count
            words = line.words[1:] if _numbered(line) else line.words
            wide = max(gaps(words), default=0.0) > WIDE_GAP * line.size
            return wide and not spread_out(words)
        letter = self.letter * line.size / self.size
        return line.right - line.left > 1.4 * letter * columns(line.text) + self.size


def _low(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else 0.0


def _rank(lines: list[Line], number: int, layout: Layout, titles: list[float]) -> int:
    """Rank of a line that is a heading by its type or its words, else 0."""
    line = lines[number]
    text = line.text
    large, larger = line.size >= layout.size * LARGE, line.size >= layout.size * LARGER
    if not (larger or line.bold) or not text[:1].isalnum() or not has_letters(text):
        return 0
    if ARTICLE.match(text):
        return 0
    if layout.stretched(line) or text.endswith(("。", "；", "，", "、", ",", ";")):
        return 0
    if any(
        abs(other.base - line.base) < 1
        for other in lines[max(0, number - 1) : number + 2]
        if other is not line
    ):
        return 0  # a cell of a table row
    if named := named_rank(text, alone=True):
        return named
    if large and line.size in titles:
        return min(titles.index(line.size) + 1, TITLE_RANKS)
    if line.left > layout.left + 2 * layout.size or sum(map(str.isalpha, text)) < len(text) / 2:
        return 0
    if _bold_lines(lines, number, layout) > 3:
        return 0  # a paragraph in bold type
    return LARGER_RANK if larger else BOLD_RANK


def _bold_lines(lines: list[Line], number: int, layout: Layout) -> int:
    """How many lines of this type stand together."""
    line = lines[number]
    count = 1
    for step in (-1, 1):
        here = number
        while 0 <= here + step < len(lines):
            near = lines[here + step]
            close = abs(near.base - lines[here].base) < 1.4 * layout.gap
            if not close or near.bold != line.bold or near.size != line.size:
                break
            here += step
            count += 1
    return count


def _joint(above: Line, line: Line, layout: Layout, *, new_page: bool) -> str:
    """What stands between two lines: nothing, a space, a line end, an empty line, or ``HYPHEN``."""
    em = layout.size
    like = abs(above.size - line.size) <= 0.06 * max(above.size, line.size)
    if not like or ARTICLE.match(line.text):
        return "\n\n"
    if not new_page:
        gap = above.base - line.base
        if gap > layout.gap * 1.4 or gap < -em:
            return "\n\n"
    if above.text.endswith(HYPHEN):
        return HYPHEN if line.text[:1].islower() else ""
    row = layout.stretched(above) or layout.stretched(line)
    row = row or _FIGURES.search(above.text) or LEADER.search(above.text)
    if row or _BULLET.match(line.text):
        return "\n"
    ended = above.text.endswith(("。", "！", "？", ".", "!", "?", "；", "：", ";", ":"))
    full = layout.right - above.right <= _first_word(line) + em  # no room for the next word
    hangs = abs(line.left - _text_left(above)) < 0.7 * em and (
        _text_left(above) > above.left or (full and not ended)
    )
    first = min(layout.left, above.left) if not new_page else layout.left
    if line.left > max(first, above.left) + 6 * em and full and ended:
        return "\n"  # at the right margin, or in the middle
    if first + em < line.left < first + 6 * em and line.left > layout.left + em and not hangs:
        return "\n\n"  # the first line of a paragraph is indented
    if not full:
        return "\n\n" if ended or new_page else "\n"
    if ended and above.bold != line.bold:
        return "\n"
    if unspaced(above.text[-1:]) or unspaced(line.text[:1]):
        return ""
    return " "


_FIGURES = re.compile(r"(?:[ (][$(]?[\d,.]*\d\)?\s?%?|\s—\s?%?){2,}$")  # a row of a table ends so
_BULLET = re.compile(
    r"[•●▪◦‣∙·–—]\s|\(?(?:[a-z]|[ivx]{1,4}|\d{1,3})[.)]\s|（[一二三四五六七八九十]+）|[①-⑳]"
)


def _text_left(line: Line) -> float:
    """Where the text of a line begins, after the number of a list."""
    if len(line.words) > 1 and _numbered(line):
        return line.words[1].left
    return line.left


def _numbered(line: Line) -> bool:
    """A paragraph of a list: its number or bullet stands before it."""
    if _BULLET.match(line.text) or len(line.words) < 2:
        return bool(_BULLET.match(line.text))
    number, text = line.words[:2]
    numeral = number.text.isdecimal() and len(number.text) < 3 and not text.text[0].isdecimal()
    return numeral and text.left - number.right > WIDE_GAP * line.size


def _first_word(line: Line) -> float:
    """Points that the first word of a line takes (a character, where words have no spaces)."""
    first = line.text[:1] if unspaced(line.text[:1]) else line.text.split(" ", 1)[0]
    return (line.right - line.left) * columns(first) / columns(line.text)


def _words(lines: Iterable[Line]) -> set[str]:
    return {word for line in lines for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", line.text)}


def _mend(above: str, below: str, words: set[str]) -> tuple[str, int]:
    """``above`` without its hyphen, unless the hyphenated word is used elsewhere; what it lost."""
    bare = above.rstrip(f"{HYPHEN}-")
    head = re.search(r"[^\W\d_]+(?:-[^\W\d_]+)*$", bare)
    tail = re.match(r"[^\W\d_]+", below)
    if head and tail:
        whole, hyphened = head[0] + tail[0], f"{head[0]}-{tail[0]}"
        if hyphened not in words or whole in words:
            return bare, len(above) - len(bare)
    return f"{bare}-", len(above) - len(bare) - 1


def _mended_cells(text: str, words: set[str]) -> str:
    """A table without the hyphens at the line ends of its cells, where no word has one there."""
    while (place := text.find(HYPHEN)) >= 0:
        head, tail = text[: place + 1], text[place + 1 :]
        text = (_mend(head, tail, words)[0] if tail[:1].islower() else f"{head[:-1]}-") + tail
    return text
