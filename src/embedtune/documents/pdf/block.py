"""Rows of cells on a PDF page as a table: header, rows of several lines, and whether it is one."""

import re
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from statistics import median

from embedtune.documents.clean import clean
from embedtune.documents.pdf.columns import columns_of, pitch
from embedtune.documents.pdf.lines import joined
from embedtune.documents.pdf.rows import Piece, Row, figure_text, is_prose
from embedtune.documents.pdf.rules import Rules
from embedtune.documents.pdf.tables import Table

TIGHT = 0.88  # times the usual distance of rows: lines of one row
OFF_MIDDLE = 0.12  # of its width that a heading is off the middle of what it stands over at most
_UNIT = re.compile(  # of all figures of a table
    r"[(（]?(?:(?:金额|货币|计量)?单位|币种)\s?[:：].{1,20}"
    r"|\(?(?:(?:all )?(?:amounts|figures) )?in (?:\S+ )?(?:thousands|millions|billions)\b.{,40}",
    re.IGNORECASE,
)

_Span = tuple[int, int]  # the first column and the one after the last


def _meet(one: Piece, other: Piece) -> bool:
    return one.left < other.right and other.left < one.right


class Block:
    """Rows that may be a table; ``spans`` are the columns of every piece."""

    def __init__(self, rows: list[Row], rules: Rules) -> None:
        self.rows = rows
        self.sides = columns_of(rows)
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
        usual = pitch(self.rows[heads:])
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
