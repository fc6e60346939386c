"""How small an index may become: dimensions by precisions, with what each costs in quality."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from embedtune.embed import Matrix
from embedtune.evaluation.encoded import Answers, Encoded
from embedtune.evaluation.metrics import deepest
from embedtune.evaluation.quantise import (
    PRECISIONS,
    RESCORED,
    Precision,
    Quantised,
    bytes_per_vector,
    nearest,
    quantise,
)
from embedtune.evaluation.statistics import Sums, score_intervals, sums_by_group
from embedtune.evidence import CompressedIndex, CompressionGrid
from embedtune.records import content_id

LOSS = 0.01  # as much as a gain must be to be worth a change
MARGIN = 0.02  # a loss of this size must be ruled out, so that a small test set permits nothing
CANDIDATES = 0.02  # share of the rows that rescoring may look at, for its figure to say anything
DEEPER = 3  # times the hits that count: near-duplicates share a place
WORK = 1e10  # multiplications of one index; of a larger corpus fewer queries are asked
TIMED = 11  # queries, …
REPEATED = 3  # … each so often: the fastest counts, as another process may take the core away
BLOCK = 131_072  # numbers decoded at once: what stays in a processor's cache
HITS = 10


def compression_grid(
    encoded: Encoded,
    answers: Answers,
    *,
    metric: str,
    seed: int,
    dev: tuple[Encoded, Answers] | None = None,
) -> CompressionGrid:
    """Every dimension in every precision, beside all dimensions in float32.

    The index with the fewest bytes in memory (then on disk, then the better one) is recommended
    among those that lose at most 0.01 with an interval above -0.02, on dev and here. (The smallest
    of twenty that looks good on dev alone is often a lucky one.) Rescoring is not recommended where
    40 candidates are more than 2 % of the rows: the bits have next to nothing to find there, and
    much in an index of millions.

    Args:
        encoded, answers: The split that is reported.
        dev: The same system on dev.
    """
    ids = answers.ids
    measured = _measure(encoded, answers, metric, seed)
    indexes = tuple(
        CompressedIndex(
            dimension=dimension,
            precision=precision,
            memory=bytes_per_vector(dimension, precision),
            disk=4 * dimension if precision == "binary+rescore" else 0,
            score=score,
            difference=difference,
            low=low,
            high=high,
            milliseconds=_milliseconds(encoded, dimension, precision),
        )
        for (dimension, precision), (score, difference, low, high) in measured.items()
    )
    on_dev = _measure(*dev, metric, seed) if dev else measured
    counts = RESCORED * deepest([metric]) <= CANDIDATES * len(ids)
    allowed = [
        place
        for place, (key, ends) in enumerate(on_dev.items())
        if place == 0  # nothing is lost by changing nothing
        or (
            _holds(*ends[1:3])
            and _holds(indexes[place].difference, indexes[place].low)
            and (counts or key[1] != "binary+rescore")
        )
    ]
    best = min(allowed, key=lambda p: (indexes[p].memory, indexes[p].disk, -indexes[p].score))
    asked = _few_enough(encoded, answers)
    return CompressionGrid(
        system=encoded.system,
        metric=metric,
        split=answers.split,
        queries=len(asked),
        groups=len({answers.groups[answers.queries[place].id] for place in asked}),
        rows=len(ids),
        indexes=indexes,
        recommended=best,
        judged_on=(*([dev[1].split] if dev else []), answers.split),
        rescoring_counts=counts,
        loss=LOSS,
        margin=MARGIN,
    )


def _holds(difference: float, low: float) -> bool:
    return difference >= -LOSS and low >= -MARGIN


Measured = dict[tuple[int, Precision], tuple[float, float, float, float]]


def _measure(encoded: Encoded, answers: Answers, metric: str, seed: int) -> Measured:
    """(Dimension, precision) -> score, difference to the first, and the ends of that."""
    places = _few_enough(encoded, answers)
    asked, some = encoded.asked[places], answers.only(places)
    wanted = deepest([metric])
    values: dict[tuple[int, Precision], dict[str, float]] = {}
    for dimension in encoded.dimensions:
        rows, cut = encoded.rows[:, :dimension], asked[:, :dimension]
        for precision in PRECISIONS:
            index = quantise(rows, precision, similarity=encoded.similarity)
            # more hits would also mean more candidates to rescore
            depth = wanted if index.exact is not None else wanted * DEEPER
            found = nearest(cut, index, answers.ids, depth)
            values[dimension, precision] = some.values(found.indices, metric)
    full = next(iter(values.values()))
    differences = [{q: own[q] - full[q] for q in full} for own in values.values()]
    sums = sums_by_group(differences, answers.groups)
    # as scores between 0 and 1: where hardly a query differs bootstrap-t gives no bound
    halved = Sums((sums.values + sums.queries) / 2, sums.queries)
    ends = 2 * score_intervals(halved, seed=seed) - 1
    return {
        key: (float(np.mean(list(own.values()))), float(mean), float(low), float(high))
        for (key, own), mean, (low, high) in zip(values.items(), sums.means, ends, strict=True)
    }


def _few_enough(encoded: Encoded, answers: Answers) -> list[int]:
    """Places of the queries that can be asked in time, chosen by a hash of their ids."""
    limit = max(50, int(WORK / max(1, encoded.rows.size)))
    order = sorted(
        range(len(answers.queries)), key=lambda place: content_id("q", answers.queries[place].id)
    )
    return sorted(order[:limit])


# ---- time


def _milliseconds(encoded: Encoded, dimension: int, precision: Precision) -> float:
    """Median time of one query over all rows, with the index as it lies in memory."""
    index = quantise(encoded.rows[:, :dimension], precision, similarity=encoded.similarity)
    asked = quantise(encoded.asked[:TIMED, :dimension], "float32",
                     similarity=encoded.similarity).codes.astype(np.float32)  # fmt: skip
    search = _searcher(index)

    def seconds(query: Matrix) -> float:
        begun = time.perf_counter()
        search(query)
        return time.perf_counter() - begun

    times = [min(seconds(query) for _ in range(REPEATED)) for query in asked]
    return round(1000 * float(np.median(times)), 4)


def _searcher(index: Quantised) -> Callable[[Matrix], Sequence[int]]:
    """Finds the best rows of one query, no more than needed to take the time of it.

    Decoding is folded into the query: ``(code + 128) * step + low`` times ``q`` is ``code`` times
    ``step * q`` and a number that is the same for all rows. Lengths, which euclidean distances
    need besides, are left out.
    """
    codes = index.codes
    decoded = np.empty((max(1, BLOCK // codes.shape[1]), codes.shape[1]), np.float32)

    def bits(query: Matrix) -> Sequence[int]:
        packed = np.zeros(codes.shape[1] * 8, np.uint8)
        own = np.packbits(query > 0)
        packed[: len(own)] = own
        differing = np.bitwise_count(codes ^ packed.view(np.uint64)).sum(axis=1, dtype=np.int32)
        if index.exact is None:
            return _top(-differing, HITS)
        rows = _top(-differing, HITS * RESCORED)
        return rows[_top(index.exact[rows] @ query, HITS)]

    def numbers(query: Matrix) -> Sequence[int]:
        if index.step is not None:
            query = query * index.step
        if codes.dtype == np.float32:
            return _top(codes @ query, HITS)
        scores = np.empty(len(codes), np.float32)
        for first in range(0, len(codes), len(decoded)):
            part = codes[first : first + len(decoded)]
            np.copyto(decoded[: len(part)], part)
            np.dot(decoded[: len(part)], query, out=scores[first : first + len(part)])
        return _top(scores, HITS)

    return bits if codes.dtype == np.uint64 else numbers


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    if k < len(scores):
        best = np.argpartition(scores, -k)[-k:]
        return best[np.argsort(-scores[best])]
    return np.argsort(-scores)
