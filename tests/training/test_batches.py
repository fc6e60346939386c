"""The batches: every row comes, in an order given by seed and epoch alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.errors import NothingUsable
from embedtune.records import Pair
from embedtune.training.batches import (
    batches,
    class_batches,
    class_steps,
    mixed_batches,
    sharing_of,
    shuffled_batches,
    steps_per_epoch,
    together_of,
)
from embedtune.training.neighbours import nearest_pairs


@pytest.mark.parametrize("avoid", [True, False])
@pytest.mark.parametrize(("count", "size"), [(2, 2), (7, 3), (33, 32), (64, 32), (10, 4)])
def test_every_pair_once_and_no_batch_of_one(count, size, avoid):
    pairs = [Pair(f"q{i}", f"c{i // 3}", f"t{i}", f"p{i // 3}") for i in range(count)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    made = list(batches(pairs, excluded, size=size, seed=1, epoch=0, avoid_conflicts=avoid))
    assert sorted(index for batch in made for index in batch) == list(range(count))
    assert all(len(batch) > 1 for batch in made)
    assert len(made) == steps_per_epoch(count, size)


def test_conflicting_pairs_are_kept_apart():
    pairs = [Pair(f"q{i}", f"c{i // 2}", f"t{i}", f"p{i // 2}") for i in range(64)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    for batch in batches(pairs, excluded, size=8, seed=3, epoch=0):
        chunks = [pairs[index].chunk for index in batch]
        assert len(set(chunks)) == len(chunks)


def questions_on(passages: int, each: int):
    """Pairs of ``each`` questions on a passage, and what is excluded for each."""
    pairs = [
        Pair(f"q{n}", f"c{n % passages}", f"t{n}", f"p{n % passages}")
        for n in range(passages * each)
    ]
    return pairs, {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize(
    ("each", "shared", "size"), [(4, 4, 96), (4, 2, 48), (6, 4, 96), (3, 4, 30)]
)
def test_pairs_of_a_passage_share_a_batch(each, shared, size, near):
    pairs, excluded = questions_on(100, each)
    beside = [[(n + 1 + step) % 100 for step in range(8)] for n in range(len(pairs))] * near
    seen = []
    for epoch in range(3):
        how = {"size": size, "seed": 5, "epoch": epoch, "near": beside}
        made = list(batches(pairs, excluded, shared=shared, **how))
        assert sorted(index for batch in made for index in batch) == list(range(len(pairs)))
        assert len(made) == steps_per_epoch(len(pairs), size)
        encoded, apart = (
            sum(len({pairs[index].chunk for index in batch}) for batch in some)
            for some in (made, batches(pairs, excluded, **how))
        )
        # a group that a full batch divides is encoded twice; the last batches take what is left
        assert encoded <= 100 * -(-each // shared) + len(made)
        assert encoded < 0.6 * apart
        full = [Counter(pairs[index].chunk for index in batch) for batch in made[:-2]]
        assert max(max(counts.values()) for counts in full) == min(each, shared)
        seen.append(made)
    assert seen[0] != seen[1]


def test_a_batch_keeps_room_for_many_passages_where_they_are_shared():
    assert [sharing_of(size) for size in (2, 32, 47, 48, 96, 960)] == [1, 1, 1, 2, 4, 40]
    for size in (48, 96):
        pairs, excluded = questions_on(60, 8)
        for batch in batches(pairs, excluded, size=size, seed=1, epoch=0, shared=sharing_of(size)):
            assert len({pairs[index].chunk for index in batch}) >= 24


@pytest.mark.parametrize("told", [True, False])
def test_near_pairs_meet_unless_one_answers_the_other(told):
    # topics of four queries; in each, the first two have the same passage
    pairs = [Pair(f"q{i}", f"c{max(i, i // 4 * 4 + 1)}", "", "") for i in range(288)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    near = [[j for j in range(288) if j != i and j // 4 == i // 4] for i in range(288)] * told
    met = conflicts = 0
    for epoch in range(10):
        made = list(batches(pairs, excluded, size=48, seed=1, epoch=epoch, near=near))
        assert sorted(index for batch in made for index in batch) == list(range(288))
        of = {index: place for place, batch in enumerate(made) for index in batch}
        conflicts += sum(of[i] == of[i + 1] for i in range(0, 288, 4))
        met += sum(of[i + 2] == of[i + 3] for i in range(0, 288, 4))
    # by chance one of six meets; groups at the end of a batch are divided, and the last batch
    # has to take what is left
    assert met > 0.75 * 720 if told else met < 0.3 * 720
    assert conflicts < 0.05 * 720


def test_in_a_small_batch_near_pairs_meet_by_twos():
    assert [together_of(size) for size in (2, 8, 32, 36, 48, 96)] == [2, 2, 2, 3, 4, 4]
    pairs = [Pair(f"q{i}", f"c{i}", "", "") for i in range(96)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    near = [[j for j in range(96) if j != i and j // 8 == i // 8] for i in range(96)]
    for size, together in ((16, 2), (48, 4)):
        for batch in batches(pairs, excluded, size=size, seed=1, epoch=0, near=near):
            groups = [batch[at : at + together] for at in range(0, size, together)]
            assert all(len({index // 8 for index in group}) == 1 for group in groups)
            assert len({tuple(index // 8 for index in group) for group in groups}) > 2


def by_words(rows):
    """The number of each word of ``rows`` in a text; a colon ends what is looked at."""
    words = sorted({word for text in rows for word in text.split()})

    def embed(texts, role):
        parts = [text.split(":")[0].split() for text in texts]
        return np.array([[float(part.count(word)) for word in words] for part in parts], np.float32)

    return embed


def test_the_nearest_are_by_query_and_passage_of_both():
    rows = ["cat feed", "dog walk", "cat nap", "car wash", "dog food", "cat feed"]
    pairs = [Pair(f"q{n}", f"c{n}", text, f"{text}: it") for n, text in enumerate(rows)]
    answers = {pair.query: frozenset({pair.chunk}) for pair in pairs}
    answers["q5"] = answers["q0"] = frozenset({"c0", "c5"})
    found = nearest_pairs(pairs, answers.__getitem__, by_words(rows))
    assert [own[0] for own in found] == [2, 4, 0, 0, 1, 2]
    assert sorted(found[0]) == [1, 2, 3, 4]  # what answers it too is no neighbour
    assert sorted(found[1]) == [0, 2, 3, 4, 5]


def test_where_neighbours_answer_too_batches_are_drawn_at_random(caplog):
    # rows of paraphrases of one thing: of all the others some are nearer than the own passage
    pairs = [Pair(f"q{n}", f"c{n}", f"query {n}", f"passage {n}") for n in range(40)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    draw = np.random.default_rng(1)

    def embed(texts, role):
        return 1 + draw.normal(size=(len(texts), 16)).astype(np.float32)

    assert nearest_pairs(pairs, excluded, embed) == []
    assert "batches are drawn at random" in caplog.text


def test_order_depends_on_seed_and_epoch_alone():
    pairs = [Pair(f"q{i}", f"c{i}", f"t{i}", f"p{i}") for i in range(20)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(batches(pairs, excluded, size=4, seed=seed, epoch=epoch))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_pairs_are_kept_apart_from_negatives_that_answer_them():
    pairs = [Pair(f"q{i}", f"c{i}", "", "", ((f"c{i ^ 1}", ""), (f"z{i}", ""))) for i in range(64)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    for batch in batches(pairs, excluded, size=8, seed=3, epoch=0):
        for one in batch:
            others = {id for j in batch if j != one for id, _ in pairs[j].negatives}
            assert pairs[one].chunk not in others


@given(rows=st.integers(2, 200), size=st.integers(2, 40), seed=st.integers(0, 5))
def test_shuffled_rows_come_once_and_never_alone(rows, size, seed):
    made = list(shuffled_batches(rows, size=size, seed=seed, epoch=0))
    assert sorted(row for batch in made for row in batch) == list(range(rows))
    assert all(2 <= len(batch) <= size + 1 for batch in made)
    assert len(made) == steps_per_epoch(rows, size)
    assert made == list(shuffled_batches(rows, size=size, seed=seed, epoch=0))


def test_shuffled_order_depends_on_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(shuffled_batches(50, size=8, seed=seed, epoch=epoch))

    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


# ---- by class

LABELS = st.lists(st.integers(0, 6), min_size=4, max_size=120).filter(
    lambda labels: sum(count > 1 for count in Counter(labels).values()) > 1
)


@given(labels=LABELS, size=st.sampled_from([2, 4, 8, 32]), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_each_batch_has_two_classes_and_two_rows_of_each(labels, size, epoch):
    made = list(class_batches(labels, size=size, seed=1, epoch=epoch))
    count = Counter(labels)
    for batch in made:
        held = Counter(labels[row] for row in batch)
        assert len(held) > 1
        assert min(held.values()) > 1
        assert len(set(batch)) == len(batch)
    seen = Counter(row for batch in made for row in batch)
    assert set(seen) == {row for row, label in enumerate(labels) if count[label] > 1}
    # rows come again only where a batch of one class borrowed two or three
    assert sum(seen.values()) - len(seen) <= 3 * len(made)
    assert len(made) == class_steps(labels, size)
    assert made == list(class_batches(labels, size=size, seed=1, epoch=epoch))


def test_with_many_classes_every_row_comes_just_once_in_batches_of_the_size():
    labels = [row % 16 for row in range(320)]
    made = list(class_batches(labels, size=32, seed=1, epoch=0))
    assert sorted(row for batch in made for row in batch) == list(range(320))
    assert {len(batch) for batch in made} == {32}
    assert made != list(class_batches(labels, size=32, seed=1, epoch=1))
    assert made != list(class_batches(labels, size=32, seed=2, epoch=0))


def test_a_large_class_is_spread_over_the_epoch():
    labels = [0] * 80 + [1] * 20
    for batch in class_batches(labels, size=20, seed=1, epoch=0):
        assert 10 <= sum(labels[row] == 0 for row in batch) <= 18


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [0, 1, 2], [0, 0, 1, 2]])
def test_labels_without_two_classes_of_two_are_refused(labels):
    with pytest.raises(NothingUsable, match="at least 2 classes with 2 texts"):
        list(class_batches(labels, size=4, seed=1, epoch=0))


# ---- several data sets


def numbered(count: int):
    """A data set of ``count`` batches; a batch holds its own number and that of the pass."""
    return lambda turn: [[place, turn] for place in range(count)]


SETS = [numbered(12), numbered(3), numbered(6)]


@pytest.mark.parametrize(
    ("strategy", "weights", "shares"),
    [("proportional", (), [12, 3, 6]), ("round_robin", (), [7, 7, 7]),
     ("weighted", (1, 1, 5), [3, 3, 15]), ("weighted", (1, 1, 2), [5, 5, 11])],
)  # fmt: skip
def test_each_set_gets_its_share_of_an_epoch(strategy, weights, shares):
    for epoch in range(3):
        made = list(mixed_batches(SETS, strategy, weights=weights, seed=1, epoch=epoch))
        assert [sum(number == own for number, _ in made) for own in range(3)] == shares


def test_in_proportion_every_batch_comes_once_an_epoch():
    for epoch in range(3):
        made = list(mixed_batches(SETS, seed=1, epoch=epoch))
        assert sorted((n, *rows) for n, rows in made) == [
            (n, place, epoch) for n, count in enumerate((12, 3, 6)) for place in range(count)
        ]
    assert list(mixed_batches(SETS, seed=1, epoch=0)) != list(mixed_batches(SETS, seed=2, epoch=0))


def test_in_turn_means_strictly_in_turn():
    made = [number for number, _ in mixed_batches(SETS, "round_robin", seed=1, epoch=0)]
    assert made == [0, 1, 2] * 7


def test_a_set_goes_on_in_the_next_epoch_where_it_stopped():
    seen = [
        rows
        for epoch in range(4)
        for number, rows in mixed_batches(SETS, "round_robin", seed=1, epoch=epoch)
        if number == 0
    ]
    assert seen == [[place % 12, place // 12] for place in range(28)]


def test_no_set_waits_for_the_end_of_the_epoch():
    made = [number for number, _ in mixed_batches(SETS, seed=1, epoch=0)]
    assert {1, 2} <= set(made[:11])
    assert {1, 2} <= set(made[11:])
