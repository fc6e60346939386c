"""The masked loss and its batches."""

import numpy as np
import pytest

from embedtune.records import Pair
from embedtune.training.losses import (
    batches,
    false_negatives,
    negative_columns,
    ranking_loss,
    steps_per_epoch,
)

PAIRS = [
    Pair("q0", "a", "what does the robot cost", "the fee of the robot"),
    Pair("q1", "a", "price", "the fee of the robot"),
    Pair("q2", "b", "stuck in mud", "tow for mud"),
    Pair("q3", "c", "夜班费用", "夜班的费用"),
]
EXCLUDED = {
    "q0": frozenset({"a"}),
    "q1": frozenset({"a"}),
    "q2": frozenset({"b", "c"}),
    "q3": frozenset({"c"}),
}.__getitem__


def test_passages_that_answer_a_query_are_masked_and_its_own_is_not():
    mask = false_negatives([0, 1, 2, 3], PAIRS, EXCLUDED)
    assert mask == [
        [False, True, False, False],  # q1's passage is q0's own passage again
        [True, False, False, False],
        [False, True, False, True],  # a stands there already; c is excluded for q2,
        [False, True, False, False],  # but b not for q3
    ]


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


def test_order_depends_on_seed_and_epoch_alone():
    pairs = [Pair(f"q{i}", f"c{i}", f"t{i}", f"p{i}") for i in range(20)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(batches(pairs, excluded, size=4, seed=seed, epoch=epoch))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_loss_is_the_cross_entropy_without_the_masked_entries(tiny_model):
    """Against the formula, written out by hand: -log softmax(scores / T) over unmasked columns."""
    import torch

    from embedtune.embed.loading import load_sentence_transformer

    model = load_sentence_transformer(str(tiny_model), device="cpu").eval()
    loss = ranking_loss(model, PAIRS, EXCLUDED, temperature=0.05, dimensions=(32,))

    def features(texts: list[str]) -> dict:
        return model.preprocess(texts)

    with torch.no_grad():
        found = loss(
            [features([p.anchor for p in PAIRS]), features([p.positive for p in PAIRS])],
            torch.arange(4),
        )
        anchors = torch.tensor(model.encode([p.anchor for p in PAIRS]))
        positives = torch.tensor(model.encode([p.positive for p in PAIRS]))
    scores = anchors @ positives.T / 0.05
    mask = torch.tensor(false_negatives([0, 1, 2, 3], PAIRS, EXCLUDED))
    rows = [-(scores[i, i] - torch.logsumexp(scores[i][~mask[i]], 0)) for i in range(len(PAIRS))]
    assert float(found) == pytest.approx(float(sum(rows)) / 4, abs=1e-4)


def test_matryoshka_sums_the_loss_over_dimensions(tiny_model):
    import torch

    from embedtune.embed.loading import load_sentence_transformer

    model = load_sentence_transformer(str(tiny_model), device="cpu").eval()

    def value(dimensions: tuple[int, ...]) -> float:
        loss = ranking_loss(model, PAIRS, EXCLUDED, temperature=0.05, dimensions=dimensions)
        inputs = [
            model.preprocess([p.anchor for p in PAIRS]),
            model.preprocess([p.positive for p in PAIRS]),
        ]
        with torch.no_grad():
            return float(loss(inputs, torch.arange(4)))

    assert value((32, 16)) > value((32,))


# ---- explicit negatives

HARD = [
    Pair("q0", "a", "", "", (("x", ""), ("b", ""))),
    Pair("q1", "b", "", "", (("c", ""),)),  # c answers q1 too: a false negative that slipped in
    Pair("q2", "d", "", "", (("a", ""), ("x", ""))),
]
BARRED = {
    "q0": frozenset({"a"}),
    "q1": frozenset({"b", "c"}),
    "q2": frozenset({"d"}),
}.__getitem__
#         a      b      d      x      c      a      b     none   x
MASK = [
    [False, False, False, False, False, True, True, True, True],
    [False, False, False, False, True, True, True, True, True],
    [False, False, False, False, False, True, True, True, True],
]


def test_negatives_are_masked_where_they_answer_stand_already_or_are_missing():
    assert negative_columns(HARD) == ("negative_1", "negative_2")
    assert false_negatives([0, 1, 2], HARD, BARRED, 2) == MASK


def test_a_query_never_meets_its_own_passage_as_a_negative():
    pairs = [Pair("q0", "a", "", "", (("b", ""),)), Pair("q1", "b", "", "", (("a", ""),))]
    nothing = {"q0": frozenset(), "q1": frozenset()}.__getitem__  # not even its own passage
    assert false_negatives([0, 1], pairs, nothing, 1) == [
        [False, False, True, True],
        [False, False, True, True],
    ]


class Lookup:
    """Stands for a model: a table of vectors, in double precision, that a loss can be fed with."""

    def __init__(self, rows: int) -> None:
        import torch

        draw = np.random.default_rng(5).normal(size=(rows, 6))
        self.table = torch.tensor(draw, dtype=torch.float64, requires_grad=True)

    def loss(self, pairs: list[Pair], columns: list[list[int]]) -> object:
        import torch

        class Model(torch.nn.Module):
            def __init__(self, table: object) -> None:
                super().__init__()
                self.table = table

            def forward(self, features: dict) -> dict:
                return {"sentence_embedding": self.table[features["rows"]]}

        loss = ranking_loss(Model(self.table), pairs, BARRED, temperature=0.05, dimensions=(6,))
        return loss([{"rows": torch.tensor(rows)} for rows in columns], torch.arange(len(pairs)))


# rows of the table: queries 0 to 2, a b c d x: 3 to 7, the padding: 8
QUERIES, POSITIVES, FIRST, SECOND = [0, 1, 2], [3, 4, 6], [7, 5, 3], [4, 8, 7]


def test_loss_with_negatives_is_the_formula_in_double_precision():
    model = Lookup(9)
    found = model.loss(HARD, [QUERIES, POSITIVES, FIRST, SECOND])
    table = model.table.detach().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    # by hand, over what each query may be held against: its own passage first
    seen = [[3, 4, 6, 7, 5], [4, 3, 6, 7], [6, 3, 4, 7, 5]]
    losses = []
    for query, passages in enumerate(seen):
        scores = np.exp(table[passages] @ table[query] / 0.05)
        losses.append(-np.log(scores[0] / scores.sum()))
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-12)


def test_false_negatives_repeats_and_padding_have_no_gradient():
    pairs = [HARD[1], Pair("q0", "a", "", "", ())]
    model = Lookup(9)
    # q1 with b, its false negative c; q0 with a, and nothing: c counts against q0 alone
    model.loss(pairs, [[1, 0], [4, 3], [5, 8]]).backward()
    gradient = model.table.grad.numpy()
    assert (gradient[8] == 0).all()  # the padding
    assert np.abs(gradient[5]).max() > 0  # c, as q0's negative
    # the gradient of c comes from q0 alone: it is that of a loss in which q1 does not stand
    q0, a, b, c = (model.table.detach().numpy()[row] for row in (0, 3, 4, 5))

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / np.linalg.norm(vector)

    scores = np.array([unit(other) @ unit(q0) / 0.05 for other in (a, b, c)])
    share = np.exp(scores[2]) / np.exp(scores).sum()
    along = unit(q0) - (unit(q0) @ unit(c)) * unit(c)
    assert gradient[5] == pytest.approx(share * along / np.linalg.norm(c) / 0.05 / 2, rel=1e-9)


def test_a_false_negative_alone_in_the_column_has_zero_gradient():
    pairs = [HARD[1], Pair("q1", "b", "", "", (("c", ""),))]  # both queries exclude c
    model = Lookup(9)
    loss = model.loss(pairs, [[1, 0], [4, 4], [5, 5]])
    loss.backward()
    assert (model.table.grad.numpy()[5] == 0).all()


def test_pairs_are_kept_apart_from_negatives_that_answer_them():
    pairs = [Pair(f"q{i}", f"c{i}", "", "", ((f"c{i ^ 1}", ""), (f"z{i}", ""))) for i in range(64)]
    excluded = {pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__
    for batch in batches(pairs, excluded, size=8, seed=3, epoch=0):
        for one in batch:
            others = {id for j in batch if j != one for id, _ in pairs[j].negatives}
            assert pairs[one].chunk not in others
