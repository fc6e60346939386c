"""Embedders: the contract, and the table from names to implementations."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embedtune.errors import ConfigError
from embedtune.records import Role

Matrix = npt.NDArray[np.float32]
Similarity = Literal["cosine", "dot", "euclidean"]


class Embedder(Protocol):
    name: str  # goes into cache keys and fingerprints: model and revision
    dimension: int
    max_tokens: int
    similarity: Similarity  # as the model's own configuration says

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        """(n, dimension) float32, rows as the model gives them (not normalised by us)."""
        ...


def document_name(embedder: Embedder) -> str:
    """The name of what makes the vectors of passages: an adapter on queries leaves its base's."""
    return getattr(embedder, "document_name", embedder.name)


EMBEDDERS = {
    "local": "embedtune.embed.local:LocalEmbedder",
    "openai": "embedtune.embed.openai:OpenAIEmbedder",
    "cohere": "embedtune.embed.cohere:CohereEmbedder",
    "hashing": "embedtune.embed.hashing:HashingEmbedder",
}
SERVICES = ("openai", "cohere")  # of these, those that cost money


def is_service(name: str) -> bool:
    """Whether a name is that of a service, as ``openai:MODEL``."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in SERVICES


def load_embedder(kind: str, **settings: Any) -> Embedder:  # settings differ by kind
    """The embedder of that kind; only the chosen one is imported."""
    if kind not in EMBEDDERS:
        raise ConfigError(f"unknown embedder {kind!r}; choose from {', '.join(sorted(EMBEDDERS))}")
    module, name = EMBEDDERS[kind].split(":")
    return getattr(import_module(module), name)(**settings)
