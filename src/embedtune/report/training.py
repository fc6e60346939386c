"""Training: the checkpoints, the merge with the base, the recipes tried, what was forgotten."""

import math
from collections.abc import Sequence
from typing import Any

from embedtune.report import charts, evidence_charts
from embedtune.report.facts import LABELS, ProbeFacts, TrainingFacts
from embedtune.report.render import percent, score, signed

GATE = 0.01  # mean loss on a general probe that the gate allows
TRIALS = 40  # listed

RECIPE = ("learning_rate", "epochs", "temperature", "negatives", "batch_size")


def training_section(training: TrainingFacts | None, t: Any) -> dict[str, Any] | None:
    if training is None:
        return None
    losses, devs = (
        [(row["step"], row[name]) for row in training.history
         if math.isfinite(row.get(name, math.nan))]
        for name in ("loss", "dev")
    )  # fmt: skip
    found: dict[str, Any] = {"facts": training, "sentences": [], "loss": None, "dev": None}
    base, metric = training.base_score, LABELS.get(training.metric, training.metric)
    if training.best_step == 0:
        found["sentences"].append(t("training.none.better", base=score(base)))
    elif training.best_step is not None:
        found["sentences"].append(
            t("training.best", step=training.best_step, best=score(training.best_score),
              base=score(base), metric=metric)
        )  # fmt: skip
    if training.alpha is not None and training.alpha < 1:
        found["sentences"].append(t("training.merged", alpha=percent(training.alpha)))
    if len(losses) > 1:
        label = t("training.loss.label", steps=losses[-1][0], first=score(losses[0][1]),
                  last=score(losses[-1][1]))  # fmt: skip
        found["loss"] = charts.curve_chart(losses, t("step"), label)
    if len(devs) > 1:
        step, best = max(devs, key=lambda point: point[1])
        label = t("training.dev.label", first=score(devs[0][1] if base is None else base),
                  best=score(best), step=step, metric=metric)  # fmt: skip
        found["dev"] = charts.curve_chart(
            devs, t("step"), label,
            mark=training.best_step, line=None if base is None else (base, t("base.line")),
        )  # fmt: skip
    return found


def merge_section(training: TrainingFacts | None, t: Any) -> dict[str, Any] | None:
    """The merge of the tuned model with its base: domain against general; None without a curve."""
    curve = sorted(training.curve, key=lambda point: point.alpha) if training else []
    if training is None or len(curve) < 2:
        return None
    metric = LABELS.get(training.metric, training.metric)
    asked = [point for point in curve if point.loss is not None]
    numbers = "; ".join(
        f"α {point.alpha:g}: {score(point.dev)}"
        + (f", {signed(point.loss)}" if point.loss is not None else "")
        for point in curve
    )
    label = t("merge.label", metric=metric, numbers=numbers)
    if len(asked) > 1:
        axes = (t("merge.loss"), t("merge.dev", metric=metric))
        gate = t("merge.gate", gate=f"{GATE:g}")
        chart = evidence_charts.tradeoff_chart(asked, GATE, axes, gate, label)
    else:
        chosen = next((point.alpha for point in curve if point.chosen), None)
        points = [(point.alpha, point.dev) for point in curve]
        chart = charts.curve_chart(points, "α", label, mark=chosen, whole=False)
    return {"curve": curve, "chart": chart, "metric": metric, "asked": bool(asked)}


def trials_section(training: TrainingFacts | None, t: Any) -> dict[str, Any] | None:
    """The recipes tried, those that went furthest first; None when nothing was searched."""
    if training is None or not training.trials:
        return None
    ordered = sorted(
        training.trials, key=lambda trial: (not trial.chosen, -trial.rung, -trial.score)
    )
    return {
        "rows": [
            {
                "recipe": ", ".join(
                    f"{t(f'recipe.{name}') if name in RECIPE else name} "
                    + (f"{value:g}" if isinstance(value, float) else f"{value}")
                    for name, value in trial.recipe.items()
                    if value is not None
                ),
                "trial": trial,
            }
            for trial in ordered[:TRIALS]
        ],
        "total": len(ordered),
        "seconds": sum(trial.seconds for trial in ordered),
    }


def drifted(probes: Sequence[ProbeFacts]) -> bool:
    """Whether any probe says how far the space has moved."""
    return any(probe.overlap is not None for probe in probes)
