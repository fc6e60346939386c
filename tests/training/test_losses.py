"""The masked loss and its batches."""

import pytest

from embedtune.records import Pair
from embedtune.training.losses import batches, false_negatives, ranking_loss, steps_per_epoch

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
        [False, False, False, True],  # c is excluded for q2, but b not for q3
        [False, False, False, False],
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
