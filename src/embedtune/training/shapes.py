"""The rows of a data set as a loss wants them."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from embedtune.errors import NothingUsable
from embedtune.records import Pair
from embedtune.training.examples import Examples, from_pairs
from embedtune.training.ranking import Excluded

log = logging.getLogger(__name__)


def unshaped(examples: Examples, excluded: Excluded) -> Examples:
    """The rows as they are."""
    return examples


def without_negatives(examples: Examples, excluded: Excluded) -> Examples:
    """Anchor and positive alone."""
    return from_pairs(examples.name, [replace(pair, negatives=()) for pair in examples.pairs])


def one_negative_a_row(examples: Examples, excluded: Excluded) -> Examples:
    """Anchor, positive, negative: a row for each negative that does not answer the query."""
    kept = list(_answering_dropped(examples, excluded))
    return _left(
        examples,
        [replace(pair, negatives=(own,)) for pair in kept for own in pair.negatives],
        sum(not pair.negatives for pair in kept),
        "have no negative that does not answer them",
    )


def same_number_of_negatives(examples: Examples, excluded: Excluded) -> Examples:
    """As many negatives in every row, the hardest ones: the number that keeps most of them."""
    kept = list(_answering_dropped(examples, excluded))
    having = Counter(len(pair.negatives) for pair in kept)
    rows = {
        number: sum(count for own, count in having.items() if own >= number) for number in having
    }
    number = max(rows, key=lambda n: (n * rows[n], rows[n]), default=0)
    return _left(
        examples,
        [
            replace(pair, negatives=pair.negatives[:number])
            for pair in kept
            if len(pair.negatives) >= number > 0
        ],
        len(kept) - (rows[number] if number else 0),
        f"have fewer than {max(number, 1)} negatives",
    )


def as_classes(examples: Examples, excluded: Excluded) -> Examples:
    """Scores numbered from the lowest on: whole numbers, 0 and 1 stay."""
    scores = sorted({0.0, 1.0} if _binary(examples) else set(examples.labels or ()))
    number = {score: place for place, score in enumerate(scores)}
    return replace(examples, labels=tuple(number[score] for score in examples.labels or ()))


def _binary(examples: Examples) -> bool:
    return set(examples.labels or ()) <= {0.0, 1.0}


def with_two_a_class(examples: Examples, excluded: Excluded) -> Examples:
    """Without classes of one text: there is nothing that it should be near to."""
    size = Counter(examples.labels)
    kept = [row for row, label in enumerate(examples.labels or ()) if size[label] > 1]
    if len({examples.labels[row] for row in kept}) < 2:
        raise NothingUsable(
            f"{examples.name}: training on labels needs at least 2 classes with 2 texts each"
        )
    _warn(examples, len(examples) - len(kept), "are alone in their class")
    return replace(
        examples,
        columns={
            name: tuple(texts[row] for row in kept) for name, texts in examples.columns.items()
        },
        labels=tuple(examples.labels[row] for row in kept),
    )


def _answering_dropped(examples: Examples, excluded: Excluded) -> Iterable[Pair]:
    """The pairs without negatives that answer the query: nothing would mask them here."""
    for pair in examples.pairs:
        barred = excluded(pair.query) | {pair.chunk}
        yield replace(pair, negatives=tuple(own for own in pair.negatives if own[0] not in barred))


def _left(examples: Examples, pairs: list[Pair], out: int, why: str) -> Examples:
    if not pairs:
        raise NothingUsable(f"{examples.name}: all {len(examples)} rows {why}")
    _warn(examples, out, why)
    return from_pairs(examples.name, pairs)


def _warn(examples: Examples, out: int, why: str) -> None:
    if out:
        log.warning("%s: %d of %d rows %s and are left out", examples.name, out, len(examples), why)
