"""From examples to what an engine is fed with: each set with its loss, and the order of batches."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from embedtune.embed import Embedder, Matrix
from embedtune.records import Pair, Role
from embedtune.training.batches import (
    batches,
    class_batches,
    class_steps,
    mixed_batches,
    sharing,
    sharing_of,
    shuffled_batches,
    steps_per_epoch,
)
from embedtune.training.builders import Teacher
from embedtune.training.examples import Batch, Examples, Order, Task
from embedtune.training.losses import LOSSES, LossKind, build_loss, choose_loss, shaped
from embedtune.training.neighbours import MOST_PAIRS, nearest_pairs
from embedtune.training.plan import Plan, TrainingSettings
from embedtune.training.ranking import Excluded

log = logging.getLogger(__name__)

Lot = tuple[Examples, LossKind]  # a data set, shaped as its loss wants it
Near = list[list[int]]  # for each pair those nearest to it; empty: not known


@dataclass(frozen=True, slots=True)
class ChosenLoss:
    """What a data set is trained with, and why."""

    data: str
    loss: str
    why: str  # a sentence that begins with the loss


def choose_losses(sets: Sequence[Examples], settings: TrainingSettings) -> list[ChosenLoss]:
    """The loss that ``settings`` choose for each set. Where there are several sets, a loss that
    does not fit the further ones gives way to the one that is usual for their format.

    Raises:
        ConfigError: The loss does not fit the first set.
    """
    found = []
    for number, examples in enumerate(sets):
        name = settings.loss
        if number and name != "auto" and examples.format != sets[0].format:
            name = "auto"
        kind, why = choose_loss(name, examples.format, examples.labels)
        found.append(ChosenLoss(examples.name, kind.name, why))
    return found


def make_lots(
    sets: Sequence[Examples], excluded: Excluded, settings: TrainingSettings
) -> list[Lot]:
    """Each set with the loss that ``choose_losses`` finds for it.

    Raises:
        ConfigError: The loss does not fit the first set.
        NothingUsable: No row of a set has the shape that its loss wants.
    """
    lots = []
    for examples, chosen in zip(sets, choose_losses(sets, settings), strict=True):
        log.info("%s: %s", examples.name, chosen.why)
        kind = LOSSES[chosen.loss]
        lots.append((shaped(examples, kind, excluded), kind))
    return lots


def steps_of(lots: Sequence[Lot], size: int) -> int:
    """Batches of an epoch over all sets."""
    return sum(
        class_steps(examples.labels or (), size)
        if kind.batches == "by_label"
        else steps_per_epoch(len(examples), size)
        for examples, kind in lots
    )


def encodings_of(
    pairs: Sequence[Pair], settings: TrainingSettings, size: int, *, encodes_once: bool
) -> int:
    """How many passages an epoch of ``pairs`` in batches of ``size`` encodes, negatives aside.

    Args:
        encodes_once: As for ``order_of``.
    """
    return len(sharing(pairs, range(len(pairs)), _shared(settings, size, encodes_once)))


def _shared(settings: TrainingSettings, size: int, encodes_once: bool) -> int:
    """How many pairs of one passage go into the same batch of ``size``."""
    return sharing_of(size) if encodes_once and settings.sampler != "random" else 1


def make_tasks(
    lots: Sequence[Lot],
    model: Any,  # a SentenceTransformer, or ``losses.vectors_only``
    excluded: Excluded,
    settings: TrainingSettings,
    plan: Plan,
    *,
    embedded: bool,
    guide: Embedder | None = None,
    teacher: Teacher | None = None,
) -> list[Task]:
    """Each set with its loss, built for the engine that will feed it."""
    tasks = []
    for examples, kind in lots:
        loss = build_loss(
            kind, model, examples, excluded, settings,
            plan.dimensions if kind.matryoshka else plan.dimensions[:1],
            guide=guide, teacher=teacher, embedded=embedded,
        )  # fmt: skip
        labels = examples.labels if kind.labels == "label" else None
        tasks.append(Task(examples, loss, labels or tuple(range(len(examples))), kind.anew))
    return tasks


def neighbours_of(
    lots: Sequence[Lot],
    embed: Callable[[Sequence[str], Role], Matrix],
    excluded: Excluded,
    settings: TrainingSettings,
    plan: Plan,
) -> list[Near]:
    """For each lot, which of its pairs shall meet in a batch: those that the base finds alike.
    None where the loss takes no negatives from the batch, one batch holds all, or it is in doubt
    that they are negatives.
    """
    return [
        nearest_pairs(examples.pairs, excluded, embed)
        if settings.sampler == "neighbours"
        and kind.meets
        and plan.batch_size < len(examples.pairs) <= MOST_PAIRS
        else []
        for examples, kind in lots
    ]


def order_of(
    lots: Sequence[Lot],
    excluded: Excluded,
    settings: TrainingSettings,
    plan: Plan,
    near: Sequence[Near],
    *,
    encodes_once: bool,
) -> Order:
    """Epoch -> its batches, given by the seed and ``near``; several sets take turns by sizes.

    Args:
        near: What ``neighbours_of`` found for each lot.
        encodes_once: The engine encodes a text that recurs in a batch once.
    """
    shared = _shared(settings, plan.batch_size, encodes_once)
    passes: list[Callable[[int], list[list[int]]]] = [
        partial(_pass, examples, kind, excluded, settings, plan, own, shared)
        for (examples, kind), own in zip(lots, near, strict=True)
    ]

    def order(epoch: int) -> Iterator[Batch]:
        if len(passes) == 1:
            return ((0, rows) for rows in passes[0](epoch))
        return mixed_batches(passes, settings.mixing, seed=settings.seed, epoch=epoch)

    return order


def _pass(
    examples: Examples,
    kind: LossKind,
    excluded: Excluded,
    settings: TrainingSettings,
    plan: Plan,
    near: Near,
    shared: int,
    epoch: int,
) -> list[list[int]]:
    how = {"size": plan.batch_size, "seed": settings.seed, "epoch": epoch}
    if kind.batches == "by_label":
        return list(class_batches(examples.labels or (), **how))
    if examples.pairs:
        how |= {"avoid_conflicts": settings.sampler != "random", "near": near, "shared": shared}
        return list(batches(examples.pairs, excluded, **how))
    return list(shuffled_batches(len(examples), **how))
