"""Tables of a PDF: what they are, how they go on over pages, and those in grids of drawn lines."""

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from embedtune.documents.clean import clean
from embedtune.documents.grid import Cell, spread, table_row
from embedtune.documents.pdf.lines import Line, Word, columns, joined, line_of
from embedtune.documents.pdf.rows import (
    CURRENCY,
    FIGURE,
    PROSE_LETTERS,
    SUFFIX,
    YEAR,
    Piece,
    Row,
    figure_text,
    is_prose,
    rows_of,
)
from embedtune.documents.pdf.rules import Grid, Rules, grids

MOST_SHIFT = 45.0  # points by which the text of left and right pages differs
CONTINUED = re.compile(
    r"[(（]?(?:\b(?:continued|cont[’']?d)\b\.?|续[）)表]?|接上[页表])[)）]?", re.IGNORECASE
)
LONGEST_CELL = 600  # letters; a grid with longer cells lays out text, it is no table


@dataclass(slots=True)
class Table:
    """A table, or the part of one that stands on this page.

    ``columns`` are their left and right sides. ``header`` has as many texts as there are columns,
    all empty where the table has none.
    """

    header: list[str]
    rows: list[list[str]]
    columns: list[tuple[float, float]]
    top: float
    bottom: float
    plain_header: bool = False  # nothing shows that it is one: it is just the first row
    repeated_header: bool = False  # it had the header of the page before, and lost it
    uncertain: bool = False
    continues: bool = False  # the table at the end of the page before

    def markdown(self) -> str:
        rows = [table_row(row) for row in self.rows]
        if not self.continues:
            rows[:0] = [table_row(self.header), "|" + " --- |" * len(self.columns)]
        return "\n".join(rows)


def continued(first: Table, second: Table) -> Table | None:
    """``second`` as more rows of ``first``, its header left out where it repeats that of the first;
    None where its columns are not among those of the first, or it has a header of its own."""
    shift = first.columns[0][0] - second.columns[0][0]
    if abs(shift) > MOST_SHIFT:
        return None
    places: list[int] = []
    for left, right in second.columns:
        after = range(places[-1] + 1 if places else 0, len(first.columns))
        over = [n for n in after if _shared((left + shift, right + shift), first.columns[n]) > 0.3]
        if not over:
            return None
        places.append(over[0])
    same = [_bare(text) for text in second.header] == [_bare(first.header[n]) for n in places]
    if any(second.header) and not same and not second.plain_header:
        return None
    rows = second.rows if same or not any(second.header) else [second.header, *second.rows]
    laid = []
    for row in rows:
        cells = [""] * len(first.columns)
        for place, cell in zip(places, row, strict=True):
            cells[place] = cell
        laid.append(cells)
    return replace(
        second,
        header=first.header,
        rows=laid,
        columns=first.columns,
        repeated_header=same and any(second.header),
        continues=True,
    )


def _shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The part of the shorter stretch that lies in the other."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    return both / max(1.0, min(one[1] - one[0], other[1] - other[0]))


def _bare(text: str) -> str:
    """For comparing headers: without white space, and without a word that it goes on."""
    return "".join(CONTINUED.sub("", text).split()).casefold()


# ---- grids of drawn lines


def ruled_tables(lines: list[Line], rules: Rules) -> tuple[list[Table], list[Line], set[int]]:
    """Tables in grids of drawn lines, and the lines without their words; and the ids of words that
    stand in boxes of running text, which are no cells of anything."""
    tables: list[Table] = []
    taken: set[int] = set()
    boxed: set[int] = set()
    for grid in grids(rules):
        inside = [
            word
            for line in lines
            for word in line.words
            if id(word) not in taken and _within(word, grid)
        ]
        cells = _cells(grid, inside)
        if table := _ruled(grid, cells):
            tables.append(table)
            taken |= set(map(id, inside))
        elif any(is_prose([Piece(list(row.words)) for row in rows]) for rows in cells.values()):
            boxed |= set(map(id, inside))
    return tables, without(lines, taken), boxed


def without(lines: list[Line], taken: set[int]) -> list[Line]:
    """The lines without these words, by their ids."""
    left = []
    for line in lines:
        words = [word for word in line.words if id(word) not in taken]
        if len(words) == len(line.words):
            left.append(line)
        elif words:
            left.append(line_of(words, line))
    return left


def _within(word: Word, grid: Grid) -> bool:
    x, y = (word.left + word.right) / 2, word.base + 0.3 * word.size
    return grid.columns[0] < x < grid.columns[-1] and grid.rows[-1] < y < grid.rows[0]


_Cells = dict[tuple[int, int], list[Row]]


def _cells(grid: Grid, words: list[Word]) -> _Cells:
    """The lines of the cells, by their first row and column."""
    place = {
        (row + down, column + beside): (row, column)
        for row, column, tall, wide in grid.cells
        for down in range(tall)
        for beside in range(wide)
    }
    found: dict[tuple[int, int], list[Word]] = {}
    for word in words:
        row = sum(word.base + 0.3 * word.size < border for border in grid.rows[1:-1])
        column = sum((word.left + word.right) / 2 > border for border in grid.columns[1:-1])
        found.setdefault(place[row, column], []).append(word)
    return {at: rows_of(members) for at, members in found.items()}


def _ruled(grid: Grid, cells: _Cells) -> Table | None:
    """The grid as a table; None where it holds prose, a drawing, or rows without lines."""
    rows_used, columns_used = {row for row, _ in cells}, {column for _, column in cells}
    if min(len(rows_used), len(columns_used)) < 2 or 4 * len(cells) < len(grid.cells):
        return None
    if _unruled(cells):
        return None
    texts = {
        at: figure_text(clean(joined(row.text for row in rows)).text) for at, rows in cells.items()
    }
    if max(map(len, texts.values())) > LONGEST_CELL and len(grid.cells) < 9:
        return None
    laid = [
        [
            Cell(texts.get((row, column), ""), tall, wide)
            for top, column, tall, wide in grid.cells
            if top == row
        ]
        for row in range(len(grid.rows) - 1)
    ]
    rows, sides = _tidied(spread(laid), list(pairwise(grid.columns)))
    if len(sides) < 2 or len(rows) < 2:
        return None
    heads = _heads(rows)
    header = [
        joined(dict.fromkeys(filter(None, column))) for column in zip(*rows[:heads], strict=True)
    ] or [""] * len(sides)
    bold = all(row.bold for (at, _), rows in cells.items() if at == min(rows_used) for row in rows)
    figures = any(_has_figures(row) for row in rows[heads:])
    plain = not bold and not figures
    return Table(header, rows[heads:], sides, grid.rows[0], grid.rows[-1], plain_header=plain)


def _unruled(cells: _Cells) -> bool:
    """Whether the lines of cells beside each other are rows of their own."""
    for row in {row for row, _ in cells}:
        beside = [rows for (at, _), rows in cells.items() if at == row and len(rows) > 2]
        short = [rows for rows in beside if median(columns(r.text) for r in rows) < PROSE_LETTERS]
        if len(short) < 2 or len(short) < len(beside):
            continue
        first, second = ({round(r.base) for r in rows} for rows in short[:2])
        if len(first & second) > 2:
            return True
    return False


def _tidied(
    rows: list[list[str]], sides: list[tuple[float, float]]
) -> tuple[list[list[str]], list[tuple[float, float]]]:
    """Signs of currency and per cent put to their figures, and what else stands in their columns to
    those of the figures; empty rows and columns dropped."""
    width = len(sides)
    rows = [row + [""] * (width - len(row)) for row in rows]
    emptied: dict[int, int] = {}  # column of signs -> that of its figures
    for row in rows:
        for here in range(width - 1):
            sign, figure = row[here : here + 2]
            if CURRENCY.fullmatch(sign) and FIGURE.fullmatch(figure):
                row[here], row[here + 1] = "", figure_text(f"{sign} {figure}")
                emptied[here] = here + 1
            elif FIGURE.fullmatch(sign) and SUFFIX.fullmatch(figure):
                row[here], row[here + 1] = figure_text(f"{sign} {figure}"), ""
                emptied[here + 1] = here
    for column, figures in emptied.items():
        if not any(row[column] and row[figures] not in ("", row[column]) for row in rows):
            for row in rows:
                row[figures], row[column] = row[figures] or row[column], ""
    kept = [n for n in range(width) if any(row[n] for row in rows)]
    return [[row[n] for n in kept] for row in rows if any(row)], [sides[n] for n in kept]


def _heads(rows: list[list[str]]) -> int:
    """How many of the first rows are the header: none where the first has figures; more than one
    where those below have no label."""
    heads = 0
    for row in rows[:4]:
        if _has_figures(row) or (heads and row[0] not in ("", rows[0][0])):
            break
        heads += 1
    return min(heads, len(rows) - 1)


def _has_figures(row: list[str]) -> bool:
    """Figures other than years, beside the label."""
    return any(FIGURE.fullmatch(cell) and not YEAR.fullmatch(cell) for cell in row[1:])
