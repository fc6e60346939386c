"""Test and interval: by hand, against scipy, and calibrated on simulated nulls."""

import itertools

import numpy as np
import pytest
from scipy import stats

from embedtune.evaluation.statistics import (
    Sums,
    bootstrap_t,
    holm,
    score_intervals,
    sign_flip_test,
    sign_flip_tests,
    standard_errors,
    sums_by_group,
)


def test_sums_are_added_up_within_groups():
    sums = sums_by_group([{"a": 1.0, "b": 0.5, "c": 0.25}], {"a": "g2", "b": "g1", "c": "g2"})
    assert sums.values.tolist() == [[0.5, 1.25]]
    assert sums.queries.tolist() == [1, 2]
    assert sums.means[0] == pytest.approx(1.75 / 3)


def test_up_to_fourteen_groups_the_test_is_exact():
    sums = np.array([0.9, -0.1, 0.4, 0.3, 0.2])
    flips = itertools.product([-1, 1], repeat=5)
    extreme = [abs(np.dot(flip, sums)) >= abs(sums.sum()) - 1e-9 for flip in flips]
    assert sign_flip_test(sums, seed=1) == pytest.approx(np.mean(extreme))
    assert sign_flip_test(np.ones(14), seed=1) == pytest.approx(2 / 2**14)


def test_with_more_groups_random_flips_agree_with_scipy():
    sums = np.random.default_rng(3).normal(0.2, 1, 40)
    expected = stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert sign_flip_test(sums, seed=1) == pytest.approx(expected, abs=0.015)


def test_many_tests_at_once_are_as_exact_as_one():
    rng = np.random.default_rng(2)
    sums = rng.normal(0.3, 1, (4, 18))
    sums[0, 10:] = 0  # eight groups that differ: all flips
    together = sign_flip_tests(sums, seed=1)
    assert together[0] == sign_flip_test(sums[0, :10], seed=1)
    assert together[1:].tolist() == [sign_flip_test(row, seed=1) for row in sums[1:]]


def test_the_interval_reaches_equally_far_on_both_sides_of_the_mean():
    sums = Sums(np.random.default_rng(1).exponential(size=(2, 12)), np.arange(1.0, 13))
    ends = bootstrap_t(sums, seed=1)
    assert ends.mean(axis=1) == pytest.approx(sums.means)
    assert (ends[:, 1] - ends[:, 0] > 2 * standard_errors(sums)).all()


def test_the_standard_error_of_equal_groups_is_that_of_their_means():
    values = np.random.default_rng(4).normal(size=(2, 9))
    expected = stats.sem(values / 4, axis=1)
    assert standard_errors(Sums(values, np.full(9, 4.0))) == pytest.approx(expected)


def test_no_difference_has_p_one_and_an_interval_without_width():
    assert sign_flip_test(np.zeros(20), seed=1) == 1.0
    [[low, high]] = bootstrap_t(Sums(np.zeros((1, 20)), np.ones(20)), seed=1)
    assert low == high == 0


def test_one_group_says_nothing():
    [[low, high]] = bootstrap_t(Sums(np.array([[0.5]]), np.array([9.0])), seed=1)
    assert (low, high) == (-np.inf, np.inf)


def test_a_score_near_one_has_an_interval_that_says_so():
    """Nine of ten groups at 1: bootstrap-t alone knows no bound, which would read as chance."""
    values = np.array([[1.0] * 9 + [0.8]])
    assert not np.isfinite(bootstrap_t(Sums(values, np.ones(10)), seed=1)).all()
    [[low, high]] = score_intervals(Sums(values, np.ones(10)), seed=1)
    assert 0.9 < low < 0.98 <= high <= 1
    assert score_intervals(Sums(values[:, :1], np.ones(1)), seed=1).tolist() == [[0, 1]]


def test_the_interval_agrees_with_students_t_for_many_normal_groups():
    values = np.random.default_rng(5).normal(0.1, 0.2, 400)
    [[low, high]] = bootstrap_t(Sums(values[None], np.ones(400)), seed=1)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.003)


def test_more_resamples_than_fit_one_block_give_the_same_kind_of_interval():
    values = np.random.default_rng(5).normal(0.1, 0.2, (2, 900))
    [[low, high], _] = bootstrap_t(Sums(values, np.ones(900)), seed=1, resamples=4000)
    expected = stats.t.interval(0.95, 899, values[0].mean(), stats.sem(values[0]))
    assert (low, high) == pytest.approx(expected, abs=0.002)


def test_the_same_seed_gives_the_same_interval():
    sums = Sums(np.random.default_rng(1).normal(size=(3, 25)), np.arange(1.0, 26))
    assert bootstrap_t(sums, seed=7).tolist() == bootstrap_t(sums, seed=7).tolist()


@pytest.mark.parametrize("groups", [10, 20, 60])
def test_equal_systems_are_rarely_called_better(groups: int):
    """Differences of nDCG are lumpy, mostly 0, and alike within a document."""
    rng = np.random.default_rng(groups)
    steps = np.array([0, 0, 0, 0.37, -0.37, 0.5, -0.5, 1, -1]) / 2
    repeats = 400
    better = outside = 0
    for repeat in range(repeats):
        sizes = rng.integers(1, 8, groups)
        values = [rng.choice(steps, size).sum() + size * rng.normal(0, 0.05) for size in sizes]
        sums = Sums(np.array([values]), sizes.astype(float))
        [[low, high]] = bootstrap_t(sums, seed=1, resamples=1000)
        sure = groups >= 20 or sign_flip_test(sums.values[0], seed=repeat, resamples=1000) < 0.05
        better += low > 0 and sure
        outside += low > 0 or high < 0
    # 2.5 % and 5 % are due; three standard errors on top
    assert better / repeats <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / repeats)
    assert outside / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.parametrize(
    ("shape", "groups", "correlation"), [("losses", 10, 0.3), ("ranks", 20, 0.6)]
)
def test_in_simulated_test_sets_the_bars_are_kept(shape, groups, correlation):
    """A small part of benchmarks/verdict.py: equal systems, unequal groups, alike within."""
    from verdict import measure

    cell = measure(shape, groups, correlation, 0.0, 300)
    assert cell.better <= 0.035 + 3 * np.sqrt(0.035 * 0.965 / 300)
    assert 0.93 - 3 * np.sqrt(0.07 * 0.93 / 300) <= cell.coverage < 1


def test_a_planted_gain_is_found():
    from verdict import measure

    assert measure("ranks", 20, 0.0, 0.05, 100).better >= 0.9 - 3 * np.sqrt(0.09 / 100)


@pytest.mark.parametrize("shape", ["ranks", "losses", "gains", "heavy", "sparse", "rare losses"])
def test_simulated_differences_are_as_they_are_said_to_be(shape):
    from verdict import distribution, drawn_sets

    for mean in (0.0, 0.05):
        values = distribution(shape, mean)
        assert values.mean() == pytest.approx(mean, abs=1e-3)
        assert values.std() == pytest.approx(0.25, abs=2e-3)
    sets = list(drawn_sets(distribution(shape), 0.6, 40, 400))
    squares = np.mean([(sums.values**2).sum(1).mean() for sums in sets])
    # a sum over n queries has the variance n (1 + (n - 1) correlation) of one
    due = np.mean([(n * (1 + (n - 1) * 0.6)).sum() for n in (sums.queries for sums in sets)])
    assert squares / 0.25**2 == pytest.approx(due, rel=0.15)


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"only": 0.2}) == {"only": 0.2}
