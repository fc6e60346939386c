"""How long an index in a folder takes to make, to open and to search, without any model's time.

    python benchmarks/index.py --passages 100000 [--approximate] [--json]

Passages are random words, vectors lie around 2,000 random points. Times are of the processor, on
one thread: they hold on a busy machine too.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from embedtune.records import Chunk
from embedtune.retrieve.disk import DiskStore
from embedtune.retrieve.index import Index, keep_words, prepare, update

SEARCHES = 20


class Around:
    """Random vectors around random points, whatever the text."""

    name, max_tokens, similarity = "around@0000000000000000", 512, "cosine"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._random = np.random.default_rng(0)
        self._points = self._random.standard_normal((2000, dimension), np.float32)

    def embed(self, texts: list[str], role: str) -> np.ndarray:
        chosen = self._points[self._random.integers(0, len(self._points), len(texts))]
        return chosen + 0.7 * self._random.standard_normal(chosen.shape, np.float32)


def passages(count: int) -> list[Chunk]:
    """Of sixty words each, some frequent and most rare."""
    words = [f"w{number}" for number in np.random.default_rng(0).zipf(1.3, 60 * count) % 50_000]
    return [
        Chunk(f"c{n:016x}", "d", 0, 1, "", " ".join([*words[60 * n : 60 * n + 60], str(n)]))
        for n in range(count)
    ]


def seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chunks, embedder = passages(given.passages), Around(given.dimension)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        store = DiskStore(Path(scratch) / "index")
        prepare(store, embedder, source="around")
        found["store, s"] = seconds(lambda: update(store, chunks, embedder))
        found["store again unchanged, s"] = seconds(lambda: update(store, chunks, embedder))
        found["keep words, s"] = seconds(lambda: keep_words(store))
        if given.approximate:
            found["make approximate, s"] = seconds(store.build_approximate)
            found["recall@10"] = store.figures("approximate")["recall"]
        store.close()
        found["size, MB"] = sum(path.stat().st_size for path in store.folder.iterdir()) / 1e6
        index: list[Index] = []
        found["open, s"] = seconds(lambda: index.append(Index.open(store.folder, embedder)))
        for how in ("dense", "bm25", "hybrid"):
            found[f"first {how}, ms"] = 1000 * seconds(lambda: index[0].search(["w5"], 10, how))  # noqa: B023
            times = [
                seconds(lambda: index[0].search([f"w{n} w{7 * n} w{31 * n} w900"], 10, how))  # noqa: B023
                for n in range(SEARCHES)
            ]
            found[f"{how}, ms"] = 1000 * float(np.median(times))
    if given.json:
        print(json.dumps({"passages": given.passages, "dimension": given.dimension, **found}))
    else:
        for name, value in found.items():
            print(f"{name:28} {value:10.3f}")


if __name__ == "__main__":
    main()
