"""Merging a tuned model with its base: W = α · tuned + (1 − α) · base.

Linear interpolation keeps much of the gain and gives back much of what was forgotten
(Wortsman et al. 2022, arXiv:2109.01903; LM-Cocktail, Xiao et al. 2023, arXiv:2311.13534).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embedtune.errors import IntegrityError

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class MergePoint:
    """One α on the curve: quality on dev, and mean loss on the general probe."""

    alpha: float
    dev: float
    probe_loss: float | None
    holds: bool  # the probe's gate


def merge_into(target: Any, base: Any, tuned: Any, alpha: float) -> None:
    """Give ``target`` the weights α · tuned + (1 − α) · base.

    All three are SentenceTransformers of one architecture; ``target`` may be any of them.
    Weights that are not floating point (counters, position ids) come from ``tuned``.

    Raises:
        IntegrityError: The models differ in the names or shapes of their weights.
    """
    import torch

    theirs, ours = base.state_dict(), tuned.state_dict()
    odd = sorted(theirs.keys() ^ ours.keys()) or [
        name for name in ours if ours[name].shape != theirs[name].shape
    ]
    if odd:
        raise IntegrityError(f"cannot merge: the models differ in {', '.join(odd[:3])}")
    with torch.no_grad():
        merged = {
            name: torch.lerp(theirs[name].float(), weights.float(), alpha).to(weights.dtype)
            if weights.is_floating_point()
            else weights.clone()
            for name, weights in ours.items()
        }
        target.load_state_dict(merged)


def choose_alpha(points: Sequence[MergePoint]) -> MergePoint:
    """The best dev score among the points that hold the probe's gate (all, if none does).

    Of equal scores the larger α, which is closer to what was trained. α = 0, the base itself,
    is no candidate for shipping; it is chosen only when nothing else was measured.
    """
    moved = [point for point in points if point.alpha > 0] or list(points)
    holding = [point for point in moved if point.holds] or moved
    return max(holding, key=lambda point: (point.dev, point.alpha))


def merge_curve(
    base: Any,
    tuned: Any,
    scratch: Any,
    measure: Callable[[Any, float], MergePoint],
    alphas: Sequence[float] = ALPHAS,
) -> list[MergePoint]:
    """Measure the merge at each α; ``scratch`` is a third model of the same kind to write to."""
    points = []
    for alpha in alphas:
        merge_into(scratch, base, tuned, alpha)
        points.append(measure(scratch, alpha))
    return points
