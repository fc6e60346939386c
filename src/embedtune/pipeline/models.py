"""Models by themselves: the commands that train, mine, evaluate, compare and search a data set."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.negatives import Account
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.evaluation.systems import open_embedder, parse_system, parse_systems
from embedtune.files import read_json, visible
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.material import (
    check_fits,
    check_helpers,
    further_examples,
    labels_of_helpers,
    training_pairs,
)
from embedtune.pipeline.mine import FILE as NEGATIVES_FILE
from embedtune.pipeline.mine import chosen, load_against, mine_into
from embedtune.pipeline.preflight import (
    check_device,
    check_evaluation,
    check_model,
)
from embedtune.pipeline.recipes import (
    open_recorded_chat,
    plain,
    training_libraries,
)
from embedtune.pipeline.stored import Dataset, answers_beside, load_chunks, load_given
from embedtune.pipeline.tune import FACTS, Against, tune, unreadable
from embedtune.pipeline.untrained import (
    FOLDER,
    best_untuned,
    is_static,
    label_of,
    opener,
    tokens_of,
)
from embedtune.records import Chunk, unusable
from embedtune.results import SystemScores
from embedtune.run import Recipe, build_folder
from embedtune.store import Store


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What ``embedtune train`` tells."""

    facts: dict[str, Any]
    unusable: bool

    def text(self) -> str:
        facts = self.facts
        return (
            f"{facts['model']}: {facts['metric']} on dev {facts['base_score']:.3f} → "
            f"{facts['dev']:.3f} (step {facts['best_step']}, merged with the base at "
            f"{facts['alpha']:.1f})"
        )


def train_into(
    data: Path,
    base: str,
    out: Path,
    settings: RunSettings,
    console: Console,
    *,
    fresh: bool = False,
    strict: bool = False,
) -> TrainedModel:
    """``embedtune train``: a model folder ``out`` from the train and dev qrels of a BEIR folder.

    Of several processes that were started together, all but the first encode for it and then
    exit.

    Raises:
        ConfigError: The base's tokenizer does not know the text, among others.
        IntegrityError: A leak; or half-done training on other data waits in ``out``.
    """
    from embedtune.datasets.formats import check_trainable
    from embedtune.training import ranks
    from embedtune.training.plain import validate_trainer_fields

    if ranks.rank():
        ranks.help_out()
        raise SystemExit
    label = label_of(base) if not is_static(base) else ""
    check_model(base, settings)
    check_evaluation(settings)
    check_device(settings.training)
    check_helpers(settings.training)
    if settings.training.trainer:
        validate_trainer_fields(settings.training.trainer)
    given = _given(data, settings, strict=strict)
    own = chosen(settings.negatives, given)
    rows = given.examples.get("train", ())
    if given.examples:
        check_trainable(rows, str(data), settings.training.batch_size)
    check_fits(rows, settings.training, negatives=own.method != "none")
    note = unreadable(given.data.chunks, tokens_of(base), base)
    told = settings.training.allow_unknown_tokens or settings.training.new_tokens != "off"
    if note and not told:
        raise ConfigError(note)
    for line in given.notes:
        console.say(f"  {line}")
    further = further_examples(settings)
    recipe = Recipe(
        "train",
        1,
        {
            "training": plain(settings.training),
            "model": plain(settings.model, "base"),
            "evaluation": plain(settings.evaluation, "rivals"),
            "negatives": plain(own),
        },
        {"base": label or label_of(base), **labels_of_helpers(settings.training)},
        {"data": train_digest(given)},
        training_libraries(),
    )

    def build(folder: Path) -> Mapping[str, Any]:
        for path in folder.iterdir():  # left by a kill between the last steps below
            if path.name != "work":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        against = Against()
        if own.method != "none":
            console.say(f"finding negatives with {base}")
            _mine(given, base, folder / "work", out, settings, console)
            against = load_against(folder / "work")
        tuned = tune(
            given.data,
            base,
            folder / "work",
            near_duplicates=given.twins,
            left_out=given.left_out,
            training=settings.training,
            evaluation=settings.evaluation,
            facts={"data": train_digest(given)},
            console=console,
            against=against,
            rows=given.examples,
            further=further,
            hold=False,
            model=settings.model,
        )
        (folder / "work" / NEGATIVES_FILE).unlink(missing_ok=True)
        for path in tuned.model.iterdir():
            path.rename(folder / path.name)
        for name in ("history.jsonl", "merge.json"):
            (folder / "work" / name).rename(folder / name)
        if (events := folder / "work" / "tensorboard").exists():
            events.rename(folder / events.name)
        shutil.rmtree(folder / "work" / FOLDER, ignore_errors=True)
        tuned.model.rmdir()
        (folder / "work").rmdir()
        return tuned.facts()

    with ranks.lead():
        done = build_folder(out, recipe, build, fresh=fresh)
    facts = {"model": str(out), "base": base, "left_out": len(given.left_out), **done.facts}
    return TrainedModel(facts, unusable(given.rejects))


def _given(data: Path, settings: RunSettings, *, strict: bool = False) -> Dataset:
    return load_given(
        data, settings.split, columns=settings.columns, settings=settings.source, strict=strict
    )


def _mine(
    given: Dataset, base: str, folder: Path, out: Path, settings: RunSettings, console: Console
) -> Account:
    """Negatives as the settings say, left in ``folder``."""
    with (
        Store(_vector_store()) as vectors,
        answers_beside(out, settings.negatives.check == "llm") as store,
    ):
        chat = open_recorded_chat(settings, store) if store else None

        def open_base() -> Any:
            open_system = opener(settings, given.data.chunks, _cached(vectors, console, settings))
            return open_system(local(base, base))

        return mine_into(given, folder, open_base, chat, settings, console)


def mine_for(
    given: Dataset, base: str, out: Path, settings: RunSettings, console: Console
) -> tuple[Account, Against]:
    """Negatives of the train queries for a command that needs some: hard ones, where the settings
    ask for none."""
    from tempfile import TemporaryDirectory

    own = chosen(settings.negatives, given)
    if own.method == "none":
        own = own.model_copy(update={"method": "hard"})
    settings = settings.model_copy(update={"negatives": own})
    with TemporaryDirectory(prefix="embedtune-") as scratch:
        account = _mine(given, base, Path(scratch), out, settings, console)
        return account, load_against(Path(scratch))


@dataclass(frozen=True, slots=True)
class MinedNegatives:
    """What ``embedtune mine`` tells."""

    out: Path
    account: Account
    rows: int
    unusable: bool


def mine_triplets(
    data: Path, base: str, out: Path, settings: RunSettings, console: Console
) -> MinedNegatives:
    """``embedtune mine``: triplets of the train queries, in the format that ``out`` names.

    Raises:
        ConfigError, NothingUsable: See ``mine_negatives``.
    """
    from embedtune.datasets.formats import PairRow
    from embedtune.datasets.negatives import attach_negatives
    from embedtune.datasets.write import write_examples

    given = _given(data, settings)
    account, against = mine_for(given, base, out, settings, console)
    pairs = attach_negatives(
        training_pairs(given.data, given.left_out, seed=settings.training.seed),
        against.negatives,
        given.data.chunks,
    )
    rows = [
        PairRow(pair.anchor, pair.positive, tuple(text for _, text in pair.negatives))
        for pair in pairs
        if pair.negatives
    ]
    write_examples(rows, out)
    return MinedNegatives(out, account, len(rows), unusable(given.rejects))


def train_digest(given: Dataset) -> str:
    """What a training on the data set depends on: texts, train and dev judgements, left-outs."""
    from embedtune.records import content_id

    qrels = {name: given.data.qrels[name] for name in ("train", "dev")}
    return content_id(
        "t",
        [(chunk.id, chunk.embedded) for chunk in given.data.chunks],
        [(query.id, query.text) for query in given.data.queries
         if any(query.id in part for part in qrels.values())],
        sorted((name, query, sorted(grades.items())) for name, part in qrels.items()
               for query, grades in part.items()),
        sorted(given.left_out),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Evaluation:
    systems: tuple[SystemScores, ...]
    queries: int
    unusable: bool


def evaluate_systems(
    data: Path, split: str, systems: Sequence[str], settings: RunSettings, console: Console
) -> Evaluation:
    """``embedtune evaluate``: systems side by side on one split of a BEIR folder."""
    from embedtune.datasets.parts import WHOLE
    from embedtune.datasets.source import read_source
    from embedtune.similar import near_duplicates

    parsed = parse_systems(systems)
    reading = read_source(data, settings.columns, split=settings.split, settings=settings.source)
    if split not in reading.data.qrels and list(reading.data.qrels) == [WHOLE]:
        split = WHOLE
        console.say(f"  {data} has no splits: all of it is evaluated")
    chunks = reading.data.chunks
    texts = [] if reading.data.shared_passages else [chunk.embedded for chunk in chunks]
    pairs = near_duplicates(texts)
    with Store(_vector_store()) as store:
        evaluator = Evaluator(
            reading.data,
            settings.evaluation,
            near_duplicates=[(chunks[one].id, chunks[other].id) for one, other in pairs],
            embedder_of=_cached(store, console, settings),
        )
        queries = len(evaluator.queries(split))
        scores = tuple(evaluator.score(system, split) for system in parsed)
    return Evaluation(scores, queries, unusable(reading.rejects))


@dataclass(frozen=True, slots=True)
class Comparison:
    judgement: Judgement
    notes: tuple[str, ...]
    unusable: bool


def compare_models(
    data: Path,
    split: str,
    base: str,
    tuned: str,
    settings: RunSettings,
    console: Console,
    *,
    strict: bool = False,
) -> Comparison:
    """``embedtune compare``: the verdict on ``tuned``, beside ``base``, BM25 and hybrids."""
    from embedtune.embed.tokens import load_tokens

    base_system, tuned_system = parse_system(base), parse_system(tuned)
    faults = [
        f"--{name}: expected a model's name or folder, found {visible(text)}; name other systems "
        "in evaluation.rivals"
        for name, text, system in (("base", base, base_system), ("tuned", tuned, tuned_system))
        if system.embedder != "local" or system.kind != "dense"
    ]
    if faults:
        raise ConfigError(faults)
    given = _given(data, settings, strict=strict)
    for line in given.notes:
        console.say(f"  {line}")
    own, others = settings.evaluation, []
    with Store(_vector_store()) as store:
        open_system = opener(settings, given.data.chunks, _cached(store, console, settings))
        if base_system.label == base:
            base_system = local(base, "base")
        tokens = tokens_of(base_system.model)
        if is_static(base_system.model):
            others = [local(base_system.model, base_system.label)]
            own = own.model_copy(update={"probe": "none"})  # it began with nothing to forget
            tokens = load_tokens(tuned_system.model)
            evaluator = Evaluator(
                given.data, own, near_duplicates=given.twins, embedder_of=open_system
            )
            base_system = best_untuned(given.data, evaluator, others)
            console.say(f"  {base_system.label}, the best untuned system on dev, is the base")
        judgement = judge(
            given.data,
            base_system,
            local(tuned, "tuned") if tuned_system.label == tuned else tuned_system,
            split=split,
            settings=own,
            rivals=parse_systems(own.rivals),
            tokens=tokens,
            near_duplicates=given.twins,
            affected=given.affected,
            removed=_trained_without_leaks(Path(tuned_system.model), given),
            embedder_of=open_system,
            others=others,
        )
    return Comparison(judgement, given.notes, unusable(given.rejects))


def search_passages(
    query: str, data: Path, system: str, k: int, console: Console
) -> list[tuple[Chunk, float]]:
    """``embedtune search``: the best ``k`` passages for one query, with scores."""
    from embedtune.datasets.source import read_source
    from embedtune.retrieve.bm25 import BM25
    from embedtune.retrieve.dense import DenseRetriever
    from embedtune.retrieve.fusion import FusedRetriever

    if not query.strip():
        raise ConfigError("the query is empty")
    parsed = parse_system(system)
    chunks = (
        load_chunks(data) if (data / "chunks.jsonl").exists() else read_source(data).data.chunks
    )
    if not chunks:
        raise NothingUsable(f"{data}: no passages to search")
    by_id = {chunk.id: chunk for chunk in chunks}
    with Store(_vector_store()) as store:
        retrievers = []
        if parsed.kind in ("bm25", "hybrid"):
            retrievers.append(BM25(chunks))
        if parsed.kind != "bm25":
            retrievers.append(DenseRetriever(_cached(store, console)(parsed), chunks))
        retriever = retrievers[0] if len(retrievers) == 1 else FusedRetriever(retrievers)
        return [(by_id[hit.chunk], hit.score) for hit in retriever.search([query], k)[0]]


def _vector_store() -> Path:
    """Where vectors of commands without a run directory are kept, so that none is made twice."""
    import os

    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "embedtune" / "vectors.sqlite"


def _cached(store: Store, console: Console, settings: RunSettings | None = None) -> Any:
    from embedtune.embed.recorded import RecordedEmbedder

    def open_cached(system: System) -> RecordedEmbedder:
        report = console.progress(f"texts encoded by {system.label}")
        opened = open_embedder(system, settings.model.pooling if settings else "auto")
        return RecordedEmbedder(opened, store, progress=report)

    return open_cached


def _trained_without_leaks(model: Path, given: Dataset) -> bool:
    """Whether the model says it was trained on this data with its leaks left out."""
    path = model / FACTS
    return path.is_file() and read_json(path).get("data") == train_digest(given)
