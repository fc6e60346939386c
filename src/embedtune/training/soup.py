"""Several trainings averaged into one model (Wortsman et al. 2022, arXiv:2203.05482)."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedtune.files import sync_folder
from embedtune.training.best import check_finite
from embedtune.training.lora import save_plain
from embedtune.training.merge import average_into
from embedtune.training.train import Score, Trained, keep_outcome, outcome_of

log = logging.getLogger(__name__)


def train_seeds(
    count: int,
    seed: int,
    work: Path,
    train_one: Callable[[int, Path], Trained],
    *,
    score: Score,
    device: str,
) -> Trained:
    """``count`` trainings with the seeds from ``seed`` on, averaged in ``work/model``.

    Each has a folder ``work/seed-…`` of its own; after a kill those that are done are not done
    again. The history is that of the first.

    Args:
        train_one: Seed and folder -> a training, which goes on where a kill stopped it.
        score: Judges the average on dev.
    """
    if count == 1:
        return train_one(seed, work)
    from embedtune.embed.loading import load_sentence_transformer

    done: list[Trained] = []
    for own in range(seed, seed + count):
        folder = work / f"seed-{own}"
        found = outcome_of(folder)
        if found is None:
            log.info("training %d of %d, seed %d", len(done) + 1, count, own)
            found = train_one(own, folder)
            keep_outcome(found, folder)
        done.append(found)
    target, *others = (
        load_sentence_transformer(str(own.model), device=device) for own in (done[0], *done)
    )
    average_into(target, others)
    check_finite(target, done[0].best_step)
    aside, final = work / ".average", work / "model"
    shutil.rmtree(aside, ignore_errors=True)
    save_plain(target, aside)
    sync_folder(aside)
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    first = done[0]
    for name in ("history.jsonl", "tensorboard"):
        source = first.model.parent / name
        if source.is_dir():
            shutil.copytree(source, work / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, work / name)
    scores = ", ".join(f"{own.best_score:.3f}" for own in done)
    note = f"the mean of {count} trainings with other seeds, which score {scores} on dev"
    return replace(first, model=final, best_score=float(score(target)), notes=(*first.notes, note))
