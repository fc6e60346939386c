"""From an index of one model to an index of another: what is missing, which one counts, and what
a threshold on scores becomes.

A folder with a `current.json` stands for the index that this names (`stores.followed`). Replacing
that small file in one step is the switch; the index of before is written beside it, for the way
back. A folder that holds an index itself can become such a folder: its index is then ``.``.
"""

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import read_json, visible, write_json
from embedtune.retrieve import Hit
from embedtune.retrieve.disk import MANIFEST, DiskStore
from embedtune.retrieve.stores import POINTER, STORES, VectorStore, followed, open_store
from embedtune.retrieve.stores.address import has_password, without_password

ITSELF = "."  # the index in the pointer's own folder

Scores = npt.NDArray[np.float64]


# ---- what is missing


@dataclass(frozen=True, slots=True)
class Gap:
    """How a new index differs from the old one. ``surplus``: passages the old one has no more."""

    passages: int  # of the old index
    missing: int
    changed: int
    surplus: int

    @property
    def closed(self) -> bool:
        return not (self.missing or self.changed or self.surplus)

    def line(self) -> str:
        if self.closed:
            return f"{self.passages:,} passages, all there"
        return (
            f"{self.passages:,} passages: {self.missing:,} missing, {self.changed:,} changed "
            f"since, {self.surplus:,} no longer in the old index"
        )


def gap_between(old: VectorStore, new: VectorStore) -> Gap:
    """Compared by digest, so that no passage is read."""
    there, here = old.digests(), new.digests() if new.info() else {}
    changed = sum(id in here and here[id] != digest for id, digest in there.items())
    return Gap(len(there), len(there.keys() - here.keys()), changed,
               len(here.keys() - there.keys()))  # fmt: skip


# ---- which one counts


@dataclass(frozen=True, slots=True)
class Pointer:
    """``current.json`` of a folder: where the index is, and where the one of before; ``.`` is the
    folder itself, empty where there was none."""

    place: str
    previous: str = ""


def read_pointer(folder: Path) -> Pointer | None:
    """None where the folder is no pointer.

    Raises:
        IntegrityError: It is damaged.
    """
    file = folder / POINTER
    if not file.is_file():
        return None
    followed(folder)  # says what is wrong with the place
    row = read_json(file)
    previous = row.get("previous", "")
    if not isinstance(previous, str):
        raise IntegrityError(f"{file}: damaged: previous is no text")
    return Pointer(row["place"], previous)


def point(folder: Path, to: str, *, old: str | None = None) -> Pointer:
    """Let ``folder`` stand for the index at ``to``, in one step.

    Args:
        old: The index of before, where ``folder`` neither points to it nor holds it.

    Raises:
        ConfigError: ``to`` is the index already, the index of before is not known, or an address
            holds a password, which this file should not.
    """
    target, now = settled(to), read_pointer(folder)
    if now is not None:
        before = now.place
    elif (folder / MANIFEST).is_file():
        before = ITSELF
    elif old is not None:
        before = settled(old)
    else:
        raise ConfigError(
            f"{visible(str(folder))}: neither an index nor a folder that stands for one; to make "
            "one that does, name the index of before with --old"
        )
    if target in (before, settled(str(folder))):
        raise ConfigError(f"{visible(str(folder))}: already stands for {visible(to)}")
    return _write(folder, Pointer(target, before))


def with_way_back(folder: Path) -> Pointer:
    """The pointer in ``folder``, which names an index of before.

    Raises:
        ConfigError: It does not, or there is no pointer.
    """
    now = read_pointer(folder)
    if now is None or not now.previous:
        raise ConfigError(f"{visible(str(folder))}: there is no index of before")
    return now


def roll_back(folder: Path) -> Pointer:
    """Let ``folder`` stand for the index of before; the one left can be switched to again."""
    now = with_way_back(folder)
    return _write(folder, Pointer(now.previous, now.place))


def open_place(folder: Path, place: str) -> VectorStore:
    """The index that a pointer in ``folder`` calls ``place``."""
    return DiskStore(folder) if place == ITSELF else open_store(place)


def forget_previous(folder: Path) -> None:
    """Of a pointer: there is no way back any more."""
    now = read_pointer(folder)
    if now is not None:
        _write(folder, Pointer(now.place))


def settled(place: str) -> str:
    """A place as it can be written down: no matter from which folder it is opened.

    Raises:
        ConfigError: It holds a password.
    """
    if has_password(place):
        raise ConfigError(
            f"{visible(without_password(place), 200)}: an address that is written down must not "
            "hold a password; give it in the environment, e.g. PGPASSWORD"
        )
    kind, colon, rest = place.partition(":")
    if colon and kind in STORES:
        return place if rest.startswith("//") else f"{kind}:{_absolute(rest)}"
    return place if "://" in place else _absolute(place)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _write(folder: Path, pointer: Pointer) -> Pointer:
    if pointer.place == ITSELF and not pointer.previous:
        (folder / POINTER).unlink()
    else:
        write_json(folder / POINTER, {k: v for k, v in asdict(pointer).items() if v})
    return pointer


# ---- what a threshold becomes


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """A threshold on the old index's scores, and the one on the new that does the same.

    ``old_share`` and ``new_share``: hits that pass. ``old_answered`` and ``new_answered``: queries
    with a hit that passes. ``old_precision`` and ``new_precision``: passing hits that are judged
    relevant; None without judgements. ``new`` is None where no threshold is as precise.
    """

    old: float
    new: float | None
    by: str  # "share" or "precision"
    queries: int
    hits: int
    old_share: float
    new_share: float
    old_answered: float
    new_answered: float
    old_precision: float | None = None
    new_precision: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def recalibrate(
    old: Sequence[Sequence[Hit]],
    new: Sequence[Sequence[Hit]],
    threshold: float,
    relevant: Sequence[Set[str]] | None = None,
) -> Recalibrated:
    """The threshold on ``new`` that stands for ``threshold`` on ``old``.

    Without judgements it lets through as many hits (quantile matching); with them, as many as it
    can while the share of relevant ones among them is at least the old one. It lies half way
    between two scores, so that rounding changes nothing. Equal scores stand on one side.

    Args:
        old, new: Hits of the same queries, as many of each.
        relevant: Ids of each query's answers.

    Raises:
        ConfigError: No hit passes the old threshold and there are judgements, or there are no hits.
    """
    before, after = _pooled(old), _pooled(new)
    if not len(before) or not len(after):
        raise ConfigError("no hits to compare: give more queries")
    passing = int((before >= threshold).sum())
    by, old_precision, new_precision = "share", None, None
    chosen: float | None
    if relevant is None:
        wanted = round(passing / len(before) * len(after))
        chosen = _letting_through(after, wanted)
    else:
        by = "precision"
        if not passing:
            raise ConfigError(f"no hit of these queries scores {threshold:g} or more: nothing to "
                              "measure the precision of")  # fmt: skip
        right = _judged(old, relevant)
        old_precision = float(right[before >= threshold].mean())
        good = _judged(new, relevant)
        chosen = _as_precise(after, good, old_precision)
        if chosen is not None:
            new_precision = float(good[after >= chosen].mean())
    return Recalibrated(
        threshold, chosen, by, len(old), len(before), passing / len(before),
        0.0 if chosen is None else float((after >= chosen).mean()), _answered(old, threshold),
        0.0 if chosen is None else _answered(new, chosen), old_precision, new_precision,
    )  # fmt: skip


def relevant_of(qrels: Mapping[str, Mapping[str, int]], queries: Sequence[str]) -> list[set[str]]:
    """Of each query (by id), the passages judged to answer it."""
    return [{id for id, grade in qrels.get(query, {}).items() if grade >= 1} for query in queries]


def _pooled(hits: Sequence[Sequence[Hit]]) -> Scores:
    return np.array([hit.score for own in hits for hit in own], float)


def _judged(hits: Sequence[Sequence[Hit]], relevant: Sequence[Set[str]]) -> npt.NDArray[np.bool_]:
    return np.array([
        hit.chunk in answers for own, answers in zip(hits, relevant, strict=True) for hit in own
    ], bool)  # fmt: skip


def _answered(hits: Sequence[Sequence[Hit]], threshold: float) -> float:
    return float(np.mean([any(hit.score >= threshold for hit in own) for own in hits]))


def _letting_through(scores: Scores, wanted: int) -> float:
    """The threshold that lets through most nearly ``wanted`` of the scores."""
    ordered = np.sort(scores)[::-1]
    ends = _ends(ordered)  # counts that a threshold can let through
    count = int(min(ends, key=lambda end: (abs(end - wanted), end)))
    return _between(ordered, count)


def _as_precise(scores: Scores, good: npt.NDArray[np.bool_], wanted: float) -> float | None:
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], good[order].cumsum()
    fitting = [n for n in _ends(ordered) if n and right[n - 1] / n >= wanted - 1e-12]
    return _between(ordered, max(fitting)) if fitting else None


def _ends(ordered: Scores) -> list[int]:
    """How many of scores in falling order can be above a threshold: no two equal ones parted."""
    inner = np.flatnonzero(ordered[1:] < ordered[:-1]) + 1
    return [0, *inner.tolist(), len(ordered)]


def _between(ordered: Scores, count: int) -> float:
    if count == len(ordered):
        return float(ordered[-1])
    if not count:
        return float(np.nextafter(ordered[0], np.inf))
    return float((ordered[count - 1] + ordered[count]) / 2)
