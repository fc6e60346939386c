"""The systems: their table, the candidate against the others, fewer dimensions."""

import math
from collections.abc import Mapping
from typing import Any

from embedtune.report import charts
from embedtune.report.facts import LABELS, METRIC, METRICS, ReportFacts
from embedtune.report.render import count, cut, percent, score, signed
from embedtune.report.texts import Texts

ENOUGH = 0.98  # share of the full quality at which fewer dimensions are recommended


def tiles(facts: ReportFacts) -> list[tuple[str, int]]:
    """(text key, number) of what is known."""
    base = facts.verdict.differences.get("base") if facts.verdict else None
    tiles = [
        ("tile.queries", facts.asked or None),
        ("tile.groups", base.groups or None if base else None),
        ("tile.passages", facts.passages),
        ("tile.documents", facts.documents),
    ]
    return [(key, number) for key, number in tiles if number is not None]


def _roles(facts: ReportFacts) -> dict[str, list[str]]:
    """System name -> its roles."""
    if facts.verdict is None:
        return {}
    roles: dict[str, list[str]] = {}
    for role, name in (
        ("candidate", facts.verdict.candidate),
        ("base", facts.verdict.base),
        ("rival", facts.verdict.best_rival),
    ):
        roles.setdefault(name, []).append(role)
    return roles


def systems(facts: ReportFacts, t: Any) -> dict[str, Any] | None:
    if not facts.systems:
        return None
    ordered = sorted(facts.systems, key=lambda system: -_finite(system.metrics.get(METRIC), -1.0))
    roles = _roles(facts)
    best = {
        metric: max((_finite(system.metrics.get(metric), -1.0) for system in ordered), default=-1.0)
        for metric in METRICS
    }
    rows = []
    for system in ordered:
        for role in roles.get(system.name, ())[:1]:
            for metric in METRICS:
                value = system.metrics.get(metric)
                if value is not None and math.isfinite(value):
                    low, high = system.intervals.get(metric, (value, value))
                    rows.append({"metric": LABELS[metric], "role": role, "value": value,
                                 "low": low, "high": high})  # fmt: skip
    rows.sort(key=lambda row: list(LABELS.values()).index(row["metric"]))
    names = {role: t(f"chart.{role}") for role in ("base", "candidate", "rival")}
    numbers = "; ".join(
        f"{row['metric']} {names[row['role']]} {score(row['value'])}" for row in rows
    )
    return {
        "rows": ordered,
        "roles": roles,
        "best": best,
        "queries": facts.asked,
        "split": facts.split_name,
        "drawn": [role for role in names if any(row["role"] == role for row in rows)],
        "chart": charts.scores_chart(rows, names, t("beforeafter.label", numbers=numbers))
        if rows
        else None,
    }


def clean(facts: ReportFacts) -> dict[str, Any] | None:
    """The systems on the test questions that have no near-duplicate in training."""
    if not facts.clean:
        return None
    return {
        "rows": sorted(facts.clean, key=lambda system: -_finite(system.metrics.get(METRIC), -1.0)),
        "queries": max(len(system.per_query.get(METRIC, ())) for system in facts.clean),
    }


def against(facts: ReportFacts, t: Any, texts: Texts) -> dict[str, Any] | None:
    if facts.verdict is None or not facts.verdict.differences:
        return None
    named = {"base": facts.verdict.base, "best_rival": facts.verdict.best_rival}
    rows = [
        {
            "name": t(f"against.{key}", name=cut(named.get(key, ""), 80))
            if f"against.{key}" in texts
            else key,
            "difference": difference,
        }
        for key, difference in facts.verdict.differences.items()
    ]
    drawn = [
        {
            "name": row["name"],
            "mean": row["difference"].mean,
            "low": row["difference"].low,
            "high": row["difference"].high,
        }
        for row in rows
    ]
    drawn = [
        row for row in drawn if all(math.isfinite(row[end]) for end in ("mean", "low", "high"))
    ]
    numbers = "; ".join(f"{row['name']} {signed(row['mean'])}" for row in drawn)
    return {
        "rows": rows,
        "power": _power(facts, t),
        "chart": charts.differences_chart(
            drawn[:12], t("delta.axis"), t("against.label", numbers=numbers)
        )
        if drawn
        else None,
    }


def _power(facts: ReportFacts, t: Any) -> list[str]:
    """What this test set can show, and what it would take to show the difference seen."""
    power = facts.verdict.power if facts.verdict else None
    base = facts.verdict.differences.get("base") if facts.verdict else None
    if power is None or base is None:
        return []
    told = [t("power.smallest", gain=score(power.smallest_gain), queries=count(base.queries),
              groups=count(base.groups))]  # fmt: skip
    if base.low <= 0 <= base.high:
        never = power.queries is None or power.groups is None
        told.append(
            t("power.never", assumed=score(power.assumed))
            if never
            else t("power.needed", assumed=score(power.assumed), queries=count(power.queries),
                   groups=count(power.groups))
        )  # fmt: skip
    return told


def dimensions(facts: ReportFacts, t: Any) -> dict[str, Any] | None:
    """Quality by dimension of base and candidate; None with fewer than two dimensions."""
    pair = facts.pair
    systems = {"base": pair[0], "candidate": pair[1]} if pair else {}
    values = {
        role: {dimension: metrics[METRIC] for dimension, metrics in system.dims.items()
               if math.isfinite(metrics.get(METRIC, math.nan))}
        for role, system in systems.items()
    }  # fmt: skip
    dimensions = sorted({dimension for role in values.values() for dimension in role}, reverse=True)
    if len(dimensions) < 2:
        return None
    rows = [
        {"dimension": dimension, "role": role, "value": value}
        for role, found in values.items()
        for dimension, value in found.items()
    ]
    names = {role: t(f"chart.{role}") for role in systems}
    numbers = "; ".join(
        f"{row['dimension']} {names[row['role']]} {score(row['value'])}" for row in rows
    )
    return {
        "rows": [
            (dimension, values["base"].get(dimension), values["candidate"].get(dimension))
            for dimension in dimensions
        ],
        # nobody should shorten vectors of a model that is not to be used
        "advice": ""
        if facts.verdict and facts.verdict.verdict == "do-not-ship"
        else _advice(values["candidate"], t),
        "chart": charts.dimensions_chart(
            rows, names, t("dims.column"), t("dims.label", numbers=numbers)
        ),
    }


def _advice(values: Mapping[int, float], t: Any) -> str:
    """The smallest dimension that keeps nearly all of the quality, if it is not the full one."""
    full = max(values, default=0)
    enough = [size for size, value in values.items() if value >= ENOUGH * values[full] > 0]
    if not enough or min(enough) == full:
        return ""
    small = min(enough)
    share = percent(values[small] / values[full])
    return t("dims.advice", small=small, full=full, share=share, memory=percent(small / full))


def _finite(value: float | None, otherwise: float) -> float:
    return value if value is not None and math.isfinite(value) else otherwise
