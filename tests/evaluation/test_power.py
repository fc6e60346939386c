"""What a test set can show: beside the textbook, and in test sets made to be looked at."""

import numpy as np
import pytest
from scipy import stats

from embedtune.evaluation.power import power
from embedtune.evaluation.statistics import Sums, bootstrap_t


def equal_groups(groups: int, mean: float, seed: int = 0, size: float = 4.0) -> Sums:
    """Groups of one size; the mean and the standard deviation of their means are exact."""
    values = np.random.default_rng(seed).normal(size=groups)
    values = (values - values.mean()) / values.std(ddof=1) * 0.2 + mean
    return Sums(values[None] * size, np.full(groups, size))


def test_many_equal_groups_give_the_figure_of_the_textbook():
    told = power(equal_groups(400, 0.0), min_gain=0.01, seed=1)
    assert told.error == pytest.approx(0.2 / 20)
    textbook = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.01
    assert told.smallest_gain == pytest.approx(textbook, rel=0.03)


@pytest.mark.parametrize("gain", [0.01, 0.02, 0.05])
def test_the_queries_needed_are_those_of_the_textbook(gain):
    told = power(equal_groups(100, gain / 3), min_gain=gain, seed=1)
    assert told.assumed == gain
    groups = ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.2 / gain) ** 2
    assert told.groups == pytest.approx(groups, rel=0.06)
    assert told.groups * 4 <= told.queries <= 1.1 * told.groups * 4


def test_the_difference_seen_is_assumed_where_it_is_worth_a_change():
    told = power(equal_groups(30, -0.03), min_gain=0.01, seed=1)
    assert told.assumed == pytest.approx(0.03)
    assert told.groups > 30


@pytest.mark.parametrize("groups", [12, 40])
def test_a_gain_of_the_size_named_is_found_about_as_often_as_said(groups):
    """Medians over pilots of the gain named, then test sets with that gain."""
    rng = np.random.default_rng(groups)
    sizes = rng.integers(2, 9, groups).astype(float)

    def drawn(count):
        return Sums(rng.normal(0, 0.1, (count, groups)) * sizes
                    + rng.normal(0, 0.25, (count, groups)) * np.sqrt(sizes), sizes)  # fmt: skip

    named = [
        power(Sums(row[None], sizes), min_gain=0.01, seed=1).smallest_gain
        for row in drawn(24).values
    ]
    lows = bootstrap_t(drawn(600), seed=1)[:, 0]
    assert 0.66 <= (lows + np.median(named) > 0).mean() <= 0.85


def test_no_fewer_groups_are_asked_for_than_a_verdict_takes():
    told = power(equal_groups(5, 0.6), min_gain=0.01, seed=1, least_groups=10)
    assert told.groups == 10
    assert told.queries == 40


def test_nothing_is_said_where_nothing_differs_and_no_end_where_it_is_out_of_reach():
    assert power(Sums(np.zeros((1, 20)), np.ones(20)), min_gain=0.01, seed=1) is None
    assert power(Sums(np.array([[0.3]]), np.ones(1)), min_gain=0.01, seed=1) is None
    told = power(equal_groups(30, 1e-6), min_gain=0.0, seed=1)
    assert (told.groups, told.queries) == (None, None)


def test_where_few_groups_differ_at_all_the_figures_stay_finite():
    values = np.zeros((1, 20))
    values[0, :2] = 0.5, 0.4
    assert not np.isfinite(bootstrap_t(Sums(values, np.ones(20)), seed=1)).all()
    told = power(Sums(values, np.ones(20)), min_gain=0.01, seed=1)
    assert 0 < told.smallest_gain < 1
