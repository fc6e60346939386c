"""Scored pairs and labelled texts: their rows, their vectors, their figures at each dimension."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embedtune.datasets.formats import LabelledRow, ScoredRow
from embedtune.embed import Embedder, Matrix, Similarity
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.labelled import check_labels, knn_accuracy, measure_labelled
from embedtune.evaluation.measures import Interval, Measures
from embedtune.evaluation.scored import (
    check_scores,
    is_yes_or_no,
    measure_labelled_pairs,
    measure_scored,
)
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import System, matryoshka_dimensions
from embedtune.files import visible
from embedtune.pipeline.console import Console
from embedtune.records import Role
from embedtune.retrieve.dense import check_vectors
from embedtune.similar import components, normalise

Figures = tuple[dict[str, float], dict[str, Interval]]
Opener = Callable[[System], Embedder]
Row = ScoredRow | LabelledRow


def rows_of(
    examples: Mapping[str, Sequence[Any]], split: str, name: str
) -> tuple[list[Row], list[Row], str]:
    """The rows of ``split``, those of train where labels may be learnt from them, the split."""
    from embedtune.datasets.parts import WHOLE

    if list(examples) == [WHOLE]:
        split = WHOLE  # too few to be divided
    if split == WHOLE:
        return [row for own in examples.values() for row in own], [], WHOLE
    if split not in examples:
        raise NothingUsable(
            f"{name}: there is no split {visible(split)!r}; there are "
            f"{', '.join(sorted(examples))}, and {WHOLE}"
        )
    return list(examples[split]), list(examples.get("train", ())) if split != "train" else [], split


def measure_rows(
    systems: Sequence[System],
    rows: Sequence[Row],
    train: Sequence[Row],
    name: str,
    settings: EvaluationSettings,
    embedder_of: Opener,
    console: Console,
) -> tuple[Measures, ...]:
    scored = [row for row in rows if isinstance(row, ScoredRow)]
    labelled = [row for row in rows if isinstance(row, LabelledRow)]
    known = [row for row in train if isinstance(row, LabelledRow)]
    if not rows:
        raise NothingUsable(f"{name}: the split holds no rows")
    if scored:
        check_scores([row.score for row in scored], name)
        groups = _families(scored)
    else:
        check_labels([row.label for row in (*labelled, *known)], name)
        groups = [normalise(row.text) for row in labelled]
        lost = {row.label for row in labelled} - {row.label for row in known}
        if known and lost:
            console.say(f"  {len(lost)} classes have no train text, e.g. {visible(min(lost))}; "
                        "their texts count as wrong")  # fmt: skip
    measures = []
    for system in systems:
        embedder = embedder_of(system)
        if scored:
            of = _of_scored(embedder, scored, groups)
        else:
            own = settings.similarity
            similarity = embedder.similarity if own == "auto" else own
            of = _of_labelled(embedder, labelled, known, similarity)
        measures.append(by_dimension(system, embedder, *of, len(rows), groups, settings))
    return tuple(measures)


Sliced = tuple[int, Callable[[int, int | None], Figures]]  # own dimension, figures at a dimension


def _of_scored(embedder: Embedder, rows: Sequence[ScoredRow], groups: Sequence[str]) -> Sliced:
    left = vectors_of(embedder, [row.sentence1 for row in rows], "query")
    right = vectors_of(embedder, [row.sentence2 for row in rows], "document")
    scores = np.array([row.score for row in rows])
    function = measure_labelled_pairs if is_yes_or_no(list(scores)) else measure_scored

    def figures(dim: int, seed: int | None) -> Figures:
        return function(left[:, :dim], right[:, :dim], scores, groups, seed=seed)

    return left.shape[1], figures


def _of_labelled(
    embedder: Embedder,
    rows: Sequence[LabelledRow],
    train: Sequence[LabelledRow],
    similarity: Similarity,
) -> Sliced:
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    vectors = vectors_of(embedder, texts, "document")
    known_texts, known_labels = [row.text for row in train], [row.label for row in train]
    known = vectors_of(embedder, known_texts, "document") if train else None

    def figures(dim: int, seed: int | None) -> Figures:
        own = vectors[:, :dim]
        learnt = None if known is None else (known[:, :dim], known_texts, known_labels)
        if seed is None:
            return knn_accuracy(own, texts, labels, learnt, similarity), {}
        return measure_labelled(own, texts, labels, learnt, similarity, seed=seed)

    return vectors.shape[1], figures


def _families(rows: Sequence[ScoredRow]) -> list[str]:
    """For each pair a text, the same one for pairs that share a text, or are joined by others."""
    sides = [(normalise(row.sentence1), normalise(row.sentence2)) for row in rows]
    texts = sorted({text for pair in sides for text in pair})
    place = {text: number for number, text in enumerate(texts)}
    roots = components(len(texts), [(place[one], place[other]) for one, other in sides])
    return [texts[roots[place[one]]] for one, _ in sides]


# ---- vectors


def vectors_of(embedder: Embedder, texts: Sequence[str], role: Role) -> Matrix:
    vectors = embedder.embed(texts, role)
    check_vectors(vectors, texts, embedder.name)
    return vectors


def by_dimension(
    system: System,
    embedder: Embedder,
    own: int,
    figures: Callable[[int, int | None], Figures],
    rows: int,
    groups: Sequence[str],
    settings: EvaluationSettings,
) -> Measures:
    """The figures at the dimension that was asked for, and at those of a Matryoshka model."""
    wanted = own if settings.dimension == "full" else settings.dimension
    if wanted > own:
        raise ConfigError(
            f"evaluation.dimension: {wanted} is above the {own} dimensions of {embedder.name}"
        )
    values, intervals = figures(wanted, settings.seed)
    dims = {dim: figures(dim, None)[0] for dim in matryoshka_dimensions(embedder, own)}
    return Measures(system.label, values, intervals, rows, len(set(groups)), dims)
