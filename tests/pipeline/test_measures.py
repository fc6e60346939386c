"""What training is steered by is what ``evaluate`` then tells of the model."""

import numpy as np
import pytest

from embedtune.datasets.formats import ScoredRow
from embedtune.embed.local import LocalEmbedder
from embedtune.evaluation.scored import measure_scored
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.pipeline.material import order_of_scores

TEXTS = ["robot battery", "night shift fee", "tow the robot", "arm of the crate", "ripe fruit",
         "机器人电池", "夜班费用", "winter gate error"]  # fmt: skip


@pytest.mark.parametrize(("similarity", "dimension"), [("auto", "full"), ("dot", 6), ("cosine", 6)])
def test_the_dev_score_of_scored_pairs_is_the_correlation_that_evaluate_prints(
    tiny_model, similarity: str, dimension: int | str
):
    rng = np.random.default_rng(1)
    rows = [
        ScoredRow(TEXTS[one], TEXTS[other], float(rng.random()))
        for one, other in rng.integers(0, len(TEXTS), (30, 2))
    ]
    settings = EvaluationSettings(similarity=similarity, dimension=dimension)
    embedder = LocalEmbedder(str(tiny_model))
    left = embedder.embed([row.sentence1 for row in rows], "query")
    right = embedder.embed([row.sentence2 for row in rows], "document")
    width = None if dimension == "full" else dimension
    scores = np.array([row.score for row in rows])
    values, _ = measure_scored(left[:, :width], right[:, :width], scores, list("a" * 30), seed=None)
    name = "spearman_cosine" if similarity == "auto" else f"spearman_{similarity}"
    assert order_of_scores(rows, settings)(embedder.model) == pytest.approx(values[name], abs=1e-5)
