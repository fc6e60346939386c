"""Each loss of the table, one epoch on real data of its format: its metric on dev before and after.

    python benchmarks/losses.py [--data DIR] [--loss NAME …] [--rows N] [--fresh] [--json]

Trained is all-MiniLM-L6-v2, made to read 64 tokens, through the same ``train()`` as the command, at
full dimension, with the defaults otherwise. Rows are drawn by seed, four times as many where a row
is a sentence or two. Of rows with passages one epoch has few steps: there the learning rate is 1e-4
and a batch 16 rows (32 for losses that live on large ones). Judged, on dev only:

- pairs (medquad) and triplets (medquad_triplets): nDCG@10 of the dev queries over their passages
  and 161 others; of triplets also the share whose passage is nearer than its negative;
- scored (STS-B, English): Spearman; scores cut at 0.6 for losses that want 0 or 1: average
  precision; rounded to fifths for classes;
- labelled (banking77): accuracy of the label of the nearest of the drawn train texts.

Guides and teachers are what is at hand without a network. The guide of ``gist`` is the base. The
student of ``embed_distill`` is the base cut to 3 of its 6 layers, its guide the whole base. For
want of a cross-encoder ``margin_mse`` and ``distill_kl`` are taught by the model that ``mnrl`` made
of the same triplets: its cosines over 0.05. Wrappers are judged by what they are for: 64 of the 384
dimensions, the first 3 layers, both. One thread; results are kept in .bench/losses.jsonl.
"""

import argparse
import copy
import functools
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedtune.datasets.beir import read_beir
from embedtune.datasets.formats import ScoredRow
from embedtune.datasets.source import read_source
from embedtune.embed.loading import load_sentence_transformer, prepare_threads
from embedtune.embed.local import LocalEmbedder, MemoryEmbedder
from embedtune.evaluation.evaluate import Evaluator
from embedtune.pipeline.material import examples_of, order_of_scores, training_pairs
from embedtune.records import RetrievalSet
from embedtune.relevance import Relevance, merge_qrels
from embedtune.similar import near_duplicates
from embedtune.training.examples import Examples, from_pairs
from embedtune.training.losses import LOSSES
from embedtune.training.options import ModelSettings
from embedtune.training.plan import TrainingSettings
from embedtune.training.train import train

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".bench"
NAME = "sentence-transformers/all-MiniLM-L6-v2"
BASE, STUDENT = KEPT / "base", KEPT / "student"
TOKENS = 64  # read of a text
SEED = 12
ROWS = 240  # passages of some 200 words
SHORT = 4  # times as many rows of a sentence or two
RATE, BATCH = 1e-4, 16
OTHERS = 161  # passages beside the 339 of the dev queries
CUT = 0.6  # scores from here on are 1, for losses that want 0 or 1
SCALE = 20.0  # a teacher's cosines times this: 1 / temperature
FEW_LAYERS, FEW_DIMENSIONS = 3, 64

Metrics = Mapping[str, Callable[[Any], float]]  # name -> a model's figure on dev


@dataclass(frozen=True, slots=True)
class Arm:
    """A line of the table."""

    loss: str
    data: str  # a key of ``MATERIAL``
    wrapper: str = ""
    short: bool = False  # judged with 64 dimensions
    shallow: bool = False  # judged with 3 layers

    @property
    def name(self) -> str:
        return f"{self.loss} + {self.wrapper}" if self.wrapper else self.loss

    @property
    def few(self) -> bool:
        return self.data in ("pairs", "triplets")

    @property
    def settings(self) -> TrainingSettings:
        large = LOSSES[self.loss].batches == "large"
        guided = self.loss in ("gist", "cached_gist", "embed_distill")
        return TrainingSettings(
            loss=self.loss,
            epochs=1,
            matryoshka=[384, 256, 128, FEW_DIMENSIONS] if self.short else "off",
            adaptive_layers=self.shallow,
            guide=str(BASE) if guided else None,
            teacher="mnrl" if self.loss in ("margin_mse", "distill_kl") else None,
            learning_rate=RATE if self.few else "auto",
            batch_size=BATCH * (1 + large) if self.few else "auto",
            evaluate_every=10**6,
            keep="last",
            seed=SEED,
        )


ARMS = (
    *(Arm(loss, "pairs") for loss in ("mnrl", "cached_mnrl", "gist", "cached_gist",
                                      "mega_batch_margin", "embed_distill")),
    Arm("mnrl", "pairs", "matryoshka", short=True),
    Arm("mnrl", "pairs", "adaptive_layers", shallow=True),
    Arm("mnrl", "pairs", "both (matryoshka2d)", short=True, shallow=True),
    *(Arm(loss, "triplets") for loss in ("mnrl", "triplet", "margin_mse", "distill_kl")),
    *(Arm(loss, "scored") for loss in ("cosent", "angle", "cosine")),
    Arm("softmax", "classes"),
    *(Arm(loss, "0 or 1") for loss in ("contrastive", "online_contrastive")),
    *(Arm(loss, "labelled") for loss in ("batch_hard", "batch_hard_soft_margin",
                                         "batch_semi_hard", "batch_all")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Material:
    """What an arm learns from and is judged by."""

    examples: Examples
    metrics: Metrics
    excluded: Callable[[str], frozenset[str]] = lambda query: frozenset()


def drawn(rows: Sequence[Any], count: int) -> list[Any]:
    return random.Random(SEED).sample(list(rows), min(count, len(rows)))


def vectors_of(model: Any) -> MemoryEmbedder:
    return MemoryEmbedder(model, "judged")


@functools.cache
def medquad(folder: Path) -> tuple[RetrievalSet, Callable[[Any], float]]:
    """The set, and nDCG@10 on dev over a part of its passages."""
    data = read_beir(folder / "medquad").data
    judged = {chunk for grades in data.qrels["dev"].values() for chunk in grades}
    others = drawn([chunk.id for chunk in data.chunks if chunk.id not in judged], OTHERS)
    chunks = tuple(chunk for chunk in data.chunks if chunk.id in judged | set(others))
    evaluator = Evaluator(replace(data, chunks=chunks, qrels={"dev": data.qrels["dev"]}))
    return data, lambda model: evaluator.score_embedder(vectors_of(model), "dev")


def pairs(folder: Path, rows: int) -> Material:
    data, ndcg = medquad(folder)
    near = near_duplicates([chunk.embedded for chunk in data.chunks])
    relevance = Relevance(data.queries, data.chunks, merge_qrels(data.qrels.values()), near)
    examples = from_pairs("medquad", drawn(training_pairs(data), rows))
    return Material(examples, {"nDCG@10": ndcg}, relevance.excluded)


def triplets(folder: Path, rows: int) -> Material:
    source = read_source(folder / "medquad_triplets")
    examples = examples_of("medquad_triplets", drawn(source.examples["train"], rows))
    barred: dict[str, set[str]] = {}  # query id -> chunks that answer it
    for pair in examples.pairs:
        barred.setdefault(pair.query, set()).add(pair.chunk)
    dev = source.examples["dev"]

    def nearer(model: Any) -> float:
        embedder = vectors_of(model)
        anchors = unit(embedder.embed([row.anchor for row in dev], "query"))
        own, other = (
            (anchors * unit(embedder.embed(texts, "document"))).sum(axis=1)
            for texts in ([row.positive for row in dev], [row.negatives[0] for row in dev])
        )
        return float((own > other).mean())

    metrics = {"triplets in order": nearer, "nDCG@10": medquad(folder)[1]}
    return Material(examples, metrics, lambda query: frozenset(barred[query]))


def scored(folder: Path, rows: int, kind: str) -> Material:
    source = read_source(folder / "stsb_en_zh" / "en")
    change = {
        "scored": lambda score: score,
        "0 or 1": lambda score: float(score >= CUT),
        "classes": lambda score: round(5 * score) / 5,
    }[kind]
    train_rows = [row for row in source.examples["train"] if isinstance(row, ScoredRow)]
    dev = [row for row in source.examples["dev"] if isinstance(row, ScoredRow)]
    examples = examples_of(
        "STS-B", [replace(row, score=change(row.score)) for row in drawn(train_rows, SHORT * rows)]
    )

    def precision(model: Any) -> float:
        from sklearn.metrics import average_precision_score

        embedder = vectors_of(model)
        one = unit(embedder.embed([row.sentence1 for row in dev], "query"))
        other = unit(embedder.embed([row.sentence2 for row in dev], "document"))
        return float(
            average_precision_score([row.score >= CUT for row in dev], (one * other).sum(axis=1))
        )

    if kind == "0 or 1":
        return Material(examples, {"average precision": precision})
    return Material(examples, {"Spearman": order_of_scores(dev)})


def labelled(folder: Path, rows: int) -> Material:
    source = read_source(folder / "banking77")
    known = drawn(source.examples["train"], SHORT * rows)
    dev = source.examples["dev"]

    def nearest(model: Any) -> float:
        embedder = vectors_of(model)
        index = unit(embedder.embed([row.text for row in known], "document"))
        asked = unit(embedder.embed([row.text for row in dev], "document"))
        best = (asked @ index.T).argmax(axis=1)
        return float(
            np.mean([known[n].label == row.label for n, row in zip(best, dev, strict=True)])
        )

    return Material(examples_of("banking77", known), {"1-NN accuracy": nearest})


MATERIAL: Mapping[str, Callable[[Path, int], Material]] = {
    "pairs": pairs,
    "triplets": triplets,
    **{kind: functools.partial(scored, kind=kind) for kind in ("scored", "classes", "0 or 1")},
    "labelled": labelled,
}


def unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def first_layers(model: Any) -> Any:
    """A copy of ``model`` with the first few layers alone."""
    import torch

    model = copy.deepcopy(model)
    encoder = model[0].model
    encoder.encoder.layer = torch.nn.ModuleList(encoder.encoder.layer[:FEW_LAYERS])
    encoder.config.num_hidden_layers = FEW_LAYERS
    return model


def figures(model: Any, arm: Arm, metrics: Metrics) -> dict[str, float]:
    """Of the whole model, and of the part that the arm's wrapper is for."""
    found = {name: metric(model) for name, metric in metrics.items()}
    if not arm.wrapper:
        return found
    part = first_layers(model) if arm.shallow else copy.copy(model)
    words = [f"{FEW_LAYERS} layers"] * arm.shallow + [f"{FEW_DIMENSIONS} dimensions"] * arm.short
    part.truncate_dim = FEW_DIMENSIONS if arm.short else None  # of the copy
    for name, metric in metrics.items():
        found[f"{name}, {', '.join(words)}"] = metric(part)
    return found


def make_bases() -> None:
    if STUDENT.is_dir():
        return
    base = load_sentence_transformer(NAME, device="cpu")
    base.max_seq_length = TOKENS
    base.save(str(BASE), create_model_card=False)
    first_layers(base).save(str(STUDENT), create_model_card=False)


def taught_by(folder: Path) -> Callable[[Sequence[str], Sequence[str]], Sequence[float]]:
    embedder = LocalEmbedder(str(folder), device="cpu")

    def scores(queries: Sequence[str], passages: Sequence[str]) -> Sequence[float]:
        one = unit(embedder.embed(queries, "query"))
        return (SCALE * (one * unit(embedder.embed(passages, "document"))).sum(axis=1)).tolist()

    return scores


def run(arm: Arm, data: Path, rows: int, untrained: dict[Any, dict[str, float]]) -> dict[str, Any]:
    """Train an arm; its line of the log. ``untrained`` keeps the figures of bases."""
    material = MATERIAL[arm.data](data, rows)
    base = str(STUDENT if arm.loss == "embed_distill" else BASE)
    teacher = KEPT / f"teacher-{rows}"
    if arm.settings.teacher and not teacher.is_dir():
        run(Arm("mnrl", "triplets"), data, rows, untrained)
    found: list[dict[str, float]] = []
    judging = 0.0

    def score(model: Any) -> float:
        nonlocal judging
        begin = time.process_time()
        if found:
            found.append(figures(model, arm, material.metrics))
        else:
            key = (base, arm.data, arm.short, arm.shallow)
            if key not in untrained:
                untrained[key] = figures(model, arm, material.metrics)
            found.append(untrained[key])
        judging += time.process_time() - begin
        return next(iter(found[-1].values()))

    begin = time.process_time()
    with tempfile.TemporaryDirectory(prefix="losses-") as work:
        trained = train(
            [material.examples],
            base,
            Path(work),
            excluded=material.excluded,
            score=score,
            settings=arm.settings,
            teacher=taught_by(teacher) if arm.settings.teacher else None,
            model_settings=ModelSettings(max_length=TOKENS),
        )
        seconds = time.process_time() - begin - judging
        if arm == Arm("mnrl", "triplets"):
            shutil.rmtree(teacher, ignore_errors=True)
            shutil.copytree(trained.model, teacher)
    before, after = found[0], found[-1]
    return {
        "loss": arm.name,
        "data": arm.data,
        "rows": rows,
        "steps": trained.plan.steps,
        "batch": trained.plan.batch_size,
        "seconds": round(seconds, 1),
        "scores": {name: [before[name], after[name]] for name in before},
    }


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| loss | data | steps × batch | metric on dev | before | after | CPU s |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for line in lines:
        for metric, (before, after) in line["scores"].items():
            first = metric == next(iter(line["scores"]))
            rows.append(
                f"| `{line['loss']}` | {line['data']} | {line['steps']} × {line['batch']} "
                f"| {metric} | {before:.3f} | {after:.3f} | {line['seconds']:.0f} |"
                if first
                else f"| | | | {metric} | {before:.3f} | {after:.3f} | |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--loss", nargs="+", help="only lines of these names")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prepare_threads()
    import torch

    torch.set_num_threads(1)
    KEPT.mkdir(exist_ok=True)
    log = KEPT / "losses.jsonl"
    if options.fresh:
        log.unlink(missing_ok=True)
    known = (
        [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    )
    done = {(line["loss"], line["data"]): line for line in known if line["rows"] == options.rows}
    make_bases()
    lines, untrained = [], {}
    for arm in ARMS:
        if options.loss and arm.name not in options.loss:
            continue
        key = (arm.name, arm.data)
        if key not in done:
            done[key] = run(arm, options.data, options.rows, untrained)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
        lines.append(done[key])
    print(json.dumps(lines) if options.json else table(lines))


if __name__ == "__main__":
    main()
