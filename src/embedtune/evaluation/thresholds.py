"""From which score on a hit can be used: for "no answer", and for a cache of answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedtune.evaluation.encoded import Answers, Encoded
from embedtune.evaluation.statistics import CONFIDENCE, Sums, score_intervals
from embedtune.evidence import ScoreAdvice, ScoreSpread, Share, Threshold, ThresholdAdvice
from embedtune.records import Query
from embedtune.retrieve.dense import Rows, nearest, pair_scores
from embedtune.similar import normalise

BINS = 30
FEW = 30  # queries in dev or test, under which no threshold is advised
DOUBT = 1.2815515655446004  # standard errors: one-sided 90 %

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Cases:
    """Each query asked twice. ``found``: score of the best hit with an answer in the index;
    ``right``: whether that is one. ``missing``: score of the best hit without any."""

    queries: tuple[str, ...]
    found: Scores
    right: npt.NDArray[np.bool_]
    missing: Scores

    def __len__(self) -> int:
        return len(self.queries)


def score_advice(
    systems: Sequence[Encoded],
    answers: Answers,
    *,
    precisions: Sequence[float],
    seed: int,
    dev: tuple[Sequence[Encoded], Answers] | None = None,
) -> ScoreAdvice:
    """How scores of right and wrong hits lie, and thresholds of every system for both uses.

    Args:
        systems, answers: The split that is measured.
        precisions: Those wanted.
        dev: The same systems on dev, which chooses; without it no threshold is advised.
    """
    edges, spreads = _spreads(systems, answers)
    advice = []
    for place, system in enumerate(systems):
        chooser = (dev[0][place], dev[1]) if dev else None
        for use in ("no-answer", "cache"):
            advice.append(_advice(use, (system, answers), chooser, precisions, seed))
    return ScoreAdvice(edges, spreads, tuple(advice))


# ---- distributions


def _spreads(
    systems: Sequence[Encoded], answers: Answers
) -> tuple[tuple[float, ...], tuple[ScoreSpread, ...]]:
    pairs = []
    for system in systems:
        wrong = _best(system, answers, answers.masked)
        there = np.isfinite(wrong)  # a query may have every passage for an answer
        pairs.append((_best_relevant(system, answers)[there], wrong[there]))
    seen = np.concatenate([scores for pair in pairs for scores in pair])
    ends = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    edges = np.linspace(ends[0], max(ends[1], ends[0] + 1e-6), BINS + 1)
    spreads = tuple(
        ScoreSpread(
            system=system.system,
            queries=len(right),
            relevant=tuple(np.histogram(right, edges)[0].tolist()),
            irrelevant=tuple(np.histogram(wrong, edges)[0].tolist()),
            auc=area_under_curve(right, wrong),
        )
        for system, (right, wrong) in zip(systems, pairs, strict=True)
    )
    return tuple(map(float, edges)), spreads


def area_under_curve(right: Scores, wrong: Scores) -> float:
    """Chance that one of ``right`` is above one of ``wrong``, equal ones counting half; 0.5 where
    either is empty (Mann & Whitney 1947)."""
    if not len(right) or not len(wrong):
        return 0.5
    ordered = np.sort(wrong)
    below = np.searchsorted(ordered, right, "left") + np.searchsorted(ordered, right, "right")
    return float(below.mean() / 2 / len(wrong))


def _best(system: Encoded, answers: Answers, without: Sequence[Rows] | None) -> Scores:
    """(n,) score of each query's best hit; minus infinity where there is none."""
    found = nearest(
        system.asked, system.rows, answers.ids, 1, similarity=system.similarity, without=without
    )
    return found.scores[:, 0]


def _best_relevant(system: Encoded, answers: Answers) -> Scores:
    sizes = [len(rows) for rows in answers.relevant]
    queries = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.array([row for own in answers.relevant for row in own], np.int64)
    scores = pair_scores(system.asked, system.rows, queries, rows, system.similarity)
    return np.maximum.reduceat(scores, np.r_[0, np.cumsum(sizes)[:-1]])


# ---- thresholds


def _advice(
    use: str,
    measured: tuple[Encoded, Answers],
    chooser: tuple[Encoded, Answers] | None,
    precisions: Sequence[float],
    seed: int,
) -> ThresholdAdvice:
    system, answers = measured
    cases_of, basis = _no_answer, ""
    if use == "cache":
        cases_of = _cache
        spans = all(query.spans for query in answers.queries)
        basis = "evidence" if spans else "passage"
    test = cases_of(system, answers)
    dev = cases_of(*chooser) if chooser else None
    code, thresholds = "", ()
    if dev is None:
        code = "no-dev"
    elif min(len(dev), len(test)) < FEW:
        code = "few-paraphrases" if use == "cache" else "few-queries"
    else:
        thresholds = tuple(
            _measured(wanted, *_choose(dev, wanted), test, answers.groups, seed)
            for wanted in precisions
        )
    return ThresholdAdvice(
        use=use,
        system=system.system,
        split=answers.split,
        code=code,
        dev=len(dev) if dev is not None else 0,
        test=len(test),
        thresholds=thresholds,
        basis=basis,
    )


def _no_answer(system: Encoded, answers: Answers) -> _Cases:
    """The best passage of the whole index, and of the index without the query's answers.

    Any hit counts as right while an answer is there: what is asked is whether there is one, and
    how well it is ranked is measured elsewhere.
    """
    missing = _best(system, answers, answers.masked)
    names = tuple(query.id for query in answers.queries)
    return _Cases(names, _best(system, answers, None), np.ones(len(names), bool), missing)


def _cache(system: Encoded, answers: Answers) -> _Cases:
    """The nearest other question, and the nearest that has another answer; of the questions that
    some other one repeats in other words."""
    same, alike = _paraphrases(answers)
    kept = [place for place, others in enumerate(alike) if others]
    if not kept:
        return _Cases((), np.zeros(0), np.zeros(0, bool), np.zeros(0))
    names = [query.id for query in answers.queries]
    asked = system.asked[kept]

    def search(without: list[Rows]) -> tuple[npt.NDArray[np.int64], Scores]:
        found = nearest(
            asked, system.asked, names, 1, similarity=system.similarity, without=without
        )
        return found.indices[:, 0], found.scores[:, 0]

    there, found = search([_rows(same[place]) for place in kept])
    _, missing = search([_rows(same[place] | alike[place]) for place in kept])
    right = [int(other) in alike[place] for place, other in zip(kept, there, strict=True)]
    return _Cases(tuple(names[place] for place in kept), found, np.array(right), missing)


def _rows(places: set[int]) -> Rows:
    return np.array(sorted(places), np.int64)


def _paraphrases(answers: Answers) -> tuple[list[set[int]], list[set[int]]]:
    """Of each query the places of those with the same text (itself too), and of its paraphrases.

    Two questions are paraphrases when a passage answers both and, where they name the evidence,
    it is the same: it overlaps by half of the shorter one.
    """
    by_text: defaultdict[str, set[int]] = defaultdict(set)
    by_row: defaultdict[int, set[int]] = defaultdict(set)
    texts = [normalise(query.text) for query in answers.queries]
    for place, relevant in enumerate(answers.relevant):
        by_text[texts[place]].add(place)
        for row in relevant:
            by_row[row].add(place)
    same = [by_text[text] for text in texts]
    alike = []
    for place, relevant in enumerate(answers.relevant):
        query = answers.queries[place]
        others = set().union(*(by_row[row] for row in relevant)) - same[place]
        alike.append({o for o in others if _same_evidence(query, answers.queries[o])})
    return same, alike


def _same_evidence(one: Query, other: Query) -> bool:
    if not one.spans or not other.spans:
        return True
    return any(
        a.overlap(b) >= max(1, min(a.length, b.length) / 2) for a in one.spans for b in other.spans
    )


def _choose(dev: _Cases, wanted: float) -> tuple[float, float | None]:
    """The greatest precision that dev shows, and the lowest score from which on it shows the
    wanted one: so most is answered.

    What it shows is the lower end of Wilson's one-sided 90 % interval. The best of many thresholds
    by the precision itself is a lucky one, mostly where none reaches what is wanted. The threshold
    lies half way to the next lower score, so that rounding changes nothing.
    """
    scores = np.concatenate([dev.found, dev.missing])
    right = np.concatenate([dev.right, np.zeros(len(dev), bool)])
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    used = np.arange(1, len(scores) + 1)
    shown = _lower_end(right.cumsum() / used, used)
    last = np.r_[scores[1:] < scores[:-1], True]  # equal scores stand on one side
    shown[~last | ~np.isfinite(scores)] = 0
    places = np.flatnonzero(shown >= wanted)
    if not len(places):
        return float(shown.max()), None
    least = scores[places[-1]]
    below = scores[places[-1] + 1 :]
    below = below[np.isfinite(below)]
    middle = (least + below[0]) / 2 if len(below) else least
    return float(shown.max()), float(middle)


def _lower_end(shares: Scores, counts: npt.NDArray[np.int64]) -> Scores:
    """Wilson (1927), one-sided."""
    z = DOUBT**2 / counts
    spread = np.sqrt(z * shares * (1 - shares) + z**2 / 4)
    return (shares + z / 2 - spread) / (1 + z)


def _measured(
    wanted: float, reached: float, threshold: float | None, test: _Cases,
    groups: Mapping[str, str], seed: int,
) -> Threshold:  # fmt: skip
    if threshold is None:
        return Threshold(wanted, reached)
    used, wrongly = test.found >= threshold, test.missing >= threshold
    good = used & test.right
    everything = np.ones(len(test))
    own = [groups[query] for query in test.queries]
    return Threshold(
        wanted,
        reached,
        threshold,
        precision=share(good, used.astype(float) + wrongly, own, seed),
        recall=share(good, everything, own, seed),
        false_hits=share(wrongly, everything, own, seed),
    )


def share(good: Sequence[bool], cases: Sequence[float], groups: Sequence[str], seed: int) -> Share:
    """Sum of ``good`` over sum of ``cases``, with its interval by group.

    Where all or none are good, no resample differs: the end is then that of as many independent
    cases as there are groups (Clopper & Pearson 1934).
    """
    names = sorted({group for group, count in zip(groups, cases, strict=True) if count})
    total = int(np.sum(cases))
    if not names:
        return Share(0.0, 0.0, 1.0, 0)
    place = {name: number for number, name in enumerate(names)}
    places = [place.get(group, 0) for group in groups]  # those without cases add nothing
    values = np.bincount(places, np.asarray(good, float), len(names))
    counts = np.bincount(places, np.asarray(cases, float), len(names))
    value = float(values.sum() / total)
    bound = ((1 - CONFIDENCE) / 2) ** (1 / len(names))
    if value in (0.0, 1.0):
        low, high = (bound, 1.0) if value else (0.0, 1 - bound)
    else:
        [(low, high)] = score_intervals(Sums(values[None], counts), seed=seed)
    return Share(value, float(low), float(high), total)
