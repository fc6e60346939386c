"""Train on each BEIR folder, compare on its test split, and print one table.

    python benchmarks/real_data.py DATA_DIR … [--out FOLDER] [--json]

Everything goes through the command line, as a user would. Models and comparisons are kept in
FOLDER (default: a temporary one), so that a stopped benchmark goes on. Without arguments the
data sets beside the repository are taken. A base that cannot read a data set's language is
trained on it all the same (``training.allow_unknown_tokens``): the point is to see the verdict.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = "sentence-transformers/all-MiniLM-L6-v2"
NAMES = ("nvidia_10k", "onet_jobs", "securities_law", "medquad")
METRIC = "ndcg@10"


def embedtune(*arguments: str) -> dict:
    """One command with --json; its messages go to standard error as they come."""
    done = subprocess.run(
        [sys.executable, "-m", "embedtune", *arguments, "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in (0, 4):
        sys.exit(f"embedtune {' '.join(arguments)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def measure(data: Path, base: str, out: Path) -> dict:
    """Train and compare on one data set."""
    model = out / data.name
    begin = time.monotonic()
    trained = embedtune(
        "train", "--data", str(data), "--base", base, "--out", str(model),
        "--set", "training.allow_unknown_tokens=true",
    )  # fmt: skip
    seconds = time.monotonic() - begin
    found = embedtune("compare", "--data", str(data), "--base", base, "--tuned", str(model))
    scores = {system["name"]: system["metrics"][METRIC] for system in found["systems"]}
    return {
        "data": data.name,
        "queries": found["queries"],
        "scores": scores,
        "verdict": found["verdict"],
        "reasons": found["reasons"],
        "difference": found["difference"]["base"],
        "alpha": trained["alpha"],
        "left_out": trained["left_out"],
        "notes": found["notes"],
        "train_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folders = options.data or [ROOT.parent / "shared" / "data" / name for name in NAMES]
    out = options.out or Path(tempfile.mkdtemp(prefix="embedtune-bench-"))
    out.mkdir(parents=True, exist_ok=True)
    rows = [measure(folder, options.base, out) for folder in folders]
    if options.json:
        print(json.dumps({"sets": rows}, ensure_ascii=False))
        return
    names = ("base", "bm25", "tuned", "tuned + bm25", "base + bm25")
    print(f"{METRIC} on test")
    print(
        f"{'data':16}"
        + "".join(f"{name:>14}" for name in names)
        + f"{'alpha':>7}{'train s':>9}  verdict"
    )
    for row in rows:
        cells = "".join(f"{row['scores'][name]:14.3f}" for name in names)
        cells += f"{row['alpha']:7.1f}{row['train_seconds']:9.0f}"
        print(f"{row['data']:16}{cells}  {row['verdict']}")
    for row in rows:
        print(f"\n{row['data']}: {row['verdict']} ({row['queries']} test queries)")
        for line in (*row["reasons"], *row["notes"]):
            print(f"  - {line}")


if __name__ == "__main__":
    main()
