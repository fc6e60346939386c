"""Cross-encoders, and their opinion of negatives: does one of them answer the query after all?"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedtune.datasets.negatives import Check, Doubt
from embedtune.embed.checks import read_json_object
from embedtune.embed.models import ResolvedModel, resolve_model
from embedtune.errors import ConfigError, IntegrityError
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


def load_cross_encoder(name: str, device: str | None, setting: str) -> Any:
    """The sentence-transformers CrossEncoder of that name or folder.

    Args:
        setting: Where the user named it; messages begin with it.

    Raises:
        ConfigError: There is no such model, it is no cross-encoder, or it gives more than one
            number a pair.
        ServiceError: It is not here, and the hub cannot be reached.
    """
    from sentence_transformers import CrossEncoder

    resolved = find_cross_encoder(name, setting)
    try:
        model = CrossEncoder(str(resolved.path), device=device, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{setting}: {visible(name)} cannot be loaded as a cross-encoder: {visible(error)}"
        ) from error
    if model.num_labels != 1:
        raise ConfigError(
            f"{setting}: {visible(name)} gives {model.num_labels} numbers a pair; a "
            "cross-encoder for relevance gives one"
        )
    return model


def find_cross_encoder(name: str, setting: str) -> ResolvedModel:
    """Where it is; told from an embedding model, which would load with a head of random numbers,
    by its configuration alone.

    Raises:
        ConfigError, ServiceError: As ``load_cross_encoder``.
    """
    try:
        resolved = resolve_model(name)
    except ConfigError as error:
        raise ConfigError([f"{setting}: {fault}" for fault in error.faults]) from error
    file = resolved.path / "config.json"
    kinds = read_json_object(file).get("architectures") if file.is_file() else None
    if (resolved.path / "1_Pooling").is_dir() or (
        isinstance(kinds, list) and any(str(kind).endswith("Model") for kind in kinds)
    ):
        raise ConfigError(
            f"{setting}: {visible(name)} is an embedding model; a cross-encoder reads query and "
            "passage together and gives one number, e.g. cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    return resolved
