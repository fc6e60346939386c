"""Labelled texts: do vectors of one class lie together, and can a line part them?"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.errors import NothingUsable
from embedtune.evaluation.measures import Interval, Values, intervals_of, intervals_of_means
from embedtune.files import visible
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.order import tie_breaker, tie_breakers
from embedtune.similar import normalise

NEIGHBOURS = 10
KNN = f"knn_accuracy@{NEIGHBOURS}"
FOLDS = 5
PROBE_C = 1.0
PROBE_STEPS = 500
LARGEST_SILHOUETTE = 5_000  # texts; the time goes with the square

Train = tuple[Matrix, Sequence[str], Sequence[str]]  # vectors, texts, labels


def check_labels(labels: Sequence[str], name: str) -> None:
    """Refuse texts nothing can be said of.

    Raises:
        NothingUsable: No texts, or all of one class.
    """
    if len(set(labels)) < 2:
        found = f"one class only, {visible(labels[0])}" if len(labels) else "no labelled texts"
        raise NothingUsable(f"{name}: {found}; at least 2 classes are needed")


def knn_accuracy(
    vectors: Matrix,
    texts: Sequence[str],
    labels: Sequence[str],
    train: Train | None,
    similarity: Similarity,
) -> dict[str, float]:
    """The first figure of ``measure_labelled`` alone, which costs little."""
    known, known_texts, known_labels = train or (vectors, texts, labels)
    found = knn_labels(vectors, texts, known, known_texts, known_labels, similarity)
    return {KNN: float(_right(found, labels).mean())}


def measure_labelled(
    vectors: Matrix,
    texts: Sequence[str],
    labels: Sequence[str],
    train: Train | None,
    similarity: Similarity,
    *,
    seed: int,
) -> tuple[dict[str, float], dict[str, Interval]]:
    """``knn_accuracy@10``, ``probe_accuracy`` and ``silhouette`` of the rows.

    The first two learn from ``train`` (its vectors, texts and labels) and are asked about the rows;
    without it each row is judged by the others: all others, and in ``FOLDS`` parts for the probe. A
    silhouette is left out where no class has two texts. Intervals are over rows, those of equal
    text together.
    """
    groups = [normalise(text) for text in texts]
    known, known_texts, known_labels = train or (vectors, texts, labels)
    neighbours = knn_labels(vectors, texts, known, known_texts, known_labels, similarity)
    if train:
        told = probe_labels(known, known_labels, vectors, similarity)
    else:
        told = probe_in_folds(vectors, texts, labels, similarity)
    right = {KNN: _right(neighbours, labels), "probe_accuracy": _right(told, labels)}
    means = {name: float(values.mean()) for name, values in right.items()}
    ends = intervals_of_means(right, groups, seed=seed)
    chosen = _sample(texts)
    widths = silhouettes(vectors[chosen], [labels[row] for row in chosen], similarity)
    if widths is not None:
        figures = {"silhouette": lambda weights: weights @ widths / weights.sum(axis=1)}
        means["silhouette"] = float(widths.mean())
        alike = [groups[row] for row in chosen]
        ends |= intervals_of(figures, alike, (-1.0, 1.0), seed=seed)
    return means, ends


def _right(found: Sequence[str], labels: Sequence[str]) -> Values:
    return np.array([one == other for one, other in zip(found, labels, strict=True)], np.float64)


def knn_labels(
    vectors: Matrix,
    texts: Sequence[str],
    known: Matrix,
    known_texts: Sequence[str],
    known_labels: Sequence[str],
    similarity: Similarity,
    k: int = NEIGHBOURS,
) -> list[str]:
    """The commonest label of the ``k`` nearest known texts; of several, the first in the alphabet
    (as scikit-learn). A text is no neighbour of itself, nor of a copy; "" without any neighbour."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(known_texts):
        places[normalise(text)].append(place)
    own = [np.array(places.get(normalise(text), ()), np.int64) for text in texts]
    found = nearest(vectors, known, known_texts, k, similarity=similarity, without=own)
    labels = []
    for row in found.indices:
        votes = Counter(known_labels[place] for place in row if place >= 0)
        labels.append(max(sorted(votes), key=votes.__getitem__) if votes else "")
    return labels


def probe_labels(
    known: Matrix, known_labels: Sequence[str], vectors: Matrix, similarity: Similarity
) -> list[str]:
    """What logistic regression on the known vectors says of the others.

    Vectors of length 1 for cosine, then moved and scaled by one number for all dimensions, so that
    the penalty weighs on every model alike.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known, vectors = _placed(known, similarity), _placed(vectors, similarity)
    centre = known.mean(axis=0)
    scale = max(float(np.sqrt(((known - centre) ** 2).mean())), 1e-30)
    if len(set(known_labels)) < 2:
        return [known_labels[0]] * len(vectors)
    model = LogisticRegression(C=PROBE_C, max_iter=PROBE_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as good as its steps made it
        model.fit((known - centre) / scale, list(known_labels))
    return list(model.predict((vectors - centre) / scale))


def probe_in_folds(
    vectors: Matrix, texts: Sequence[str], labels: Sequence[str], similarity: Similarity
) -> list[str]:
    """As ``probe_labels``, each fifth told by the others. Which text is in which follows from the
    texts; each class is spread evenly, and copies stay together."""
    fold_of: dict[str, int] = {}
    members: dict[str, set[str]] = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        members[label].add(normalise(text))
    for label in sorted(members):
        for place, text in enumerate(sorted(members[label], key=tie_breaker)):
            fold_of.setdefault(text, place % FOLDS)
    folds = np.array([fold_of[normalise(text)] for text in texts])
    told = [""] * len(texts)
    for fold in range(FOLDS):
        asked, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(asked) and len(rest):
            own = [labels[row] for row in rest]
            found = probe_labels(vectors[rest], own, vectors[asked], similarity)
            for row, label in zip(asked, found, strict=True):
                told[row] = label
    return told


def silhouettes(vectors: Matrix, labels: Sequence[str], similarity: Similarity) -> Values | None:
    """(n,) silhouette of each row (Rousseeuw 1987), -1 to 1, by cosine distance, else by Euclid's.

    None where it is not defined: all of one class, or each of its own.
    """
    from sklearn.metrics import silhouette_samples

    if not 2 <= len(set(labels)) < len(labels):
        return None
    metric = "cosine" if similarity == "cosine" else "euclidean"
    return silhouette_samples(np.asarray(vectors, np.float64), list(labels), metric=metric)


def _sample(texts: Sequence[str]) -> np.ndarray:
    """Rows that silhouettes are worked out of: all, or as many as is bearable, by their texts."""
    if len(texts) <= LARGEST_SILHOUETTE:
        return np.arange(len(texts))
    return np.sort(np.argsort(tie_breakers(texts), kind="stable")[:LARGEST_SILHOUETTE])


def _placed(vectors: Matrix, similarity: Similarity) -> np.ndarray:
    precise = np.asarray(vectors, np.float64)
    if similarity != "cosine":
        return precise
    norms = np.sqrt(np.einsum("ij,ij->i", precise, precise))
    return precise / np.maximum(norms, 1e-30)[:, None]
