"""Tables without a grid: rows of cells that stand below each other on a PDF page.

Words are put into rows by their baselines and into columns by the white space that goes down
through the rows; drawn lines and shaded rows say which lines belong to one row and how far a
heading reaches.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import median

from embedtune.documents.clean import clean
from embedtune.documents.pdf_lines import Word, columns, joined
from embedtune.documents.pdf_rows import Piece, Row, figure_text, is_prose, rows_of
from embedtune.documents.pdf_rules import Rules
from embedtune.documents.pdf_tables import Table

ROW_GAP = 3.2  # em from a row of a table to the next at most
TIGHT = 0.88  # times the usual distance of rows: lines of one row
OFF_MIDDLE = 0.12  # of its width that a heading is off the middle of what it stands over at most
LONG_LETTERS = 30  # of two pieces of one line that are running text in two columns
_UNIT = re.compile(  # of all figures of a table
    r"[(（]?(?:(?:金额|货币|计量)?单位|币种)\s?[:：].{1,20}"
    r"|\(?(?:(?:all )?(?:amounts|figures) )?in (?:\S+ )?(?:thousands|millions|billions)\b.{,40}",
    re.IGNORECASE,
)
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


def _aligned(rows: list[Row], rules: Rules) -> Iterator["_Block"]:
    free = 0  # the first row that is in no table
    for first, last in _runs(rows):
        for begin, end in _cut(rows, first, last + 1):
            begin = _up(rows, begin, end, free)
            end = _down(rows, begin, end)
            block = _Block(rows[begin:end], rules)
            if block.is_table and not _contents(rows[max(0, begin - 6) : end]):
                yield from _beside(block, rules)
                free = end


def _beside(block: "_Block", rules: Rules) -> Iterator["_Block"]:
    """The block, or the tables beside each other that the lines drawn across it show."""
    borders = [float("-inf"), *_breaks(block, rules), float("inf")]
    if len(borders) == 2:
        yield block
        return
    words = [word for row in block.rows for word in row.words]
    for left, right in pairwise(borders):
        yield from _aligned(rows_of(word for word in words if left < word.left < right), rules)


def _breaks(block: "_Block", rules: Rules) -> list[float]:
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
    parts = _covered(spans, 1, 0.3 * top.em)  # where there is one line, another is below it
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
    sides = _columns(rows[begin:end])
    for here in range(begin + 1, end):
        row = rows[here]
        across = not row.several and _over(row, sides) > 1
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
        and any(map(_has_figures, above))
    )


def _up(rows: list[Row], begin: int, end: int, free: int) -> int:
    """The first row of the table with the headings above it that stand beside its first column;
    a label in the first column may stand between."""
    sides = _columns(rows[begin:end])
    here = begin
    while here > free and len(sides) > 1:
        row, below = rows[here - 1], rows[here]
        if row.several or row.base - below.base > 2.5 * row.em or row.right > sides[-1][1] + row.em:
            break
        middle, end_of_last = (row.left + row.right) / 2, sides[-1][1]
        titles = abs(middle - (sides[0][0] + end_of_last) / 2)
        heads = abs(middle - (sides[1][0] + end_of_last) / 2)
        close = row.base - below.base < 1.4 * row.em and _over(row, sides[1:]) == 1
        if row.left > sides[0][1] and (heads < titles or close):
            begin = here - 1
        elif row.right > sides[1][0] or begin - here > 1:
            break
        here -= 1
    return begin


def _down(rows: list[Row], begin: int, end: int) -> int:
    """The end of the table with further lines of the cells of its last row."""
    sides = _columns(rows[begin:end])
    usual = _pitch(rows[begin:end])
    while end < len(rows):
        row, above = rows[end], rows[end - 1]
        if row.several or _over(row, sides) != 1:
            break
        if above.base - row.base > TIGHT * min(usual, 1.5 * row.em):
            break
        end += 1
    return end


def _pitch(rows: list[Row]) -> float:
    """The usual distance of a row with several cells from the line above it."""
    steps = [above.base - row.base for above, row in pairwise(rows) if row.several]
    return median(steps) if steps else 0.0


def _columns(rows: list[Row]) -> list[tuple[float, float]]:
    """Left and right of the columns: where nothing stands in any row, one ends.

    Rows with few cells may be headings across several columns; they do not count. In long tables
    a row in eight may cross.
    """
    most = max(len(row.pieces) for row in rows)
    judged = [row for row in rows if row.several and len(row.pieces) > most / 2]
    usual = Counter(len(row.pieces) for row in judged).most_common(1)[0][0]
    em = median(row.em for row in judged)
    found: list[tuple[float, float]] = []
    for crossing in range(1 + len(judged) // 8):
        found = _covered(
            [(piece.left, piece.right) for row in judged for piece in row.pieces],
            crossing,
            0.3 * em,
        )
        if len(found) >= usual:
            break
    return _closed_up(found, judged) if len(found) > most else found


def _closed_up(sides: list[tuple[float, float]], rows: list[Row]) -> list[tuple[float, float]]:
    """Columns in which only the header stands made one with those beside them in which only the
    figures stand: a heading in the middle or at the left of its column need not be over them."""
    heads = next((n for n, row in enumerate(rows) if _has_figures(row)), 0)
    sides = list(sides)
    while True:
        used = [{n for n, row in enumerate(rows) if _stands(row, side)} for side in sides]
        above = [max(lines, default=heads) < heads for lines in used]
        below = [min(lines, default=0) >= heads for lines in used]
        pairs = [
            n for n in range(len(sides) - 1)
            if (above[n] and below[n + 1]) or (below[n] and above[n + 1])
        ]  # fmt: skip
        if not pairs:
            return sides
        # labels have no heading in many tables: what stands beside them belongs to the next column
        n = min(pairs, key=lambda n: (n == 0, sides[n + 1][0] - sides[n][1]))
        sides[n : n + 2] = [(sides[n][0], sides[n + 1][1])]


def _has_figures(row: Row) -> bool:
    """Figures, other than years, beside the label."""
    return any(piece.figure and not piece.year for piece in row.pieces[1:])


def _stands(row: Row, side: tuple[float, float]) -> bool:
    return any(piece.left < side[1] and side[0] < piece.right for piece in row.pieces)


def _covered(
    spans: list[tuple[float, float]], crossing: int, gap: float
) -> list[tuple[float, float]]:
    """Stretches that more than ``crossing`` spans cover; those nearer than ``gap`` are one."""
    events = sorted([(left, 1) for left, _ in spans] + [(right, -1) for _, right in spans])
    depth, begin = 0, 0.0
    found: list[tuple[float, float]] = []
    for place, step in events:
        if depth <= crossing < depth + step:
            begin = place
        elif depth + step <= crossing < depth:
            if found and begin - found[-1][1] < gap:
                begin = found.pop()[0]
            found.append((begin, place))
        depth += step
    return found


def _over(row: Row, sides: list[tuple[float, float]]) -> int:
    """How many columns a line stands over."""
    return sum(row.left < right and left < row.right for left, right in sides)


def _meet(one: Piece, other: Piece) -> bool:
    return one.left < other.right and other.left < one.right


def _contents(rows: list[Row]) -> bool:
    """A table of contents: the last cells are pages."""
    if not any(_CONTENTS.search(row.text) for row in rows[:8]):
        return False
    pages = [row.pieces[-1].text for row in rows if row.several]
    numbers = [int(page) for page in pages if page.isdecimal()]
    rising = sum(one <= other for one, other in pairwise(numbers))
    return min(len(numbers), rising + 1) >= 0.7 * len(pages)


_CONTENTS = re.compile(r"contents|\bpage\b|目\s*[录錄次]|页码", re.IGNORECASE)

_Span = tuple[int, int]  # the first column and the one after the last


class _Block:
    """Rows that may be a table; ``spans`` are the columns of every piece."""

    def __init__(self, rows: list[Row], rules: Rules) -> None:
        self.rows = rows
        self.sides = _columns(rows)
        self._rules = rules
        self.spans = [[self._span(piece) for piece in row.pieces] for row in rows]
        self.uncertain = False

    def _span(self, piece: Piece) -> _Span:
        over = [n for n, (left, right) in enumerate(self.sides)
                if piece.left < right and left < piece.right]  # fmt: skip
        if over:
            return over[0], over[-1] + 1
        nearest = min(
            range(len(self.sides)),
            key=lambda n: max(self.sides[n][0] - piece.right, piece.left - self.sides[n][1]),
        )
        return nearest, nearest + 1

    # ---- whether it is one

    @property
    def is_table(self) -> bool:
        several = sum(row.several for row in self.rows)
        figures = sum(self._is_data(number) for number in range(len(self.rows)))
        if len(self.sides) < 2 or several < 2:
            return False
        if several < 3 and not (figures and (figures > 1 or self._ruled())):
            return False
        if not figures and all(word.fixed for row in self.rows for word in row.words):
            return False  # a program rather
        first = next((n for n in range(len(self.rows)) if self._is_data(n)), 0)
        pieces = [self._pieces_of(column, first) for column in range(len(self.sides))]
        prose = sum(map(is_prose, pieces))
        return prose < 2 and all(map(_lined_up, pieces[1:]))

    def _pieces_of(self, column: int, first: int) -> list[Piece]:
        """What stands in a column alone, from a row on."""
        return [
            piece
            for row, spans in zip(self.rows[first:], self.spans[first:], strict=True)
            for piece, span in zip(row.pieces, spans, strict=True)
            if row.several and span == (column, column + 1)
        ]

    def _ruled(self) -> bool:
        """Whether anything is drawn among the rows."""
        top, bottom = self.rows[0].base, self.rows[-1].base
        left, right = self.sides[0][0], self.sides[-1][1]
        return any(
            bottom <= rule.at <= top and rule.start < right and rule.end > left
            for rule in self._rules.across
        ) or any(
            box[1] < top and box[3] > bottom and box[0] < right and box[2] > left
            for box in self._rules.fills
        )

    def _is_data(self, number: int) -> bool:
        """A row with a figure, other than a year, beside the first column."""
        return any(
            piece.figure and not piece.year and span[0] > 0
            for piece, span in zip(self.rows[number].pieces, self.spans[number], strict=True)
        )

    def reaches_over(self, x: float) -> bool:
        """Whether a column stands there, or nearly all rows have cells on both sides."""
        both = sum(row.left < x < row.right for row in self.rows if row.several)
        several = sum(row.several for row in self.rows)
        return any(left < x < right for left, right in self.sides) or both > 0.9 * several

    # ---- the table

    def table(self) -> Table:
        heads = self._heads()
        header = self._header(heads) if heads else [""] * len(self.sides)
        groups = self._groups(heads)
        plain = False
        if not any(self._is_data(number) for number in range(len(self.rows))):
            plain = not all(self.rows[number].bold for number in groups[0])
            if self._text_heads(groups):
                header, groups = self._cells(groups[0]), groups[1:]
        top, bottom = self.rows[0], self.rows[-1]
        return Table(
            header,
            [self._cells(group) for group in groups],
            self.sides,
            top.base + top.em,
            bottom.base,
            plain_header=plain,
            uncertain=self.uncertain,
        )

    def _heads(self) -> int:
        """How many rows are the header: those before the first with figures.

        Not a label alone just above the figures; and of rows that have a label and texts and are
        not bold, at most one.
        """
        count = next((n for n in range(len(self.rows)) if self._is_data(n)), 0)
        while count and all(span[0] == 0 for span in self.spans[count - 1]):
            count -= 1
        plain = [
            n for n in range(count)
            if self.spans[n][0][0] == 0 and self.rows[n].several
            and not self.rows[n].bold
        ]  # fmt: skip
        if len(plain) < 2:
            return count
        return plain[0] if plain[0] else 0

    def _text_heads(self, groups: list[list[int]]) -> bool:
        """Whether the first row of a table without figures is its header: in bold type, or with a
        line under it, or with texts over three columns and more."""
        last = self.rows[groups[0][-1]]
        bold = all(self.rows[number].bold for number in groups[0])
        ruled = any(
            0 <= last.base - rule.at < 1.2 * last.em and rule.start < last.left < rule.end
            for rule in self._rules.across
        )
        filled = len(self.sides) > 2 and all(self._cells(groups[0]))
        return len(groups) > 2 and (bold or ruled or filled)

    def _header(self, heads: int) -> list[str]:
        """What stands above each column; what stands above all but the first goes to the first."""
        texts: list[list[str]] = [[] for _ in self.sides]
        alone: set[int] = set()  # columns that have a heading of their own
        shared: set[int] = set()
        for cell in self._head_cells(heads):
            first, end = self._head_span(cell)
            if first <= 1 and end == len(self.sides) > 2:
                first, end = 0, 1
            text = joined(piece.text for _, piece in cell)
            if _UNIT.fullmatch(text) and self._on_top(cell) and len(self.sides) > 2:
                first, end = 0, 1
            for column in range(first, end):
                texts[column].append(text)
            (shared if end - first > 1 else alone).update(range(first, end))
        self.uncertain |= bool(shared - alone) and not self._ruled()
        return [clean(" ".join(cells)).text for cells in texts]

    def _on_top(self, cell: list[tuple[int, Piece]]) -> bool:
        """Whether nothing stands above it or beside it."""
        return len(cell) == 1 and cell[0][0] == 0 and len(self.rows[0].pieces) == 1

    def _head_cells(self, heads: int) -> list[list[tuple[int, Piece]]]:
        """Pieces of the header, with the numbers of their rows: those that stand below each other,
        one by one and without a line between them, are one cell."""
        cells: list[list[tuple[int, Piece]]] = []
        for number in range(heads):
            row = self.rows[number]
            above = [cell for cell in cells if cell[-1][0] == number - 1]
            for piece in row.pieces:
                over = [cell for cell in above if _meet(cell[-1][1], piece)]
                if (
                    len(over) == 1
                    and sum(_meet(over[0][-1][1], other) for other in row.pieces) == 1
                    and self.rows[number - 1].base - row.base < 1.5 * row.em
                    and not self._rule_under(*over[0][-1])
                    and not self._shares(*over[0][-1])
                ):
                    over[0].append((number, piece))
                else:
                    cells.append([(number, piece)])
        return cells

    def _head_span(self, cell: list[tuple[int, Piece]]) -> _Span:
        """The columns below a cell of the header: those above the line that is drawn under it.

        Without a line those that it stands over; all, where it is alone in the middle of them.
        """
        number, last = cell[-1]
        middles = [(left + right) / 2 for left, right in self.sides]
        if under := self._rule_under(number, last):
            below = [n for n, x in enumerate(middles) if under[0] <= x <= under[1]]
            if below:
                return below[0], below[-1] + 1
        if shared := self._shares(number, last):
            return shared
        spans = [self._span(piece) for _, piece in cell]
        first, end = min(span[0] for span in spans), max(span[1] for span in spans)
        beside = [p for n, _ in cell for p in self.rows[n].pieces if p.left > self.sides[0][1]]
        if first and len(beside) == len(cell) and len(self.sides) > 2:
            left, right = self.sides[1][0], self.sides[-1][1]
            if end - first > 1 or abs(last.middle - (left + right) / 2) < 0.1 * (right - left):
                return 1, len(self.sides)
        return first, end

    def _shares(self, number: int, piece: Piece) -> _Span | None:
        """The columns of a heading in a row of several that share the columns in equal parts, each
        in the middle of its own."""
        heads = [other for other in self.rows[number].pieces if other.left > self.sides[0][1]]
        each, rest = divmod(len(self.sides) - 1, len(heads) or 1)
        if len(heads) < 2 or each < 2 or rest or piece not in heads:
            return None
        for place, head in enumerate(heads):
            left, right = self.sides[1 + place * each][0], self.sides[(place + 1) * each][1]
            if abs(head.middle - (left + right) / 2) > OFF_MIDDLE * (right - left):
                return None
        first = 1 + heads.index(piece) * each
        return first, first + each

    def _rule_under(self, number: int, piece: Piece) -> tuple[float, float] | None:
        """Both ends of a line that is drawn under this piece of a row alone."""
        row = self.rows[number]
        for rule in self._rules.across:
            close = 0 <= row.base - rule.at < 1.2 * row.em
            over = [other for other in row.pieces if rule.start < other.middle < rule.end]
            if close and over == [piece]:
                return rule.start, rule.end
        return None

    # ---- lines to rows

    def _groups(self, heads: int) -> list[list[int]]:
        """The numbers of the lines of every row below the header."""
        bands = self._bands(heads)
        usual = _pitch(self.rows[heads:])
        groups: list[list[int]] = []
        for number in range(heads, len(self.rows)):
            if groups and self._continues(groups[-1], number, bands, usual):
                groups[-1].append(number)
            else:
                groups.append([number])
        return groups

    def _continues(
        self, group: list[int], number: int, bands: dict[int, int], usual: float
    ) -> bool:
        """Whether a line belongs to the row of the lines above it."""
        row, above = self.rows[number], self.rows[group[-1]]
        step = above.base - row.base
        if any(self._figures(n) & self._figures(number) for n in group):
            return False
        if group == [0] and above.bold and not row.bold:
            return False
        if step < 0.8 * row.em:
            return True
        if bands:
            return bands[number] == bands[group[-1]]
        tight = step < TIGHT * usual and step < 1.5 * row.em
        lower = row.pieces[0].text[:1].islower() and step < 1.5 * row.em
        here = {n for span in self.spans[number] for n in range(*span)}
        there = {n for line in group for span in self.spans[line] for n in range(*span)}
        ended = above.text.endswith((":", "："))
        if here == {0}:  # more of a label
            return (tight or lower) and not (ended and there == {0})
        if there == {0}:  # its label began above
            return (tight or (lower and 0 in here)) and not ended
        if 0 not in here and not self._figures(number):
            return here <= there and (tight or len(here) == 1)
        if self._figures(number) or not all(p.text[:1].islower() for p in row.pieces):
            return tight and not self._figures(number) and here <= there
        return step < 1.5 * row.em

    def _figures(self, number: int) -> set[int]:
        """Columns beside the first in which a line has figures."""
        return {
            span[0]
            for piece, span in zip(self.rows[number].pieces, self.spans[number], strict=True)
            if span[0] > 0 and piece.figure
        }

    def _bands(self, heads: int) -> dict[int, int]:
        """Which lines lie in the same shaded row, or between the same lines across the table.

        Empty where shades and lines do not part single rows.
        """
        left, right = self.sides[0][0], self.sides[-1][1]
        covered: Counter[tuple[float, float]] = Counter()
        for box in self._rules.fills:
            wide = min(box[2], right) - max(box[0], left)
            if wide > 0:
                covered[round(box[1]), round(box[3])] += wide
        for rule in self._rules.across:
            wide = min(rule.end, right) - max(rule.start, left)
            if wide > 0:
                covered[round(rule.at), round(rule.at)] += wide
        borders = sorted({
            place for pair, wide in covered.items() if wide > 0.6 * (right - left) for place in pair
        })  # fmt: skip
        rows = {n: self.rows[n].base + 0.3 * self.rows[n].em
                for n in range(heads, len(self.rows))}  # fmt: skip
        bands = {n: bisect_left(borders, height) for n, height in rows.items()}
        if len(set(bands.values())) < max(3, 0.4 * len(bands)):
            return {}
        for number, below in pairwise(bands):
            if bands[number] == bands[below] and self._figures(number) & self._figures(below):
                return {}
        return bands

    def _cells(self, group: list[int]) -> list[str]:
        texts: list[list[str]] = [[] for _ in self.sides]
        for number in group:
            row = self.rows[number]
            for piece, (first, end) in zip(row.pieces, self.spans[number], strict=True):
                texts[first].append(figure_text(piece.text))
                self.uncertain |= end - first > 1 and piece.figure
        return [clean(joined(pieces)).text for pieces in texts]


def _lined_up(pieces: list[Piece]) -> bool:
    """Cells of one column have their left, their right or their middle in common.

    Figures need not: signs and per cents stand out on either side of them.
    """
    if len(pieces) < 2 or 2 * sum(piece.figure for piece in pieces) >= len(pieces):
        return True
    em = median(piece.words[0].size for piece in pieces)
    for places in (
        [piece.left for piece in pieces],
        [piece.right for piece in pieces],
        [piece.middle for piece in pieces],
    ):
        usual = median(places)
        if sum(abs(place - usual) < 0.7 * em for place in places) >= 0.6 * len(pieces):
            return True
    return False
