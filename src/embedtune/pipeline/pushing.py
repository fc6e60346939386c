"""From a run directory, a model folder or a data set on disk to a hub."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.embed.checks import EXPORTED, check_checksums, check_model_folder
from embedtune.embed.opening import FORMS
from embedtune.errors import ConfigError, NothingUsable
from embedtune.export.hub import (
    CARD,
    Parcel,
    Pushed,
    check_names,
    endpoint,
    hub_token,
    pack_dataset,
    pack_model,
    push,
)
from embedtune.files import visible
from embedtune.pipeline.console import Console
from embedtune.pipeline.report import collect, report_language
from embedtune.pipeline.stored import DATASET, TRAINING, stage_facts
from embedtune.records import RetrievalSet
from embedtune.run import verify

SPLIT_ORDER = {"train": 0, "dev": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What was sent where, or would be. ``verdict`` is empty where none is known."""

    parcel: Parcel
    repository: str
    address: str  # of the hub
    public: bool
    revision: str
    verdict: str
    pushed: Pushed | None  # None: a dry run

    def lines(self) -> list[str]:
        """The files, with their sizes, and what stays here."""
        prefix = "datasets/" if self.parcel.kind == "dataset" else ""
        branch = f", branch {self.revision}" if self.revision else ""
        seen = "public" if self.public else "private"
        verdict = f", verdict {self.verdict}" if self.verdict else ""
        left_out = ", ".join(map(visible, self.parcel.left_out))
        return [
            f"to {self.address}/{prefix}{self.repository} ({self.parcel.kind}, {seen}{branch}"
            f"{verdict})",
            *(f"  {file.size:>13,}  {visible(file.path)}" for file in self.parcel.files),
            f"  {self.parcel.size:>13,}  bytes in {len(self.parcel.files)} files",
            *([f"not sent: {left_out}"] if left_out else []),
        ]

    def as_json(self) -> dict[str, Any]:
        done = self.pushed
        return {
            "hub": self.address,
            "repository": self.repository,
            "type": self.parcel.kind,
            "private": done.private if done else not self.public,
            "revision": self.revision or "main",
            "verdict": self.verdict or None,
            "files": [{"path": file.path, "bytes": file.size} for file in self.parcel.files],
            "bytes": self.parcel.size,
            "left_out": list(self.parcel.left_out),
            "dry_run": done is None,
            "commit": done.commit if done else None,
            "url": done.url if done else None,
            "created": done.created if done else None,
            "changed": done.changed if done else None,
            "kept": list(done.kept) if done else [],
        }


def push_from(
    place: Path,
    repository: str,
    console: Console,
    *,
    data: bool = False,
    public: bool = False,
    revision: str = "",
    message: str = "",
    anyway: bool = False,
    dry_run: bool = False,
) -> PushOutcome:
    """Send the model of a run with its card, a model folder as it is, or (``data``) a data set.

    A dry run needs neither network nor token.

    Args:
        place: A run directory, a model folder, or with ``data`` a BEIR folder.
        anyway: Also where the verdict is ``do-not-ship`` or there is none yet, and exports that are
            not good.

    Raises:
        ConfigError: Nothing there of that kind; a verdict against it; see ``export.hub.push``.
        NothingUsable: The run trained no model.
        IntegrityError: Files changed after the run made them, or no sound model folder.
        ServiceError: The hub cannot be reached, or refuses.
    """
    check_names(repository, revision)
    address = endpoint()
    if not place.is_dir():
        raise ConfigError(f"{place}: there is no such folder; give a run directory or model folder")
    if not dry_run:
        hub_token(address)  # told before anything is read and hashed
    run = _run_of(place)
    verdict = ""
    if data:
        parcel = _dataset(run or place, repository, in_run=run is not None)
    elif run is not None:
        parcel, verdict = _model_of(run, repository, anyway)
    else:
        _check_folder(place, anyway)
        parcel = pack_model(place)
        if all(file.path != CARD for file in parcel.files):
            console.say(f"{place}: no {CARD}, so no card is sent; a run directory brings its own")
    outcome = PushOutcome(parcel, repository, address, public, revision, verdict, None)
    if dry_run:
        return outcome
    for line in outcome.lines():
        console.say(line)
    pushed = push(parcel, repository, public=public, revision=revision, message=message)
    if public and pushed.private:
        console.say(f"{repository} was private before and stays so; its owner can open it there")
    return replace(outcome, pushed=pushed)


def _run_of(place: Path) -> Path | None:
    """The run directory that a folder is, or whose model it is: its verdict counts for both."""
    whole = place.absolute()
    for run in (whole, whole.parent.parent):
        own = run == whole or whole == run / TRAINING / "model"
        if own and (run / "run.lock").exists():
            return run
    return None


def _check_folder(folder: Path, anyway: bool) -> None:
    """Refuse a damaged folder of any form, and an export that is worse than its model."""
    if (folder / EXPORTED).is_file():
        from embedtune.embed.onnx import read_exported

        checked = read_exported(folder).check
        if checked and checked.outcome == "not good" and not anyway:
            raise ConfigError(
                f"{folder}: this export is not good: {'; '.join(checked.reasons)}. Nothing was "
                "sent; --anyway pushes all the same"
            )
    if any((folder / form).is_file() for form in FORMS):
        check_checksums(folder)
    else:
        check_model_folder(folder)


def _model_of(run: Path, repository: str, anyway: bool) -> tuple[Parcel, str]:
    """The model of a run with its card, and the verdict on it."""
    from embedtune.report import model_card
    from embedtune.report.texts import LANGUAGES

    stages = stage_facts(run)
    if TRAINING not in stages or not (stages[TRAINING].path / "model").is_dir():
        why = "the run has trained no model" if TRAINING in stages else "training is not done"
        raise NothingUsable(f"{run}: {why}; see: embedtune status {run}")
    facts = collect(run)
    verdict = facts.verdict.verdict if facts.verdict else ""
    if not anyway and verdict == "do-not-ship":
        raise ConfigError(
            f"{run}: the verdict is do-not-ship: {facts.verdict.reasons[0]} Nothing was sent; "
            "--anyway pushes all the same, with this verdict in the card"
        )
    if not anyway and facts.verdict is None:
        raise ConfigError(
            f"{run}: not evaluated yet, so there is no verdict for the card; finish it "
            "(embedtune run), or push without one (--anyway)"
        )
    verify(stages[TRAINING])
    folder = stages[TRAINING].path / "model"
    check_model_folder(folder)
    card = model_card(replace(facts, model=repository), LANGUAGES[report_language(run)])
    return pack_model(folder, card), verdict


def _dataset(place: Path, repository: str, *, in_run: bool) -> Parcel:
    from embedtune.datasets.beir import read_beir

    folder = place
    if in_run:
        stages = stage_facts(place)
        if DATASET not in stages:
            raise NothingUsable(f"{place}: the run has no data set yet; see: embedtune status")
        verify(stages[DATASET])
        folder = stages[DATASET].path
    data = read_beir(folder).data
    made = {
        f"qrels/{split}.jsonl": "".join(
            json.dumps({"query-id": query, "corpus-id": chunk, "score": grade}) + "\n"
            for query, grades in qrels.items()
            for chunk, grade in grades.items()
        ).encode()
        for split, qrels in data.qrels.items()
        if qrels
    }
    return pack_dataset(folder, {**made, CARD: dataset_card(data, repository).encode()})


def dataset_card(data: RetrievalSet, repository: str) -> str:
    """README.md of a data set in BEIR layout, which hubs and ``datasets`` read: one configuration
    for the passages, one for the queries, and the judgements by split as the default.

    The judgements are named as JSON Lines, since ``datasets`` reads all files of a data set alike.
    """
    import yaml

    splits = sorted(
        filter(data.qrels.get, data.qrels), key=lambda name: (SPLIT_ORDER.get(name, 3), name)
    )
    languages = Counter(chunk.language for chunk in data.chunks if chunk.language.isalpha())
    front = {
        "language": [name for name, _ in languages.most_common() if 2 <= len(name) <= 3],
        "task_categories": ["text-retrieval"],
        "tags": ["information-retrieval", "embedtune"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [
                    {"split": re.sub(r"\W", "_", own), "path": f"qrels/{own}.jsonl"}
                    for own in splits
                ],
            },
            *(
                {"config_name": own, "data_files": [{"split": own, "path": f"{own}.jsonl"}]}
                for own in ("corpus", "queries")
            ),
        ],
    }
    front = {key: value for key, value in front.items() if value}
    rows = [
        f"| {name} | {len(data.qrels[name]):,} | {sum(map(len, data.qrels[name].values())):,} |"
        for name in splits
    ]
    lines = [
        f"# {repository}",
        "",
        f"{len(data.chunks):,} passages and {len(data.queries):,} queries for retrieval, in BEIR "
        "layout: `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv` (query, passage, grade; also as "
        "`.jsonl`).",
        "",
        "| split | queries | judgements |",
        "|---|--:|--:|",
        *rows,
        "",
        "## Use",
        "",
        "```shell",
        f"embedtune evaluate MODEL --data hf:{repository}",
        "```",
        "",
        "A passage is its title, a space and its text. Made by embedtune.",
    ]
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False)
    return f"---\n{head}---\n\n" + "\n".join(lines) + "\n"
