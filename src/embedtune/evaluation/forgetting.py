"""What tuning cost elsewhere: a general probe before and after.

The bundled probe was written for this project: short everyday passages over many topics and
questions that avoid their words. Any BEIR folder can stand in for it.
"""

from dataclasses import dataclass
from pathlib import Path

from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.statistics import bootstrap_t, sums_by_group
from embedtune.files import read_jsonl, read_text, visible
from embedtune.records import Chunk, Query, Reject, RetrievalSet
from embedtune.results import SystemScores

METRIC = "ndcg@10"
COUNTS_FROM, COUNTS_TO = 0.3, 0.95  # base scores for which the probe can tell anything
LOSS = 0.01
WORST_LOSS = 0.03


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """nDCG@10 on a general probe; ``loss`` is base minus tuned, its 95 % interval by topic."""

    name: str
    queries: int
    base: float
    tuned: float
    loss: float
    low: float
    high: float
    counted: bool  # the base scores where a loss would show
    holds: bool  # the gate: nothing lost that matters, or the probe does not count

    @property
    def message(self) -> str:
        """The result in one sentence."""
        figures = (
            f"general probe {self.name}: nDCG@10 {self.base:.3f} before, {self.tuned:.3f} after "
            f"({self.queries} queries)"
        )
        if not self.counted:
            return (
                f"{figures}; it does not count, because the base scores outside "
                f"{COUNTS_FROM} to {COUNTS_TO}"
            )
        if self.holds and self.loss > LOSS:
            return (f"{figures}; the loss of {self.loss:.3f} ({self.low:.3f} to {self.high:.3f}) "
                    f"may be no more than the {LOSS} allowed")  # fmt: skip
        if self.holds:
            return f"{figures}; nothing that matters was forgotten"
        return (
            f"{figures}; a loss of {self.loss:.3f} ({self.low:.3f} to {self.high:.3f}) is more "
            f"than the {LOSS} allowed"
        )


def bundled_probe(language: str = "en") -> RetrievalSet:
    """The probe of a language, with topics as groups.

    Raises:
        ConfigError: There is none for that language.
    """
    folder = Path(__file__).parent / "probe" / language
    if not folder.is_dir():
        raise ConfigError(
            f"evaluation.probe: no bundled probe for the language {visible(language)!r}; name a "
            "BEIR folder, or none"
        )
    rejects: list[Reject] = []
    chunks = tuple(
        Chunk(
            id=str(row["_id"]), document=str(row["metadata"]["topic"]), start=0,
            end=len(row["text"]), title=row.get("title", ""), text=row["text"], language=language,
        )
        for _, row in read_jsonl(folder / "corpus.jsonl", rejects, "probe")
    )  # fmt: skip
    queries = tuple(
        Query(id=str(row["_id"]), text=row["text"], language=language, origin="beir")
        for _, row in read_jsonl(folder / "queries.jsonl", rejects, "probe")
    )
    qrels: dict[str, dict[str, int]] = {}
    for line in read_text(folder / "qrels" / "test.tsv").splitlines()[1:]:
        query, chunk, grade = line.split("\t")
        qrels.setdefault(query, {})[chunk] = int(grade)
    return RetrievalSet(f"general ({language})", chunks, queries, {"test": qrels}, True)


def forgetting(base: SystemScores, tuned: SystemScores, probe: Evaluator) -> ProbeResult:
    """The gate: mean loss at most 0.01, or an interval that reaches 0.01, and never over 0.03.

    Args:
        base, tuned: Both measured by ``probe`` on its split ``test``.
    """
    before, after = base.per_query[METRIC], tuned.per_query[METRIC]
    losses = {query: before[query] - after[query] for query in before}
    sums = sums_by_group([losses], probe.groups("test"))
    [(low, high)] = bootstrap_t(sums, seed=probe.settings.seed)
    return gate(
        probe.data.name, base.metrics[METRIC], tuned.metrics[METRIC], len(losses),
        max(-1.0, float(low)), min(1.0, float(high)),
    )  # fmt: skip


def gate(
    name: str, base: float, tuned: float, queries: int, low: float, high: float
) -> ProbeResult:
    """The decision from the figures; ``low`` and ``high`` are the ends of the mean loss."""
    loss = base - tuned
    counted = COUNTS_FROM <= base <= COUNTS_TO
    within = (loss <= LOSS or low <= LOSS) and loss <= WORST_LOSS
    return ProbeResult(
        name, queries, base, tuned, loss, low, high, counted, holds=within or not counted
    )
