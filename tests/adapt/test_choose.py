"""The choice among adapters."""

from dataclasses import replace

import numpy as np

from embedtune.adapt import Fitting, Recipe, Trial, best_of, fit, try_all, try_ranks
from embedtune.adapt.choose import IDENTITY, RANKS, STRENGTHS
from embedtune.adapt.lesson import lesson


def trial(score: float, strength: float, rank: int | None = None) -> Trial:
    return Trial(Recipe("closed form", 3.0, rank=rank, strength=strength), {"q": score})


def test_of_equal_scores_the_least_change_is_taken():
    identity = Trial(IDENTITY, {"q": 0.5})
    assert best_of([trial(0.5, 0.2), identity]) is identity
    low = trial(0.7, 0.4, 8)
    assert best_of([identity, trial(0.7, 0.4), low, trial(0.7, 1.0)]) is low
    best = trial(0.8, 1.0)
    assert best_of([identity, low, best]) is best


def swapped(count: int = 60) -> Fitting:
    """Queries whose two halves are swapped in the passages that answer them; held-out ones too."""
    rng = np.random.default_rng(2)
    queries = rng.normal(size=(2 * count, 8)).astype(np.float32)
    passages = np.concatenate([queries[:, 4:], queries[:, :4]], axis=1)
    none = [np.zeros(0, np.int64)] * count
    taught = lesson(queries[:count], passages[:count], range(count), none, "cosine")

    def score(adapter):
        alike = adapter(queries[count:]) @ passages[count:].T
        lengths = np.linalg.norm(passages[count:], axis=1)
        first = (alike / lengths).argmax(axis=1)
        return {str(place): float(row == place) for place, row in enumerate(first)}

    return Fitting(taught, score)


def test_a_map_that_is_there_is_found_and_carries_over():
    fitting = swapped()
    trials = try_all([fitting], None)
    assert trials[0].recipe == IDENTITY
    assert trials[0].mean < 0.2
    best = best_of(trials)
    assert best.mean > 0.9
    assert np.mean(list(fitting.score(fit(fitting.lesson, best.recipe)).values())) == best.mean
    assert {own.recipe.strength for own in trials[1:]} == set(STRENGTHS)


def test_lower_ranks_are_tried_where_they_are_lower():
    fitting = swapped()
    best = best_of(try_all([fitting], None))
    assert not try_ranks([fitting], best.recipe)  # 8 dimensions have no rank below the least
    wide = replace(fitting, lesson=lesson(
        np.eye(40, dtype=np.float32), np.roll(np.eye(40, dtype=np.float32), 1, axis=0), range(40),
        [np.zeros(0, np.int64)] * 40, "cosine",
    ), score=lambda adapter: {"q": float(adapter.rank)})  # fmt: skip
    found = {own.recipe.rank: own.mean for own in try_ranks([wide], best.recipe)}
    assert found == {rank: rank for rank in RANKS if rank < 40}
