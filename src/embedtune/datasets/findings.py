"""What an audit of a data set leaves: findings, leaks, lengths, balance; as text and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from embedtune.datasets.leaks import Kind
from embedtune.language import LANGUAGES

Severity = Literal["stops", "warns", "informs"]
SEVERITIES: tuple[Severity, ...] = ("stops", "warns", "informs")
LISTED = 1_000  # leaks in the JSON; all are counted
SHOWN = 3  # examples of a finding


@dataclass(frozen=True, slots=True)
class Example:
    """The records concerned, and how their texts begin (fit for a terminal)."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: how much of it, and what to do.

    ``stops``: a command that uses the data refuses it, or should. ``warns``: figures or training
    suffer. ``informs``: good to know. ``count`` is of ``total`` records of that kind.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    count: int
    total: int
    examples: tuple[Example, ...] = ()
    language: str = ""  # where it concerns one
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Leak:
    """A text of one split that stands in another. ``share`` is of the shorter of the two."""

    what: Literal["passage", "query", "text"]
    kind: Kind
    split: str
    item: str
    other_split: str
    other: str
    share: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the texts of one role and language, special tokens included.

    ``bars`` holds (from, to, texts) of a histogram; the last bar ends at the longest text.
    """

    role: Literal["query", "passage", "text"]
    language: str
    texts: int
    limit: int  # tokens that the model reads
    median: int
    longest: int
    cut: int  # texts longer than the limit
    tokens_cut: float  # share of all tokens that the model does not see
    unknown: float  # share of the tokens that its vocabulary does not have
    bars: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """How many records there are of each kind; the largest first, the small ones summed up."""

    of: str  # e.g. "queries by language"
    rows: tuple[tuple[str, int], ...]
    others: tuple[int, int] = (0, 0)  # kinds not listed, and their records


@dataclass(frozen=True, slots=True)
class Audit:
    """A data set looked through. ``queries`` and ``groups`` (of documents) are by split."""

    name: str
    format: str
    passages: int
    queries: Mapping[str, int]
    groups: Mapping[str, int]
    model: str  # whose tokens were counted; empty: nobody's
    findings: tuple[Finding, ...]  # most severe first
    leaks: tuple[Leak, ...] = ()
    lengths: tuple[Lengths, ...] = ()
    balance: tuple[Balance, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether anything was found that the data must not be used with."""
        return any(finding.severity == "stops" for finding in self.findings)

    def leaks_by_kind(self) -> list[tuple[str, str, int]]:
        """(what, kind, pairs) of the leaks, in a fixed order."""
        counts: dict[tuple[str, str], int] = {}
        for leak in self.leaks:
            counts[leak.what, leak.kind] = counts.get((leak.what, leak.kind), 0) + 1
        return [(what, kind, count) for (what, kind), count in sorted(counts.items())]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "format": self.format,
            "passages": self.passages,
            "queries": dict(self.queries),
            "groups": dict(self.groups),
            "model": self.model,
            "stops": self.stops,
            "findings": [
                {**asdict(finding), "numbers": dict(finding.numbers), "share": finding.share}
                for finding in self.findings
            ],
            "leaks": {
                "pairs": len(self.leaks),
                "by_kind": [
                    {"what": what, "kind": kind, "pairs": count}
                    for what, kind, count in self.leaks_by_kind()
                ],
                "first": [asdict(leak) for leak in self.leaks[:LISTED]],
            },
            "lengths": [asdict(lengths) for lengths in self.lengths],
            "balance": [asdict(balance) for balance in self.balance],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The audit as printed: the most severe findings first."""
        parts = ", ".join(f"{count:,} {name}" for name, count in self.queries.items())
        head = f"{self.name} ({self.format}): "
        head += f"{self.passages:,} passages, " if self.passages else ""
        head += f"{'texts' if self.format in ('labelled', 'scored') else 'queries'}: {parts}"
        found = (line for finding in self.findings for line in told(finding))
        return [head, *self._table(), *found, *(f"note: {note}" for note in self.notes)]

    def _table(self) -> Iterator[str]:
        for one in self.lengths:
            cut = f"{one.cut / one.texts:.1%} cut"
            unknown = f"{one.unknown:.1%} of the tokens unknown"
            yield (
                f"  {LANGUAGES.get(one.language, one.language)} {_plural(one.role)}: "
                f"{one.texts:,}, median {one.median:,} and at most {one.longest:,} tokens "
                f"({self.model} reads {one.limit:,}: {cut}), {unknown}"
            )


def _plural(role: str) -> str:
    return "queries" if role == "query" else f"{role}s"


def told(finding: Finding) -> Iterator[str]:
    """A finding in a few lines."""
    yield f"{finding.severity.upper()}: {finding.message}"
    for example in finding.examples[:SHOWN]:
        texts = "  |  ".join(example.texts)
        note = f" ({example.note})" if example.note else ""
        yield f"    {', '.join(example.ids)}{note}: {texts}"
    if finding.advice:
        yield f"  → {finding.advice}"


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Most severe first; otherwise as they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
