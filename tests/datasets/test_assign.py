"""Which group goes where: parts filled in order, real questions before written ones."""

from collections import Counter

import pytest

from embedtune.datasets.assign import SplitSettings, _for_dev, assign, fill_parts, share_of
from embedtune.records import Query

AUTO = SplitSettings()
NAMES = ("train", "dev", "test")


def test_parts_take_groups_in_order_while_that_brings_them_nearer_to_their_size():
    # 100 queries; test wants 30: a (20) fits, b (30) would be 50, further off, c (10) fits.
    # dev wants 15: b (30) is as near as nothing and is taken, since half of it just fits
    sizes = {"a": 20, "b": 30, "c": 10, "d": 40}
    wanted = {"test": 0.3, "dev": 0.15}
    assert fill_parts({"en": list("abcd")}, sizes, wanted) == {
        "a": "test", "b": "dev", "c": "test", "d": "train"}  # fmt: skip


def test_test_leaves_groups_to_dev():
    sizes = dict.fromkeys("abcdefghij", 10)
    parts = fill_parts({"en": list("abcdefghij")}, sizes, {"test": 0.2, "dev": 0.2}, {"b", "c"})
    assert parts["a"] == parts["d"] == "test"
    assert parts["b"] == parts["c"] == "dev"
    assert Counter(parts.values()) == {"test": 2, "dev": 2, "train": 6}


@pytest.mark.parametrize(
    ("real", "kept"),
    [
        # 2, 4, 6 seen: the third group brings dev to 2 of 6; of 12 the sixth to 4
        ([2, 2, 2, 2, 2, 2, 2], {2, 5}),
        ([1], set()),
        ([3, 1, 1, 1, 1, 1], {1, 3}),  # 1 of 4; 2 of 5 is too much, 2 of 6 is not; 3 of 8 is
        ([10, 0, 5, 1], {2}),  # 5 of 15; 6 of 16 is too much; a group without any is nobody's
        ([40, 60], set()),  # 60 of 100 is more than a third
    ],
)
def test_dev_gets_a_third_of_the_real_queries_and_never_more(real, kept):
    groups = [f"g{number}" for number in range(len(real))]
    counts = {group: count for group, count in zip(groups, real, strict=True) if count}
    assert _for_dev([groups], counts) == {f"g{number}" for number in kept}


def queries_of(groups, real=(), shown=()):
    """Ten queries a group; the first ones of some groups are real, or were shown to a model."""
    made = {}
    for group in groups:
        for number in range(10):
            origin = "user" if group in real and number < real[group] else "llm"
            flags = ("example",) if group in shown and number < real.get(group, 0) else ()
            made[f"{group}-{number}"] = Query(f"{group}-{number}", "?", "en", origin=origin,
                                              flags=flags)  # fmt: skip
    return {query: query.partition("-")[0] for query in made}, made


def real_by_part(parts, queries):
    return Counter(parts[query] for query in parts if queries[query].origin == "user")


def test_real_queries_are_divided_two_to_one_between_test_and_dev():
    groups = [f"g{number:02d}" for number in range(60)]
    of_query, queries = queries_of(groups, dict.fromkeys(groups[:15], 4))
    parts = assign(of_query, queries, AUTO, NAMES, [])
    # 60 real ones in groups of 4: every third group is dev's, 5 of 15
    assert real_by_part(parts, queries) == {"test": 40, "dev": 20}


def test_parts_are_raised_for_real_queries_as_far_as_they_may():
    # 600 queries, 2 real ones a group: test begins at 100 queries (10 groups, 20 real ones), and
    # dev at 60; at most 30 % are 18 groups of test and 15 % are 9 of dev
    groups = [f"g{number:02d}" for number in range(60)]
    of_query, queries = queries_of(groups, dict.fromkeys(groups, 2))
    notes = []
    parts = assign(of_query, queries, AUTO, NAMES, notes)
    sizes = Counter(parts.values())
    assert sizes == {"test": 180, "dev": 90, "train": 330}
    assert [note.split(" of ")[0] for note in notes] == [
        "test raised from 17% to 30%",
        "dev raised from 10% to 15%",
    ]


def test_shares_that_are_given_are_not_raised_for_real_queries():
    groups = [f"g{number:02d}" for number in range(60)]
    of_query, queries = queries_of(groups, dict.fromkeys(groups, 2))
    options = SplitSettings(train=0.8, dev=0.1, test=0.1)
    notes = []
    sizes = Counter(assign(of_query, queries, options, NAMES, notes).values())
    assert sizes == {"test": 60, "dev": 60, "train": 480}
    assert notes == []


def test_groups_whose_real_queries_were_shown_stay_in_train_while_others_will_do():
    groups = [f"g{number:02d}" for number in range(60)]
    shown = set(groups[::6])
    of_query, queries = queries_of(groups, dict.fromkeys(shown, 5), shown)
    parts = assign(of_query, queries, AUTO, NAMES, [])
    assert {parts[f"{group}-0"] for group in shown} == {"train"}


def test_where_all_queries_are_real_none_goes_first():
    groups = [f"g{number:02d}" for number in range(60)]
    of_query, written = queries_of(groups)
    _, real = queries_of(groups, dict.fromkeys(groups, 10))
    assert assign(of_query, real, AUTO, NAMES, []) == assign(of_query, written, AUTO, NAMES, [])


@pytest.mark.parametrize(
    ("total", "test", "dev"),
    [(100, 0.30, 0.15), (500, 0.20, 0.10), (2000, 0.10, 0.10), (0, 0.10, 0.10)],
)
def test_shares_follow_the_number_of_queries(total, test, dev):
    assert share_of("test", total, AUTO) == pytest.approx(test)
    assert share_of("dev", total, AUTO) == pytest.approx(dev)
