"""From a run directory, whole or stopped half way, to its report."""

import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embedtune.files import read_json, read_jsonl, write_json, write_text
from embedtune.pipeline.audit import load_audit
from embedtune.pipeline.diagnose import load_diagnosis
from embedtune.pipeline.evidence import load_evidence
from embedtune.pipeline.stored import (
    AUDIT,
    CHUNKS,
    DATASET,
    DOCUMENTS,
    EVALUATION,
    FILTERED,
    NEGATIVES,
    QUERIES,
    STAGES,
    TRAINING,
    load_dataset,
    load_judgement,
    load_rejects,
    stage_facts,
)
from embedtune.records import Counts, Reject
from embedtune.report import (
    BaseFacts,
    CauseFacts,
    MergeFacts,
    ProbeFacts,
    ReportFacts,
    SplitFacts,
    TrainingFacts,
    TrialFacts,
    build_report,
    model_card,
)
from embedtune.report.texts import LANGUAGES
from embedtune.run import StageFolder

PACKAGES = ("embedtune", "torch", "sentence-transformers", "transformers", "numpy")
UNITS = {"document": "documents", "section": "sections", "block": "blocks"}
STAGE_NAMES = {DOCUMENTS: "read", CHUNKS: "chunk", QUERIES: "generate", FILTERED: "filter",
               DATASET: "split", AUDIT: "audit", NEGATIVES: "mine", TRAINING: "train",
               EVALUATION: "evaluate"}  # fmt: skip


def write_report(run: Path, command: str = "", language: str = "") -> Path:
    """Write ``report.html``, ``report.md``, ``report.json`` and the model card beside the stages of
    ``run``, in ``language``, or else in that of the run's settings (``report.language``)."""
    facts = collect(run, command)
    texts = LANGUAGES[language or report_language(run)]
    report = build_report(facts, texts)
    path = run / "report.html"
    write_text(path, report.html)
    write_text(run / "report.md", report.markdown)
    write_json(run / "report.json", report.summary)
    if facts.verdict is not None and facts.training is not None:
        write_text(run / "model-card.md", model_card(facts, texts))
    return path


def report_language(run: Path) -> str:
    language = _setting(run, "report", "language")
    return language if isinstance(language, str) and language in LANGUAGES else "en"


def _setting(run: Path, *field: str) -> object:
    """A setting of the run; None where it has none that can be read: a report is made of any."""
    import yaml

    try:
        found = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
        for part in field:
            found = found[part]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None
    return found


def collect(run: Path, command: str = "") -> ReportFacts:
    """All facts a run directory holds. Stages that are not there are named as missing."""
    stages = stage_facts(run)
    given = DATASET in stages and stages[DATASET].manifest["stage"] == "given"
    needed = [name for name in STAGES if not (given and name < DATASET) and name != NEGATIVES]
    counts: dict[str, Counts] = {}
    rejects: list[Reject] = []
    notes: list[str] = []
    for name, stage in stages.items():
        for step, account in stage.facts.get("counts", {}).items():
            counts[step] = Counts(**account)
        rejects += load_rejects(run / name)
        notes += stage.facts.get("notes", [])
    facts: dict[str, Any] = {}
    dataset = load_dataset(run / DATASET) if DATASET in stages else None
    if dataset is not None:
        data = dataset.data
        facts.update(
            chunks=data.chunks,
            queries=data.queries,
            qrels=data.qrels.get("test", {}),
            passages=len(data.chunks),
            split=SplitFacts(
                by="given" if data.given_splits else UNITS.get(dataset.by, dataset.by),
                queries={name: len(qrels) for name, qrels in data.qrels.items()},
                groups=_groups(dataset),
                dropped=Counter(reject.code for reject in load_rejects(run / DATASET)),
                optimistic=dataset.optimistic,
                notes=dataset.notes,
            ),
        )
    if AUDIT in stages:
        facts["audit"] = load_audit(run / AUDIT)
    if DOCUMENTS in stages:
        facts["documents"] = counts["read"].accepted
    if TRAINING in stages:
        facts.update(_training(run, stages[TRAINING]))
    missing = [STAGE_NAMES[name] for name in needed if name not in stages]
    if EVALUATION in stages:
        try:
            facts.update(_evaluation(run), causes=_causes(run))
        except ValidationError:
            missing.append(STAGE_NAMES[EVALUATION])
            notes.append("the evaluation was left by another version of embedtune; run the same "
                         "command again")  # fmt: skip
    config = run / "config.yaml"
    return ReportFacts(
        title=run.name,
        missing=missing,
        counts=counts,
        rejects=rejects,
        notes=list(dict.fromkeys(notes)),
        command=command or f"embedtune run -c {config}",
        settings=config.read_text("utf-8") if config.exists() else "",
        dataset=str(_setting(run, "data") or "").partition("hf:")[2],
        license=str(_setting(run, "report", "license") or _base_licence(stages)),
        versions={
            **{name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
        },
        fingerprints={name: stage.digest[:16] for name, stage in stages.items()},
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **facts,
    )


def _base_licence(stages: Mapping[str, StageFolder]) -> str:
    return stages[TRAINING].facts.get("base_licence", "") if TRAINING in stages else ""


def _groups(dataset: Any) -> Mapping[str, int]:
    """Groups by split; those of given data are not known here."""
    return {
        name: len({dataset.groups[chunk] for grades in qrels.values() for chunk in grades})
        for name, qrels in dataset.data.qrels.items()
        if dataset.groups and all(c in dataset.groups for g in qrels.values() for c in g)
    }


def _training(run: Path, stage: StageFolder) -> dict[str, Any]:
    facts = stage.facts
    known: dict[str, Any] = {"base_model": facts["base"]}
    if facts["trained"]:
        rows: list[Reject] = []
        plan = facts["plan"]
        known["model"] = str(stage.path / "model")
        known["training"] = TrainingFacts(
            history=[row for _, row in read_jsonl(stage.path / "history.jsonl", rows, "report")],
            best_step=facts["best_step"],
            best_score=facts["best_score"],
            base_score=facts["base_score"],
            metric=facts.get("metric", "ndcg@10"),
            alpha=facts["alpha"],
            curve=_curve(stage.path / "merge.json", facts["alpha"]),
            trials=_trials(facts.get("search")),
            bases=[BaseFacts(**row) for row in facts.get("bases", ())],
            pairs=plan["pairs"],
            seconds=stage.manifest["seconds"],
            settings={
                **{f"loss of {own['data']}": own["loss"] for own in facts.get("losses", ())},
                **plan,
            },
        )
        known["seeds"] = {"training": stage.manifest["recipe"]["settings"]["training"]["seed"]}
    return known


def _curve(file: Path, chosen: float | None) -> list[MergeFacts]:
    return [
        MergeFacts(
            alpha=row["alpha"],
            dev=row["dev"],
            loss=row["probe_loss"],
            holds=row["holds"],
            chosen=row["alpha"] == chosen,
        )
        for row in (read_json(file) if file.is_file() else ())
    ]


def _trials(search: Mapping[str, Any] | None) -> list[TrialFacts]:
    """The recipes that a search tried; the last round of the one taken is marked."""
    if not search:
        return []
    taken = [row["rung"] for row in search["trials"] if row["candidate"] == search["candidate"]]
    return [
        TrialFacts(
            recipe=row["candidate"],
            rung=row["rung"],
            queries=row["queries"],
            score=row["score"],
            alpha=row["alpha"],
            seconds=row["seconds"],
            chosen=row["candidate"] == search["candidate"] and row["rung"] == max(taken),
        )
        for row in search["trials"]
    ]


def _causes(run: Path) -> list[CauseFacts] | None:
    """What ``embedtune diagnose`` found of this model; None where it was not asked."""
    found = load_diagnosis(run)
    if found is None:
        return None
    return [
        CauseFacts(code=cause.code, holds=cause.holds, number=cause.number, limit=cause.limit)
        for cause in found.causes
    ]


def _evaluation(run: Path) -> dict[str, Any]:
    judgement = load_judgement(run / EVALUATION)
    return {
        "verdict": judgement.verdict,
        "systems": judgement.systems,
        "clean": judgement.clean,
        "fusion": judgement.fusion,
        "breakdowns": judgement.breakdowns,
        "changes": judgement.changes,
        "evidence": load_evidence(run / EVALUATION),
        "probes": [
            ProbeFacts(
                name=probe.name,
                queries=probe.queries,
                before=probe.base,
                after=probe.tuned,
                low=-probe.high,
                high=-probe.low,
                counts=probe.counted,
                held=probe.holds,
                cosine=probe.drift and probe.drift.cosine,
                cka=probe.drift and probe.drift.cka,
                overlap=probe.drift and probe.drift.overlap,
            )
            for probe in judgement.probe
        ],
    }
