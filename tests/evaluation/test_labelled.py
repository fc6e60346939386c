"""Labelled texts against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from embedtune.errors import NothingUsable
from embedtune.evaluation.labelled import (
    check_labels,
    knn_accuracy,
    knn_labels,
    measure_labelled,
    probe_in_folds,
    probe_labels,
    silhouettes,
)

METRIC = {"cosine": "cosine", "euclidean": "euclidean"}


def classes(rows: int, seed: int, spread: float = 1.5) -> tuple[np.ndarray, list[str], list[str]]:
    """Vectors around five centres, texts that all differ, labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(5, 12))
    place = rng.integers(0, 5, rows)
    vectors = centres[place] + spread * rng.normal(size=(rows, 12))
    return (vectors.astype(np.float32), [f"{seed}-{n} text" for n in range(rows)],
            [f"class {n}" for n in place])  # fmt: skip


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_neighbours_vote_as_in_scikit_learn(similarity: str):
    known, asked = classes(120, 1), classes(90, 2)
    oracle = KNeighborsClassifier(10, metric=METRIC[similarity], algorithm="brute")
    oracle.fit(known[0].astype(float), known[2])
    found = knn_labels(asked[0], asked[1], *known, similarity)
    assert found == list(oracle.predict(asked[0].astype(float)))
    accuracy = knn_accuracy(*asked, known, similarity)["knn_accuracy@10"]
    assert accuracy == pytest.approx(oracle.score(asked[0].astype(float), asked[2]), abs=1e-6)


def test_without_train_each_text_is_left_out_once():
    vectors, texts, labels = classes(80, 3)
    oracle = KNeighborsClassifier(10, metric="cosine", algorithm="brute")
    expected = cross_val_predict(oracle, vectors.astype(float), labels, cv=LeaveOneOut())
    assert knn_labels(vectors, texts, vectors, texts, labels, "cosine") == list(expected)


def test_a_copy_of_a_text_does_not_vote_for_it():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.9, 0.5]], np.float32)
    texts, labels = ["Same  text", "same text", "far", "near"], ["a", "a", "b", "b"]
    found = knn_labels(vectors, texts, vectors, texts, labels, "cosine", k=1)
    assert found[:2] == ["b", "b"]  # their own class is only there in the copy
    assert knn_labels(vectors[:2], texts[:2], vectors[:2], texts[:2], labels[:2], "cosine") == [
        "", ""
    ]  # fmt: skip


def test_of_equal_votes_the_first_label_of_the_alphabet_wins_wherever_it_stands():
    known = np.array([[1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]], np.float32)
    texts = ["t1", "t2", "t3", "t4"]
    asked = np.array([[1, 0]], np.float32)
    for labels in (["b", "a", "b", "a"], ["a", "b", "a", "b"]):
        assert knn_labels(asked, ["q"], known, texts, labels, "euclidean") == ["a"]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_probe_is_logistic_regression_on_evened_vectors(similarity: str):
    known, asked = classes(150, 4), classes(60, 5)

    def evened(vectors: np.ndarray) -> np.ndarray:
        rows = vectors.astype(float)
        return (
            rows / np.linalg.norm(rows, axis=1, keepdims=True) if similarity == "cosine" else rows
        )

    centre, spread = evened(known[0]).mean(axis=0), 0.0
    spread = np.sqrt(((evened(known[0]) - centre) ** 2).mean())
    oracle = LogisticRegression(max_iter=2000).fit((evened(known[0]) - centre) / spread, known[2])
    expected = list(oracle.predict((evened(asked[0]) - centre) / spread))
    assert probe_labels(known[0], known[2], asked[0], similarity) == expected
    # a model that gives longer vectors is not punished less for it
    longer = probe_labels(100 * known[0], known[2], 100 * asked[0], similarity)
    assert longer == expected


def test_folds_depend_on_texts_alone_and_tell_every_row_by_others():
    vectors, texts, labels = classes(60, 6, spread=0.1)
    told = probe_in_folds(vectors, texts, labels, "cosine")
    assert told == labels  # so far apart that any four fifths teach the rest
    order = np.random.default_rng(1).permutation(60)
    shuffled = probe_in_folds(
        vectors[order], [texts[n] for n in order], [labels[n] for n in order], "cosine"
    )
    assert shuffled == [told[n] for n in order]
    lonely = [*labels[:-1], "alone"]
    assert (
        probe_in_folds(vectors, texts, lonely, "cosine")[-1] != "alone"
    )  # never learnt from itself


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_silhouette_equals_that_of_scikit_learn(similarity: str):
    vectors, texts, labels = classes(100, 7)
    means, ends = measure_labelled(vectors, texts, labels, None, similarity, seed=1)
    expected = silhouette_score(vectors.astype(float), labels, metric=METRIC[similarity])
    assert means["silhouette"] == pytest.approx(expected, abs=1e-6)
    assert ends["silhouette"][0] < expected < ends["silhouette"][1]


def test_a_silhouette_that_is_not_defined_is_left_out():
    vectors, texts, _ = classes(6, 8)
    assert silhouettes(vectors, list("abcdef"), "cosine") is None
    assert silhouettes(vectors, ["a"] * 6, "cosine") is None
    means, ends = measure_labelled(vectors, texts, list("abcdef"), None, "cosine", seed=1)
    assert set(means) == set(ends) == {"knn_accuracy@10", "probe_accuracy"}


def test_figures_of_train_and_test_have_intervals_by_text():
    known, asked = classes(100, 9), classes(80, 10)
    means, ends = measure_labelled(*asked, known, "cosine", seed=1)
    assert 0.3 < means["knn_accuracy@10"] < 1
    for name, (low, high) in ends.items():
        assert low < means[name] < high, name


@pytest.mark.parametrize(
    ("labels", "said"), [([], "no labelled"), (["x", "x"], "one class only, x")]
)
def test_one_class_gives_no_figure(labels: list[str], said: str):
    with pytest.raises(NothingUsable, match=said):
        check_labels(labels, "texts")
