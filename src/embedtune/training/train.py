"""Fine-tune a base model on query-passage pairs; the best checkpoint on dev is kept.

``train`` is the one door to training. Behind it are two engines: ``fast.fit`` where the flat
forward knows the encoder, ``plain.fit`` (the library's trainer) for all others.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from embedtune.errors import NothingUsable, ResourceError
from embedtune.files import read_json, write_json, write_jsonl, write_text
from embedtune.records import Progress, Role, no_progress
from embedtune.training import fast, plain
from embedtune.training.best import (
    MOST_AVERAGED,
    BestModel,
    best_so_far,
    check_trackers,
    publish,
    take_back,
)
from embedtune.training.builders import Teacher
from embedtune.training.checkpoints import last_whole_checkpoint
from embedtune.training.collapse import Watch
from embedtune.training.examples import (
    NO_NEGATIVE,
    Examples,
    from_pairs,
    negative_columns,
    role_of,
)
from embedtune.training.lora import save_plain
from embedtune.training.losses import LossKind, vectors_only
from embedtune.training.memory import affordable_tokens, check_disk, told_when_full
from embedtune.training.options import AS_IT_IS, ModelSettings, prepare
from embedtune.training.plan import (
    Plan,
    TrainingSettings,
    device_and_precision,
    judging_precision,
    plan_training,
)
from embedtune.training.portions import out_of_memory
from embedtune.training.ranking import Excluded
from embedtune.training.tasks import Lot, make_lots, make_tasks, neighbours_of, order_of, steps_of

log = logging.getLogger(__name__)

OUTCOME = "trained.json"
NEIGHBOURS = "neighbours.json"  # so that a resumed training has the order of the batches

Score = Callable[[Any], float]  # a SentenceTransformer -> nDCG@10 (or the chosen metric) on dev


def not_fast(
    model: Any, settings: TrainingSettings, precision: str, kinds: Sequence[LossKind] = ()
) -> str:
    """Why the fast engine cannot train ``model``; empty where it can."""
    from embedtune.embed.packed import packable

    if settings.trainer:
        return "training.trainer has fields of its own"
    if settings.adaptive_layers:
        return "training.adaptive_layers needs what each layer gives"
    if precision == "fp16":
        return "fp16 needs its scaling of losses"
    if tokens := [kind.name for kind in kinds if not kind.flat]:
        return f"{', '.join(tokens)} needs tokens, not vectors"
    return packable(model)


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome: the best checkpoint's model folder and how it came about."""

    model: Path
    plan: Plan
    history: tuple[Mapping[str, float], ...]  # step, epoch and loss, or step, epoch and dev
    best_step: int  # 0: no checkpoint was better than the base
    best_score: float
    base_score: float
    base: Path | None = None  # what to merge with, where the base was given new tokens
    notes: tuple[str, ...] = ()  # what was done to the base before


def train(
    sets: Sequence[Examples],
    base: str,
    work: Path,
    *,
    excluded: Excluded,
    score: Score,
    settings: TrainingSettings,
    model_settings: ModelSettings = AS_IT_IS,
    teacher: Teacher | None = None,
    corpus: int = 0,
    progress: Progress = no_progress,
    start: Path | None = None,
) -> Trained:
    """Fine-tune ``base`` on ``sets``, each with the loss for it; the model with the best ``score``
    on dev is left in ``work/model``; where ``settings.keep`` asks for it, or leaves it to dev, the
    mean of the models of the last half (see ``BestModel.average``).

    ``work`` keeps checkpoints while training; called again with the same arguments after a
    kill, it goes on from the last whole one and ends with the same model. Where
    new tokens make its weights larger than those of ``base``, the base with them is left in
    ``work/base``, to be merged with.

    Args:
        sets: Pairs with fewer negatives than others are trained with what they have.
        excluded: Chunks that are no negatives for a query id (see ``relevance.Relevance``);
            a pair's own negatives are held to it too.
        score: Judges a model on dev; the base is scored too.
        teacher: Scores of queries with passages, for losses that learn from a cross-encoder.
        progress: Steps done and in all.
        start: A model of the same shape whose weights training begins with; the base's score, and
            what is merged with later, are still those of ``base``.

    Raises:
        NothingUsable: Fewer than two different passages to learn from.
        ConfigError: A setting that does not fit the model; an unknown ``trainer`` field.
        IntegrityError: Loss or weights became non-finite, or there is nothing to learn.
        ResourceError: Memory ran out.
    """
    usable = [usable_rows(examples, settings.negatives_per_pair) for examples in sets]
    return train_lots(
        make_lots(usable, excluded, settings),
        usable,
        base,
        work,
        excluded=excluded,
        score=score,
        settings=settings,
        model_settings=model_settings,
        teacher=teacher,
        corpus=corpus,
        progress=progress,
        start=start,
    )


def train_lots(
    lots: Sequence[Lot],
    sets: Sequence[Examples],
    base: str,
    work: Path,
    *,
    excluded: Excluded,
    score: Score,
    settings: TrainingSettings,
    model_settings: ModelSettings = AS_IT_IS,
    teacher: Teacher | None = None,
    corpus: int = 0,
    progress: Progress = no_progress,
    start: Path | None = None,
) -> Trained:
    """As ``train``, on rows that are shaped already, each set with the loss that it comes with.

    Args:
        sets: Where lengths and new words are taken from.
    """
    import torch
    from transformers import set_seed

    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import LocalEmbedder

    queries, passages = texts_of(sets, "query"), texts_of(sets, "document")
    rows = sum(len(examples) for examples, _ in lots)
    device, precision = device_and_precision(settings)
    check_trackers(settings.report_to)
    model = load_sentence_transformer(base, device=device, pooling=model_settings.pooling)
    prepared = prepare(model, model_settings, settings, queries=queries, passages=passages)
    slow = not_fast(model, settings, precision, [kind for _, kind in lots])
    plan = plan_training(
        settings,
        rows,
        model.get_embedding_dimension(),
        corpus,
        negatives=max(len(negative_columns(examples.pairs)) for examples, _ in lots),
        affordable=affordable_tokens(model, device),
        large=any(kind.batches == "large" for _, kind in lots),
        whole=bool(slow),
        steps_of=partial(steps_of, lots),
    )
    settings = settings.model_copy(update={"temperature": plan.temperature})
    work.mkdir(parents=True, exist_ok=True)
    averaging = settings.keep in ("auto", "average")
    check_disk(model, work, MOST_AVERAGED if averaging else 0)
    original = work / "base" if prepared.reshaped else None
    shutil.rmtree(work / "base", ignore_errors=True)
    if original:
        save_plain(model, original)
    base_score = float(score(model))
    quick = judging_precision(device, plan.precision)
    watch = Watch(passages or queries, partial(_vectors, quick), model)
    checkpoints, best = work / "checkpoints", work / "best"
    take_back(best, work / "model")
    resume = last_whole_checkpoint(checkpoints)
    if resume is None:
        shutil.rmtree(best, ignore_errors=True)  # of steps that will be done again
        near = neighbours_of(lots, partial(_vectors, quick, model), excluded, settings, plan)
        write_text(work / NEIGHBOURS, json.dumps(near))
    else:
        log.warning("training goes on from %s", resume.name)
        near = read_json(work / NEIGHBOURS)
    if start:
        model = load_sentence_transformer(str(start), device=device)
        prepare(model, model_settings, settings, queries=queries, passages=passages)

    set_seed(settings.seed)
    fit = plain.fit if slow else fast.fit
    log.info("engine: %s", f"the plain trainer ({slow})" if slow else "flat forward")
    tasks = make_tasks(
        lots,
        model if slow else vectors_only(plan.dimensions[0], device),
        excluded,
        settings,
        plan,
        embedded=not slow,
        guide=LocalEmbedder(settings.guide, device=device) if settings.guide else None,
        teacher=teacher,
    )
    order = order_of(lots, excluded, settings, plan, near, encodes_once=not slow)
    keep_best = BestModel(
        best, score, watch, last=settings.keep == "last",
        average_from=-(-plan.steps // 2) if averaging else None,
    )  # fmt: skip
    averaged: tuple[int, ...] = ()
    try:
        history = fit(
            model, tasks, order, keep_best, settings, plan, checkpoints=checkpoints,
            resume=resume, history=work / "history.jsonl", progress=progress,
        )  # fmt: skip
        if averaging:
            load = partial(_load, device)
            scratch = load(best / best_so_far(best)["folder"])
            with told_when_full(checkpoints, model):
                averaged = keep_best.average(scratch, load, always=settings.keep == "average")
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ResourceError(
            f"out of memory at batch size {plan.batch_size} with {plan.negatives_per_pair} "
            f"negatives a pair and {model.max_seq_length} tokens; lower training.batch_size, "
            "training.negatives_per_pair or chunks.tokens and run the same command again"
        ) from error
    history = ({"step": 0, "epoch": 0.0, "dev": base_score}, *history)
    write_jsonl(work / "history.jsonl", history)
    final = work / "model"
    chosen = publish(best, final)
    for folder in (checkpoints, best):
        shutil.rmtree(folder, ignore_errors=True)
    (work / NEIGHBOURS).unlink()
    notes = prepared.notes
    if averaged:
        notes += (f"the mean of the models at steps {', '.join(map(str, averaged))} is kept",)
        log.info("%s", notes[-1])
    return Trained(
        final, plan, history, int(chosen["step"]), chosen["score"], base_score, original, notes
    )


def keep_outcome(trained: Trained, work: Path) -> None:
    """Leave what ``outcome_of`` reads, beside the model: this training is done."""
    base = trained.base.name if trained.base else None
    write_json(work / OUTCOME, {**asdict(trained), "model": trained.model.name, "base": base})


def clear(work: Path) -> None:
    """Remove a training's folder, so that a kill leaves none that seems to be done."""
    (work / OUTCOME).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def outcome_of(work: Path) -> Trained | None:
    """What a training that was done before in ``work`` gave."""
    if not (work / OUTCOME).is_file():
        return None
    row = read_json(work / OUTCOME)
    plan = {**row["plan"], "dimensions": tuple(row["plan"]["dimensions"])}
    return Trained(
        work / "model", Plan(**plan), tuple(row["history"]), row["best_step"], row["best_score"],
        row["base_score"], work / row["base"] if row["base"] else None, tuple(row["notes"]),
    )  # fmt: skip


def usable_rows(examples: Examples, negatives: int | str) -> Examples:
    """The rows that something can be learnt from, with so many ``negatives`` at most.

    Raises:
        NothingUsable: Fewer than two different passages are left.
    """
    columns = list(examples.columns.values())
    first = columns[0]
    kept = [
        row
        for row in range(len(examples))
        if all(texts[row].strip() for texts in columns)
        and not (
            examples.format in ("pairs", "triplets")
            and first[row].strip() == columns[1][row].strip()
        )
    ]
    left = len(examples) - len(kept)
    if left:
        log.warning(
            "%d of %d rows left out of training: a text is empty, or the passage is a copy of "
            "its query", left, len(examples),
        )  # fmt: skip
    if len({columns[min(1, len(columns) - 1)][row] for row in kept}) < 2:
        raise NothingUsable(
            f"training needs at least 2 pairs with different passages; of {len(examples)} rows "
            f"{len(kept)} have a passage other than the query, all with the same one"
            if len(columns) > 1
            else f"training needs at least 2 different texts; {len(examples)} rows have one"
        )
    if examples.pairs:
        pairs = [examples.pairs[row] for row in kept]
        if negatives != "auto":
            pairs = [replace(pair, negatives=pair.negatives[: int(negatives)]) for pair in pairs]
        return from_pairs(examples.name, pairs)
    return replace(
        examples,
        columns={name: tuple(own[row] for row in kept) for name, own in examples.columns.items()},
        labels=tuple(examples.labels[row] for row in kept) if examples.labels else None,
    )


def texts_of(sets: Sequence[Examples], role: Role) -> list[str]:
    """All texts of a role, those that only fill a row left out."""
    return [
        text
        for examples in sets
        for column, texts in examples.columns.items()
        if role_of(column) == role
        for text in texts
        if text != NO_NEGATIVE
    ]


def _load(device: str, folder: Path) -> Any:
    from embedtune.embed.loading import load_sentence_transformer

    return load_sentence_transformer(str(folder), device=device)


def _vectors(precision: Any, model: Any, texts: Sequence[str], role: Role = "document") -> Any:
    from embedtune.embed.local import MemoryEmbedder

    return MemoryEmbedder(model, "in training", precision).embed(texts, role)
