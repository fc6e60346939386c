"""Lines and filled boxes drawn on a PDF page, and the grids of cells that the lines make."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from embedtune.documents.pdf.lines import Turn

THIN = 3.0  # points; a thicker box is no line
SHORTEST = 6.0  # a line beside text
NEAR = 3.0  # points between two lines that are meant to be one, or to touch
MOST_OBJECTS = 50_000  # of a page, text too
MOST_PATHS = 10_000  # of a page; with more it is a drawing or a map
MOST_CROSSINGS = 5_000  # of vertical and horizontal lines
DEEPEST = 5  # forms within forms

Box = tuple[float, float, float, float]  # left, bottom, right, top
Matrix = tuple[float, float, float, float, float, float]
_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line: at one place of an axis, from one to another place of the other."""

    at: float
    start: float
    end: float


@dataclass(slots=True)
class Rules:
    across: list[Rule] = field(default_factory=list)  # ``at`` is a height
    down: list[Rule] = field(default_factory=list)  # ``at`` is left or right
    fills: list[Box] = field(default_factory=list)
    paths: int = 0  # how many were looked at


@dataclass(frozen=True, slots=True)
class Grid:
    """Borders of columns, from left to right, and of rows, from top to bottom; and its cells as
    (row, column, rows, columns)."""

    columns: tuple[float, ...]
    rows: tuple[float, ...]
    cells: tuple[tuple[int, int, int, int], ...]


# ---- from pdfium


def read_rules(page: Any, turn: Turn) -> Rules:  # Any: a pointer that ctypes made
    """What is drawn on a page in straight lines. ``page`` is the raw page."""
    import pypdfium2.raw as pdfium

    count = pdfium.FPDFPage_CountObjects(page)
    if count > MOST_OBJECTS:
        return Rules()
    top = ((pdfium.FPDFPage_GetObject(page, place), _IDENTITY, 0) for place in range(count))
    seen, unseen = Rules(), Rules()  # white is seen on a coloured ground only
    number = 0
    for number, (item, matrix) in enumerate(_paths(top), 1):
        if number > MOST_PATHS:
            return Rules(paths=number)
        mode, stroked = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDFPath_GetDrawMode(item, mode, stroked)
        if mode.value or stroked.value:
            rules = unseen if _white(item, stroked=bool(stroked.value)) else seen
            for box in _boxes(item, matrix):
                _add(rules, turn.box(*box), filled=bool(mode.value), stroked=bool(stroked.value))
    across = [r for r in unseen.across if _inside(seen.fills, (r.start + r.end) / 2, r.at)]
    down = [r for r in unseen.down if _inside(seen.fills, r.at, (r.start + r.end) / 2)]
    return Rules(
        _merged(seen.across + across),
        _merged(seen.down + down),
        seen.fills + unseen.fills,
        number,
    )


def _white(item: Any, *, stroked: bool) -> bool:
    import pypdfium2.raw as pdfium

    colour = [ctypes.c_uint() for _ in range(4)]
    ask = pdfium.FPDFPageObj_GetStrokeColor if stroked else pdfium.FPDFPageObj_GetFillColor
    return bool(ask(item, *colour)) and min(part.value for part in colour[:3]) > 250


def _inside(boxes: Sequence[Box], x: float, y: float) -> bool:
    return any(box[0] < x < box[2] and box[1] < y < box[3] for box in boxes)


def _paths(items: Iterator[tuple[Any, Matrix, int]]) -> Iterator[tuple[Any, Matrix]]:
    """Paths with the matrix from their points to the page, those inside forms too."""
    import pypdfium2.raw as pdfium

    for item, matrix, depth in items:
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind == pdfium.FPDF_PAGEOBJ_PATH:
            yield item, _times(_matrix(item), matrix)
        elif kind == pdfium.FPDF_PAGEOBJ_FORM and depth < DEEPEST:
            inner = _times(_matrix(item), matrix)
            count = min(pdfium.FPDFFormObj_CountObjects(item), MOST_OBJECTS)
            yield from _paths(
                (pdfium.FPDFFormObj_GetObject(item, place), inner, depth + 1)
                for place in range(count)
            )


def _matrix(item: Any) -> Matrix:
    import pypdfium2.raw as pdfium

    found = pdfium.FS_MATRIX()
    if not pdfium.FPDFPageObj_GetMatrix(item, found):
        return _IDENTITY
    return found.a, found.b, found.c, found.d, found.e, found.f


def _times(inner: Matrix, outer: Matrix) -> Matrix:
    a, b, c, d, e, f = inner
    m, n, o, p, q, r = outer
    return (
        a * m + b * o,
        a * n + b * p,
        c * m + d * o,
        c * n + d * p,
        (e * m + f * o + q),
        e * n + f * p + r,
    )


def _boxes(path: Any, matrix: Matrix) -> Iterator[Box]:
    """The upright lines and boxes that a path is made of."""
    import pypdfium2.raw as pdfium

    a, b, c, d, e, f = matrix
    points: list[tuple[float, float]] = []
    straight = True
    x, y = ctypes.c_float(), ctypes.c_float()
    count = min(pdfium.FPDFPath_CountSegments(path), MOST_OBJECTS)
    for place in range(count + 1):
        segment = pdfium.FPDFPath_GetPathSegment(path, place) if place < count else None
        kind = pdfium.FPDFPathSegment_GetType(segment) if segment else -1
        if kind in (pdfium.FPDF_SEGMENT_MOVETO, -1):
            if straight and 2 <= len(points) <= 5 and _upright(points):
                across, up = zip(*points, strict=True)
                yield min(across), min(up), max(across), max(up)
            points, straight = [], True
        straight &= kind != pdfium.FPDF_SEGMENT_BEZIERTO
        if segment:
            pdfium.FPDFPathSegment_GetPoint(segment, x, y)
            points.append((a * x.value + c * y.value + e, b * x.value + d * y.value + f))


def _upright(points: Sequence[tuple[float, float]]) -> bool:
    return all(
        abs(one[0] - other[0]) < 0.5 or abs(one[1] - other[1]) < 0.5
        for one, other in pairwise(points)
    )


def _add(rules: Rules, box: Box, *, filled: bool, stroked: bool) -> None:
    left, bottom, right, top = box
    flat, narrow = top - bottom < THIN, right - left < THIN
    if flat or narrow:  # both: a dot of a dotted line
        if flat:
            rules.across.append(Rule((top + bottom) / 2, left, right))
        if narrow:
            rules.down.append(Rule((left + right) / 2, bottom, top))
        return
    if stroked:
        rules.across += [Rule(bottom, left, right), Rule(top, left, right)]
        rules.down += [Rule(left, bottom, top), Rule(right, bottom, top)]
    if filled:
        rules.fills.append(box)


def _merged(rules: list[Rule]) -> list[Rule]:
    """Lines beside each other moved onto one, those that touch made one; short ones dropped."""
    merged: list[Rule] = []
    for group in _clusters(sorted(rules, key=lambda rule: rule.at)):
        at = sum(rule.at for rule in group) / len(group)
        begin, end = 0.0, float("-inf")
        for rule in sorted(group, key=lambda rule: rule.start):
            if rule.start > end + NEAR:
                merged.append(Rule(at, begin, end))
                begin, end = rule.start, rule.end
            end = max(end, rule.end)
        merged.append(Rule(at, begin, end))
    return [rule for rule in merged if rule.end - rule.start >= SHORTEST]


def _clusters(rules: Sequence[Rule]) -> Iterator[list[Rule]]:
    group: list[Rule] = []
    for rule in rules:
        if group and rule.at - group[0].at > NEAR:
            yield group
            group = []
        group.append(rule)
    if group:
        yield group


# ---- grids


def grids(rules: Rules) -> Iterator[Grid]:
    """Grids of two columns and more that the lines make, from top to bottom.

    Two places are one cell where no line stands between them. The sides of a grid may be open.
    """
    across, down = rules.across, rules.down
    if len(across) < 2 or not down or len(across) * len(down) > MOST_CROSSINGS:
        return
    found = []
    for group in _touching(across, down):
        members = [across[n] for n in group if n < len(across)]
        posts = [down[n - len(across)] for n in group if n >= len(across)]
        if len(members) >= 2 and posts and (grid := _grid(members, posts)):
            found.append(grid)
    yield from sorted(found, key=lambda grid: (-grid.rows[0], grid.columns[0]))


def _touching(across: list[Rule], down: list[Rule]) -> list[list[int]]:
    """Groups of lines that cross or touch; the numbers of ``down`` follow those of ``across``."""
    union = _Union(len(across) + len(down))
    for (i, beam), (j, post) in product(enumerate(across), enumerate(down)):
        if (
            beam.start - NEAR <= post.at <= beam.end + NEAR
            and post.start - NEAR <= beam.at <= post.end + NEAR
        ):
            union.join(i, len(across) + j)
    return union.groups()


def _grid(across: list[Rule], down: list[Rule]) -> Grid | None:
    left, right = min(rule.start for rule in across), max(rule.end for rule in across)
    low, high = min(rule.start for rule in down), max(rule.end for rule in down)
    columns = _places([rule.at for rule in down], left, right)
    rows = _places([rule.at for rule in across], low, high)[::-1]
    width, height = len(columns) - 1, len(rows) - 1
    if width < 2 or width * height > MOST_CROSSINGS:
        return None
    union = _Union(width * height)
    for row, column in product(range(height), range(width)):
        x = (columns[column] + columns[column + 1]) / 2
        y = (rows[row] + rows[row + 1]) / 2
        if column + 1 < width and not _drawn(down, columns[column + 1], y):
            union.join(row * width + column, row * width + column + 1)
        if row + 1 < height and not _drawn(across, rows[row + 1], x):
            union.join(row * width + column, (row + 1) * width + column)
    cells = []
    for group in union.groups():
        places = [divmod(number, width) for number in group]
        top, first = min(row for row, _ in places), min(column for _, column in places)
        tall = max(row for row, _ in places) - top + 1
        wide = max(column for _, column in places) - first + 1
        cells.append((top, first, tall, wide))
    return Grid(tuple(columns), tuple(rows), tuple(sorted(cells))) if len(cells) > 1 else None


def _places(lines: list[float], least: float, most: float) -> list[float]:
    """Places of lines in order, and those of the open sides."""
    places: list[float] = []
    for place in sorted([*lines, least, most]):
        if not places or place - places[-1] > NEAR:
            places.append(place)
    return places


def _drawn(rules: list[Rule], at: float, through: float) -> bool:
    return any(
        abs(rule.at - at) <= NEAR and rule.start - NEAR <= through <= rule.end + NEAR
        for rule in rules
    )


class _Union:
    """Numbers joined to groups."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def _top(self, number: int) -> int:
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        self._above[self._top(one)] = self._top(other)

    def groups(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for number in range(len(self._above)):
            found.setdefault(self._top(number), []).append(number)
        return list(found.values())
