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

METRIC = "ndcg@10"
METRICS = ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10")
LABELS = {"ndcg@10": "nDCG@10", "hit@1": "Hit@1", "hit@5": "Hit@5", "recall@10": "Recall@10",
          "mrr@10": "MRR@10"}  # fmt: skip
REJECTS = 50  # listed; the rest is counted
LISTED = 200  # rows of any other table, entries of a list
DEPTH = 100  # of SystemScores.rankings
ENOUGH = 0.98  # share of the full quality at which fewer dimensions are recommended
NEXT = {"ship": 3, "ship-hybrid": 2, "do-not-ship": 3, "inconclusive": 2}  # sentences in texts.py


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """How questions were split. ``groups`` and ``queries`` by split name."""

    by: Literal["", "documents", "sections", "blocks", "given"] = ""
    groups: Mapping[str, int] = field(default_factory=dict)
    queries: Mapping[str, int] = field(default_factory=dict)
    moved: int | None = None  # joined to another split's group by near-duplicates
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> how many
    optimistic: bool = False  # train and test share a document
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """``history`` rows hold ``step`` and ``loss``, ``dev`` (nDCG@10 on dev) or both."""

    history: Sequence[Mapping[str, float]] = ()
    best_step: int | None = None  # 0: no checkpoint was better than the base
    best_score: float | None = None  # on dev
    base_score: float | None = None  # on dev
    metric: str = METRIC  # that the scores on dev are in
    alpha: float | None = None  # weight of the tuned model in the merge with its base
    pairs: int | None = None
    seconds: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)  # as resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """One general probe. ``difference`` is after minus before with its 95 % interval."""

    name: str
    queries: int
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    counts: bool = True  # False: the base scores outside 0.3 to 0.95, the gate ignores it
    held: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that a report is made from. Only ``title`` must be there: what is missing is said.

    ``missing`` names the stages that have not finished: read, chunk, generate, split, train,
    evaluate, compare, probe. ``systems`` are on the locked split, whose judgements are ``qrels``;
    ``chunks`` and ``queries`` need only hold what its rankings and judgements name. ``counts``
    maps stage -> account, in the order of the run.
    """

    title: str
    missing: Sequence[str] = ()
    verdict: Verdict | None = None
    systems: Sequence[SystemScores] = ()
    clean: Sequence[SystemScores] = ()  # without test queries that training comes close to
    split_name: str = "test"
    chunks: Sequence[Chunk] = ()
    queries: Sequence[Query] = ()
    qrels: Qrels = field(default_factory=dict)
    flags: Sequence[Flag] = ()  # those not in the verdict
    counts: Mapping[str, Counts] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()
    split: SplitFacts | None = None
    training: TrainingFacts | None = None
    probes: Sequence[ProbeFacts] = ()
    notes: Sequence[str] = ()
    passages: int | None = None  # searched
    documents: int | None = None  # read
    model: str = ""  # name or folder of the candidate, as it is loaded
    base_model: str = ""
    license: str = ""  # of the model, where the user gave one
    fusion_k: int | None = None  # of the candidate's hybrid
    command: str = ""
    settings: str = ""  # YAML text
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # stage or input -> digest
    created: str = ""  # date and time as shown
    audit: Mapping[str, Any] | None = None  # of the data set, as ``Audit.as_json`` gives it


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


def system_named(facts: ReportFacts, name: str) -> SystemScores | None:
    return next((system for system in facts.systems if system.name == name), None)


def all_flags(facts: ReportFacts) -> list[Flag]:
    """The verdict's flags and the others, each once, those that block shipping first."""
    flags = [*(facts.verdict.flags if facts.verdict else ()), *facts.flags]
    once = list({(flag.code, flag.language, flag.message): flag for flag in flags}.values())
    return sorted(once, key=lambda flag: not flag.blocks)


def verdict_sentences(facts: ReportFacts, texts: Texts = ENGLISH) -> dict[str, Any]:
    """The verdict in words: ``key, name, headline, number, reasons, next``."""
    t = teller(texts)
    verdict = facts.verdict
    if verdict is None:
        return {
            "key": "none",
            "name": t("verdict.none.name"),
            "headline": t("verdict.none"),
            "number": "",
            "reasons": [],
            "next": [t("next.none.1")] if facts.missing else [],
        }
    key = verdict.verdict
    blocked = key == "inconclusive" and any(flag.blocks for flag in verdict.flags)
    base = verdict.differences.get("base")
    subject = t("subject.base" if verdict.candidate == verdict.base else "subject.tuned")
    worse_than_base = base is not None and base.high < 0
    better = verdict.base if worse_than_base else verdict.best_rival
    steps = [
        t(f"next.{key}.{number}", better=cut(better, 80)) for number in range(1, NEXT[key] + 1)
    ]
    if key == "do-not-ship" and verdict.candidate == verdict.base:
        del steps[1]  # nothing was trained, so no question was lost
    if blocked:
        steps.insert(0, t("next.inconclusive.flags.1"))
    return {
        "key": key,
        "name": t(f"verdict.{key}.name"),
        "headline": t(
            f"verdict.{key}.flags" if blocked else f"verdict.{key}",
            subject=subject,
            better=cut(better, 80),
        ),
        "number": _number(facts, t),
        "reasons": list(verdict.reasons),
        "next": steps,
    }


def _number(facts: ReportFacts, t: Any) -> str:
    """Before and after in one sentence; empty when either is not known."""
    pair = _pair(facts)
    difference = facts.verdict.differences.get("base") if facts.verdict else None
    if not pair or difference is None or pair[0].name == pair[1].name:
        return ""
    # where a language was left out of the decision, its figures are not those of the table
    decided = facts.verdict.decided
    before, after = (decided.get(system.name, system.metrics.get(METRIC)) for system in pair)
    if before is None or after is None:
        return ""
    moved = round(after - before, 3)
    return t(
        "number.rose" if moved > 0 else "number.fell" if moved < 0 else "number.same",
        before=score(before),
        after=score(after),
        mean=signed(difference.mean),
        low=signed(difference.low),
        high=signed(difference.high),
    )


def _pair(facts: ReportFacts) -> tuple[SystemScores, SystemScores] | None:
    """Base and candidate, when both were scored."""
    if facts.verdict is None:
        return None
    base = system_named(facts, facts.verdict.base)
    candidate = system_named(facts, facts.verdict.candidate)
    return (base, candidate) if base and candidate else None


def _tiles(facts: ReportFacts) -> list[tuple[str, int]]:
    """(text key, number) of what is known."""
    base = facts.verdict.differences.get("base") if facts.verdict else None
    queries = max((len(system.per_query.get(METRIC, ())) for system in facts.systems), default=0)
    tiles = [
        ("tile.queries", queries or None),
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


def _systems(facts: ReportFacts, t: Any) -> dict[str, Any] | None:
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
        "queries": max(len(system.per_query.get(METRIC, ())) for system in ordered),
        "split": facts.split_name,
        "drawn": [role for role in names if any(row["role"] == role for row in rows)],
        "chart": charts.scores_chart(rows, names, t("beforeafter.label", numbers=numbers))
        if rows
        else None,
    }


def _clean(facts: ReportFacts) -> dict[str, Any] | None:
    """The systems on the test questions that have no near-duplicate in training."""
    if not facts.clean:
        return None
    return {
        "rows": sorted(facts.clean, key=lambda system: -_finite(system.metrics.get(METRIC), -1.0)),
        "queries": max(len(system.per_query.get(METRIC, ())) for system in facts.clean),
    }


def _against(facts: ReportFacts, t: Any, texts: Texts) -> dict[str, Any] | None:
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
        "chart": charts.differences_chart(
            drawn[:12], t("delta.axis"), t("against.label", numbers=numbers)
        )
        if drawn
        else None,
    }


def _dimensions(
    facts: ReportFacts, pair: tuple[SystemScores, SystemScores] | None, t: Any
) -> dict[str, Any] | None:
    """Quality by dimension of base and candidate; None with fewer than two dimensions."""
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


def _breakdowns(
    facts: ReportFacts,
    pair: tuple[SystemScores, SystemScores] | None,
    deltas: Mapping[str, float],
) -> list[tuple[str, list[Any]]]:
    """(text key of the column, rows): by language always, by style when there are several."""
    if not pair or not deltas:
        return []
    queries = {query.id: query for query in facts.queries if query.id in deltas}
    tables = []
    for key, attribute, least in (("language.column", "language", 1), ("style.column", "style", 2)):
        kinds = {name: getattr(query, attribute) for name, query in queries.items()}
        rows = breakdown(deltas, *pair, METRIC, kind=lambda name, kinds=kinds: kinds.get(name, ""))
        if len(rows) >= least:
            tables.append((key, rows))
    return tables


def _training(training: TrainingFacts | None, t: Any) -> dict[str, Any] | None:
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
        "hybrid": (facts.fusion_k or 60) if name == "ship-hybrid" else None,
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


def _finite(value: float | None, otherwise: float) -> float:
    return value if value is not None and math.isfinite(value) else otherwise
