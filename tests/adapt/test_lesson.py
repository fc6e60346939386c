"""Both ways of fitting, against other ways to work the same things out."""

from itertools import islice

import numpy as np
import pytest

from embedtune.adapt.lesson import Lesson, descent, lesson, low_rank, regression
from embedtune.embed.adapted import Adapter


def drawn(similarity: str = "cosine", pairs: int = 12, dimension: int = 5) -> Lesson:
    rng = np.random.default_rng(7)
    queries = rng.normal(size=(pairs, dimension)).astype(np.float32)
    passages = rng.normal(size=(9, dimension)).astype(np.float32)
    answers = rng.integers(0, 9, pairs)
    none = np.zeros(0, np.int64)
    return lesson(queries, passages, answers, [none] * pairs, similarity)


def scores(taught: Lesson, change: np.ndarray) -> np.ndarray:
    """(n, m) similarities, one by one."""
    found = np.zeros((taught.pairs, len(taught.passages)))
    for row, query in enumerate(taught.queries.astype(np.float64)):
        moved = query + query @ change
        if taught.similarity == "cosine":
            moved = moved / np.sqrt(moved @ moved)
        for place, passage in enumerate(taught.passages.astype(np.float64)):
            apart = moved - passage
            found[row, place] = (
                -apart @ apart / 2 if taught.similarity == "euclidean" else moved @ passage
            )
    return found


def loss(taught: Lesson, change: np.ndarray, temperature: float) -> float:
    """Mean InfoNCE, as its definition reads."""
    logits = scores(taught, change) / temperature
    right = logits[np.arange(taught.pairs), taught.answers]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - right))


def test_the_closed_form_is_least_squares_with_a_penalty():
    taught, ridge = drawn(), 2.0
    queries = taught.queries.astype(np.float64)
    dimension = queries.shape[1]
    penalty = ridge * (queries**2).sum() / dimension  # mean eigenvalue of the second moments
    left = np.concatenate([queries, np.sqrt(penalty) * np.eye(dimension)])
    right = np.concatenate(
        [taught.passages[taught.answers] - queries, np.zeros((dimension, dimension))]
    )
    expected, *_ = np.linalg.lstsq(left, right, rcond=None)
    assert np.allclose(regression(taught, ridge), expected, atol=1e-6)


def test_the_closed_form_finds_a_linear_map_that_is_there():
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(40, 6)).astype(np.float32)
    hidden = rng.normal(size=(6, 6)) / 3
    passages = (queries @ (np.eye(6) + hidden)).astype(np.float32)
    none = [np.zeros(0, np.int64)] * 40
    taught = lesson(queries, passages, range(40), none, "dot")
    assert np.allclose(regression(taught, 1e-9), hidden, atol=1e-4)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_a_step_goes_down_the_gradient_of_the_loss(similarity):
    taught, temperature, ridge = drawn(similarity), 0.5, 1.0
    dimension = taught.queries.shape[1]
    gradient, still = np.zeros((dimension, dimension)), np.zeros((dimension, dimension))
    for place in np.ndindex(dimension, dimension):
        nudge = still.copy()
        nudge[place] = 1e-5
        gradient[place] = (
            loss(taught, nudge, temperature) - loss(taught, -nudge, temperature)
        ) / 2e-5
    queries = taught.queries.astype(np.float64)
    moments = queries.T @ queries
    moments += ridge * np.trace(moments) / dimension * np.eye(dimension)
    expected = -np.linalg.solve(moments, gradient) * taught.pairs * temperature
    assert np.allclose(next(descent(taught, ridge, temperature)), expected, atol=1e-4)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_steps_lower_the_loss(similarity):
    taught = drawn(similarity)
    path = islice(descent(taught, 3.0, 0.2), 6)
    losses = [loss(taught, change, 0.2) for change in (np.zeros((5, 5)), *path)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01


def test_a_masked_passage_is_as_good_as_absent():
    rng = np.random.default_rng(3)
    queries, passages = rng.normal(size=(6, 4)), rng.normal(size=(8, 4))
    answers = [0, 1, 2, 3, 4, 5]
    # the last two may answer as well; a mask that names the pair's own answer does no harm
    masked = [np.array([answer, 6, 7]) for answer in answers]
    whole = lesson(queries, passages, answers, masked, "cosine")
    absent = lesson(queries, passages[:6], answers, [np.zeros(0, np.int64)] * 6, "cosine")
    for one, other in zip(
        islice(descent(whole, 1.0, 0.1), 3), islice(descent(absent, 1.0, 0.1), 3), strict=True
    ):
        assert np.allclose(one, other, atol=1e-6)


def test_low_rank_is_the_closest_on_the_queries():
    taught = drawn(pairs=30)
    change = np.random.default_rng(5).normal(size=(5, 5))
    moved = taught.queries @ change
    singular = np.linalg.svd(moved, compute_uv=False)
    for rank in (1, 3):
        down, up = low_rank(change, taught, rank)
        assert (down.shape, up.shape) == ((5, rank), (rank, 5))
        missed = np.linalg.norm(moved - taught.queries @ down @ up)
        assert missed == pytest.approx(np.sqrt((singular[rank:] ** 2).sum()), rel=1e-4)
    down, up = low_rank(change, taught, None)
    assert np.allclose(down @ up, change, atol=1e-5)


def test_scaling_all_vectors_changes_nothing():
    rng = np.random.default_rng(3)
    queries, passages = rng.normal(size=(6, 4)), rng.normal(size=(8, 4))
    none = [np.zeros(0, np.int64)] * 6
    for similarity in ("cosine", "dot", "euclidean"):
        one, other = (
            lesson(queries * by, passages * by, range(6), none, similarity) for by in (1, 50)
        )
        assert np.allclose(regression(one, 1), regression(other, 1), atol=1e-6)
        pairs = zip(descent(one, 1, 0.1), descent(other, 1, 0.1), strict=True)
        assert all(np.allclose(*pair, atol=1e-6) for pair in islice(pairs, 3))


def test_an_adapter_moves_queries_and_keeps_cosine_rows_at_length_1():
    down, up = np.array([[1.0], [0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    queries = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]], np.float32)
    assert Adapter(down, up, "dot")(queries).tolist() == [[3, 3], [0, 2], [0, 0]]
    half = 0.5**0.5
    assert np.allclose(Adapter(down, up, "cosine")(queries), [[half, half], [0, 1], [0, 0]])
    nothing = Adapter(np.zeros((2, 0), np.float32), np.zeros((0, 2), np.float32), "dot")
    assert nothing(queries).tolist() == queries.tolist()
