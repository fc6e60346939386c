"""What a report is made from: the facts of a run, as far as it has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedtune.evidence import Evidence
from embedtune.records import Chunk, Counts, Qrels, Query, Reject
from embedtune.results import Breakdown, Changes, Flag, SystemScores, Verdict
from embedtune.retrieve.fusion import Fusion

METRIC = "ndcg@10"
METRICS = ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10")
LABELS = {"ndcg@10": "nDCG@10", "hit@1": "Hit@1", "hit@5": "Hit@5", "recall@10": "Recall@10",
          "mrr@10": "MRR@10"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """How questions were split. ``groups`` and ``queries`` by split name."""

    by: Literal["", "documents", "sections", "blocks", "given"] = ""
    groups: Mapping[str, int] = field(default_factory=dict)
    queries: Mapping[str, int] = field(default_factory=dict)
    moved: int | None = None  # joined to another split's group by near-duplicates
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> how many
    optimistic: bool = False  # train and test share a document
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeFacts:
    """A merge of the tuned model with its base: ``alpha`` is the weight of the tuned one.

    ``loss`` and ``holds``: the largest mean loss on the general probes, and whether it is within
    the gate; None where no probe was asked.
    """

    alpha: float
    dev: float
    loss: float | None = None
    holds: bool | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """A recipe that was tried. ``rung``: from 0; trials of a higher one saw more data."""

    recipe: Mapping[str, object]
    rung: int
    queries: int
    score: float
    alpha: float
    seconds: float
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """A base model that was considered before training, measured on dev.

    ``unreadable``: share of the corpus' tokens that it does not know, where that is too many.
    """

    name: str
    score: float | None = None  # None: it could not be measured
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    parameters: int | None = None
    licence: str = ""
    unreadable: float | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """``history`` rows hold ``step`` and ``loss``, ``dev`` (nDCG@10 on dev) or both."""

    history: Sequence[Mapping[str, float]] = ()
    best_step: int | None = None  # 0: no checkpoint was better than the base
    best_score: float | None = None  # on dev
    base_score: float | None = None  # on dev
    metric: str = METRIC  # that the scores on dev are in
    alpha: float | None = None  # weight of the tuned model in the merge with its base
    curve: Sequence[MergeFacts] = ()  # by alpha
    trials: Sequence[TrialFacts] = ()
    bases: Sequence[BaseFacts] = ()  # best first; empty where only one was named
    pairs: int | None = None
    seconds: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)  # as resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """One general probe. ``difference`` is after minus before with its 95 % interval.

    Of the drift of the space: ``cosine`` of a text's two vectors, ``cka``, and ``overlap`` of the
    nearest ten, all 1 where nothing moved and None where they were not measured.
    """

    name: str
    queries: int
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    counts: bool = True  # False: the base scores outside 0.3 to 0.95, the gate ignores it
    held: bool | None = None
    cosine: float | None = None
    cka: float | None = None
    overlap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseFacts:
    """A known cause why tuning did not help, as the diagnosis measured it.

    ``code``: the report words it as ``cause.CODE`` and ``cause.CODE.do``; ``number`` was held
    against ``limit``.
    """

    code: str
    holds: bool
    number: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that a report is made from. Only ``title`` must be there: what is missing is said.

    ``missing`` names the stages that have not finished: read, chunk, generate, split, train,
    evaluate, compare, probe. ``systems`` are on the locked split, whose judgements are ``qrels``;
    ``chunks`` and ``queries`` need only hold what its rankings and judgements name. ``counts``
    maps stage -> account, in the order of the run.
    """

    title: str
    missing: Sequence[str] = ()
    verdict: Verdict | None = None
    systems: Sequence[SystemScores] = ()
    clean: Sequence[SystemScores] = ()  # without test queries that training comes close to
    split_name: str = "test"
    chunks: Sequence[Chunk] = ()
    queries: Sequence[Query] = ()
    qrels: Qrels = field(default_factory=dict)
    breakdowns: Sequence[Breakdown] = ()
    changes: Changes | None = None
    evidence: Evidence | None = None
    causes: Sequence[CauseFacts] | None = None  # None: no diagnosis was made
    flags: Sequence[Flag] = ()  # those not in the verdict
    counts: Mapping[str, Counts] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()
    split: SplitFacts | None = None
    training: TrainingFacts | None = None
    probes: Sequence[ProbeFacts] = ()
    notes: Sequence[str] = ()
    passages: int | None = None  # searched
    documents: int | None = None  # read
    model: str = ""  # name or folder of the candidate, as it is loaded
    base_model: str = ""
    license: str = ""  # of the model, where the user gave one
    dataset: str = ""  # OWNER/NAME on the hub, where the data are from there
    fusion: Fusion | None = None  # of the candidate's hybrid
    command: str = ""
    settings: str = ""  # YAML text
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # stage or input -> digest
    created: str = ""  # date and time as shown
    audit: Mapping[str, Any] | None = None  # of the data set, as ``Audit.as_json`` gives it

    @property
    def pair(self) -> tuple[SystemScores, SystemScores] | None:
        """Base and candidate, when both were scored."""
        if self.verdict is None:
            return None
        base, candidate = self.system(self.verdict.base), self.system(self.verdict.candidate)
        return (base, candidate) if base and candidate else None

    @property
    def asked(self) -> int:
        """How many questions the systems were measured on."""
        return max((len(own.per_query.get(METRIC, ())) for own in self.systems), default=0)

    def system(self, name: str) -> SystemScores | None:
        return next((system for system in self.systems if system.name == name), None)
