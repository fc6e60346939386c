"""What a test set can show: the smallest gain, and how many queries would settle a verdict."""

import bisect
import math
from collections.abc import Callable

from embedtune.evaluation.statistics import ROUNDING, Sums, bootstrap_t, standard_errors
from embedtune.results import Power

POWER = 0.8
WIDTH = 1.96  # standard errors that a 95 % interval of very many groups reaches
MANY_QUERIES = 1_000_000


def power(sums: Sums, *, min_gain: float, seed: int, least_groups: int = 2) -> Power | None:
    """What the differences of one comparison say about a test set like theirs.

    The smallest gain is the one whose interval would lie above 0 in 80 % of such test sets, two
    sides, 5 %: the reach of the interval, and as much again as 80 % of means stay within, given
    that the reach varies too. Assumed: further groups would be as large and as spread as these;
    the interval narrows with the square root of their number, and what it reaches beyond 1.96
    standard errors falls with their number; groups of unequal size count as (Σn)²/Σn² equal ones
    (Kish 1965). In simulated test sets of 10 to 60 groups (benchmarks/verdict.py) the smallest gain
    was found in 66 to 80 % instead of 80 %, and with the groups said to be needed a gain of 0.05 in
    51 to 73 % where queries of a group are alike: few groups show too little of their spread, so
    take the number needed for the least it can be.

    Args:
        sums: (1, G) sums of differences.
        min_gain: A smaller difference than this is not worth looking for: it is assumed instead.
        least_groups: What would settle it is never fewer groups than this.

    Returns:
        None where nothing differs, or all groups alike.
    """
    groups, queries = sums.groups, float(sums.queries.sum())
    mean = abs(float(sums.means[0]))
    error = float(standard_errors(sums)[0]) if groups > 1 else 0.0
    if error <= ROUNDING:
        return None
    [(low, high)] = bootstrap_t(sums, seed=seed)
    even = queries**2 / float((sums.queries**2).sum()) / groups  # 1 where all are of one size
    reach = float(high - low) / 2 / error
    if not math.isfinite(reach):  # too few groups differ at all: as if they were normal
        reach = _quantile(even * groups, 0.975)

    def shown(count: int) -> float:
        own = WIDTH + (reach - WIDTH) * groups / count
        spread = math.sqrt(1 + own**2 / (2 * _freedom(even * count)))
        return error * math.sqrt(groups / count) * (own + _quantile(even * count, POWER) * spread)

    assumed = max(mean, min_gain)
    needed = _fewest(shown, assumed, groups, round(MANY_QUERIES * groups / queries))
    if needed is not None:
        needed = max(needed, least_groups)
    return Power(
        error=error,
        smallest_gain=shown(groups),
        assumed=assumed,
        groups=needed,
        queries=None if needed is None else _rounded_up(needed * queries / groups),
    )


def _fewest(shown: Callable[[int], float], assumed: float, groups: int, most: int) -> int | None:
    """The least number of groups above ``groups`` for which ``shown`` is at most ``assumed``."""
    counts = range(groups + 1, max(most, groups + 1) + 1)
    place = bisect.bisect_left(counts, True, key=lambda count: shown(count) <= assumed)
    return counts[place] if place < len(counts) else None


def _freedom(groups: float) -> float:
    return max(1.0, groups - 1)


def _quantile(groups: float, share: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(_freedom(groups), share))


def _rounded_up(value: float) -> int:
    """Two significant digits: more would claim more than is known."""
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
