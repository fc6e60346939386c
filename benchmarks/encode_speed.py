"""Encoding beside ``SentenceTransformer.encode``: processor seconds on one thread, and the vectors.

    python benchmarks/encode_speed.py [CORPUS] [--texts 300] [--rounds 3] [--json]

CORPUS is a ``corpus.jsonl`` with a "text" on each line; without it, chunks of the demo's documents.
The ways take turns in one process and processor time is compared, so that load from elsewhere hits
all alike. The speed of plain matrix products is measured beside them: how much bf16 gains over fp32
differs between machines (and with their load) more than anything else here.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def read_texts(corpus: Path | None, count: int) -> list[str]:
    """``count`` texts drawn from the file, or from the chunks of the demo."""
    if corpus is None:
        from embedtune.demo import HERE
        from embedtune.documents.chunk import ChunkSettings, chunk_documents
        from embedtune.documents.read import DocumentSettings, read_documents
        from embedtune.embed.tokens import load_tokens

        documents = read_documents([HERE / "corpus"], DocumentSettings()).documents
        chunks = chunk_documents(documents, load_tokens(MODEL), ChunkSettings()).chunks
        texts = [chunk.text for chunk in chunks]
    else:
        texts = [json.loads(line)["text"] for line in corpus.read_text("utf-8").splitlines()]
    random.Random(0).shuffle(texts)
    return texts[:count]


def measure(
    ways: dict[str, Callable[[], np.ndarray]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Processor seconds of each way and round, and the vectors of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {}
    for _ in range(rounds):
        for name, run in ways.items():
            begin = time.process_time()
            vectors[name] = run()
            seconds[name].append(time.process_time() - begin)
    return seconds, vectors


def peak(dtype) -> float:
    """GFLOP/s of the products of a layer, the best of ten."""
    import torch

    left, right = torch.randn(4096, 384).to(dtype), torch.randn(384, 1536).to(dtype)
    best = float("inf")
    for _ in range(10):
        begin = time.process_time()
        left @ right
        best = min(best, time.process_time() - begin)
    return 2 * 4096 * 384 * 1536 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

    import torch

    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import encode
    from embedtune.embed.packed import token_ids

    torch.set_num_threads(1)
    texts = read_texts(options.corpus, options.texts)
    model = load_sentence_transformer(MODEL, device="cpu")
    lengths = [len(ids) for ids in token_ids(model, texts, "document")]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "encode fp32": lambda: model.encode(texts, show_progress_bar=False),
        "ours fp32": lambda: encode(model, texts, "document"),
        "ours bf16": lambda: encode(model, texts, "document", precision="bf16"),
    }
    measure({name: run for name, run in ways.items() if name == "ours bf16"}, 1)  # warms up
    seconds, vectors = measure(ways, options.rounds)
    base = vectors["encode fp32"]
    result = {
        "texts": len(texts),
        "tokens": sum(lengths),
        "peak_gflops": {"fp32": peak(torch.float32), "bf16": peak(torch.bfloat16)},
        "ways": {
            name: {
                "texts_per_second": len(texts) * options.rounds / sum(spent),
                "ratio": sum(seconds["encode fp32"]) / sum(spent),
                "ratios": [
                    plain / one for plain, one in zip(seconds["encode fp32"], spent, strict=True)
                ],
                "smallest_cosine": smallest_cosine(base, vectors[name]),
            }
            for name, spent in seconds.items()
        },
    }
    result["ratio"] = result["ways"]["ours bf16"]["ratio"]
    result["smallest_cosine"] = result["ways"]["ours bf16"]["smallest_cosine"]
    print(json.dumps(result) if options.json else table(result))


def smallest_cosine(left: np.ndarray, right: np.ndarray) -> float:
    wide = [rows.astype(np.float64) for rows in (left, right)]
    norms = np.linalg.norm(wide[0], axis=1) * np.linalg.norm(wide[1], axis=1)
    return float(((wide[0] * wide[1]).sum(1) / norms).min())


def table(result: dict) -> str:
    peaks = result["peak_gflops"]
    lines = [
        f"{result['texts']} texts of {result['tokens'] / result['texts']:.0f} tokens; matrix "
        f"products: fp32 {peaks['fp32']:.0f}, bf16 {peaks['bf16']:.0f} GFLOP/s",
        "| way | texts per processor second | ratio | of the rounds | smallest cosine |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["ways"].items():
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        lines.append(
            f"| {name} | {row['texts_per_second']:.1f} | {row['ratio']:.2f} | {spread} | "
            f"{row['smallest_cosine']:.6f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
