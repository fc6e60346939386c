"""Fine-tune a base model on query-passage pairs; the best checkpoint on dev is kept.

``train`` is the one door to training; the engine behind it is ``plain.fit``.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.errors import NothingUsable, ResourceError
from embedtune.files import write_jsonl
from embedtune.records import Pair, Progress, no_progress
from embedtune.training.checkpoints import last_whole_checkpoint
from embedtune.training.losses import Excluded, negative_columns, ranking_loss
from embedtune.training.plain import best_so_far, fit
from embedtune.training.plan import Plan, TrainingSettings, device_and_precision, plan_training

log = logging.getLogger(__name__)

Score = Callable[[Any], float]  # a SentenceTransformer -> nDCG@10 (or the chosen metric) on dev


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
        if pair.anchor.strip() != pair.positive.strip()
    ]
    if len({pair.positive for pair in usable}) < 2:
        raise NothingUsable(
            f"training needs at least 2 pairs with different passages; of {len(pairs)} pairs "
            f"{len(usable)} have a passage other than the query, all with the same one"
        )
    device, _ = device_and_precision(settings)
    model = load_sentence_transformer(base, device=device)
    plan = plan_training(
        settings,
        len(usable),
        model.get_embedding_dimension(),
        corpus,
        negatives=len(negative_columns(usable)),
    )
    base_score = float(score(model))

    set_seed(settings.seed)
    loss = ranking_loss(
        model, usable, excluded, temperature=settings.temperature, dimensions=plan.dimensions
    )
    checkpoints, best = work / "checkpoints", work / "best"
    resume = last_whole_checkpoint(checkpoints)
    if resume is None:
        shutil.rmtree(best, ignore_errors=True)  # of steps that will be done again
    else:
        log.warning("training goes on from %s", resume.name)
    try:
        rows = fit(
            model, loss, usable, excluded, score, settings, plan,
            checkpoints=checkpoints, best=best, resume=resume, progress=progress,
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
