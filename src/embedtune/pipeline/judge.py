"""The test of a candidate: systems measured on the locked split, flags, the verdict."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedtune.embed import Embedder
from embedtune.embed.tokens import Tokens
from embedtune.evaluation import health
from embedtune.evaluation.breakdown import breakdowns
from embedtune.evaluation.changes import changes
from embedtune.evaluation.compare import choose, compare, hold_contest
from embedtune.evaluation.evaluate import (
    EvaluationSettings,
    Evaluator,
    System,
    open_embedder,
    open_reranker,
    restricted,
)
from embedtune.evaluation.forgetting import ProbeResult, ask_probes, open_probes
from embedtune.language import language_of
from embedtune.pipeline.tune import probe_sets
from embedtune.records import RetrievalSet
from embedtune.results import Breakdown, Changes, Flag, SystemScores, Verdict
from embedtune.retrieve.fusion import Fusion
from embedtune.retrieve.rerank import Reranker


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything the test found. ``clean``: the systems without test queries that have
    near-duplicates in training; empty when there are none."""

    verdict: Verdict
    systems: tuple[SystemScores, ...]
    split: str
    probe: tuple[ProbeResult, ...]
    fusion: Fusion
    chosen_on: str
    chance: dict[str, float]
    clean: tuple[SystemScores, ...] = ()
    notes: tuple[str, ...] = field(default=())
    breakdowns: tuple[Breakdown, ...] = ()  # of candidate and base; empty where they are one
    changes: Changes | None = None


def judge(
    data: RetrievalSet,
    base: System,
    candidate: System | None,
    *,
    split: str,
    settings: EvaluationSettings,
    rivals: Sequence[System],
    tokens: Tokens,
    near_duplicates: Sequence[tuple[str, str]],
    groups: dict[str, str] | None = None,
    affected: Iterable[str] = (),
    removed: bool = True,
    embedder_of: Callable[[System], Embedder] = open_embedder,
    reranker_of: Callable[[System], Reranker] = open_reranker,
    others: Sequence[System] = (),
    unreadable: bool = False,
) -> Judgement:
    """Measure on ``split`` and decide. All choices are made on dev; test is scored once.

    Args:
        candidate: The tuned model; None when none was trained, then the base stands for it.
        rivals: Systems to beat besides BM25 and the base's hybrid.
        tokens: The base's tokenizer, to see what it cannot read.
        groups: Chunk id -> group, as the split made them.
        affected: Test queries with near-duplicates in the training split.
        removed: Whether the training pairs concerned were left out of training.
        others: Systems that are measured and shown, and decide nothing.
        unreadable: One of them cannot read the text; where it tells none apart it scores as
            chance does.
    """
    evaluator = Evaluator(
        data,
        settings,
        groups=groups,
        near_duplicates=near_duplicates,
        embedder_of=embedder_of,
        reranker_of=reranker_of,
        # a base that cannot read the text gets its verdict
        allow_collapsed=candidate is None or unreadable,
    )
    queries = evaluator.queries(split)
    choice = choose(evaluator, [candidate or base], base, rivals)
    contest = hold_contest(evaluator, choice, base, split)
    shown = {scores.name: scores for scores in contest.systems}
    for system in (*rivals, *others):
        if system.label not in shown:
            shown[system.label] = evaluator.score(system, split, fusion=choice.fusion)
    probe: tuple[ProbeResult, ...] = ()
    if candidate:
        probe = ask_probes(open_probes(probe_sets(settings.probe), embedder_of), base, candidate)

    judgements = evaluator.judgements(split)
    untuned = [shown[s.label] for s in rivals if s.label in shown]
    affected = [query for query in affected if query in judgements]
    flags: tuple[Flag, ...] = (
        *health.chance_flags(
            contest.base,
            [contest.bm25, contest.base_hybrid, contest.rival, *untuned],
            judgements,
            evaluator.corpus_size,
        ),
        *health.language_flags(queries, data.chunks, tokens),
        *health.few_queries_flag(len(queries)),
        *health.copied_flag(queries, {chunk.id: chunk for chunk in data.chunks}, judgements),
        *health.leakage_flag(len(affected), len(queries), removed=removed),
    )
    verdict = compare(
        contest,
        groups=evaluator.groups(split),
        languages={query.id: query.language or language_of(query.text) for query in queries},
        flags=flags,
        probe=probe,
        settings=settings,
    )
    clean_ids = [query.id for query in queries if query.id not in set(affected)]
    texts = {"queries": queries, "chunks": data.chunks, "qrels": judgements}
    parts: tuple[Breakdown, ...] = ()
    changed = None
    if candidate:
        pair = (contest.base, contest.candidate)
        parts = breakdowns(
            *pair, settings.metric, **texts, groups=evaluator.groups(split), seed=settings.seed
        )
        changed = changes(
            *pair, shown.values(), settings.metric, **texts, tokens=tokens,
            near_duplicates=near_duplicates,
        )  # fmt: skip
    return Judgement(
        verdict=verdict,
        systems=tuple(shown.values()),
        split=split,
        probe=probe,
        fusion=choice.fusion,
        chosen_on=choice.on,
        chance=health.chance(judgements, evaluator.corpus_size),
        clean=tuple(restricted(scores, clean_ids) for scores in shown.values())
        if affected and clean_ids
        else (),
        breakdowns=parts,
        changes=changed,
    )


def local(model: str | Path, label: str) -> System:
    """A model on this machine as a system."""
    return System(label, "dense", "local", str(model))
