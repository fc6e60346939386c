"""The rows of a data set as a loss wants them."""

import logging

import pytest

from embedtune.errors import NothingUsable
from embedtune.records import Pair
from embedtune.training.examples import from_labelled, from_pairs, from_scored
from embedtune.training.shapes import (
    as_classes,
    one_negative_a_row,
    same_number_of_negatives,
    with_two_a_class,
    without_negatives,
)

PAIRS = [
    Pair("q0", "a", "fee?", "the fee", (("x", "mud"), ("b", "the charge"), ("y", "tow"))),
    Pair("q1", "b", "charge?", "the charge", (("c", "夜班的费用"),)),
    Pair("q2", "c", "夜班费用", "夜班的费用"),
    Pair("q3", "d", "tow?", "a tow", (("x", "mud"), ("z", "winter"))),
]
EXCLUDED = {"q0": frozenset({"a", "b"})}  # the charge is the fee


def excluded(query: str) -> frozenset[str]:
    return EXCLUDED.get(query, frozenset())


def test_a_row_for_each_negative_that_is_one(caplog):
    made = one_negative_a_row(from_pairs("data", PAIRS), excluded)
    assert list(zip(*made.columns.values(), strict=True)) == [
        ("fee?", "the fee", "mud"),
        ("fee?", "the fee", "tow"),
        ("charge?", "the charge", "夜班的费用"),
        ("tow?", "a tow", "mud"),
        ("tow?", "a tow", "winter"),
    ]
    assert [pair.query for pair in made.pairs] == ["q0", "q0", "q1", "q3", "q3"]
    assert caplog.messages == [
        "data: 1 of 4 rows have no negative that does not answer them and are left out"
    ]


def test_as_many_negatives_in_each_row_as_keeps_most(caplog):
    made = same_number_of_negatives(from_pairs("data", PAIRS), excluded)
    # two rows with two negatives (4) or three with one (3)
    assert list(zip(*made.columns.values(), strict=True)) == [
        ("fee?", "the fee", "mud", "tow"),
        ("tow?", "a tow", "mud", "winter"),
    ]
    assert caplog.messages == ["data: 2 of 4 rows have fewer than 2 negatives and are left out"]


@pytest.mark.parametrize("shape", [one_negative_a_row, same_number_of_negatives])
def test_no_negatives_at_all_are_told(shape):
    pairs = [Pair("q0", "a", "fee?", "the fee", (("b", "the charge"),)), PAIRS[2]]
    with pytest.raises(NothingUsable, match="data: all 2 rows have"):
        shape(from_pairs("data", pairs), excluded)


def test_anchor_and_positive_alone():
    made = without_negatives(from_pairs("data", PAIRS), excluded)
    assert made.format == "pairs"
    assert list(made.columns) == ["anchor", "positive"]
    assert not any(pair.negatives for pair in made.pairs)


@pytest.mark.parametrize(
    ("scores", "classes"),
    [((0.0, 1.0, 1.0), (0, 1, 1)), ((1.0, 1.0), (1, 1)), ((0.5, 0.0, 1.0, 0.5), (1, 0, 2, 1))],
)
def test_scores_become_classes(scores, classes):
    made = as_classes(from_scored("data", [("a", "b", score) for score in scores]), excluded)
    assert made.labels == classes
    assert all(type(label) is int for label in made.labels)


def test_texts_alone_in_their_class_are_left_out(caplog):
    caplog.set_level(logging.WARNING)
    rows = [("mud", "tow"), ("fee", "money"), ("price", "money"), ("snow", "tow"), ("pad", "arm")]
    made = with_two_a_class(from_labelled("data", rows), excluded)
    assert made.columns == {"text": ("mud", "fee", "price", "snow")}
    assert made.labels == (2, 1, 1, 2)
    assert caplog.messages == ["data: 1 of 5 rows are alone in their class and are left out"]


def test_one_class_is_not_enough():
    rows = [("mud", "tow"), ("snow", "tow"), ("fee", "money")]
    with pytest.raises(NothingUsable, match=r"data: .*2 classes with 2 texts"):
        with_two_a_class(from_labelled("data", rows), excluded)
