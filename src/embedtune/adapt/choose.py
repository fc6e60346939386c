"""Which adapter: kind, steps, rank and strength, by what they do for queries that were held out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np

from embedtune.adapt.lesson import Change, Lesson, descent, low_rank, regression
from embedtune.embed import Matrix
from embedtune.embed.adapted import Adapter

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
RIDGES = (3.0, 10.0)  # of the closed form
DESCENTS = ((3.0, 0.05), (30.0, 0.03))  # ridge and temperature
STEPS = (1, 2, 4, 8, 16, 32)
RANKS = (8, 32, 128)

Values = Mapping[str, float]  # query id -> value of the deciding metric


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is made. ``rank`` None: all directions that the queries support."""

    kind: Literal["identity", "closed form", "contrastive"]
    ridge: float = 0.0
    temperature: float = 0.0
    steps: int = 0
    rank: int | None = None
    strength: float = 0.0  # how far from identity to what was fitted


IDENTITY = Recipe("identity")


@dataclass(frozen=True, slots=True)
class Fitting:
    """A lesson, and how adapters do on queries that are not in it."""

    lesson: Lesson
    score: Callable[[Adapter], Values]


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe with what it is worth for each held-out query."""

    recipe: Recipe
    values: Values

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))


def try_all(fittings: Sequence[Fitting], rank: int | None) -> list[Trial]:
    """Every recipe on every fitting (one, or a fold each), identity first."""
    found: dict[Recipe, dict[str, float]] = {IDENTITY: {}}
    for fitting in fittings:
        found[IDENTITY].update(fitting.score(adapter_of(None, fitting.lesson, None, 0)))
        for recipe, change in _changes(fitting.lesson):
            _try(fitting, replace(recipe, rank=rank), change, found)
    return [Trial(recipe, values) for recipe, values in found.items()]


def try_ranks(fittings: Sequence[Fitting], best: Recipe) -> list[Trial]:
    """The best recipe at lower ranks."""
    found: dict[Recipe, dict[str, float]] = {}
    for fitting in fittings:
        change = _change(best, fitting.lesson)
        for rank in RANKS:
            if rank < min(fitting.lesson.pairs, fitting.lesson.queries.shape[1]):
                _try(fitting, replace(best, rank=rank), change, found)
    return [Trial(recipe, values) for recipe, values in found.items()]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best mean; of equal ones the least change: the weaker, then of lower rank."""
    return min(
        trials,
        key=lambda trial: (
            -round(trial.mean, 12), trial.recipe.strength, trial.recipe.rank or np.inf,
            trial.recipe.steps, trial.recipe.ridge,
        ),
    )  # fmt: skip


def fit(taught: Lesson, recipe: Recipe) -> Adapter:
    """The adapter that the recipe makes of a lesson."""
    change = None if recipe.kind == "identity" else _change(recipe, taught)
    return adapter_of(change, taught, recipe.rank, recipe.strength)


def adapter_of(change: Change | None, taught: Lesson, rank: int | None, strength: float) -> Adapter:
    """The adapter of a change; None: identity."""
    dimension = taught.queries.shape[1]
    if change is None:
        return Adapter(
            np.zeros((dimension, 0), np.float32),
            np.zeros((0, dimension), np.float32),
            taught.similarity,
        )
    down, up = low_rank(change, taught, rank)
    return Adapter(np.float32(strength) * down, up, taught.similarity)


def _try(
    fitting: Fitting, recipe: Recipe, change: Change, found: dict[Recipe, dict[str, float]]
) -> None:
    whole = _parts(fitting.lesson, recipe, change)
    for strength in STRENGTHS:
        adapter = Adapter(np.float32(strength) * whole[0], whole[1], fitting.lesson.similarity)
        key = replace(recipe, strength=strength)
        found.setdefault(key, {}).update(fitting.score(adapter))


def _parts(taught: Lesson, recipe: Recipe, change: Change) -> tuple[Matrix, Matrix]:
    if recipe.rank is not None:
        return low_rank(change, taught, recipe.rank)
    return change.astype(np.float32), np.eye(len(change), dtype=np.float32)  # the same, sooner


def _changes(taught: Lesson) -> Iterator[tuple[Recipe, Change]]:
    for ridge in RIDGES:
        yield Recipe("closed form", ridge), regression(taught, ridge)
    for ridge, temperature in DESCENTS:
        path = enumerate(descent(taught, ridge, temperature), 1)
        for steps, change in islice(path, STEPS[-1]):
            if steps in STEPS:
                yield Recipe("contrastive", ridge, temperature, steps), change


def _change(recipe: Recipe, taught: Lesson) -> Change:
    if recipe.kind == "closed form":
        return regression(taught, recipe.ridge)
    path = descent(taught, recipe.ridge, recipe.temperature)
    return next(islice(path, recipe.steps - 1, None))
