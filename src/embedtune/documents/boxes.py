"""Boxes of recognised text to lines in reading order: rows joined, columns one after the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from embedtune.documents.reading import SeenLine

COLUMN_LINES = 5  # a column of prose has at least so many lines …
COLUMN_LETTERS = 12  # … of so many letters (a Chinese character is two) in the middle …
COLUMN_FILLED = 0.6  # … that fill so much of its width; cells of a table do not
LIKE = 1.33  # sizes of type nearer than this are one size; others are told apart in steps
STEP = 1.25


@dataclass(frozen=True, slots=True)
class Box:
    """Recognised text in pixels, y downwards. ``height`` is that of the type, upright."""

    text: str
    confidence: float
    left: float
    right: float
    middle: float  # y
    height: float
    slope: float = 0.0  # of its baseline
    tall: bool = False  # higher than wide: its line lies on its side


def lines_of(boxes: Sequence[Box], *, page_height: float, scale: float) -> tuple[SeenLine, ...]:
    """Lines in reading order, with places in points. Columns are laid one below the other.

    Args:
        page_height: In pixels.
        scale: Pixels a point.
    """
    rows = _rows_in_order(_sized(_straightened(boxes)))
    return tuple(
        SeenLine(
            text=_joined(row),
            left=round(row[0].left / scale, 1),
            right=round(max(box.right for box in row) / scale, 1),
            base=round((page_height - middle) / scale, 1),
            size=round(row[0].height / scale, 1),
        )
        for row, middle in zip(rows, _downwards(rows), strict=True)
    )


def _downwards(rows: list[list[Box]]) -> list[float]:
    """Middles of the rows; one that is higher than the row before is put a usual step below it."""
    steps = [below[0].middle - above[0].middle for above, below in pairwise(rows)]
    usual = median([step for step in steps if step > 0] or [0.0])
    places: list[float] = []
    moved = 0.0
    for row in rows:
        if places and row[0].middle + moved < places[-1] - row[0].height / 2:
            moved = places[-1] + usual - row[0].middle
        places.append(row[0].middle + moved)
    return places


def confidence_of(boxes: Sequence[Box]) -> float:
    """Mean over the characters; 0 without any."""
    letters = sum(len(box.text) for box in boxes)
    return sum(box.confidence * len(box.text) for box in boxes) / letters if letters else 0.0


def columns(text: str) -> int:
    """Width of a text in letters; a Chinese character is as wide as two."""
    return sum(1 + (ord(character) >= 0x2E80) for character in text) or 1


def _straightened(boxes: Sequence[Box]) -> list[Box]:
    """As if the paper had lain straight: heights along the slope that long lines have."""
    slopes = [box.slope for box in boxes if box.right - box.left > 8 * box.height]
    slope = median(slopes) if slopes else 0.0
    return [replace(box, middle=box.middle - slope * (box.left + box.right) / 2) for box in boxes]


def _sized(boxes: list[Box]) -> list[Box]:
    """Heights of recognised boxes waver: those near the usual one become it, others steps of it."""
    if not boxes:
        return boxes
    by_height = sorted(boxes, key=lambda box: box.height)
    half = sum(len(box.text) for box in boxes) / 2
    seen = 0
    for box in by_height:
        seen += len(box.text)
        if seen >= half:
            break
    usual = box.height

    def size(height: float) -> float:
        if usual / LIKE < height < usual * LIKE:
            return usual
        return usual * STEP ** round(math.log(height / usual, STEP))

    return [replace(box, height=size(box.height)) for box in boxes]


def _rows_in_order(boxes: list[Box]) -> list[list[Box]]:
    gutter = _gutter(boxes)
    if gutter is None:
        return _rows(boxes)
    across = sorted(
        (box for box in boxes if box.left < gutter < box.right), key=lambda box: box.middle
    )
    ordered: list[list[Box]] = []
    rest = [box for box in boxes if not box.left < gutter < box.right]
    for end in [*(box.middle for box in across), math.inf]:  # bands between lines across the page
        band = [box for box in rest if box.middle < end]
        rest = [box for box in rest if box.middle >= end]
        left = [box for box in band if box.right <= gutter]
        right = [box for box in band if box.left >= gutter]
        ordered += _rows_in_order(left)
        ordered += _rows_in_order(_moved(right, onto=left))
        ordered += [[box] for box in across if box.middle == end]
    return ordered


def _moved(boxes: list[Box], *, onto: list[Box]) -> list[Box]:
    """With the same left edge, so that both columns look like one."""
    if not boxes or not onto:
        return boxes
    by = min(box.left for box in boxes) - min(box.left for box in onto)
    return [replace(box, left=box.left - by, right=box.right - by) for box in boxes]


def _gutter(boxes: list[Box]) -> float | None:
    """x between two columns of prose, else None."""
    best: tuple[float, float] | None = None  # how many lines cross, x
    for place in sorted({box.left for box in boxes}):
        x = place - 1
        crossing = sum(box.left < x < box.right for box in boxes)
        left = [box for box in boxes if box.right <= x]
        right = [box for box in boxes if box.left >= x]
        if crossing > 0.2 * len(boxes) or not (_prose(left) and _prose(right)):
            continue
        if min(b.middle for b in right) > max(b.middle for b in left) or (
            min(b.middle for b in left) > max(b.middle for b in right)
        ):
            continue  # one above the other
        if best is None or crossing < best[0]:
            best = crossing, x
    return best[1] if best else None


def _prose(boxes: list[Box]) -> bool:
    if len(boxes) < COLUMN_LINES:
        return False
    width = max(box.right for box in boxes) - min(box.left for box in boxes)
    return (
        median(box.right - box.left for box in boxes) >= COLUMN_FILLED * width
        and median(columns(box.text) for box in boxes) >= COLUMN_LETTERS
    )


def _rows(boxes: list[Box]) -> list[list[Box]]:
    """Boxes on one baseline together, from left to right."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: (box.middle, box.left)):
        if rows:
            last = rows[-1]
            near = abs(box.middle - sum(b.middle for b in last) / len(last)) < 0.5 * min(
                box.height, last[0].height
            )
            if near and not any(_overlap(box, other) for other in last):
                last.append(box)
                continue
        rows.append([box])
    return [sorted(row, key=lambda box: box.left) for row in rows]


def _overlap(one: Box, other: Box) -> bool:
    shared = min(one.right, other.right) - max(one.left, other.left)
    return shared > 0.3 * min(one.right - one.left, other.right - other.left)


def _joined(row: list[Box]) -> str:
    text = row[0].text
    for before, box in pairwise(row):
        close = box.left - before.right < 0.6 * box.height  # one line found in two pieces
        wide = ord(text[-1]) >= 0x2E80 and ord(box.text[0]) >= 0x2E80
        text += ("" if close and wide else " ") + box.text
    return text
