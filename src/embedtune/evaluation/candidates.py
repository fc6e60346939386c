"""Base models before any training: what one costs, what it reads, and which to take."""

import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from embedtune.embed import Embedder
from embedtune.embed.facts import ModelFacts
from embedtune.embed.tokens import Tokens, WordTokens
from embedtune.evaluation.compare import difference
from embedtune.evaluation.measures import Measures
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import System
from embedtune.language import language_of
from embedtune.results import Difference, SystemScores

SECONDS = 3.0  # of encoding, after which no larger portion is begun
PORTIONS = (16, 32, 64, 128)  # passages; the quickest portion counts
FIRST = 8  # passages, and queries, that pay for what happens once
QUERIES = 20  # encoded one by one
MOST_TEXTS = 2_000  # of a language, whose tokens are counted
MOST_LOSS = 0.02  # of the deciding figure, that a lighter model may seem to cost
LIGHTER = 0.9  # a model is lighter with so many of the other's weights, or fewer

PickCode = Literal["best", "lighter", "only", "unreadable"]


@dataclass(frozen=True, slots=True)
class Speed:
    """On this machine, as it is. ``query_ms``: median of one query by itself, in milliseconds."""

    passages_per_second: float
    query_ms: float
    passages: int  # encoded for it

    def as_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a model's tokenizer reads the texts of one language.

    ``unknown``: share of the tokens; ``per_word``: tokens for each word, Chinese, Japanese or
    Korean character, or mark; ``cut``: share of the texts that are longer than the model reads.
    """

    language: str
    texts: int
    unknown: float
    per_word: float
    cut: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model; where ``error`` says why it could not be measured, nothing else is there.

    ``unreadable``: share of the corpus' tokens that it does not know, where that is too many to
    train it. ``over_bm25``: its scores minus BM25's. ``triplets``: beside the ranking, where the
    data is triplets.
    """

    name: str
    system: System
    scores: SystemScores | None = None
    over_bm25: Difference | None = None
    facts: ModelFacts = field(default_factory=ModelFacts)
    speed: Speed | None = None
    coverage: tuple[Coverage, ...] = ()
    triplets: Measures | None = None
    unreadable: float | None = None
    error: str = ""
    exit_code: int = 0

    @property
    def trainable(self) -> bool:
        """Whether it can be a base: a model on this machine."""
        return self.system.embedder == "local"

    def as_json(self) -> dict[str, Any]:
        """``{name, metrics, dims, intervals}`` as every command prints them, and the rest."""
        if self.scores is None:
            return {"name": self.name, "error": self.error}
        return {
            **self.scores.as_json(),
            "name": self.name,
            "over_bm25": self.over_bm25 and self.over_bm25.as_json(),
            "triplets": self.triplets and dict(self.triplets.metrics),
            "speed": self.speed and self.speed.as_json(),
            **self.facts.as_json(),
            "coverage": [own.as_json() for own in self.coverage],
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True, slots=True)
class Pick:
    """The base to take, and why.

    ``code``: "best" on dev; "lighter": not to be told from the ``best``, and lighter; "only": no
    other can be trained; "unreadable": none knows the text, and this is the best of them.
    ``below``: the best's scores minus its own. ``alike``: others that dev cannot tell from the
    best.
    """

    name: str
    code: PickCode
    best: str
    below: Difference | None = None
    alike: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "below": self.below and self.below.as_json()}


def ranked(candidates: Iterable[Candidate], metric: str) -> tuple[Candidate, ...]:
    """Best first; then those that cannot read the text; then those that were not measured."""

    def place(own: Candidate) -> tuple[int, float, tuple[float, float], str]:
        kind = 2 if own.scores is None else int(own.unreadable is not None)
        score = own.scores.metrics[metric] if own.scores else 0.0
        return kind, -round(score, 12), _cost(own), own.name

    return tuple(sorted(candidates, key=place))


def pick(
    candidates: Sequence[Candidate], groups: Mapping[str, str], settings: EvaluationSettings
) -> Pick | None:
    """The base to take: the best, or a lighter one that cannot be told from it.

    A model cannot be told from the best where the 95 % interval of their paired difference
    reaches 0; where that is so because there are few queries, one that is more than
    ``MOST_LOSS`` below is left out all the same. Lighter is told by weights, not by the clock:
    the same models give the same choice on any machine, on any day.

    Args:
        candidates: As ``ranked`` orders them.
        groups: Query id -> group, of the split that they were measured on.
    """
    measured = [own for own in candidates if own.scores is not None and own.trainable]
    if not measured:
        return None
    readable = [own for own in measured if own.unreadable is None]
    if not readable:
        return Pick(measured[0].name, "unreadable", measured[0].name)
    best = readable[0]
    if len(readable) == 1:
        return Pick(best.name, "only", best.name)
    below = {own.name: difference(_scores(best), _scores(own), groups, settings)
             for own in readable[1:]}  # fmt: skip
    alike = [own for own in readable[1:]
             if below[own.name].low <= 0 and below[own.name].mean <= MOST_LOSS]  # fmt: skip
    names = tuple(own.name for own in alike)
    lighter = [own for own in alike if _is_lighter(own, best)]
    if not lighter:
        return Pick(best.name, "best", best.name, alike=names)
    chosen = min(lighter, key=_cost)  # of equals the better one: they stand in order
    return Pick(chosen.name, "lighter", best.name, below[chosen.name], names)


def _scores(own: Candidate) -> SystemScores:
    if own.scores is None:
        raise ValueError(f"{own.name} was not measured")
    return own.scores


def _cost(own: Candidate) -> tuple[float, float]:
    known = (own.facts.computing, own.facts.parameters)
    computing, parameters = (float("inf") if value is None else value for value in known)
    return computing, parameters


def _is_lighter(one: Candidate, other: Candidate) -> bool:
    (own, every), (other_own, other_every) = _cost(one), _cost(other)
    if other_own and own <= LIGHTER * other_own:
        return own < other_own
    return own <= other_own and every <= LIGHTER * other_every and every < other_every


# ---- what a model costs and reads


def measure_speed(
    embedder: Embedder,
    passages: Sequence[str],
    queries: Sequence[str],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed | None:
    """Time the model itself on some of the texts; None without any.

    A first portion is not timed: it loads the model and warms it. The quickest portion counts, as
    the one that the machine's other work disturbed least.
    """
    passages = _drawn(passages, FIRST + sum(PORTIONS))
    queries = _drawn(queries, FIRST + QUERIES)
    if not passages or not queries:
        return None
    embedder.embed(passages[:FIRST], "document")
    rates, done = [], 0
    rest = passages[FIRST:] or passages
    begin = clock()
    for size in PORTIONS:
        if part := rest[done : done + size]:
            start = clock()
            embedder.embed(part, "document")
            end = clock()
            rates.append(len(part) / max(end - start, 1e-9))
            done += len(part)
            if end - begin > SECONDS:
                break
    seconds = []
    for number, query in enumerate((queries[:3], *([query] for query in queries))):
        start = clock()
        embedder.embed(query, "query")
        end = clock()
        if number:
            seconds.append(end - start)
        if end - begin > 2 * SECONDS and seconds:
            break
    return Speed(max(rates), 1000 * statistics.median(seconds), done)


def coverage_of(texts: Iterable[tuple[str, str]], tokens: Tokens) -> tuple[Coverage, ...]:
    """How the tokenizer reads (text, language or "") texts, most texts first; of very many of one
    language a sample is counted."""
    by_language: dict[str, list[str]] = defaultdict(list)
    for text, language in texts:
        by_language[language or language_of(text)].append(text)
    words = WordTokens()
    found = []
    [special] = tokens.count([""])
    for language, every in by_language.items():
        own = _drawn(every, MOST_TEXTS)
        counts = tokens.count(own)
        plain = sum(counts) - special * len(own)
        found.append(
            Coverage(
                language,
                len(every),
                sum(tokens.unknown(own)) / max(1, sum(counts)),
                plain / max(1, sum(words.count(own))),
                sum(count > tokens.max_tokens for count in counts) / len(own),
            )
        )
    return tuple(sorted(found, key=lambda own: (-own.texts, own.language)))


def _drawn(texts: Sequence[str], most: int) -> list[str]:
    """At most so many of the different texts, by chance, but always the same ones."""
    distinct = dict.fromkeys(texts)
    return sorted(
        distinct, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    )[:most]
