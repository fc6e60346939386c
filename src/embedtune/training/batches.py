"""Which rows are trained on together: the batches of an epoch, given by seed and epoch alone."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Literal

from embedtune.errors import NothingUsable
from embedtune.records import Pair
from embedtune.training.ranking import Excluded

Strategy = Literal["proportional", "round_robin", "weighted"]

TOGETHER = 4  # passages that are near each other; of 16, most of a batch would be of one kind
TWELFTH = 12  # a group is this part of a batch, or two: more leave too little about other things
LEAST = 24  # passages that a batch holds where pairs share them: its queries need negatives


@dataclass(frozen=True, slots=True)
class _Unit:
    """Pairs that share a passage."""

    rows: list[int]
    brought: frozenset[str]  # chunk ids of their passages, positive and negative
    excluded: frozenset[str]  # chunk ids that are no negatives for one of them

    def apart(self, other: "_Unit") -> bool:
        """Whether each has negatives of the other."""
        return self.brought.isdisjoint(other.excluded) and other.brought.isdisjoint(self.excluded)


def batches(
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    size: int,
    seed: int,
    epoch: int,
    avoid_conflicts: bool = True,
    near: Sequence[Sequence[int]] = (),
    shared: int = 1,
) -> Iterator[list[int]]:
    """The batches of one epoch: every pair once.

    With ``avoid_conflicts``, pairs of which a passage, positive or negative, is masked for the
    other are put into different batches where possible, so that each query meets as many
    negatives as it can. No batch has one pair only (it would teach nothing): such a rest joins the
    batch before.

    Args:
        near: For each pair those it shall meet, the first first (see ``nearest_pairs``): with
            some of them that are left it goes into a batch (see ``together_of``).
        shared: So many pairs of one passage go into the same batch all the same, for an engine
            that then encodes it once.
    """
    draw = random.Random(f"{seed}/{epoch}")
    order = list(range(len(pairs)))
    draw.shuffle(order)
    units = [_unit(rows, pairs, excluded) for rows in sharing(pairs, order, shared)]
    if near:
        groups = _groups(units, near, together_of(size))
        draw.shuffle(groups)
        units = [unit for group in groups for unit in group]
    made: list[list[int]] = []
    while units:
        batch: list[int] = []
        barred: set[str] = set()
        held: set[str] = set()
        waiting: list[_Unit] = []
        for position, unit in enumerate(units):
            if avoid_conflicts and not (
                unit.brought.isdisjoint(barred) and held.isdisjoint(unit.excluded)
            ):
                waiting.append(unit)
                continue
            waiting += _fill(batch, unit, size)
            barred |= unit.excluded
            held |= unit.brought
            if len(batch) == size:
                waiting.extend(units[position + 1 :])
                break
        # towards the end only conflicting pairs may be left: fill up rather than leave them out
        while len(batch) < size and waiting:
            waiting[:1] = _fill(batch, waiting[0], size)
        made.append(batch)
        units = waiting
    if len(made) > 1 and len(made[-1]) == 1:
        made[-2].extend(made.pop())
    yield from made


def sharing(pairs: Sequence[Pair], order: Sequence[int], most: int) -> list[list[int]]:
    """``order`` in groups of ``most`` pairs or fewer that share a passage, each where its first
    one stood."""
    found: list[list[int]] = []
    last: dict[str, list[int]] = {}  # by passage: its group that may have room
    for row in order:
        group = last.get(pairs[row].positive)
        if group is None or len(group) == most:
            group = last[pairs[row].positive] = []
            found.append(group)
        group.append(row)
    return found


def sharing_of(size: int) -> int:
    """How many pairs of one passage may meet in a batch of ``size`` pairs."""
    return max(1, size // LEAST)


def together_of(size: int) -> int:
    """How many passages that are near each other meet in a batch of ``size`` pairs."""
    return min(TOGETHER, max(2, size // TWELFTH))


def _unit(rows: list[int], pairs: Sequence[Pair], excluded: Excluded) -> _Unit:
    own = [pairs[row] for row in rows]
    brought = {chunk for pair in own for chunk in (pair.chunk, *(c for c, _ in pair.negatives))}
    return _Unit(
        rows,
        frozenset(brought),
        frozenset().union(*(excluded(pair.query) for pair in own)),
    )


def _fill(batch: list[int], unit: _Unit, size: int) -> list[_Unit]:
    """Add ``unit`` to ``batch``, as far as it has room; what is left of it, if anything."""
    room = size - len(batch)
    batch += unit.rows[:room]
    left = unit.rows[room:]
    return [replace(unit, rows=left)] if left else []


def _groups(units: Sequence[_Unit], near: Sequence[Sequence[int]], size: int) -> list[list[_Unit]]:
    """Each of ``units`` once, with the nearest to it that are left: ``size`` in a group, negatives
    of one another."""
    home = {row: number for number, unit in enumerate(units) for row in unit.rows}
    taken: set[int] = set()
    groups = []
    for first, unit in enumerate(units):
        if first in taken:
            continue
        taken.add(first)
        group = [unit]
        for row in chain.from_iterable(zip_longest(*(near[row] for row in unit.rows))):
            if len(group) == size:
                break
            if row is None or home[row] in taken:
                continue
            other = units[home[row]]
            if all(one.apart(other) for one in group):
                group.append(other)
                taken.add(home[row])
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
