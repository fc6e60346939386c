"""What the server makes of the rate that the model has without it, beside a naive server.

    python benchmarks/serving.py [MODEL] [--seconds 20] [--json]

For each server in turn: the offline rate is measured (the embedder alone, the same texts, in this
process, before the server starts), then requests arrive at 50, 100 and 200 % of it, at random
moments that no answer delays (an open loop), for ``--seconds`` each. Shown are texts answered a
second, the wait from arrival to answer (p50, p95, p99) and the share refused or failed. The naive
server is FastAPI with ``SentenceTransformer.encode`` in its route, as tutorials have it.

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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

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


def offline_rate(model: str, seconds: float) -> float:
    """Texts a second of the embedder alone, in portions as large as the server's."""
    from embedtune.embed.opening import open_embedder

    embedder = open_embedder(model)
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
        load, len(tasks) * size / seconds, outcomes["answered"] * size / took,
        float(p50), float(p95), float(p99),
        outcomes["refused"] / len(tasks), outcomes["failed"] / len(tasks),
    )  # fmt: skip


def measured(command: Sequence[str], model: str, seconds: float, size: int) -> dict[str, Any]:
    """Offline rate, then each load against the server that ``command`` starts."""
    rate = offline_rate(model, max(5.0, seconds / 2))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        address = json.loads(process.stdout.readline())["url"].split("/")[2]
        host, _, port = address.partition(":")
        levels = [
            asyncio.run(at_load(host, int(port), rate, load, seconds=seconds, size=size))
            for load in LOADS
        ]
    finally:
        process.terminate()
        process.wait(40)
    return {"offline_texts_per_second": rate, "levels": [asdict(level) for level in levels]}


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
    result = {
        name: measured(command, options.model, options.seconds, options.texts)
        for name, command in (("embedtune", ours), ("naive", naive))
    }
    if options.json:
        print(json.dumps({"model": options.model, "texts": options.texts, **result}))
        return
    for name, found in result.items():
        rate = found["offline_texts_per_second"]
        print(f"{name}: offline {rate:,.0f} texts/s")
        print("  load   offered  answered  of offline     p50      p95      p99  refused  failed")
        for own in found["levels"]:
            print(
                f"  {own['load']:4.0%}  {own['offered']:7.0f}/s {own['answered']:7.0f}/s "
                f"{own['answered'] / rate:9.0%}  {own['p50']:8.3f} {own['p95']:8.3f} "
                f"{own['p99']:8.3f}  {own['refused']:6.1%}  {own['failed']:6.1%}"
            )


if __name__ == "__main__":
    main()
