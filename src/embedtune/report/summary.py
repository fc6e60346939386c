"""The facts of the page as plain data, for machines."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from embedtune.report.cases import EQUAL
from embedtune.report.facts import ReportFacts

LISTED = 50  # queries named


def summary_of(
    facts: ReportFacts, findings: Mapping[str, Any], deltas: Mapping[str, float]
) -> dict[str, Any]:
    """The facts of the page as JSON-ready data; numbers are finite or null."""
    wins, rejects, split = findings["wins"], findings["rejects"], facts.split
    ordered = list(deltas)
    summary = {
        "language": findings["words"],
        "title": facts.title,
        "created": facts.created,
        "missing": list(facts.missing),
        "verdict": facts.verdict.as_json() if facts.verdict else None,
        "headline": findings["verdict"]["headline"],
        "next": findings["verdict"]["next"],
        "systems": [system.as_json() for system in facts.systems],
        "clean": [system.as_json() for system in facts.clean],
        "wins": {
            **{name: wins[name] for name in ("gained", "equal", "lost")},
            "queries_gained": {query: deltas[query] for query in ordered[::-1][:LISTED]
                               if deltas[query] > EQUAL},
            "queries_lost": {query: deltas[query] for query in ordered[:LISTED]
                             if deltas[query] < -EQUAL},
        } if wins else None,
        "breakdown": [breakdown.as_json() for breakdown in facts.breakdowns],
        "changes": facts.changes and facts.changes.as_json(),
        "evidence": facts.evidence and facts.evidence.as_json(),
        "causes": None if facts.causes is None else [asdict(cause) for cause in facts.causes],
        "training": {
            "best_step": facts.training.best_step,
            "best_score": facts.training.best_score,
            "base_score": facts.training.base_score,
            "alpha": facts.training.alpha,
            "pairs": facts.training.pairs,
            "seconds": facts.training.seconds,
            "curve": [asdict(point) for point in facts.training.curve],
            "bases": [asdict(base) for base in facts.training.bases],
            "trials": [asdict(trial) for trial in facts.training.trials],
        } if facts.training else None,
        "probes": [asdict(probe) for probe in facts.probes],
        "flags": [{"code": flag.code, "message": flag.message, "blocks": flag.blocks,
                   "language": flag.language} for flag, _ in findings["flags"]],
        "counts": {
            stage: {"total": counts.total, "accepted": counts.accepted,
                    "rejected": counts.rejected, "duplicates": counts.duplicates}
            for stage, counts in facts.counts.items()
        },
        "rejects": [
            {"stage": stage, "code": code, "unusable": unusable, "count": number}
            for (stage, code, unusable), number in rejects["counted"]
        ],
        "split": {
            "by": split.by, "groups": dict(split.groups), "queries": dict(split.queries),
            "moved": split.moved, "dropped": dict(split.dropped), "optimistic": split.optimistic,
            "notes": list(split.notes),
        } if split else None,
        "notes": list(facts.notes),
        "model": facts.model,
        "base_model": facts.base_model,
        "command": facts.command,
        "versions": dict(facts.versions),
        "seeds": dict(facts.seeds),
        "fingerprints": dict(facts.fingerprints),
    }  # fmt: skip
    return _plain(summary)


def _plain(value: Any) -> Any:  # JSON in, JSON out
    """``value`` with non-finite numbers as null, so that strict JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
