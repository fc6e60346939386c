"""Pairs of texts with a score, or with yes and no (1 and 0): does similarity follow it?"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix
from embedtune.errors import NothingUsable
from embedtune.evaluation.measures import (
    Interval,
    Values,
    Weighted,
    intervals_of,
    plain,
    similarities_of_rows,
)


def is_yes_or_no(scores: Sequence[float]) -> bool:
    """Whether all scores are 0 or 1, which makes them labels."""
    return set(scores) <= {0.0, 1.0}


def check_scores(scores: Sequence[float], name: str) -> None:
    """Refuse rows nothing can be said of.

    Raises:
        NothingUsable: Fewer than two different scores.
    """
    if len(set(scores)) < 2:
        found = f"all {len(scores)} scores are {scores[0]:g}" if len(scores) else "no scored pairs"
        raise NothingUsable(f"{name}: {found}; at least 2 different ones are needed")


def measure_scored(
    left: Matrix, right: Matrix, scores: Values, groups: Sequence[str], *, seed: int | None
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Pearson's and Spearman's correlation of each similarity with the scores; their intervals by
    group (none without seed)."""
    figures = {}
    for name, similarity in similarities_of_rows(left, right).items():
        figures[f"pearson_{name}"] = pearson(similarity, scores)
        figures[f"spearman_{name}"] = spearman(similarity, scores)
    values = {name: plain(figure, len(scores), name) for name, figure in figures.items()}
    if seed is None:
        return values, {}
    return values, intervals_of(figures, groups, (-1.0, 1.0), seed=seed)


def measure_labelled_pairs(
    left: Matrix, right: Matrix, labels: Values, groups: Sequence[str], *, seed: int | None
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Average precision, best F1 and best accuracy by each similarity; their intervals by group
    (none without seed).

    The thresholds of the last two (``cosine_f1_threshold`` …) are chosen on the rows they are told
    of, so both figures flatter; those of distances are distances, and pairs below them are alike.
    """
    figures: dict[str, Weighted] = {}
    thresholds: dict[str, float] = {}
    for name, similarity in similarities_of_rows(left, right).items():
        steps = Steps(similarity, labels)
        figures[f"{name}_ap"] = steps.average_precision
        for figure, values in (("f1", steps.f1), ("accuracy", steps.accuracy)):
            figures[f"{name}_{figure}"] = best_of(values)
            found = steps.threshold(int(values(np.ones((1, len(labels))))[0].argmax()))
            sign = -1 if name in ("euclidean", "manhattan") else 1
            thresholds[f"{name}_{figure}_threshold"] = sign * found
    values = {name: plain(figure, len(labels), name) for name, figure in figures.items()}
    ordered = dict(sorted({**values, **thresholds}.items()))
    if seed is None:
        return ordered, {}
    return ordered, intervals_of(figures, groups, (0.0, 1.0), seed=seed)


# ---- correlations of weighted rows


def pearson(one: Values, other: Values) -> Weighted:
    one, other = one - one.mean(), other - other.mean()
    return lambda weights: _correlation(weights, one[None], other[None])


def spearman(one: Values, other: Values) -> Weighted:
    """Pearson's of the ranks; equal values share the mean of their ranks."""
    of_one, of_other = _ranks(one), _ranks(other)
    return lambda weights: _correlation(weights, of_one(weights), of_other(weights))


def _correlation(weights: Values, one: Values, other: Values) -> Values:
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = one - (weights * one).sum(axis=1, keepdims=True) / total
        right = other - (weights * other).sum(axis=1, keepdims=True) / total
        spread = (weights * left**2).sum(axis=1) * (weights * right**2).sum(axis=1)
        return np.where(spread > 0, (weights * left * right).sum(axis=1) / np.sqrt(spread), np.nan)


def _ranks(values: Values) -> Callable[[Values], Values]:
    """(r, n) weights -> (r, n) mean ranks of the rows, each standing there ``weight`` times."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(place[order]) > 0])

    def ranks(weights: Values) -> Values:
        alike = np.add.reduceat(weights[:, order], starts, axis=1)
        return (alike.cumsum(axis=1) - alike / 2)[:, place]

    return ranks


# ---- thresholds


class Steps:
    """What each threshold between different similarities lets through, for any weights of rows.

    The first step lets nothing through, the last one all.
    """

    def __init__(self, similarity: Values, labels: Values) -> None:
        self._order = np.argsort(-similarity, kind="stable")
        self._sorted = similarity[self._order]
        self._labels = labels[self._order]
        self._ends = np.flatnonzero(np.r_[np.diff(self._sorted) != 0, True])

    def threshold(self, step: int) -> float:
        """Half way to the next similarity; pairs at least as alike are let through."""
        if step == 0:
            return float(np.nextafter(self._sorted[0], np.inf))
        last = self._sorted[self._ends[step - 1]]
        if step == len(self._ends):
            return float(last)
        return float((last + self._sorted[self._ends[step]]) / 2)

    def _counted(self, weights: Values) -> tuple[Values, Values]:
        """(r, steps) weight let through, of those labelled 1 and of all."""
        own = weights[:, self._order]
        through = [
            np.pad(part.cumsum(axis=1)[:, self._ends], ((0, 0), (1, 0)))
            for part in (own * self._labels, own)
        ]
        return through[0], through[1]

    def average_precision(self, weights: Values) -> Values:
        """Sum over the steps of precision times the gain in recall."""
        right, through = self._counted(weights)
        precision = np.divide(right, through, out=np.zeros_like(right), where=through > 0)
        gains = (np.diff(right, axis=1) * precision[:, 1:]).sum(axis=1)
        return _or_nan(gains, right[:, -1])

    def f1(self, weights: Values) -> Values:
        right, through = self._counted(weights)
        positives = right[:, -1:]
        return _or_nan(2 * right, through + positives)

    def accuracy(self, weights: Values) -> Values:
        right, through = self._counted(weights)
        positives, total = right[:, -1:], through[:, -1:]
        return (right + (total - positives) - (through - right)) / total


def best_of(values: Callable[[Values], Values]) -> Weighted:
    return lambda weights: values(weights).max(axis=1)


def _or_nan(part: Values, whole: npt.NDArray[np.float64]) -> Values:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
