"""Rows of a further data set beside dev and test of the main one: refused, left out, or kept."""

import pytest

from embedtune.datasets import held_out as module
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.held_out import held_out, leave_out_held
from embedtune.datasets.judging import judge_labelled, judge_pairs, judge_scored
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.records import Pair

ASKED = "How much is the fee for a tow from the harbour at night"
ANSWER = "The tow from the harbour costs ninety crowns by day and one hundred and ten at night."
DEV_ASKED = "夜班司机的电池要在哪里充电"
DEV_ANSWER = "夜班司机的电池在港口东边的车站充电，每天晚上九点以后开放，费用由公司支付。"
OTHER = PairRow("When does the ferry leave", "The ferry leaves Iona at seven, and again at noon.")
MAIN = {
    "train": [PairRow("Who repairs the winch", "The winch is repaired by the yard in Oban.")],
    "dev": [PairRow(DEV_ASKED, DEV_ANSWER)],
    "test": [PairRow(ASKED, ANSWER)],
}


@pytest.fixture
def held():
    return held_out(judge_pairs("ferries", MAIN, True).data, MAIN)


def test_the_same_pair_is_refused_with_its_share_and_an_example(held):
    copied = PairRow(ASKED.upper(), f"  {ANSWER}")
    with pytest.raises(IntegrityError) as caught:
        leave_out_held([OTHER, copied, PairRow(DEV_ASKED, DEV_ANSWER)], held, "beside")
    said = str(caught.value)
    assert said.startswith("beside: 2 of 3 rows (66.7%) stand in test and dev of ferries")
    assert "how much is the fee for a tow" in said
    assert "(test)" in said


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PairRow(ASKED, "Ask the harbour master, who knows all of the prices."), "1 by a question"),
        (PairRow(f"{ASKED}?", "Ask the harbour master."), "1 by a question"),
        (PairRow("How much is a fee for the tow from the harbour at night", "Ask."), "1 by a que"),
        (PairRow("What does it cost", ANSWER), "1 by a passage"),
        (PairRow("What does it cost", ANSWER.replace("ninety", "80")), "1 by a passage"),
        (PairRow("哪里充电", DEV_ANSWER.replace("九点", "十点")), "1 by a passage"),
        (Pair("q0", "d0", "What does it cost", ANSWER), "1 by a passage"),
        (ScoredRow("Who knows", ANSWER, 0.1), "1 by a passage"),
        (ScoredRow(ANSWER, "Who knows", 0.9), "1 by a passage"),  # it has no sides
        (LabelledRow(ASKED, "fee"), "1 by a question"),
        (LabelledRow(ANSWER, "fee"), "1 by a passage"),
    ],
)
def test_a_row_too_close_to_dev_or_test_is_left_out(held, row, reason):
    unlike = {
        PairRow: OTHER,
        Pair: Pair("q1", "d1", OTHER.anchor, OTHER.positive),
        ScoredRow: ScoredRow(OTHER.anchor, OTHER.positive, 1.0),
        LabelledRow: LabelledRow(OTHER.positive, "times"),
    }[type(row)]
    kept, note = leave_out_held([unlike, row], held, "beside")
    assert kept == [unlike]
    assert note.startswith("beside: 1 of 2 rows are left out of training, too close to dev or test")
    assert reason in note
    with pytest.raises(NothingUsable, match=r"1 of 1 rows .* no row is left to train on"):
        leave_out_held([row], held, "beside")


@pytest.mark.parametrize(
    "row",
    [
        MAIN["train"][0],  # train may be learnt twice
        PairRow("Which price", "None of that.", (ANSWER,)),  # a negative teaches no answer
        PairRow(ANSWER, "Read this passage about a tow."),  # asks a passage; no question is that
    ],
)
def test_other_rows_are_kept_without_a_word(held, row):
    assert leave_out_held([OTHER, row], held, "beside") == ([OTHER, row], "")


def test_scored_pairs_are_compared_in_either_order():
    parts = {
        "train": [ScoredRow("A man walks a dog on the beach", "Someone walks there", 0.7)],
        "dev": [ScoredRow("A child is playing in the deep snow", "Nobody swims in winter", 0.0)],
        "test": [ScoredRow("Two cats are asleep on the red sofa", "Cats sleep on a sofa", 0.9)],
    }
    held = held_out(judge_scored("sts", parts, True, 0.5).data, parts)
    with pytest.raises(IntegrityError, match=r"1 of 1 rows .* stand in test of sts"):
        leave_out_held([ScoredRow("Cats sleep on a sofa", parts["test"][0].sentence1, 0.2)],
                       held, "beside")  # fmt: skip
    with pytest.raises(IntegrityError, match="stand in dev of sts"):  # irrelevant, yet judged
        leave_out_held(parts["dev"], held, "beside")
    with pytest.raises(NothingUsable):
        leave_out_held([ScoredRow("Nobody swims in winter", "x y z", 0.2)], held, "beside")


def test_labelled_texts_are_refused_with_their_label_and_left_out_with_another():
    parts = {
        "train": [LabelledRow("My card has not arrived yet", "card"),
                  LabelledRow("How do I change my pin code", "pin")],
        "test": [LabelledRow("Where is the new card that I ordered", "card")],
    }  # fmt: skip
    for examples in (parts, {"train": parts["train"]}):  # a run keeps no rows of test
        held = held_out(judge_labelled("bank", parts, True).data, examples)
        with pytest.raises(IntegrityError, match="the same text with the same label"):
            leave_out_held(parts["test"], held, "beside")
        rows = [
            LabelledRow("Where is the new card that I ordered", "order"),
            LabelledRow("Where is the new card that I have ordered", "card"),
            LabelledRow("Which limits are there abroad", "limit"),
        ]
        kept, note = leave_out_held(rows, held, "beside")
        assert kept == rows[2:]
        assert "2 by a passage or text" in note
        assert len(leave_out_held([OTHER, *parts["train"]][:1], held, "beside")[0]) == 1


def test_texts_are_compared_in_batches_that_find_the_same(held, monkeypatch):
    rows = [PairRow(f"question {n} of many others", f"{n} {OTHER.positive}") for n in range(40)]
    rows[7] = PairRow("What does it cost", ANSWER.replace("ninety", "80"))
    rows[31] = PairRow("How much is a fee for the tow from the harbour at night", "Ask.")
    at_once = leave_out_held(rows, held, "beside")
    monkeypatch.setattr(module, "BATCH", 3)
    assert leave_out_held(rows, held, "beside") == at_once
    assert len(at_once[0]) == 38
