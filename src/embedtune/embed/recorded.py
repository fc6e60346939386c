"""An embedder that never encodes a text twice: vectors by model, role and text."""

from collections.abc import Sequence

import numpy as np

from embedtune.embed import Embedder, Matrix, Similarity, document_name
from embedtune.errors import IntegrityError
from embedtune.files import visible
from embedtune.records import Progress, Role, no_progress
from embedtune.store import Store, content_key

PORTION = 512  # texts between two commits: what a kill can cost; of a service, one request


class RecordedEmbedder:
    """The wrapped embedder's vectors, kept in a store across stages and runs.

    What is stored survives ``kill -9``. Facts about the model (dimension, length, similarity) are
    asked of the embedder only, which loads it; vectors alone do not.
    """

    def __init__(
        self, embedder: Embedder, store: Store, *, progress: Progress = no_progress
    ) -> None:
        self.embedder = embedder
        self.name = embedder.name
        self.document_name = document_name(embedder)
        self._portion = getattr(embedder, "batch_size", PORTION)
        self._store = store
        self._progress = progress

    @property
    def dimension(self) -> int:
        return self.embedder.dimension

    @property
    def max_tokens(self) -> int:
        return self.embedder.max_tokens

    @property
    def similarity(self) -> Similarity:
        return self.embedder.similarity

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        name = self.document_name if role == "document" else self.name
        keys = [content_key({"model": name, "role": role, "text": text}) for text in texts]
        known = self._store.vectors(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        # like lengths together: a portion is a few batches of the model
        ordered = sorted(missing, key=lambda key: -len(missing[key]))
        for first in range(0, len(ordered), self._portion):
            part = ordered[first : first + self._portion]
            vectors = self.embedder.embed([missing[key] for key in part], role)
            self._check(vectors, [missing[key] for key in part])
            known.update(zip(part, vectors, strict=True))
            self._store.put_vectors(dict(zip(part, vectors, strict=True)))
            self._progress(first + len(part), len(ordered))
        if not keys:
            return np.zeros((0, self.dimension), np.float32)
        widths = {len(vector) for vector in known.values()}
        if len(widths) != 1:
            raise IntegrityError(
                f"{self.name}: stored vectors have {sorted(widths)} dimensions; the model behind "
                "the name has changed, give it another revision"
            )
        return np.stack([known[key] for key in keys]).astype(np.float32, copy=False)

    def _check(self, vectors: Matrix, texts: Sequence[str]) -> None:
        """Nothing damaged is ever stored."""
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise IntegrityError(
                f"{self.name}: {int(bad.sum())} of {len(vectors)} vectors hold NaN or infinite "
                f'numbers, the first for "{visible(texts[int(bad.argmax())])}"'
            )
