"""The larger search, over scores that are made up, so that its outcome can be worked out."""

import importlib.util
import math

import pytest

from embedtune.errors import ConfigError
from embedtune.training.sweep import Candidate, Trial
from embedtune.training.tpe import Space, check_installed, search_larger

USUAL = Candidate(5e-5, 4.0, 0.05, 4, 32)
ALL = frozenset({"learning_rate", "epochs", "temperature", "batch_size", "negatives"})


class Killed(Exception):
    """Stands for a kill."""


class Bench:
    """Scores that are best at a learning rate of 1e-4 without negatives; each trial takes a
    second. Trials are kept, as the pipeline keeps them."""

    def __init__(self, most: int = 10**9) -> None:
        self.now, self.asked, self.most = 0.0, [], most
        self.known: dict[tuple[Candidate, int], Trial] = {}
        self.made = 0

    def trial(self, candidate: Candidate, rung: int) -> Trial:
        self.asked.append((candidate, rung))
        if (candidate, rung) not in self.known:
            if self.made == self.most:
                raise Killed
            self.made += 1
            self.now += 1
            away = abs(math.log(candidate.learning_rate / 1e-4)) + candidate.negatives / 4
            scores = ((0.0, 0.99), (0.6, 0.8 - away / 10 + rung / 100), (1.0, 0.1))
            self.known[candidate, rung] = Trial(candidate, rung, 10, scores, 1.0)
        return self.known[candidate, rung]

    def search(self, space: Space, seconds: float, rungs: int = 3, reserve: float = 0.0):
        return search_larger(
            space, rungs, self.trial, minutes=seconds / 60, seed=7, reserve=reserve,
            clock=lambda: self.now,
        )  # fmt: skip


def space(free: frozenset[str] = ALL, pairs: int = 200) -> Space:
    return Space(USUAL, free, 4, pairs)


def test_the_usual_recipe_is_judged_first_and_the_best_is_found():
    bench = Bench()
    chosen = bench.search(space(), 150)
    assert bench.asked[0] == (USUAL, 0)
    assert chosen.candidate.negatives <= 1
    assert 7e-5 <= chosen.candidate.learning_rate <= 1.5e-4
    assert chosen.alpha == 0.6
    assert chosen.complete
    assert bench.now <= 150
    judged = [trial.candidate for trial in chosen.trials]
    assert judged.count(chosen.candidate) == 3
    assert {judged.count(own) for own in judged} > {3}  # others were given up before


def test_after_a_kill_the_same_is_asked_and_nothing_is_judged_twice():
    calm = Bench()
    whole = calm.search(space(), 60)
    killed = Bench(most=25)
    with pytest.raises(Killed):
        killed.search(space(), 60)
    again = Bench()
    again.known = killed.known
    found = again.search(space(), 35)  # so much of the minute is left
    assert again.asked[:25] == calm.asked[:25]
    assert again.asked == calm.asked[: len(again.asked)]
    assert found.trials[:25] == whole.trials[:25]
    assert len(found.trials) == len(whole.trials)


def test_what_is_fixed_stays_fixed_and_batches_suit_the_pairs():
    bench = Bench()
    bench.search(space(frozenset({"temperature"})), 30)
    for candidate, _ in bench.asked:
        assert (candidate.learning_rate, candidate.epochs) == (5e-5, 4.0)
        assert (candidate.negatives, candidate.batch_size) == (4, 32)
        assert 0.02 <= candidate.temperature <= 0.1
    assert space(pairs=70).batches == (16, 32)
    assert space(pairs=600).batches == (16, 32, 64, 128)


def test_few_choices_come_to_an_end():
    bench = Bench()
    chosen = bench.search(space(frozenset({"negatives"})), 1e9)
    assert chosen.complete
    assert bench.now <= 3 * 5
    assert chosen.candidate.negatives == 0


def test_time_is_kept_and_the_first_is_always_judged():
    bench = Bench()
    chosen = bench.search(space(), 0.5)
    assert bench.asked == [(USUAL, 0)]
    assert (chosen.candidate, chosen.complete) == (USUAL, False)
    bench = Bench()
    bench.search(space(), 10, reserve=5.0)
    assert bench.now <= 5


def test_adapters_are_tried_at_higher_rates():
    bench = Bench()
    usual = Candidate(2e-4, 4.0, 0.05, 0)
    bench.search(Space(usual, frozenset({"learning_rate"}), 0, 200, adapters=True), 30)
    rates = [candidate.learning_rate for candidate, _ in bench.asked]
    assert min(rates) >= 8e-5
    assert max(rates) > 2e-4


def test_a_missing_extra_is_told_with_its_install_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'embedtune\[hpo\]'"):
        check_installed()


def test_a_trial_tells_its_best_weight():
    trial = Trial(USUAL, 1, 30, ((0.0, 0.9), (0.4, 0.5), (1.0, 0.5)), 2.0)
    assert trial.as_json() == {
        "candidate": {"learning_rate": 5e-5, "epochs": 4.0, "temperature": 0.05, "negatives": 4,
                      "batch_size": 32},
        "rung": 1, "queries": 30, "score": 0.5, "alpha": 1.0, "seconds": 2.0,
    }  # fmt: skip
