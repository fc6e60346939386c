"""The ranking losses: what is masked has no part in value or gradient."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from embedtune.records import Pair
from embedtune.training.examples import negative_columns
from embedtune.training.losses import vectors_only
from embedtune.training.ranking import (
    DIRECTIONS,
    PORTION,
    SYMMETRIC,
    false_negatives,
    masks,
    mega_batch_loss,
    ranking_loss,
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
    assert mask.tolist() == [
        [False, True, False, False],  # q1's passage is q0's own passage again
        [True, False, False, False],
        [False, True, False, True],  # a stands there already; c is excluded for q2,
        [False, True, False, False],  # but b not for q3
    ]


def test_loss_is_the_cross_entropy_without_the_masked_entries(tiny_model):
    """Against the formula, written out by hand: -log softmax(scores / T) over unmasked columns."""
    import torch

    from embedtune.embed.loading import load_sentence_transformer

    model = load_sentence_transformer(str(tiny_model), device="cpu").eval()
    loss = ranking_loss(model, PAIRS, EXCLUDED, temperature=0.05)

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
    assert false_negatives([0, 1, 2], HARD, BARRED, 2).tolist() == MASK


def test_a_query_never_meets_its_own_passage_as_a_negative():
    pairs = [Pair("q0", "a", "", "", (("b", ""),)), Pair("q1", "b", "", "", (("a", ""),))]
    nothing = {"q0": frozenset(), "q1": frozenset()}.__getitem__  # not even its own passage
    assert false_negatives([0, 1], pairs, nothing, 1).tolist() == [
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

        loss = ranking_loss(Model(self.table), pairs, BARRED, temperature=0.05)
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


# ---- other directions


def all_masks(batch: list[int], pairs: list[Pair], excluded) -> dict[str, list]:
    made = masks(batch, pairs, excluded, 0, DIRECTIONS)
    return {direction: mask.astype(int).tolist() for direction, mask in made.items()}


def test_each_direction_masks_what_answers():
    assert all_masks([0, 1, 2, 3], PAIRS, EXCLUDED) == {
        "query_to_doc": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]],
        # q0 and q1 share their passage; q3's answers q2
        "query_to_query": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
        # the fee answers q0 and q1; b answers q2 alone; c answers q2 and q3
        "doc_to_query": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]],
        "doc_to_doc": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 1, 0, 1]],
    }


def test_a_query_with_two_passages_is_held_against_neither_and_counts_once():
    pairs = [Pair("q0", "a", "", ""), Pair("q0", "b", "", ""), Pair("q1", "c", "", "")]
    found = all_masks([0, 1, 2], pairs, lambda query: frozenset())
    assert found["query_to_query"] == [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert found["doc_to_query"] == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_passages_of_a_pair_are_not_held_against_each_other():
    made = masks([0, 1, 2], HARD, BARRED, 2, ("doc_to_doc",))["doc_to_doc"]
    own = np.tile(np.eye(3, dtype=bool), 3)
    assert (made == (np.array(MASK) | own)).all()


class Vectors:
    """Random vectors in double precision, a row for each text of some pairs, as features."""

    def __init__(self, pairs: list[Pair], seed: int = 3) -> None:
        import torch

        self.pairs = pairs
        self.columns = 2 + len(negative_columns(pairs))
        draw = np.random.default_rng(seed).normal(size=(self.columns * len(pairs), 8))
        self.table = torch.nn.Parameter(torch.tensor(draw, dtype=torch.float64))
        table = self.table

        class Model(torch.nn.Module):
            def forward(self, features: dict) -> dict:
                return {"sentence_embedding": table[features["input_ids"][:, 0]]}

            def get_embedding_dimension(self) -> int:
                return 8

            def __getitem__(self, place: int) -> "Model":
                return self  # its own first module

        self.model = Model()

    def value(self, loss, batch: list[int] | None = None) -> tuple[float, np.ndarray]:
        """The loss of a batch and its gradient by the table."""
        import torch

        rows = torch.tensor(range(len(self.pairs)) if batch is None else batch)
        places = [rows + column * len(self.pairs) for column in range(self.columns)]
        self.table.grad = None
        found = loss([{"input_ids": own[:, None]} for own in places], rows)
        found.backward()
        return found.item(), self.table.grad.numpy().copy()


DISTINCT = [
    Pair(f"q{n}", f"c{n}", "", "", ((f"x{n}", ""), (f"y{n}", ""))) for n in range(70)
]  # fmt: skip


def nothing(query: str) -> frozenset[str]:
    return frozenset()


@pytest.mark.parametrize("hardness", [0.0, 5.0])
@pytest.mark.parametrize(
    "directions",
    [("query_to_doc",), SYMMETRIC, ("query_to_doc", "query_to_query"), DIRECTIONS],
)
def test_where_nothing_is_masked_it_is_the_loss_of_the_library(directions, hardness):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    vectors = Vectors(DISTINCT[:9])
    ours = ranking_loss(
        vectors.model, vectors.pairs, nothing, temperature=0.05, directions=directions,
        hardness=hardness,
    )  # fmt: skip
    theirs = MultipleNegativesRankingLoss(
        vectors.model, scale=20, directions=directions,
        partition_mode="per_direction" if directions == SYMMETRIC else "joint",
        hardness_mode="all_negatives" if hardness else None, hardness_strength=hardness,
    )  # fmt: skip
    value, gradient = vectors.value(ours)
    wanted, by = vectors.value(theirs)
    assert value == pytest.approx(wanted, rel=1e-12)
    assert gradient == pytest.approx(by, abs=1e-12)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("hardness", [0.0, 5.0])
@pytest.mark.parametrize("directions", [("query_to_doc",), SYMMETRIC, DIRECTIONS])
def test_masked_pairs_have_no_part_in_value_or_gradient(directions, hardness, cached):
    """q2 and its passages answer all and are answered by all: without them it is the same."""
    pairs = [Pair(f"q{n}", f"c{n}", "", "") for n in range(3)]
    barred = {"q0": {"c2"}, "q1": {"c2"}, "q2": {"c0", "c1"}}
    vectors = Vectors(pairs)
    loss = ranking_loss(
        vectors.model, pairs, lambda query: frozenset(barred[query]), temperature=0.05,
        directions=directions, hardness=hardness, cached=cached,
    )  # fmt: skip
    value, gradient = vectors.value(loss)
    without, by = vectors.value(loss, [0, 1])
    # alone, q2 has its passage to choose from, twice where both ways are in one softmax
    alone = np.log(2) if directions == DIRECTIONS else 0
    assert 3 * value == pytest.approx(2 * without + alone, rel=1e-12)
    assert gradient[[2, 5]] == pytest.approx(0, abs=1e-15)
    assert 3 * gradient == pytest.approx(2 * by, abs=1e-12)
    assert np.abs(by).max() > 0.01


@pytest.mark.parametrize("dimensions", [(8,), (8, 4)])
def test_cached_gradients_are_the_gradients(dimensions):
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    assert len(DISTINCT) > 2 * PORTION
    barred = {f"q{n}": frozenset({f"c{n}", f"c{(n + 40) % 70}", f"x{n // 2}"}) for n in range(70)}
    found = []
    for cached in (False, True):
        vectors = Vectors(DISTINCT)
        loss = ranking_loss(
            vectors.model, DISTINCT, barred.__getitem__, temperature=0.05, directions=DIRECTIONS,
            hardness=5.0, cached=cached,
        )  # fmt: skip
        if len(dimensions) > 1:
            loss = MatryoshkaLoss(vectors.model, loss, list(dimensions))
        found.append(vectors.value(loss))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-12)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-12)


def test_what_the_guide_finds_nearer_than_the_pair_is_masked():
    """Two pairs; the guide finds q0 nearer to c1 than to its own c0, and q1 nearest to c1."""
    pairs = [Pair("q0", "c0", "", ""), Pair("q1", "c1", "", "")]
    guide = [
        np.array([[1, 0], [0.6, 0.8]], np.float32),  # q0, q1
        np.array([[0.6, 0.8], [0.8, 0.6]], np.float32),  # c0, c1
    ]
    # guide: q0·c0 = 0.6 < q0·c1 = 0.8: masked; q1·c1 = 0.96 < q1·c0 = 1.0: masked too
    vectors = Vectors(pairs)
    loss = ranking_loss(vectors.model, pairs, nothing, temperature=0.05, guide=guide)
    value, gradient = vectors.value(loss)
    assert (value, np.abs(gradient).max()) == (0, 0)
    guide[0][1] = [1, 0]  # now q1·c1 = 0.8 > q1·c0 = 0.6: c0 stays a negative of q1
    loss = ranking_loss(vectors.model, pairs, nothing, temperature=0.05, guide=guide)
    table = vectors.table.detach().numpy()
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    own, other = table[3] @ table[1] / 0.05, table[2] @ table[1] / 0.05
    assert vectors.value(loss)[0] == pytest.approx(np.log1p(np.exp(other - own)) / 2, rel=1e-9)


# ---- mega batches


@pytest.mark.parametrize("cached", [False, True])
def test_the_nearest_passage_of_a_mega_batch_is_none_that_answers(cached):
    pairs = DISTINCT[:40]
    plain = [Pair(pair.query, pair.chunk, "", "") for pair in pairs]
    vectors = Vectors(plain)
    table = vectors.table.detach().numpy()
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    scores = unit[:40] @ unit[40:].T
    nearest = [max((j for j in range(40) if j != i), key=lambda j: scores[i, j]) for i in range(40)]
    barred = {f"q{i}": frozenset({f"c{j}"}) for i, j in enumerate(nearest) if i % 2}
    losses = []
    for i in range(40):
        left = [j for j in range(40) if j != i and not (i % 2 and j == nearest[i])]
        second = max(scores[i, j] for j in left)
        losses.append(max(0, 0.8 - scores[i, i]) + max(0, second - 0.3))
    loss = mega_batch_loss(
        vectors.model, plain, lambda query: barred.get(query, frozenset()), cached=cached
    )
    assert vectors.value(loss)[0] == pytest.approx(np.mean(losses), rel=1e-12)


# ---- several processes

PAIRED = [Pair(f"q{n}", f"c{n}", "", "", ((f"x{n}", ""),)) for n in range(6)]
ACROSS = {f"q{n}": frozenset({f"c{(n + 3) % 6}"}) for n in range(6)}


def share_of_the_loss(rank: int, world: int) -> tuple[object, object]:
    """The loss of a process's rows, and its gradient by all vectors."""
    import torch

    draw = np.random.default_rng(0).normal(size=(3, 6, 8))
    table = torch.tensor(draw, requires_grad=True)
    rows = torch.arange(6).chunk(world)[rank]
    loss = ranking_loss(
        vectors_only(8), PAIRED, ACROSS.__getitem__, temperature=0.05, directions=DIRECTIONS
    )
    value = loss([{"sentence_embedding": own[rows]} for own in table], rows)
    value.backward()
    return value.detach(), table.grad


PROCESS = """
    import json, sys
    import torch.distributed as group
    sys.path.insert(0, sys.argv[1])
    from test_ranking import share_of_the_loss

    rank = int(sys.argv[3])
    group.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    means = [share / 2 for share in share_of_the_loss(rank, 2)]  # DDP takes the mean
    for share in means:
        group.all_reduce(share)
    print(json.dumps([float(means[0]), means[1].flatten().tolist()]))
"""


def test_two_processes_have_the_loss_of_one_with_the_joined_batch(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROCESS), str(Path(__file__).parent),
             str(tmp_path / "meeting"), str(rank)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    joined, gradient = share_of_the_loss(0, 1)
    for process in started:
        value, found = json.loads(process.communicate(timeout=300)[0])
        assert value == pytest.approx(float(joined), rel=1e-12)
        assert found == pytest.approx(gradient.flatten().tolist(), abs=1e-12)
