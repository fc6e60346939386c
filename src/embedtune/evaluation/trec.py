"""TREC's run files and qrels: rankings and judgements that other tools read and write.

A run has lines of query, ``Q0``, passage, rank, score, name; qrels have query, iteration, passage,
grade. White space parts the cells; ids that hold some are read where tabs part them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import decoded_text, number_in, visible
from embedtune.records import Reject, RetrievalSet
from embedtune.retrieve.order import Ranking, tie_breaker

STAGE = "data"
EXAMPLES = 3
RUN = "query, Q0, passage, rank, score and a name"
QRELS = "query, iteration, passage and a whole-number grade"


# ---- reading


def read_run(path: Path, rejects: list[Reject]) -> dict[str, Ranking]:
    """Query id -> passages, best first by score; equal scores are ordered by a hash of the id, and
    the column of ranks is not looked at (as in trec_eval).

    Args:
        rejects: Gets the lines that cannot be used.

    Raises:
        ConfigError: No such file.
        NothingUsable: No usable line.
    """
    found: dict[str, dict[str, float]] = {}
    for line, cells in _lines(path, 6, RUN, rejects):
        query, _, passage, _, text, _ = cells
        score = number_in(text)
        if score is None:
            told = f"the score is {visible(text, 40)!r}; a number is due"
        elif passage in found.setdefault(query, {}):
            told = f"the passage {visible(passage, 40)} stands twice for this query"
        else:
            found[query][passage] = score
            continue
        rejects.append(_reject(path, line, "run", told, cells))
    _check_any(found, path, rejects)
    return {
        query: sorted(hits.items(), key=lambda hit: (-hit[1], tie_breaker(hit[0])))
        for query, hits in found.items()
        if hits
    }


def read_qrels(path: Path, rejects: list[Reject]) -> dict[str, dict[str, int]]:
    """Query id -> passage id -> grade; grades of 0 and below are not relevant, and are left out.

    Args:
        rejects: Gets the lines that cannot be used.

    Raises:
        ConfigError: No such file.
        NothingUsable: No usable line.
    """
    found: dict[str, dict[str, int]] = {}
    for line, cells in _lines(path, 4, QRELS, rejects):
        query, _, passage, text = cells
        grade = number_in(text)
        first = found.get(query, {}).get(passage)
        if grade is None or grade != int(grade):
            told = f"the grade is {visible(text, 40)!r}; a whole number is due"
        elif first is not None:
            told = f"judged {first} on an earlier line; the first one counts"
        else:
            found.setdefault(query, {})[passage] = int(grade)
            continue
        same = first is not None and grade == first
        rejects.append(_reject(path, line, "qrels", told, cells, unusable=not same))
    _check_any(found, path, rejects)
    relevant = {
        query: {passage: grade for passage, grade in grades.items() if grade > 0}
        for query, grades in found.items()
    }
    return {query: grades for query, grades in relevant.items() if grades}


def check_run(run: Mapping[str, Ranking], data: RetrievalSet, name: str) -> None:
    """Refuse a run over another corpus, or of other queries: its figures would say nothing.

    Raises:
        IntegrityError: Names the ids that the data has not.
    """
    there = {
        "passages": (
            {chunk.id for chunk in data.chunks},
            {passage for ranking in run.values() for passage, _ in ranking},
        ),
        "queries": ({query.id for query in data.queries}, set(run)),
    }
    faults = []
    for what, (known, used) in there.items():
        if strangers := sorted(used - known):
            examples = ", ".join(map(visible, strangers[:EXAMPLES]))
            like = ", ".join(map(visible, sorted(known)[:EXAMPLES]))
            faults.append(
                f"{name}: {len(strangers)} of {len(used)} {what} are not in {data.name}, e.g. "
                f"{examples}; ids there look like {like}"
            )
    if faults:
        raise IntegrityError("; ".join(faults) + "; the run is of other data")


def _lines(
    path: Path, cells: int, expected: str, rejects: list[Reject]
) -> Iterator[tuple[int, list[str]]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    text = decoded_text(path, rejects, STAGE) or ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        parts = line.rstrip("\r").split("\t")
        found = parts if len(parts) == cells else line.split()
        if len(found) == cells:
            yield number, found
        else:
            message = f"{len(found)} cells; expected {expected}, parted by white space"
            rejects.append(_reject(path, number, "cells", message, found))


def _reject(
    path: Path, line: int, code: str, message: str, cells: Sequence[str], unusable: bool = True
) -> Reject:
    return Reject(STAGE, code, message, file=str(path), line=line,
                  excerpt=visible(" ".join(cells)), unusable=unusable)  # fmt: skip


def _check_any(found: Mapping[str, object], path: Path, rejects: Sequence[Reject]) -> None:
    if not any(found.values()):
        own = [reject for reject in rejects if reject.file == str(path)]
        first = f"; the first: {path}:{own[0].line or 1}: {own[0].message}" if own else ""
        raise NothingUsable(f"{path}: no usable line{first}")


# ---- writing


def run_text(rankings: Mapping[str, Sequence[tuple[str, float]]], name: str) -> str:
    """A run file. Tools read scores with 7 digits and order equal ones as they like; so each is
    written a little below the one before it where it would be read as the same."""
    lines = []
    for query, ranking in rankings.items():
        before = np.float32(np.inf)
        for rank, (passage, score) in enumerate(ranking, 1):
            shown = np.float32(score)
            if not shown < before:
                shown = np.nextafter(before, np.float32(-np.inf))
            before = shown
            lines.append((query, "Q0", passage, str(rank), f"{shown:.9g}", name))
    return _joined(lines)


def qrels_text(judgements: Mapping[str, Mapping[str, int]]) -> str:
    """A qrels file."""
    return _joined(
        (query, "0", passage, str(grade))
        for query, grades in judgements.items()
        for passage, grade in grades.items()
    )


def _joined(lines: Sequence[tuple[str, ...]] | Iterator[tuple[str, ...]]) -> str:
    lines = list(lines)
    blank = any(re.search(r"\s", cell) for line in lines for cell in line)
    return "".join(("\t" if blank else " ").join(line) + "\n" for line in lines)
