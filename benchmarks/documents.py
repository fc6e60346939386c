"""The whole run on real documents, with questions from the stub model over real HTTP.

    python benchmarks/documents.py [PATH …] [--out FOLDER] [--latency-ms 30] [--faults 0.1]

Without paths, the two PDF files beside the repository. The stub asks by rule, so the scores say
nothing about a model; what counts is that every stage works on real input and ends in a report.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stub_server import Behaviour, StubServer

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
PATHS = (DATA / "securities_law" / "law.pdf", DATA / "nvidia_10k" / "nvidia-10k-fy2023.pdf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="embedtune-documents-"))
    for path in options.paths or PATHS:
        behaviour = Behaviour(latency=options.latency_ms / 1000, faults=options.faults)
        with StubServer(behaviour) as stub:
            begin = time.monotonic()
            done = subprocess.run(
                [
                    sys.executable, "-m", "embedtune", "run", "--json",
                    "--set", f"documents.paths=[{json.dumps(str(path))}]",
                    "--set", f"run={out / path.stem}",
                    "--set", f"llm.base_url={stub.url}",
                    "--set", "llm.model=stub",
                    *(word for setting in options.set for word in ("--set", setting)),
                ],
                env={**os.environ, "OPENAI_API_KEY": "stub"}, stdout=subprocess.PIPE, check=False,
            )  # fmt: skip
        if done.returncode not in (0, 4):
            sys.exit(f"{path.name}: exit code {done.returncode}")
        found = json.loads(done.stdout)
        print(f"\n{path.name}: {found['verdict']}, exit code {done.returncode}, "
              f"{time.monotonic() - begin:.0f} s, report {found['report']}")  # fmt: skip
        for reason in found["reasons"]:
            print(f"  - {reason}")
        for system in found["systems"]:
            print(f"  {system['name']:14} nDCG@10 {system['metrics']['ndcg@10']:.3f}")


if __name__ == "__main__":
    main()
