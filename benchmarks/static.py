"""Static models beside BM25: untrained, trained, and fused, on folds over the judged documents.

    python benchmarks/static.py DATA [--folds 5] [--inductive] [--test] [--json]

The folds are of the train and dev queries; every passage is searched. A model is built from all
passages (transductive: their words, idf and cropped sentences), with ``--inductive`` without those
of the fold it is judged on. ``--test`` adds the last lines: trained on train and dev, judged on
test. One thread.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from embedtune.datasets.beir import read_beir
from embedtune.evaluation.metrics import score
from embedtune.records import Chunk, Query
from embedtune.relevance import Relevance, merge_qrels
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.fusion import fuse
from embedtune.retrieve.order import tie_breaker, tie_breakers
from embedtune.similar import near_duplicates
from embedtune.training.static import StaticSettings, build_static
from embedtune.training.warmup import cropped_pairs

STEPS = 60
RATE = 0.003
TEMPERATURE = 0.05
PULL = 6.0  # towards the start: this, times the squared way of all rows, over the pairs
CROPS = 300  # cropped sentences a step
BATCH = 512  # pairs a step, at most
METRICS = ("ndcg@10", "hit@5")


def train(
    model: Any,
    pairs: Sequence[tuple[str, int]],
    barred: Sequence[Sequence[int]],
    chunks: Sequence[Chunk],
    seed: int,
) -> None:
    """Every step: the ranking loss of pairs against all passages (masked), and of crops."""
    module, rng = model[0], np.random.default_rng(seed)
    crops = cropped_pairs(chunks, seed=seed)
    place = {chunk.id: row for row, chunk in enumerate(chunks)}
    weight = module.embedding.weight
    start = weight.detach().clone()
    optimizer = torch.optim.Adam([weight], lr=RATE)
    passages = model.preprocess([chunk.embedded for chunk in chunks])

    def vectors(features: Any) -> Any:
        found = module({**features})["sentence_embedding"]
        return torch.nn.functional.normalize(found, dim=1)

    for _ in range(STEPS):
        corpus = vectors(passages)
        picked = rng.permutation(len(pairs))[:BATCH]
        asked = vectors(model.preprocess([pairs[row][0] for row in picked]))
        scores = asked @ corpus.T / TEMPERATURE
        mask = torch.zeros_like(scores, dtype=torch.bool)
        for row, pair in enumerate(picked):
            mask[row, list(barred[pair])] = True
            mask[row, pairs[pair][1]] = False
        own = torch.tensor([pairs[row][1] for row in picked])
        loss = torch.nn.functional.cross_entropy(scores.masked_fill(mask, -math.inf), own)
        drawn = [crops[row] for row in rng.permutation(len(crops))[:CROPS]]
        if drawn:
            asked = vectors(model.preprocess([pair.anchor for pair in drawn]))
            rest = vectors(model.preprocess([pair.positive for pair in drawn]))
            own = torch.tensor([place[pair.chunk] for pair in drawn])
            scores = asked @ corpus.T / TEMPERATURE
            mine = (asked * rest).sum(dim=1, keepdim=True) / TEMPERATURE
            loss += torch.nn.functional.cross_entropy(scores.scatter(1, own[:, None], mine), own)
        loss += PULL / len(pairs) * (weight - start).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def rank(model: Any, queries: Sequence[Query], chunks: Sequence[Chunk]) -> list[list[str]]:
    found = model.encode([query.text for query in queries], normalize_embeddings=True)
    texts = [chunk.embedded for chunk in chunks]
    scores = found @ model.encode(texts, normalize_embeddings=True).T
    ties = tie_breakers([chunk.id for chunk in chunks])
    return [
        [chunks[place].id for place in np.lexsort((ties, -row))[:100]]
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
    place = {chunk.id: row for row, chunk in enumerate(known)}
    pairs, barred = [], []
    for id in training:
        for chunk, grade in qrels[id].items():
            if grade > 0 and chunk in place:
                pairs.append((queries[id].text, place[chunk]))
                barred.append([place[one] for one in relevance.excluded(id) if one in place])
    asked = [queries[id] for id in judged]
    lexical = BM25(data.chunks)
    rankings = {"bm25": [[hit.chunk for hit in lexical.search([q.text], 100)[0]] for q in asked]}
    model = build_static(
        [chunk.embedded for chunk in known], StaticSettings(seed=seed),
        queries=[queries[id].text for id in training],
    )  # fmt: skip
    rankings["untrained"] = rank(model, asked, data.chunks)
    train(model, pairs, barred, known, seed)
    rankings["trained"] = rank(model, asked, data.chunks)
    for name in ("untrained", "trained"):
        rankings[f"{name} + bm25"] = [
            [hit.chunk for hit in fuse([[(id, 0.0) for id in one] for one in both], k=10)]
            for both in zip(rankings["bm25"], rankings[name], strict=True)
        ]
    grades = [qrels[id] for id in judged]
    scored = {name: score(found, grades, METRICS) for name, found in rankings.items()}
    return {
        name: {metric: float(values.mean()) for metric, values in found.items()}
        for name, found in scored.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inductive", action="store_true")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    data = read_beir(options.data).data
    near = near_duplicates([chunk.embedded for chunk in data.chunks])
    qrels = merge_qrels([data.qrels[split] for split in ("train", "dev")])
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
    result = {"data": options.data.name, "folds": rows, "inductive": options.inductive}
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
            print(f"{part:6} {name:18} {cells}")


if __name__ == "__main__":
    main()
