"""Models by themselves: the commands that train, mine, evaluate, compare and search a data set."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.negatives import Account
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import parse_system, parse_systems
from embedtune.files import read_json, visible
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.material import (
    check_fits,
    check_helpers,
    further_digest,
    further_examples,
    labels_of_helpers,
    training_pairs,
)
from embedtune.pipeline.measures import Evaluation, measure
from embedtune.pipeline.mine import FILE as NEGATIVES_FILE
from embedtune.pipeline.mine import chosen, load_against, mine_into
from embedtune.pipeline.openers import Openers
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
from embedtune.pipeline.stored import (
    EXAMPLE_FORMATS,
    Dataset,
    answers_beside,
    load_chunks,
    load_given,
)
from embedtune.pipeline.tune import FACTS, Against, tune, unreadable
from embedtune.pipeline.untrained import (
    FOLDER,
    best_untuned,
    is_static,
    label_of,
    opener,
    tokens_for,
    tokens_of,
)
from embedtune.records import Chunk, unusable
from embedtune.run import Recipe, build_folder
from embedtune.similar import normalise
from embedtune.store import Store


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What ``embedtune train`` tells."""

    facts: dict[str, Any]
    unusable: bool

    def text(self) -> str:
        facts = self.facts
        if (warmed := facts["warmup_documents"]) and not facts["dev"]:
            return (
                f"{facts['model']}: learnt from {warmed['passages']:,} passages "
                f"({warmed['method']}); no dev queries to measure it by"
            )
        return (
            f"{facts['model']}: {facts['metric']} on dev {facts['base_score']:.3f} → "
            f"{facts['dev']:.3f} (step {facts['best_step']}, merged with the base at "
            f"{facts['alpha']:.1f})" + (f"; {facts['judged_on']}" if facts.get("judged_on") else "")
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
    given = _given(
        data, settings, strict=strict,
        passages_alone=settings.training.warmup_documents != "off",
    )  # fmt: skip
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
    further = further_examples(settings, given.data, given.examples)
    for part in further:
        if part.note:
            console.say(f"  {part.note}")
    seen = {"data": train_digest(given), **further_digest(further)}
    recipe = Recipe(
        "train",
        2,
        {
            "training": plain(settings.training),
            "model": plain(settings.model, "base"),
            "evaluation": plain(settings.evaluation, "rivals", "fusion"),
            "negatives": plain(own),
        },
        {"base": label or label_of(base), **labels_of_helpers(settings.training)},
        seen,
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
            left_out_pairs=given.left_out_pairs,
            training=settings.training,
            evaluation=settings.evaluation,
            facts=seen,
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
        also = {"also": [part.facts() for part in further]} if further else {}
        return {**tuned.facts(), **also}

    with ranks.lead():
        done = build_folder(out, recipe, build, fresh=fresh)
    facts = {
        "model": str(out),
        "base": base,
        "left_out": len(given.left_out),
        "left_out_pairs": len(given.left_out_pairs),
        **done.facts,
    }
    return TrainedModel(facts, unusable(given.rejects))


def _given(
    data: Path, settings: RunSettings, *, strict: bool = False, passages_alone: bool = False
) -> Dataset:
    return load_given(
        data,
        settings.split,
        columns=settings.columns,
        settings=settings.source,
        strict=strict,
        passages_alone=passages_alone,
    )


def _mine(
    given: Dataset, base: str, folder: Path, out: Path, settings: RunSettings, console: Console
) -> Account:
    """Negatives as the settings say, left in ``folder``."""
    with (
        Store(vector_store()) as vectors,
        answers_beside(out, settings.negatives.check == "llm") as store,
    ):
        chat = open_recorded_chat(settings, store) if store else None

        def open_base() -> Any:
            openers = _openers(vectors, console, settings)
            open_system = opener(settings, given.data.chunks, openers.embedder)
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
        training_pairs(
            given.data, given.left_out, given.left_out_pairs, seed=settings.training.seed
        ),
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
    """What a training on the data set depends on: texts, train and dev judgements, left-outs; and,
    where the data have such, scores and labels, given negatives, and judgements of other splits on
    what train asks (they mask)."""
    from embedtune.records import content_id

    qrels = {name: given.data.qrels.get(name, {}) for name in ("train", "dev")}
    texts = {query.id: normalise(query.text) for query in given.data.queries}
    asked = {texts[query] for query in qrels["train"]}
    further = {
        "rows": [
            (name, [replace(row, place="") for row in given.examples.get(name, ())])
            for name in qrels
        ] if given.format in EXAMPLE_FORMATS else [],
        "negatives": sorted((query, tuple(own)) for query, own in given.negatives.items()),
        "elsewhere": sorted(
            (name, query, sorted(grades.items()))
            for name, part in given.data.qrels.items()
            if name not in qrels and not given.data.shared_passages
            for query, grades in part.items()
            if texts[query] in asked
        ),
    }  # fmt: skip
    return content_id(
        "t",
        [(chunk.id, chunk.embedded) for chunk in given.data.chunks],
        [(query.id, query.text) for query in given.data.queries
         if any(query.id in part for part in qrels.values())],
        sorted((name, query, sorted(grades.items())) for name, part in qrels.items()
               for query, grades in part.items()),
        [*sorted(given.left_out), *sorted(given.left_out_pairs)],
        *(part for part in further.items() if part[1]),
    )  # fmt: skip


def evaluate_systems(
    data: Path,
    split: str,
    systems: Sequence[str],
    settings: RunSettings,
    console: Console,
    *,
    runs: Sequence[str] = (),
    qrels: Path | None = None,
) -> Evaluation:
    """``embedtune evaluate``: systems side by side on one split; see ``measure``."""
    with Store(vector_store()) as store:
        openers = _openers(store, console, settings)
        try:
            return measure(
                data, split, systems, settings, console, embedder_of=openers.embedder,
                reranker_of=openers.reranker, runs=runs, qrels=qrels,
            )  # fmt: skip
        finally:
            openers.tell()


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
        f"--{name}: expected {what}, found {visible(text)}; name other systems in evaluation.rivals"
        for name, text, system, what, fits in (
            ("base", base, base_system, "a model or a service", ("dense", "api")),
            ("tuned", tuned, tuned_system, "a model's name or folder", ("dense",)),
        )
        if system.kind not in fits or (name == "tuned" and system.embedder != "local")
    ]
    if faults:
        raise ConfigError(faults)
    given = _given(data, settings, strict=strict)
    for line in given.notes:
        console.say(f"  {line}")
    own, others = settings.evaluation, []
    with Store(vector_store()) as store:
        openers = _openers(store, console, settings)
        open_system = opener(settings, given.data.chunks, openers.embedder)
        if base_system.label == base:
            base_system = replace(base_system, label="base")
        if tuned_system.label == tuned:
            tuned_system = replace(tuned_system, label="tuned")
        tokens = tokens_for(base_system)
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
            tuned_system,
            split=split,
            settings=own,
            rivals=parse_systems(own.rivals),
            tokens=tokens,
            near_duplicates=given.twins,
            affected=given.affected,
            removed=_trained_without_leaks(Path(tuned_system.model), given),
            embedder_of=open_system,
            reranker_of=openers.reranker,
            others=others,
        )
        openers.tell()
    return Comparison(judgement, given.notes, unusable(given.rejects))


def search_passages(
    query: str, data: Path, system: str, k: int, console: Console
) -> list[tuple[Chunk, float]]:
    """``embedtune search``: the best ``k`` passages for one query, with scores."""
    from embedtune.datasets.source import read_source
    from embedtune.retrieve.bm25 import BM25
    from embedtune.retrieve.dense import DenseRetriever
    from embedtune.retrieve.fusion import FusedRetriever, Fusion
    from embedtune.retrieve.rerank import rerank

    if not query.strip():
        raise ConfigError("the query is empty")
    parsed = parse_system(system)
    if (parsed.first or parsed).precision != "float32":
        raise ConfigError("--system: search compares whole vectors; leave precision out")
    chunks = (
        load_chunks(data) if (data / "chunks.jsonl").exists() else read_source(data).data.chunks
    )
    if not chunks:
        raise NothingUsable(f"{data}: no passages to search")
    by_id = {chunk.id: chunk for chunk in chunks}
    with Store(vector_store()) as store:
        openers = _openers(store, console, RunSettings())
        first = parsed.first or parsed
        retrievers = []
        if first.kind != "bm25":
            retrievers.append(DenseRetriever(openers.embedder(first), chunks))
        if first.kind in ("bm25", "hybrid"):
            retrievers.append(BM25(chunks))
        retriever = retrievers[0] if len(retrievers) == 1 else FusedRetriever(retrievers, Fusion())
        hits = retriever.search([query], parsed.depth if parsed.first else k)[0]
        if parsed.first:
            texts = {id: chunk.embedded for id, chunk in by_id.items()}
            found = rerank(
                openers.reranker(parsed), {"": query}, {"": hits}, texts, depth=parsed.depth
            )
            hits = found[""][:k]
        return [(by_id[chunk], score) for chunk, score in hits]


def vector_store() -> Path:
    """Where vectors of commands without a run directory are kept, so that none is made twice."""
    import os

    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "embedtune" / "vectors.sqlite"


def _openers(store: Store, console: Console, settings: RunSettings) -> Openers:
    purse = Purse(settings.embedding)
    return Openers(store, console, pooling=settings.model.pooling, purse=purse)


def _trained_without_leaks(model: Path, given: Dataset) -> bool:
    """Whether the model says it was trained on this data with its leaks left out."""
    path = model / FACTS
    return path.is_file() and read_json(path).get("data") == train_digest(given)
