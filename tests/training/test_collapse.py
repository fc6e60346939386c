"""The spread of vectors, on cases whose values are known."""

import numpy as np
import pytest

from embedtune.training.collapse import Watch, spread_of


def test_orthogonal_vectors_have_cosine_0_and_full_rank():
    spread = spread_of(np.eye(4, dtype=np.float32))
    assert spread.mean_cosine == pytest.approx(0)
    # centred, four orthogonal units span three directions of equal strength
    assert spread.effective_rank == pytest.approx(3, rel=1e-6)


def test_equal_vectors_have_cosine_1_and_rank_1():
    spread = spread_of(np.tile(np.array([[3.0, 4.0]], dtype=np.float32), (5, 1)))
    assert spread.mean_cosine == pytest.approx(1)
    assert spread.effective_rank == pytest.approx(1)


def test_opposite_vectors_and_length_does_not_matter():
    spread = spread_of(np.array([[1, 0], [-5, 0], [0, 2], [0, -1]], dtype=np.float32))
    # six pairs: two opposite (-1), four orthogonal (0)
    assert spread.mean_cosine == pytest.approx(-2 / 6)
    assert spread.effective_rank == pytest.approx(2)


def test_collapse_is_told_once(caplog):
    texts = [f"text {number}" for number in range(40)]
    apart = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    together = np.ones((40, 16), dtype=np.float32) + apart / 100
    watch = Watch(texts, lambda model, asked: model[: len(asked)], apart)
    watch(apart, 5)
    assert not caplog.records
    assert watch(together, 10).mean_cosine > 0.99
    watch(together, 15)
    assert len(caplog.records) == 1
    assert "step 10: the model's vectors collapse" in caplog.text
