"""Leaks in data whose splits share their passages by design: labelled texts."""

from dataclasses import replace
from pathlib import Path

import pytest

from embedtune.datasets.formats import LabelledRow
from embedtune.datasets.given import check_given_splits, complete_splits
from embedtune.datasets.judging import judge_labelled
from embedtune.datasets.source import read_source, refuse_copies
from embedtune.datasets.split import SplitSettings
from embedtune.errors import IntegrityError, NothingUsable

SHARED = Path(__file__).resolve().parents[3] / "shared"
TRAIN = [
    "My card has not arrived yet",
    "Where is my new card now",
    "银行卡还没有寄到我家里来",
    "How do I change my pin code",
    "What is the daily withdrawal limit",
    "怎样修改取款密码呢请问",
    "How much can I take out a day",
]
LABELS = ["card", "card", "card", "pin", "limit", "pin", "limit"]


def labelled(dev=(), test=(), train=TRAIN):
    rows = {
        "train": [LabelledRow(*row) for row in zip(train, LABELS, strict=False)],
        "dev": [LabelledRow(*row) for row in dev or [("The limit for a day is what", "limit")]],
        "test": [LabelledRow(*row) for row in test or [("Which numbers may I choose", "pin")]],
    }
    return judge_labelled("bank", rows, True).data


def texts(data, queries):
    index = {query.id: query.text for query in data.queries}
    return [index[query] for query in queries]


def test_sharing_passages_is_no_leak_where_it_is_by_design():
    data = labelled()
    report = check_given_splits(data, [])
    assert report.left_out == report.affected == report.notes == ()
    other = check_given_splits(replace(data, shared_passages=False), [])
    assert other.affected  # the same judgements, in data that is to share none


def test_a_nearly_equal_text_in_another_split_leaves_train_and_flags_test():
    data = labelled(
        dev=[("银行卡还没有寄到我的家里来", "card")],
        test=[("My card hasn't arrived yet", "card"), ("Nothing like the others", "pin")],
    )
    report = check_given_splits(data, [])
    assert texts(data, report.left_out) == [TRAIN[0], TRAIN[2]]
    assert texts(data, report.affected) == ["My card hasn't arrived yet"]
    assert report.pairs == 2
    assert report.notes[0].startswith("2 pairs of texts in different splits are near-duplicates; 2")
    with pytest.raises(IntegrityError, match="2 pairs of texts"):
        check_given_splits(data, [], strict=True)


def test_dev_and_test_alike_leave_train_alone():
    data = labelled(
        dev=[("The limit for one day is what", "limit")],
        test=[("The limit for a day is what", "limit")],
    )
    report = check_given_splits(data, [])
    assert (report.left_out, report.affected, report.pairs) == ((), (), 1)


def test_near_duplicates_within_one_split_are_no_leak():
    data = labelled(train=[TRAIN[0], TRAIN[0] + "!", *TRAIN[2:]])
    assert check_given_splits(data, []).pairs == 0


def test_the_same_text_with_the_same_label_in_two_splits_stops_and_is_listed():
    data = labelled(test=[("MY CARD has  not arrived yet", "card"), ("No such text", "pin")])
    with pytest.raises(IntegrityError) as caught:
        check_given_splits(data, [])
    assert caught.value.exit_code == 7
    assert "1 of 10 texts (10.0%) stand in two splits" in str(caught.value)
    assert "my card has not arrived yet (train and test)" in str(caught.value)


def test_the_same_text_with_another_label_is_a_near_duplicate():
    data = labelled(test=[(TRAIN[0], "limit")])
    report = check_given_splits(data, [])
    assert len(report.left_out) == len(report.affected) == 1


def test_labelled_data_with_all_splits_is_complete():
    data = labelled()
    assert complete_splits(data, [], SplitSettings()).data is data
    part = replace(data, qrels={"train": data.qrels["train"]})
    with pytest.raises(NothingUsable, match="bank: no dev and no test split, and too few texts"):
        complete_splits(part, [], SplitSettings())


@pytest.mark.shared
def test_leaks_of_real_labelled_texts_are_counted():
    source = read_source(SHARED / "data" / "banking77")
    refuse_copies(source)
    report = check_given_splits(source.data, [])
    split_of = {query: name for name, part in source.data.qrels.items() for query in part}
    assert {split_of[query] for query in report.left_out} == {"train"}
    assert {split_of[query] for query in report.affected} == {"test"}
    assert 1000 < report.pairs < 5000
