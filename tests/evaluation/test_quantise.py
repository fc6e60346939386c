"""Vectors in fewer bytes, against straightforward computations of the same."""

import numpy as np
import pytest

from embedtune.errors import ConfigError
from embedtune.evaluation.quantise import (
    PRECISIONS,
    bytes_per_vector,
    nearest,
    quantise,
    scores,
)
from embedtune.retrieve.order import tie_breaker

RNG = np.random.default_rng(3)
ROWS = RNG.normal(size=(70, 20)).astype(np.float32)
ASKED = RNG.normal(size=(9, 20)).astype(np.float32)
IDS = [f"c{number}" for number in range(len(ROWS))]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expected(values, k):
    """Rows by score, equal ones by the hash of their id."""

    def order(line):
        return sorted(
            range(len(IDS)), key=lambda row: (-round(float(line[row]), 6), tie_breaker(IDS[row]))
        )

    return [order(line)[:k] for line in values]


def test_int8_puts_numbers_on_256_steps_between_the_ends_of_each_dimension():
    vectors = np.array([[0.0, -1.0], [255.0, 1.0], [100.4, -0.005]], np.float32)
    index = quantise(vectors, "int8", similarity="dot")
    assert index.codes.dtype == np.int8
    assert index.codes.tolist() == [[-128, -128], [127, 127], [-28, -1]]
    assert index.decoded()[:, 0].tolist() == [0, 255, 100]
    assert index.decoded()[2, 1] == pytest.approx(127 * 2 / 255 - 1, abs=1e-6)


def test_what_lies_outside_of_the_calibration_is_put_at_its_end():
    calibration = np.array([[-1.0, 2.0], [1.0, 2.0]], np.float32)
    rows = np.array([[-5.0, 2.0], [9.0, 3.0]], np.float32)
    index = quantise(rows, "int8", similarity="dot", calibration=calibration)
    assert index.decoded() == pytest.approx(np.array([[-1, 2], [1, 2]]))


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_int8_compares_the_query_with_the_decoded_rows(similarity):
    rows, asked = (unit(ROWS), unit(ASKED)) if similarity == "cosine" else (ROWS, ASKED)
    low, high = rows.min(axis=0), rows.max(axis=0)
    decoded = np.round((rows - low) / (high - low) * 255) * (high - low) / 255 + low
    if similarity == "euclidean":
        by_hand = -np.linalg.norm(asked[:, None] - decoded[None], axis=2)
    else:
        by_hand = asked @ decoded.T
    index = quantise(ROWS, "int8", similarity=similarity)
    assert scores(ASKED, index) == pytest.approx(by_hand, abs=1e-4)
    found = nearest(ASKED, index, IDS, 5)
    assert found.indices.tolist() == expected(by_hand, 5)
    assert np.abs(rows - index.decoded()).max() <= (high - low).max() / 255 / 2 + 1e-6


def test_binary_counts_the_bits_that_differ():
    by_hand = ((ASKED[:, None] > 0) == (ROWS[None] > 0)).mean(axis=2) * 2 - 1
    index = quantise(ROWS, "binary")
    assert scores(ASKED, index) == pytest.approx(by_hand, abs=1e-6)
    found = nearest(ASKED, index, IDS, 12)
    assert found.indices.tolist() == expected(by_hand, 12)  # many are equal: the hash orders them
    assert found.scores == pytest.approx(np.take_along_axis(by_hand, found.indices, 1), abs=1e-6)
    assert set(np.unique(index.decoded())) == {-1, 1}
    assert ((index.decoded() > 0) == (ROWS > 0)).all()


def test_rescoring_orders_four_times_the_hits_by_the_original_vectors():
    bits = expected(((ASKED[:, None] > 0) == (ROWS[None] > 0)).mean(axis=2), 4 * 3)
    exact = unit(ASKED) @ unit(ROWS).T
    by_hand = [
        sorted(candidates, key=lambda row, line=line: -line[row])[:3]
        for candidates, line in zip(bits, exact, strict=True)
    ]
    found = nearest(ASKED, quantise(ROWS, "binary+rescore"), IDS, 3)
    assert found.indices.tolist() == by_hand
    assert found.scores == pytest.approx(np.take_along_axis(exact, found.indices, 1), abs=1e-6)
    assert found.indices.tolist() != expected(exact, 3)  # the bits lose some


def test_everything_rescored_is_the_exact_order():
    found = nearest(ASKED, quantise(ROWS, "binary+rescore"), IDS, len(IDS))
    assert found.indices.tolist() == expected(unit(ASKED) @ unit(ROWS).T, len(IDS))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_more_hits_than_rows_and_the_best_first(precision):
    found = nearest(ASKED, quantise(ROWS[:4], precision), IDS[:4], 10)
    assert found.indices.shape == (9, 4)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert (np.sort(found.indices, axis=1) == np.arange(4)).all()


@pytest.mark.parametrize(
    ("precision", "size"),
    [("float32", 80), ("float16", 40), ("int8", 20), ("binary", 3), ("binary+rescore", 3)],
)
def test_bytes_of_a_vector(precision, size):
    assert bytes_per_vector(20, precision) == size


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="expected one of float32, float16"):
        quantise(ROWS, "int4")
