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
    """One α on the curve: quality on dev, and what it costs in general.

    ``probe_loss``: the largest mean loss on a general probe that counts; ``holds``: whether the
    gate of all of them holds. None where no probe was asked.
    """

    alpha: float
    dev: float
    probe_loss: float | None = None
    holds: bool | None = None
    chosen: bool = False


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

    If none holds, the best on dev is taken, and the verdict will say that it forgets. Of equal dev
    scores the larger α, which is closer to what was trained. α = 0, the base itself, is no
    candidate, and loses nothing.

    Args:
        probe: α -> (mean loss, whether the gate holds), asked of every point; None when no probe
            is asked.

    Returns:
        The chosen point, and the curve with what the probe said and the choice marked.
    """
    if probe is not None:
        asked = [probe(point.alpha) if point.alpha else (0.0, True) for point in curve]
        curve = [
            replace(point, probe_loss=loss, holds=holds)
            for point, (loss, holds) in zip(curve, asked, strict=True)
        ]
    order = sorted(
        (point for point in curve if point.alpha > 0), key=lambda point: (-point.dev, -point.alpha)
    )
    best = next((point for point in order if point.holds is not False), order[0])
    chosen = replace(best, chosen=True)
    return chosen, [chosen if point is best else point for point in curve]
