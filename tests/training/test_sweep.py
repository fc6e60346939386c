"""The search for a recipe, over scores that are made up, so that its outcome can be worked out."""

import pytest

from embedtune.training.plan import TrainingSettings
from embedtune.training.sweep import Candidate, Trial, alphas, candidates, search


def named(rate: float, epochs: float = 1.0) -> Candidate:
    return Candidate(rate, epochs, 0.05, 0)


class Bench:
    """Trials with known scores; a clock that each moves by its seconds."""

    def __init__(self, scores, seconds=1.0):
        self.scores, self.seconds, self.now, self.asked = scores, seconds, 0.0, []

    def trial(self, candidate, rung):
        self.asked.append((candidate.learning_rate, rung))
        self.now += self.seconds * candidate.epochs
        score = self.scores[candidate.learning_rate][rung]
        return Trial(candidate, rung, 10, ((0.0, 0.99), (0.6, score), (1.0, score - 0.1)),
                     self.seconds * candidate.epochs)  # fmt: skip

    def search(self, tried, rungs, minutes=1e9):
        return search(tried, rungs, self.trial, minutes=minutes, clock=lambda: self.now)


FOUR = [named(1), named(2), named(3), named(4)]


def test_the_better_half_goes_on_and_the_best_mean_wins():
    bench = Bench({1: [0.5, 0.6, 0.6], 2: [0.4, 0, 0], 3: [0.6, 0.4, 0.5], 4: [0.3, 0, 0]})
    chosen = bench.search(FOUR, 3)
    assert bench.asked == [(1, 0), (2, 0), (3, 0), (4, 0), (3, 1), (1, 1), (1, 2), (3, 2)]
    assert chosen.candidate == named(1)  # 1.7 / 3 against 1.5 / 3
    assert (chosen.alpha, chosen.score) == (0.6, pytest.approx(1.7 / 3))
    assert chosen.complete


def test_the_base_itself_is_no_candidate():
    chosen = Bench({1: [0.5]}).search([named(1)], 1)
    assert chosen.alpha == 0.6


def test_of_equal_ones_the_first_is_taken():
    bench = Bench({1: [0.5, 0.5], 2: [0.5, 0.5]})
    assert bench.search([named(2), named(1)], 2).candidate == named(2)


def test_no_trial_is_begun_that_the_time_would_not_hold():
    bench = Bench({n: [n / 10] * 3 for n in (1, 2, 3, 4)}, seconds=60)
    chosen = bench.search(FOUR, 3, minutes=5.5)
    assert bench.now == 300
    assert not chosen.complete
    # the second rung was begun with one alone: what counts is the first
    assert chosen.candidate == named(4)
    assert chosen.score == pytest.approx(0.4)


def test_time_is_kept_for_what_comes_after():
    bench = Bench({1: [0.1], 2: [0.2], 3: [0.3]}, seconds=60)
    tried = [named(1), named(2), named(3)]
    chosen = search(tried, 1, bench.trial, minutes=4, reserve=1.5, clock=lambda: bench.now)
    assert bench.asked == [(1, 0), (2, 0)]  # a third would leave 60 of 90 seconds
    assert chosen.candidate == named(2)


def test_longer_trainings_are_expected_to_take_longer():
    bench = Bench({1: [0.1], 2: [0.2]}, seconds=60)
    chosen = bench.search([named(1), named(2, epochs=4)], 1, minutes=4)
    assert bench.asked == [(1, 0)]
    assert chosen.candidate == named(1)
    assert not chosen.complete


def test_the_first_is_always_judged():
    bench = Bench({1: [0.1], 2: [0.2]}, seconds=6000)
    assert bench.search([named(1), named(2)], 1, minutes=0.1).candidate == named(1)


def test_what_the_settings_fix_stays_fixed():
    free = candidates(TrainingSettings(), 2, 4)
    assert free == [
        Candidate(1e-4, 2, 0.05, 4),
        Candidate(2e-4, 2, 0.05, 4),
        Candidate(1e-4, 2, 0.03, 4),
        Candidate(5e-5, 4, 0.05, 4),
        Candidate(1e-4, 2, 0.05, 0),
    ]
    fixed = TrainingSettings(learning_rate=3e-5, epochs=1, temperature=0.02, negatives_per_pair=2)
    assert candidates(fixed, 2, 2) == [Candidate(3e-5, 1, 0.02, 2)]
    assert candidates(TrainingSettings(learning_rate=3e-5), 2, 0)[0] == Candidate(3e-5, 2, 0.05, 0)


def test_merge_weights_follow_the_setting():
    assert alphas(TrainingSettings(merge="off")) == (1.0,)
    assert alphas(TrainingSettings(merge=0.5)) == (0.5,)
    assert 0.6 in alphas(TrainingSettings())
