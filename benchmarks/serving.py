"""What the server makes of the rate that the model has without it, beside a naive server.

    python benchmarks/serving.py [MODEL] [--seconds 20] [--json]

For each load the offline rate is measured (our embedder alone, texts of the same lengths, in this
process, while the servers are idle). Then, at each server in turn, requests arrive at 50, 100 or
200 % of it, at the same random moments, which no answer delays (an open loop), for ``--seconds``.
Shown are texts answered a second until the last answer, the wait from arrival to answer (p50, p95,
p99) and the share refused or failed. The naive server is FastAPI with
``SentenceTransformer.encode`` in its route, as tutorials have it: the same weights, texts, arrivals
and number of threads.

Server and clients share this machine, so the clients cost some of the rate. A request holds
``--texts`` texts of 8 to 120 words.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedtune.embed import Embedder
from embedtune.embed.opening import open_embedder

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LOADS = (0.5, 1.0, 2.0)
PATIENCE = 30.0  # seconds until a client gives up
WORDS = (  # noqa: SIM905
    "the robot stops at night when its battery is low and the driver reports a fault code to the "
    "office which sends a grower out with a new pad for the arm before the shift ends in winter"
).split()


@dataclass(frozen=True, slots=True)
class Level:
    """One load. Seconds of answered requests; shares of all requests."""

    load: float
    offline: float  # texts a second, just before
    offered: float  # texts a second
    answered: float
    p50: float
    p95: float
    p99: float
    refused: float
    failed: float


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(8, 120))) for _ in range(count)]


def offline_rate(embedder: Embedder, seconds: float) -> float:
    """Texts a second of the embedder alone, in portions about as large as the server's."""
    given = texts(2000, 1)
    embedder.embed(given[:64], "document")
    done, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        first = done % 1900
        embedder.embed(given[first : first + 100], "document")
        done += 100
    return done / (time.perf_counter() - begin)


async def at_load(
    host: str, port: int, rate: float, load: float, *, seconds: float, size: int
) -> Level:
    """Poisson arrivals of ``load * rate`` texts a second in requests of ``size``."""
    draw = random.Random(load)
    given = texts(1000, 2)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    waits: list[float] = []
    outcomes: Counter[str] = Counter()

    async def request(arrival: float) -> None:
        body = json.dumps({"model": "model", "input": draw.sample(given, size)}).encode()
        try:
            async with asyncio.timeout(PATIENCE):
                while idle and idle[-1][0].at_eof():  # closed by the server meanwhile
                    idle.pop()[1].close()
                reader, writer = idle.pop() if idle else await asyncio.open_connection(host, port)
                writer.write(
                    b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
                    b"\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            outcomes["failed"] += 1
            return
        if b"connection: close" in head:
            writer.close()
        else:
            idle.append((reader, writer))
        status = head.split()[1].decode()
        if status == "200":
            outcomes["answered"] += 1
            waits.append(time.perf_counter() - arrival)
        else:
            outcomes["refused" if status in ("429", "503") else "failed"] += 1

    begin = time.perf_counter()
    arrival, tasks = begin, []
    while (arrival := arrival + draw.expovariate(load * rate / size)) < begin + seconds:
        await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
        tasks.append(asyncio.create_task(request(arrival)))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begin
    for _, writer in idle:
        writer.close()
    p50, p95, p99 = np.percentile(waits or [float("nan")], (50, 95, 99))
    return Level(
        load, rate, len(tasks) * size / seconds, outcomes["answered"] * size / took,
        float(p50), float(p95), float(p99),
        outcomes["refused"] / len(tasks), outcomes["failed"] / len(tasks),
    )  # fmt: skip


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Host and port of the server that ``command`` starts."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        host, _, port = json.loads(process.stdout.readline())["url"].split("/")[2].partition(":")
        yield host, int(port)
    finally:
        process.terminate()
        process.wait(40)


def serve_naively(model: str) -> None:
    """What most tutorials show."""
    import socket

    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    from embedtune.embed.models import resolve_model

    app = FastAPI()
    loaded = SentenceTransformer(str(resolve_model(model).path), device="cpu")

    class Request(BaseModel):
        input: list[str]
        model: str

    @app.post("/v1/embeddings")
    def embeddings(request: Request) -> dict[str, Any]:
        vectors = loaded.encode(request.input, normalize_embeddings=True)
        rows = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(vectors)]
        return {"data": rows}

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"}), flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
    server.run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=MODEL)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--texts", type=int, default=4, help="of a request")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.naive:
        serve_naively(options.model)
        return
    ours = [sys.executable, "-m", "embedtune", "serve", f"model={options.model}", "--port", "0",
            "--json", "--truncate"]  # fmt: skip
    naive = [sys.executable, __file__, options.model, "--naive"]
    embedder = open_embedder(options.model)
    result: dict[str, list[Level]] = {"embedtune": [], "naive": []}
    with started(ours) as first, started(naive) as second:
        for load in LOADS:
            rate = offline_rate(embedder, max(2.0, options.seconds / 4))
            for levels, (host, port) in zip(result.values(), (first, second), strict=True):
                work = at_load(host, port, rate, load, seconds=options.seconds, size=options.texts)
                levels.append(asyncio.run(work))
    if options.json:
        rows = {name: [asdict(level) for level in levels] for name, levels in result.items()}
        print(json.dumps({"model": options.model, "texts": options.texts, **rows}))
    else:
        show(result)


def show(result: dict[str, list[Level]]) -> None:
    for name, levels in result.items():
        print(f"{name}\n  load  offline  offered answered  of offline     p50     p95     p99"
              "  refused  failed")  # fmt: skip
        for own in levels:
            print(
                f"  {own.load:4.0%} {own.offline:6.0f}/s {own.offered:6.0f}/s {own.answered:6.0f}/s"
                f" {own.answered / own.offline:11.0%} {own.p50:7.3f} {own.p95:7.3f} {own.p99:7.3f}"
                f" {own.refused:8.1%} {own.failed:7.1%}"
            )
    print("embedtune / naive\n  load  answered     p50     p95")
    for own, other in zip(result["embedtune"], result["naive"], strict=True):
        print(
            f"  {own.load:4.0%} {own.answered / (other.answered or float('nan')):8.2f}x"
            f" {own.p50 / other.p50:6.2f}x {own.p95 / other.p95:6.2f}x"
        )


if __name__ == "__main__":
    main()
