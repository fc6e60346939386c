"""The verdict: whether a tuned model deserves to be shipped, and why, in words.

Only the systems of a `Contest` decide, and which ones they are was chosen on dev; test is looked
at once. The unit of tests and intervals is the group (a document), not the query.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedtune.errors import IntegrityError
from embedtune.evaluation.evaluate import Evaluator, restricted
from embedtune.evaluation.forgetting import COUNTS_FROM, COUNTS_TO, LOSS, ProbeResult
from embedtune.evaluation.health import LANGUAGE_CODES, few_queries_flag
from embedtune.evaluation.power import power
from embedtune.evaluation.reasons import REASONS, named
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.statistics import Sums, bootstrap_t, holm, sign_flip_test, sums_by_group
from embedtune.evaluation.systems import System
from embedtune.files import visible
from embedtune.language import LANGUAGES
from embedtune.results import Difference, Flag, Power, SystemScores, Verdict, VerdictName
from embedtune.retrieve.fusion import Fusion

LEVEL = 0.05
MIN_GROUPS = 10  # under this nothing is shipped
SURE_GROUPS = 20  # under this the test must agree with the interval


@dataclass(frozen=True, slots=True)
class Choice:
    """What dev chose. ``on`` is "dev", or "default" where the data has no dev split."""

    candidate: System
    rival: System
    fusion: Fusion
    on: str
    scores: tuple[SystemScores, ...] = ()  # of everything that was compared on dev


@dataclass(frozen=True, slots=True)
class Contest:
    """The systems that decide, all on the same split of the same data."""

    candidate: SystemScores
    base: SystemScores
    bm25: SystemScores
    hybrid: SystemScores  # candidate + BM25
    base_hybrid: SystemScores  # base + BM25
    rival: SystemScores  # the best untuned system on dev: BM25, base + BM25, an API …

    @property
    def systems(self) -> tuple[SystemScores, ...]:
        """Each system once, in the order of a table."""
        named = (self.candidate, self.base, self.bm25, self.hybrid, self.base_hybrid, self.rival)
        return tuple({scores.name: scores for scores in named}.values())


def choose(
    evaluator: Evaluator,
    candidates: Sequence[System],
    base: System,
    rivals: Sequence[System] = (),
) -> Choice:
    """One candidate, one hybrid weighting and one rival, by the deciding metric on dev.

    The rival is the best of ``rivals``, BM25 and base + BM25. Ties go to what stands first.
    Without dev: the first candidate, equal weights, and BM25.
    """
    bm25 = next((rival for rival in rivals if rival.kind == "bm25"), System("bm25", "bm25"))
    if not evaluator.data.qrels.get("dev"):
        return Choice(candidates[0], bm25, evaluator.best_fusion([]), "default")
    metric = evaluator.settings.metric
    measured = [(system, evaluator.score(system, "dev")) for system in candidates]
    candidate, _ = max(measured, key=lambda item: item[1].metrics[metric])
    fusion = evaluator.best_fusion([candidate, *([base] if base.embedder else [])])
    others = [bm25, with_bm25(base), *(r for r in rivals if r.kind != "bm25")]
    rivalry = [(system, evaluator.score(system, "dev", fusion=fusion)) for system in others]
    rival, _ = max(rivalry, key=lambda item: item[1].metrics[metric])
    scores = {scores.name: scores for _, scores in (*measured, *rivalry)}
    return Choice(candidate, rival, fusion, "dev", tuple(scores.values()))


def with_bm25(system: System) -> System:
    """The hybrid of a system; BM25, hybrids and what is reranked are their own."""
    if system.kind in ("bm25", "hybrid", "rerank"):
        return system
    return system.hybrid(f"{system.label} + bm25")


def hold_contest(
    evaluator: Evaluator, choice: Choice, base: System, split: str = "test"
) -> Contest:
    """Measure what decides on ``split``."""
    candidate, fusion = choice.candidate, choice.fusion
    return Contest(
        candidate=evaluator.score(candidate, split),
        base=evaluator.score(base, split),
        bm25=evaluator.score(System("bm25", "bm25"), split),
        hybrid=evaluator.score(with_bm25(candidate), split, fusion=fusion),
        base_hybrid=evaluator.score(with_bm25(base), split, fusion=fusion),
        rival=evaluator.score(choice.rival, split, fusion=fusion),
    )


def difference(
    one: SystemScores, other: SystemScores, groups: Mapping[str, str], settings: EvaluationSettings
) -> Difference:
    """``one`` minus ``other`` in the deciding metric, tested and with its interval.

    Raises:
        IntegrityError: They were not measured on the same data, split and queries.
    """
    sums = _sums(one, other, groups, settings.metric)
    [(low, high)] = bootstrap_t(sums, seed=settings.seed)
    return Difference(
        mean=float(sums.means[0]),
        low=float(np.clip(low, -1, 1)),
        high=float(np.clip(high, -1, 1)),
        p=sign_flip_test(sums.values[0], seed=settings.seed),
        queries=int(sums.queries.sum()),
        groups=sums.groups,
    )


def _sums(one: SystemScores, other: SystemScores, groups: Mapping[str, str], metric: str) -> Sums:
    check_comparable((one, other), metric)
    left, right = one.per_query[metric], other.per_query[metric]
    return sums_by_group([{query: left[query] - right[query] for query in left}], groups)


def check_comparable(systems: Sequence[SystemScores], metric: str) -> None:
    """Refuse to compare figures of different corpora, splits or metrics."""
    first = systems[0]
    faults = []
    for other in systems[1:]:
        if metric not in other.per_query or metric not in first.per_query:
            faults.append(f"{metric} was not measured for both {first.name} and {other.name}")
            continue
        if first.facts.get("data") != other.facts.get("data"):
            faults.append(f"{first.name} and {other.name} were measured on different data")
        alone = set(first.per_query[metric]) ^ set(other.per_query[metric])
        if alone:
            faults.append(
                f"{len(alone)} queries were measured for only one of {first.name} and "
                f"{other.name}, e.g. {visible(min(alone))}"
            )
    if faults:
        raise IntegrityError(f"cannot be compared: {'; '.join(faults)}; evaluate them together")


def compare(
    contest: Contest,
    *,
    groups: Mapping[str, str],
    languages: Mapping[str, str] | None = None,
    flags: Iterable[Flag] = (),
    probe: Sequence[ProbeResult] = (),
    settings: EvaluationSettings | None = None,
) -> Verdict:
    """The verdict on ``contest.candidate``.

    Args:
        groups: Query id -> group.
        languages: Query id -> language. When some languages are flagged as unreadable or cut and
            others are not, the queries of the others decide.
        flags: Findings on data and base; those that block turn `ship` and `ship-hybrid` into
            `inconclusive`, and nothing else.
        probe: What the general probes found; the gate of each must hold.
    """
    settings = settings or EvaluationSettings()
    check_comparable(contest.systems, settings.metric)
    flags = tuple(flags)
    kept, spared = _decide_where(contest, languages or {}, flags, settings.metric)
    decided = _restrict(contest, kept) if kept else contest
    queries = len(decided.candidate.per_query[settings.metric])
    known = {flag.code for flag in flags}
    few = () if "few-queries" in known else few_queries_flag(queries)
    all_flags = (*flags, *few)
    blocking = [flag for flag in all_flags if flag.blocks and flag not in spared]
    differences = _differences(decided, groups, settings)
    shown = power(
        _sums(decided.candidate, decided.base, groups, settings.metric),
        min_gain=settings.min_gain,
        seed=settings.seed,
        least_groups=MIN_GROUPS,
    )
    name, reasons = _decide(decided, differences, blocking, probe, settings, shown)
    told = [
        ("flag-language", {"language": LANGUAGES.get(flag.language, flag.language),
                           "message": flag.message, "queries": queries})
        if flag in spared
        else ("flag", {"message": _sentence(flag.message)})
        for flag in all_flags
        if name == "do-not-ship" or flag not in blocking
    ]  # fmt: skip
    reasons[1:1] = told  # right behind what was decided
    facts = _facts(decided, settings)
    texts = REASONS["en"]
    codes = tuple((code, named(texts[code], {**facts, **own})) for code, own in reasons)
    return Verdict(
        verdict=name,
        reasons=tuple(texts[code].format(**facts) for code, facts in codes),
        codes=codes,
        candidate=contest.candidate.name,
        base=contest.base.name,
        best_rival=contest.rival.name,
        differences=differences,
        flags=all_flags,
        decided={scores.name: scores.metrics[settings.metric] for scores in decided.systems},
        power=shown,
    )


def _decide_where(
    contest: Contest, languages: Mapping[str, str], flags: Sequence[Flag], metric: str
) -> tuple[list[str], tuple[Flag, ...]]:
    """The queries that decide (none: all of them), and the language flags that block nothing
    because their language is left out."""
    concerned = [flag for flag in flags if flag.blocks and flag.code in LANGUAGE_CODES]
    flagged = {flag.language for flag in concerned}
    queries = contest.candidate.per_query[metric]
    rest = [query for query in queries if languages.get(query, "") not in flagged]
    if not flagged or not rest:
        return [], ()
    return rest, tuple(concerned)


def _restrict(contest: Contest, queries: Sequence[str]) -> Contest:
    return Contest(
        *(
            restricted(scores, queries)
            for scores in (contest.candidate, contest.base, contest.bm25, contest.hybrid,
                           contest.base_hybrid, contest.rival)
        )
    )  # fmt: skip


def _differences(
    contest: Contest, groups: Mapping[str, str], settings: EvaluationSettings
) -> dict[str, Difference]:
    pairs = {
        "base": (contest.candidate, contest.base),
        "best_rival": (contest.candidate, contest.rival),
        "bm25": (contest.candidate, contest.bm25),
        "hybrid": (contest.hybrid, contest.candidate),
        "hybrid_bm25": (contest.hybrid, contest.bm25),
        "hybrid_base_hybrid": (contest.hybrid, contest.base_hybrid),
        "base_hybrid_bm25": (contest.base_hybrid, contest.bm25),
    }
    found = {name: difference(*pair, groups, settings) for name, pair in pairs.items()}
    # Holm over the candidate's own comparisons, each opponent once
    family = {pairs[name][1].name: found[name].p for name in ("base", "bm25", "best_rival")}
    adjusted = holm(family)
    for name in ("base", "bm25", "best_rival"):
        found[name] = replace(found[name], p_holm=adjusted[pairs[name][1].name])
    return found


def _significant(diff: Difference) -> bool:
    return (diff.p if diff.p_holm is None else diff.p_holm) < LEVEL


def _above(diff: Difference) -> bool:
    """Significantly above: the test says so, and the interval does not contradict."""
    return _significant(diff) and diff.mean > 0 and diff.low > 0


def _below(diff: Difference) -> bool:
    return _significant(diff) and diff.mean < 0


Reasons = list[tuple[str, dict[str, object]]]


def _decide(
    contest: Contest,
    differences: Mapping[str, Difference],
    blocking: Sequence[Flag],
    probe: Sequence[ProbeResult],
    settings: EvaluationSettings,
    shown: Power | None,
) -> tuple[VerdictName, Reasons]:
    """Steps 2 to 5 of the decision, in order; step 1, integrity, has raised before."""
    base, bm25 = differences["base"], differences["bm25"]
    gain = _numbers(base)
    background: Reasons = [("against", {"other": "BM25", **_numbers(bm25)})]
    if contest.rival.name not in (contest.bm25.name, contest.base.name):
        over = _numbers(differences["best_rival"])
        background.append(("against-rival", {"other": contest.rival.name, **over}))
    background.append(("base-hybrid", {}))
    counted = [result for result in probe if result.counted]
    asked = [_of_probe(result) for result in counted or probe] or [("no-probe", {})]
    background += asked

    if _below(base):
        return "do-not-ship", [("worse", gain), *background]
    hybrids = (differences["hybrid_bm25"], differences["base_hybrid_bm25"])
    if _below(bm25) and all(_below(hybrid) for hybrid in hybrids):
        if contest.candidate.name != contest.base.name:
            background.insert(0, ("against", {"other": contest.base.name, **gain}))
        return "do-not-ship", [("bm25-wins", {}), *background]

    enough = base.groups >= MIN_GROUPS
    over_all = all(
        _above(differences[name]) for name in ("hybrid", "hybrid_bm25", "hybrid_base_hybrid")
    )
    missing: Reasons = []  # what keeps the candidate alone from being shipped
    if contest.candidate.name == contest.base.name:
        missing.append(("untuned", {}))
    elif base.mean == 0 and base.low == base.high == 0:
        missing.append(("same", {}))
    elif base.low <= 0:
        missing.append(("no-gain", gain))
    elif base.mean < settings.min_gain:
        missing.append(("small-gain", gain))
    elif base.groups < SURE_GROUPS and not _significant(base):
        missing.append(("test-disagrees", {"groups": base.groups, "p": f"{base.p_holm:.3f}"}))
    if bm25.high < 0:
        missing.append(("below-bm25", {}))
    missing += [reason for reason in asked if reason[0] == "probe-lost"]
    if not enough:
        missing.append(("few-groups", {"groups": base.groups}))

    name: VerdictName = "inconclusive"
    if over_all and enough:
        name, because = "ship-hybrid", _hybrid_reason(contest, settings.metric)
    elif not missing:
        name, because = "ship", ("ship", gain)
    if name == "inconclusive":
        told = {code for code, _ in missing}
        return name, [
            *missing,
            *_what_would_settle(told, base, shown, settings),
            *(("flag", {"message": _sentence(flag.message)}) for flag in blocking),
            *(reason for reason in background if reason[0] not in told),
        ]
    if blocking:
        joined = "; ".join(flag.message for flag in blocking)
        return "inconclusive", [("blocked", {"name": name, "flags": joined}), because, *background]
    return name, [because, *background]


def _hybrid_reason(contest: Contest, metric: str) -> tuple[str, dict[str, object]]:
    return "ship-hybrid", {
        "a": _figure(contest.hybrid.metrics[metric]),
        "b": _figure(contest.candidate.metrics[metric]),
    }


def _what_would_settle(
    told: set[str], base: Difference, shown: Power | None, settings: EvaluationSettings
) -> Reasons:
    """What the test set can show, and what it would take, where its size left the gain open."""
    if shown is None or not told & {"no-gain", "test-disagrees"}:
        return []
    smallest = ("smallest", {"smallest": f"{shown.smallest_gain:.3f}"})
    if shown.groups is None or shown.queries is None:
        return [smallest, ("cannot-settle", {})]
    code = "settle" if shown.assumed > settings.min_gain else "settle-least"
    numbers = {
        "needed": f"{shown.queries:,}",
        "more": f"{shown.queries - base.queries:,}",
        "more_groups": f"{shown.groups - base.groups:,}",
        "groups": base.groups,
    }
    return [smallest, (code, numbers)]


def _of_probe(result: ProbeResult) -> tuple[str, dict[str, object]]:
    return f"probe-{result.outcome}", {
        "probe": result.name,
        "asked": result.queries,
        "before": _figure(result.base),
        "after": _figure(result.tuned),
        "lost": _figure(result.loss),
        "low": _figure(result.low),
        "high": _figure(result.high),
        "allowed": LOSS,
        "counts_from": COUNTS_FROM,
        "counts_to": COUNTS_TO,
    }


def _facts(contest: Contest, settings: EvaluationSettings) -> dict[str, object]:
    """What the reasons may name: a candidate, b base, c BM25, d base with BM25."""
    metric = settings.metric
    return {
        "metric": metric,
        "candidate": contest.candidate.name,
        "base": contest.base.name,
        "a": _figure(contest.candidate.metrics[metric]),
        "b": _figure(contest.base.metrics[metric]),
        "c": _figure(contest.bm25.metrics[metric]),
        "d": _figure(contest.base_hybrid.metrics[metric]),
        "best_hybrid": _figure(
            max(hybrid.metrics[metric] for hybrid in (contest.hybrid, contest.base_hybrid))
        ),
        "min_gain": settings.min_gain,
        "min_groups": MIN_GROUPS,
        "sure": SURE_GROUPS,
    }


def _numbers(diff: Difference) -> dict[str, object]:
    return {
        "gain": f"{diff.mean:+.3f}",
        "loss": f"{-diff.mean:.3f}",
        "low": f"{diff.low:+.3f}",
        "high": f"{diff.high:+.3f}",
        "queries": diff.queries,
        "groups": diff.groups,
    }


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
