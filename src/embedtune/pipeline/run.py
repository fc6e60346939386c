"""The whole run: documents (or a BEIR folder) in, model, verdict and report out.

Each stage reads what the ones before left in the run directory and leaves files of its own;
``RunDirectory.stage`` skips what is up to date. Nothing here computes: this module alone knows
both the files and the functions.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings, dump_config
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.evaluate import System
from embedtune.evaluation.systems import open_embedder, parse_systems
from embedtune.files import sha256_of, visible, write_jsonl, write_text
from embedtune.pipeline.console import Console, counts_line, reject_lines
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.report import write_report
from embedtune.pipeline.stored import (
    CHUNKS,
    DATASET,
    DOCUMENTS,
    EVALUATION,
    QUERIES,
    STAGES,
    TRAINING,
    Dataset,
    has_unusable,
    load_chunks,
    load_dataset,
    load_documents,
    load_given,
    load_judgement,
    load_queries,
    save_dataset,
    save_judgement,
    save_rejects,
)
from embedtune.pipeline.tune import tune
from embedtune.records import Chunk, Counts, Reject, RetrievalSet, as_row
from embedtune.run import Recipe, RunDirectory, StageFolder
from embedtune.settings import Settings

log = logging.getLogger(__name__)

SECTIONS = {  # of the configuration -> the first stage that depends on it
    "data": DATASET, "documents": DOCUMENTS, "chunks": CHUNKS, "llm": QUERIES,
    "queries": QUERIES, "split": DATASET, "model": TRAINING, "training": TRAINING,
    "evaluation": TRAINING,
}  # fmt: skip
UNKNOWN_SHARE = 0.20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left."""

    run: Path
    report: Path
    judgement: Judgement
    unusable_input: bool  # some input was rejected: exit code 4

    def as_json(self) -> dict[str, Any]:
        verdict = self.judgement.verdict.as_json()
        return {
            **verdict,
            "systems": [scores.as_json() for scores in self.judgement.systems],
            "run": str(self.run),
            "report": str(self.report),
        }


def run(
    settings: RunSettings, console: Console, *, assume_yes: bool = False, command: str = ""
) -> Outcome:
    """Do all stages that are not up to date. Called again after a stop, it goes on.

    Raises:
        EmbedtuneError: See ``errors``; whatever was finished or paid for before is kept.
    """
    preflight(settings)
    with RunDirectory(settings.run) as directory:
        say_changes(settings, directory, console)
        write_text(settings.run / "config.yaml", dump_config(settings))
        stages = _Stages(settings, directory, console, assume_yes)
        try:
            if settings.data is not None:
                dataset = stages.given_data()
            else:
                documents = stages.documents()
                chunks = stages.chunks(documents)
                queries = stages.queries(documents, chunks)
                dataset = stages.dataset(chunks, queries)
            training = stages.training(dataset)
            evaluation = stages.evaluation(dataset, training)
        except Exception:
            if any(directory.path.glob("0*/manifest.json")):
                write_report(settings.run, command)
            raise
        finally:
            stages.close()
        report = write_report(settings.run, command)
    judgement = load_judgement(evaluation.path)
    return Outcome(settings.run, report, judgement, has_unusable(settings.run))


# ---- before anything is spent


def preflight(settings: RunSettings) -> None:
    """Everything that can be known to be wrong before the first stage, reported together.

    Raises:
        ConfigError: All faults found.
    """
    faults: list[str] = []

    def check(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    if settings.data is None:
        check(_check_paths, settings)
        if settings.queries.source == "llm":
            from embedtune.llm.recorded import open_chat

            check(open_chat, settings.llm)
        if settings.queries.source == "file" and settings.queries.file is None:
            faults.append("queries.file: name the file, since queries.from is file")
    elif not settings.data.is_dir():
        faults.append(f"data: {settings.data}: no such folder")
    for name in settings.model.base:
        check(_check_base, name, settings)
    if settings.training.trainer:
        from embedtune.training.plain import validate_trainer_fields

        check(validate_trainer_fields, settings.training.trainer)
    if faults:
        raise ConfigError(faults)


def _check_paths(settings: RunSettings) -> None:
    faults = []
    if not settings.documents.paths:
        faults.append("documents.paths: name the files or folders to read (or set data)")
    target = settings.run.resolve()
    for path in map(Path, settings.documents.paths):
        if not os.path.lexists(path):
            faults.append(f"documents.paths: {visible(path)}: no such file or folder")
        elif path.is_dir() and target.is_relative_to(path.resolve()):
            faults.append(
                f"run: {settings.run} is inside the documents folder {path}: the next run would "
                "read its own output; choose a folder outside"
            )
    if faults:
        raise ConfigError(faults)


def _check_base(name: str, settings: RunSettings) -> None:
    from embedtune.embed.tokens import load_tokens

    tokens = load_tokens(name)
    wanted = settings.chunks.tokens
    if settings.data is None and wanted != "auto" and wanted > tokens.max_tokens:
        share = 1 - tokens.max_tokens / wanted
        raise ConfigError(
            f"chunks.tokens: {wanted} is more than the {tokens.max_tokens} tokens {name} reads: it "
            f"would not see the last {share:.0%} of a full chunk; use {tokens.max_tokens} or auto"
        )


def say_changes(settings: RunSettings, directory: RunDirectory, console: Console) -> None:
    """Tell which settings differ from those of the run directory, and what is done again."""
    path = directory.path / "config.yaml"
    if not path.is_file():
        return
    import yaml

    try:
        old = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    new = yaml.safe_load(dump_config(settings))
    changes = list(_differing(old, new, ()))
    changes = [change for change in changes if change[0][0] != "run"]
    for field, before, after in changes:
        console.say(f"{'.'.join(field)}: {visible(before, 40)} → {visible(after, 40)}")
    if changes:
        first = min(SECTIONS[field[0]] for field, _, _ in changes)
        console.say(
            f"to be checked and redone where needed: {', '.join(s for s in STAGES if s >= first)}"
        )


def _differing(old: Any, new: Any, field: tuple[str, ...]) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differing(old.get(key), new.get(key), (*field, key))
    elif old != new:
        yield field, old, new


# ---- the stages


class _Stages:
    """The stages of one run, with the tools they share."""

    def __init__(
        self, settings: RunSettings, directory: RunDirectory, console: Console, assume_yes: bool
    ) -> None:
        from embedtune.store import Store

        self.settings, self.directory, self.console = settings, directory, console
        self.assume_yes = assume_yes
        # answers are shared by all runs beside this one; vectors belong to this run
        self.answers = Store(settings.run.parent / "answers.sqlite")
        self.vectors = Store(settings.run / ".vectors.sqlite")

    def close(self) -> None:
        self.answers.close()
        self.vectors.close()

    def documents(self) -> StageFolder:
        from embedtune.documents import read_documents

        settings = self.settings.documents
        paths = [Path(path) for path in settings.paths]
        recipe = Recipe(
            "read", 1, _plain(settings, "paths"), inputs={"files": _digest_of_files(paths)}
        )

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("reading documents")
            password = os.environ.get(settings.password_env) if settings.password_env else None
            reading = read_documents(
                paths, settings, self.console.progress("files"), password=password
            )
            write_jsonl(folder / "documents.jsonl", map(as_row, reading.documents))
            rejects = (*reading.rejects, *reading.duplicates)
            self._account(folder, "read", reading.counts, rejects)
            if not reading.documents:
                raise NothingUsable("no document could be read; the reasons are listed above")
            return {"counts": {"read": asdict(reading.counts)}, "notes": list(reading.notes)}

        return self.directory.stage(DOCUMENTS, recipe, build)

    def chunks(self, documents: StageFolder) -> StageFolder:
        from embedtune.documents import chunk_documents
        from embedtune.embed.tokens import load_tokens

        tokens = load_tokens(self.settings.model.base[0])
        recipe = Recipe(
            "chunk", 1, _plain(self.settings.chunks), {"tokenizer": tokens.name},
            {"documents": documents.digest},
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            made = chunk_documents(
                load_documents(documents.path), tokens, self.settings.chunks,
                self.console.progress("documents cut"),
            )  # fmt: skip
            write_jsonl(folder / "chunks.jsonl", map(as_row, made.chunks))
            self._account(folder, "chunk", made.counts, made.rejects)
            if not made.chunks:
                raise NothingUsable("no chunk could be made of the documents")
            return {
                "counts": {"chunk": asdict(made.counts)},
                "notes": list(getattr(made, "notes", ())),
            }

        return self.directory.stage(CHUNKS, recipe, build)

    def queries(self, documents: StageFolder, chunks: StageFolder) -> StageFolder:
        from embedtune.llm.recorded import RecordedChat, open_chat
        from embedtune.queries import extract_queries, generate_queries, read_real_queries

        settings = self.settings.queries
        model = None
        if settings.source == "llm" or (settings.file and self.settings.llm.model):
            model = open_chat(self.settings.llm)
        files = (settings.file, settings.examples, self.settings.llm.answers)
        recipe = Recipe(
            "generate",
            1,
            {**_plain(settings, "file", "examples"),
             **(_plain(self.settings.llm, *UNPAID) if model else {})},
            {"chat": model.name if model else "none"},
            {
                "documents": documents.digest,
                "chunks": chunks.digest,
                **{path.name: sha256_of(path) for path in files if path and path.is_file()},
            },
        )  # fmt: skip
        self._check_spending(recipe)

        def build(folder: Path) -> dict[str, Any]:
            pieces = load_chunks(chunks.path)
            sources = load_documents(documents.path)
            chat = RecordedChat(model, self.answers, self.settings.llm) if model else None
            made = []
            if settings.source == "llm" and chat is not None:
                self.console.say(f"queries from {chat.name}")
                report = self.console.progress("chunks asked about")
                made.append(generate_queries(pieces, sources, chat, settings, report))
            elif settings.source == "extractive":
                made.append(extract_queries(pieces, sources, settings))
            if settings.file is not None:
                retriever = _pool_retriever(pieces) if chat else None
                report = self.console.progress("real queries")
                made.append(
                    read_real_queries(
                        settings.file, pieces, sources, chat, retriever, settings, report
                    )
                )
            rejects = [reject for part in made for reject in part.rejects]
            found = {query.id: query for part in made for query in part.queries}
            counts = _added([part.counts for part in made])
            write_jsonl(folder / "queries.jsonl", map(as_row, found.values()))
            self._account(folder, "generate", counts, rejects)
            if not found:
                raise NothingUsable("no query is left to work with; the reasons are listed above")
            return {
                "counts": {"generate": asdict(counts)},
                "notes": [note for part in made for note in part.notes],
            }

        return self.directory.stage(QUERIES, recipe, build)

    def _check_spending(self, recipe: Recipe) -> None:
        """Paid work that was done once is done again only inside a budget or with --yes."""
        llm = self.settings.llm
        changed = self.directory.planned(QUERIES, recipe)
        paid = self.settings.queries.source == "llm" and llm.provider != "scripted"
        limited = any(value is not None for value in llm.budget.model_dump().values())
        if paid and changed and not limited and not self.assume_yes:
            what = "; ".join(f"{key} {value}" for key, value in changed.items())
            raise ConfigError(
                f"queries were already paid for once, and would be asked for again ({what}): give "
                "llm.budget, or repeat the command with --yes"
            )

    def dataset(self, chunks: StageFolder, queries: StageFolder) -> StageFolder:
        from embedtune.datasets.split import split_queries
        from embedtune.relevance import judge as judge_relevance
        from embedtune.similar import near_duplicates

        recipe = Recipe(
            "split", 1, _plain(self.settings.split),
            inputs={"chunks": chunks.digest, "queries": queries.digest},
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("judging and splitting")
            pieces, asked = load_chunks(chunks.path), load_queries(queries.path)
            pairs = near_duplicates([chunk.embedded for chunk in pieces])
            qrels = judge_relevance(asked, pieces, pairs)
            split = split_queries(pieces, asked, qrels, pairs, self.settings.split)
            kept = {query for part in split.qrels.values() for query in part}
            made = Dataset(
                data=RetrievalSet(
                    self.settings.run.name,
                    pieces,
                    tuple(query for query in asked if query.id in kept),
                    split.qrels,
                ),
                twins=tuple((pieces[one].id, pieces[other].id) for one, other in pairs),
                groups=dict(split.group_of_chunk),
                by=split.by,
                optimistic=split.optimistic,
                notes=tuple(split.notes),
            )
            save_dataset(folder, made)
            self._account(folder, "split", split.counts, split.dropped)
            return {"counts": {"split": asdict(split.counts)}, "notes": list(split.notes)}

        return self.directory.stage(DATASET, recipe, build)

    def given_data(self) -> StageFolder:
        """A BEIR folder instead of documents; its splits are kept where it has them."""
        folder = self.settings.data
        recipe = Recipe(
            "given", 1, _plain(self.settings.split), inputs={"data": _digest_of_files([folder])}
        )

        def build(target: Path) -> dict[str, Any]:
            given = load_given(folder, self.settings.split)
            save_dataset(target, given)
            self._account(target, "split", given.counts, given.rejects)
            return {"counts": {"split": asdict(given.counts)}, "notes": list(given.notes)}

        return self.directory.stage(DATASET, recipe, build)

    def training(self, dataset: StageFolder) -> StageFolder:
        from embedtune.embed.models import resolve_model
        from embedtune.embed.tokens import load_tokens

        bases = [resolve_model(name) for name in self.settings.model.base]
        recipe = Recipe(
            "train",
            1,
            {
                "training": _plain(self.settings.training),
                "evaluation": _plain(self.settings.evaluation, "rivals"),
            },
            {f"base {place}": base.label for place, base in enumerate(bases)},
            {"dataset": dataset.digest},
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            loaded = load_dataset(dataset.path)
            name = self._best_base(loaded)
            tokens = load_tokens(name)
            texts = [chunk.embedded for chunk in loaded.data.chunks]
            unknown = sum(tokens.unknown(texts)) / max(1, sum(tokens.count(texts)))
            if unknown > UNKNOWN_SHARE and not self.settings.training.allow_unknown_tokens:
                note = (
                    f"{name} was not trained: {unknown:.0%} of the tokens are unknown to it; "
                    "choose a base for the language of the documents (training.allow_unknown_tokens "
                    "trains all the same)"
                )
                self.console.say(note)
                return {"base": name, "trained": False, "notes": [note]}
            tuned = tune(
                loaded.data,
                name,
                folder,
                near_duplicates=loaded.twins,
                left_out=loaded.left_out,
                training=self.settings.training,
                evaluation=self.settings.evaluation,
                facts={"data": dataset.digest},
                console=self.console,
            )
            trained = tuned.trained
            return {
                "base": name,
                "trained": True,
                "alpha": tuned.alpha,
                "dev": tuned.dev,
                "plan": asdict(trained.plan),
                "best_step": trained.best_step,
                "best_score": trained.best_score,
                "base_score": trained.base_score,
                "notes": [],
            }

        return self.directory.stage(TRAINING, recipe, build)

    def _best_base(self, loaded: Dataset) -> str:
        """Of several base models the one with the best dev score."""
        names = self.settings.model.base
        if len(names) == 1:
            return names[0]
        from embedtune.evaluation.evaluate import Evaluator

        evaluator = Evaluator(
            loaded.data, self.settings.evaluation, near_duplicates=loaded.twins,
            embedder_of=self._embedder,
        )  # fmt: skip
        metric = self.settings.evaluation.metric
        scores = {}
        for name in names:
            scores[name] = evaluator.score(local(name, name), "dev").metrics[metric]
            self.console.say(f"  {name}: {metric} {scores[name]:.3f} on dev")
        return max(scores, key=scores.__getitem__)

    def evaluation(self, dataset: StageFolder, training: StageFolder) -> StageFolder:
        from embedtune.embed.tokens import load_tokens

        facts = training.facts
        settings = self.settings.evaluation
        recipe = Recipe(
            "evaluate", 1, _plain(settings), {"base": facts["base"]},
            {"dataset": dataset.digest, "training": training.digest},
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("evaluating on the locked test split")
            loaded = load_dataset(dataset.path)
            judgement = judge(
                loaded.data,
                local(facts["base"], "base"),
                local(training.path / "model", "tuned") if facts["trained"] else None,
                split="test",
                settings=settings,
                rivals=parse_systems(settings.rivals),
                tokens=load_tokens(facts["base"]),
                near_duplicates=loaded.twins,
                groups=loaded.groups,
                affected=loaded.affected,
                embedder_of=self._embedder,
                others=[
                    local(name, name) for name in self.settings.model.base if name != facts["base"]
                ],
            )
            judgement = replace(
                judgement, notes=(*judgement.notes, *facts["notes"]),
                verdict=replace(
                    judgement.verdict, reasons=(*judgement.verdict.reasons, *facts["notes"])
                ),
            )  # fmt: skip
            save_judgement(folder, judgement)
            return {"verdict": judgement.verdict.verdict, "notes": list(judgement.notes)}

        return self.directory.stage(EVALUATION, recipe, build)

    def _embedder(self, system: System) -> Any:
        from embedtune.embed.recorded import RecordedEmbedder

        # vectors of an API are paid for, and shared across runs like answers
        store = self.answers if system.kind == "api" else self.vectors
        return RecordedEmbedder(
            open_embedder(system), store,
            progress=self.console.progress(f"texts encoded by {system.label}"),
        )  # fmt: skip

    def _account(self, folder: Path, stage: str, counts: Counts, rejects: Sequence[Reject]) -> None:
        """Leave the rejects in the stage's folder and tell the counts."""
        save_rejects(folder, rejects)
        self.console.say(f"  {stage}: {counts_line(counts)}")
        for line in reject_lines([reject for reject in rejects if reject.unusable]):
            self.console.say(f"  {line}")


UNPAID = ("concurrency", "timeout", "retries", "backoff", "max_wait", "budget", "price",
          "api_key_env")  # fmt: skip  # settings of the client that change no answer


def _plain(settings: Settings, *without: str) -> dict[str, Any]:
    return settings.model_dump(mode="json", by_alias=True, exclude=set(without))


def _added(counts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(getattr(part, name) for part in counts)
                    for name in ("total", "accepted", "rejected", "duplicates")))  # fmt: skip


def _digest_of_files(paths: Sequence[Path]) -> str:
    """One digest over names and contents of all regular files below ``paths``."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            name = os.fsencode(file.relative_to(path.parent))
            try:
                state = sha256_of(file) if file.is_file() else "-"
            except OSError as error:
                state = f"unreadable {error.errno}"
            digest.update(name + b"\0" + state.encode() + b"\0")
    return digest.hexdigest()


def _pool_retriever(chunks: Sequence[Chunk]) -> Any:
    """BM25 proposes the passages that the language model judges for a real query."""
    from embedtune.retrieve.bm25 import BM25

    return BM25(chunks)
