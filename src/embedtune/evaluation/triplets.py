"""Triplets: how often the positive is nearer to the anchor than the negative."""

from collections.abc import Sequence

from embedtune.embed import Matrix
from embedtune.evaluation.measures import (
    Interval,
    Values,
    intervals_of_means,
    similarities_of_rows,
)


def triplet_hits(anchors: Matrix, positives: Matrix, negatives: Matrix) -> dict[str, Values]:
    """Figure -> (n,) 1 where the positive is nearer, 0 where it is not, or as near."""
    near = similarities_of_rows(anchors, positives)
    far = similarities_of_rows(anchors, negatives)
    return {f"{name}_accuracy": (near[name] > far[name]).astype("float64") for name in near}


def measure_triplets(
    anchors: Matrix,
    positives: Matrix,
    negatives: Matrix,
    groups: Sequence[str],
    *,
    seed: int | None,
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Accuracy by each similarity (``cosine_accuracy`` …); their intervals by group (none without
    seed)."""
    hits = triplet_hits(anchors, positives, negatives)
    means = {name: float(values.mean()) for name, values in hits.items()}
    return means, {} if seed is None else intervals_of_means(hits, groups, seed=seed)
