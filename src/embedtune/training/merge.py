"""Merging a tuned model with its base: W = α · tuned + (1 − α) · base.

Linear interpolation keeps much of the gain and gives back much of what was forgotten
(Wortsman et al. 2022, arXiv:2109.01903; LM-Cocktail, Xiao et al. 2023, arXiv:2311.13534).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedtune.errors import IntegrityError

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class MergePoint:
    """One α on the curve: quality on dev, and mean loss on the general probe.

    ``probe_loss`` and ``holds`` (the probe's gate) are None where the probe was not asked.
    """

    alpha: float
    dev: float
    probe_loss: float | None = None
    holds: bool | None = None


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


def average_into(target: Any, models: Sequence[Any]) -> None:
    """Give ``target`` the mean of the models' weights (Wortsman et al. 2022, arXiv:2203.05482).

    Raises:
        IntegrityError: The models differ in the names or shapes of their weights.
    """
    for count, model in enumerate(models, 1):
        merge_into(target, target if count > 1 else model, model, 1 / count)


def merge_curve(
    base: Any,
    tuned: Any,
    scratch: Any,
    dev_score: Callable[[Any, float], float],
    alphas: Sequence[float] = ALPHAS,
) -> list[MergePoint]:
    """The dev score of the merge at each α; ``scratch`` is a third model of the same kind."""
    points = []
    for alpha in alphas:
        merge_into(scratch, base, tuned, alpha)
        points.append(MergePoint(alpha, dev_score(scratch, alpha)))
    return points


def choose_alpha(
    curve: Sequence[MergePoint], probe: Callable[[float], tuple[float, bool]] | None
) -> tuple[MergePoint, list[MergePoint]]:
    """The best dev score among the points that hold the probe's gate.

    The probe is asked from the best point downwards until one holds; if none does, the best on
    dev is taken, and the verdict will say that it forgets. Of equal dev scores the larger α, which
    is closer to what was trained. α = 0, the base itself, is no candidate.

    Args:
        probe: α -> (mean loss, whether the gate holds); None when there is no probe.

    Returns:
        The chosen point, and the curve with what the probe said.
    """
    order = sorted(
        (point for point in curve if point.alpha > 0), key=lambda point: (-point.dev, -point.alpha)
    )
    if probe is None:
        return order[0], list(curve)
    known = {point.alpha: point for point in curve}
    for point in order:
        loss, holds = probe(point.alpha)
        known[point.alpha] = replace(point, probe_loss=loss, holds=holds)
        if holds:
            return known[point.alpha], list(known.values())
    return known[order[0].alpha], list(known.values())
