"""Which rows are trained on together: the batches of an epoch, given by seed and epoch alone."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from embedtune.errors import NothingUsable
from embedtune.records import Pair
from embedtune.training.ranking import Excluded

Strategy = Literal["proportional", "round_robin", "weighted"]

TOGETHER = 4  # pairs that are near each other; of 16, most of a batch would be of one kind


def batches(
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    size: int,
    seed: int,
    epoch: int,
    avoid_conflicts: bool = True,
    near: Sequence[Sequence[int]] = (),
) -> Iterator[list[int]]:
    """The batches of one epoch: every pair once.

    With ``avoid_conflicts``, pairs of which a passage, positive or negative, is masked for the
    other are put into different batches where possible, so that each query meets as many
    negatives as it can. No batch has one pair only (it would teach nothing): such a rest joins the
    batch before.

    Args:
        near: For each pair those it shall meet, the first first (see ``nearest_pairs``): with
            three of them that are left it goes into a batch.
    """
    brought = [{pair.chunk, *(chunk for chunk, _ in pair.negatives)} for pair in pairs]
    order = list(range(len(pairs)))
    draw = random.Random(f"{seed}/{epoch}")
    draw.shuffle(order)
    if near:

        def apart(one: int, other: int) -> bool:
            return brought[one].isdisjoint(excluded(pairs[other].query)) and brought[
                other
            ].isdisjoint(excluded(pairs[one].query))

        groups = _groups(order, near, apart)
        draw.shuffle(groups)
        order = [index for group in groups for index in group]
    made: list[list[int]] = []
    while order:
        batch: list[int] = []
        barred: set[str] = set()
        held: set[str] = set()
        waiting: list[int] = []
        for position, index in enumerate(order):
            own, chunks = excluded(pairs[index].query), brought[index]
            if avoid_conflicts and not (chunks.isdisjoint(barred) and held.isdisjoint(own)):
                waiting.append(index)
                continue
            batch.append(index)
            barred |= own
            held |= chunks
            if len(batch) == size:
                waiting.extend(order[position + 1 :])
                break
        # towards the end only conflicting pairs may be left: fill up rather than leave them out
        while len(batch) < size and waiting:
            batch.append(waiting.pop(0))
        made.append(batch)
        order = waiting
    if len(made) > 1 and len(made[-1]) == 1:
        made[-2].extend(made.pop())
    yield from made


def _groups(
    order: Sequence[int], near: Sequence[Sequence[int]], apart: Callable[[int, int], bool]
) -> list[list[int]]:
    """Each of ``order`` once, with the nearest to it that are left; negatives of one another."""
    taken: set[int] = set()
    groups = []
    for first in order:
        if first in taken:
            continue
        group = [first]
        for other in near[first]:
            if len(group) == TOGETHER:
                break
            if other not in taken and all(apart(one, other) for one in group):
                group.append(other)
        taken.update(group)
        groups.append(group)
    return groups


def shuffled_batches(rows: int, *, size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """The batches of one epoch of rows that do not meet: every row once, none of one row."""
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    steps = steps_per_epoch(rows, size)
    for step in range(steps):
        yield order[step * size : (step + 1) * size if step < steps - 1 else None]


def steps_per_epoch(rows: int, size: int) -> int:
    """How many batches ``batches`` and ``shuffled_batches`` make of one epoch."""
    steps = math.ceil(rows / size)
    return steps - 1 if steps > 1 and rows % size == 1 else steps  # the rest of one is joined


def class_batches(
    labels: Sequence[float], *, size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """The batches of one epoch of labelled rows: two or three of each class that is in a batch.

    Every row comes once, but for classes with one row (it has nothing to be near to), and but for
    two rows lent to a batch that would hold one class only. Classes are spread evenly over the
    epoch; the batches have ``size`` rows on average at most.

    Raises:
        NothingUsable: Fewer than two classes have two rows.
    """
    draw = random.Random(f"{seed}/{epoch}")
    groups: list[tuple[float, float, list[int]]] = []  # place in the epoch, class, rows
    for label, rows in sorted(_by_class(labels).items()):
        draw.shuffle(rows)
        count = len(rows) // 2
        for number in range(count):
            last = number == count - 1
            group = rows[2 * number : None if last else 2 * number + 2]
            groups.append(((number + draw.random()) / count, label, group))
    groups.sort()
    steps = class_steps(labels, size)
    for step in range(steps):
        dealt = groups[step * len(groups) // steps : (step + 1) * len(groups) // steps]
        if len({label for _, label, _ in dealt}) == 1:
            others = [group for group in groups if group[1] != dealt[0][1]]
            dealt.append(draw.choice(others))
        yield [row for _, _, rows in dealt for row in rows]


def class_steps(labels: Sequence[float], size: int) -> int:
    """How many batches ``class_batches`` makes of one epoch.

    Raises:
        NothingUsable: Fewer than two classes have two rows.
    """
    classes = _by_class(labels)
    if len(classes) < 2:
        raise NothingUsable(
            "training on labels needs at least 2 classes with 2 texts each, found "
            f"{len(classes)}: texts of a class are drawn together and away from the others"
        )
    groups = sum(len(rows) // 2 for rows in classes.values())
    return min(groups, math.ceil(sum(map(len, classes.values())) / size))


def _by_class(labels: Sequence[float]) -> dict[float, list[int]]:
    """The rows of each class that has two."""
    rows = defaultdict(list)
    for row, label in enumerate(labels):
        rows[label].append(row)
    return {label: own for label, own in rows.items() if len(own) > 1}


def mixed_batches(
    sets: Sequence[Callable[[int], Sequence[list[int]]]],
    strategy: Strategy = "proportional",
    *,
    weights: Sequence[float] = (),
    seed: int,
    epoch: int,
) -> Iterator[tuple[int, list[int]]]:
    """The batches of one epoch of several data sets, none of them mixed in itself.

    An epoch has as many batches as all sets have together. Each set gets its share of them,
    evenly spread: ``proportional`` to its own number, so that every row comes once; the same for
    all (``round_robin``, strictly in turn); or as ``weights`` say. A set whose batches are through
    begins anew with its next pass; what an epoch leaves of a set comes first in the next.

    Args:
        sets: For each, the batches of its n-th pass, 0 first, always as many.

    Yields:
        The number of the set, and rows of it.
    """
    own = [len(batches_of(0)) for batches_of in sets]
    share = {"proportional": own, "round_robin": [1] * len(sets), "weighted": weights}[strategy]
    quotas = _quotas(sum(own), share)
    turns = []
    for number, quota in enumerate(quotas):
        draw = random.Random(f"{seed}/{epoch}/{number}")
        at = number / len(sets) if strategy == "round_robin" else draw.random()
        turns += [((place + at) / quota, number) for place in range(quota)]
    streams = [
        _stream(batches_of, count, epoch * quota)
        for batches_of, count, quota in zip(sets, own, quotas, strict=True)
    ]
    for _, number in sorted(turns):
        yield number, next(streams[number])


def _quotas(total: int, share: Sequence[float]) -> list[int]:
    """``total`` divided as ``share``, in whole numbers; the largest remainders are rounded up."""
    exact = [total * own / sum(share) for own in share]
    quotas = [math.floor(own) for own in exact]
    remainders = sorted(range(len(share)), key=lambda n: (quotas[n] - exact[n], n))
    for number in remainders[: total - sum(quotas)]:
        quotas[number] += 1
    return quotas


def _stream(
    batches_of: Callable[[int], Sequence[list[int]]], count: int, start: int
) -> Iterator[list[int]]:
    """Batches from number ``start`` on, pass after pass of ``count`` each."""
    number, first = divmod(start, count)
    while True:
        yield from batches_of(number)[first:]
        number, first = number + 1, 0
