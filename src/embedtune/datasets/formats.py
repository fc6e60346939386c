"""The four formats of training data, as records: pairs, triplets, scored pairs, labelled texts.

Rows are checked one by one. An unusable row is rejected with its file, line and field; no value
is ever made into a text that the file does not hold.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

from embedtune.datasets.columns import Layout
from embedtune.datasets.tables import STAGE, Table
from embedtune.errors import NothingUsable
from embedtune.files import visible
from embedtune.records import Reject
from embedtune.similar import normalise

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LONGEST = 200_000  # characters; no embedding model reads a quarter of it
STRAY = 0.01  # share of the scores that may be off the scale, and are rejected for it


@dataclass(frozen=True, slots=True)
class PairRow:
    """A text and one that answers it; with negatives, hardest first, a triplet (or n-tuple)."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    group: str = field(default="", compare=False)  # the document it is about, where rows tell
    place: str = field(default="", compare=False)  # file:line


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """Two texts and how alike they are, 0 to 1."""

    sentence1: str
    sentence2: str
    score: float
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A text and the class it belongs to."""

    text: str
    label: str
    place: str = field(default="", compare=False)


Row = PairRow | ScoredRow | LabelledRow


class _Unfit(Exception):
    """A row that is rejected: code, field, message."""


def read_examples(
    table: Table, layout: Layout, rejects: list[Reject], notes: list[str]
) -> list[tuple[Row, str]]:
    """The usable rows of a file, each with the split it names (empty where rows name none).

    Texts stay exactly as they are. A positive that is a list of texts makes a row of each. Scores
    are divided by ``layout.scale``, and may be off the scale; see ``check_scale``.
    """
    make = {"labelled": _labelled, "scored": _scored}.get(layout.format, _pairs)
    lists = _list_columns(table, layout)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)  # label -> types it was written with
    examples: list[tuple[Row, str]] = []
    short = 0
    for number, cells in table.rows:
        row = _Cells(cells, lists, f"{table.file}:{number}")
        try:
            made = make(row, layout)
        except _Unfit as fault:
            code, column, message = fault.args
            rejects.append(
                Reject(STAGE, code, message, file=str(table.file), line=number, field=column,
                       excerpt=visible(dict(cells)))
            )  # fmt: skip
            continue
        split = cells.get(layout.column("split"))
        examples += ((example, str(split or "")) for example in made)
        if layout.format == "labelled":
            kinds[made[0].label][type(cells[layout.column("label")]).__name__] += 1
        elif layout.negatives and not lists:
            short += len(made[0].negatives) < len(layout.negatives)
    both = [label for label, found in kinds.items() if len(found) > 1]
    if both:
        notes.append(
            f"{table.name}: {len(both)} labels are written as a number and as text, e.g. "
            f"{visible(both[0])}; they count as one class"
        )
    if short:
        notes.append(
            f"{table.name}: {short} rows have fewer than {len(layout.negatives)} negatives"
        )
    if unused := [column for column in table.columns if column not in layout.used]:
        notes.append(f"{table.name}: columns not used: {', '.join(map(visible, unused))}")
    return examples


def _list_columns(table: Table, layout: Layout) -> frozenset[str]:
    """Columns of positives and negatives whose cells are mostly lists of texts."""
    found = set()
    for column in {layout.column("positive"), *layout.negatives} - {""}:
        kinds = Counter(isinstance(row.get(column), list) for _, row in table.rows)
        if kinds[True] > kinds[False]:
            found.add(column)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row while it is checked."""

    cells: Mapping[str, Any]
    lists: frozenset[str]
    place: str

    def text(self, column: str) -> str:
        return _text(self.cells.get(column), column, there=column in self.cells)

    def texts(self, column: str) -> list[str]:
        """What stands in a column of texts, or of lists of texts."""
        value = self.cells.get(column)
        if column not in self.lists:
            return [self.text(column)]
        if not isinstance(value, list):
            raise _Unfit("text", column, f"found {visible(repr(value), 40)} where the other rows "
                         "have a list of texts")  # fmt: skip
        return [_text(item, column) for item in value]


def _text(value: object, column: str, there: bool = True) -> str:
    if not isinstance(value, str):
        found = visible(repr(value), 40) if there else "nothing"
        raise _Unfit("text", column, f'"{visible(column)}" is {found}; text is due')
    if not any(sign.isprintable() and not sign.isspace() for sign in value):
        raise _Unfit("empty", column, f'"{visible(column)}" is empty; give it text or remove the '
                     "row")  # fmt: skip
    if len(value) > LONGEST:
        raise _Unfit("too-long", column, f'"{visible(column)}" has {len(value):,} characters, over '
                     f"the {LONGEST:,} read; cut it, or look for a quote left open")  # fmt: skip
    return value


def _pairs(row: _Cells, layout: Layout) -> list[PairRow]:
    first, second = (column for _, column in layout.roles[:2])
    anchor, positives = row.text(first), row.texts(second)
    if not positives:
        raise _Unfit("empty", second, "an empty list of positives")
    negatives = _negatives(row, layout)
    if layout.format == "triplets" and not negatives:
        column = layout.negatives[0]
        raise _Unfit("text", column, f'"{visible(column)}" is missing; each row needs a negative')
    for positive in positives:
        if normalise(anchor) == normalise(positive):
            raise _Unfit("anchor-positive", second, "the positive is the anchor itself: nothing "
                         "can be learned from it")  # fmt: skip
        if normalise(positive) in map(normalise, negatives):
            raise _Unfit("positive-negative", second, "the positive is one of the negatives, too")
    group = row.cells.get(layout.column("group"))
    named = str(group) if isinstance(group, str | int) else ""
    return [PairRow(anchor, text, tuple(negatives), named, row.place) for text in positives]


def _negatives(row: _Cells, layout: Layout) -> list[str]:
    """The row's negatives; of several columns, all but the first may be left empty."""
    found: list[str] = []
    for column in layout.negatives:
        value = row.cells.get(column)
        blank = value is None or (isinstance(value, str) and not value.strip())
        if blank and len(layout.negatives) > 1 and column != layout.negatives[0]:
            continue
        found += row.texts(column)
    return list(dict.fromkeys(found))


def _scored(row: _Cells, layout: Layout) -> list[ScoredRow]:
    first, second, column = (column for _, column in layout.roles[:3])
    value = row.cells.get(column)
    number = None
    if isinstance(value, bool | int | float):
        number = float(value) if abs(value) < 1e300 else math.inf
    elif isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        number = float(value)
    if number is None or not math.isfinite(number):
        advice = ""
        if isinstance(value, str) and NUMBER.fullmatch(value.strip().replace(",", ".")):
            advice = f"; write {value.strip().replace(',', '.')}"
        found = visible(repr(value), 40) if column in row.cells else "nothing"
        raise _Unfit("score", column, f'"{visible(column)}" is {found}; a number from 0 to 1 is '
                     f"due{advice}")  # fmt: skip
    return [ScoredRow(row.text(first), row.text(second), number / layout.scale, row.place)]


def _labelled(row: _Cells, layout: Layout) -> list[LabelledRow]:
    column = layout.column("label")
    value = row.cells.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int):
        value = str(value)
    label = _text(value, column, there=column in row.cells)
    return [LabelledRow(row.text(layout.column("text")), label, row.place)]


# ---- what can only be told of all rows together


def on_scale(row: ScoredRow) -> bool:
    return 0 <= row.score <= 1


def check_scale(rows: Sequence[ScoredRow], name: str, column: str, rejects: list[Reject]) -> None:
    """Reject the rows whose score is not from 0 to 1, where they are few.

    Raises:
        NothingUsable: More than 1 % of the scores (and more than one) are off: then those that are
            not may be on another scale, too.
    """
    off = [row for row in rows if not on_scale(row)]
    if not off:
        return
    low, high = min(row.score for row in rows), max(row.score for row in rows)
    found = f"the scores run from {low:g} to {high:g}"
    if len(off) > max(1, STRAY * len(rows)):
        advice = (
            f"rescale with --columns score={visible(column)}/{high:g}"
            if low >= 0
            else "bring them to 0 … 1 in the file"
        )
        raise NothingUsable(
            f"{name}: {found} where 0 to 1 is due ({len(off):,} of {len(rows):,} are outside, "
            f"the first in {shown(off[0].place)}); {advice}"
        )
    for row in off:
        message = f'"{visible(column)}" is {row.score:g}; a number from 0 to 1 is due ({found})'
        rejects.append(_reject(row, "scale", message, column))


def key_of(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same example: case, width and white space do not count."""
    if isinstance(row, LabelledRow):
        return normalise(row.text), row.label
    if isinstance(row, ScoredRow):
        return tuple(sorted((normalise(row.sentence1), normalise(row.sentence2))))
    return normalise(row.anchor), normalise(row.positive)


def settle_copies(
    parts: Mapping[str, Sequence[Row]], rejects: list[Reject]
) -> tuple[dict[str, list[Row]], list[tuple[str, str]]]:
    """The rows without those that repeat another of their split, score and negatives included; and
    the places of rows that stand in two splits, which stay."""
    kept: dict[str, list[Row]] = {}
    across: list[tuple[str, str]] = []
    split_of: dict[tuple[Any, ...], tuple[str, str]] = {}
    for split, rows in parts.items():
        first: dict[tuple[Any, ...], str] = {}
        own = kept.setdefault(split, [])
        for row in rows:
            key = key_of(row)
            whole = (*key, _rest(row))
            if whole in first:
                reject = _reject(row, "copy", f"the same as {shown(first[whole])}")
                rejects.append(replace(reject, unusable=False))
                continue
            first[whole] = row.place
            own.append(row)
            where, place = split_of.setdefault(key, (split, row.place))
            if where != split:
                across.append((place, row.place))
    return kept, across


def _rest(row: Row) -> object:
    """What may differ between two rows of one key."""
    if isinstance(row, PairRow):
        return tuple(map(normalise, row.negatives))
    return row.score if isinstance(row, ScoredRow) else None


def _reject(row: Row, code: str, message: str, column: str = "") -> Reject:
    file, _, line = row.place.rpartition(":")
    return Reject(STAGE, code, message, file=file, line=int(line), field=column)


def shown(place: str) -> str:
    """``folder/train.jsonl:12`` as ``train.jsonl:12``."""
    return PurePath(place).name


def check_not_swapped(rows: Sequence[PairRow], name: str, layout: Layout) -> None:
    """Stop where the questions stand among the positives, and the passages among the anchors.

    Raises:
        NothingUsable: Half of the positives are questions, hardly any anchor is, and anchors are
            more than twice as long.
    """
    if len(rows) < 2:
        return

    def questions(texts: Sequence[str]) -> float:
        return sum(text.rstrip().endswith(("?", "？")) for text in texts) / len(texts)

    anchors, positives = [row.anchor for row in rows], [row.positive for row in rows]
    lengths = [sorted(map(len, texts))[len(texts) // 2] for texts in (anchors, positives)]
    if questions(positives) >= 0.5 and questions(anchors) <= 0.1 and lengths[0] > 2 * lengths[1]:
        first, second = (column for _, column in layout.roles[:2])
        raise NothingUsable(
            f"{name}: the positives look like questions ({questions(positives):.0%} end with a "
            f"question mark) and the anchors like answers; if so, --columns anchor={second},"
            f"positive={first}; if they are right, --columns anchor={first},positive={second}"
        )


def check_trainable(
    rows: Sequence[Row], name: str, batch_size: int | Literal["auto"] = "auto"
) -> None:
    """Stop before a training in which there would be nothing to compare.

    Raises:
        NothingUsable: Fewer rows than a batch; one class only, or classes of one text; scores
            that are all the same. The message says how many are needed and why.
    """
    if not rows:
        raise NothingUsable(f"{name}: no rows to train on")
    needed = 2 if batch_size == "auto" else batch_size
    if len(rows) < needed:
        raise NothingUsable(
            f"{name}: {len(rows)} rows to train on, at least {needed} are needed: each row is "
            "learned against the others of its batch"
            + ("" if batch_size == "auto" else f" of {batch_size} (training.batch_size)")
        )
    if isinstance(rows[0], LabelledRow):
        sizes = Counter(row.label for row in rows if isinstance(row, LabelledRow))
        single = sorted(label for label, count in sizes.items() if count == 1)
        if len(sizes) == 1:
            raise NothingUsable(
                f"{name}: one class only, {visible(next(iter(sizes)))}; at least 2 are needed: a "
                "text is told apart from those of other classes"
            )
        if single:
            raise NothingUsable(
                f"{name}: {len(single)} of {len(sizes)} classes have one text only, e.g. "
                f"{', '.join(map(visible, single[:3]))}; each needs at least 2, since a text is "
                "learned with another of its class; add some or remove these rows"
            )
    if isinstance(rows[0], ScoredRow) and len({row.score for row in rows}) == 1:
        raise NothingUsable(
            f"{name}: all scores are {rows[0].score:g}; at least 2 different ones are needed: "
            "pairs are ordered by them"
        )
