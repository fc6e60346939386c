"""Exported models beside torch: passages per processor second, one query, cosine, nDCG@10 on dev.

    python benchmarks/export.py [MODEL] [--data BEIR_FOLDER] [--texts 300] [--rounds 3] [--json]

MODEL is exported to each form into a temporary folder (all-MiniLM-L6-v2 by default). The ways take
turns in one process, on one thread, and processor time is compared, so that load from elsewhere
hits all alike; the time of one query is its median. Texts are the passages of the data set, or
chunks of the demo's documents; without a data set there is no nDCG.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encode_speed import MODEL, measure, read_texts, smallest_cosine

FORMS = ("onnx", "onnx-int8", "openvino")
QUERIES = 40


def export_all(model: str, folder: Path) -> dict[str, Path]:
    """A folder for each graph and precision; OpenVINO's twice, as its precision is chosen on
    loading."""
    from embedtune.config import RunSettings
    from embedtune.embed.checks import CHECKSUMS, EXPORTED
    from embedtune.embed.onnx import has_bf16
    from embedtune.pipeline.console import Silent
    from embedtune.pipeline.exporting import export_into

    made = {}
    for form in FORMS:
        out = folder / form
        export_into(model, form, out, None, RunSettings(), Silent())
        made[form] = out
    openvino = {}
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        out = folder / f"openvino-{precision}"
        out.mkdir()
        for path in made["openvino"].iterdir():
            if path.name not in (EXPORTED, CHECKSUMS):
                (out / path.name).hardlink_to(path)
        said = json.loads((made["openvino"] / EXPORTED).read_text("utf-8"))
        (out / EXPORTED).write_text(json.dumps({**said, "precision": precision}), "utf-8")
        openvino[f"OpenVINO {precision}"] = out
    return {"ONNX fp32": made["onnx"], "ONNX int8": made["onnx-int8"], **openvino}


def one_query(ways: dict[str, Callable], queries: list[str]) -> dict[str, float]:
    """Median milliseconds of processor time, the ways taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for query in queries:
        for name, embed in ways.items():
            begin = time.process_time()
            embed([query])
            spent[name].append(1000 * (time.process_time() - begin))
    return {name: float(np.median(own)) for name, own in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=MODEL)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

    import torch

    from embedtune.embed.local import LocalEmbedder
    from embedtune.embed.onnx import OnnxEmbedder

    torch.set_num_threads(1)
    texts = read_texts(options.data / "corpus.jsonl" if options.data else None, options.texts)
    queries = [" ".join(text.split()[:8]) for text in texts[:QUERIES]]
    with tempfile.TemporaryDirectory(prefix="embedtune-") as scratch:
        folders = export_all(options.model, Path(scratch))
        own = LocalEmbedder(options.model, device="cpu")
        embedders = {
            "torch fp32": own,
            "torch bf16": LocalEmbedder(options.model, device="cpu", precision="bf16"),
            **{name: OnnxEmbedder(str(folder)) for name, folder in folders.items()},
        }

        def plain(texts: list[str]) -> np.ndarray:
            return own.model.encode(texts, show_progress_bar=False)

        ways = {"encode fp32": plain} | {
            name: lambda texts, one=one: one.embed(texts, "document")
            for name, one in embedders.items()
        }
        for run in ways.values():
            run(texts[:8])
        seconds, vectors = measure(
            {name: lambda run=run: run(texts) for name, run in ways.items()}, options.rounds
        )
        spent = one_query(ways, queries)
        dev = dev_scores(options.data, embedders) if options.data else {}
    base = seconds["encode fp32"]
    rows = {
        name: {
            "texts_per_second": len(texts) * options.rounds / sum(own),
            "ratio": sum(base) / sum(own),
            "ratios": [plain / one for plain, one in zip(base, own, strict=True)],
            "query_ms": spent[name],
            "smallest_cosine": smallest_cosine(vectors["encode fp32"], vectors[name]),
            "ndcg@10": dev.get("torch fp32" if name == "encode fp32" else name),
        }
        for name, own in seconds.items()
    }
    result = {"model": options.model, "texts": len(texts), "ways": rows}
    print(json.dumps(result) if options.json else table(result))


def dev_scores(data: Path, embedders: dict) -> dict[str, float]:
    """nDCG@10 on dev; every way encodes the whole data set for it."""
    from embedtune.config import RunSettings
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.pipeline.stored import load_given

    given = load_given(data, RunSettings().split)
    evaluator = Evaluator(given.data, RunSettings().evaluation, near_duplicates=given.twins)
    return {name: evaluator.score_embedder(one, "dev") for name, one in embedders.items()}


def table(result: dict) -> str:
    lines = [
        f"{result['model']}, {result['texts']} texts, one thread, processor time",
        "| way | texts a second | ratio | of the rounds | query, ms | smallest cosine | nDCG@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["ways"].items():
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        dev = "" if row["ndcg@10"] is None else f"{row['ndcg@10']:.4f}"
        lines.append(
            f"| {name} | {row['texts_per_second']:.1f} | {row['ratio']:.2f} | {spread} | "
            f"{row['query_ms']:.1f} | {row['smallest_cosine']:.5f} | {dev} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
