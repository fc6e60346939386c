"""The best model so far on disk, the history of a training, and when it is in vain to go on."""

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import read_json, write_json, write_jsonl
from embedtune.training.collapse import Watch
from embedtune.training.lora import save_plain
from embedtune.training.merge import average_into

log = logging.getLogger(__name__)

DULL = 3  # steps without any gradient
AVERAGE = "average"  # folder of the mean of several steps' models
MOST_AVERAGED = 8  # models kept for it: those of the last evaluations
TRACKERS = {"tensorboard": "pip install 'embedtune[track]'", "trackio": "pip install trackio"}


class BestModel:
    """Called at each evaluation: scores the model, keeps the best (or the last) on disk.

    ``folder/score.json`` names step, score and the subfolder that holds the model; it is
    replaced after the new model is whole, so that a kill leaves the old or the new best.

    Args:
        average_from: From this step on, every model is kept, for ``average`` to take the mean of.
    """

    def __init__(
        self,
        folder: Path,
        score: Callable[[Any], float],
        watch: Watch,
        *,
        last: bool = False,
        average_from: int | None = None,
    ) -> None:
        self.folder, self.score, self.watch, self.last = folder, score, watch, last
        self.average_from = average_from

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        value = float(self.score(model))
        if not math.isfinite(value):
            raise IntegrityError(f"step {steps}: the model's dev score is {value}")
        better = self.last or value > best_so_far(self.folder)["score"]
        if better or self._averaged(steps):
            name = f"step-{steps}"
            shutil.rmtree(self.folder / name, ignore_errors=True)
            save_plain(model, self.folder / name)
            if better:
                write_json(
                    self.folder / "score.json", {"step": steps, "score": value, "folder": name}
                )
            best = best_so_far(self.folder)["folder"]
            latest = sorted(filter(self._averaged, map(_step_of, self.folder.glob("step-*"))))
            kept = {best, *(f"step-{step}" for step in latest[-MOST_AVERAGED:])}
            for other in self.folder.glob("step-*"):
                if other.name not in kept:
                    shutil.rmtree(other)
        spread = self.watch(model, steps)
        model.train()
        return {
            "dev": value,
            "mean_cosine": round(spread.mean_cosine, 6),
            "effective_rank": round(spread.effective_rank, 3),
        }

    def _averaged(self, step: int) -> bool:
        return self.average_from is not None and step >= self.average_from

    def average(self, model: Any, load: Callable[[Path], Any], *, always: bool) -> tuple[int, ...]:
        """Keep the mean of the models from ``average_from`` on (Izmailov et al. 2018,
        arXiv:1803.05407) where its score is the best, or ``always``. Called again after a kill, it
        does the same.

        Args:
            model: What is given the mean; no adapters are in it.

        Returns:
            The steps averaged; none where the mean is not kept, or there are not two.
        """
        steps = sorted(filter(self._averaged, map(_step_of, self.folder.glob("step-*"))))
        if len(steps) < 2:
            return ()
        average_into(model, [load(self.folder / f"step-{step}") for step in steps])
        check_finite(model, steps[-1])
        value, best = float(self.score(model)), best_so_far(self.folder)
        if not (always or value > best["score"] or best["folder"] == AVERAGE):
            return ()
        shutil.rmtree(self.folder / AVERAGE, ignore_errors=True)
        save_plain(model, self.folder / AVERAGE)
        write_json(
            self.folder / "score.json", {"step": steps[-1], "score": value, "folder": AVERAGE}
        )
        return tuple(steps)


def _step_of(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def best_so_far(folder: Path) -> dict[str, Any]:
    """Step, score and folder name of the best model; score -inf when there is none yet."""
    path = folder / "score.json"
    return read_json(path) if path.exists() else {"step": 0, "score": -math.inf, "folder": ""}


def publish(folder: Path, final: Path) -> dict[str, Any]:
    """Move the best model to ``final``; gives what ``best_so_far`` said of it."""
    chosen = best_so_far(folder)
    shutil.rmtree(final, ignore_errors=True)
    (folder / chosen["folder"]).rename(final)
    return chosen


def take_back(folder: Path, final: Path) -> None:
    """Undo ``publish`` where a kill came before checkpoints and ``folder`` were removed: what is
    done again from the last checkpoint has to find the best model."""
    name = best_so_far(folder)["folder"]
    if name and final.is_dir() and not (folder / name).exists():
        final.rename(folder / name)


def patience_is_over(patience: int | None, best: Path, evaluated: Iterable[int]) -> bool:
    """Whether so many of the ``evaluated`` steps came after the best one."""
    if patience is None:
        return False
    best_step = best_so_far(best)["step"]
    worse = sum(step > best_step for step in evaluated)
    if worse >= patience:
        log.warning("no better dev score for %d evaluations: stopping early", worse)
    return worse >= patience


class Health:
    """Watches the losses and gradients of a training, step by step.

    Args:
        begun: Steps that were done before, where it goes on from a checkpoint.
    """

    def __init__(self, learning_rate: float, begun: int = 0) -> None:
        self.learning_rate = learning_rate
        self.dull = 0
        # losses with a margin reach 0 in time; from the start it is a fault
        self.lively = begun >= DULL

    def check(self, step: int, loss: float, rows: Sequence[int] = ()) -> None:
        """``rows`` are the places of the batch in the training data, where they are known.

        Raises:
            IntegrityError: The loss is not finite.
        """
        if not math.isfinite(loss):
            raise IntegrityError(
                f"step {step}{_batch(rows)}: the loss is {loss}; nothing is published. Lower "
                f"training.learning_rate (now {self.learning_rate:g})"
            )

    def check_gradient(self, step: int, norm: float, rows: Sequence[int] = ()) -> None:
        """Called with the gradient's ``norm`` before it can reach a weight.

        A loss may round to 0 where passages are far apart and the temperature is low; then there
        still is a gradient.

        Raises:
            IntegrityError: It is not finite, or was 0 in all of the first three steps.
        """
        if not math.isfinite(norm):
            raise IntegrityError(
                f"step {step}{_batch(rows)}: the gradient is {norm}; nothing is published. Lower "
                f"training.learning_rate (now {self.learning_rate:g})"
            )
        self.lively = self.lively or norm > 0
        self.dull += 1
        if not self.lively and self.dull >= DULL:
            raise IntegrityError(
                f"step {step}: the gradient has been 0 for {DULL} steps, so nothing is learnt: all "
                "passages of a batch answer each of its queries (copies?), the weights are "
                "frozen, or the passages are too far apart for training.temperature"
            )


def check_finite(model: Any, step: int, rows: Sequence[int] = ()) -> None:
    """Raises IntegrityError where a weight of ``model`` is not finite."""
    import torch

    for name, weights in model.state_dict().items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise IntegrityError(
                f"step {step}{_batch(rows)}: weights of {name} are not finite; nothing is "
                "published. Lower training.learning_rate"
            )


def _batch(rows: Sequence[int]) -> str:
    return f", rows {', '.join(map(str, rows[:8]))}{' …' if len(rows) > 8 else ''}" if rows else ""


class History:
    """Rows with step, epoch and either loss and learning_rate, or dev and the spread of the
    vectors (see ``collapse``); on disk as they come.

    Args:
        trackers: Further places that are told (see ``TRACKERS``).
    """

    def __init__(
        self, file: Path, rows: Iterable[Mapping[str, float]] = (), trackers: Sequence[str] = ()
    ) -> None:
        self.file = file
        self.rows: list[Mapping[str, float]] = list(rows)
        self._tell = [_tracker(name, file.parent) for name in trackers]

    def add(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)
        write_jsonl(self.file, self.rows)
        for tell in self._tell:
            tell(row)

    @property
    def evaluated(self) -> list[int]:
        """The steps that were evaluated on dev, the base's (0) left out."""
        return [int(row["step"]) for row in self.rows if "dev" in row and row["step"]]


def check_trackers(names: Iterable[str]) -> None:
    """Raises ConfigError where a tracker is not installed."""
    import importlib.util

    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            [f"training.report_to: {name} is not installed: {TRACKERS[name]}" for name in missing]
        )


def _tracker(name: str, folder: Path) -> Callable[[Mapping[str, float]], None]:
    if name == "trackio":
        import trackio

        trackio.init(project="embedtune", name=folder.name)
        return lambda row: trackio.log(dict(row), step=int(row["step"]))
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def tell(row: Mapping[str, float]) -> None:
        for key in row.keys() - {"step", "epoch"}:
            writer.add_scalar(key, row[key], int(row["step"]))
        writer.flush()

    return tell
