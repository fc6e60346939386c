"""What evaluation leaves: scores per query, comparisons, the verdict."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VerdictName = Literal["ship", "ship-hybrid", "do-not-ship", "inconclusive"]


@dataclass(frozen=True, slots=True)
class SystemScores:
    """One system on one split.

    ``per_query``: metric -> query id -> value. ``rankings``: query id -> (chunk id, score),
    best first, at most 100. ``dims``: dimension -> metric means, for Matryoshka models.
    ``intervals``: metric -> (low, high), 95 %, by group.
    """

    name: str
    kind: Literal["dense", "bm25", "hybrid", "api", "rerank", "run"]
    metrics: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    rankings: Mapping[str, tuple[tuple[str, float], ...]]
    dims: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # model path, k of the fusion, …

    def as_json(self) -> dict[str, Any]:
        """The shape that every command prints: ``{name, metrics, dims}`` (and intervals)."""
        return {
            "name": self.name,
            "metrics": dict(self.metrics),
            "dims": {str(dim): dict(metrics) for dim, metrics in self.dims.items()},
            "intervals": {metric: list(ends) for metric, ends in self.intervals.items()},
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus another system, mean over queries; test and interval by group."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, as tested
    p_holm: float | None = None  # after Holm, where it belongs to the deciding family
    queries: int = 0
    groups: int = 0

    def as_json(self) -> dict[str, float | int | None]:
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "p_holm": self.p_holm,
            "queries": self.queries,
            "groups": self.groups,
        }


@dataclass(frozen=True, slots=True)
class Flag:
    """A finding about the data or a base model that limits what may be concluded."""

    code: str  # e.g. "broken-test-set", "unknown-tokens", "leakage"
    message: str
    blocks: bool  # True: `ship` and `ship-hybrid` become `inconclusive`
    language: str = ""  # set when it concerns one language only
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Power:
    """What the test split can show of a candidate against its base, at 80 % power, two sides, 5 %.

    ``error``: standard error of the mean difference, by group. ``smallest_gain``: the least true
    gain that such a test set shows. ``groups`` and ``queries``: how many there would have to be in
    all, the groups as large as now, to show a difference of ``assumed`` (the one seen, or the
    least worth a change where that is more); None where a million queries would not.
    """

    error: float
    smallest_gain: float
    assumed: float
    groups: int | None
    queries: int | None

    def as_json(self) -> dict[str, float | int | None]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the queries: means of two systems and of their difference.

    ``low`` and ``high``: 95 % interval by group, None where queries or groups are too few: nothing
    is to be concluded there.
    """

    name: str
    queries: int
    groups: int
    base: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    gained: int
    lost: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The queries by one property, the largest parts first.

    ``rest``: the ``rest_parts`` smaller ones together; None where there are none.
    """

    by: str  # document, section, style, language, query-length, passage-length, question
    parts: tuple[Part, ...]
    rest: Part | None = None
    rest_parts: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Look:
    """What can be seen of a query and the passage that answers it.

    ``shared``: terms in common, as BM25 cuts them, in the order of the query; ``terms``: different
    terms of the query. ``unknown`` of ``tokens`` of the query, ``passage_unknown`` of
    ``passage_tokens``: what the base's tokenizer does not know; ``limit``: what the base reads.
    ``codes``: what is worth saying of it, see ``evaluation.changes.CODES``.
    """

    query: str  # ids
    passage: str
    shared: tuple[str, ...]
    terms: int
    unknown: int
    tokens: int
    passage_unknown: int
    passage_tokens: int
    limit: int
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankChange:
    """A query whose score changed, and where the passage that answers it stood and stands.

    Ranks are from 1, of the first right passage; None when not among the hits kept. ``other``: the
    passage that took its place, or that it overtook; empty when none did.
    """

    look: Look
    before: float
    after: float
    rank_before: int | None
    rank_after: int | None
    other: str = ""
    other_shared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HardQuery:
    """A query that all systems answer badly. ``ranks``: system -> rank of the right passage."""

    look: Look
    best: float  # over the systems
    mean: float
    ranks: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How many queries a code holds for, by what became of their score."""

    code: str
    gained: int
    lost: int
    same: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from base to candidate, and what remains hard.

    ``most_gained`` and ``most_lost``: the largest changes. ``hardest``: lowest best score first;
    ``unfound``: how many queries have no right passage among the hits of any system.
    """

    gained: int
    lost: int
    same: int
    most_gained: tuple[RankChange, ...]
    most_lost: tuple[RankChange, ...]
    hardest: tuple[HardQuery, ...]
    unfound: int
    codes: tuple[CodeCount, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, with its reasons in words, most important first."""

    verdict: VerdictName
    reasons: tuple[str, ...]
    candidate: str  # system names
    base: str
    best_rival: str
    differences: Mapping[str, Difference]  # "base", "best_rival", and more by name
    flags: tuple[Flag, ...] = ()
    decided: Mapping[str, float] = field(default_factory=dict)  # system -> mean where it decides
    power: Power | None = None  # against the base; None where the two do not differ
    codes: tuple[tuple[str, Mapping[str, str]], ...] = ()  # of the reasons, with what they name

    @property
    def not_for(self) -> tuple[Flag, ...]:
        """The flags of languages whose queries the decision left out: one a language."""
        told = {named["message"] for code, named in self.codes if code == "flag-language"}
        found = {own.language: own for own in self.flags if own.language and own.message in told}
        return tuple(found[language] for language in sorted(found))

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "candidate": self.candidate,
            "best_rival": self.best_rival,
            "difference": {name: diff.as_json() for name, diff in self.differences.items()},
            "power": self.power and self.power.as_json(),
            "flags": [
                {
                    "code": flag.code,
                    "message": flag.message,
                    "blocks": flag.blocks,
                    "language": flag.language,
                }
                for flag in self.flags
            ],
        }
