"""Quality: what `embedtune train` makes of a data set by itself, beside the tutorials' recipes.

    python benchmarks/quality.py DATA_DIR… [--seeds 3] [--fresh] [--json]

nDCG@10 on the test split of a BEIR folder. Columns: the base model, BM25, recipe A of the tutorials
(multiple negatives ranking, batch 10, 2 epochs, learning rate 2e-5, no masking, last checkpoint),
recipe B (the same with Matryoshka, batch 32, 4 epochs), ours (the command with no setting but the
seed), ours with BM25 (reciprocal ranks). Every choice of ours is made on train and dev. Over 2,000
training pairs one seed, else ``--seeds``; the interval is 95 % by Student's t over seeds, and says
nothing about other queries.

Where the base cannot read the text (over 20 % of its tokens unknown), ours is the static model, and
the figures are means over 5 folds of the passages: each is test once, the others are train and dev.

A set that cannot be used costs the others nothing: its row has an error, and what could be measured
without training; the exit status is then 1. Each row is told on stderr as JSON when it is finished.

The recipes run in our engine: fp32, with all dropout, nothing masked (``--check-recipes`` runs the
library's trainer beside it). Their scores are kept in benchmarks/results/ by a digest of data,
recipe and seed; ``--fresh`` reruns them.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
LENGTH = 256  # tokens it reads of a text as it comes; the tutorials leave that alone
FOLDS = 5
ONE_SEED = 2000  # training pairs from which on one seed must do
COLUMNS = ("base", "bm25", "tutorial_a", "tutorial_b", "ours", "hybrid")
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "tutorial_a": {"batch_size": 10, "epochs": 2, "matryoshka": "off"},
    "tutorial_b": {"batch_size": 32, "epochs": 4, "matryoshka": "auto"},
}
USUAL: Mapping[str, Any] = {
    "loss": "mnrl", "learning_rate": 2e-5, "temperature": 0.05, "warmup": 0.1, "weight_decay": 0.0,
    "sampler": "random", "attention_dropout": True, "precision": "fp32", "device": "cpu",
    "keep": "last", "minutes": 0, "merge": "off",
}  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- a data set


def load(folder: Path) -> Any:
    """The data set as the command reads it, with near-duplicates and what must not be trained."""
    from embedtune.datasets.split import SplitSettings
    from embedtune.pipeline.stored import load_given

    return load_given(folder, SplitSettings())


def folds_of(given: Any, work: Path) -> list[Path]:
    """BEIR folders in which each fifth of the groups is test once."""
    from embedtune.datasets.beir import write_beir
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings
    from embedtune.relevance import merge_qrels
    from embedtune.retrieve.order import tie_breaker

    data = given.data
    known = merge_qrels(data.qrels.values())
    whole = replace(data, qrels={"test": known})
    group_of = Evaluator(whole, EvaluationSettings(), near_duplicates=given.twins).groups("test")
    members: dict[str, list[str]] = {}
    for query, group in group_of.items():
        members.setdefault(group, []).append(query)
    parts: list[list[str]] = [[] for _ in range(2 * FOLDS)]
    for group in sorted(members, key=lambda name: (-len(members[name]), tie_breaker(name))):
        min(parts, key=len).extend(members[group])
    folders = []
    for number in range(FOLDS):
        test = {*parts[number], *parts[FOLDS + number]}
        dev = set(parts[(number + 1) % FOLDS])  # half of the next fold
        qrels = {
            "train": {q: own for q, own in known.items() if q not in test and q not in dev},
            "dev": {q: own for q, own in known.items() if q in dev},
            "test": {q: own for q, own in known.items() if q in test},
        }
        folders.append(work / f"fold-{number}")
        write_beir(replace(data, qrels=qrels), folders[-1])
    return folders


def readable(given: Any) -> bool:
    from embedtune.embed.tokens import load_tokens
    from embedtune.pipeline.tune import unreadable

    return not unreadable(given.data.chunks, load_tokens(BASE), BASE)


# ---- the columns


def settings_of(**training: Any) -> Any:
    from embedtune.config import load_config

    return load_config(
        None, [f"training.{name}={json.dumps(value)}" for name, value in training.items()]
    )


def measure(folder: Path, systems: Sequence[str]) -> dict[str, float]:
    """nDCG@10 and hit@5 on test, by the name of the system."""
    from embedtune.cli.console import Console
    from embedtune.pipeline.models import evaluate_systems

    found = evaluate_systems(folder, "test", systems, settings_of(), Console(quiet=True))
    return {
        scores.name: {name: scores.metrics[name] for name in ("ndcg@10", "hit@5")}
        for scores in found.systems
    }


def ours(folder: Path, seed: int, work: Path, base: str) -> dict[str, Any]:
    """One run of `embedtune train` with no setting but the seed, and its scores on test."""
    from embedtune.cli.console import Console
    from embedtune.pipeline.models import train_into

    begin = time.monotonic()
    out = work / f"ours-{folder.name}-{seed}"
    trained = train_into(folder, base, out, settings_of(seed=seed), Console(quiet=True))
    seconds = time.monotonic() - begin
    scores = measure(folder, [f"ours={out}", f"hybrid=hybrid:{out}"])
    plan = trained.facts["plan"]
    say(f"  {folder.name}, seed {seed}: ours {scores['ours']['ndcg@10']:.4f}, hybrid "
        f"{scores['hybrid']['ndcg@10']:.4f} ({seconds:.0f} s; dev {trained.facts['dev']:.4f}, "
        f"learning rate {plan['learning_rate']:g}, {plan['epochs']:g} epochs, temperature "
        f"{plan['temperature']:g}, merged at {trained.facts['alpha']:g})")  # fmt: skip
    return {"seconds": seconds, **scores}


def tutorial(given: Any, recipe: str, seed: int) -> float:
    """A tutorial's recipe on the train split, scored on test."""
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings
    from embedtune.pipeline.material import training_pairs
    from embedtune.training.examples import from_pairs
    from embedtune.training.options import ModelSettings
    from embedtune.training.plan import TrainingSettings
    from embedtune.training.train import train

    # an id of its own for every text: nothing is known of false negatives
    pairs = [
        replace(pair, query=f"q{number}", chunk=f"c{number}")
        for number, pair in enumerate(training_pairs(given.data))
    ]
    settings = TrainingSettings.model_validate(
        {**USUAL, **RECIPES[recipe], "seed": seed, "evaluate_every": 10**9}
    )
    evaluator = Evaluator(given.data, EvaluationSettings(), near_duplicates=given.twins)
    with tempfile.TemporaryDirectory() as work:
        trained = train(
            [from_pairs("train", pairs)], BASE, Path(work), excluded=lambda query: frozenset(),
            score=lambda model: 0.5, settings=settings,
            model_settings=ModelSettings(max_length=LENGTH),
        )  # fmt: skip
        model = load_sentence_transformer(str(trained.model), device="cpu")
        return evaluator.score_embedder(MemoryEmbedder(model, recipe), "test")


def library_tutorial(given: Any, recipe: str, seed: int) -> float:
    """The same by SentenceTransformerTrainer itself."""
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses

    from datasets import Dataset
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings
    from embedtune.pipeline.material import training_pairs

    own = RECIPES[recipe]
    model = load_sentence_transformer(BASE, device="cpu")
    pairs = training_pairs(given.data)
    loss = losses.MultipleNegativesRankingLoss(model)
    if own["matryoshka"] != "off":
        loss = losses.MatryoshkaLoss(model, loss, [384, 256, 128, 64])
    with tempfile.TemporaryDirectory() as work:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=work, num_train_epochs=own["epochs"], warmup_steps=0.1, seed=seed,
                per_device_train_batch_size=own["batch_size"], learning_rate=2e-5, use_cpu=True,
                report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
            ),
            train_dataset=Dataset.from_dict(
                {"anchor": [pair.anchor for pair in pairs],
                 "positive": [pair.positive for pair in pairs]}
            ),
            loss=loss,
        ).train()  # fmt: skip
    evaluator = Evaluator(given.data, EvaluationSettings(), near_duplicates=given.twins)
    return evaluator.score_embedder(MemoryEmbedder(model, recipe), "test")


def kept(name: str, key: Mapping[str, Any], fresh: bool, make: Callable[[], float]) -> float:
    """A score of benchmarks/results, made where it is not there (or ``fresh``)."""
    text = json.dumps(key, sort_keys=True)
    file = KEPT / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if file.exists() and not fresh:
        return json.loads(file.read_text("utf-8"))["ndcg@10"]
    begin = time.monotonic()
    value = make()
    KEPT.mkdir(exist_ok=True)
    row = {"of": key, "ndcg@10": value, "seconds": round(time.monotonic() - begin, 1)}
    file.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
    say(f"  {name}: {value:.4f} ({row['seconds']:.0f} s)")
    return value


def digest_of(given: Any) -> str:
    """Of what training and test see."""
    data = given.data
    parts = [*sorted((chunk.id, chunk.embedded) for chunk in data.chunks),
             *sorted((query.id, query.text) for query in data.queries),
             json.dumps(data.qrels, sort_keys=True, default=dict)]  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


# ---- a row


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the mean; one value has none."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return float(t.ppf(0.975, len(values) - 1)) * spread


def row_of(folder: Path, seeds: int, fresh: bool, tutorials: bool, work: Path) -> dict[str, Any]:
    """The row, as far as the data set allows; with "error", why no further."""
    from embedtune.errors import EmbedtuneError

    say(f"{folder.name}")
    row: dict[str, Any] = {
        "data": folder.name, **dict.fromkeys(COLUMNS), "seconds": None, "seeds": None,
        "folds": None, "model": None, "hit@5": {}, "interval": {},
    }  # fmt: skip
    try:
        fill(row, folder, seeds, fresh, tutorials, work)
    except EmbedtuneError as error:
        row["error"] = str(error)
        say(f"  {folder.name}: {error}")
    say(json.dumps(row))
    return row


def fill(
    row: dict[str, Any], folder: Path, seeds: int, fresh: bool, tutorials: bool, work: Path
) -> None:
    from embedtune.errors import EmbedtuneError

    def means(rows: Sequence[Mapping[str, Any]], *systems: str) -> None:
        for name in systems:
            row[name] = statistics.mean(scores[name]["ndcg@10"] for scores in rows)
            row["hit@5"][name] = statistics.mean(scores[name]["hit@5"] for scores in rows)

    def untrained(folders: Sequence[Path]) -> None:
        means([measure(own, ["bm25", f"base={BASE}"]) for own in folders], "base", "bm25")

    try:
        given = load(folder)
    except EmbedtuneError:  # it cannot be trained on; perhaps measured
        untrained([folder])
        raise
    can_read = readable(given)
    pairs = sum(map(len, given.data.qrels.get("train", {}).values()))
    chosen = range(1, 1 + (1 if pairs > ONE_SEED else seeds))
    folders = [folder] if can_read else folds_of(given, work / folder.name)
    base = BASE if can_read else "static"
    row |= {"seeds": len(chosen) if can_read else 1, "folds": len(folders), "model": base}
    untrained(folders)
    runs = [
        ours(own, seed, work, base)
        for own in folders
        for seed in (chosen if can_read else chosen[:1])
    ]
    means(runs, "ours", "hybrid")
    row["seconds"] = round(statistics.mean(run["seconds"] for run in runs), 1)
    row["interval"]["ours"] = interval([run["ours"]["ndcg@10"] for run in runs])
    if can_read and tutorials:
        for recipe, settings in RECIPES.items():
            values = [
                kept(f"{recipe}-{folder.name}-{seed}",
                     {"data": digest_of(given), "recipe": {**USUAL, **settings}, "seed": seed,
                      "base": BASE}, fresh, lambda r=recipe, s=seed: tutorial(given, r, s))
                for seed in chosen
            ]  # fmt: skip
            row[recipe] = statistics.mean(values)
            row["interval"][recipe] = interval(values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="run the recipes again")
    parser.add_argument("--no-tutorials", action="store_true", help="ours alone")
    parser.add_argument("--check-recipes", action="store_true", help="recipes by the library too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.check_recipes:
        for folder in given.data:
            data = load(folder)
            for recipe in RECIPES:
                pairs = [(tutorial(data, recipe, seed), library_tutorial(data, recipe, seed))
                         for seed in range(1, given.seeds + 1)]  # fmt: skip
                print(f"{folder.name} {recipe}: in our engine "
                      f"{[round(one, 4) for one, _ in pairs]}, by the library "
                      f"{[round(other, 4) for _, other in pairs]}")  # fmt: skip
        return 0
    with tempfile.TemporaryDirectory() as work:
        rows = [row_of(folder, given.seeds, given.fresh, not given.no_tutorials, Path(work))
                for folder in given.data]  # fmt: skip
    failed = int(any("error" in row for row in rows))
    if given.json:
        print(json.dumps({"sets": rows}))
        return failed
    print(f"{'nDCG@10 on test':20}" + "".join(f"{name:>12}" for name in COLUMNS) + f"{'s':>8}")
    for row in rows:
        cells = "".join(f"{'–':>12}" if row[name] is None else f"{row[name]:12.4f}"
                        for name in COLUMNS)  # fmt: skip
        if "error" in row:
            print(f"{row['data']:20}{cells}{'–':>8}  {row['error']}")
            continue
        about = f"{row['seeds']} seeds" if row["folds"] == 1 else f"{row['folds']} folds, static"
        half = row["interval"]["ours"]
        around = "" if half is None else f", ours ± {half:.4f}"
        print(
            f"{row['data']:20}{cells}{row['seconds']:8.0f}  {about}{around}, "
            f"hit@5 of hybrid {row['hit@5']['hybrid']:.3f}"
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
