"""The recipe by itself: learning rate, epochs, temperature, negatives and merge weight, on dev.

Where dev has under 200 queries it would be overfitted by a choice among many: then train and dev
together are divided by their groups into three folds, and each is held out once.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.embed.local import MemoryEmbedder
from embedtune.errors import IntegrityError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.subsample import subsampled
from embedtune.files import read_json, write_json
from embedtune.pipeline.console import Console
from embedtune.records import Pair, RetrievalSet
from embedtune.retrieve.order import tie_breaker
from embedtune.training.builders import Teacher
from embedtune.training.examples import from_pairs
from embedtune.training.merge import merge_curve
from embedtune.training.options import AS_IT_IS, ModelSettings, prepare
from embedtune.training.plan import (
    TrainingSettings,
    device_and_precision,
    judging_precision,
    plan_training,
)
from embedtune.training.sweep import Candidate, Chosen, Trial, alphas, candidates, search
from embedtune.training.tasks import encodings_of
from embedtune.training.tpe import Space, search_larger
from embedtune.training.train import not_fast, texts_of, train

log = logging.getLogger(__name__)

ENOUGH = 200  # dev queries from which on dev itself decides
FOLDS = 3
MOST_PAIRS = 4000  # that a trial is trained with
SMALLEST = 24  # train and dev queries under which nothing can be chosen
FINAL = 2.0  # the final training takes so many times a trial: more pairs, evaluations, the probe
SCORINGS = 6  # of a trial: the base, the tuned model, four merges
PASSES = 4.0  # what a step costs, in readings of its texts
MINUTES, FEW_PAIRS = 10.0, 1000  # by itself: so long, for so many pairs at most
LARGER_MINUTES = 60.0  # where Optuna searches
FILE = "search.jsonl"
OUTCOME = "recipe.json"
READ = 200  # texts, at most, that tell how long a trial will take
WORST = -1.0  # what a candidate has whose training fails


@dataclass(frozen=True, slots=True)
class Rung:
    """What a trial is trained with, and what it is judged on."""

    data: RetrievalSet  # its train and dev, with the passages that dev is judged over
    pairs: tuple[Pair, ...]
    evaluator: Evaluator


def find_recipe(
    data: RetrievalSet,
    base: str,
    work: Path,
    *,
    pairs_of: Callable[[RetrievalSet], Sequence[Pair]],
    excluded: Callable[[str], frozenset[str]],
    near_duplicates: Sequence[tuple[str, str]],
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    minutes: float,
    console: Console,
    teacher: Teacher | None = None,
    model: ModelSettings = AS_IT_IS,
    start: Path | None = None,
    left_out: Sequence[str] = (),
) -> Chosen | None:
    """The best recipe for what ``training`` leaves ``auto``; None where there is too little data,
    or time.

    Trials are kept in ``work/search.jsonl`` and the outcome in ``work/recipe.json``: after a kill
    they are not done again, and the training goes on with the recipe that it began with.

    Args:
        pairs_of: The training pairs of a data set's train split, with their negatives.
        minutes: For the search and the training that follows.
        start: What the trials begin with, see ``train``.
        left_out: Train queries that are too close to dev or test to be learnt from or judged by.
    """
    decided = work / OUTCOME
    if decided.is_file() and (row := read_json(decided))["base"] == base:
        return row["chosen"] and _chosen_of(row["chosen"])

    def settled(chosen: Chosen | None) -> Chosen | None:
        write_json(decided, {"base": base, "chosen": chosen and asdict(chosen)})
        return chosen

    queries = sum(len(data.qrels.get(name, {})) for name in ("train", "dev"))
    if queries < SMALLEST:
        return None
    rungs = _rungs(data, pairs_of, near_duplicates, evaluation, frozenset(left_out))
    whole = training.model_copy(update={"matryoshka": "off"})  # its dimensions decide nothing here
    plan = plan_training(whole, len(pairs_of(data)), 1)
    negatives = max((len(pair.negatives) for rung in rungs for pair in rung.pairs), default=0)
    tried = candidates(training, plan.epochs, negatives)
    larger = training.search == "optuna"
    space = _space(training, tried[0], negatives, rungs, plan.batch_size) if larger else None
    if len(tried) == 1 and not (space and space.free):
        return None
    if not all(rung.pairs and rung.data.qrels["dev"] for rung in rungs):
        return None
    how = f"{FOLDS} folds of train and dev" if len({id(r.evaluator) for r in rungs}) > 1 else "dev"
    what = "as many candidates as there is time for" if space else f"{len(tried)} candidates"
    console.say(f"looking for a recipe: {what} on {how}, {minutes:g} minutes")
    reserve = FINAL * seeds_of(training)
    known = _known(work / FILE, base)
    begin = time.monotonic()
    if not known:
        wanted = _expected_seconds(tried[0], rungs[0], base, training, model, plan.batch_size)
        if (1 + reserve) * wanted > 60 * minutes:
            console.say(
                f"no search for a recipe: {minutes:g} minutes do not hold a trial (about "
                f"{wanted / 60:.1f}) and the training (about {reserve * wanted / 60:.1f}, which is "
                "done all the same); --minutes gives it more"
            )
            return settled(None)
    minutes -= (time.monotonic() - begin) / 60
    report = console.progress("trials")
    done: list[Trial] = []
    replayed = 0.0  # seconds of trials that were done before a kill

    def clock() -> float:
        return time.monotonic() + replayed

    def trial(candidate: Candidate, rung: int) -> Trial:
        nonlocal replayed
        key = (candidate, rung)
        if key in known:
            replayed += known[key].seconds
        else:
            try:
                known[key] = _trial(
                    candidate,
                    rung,
                    rungs[rung],
                    base,
                    work / "trial",
                    excluded,
                    training,
                    teacher,
                    model,
                    start,
                )
            except IntegrityError as error:
                if candidate == tried[0]:
                    raise
                log.warning("%s: no candidate any more: %s", candidate, "; ".join(error.lines))
                known[key] = replace(
                    done[0], candidate=candidate, rung=rung,
                    scores=tuple((alpha, WORST) for alpha, _ in done[0].scores),
                )  # fmt: skip
            _keep(work / FILE, base, known[key])
        done.append(known[key])
        best = max(score for _, score in known[key].scores)
        log.info("rung %d: %s: %.4f on dev", rung + 1, candidate, best)
        report(len(done), max(len(done), 2 * len(tried)))
        return known[key]

    if space:
        chosen = search_larger(
            space, len(rungs), trial, minutes=minutes, seed=training.seed, reserve=reserve,
            clock=clock,
        )  # fmt: skip
    else:
        chosen = search(tried, len(rungs), trial, minutes=minutes, reserve=reserve, clock=clock)
    console.say(
        f"recipe: {chosen.candidate}, merged at {chosen.alpha:g} ({len(chosen.trials)} trials, "
        f"{chosen.seconds / 60:.1f} minutes{'' if chosen.complete else ', the time was over'})"
    )
    return settled(chosen)


def minutes_of(training: TrainingSettings, pairs: int) -> float:
    """The time for a search and the training after it; 0: there is no search."""
    if training.minutes != "auto":
        return training.minutes
    if training.search == "optuna":
        return LARGER_MINUTES
    return MINUTES if pairs <= FEW_PAIRS else 0.0


def seeds_of(training: TrainingSettings) -> int:
    """How many trainings of the chosen recipe there will be."""
    return 1 if training.seeds == "auto" else training.seeds


def _space(
    training: TrainingSettings,
    usual: Candidate,
    negatives: int,
    rungs: Sequence[Rung],
    batch_size: int,
) -> Space:
    """What Optuna may vary: all that is ``auto``."""
    free = {
        name
        for name in ("learning_rate", "epochs", "temperature", "batch_size")
        if getattr(training, name) == "auto"
    }
    if "batch_size" in free:
        usual = replace(usual, batch_size=batch_size)
    if negatives and training.negatives_per_pair == "auto":
        free.add("negatives")
    pairs = min((len(rung.pairs) for rung in rungs), default=0)
    return Space(usual, frozenset(free), negatives, pairs, training.lora != "off")


def _rungs(
    data: RetrievalSet,
    pairs_of: Callable[[RetrievalSet], Sequence[Pair]],
    near_duplicates: Sequence[tuple[str, str]],
    evaluation: EvaluationSettings,
    left_out: frozenset[str],
) -> list[Rung]:
    """Dev after training on a quarter, a half and all pairs; or folds, where dev is small."""
    dev = data.qrels.get("dev", {})
    if len(dev) >= ENOUGH:
        [judged] = subsampled([data])
        evaluator = Evaluator(judged, evaluation, near_duplicates=near_duplicates)
        pairs = sorted(pairs_of(data), key=lambda pair: tie_breaker(pair.query))
        sizes = [min(MOST_PAIRS, len(pairs)) // share for share in (4, 2, 1)]
        return [Rung(judged, tuple(pairs[:size]), evaluator) for size in sizes]
    train = data.qrels.get("train", {})
    known = {**{query: own for query, own in train.items() if query not in left_out}, **dev}
    others = {name: qrels for name, qrels in data.qrels.items() if name not in ("train", "dev")}
    whole = replace(data, qrels={**others, "train": known})
    group_of = Evaluator(whole, evaluation, near_duplicates=near_duplicates).groups("train")
    parts = []
    for held in folds(group_of):
        qrels = {
            **others,
            "train": {query: grades for query, grades in known.items() if query not in held},
            "dev": {query: grades for query, grades in known.items() if query in held},
        }
        parts.append(replace(data, qrels=qrels))
    rungs = []
    for part, judged in zip(parts, subsampled(parts), strict=True):
        pairs = sorted(pairs_of(part), key=lambda pair: tie_breaker(pair.query))[:MOST_PAIRS]
        evaluator = Evaluator(judged, evaluation, near_duplicates=near_duplicates)
        rungs.append(Rung(judged, tuple(pairs), evaluator))
    return rungs


def folds(group_of: Mapping[str, str]) -> list[set[str]]:
    """Query ids of each fold: whole groups, the largest first to the emptiest fold."""
    members: dict[str, list[str]] = {}
    for query, group in group_of.items():
        members.setdefault(group, []).append(query)
    folds: list[set[str]] = [set() for _ in range(FOLDS)]
    for group in sorted(members, key=lambda name: (-len(members[name]), tie_breaker(name))):
        min(folds, key=len).update(members[group])
    return folds


def _trial(
    candidate: Candidate,
    number: int,
    rung: Rung,
    base: str,
    work: Path,
    excluded: Callable[[str], frozenset[str]],
    training: TrainingSettings,
    teacher: Teacher | None,
    model: ModelSettings,
    start: Path | None,
) -> Trial:
    """Train a candidate as the final model will be, and judge its merges with the base."""
    from embedtune.embed.loading import load_sentence_transformer

    begin = time.monotonic()
    device, _ = device_and_precision(training)

    def score(model: Any) -> float:
        return _score(rung, model, training)

    shutil.rmtree(work, ignore_errors=True)
    settings = candidate.settings(training).model_copy(
        update={"evaluate_every": 10**9, "report_to": [], "patience": None}
    )
    trained = train(
        [from_pairs("train", rung.pairs)],
        base,
        work,
        excluded=excluded,
        score=score,
        settings=settings,
        teacher=teacher,
        model_settings=model,
        start=start,
    )
    original, tuned, scratch = (
        load_sentence_transformer(path, device=device, pooling=model.pooling)
        for path in (str(trained.base or base), str(trained.model), str(trained.model))
    )
    ends = {0.0: trained.base_score, 1.0: trained.best_score}
    curve = merge_curve(
        original,
        tuned,
        scratch,
        lambda model, alpha: ends[alpha] if alpha in ends else score(model),
        alphas(training),
    )
    shutil.rmtree(work)
    scores = tuple((point.alpha, point.dev) for point in curve)
    return Trial(candidate, number, len(rung.data.qrels["dev"]), scores, time.monotonic() - begin)


def _expected_seconds(
    candidate: Candidate,
    rung: Rung,
    base: str,
    training: TrainingSettings,
    settings: ModelSettings,
    batch_size: int,
) -> float:
    """What a trial would take, as reading some of the passages says."""
    from embedtune.embed.loading import load_sentence_transformer

    device, precision = device_and_precision(training)
    model = load_sentence_transformer(base, device=device, pooling=settings.pooling)
    examples = from_pairs("train", rung.pairs)
    queries, passages = (texts_of([examples], role) for role in ("query", "document"))
    prepare(model, settings, training, queries=queries, passages=passages)
    corpus = [chunk.embedded for chunk in rung.data.chunks]
    some = corpus[:: math.ceil(len(corpus) / READ)]
    begin = time.monotonic()
    _in_training(model, training).embed(some, "document")
    scoring = (time.monotonic() - begin) * len(corpus) / len(some)
    once = not not_fast(model, training, precision)
    passages = encodings_of(rung.pairs, training, batch_size, encodes_once=once)
    passages += len(rung.pairs) * candidate.negatives
    texts = passages * candidate.epochs
    return scoring * (SCORINGS + PASSES * texts / rung.evaluator.corpus_size)


def _score(rung: Rung, model: Any, training: TrainingSettings) -> float:
    """What a model has on the rung's dev."""
    return rung.evaluator.score_embedder(_in_training(model, training), "dev")


def _in_training(model: Any, training: TrainingSettings) -> MemoryEmbedder:
    return MemoryEmbedder(model, "in training", judging_precision(*device_and_precision(training)))


def _keep(file: Path, base: str, trial: Trial) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"base": base, **asdict(trial)}) + "\n")


def _known(file: Path, base: str) -> dict[tuple[Candidate, int], Trial]:
    """Trials that a killed run has done; a line cut short is done again."""
    found = {}
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
            trial = _trial_of(row)
        except (ValueError, KeyError, TypeError):
            continue
        if row["base"] == base:
            found[trial.candidate, trial.rung] = trial
    return found


def _trial_of(row: Mapping[str, Any]) -> Trial:
    return Trial(
        Candidate(**row["candidate"]), row["rung"], row["queries"], _curve_of(row["scores"]),
        row["seconds"],
    )  # fmt: skip


def _chosen_of(row: Mapping[str, Any]) -> Chosen:
    return Chosen(
        Candidate(**row["candidate"]), row["alpha"], row["score"], _curve_of(row["curve"]),
        tuple(map(_trial_of, row["trials"])), row["seconds"], row["complete"],
    )  # fmt: skip


def _curve_of(points: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((alpha, score) for alpha, score in points)
