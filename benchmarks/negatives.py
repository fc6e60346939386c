"""Mined negatives: beside sentence-transformers', at scale, and what they do to training.

    python benchmarks/negatives.py compare [DATA …]    ours beside mine_hard_negatives
    python benchmarks/negatives.py hidden [DATA …]     judgements hidden: how many are mined?
    python benchmarks/negatives.py scale [--queries N --passages M]
    python benchmarks/negatives.py train [DATA …] [--arms "0;1;4"] [--seeds 1,2] [--log F]

``compare`` and ``hidden`` run every side in a process of its own, from texts to negatives, with the
same model in fp32, the same passages and the same number of negatives. ``scale`` mines from random
vectors around common centres. ``train`` holds out each third of the train and dev queries once (by
groups; test is not touched), trains on the others, and measures nDCG@10 on what was held out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
COUNT = 4
THEIRS = {
    "sentence-transformers": {},
    "sentence-transformers, relative_margin 0.05": {"relative_margin": 0.05},
}
OURS = {
    "embedtune": {},
    "embedtune, both": {"retriever": "both"},
    "embedtune, no ceiling": {"ceiling": None},
}
SIDES = (*OURS, *THEIRS)


# ---- compare


def load(folder: Path, hide: bool) -> tuple[Any, list[tuple[str, str]], set[tuple[str, str]]]:
    """A data set, its near-duplicates, and (query, passage) judgements taken out of train.

    With ``hide``, all splits are train, and a query keeps one of its relevant passages only.
    """
    from embedtune.datasets.beir import read_beir
    from embedtune.relevance import merge_qrels
    from embedtune.retrieve.order import tie_breaker
    from embedtune.similar import near_duplicates

    data = read_beir(folder).data
    ids = [chunk.id for chunk in data.chunks]
    twins = [(ids[a], ids[b]) for a, b in near_duplicates([c.embedded for c in data.chunks])]
    if not hide:
        return data, twins, set()
    merged, kept, hidden = merge_qrels(data.qrels.values()), {}, set()
    for query, grades in merged.items():
        relevant = sorted((id for id, grade in grades.items() if grade > 0), key=tie_breaker)
        kept[query] = {relevant[0]: 1}
        hidden |= {(query, id) for id in relevant[1:]}
    return replace(data, qrels={"train": kept}), twins, hidden


def mine(folder: Path, side: str, hide: bool) -> dict[str, Any]:
    """One side in this process: time and memory from texts to negatives, and what they are."""
    from sentence_transformers import SentenceTransformer

    from embedtune.embed.models import resolve_model

    data, twins, hidden = load(folder, hide)
    model = SentenceTransformer(str(resolve_model(BASE).path), device="cpu")
    model.encode(["warm"])
    before, begin, spent = memory(), time.monotonic(), time.process_time()
    with Peak() as peak:
        account, found = (ours if side in OURS else theirs)(data, twins, model, side)
    seconds, cpu = time.monotonic() - begin, time.process_time() - spent
    return {
        "side": side, "seconds": seconds, "cpu": cpu, "peak_mb": (peak.most - before) / 1e6,
        **verdict(folder, data, hidden, found), **account,
    }  # fmt: skip


def ours(data: Any, twins: Any, model: Any, side: str) -> tuple[dict[str, Any], Any]:
    from embedtune.datasets.mining import mine_negatives
    from embedtune.datasets.negatives import NegativeSettings, tally
    from embedtune.embed.local import MemoryEmbedder

    settings = NegativeSettings(method="hard", count=COUNT, **OURS[side])
    mining = mine_negatives(
        data, settings, near_duplicates=twins, embedder=MemoryEmbedder(model, BASE)
    )
    found: dict[str, list[str]] = {}

    def kept() -> Iterator[Any]:
        for one in mining.mined:
            found[one.query] = [negative.chunk for negative in one.negatives]
            yield one

    account = tally(mining, kept())
    return {"estimate": account.false_negative_rate, "lines": account.lines()}, found


def theirs(data: Any, twins: Any, model: Any, side: str) -> tuple[dict[str, Any], Any]:
    from sentence_transformers.util import mine_hard_negatives

    from datasets import Dataset

    texts = {chunk.id: chunk.embedded for chunk in data.chunks}
    ids: dict[str, str] = {}
    for id, text in texts.items():
        ids.setdefault(text, id)
    rows = [
        (query.id, query.text, texts[chunk])
        for query in data.queries_of("train")
        for chunk, grade in data.qrels["train"][query.id].items()
        if grade > 0
    ]
    mined = mine_hard_negatives(
        Dataset.from_dict(
            {"anchor": [row[1] for row in rows], "positive": [row[2] for row in rows]}
        ),
        model,
        corpus=list(texts.values()),
        num_negatives=COUNT,
        output_format="triplet",
        batch_size=32,
        verbose=False,
        **THEIRS[side],
    )
    of_text: dict[str, list[str]] = {}
    for query, text, _ in rows:
        of_text.setdefault(text, []).append(query)
    found: dict[str, list[str]] = {query: [] for query, _, _ in rows}
    for anchor, negative in zip(mined["anchor"], mined["negative"], strict=True):
        for query in of_text[anchor]:
            if ids[negative] not in found[query]:
                found[query].append(ids[negative])
    return {}, found


def verdict(folder: Path, data: Any, hidden: Any, found: Any) -> dict[str, Any]:
    """What the mined passages really are, by the judgements of all splits."""
    from embedtune.datasets.beir import read_beir
    from embedtune.relevance import merge_qrels
    from embedtune.similar import alike, normalise

    qrels = merge_qrels(read_beir(folder).data.qrels.values())
    text_of = {query.id: normalise(query.text) for query in data.queries}
    relevant: dict[str, set[str]] = {}  # by the query's text
    for query, grades in qrels.items():
        own = relevant.setdefault(text_of[query], set())
        own |= {chunk for chunk, grade in grades.items() if grade > 0}
    passages = {chunk.id: normalise(chunk.embedded) for chunk in data.chunks}
    held = {
        c for name, part in data.qrels.items() if name != "train" for g in part.values() for c in g
    }
    pairs = [(query, chunk) for query, chunks in found.items() for chunk in chunks]
    really = sum(chunk in relevant[text_of[query]] for query, chunk in pairs)
    near = sum(
        chunk not in relevant[text_of[query]]
        and any(alike(passages[chunk], passages[other]) for other in relevant[text_of[query]])
        for query, chunk in pairs
    )
    return {
        "negatives": len(pairs), "wanted": COUNT * len(found), "relevant": really, "near": near,
        "reserved": sum(chunk in held for _, chunk in pairs),
        "hidden": len(hidden), "hidden_mined": len(hidden & set(pairs)),
    }  # fmt: skip


class Peak:
    """The most anonymous memory (without mapped files) this process held meanwhile."""

    def __enter__(self) -> "Peak":
        self.most, self._stop = memory(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, memory())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.most = max(self.most, memory())


def memory(field: str = "RssAnon") -> int:
    """Bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def child(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(folders: Sequence[Path], sides: Sequence[str], hide: bool) -> None:
    for folder in folders:
        rows = [child("_mine", str(folder), side, "hide" if hide else "all") for side in sides]
        print(f"\n{folder.name}: {COUNT} negatives a query, {rows[0]['wanted']} in all")
        print(f"{'':45}{'s':>7}{'CPU s':>7}{'MB':>6}{'found':>7}{'relevant':>10}"
              f"{'near-dup.':>11}{'dev, test':>11}" + f"{'hidden mined':>14}" * hide)  # fmt: skip
        for row in rows:
            share = [
                100 * row[name] / max(1, row["negatives"])
                for name in ("relevant", "near", "reserved")
            ]
            cells = (
                f"{row['seconds']:7.1f}{row['cpu']:7.1f}{row['peak_mb']:6.0f}{row['negatives']:7}"
            )
            cells += f"{share[0]:9.2f}%{share[1]:10.2f}%{share[2]:10.1f}%"
            cells += f"{row['hidden_mined']:6} of {row['hidden']:4}" * hide
            print(f"{row['side']:45}{cells}")
        for row in rows:
            for line in row.get("lines", ()):
                print(f"  {row['side']}: {line}")


# ---- scale


class Synthetic:
    """An embedder of texts that begin with a number: a vector drawn around one of 1,000 centres."""

    name, max_tokens, similarity = "synthetic", 512, "cosine"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.centres = np.random.default_rng(0).normal(size=(1000, dimension)).astype(np.float32)

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        numbers = np.array([int(text.split()[0][1:]) for text in texts])
        seed = int(numbers[0]) * 2 + (role == "query") if len(numbers) else 0
        noise = np.random.default_rng(seed).standard_normal(
            (len(texts), self.dimension), np.float32
        )
        return self.centres[numbers % 1000] + 1.5 * noise


def scale(queries: int, passages: int, dimension: int) -> dict[str, Any]:
    from embedtune.datasets.mining import mine_negatives
    from embedtune.datasets.negatives import NegativeSettings, save_negatives
    from embedtune.records import Chunk, Query, RetrievalSet

    words = [f"word{number}" for number in range(5000)]
    draw = np.random.default_rng(1)

    def text(number: int, length: int) -> str:
        return f"p{number} " + " ".join(words[w] for w in draw.integers(0, 5000, length))

    chunks = tuple(Chunk(f"c{n}", f"d{n}", 0, 1, "", text(n, 60)) for n in range(passages))
    asked = tuple(Query(f"q{n}", text(n, 8)) for n in range(queries))
    qrels = {"train": {f"q{n}": {f"c{n}": 1} for n in range(queries)}}
    data = RetrievalSet("synthetic", chunks, asked, qrels)
    before, begin, spent = memory(), time.monotonic(), time.process_time()
    with Peak() as peak, tempfile.TemporaryDirectory() as folder:
        settings = NegativeSettings(method="hard", count=COUNT)
        mining = mine_negatives(data, settings, embedder=Synthetic(dimension), scratch=Path(folder))
        prepared = time.monotonic() - begin
        account = save_negatives(mining, Path(folder) / "negatives.jsonl")
    return {
        "queries": queries, "passages": passages, "dimension": dimension,
        "seconds": round(time.monotonic() - begin, 1), "prepared_s": round(prepared, 1),
        "cpu_s": round(time.process_time() - spent, 1),
        "records_mb": round(before / 1e6), "beyond_mb": round((peak.most - before) / 1e6),
        "peak_rss_mb": round(memory("VmHWM") / 1e6), "negatives": account.negatives,
        "matrix_gflop": round(2e-9 * queries * passages * dimension),
    }  # fmt: skip


# ---- train


def train(
    folder: Path, arms: Sequence[str], seeds: Sequence[int], folds: int, log: Path | None
) -> None:
    from embedtune.datasets.beir import read_beir
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings
    from embedtune.similar import near_duplicates

    data = read_beir(folder).data
    ids = [chunk.id for chunk in data.chunks]
    twins = [(ids[a], ids[b]) for a, b in near_duplicates([c.embedded for c in data.chunks])]
    known = {**data.qrels["train"], **data.qrels["dev"]}
    whole = replace(data, qrels={"train": known, "test": data.qrels["test"]})
    groups = Evaluator(whole, EvaluationSettings(), near_duplicates=twins).groups("train")
    sizes: dict[str, int] = {}
    for group in groups.values():
        sizes[group] = sizes.get(group, 0) + 1
    fold_of, filled = {}, [0] * folds
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for seed in seeds:
        for fold in range(folds):
            held = {query for query in known if fold_of[groups[query]] == fold}
            qrels = {
                "train": {query: known[query] for query in known if query not in held},
                "dev": {query: known[query] for query in held},
                "test": data.qrels["test"],
            }
            for arm in arms:
                key = {"data": folder.name, "arm": arm, "seed": seed, "fold": fold}
                row = next((row for row in logged(log) if key.items() <= row.items()), None)
                if row is None:
                    row = {**key, **train_once(replace(data, qrels=qrels), twins, arm, seed)}
                    if log:
                        with log.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                results[arm].append({**row, "queries": len(held)})
    print(f"\n{folder.name}: nDCG@10 on {len(known)} train and dev queries, each held out once a "
          f"seed ({len(seeds)} seeds)")  # fmt: skip
    print(f"{'negatives':28}{'base':>8}{'last':>8}{'best':>8}{'merged':>8}{'± seeds':>9}{'s':>7}")
    for arm, rows in results.items():
        mean_of = {
            name: [sum(r[name] * r["queries"] for r in part) / sum(r["queries"] for r in part)
                   for part in (rows[i : i + folds] for i in range(0, len(rows), folds))]
            for name in ("base", "last", "best", "merged")
        }  # fmt: skip
        spread = stdev(mean_of["merged"]) if len(seeds) > 1 else 0.0
        print(f"{arm:28}" + "".join(f"{mean(values):8.4f}" for values in mean_of.values())
              + f"{spread:9.4f}{mean(row['seconds'] for row in rows):7.0f}")  # fmt: skip


def logged(log: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.open()] if log and log.exists() else []


def train_once(data: Any, twins: Any, arm: str, seed: int) -> dict[str, float]:
    """``arm``: a number of hard negatives, then other settings, e.g. 4,retriever=bm25."""
    from embedtune.datasets.mining import mine_negatives
    from embedtune.datasets.negatives import NegativeSettings, attach_negatives
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import LocalEmbedder, MemoryEmbedder
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings
    from embedtune.records import Pair
    from embedtune.relevance import Relevance, merge_qrels
    from embedtune.training.examples import from_pairs
    from embedtune.training.merge import merge_curve
    from embedtune.training.plan import TrainingSettings
    from embedtune.training.train import train

    evaluator = Evaluator(data, EvaluationSettings(), near_duplicates=twins)

    def score(model: Any) -> float:
        return evaluator.score_embedder(MemoryEmbedder(model, "in training", "bf16"), "dev")

    texts = {chunk.id: chunk.embedded for chunk in data.chunks}
    pairs = [
        Pair(query.id, chunk, query.text, texts[chunk])
        for query in data.queries_of("train")
        for chunk, grade in data.qrels["train"][query.id].items()
        if grade > 0
    ]
    count, *others = arm.split(",")
    chosen = dict(other.split("=") for other in others)
    batch = chosen.pop("batch", "auto")
    if int(count):
        chosen = {name: None if value == "null" else value for name, value in chosen.items()}
        settings = NegativeSettings.model_validate({"method": "hard", **chosen, "count": count})
        embedder = LocalEmbedder(BASE, precision="bf16")
        mining = mine_negatives(data, settings, near_duplicates=twins, embedder=embedder)
        mined = {one.query: [n.chunk for n in one.negatives] for one in mining.mined}
        pairs = attach_negatives(pairs, mined, data.chunks)
    place = {chunk.id: number for number, chunk in enumerate(data.chunks)}
    relevance = Relevance(
        data.queries, data.chunks, merge_qrels(data.qrels.values()),
        [(place[one], place[other]) for one, other in twins],
    )  # fmt: skip
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            [from_pairs("train", pairs)], BASE, Path(folder),
            excluded=relevance.excluded, score=score,
            settings=TrainingSettings.model_validate({"seed": seed, "batch_size": batch}),
            corpus=evaluator.corpus_size,
        )  # fmt: skip
        seconds = time.monotonic() - begin
        original = load_sentence_transformer(BASE, device="cpu")
        tuned, scratch = (
            load_sentence_transformer(str(trained.model), device="cpu") for _ in range(2)
        )
    ends = {0.0: trained.base_score, 1.0: trained.best_score}
    curve = merge_curve(
        original, tuned, scratch,
        lambda model, alpha: ends[alpha] if alpha in ends else score(model),
    )  # fmt: skip
    return {
        "base": trained.base_score,
        "last": [row["dev"] for row in trained.history if "dev" in row][-1],
        "best": trained.best_score,
        "merged": max(point.dev for point in curve),
        "steps": trained.plan.steps,
        "seconds": seconds,
    }


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "_mine":
        _, _, folder, side, hide = sys.argv
        print(json.dumps(mine(Path(folder), side, hide == "hide")))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("compare", "hidden", "scale", "train"))
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--sides", default=";".join(SIDES), help="separated by semicolons")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--arms", default="0;1;4", help="separated by semicolons")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--log", type=Path, help="results are kept there, and not made again")
    options = parser.parse_args()
    sets = options.data or [DATA / "nvidia_10k", DATA / "medquad"]
    if options.what == "scale":
        print(json.dumps(scale(options.queries, options.passages, options.dimension), indent=1))
    elif options.what == "train":
        seeds = [int(seed) for seed in options.seeds.split(",")]
        for folder in sets:
            train(folder, options.arms.split(";"), seeds, options.folds, options.log)
    else:
        compare(sets, options.sides.split(";"), options.what == "hidden")


if __name__ == "__main__":
    main()
