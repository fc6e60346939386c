"""Why tuning did not help, or hurt: the known causes, each held to a number that was measured.

A cause is its number over the limit that a sound training keeps to; where two signs must come
together, the weaker one counts. What was not measured rules nothing out, and is said. Limits were
set on planted faults (``benchmarks/diagnosis.py``), on another data set and other seeds than those
that its table shows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

CODES = (
    "test-set",  # broken: nothing untuned rises above chance
    "unknown-tokens",
    "truncation",
    "pooling",
    "prompts",
    "false-negatives",
    "learning-rate",
    "epochs",
    "collapse",
    "query-gap",  # queries of training unlike those of the test
    "ceiling",
)

MOST = 10.0  # of a strength: beyond it a fault is not more certain, only larger
CERTAIN = 2.0  # standard errors that a difference must have to be more than noise
USE_GAIN = 0.02  # nDCG@10: another pooling or prompt of a sound model gave at most 0.01 (planted)
UNKNOWN = 0.20  # share of tokens, as in training's own gate
UNREAD = 0.20  # share of the tokens that lie behind the model's limit
NEAR = 0.95  # of the answer's score: as high, within what mining itself allows
SAME = 0.90  # likeness of two passages that say the same
SUSPECTS = 0.30  # of negatives; answers told again in another order came to 0.83 (planted)
IN_BATCH = 1.5  # such passages a query and batch
LOSS = 0.02  # nDCG@10 on dev, below the best that there was on the way
PACE = 0.005  # of their size, that weights moved, over the root of the steps: it grows with the
# learning rate alone; 5e-5 gave 0.001, 2e-3 gave 0.020 (planted)
MOVED = 0.15  # of their size in all, where the steps are not known
LEARNT = 0.10  # nDCG@10 gained on train beyond dev; 0.06 to 0.08 in sound trainings (planted)
NARROW = 0.5  # of the way from the base's mean cosine to 1, as in training.collapse
SHRUNK = 0.25  # of the base's effective rank, likewise
APART = 0.5  # of a property of queries, as in queries.gap
TIMES_CHANCE = 3.0  # as in evaluation.health
CEILING = 0.90  # nDCG@10 of the base: there fine-tuning has lost more than it gave
WORTH = 0.01  # nDCG@10, the least gain that is one


@dataclass(frozen=True, slots=True)
class Gain:
    """Two scores of the same queries, the second minus the first."""

    before: float
    after: float
    error: float  # standard error of the mean difference
    queries: int

    @property
    def mean(self) -> float:
        return self.after - self.before

    def as_json(self) -> dict[str, float]:
        return {**asdict(self), "mean": self.mean}


def gain_of(before: Mapping[str, float], after: Mapping[str, float]) -> Gain:
    """From scores per query; those of both count. At least one query."""
    queries = sorted(before.keys() & after.keys())
    differences = [after[query] - before[query] for query in queries]
    return Gain(
        fmean(before[query] for query in queries),
        fmean(after[query] for query in queries),
        stdev(differences) / len(queries) ** 0.5 if len(queries) > 1 else float("inf"),
        len(queries),
    )


@dataclass(frozen=True, slots=True)
class Suspects:
    """Negatives that both the base and BM25 put about as high as a passage that answers."""

    negatives: int  # looked at
    share: float
    per_batch: float | None = None  # of other pairs' passages: expected for a query in its batch


@dataclass(frozen=True, slots=True)
class Vectors:
    """How far apart the vectors of different passages are, see ``training.collapse``."""

    mean_cosine: float
    effective_rank: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """All that was measured; None (or empty) is what was not.

    Gains are those of the trained model over its base: ``train`` and ``dev`` as training left it,
    ``test`` as it is shipped, merged or not.
    """

    train: Gain | None = None
    dev: Gain | None = None
    test: Gain | None = None
    history: tuple[tuple[int, float], ...] = ()  # (step, dev) of the evaluations, 0 the base
    curve: tuple[tuple[float, float], ...] = ()  # (alpha, dev) of merges with the base
    moved: float | None = None  # median over matrices of |tuned - base| / |base|
    steps: int | None = None  # that this took
    negatives: Suspects | None = None
    in_batch: Suspects | None = None
    poolings: Mapping[str, Gain] = field(default_factory=dict)  # of the tuned model over its own
    prompts: Mapping[str, Gain] = field(default_factory=dict)  # likewise
    unknown: Mapping[str, float] | None = None  # query, document -> share of tokens
    unread: Mapping[str, float] | None = None  # likewise
    vectors: tuple[Vectors, Vectors] | None = None  # base, trained
    gap: Mapping[str, float] | None = None  # property -> how far apart, 0 to 1
    chance: float | None = None
    best_untuned: float | None = None
    at_chance: bool = False  # its interval holds chance


@dataclass(frozen=True, slots=True)
class Cause:
    """``strength`` is 1 where the number meets the limit; above it the cause holds.

    ``after``: the cause that brings this one along, where one holds that does.
    """

    code: str
    number: float
    limit: float
    strength: float
    numbers: Mapping[str, float | str] = field(default_factory=dict)
    after: str = ""

    @property
    def holds(self) -> bool:
        return self.strength > 1

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``causes``: all that could be measured, the strongest first; ``unmeasured``: the others."""

    causes: tuple[Cause, ...]
    unmeasured: tuple[str, ...]
    train: Gain | None = None
    dev: Gain | None = None
    test: Gain | None = None

    @property
    def named(self) -> tuple[Cause, ...]:
        """Those that hold, the most likely first."""
        return tuple(cause for cause in self.causes if cause.holds)

    def as_json(self) -> dict[str, Any]:
        gains = {"train": self.train, "dev": self.dev, "test": self.test}
        return {
            "named": [cause.code for cause in self.named],
            "causes": [cause.as_json() for cause in self.causes],
            "unmeasured": list(self.unmeasured),
            "gains": {split: gain.as_json() if gain else None for split, gain in gains.items()},
        }


def diagnose(signs: Signs) -> Diagnosis:
    """The causes by strength. What follows from another that holds comes after it: vectors that a
    learning rate threw together, and all that a broken test set seems to say."""
    found = {cause.code: cause for cause in _measured(signs)}
    for code, causes in FOLLOWS.items():
        holding = [found[name] for name in causes if name in found and found[name].holds]
        if code in found and found[code].holds and holding:
            first = max(holding, key=lambda cause: cause.strength)
            own = found[code]
            found[code] = Cause(
                code, own.number, own.limit, own.strength, own.numbers, after=first.code
            )
    ranked = sorted(
        found.values(),
        key=lambda cause: (bool(cause.after), -cause.strength, CODES.index(cause.code)),
    )
    ranked.sort(key=lambda cause: not cause.holds)
    return Diagnosis(
        tuple(ranked),
        tuple(code for code in CODES if code not in found),
        signs.train,
        signs.dev,
        signs.test,
    )


# what comes with what: a fault of the input shows in all that is measured after it
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "false-negatives": ("unknown-tokens",),  # texts in unknown letters all look the same
    "epochs": ("learning-rate", "false-negatives", "unknown-tokens"),
    "collapse": ("learning-rate", "unknown-tokens", "pooling"),
    "query-gap": ("test-set", "unknown-tokens"),
    "ceiling": ("test-set",),
}


def _measured(signs: Signs) -> Iterable[Cause]:
    for judge in (
        _test_set, _unknown, _truncation, _false_negatives, _learning_rate, _epochs, _collapse,
        _query_gap, _ceiling,
    ):  # fmt: skip
        if (cause := judge(signs)) is not None:
            yield cause
    for code, ways in (("pooling", signs.poolings), ("prompts", signs.prompts)):
        if ways:
            yield _other_use(code, ways)


def _cause(code: str, number: float, limit: float, *ratios: float, **numbers: float | str) -> Cause:
    """Of several ratios the weakest counts: all signs must be there."""
    strength = min(ratios) if ratios else number / limit
    return Cause(code, float(number), limit, float(min(MOST, max(0.0, strength))), numbers)


def _test_set(signs: Signs) -> Cause | None:
    if signs.chance is None or signs.best_untuned is None:
        return None
    times = signs.best_untuned / max(signs.chance, 1e-9)
    strength = TIMES_CHANCE / max(times, TIMES_CHANCE / MOST)
    if signs.at_chance:
        strength = max(strength, 1.5)
    if strength > 1:  # nothing else that such queries say can be believed
        strength = MOST
    return _cause("test-set", times, TIMES_CHANCE, strength, chance=signs.chance,
                  best=signs.best_untuned)  # fmt: skip


def _unknown(signs: Signs) -> Cause | None:
    if signs.unknown is None:
        return None
    return _cause("unknown-tokens", max(signs.unknown.values()), UNKNOWN, **signs.unknown)


def _truncation(signs: Signs) -> Cause | None:
    if signs.unread is None:
        return None
    return _cause("truncation", max(signs.unread.values()), UNREAD, **signs.unread)


def _other_use(code: str, ways: Mapping[str, Gain]) -> Cause:
    """The same weights used in another way: what they were trained with should be best."""
    best = max(sorted(ways), key=lambda way: ways[way].mean)
    gain = ways[best]
    limit = max(USE_GAIN, CERTAIN * gain.error)
    return _cause(code, gain.mean, limit, gain.mean / limit, now=gain.before, then=gain.after,
                  other=best, queries=gain.queries)  # fmt: skip


def _false_negatives(signs: Signs) -> Cause | None:
    if signs.negatives is not None:
        own = signs.negatives
        return _cause("false-negatives", own.share, SUSPECTS, own.share / SUSPECTS,
                      negatives=own.negatives)  # fmt: skip
    if signs.in_batch is None or signs.in_batch.per_batch is None:
        return None
    many = signs.in_batch.per_batch
    return _cause("false-negatives", many, IN_BATCH, many / IN_BATCH, share=signs.in_batch.share)


def _lost_on_dev(signs: Signs) -> tuple[float, float] | None:
    """nDCG@10 on dev that a point between base and trained model has more than the trained one,
    and the noise of that."""
    error = signs.dev.error if signs.dev else 0.0
    if signs.curve and 1.0 in dict(signs.curve):
        return max(score for _, score in signs.curve) - dict(signs.curve)[1.0], error
    return (-signs.dev.mean, error) if signs.dev else None


def _learning_rate(signs: Signs) -> Cause | None:
    lost = _lost_on_dev(signs)
    if lost is None or signs.moved is None:
        return None
    limit = max(LOSS, lost[1])  # the pace is a sign by itself, and without noise
    pace, most = (signs.moved / signs.steps**0.5, PACE) if signs.steps else (signs.moved, MOVED)
    return _cause("learning-rate", lost[0], limit, lost[0] / limit, pace / most,
                  moved=signs.moved, pace=pace, most=most)  # fmt: skip


def _epochs(signs: Signs) -> Cause | None:
    """Dev falls from its best while the training queries are learnt by heart."""
    if signs.train is None or signs.dev is None:
        return None
    scores = [score for _, score in signs.history]
    if len(scores) >= 3:
        fall = max(scores) - scores[-1]
    elif lost := _lost_on_dev(signs):
        fall = lost[0]
    else:
        return None
    limit = max(LOSS, signs.dev.error)
    learnt = signs.train.mean - signs.dev.mean if signs.train.mean > 0 else 0.0
    numbers = {"train": signs.train.mean, "dev": signs.dev.mean}
    if len(scores) >= 3:
        best = max(signs.history, key=lambda row: row[1])[0]
        numbers |= {"best_step": best, "last_step": signs.history[-1][0]}
    return _cause("epochs", fall, limit, fall / limit, learnt / LEARNT, **numbers)


def _collapse(signs: Signs) -> Cause | None:
    if signs.vectors is None:
        return None
    base, tuned = signs.vectors
    limit = base.mean_cosine + NARROW * (1 - base.mean_cosine)
    narrow = (tuned.mean_cosine - base.mean_cosine) / max(limit - base.mean_cosine, 1e-9)
    shrunk = SHRUNK * base.effective_rank / max(tuned.effective_rank, 1e-9)
    return _cause("collapse", tuned.mean_cosine, limit, max(narrow, shrunk),
                  base=base.mean_cosine, rank=tuned.effective_rank,
                  base_rank=base.effective_rank)  # fmt: skip


def _query_gap(signs: Signs) -> Cause | None:
    if not signs.gap:
        return None
    widest = max(sorted(signs.gap), key=lambda name: signs.gap[name])
    return _cause("query-gap", signs.gap[widest], APART, property=widest)


def _ceiling(signs: Signs) -> Cause | None:
    gain = signs.test or signs.dev
    if gain is None:
        return None
    helped = gain.mean >= max(WORTH, CERTAIN * gain.error)  # so there was room
    strength = 0.0 if helped else gain.before / CEILING
    return _cause("ceiling", gain.before, CEILING, strength, gain=gain.mean)


def looks_right(answer: tuple[float, float], negative: tuple[float, float], alike: float) -> bool:
    """Whether a negative is held against a query though it may well answer it.

    It does where it is nearly the answer itself, and where both judges put it about as high.

    Args:
        answer, negative: Likeness to the query by the base, from 0 for any passage to 1, and
            BM25's score.
        alike: Likeness of the two passages, by the base.
    """
    (meaning, words), (own, word) = answer, negative
    as_high = own >= NEAR * meaning and word >= NEAR * words and word > 0
    return as_high or alike >= SAME
