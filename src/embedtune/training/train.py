"""Fine-tune a base model on query-passage pairs; the best checkpoint on dev is kept.

``train`` is the one door to training. Behind it are two engines: ``fast.fit`` where the flat
forward knows the encoder, ``plain.fit`` (the library's trainer) for all others.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.errors import NothingUsable, ResourceError
from embedtune.files import write_jsonl
from embedtune.records import Pair, Progress, no_progress
from embedtune.training import fast, plain
from embedtune.training.batches import batches
from embedtune.training.best import BestModel, best_so_far, check_trackers
from embedtune.training.checkpoints import last_whole_checkpoint
from embedtune.training.collapse import Watch
from embedtune.training.examples import Batch, Task, from_pairs, negative_columns
from embedtune.training.losses import LOSSES, build_loss, vectors_only
from embedtune.training.memory import affordable_tokens, check_disk
from embedtune.training.plan import Plan, TrainingSettings, device_and_precision, plan_training
from embedtune.training.ranking import Excluded

log = logging.getLogger(__name__)

Score = Callable[[Any], float]  # a SentenceTransformer -> nDCG@10 (or the chosen metric) on dev


def not_fast(model: Any, settings: TrainingSettings, plan: Plan) -> str:
    """Why the fast engine cannot train ``model``; empty where it can."""
    from embedtune.embed.packed import packable

    if settings.trainer:
        return "training.trainer has fields of its own"
    if settings.adaptive_layers:
        return "training.adaptive_layers needs what each layer gives"
    if plan.precision == "fp16":
        return "fp16 needs its scaling of losses"
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


def train(
    pairs: Sequence[Pair],
    base: str,
    work: Path,
    *,
    excluded: Excluded,
    score: Score,
    settings: TrainingSettings,
    corpus: int = 0,
    progress: Progress = no_progress,
) -> Trained:
    """Fine-tune ``base`` on ``pairs``; the model with the best ``score`` on dev is left in
    ``work/model``.

    ``work`` keeps checkpoints while training; called again with the same arguments after a
    kill, it goes on from the last whole one and ends with the same model.

    Args:
        pairs: Those with fewer negatives than others are trained with what they have.
        excluded: Chunks that are no negatives for a query id (see ``relevance.Relevance``);
            a pair's own negatives are held to it too.
        score: Judges a model on dev; the base is scored too.
        progress: Steps done and in all.

    Raises:
        NothingUsable: Fewer than two different passages to learn from.
        ConfigError: A setting that does not fit the model; an unknown ``trainer`` field.
        IntegrityError: Loss or weights became non-finite, or there is nothing to learn.
        ResourceError: Memory ran out.
    """
    import torch
    from transformers import set_seed

    from embedtune.embed.loading import load_sentence_transformer

    wanted = settings.negatives_per_pair
    usable = [
        pair if wanted == "auto" else replace(pair, negatives=pair.negatives[:wanted])
        for pair in pairs
        if pair.anchor.strip() and pair.positive.strip() not in ("", pair.anchor.strip())
    ]
    if len(usable) < len(pairs):
        log.warning(
            "%d of %d pairs left out of training: a text is empty, or the passage is a copy of "
            "its query", len(pairs) - len(usable), len(pairs),
        )  # fmt: skip
    if len({pair.positive for pair in usable}) < 2:
        raise NothingUsable(
            f"training needs at least 2 pairs with different passages; of {len(pairs)} pairs "
            f"{len(usable)} have a passage other than the query, all with the same one"
        )
    device, _ = device_and_precision(settings)
    check_trackers(settings.report_to)
    model = load_sentence_transformer(base, device=device)
    plan = plan_training(
        settings,
        len(usable),
        model.get_embedding_dimension(),
        corpus,
        negatives=len(negative_columns(usable)),
        affordable=affordable_tokens(model, device),
    )
    settings = settings.model_copy(update={"temperature": plan.temperature})
    work.mkdir(parents=True, exist_ok=True)
    check_disk(model, work)
    base_score = float(score(model))
    watch = Watch([pair.positive for pair in usable], _vectors, model)

    set_seed(settings.seed)
    slow = not_fast(model, settings, plan)
    fit = plain.fit if slow else fast.fit
    log.info("engine: %s", f"the plain trainer ({slow})" if slow else "flat forward")
    examples = from_pairs("train", usable)
    loss = build_loss(
        LOSSES["mnrl"],
        model if slow else vectors_only(plan.dimensions[0], device),
        examples,
        excluded,
        settings,
        plan.dimensions,
        embedded=not slow,
    )
    task = Task(examples, loss, tuple(range(len(usable))))

    def order(epoch: int) -> Iterator[Batch]:
        made = batches(
            usable, excluded, size=plan.batch_size, seed=settings.seed, epoch=epoch,
            avoid_conflicts=settings.sampler == "conflict_free",
        )  # fmt: skip
        return ((0, rows) for rows in made)

    checkpoints, best = work / "checkpoints", work / "best"
    resume = last_whole_checkpoint(checkpoints)
    if resume is None:
        shutil.rmtree(best, ignore_errors=True)  # of steps that will be done again
    else:
        log.warning("training goes on from %s", resume.name)
    try:
        rows = fit(
            model, [task], order, BestModel(best, score, watch, last=settings.keep == "last"),
            settings, plan, checkpoints=checkpoints, resume=resume, history=work / "history.jsonl",
            progress=progress,
        )  # fmt: skip
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            f"out of memory at batch size {plan.batch_size} with {plan.negatives_per_pair} "
            f"negatives a pair and {model.max_seq_length} tokens; lower training.batch_size, "
            "training.negatives_per_pair or chunks.tokens and run the same command again"
        ) from error
    chosen = best_so_far(best)
    final = work / "model"
    shutil.rmtree(final, ignore_errors=True)
    (best / chosen["folder"]).rename(final)
    history = ({"step": 0, "epoch": 0.0, "dev": base_score}, *rows)
    write_jsonl(work / "history.jsonl", history)
    for folder in (checkpoints, best):
        shutil.rmtree(folder, ignore_errors=True)
    return Trained(final, plan, history, int(chosen["step"]), chosen["score"], base_score)


def _vectors(model: Any, texts: Sequence[str]) -> Any:
    from embedtune.embed.local import MemoryEmbedder

    return MemoryEmbedder(model, "in training", "fp32").embed(texts, "document")
