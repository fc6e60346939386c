"""Test, interval and correction for paired scores whose unit is a group of queries.

Queries about one document rise and fall together, so groups, not queries, are resampled and
flipped. All functions are exact or seeded: the same input gives the same figures.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

EXACT_GROUPS = 14  # up to here all 2^G sign flips are tried
RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK = 2_000_000  # counts held at once while resampling
ROUNDING = 1e-12


class Sums(NamedTuple):
    """Per group, in a fixed order: (m, G) sums of m measures, and (G,) numbers of queries."""

    values: Values
    queries: Values

    @property
    def groups(self) -> int:
        return len(self.queries)

    @property
    def means(self) -> Values:
        """(m,) means over queries, not over groups."""
        return self.values.sum(axis=1) / self.queries.sum()


def sums_by_group(measures: Sequence[Mapping[str, float]], groups: Mapping[str, str]) -> Sums:
    """Add up measures (each: query id -> value, all of the same queries) within groups."""
    queries = sorted(measures[0])
    names = sorted({groups[query] for query in queries})
    place = {name: index for index, name in enumerate(names)}
    places = np.array([place[groups[query]] for query in queries])
    values = np.array([[measure[query] for query in queries] for measure in measures])
    return Sums(
        np.stack([np.bincount(places, row, len(names)) for row in values]),
        np.bincount(places, minlength=len(names)).astype(np.float64),
    )


def sign_flip_test(sums: Values, *, seed: int, resamples: int = RESAMPLES) -> float:
    """Two-sided p of (G,) group sums of differences; see ``sign_flip_tests``."""
    return float(sign_flip_tests(sums[None], seed=seed, resamples=resamples)[0])


def sign_flip_tests(sums: Values, *, seed: int, resamples: int = RESAMPLES) -> Values:
    """(m,) two-sided p of (m, G) group sums of differences, under flips of their signs.

    All 2^G flips up to 14 groups, else ``resamples`` random ones, the observed one included
    (Fisher's randomisation test; Smucker, Allan & Carterette, CIKM 2007, by group here).
    Groups without any difference say nothing and are left out.
    """
    told = np.abs(sums) > ROUNDING
    few = told.sum(axis=1) <= EXACT_GROUPS
    p = np.ones(len(sums))
    for row in np.flatnonzero(few):
        p[row] = _exact_test(sums[row, told[row]])
    if not few.all():
        p[~few] = _random_test(sums[~few], seed, resamples)
    return p


def _least_extreme(sums: Values) -> Values:
    return np.abs(sums.sum(axis=-1)) - ROUNDING * sums.shape[-1]


def _exact_test(sums: Values) -> float:
    flips = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
    return float((np.abs((1 - 2 * flips) @ sums) >= _least_extreme(sums)).mean())


def _random_test(sums: Values, seed: int, resamples: int) -> Values:
    rng = np.random.default_rng(seed)
    observed = _least_extreme(sums)
    extreme = np.zeros(len(sums))
    for size in _blocks(resamples, sum(sums.shape)):
        signs = rng.integers(0, 2, (size, sums.shape[1]), dtype=np.int8)
        extreme += (np.abs((1.0 - 2.0 * signs) @ sums.T) >= observed).sum(axis=0)
    return (extreme + 1) / (resamples + 1)


def standard_errors(sums: Sums) -> Values:
    """(m,) standard errors of the means, by group, linearised as ``bootstrap_t`` scales by."""
    return _ratio(sums.values.sum(1), sums.queries.sum(), _squares(sums), sums.groups)[1]


def bootstrap_t(
    sums: Sums, *, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> npt.NDArray[np.float64]:
    """(m, 2) intervals of the means: symmetric bootstrap-t over groups (Hall 1988, Biometrika 75).

    The mean is a ratio of two sums over groups (of values, of queries), and so is its standard
    error linearised. The interval reaches as far as the 95 % quantile of |t| on either side: with
    two quantiles of t (Efron & Tibshirani 1993, ch. 12) it covered 91 % where groups of unequal
    size are alike within. With fewer than two groups nothing is known: it is [-inf, inf].
    """
    m, groups = sums.values.shape
    if groups < 2:
        return np.tile([-np.inf, np.inf], (m, 1))
    means, errors = _ratio(sums.values.sum(1), sums.queries.sum(), _squares(sums), groups)
    # bootstrap-t of a constant: no error to scale with, and none needed
    still = errors <= ROUNDING
    # per group: values, queries, and the products the standard error needs
    columns = np.concatenate(
        [sums.values, sums.values**2, sums.values * sums.queries,
         sums.queries[None], sums.queries[None] ** 2]
    ).T  # fmt: skip
    draws = []
    for weights in _weights(groups, resamples, seed):
        drawn = weights @ columns
        values, squares, products = drawn[:, :m].T, drawn[:, m : 2 * m].T, drawn[:, 2 * m : 3 * m].T
        queries, queries_squared = drawn[:, -2], drawn[:, -1]
        drawn_means, drawn_errors = _ratio(
            values, queries, (squares, products, queries_squared), groups
        )
        gap = np.abs(drawn_means - means[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(gap <= ROUNDING, 0.0, gap / drawn_errors)
        draws.append(t)
    far = np.quantile(np.concatenate(draws, axis=1), confidence, axis=1, method="inverted_cdf")
    with np.errstate(invalid="ignore"):
        reach = np.where(still, 0.0, far * errors)
    return np.stack([means - reach, means + reach], axis=1)


def score_intervals(sums: Sums, *, seed: int) -> npt.NDArray[np.float64]:
    """(m, 2) intervals of mean scores between 0 and 1.

    Near 1 most groups are alike, and many resamples have no error to scale with: bootstrap-t then
    gives no bound at all. There the plain percentile bootstrap stands in. With one group: [0, 1].
    """
    ends = bootstrap_t(sums, seed=seed)
    if sums.groups > 1 and not np.isfinite(ends).all():
        tail = (1 - CONFIDENCE) / 2
        drawn = np.concatenate(
            [(sums.values @ weights.T) / (sums.queries @ weights.T)
             for weights in _weights(sums.groups, RESAMPLES, seed)],
            axis=1,
        )  # fmt: skip
        plain = np.quantile(drawn, [tail, 1 - tail], axis=1).T
        ends = np.where(np.isfinite(ends), ends, plain)
    return np.clip(ends, 0, 1)


def _squares(sums: Sums) -> tuple[Values, Values, Values]:
    return (
        (sums.values**2).sum(1),
        (sums.values * sums.queries).sum(1),
        np.asarray((sums.queries**2).sum()),
    )


def _ratio(
    values: Values, queries: Values, squares: tuple[Values, Values, Values], groups: int
) -> tuple[Values, Values]:
    """Means, and their standard errors from the residuals value - mean * queries by group."""
    means = values / queries
    of_values, of_products, of_queries = squares
    residuals = of_values - 2 * means * of_products + means**2 * of_queries
    errors = np.sqrt(np.maximum(residuals, 0) * groups / (groups - 1)) / queries
    return means, np.where(errors <= ROUNDING, 0.0, errors)


def _blocks(total: int, width: int) -> list[int]:
    size = max(1, BLOCK // width)
    return [min(size, total - first) for first in range(0, total, size)]


def _weights(groups: int, resamples: int, seed: int) -> Iterable[Values]:
    """Blocks of (r, G) counts: how often each group is drawn in a resample."""
    if groups * resamples <= BLOCK:
        return [_kept_weights(groups, resamples, seed)]
    rng = np.random.default_rng(seed)
    return (_draw(rng, groups, size) for size in _blocks(resamples, groups))


@functools.lru_cache(maxsize=2)
def _kept_weights(groups: int, resamples: int, seed: int) -> Values:
    return _draw(np.random.default_rng(seed), groups, resamples)


def _draw(rng: np.random.Generator, groups: int, resamples: int) -> Values:
    drawn = rng.integers(0, groups, (resamples, groups))
    drawn += np.arange(resamples)[:, None] * groups
    counts = np.bincount(drawn.ravel(), minlength=resamples * groups)
    return counts.reshape(resamples, groups).astype(np.float64)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p by name (Holm 1979): significant at level a when the adjusted p is below a."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = largest
    return adjusted
