"""The verdict: whether a tuned model deserves to be shipped, and why, in words.

Only the systems of a `Contest` decide, and which ones they are was chosen on dev; test is looked
at once. The unit of tests and intervals is the group (a document), not the query.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedtune.errors import IntegrityError
from embedtune.evaluation.evaluate import EvaluationSettings, Evaluator, restricted
from embedtune.evaluation.forgetting import ProbeResult
from embedtune.evaluation.health import LANGUAGE_CODES, few_queries_flag
from embedtune.evaluation.statistics import bootstrap_t, holm, sign_flip_test, sums_by_group
from embedtune.evaluation.systems import System
from embedtune.files import visible
from embedtune.language import LANGUAGES
from embedtune.results import Difference, Flag, SystemScores, Verdict, VerdictName

LEVEL = 0.05
MIN_GROUPS = 10  # under this nothing is shipped
SURE_GROUPS = 20  # under this the test must agree with the interval
MANY_QUERIES = 1_000_000

# Every reason a verdict can give. A further language is a further table with the same keys.
REASONS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "ship": "Ship {candidate}: it retrieves better than {base}, {metric} {a} against {b}, a "
        "gain of {gain} ({ends}).",
        "ship-hybrid": "Ship {candidate} together with BM25: {metric} {a}, significantly above "
        "{candidate} alone ({b}), BM25 alone ({c}) and {base} with BM25 ({d}).",
        "worse": "Do not ship {candidate}: it is worse than {base}, {metric} {a} against {b}, a "
        "loss of {loss} ({ends}).",
        "bm25-wins": "Do not ship {candidate}: BM25 wins, {metric} {c} against {a} for "
        "{candidate} and {best_hybrid} for the better of the two hybrids.",
        "untuned": "No model was tuned: {base} stands as it is, {metric} {b}.",
        "same": "{candidate} ranks exactly as {base} does; there is nothing to ship.",
        "no-gain": "It is not shown that {candidate} is better than {base}: {metric} {a} against "
        "{b}, a difference of {gain} ({ends}).",
        "small-gain": "{candidate} is better than {base} by {gain} {metric} ({ends}), less than "
        "the {min_gain} that is worth a change.",
        "test-disagrees": "The interval of the gain is above zero, but with {groups} groups the "
        "randomisation test must agree, and it does not (p = {p} after Holm).",
        "below-bm25": "BM25 alone is better than {candidate}: {metric} {c} against {a}; a hybrid "
        "was not shown to beat both.",
        "forgets": "The model forgets too much in general: {probe}.",
        "probe": "{probe}.",
        "no-probe": "What the model may have forgotten elsewhere was not measured (no probe).",
        "few-groups": "The test queries stand in only {groups} groups of documents; under "
        "{min_groups} nothing is shipped, and {sure} settle more.",
        "settle": "About {needed} test queries would settle it, if the difference stays as it is; "
        "there are {queries}.",
        "cannot-settle": "The difference is so small that no realistic number of queries would "
        "settle it.",
        "blocked": "The figures alone would say {name}, but they cannot be relied on: {flags}.",
        "against": "Against {other}: {gain} {metric} ({ends}).",
        "base-hybrid": "{base} with BM25, without any tuning, reaches {metric} {d}.",
        "flag": "{message}.",
        "flag-language": "Do not use {candidate} for {language} text: {message}. The verdict is "
        "on the other {queries} queries.",
    }
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What dev chose. ``on`` is "dev", or "default" where the data has no dev split."""

    candidate: System
    rival: System
    fusion_k: int
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
    Without dev: the first candidate, k = 60, and BM25.
    """
    bm25 = next((rival for rival in rivals if rival.kind == "bm25"), System("bm25", "bm25"))
    if not evaluator.data.qrels.get("dev"):
        return Choice(candidates[0], bm25, evaluator.best_fusion_k([]), "default")
    metric = evaluator.settings.metric
    measured = [(system, evaluator.score(system, "dev")) for system in candidates]
    candidate, _ = max(measured, key=lambda item: item[1].metrics[metric])
    k = evaluator.best_fusion_k([candidate, *([base] if base.embedder else [])])
    others = [bm25, with_bm25(base), *(r for r in rivals if r.kind != "bm25")]
    rivalry = [(system, evaluator.score(system, "dev", fusion_k=k)) for system in others]
    rival, _ = max(rivalry, key=lambda item: item[1].metrics[metric])
    scores = {scores.name: scores for _, scores in (*measured, *rivalry)}
    return Choice(candidate, rival, k, "dev", tuple(scores.values()))


def with_bm25(system: System) -> System:
    """The hybrid of a system; BM25 and hybrids are their own."""
    if system.kind in ("bm25", "hybrid"):
        return system
    return system.hybrid(f"{system.label} + bm25")


def hold_contest(
    evaluator: Evaluator, choice: Choice, base: System, split: str = "test"
) -> Contest:
    """Measure what decides on ``split``."""
    candidate, k = choice.candidate, choice.fusion_k
    return Contest(
        candidate=evaluator.score(candidate, split),
        base=evaluator.score(base, split),
        bm25=evaluator.score(System("bm25", "bm25"), split),
        hybrid=evaluator.score(with_bm25(candidate), split, fusion_k=k),
        base_hybrid=evaluator.score(with_bm25(base), split, fusion_k=k),
        rival=evaluator.score(choice.rival, split, fusion_k=k),
    )


def difference(
    one: SystemScores, other: SystemScores, groups: Mapping[str, str], settings: EvaluationSettings
) -> Difference:
    """``one`` minus ``other`` in the deciding metric, tested and with its interval.

    Raises:
        IntegrityError: They were not measured on the same data, split and queries.
    """
    metric = settings.metric
    check_comparable((one, other), metric)
    left, right = one.per_query[metric], other.per_query[metric]
    sums = sums_by_group([{query: left[query] - right[query] for query in left}], groups)
    [(low, high)] = bootstrap_t(sums, seed=settings.seed)
    return Difference(
        mean=float(sums.means[0]),
        low=float(np.clip(low, -1, 1)),
        high=float(np.clip(high, -1, 1)),
        p=sign_flip_test(sums.values[0], seed=settings.seed),
        queries=len(left),
        groups=sums.groups,
    )


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
    probe: ProbeResult | None = None,
    settings: EvaluationSettings | None = None,
) -> Verdict:
    """The verdict on ``contest.candidate``.

    Args:
        groups: Query id -> group.
        languages: Query id -> language. When some languages are flagged as unreadable or cut and
            others are not, the queries of the others decide.
        flags: Findings on data and base; those that block turn `ship` and `ship-hybrid` into
            `inconclusive`, and nothing else.
        probe: The general probe, or None where there was none.
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
    name, reasons = _decide(decided, differences, blocking, probe, settings)
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
    return Verdict(
        verdict=name,
        reasons=tuple(texts[code].format(**{**facts, **own}) for code, own in reasons),
        candidate=contest.candidate.name,
        base=contest.base.name,
        best_rival=contest.rival.name,
        differences=differences,
        flags=all_flags,
        decided={scores.name: scores.metrics[settings.metric] for scores in decided.systems},
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
    probe: ProbeResult | None,
    settings: EvaluationSettings,
) -> tuple[VerdictName, Reasons]:
    """Steps 2 to 5 of the decision, in order; step 1, integrity, has raised before."""
    base, bm25 = differences["base"], differences["bm25"]
    gain = _numbers(base)
    background: Reasons = [("against", {"other": "BM25", **_numbers(bm25)})]
    if contest.rival.name not in (contest.bm25.name, contest.base.name):
        rival = f"the best rival, {contest.rival.name}"
        background.append(("against", {"other": rival, **_numbers(differences["best_rival"])}))
    background.append(("base-hybrid", {}))
    if probe is None:
        background.append(("no-probe", {}))
    elif probe.holds:
        background.append(("probe", {"probe": _sentence(probe.message)}))
    else:
        background.append(("forgets", {"probe": probe.message}))

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
    if probe is not None and not probe.holds:
        missing.append(("forgets", {"probe": probe.message}))
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
            *_what_would_settle(base, settings),
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


def _what_would_settle(base: Difference, settings: EvaluationSettings) -> Reasons:
    if base.low > 0 or base.high < 0 or base.low == base.high == 0:
        return []
    needed = queries_to_settle(base)
    if needed is None:
        return [("cannot-settle", {})]
    return [("settle", {"needed": f"{needed:,}", "queries": base.queries})]


def queries_to_settle(diff: Difference) -> int | None:
    """How many queries would take the interval off zero if the mean stayed: its width falls with
    the square root of their number. Two significant digits; None when it is beyond a million."""
    half = (diff.high - diff.low) / 2
    if abs(diff.mean) < 1e-9:
        return None
    needed = diff.queries * (half / abs(diff.mean)) ** 2
    if needed > MANY_QUERIES:
        return None
    needed = max(needed, diff.queries + 1)
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / unit) * unit


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
        "ends": f"95 % interval {diff.low:+.3f} to {diff.high:+.3f}, {diff.queries} queries in "
        f"{diff.groups} groups",
    }


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
