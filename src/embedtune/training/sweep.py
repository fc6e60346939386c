"""A small search for the recipe: successive halving (Jamieson and Talwalkar 2016,
arXiv:1502.07943), within a time that is told beforehand.

Each rung judges the candidates that are left on more data than the rung before, or on other data;
the better half goes on. What is compared at the end has been judged on all rungs.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedtune.training.merge import ALPHAS
from embedtune.training.plan import TrainingSettings, peak_rate

log = logging.getLogger(__name__)

TEMPERATURES = (0.05, 0.03)
FASTER = 2  # times the usual learning rate; or half of it, for twice as long


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe. ``negatives`` is how many mined ones a pair is trained with; without a batch size
    it is what the settings make of it."""

    learning_rate: float
    epochs: float
    temperature: float
    negatives: int
    batch_size: int | None = None

    def settings(self, settings: TrainingSettings) -> TrainingSettings:
        """``settings`` with this recipe in the place of what was ``auto``."""
        own = {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "temperature": self.temperature,
            "negatives_per_pair": self.negatives,
        }
        if self.batch_size is not None:
            own["batch_size"] = self.batch_size
        return settings.model_copy(update=own)

    def __str__(self) -> str:
        negatives = f", {self.negatives} negatives" if self.negatives else ""
        batch = f", batches of {self.batch_size}" if self.batch_size else ""
        return (
            f"learning rate {self.learning_rate:g}, {self.epochs:g} epochs, "
            f"temperature {self.temperature:g}{batch}{negatives}"
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate judged on one rung: mean score on its ``queries`` at each merge weight."""

    candidate: Candidate
    rung: int
    queries: int
    scores: tuple[tuple[float, float], ...]  # (alpha, score)
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """``score`` is the best there is at any merge weight but 0, ``alpha`` that weight."""
        alpha, score = best_of([self], self.candidate, self.rung + 1)
        return {
            "candidate": asdict(self.candidate),
            "rung": self.rung,
            "queries": self.queries,
            "score": score,
            "alpha": alpha,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """The recipe, its merge weight, and how it was found."""

    candidate: Candidate
    alpha: float
    score: float
    curve: tuple[tuple[float, float], ...]  # (alpha, mean score) of the recipe
    trials: tuple[Trial, ...]
    seconds: float
    complete: bool  # False: the time was over before all rungs were done

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "trials": [trial.as_json() for trial in self.trials]}


def candidates(settings: TrainingSettings, epochs: float, negatives: int) -> list[Candidate]:
    """The recipes worth trying, the usual one first; what ``settings`` fix stays fixed.

    Args:
        epochs: The usual number for data of this size.
        negatives: How many a pair may bring (0: none were mined).
    """
    first = Candidate(
        peak_rate(settings),
        epochs if settings.epochs == "auto" else float(settings.epochs),
        TEMPERATURES[0] if settings.temperature == "auto" else settings.temperature,
        negatives,
    )
    found = [first]
    if settings.learning_rate == "auto":
        found.append(replace(first, learning_rate=FASTER * first.learning_rate))
    if settings.temperature == "auto":
        found += [replace(first, temperature=degree) for degree in TEMPERATURES[1:]]
    if settings.learning_rate == "auto":
        longer = FASTER * first.epochs if settings.epochs == "auto" else first.epochs
        found.append(replace(first, learning_rate=first.learning_rate / FASTER, epochs=longer))
    if settings.negatives_per_pair == "auto" and negatives:
        found.append(replace(first, negatives=0))
    return list(dict.fromkeys(found))


def search(
    tried: Sequence[Candidate],
    rungs: int,
    trial: Callable[[Candidate, int], Trial],
    *,
    minutes: float,
    reserve: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """The best candidate by the mean over its rungs; of equal ones the first.

    A trial is begun only if the time for it, as the trials before suggest, is left. The first
    candidate is always judged once.

    Args:
        trial: Trains and judges a candidate on a rung.
        reserve: Of the time, so many times the longest trial is kept for what comes after.
    """
    begin, left = clock(), list(tried)
    done: list[Trial] = []
    complete = True
    for rung in range(rungs):
        for candidate in left:
            kept = reserve * max((one.seconds for one in done), default=0.0)
            used = clock() - begin + kept
            if done and used + expected_seconds(done, candidate, rung) > 60 * minutes:
                complete = False
                break
            done.append(trial(candidate, rung))
        if not complete:
            break
        left = sorted(left, key=lambda own: -best_of(done, own, rung + 1)[1])
        left = left[: max(2, math.ceil(len(left) / 2))]
    return outcome(done, tried, clock() - begin, complete)


def outcome(
    done: Sequence[Trial],
    tried: Sequence[Candidate],
    seconds: float,
    complete: bool,
) -> Chosen:
    """What the trials say: the best of those that were judged on most."""
    depths = {own: sum(one.candidate == own for one in done) for own in tried}
    # compared is what two have been judged on; alone, the first has only itself
    most, *others = sorted(depths.values(), reverse=True)
    shared = (others and others[0]) or most
    finalists = [own for own in tried if depths[own] >= shared]
    best = max(finalists, key=lambda own: (best_of(done, own, shared)[1], -tried.index(own)))
    alpha, score = best_of(done, best, shared)
    curve = tuple(_curve(done, best, shared))
    return Chosen(best, alpha, score, curve, tuple(done), seconds, complete)


def best_of(done: Sequence[Trial], candidate: Candidate, rungs: int) -> tuple[float, float]:
    """The merge weight with the best mean, and that mean. The base itself is no candidate."""
    points = [point for point in _curve(done, candidate, rungs) if point[0] > 0]
    return max(points, key=lambda point: (point[1], point[0]))


def _curve(
    done: Sequence[Trial], candidate: Candidate, rungs: int
) -> Iterator[tuple[float, float]]:
    """Each merge weight, and the mean over the queries of a candidate's first rungs."""
    own = [one for one in done if one.candidate == candidate and one.rung < rungs]
    queries = sum(one.queries for one in own)
    for alpha, _ in own[0].scores:
        yield alpha, sum(dict(one.scores)[alpha] * one.queries for one in own) / queries


def expected_seconds(done: Sequence[Trial], candidate: Candidate, rung: int) -> float:
    """Seconds that a trial will take: those of the others, by the epochs."""
    same = [one for one in done if one.rung == rung] or done
    return max(one.seconds / one.candidate.epochs for one in same) * candidate.epochs


def alphas(settings: TrainingSettings) -> tuple[float, ...]:
    """The merge weights that a trial is judged at."""
    if settings.merge == "auto":
        return ALPHAS
    return (1.0,) if settings.merge == "off" else (float(settings.merge),)
