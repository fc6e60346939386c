"""Generation killed a thousand times: nothing stored is lost, little is paid for twice.

    python benchmarks/kills.py [--kills 1000] [--progress FILE] [--write docs/proofs.md]

A process writes questions against a server in another one and is killed with SIGKILL at a random
moment; the next one goes on from the store, until the data set is whole and a new round begins
with an empty store. After each kill the store must hold every answer that was told to be in it,
and before; no more answers may have been paid for in vain than requests were in flight; and each
whole data set must be equal, byte for byte, to that of an undisturbed run.

A child is forked from this process, which has everything imported, so a kill costs a tenth of a
second. Rounds done stand in the progress file; the same command goes on from there.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads should not fork
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from embedtune.files import read_text, write_jsonl, write_text
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.queries import QuerySettings, generate_queries
from embedtune.records import Chunk, Progress, as_row, no_progress
from embedtune.store import Store
from generation import make_chunks

ROOT = Path(__file__).resolve().parent.parent
CHUNKS = 250  # of a round
CONCURRENCY = 8
LATENCY, JITTER = 5, 15  # milliseconds
LONGEST_LIFE = 0.4  # seconds; lives are of any length up to that
OWN = ("src/embedtune/llm", "src/embedtune/store.py")


@dataclass(frozen=True, slots=True)
class Round:
    """``repeated`` answers were paid for twice, ``most`` of them for one kill."""

    number: int
    kills: int
    answers: int
    lost: int
    repeated: int
    most: int
    identical: bool
    seconds: float
    commit: str


class Server:
    """The stub in another process, and its bill."""

    def __init__(self, folder: Path) -> None:
        log = folder / "bill.jsonl"
        log.touch()
        self._lines = log.open()
        self._billed: dict[str, list[str]] = {}
        stub = Path(__file__).with_name("stub_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(stub), "--latency-ms", str(LATENCY), "--jitter-ms", str(JITTER),
             "--log", str(log)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def billed(self, model: str) -> list[str]:
        """Requests of that model which were answered, once requests in flight have ended."""
        time.sleep(2 * (LATENCY + JITTER) / 1000)
        for row in map(json.loads, self._lines):
            self._billed.setdefault(row["model"], []).append(row["request"])
        return self._billed.get(model, [])

    def close(self) -> None:
        self._lines.close()
        self._process.terminate()
        self._process.wait()


def generate(
    folder: Path, chunks: Sequence[Chunk], url: str, model: str, progress: Progress = no_progress
) -> None:
    """The data set of ``chunks`` in ``folder``, from what its store has and the server gives."""
    with Store(folder / "answers.sqlite") as store:
        settings = LLMSettings(concurrency=CONCURRENCY, backoff=0.05)
        chat = RecordedChat(OpenAIChat(model, url), store, settings)
        generation = generate_queries(chunks, [], chat, QuerySettings(), progress)
    write_jsonl(folder / "queries.jsonl", map(as_row, generation.queries))


def begin(folder: Path, chunks: Sequence[Chunk], url: str, model: str) -> tuple[int, int]:
    """Fork a process that generates; its id, and where it tells how many answers are stored."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        generate(folder, chunks, url, model, lambda done, total: os.write(writer, b".") and None)
        code = 0
    finally:
        os._exit(code)


def end(child: int, reader: int, seconds: float) -> tuple[bool, int]:
    """(whether it had to be killed, how many answers it told of) of a life of ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise SystemExit(f"a process ended by itself with status {status}")
            break
        time.sleep(0.0005)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = 0
    told = 0
    while part := os.read(reader, 65_536):
        told += len(part)
    os.close(reader)
    return not found, told


def stored(folder: Path) -> set[str]:
    """Keys of the answers in the store."""
    path = folder / "answers.sqlite"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'answers'")
        if not found.fetchall():
            return set()
        (state,) = connection.execute("PRAGMA integrity_check").fetchone()
        if state != "ok":
            raise SystemExit(f"the store is damaged: {state}")
        return {key for (key,) in connection.execute("SELECT key FROM answers")}


def play(number: int, chunks: Sequence[Chunk], server: Server, calm: bytes, commit: str) -> Round:
    """One data set, killed until it is whole."""
    order = random.Random(number)
    began = time.monotonic()
    kills = lost = repeated = most = 0
    before: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), f"round-{number}"
        while True:
            child, reader = begin(folder, chunks, server.url, model)
            killed, told = end(child, reader, order.uniform(0, LONGEST_LIFE))
            if not killed:
                break
            kills += 1
            bill = server.billed(model)
            now = stored(folder)
            lost += len(before - now) + max(0, told - len(now))
            vain = len(bill) - len(now) - repeated  # answered, and not stored
            repeated, most, before = repeated + vain, max(most, vain), now
        bill = server.billed(model)
        identical = (folder / "queries.jsonl").read_bytes() == calm
        if len(set(bill)) != len(stored(folder)):
            lost += 1
    return Round(number, kills, len(set(bill)), lost, len(bill) - len(set(bill)), most, identical,
                 round(time.monotonic() - began, 1), commit)  # fmt: skip


def commit_now(*paths: str) -> str:
    """The commit checked out, with a mark if these parts of the package differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *paths)
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def prove(kills: int, progress: Path | None, commit: str) -> list[Round]:
    """Rounds with as many kills, those that stand in ``progress`` counted."""
    rounds = []
    if progress is not None and progress.exists():
        rounds = [Round(**json.loads(line)) for line in progress.read_text().splitlines()]
        rounds = [found for found in rounds if found.commit == commit]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder)
        try:
            chunks = make_chunks(CHUNKS, sentences=4)
            generate(folder, chunks, server.url, "calm")  # imports all that the children need
            calm = (folder / "queries.jsonl").read_bytes()
            while (done := sum(found.kills for found in rounds)) < kills:
                number = max((found.number for found in rounds), default=0) + 1
                rounds.append(play(number, chunks, server, calm, commit))
                if progress is not None:
                    progress.parent.mkdir(parents=True, exist_ok=True)
                    with progress.open("a") as file:
                        file.write(json.dumps(asdict(rounds[-1])) + "\n")
                done += rounds[-1].kills
                print(f"\r{done} of {kills} kills", end="", file=sys.stderr, flush=True)
        finally:
            server.close()
            print(file=sys.stderr)
    return rounds


def summary(rounds: Sequence[Round], commit: str) -> str:
    kills = sum(found.kills for found in rounds)
    repeated = sum(found.repeated for found in rounds)
    return (
        f"{kills:,} kills (SIGKILL) at random moments of writing {len(rounds)} data sets of "
        f"{CHUNKS} chunks each, {CONCURRENCY} requests in flight: "
        f"{sum(found.lost for found in rounds)} committed answers lost; {repeated:,} answers paid "
        f"for twice, {repeated / max(1, kills):.2f} a kill and at most "
        f"{max((found.most for found in rounds), default=0)} for one; "
        f"{sum(found.identical for found in rounds)} of {len(rounds)} data sets identical to an "
        f"undisturbed run's. {datetime.now(UTC):%Y-%m-%d}, commit {commit}, "
        f"{sum(found.seconds for found in rounds):,.0f} s."
    )


def put_section(page: Path, name: str, title: str, line: str, script: str) -> None:
    """Put a summary in its place in the page of proofs."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = read_text(page) if page.exists() else "# Proofs\n"
    section = f"{begin}\n## {title}\n\n{line}\n\n`python {script}`\n{end}"
    if begin in text:
        head, _, rest = text.partition(begin)
        text = head + section + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    write_text(page, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--progress", type=Path, help="where rounds done are kept")
    parser.add_argument("--write", type=Path, help="the page of proofs to put the summary into")
    options = parser.parse_args()
    commit = commit_now(*OWN)
    rounds = prove(options.kills, options.progress, commit)
    line = summary(rounds, commit)
    print(line)
    if options.write:
        put_section(options.write, "kills", "Generation survives being killed", line,
                    "benchmarks/kills.py")  # fmt: skip
    kept = all(found.identical and not found.lost and found.most <= CONCURRENCY for found in rounds)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
