"""One set of files of an index in a folder: vectors, passages, and which row is which."""

import math
import mmap
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix
from embedtune.errors import IntegrityError
from embedtune.files import parse_json, sha256_of
from embedtune.retrieve.dense import scales_of
from embedtune.retrieve.stores import IndexInfo


class Part:
    """The rows of one set of files."""

    def __init__(self, folder: Path, name: str, entry: Mapping[str, Any], info: IndexInfo) -> None:
        self.name = name
        self.dead = set(entry["dead"])
        vectors, passages, rows = (folder / file for file in files_of(name))
        for path, digest in zip((vectors, passages, rows), entry["sha256"], strict=True):
            check_file(path, digest)
        index = parse_json(rows.read_text("utf-8"))
        self.ids: list[str] = index["ids"]
        self.digests: list[str] = index["digests"]
        self.offsets: list[int] = index["offsets"]
        self.vectors: Matrix = np.load(vectors, mmap_mode="r", allow_pickle=False)
        if self.vectors.shape != (len(self.ids), info.dimension):
            raise IntegrityError(
                f"{vectors}: {self.vectors.shape[0]} vectors of {self.vectors.shape[1]} numbers; "
                f"expected {len(self.ids)} of {info.dimension}; the files of several indexes were "
                "mixed"
            )
        with passages.open("rb") as file:
            self._passages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._similarity = info.similarity

    def __len__(self) -> int:
        return len(self.ids)

    def line(self, row: int) -> bytes:
        return self._passages[self.offsets[row] : self.offsets[row + 1]]

    def alive(self) -> npt.NDArray[np.int64]:
        kept = np.ones(len(self), bool)
        kept[list(self.dead)] = False
        return np.flatnonzero(kept)

    @cached_property
    def _scales(self) -> Matrix | None:
        return scales_of(self.vectors, self._similarity)

    @cached_property
    def _squares(self) -> npt.NDArray[np.float32]:
        return np.einsum("ij,ij->i", self.vectors, self.vectors)

    @cached_property
    def largest(self) -> float:
        """Norm of a vector."""
        return math.sqrt(float(self._squares.max(initial=0)))

    def scores(self, queries: Matrix) -> Matrix:
        """(n, rows) float32 in the order of `retrieve.dense`: cosine times the query's length,
        dot product, or negative squared distance; minus infinity for removed rows."""
        scores = queries @ self.vectors.T
        if self._scales is not None:
            scores *= self._scales[:, 0]
        elif self._similarity == "euclidean":
            scores *= 2
            scores -= self._squares
            scores -= np.einsum("ij,ij->i", queries, queries)[:, None]
        if self.dead:
            scores[:, list(self.dead)] = -np.inf
        return scores


def files_of(name: str) -> tuple[str, str, str]:
    return f"vectors-{name}.npy", f"passages-{name}.jsonl", f"rows-{name}.json"


def check_file(path: Path, digest: str) -> None:
    """Raises IntegrityError where the file is not the one that was written."""
    if sha256_of(path) != digest:
        raise IntegrityError(
            f"{path}: damaged, or of another index (its hash is another); index "
            "again with --fresh, or restore the folder"
        )
