"""Which column plays which part, and which of the four formats the columns fit.

Columns are known by the names the field gives them; others are named by the user
(``--columns anchor=query,positive=job_description_pos``). Where names fit more than one reading,
the user is asked: a wrong guess trains without an error.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from embedtune.datasets.tables import Table
from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import visible

Format = Literal["pairs", "triplets", "scored", "labelled"]

# role -> the names it goes by
NAMES = {
    role: (role, *names.split())
    for role, names in {
        "anchor": "query question q anchor_text query_text 查询 问题 提问 问句",
        "positive": "pos answer positive_text positive_passage positives context document passage "
        "doc response relevant 正例 答案 回答 回复 文档 段落 上下文",
        "negative": "neg negative_text negative_passage negatives hard_negative hard_negatives "
        "负例",
        "sentence1": "sentence_1 sentence_a text1 text_1 text_a question1 question_1 句子1",
        "sentence2": "sentence_2 sentence_b text2 text_2 text_b question2 question_2 句子2",
        "score": "similarity similarity_score sim relevance_score label labels is_duplicate "
        "相似度 得分 分数",
        "text": "sentence utterance content 文本 句子 内容",
        "label": "labels intent category class label_text 标签 类别 意图",
        "group": "",
        "split": "",
    }.items()
}
FORMATS: dict[Format, tuple[str, ...]] = {  # the roles each needs
    "triplets": ("anchor", "positive", "negative"),
    "pairs": ("anchor", "positive"),
    "scored": ("sentence1", "sentence2", "score"),
    "labelled": ("text", "label"),
}
# pairs and scored pairs are written with each other's names, too
STAND_INS = {"sentence1": "anchor", "sentence2": "positive",
             "anchor": "sentence1", "positive": "sentence2"}  # fmt: skip
NUMBERED = re.compile(rf"(?:{'|'.join(NAMES['negative'])})_?(\d+)")
TRUTHS = ("0", "1", "0.0", "1.0", "true", "false")
STRAY = 0.01  # share of the rows of a file that may be of another shape; they are rejected


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a file are read."""

    format: Format
    roles: tuple[tuple[str, str], ...]  # (role, column)
    negatives: tuple[str, ...] = ()  # columns, in order
    scale: float = 1.0  # scores are divided by it

    def column(self, role: str) -> str:
        """The column that plays ``role``; empty if none does."""
        return dict(self.roles).get(role, "")

    @property
    def used(self) -> set[str]:
        return {column for _, column in self.roles} | set(self.negatives)

    def __str__(self) -> str:
        """The format, and the roles as the user would write them after ``--columns``."""
        roles = [f"{role}={visible(column)}" for role, column in self.roles]
        return f"{self.format} ({','.join(roles)})"


def parse_columns(text: str) -> dict[str, str]:
    """``anchor=query,positive=answer`` as role -> column.

    Raises:
        ConfigError: Not of that form, or a role that no format has.
    """
    named: dict[str, str] = {}
    faults = []
    for part in filter(str.strip, text.split(",")):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            faults.append(f"--columns {visible(part)}: expected ROLE=COLUMN, e.g. anchor=question")
        elif role in named:
            faults.append(f"--columns: {visible(role)} is named twice")
        named[role] = column
    if faults := faults or _unknown_roles(named):
        raise ConfigError(faults)
    return named


def tell_layout(table: Table, given: Mapping[str, str]) -> Layout:
    """The format of a file with rows, and which column plays which part.

    Args:
        given: Role -> column, as the user says; ``score`` may be ``COLUMN/NUMBER``.

    Raises:
        ConfigError: A named column or role that is not there.
        NothingUsable: The columns fit no format, or several; rows of several formats.
    """
    given, scale = _scaled(given, table.columns)
    faults = _unknown_roles(given) or [
        f"{table.file}: --columns {role}={visible(column)}: no such column; columns found: "
        f"{_listed(table.columns)}"
        for role, column in given.items()
        if column not in table.columns
    ]
    if faults:
        raise ConfigError(faults)
    shapes: dict[tuple[str, ...], list[int]] = {}  # columns -> rows that have these
    for number, row in table.rows:
        shapes.setdefault(tuple(row), []).append(number)
    fits: dict[Layout, list[int]] = {}
    for shape, numbers in sorted(shapes.items(), key=lambda item: -len(item[1])):
        found = _fits(table, (*shape, *table.unreadable), given)
        if len(found) == 1:
            fits.setdefault(found[0], []).extend(numbers)
        elif found and not (fits and len(numbers) <= STRAY * len(table.rows)):
            raise NothingUsable(_ambiguous(table, found))
    if not fits:
        raise NothingUsable(_nothing_fits(table))
    (main, rows), *others = sorted(fits.items(), key=lambda item: -len(item[1]))
    strays = sum(len(numbers) for _, numbers in others)
    if strays > max(STRAY * len(table.rows), len(rows) > 1):
        raise NothingUsable(_mixed(table, fits))
    further = {
        role: given.get(role) or next(iter(_called(role, table.columns)), "")
        for role in ("group", "split")
    }
    layout = replace(
        main,
        roles=(*main.roles, *((role, column) for role, column in further.items() if column)),
        negatives=_negatives(table.columns, given) if main.format == "triplets" else (),
        scale=scale,
    )
    if bad := next((column for column in table.unreadable if column in layout.used), None):
        raise NothingUsable(
            f"{table.file}: the column {visible(bad)} holds {table.unreadable[bad]}; text or "
            "numbers are due"
        )
    return layout


def _unknown_roles(given: Iterable[str]) -> list[str]:
    return [
        f"--columns {visible(role)}=…: no such role; there are {', '.join(NAMES)} (and negative_1, "
        "negative_2 …)"
        for role in given
        if role not in NAMES and not re.fullmatch(r"negative_\d+", role)
    ]


def _scaled(given: Mapping[str, str], columns: Sequence[str]) -> tuple[dict[str, str], float]:
    column = given.get("score", "")
    match = re.fullmatch(r"(.+)/(\d+(?:\.\d+)?)", column)
    if column in columns or not match:
        return dict(given), 1.0
    if not float(match[2]):
        raise ConfigError(f"--columns score={visible(column)}: divide by more than 0")
    return {**given, "score": match[1]}, float(match[2])


def _fits(table: Table, shape: Sequence[str], given: Mapping[str, str]) -> list[Layout]:
    """Every reading of rows with the columns ``shape``; the richer one where one holds another."""
    found = [
        layout
        for format, needed in FORMATS.items()
        if all(role.partition("_")[0] in (*needed, "group", "split") for role in given)
        for layout in _readings(format, shape, given)
    ]
    formats = {layout.format for layout in found}
    if "triplets" in formats or ("scored" in formats and _plainly_scored(table, found)):
        return [layout for layout in found if layout.format != "pairs"]
    return found


def _plainly_scored(table: Table, found: Iterable[Layout]) -> bool:
    """Whether the label of two texts is a score: it is called one, or is 0 or 1 throughout.

    Classes of inference (0, 1, 2, or words) are none, and pairs made of them would be wrong.
    """
    columns = {layout.column("score") for layout in found if layout.format == "scored"}
    doubtful = [column for column in columns if _plain(column) in NAMES["label"]]
    values = Counter(
        str(row[column]).lower() for column in doubtful for _, row in table.rows if column in row
    )
    return sum(values[text] for text in TRUTHS) >= (1 - STRAY) * values.total()


def _readings(format: Format, shape: Sequence[str], given: Mapping[str, str]) -> list[Layout]:
    """All ways in which the columns give one format."""
    roles = [role for role in FORMATS[format] if role != "negative"]
    free = [column for column in shape if column not in given.values()]
    candidates = []
    for role in roles:
        own = [given[role]] if role in given else _called(role, free)
        if not own and format in ("pairs", "scored") and role in STAND_INS:
            own = _called(STAND_INS[role], free)
        candidates.append([column for column in own if column in shape])
    if format == "triplets" and not set(_negatives(shape, given)) & set(shape):
        return []
    return [
        Layout(format, tuple(zip(roles, columns, strict=True)))
        for columns in product(*candidates)
        if len(set(columns)) == len(columns)
    ]


def _called(role: str, columns: Iterable[str]) -> list[str]:
    """Columns that go by a name of ``role``; only the one named as the role itself, if any."""
    plain = {column: _plain(column) for column in columns}
    exact = [column for column, name in plain.items() if name == role]
    return exact or [column for column, name in plain.items() if name in NAMES[role]]


def _negatives(columns: Iterable[str], given: Mapping[str, str]) -> tuple[str, ...]:
    """Columns of negatives: those without a number first, then by number."""
    named = {role: column for role, column in given.items() if role.startswith("negative")}
    plain = {column: role for role, column in named.items()} or {
        column: _plain(column) for column in columns if column not in given.values()
    }
    numbers = {
        column: int(match[1]) if (match := NUMBERED.fullmatch(name)) else 0
        for column, name in plain.items()
        if name in NAMES["negative"] or NUMBERED.fullmatch(name)
    }
    return tuple(sorted(numbers, key=numbers.__getitem__))


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def _listed(columns: Sequence[str], most: int = 12) -> str:
    shown = [visible(column, 40) for column in columns[:most]]
    return ", ".join(shown) + (f" and {len(columns) - most} more" if len(columns) > most else "")


# ---- what is asked when the columns do not tell

NEEDS = (
    "pairs need anchor and positive, triplets also negative, scored pairs sentence1, sentence2 and "
    "score, labelled texts text and label"
)


def _nothing_fits(table: Table) -> str:
    first, second = (*table.columns, "COLUMN", "COLUMN")[:2]
    header = "" if table.file.suffix.lower() not in (".csv", ".tsv") else (
        " (the first line is the header; if it is data, put a header above it)")  # fmt: skip
    return (
        f"{table.file}: columns found: {_listed(table.columns)}{header}; they fit none of the "
        f"formats: {NEEDS}; say which is which, e.g. --columns anchor={visible(first, 40)},"
        f"positive={visible(second, 40)}"
    )


def _ambiguous(table: Table, found: Sequence[Layout]) -> str:
    choices = "; or ".join(map(str, found[:4]))
    roles = ",".join(f"{role}={visible(column)}" for role, column in found[0].roles)
    return (
        f"{table.file}: columns found: {_listed(table.columns)}; they fit {choices}; say which, "
        f"e.g. --columns {roles}"
    )


def _mixed(table: Table, fits: Mapping[Layout, Sequence[int]]) -> str:
    parts = [
        f"{len(rows)} rows fit {layout}, the first on line {min(rows)}"
        for layout, rows in fits.items()
    ]
    return (
        f"{table.file}: rows of several formats in one file: {'; '.join(parts)}; put each into a "
        "file of its own"
    )
