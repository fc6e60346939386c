"""What tuning cost elsewhere: general probes before and after, and how far the space has moved.

The bundled probes, one a language, were written for this project: short passages over everyday
topics and questions that avoid their words. Any BEIR folder can stand in for them. Which of them
count is decided by what the base can do: where it reads next to nothing, nothing can be lost.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedtune.embed import Embedder, Matrix
from embedtune.errors import ConfigError, IntegrityError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.statistics import bootstrap_t, sums_by_group
from embedtune.evaluation.systems import System, open_embedder
from embedtune.files import read_jsonl, read_text, visible
from embedtune.records import Chunk, Query, Reject, RetrievalSet
from embedtune.results import SystemScores
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.order import tie_breakers

METRIC = "ndcg@10"
LANGUAGES = ("en", "zh")  # of the bundled probes
COUNTS_FROM, COUNTS_TO = 0.3, 0.95  # base scores for which the probe can tell anything
LOSS = 0.01
WORST_LOSS = 0.03

NEIGHBOURS = 10
FEWEST, MOST = 2 * NEIGHBOURS, 2000  # texts that drift is measured on

Outcome = Literal["kept", "chance", "lost", "uncounted"]


@dataclass(frozen=True, slots=True)
class Drift:
    """How alike two models' spaces are on the same texts: 1 when nothing moved.

    ``cosine``: mean cosine of a text's two vectors, None where the dimensions differ. ``cka``:
    linear CKA, None where a space has no spread; blind to rotation, which changes no ranking.
    ``overlap``: mean share of a text's nearest ``neighbours`` that remain among them.
    """

    texts: int
    cosine: float | None
    cka: float | None
    overlap: float
    neighbours: int = NEIGHBOURS

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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
    drift: Drift | None = None  # on the probe's passages; None where they are too few

    @property
    def outcome(self) -> Outcome:
        """``chance``: the gate holds, although the mean loss is more than allowed."""
        if not self.counted:
            return "uncounted"
        if not self.holds:
            return "lost"
        return "chance" if self.loss > LOSS else "kept"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "outcome": self.outcome}


def bundled_probe(language: str) -> RetrievalSet:
    """The probe of a language, with topics as groups.

    Raises:
        ConfigError: There is none for that language.
    """
    folder = Path(__file__).parent / "probe" / language
    if language not in LANGUAGES:
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


def open_probes(
    data: Iterable[RetrievalSet], embedder_of: Callable[[System], Embedder] = open_embedder
) -> tuple[Evaluator, ...]:
    """One evaluator a probe; their judged split is ``test``."""
    return tuple(Evaluator(own, EvaluationSettings(), embedder_of=embedder_of) for own in data)


def ask_probes(
    probes: Iterable[Evaluator], base: System, candidate: System
) -> tuple[ProbeResult, ...]:
    """What the candidate kept of the base, by probe, and how far it moved.

    Raises:
        IntegrityError: A probe's judgements name what is not there, or the candidate is damaged.
    """
    results = []
    for probe in probes:
        before = base_scores(probe, base)
        if before is None:
            count = len(probe.judgements("test"))
            results.append(gate(probe.data.name, 0.0, 0.0, count, 0.0, 0.0))
            continue
        found = forgetting(before, probe.score(candidate, "test"), probe)
        ids, own = probe.vectors(base)
        results.append(replace(found, drift=drift(ids, own, probe.vectors(candidate)[1])))
    return tuple(results)


def base_scores(probe: Evaluator, base: System) -> SystemScores | None:
    """The base on a probe; None where it has no vectors to search with, or one for all texts:
    it reads none of them. (A damaged base does not come so far: its own data is scored first.)"""
    probe.judgements("test")
    try:
        return probe.score(base, "test")
    except IntegrityError:
        return None


def counts(base: SystemScores) -> bool:
    """Whether the base scores where a loss would show."""
    return COUNTS_FROM <= base.metrics[METRIC] <= COUNTS_TO


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


def drift(ids: list[str], one: Matrix, other: Matrix) -> Drift | None:
    """The likeness of two spaces; None for fewer than 20 texts, which have too few neighbours.

    Vectors are compared by direction. Of more than 2,000 texts, those are taken whose ids' hashes
    come first.

    Args:
        ids: (n,) ids of the texts.
        one, other: (n, d) and (n, e), none of zeros.
    """
    if len(ids) < FEWEST:
        return None
    chosen = np.argsort(tie_breakers(ids), kind="stable")[:MOST]
    names = [ids[place] for place in chosen]
    left, right = _directions(one[chosen]), _directions(other[chosen])
    same = left.shape == right.shape
    itself = [np.array([place]) for place in range(len(names))]
    near = [
        nearest(rows.astype(np.float32), rows.astype(np.float32), names, NEIGHBOURS, without=itself)
        for rows in (left, right)
    ]
    common = [
        len(np.intersect1d(*pair)) for pair in zip(near[0].indices, near[1].indices, strict=True)
    ]
    return Drift(
        texts=len(names),
        cosine=float(np.einsum("ij,ij->i", left, right).mean()) if same else None,
        cka=_linear_cka(left, right),
        overlap=float(np.mean(common)) / NEIGHBOURS,
    )


def _directions(vectors: Matrix) -> np.ndarray:
    rows = np.asarray(vectors, np.float64)
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]


def _linear_cka(one: np.ndarray, other: np.ndarray) -> float | None:
    """Linear CKA (Kornblith et al. 2019, arXiv:1905.00414) with the unbiased estimate of HSIC
    (Song et al. 2012): with more dimensions than texts, the plain one calls any two spaces alike
    (0.6 for pure noise at 252 texts and 384 dimensions)."""
    kernels = [rows @ rows.T for rows in (one, other)]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)
    left, right = kernels
    spreads = [_hsic(kernel, kernel) for kernel in kernels]
    if min(spreads) < 1e-9:
        return None
    return float(_hsic(left, right) / np.sqrt(spreads[0] * spreads[1]))


def _hsic(left: np.ndarray, right: np.ndarray) -> float:
    """Of two (n, n) kernels without their diagonals, up to a factor that depends on n alone."""
    n = len(left)
    return float(
        (left * right).sum()
        + left.sum() * right.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (left.sum(0) @ right.sum(0))
    )
