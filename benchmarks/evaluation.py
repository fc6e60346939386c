"""Evaluation at several dimensions beside ``InformationRetrievalEvaluator``, from given vectors.

    python benchmarks/evaluation.py [--passages 500000] [--queries 5000] [--rounds 1] [--json]

Both sides search all passages for the 100 nearest by cosine, at 6 Matryoshka dimensions, and
compute the evaluator's default figures. The plain side is the real evaluator, once a dimension,
with a model whose ``encode`` looks its answers up. Vectors are drawn around common centres, a
query near the one passage that answers it. Each side runs in a process of its own, on one thread,
in turns. Seconds are processor time. Memory is the peak of the resident set less what it was when
the evaluation began, with the libraries loaded and vectors and ids in memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np

EDGES = (384, 256, 192, 128, 64, 32)
SIDES = ("embedtune", "InformationRetrievalEvaluator")
CENTRES = 1000
FIGURES = (
    "ndcg@10",
    "mrr@10",
    "map@100",
    *(f"{name}@{k}" for name in ("accuracy", "precision", "recall") for k in (1, 3, 5, 10)),
)


def draw_vectors(folder: Path, passages: int, queries: int) -> None:
    """``passages.npy`` and ``queries.npy``: query i is answered by passage i."""
    draw = np.random.default_rng(0)
    weights = np.linspace(1.5, 0.5, EDGES[0], dtype=np.float32)  # the first columns tell more
    centres = weights * draw.standard_normal((CENTRES, EDGES[0]), np.float32)
    shape = (passages, EDGES[0])
    vectors = np.lib.format.open_memmap(folder / "passages.npy", "w+", np.float32, shape)
    for first in range(0, passages, 8192):
        part = vectors[first : first + 8192]
        part[:] = weights * draw.standard_normal(part.shape, np.float32)
        part += centres[draw.integers(0, CENTRES, len(part))]
    noise = 2.5 * weights * draw.standard_normal((queries, EDGES[0]), np.float32)
    np.save(folder / "queries.npy", vectors[:queries] + noise)


def ours(queries: np.ndarray, passages: np.ndarray, ids: Sequence[str]) -> dict[int, Any]:
    from embedtune.evaluation.metrics import score
    from embedtune.retrieve.dense import nearest_at

    judged = [{ids[number]: 1} for number in range(len(queries))]
    figures = {}
    for edge, found in nearest_at(queries, passages, ids, 100, EDGES).items():
        rankings = [[ids[index] for index in row] for row in found.indices]
        figures[edge] = {
            name: float(values.mean()) for name, values in score(rankings, judged, FIGURES).items()
        }
    return figures


def theirs(queries: np.ndarray, passages: np.ndarray, ids: Sequence[str]) -> dict[int, Any]:
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    torch.set_num_threads(1)
    encoded = 0

    def given(vectors: np.ndarray, texts: Sequence[str], dimension: int) -> Any:
        nonlocal encoded
        encoded += len(texts)
        first = int(texts[0])  # texts are numbers and come in order
        return torch.from_numpy(vectors[first : first + len(texts)])[:, :dimension]

    model: Any = SimpleNamespace(
        encode_query=lambda texts, truncate_dim, **_: given(queries, texts, truncate_dim),
        encode_document=lambda texts, truncate_dim, **_: given(passages, texts, truncate_dim),
        similarity_fn_name="cosine",
        similarity=cos_sim,
        model_card_data=SimpleNamespace(set_evaluation_metrics=lambda *_: None),
    )
    asked = {f"q{number}": str(number) for number in range(len(queries))}
    corpus = {id: str(number) for number, id in enumerate(ids)}
    relevant = {f"q{number}": {ids[number]} for number in range(len(queries))}
    figures: dict[int, Any] = {}
    for edge in sorted(EDGES):
        evaluator = InformationRetrievalEvaluator(asked, corpus, relevant, truncate_dim=edge)
        result = evaluator(model)
        figures[edge] = {name: float(result[f"cosine_{name}"]) for name in FIGURES}
    return {**figures, "encoded": encoded}


def one_side(side: str, folder: Path) -> dict[str, Any]:
    """In this process: what a side costs, and its figures."""
    import sentence_transformers.sentence_transformer.evaluation  # noqa: F401  both sides alike

    queries, passages = (np.load(folder / f"{name}.npy") for name in ("queries", "passages"))
    ids = [f"passage-{number}" for number in range(len(passages))]
    before, begin = peak_bytes(), time.process_time()
    found = (ours if side == SIDES[0] else theirs)(queries, passages, ids)
    return {
        "cpu_s": time.process_time() - begin,
        "beyond_mb": (peak_bytes() - before) / 1e6,
        "texts_encoded": found.pop("encoded", len(queries) + len(passages)),
        "figures": {str(edge): row for edge, row in sorted(found.items())},
    }


def peak_bytes() -> int:
    """The most this process held in memory so far; vectors are loaded without a second copy."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compare(passages: int, queries: int, rounds: int) -> dict[str, Any]:
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        draw_vectors(Path(folder), passages, queries)
        for _ in range(rounds):
            for side in SIDES:
                done = subprocess.run(
                    [sys.executable, __file__, "--side", side, "--folder", folder],
                    stdout=subprocess.PIPE, check=True, text=True, env={**os.environ, **one_thread},
                )  # fmt: skip
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    left, right = (runs[side][0]["figures"] for side in SIDES)
    return {
        "passages": passages,
        "queries": queries,
        "dimensions": sorted(EDGES),
        "sides": {
            side: {
                "cpu_s": [round(run["cpu_s"], 1) for run in rows],
                "beyond_mb": [round(run["beyond_mb"]) for run in rows],
                "texts_encoded": rows[0]["texts_encoded"],
                "ndcg@10": {edge: row["ndcg@10"] for edge, row in rows[0]["figures"].items()},
            }
            for side, rows in runs.items()
        },
        "times_faster": [
            round(plain["cpu_s"] / own["cpu_s"], 2)
            for own, plain in zip(*runs.values(), strict=True)
        ],
        "share_of_memory": [
            round(own["beyond_mb"] / plain["beyond_mb"], 3)
            for own, plain in zip(*runs.values(), strict=True)
        ],
        "largest_difference": max(
            abs(left[edge][name] - right[edge][name]) for edge in left for name in FIGURES
        ),
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['queries']} queries, {result['passages']} passages, dimensions "
        f"{', '.join(map(str, result['dimensions']))}; one thread",
        "| side | CPU s | MB beyond the vectors | texts encoded | nDCG@10 by dimension |",
        "|---|---|---|---|---|",
    ]
    for side, row in result["sides"].items():
        lines.append(
            f"| {side} | {mean(row['cpu_s']):.1f} | {mean(row['beyond_mb']):.0f} | "
            f"{row['texts_encoded']} | {', '.join(f'{v:.4f}' for v in row['ndcg@10'].values())} |"
        )
    lines.append(
        f"{' / '.join(map(str, result['times_faster']))} times faster, "
        f"{' / '.join(map(str, result['share_of_memory']))} of the memory; largest difference of "
        f"any figure {result['largest_difference']:.1e}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(options.side, options.folder)))
        return
    result = compare(options.passages, options.queries, options.rounds)
    print(json.dumps(result, indent=1) if options.json else table(result))


if __name__ == "__main__":
    main()
