"""Tables without a grid: rows of cells that stand below each other on a PDF page.

Words are put into rows by their baselines and into columns by the white space that goes down
through the rows; drawn lines and shaded rows say which lines belong to one row and how far a
heading reaches.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from embedtune.documents.pdf.block import TIGHT, Block
from embedtune.documents.pdf.columns import columns_of, covered, has_figures, over, pitch
from embedtune.documents.pdf.lines import Word, columns
from embedtune.documents.pdf.rows import Row, rows_of
from embedtune.documents.pdf.rules import Rules
from embedtune.documents.pdf.tables import Table

ROW_GAP = 3.2  # em from a row of a table to the next at most
LONG_LETTERS = 30  # of two pieces of one line that are running text in two columns
_ENDS_SENTENCE = tuple("。；！？.;!?")


def aligned_tables(
    words: Iterable[Word], rules: Rules, across: float | None = None
) -> tuple[list[Table], set[int]]:
    """Tables of rows of cells that stand below each other, and the ids of their words.

    Args:
        across: Only tables that reach over this place, not those that end beside it.
    """
    tables: list[Table] = []
    taken: set[int] = set()
    for block in _aligned(rows_of(words), rules):
        if across is None or block.reaches_over(across):
            tables.append(block.table())
            taken |= {id(word) for row in block.rows for word in row.words}
    return tables, taken


# ---- which rows


def _aligned(rows: list[Row], rules: Rules) -> Iterator[Block]:
    free = 0  # the first row that is in no table
    for first, last in _runs(rows):
        for begin, end in _cut(rows, first, last + 1):
            begin = _up(rows, begin, end, free)
            end = _down(rows, begin, end)
            block = Block(rows[begin:end], rules)
            if block.is_table and not _contents(rows[max(0, begin - 6) : end]):
                yield from _beside(block, rules)
                free = end


def _beside(block: Block, rules: Rules) -> Iterator[Block]:
    """The block, or the tables beside each other that the lines drawn across it show."""
    borders = [float("-inf"), *_breaks(block, rules), float("inf")]
    if len(borders) == 2:
        yield block
        return
    words = [word for row in block.rows for word in row.words]
    for left, right in pairwise(borders):
        yield from _aligned(rows_of(word for word in words if left < word.left < right), rules)


def _breaks(block: Block, rules: Rules) -> list[float]:
    """Where all lines across the block stop, to go on behind the gap: if they run over every
    column, and in each part over two and more, so that they are no lines under its headings."""
    top, bottom = block.rows[0], block.rows[-1]
    spans = [
        (rule.start, rule.end)
        for rule in rules.across
        if bottom.base - 2 * bottom.em < rule.at < top.base + 2 * top.em
        and rule.start < block.sides[-1][1]
        and rule.end > block.sides[0][0]
    ]
    parts = covered(spans, 1, 0.3 * top.em)  # where there is one line, another is below it
    middles = [(left + right) / 2 for left, right in block.sides]
    held = [sum(left < x < right for x in middles) for left, right in parts]
    if len(parts) < 2 or min(held) < 2 or sum(held) < len(middles):
        return []
    return [(one[1] + other[0]) / 2 for one, other in pairwise(parts)]


def _runs(rows: list[Row]) -> Iterator[tuple[int, int]]:
    """First and last of rows that follow each other and mostly have several cells."""
    here = 0
    left, right = min((r.left for r in rows), default=0), max((r.right for r in rows), default=0)
    beside = _prose_beside(rows)
    while here < len(rows):
        if not rows[here].several or here in beside:
            here += 1
            continue
        first = last = here
        while here + 1 < len(rows):
            below = rows[here + 1]
            if here + 1 in beside:
                break
            if rows[here].base - below.base > ROW_GAP * max(below.em, rows[here].em):
                break
            if not below.several and (here + 1 - last > 8 or _prose(below, right - left)):
                break
            here += 1
            if below.several:
                last = here
        yield first, last
        here = last + 1


def _prose_beside(rows: list[Row]) -> set[int]:
    """Rows of two columns of running text: three and more with two long pieces each."""
    found: set[int] = set()
    streak: list[int] = []
    for number, row in enumerate(rows):
        if sum(columns(piece.text) >= LONG_LETTERS for piece in row.pieces) > 1:
            streak.append(number)
        elif row.several or not streak or number - streak[-1] > 1:
            streak = []
        if len(streak) == 3:
            found |= set(range(streak[0], number))
        if len(streak) > 2:
            found.add(number)
    return found


def _prose(row: Row, width: float) -> bool:
    """A line of running text, in a text of this width."""
    share = (row.right - row.left) / width if width else 0.0
    return share > 0.85 or (share > 0.5 and row.text.endswith(_ENDS_SENTENCE))


def _cut(rows: list[Row], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of a run that are one table each: a new one begins with a new header in bold type,
    and after a line of text across the columns."""
    sides = columns_of(rows[begin:end])
    for here in range(begin + 1, end):
        row = rows[here]
        across = not row.several and over(row, sides) > 1
        if across and (columns(row.text) > 60 or row.text.endswith(_ENDS_SENTENCE)):
            border = here
        elif _begins_anew(rows[begin:here], row):
            border = here - 1
        else:
            continue
        stop = border
        while stop > begin and not rows[stop].several:
            stop -= 1
        yield begin, stop + 1
        start = border + 1
        while start < end and not rows[start].several:
            start += 1
        if start < end:
            yield from _cut(rows, start, end)
        return
    yield begin, end


def _begins_anew(above: list[Row], row: Row) -> bool:
    """A row of headings in bold type below rows of figures."""
    return (
        row.several
        and row.bold
        and not any(piece.figure and not piece.year for piece in row.pieces)
        and any(map(has_figures, above))
    )


def _up(rows: list[Row], begin: int, end: int, free: int) -> int:
    """The first row of the table with the headings above it that stand beside its first column;
    a label in the first column may stand between."""
    sides = columns_of(rows[begin:end])
    here = begin
    while here > free and len(sides) > 1:
        row, below = rows[here - 1], rows[here]
        if row.several or row.base - below.base > 2.5 * row.em or row.right > sides[-1][1] + row.em:
            break
        middle, end_of_last = (row.left + row.right) / 2, sides[-1][1]
        titles = abs(middle - (sides[0][0] + end_of_last) / 2)
        heads = abs(middle - (sides[1][0] + end_of_last) / 2)
        close = row.base - below.base < 1.4 * row.em and over(row, sides[1:]) == 1
        if row.left > sides[0][1] and (heads < titles or close):
            begin = here - 1
        elif row.right > sides[1][0] or begin - here > 1:
            break
        here -= 1
    return begin


def _down(rows: list[Row], begin: int, end: int) -> int:
    """The end of the table with further lines of the cells of its last row."""
    sides = columns_of(rows[begin:end])
    usual = pitch(rows[begin:end])
    while end < len(rows):
        row, above = rows[end], rows[end - 1]
        if row.several or over(row, sides) != 1:
            break
        step = above.base - row.base
        label = row.left < sides[0][1]  # or a note below the table
        if step > TIGHT * usual or step > (TIGHT if label else 1.0) * 1.5 * row.em:
            break
        end += 1
    return end


def _contents(rows: list[Row]) -> bool:
    """A table of contents: the last cells are pages."""
    if not any(_CONTENTS.search(row.text) for row in rows[:8]):
        return False
    pages = [row.pieces[-1].text for row in rows if row.several]
    numbers = [int(page) for page in pages if page.isdecimal()]
    rising = sum(one <= other for one, other in pairwise(numbers))
    return min(len(numbers), rising + 1) >= 0.7 * len(pages)


_CONTENTS = re.compile(r"contents|\bpage\b|目\s*[录錄次]|页码", re.IGNORECASE)
