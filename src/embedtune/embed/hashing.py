"""A deterministic embedder without a model: hashed words and characters.

It knows no meaning, only shared words, but it is quick and never changes: for tests, dry runs
and as the floor that any model has to beat.
"""

import itertools
import re
import zlib
from collections.abc import Sequence

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.records import Role

TERM = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


class HashingEmbedder:
    """Signed feature hashing (Weinberger et al. 2009) of words, and of neighbours in Chinese."""

    max_tokens = 1_000_000
    similarity: Similarity = "cosine"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension
        self.name = f"hashing-{dimension}"

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            terms = TERM.findall(text.lower())
            pairs = [a + b for a, b in itertools.pairwise(terms) if a >= "\u3400"]
            for term in (*terms, *pairs):
                code = zlib.crc32(term.encode("utf-8", "replace"))
                row[code % self.dimension] += 1 if code & 0x40000000 else -1
            if not row.any():
                row[0] = 1  # no text has a vector of zeros
        return vectors
