"""What an adapter is fitted on and chosen by: train, and dev or folds of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtune.adapt import Fitting, Lesson, Trial, best_of, fit, try_all, try_ranks
from embedtune.adapt.choose import IDENTITY
from embedtune.adapt.lesson import lesson
from embedtune.datasets.given import nothing_left
from embedtune.embed import Matrix
from embedtune.embed.adapted import Adapter
from embedtune.errors import NothingUsable
from embedtune.evaluation.encoded import Answers, Encoded, answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.metrics import deepest
from embedtune.evaluation.statistics import bootstrap_t, sums_by_group
from embedtune.evaluation.systems import System
from embedtune.pipeline.console import Console
from embedtune.pipeline.search import ENOUGH, FOLDS, SMALLEST, folds
from embedtune.pipeline.stored import Dataset
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.order import tie_breaker

MOST_PAIRS, MOST_PASSAGES = 20_000, 20_000  # that an adapter is fitted on
TRIED_PAIRS = 4000  # that a candidate is fitted on
DEEPER = 3  # times as many hits as the metric looks at: near-duplicates count as one
RECALL = "recall@10"


# ---- what is learnt from


@dataclass(frozen=True, slots=True)
class Asked:
    """Vectors of the corpus, of train and dev queries, and what answers these."""

    rows: Matrix
    asked: Matrix  # of train, then of dev
    answers: Answers  # likewise
    train: tuple[int, ...]  # places of the train queries that may be learnt from
    barred: frozenset[tuple[int, int]]  # (place, row) of theirs that may not
    dev: tuple[int, ...]
    reserved: frozenset[int]  # rows that answer queries of other splits, and barred ones
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
    left_out, pairs = set(given.left_out), set(given.left_out_pairs)
    train = tuple(p for p, query in enumerate(first.queries) if query.id not in left_out)
    if not train:
        raise nothing_left(given.data)
    barred = frozenset(
        (place, row)
        for place in train
        for row, chunks in first.relevant[place].items()
        if any((first.queries[place].id, chunk) in pairs for chunk in chunks)
    )
    return Asked(
        parts[0][0].rows,
        np.concatenate([own.asked for own, _ in parts]),
        answers,
        train,
        barred,
        tuple(range(len(first.queries), len(answers.queries))),
        frozenset(reserved | {row for _, row in barred}),
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
    known = ((place, row) for place in places for row in answers.relevant[place])
    pairs = sorted(
        (pair for pair in known if pair not in asked.barred),
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
