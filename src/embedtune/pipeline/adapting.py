"""``embedtune adapt``: an adapter on the queries of a model that cannot be tuned; its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedtune.adapt import Fitting, Lesson, Trial, best_of, fit, try_all, try_ranks
from embedtune.adapt.choose import IDENTITY
from embedtune.adapt.lesson import lesson
from embedtune.config import RunSettings
from embedtune.embed import Matrix
from embedtune.embed.adapted import Adapter, Point, base_of, label_of, write_adapter
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.encoded import Answers, Encoded, answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.metrics import deepest
from embedtune.evaluation.statistics import bootstrap_t, sums_by_group
from embedtune.evaluation.systems import System, open_embedder, parse_system, parse_systems
from embedtune.files import visible, write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.models import train_digest, vector_store
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.preflight import check_evaluation
from embedtune.pipeline.search import ENOUGH, FOLDS, SMALLEST, folds
from embedtune.pipeline.stored import Dataset, load_given
from embedtune.pipeline.tune import FACTS
from embedtune.pipeline.untrained import is_static, tokens_for
from embedtune.records import unusable
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.order import tie_breaker
from embedtune.run import Recipe, build_folder
from embedtune.store import Store

MOST_PAIRS, MOST_PASSAGES = 20_000, 20_000  # that an adapter is fitted on
TRIED_PAIRS = 4000  # that a candidate is fitted on
DEEPER = 3  # times as many hits as the metric looks at: near-duplicates count as one
FOUND_ALREADY = 0.95  # recall of the base from which on an adapter has little to add
RECALL = "recall@10"


@dataclass(frozen=True, slots=True)
class Adapted:
    """What ``embedtune adapt`` tells. ``facts`` stand in the folder's manifest too."""

    facts: Mapping[str, Any]
    judgement: Judgement
    split: str
    notes: tuple[str, ...]
    unusable: bool

    def as_json(self) -> dict[str, Any]:
        """As ``compare`` prints a verdict, with what dev said."""
        judgement = self.judgement
        return {
            **self.facts,
            "split": self.split,
            "queries": len(next(iter(judgement.systems[0].per_query.values()))),
            "systems": [scores.as_json() for scores in judgement.systems],
            "clean": [scores.as_json() for scores in judgement.clean],
            "notes": list(self.notes),
            **judgement.verdict.as_json(),
        }


def adapt_into(
    system: str,
    data: Path,
    out: Path,
    settings: RunSettings,
    console: Console,
    *,
    rank: int | None = None,
    split: str = "test",
    strict: bool = False,
) -> Adapted:
    """An adapter folder ``out`` in front of ``system``, and the verdict on it over ``split``.

    Fitted on train. Kind, steps, rank and strength are chosen on dev, or where dev is small over
    folds of train and dev. Identity is left in ``out`` unless the best gains for certain there.

    Args:
        system: ``openai:MODEL``, ``cohere:MODEL`` or a model on this machine.
        rank: Of the change of the queries; None: the best one.

    Raises:
        ConfigError: No system with vectors of its own, or data without queries and passages.
        NothingUsable: Too few queries to choose by.
    """
    base = _base_system(system, settings)
    check_evaluation(settings)
    given = load_given(
        data, settings.split, columns=settings.columns, settings=settings.source, strict=strict
    )
    if given.format in ("scored", "labelled"):
        raise ConfigError(f"{data}: {given.format} data; an adapter learns from queries and the "
                          "passages that answer them")  # fmt: skip
    for line in given.notes:
        console.say(f"  {line}")
    with Store(vector_store()) as store:
        openers = Openers(
            store, console, pooling=settings.model.pooling, purse=Purse(settings.embedding)
        )
        try:
            done = _fit_into(given, base, out, settings, console, openers, rank)
            console.say(told(done)[-1])
            judgement = judge(
                given.data,
                base,
                local(out, "adapted"),
                split=split,
                settings=settings.evaluation,
                rivals=parse_systems(settings.evaluation.rivals),
                tokens=tokens_for(base),
                near_duplicates=given.twins,
                affected=given.affected,
                embedder_of=openers.embedder,
                reranker_of=openers.reranker,
            )
        finally:
            openers.tell()
    return Adapted(done, judgement, split, given.notes, unusable(given.rejects))


def told(facts: Mapping[str, Any]) -> list[str]:
    """What dev said, in words."""
    metric, recall = facts["metric"], facts["base_recall"]
    lines = [
        f"base on {facts['chosen_on']}: {metric} {facts['dev_base']:.3f}, {RECALL} {recall:.3f} "
        f"({facts['queries']} queries)"
    ]
    if recall >= FOUND_ALREADY:
        lines.append(
            "  the base finds nearly all answers already: an adapter has little to add; look at "
            "the passages themselves, or at a reranker"
        )
    lines += [
        f"  {kind}, {'all directions' if rank is None else f'rank {rank}'}, strength "
        f"{strength:.1f}: {dev:.3f}"
        for kind, rank, strength, dev in facts["curve"]
    ]
    gain, low, high = facts["gain"]
    by = f"{gain:+.3f} (95 % {low:+.3f} to {high:+.3f})"
    if facts["kind"] == IDENTITY.kind:
        lines.append(
            f"no adapter: the best changes {metric} by {by}, which cannot be told from nothing; "
            f"{facts['adapter']} gives the base's own vectors"
        )
    else:
        lines.append(f"chosen: {facts['kind']}, rank {facts['rank']}, strength "
                     f"{facts['strength']:.1f}: {by}")  # fmt: skip
    return lines


def _base_system(text: str, settings: RunSettings) -> System:
    system = parse_system(text)
    plain = system.kind in ("dense", "api") and system.precision == "float32"
    if not plain or is_static(system.model):
        raise ConfigError(f"adapt: expected openai:MODEL, cohere:MODEL or a model, found "
                          f"{visible(text)}")  # fmt: skip
    if system.embedder == "local" and base_of(system.model):
        raise ConfigError(f"adapt: {visible(text)} is an adapter; name its base")
    if settings.evaluation.dimension != "full":
        raise ConfigError("adapt: evaluation.dimension: an adapter works on whole vectors")
    return replace(system, label="base") if system.label == text.strip() else system


def _fit_into(
    given: Dataset,
    base: System,
    out: Path,
    settings: RunSettings,
    console: Console,
    openers: Openers,
    rank: int | None,
) -> Mapping[str, Any]:
    evaluator = Evaluator(
        given.data, settings.evaluation, near_duplicates=given.twins, embedder_of=openers.embedder
    )
    label = label_of(open_embedder(base, settings.model.pooling, purse=openers.purse))
    own = _own_settings(base, settings)
    recipe = Recipe(
        "adapt",
        1,
        {"rank": rank, "metric": settings.evaluation.metric,
         "similarity": settings.evaluation.similarity, "base": own},
        {"base": label},
        {"data": train_digest(given)},
    )  # fmt: skip

    def build(folder: Path) -> dict[str, Any]:
        asked = gather(evaluator, base, given)
        found = choose(asked, settings.evaluation.metric, rank, console)
        adapter = fit(lesson_of(asked, asked.train, MOST_PAIRS), found.best.recipe)
        curve = [
            Point(own.recipe.kind, own.recipe.rank, own.recipe.strength, own.mean)
            for own in found.bests
        ]
        facts = {
            "base": _name(base),
            "base_label": label,
            "kind": found.best.recipe.kind,
            "strength": found.best.recipe.strength,
            "metric": settings.evaluation.metric,
            "dev_base": found.base.mean,
            "dev": found.best.mean,
            "curve": curve,
        }
        write_adapter(folder, adapter, {**facts, "base_settings": own})
        write_json(folder / FACTS, {"base": _name(base), "data": train_digest(given)})
        return {
            **facts,
            "curve": [list(point) for point in curve],
            "recipe": asdict(found.best.recipe),
            "rank": adapter.rank,
            "pairs": len(asked.train),
            "queries": len(found.base.values),
            "base_recall": found.recall,
            "chosen_on": found.on,
            "gain": list(found.gain),
        }

    done = build_folder(out, recipe, build)
    return {"adapter": str(out), **done.facts}


def _own_settings(base: System, settings: RunSettings) -> dict[str, Any]:
    """What makes the base's vectors differ from those of its name alone."""
    if base.embedder != "local":
        return {}
    prompts = {"query": base.query_prompt, "document": base.document_prompt}
    own = {
        "pooling": settings.model.pooling if settings.model.pooling != "auto" else None,
        "pooling_instead": base.pooling or None,
        "prompts_instead": {role: text for role, text in prompts.items() if text is not None},
    }
    return {name: value for name, value in own.items() if value}


def _name(base: System) -> str:
    """The base as it is opened from anywhere on this machine."""
    if base.embedder != "local":
        return f"{base.embedder}:{base.model}" if base.model else base.embedder
    folder = Path(base.model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base.model


# ---- what is learnt from


@dataclass(frozen=True, slots=True)
class Asked:
    """Vectors of the corpus, of train and dev queries, and what answers these."""

    rows: Matrix
    asked: Matrix  # of train, then of dev
    answers: Answers  # likewise
    train: tuple[int, ...]  # places of the train queries that may be learnt from
    dev: tuple[int, ...]
    reserved: frozenset[int]  # rows that answer queries of other splits
    encoded: Encoded


def gather(evaluator: Evaluator, base: System, given: Dataset) -> Asked:
    """Encode what train and dev need; queries of other splits are not looked at."""
    parts = [
        (encode(evaluator, base, name), answers_of(evaluator, name, given.twins))
        for name in ("train", "dev")
        if given.data.qrels.get(name)
    ]
    if not given.data.qrels.get("train"):
        raise NothingUsable(f"{given.data.name}: no train queries to learn from")
    others = [name for name in given.data.qrels if name not in ("train", "dev")]
    reserved = {
        row
        for name in others
        if given.data.qrels[name]
        for relevant in answers_of(evaluator, name, given.twins).relevant
        for row in relevant
    }
    first = parts[0][1]
    answers = Answers(
        "train and dev",
        first.ids,
        tuple(query for _, own in parts for query in own.queries),
        {query: grades for _, own in parts for query, grades in own.judgements.items()},
        {query: group for _, own in parts for query, group in own.groups.items()},
        tuple(rows for _, own in parts for rows in own.relevant),
        tuple(rows for _, own in parts for rows in own.masked),
    )
    barred = set(given.left_out)
    train = tuple(p for p, query in enumerate(first.queries) if query.id not in barred)
    return Asked(
        parts[0][0].rows,
        np.concatenate([own.asked for own, _ in parts]),
        answers,
        train,
        tuple(range(len(first.queries), len(answers.queries))),
        frozenset(reserved),
        parts[0][0],
    )


def lesson_of(asked: Asked, places: Sequence[int], most: int) -> Lesson:
    """The pairs of these queries over all passages that answer no held-out query."""
    answers, own = asked.answers, set(places)
    held = {
        row
        for place in range(len(answers.queries))
        if place not in own
        for row in answers.relevant[place]
    } | asked.reserved
    pairs = sorted(
        ((place, row) for place in places for row in answers.relevant[place]),
        key=lambda pair: (tie_breaker(answers.queries[pair[0]].id), answers.ids[pair[1]]),
    )[:most]
    right = {row for _, row in pairs}
    rest = sorted(
        (row for row in range(len(answers.ids)) if row not in right and row not in held),
        key=lambda row: tie_breaker(answers.ids[row]),
    )[: max(0, MOST_PASSAGES - len(right))]
    rows = np.array(sorted([*right, *rest]), np.int64)
    place_of = np.full(len(answers.ids), -1)
    place_of[rows] = np.arange(len(rows))
    masked = []
    for place, _ in pairs:
        barred = place_of[answers.masked[place]]
        masked.append(barred[barred >= 0])
    return lesson(
        asked.asked[[place for place, _ in pairs]],
        asked.rows[rows],
        [int(place_of[row]) for _, row in pairs],
        masked,
        asked.encoded.similarity,
    )


# ---- the choice


@dataclass(frozen=True, slots=True)
class Choice:
    base: Trial
    best: Trial
    bests: tuple[Trial, ...]  # of each kind and rank
    recall: float  # of the base
    on: str
    gain: tuple[float, float, float]  # of the best over the base, chosen or not: mean, low, high


def choose(asked: Asked, metric: str, rank: int | None, console: Console) -> Choice:
    """Identity, unless the best gains for certain on queries that it was not fitted on."""
    known = (*asked.train, *asked.dev)
    if len(known) < SMALLEST or not asked.train:
        raise NothingUsable(
            f"adapt: {len(known)} train and dev queries; at least {SMALLEST} are needed to choose "
            "an adapter"
        )
    if len(asked.dev) >= ENOUGH:
        parts, on = [(asked.train, asked.dev)], "dev"
    else:
        ids = {asked.answers.queries[place].id: place for place in known}
        held = folds({query: asked.answers.groups[query] for query in ids})
        parts = [
            (tuple(p for q, p in ids.items() if q not in fold),
             tuple(p for q, p in ids.items() if q in fold))
            for fold in held
        ]  # fmt: skip
        parts = [part for part in parts if all(part)]
        if not parts:
            raise NothingUsable("adapt: all queries belong to one group; none can be held out")
        on = f"{FOLDS} folds of train and dev"
    console.say(f"choosing an adapter on {on}")
    fittings = [
        Fitting(lesson_of(asked, taught, TRIED_PAIRS), Scorer(asked, held, metric))
        for taught, held in parts
    ]
    trials = try_all(fittings, rank)
    base, best = trials[0], best_of(trials)
    if rank is None and best.recipe != IDENTITY:
        trials += try_ranks(fittings, best.recipe)
        best = best_of(trials)
    changed = best_of(trials[1:])
    gain = _gain(base, changed, asked.answers.groups)
    recalls = [
        value
        for _, held in parts
        for value in Scorer(asked, held, RECALL)(fit(fittings[0].lesson, IDENTITY)).values()
    ]
    chosen = changed if gain[1] > 0 else base
    return Choice(base, chosen, _bests(trials), float(np.mean(recalls)), on, gain)


@dataclass(frozen=True, slots=True)
class Scorer:
    """How an adapter does on some queries, over the whole corpus."""

    asked: Asked
    places: tuple[int, ...]
    metric: str

    def __call__(self, adapter: Adapter) -> Mapping[str, float]:
        answers = self.asked.answers
        found = nearest(
            adapter(self.asked.asked[list(self.places)]), self.asked.rows, answers.ids,
            DEEPER * deepest((self.metric,)), similarity=self.asked.encoded.similarity,
        )  # fmt: skip
        return answers.only(self.places).values(found.indices, self.metric)


def _gain(base: Trial, other: Trial, groups: Mapping[str, str]) -> tuple[float, float, float]:
    differences = {query: other.values[query] - base.values[query] for query in base.values}
    sums = sums_by_group([differences], groups)
    [(low, high)] = bootstrap_t(sums, seed=0)
    return float(sums.means[0]), max(-1.0, float(low)), min(1.0, float(high))


def _bests(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The best trial of each kind and rank."""
    kinds: dict[tuple[str, int | None], list[Trial]] = {}
    for trial in trials:
        kinds.setdefault((trial.recipe.kind, trial.recipe.rank), []).append(trial)
    return tuple(best_of(own) for own in kinds.values())
