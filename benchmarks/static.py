"""Static models beside BM25: untrained, trained, and fused, on folds over the judged documents.

    python benchmarks/static.py DATA [--folds 5] [--all] [--inductive] [--test] [--json]

The folds are of the train and dev queries, with ``--all`` of the test queries too (for the last
line alone: nothing may be chosen by it); every passage is searched. A model is built from all
passages (transductive: their words, idf and cropped sentences), with ``--inductive`` without those
of the fold it is judged on. ``--test`` adds the last lines: trained on train and dev, judged on
test. One thread.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from embedtune.datasets.beir import read_beir
from embedtune.embed.loading import load_sentence_transformer
from embedtune.evaluation.metrics import score
from embedtune.records import Chunk, Pair, Query
from embedtune.relevance import Relevance, merge_qrels
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.fusion import Fusion, fuse
from embedtune.retrieve.order import tie_breaker, tie_breakers
from embedtune.similar import near_duplicates
from embedtune.training.plan import TrainingSettings
from embedtune.training.static import StaticSettings, build_static
from embedtune.training.static_train import train_static

METRICS = ("ndcg@10", "hit@5")
FUSIONS = {"bm25": Fusion("ranks", k=10), "bm25 (scores)": Fusion("scores")}


def train(
    model: Any, pairs: Sequence[Pair], known: Sequence[Chunk], relevance: Relevance, seed: int
) -> Any:
    """As ``embedtune train --base static`` trains it, but dev is not looked at."""
    with TemporaryDirectory() as scratch:
        begin = Path(scratch) / "untrained"
        model.save(str(begin), create_model_card=False)
        trained = train_static(
            pairs, known, begin, Path(scratch),
            excluded=relevance.excluded,
            score=lambda model: 0.0,
            settings=TrainingSettings(seed=seed, keep="last", evaluate_every=10**9),
        )  # fmt: skip
        return load_sentence_transformer(str(trained.model), device="cpu")


def rank(
    model: Any, queries: Sequence[Query], chunks: Sequence[Chunk]
) -> list[list[tuple[str, float]]]:
    found = model.encode([query.text for query in queries], normalize_embeddings=True)
    texts = [chunk.embedded for chunk in chunks]
    scores = found @ model.encode(texts, normalize_embeddings=True).T
    ties = tie_breakers([chunk.id for chunk in chunks])
    return [
        [(chunks[place].id, float(row[place])) for place in np.lexsort((ties, -row))[:100]]
        for row in scores.astype(np.float64).round(6)
    ]


def measure(
    folder: Path, training: Sequence[str], judged: Sequence[str], known: Sequence[Chunk], seed: int,
    near: Sequence[tuple[int, int]],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """System -> metric -> mean; ``training`` and ``judged`` are ids of queries."""
    data = read_beir(folder).data
    qrels = merge_qrels(data.qrels.values())
    relevance = Relevance(data.queries, data.chunks, qrels, near)
    queries = {query.id: query for query in data.queries}
    there = {chunk.id: chunk.embedded for chunk in known}
    pairs = [
        Pair(id, chunk, queries[id].text, there[chunk])
        for id in training
        for chunk, grade in qrels[id].items()
        if grade > 0 and chunk in there
    ]
    asked = [queries[id] for id in judged]
    lexical = BM25(data.chunks)
    rankings = {"bm25": [[tuple(hit) for hit in lexical.search([q.text], 100)[0]] for q in asked]}
    model = build_static(
        [chunk.embedded for chunk in known], StaticSettings(seed=seed),
        queries=[queries[id].text for id in training],
    )  # fmt: skip
    rankings["untrained"] = rank(model, asked, data.chunks)
    rankings["trained"] = rank(train(model, pairs, known, relevance, seed), asked, data.chunks)
    for name in ("untrained", "trained"):
        for other, fusion in FUSIONS.items():
            rankings[f"{name} + {other}"] = [
                [tuple(hit) for hit in fuse(both, fusion)]
                for both in zip(rankings[name], rankings["bm25"], strict=True)
            ]
    grades = [qrels[id] for id in judged]
    scored = {
        name: score([[id for id, _ in one] for one in found], grades, METRICS)
        for name, found in rankings.items()
    }
    return {
        name: {metric: float(values.mean()) for metric, values in found.items()}
        for name, found in scored.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--inductive", action="store_true")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.all and options.test:
        parser.error("--all trains on test queries too; give --test without it")
    torch.set_num_threads(1)
    begin = time.monotonic()
    data = read_beir(options.data).data
    near = near_duplicates([chunk.embedded for chunk in data.chunks])
    splits = ("train", "dev", "test") if options.all else ("train", "dev")
    qrels = merge_qrels([data.qrels[split] for split in splits])
    document = {chunk.id: chunk.document for chunk in data.chunks}
    group = {query: min(document[chunk] for chunk in grades) for query, grades in qrels.items()}
    groups = sorted(set(group.values()), key=tie_breaker)
    fold = {name: place % options.folds for place, name in enumerate(groups)}
    found = []
    for number in range(options.folds):
        held = [query for query in qrels if fold[group[query]] == number]
        hidden = {group[query] for query in held} if options.inductive else set()
        known = [chunk for chunk in data.chunks if chunk.document not in hidden]
        training = [query for query in qrels if fold[group[query]] != number]
        found.append(measure(options.data, training, held, known, options.seed, near))
    rows = {
        name: {metric: mean(one[name][metric] for one in found) for metric in METRICS}
        for name in found[0]
    }
    result = {"data": options.data.name, "folds": rows, "inductive": options.inductive,
              "splits": splits}  # fmt: skip
    if options.test:
        judged = list(data.qrels["test"])
        result["test"] = measure(
            options.data, list(qrels), judged, data.chunks, options.seed, near
        )  # fmt: skip
    result["seconds"] = round(time.monotonic() - begin, 1)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for part in ("folds", "test"):
        for name, values in result.get(part, {}).items():
            cells = "  ".join(f"{metric} {value:.3f}" for metric, value in values.items())
            print(f"{part:6} {name:26} {cells}")


if __name__ == "__main__":
    main()
