"""The verdict: every rule of the decision, in order, with reasons in words."""

import dataclasses

import numpy as np
import pytest

from embedtune.errors import IntegrityError
from embedtune.evaluation.compare import (
    Contest,
    choose,
    compare,
    difference,
    hold_contest,
)
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.forgetting import gate
from embedtune.evaluation.reasons import REASONS
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import parse_system
from embedtune.results import Flag, SystemScores
from embedtune.retrieve.fusion import CHOICES, Fusion

SETTINGS = EvaluationSettings()


def system(name: str, values: np.ndarray, kind: str = "dense", data: str = "d") -> SystemScores:
    per_query = {f"q{i:04}": float(value) for i, value in enumerate(values)}
    return SystemScores(
        name, kind, {"ndcg@10": float(values.mean())}, {"ndcg@10": per_query},
        dict.fromkeys(per_query, ()), facts={"data": data},
    )  # fmt: skip


def contest(
    *,
    candidate: float,
    base: float,
    bm25: float = 0.3,
    hybrid: float = 0.3,
    base_hybrid: float = 0.3,
    groups: int = 30,
    per_group: int = 4,
    noise: float = 0.1,
) -> tuple[Contest, dict[str, str]]:
    """Systems of the given means with independent noise, and groups of equal size."""
    rng = np.random.default_rng(0)
    n = groups * per_group

    def around(mean: float) -> np.ndarray:
        values = rng.normal(0, noise, n)
        return mean + values - values.mean()

    lexical = system("bm25", around(bm25), "bm25")
    made = Contest(
        candidate=system("tuned", around(candidate)),
        base=system("minilm", around(base)),
        bm25=lexical,
        hybrid=system("tuned + bm25", around(hybrid), "hybrid"),
        base_hybrid=system("minilm + bm25", around(base_hybrid), "hybrid"),
        rival=lexical,
    )
    return made, {f"q{i:04}": f"g{i // per_group}" for i in range(n)}


def verdict_of(made: tuple[Contest, dict[str, str]], **given):
    return compare(made[0], groups=made[1], **given)


def test_a_clear_gain_is_shipped():
    verdict = verdict_of(contest(candidate=0.8, base=0.6), probe=[gate("p", 0.8, 0.8, 300, 0, 0)])
    assert verdict.verdict == "ship"
    assert verdict.reasons[0].startswith(
        "Ship tuned: it retrieves better than minilm, ndcg@10 0.800 against 0.600, a gain of +0.200"
    )
    assert verdict.best_rival == "bm25"
    base = verdict.differences["base"]
    assert base.mean == pytest.approx(0.2)
    assert base.low < 0.2 < base.high
    assert (base.queries, base.groups) == (120, 30)
    assert base.p_holm is not None
    assert base.p <= base.p_holm
    assert verdict.differences["best_rival"] == verdict.differences["bm25"]


def test_a_model_worse_than_its_base_is_not_shipped():
    verdict = verdict_of(contest(candidate=0.5, base=0.6))
    assert verdict.verdict == "do-not-ship"
    assert verdict.reasons[0].startswith("Do not ship tuned: it is worse than minilm")


def test_bm25_above_the_candidate_and_every_hybrid_wins():
    verdict = verdict_of(contest(candidate=0.4, base=0.1, bm25=0.8, hybrid=0.6, base_hybrid=0.5))
    assert verdict.verdict == "do-not-ship"
    assert "BM25 wins, ndcg@10 0.800 against 0.400" in verdict.reasons[0]
    assert "0.600 for the better of the two hybrids" in verdict.reasons[0]


def test_bm25_above_the_candidate_but_not_above_a_hybrid_does_not_win():
    made = contest(candidate=0.4, base=0.1, bm25=0.8, hybrid=0.6, base_hybrid=0.805)
    verdict = verdict_of(made)
    assert verdict.verdict == "inconclusive"
    assert any("BM25 alone is better than tuned" in reason for reason in verdict.reasons)


def test_a_hybrid_above_all_three_is_shipped():
    made = contest(candidate=0.6, base=0.5, bm25=0.55, hybrid=0.75, base_hybrid=0.65)
    verdict = verdict_of(made)
    assert verdict.verdict == "ship-hybrid"
    assert "together with BM25: ndcg@10 0.750" in verdict.reasons[0]


def test_a_hybrid_that_the_base_reaches_too_is_not_the_tuned_models_merit():
    made = contest(candidate=0.6, base=0.5, bm25=0.55, hybrid=0.65, base_hybrid=0.65)
    assert verdict_of(made).verdict == "ship"


def test_a_gain_below_the_least_worth_shipping_is_inconclusive():
    verdict = verdict_of(contest(candidate=0.605, base=0.6, noise=0.004))
    assert verdict.verdict == "inconclusive"
    assert "less than the 0.01" in verdict.reasons[0]


def test_an_unclear_gain_says_how_many_queries_would_settle_it():
    verdict = verdict_of(contest(candidate=0.62, base=0.6, noise=0.3))
    assert verdict.verdict == "inconclusive"
    assert verdict.reasons[0].startswith("It is not shown that tuned is better")
    power = verdict.power
    told = dict(verdict.codes)
    assert told["smallest"] == {"smallest": f"{power.smallest_gain:.3f}"}
    assert power.smallest_gain > 0.02
    assert power.assumed == pytest.approx(0.02)
    assert told["settle"] == {
        "needed": f"{power.queries:,}",
        "more": f"{power.queries - 120:,}",
        "more_groups": f"{power.groups - 30:,}",
        "groups": "30",
    }
    assert any(
        f"{power.queries:,} test queries or more would settle it" in reason
        for reason in verdict.reasons
    )


def test_a_difference_too_small_to_matter_says_what_the_least_gain_would_take():
    verdict = verdict_of(contest(candidate=0.601, base=0.6, noise=0.1))
    assert verdict.power.assumed == 0.01
    assert any("would show a gain of 0.01" in reason for reason in verdict.reasons)


def test_what_is_settled_asks_for_no_further_queries():
    for candidate in (0.8, 0.5):
        verdict = verdict_of(contest(candidate=candidate, base=0.6))
        assert not {"settle", "settle-least", "cannot-settle"} & dict(verdict.codes).keys()


def test_every_reason_can_be_worded_anew_from_its_code():
    for made in (contest(candidate=0.8, base=0.6), contest(candidate=0.61, base=0.6, noise=0.3)):
        verdict = verdict_of(made)
        anew = [REASONS["en"][code].format(**facts) for code, facts in verdict.codes]
        assert tuple(anew) == verdict.reasons
        assert all(isinstance(value, str) for _, facts in verdict.codes for value in facts.values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [("copy", "copy ranks exactly as minilm"), ("minilm", "No model was tuned: minilm stands")],
)
def test_equal_rankings_are_said_to_be_equal(name, reason):
    made, groups = contest(candidate=0.6, base=0.6)
    copy = dataclasses.replace(made.base, name=name)
    verdict = compare(
        dataclasses.replace(made, candidate=copy, hybrid=made.base_hybrid), groups=groups
    )
    assert verdict.verdict == "inconclusive"
    assert verdict.reasons[0].startswith(reason)


@pytest.mark.parametrize(("groups", "expected"), [(9, "inconclusive"), (12, "ship"), (30, "ship")])
def test_under_ten_groups_nothing_is_shipped(groups, expected):
    verdict = verdict_of(contest(candidate=0.8, base=0.6, groups=groups, per_group=12))
    assert verdict.verdict == expected
    if expected == "inconclusive":
        assert "only 9 groups" in " ".join(verdict.reasons)


def test_with_ten_to_nineteen_groups_the_test_must_agree():
    # two large groups carry the gain: few sign flips can undo it only when they flip
    made, groups = contest(candidate=0.6, base=0.6, groups=12, per_group=6, noise=0.0)
    gains = np.repeat([0.5, 0.45, 0.05, 0.05, 0.04, 0.04, 0.03, 0.02, 0.02, -0.3, -0.02, 0.0], 6)
    candidate = system("tuned", np.array([0.6] * 72) + gains)
    made = Contest(candidate, made.base, made.bm25, made.hybrid, made.base_hybrid, made.rival)
    verdict = compare(made, groups=groups)
    assert verdict.differences["base"].p > 0.05
    assert verdict.verdict == "inconclusive"


def test_a_blocking_flag_turns_ship_into_inconclusive_and_leaves_do_not_ship():
    flag = Flag("broken-test-set", "the test set is broken", blocks=True)
    shipped = verdict_of(contest(candidate=0.8, base=0.6), flags=[flag])
    assert shipped.verdict == "inconclusive"
    assert "would say ship" in shipped.reasons[0]
    assert "the test set is broken" in shipped.reasons[0]
    refused = verdict_of(contest(candidate=0.4, base=0.6), flags=[flag])
    assert refused.verdict == "do-not-ship"
    assert refused.reasons[1] == "The test set is broken."
    hint = Flag("unsuitable-base", "another base will do better", blocks=False)
    assert verdict_of(contest(candidate=0.8, base=0.6), flags=[hint]).verdict == "ship"


def test_few_queries_block():
    verdict = verdict_of(contest(candidate=0.8, base=0.6, groups=24, per_group=2))
    assert verdict.verdict == "inconclusive"
    assert [flag.code for flag in verdict.flags] == ["few-queries"]


def test_a_model_that_forgets_is_not_shipped():
    lost = gate("general", 0.8, 0.7, 300, 0.05, 0.15)
    kept = gate("other", 0.8, 0.8, 300, -0.01, 0.01)
    verdict = verdict_of(contest(candidate=0.8, base=0.6), probe=[kept, lost])
    assert verdict.verdict == "inconclusive"
    assert "forgets too much" in verdict.reasons[0]
    assert "a loss of 0.100 (0.050 to 0.150) is more than the 0.01 allowed" in verdict.reasons[0]
    assert sum("probe general" in reason for reason in verdict.reasons) == 1
    assert any("probe other" in reason for reason in verdict.reasons)


def test_probes_that_do_not_count_are_named_only_where_none_counts():
    made = contest(candidate=0.8, base=0.6)
    kept, unread = gate("one", 0.8, 0.8, 300, 0, 0), gate("two", 0.1, 0.0, 300, 0.05, 0.15)
    shipped = verdict_of(made, probe=[kept, unread])
    assert shipped.verdict == "ship"
    assert not any("probe two" in reason for reason in shipped.reasons)
    alone = verdict_of(made, probe=[unread])
    assert alone.verdict == "ship"
    assert any("probe two does not count" in reason for reason in alone.reasons)


UNREADABLE = Flag("unknown-tokens", "the model cannot read the Chinese text: 60 % of its tokens "
                  "are unknown", blocks=True, language="zh")  # fmt: skip


def test_a_flagged_language_is_left_out_when_others_remain():
    made, groups = contest(candidate=0.8, base=0.6)
    candidate = np.array(list(made.candidate.per_query["ndcg@10"].values()))
    candidate[:40] = 0.0  # Chinese: useless
    bad = system("tuned", candidate)
    made = Contest(bad, made.base, made.bm25, made.hybrid, made.base_hybrid, made.rival)
    languages = {query: "zh" if query < "q0040" else "en" for query in groups}
    verdict = compare(made, groups=groups, languages=languages, flags=[UNREADABLE])
    assert verdict.verdict == "ship"
    assert verdict.differences["base"].queries == 80
    assert "Do not use tuned for Chinese text" in verdict.reasons[1]
    assert "other 80 queries" in verdict.reasons[1]


def test_when_all_queries_are_in_a_flagged_language_they_decide_but_do_not_ship():
    made, groups = contest(candidate=0.8, base=0.6)
    languages = dict.fromkeys(groups, "zh")
    verdict = compare(made, groups=groups, languages=languages, flags=[UNREADABLE])
    assert verdict.verdict == "inconclusive"
    assert "cannot read the Chinese text" in verdict.reasons[0]
    worse, groups = contest(candidate=0.1, base=0.07, bm25=0.8, hybrid=0.5, base_hybrid=0.5)
    verdict = compare(worse, groups=groups, languages=languages, flags=[UNREADABLE])
    assert verdict.verdict == "do-not-ship"
    assert "BM25 wins" in verdict.reasons[0]
    assert "cannot read the Chinese text" in verdict.reasons[1]


def test_figures_of_other_data_or_other_queries_are_not_compared():
    groups = {f"q{i:04}": f"g{i}" for i in range(5)}
    one, other = system("a", np.ones(5)), system("b", np.ones(5), data="other")
    with pytest.raises(IntegrityError, match="a and b were measured on different data"):
        difference(one, other, groups, SETTINGS)
    with pytest.raises(IntegrityError, match="1 queries were measured for only one"):
        difference(one, system("b", np.ones(4)), groups, SETTINGS)
    with pytest.raises(IntegrityError, match="ndcg@5 was not measured"):
        difference(one, one, groups, EvaluationSettings(metric="ndcg@5"))


def test_holm_counts_each_opponent_once():
    made, groups = contest(candidate=0.63, base=0.6, bm25=0.6)
    two = compare(made, groups=groups)
    api = system("api", np.array(list(made.bm25.per_query["ndcg@10"].values())) - 0.001, "api")
    three = compare(
        Contest(made.candidate, made.base, made.bm25, made.hybrid, made.base_hybrid, api),
        groups=groups,
    )
    base = two.differences["base"]
    assert base.p_holm == pytest.approx(min(1, max(2 * base.p, two.differences["bm25"].p)), rel=1)
    assert three.differences["base"].p_holm >= base.p_holm


def test_dev_chooses_candidate_rival_and_weight_and_test_is_scored_once(small):
    evaluator = Evaluator(small)
    good, poor = parse_system("good=hashing:256"), parse_system("poor=hashing:2")
    choice = choose(evaluator, [poor, good], poor)
    assert choice.on == "dev"
    assert choice.candidate == good
    assert choice.fusion in CHOICES["scores"]
    assert choice.rival.label in ("bm25", "poor + bm25")
    made = hold_contest(evaluator, choice, poor)
    assert made.hybrid.name == "good + bm25"
    verdict = compare(made, groups=evaluator.groups("test"))
    assert verdict.verdict == "inconclusive"  # four queries
    assert [scores.name for scores in made.systems[:3]] == ["good", "poor", "bm25"]


def test_without_dev_the_first_candidate_meets_bm25(small):
    evaluator = Evaluator(dataclasses.replace(small, qrels={"test": small.qrels["test"]}))
    candidates = [parse_system("a=hashing"), parse_system("b=hashing:64")]
    choice = choose(evaluator, candidates, candidates[1])
    assert (choice.on, choice.candidate.label, choice.rival.label) == ("default", "a", "bm25")
    assert choice.fusion == Fusion()


@pytest.mark.parametrize("groups", [20, 60])
def test_equal_models_are_rarely_shipped_and_planted_gains_mostly_are(groups: int):
    def shipped(gain: float) -> float:
        count = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            difficulty = rng.uniform(0.2, 0.8, groups * 4)
            base, tuned, lexical, hybrid, base_hybrid = (
                np.clip(difficulty + rng.normal(0, 0.15, groups * 4), 0, 1) for _ in range(5)
            )
            made = Contest(
                system("tuned", tuned + gain), system("base", base), system("bm25", lexical),
                system("tuned + bm25", hybrid), system("base + bm25", base_hybrid),
                system("bm25", lexical),
            )  # fmt: skip
            by_group = {f"q{i:04}": f"g{i // 4}" for i in range(groups * 4)}
            count += compare(made, groups=by_group).verdict in ("ship", "ship-hybrid")
        return count / 60

    assert shipped(0.0) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 60)
    assert shipped(0.1) >= 0.8
