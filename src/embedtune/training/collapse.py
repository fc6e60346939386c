"""Whether a model's vectors still tell texts apart: their mean cosine and effective rank."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

SAMPLE = 64  # texts; more would tell little more, and cost as much as steps
NARROW = 0.5  # of the way from the base's mean cosine to 1: closer together is worth a warning
SHRUNK = 0.25  # of the base's effective rank


@dataclass(frozen=True, slots=True)
class Spread:
    """How far apart the vectors of different texts are."""

    mean_cosine: float  # over all pairs of different texts
    effective_rank: float  # exp of the entropy of the spectrum (Roy and Vetterli 2007, EUSIPCO)


def spread_of(vectors: npt.NDArray[np.float32]) -> Spread:
    """The spread of (n, dimension) vectors of different texts, two at least."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.maximum(lengths, 1e-12)).astype(np.float64)
    n = len(units)
    total = units.sum(axis=0)
    mean_cosine = float((total @ total - n) / (n * (n - 1)))
    spectrum = np.linalg.svd(units - units.mean(axis=0), compute_uv=False)
    shares = spectrum / max(spectrum.sum(), 1e-12)
    shares = shares[shares > 1e-12]
    return Spread(mean_cosine, float(np.exp(-(shares * np.log(shares)).sum())))


class Watch:
    """Measures the spread over a fixed sample of texts, and warns once when it collapses.

    Args:
        embed: Texts -> vectors, by the model as it is at that moment.
    """

    def __init__(
        self,
        texts: Sequence[str],
        embed: Callable[[Any, Sequence[str]], npt.NDArray[np.float32]],
        base: Any,
    ) -> None:
        distinct = sorted(set(texts))
        step = max(1, len(distinct) // SAMPLE)
        self._texts = distinct[::step][:SAMPLE]
        self._embed = embed
        self._warned = False
        self.base = self.measure(base)

    def measure(self, model: Any) -> Spread:
        return spread_of(self._embed(model, self._texts))

    def __call__(self, model: Any, step: int) -> Spread:
        now = self.measure(model)
        limit = self.base.mean_cosine + NARROW * (1 - self.base.mean_cosine)
        low = now.effective_rank < SHRUNK * self.base.effective_rank
        if not self._warned and (now.mean_cosine > limit or low):
            self._warned = True
            log.warning(
                "step %d: the model's vectors collapse: mean cosine of different passages "
                "%.2f (base %.2f), effective rank %.0f (base %.0f); lower "
                "training.learning_rate or raise training.temperature",
                step, now.mean_cosine, self.base.mean_cosine,
                now.effective_rank, self.base.effective_rank,
            )  # fmt: skip
        return now
