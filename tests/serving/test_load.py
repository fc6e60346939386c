"""V13: many clients at the same instant, each with its own texts; nobody gets another's vectors."""

import asyncio
import json
import time
from collections import Counter

import numpy as np

CONNECTIONS, EACH = 500, 10


async def client(server, stub, number, vector_of, outcomes) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for turn in range(EACH):
        texts = [f"client {number} turn {turn} text {n}" for n in range(1 + number % 4)]
        body = json.dumps({"model": "stub", "input": texts}).encode()
        writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
        answer = json.loads(await reader.readexactly(int(fields[b"content-length"])))
        status = int(head.split()[1])
        outcomes[status] += 1
        if status == 200:
            found = np.array([item["embedding"] for item in answer["data"]])
            right = np.abs(found - [vector_of(text) for text in texts]).max() < 1e-5
            outcomes["swapped"] += not right
        else:
            outcomes["no retry-after"] += not fields.get(b"retry-after", b"").isdigit()
            stub.gate.set()
            await asyncio.sleep(0.02)
    writer.close()


def test_v13_5000_requests_from_500_connections(serving, make_stub, vector_of):
    stub = make_stub()
    stub.fault = lambda texts: time.sleep(0.01)
    stub.gate.clear()  # until the queue is full, so that it fills on every machine
    outcomes: Counter = Counter()

    async def all_clients(server):
        await asyncio.gather(
            *(client(server, stub, number, vector_of, outcomes) for number in range(CONNECTIONS))
        )

    with serving(stub, queue_texts=600) as server:
        asyncio.run(all_clients(server))
        assert server.figure("embedtune_queue_texts", model="stub") == 0
        server.settle()
    assert outcomes.pop("swapped") == 0
    assert outcomes.pop("no retry-after") == 0
    assert set(outcomes) == {200, 429}
    assert outcomes.total() == CONNECTIONS * EACH
