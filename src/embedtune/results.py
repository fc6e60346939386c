"""What evaluation leaves: scores per query, comparisons, the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    kind: Literal["dense", "bm25", "hybrid", "api"]
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

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "candidate": self.candidate,
            "best_rival": self.best_rival,
            "difference": {name: diff.as_json() for name, diff in self.differences.items()},
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
