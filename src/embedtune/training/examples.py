"""What a loss is fed with: the examples of one data set, column by column."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from embedtune.records import Pair, Role

Format = Literal["pairs", "triplets", "scored", "labelled"]

NO_NEGATIVE = "-"  # where a pair has fewer than others; masked, so it only must have a vector


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one format: texts by column, in the order that sentence-transformers wants.

    ``labels`` is a score from 0 to 1 (scored), the number of a class (labelled), or None.
    ``pairs`` are the rows of pairs and triplets with their ids, by which false negatives are
    masked; their columns are anchor, positive, negative_1, negative_2 and so on.
    """

    name: str
    format: Format
    columns: Mapping[str, tuple[str, ...]]
    labels: tuple[float, ...] | tuple[int, ...] | None = None
    pairs: tuple[Pair, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def role_of(column: str) -> Role:
    """Whose prompt goes before the texts of a column."""
    return "query" if column in ("anchor", "sentence1") else "document"


def from_pairs(name: str, pairs: Sequence[Pair]) -> Examples:
    """Pairs, or triplets where any brings negatives; short rows are filled (and masked)."""
    negatives = negative_columns(pairs)
    columns = {
        "anchor": tuple(pair.anchor for pair in pairs),
        "positive": tuple(pair.positive for pair in pairs),
        **{
            column: tuple(
                pair.negatives[n][1] if n < len(pair.negatives) else NO_NEGATIVE for pair in pairs
            )
            for n, column in enumerate(negatives)
        },
    }
    return Examples(name, "triplets" if negatives else "pairs", columns, pairs=tuple(pairs))


def from_scored(name: str, rows: Iterable[tuple[str, str, float]]) -> Examples:
    """Two texts and how alike they are, 0 to 1."""
    firsts, seconds, scores = _columns(rows, 3)
    columns = {"sentence1": firsts, "sentence2": seconds}
    return Examples(name, "scored", columns, tuple(map(float, scores)))


def from_labelled(name: str, rows: Iterable[tuple[str, str]]) -> Examples:
    """Texts and their classes, numbered in the order of their names."""
    texts, labels = _columns(rows, 2)
    number = {label: place for place, label in enumerate(sorted(set(labels)))}
    return Examples(name, "labelled", {"text": texts}, tuple(number[label] for label in labels))


def negative_columns(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Names of the columns that hold the explicit negatives: as many as a pair has at most."""
    most = max((len(pair.negatives) for pair in pairs), default=0)
    return tuple(f"negative_{number}" for number in range(1, most + 1))


def _columns(rows: Iterable[tuple], count: int) -> list[tuple]:
    return list(zip(*rows, strict=True)) or [()] * count


@dataclass(frozen=True, slots=True)
class Task:
    """One data set and the loss it is trained with.

    ``labels`` are what the loss is given for each row: its place, where the loss masks.
    ``anew``: a text that recurs in a batch is encoded anew each time, with another dropout.
    """

    examples: Examples
    loss: Any  # a torch module of sentence-transformers' kind: (features by column, labels)
    labels: tuple[float, ...] | tuple[int, ...]
    anew: bool = False


Batch = tuple[int, list[int]]  # number of the task, places of rows in its examples
Order = Callable[[int], Iterable[Batch]]  # epoch -> its batches
