"""The report of a run: one page that works from disk, and the same facts as plain data."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedtune.records import Chunk, Counts, Qrels, Query, Reject
from embedtune.report import charts
from embedtune.report.audit import audit_section
from embedtune.report.cases import EQUAL, breakdown, deltas_of, extreme_cases
from embedtune.report.render import cut, percent, render, score, signed
from embedtune.report.texts import ENGLISH, Texts, teller
from embedtune.results import Flag, SystemScores, Verdict
from embedtune.retrieve.fusion import Fusion

METRIC = "ndcg@10"
METRICS = ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10")
LABELS = {"ndcg@10": "nDCG@10", "hit@1": "Hit@1", "hit@5": "Hit@5", "recall@10": "Recall@10",
          "mrr@10": "MRR@10"}  # fmt: skip
REJECTS = 50  # listed; the rest is counted
LISTED = 200  # rows of any other table, entries of a list
DEPTH = 100  # of SystemScores.rankings
ENOUGH = 0.98  # share of the full quality at which fewer dimensions are recommended
NEXT = {"ship": 3, "ship-hybrid": 2, "do-not-ship": 3, "inconclusive": 2}  # sentences in texts.py


@dataclass(frozen=True, slots=True)
class Report:
    """``html``: one self-contained page. ``summary``: the same facts, JSON-ready."""

    html: str
    summary: dict[str, Any]


def build_report(facts: ReportFacts, texts: Texts = ENGLISH) -> Report:
    """Make the report; what a stage has not left yet is named as missing, never shown as zero."""
    t = teller(texts)
    pair = _pair(facts)
    deltas = deltas_of(*pair, METRIC) if pair else {}
    findings = {
        "title": facts.title,
        "created": facts.created,
        "verdict": verdict_sentences(facts, texts),
        "tiles": _tiles(facts),
        "missing": list(facts.missing),
        "systems": _systems(facts, t),
        "clean": _clean(facts),
        "against": _against(facts, t, texts),
        "dims": _dimensions(facts, pair, t),
        "wins": _wins(facts, pair, deltas, t),
        "groups": _breakdowns(facts, pair, deltas),
        "training": _training(facts.training, t),
        "probes": facts.probes,
        "flags": all_flags(facts),
        "judged": facts.verdict is not None,
        "counts": facts.counts,
        "rejects": _rejects(facts.rejects),
        "split": facts.split,
        "notes": list(facts.notes),
        "audit": audit_section(facts.audit, t),
        "use": _use(facts),
        "reproduce": {
            "command": facts.command,
            "settings": cut(facts.settings, 20_000),
            "versions": facts.versions,
            "seeds": facts.seeds,
            "fingerprints": facts.fingerprints,
        },
        "metrics": METRICS,
        "labels": LABELS,
        "depth": DEPTH,
        "listed": LISTED,
    }
    return Report(render(findings, texts), _summary(facts, findings, deltas))


def _wins(
    facts: ReportFacts,
    pair: tuple[SystemScores, SystemScores] | None,
    deltas: Mapping[str, float],
    t: Any,
) -> dict[str, Any] | None:
    if not pair or not deltas:
        return None
    gained, lost = extreme_cases(
        deltas,
        *pair,
        METRIC,
        queries={query.id: query for query in facts.queries},
        chunks={chunk.id: chunk for chunk in facts.chunks},
        qrels=facts.qrels,
        unknown=lambda chunk_id: t("unknown.passage", id=chunk_id),
    )
    values = list(deltas.values())
    counts = {
        "gained": sum(value > EQUAL for value in values),
        "lost": sum(value < -EQUAL for value in values),
        "equal": sum(abs(value) <= EQUAL for value in values),
    }
    changed = counts["gained"] + counts["lost"] > 0
    label = t(
        "wins.label", total=len(values), low=signed(values[0]), high=signed(values[-1]), **counts
    )
    return {
        **counts,
        "cases": {"gained": gained, "lost": lost},
        "chart": charts.wins_chart(values, (t("worst.axis"), t("delta.axis")), label)
        if changed
        else None,
    }


def _rejects(rejects: Sequence[Reject]) -> dict[str, Any]:
    """Counts by stage and reason, the first ones in full."""
    counted = Counter((reject.stage, reject.code, reject.unusable) for reject in rejects)
    return {
        "total": len(rejects),
        "counted": counted.most_common(LISTED),
        "first": rejects[:REJECTS],
        "more": max(0, len(rejects) - REJECTS),
    }


def _use(facts: ReportFacts) -> dict[str, Any] | None:
    if not facts.model:
        return None
    name = facts.verdict.verdict if facts.verdict else ""
    return {
        "model": facts.model,
        "titled": any(chunk.title for chunk in facts.chunks),
        "hybrid": (facts.fusion or Fusion()) if name == "ship-hybrid" else None,
        "caution": name not in ("ship", "ship-hybrid"),
    }


def _summary(
    facts: ReportFacts, findings: Mapping[str, Any], deltas: Mapping[str, float]
) -> dict[str, Any]:
    """The facts of the page as JSON-ready data; numbers are finite or null."""
    wins, rejects, split = findings["wins"], findings["rejects"], facts.split
    ordered = list(deltas)
    summary = {
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
            "queries_gained": {query: deltas[query] for query in ordered[::-1][:REJECTS]
                               if deltas[query] > EQUAL},
            "queries_lost": {query: deltas[query] for query in ordered[:REJECTS]
                             if deltas[query] < -EQUAL},
        } if wins else None,
        "breakdown": {
            key.removesuffix(".column"): {
                row.name: {"queries": row.queries, "before": row.before, "after": row.after,
                           "gained": row.gained, "lost": row.lost} for row in rows
            } for key, rows in findings["groups"]
        },
        "training": {
            "best_step": facts.training.best_step,
            "best_score": facts.training.best_score,
            "base_score": facts.training.base_score,
            "alpha": facts.training.alpha,
            "pairs": facts.training.pairs,
            "seconds": facts.training.seconds,
        } if facts.training else None,
        "probes": [
            {"name": probe.name, "queries": probe.queries, "before": probe.before,
             "after": probe.after, "low": probe.low, "high": probe.high, "counts": probe.counts,
             "held": probe.held} for probe in facts.probes
        ],
        "flags": [{"code": flag.code, "message": flag.message, "blocks": flag.blocks,
                   "language": flag.language} for flag in findings["flags"]],
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
