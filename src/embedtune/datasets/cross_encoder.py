"""Cross-encoders' opinion of negatives: does one of them answer the query after all?"""

import functools
from collections.abc import Sequence

import numpy as np

from embedtune.datasets.negatives import Check, Doubt
from embedtune.embed.cross_encoder import load_cross_encoder
from embedtune.errors import IntegrityError
from embedtune.files import visible

SHARE = 0.95  # of the probability of a passage that answers
BATCH = 32


def cross_encoder_check(model: str, *, device: str | None = None) -> Check:
    """The check of a sentence-transformers cross-encoder, loaded when first asked.

    A candidate is called an answer where its probability (sigmoid of the model's one number) is
    at least 95 % of that of the query's lowest-scored relevant passage: a bare threshold would
    mean something else for every model.

    Args:
        model: Name or folder.
        device: As torch names it; None: the best there is.

    Raises (when asked):
        ConfigError, ServiceError: See ``load_cross_encoder``.
        IntegrityError: Its numbers are none.
    """
    loaded = functools.cache(
        functools.partial(load_cross_encoder, model, device, "negatives.check")
    )

    def check(doubts: Sequence[Doubt]) -> list[frozenset[int] | None]:
        import torch

        pairs = [
            (doubt.query.text, chunk.embedded)
            for doubt in doubts
            for chunk in (*doubt.relevant, *doubt.candidates)
        ]
        if not pairs:
            return [frozenset() for _ in doubts]
        found = loaded().predict(
            pairs, batch_size=BATCH, show_progress_bar=False, activation_fn=torch.nn.Sigmoid()
        )
        scores = np.asarray(found, np.float64)
        if not np.isfinite(scores).all():
            raise IntegrityError(f"negatives.check: {visible(model)} gives NaN or infinite scores")
        answers: list[frozenset[int] | None] = []
        for doubt in doubts:
            known, scores = np.split(scores, [len(doubt.relevant)])
            own, scores = np.split(scores, [len(doubt.candidates)])
            limit = SHARE * known.min(initial=np.inf)
            answers.append(frozenset(np.flatnonzero(own >= limit).tolist()))
        return answers

    return check
