"""Questions from a language model: how fast, and what becomes of faults.

    python benchmarks/generation.py [--chunks 1000] [--rounds 3] [--json]

Speed: a server in another process answers after 300 ms, 64 requests at a time, and refuses more
with 429. Ideal is requests / 64 × 0.3 s. Beside `generate_queries` runs what tutorials show:
``asyncio.gather`` over the SDK's calls, as it is and held to 64 at a time. Ways alternate.
Faults: 30 % of the requests meet one of 22 kinds, on their first try or on every one.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat, Reply
from embedtune.queries import QuerySettings, generate_queries
from embedtune.records import Chunk
from embedtune.store import Store
from stub_server import FAULTS, Behaviour, StubServer

PLACES = 64
LATENCY = 0.3  # seconds
SHARE = 0.3  # of the requests that meet a fault
SYLLABLES = "ba do fi gu ka le mo nu pe ra si to vu wy za".split()  # noqa: SIM905


def make_chunks(count: int, sentences: int = 14) -> list[Chunk]:
    """Passages of some 65 characters a sentence in coined words, no two about the same."""
    chunks = []
    for number in range(count):
        draw = random.Random(number)
        words = ["".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(60)]
        text = " ".join(
            f"The {draw.choice(words)} of {draw.choice(words)} covers {draw.choice(words)} "
            f"{draw.choice(words)} and the {draw.choice(words)} of {draw.randrange(1900, 2100)}."
            for _ in range(sentences)
        )
        chunks.append(Chunk(f"c{number}", f"d{number}", 0, len(text), "", text, language="en"))
    return chunks


@contextmanager
def server():
    """The address of a stub in another process."""
    stub = Path(__file__).with_name("stub_server.py")
    process = subprocess.Popen(
        [sys.executable, str(stub), "--latency-ms", str(LATENCY * 1000), "--places", str(PLACES),
         "--reject"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


# ---- speed


class TimedChat(RecordedChat):
    """Notes the seconds between the first request and the last answer on disk."""

    seconds = 0.0

    def ask_all(self, *arguments: Any, **options: Any) -> list[Reply]:
        begin = time.perf_counter()
        try:
            return super().ask_all(*arguments, **options)
        finally:
            TimedChat.seconds = time.perf_counter() - begin


def ours(url: str, chunks: Sequence[Chunk]) -> int:
    """How many questions came: requests planned, asked, answers stored, read and checked."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "answers.sqlite") as store:
        chat = TimedChat(OpenAIChat("m", url), store, LLMSettings(concurrency=PLACES))
        return len(generate_queries(chunks, [], chat, QuerySettings(per_chunk=1)).queries)


def tutorial(at_most: int | None) -> Callable[[str, Sequence[Chunk]], int]:
    """The usual script; ``at_most`` requests at a time, or all at once."""

    def run(url: str, chunks: Sequence[Chunk]) -> int:
        import openai

        async def main() -> int:
            client = openai.AsyncOpenAI(base_url=url, api_key="k")
            places = asyncio.Semaphore(at_most or len(chunks))

            async def one(chunk: Chunk) -> str:
                prompt = f"1. question: Write a question about\n{chunk.text}\nas JSON."
                async with places:
                    answer = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": prompt}]
                    )
                return json.loads(answer.choices[0].message.content)["queries"][0]["query"]

            found = await asyncio.gather(*map(one, chunks), return_exceptions=True)
            await client.close()
            return sum(isinstance(question, str) for question in found)

        return asyncio.run(main())

    return run


ASKING = "of that, asking"
WAYS = {
    "embedtune": ours,
    f"gather, {PLACES} at a time": tutorial(PLACES),
    "gather, all at once": tutorial(None),
}


def speed(count: int, rounds: int) -> dict[str, dict[str, float]]:
    chunks = make_chunks(count)
    ideal = count / PLACES * LATENCY
    measured: dict[str, list[tuple[float, float, int]]] = {
        "embedtune": [], ASKING: [], **{name: [] for name in WAYS}
    }  # fmt: skip
    with server() as url:
        ours(url, chunks[:PLACES])  # imports and connections
        for _ in range(rounds):
            for name, way in WAYS.items():
                begin, cpu = time.perf_counter(), time.process_time()
                questions = way(url, chunks)
                cpu = time.process_time() - cpu
                measured[name].append((time.perf_counter() - begin, cpu, questions))
                if way is ours:
                    measured[ASKING].append((TimedChat.seconds, cpu, questions))
    return {
        name: {
            "seconds": statistics.median(seconds for seconds, _, _ in runs),
            "ratio": statistics.median(seconds for seconds, _, _ in runs) / ideal,
            "ratio_low": min(seconds for seconds, _, _ in runs) / ideal,
            "ratio_high": max(seconds for seconds, _, _ in runs) / ideal,
            "cpu_seconds": statistics.median(cpu for _, cpu, _ in runs),
            "questions": min(questions for _, _, questions in runs),
        }
        for name, runs in measured.items()
    }


# ---- faults


def faults(count: int, *, stubborn: bool) -> dict[str, object]:
    """What becomes of ``count`` chunks, of which a share meets a fault."""
    chunks = make_chunks(count)
    behaviour = Behaviour(
        latency=0.01, faults=SHARE, stubborn=stubborn, retry_after=0.05, trickle=0.2
    )
    with (
        StubServer(behaviour) as stub,
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "answers.sqlite") as store,
    ):
        settings = LLMSettings(concurrency=32, backoff=0.05, timeout=2, retries=3)
        if stubborn:  # rate limits for ever end a run, as they should
            behaviour.kinds = tuple(kind for kind in FAULTS if not kind.startswith("429"))
        chat = RecordedChat(OpenAIChat("m", stub.url), store, settings)
        found = generate_queries(chunks, [], chat, QuerySettings(per_chunk=2))
        kinds = sorted(set(stub.sent) & set(FAULTS))
        served = len(stub.served)
        twice = served - len(set(stub.served))
    asked = {query.chunk for query in found.queries}
    reasons = {reject.item: reject.code for reject in found.rejects}
    silent = [chunk.id for chunk in chunks if chunk.id not in asked and chunk.id not in reasons]
    codes = sorted({code for item, code in reasons.items() if item not in asked})
    return {
        "chunks": count,
        "kinds": len(kinds),
        "with_questions": len(asked),
        "with_a_reason_only": len(set(reasons) - asked),
        "neither": len(silent),
        "reasons": codes,
        "usable_answers": served,
        "paid_twice": twice,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {
        "ideal_seconds": options.chunks / PLACES * LATENCY,
        "speed": speed(options.chunks, options.rounds),
        "faults": {
            "first try only": faults(options.chunks, stubborn=False),
            "every try": faults(options.chunks, stubborn=True),
        },
    }
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{options.chunks} questions, {PLACES} places, {LATENCY * 1000:g} ms: ideal "
        f"{found['ideal_seconds']:.2f} s; median of {options.rounds} (least to most); load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n"
        f"{'':24}{'seconds':>9}{'ratio':>7}{'':>16}{'CPU s':>7}{'questions':>11}"
    )
    for name, row in found["speed"].items():
        spread = f"({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        print(
            f"{name:24}{row['seconds']:9.2f}{row['ratio']:7.2f}{spread:>16}"
            f"{row['cpu_seconds']:7.2f}{row['questions']:11}"
        )
    for name, row in found["faults"].items():
        print(
            f"\n{SHARE:.0%} faults of {row['kinds']} kinds, {name}: of {row['chunks']} chunks "
            f"{row['with_questions']} have questions, {row['with_a_reason_only']} a reason, "
            f"{row['neither']} neither;\n  {row['usable_answers']} usable answers served, "
            f"{row['paid_twice']} of them twice; reasons: {', '.join(row['reasons']) or 'none'}"
        )


if __name__ == "__main__":
    main()
