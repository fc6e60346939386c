"""Columns of rows of cells on a PDF page: the white space that goes down between them."""

from collections import Counter
from itertools import pairwise
from statistics import median

from embedtune.documents.pdf.rows import Row


def pitch(rows: list[Row]) -> float:
    """The usual distance of a row with several cells from the line above it."""
    steps = [above.base - row.base for above, row in pairwise(rows) if row.several]
    return median(steps) if steps else 0.0


def columns_of(rows: list[Row]) -> list[tuple[float, float]]:
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
        found = covered(
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
    heads = next((n for n, row in enumerate(rows) if has_figures(row)), 0)
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


def has_figures(row: Row) -> bool:
    """Figures, other than years, beside the label."""
    return any(piece.figure and not piece.year for piece in row.pieces[1:])


def _stands(row: Row, side: tuple[float, float]) -> bool:
    return any(piece.left < side[1] and side[0] < piece.right for piece in row.pieces)


def covered(
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


def over(row: Row, sides: list[tuple[float, float]]) -> int:
    """How many columns a line stands over."""
    return sum(row.left < right and left < row.right for left, right in sides)
