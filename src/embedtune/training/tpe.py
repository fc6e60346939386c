"""A larger search for the recipe, by Optuna: tree-structured Parzen estimators (Bergstra et al.
2011, NeurIPS), those pruned that fall behind the median of the others.

Nothing of Optuna's is kept on disk: what it asks for follows from the seed and the scores it was
told, so a search that was killed asks for the same again, and is answered by the trials kept.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from embedtune.errors import ConfigError
from embedtune.training.sweep import Candidate, Chosen, Trial, best_of, expected_seconds, outcome

RATES = (2e-5, 2e-4)
TEMPERATURES = (0.02, 0.1)
SPANS = (0.5, 1.0, 2.0, 3.0)  # times the usual number of epochs
BATCHES = (16, 32, 64, 128)
FEWEST_BATCHES = 4  # in an epoch
AT_RANDOM = 8  # candidates before the estimators have a say
MOST = 500  # questions to Optuna: where few choices are free, all have been asked by then
INSTALL = "pip install 'embedtune[hpo]'"


@dataclass(frozen=True, slots=True)
class Space:
    """What may vary.

    Attributes:
        usual: Asked first; what is not free stays as it has it.
        free: Fields of a candidate.
        negatives: The most that a pair brings.
        pairs: Those of the smallest rung.
        adapters: Whether adapters are trained, which need higher rates.
    """

    usual: Candidate
    free: frozenset[str]
    negatives: int
    pairs: int
    adapters: bool = False

    @property
    def batches(self) -> tuple[int, ...]:
        """Of the usual number of pairs and others that are few enough, each once."""
        found = {size for size in BATCHES if FEWEST_BATCHES * size <= self.pairs}
        return tuple(sorted(found | ({self.usual.batch_size} if self.usual.batch_size else set())))

    def candidate(self, asked: Any) -> Candidate:  # an Optuna trial
        """What Optuna suggests, learning rate and temperature to two digits."""
        usual, lift = self.usual, 4 if self.adapters else 1
        low, high = (lift * rate for rate in RATES)
        found: dict[str, Any] = {}
        if "learning_rate" in self.free:
            found["learning_rate"] = _short(
                asked.suggest_float("learning_rate", low, high, log=True)
            )
        if "epochs" in self.free:
            found["epochs"] = usual.epochs * asked.suggest_categorical("span", SPANS)
        if "temperature" in self.free:
            found["temperature"] = _short(
                asked.suggest_float("temperature", *TEMPERATURES, log=True)
            )
        if "batch_size" in self.free:
            found["batch_size"] = asked.suggest_categorical("batch_size", self.batches)
        if "negatives" in self.free:
            found["negatives"] = asked.suggest_int("negatives", 0, self.negatives)
        fixed = {name: getattr(usual, name) for name in Candidate.__slots__}
        return Candidate(**{**fixed, **found})

    def question(self) -> dict[str, Any]:
        """The usual candidate, as Optuna is told to ask it."""
        usual = {name: getattr(self.usual, name) for name in self.free}
        if usual.pop("epochs", None):
            usual["span"] = 1.0
        return usual


def search_larger(
    space: Space,
    rungs: int,
    trial: Callable[[Candidate, int], Trial],
    *,
    minutes: float,
    seed: int,
    reserve: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """As ``sweep.search``, but each candidate follows from the scores of those before.

    A candidate is judged on rung after rung unless it is pruned. ``complete`` is whether there
    were enough of them that not all were drawn at random.

    Raises:
        ConfigError: Optuna is not installed.
    """
    check_installed()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=AT_RANDOM // 2),
    )
    study.enqueue_trial(space.question())
    begin, done = clock(), list[Trial]()
    tried: dict[Candidate, bool] = {}  # whether it was judged on all rungs

    def time_is_over(candidate: Candidate, rung: int) -> bool:
        kept = reserve * max((one.seconds for one in done), default=0.0)
        wanted = expected_seconds(done, candidate, rung) if done else 0.0
        return bool(done) and clock() - begin + kept + wanted > 60 * minutes

    over = False
    for _ in range(MOST):
        asked = study.ask()
        candidate = space.candidate(asked)
        known = candidate in tried
        for rung in range(rungs if not known else 0):
            if over := time_is_over(candidate, rung):
                break
            done.append(trial(candidate, rung))
            tried[candidate] = rung + 1 == rungs
            asked.report(best_of(done, candidate, rung + 1)[1], rung)
            if not tried[candidate] and asked.should_prune():
                break
        if over:
            break
        if tried[candidate]:
            study.tell(asked, best_of(done, candidate, rungs)[1])
        else:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
    complete = not over or len(tried) > AT_RANDOM
    return outcome(done, list(tried), clock() - begin, complete)


def check_installed() -> None:
    """Raises ConfigError, with what to do, where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"training.search: optuna is not installed: {INSTALL}")


def _short(value: float) -> float:
    return float(f"{value:.2g}")
