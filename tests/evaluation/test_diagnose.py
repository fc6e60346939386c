"""Causes: each is named by its own sign and by no other, and a sound training by none."""

from dataclasses import replace

import pytest

from embedtune.evaluation.diagnose import (
    CODES,
    Gain,
    Signs,
    Suspects,
    Vectors,
    diagnose,
    gain_of,
    looks_right,
)

SOUND = Signs(
    train=Gain(0.50, 0.62, 0.01, 200),
    dev=Gain(0.50, 0.56, 0.01, 100),
    test=Gain(0.50, 0.55, 0.01, 100),
    history=((0, 0.50), (10, 0.54), (20, 0.56)),
    curve=((0.0, 0.50), (0.4, 0.54), (1.0, 0.56)),
    moved=0.03,
    steps=400,  # a pace of 0.0015
    negatives=Suspects(400, 0.05),
    in_batch=Suspects(4000, 0.01, per_batch=0.3),
    poolings={"cls": Gain(0.56, 0.50, 0.01, 100)},
    prompts={"'query: ' 'passage: '": Gain(0.56, 0.55, 0.01, 100)},
    unknown={"query": 0.0, "document": 0.01},
    unread={"query": 0.0, "document": 0.05},
    vectors=(Vectors(0.10, 40.0), Vectors(0.15, 38.0)),
    gap={"length in content words": 0.1},
    chance=0.02,
    best_untuned=0.60,
)
FAULTS = {
    "test-set": {"best_untuned": 0.03, "chance": 0.02},  # 1.5 times chance
    "unknown-tokens": {"unknown": {"query": 0.1, "document": 0.5}},
    "truncation": {"unread": {"query": 0.0, "document": 0.7}},
    "pooling": {"poolings": {"cls": Gain(0.30, 0.55, 0.02, 100)}},
    "prompts": {"prompts": {"'' ''": Gain(0.45, 0.55, 0.02, 100)}},
    "false-negatives": {"negatives": Suspects(400, 0.8)},
    "learning-rate": {
        "moved": 0.4,  # a pace of 0.02
        "train": Gain(0.5, 0.1, 0.02, 200),
        "dev": Gain(0.5, 0.1, 0.02, 100),
        "history": ((0, 0.5), (10, 0.05), (20, 0.1)),
        "curve": ((0.0, 0.5), (0.4, 0.45), (1.0, 0.1)),
    },
    "epochs": {
        "train": Gain(0.5, 0.99, 0.02, 200),
        "dev": Gain(0.5, 0.46, 0.02, 100),
        "history": ((0, 0.5), (10, 0.56), (20, 0.46)),
        "curve": (),
    },
    "collapse": {"vectors": (Vectors(0.1, 40.0), Vectors(0.8, 35.0))},  # limit 0.1 + 0.9 / 2
    "query-gap": {"gap": {"length in content words": 0.9, "share of full questions": 0.2}},
    "ceiling": {"test": Gain(0.96, 0.955, 0.005, 100)},
}


def test_a_sound_training_has_no_cause_and_all_are_measured():
    found = diagnose(SOUND)
    assert found.named == ()
    assert found.unmeasured == ()
    assert {cause.code for cause in found.causes} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_each_fault_alone_is_named_alone(code):
    found = diagnose(replace(SOUND, **FAULTS[code]))
    assert [cause.code for cause in found.named] == [code]
    assert found.causes[0].code == code


def test_what_was_not_measured_is_said_and_not_ruled_out():
    found = diagnose(Signs(gap={"length in content words": 0.6}))
    assert [cause.code for cause in found.named] == ["query-gap"]
    assert set(found.unmeasured) == set(CODES) - {"query-gap"}


def test_a_lost_score_without_far_moved_weights_is_no_matter_of_the_learning_rate():
    faults = {**FAULTS["learning-rate"], "moved": 0.05}
    assert diagnose(replace(SOUND, **faults)).named == ()


def test_where_the_steps_are_not_known_the_whole_way_counts():
    faults = {**FAULTS["learning-rate"], "steps": None}
    assert [cause.code for cause in diagnose(replace(SOUND, **faults)).named] == ["learning-rate"]
    assert diagnose(replace(SOUND, **faults | {"moved": 0.1})).named == ()


def test_a_falling_dev_score_is_a_matter_of_epochs_only_where_train_was_learnt():
    for train, dev in ((0.52, 0.46), (0.30, 0.10)):  # 0.06 more than dev; 0.20, but both are lost
        faults = {"train": Gain(0.5, train, 0.02, 200), "dev": Gain(0.5, dev, 0.02, 100)}
        assert diagnose(replace(SOUND, **FAULTS["epochs"] | faults)).named == ()


def test_a_better_pooling_within_the_noise_is_none():
    # twice the standard error is 0.08
    poolings = {"cls": Gain(0.50, 0.57, 0.04, 20)}
    found = diagnose(replace(SOUND, poolings=poolings))
    [pooling] = [cause for cause in found.causes if cause.code == "pooling"]
    assert not pooling.holds
    assert (pooling.limit, pooling.numbers["other"]) == (0.08, "cls")


def test_a_collapse_comes_after_the_learning_rate_that_made_it():
    found = diagnose(replace(SOUND, **FAULTS["learning-rate"], **FAULTS["collapse"]))
    assert [(cause.code, cause.after) for cause in found.named] == [
        ("learning-rate", ""),
        ("collapse", "learning-rate"),
    ]


def test_a_broken_test_set_comes_before_all_that_was_measured_on_it():
    faults = FAULTS["test-set"] | FAULTS["query-gap"] | FAULTS["truncation"]
    found = diagnose(replace(SOUND, **faults))
    assert [cause.code for cause in found.named] == ["test-set", "truncation", "query-gap"]


def test_a_strong_base_that_still_gained_was_not_at_its_ceiling():
    assert diagnose(replace(SOUND, test=Gain(0.93, 0.96, 0.005, 100))).named == ()


def test_a_gain_that_may_be_chance_shows_no_room_above_a_strong_base():
    (cause,) = diagnose(replace(SOUND, test=Gain(0.95, 0.965, 0.01, 100))).named
    assert cause.code == "ceiling"


def test_gain_by_hand():
    gain = gain_of({"a": 0.0, "b": 0.5, "c": 1.0, "x": 9.0}, {"a": 0.3, "b": 0.5, "c": 1.0})
    # differences 0.3, 0, 0: mean 0.1, variance (0.04 + 0.01 + 0.01) / 2 = 0.03
    assert gain.queries == 3
    assert gain.mean == pytest.approx(0.1)
    assert gain.error == pytest.approx((0.03 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("negative", "alike", "right"),
    [
        ((0.80, 9.6), 0.5, True),  # both at 95 % or more of 0.8 and 10
        ((0.80, 9.4), 0.5, False),  # words say no
        ((0.75, 9.6), 0.5, False),  # meaning says no: 0.95 * 0.8 is 0.76
        ((0.10, 0.0), 0.96, True),  # nearly the answer itself
    ],
)
def test_a_negative_looks_right_to_both_judges_or_is_the_answer(negative, alike, right):
    assert looks_right((0.8, 10.0), negative, alike) is right


def test_without_a_word_in_common_bm25_confirms_nothing():
    assert not looks_right((0.5, 0.0), (0.9, 0.0), 0.3)
