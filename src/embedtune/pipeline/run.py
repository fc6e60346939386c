"""The whole run: documents (or a BEIR folder) in, model, verdict and report out.

Each stage reads what the ones before left in the run directory and leaves files of its own;
``RunDirectory.stage`` skips what is up to date. Nothing here computes: this module alone knows
both the files and the functions.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings, dump_config
from embedtune.embed.facts import licence_in
from embedtune.embed.models import resolve_model
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.evaluation.systems import parse_systems
from embedtune.files import visible, write_bytes, write_text
from embedtune.pipeline.audit import audit_dataset
from embedtune.pipeline.candidates import bases_of, rank_bases
from embedtune.pipeline.console import Console
from embedtune.pipeline.diagnose import say_why
from embedtune.pipeline.evidence import gather_evidence, save_evidence
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.material import (
    check_fits,
    further_digest,
    further_examples,
    labels_of_helpers,
)
from embedtune.pipeline.mine import account_facts, chosen, load_against, mine_into
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.preflight import preflight
from embedtune.pipeline.recipes import (
    FREE,
    chunk_recipe,
    files_digest,
    filter_recipe,
    negatives_recipe,
    open_recorded_chat,
    plain,
    query_recipe,
    read_recipe,
    split_recipe,
    training_libraries,
)
from embedtune.pipeline.report import write_report
from embedtune.pipeline.review import DECISIONS
from embedtune.pipeline.steps import (
    chunk_step,
    filter_step,
    given_step,
    preview_step,
    query_step,
    read_step,
    split_step,
)
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
    Dataset,
    has_unusable,
    load_chunks,
    load_dataset,
    load_given,
    load_judgement,
    save_judgement,
)
from embedtune.pipeline.tune import Against, tune, unreadable
from embedtune.pipeline.untrained import (
    FOLDER,
    STATIC,
    best_untuned,
    instead,
    is_static,
    label_of,
    opener,
    tokens_of,
)
from embedtune.queries import Preview
from embedtune.run import Recipe, RunDirectory, StageFolder
from embedtune.store import Store
from embedtune.training import ranks

log = logging.getLogger(__name__)

SECTIONS = {  # of the configuration -> the first stage that depends on it
    "data": DATASET, "documents": DOCUMENTS, "cleaning": DOCUMENTS, "chunks": CHUNKS,
    "llm": QUERIES, "queries": QUERIES, "filters": FILTERED, "split": DATASET,
    "columns": DATASET, "source": DATASET, "negatives": NEGATIVES, "model": NEGATIVES,
    "training": TRAINING, "evaluation": TRAINING, "embedding": EVALUATION,
    "evidence": EVALUATION,
}  # fmt: skip


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
            "clean": [scores.as_json() for scores in self.judgement.clean],
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
    if ranks.rank():  # of several processes all but the first encode for it
        ranks.help_out()
        raise SystemExit
    preflight(settings)
    with RunDirectory(settings.run) as directory:
        say_changes(settings, directory, console)
        config = settings.run / "config.yaml"
        earlier = config.read_bytes() if config.is_file() else None
        write_text(config, dump_config(settings))
        stages = _Stages(settings, directory, console, assume_yes)
        try:
            if settings.data is not None:
                dataset = stages.given_data(settings.data)
            else:
                documents = stages.documents()
                chunks = stages.chunks(documents)
                queries = stages.queries(documents, chunks)
                filtered = stages.filtered(documents, chunks, queries)
                dataset = stages.dataset(chunks, filtered)
            stages.audit(dataset)
            training = stages.training(dataset, stages.negatives(dataset))
            evaluation = stages.evaluation(dataset, training)
        except ConfigError:  # refused: the run is still that of the earlier settings
            if earlier is not None:
                write_bytes(config, earlier)
            raise
        except Exception:
            if any(directory.path.glob("0*/manifest.json")):
                write_report(settings.run, command)
            raise
        finally:
            stages.close()
        judgement = load_judgement(evaluation.path)
        if judgement.verdict.verdict not in ("ship", "ship-hybrid"):
            say_why(settings.run, console)
        report = write_report(settings.run, command)
    return Outcome(settings.run, report, judgement, has_unusable(settings.run))


def preview(settings: RunSettings, console: Console, count: int) -> Preview:
    """The queries of a few chunks, as the full run would make them; documents and chunks are made
    and kept, and so are the answers, so that the run pays for none of them again.

    Raises:
        ConfigError: No language model writes the queries.
    """
    if settings.queries.source != "llm" or settings.data is not None:
        raise ConfigError("--preview: only queries that a language model writes are previewed")
    preflight(settings)
    with RunDirectory(settings.run) as directory:
        write_text(settings.run / "config.yaml", dump_config(settings))
        stages = _Stages(settings, directory, console, assume_yes=False)
        try:
            documents = stages.documents()
            chunks = stages.chunks(documents)
            live = settings.llm.model_copy(update={"mode": "live"})  # of the same request keys
            chat = open_recorded_chat(settings.model_copy(update={"llm": live}), stages.answers)
            return preview_step(documents.path, chunks.path, chat, count, settings, console)
        finally:
            stages.close()


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
    if not isinstance(old, dict):
        return
    new = yaml.safe_load(dump_config(settings))
    changes = list(_differing(old, new, ()))
    changes = [change for change in changes if change[0][0] not in ("run", "report")]
    for field, before, after in changes:
        console.say(f"{'.'.join(field)}: {visible(before, 40)} → {visible(after, 40)}")
    if changes:
        first = min(SECTIONS.get(field[0], DOCUMENTS) for field, _, _ in changes)
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
        self.settings, self.directory, self.console = settings, directory, console
        self.assume_yes = assume_yes
        # answers are shared by all runs beside this one; vectors belong to this run
        self.answers = Store(settings.run.parent / "answers.sqlite")
        self.vectors = Store(settings.run / ".vectors.sqlite")
        # vectors of a service are paid for, and shared across runs like answers
        self.openers = Openers(
            self.vectors, console, self.answers, settings.model.pooling, Purse(settings.embedding)
        )

    def close(self) -> None:
        self.answers.close()
        self.vectors.close()

    def documents(self) -> StageFolder:
        paths = [Path(path) for path in self.settings.documents.paths]
        chat = open_recorded_chat(self.settings, self.answers)
        recipe = read_recipe(self.settings, paths, chat)

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("reading documents")
            return read_step(paths, folder, chat, self.settings, self.console).facts()

        return self.directory.stage(DOCUMENTS, recipe, build)

    def chunks(self, documents: StageFolder) -> StageFolder:
        tokens = tokens_of(self.settings.model.base[0])
        recipe = chunk_recipe(self.settings, documents.digest, tokens.name)

        def build(folder: Path) -> dict[str, Any]:
            step = chunk_step(documents.path, folder, tokens, self.settings, self.console)
            return step.facts()

        return self.directory.stage(CHUNKS, recipe, build)

    def queries(self, documents: StageFolder, chunks: StageFolder) -> StageFolder:
        chat = open_recorded_chat(self.settings, self.answers)
        recipe = query_recipe(self.settings, documents.digest, chunks.digest, chat)
        self._check_spending(recipe)

        def build(folder: Path) -> dict[str, Any]:
            step = query_step(
                documents.path, chunks.path, folder, chat, self.settings, self.console
            )
            return step.facts()

        return self.directory.stage(QUERIES, recipe, build)

    def _check_spending(self, recipe: Recipe) -> None:
        """Paid work that was done once is done again only inside a budget or with --yes."""
        llm = self.settings.llm
        changed = self.directory.planned(QUERIES, recipe)
        paid = self.settings.queries.source == "llm" and llm.provider not in FREE
        limited = any(value is not None for value in llm.budget.model_dump().values())
        if paid and changed and not limited and not self.assume_yes:
            what = "; ".join(f"{key} {value}" for key, value in changed.items())
            raise ConfigError(
                f"queries were already paid for once, and would be asked for again ({what}): give "
                "llm.budget, or repeat the command with --yes"
            )

    def filtered(
        self, documents: StageFolder, chunks: StageFolder, queries: StageFolder
    ) -> StageFolder:
        base = self.settings.model.base[0]
        chat = open_recorded_chat(self.settings, self.answers)
        decisions = self.settings.run / DECISIONS
        recipe = filter_recipe(
            self.settings, chunks.digest, queries.digest, label_of(base), chat, decisions,
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("filtering queries")
            step = filter_step(
                documents.path, chunks.path, queries.path, folder, tokens_of(base),
                lambda: self._opener(load_chunks(chunks.path))(local(base, base)), chat,
                decisions, self.settings, self.console,
            )  # fmt: skip
            return step.facts()

        return self.directory.stage(FILTERED, recipe, build)

    def dataset(self, chunks: StageFolder, queries: StageFolder) -> StageFolder:
        recipe = split_recipe(self.settings, chunks.digest, queries.digest)

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("judging and splitting")
            name = self.settings.run.name
            step = split_step(name, chunks.path, queries.path, folder, self.settings, self.console)
            return step.facts()

        return self.directory.stage(DATASET, recipe, build)

    def given_data(self, source: Path) -> StageFolder:
        """Data of the user's instead of documents; its splits are kept where it has them."""
        settings = self.settings
        recipe = Recipe(
            "given",
            3,
            {
                "split": plain(settings.split),
                "columns": settings.columns,
                "source": plain(settings.source),
            },
            inputs={"data": files_digest([source])},
        )

        def build(folder: Path) -> dict[str, Any]:
            self.console.say(f"reading {source}")
            given = load_given(
                source, settings.split, columns=settings.columns, settings=settings.source
            )
            return given_step(given, folder, self.console).facts()

        return self.directory.stage(DATASET, recipe, build)

    def audit(self, dataset: StageFolder) -> StageFolder:
        """What is wrong with the data set, told before anything is trained on it."""
        tokens = tokens_of(self.settings.model.base[0])
        recipe = Recipe("audit", 2, {}, {"tokenizer": tokens.name}, {"dataset": dataset.digest})

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("looking the data set through")
            found = audit_dataset(load_dataset(dataset.path), tokens, folder)
            for finding in found.findings:
                if finding.severity != "informs":
                    self.console.say(f"  {finding.message}; {finding.advice}")
            return {"stops": found.stops}

        return self.directory.stage(AUDIT, recipe, build)

    def negatives(self, dataset: StageFolder) -> StageFolder | None:
        """Negatives for training, where the settings or the data have some."""
        loaded = load_dataset(dataset.path)
        own = chosen(self.settings.negatives, loaded)
        rows, mined = loaded.examples.get("train", ()), own.method != "none"
        check_fits(rows, self.settings.training, negatives=mined)
        if not mined:
            return None
        base = self.settings.model.base[0]
        asked = own.check == "llm"
        chat = open_recorded_chat(self.settings, self.answers) if asked else None
        recipe = negatives_recipe(own, dataset.digest, label_of(base), chat)

        def build(folder: Path) -> dict[str, Any]:
            self.console.say(f"finding negatives with {base}")
            account = mine_into(
                loaded, folder, lambda: self._opener(loaded.data.chunks)(local(base, base)), chat,
                self.settings, self.console,
            )  # fmt: skip
            return account_facts(account)

        return self.directory.stage(NEGATIVES, recipe, build)

    def training(self, dataset: StageFolder, negatives: StageFolder | None) -> StageFolder:
        bases, further = self.settings.model.base, []
        if self.settings.training.also:
            main = load_dataset(dataset.path)
            further = further_examples(self.settings, main.data, main.examples)
        recipe = Recipe(
            "train",
            2,
            {
                "training": plain(self.settings.training),
                "model": plain(self.settings.model, "base"),
                "evaluation": plain(self.settings.evaluation, "rivals", "fusion"),
            },
            {
                **{f"base {place}": label_of(base) for place, base in enumerate(bases)},
                **labels_of_helpers(self.settings.training),
            },
            {
                "dataset": dataset.digest,
                "negatives": negatives.digest if negatives else "",
                **further_digest(further),
            },
            training_libraries(),
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            loaded = load_dataset(dataset.path)
            name, bases = self._best_base(loaded)
            training, notes, unread = self.settings.training, [], ""
            note = unreadable(loaded.data.chunks, tokens_of(name), name)
            told = training.allow_unknown_tokens or training.new_tokens != "off"
            if note and not told:
                unread, name, training = name, STATIC, instead(training)
                notes.append(f"{note}; a static model of the passages is trained instead")
                self.console.say(notes[0])
            if is_static(name):
                notes.append("the static model knows the words and sentences of all passages, "
                             "those of dev and test too (transductive)")  # fmt: skip
            for part in further:
                if part.note:
                    notes.append(part.note)
                    self.console.say(f"  {part.note}")
            also = {"also": [part.facts() for part in further]} if further else {}
            tuned = tune(
                loaded.data,
                name,
                folder,
                near_duplicates=loaded.twins,
                left_out=loaded.left_out,
                left_out_pairs=loaded.left_out_pairs,
                training=training,
                evaluation=self.settings.evaluation,
                facts={"data": dataset.digest},
                console=self.console,
                against=load_against(negatives.path) if negatives else Against(),
                rows=loaded.examples,
                further=further,
                model=self.settings.model,
            )
            if tuned.warmed:
                notes.append(tuned.warmed.note)
            if tuned.judged_on:
                notes.append(tuned.judged_on)
            licence = "" if is_static(name) else licence_in(resolve_model(name).path)
            return {"base": name, "base_licence": licence, "bases": bases, "unreadable": unread,
                    "trained": True,
                    "notes": notes, **also, **tuned.facts()}  # fmt: skip

        with ranks.lead():
            return self.directory.stage(TRAINING, recipe, build)

    def _best_base(self, loaded: Dataset) -> tuple[str, list[dict[str, Any]]]:
        """Of several base models the one to train, as ``embedtune candidates`` picks it, and the
        rows of all of them for the report."""
        names = self.settings.model.base
        if len(names) == 1:
            return names[0], []
        found = rank_bases(loaded, bases_of(self.settings), self.settings, self.console,
                           self._opener)  # fmt: skip
        return found.pick.name if found.pick else names[0], found.rows()

    def evaluation(self, dataset: StageFolder, training: StageFolder) -> StageFolder:
        from embedtune.embed.tokens import load_tokens

        facts = training.facts
        settings, names = self.settings.evaluation, self.settings.model.base
        recipe = Recipe(
            "evaluate", 5, {**plain(settings), "evidence": plain(self.settings.evidence)},
            {"base": facts["base"]},
            {"dataset": dataset.digest, "training": training.digest},
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            self.console.say("evaluating on the locked test split")
            loaded = load_dataset(dataset.path)
            others = [
                local(name, name) for name in names if name != facts["base"] and not is_static(name)
            ]
            base, own, reader = local(facts["base"], "base"), settings, facts["base"]
            if is_static(reader):
                # "base" is what the settings name, as ever; what it is compared with dev chooses
                begun, unread = training.path / FOLDER, facts["unreadable"]
                others = [local(name, "base" if name == unread else name) for name in names
                          if not is_static(name)]  # fmt: skip
                others.append(local(begun, "untrained" if unread else "base"))
                own = settings.model_copy(update={"probe": "none"})  # nothing general to forget
                reader = str(training.path / "model")
                evaluator = Evaluator(
                    loaded.data, own, near_duplicates=loaded.twins, embedder_of=self._embedder,
                    allow_collapsed=True,
                )  # fmt: skip
                able = [other for other in others if not unread or other.model != unread]
                base = best_untuned(loaded.data, evaluator, able)
            judgement = judge(
                loaded.data,
                base,
                local(training.path / "model", "tuned"),
                split="test",
                settings=own,
                rivals=parse_systems(settings.rivals),
                tokens=load_tokens(reader),
                near_duplicates=loaded.twins,
                groups=loaded.groups,
                affected=loaded.affected,
                embedder_of=self._embedder,
                reranker_of=self.openers.reranker,
                others=others,
                unreadable=is_static(facts["base"]),
            )
            judgement = replace(
                judgement, notes=(*judgement.notes, *facts["notes"]),
                verdict=replace(
                    judgement.verdict, reasons=(*judgement.verdict.reasons, *facts["notes"])
                ),
            )  # fmt: skip
            save_judgement(folder, judgement)
            self.console.say("measuring smaller indexes, thresholds and the map")
            evaluator = Evaluator(
                loaded.data, own, groups=loaded.groups, near_duplicates=loaded.twins,
                embedder_of=self._embedder, allow_collapsed=True,
            )  # fmt: skip
            candidate = local(training.path / "model", "tuned")
            save_evidence(
                folder,
                gather_evidence(
                    evaluator,
                    base,
                    candidate,
                    near_duplicates=loaded.twins,
                    settings=self.settings.evidence,
                ),
            )
            self.openers.tell()
            return {"verdict": judgement.verdict.verdict, "notes": list(judgement.notes)}

        return self.directory.stage(EVALUATION, recipe, build)

    def _opener(self, chunks: Any) -> Any:
        return opener(self.settings, chunks, self._embedder)

    def _embedder(self, system: System) -> Any:
        return self.openers.embedder(system)
