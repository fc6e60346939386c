"""Lines and tables of a PDF page in reading order.

A file gives its text in the order in which it was drawn. That is mostly the order of reading; but
some programs draw the lines of two columns by turns, or tables last.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from embedtune.documents.pdf_lines import Line, Word, columns, line_of
from embedtune.documents.pdf_rules import Rules
from embedtune.documents.pdf_tables import Table, aligned_tables, ruled_tables, without

COLUMN_LINES = 5  # a column of prose has at least so many lines …
COLUMN_LETTERS = 20  # … of so many letters (a Chinese character is two) in the middle …
COLUMN_FILLED = 0.7  # … that mostly fill so much of its width; cells of a table do not
GUTTER = 0.8  # em between two columns at least
BY_TURNS = 0.3  # changes of column for every line of the shorter one: they are drawn by turns

Item = Line | Table


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
        for number in range(1 if gutter is None else 3):
            words = [word for word in _free(lines, gutter, number) if id(word) not in boxed]
            across = gutter if number == 0 else None
            found, taken = aligned_tables(words, rules, across=across)
            tables += found
            lines = without(lines, taken)
    ordered = _in_order(lines, gutter)
    items: list[Item] = list(ordered)
    if gutter is not None:
        _set_sides(ordered, gutter)
    for table in sorted(tables, key=lambda table: -table.top):
        items.insert(_place(items, table, gutter), table)
    return items + turned


# ---- columns of prose


def _gutter(lines: Sequence[Line]) -> float | None:
    """x between two columns of prose, else None."""
    pieces = [piece for line in lines for piece in _pieces(line)]
    best: tuple[int, float] | None = None  # how many pieces cross, x
    for x in sorted({round(piece.left) - 1.0 for piece in pieces}):
        left = [piece for piece in pieces if piece.right <= x]
        right = [piece for piece in pieces if piece.left >= x]
        crossing = len(pieces) - len(left) - len(right)
        if best and crossing >= best[0]:
            continue
        if _prose(left) and _prose(right) and _beside(left, right):
            best = crossing, x
    return best[1] if best else None


def _pieces(line: Line) -> list[Line]:
    """The line cut at gaps that are wider than those between words."""
    cuts = [
        number
        for number, (before, word) in enumerate(pairwise(line.words), 1)
        if word.left - before.right > GUTTER * line.size
    ]
    borders = [0, *cuts, len(line.words)]
    return [line_of(line.words[a:b], line) for a, b in pairwise(borders)] if cuts else [line]


def _prose(lines: Sequence[Line]) -> bool:
    if len(lines) < COLUMN_LINES:
        return False
    width = max(line.right for line in lines) - min(line.left for line in lines)
    return (
        median(line.right - line.left for line in lines) >= COLUMN_FILLED * width
        and median(columns(line.text) for line in lines) >= COLUMN_LETTERS
    )


def _beside(left: Sequence[Line], right: Sequence[Line]) -> bool:
    """Whether most of the lower column stands beside the other."""
    low = max(min(line.base for line in side) for side in (left, right))
    high = min(max(line.base for line in side) for side in (left, right))
    return all(
        2 * sum(low <= line.base <= high for line in side) > min(len(left), len(right))
        for side in (left, right)
    )


def _free(lines: list[Line], gutter: float | None, number: int) -> list[Word]:
    """Words among which a table may be: those of the page; beside columns of prose first those on
    the height of no prose, then those of the left and of the right column."""
    if gutter is None:
        return [word for line in lines for word in line.words]
    if number:
        return [
            word
            for line in lines
            for word in line.words
            if (word.right <= gutter if number == 1 else word.left >= gutter)
        ]
    pieces = [piece for line in lines for piece in _pieces(line)]
    half = {
        side: max((p.right - p.left for p in pieces if _side(p, gutter) == side), default=0.0)
        for side in (-1, 1)
    }
    prose = [
        piece.base
        for piece in pieces
        if (side := _side(piece, gutter)) and piece.right - piece.left > COLUMN_FILLED * half[side]
        and columns(piece.text) >= COLUMN_LETTERS
    ]  # fmt: skip
    return [
        word
        for line in lines
        for word in line.words
        if not any(abs(word.base - base) < 0.5 * word.size for base in prose)
    ]


# ---- order


def _in_order(lines: list[Line], gutter: float | None) -> list[Line]:
    if gutter is None:
        return _downwards(lines)
    cut = [part for line in lines for part in _parted(line, gutter)]
    sides = [side for line in cut if (side := _side(line, gutter))]
    changes = sum(one != other for one, other in pairwise(sides))
    if changes <= BY_TURNS * min(sides.count(-1), sides.count(1)) and len(cut) == len(lines):
        return lines
    across = sorted((line for line in cut if not _side(line, gutter)), key=lambda line: -line.base)
    rest = [line for line in cut if _side(line, gutter)]
    ordered: list[Line] = []
    for end in [*(line.base for line in across), float("-inf")]:
        band = [line for line in rest if line.base > end]
        rest = [line for line in rest if line.base <= end]
        for side in (-1, 1):
            ordered += _downwards([line for line in band if _side(line, gutter) == side])
        ordered += [line for line in across if line.base == end]
    return ordered


def _parted(line: Line, gutter: float) -> list[Line]:
    """A line that goes on in the other column as two."""
    for number, (before, word) in enumerate(pairwise(line.words), 1):
        wide = word.left - before.right > GUTTER * line.size
        if wide and before.right <= gutter <= word.left + 1:
            return [line_of(line.words[:number], line), line_of(line.words[number:], line)]
    return [line]


def _set_sides(lines: Sequence[Line], gutter: float) -> None:
    """The short last line of a paragraph across the page belongs to it, not to a column."""
    for line in lines:
        line.side = _side(line, gutter)
    for above, line, below in zip(lines, lines[1:], [*lines[2:], None], strict=False):
        step = above.base - line.base
        apart = below is None or line.base - below.base > step + 0.3 * line.size
        if not above.side and line.side < 0 and 0 < step < 1.4 * line.size and apart:
            line.side = 0


def _side(item: Item, gutter: float) -> int:
    """-1 left, 1 right of the gutter, 0 across it."""
    left, right = _ends(item)
    return (left >= gutter) - (right <= gutter)


def _ends(item: Item) -> tuple[float, float]:
    if isinstance(item, Table):
        return item.columns[0][0], item.columns[-1][1]
    return item.left, item.right


def _downwards(lines: list[Line]) -> list[Line]:
    """From top to bottom, if no two lines stand beside each other; else as they are."""
    ordered = sorted(lines, key=lambda line: -line.base)
    if any(upper.base - lower.base < 0.5 * lower.size for upper, lower in pairwise(ordered)):
        return lines
    return ordered


def _place(items: Sequence[Item], table: Table, gutter: float | None) -> int:
    """Where the table stands among lines and tables: before the first that is below its top and
    not in the other column."""
    side = 0 if gutter is None else _side(table, gutter)
    last = -1
    for number, item in enumerate(items):
        if gutter is None or not side or _side(item, gutter) in (0, side):
            if (item.top if isinstance(item, Table) else item.base) < table.top:
                return number
            last = number
    return last + 1
