"""The report of a run: one page that works from disk, the same as Markdown, and as plain data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedtune.records import Reject
from embedtune.report import charts
from embedtune.report.audit import audit_section
from embedtune.report.cases import EQUAL, deltas_of, extreme_cases, hardest_rows
from embedtune.report.evidence import compression_section, map_section, threshold_section
from embedtune.report.facts import LABELS, METRIC, METRICS, ReportFacts
from embedtune.report.render import cut, render, render_markdown, signed
from embedtune.report.summary import summary_of
from embedtune.report.systems import against, clean, dimensions, systems, tiles
from embedtune.report.texts import ENGLISH, Texts, teller
from embedtune.report.training import drifted, merge_section, training_section, trials_section
from embedtune.report.verdict import all_flags, flag_words, language_words, verdict_words
from embedtune.results import Breakdown
from embedtune.retrieve.fusion import Fusion

REJECTS = 50  # listed; the rest is counted
LISTED = 200  # rows of any other table, entries of a list
DEPTH = 100  # of SystemScores.rankings


@dataclass(frozen=True, slots=True)
class Report:
    """``html``: one self-contained page. ``markdown``: its words and tables, without charts and
    texts of the data. ``summary``: the same facts, JSON-ready."""

    html: str
    markdown: str
    summary: dict[str, Any]


def build_report(facts: ReportFacts, texts: Texts = ENGLISH) -> Report:
    """Make the report; what a stage has not left yet is named as missing, never shown as zero."""
    t = teller(texts)
    pair = facts.pair
    deltas = deltas_of(*pair, METRIC) if pair else {}
    findings = {
        "words": texts["language"],
        "title": facts.title,
        "created": facts.created,
        "verdict": verdict_words(facts, texts),
        "tiles": tiles(facts),
        "missing": list(facts.missing),
        "systems": systems(facts, t),
        "clean": clean(facts),
        "against": against(facts, t, texts),
        "dims": dimensions(facts, t),
        "compression": compression_section(facts.evidence, texts),
        "wins": _wins(facts, deltas, t),
        "hardest": _hardest(facts),
        "parts": [_parts(breakdown, texts) for breakdown in facts.breakdowns],
        "training": training_section(facts.training, t),
        "merge": merge_section(facts.training, t),
        "trials": trials_section(facts.training, t),
        "bases": facts.training.bases if facts.training else (),
        "probes": facts.probes,
        "drifted": drifted(facts.probes),
        "thresholds": threshold_section(facts.evidence, t),
        "space": map_section(
            facts.evidence, {chunk.document: chunk.source for chunk in facts.chunks}, t
        ),
        "causes": _causes(facts, texts),
        "flags": [(flag, flag_words(flag, texts)) for flag in all_flags(facts)],
        "judged": facts.verdict is not None,
        "counts": facts.counts,
        "rejects": _rejects(facts.rejects),
        "split": facts.split,
        "notes": list(facts.notes),
        "audit": audit_section(facts.audit, texts),
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
    return Report(
        render(findings, texts),
        render_markdown(findings, texts),
        summary_of(facts, findings, deltas),
    )


def _wins(facts: ReportFacts, deltas: Mapping[str, float], t: Any) -> dict[str, Any] | None:
    pair = facts.pair
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
        changes=facts.changes,
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
        "codes": facts.changes.codes if facts.changes else (),
        "chart": charts.wins_chart(values, (t("worst.axis"), t("delta.axis")), label)
        if changed
        else None,
    }


def _hardest(facts: ReportFacts) -> dict[str, Any] | None:
    if facts.changes is None:
        return None
    queries = {query.id: query for query in facts.queries}
    return {"rows": hardest_rows(facts.changes, queries), "unfound": facts.changes.unfound}


def _parts(breakdown: Breakdown, texts: Texts) -> dict[str, Any]:
    """The table of one property; what the project itself named is worded."""
    parts = list(breakdown.parts)
    if breakdown.by.endswith("-length"):  # "≤7", "8-12", ">12", whatever their sizes
        parts.sort(key=lambda part: {"≤": 0, ">": 2}.get(part.name[:1], 1))
    rows = [(_part_name(breakdown.by, part.name, texts), part) for part in parts]
    if breakdown.rest is not None:
        rows.append((texts["parts.rest"].format(count=breakdown.rest_parts), breakdown.rest))
    return {"by": breakdown.by, "rows": rows}


def _part_name(by: str, name: str, texts: Texts) -> str:
    if by == "language":
        return language_words(name, texts)
    return texts.get(f"part.{by}.{name}", name) if by in ("style", "question") else name


def _causes(facts: ReportFacts, texts: Texts) -> list[dict[str, Any]] | None:
    """Causes that hold, in the order of the diagnosis, worded where there are words."""
    if facts.causes is None:
        return None
    return [
        {
            "cause": cause,
            "name": texts.get(f"cause.{cause.code}", cause.code),
            "advice": texts.get(f"cause.{cause.code}.do", ""),
        }
        for cause in facts.causes
        if cause.holds
    ]


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
