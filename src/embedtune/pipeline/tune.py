"""From pairs to one candidate model: training, then the merge with the base, chosen on dev."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedtune.datasets.formats import Row, ScoredRow
from embedtune.embed.checks import write_checksums
from embedtune.embed.tokens import Tokens
from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.forgetting import LANGUAGES, bundled_probe
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.subsample import subsample_note, subsampled
from embedtune.files import write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.material import (
    FurtherSet,
    open_teacher,
    order_of_scores,
    own_examples,
    training_pairs,
)
from embedtune.pipeline.search import ENOUGH, FILE, OUTCOME, find_recipe, minutes_of, seeds_of
from embedtune.pipeline.untrained import FOLDER, is_static, untrained
from embedtune.pipeline.weight import merge_with_base
from embedtune.records import Chunk, Pair, RetrievalSet
from embedtune.relevance import Relevance, merge_qrels
from embedtune.training.examples import from_pairs
from embedtune.training.merge import MergePoint
from embedtune.training.options import AS_IT_IS, ModelSettings
from embedtune.training.plan import TrainingSettings
from embedtune.training.soup import train_seeds
from embedtune.training.sweep import Chosen
from embedtune.training.tasks import ChosenLoss, choose_losses
from embedtune.training.train import Trained, clear, train
from embedtune.training.warmup import Warmed, warm_up

UNKNOWN_SHARE = 0.20
WARM_UP = "warmup"  # beside the model that is trained: the one that has read the passages
FACTS = "embedtune.json"  # in a model folder: where the model comes from


@dataclass(frozen=True, slots=True)
class Tuned:
    """The candidate: ``model`` is a folder that plain sentence-transformers loads."""

    model: Path
    trained: Trained
    alpha: float
    dev: float  # of the candidate
    curve: tuple[MergePoint, ...]  # empty when merging was off
    search: Chosen | None = None  # how the recipe was found, where it was looked for
    losses: tuple[ChosenLoss, ...] = ()  # of each data set
    metric: str = "ndcg@10"  # that dev scores are in
    warmed: Warmed | None = None  # what was learnt from passages alone
    judged_on: str = ""  # which part of the corpus dev scores are over, where it is not all

    def facts(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        trained = self.trained
        return {
            "metric": self.metric,
            "alpha": self.alpha,
            "dev": self.dev,
            "judged_on": self.judged_on,
            "losses": [asdict(chosen) for chosen in self.losses],
            "plan": asdict(trained.plan),
            "best_step": trained.best_step,
            "best_score": trained.best_score,
            "base_score": trained.base_score,
            "training_notes": list(trained.notes),
            "search": self.search.as_json() if self.search else None,
            "warmup_documents": self.warmed.as_json() if self.warmed else None,
        }


@dataclass(frozen=True, slots=True)
class Against:
    """What training holds against a query (``negatives``), and what it must not (``answers``):
    chunk ids by query id."""

    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def unreadable(chunks: Iterable[Chunk], tokens: Tokens, name: str) -> str:
    """Why training this base makes no sense; empty when its tokenizer knows the text."""
    texts = [chunk.embedded for chunk in chunks]
    share = sum(tokens.unknown(texts)) / max(1, sum(tokens.count(texts)))
    if share <= UNKNOWN_SHARE:
        return ""
    return (
        f"{name} is not trained: {share:.0%} of the tokens of the corpus are unknown to it; choose "
        "a base for the language of the documents (training.allow_unknown_tokens=true trains it "
        "all the same)"
    )


def probe_sets(setting: str) -> tuple[RetrievalSet, ...]:
    """The general probes that ``evaluation.probe`` names: one a language for ``general``."""
    if setting == "none":
        return ()
    if setting == "general":
        return tuple(map(bundled_probe, LANGUAGES))
    from embedtune.datasets.beir import read_beir

    folder = Path(setting)
    if not folder.is_dir():
        raise ConfigError(f"evaluation.probe: {setting}: general, none, or a BEIR folder")
    data = read_beir(folder).data
    if "test" not in data.qrels:
        raise ConfigError(f"evaluation.probe: {setting}: there is no qrels/test.tsv in it")
    return (data,)


def tune(
    data: RetrievalSet,
    base: str,
    work: Path,
    *,
    near_duplicates: Sequence[tuple[str, str]],
    left_out: Sequence[str],
    left_out_pairs: Sequence[tuple[str, str]] = (),
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    facts: Mapping[str, Any],
    console: Console,
    against: Against = Against(),
    model: ModelSettings = AS_IT_IS,
    rows: Mapping[str, Sequence[Row]] = {},
    further: Sequence[FurtherSet] = (),
    hold: bool = True,
) -> Tuned:
    """Train ``base`` on the train split, merge, and leave the candidate in ``work/model``.

    Checkpoint and merge weight are chosen by the deciding metric on dev, over the corpus or a part
    of it, see ``subsampled`` (among scored pairs that are learnt as such by how well they are
    ordered).

    Args:
        near_duplicates: Pairs of chunk ids.
        left_out: Train queries that are too close to dev or test.
        left_out_pairs: (query, chunk) likewise.
        against: Mined or given negatives, and what a check called answers.
        model: What the base becomes before it is trained.
        rows: The data as it came, by split, where it is not retrieval data.
        further: Data sets that are trained on beside.
        hold: Choose among the weights that hold the general probe's gate, where one does.
        facts: Further entries for the model folder's ``embedtune.json``.

    Raises:
        NothingUsable: All train pairs are left out, among others.
    """
    from embedtune.datasets.given import nothing_left
    from embedtune.datasets.negatives import attach_negatives
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.training.plan import device_and_precision, judging_precision

    def pairs_of(part: RetrievalSet) -> list[Pair]:
        if "train" not in part.qrels:
            return []
        own = training_pairs(part, left_out, left_out_pairs, seed=training.seed)
        return attach_negatives(own, against.negatives, part.chunks)

    pairs = pairs_of(data)
    position = {chunk.id: place for place, chunk in enumerate(data.chunks)}
    relevance = Relevance(
        data.queries,
        data.chunks,
        merge_qrels(data.qrels.values()),
        [(position[one], position[other]) for one, other in near_duplicates],
    )
    answers = {query: frozenset(chunks) for query, chunks in against.answers.items() if chunks}

    static = is_static(base)
    if static:  # without weights there is nothing general to forget
        evaluation = evaluation.model_copy(update={"probe": "none"})
    own = (
        from_pairs("train", pairs)
        if static
        else own_examples(rows.get("train", ()), pairs, training)
    )
    warm = training.warmup_documents
    whole = warm != "off" and not len(own) and not further
    if left_out and not (whole or further or len(own)):
        raise nothing_left(data)
    sets = [] if whole else [own, *(part.examples for part in further)]
    losses = () if static else tuple(choose_losses(sets, training))
    for loss in losses:
        console.say(f"loss of {loss.data}: {loss.why}")
    theirs = {query: own for part in further for query, own in part.answers.items()}

    def excluded(query: str) -> frozenset[str]:
        if query in theirs:
            return theirs[query]
        known = relevance.excluded(query)
        return known | answers[query] if query in answers else known

    device, precision = device_and_precision(training)
    quick = "fp32" if static else judging_precision(device, precision)
    # a static model reads all of a large corpus in seconds
    judged = data if static else subsampled([data])[0]
    evaluator = Evaluator(judged, evaluation, near_duplicates=near_duplicates)

    scored = [row for row in rows.get("dev", ()) if isinstance(row, ScoredRow)]
    in_order = order_of_scores(scored, evaluation) if own.format == "scored" and scored else None
    over_all = in_order or not data.qrels.get("dev")
    note = "" if over_all else subsample_note(judged, data)
    if note:
        note = f"in training, {note}"
        console.say(note)

    def dev_score(model: Any) -> float:
        if in_order:
            return in_order(model)
        if whole and not data.qrels.get("dev"):
            return 0.0
        return evaluator.score_embedder(MemoryEmbedder(model, "in training", quick), "dev")

    teacher = None if static else open_teacher(training, device)
    minutes = minutes_of(training, len(pairs))
    small = len(data.qrels.get("dev", {})) < ENOUGH
    work.mkdir(parents=True, exist_ok=True)
    warmed = None
    if warm != "off":
        console.say(f"{base} reads the passages first ({warm})")
        warmed = warm_up(
            data.chunks,
            base,
            work / WARM_UP,
            warm,
            near_duplicates=near_duplicates,
            settings=training,
            model_settings=model,
            score=dev_score if whole else None,
            progress=console.progress("warm-up steps"),
        )
    start = warmed.trained.model if warmed else None
    chosen = find_recipe(
        data,
        base,
        work,
        pairs_of=pairs_of,
        excluded=excluded,
        near_duplicates=near_duplicates,
        training=training,
        evaluation=evaluation,
        minutes=minutes,
        console=console,
        teacher=teacher,
        model=model,
        start=start,
        left_out=left_out,
    ) if minutes and training.max_steps is None and own.pairs and not static else None  # fmt: skip
    if chosen:
        training = chosen.candidate.settings(training)
    if training.keep == "auto" and small:
        training = training.model_copy(update={"keep": "last"})

    def train_one(seed: int, folder: Path) -> Trained:
        return train(
            sets,
            base,
            folder,
            excluded=excluded,
            score=dev_score,
            settings=training.model_copy(update={"seed": seed}),
            model_settings=model,
            teacher=teacher,
            corpus=evaluator.corpus_size,
            progress=console.progress("training steps"),
            start=start,
        )

    if warmed and whole:
        trained = _as_it_is(warmed.trained, work)
        if not data.qrels.get("dev") and training.merge == "auto":
            training = training.model_copy(update={"merge": "off"})
    else:
        seeds = seeds_of(training)
        what = " and ".join(f"{len(examples):,} {examples.format}" for examples in sets)
        console.say(f"training {base} on {what}{f', {seeds} seeds' if seeds > 1 else ''}")
        trained = _train_static(
            base, data, pairs, work, excluded, dev_score, training, console
        ) if static else train_seeds(
            seeds, training.seed, work, train_one, score=dev_score, device=device
        )  # fmt: skip
    alpha, dev, curve = merge_with_base(
        trained, base, training.merge, probe_sets(evaluation.probe), dev_score, console,
        chosen.curve if chosen and small else (), hold=hold, device=device, pooling=model.pooling,
    )  # fmt: skip
    shutil.rmtree(work / "base", ignore_errors=True)
    write_json(
        trained.model / FACTS,
        {"base": base, "alpha": alpha, "matryoshka_dims": list(trained.plan.dimensions),
         "pairs": sum(map(len, sets)), **({"transductive": True} if static or warmed else {}),
         **facts},
    )  # fmt: skip
    write_checksums(trained.model)
    write_json(work / "merge.json", [asdict(point) for point in curve])
    for name in (FILE, OUTCOME):
        (work / name).unlink(missing_ok=True)
    for folder in (work / WARM_UP, *work.glob("seed-*")):
        clear(folder)
    return Tuned(trained.model, trained, alpha, dev, tuple(curve), chosen, losses,
                 "Spearman" if in_order else evaluation.metric, warmed, note)  # fmt: skip


def _as_it_is(trained: Trained, work: Path) -> Trained:
    """A training that was done in a folder of its own, as if it had been done in ``work``."""
    aside, final = work / ".model", work / "model"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(trained.model, aside)
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    shutil.copyfile(trained.model.parent / "history.jsonl", work / "history.jsonl")
    return replace(trained, model=final)


def _train_static(
    base: str,
    data: RetrievalSet,
    pairs: Sequence[Pair],
    work: Path,
    excluded: Any,
    dev_score: Any,
    training: TrainingSettings,
    console: Console,
) -> Trained:
    """From no weights: the untrained model is left in ``work/untrained``, the trained beside."""
    from embedtune.training.static_train import train_static

    queries = [pair.anchor for pair in pairs]
    begin = work / FOLDER
    if not (begin / "modules.json").is_file():
        model = untrained(base, data.chunks, training.seed, queries)
        shutil.rmtree(begin, ignore_errors=True)
        aside = work / f".{FOLDER}"
        shutil.rmtree(aside, ignore_errors=True)
        model.save(str(aside), create_model_card=False)
        aside.rename(begin)
    return train_static(
        pairs,
        data.chunks,
        begin,
        work,
        excluded=excluded,
        score=dev_score,
        settings=training,
        progress=console.progress("training steps"),
    )
