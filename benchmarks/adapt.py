"""Adapters on the queries of a model taken as it is, as if its vectors came from a service.

    python benchmarks/adapt.py DATA_DIR [DATA_DIR …] [--model NAME] [--test] [--json]

For each data set in BEIR layout: the base, the best closed form, the best contrastive adapter and
lower ranks of the best, each chosen as ``embedtune adapt`` does (on dev, or over folds of train and
dev), and which of them it takes. Without ``--test`` the column is what they were chosen by. With it
each is fitted on train and measured once on test. Vectors are kept in .bench/adapt.sqlite.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from embedtune.adapt import fit
from embedtune.adapt.choose import IDENTITY
from embedtune.cli.console import Console
from embedtune.datasets.split import SplitSettings
from embedtune.embed.adapted import Adapter
from embedtune.evaluation.encoded import answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import parse_system
from embedtune.pipeline.adapter_choice import MOST_PAIRS, choose, gather, lesson_of
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.stored import load_given
from embedtune.retrieve.dense import nearest
from embedtune.store import Store

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / ".bench" / "adapt.sqlite"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
METRICS = ("ndcg@10", "hit@5")
DEPTH = 30


def measure(folder: Path, model: str, test: bool, store: Store) -> list[dict[str, Any]]:
    """A row for each kind and rank."""
    given = load_given(folder, SplitSettings())
    openers = Openers(store, Console(quiet=True))
    evaluator = Evaluator(given.data, near_duplicates=given.twins, embedder_of=openers.embedder)
    system = parse_system(model)
    asked = gather(evaluator, system, given)
    begin = time.monotonic()
    found = choose(asked, METRICS[0], None, Console(quiet=True))
    seconds = time.monotonic() - begin
    whole = lesson_of(asked, asked.train, MOST_PAIRS)

    def on_test(adapter: Adapter) -> dict[str, float]:
        encoded, answers = (
            encode(evaluator, system, "test"),
            answers_of(evaluator, "test", given.twins),
        )
        hits = nearest(
            adapter(encoded.asked), encoded.rows, answers.ids, DEPTH, similarity=encoded.similarity
        )
        values = {name: answers.values(hits.indices, name) for name in METRICS}
        return {name: sum(own.values()) / len(own) for name, own in values.items()}

    rows = []
    for trial in found.bests:
        recipe = trial.recipe
        rows.append({
            "data": folder.name, "kind": "base" if recipe == IDENTITY else recipe.kind,
            "rank": recipe.rank, "ridge": recipe.ridge, "temperature": recipe.temperature,
            "steps": recipe.steps, "strength": recipe.strength,
            "chosen": recipe == found.best.recipe, "on": found.on, "chosen by": trial.mean,
            **(on_test(fit(whole, recipe)) if test else {}), "seconds": seconds,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--test", action="store_true", help="measure on test too, once")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with Store(STORE) as store:
        rows = [
            row for folder in args.data for row in measure(folder, args.model, args.test, store)
        ]
    if args.json:
        print(json.dumps(rows))
        return
    print("| data | adapter | rank | strength | steps | chosen by | ndcg@10 | hit@5 | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        tested = " | ".join(f"{row[name]:.3f}" if name in row else "" for name in METRICS)
        print(f"| {row['data']} | {row['kind']} | {row['rank'] or 'all'} | {row['strength']:.1f} | "
              f"{row['steps'] or ''} | {row['chosen by']:.3f} | {tested} | "
              f"{'taken' if row['chosen'] else ''} |")  # fmt: skip
    for name in dict.fromkeys(row["data"] for row in rows):
        own = next(row for row in rows if row["data"] == name)
        print(f"{name}: chosen on {own['on']} in {own['seconds']:.0f} s")


if __name__ == "__main__":
    main()
