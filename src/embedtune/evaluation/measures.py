"""Figures of rows that are no ranking: what the measures of the formats share.

Triplets, scored pairs, labelled pairs and labelled texts each have a module; all give ``Measures``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix
from embedtune.errors import IntegrityError
from embedtune.evaluation.statistics import CONFIDENCE, score_intervals, sums_by_group

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]
Weighted = Callable[[Values], Values]  # (r, n) weights of n rows -> (r,) figures

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
DECIMALS = 9  # similarities closer than this are equal, as in search
RESAMPLES = 2_000
BLOCK = 2_000_000  # weights held at once while resampling
ROWS = 8_192  # pairs of vectors compared at once


@dataclass(frozen=True, slots=True)
class Measures:
    """One system on the rows of one split. Names of figures are those of sentence-transformers.

    ``intervals``: figure -> (low, high), 95 %, rows of one group resampled together. ``dims``:
    dimension -> figures, for Matryoshka models. ``n`` counts the rows.
    """

    name: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    n: int
    groups: int
    dims: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The shape that ``SystemScores`` has: ``{name, metrics, dims, intervals}``."""
        return {
            "name": self.name,
            "metrics": dict(self.metrics),
            "dims": {str(dim): dict(metrics) for dim, metrics in self.dims.items()},
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
        }


def similarities_of_rows(left: Matrix, right: Matrix) -> dict[str, Values]:
    """Similarity -> (n,) of each row of ``left`` with the same row of ``right``; distances are
    negative, so that more is more alike."""
    found = {name: np.empty(len(left)) for name in SIMILARITIES}
    for first in range(0, len(left), ROWS):
        part = slice(first, first + ROWS)
        one, other = left[part].astype(np.float64), right[part].astype(np.float64)
        dots = (one * other).sum(axis=1)
        norms = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
        gaps = np.abs(one - other)
        found["cosine"][part] = dots / np.maximum(norms, 1e-30)
        found["dot"][part] = dots
        found["euclidean"][part] = -np.sqrt((gaps * gaps).sum(axis=1))
        found["manhattan"][part] = -gaps.sum(axis=1)
    return {name: values.round(DECIMALS) for name, values in found.items()}


def plain(figure: Weighted, n: int, name: str) -> float:
    """The figure of all ``n`` rows, each counted once.

    Raises:
        IntegrityError: It is not defined: the system finds all pairs equally alike.
    """
    value = float(figure(np.ones((1, n)))[0])
    if not np.isfinite(value):
        raise IntegrityError(f"{name} is not defined: all pairs are equally alike to the system")
    return value


def intervals_of_means(
    values: Mapping[str, Values], groups: Sequence[str], *, seed: int
) -> dict[str, Interval]:
    """95 % intervals of means of values between 0 and 1, by group."""
    rows = list(map(str, range(len(groups))))
    sums = sums_by_group(
        [dict(zip(rows, own, strict=True)) for own in values.values()],
        dict(zip(rows, groups, strict=True)),
    )
    ends = score_intervals(sums, seed=seed)
    return {name: (float(low), float(high)) for name, (low, high) in zip(values, ends, strict=True)}


def intervals_of(
    figures: Mapping[str, Weighted], groups: Sequence[str], limits: Interval, *, seed: int
) -> dict[str, Interval]:
    """95 % intervals of figures that are no means: percentile bootstrap over groups.

    With fewer than two groups nothing is known, and the interval is ``limits``.
    """
    names, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    count = len(names)
    if count < 2:
        return dict.fromkeys(figures, limits)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Values]] = {name: [] for name in figures}
    size = max(1, BLOCK // len(place))
    for first in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - first)
        picks = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        counts = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)
        weights = counts[:, place].astype(np.float64)
        for name, figure in figures.items():
            drawn[name].append(figure(weights))
    found = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]  # a resample may hold one class, or one score, only
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else limits
        found[name] = (float(max(low, limits[0])), float(min(high, limits[1])))
    return found
