"""Lines and tables of a PDF page in reading order.

A file gives its text in the order in which it was drawn. That is mostly the order of reading; but
some programs draw the lines of two columns by turns, or tables last.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from embedtune.documents.pdf.aligned import aligned_tables
from embedtune.documents.pdf.lines import Line, Word, columns, gaps, line_of, unspaced
from embedtune.documents.pdf.rules import Rules
from embedtune.documents.pdf.tables import Table, ruled_tables, without

COLUMN_LINES = 5  # a column of prose has at least so many lines …
COLUMN_LETTERS = 20  # … of so many letters (a Chinese character is two) in the middle …
COLUMN_FILLED = 0.7  # … that mostly fill so much of its width; cells of a table do not
COLUMN_GAP = 6.0  # em between two lines of one column at most
GUTTER = 0.8  # em between two columns at least
ACROSS = 0.4  # lines across the gutter for every line beside it at most
MOST_GUTTERS = 12  # places that are tried
SAME_TOP = 20.0  # points between the tops of two tables beside each other at most
BY_TURNS = 0.3  # changes of column for every line of the shorter one: they are drawn by turns

Item = Line | Table


@dataclass(frozen=True, slots=True)
class _Gutter:
    """White space between two columns of prose, on a part of the page."""

    at: float
    bottom: float
    top: float

    def side(self, item: Item) -> int:
        """-1 left, 1 right, 0 across it, above or below."""
        if isinstance(item, Table):
            left, right, base = item.columns[0][0], item.columns[-1][1], item.bottom
        else:
            left, right, base = item.left, item.right, item.base
        if not self.bottom <= base <= self.top:
            return 0
        return (left >= self.at) - (right <= self.at)


def arranged(lines: list[Line], rules: Rules | None) -> list[Item]:
    """What stands on a page in reading order, each word once; without ``rules`` no tables."""
    turned = [line for line in lines if line.turned or not line.words]
    lines = [line for line in lines if not line.turned and line.words]
    if not lines:
        return list(turned)
    tables: list[Table] = []
    boxed: set[int] = set()
    if rules:
        tables, lines, boxed = ruled_tables(lines, rules)
    gutter = _gutter(lines)
    if rules:
        for number in range(3 if gutter else 1):
            words = [word for word in _free(lines, gutter, number) if id(word) not in boxed]
            across = gutter.at if gutter and not number else None
            found, taken = aligned_tables(words, rules, across=across)
            tables += found
            lines = without(lines, taken)
    ordered = _in_order(lines, gutter)
    if gutter:
        _set_sides(ordered, gutter)
    ordered = _whole(ordered)
    items: list[Item] = list(ordered)
    for table in _ordered(tables):
        items.insert(_place(items, table, gutter), table)
    return items + turned


# ---- columns of prose


def _gutter(lines: Sequence[Line]) -> _Gutter | None:
    """Between the two columns of prose with the most lines."""
    pieces = [piece for line in lines for piece in _pieces(line)]
    best: tuple[int, _Gutter] | None = None
    lefts = Counter(round(piece.left) for piece in pieces)
    usual = [left - 1.0 for left, count in lefts.most_common(MOST_GUTTERS) if count > 2]
    for x in sorted(usual):
        for right in _together([piece for piece in pieces if piece.left >= x]):
            if not _prose(right):
                continue
            bottom, top = right[-1].base - right[-1].size, right[0].base + right[0].size
            beside = [piece for piece in pieces if bottom <= piece.base <= top and piece.left < x]
            left = [piece for piece in beside if piece.right <= x]
            crossing = len(beside) - len(left)
            if not _prose(left) or crossing > ACROSS * min(len(left), len(right)):
                continue
            count = len(left) + len(right) - 2 * crossing
            if best is None or count > best[0]:
                bottom = min(bottom, *(line.base for line in _beyond(left, pieces, x, top)))
                best = count, _Gutter(x, bottom, top)
    return best[1] if best else None


def _beyond(left: list[Line], pieces: list[Line], x: float, top: float) -> list[Line]:
    """The left column with what stands below it, where it is the longer one."""
    below = [piece for piece in pieces if piece.right <= x and piece.base <= top]
    groups = [group for group in _together(below) if left[0] in group]
    return [*left, *(line for group in groups for line in group)]


def _together(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Lines from top to bottom, cut where a wide gap is."""
    group: list[Line] = []
    for line in sorted(lines, key=lambda line: -line.base):
        if group and group[-1].base - line.base > COLUMN_GAP * line.size:
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _pieces(line: Line) -> list[Line]:
    """The line cut at gaps that are wider than those between words."""
    cuts = [n for n, gap in enumerate(gaps(line.words), 1) if gap > GUTTER * line.size]
    borders = [0, *cuts, len(line.words)]
    return [line_of(line.words[a:b], line) for a, b in pairwise(borders)] if cuts else [line]


def _prose(lines: Sequence[Line]) -> bool:
    """Most of the letters stand in lines that fill the width."""
    if len(lines) < COLUMN_LINES:
        return False
    width = max(line.right for line in lines) - min(line.left for line in lines)
    filled = [line for line in lines if _fills(line, width)]
    letters = sum(columns(line.text) for line in filled)
    return len(filled) >= COLUMN_LINES and letters > 0.6 * sum(columns(x.text) for x in lines)


def _fills(line: Line, width: float) -> bool:
    long = columns(line.text) >= COLUMN_LETTERS
    return long and line.right - line.left > COLUMN_FILLED * width


def _free(lines: list[Line], gutter: _Gutter | None, number: int) -> Iterator[Word]:
    """Words among which a table may be: those of the page; beside columns of prose first those on
    the height of no prose, then those of the left and of the right column."""
    words = (word for line in lines for word in line.words)
    if gutter is None:
        yield from words
    elif number:
        for word in words:
            if word.right <= gutter.at if number == 1 else word.left >= gutter.at:
                yield word
    else:
        prose = list(_prose_heights(lines, gutter))
        for word in words:
            if not any(abs(word.base - base) < 0.5 * word.size for base in prose):
                yield word


def _prose_heights(lines: list[Line], gutter: _Gutter) -> Iterator[float]:
    """Baselines of lines that fill their column."""
    for side in (-1, 1):
        pieces = [p for line in lines for p in _pieces(line) if gutter.side(p) == side]
        width = max((piece.right - piece.left for piece in pieces), default=0.0)
        yield from (piece.base for piece in pieces if _fills(piece, width))


# ---- order


def _in_order(lines: list[Line], gutter: _Gutter | None) -> list[Line]:
    if gutter is None:
        return _downwards(lines)
    cut = [part for line in lines for part in _parted(line, gutter)]
    sides = [side for line in cut if (side := gutter.side(line))]
    changes = sum(one != other for one, other in pairwise(sides))
    if changes <= BY_TURNS * min(sides.count(-1), sides.count(1)) and len(cut) == len(lines):
        return lines
    across = sorted((line for line in cut if not gutter.side(line)), key=lambda line: -line.base)
    rest = [line for line in cut if gutter.side(line)]
    ordered: list[Line] = []
    for end in [*dict.fromkeys(line.base for line in across), float("-inf")]:
        band = [line for line in rest if line.base > end]
        rest = [line for line in rest if line.base <= end]
        for side in (-1, 1):
            ordered += _downwards([line for line in band if gutter.side(line) == side])
        ordered += [line for line in across if line.base == end]
    return ordered


def _parted(line: Line, gutter: _Gutter) -> list[Line]:
    """A line that goes on in the other column as two."""
    if gutter.bottom <= line.base <= gutter.top:
        for number, (before, word) in enumerate(pairwise(line.words), 1):
            wide = word.left - before.right > GUTTER * line.size
            if wide and before.right <= gutter.at <= word.left:
                return [line_of(line.words[:number], line), line_of(line.words[number:], line)]
    return [line]


def _set_sides(lines: Sequence[Line], gutter: _Gutter) -> None:
    """The short last line of a paragraph across the page belongs to it, not to a column."""
    for line in lines:
        line.side = gutter.side(line)
    for above, line, below in zip(lines, lines[1:], [*lines[2:], None], strict=False):
        step = above.base - line.base
        apart = below is None or line.base - below.base > step + 0.3 * line.size
        if not above.side and line.side < 0 and 0 < step < 1.4 * line.size and apart:
            line.side = 0


def _downwards(lines: list[Line]) -> list[Line]:
    """From top to bottom, if no two lines stand beside each other; else as they are."""
    ordered = sorted(lines, key=lambda line: -line.base)
    if any(upper.base - lower.base < 0.5 * lower.size for upper, lower in pairwise(ordered)):
        return lines
    return ordered


def _whole(lines: Sequence[Line]) -> list[Line]:
    """Lines that were drawn in pieces, from left to right, in one."""
    whole: list[Line] = []
    for line in lines:
        above = whole[-1] if whole else None
        if (
            above
            and above.side == line.side
            and abs(above.base - line.base) < 0.3 * line.size
            and line.left > above.right
        ):
            joint = "" if unspaced(above.text[-1:]) and unspaced(line.text[:1]) else " "
            whole[-1] = replace(
                above, text=above.text + joint + line.text, right=line.right,
                bold=above.bold and line.bold, words=above.words + line.words,
            )  # fmt: skip
        else:
            whole.append(line)
    return whole


def _ordered(tables: Sequence[Table]) -> list[Table]:
    """From top to bottom, and of two beside each other the left one first."""
    ordered = sorted(tables, key=lambda table: -table.top)
    for n, (one, other) in enumerate(pairwise(list(ordered))):
        beside = other.columns[-1][1] <= one.columns[0][0]
        if ordered[n] is one and beside and one.top - other.top < SAME_TOP:
            ordered[n : n + 2] = [replace(other, top=one.top), one]
    return ordered


def _place(items: Sequence[Item], table: Table, gutter: _Gutter | None) -> int:
    """Where the table stands among lines and tables: before the first that is below its top and
    not in the other column."""
    side = gutter.side(table) if gutter else 0
    last = -1
    for number, item in enumerate(items):
        if not gutter or not side or gutter.side(item) in (0, side):
            if (item.top if isinstance(item, Table) else item.base) < table.top:
                return number
            last = number
    return last + 1
