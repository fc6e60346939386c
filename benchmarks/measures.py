"""Triplets, scores, labels: our figures beside those of sentence-transformers and scikit-learn.

    python benchmarks/measures.py [--data DIR] [--rows 300] [--json]

The vectors are those of all-MiniLM-L6-v2 without its last layer, which makes them as long as 1:
so cosine, dot product and the distances rank differently. Both sides get the same vectors, and what
is compared is what they make of them; scored pairs of equal vectors are left out. Dev rows of
medquad_triplets, of STS-B in both languages (as scores, and as labels cut at 0.6), and of
banking77, whose train rows are what neighbours and probe learn from. Exit code 1 where any figure
differs by more than a millionth.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.source import read_source
from embedtune.embed import Matrix, Similarity
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.labelled import knn_labels, probe_labels, silhouettes
from embedtune.evaluation.measures import SIMILARITIES
from embedtune.evaluation.scored import measure_labelled_pairs, measure_scored
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.triplets import measure_triplets
from embedtune.records import RetrievalSet, Role
from embedtune.store import content_key

ROOT = Path(__file__).resolve().parent.parent
NAME = "sentence-transformers/all-MiniLM-L6-v2"
CLOSE = 1e-6
CUT = 0.6  # scores from here on are 1, for labelled pairs
RANKED = ("ndcg@10", "mrr@10", "map@100", "accuracy@1", "accuracy@5", "precision@5", "recall@10")

Figures = Mapping[str, float]


class GivenVectors:
    """Vectors by text, as an embedder of ours and as a model of theirs."""

    name = "given vectors"
    max_tokens = 1_000_000
    similarity_fn_name = "cosine"
    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *told: None)

    def __init__(self, vectors: Mapping[str, Matrix], similarity: Similarity = "cosine") -> None:
        self.vectors, self.similarity = vectors, similarity
        self.dimension = len(next(iter(vectors.values())))

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        return np.stack([self.vectors[text] for text in texts])

    def encode(
        self, texts: Sequence[str], *, convert_to_tensor: bool = False,
        truncate_dim: int | None = None, **rest: Any,
    ) -> Any:  # fmt: skip
        import torch

        # in float32 their products would differ from ours in the seventh digit
        found = self.embed(texts, "document")[:, :truncate_dim].astype(np.float64)
        return torch.from_numpy(found) if convert_to_tensor else found

    encode_query = encode_document = encode


def their_ranking(
    model: GivenVectors, data: RetrievalSet, split: str, similarity: Similarity,
    dimension: int | None = None,
) -> Figures:  # fmt: skip
    """The figures of ``RANKED`` as InformationRetrievalEvaluator has them."""
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    functions = {"cosine": util.cos_sim, "dot": util.dot_score, "euclidean": util.euclidean_sim}
    evaluator = InformationRetrievalEvaluator(
        {query.id: query.text for query in data.queries_of(split)},
        {chunk.id: chunk.embedded for chunk in data.chunks},
        {query: set(grades) for query, grades in data.qrels[split].items()},
        accuracy_at_k=[1, 5],
        precision_recall_at_k=[5, 10],
        score_functions={similarity: functions[similarity]},
        write_csv=False,
        truncate_dim=dimension,
    )
    found = evaluator(model)
    return {name: float(found[f"{similarity}_{name}"]) for name in RANKED}


def our_ranking(
    model: GivenVectors, data: RetrievalSet, split: str, similarity: Similarity,
    dimension: int | None = None,
) -> Figures:  # fmt: skip
    found = {}
    for name in RANKED:
        settings = EvaluationSettings(
            metric=f"{similarity}_{name}", dimension=dimension or "full", probe="none"
        )
        evaluator = Evaluator(data, settings, embedder_of=lambda _: model)
        found[name] = evaluator.score_embedder(model, split)
    return found


def their_triplets(model: GivenVectors, rows: Sequence[PairRow]) -> Figures:
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    evaluator = TripletEvaluator(
        [row.anchor for row in rows],
        [row.positive for row in rows],
        [row.negatives[0] for row in rows],
        similarity_fn_names=list(SIMILARITIES),
        write_csv=False,
    )
    return _without_best(evaluator(model))


def our_triplets(model: GivenVectors, rows: Sequence[PairRow]) -> Figures:
    parts = [
        model.embed([row.anchor for row in rows], "query"),
        model.embed([row.positive for row in rows], "document"),
        model.embed([row.negatives[0] for row in rows], "document"),
    ]
    return measure_triplets(*parts, [row.anchor for row in rows], seed=None)[0]


def their_pairs(model: GivenVectors, rows: Sequence[ScoredRow], labels: bool) -> Figures:
    from sentence_transformers.sentence_transformer.evaluation import (
        BinaryClassificationEvaluator,
        EmbeddingSimilarityEvaluator,
    )

    sides = [row.sentence1 for row in rows], [row.sentence2 for row in rows]
    options = {"similarity_fn_names": list(SIMILARITIES), "write_csv": False}
    if labels:
        told = [int(row.score >= CUT) for row in rows]
        found = BinaryClassificationEvaluator(*sides, told, **options)(model)
        return _without_best({
            name: float(value)
            for name, value in found.items()
            if not name.endswith(("_mcc", "_precision", "_recall"))
        })  # fmt: skip
    evaluator = EmbeddingSimilarityEvaluator(*sides, [row.score for row in rows], **options)
    return _without_best({name: float(value) for name, value in evaluator(model).items()})


def our_pairs(model: GivenVectors, rows: Sequence[ScoredRow], labels: bool) -> Figures:
    left = model.embed([row.sentence1 for row in rows], "query")
    right = model.embed([row.sentence2 for row in rows], "document")
    scores = np.array([row.score for row in rows])
    groups = [row.sentence1 for row in rows]
    if labels:
        told = (scores >= CUT).astype(np.float64)
        return measure_labelled_pairs(left, right, told, groups, seed=None)[0]
    return measure_scored(left, right, scores, groups, seed=None)[0]


def _without_best(found: Mapping[str, float]) -> dict[str, float]:
    """Without the best of all similarities, which flatters."""
    return {name: v for name, v in found.items() if "max" not in name.split("_")}


def their_labels(
    model: GivenVectors, rows: Sequence[LabelledRow], train: Sequence[LabelledRow]
) -> Figures:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    known = normalize(model.encode([row.text for row in train]).astype(np.float64))
    asked = normalize(model.encode([row.text for row in rows]).astype(np.float64))
    labels, wanted = [row.label for row in train], [row.label for row in rows]
    centred = known - known.mean(axis=0)
    spread = np.sqrt(np.mean(np.square(centred)))
    probe = LogisticRegression(max_iter=500).fit(centred / spread, labels)
    neighbours = KNeighborsClassifier(10, metric="cosine", algorithm="brute").fit(known, labels)
    return {
        "knn_accuracy@10": float(neighbours.score(asked, wanted)),
        "probe_accuracy": float(probe.score((asked - known.mean(axis=0)) / spread, wanted)),
        "silhouette": float(silhouette_score(asked, wanted, metric="cosine")),
    }


def our_labels(
    model: GivenVectors, rows: Sequence[LabelledRow], train: Sequence[LabelledRow]
) -> Figures:
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    known_texts, known_labels = [row.text for row in train], [row.label for row in train]
    vectors, known = model.embed(texts, "document"), model.embed(known_texts, "document")
    nearest = knn_labels(vectors, texts, known, known_texts, known_labels, "cosine")
    told = probe_labels(known, known_labels, vectors, "cosine")
    widths = silhouettes(vectors, labels, "cosine")
    return {
        "knn_accuracy@10": float(np.mean([a == b for a, b in zip(nearest, labels, strict=True)])),
        "probe_accuracy": float(np.mean([a == b for a, b in zip(told, labels, strict=True)])),
        "silhouette": float(widths.mean()),
    }


# ---- the table


@dataclass(frozen=True, slots=True)
class Line:
    """One set and measure; ``figures``: name -> ours, theirs."""

    what: str
    rows: int
    figures: Mapping[str, tuple[float, float]]

    @property
    def gap(self) -> float:
        return max(abs(ours - theirs) for ours, theirs in self.figures.values())

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "rows": self.rows, "figures": dict(self.figures),
                "largest_difference": self.gap}  # fmt: skip


def line(what: str, rows: int, ours: Figures, theirs: Figures) -> Line:
    if ours.keys() != theirs.keys():
        raise SystemExit(f"{what}: figures of one side only: {sorted(ours.keys() ^ theirs.keys())}")
    return Line(what, rows, {name: (ours[name], theirs[name]) for name in sorted(ours)})


def spread_out(rows: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the rows, evenly spaced."""
    step = max(1, len(rows) / count)
    return [rows[int(place * step)] for place in range(min(count, len(rows)))]


def without_equal_vectors(model: GivenVectors, rows: Sequence[ScoredRow]) -> list[ScoredRow]:
    """To us such pairs are equally alike; the other side parts them by their last digit."""
    vectors = model.vectors
    return [row for row in rows if not np.allclose(vectors[row.sentence1], vectors[row.sentence2])]


def encoder() -> Callable[[Iterable[str]], Mapping[str, Matrix]]:
    from sentence_transformers import SentenceTransformer

    from embedtune.embed.loading import load_sentence_transformer, prepare_threads
    from embedtune.embed.local import MemoryEmbedder

    prepare_threads()
    whole = load_sentence_transformer(NAME, device="cpu")
    model = SentenceTransformer(modules=list(whole)[:2], device="cpu")  # transformer and pooling
    embedder = MemoryEmbedder(model, "MiniLM without normalising")

    def encode(texts: Iterable[str]) -> Mapping[str, Matrix]:
        distinct = sorted(set(texts), key=content_key)
        return dict(zip(distinct, embedder.embed(distinct, "document"), strict=True))

    return encode


def lines(folder: Path, count: int) -> Iterable[Line]:
    encode = encoder()
    triplets = read_source(folder / "medquad_triplets")
    rows = spread_out(triplets.examples["dev"], count)
    data = _only(triplets.data, rows)
    texts = [text for row in rows for text in (row.anchor, row.positive, *row.negatives)]
    model = GivenVectors(encode(texts))
    yield line("triplets (medquad)", len(rows), our_triplets(model, rows),
               their_triplets(model, rows))  # fmt: skip
    for similarity in ("cosine", "dot", "euclidean"):
        for dimension in (None, 128):
            shown = f"ranking by {similarity}" + (f", {dimension} dimensions" if dimension else "")
            arguments = (model, data, "dev", similarity, dimension)
            yield line(shown, len(rows), our_ranking(*arguments), their_ranking(*arguments))
    for language in ("en", "zh"):
        scored = spread_out(read_source(folder / "stsb_en_zh" / language).examples["dev"], count)
        model = GivenVectors(encode(t for row in scored for t in (row.sentence1, row.sentence2)))
        scored = without_equal_vectors(model, scored)
        for labels in (False, True):
            what = f"STS-B {language}, " + ("labelled pairs" if labels else "scored pairs")
            yield line(what, len(scored), our_pairs(model, scored, labels),
                       their_pairs(model, scored, labels))  # fmt: skip
    banking = read_source(folder / "banking77").examples
    dev, train = spread_out(banking["dev"], count), spread_out(banking["train"], 4 * count)
    model = GivenVectors(encode(row.text for row in (*dev, *train)))
    yield line("labelled texts (banking77)", len(dev), our_labels(model, dev, train),
               their_labels(model, dev, train))  # fmt: skip


def _only(data: RetrievalSet, rows: Sequence[PairRow]) -> RetrievalSet:
    """What the rows alone make of retrieval: their anchors, over their passages."""
    anchors = {row.anchor for row in rows}
    passages = {text for row in rows for text in (row.positive, *row.negatives)}
    chunks = tuple(chunk for chunk in data.chunks if chunk.text in passages)
    queries = tuple(query for query in data.queries if query.text in anchors)
    judged = {query.id: data.qrels["dev"][query.id] for query in queries}
    return RetrievalSet(data.name, chunks, queries, {"dev": judged})


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--rows", type=int, default=300, help="rows of each set")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    began = time.monotonic()
    found = []
    for own in lines(chosen.data, chosen.rows):
        found.append(own)
        if not chosen.json:
            print(f"{own.what} ({own.rows} rows), largest difference {own.gap:.1e}")
            for name, (ours, theirs) in own.figures.items():
                print(f"  {name:32} {ours:10.6f} {theirs:10.6f}")
    worst = max(own.gap for own in found)
    if chosen.json:
        print(json.dumps({"largest_difference": worst, "lines": [own.as_json() for own in found]}))
    else:
        print(f"largest difference {worst:.1e}, {time.monotonic() - began:.0f} s")
    return int(worst > CLOSE)


if __name__ == "__main__":
    sys.exit(main())
