"""``embedtune diagnose``: what a run directory or a model's folder tells of a training.

What is measured of it: ``signs``; how the causes are judged: ``evaluation.diagnose``.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings, load_config
from embedtune.errors import ConfigError, EmbedtuneError, NothingUsable
from embedtune.evaluation.diagnose import Diagnosis, diagnose
from embedtune.files import read_json, read_jsonl, visible, write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.signs import Case, measure_signs
from embedtune.pipeline.stored import (
    DATASET,
    EVALUATION,
    NEGATIVES,
    TRAINING,
    load_dataset,
    load_given,
    load_judgement,
    stage_facts,
)
from embedtune.pipeline.untrained import FOLDER, is_static
from embedtune.records import Reject
from embedtune.run import MANIFEST, StageFolder
from embedtune.store import Store

log = logging.getLogger(__name__)

FILE = "diagnosis.json"  # in the run directory
JUDGED = (DATASET, NEGATIVES, TRAINING, EVALUATION)  # stages that a diagnosis depends on


def diagnose_run(run: Path, console: Console) -> Diagnosis:
    """``embedtune diagnose RUN``: why the tuning of a run did not help.

    Raises:
        NothingUsable: The run has not come as far as a trained model.
    """
    stages = stage_facts(run)
    if DATASET not in stages or TRAINING not in stages:
        raise NothingUsable(
            f"{run}: no model has been trained here yet; run the command of this run again first"
        )
    training = stages[TRAINING]
    base = training.facts["base"]
    negatives: Mapping[str, tuple[str, ...]] = {}
    if NEGATIVES in stages:
        from embedtune.pipeline.mine import load_against

        negatives = load_against(run / NEGATIVES).negatives
    case = Case(
        load_dataset(run / DATASET),
        str(training.path / FOLDER) if is_static(base) else base,
        training.path / "model",
        load_config(run / "config.yaml"),
        training.facts,
        _prompts_of(training.manifest),
        _history(training.path),
        _curve(training.path),
        negatives,
        load_judgement(run / EVALUATION) if EVALUATION in stages else None,
    )
    with Store(run / ".vectors.sqlite") as store:
        diagnosis = diagnose(measure_signs(case, store, console))
    write_json(run / FILE, {"of": _digests(stages), "diagnosis": asdict(diagnosis)})
    return diagnosis


def say_why(run: Path, console: Console) -> None:
    """Look for the cause where a verdict is not to ship, and keep it for the report. That nothing
    was trained, or that the search for a cause fails, changes nothing of the run."""
    if load_diagnosis(run) is not None:
        return
    console.say("looking for the cause")
    try:
        named = diagnose_run(run, console).named
    except EmbedtuneError as error:
        log.warning("no diagnosis: %s", error)
        return
    causes = ", ".join(cause.code for cause in named) or "none of the known ones"
    console.say(f"cause: {causes} (embedtune diagnose {run})")


def load_diagnosis(run: Path) -> Diagnosis | None:
    """What ``diagnose_run`` found; None where it was not asked, was asked of stages that are no
    more, or left a file that cannot be read: it can be asked again."""
    if not (run / FILE).is_file():
        return None
    from pydantic import TypeAdapter

    try:
        saved = read_json(run / FILE)
        if saved["of"] != _digests(stage_facts(run)):
            return None
        return TypeAdapter(Diagnosis).validate_python(saved["diagnosis"])
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): diagnose again", run / FILE, type(error).__name__)
        return None


def _digests(stages: Mapping[str, StageFolder]) -> dict[str, str]:
    return {name: own.digest for name, own in stages.items() if name in JUDGED}


def diagnose_models(
    data: Path, base: str, tuned: Path, settings: RunSettings, console: Console
) -> Diagnosis:
    """``embedtune diagnose --data --base --tuned``: the same for any tuned model; one that
    ``embedtune train`` left tells of its training too."""
    from embedtune.pipeline.models import vector_store

    if is_static(base):
        raise ConfigError(
            "--base static: that model is made anew from the data; diagnose the run directory, or "
            "name the folder of an untuned model"
        )
    if not tuned.is_dir():
        raise ConfigError(f"--tuned: {visible(tuned)}: no such model folder")
    dataset = load_given(data, settings.split, columns=settings.columns, settings=settings.source)
    manifest = read_json(tuned / MANIFEST) if (tuned / MANIFEST).is_file() else {}
    method = manifest.get("recipe", {}).get("settings", {}).get("negatives", {}).get("method")
    case = Case(
        dataset, base, tuned, settings, manifest.get("facts", {}), _prompts_of(manifest),
        _history(tuned), _curve(tuned), dataset.negatives if method in (None, "given") else {},
    )  # fmt: skip
    with Store(vector_store()) as store:
        return diagnose(measure_signs(case, store, console))


def _prompts_of(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    model = manifest.get("recipe", {}).get("settings", {}).get("model", {})
    given = model.get("prompts") if isinstance(model, dict) else None
    return (given["query"], given["document"]) if isinstance(given, dict) else None


def _history(folder: Path) -> tuple[Mapping[str, float], ...]:
    file, rejects = folder / "history.jsonl", list[Reject]()
    if not file.is_file():
        return ()
    return tuple(row for _, row in read_jsonl(file, rejects, "diagnose") if "dev" in row)


def _curve(folder: Path) -> tuple[tuple[float, float], ...]:
    file = folder / "merge.json"
    rows = read_json(file) if file.is_file() else []
    return tuple((float(row["alpha"]), float(row["dev"])) for row in rows)
