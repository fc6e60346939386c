"""The weight of a tuned model in the merge with its base: best on dev, within the probe's gate."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from embedtune.evaluation.evaluate import System
from embedtune.evaluation.forgetting import base_scores, counts, forgetting, open_probes
from embedtune.pipeline.console import Console
from embedtune.records import RetrievalSet
from embedtune.training.merge import ALPHAS, MergePoint, choose_alpha, merge_curve, merge_into
from embedtune.training.train import Trained

log = logging.getLogger(__name__)


def merge_with_base(
    trained: Trained,
    base: str,
    weight: float | Literal["auto", "off"],
    probes: Sequence[RetrievalSet],
    dev_score: Any,
    console: Console,
    folds: Sequence[tuple[float, float]],
    *,
    hold: bool,
    device: str,
    pooling: str,
) -> tuple[float, float, Sequence[MergePoint]]:
    """Merge a trained model with what it began as, in its own folder.

    Args:
        weight: Of the trained model; auto: the best on dev, see ``choose_weight``.

    Returns:
        The weight, the model's score on dev, the scores at the weights looked at (none where
        nothing was merged).
    """
    from embedtune.embed.loading import load_sentence_transformer

    if weight in ("off", 1):
        return 1.0, trained.best_score, ()
    original = load_sentence_transformer(str(trained.base or base), device=device, pooling=pooling)
    tuned, scratch = (
        load_sentence_transformer(str(trained.model), device=device) for _ in range(2)
    )
    if weight == "auto":
        point, curve = choose_weight(
            original, tuned, scratch, trained, probes, dev_score, console, folds, hold
        )
        alpha = point.alpha
        merge_into(scratch, original, tuned, alpha)
        dev = dev_score(scratch) if folds else point.dev  # over folds it is a mean
    else:
        alpha = float(weight)
        merge_into(scratch, original, tuned, alpha)
        dev = dev_score(scratch)
        curve = [MergePoint(alpha, dev)]
    if alpha != 1:
        folder = trained.model.parent / "merged"
        shutil.rmtree(folder, ignore_errors=True)
        scratch.save(str(folder), create_model_card=False)
        shutil.rmtree(trained.model)
        folder.rename(trained.model)
    return alpha, dev, curve


def choose_weight(
    original: Any,
    tuned: Any,
    scratch: Any,
    trained: Trained,
    probes: Sequence[RetrievalSet],
    dev_score: Any,
    console: Console,
    folds: Sequence[tuple[float, float]],
    hold: bool,
) -> tuple[MergePoint, list[MergePoint]]:
    """The chosen point and the whole curve.

    Args:
        original: The base; ``tuned`` is the trained model, ``scratch`` a third of the same kind.
        probes: The general probes; those that do not count for the base are not asked.
        dev_score: Judges a model on dev.
        folds: (alpha, score) over held-out folds, which say more than a small dev set.
        hold: Ask the probes at every weight and choose among those that hold their gate; else
            they are only told of the one that dev likes best.
    """
    from embedtune.embed.local import MemoryEmbedder

    report = console.progress("merging with the base")
    known = {0.0: trained.base_score, 1.0: trained.best_score}

    def dev(model: Any, alpha: float) -> float:
        report(ALPHAS.index(alpha) + 1, len(ALPHAS))
        return known[alpha] if alpha in known else dev_score(model)

    if folds:
        curve = [MergePoint(alpha, score) for alpha, score in folds]
    else:
        curve = merge_curve(original, tuned, scratch, dev)

    def merged(alpha: float) -> System:
        merge_into(scratch, original, tuned, alpha)
        name = f"alpha {alpha}"
        return System(name, "dense", "memory", name)

    base = merged(0.0)
    opened = open_probes(probes, lambda system: MemoryEmbedder(scratch, system.label))
    before = [(own, base_scores(own, base)) for own in opened]
    counted = [(own, scores) for own, scores in before if scores and counts(scores)]
    if not counted:
        return choose_alpha(curve, None)

    def probe(alpha: float) -> tuple[float, bool]:
        system = merged(alpha)
        found = [forgetting(scores, own.score(system, "test"), own) for own, scores in counted]
        return max(result.loss for result in found), all(result.holds for result in found)

    if hold:
        return choose_alpha(curve, probe)
    point, curve = choose_alpha(curve, None)
    loss, holds = probe(point.alpha)
    if not holds:
        log.warning(
            "the model loses %.3f on the general probe; `embedtune merge` takes it back towards "
            "its base", loss,
        )  # fmt: skip
    told = replace(point, probe_loss=loss, holds=holds)
    return told, [told if own is point else own for own in curve]
