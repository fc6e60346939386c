"""A grid of cells as a Markdown table that keeps its rows whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDEST = 1000  # columns that one cell may cover, as in HTML
WIDEST_REPEAT = 60  # columns over which the text of a merged cell is repeated
LONGEST_REPEAT = 200  # characters of it


@dataclass(frozen=True, slots=True)
class Cell:
    """Text that covers ``rows`` × ``columns`` places of a grid."""

    text: str
    rows: int = 1
    columns: int = 1


def spread(rows: Iterable[Sequence[Cell]]) -> list[list[str]]:
    """The text of every place of the grid; that of merged cells is repeated where it is short.

    A table is cut into chunks between its rows, and a row whose label was merged with the one
    above would say nothing alone. A cell over the whole width stays single.
    """
    rows = [list(row) for row in rows]
    grid: list[dict[int, str]] = [{} for _ in rows]
    for number, row in enumerate(rows):
        alone = len(row) == 1 and not grid[number]
        column = 0
        for cell in row:
            while column in grid[number]:
                column += 1
            columns = 1 if alone else min(cell.columns, WIDEST)
            repeat = cell.text if len(cell.text) <= LONGEST_REPEAT else ""
            for below in range(min(cell.rows, len(rows) - number)):
                for beside in range(min(columns, WIDEST_REPEAT)):
                    text = cell.text if below == beside == 0 else repeat
                    grid[number + below].setdefault(column + beside, text)
            column += columns
    return [
        [places.get(column, "") for column in range(max(places, default=-1) + 1)] for places in grid
    ]


def markdown_table(rows: Iterable[Sequence[str]], heads: int = 1) -> str:
    """The rows as a table; the first ``heads`` of them are joined to its header row.

    Rows may differ in length. Empty rows and columns are dropped. Rows of one cell above the header
    become lines of text above the table, and so does all of a single column.
    """
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    heads = sum(any(row) for row in cells[:heads])
    cells = [row for row in cells if any(row)]
    lines = []
    while cells and len(cells[0]) == 1:
        lines += cells.pop(0)
        heads -= 1
    width = max(map(len, cells), default=0)
    kept = [n for n in range(width) if any(len(row) > n and row[n] for row in cells)]
    cells = [[row[n] if len(row) > n else "" for n in kept] for row in cells]
    if len(kept) == 1:
        lines += [row[0] for row in cells]
        cells = []
    above = "\n\n".join(lines)
    if not cells:
        return above
    heads = max(1, heads)
    columns = zip(*cells[:heads], strict=True)
    header = [" ".join(dict.fromkeys(filter(None, column))) for column in columns]
    table = [table_row(header), "|" + " --- |" * len(kept), *map(table_row, cells[heads:])]
    return "\n\n".join(filter(None, (above, "\n".join(table))))


def table_row(cells: Iterable[str]) -> str:
    """Cells without line ends as a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
