"""What is measured of a training for its diagnosis.

All is measured on samples that are drawn by hashes of ids. Vectors of whole systems come from the
store that evaluation filled; what is encoded anew is a few hundred texts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.facts import prompts_in
from embedtune.embed.opening import open_embedder
from embedtune.evaluation import health
from embedtune.evaluation.diagnose import Gain, Signs, Vectors, gain_of
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import Judgement, local
from embedtune.pipeline.stored import Dataset
from embedtune.pipeline.suspects import suspects_among
from embedtune.pipeline.untrained import is_static
from embedtune.records import Query, RetrievalSet
from embedtune.relevance import merge_qrels
from embedtune.results import SystemScores
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.order import tie_breaker
from embedtune.store import Store

QUERIES = 200  # of a split
PASSAGES = 2000
TRIED = ("train", "dev")  # where other poolings and prompts are tried
TRIED_QUERIES = 200
TRIED_PASSAGES = 300
LEAST_ALPHA = 0.05
SPREAD = 64  # texts, as training itself watches
BATCH = 32  # pairs, where the training did not say
POOLINGS = ("mean", "cls")
USUAL = ("query: ", "passage: ")  # prompts that many models are trained with


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a training: from a run directory, or from a model's folder."""

    dataset: Dataset
    base: str
    tuned: Path
    settings: RunSettings
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the training, see ``Tuned.facts``
    prompts: tuple[str, str] | None = None  # that the settings of the training gave
    history: tuple[Mapping[str, float], ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judgement: Judgement | None = None


def measure_signs(case: Case, store: Store, console: Console) -> Signs:
    """Everything that can be measured of a case; what cannot is left out."""
    whole = case.dataset.data
    data = _sample(whole, QUERIES, PASSAGES, _near_in_words(whole, case.negatives))
    base, tuned = local(case.base, "base"), local(case.tuned, "tuned")
    pair = _pair(case)
    moved = _moved(*pair, _alpha(case)) if pair else None
    endpoint = _endpoint(case, *pair) if pair and _alpha(case) < 1 else None
    trained = tuned if endpoint is None else System("before it was merged", "dense", "local")

    def opened(system: System) -> Embedder:
        return endpoint if endpoint and not system.model else _open(system, case, store, console)

    own = case.settings.evaluation.model_copy(update={"probe": "none"})

    def evaluator_of(part: RetrievalSet) -> Evaluator:
        return Evaluator(
            part, own, near_duplicates=_within(part, case.dataset.twins), embedder_of=opened,
            allow_collapsed=True,
        )  # fmt: skip

    evaluator = evaluator_of(data)
    console.say(f"measuring {case.tuned.name} on {len(data.chunks):,} passages")
    splits = {name for name, qrels in data.qrels.items() if qrels}
    gains = {
        split: _gain(evaluator, base, trained, split)
        for split in ("train", "dev")
        if split in splits
    }
    test, chance, best, lost = _on_test(case, evaluator, base, tuned, splits)
    seen = _tokens(case, data)
    poolings, prompts = dict[str, Gain](), dict[str, Gain]()
    if splits & set(TRIED):
        poolings, prompts = _other_uses(case, data, tuned, evaluator_of)
    own_negatives, in_batch = suspects_among(
        data, evaluator, base, negatives=case.negatives,
        near_duplicates=_within(data, case.dataset.twins),
        batch_size=case.facts.get("plan", {}).get("batch_size", BATCH),
    )  # fmt: skip
    return Signs(
        train=gains.get("train"),
        dev=gains.get("dev"),
        test=test,
        history=tuple((int(row["step"]), float(row["dev"])) for row in case.history),
        curve=case.curve,
        moved=moved,
        steps=case.facts.get("best_step") or None,
        negatives=own_negatives,
        in_batch=in_batch,
        poolings=poolings,
        prompts=prompts,
        unknown=seen[0] if seen else None,
        unread=seen[1] if seen else None,
        vectors=_vectors(evaluator, base, trained),
        gap=_gap(data),
        chance=chance,
        best_untuned=best,
        at_chance=lost,
    )


def _open(system: System, case: Case, store: Store, console: Console) -> Embedder:
    """Of a run, base and candidate as its evaluation left them in the store; all others in the
    quickest precision there is, which moves a score by less than what is looked for."""
    from embedtune.embed.recorded import RecordedEmbedder
    from embedtune.training.plan import device_and_precision, judging_precision

    prompts = {"query": system.query_prompt, "document": system.document_prompt}
    instead = {role: prompt for role, prompt in prompts.items() if prompt is not None}
    stored = case.judgement is not None and not system.pooling and not instead
    quick = judging_precision(*device_and_precision(case.settings.training))
    embedder = open_embedder(
        system.model, precision="fp32" if stored else quick,
        pooling=case.settings.model.pooling, pooling_instead=system.pooling or None,
        prompts_instead=instead,
    )  # fmt: skip
    return RecordedEmbedder(
        embedder, store, progress=console.progress(f"texts encoded by {system.label}")
    )


def _sample(
    data: RetrievalSet, queries: int, passages: int, wanted: Mapping[str, Sequence[str]]
) -> RetrievalSet:
    """Some queries of each split, all their passages, and so many others as there is room for.

    Args:
        wanted: Query -> passages that must be there if it is.
    """
    order = {chunk.id: place for place, chunk in enumerate(data.chunks)}
    qrels = {
        split: {query: own[query] for query in sorted(own, key=tie_breaker)[:queries]}
        for split, own in data.qrels.items()
    }
    kept: dict[str, None] = {}
    for part in qrels.values():
        for query, grades in part.items():
            kept.update(dict.fromkeys([*grades, *wanted.get(query, ())]))
    for chunk in sorted(order, key=tie_breaker):
        if len(kept) >= passages:
            break
        kept.setdefault(chunk)
    asked = {query for part in qrels.values() for query in part}
    return replace(
        data,
        chunks=tuple(data.chunks[order[id]] for id in sorted(kept, key=order.__getitem__)),
        queries=tuple(query for query in data.queries if query.id in asked),
        qrels=qrels,
    )


def _near_in_words(
    data: RetrievalSet, negatives: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[str]]:
    """Passages that a sample needs beside those judged: a query's negatives, and where the corpus
    is larger than the sample, what BM25 finds, so that the sample is no easier than the whole."""
    if len(data.chunks) <= PASSAGES:
        return negatives
    index, texts = BM25(data.chunks), {query.id: query.text for query in data.queries}
    chosen = [
        query for own in data.qrels.values() for query in sorted(own, key=tie_breaker)[:QUERIES]
    ]
    hits = index.search([texts[query] for query in chosen], 10)
    return {
        query: [*negatives.get(query, ()), *(hit.chunk for hit in found)]
        for query, found in zip(chosen, hits, strict=True)
    }


def _within(data: RetrievalSet, twins: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    known = {chunk.id for chunk in data.chunks}
    return [pair for pair in twins if known.issuperset(pair)]


def _alpha(case: Case) -> float:
    """Weight of the trained model in the tuned one; one that is near 0 tells nothing of it."""
    alpha = case.facts.get("alpha", 1.0)
    return alpha if alpha >= LEAST_ALPHA else 1.0


def _pair(case: Case) -> tuple[Any, Any] | None:
    """Base and tuned model, where they have the same weights by name and shape. A static model,
    all of whose rows are trained, tells nothing by how far they went."""
    from embedtune.embed.loading import load_sentence_transformer

    if is_static(case.facts.get("base", "")):
        return None
    base, tuned = (
        load_sentence_transformer(model, pooling=case.settings.model.pooling)
        for model in (case.base, str(case.tuned))
    )
    shapes = [
        {name: own.shape for name, own in model.state_dict().items()} for model in (base, tuned)
    ]
    return (base, tuned) if shapes[0] == shapes[1] else None


def _endpoint(case: Case, base: Any, tuned: Any) -> Embedder:
    """The model as training left it, taken back out of its merge with the base: what lies on the
    line through both, 1/alpha from the base. ``tuned`` becomes it."""
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.training.merge import merge_into
    from embedtune.training.plan import device_and_precision, judging_precision

    merge_into(tuned, base, tuned, 1 / _alpha(case))
    quick = judging_precision(*device_and_precision(case.settings.training))
    return MemoryEmbedder(tuned, f"{case.tuned} before it was merged", quick)


def _moved(base: Any, tuned: Any, alpha: float) -> float | None:
    """How far the weights went, of their own size: the median over the matrices of the layers.
    Embeddings of tokens that training never saw stay where they are, and are left out."""
    ours, theirs = base.state_dict(), tuned.state_dict()
    far = [
        float((theirs[name].float() - weights.float()).norm() / weights.float().norm().clamp(1e-9))
        for name, weights in ours.items()
        if weights.ndim == 2 and "embedding" not in name
    ]
    return float(np.median(far)) / alpha if far else None


def _gain(evaluator: Evaluator, base: System, trained: System, split: str) -> Gain:
    metric = evaluator.settings.metric
    before, after = (evaluator.score(system, split).per_query[metric] for system in (base, trained))
    return gain_of(before, after)


def _on_test(
    case: Case, evaluator: Evaluator, base: System, tuned: System, splits: set[str]
) -> tuple[Gain | None, float | None, float | None, bool]:
    """The gain on test, and the best untuned system beside chance: as the run's evaluation found
    them, else measured here."""
    metric = evaluator.settings.metric
    level = "ndcg@10"
    judged = case.judgement
    if judged is not None:
        by_name = {scores.name: scores for scores in judged.systems}
        before, after = (
            by_name.get(name) for name in (judged.verdict.base, judged.verdict.candidate)
        )
        gain = None
        if before and after and metric in before.per_query:
            gain = gain_of(before.per_query[metric], after.per_query[metric])
        shipped = after.facts.get("model") if after else None
        untuned = [scores for scores in judged.systems if scores.facts.get("model") != shipped]
        chance = judged.chance.get(level)
    elif "test" in splits:
        gain = _gain(evaluator, base, tuned, "test")
        untuned = [evaluator.score(one, "test") for one in (base, System("bm25", "bm25"))]
        chance = health.chance(evaluator.judgements("test"), evaluator.corpus_size)[level]
    else:
        return None, None, None, False
    if chance is None or not untuned:
        return gain, None, None, False
    best: SystemScores = max(untuned, key=lambda scores: scores.metrics[level])
    low = best.intervals[level][0] if level in best.intervals else best.metrics[level]
    return gain, chance, best.metrics[level], low <= chance


def _tokens(case: Case, data: RetrievalSet) -> tuple[dict[str, float], dict[str, float]] | None:
    """Shares of the tokens that the tuned model does not know, and that it never reads."""
    from embedtune.embed.tokens import load_tokens

    tokens = load_tokens(str(case.tuned))
    texts: dict[str, list[str]] = {
        "query": [query.text for query in data.queries],
        "document": [chunk.embedded for chunk in data.chunks],
    }
    unknown, unread = {}, {}
    for role, own in texts.items():
        counts = tokens.count(own)
        everything = max(1, sum(counts))
        unknown[role] = sum(tokens.unknown(own)) / everything
        unread[role] = sum(max(0, count - tokens.max_tokens) for count in counts) / everything
    return unknown, unread


def _other_uses(
    case: Case,
    data: RetrievalSet,
    tuned: System,
    evaluator_of: Callable[[RetrievalSet], Evaluator],
) -> tuple[dict[str, Gain], dict[str, Gain]]:
    """The tuned model with other poolings and prompts than its files say: gains over its own, on
    train and dev queries together, as such gains are small and a few hundred queries noisy."""
    from embedtune.embed.loading import own_pooling
    from embedtune.embed.models import resolve_model

    base = resolve_model(case.base).path
    own, now = own_pooling(case.tuned), _prompts_of(case.tuned)
    if own is None:  # a static model pools in one way, and has no use for words before a text
        return {}, {}
    poolings = {*POOLINGS, own_pooling(base) or own} - {own}
    prompts = {("", ""), USUAL, _prompts_of(base), case.prompts or now} - {now}
    both = merge_qrels(data.qrels.get(split, {}) for split in TRIED)
    part = _sample(replace(data, qrels={"both": both}), TRIED_QUERIES, TRIED_PASSAGES, {})
    evaluator = evaluator_of(part)

    def gains(systems: Iterable[System]) -> dict[str, Gain]:
        return {one.label: _gain(evaluator, tuned, one, "both") for one in systems}

    pooled = (replace(tuned, label=name, pooling=name) for name in sorted(poolings))
    prompted = (
        replace(tuned, label=f"{ask!r} {tell!r}", query_prompt=ask, document_prompt=tell)
        for ask, tell in sorted(prompts)
    )
    return gains(pooled), gains(prompted)


def _prompts_of(folder: Path) -> tuple[str, str]:
    """What a model's files put before queries and before passages."""
    prompts = prompts_in(folder)
    return prompts.get("query", ""), prompts.get("document", "")


def _vectors(evaluator: Evaluator, base: System, trained: System) -> tuple[Vectors, Vectors]:
    """How far apart the vectors of the same passages are, before and after."""
    from embedtune.training.collapse import spread_of

    def spread(system: System) -> Vectors:
        vectors = evaluator.vectors(system)[1]
        step = max(1, len(vectors) // SPREAD)
        found = spread_of(vectors[::step][:SPREAD])
        return Vectors(found.mean_cosine, found.effective_rank)

    return spread(base), spread(trained)


def _gap(data: RetrievalSet) -> dict[str, float] | None:
    """How far the queries of training are from those of the test, property by property. That a
    word of the one is not among the other says only how many there are, and is left out."""
    from embedtune.queries.gap import query_gap

    def queries(split: str) -> list[Query]:
        if split not in data.qrels:
            return []
        return [
            replace(query, chunk=min(data.qrels[split][query.id]))
            for query in data.queries_of(split)
        ]

    chunks = {chunk.id: chunk for chunk in data.chunks}
    gap = query_gap(queries("train"), queries("test"), chunks)
    if gap is None:
        return None
    return {own.name: own.apart for own in gap.measures if not own.name.startswith("words that")}
