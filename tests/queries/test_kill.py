"""Generation against a real server, killed and resumed: nothing lost, nothing paid twice."""

import json
import random
import subprocess
import sys
import time

import pytest

from embedtune.errors import ServiceError
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.queries import QuerySettings, generate_queries
from embedtune.records import Chunk
from embedtune.store import Store
from stub_server import Behaviour, StubServer

CONCURRENCY = 8
KILLS = 5
CHILD = """
import json, sys
from pathlib import Path
from embedtune.files import write_jsonl
from embedtune.errors import ServiceError
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.queries import QuerySettings, generate_queries
from embedtune.records import as_row, chunk_from_row
from embedtune.store import Store

folder, url = Path(sys.argv[1]), sys.argv[2]
chunks = [chunk_from_row(json.loads(line)) for line in (folder / "chunks.jsonl").open()]
with Store(folder / "store.sqlite") as store:
    settings = LLMSettings(concurrency=int(sys.argv[3]), backoff=0.05)
    chat = RecordedChat(OpenAIChat("m", url), store, settings)
    generation = generate_queries(chunks, [], chat, QuerySettings())
write_jsonl(folder / "queries.jsonl", map(as_row, generation.queries))
"""


def passages(count):
    words = "fee boots rule permit winter orchard ladder licence battery harvest".split()  # noqa: SIM905
    for number in range(count):
        order = random.Random(number)
        yield " ".join(
            f"The {order.choice(words)} number {number} covers {order.choice(words)} and the "
            f"{order.choice(words)} of year {order.randrange(1900, 2100)}." for _ in range(4)
        )  # fmt: skip


def chunks(count):
    return [
        Chunk(f"c{number}", f"d{number}", 0, len(text), "", text, language="en")
        for number, text in enumerate(passages(count))
    ]


def start(folder, url):
    folder.mkdir(exist_ok=True)
    rows = [{"id": c.id, "document": c.document, "start": c.start, "end": c.end, "text": c.text,
             "language": c.language} for c in chunks(150)]  # fmt: skip
    (folder / "chunks.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), url, str(CONCURRENCY)])


def test_killed_five_times_it_goes_on_and_ends_with_the_same_queries(tmp_path):
    with StubServer(Behaviour(latency=0.02, jitter=0.06)) as server:
        assert start(tmp_path / "calm", server.url).wait(60) == 0
        calm_bill = list(server.billed)
        del server.billed[:]
        order = random.Random(7)
        for _ in range(KILLS):
            child = start(tmp_path / "killed", server.url)
            enough = len(server.billed) + order.randrange(5, 25)
            while len(server.billed) < enough:
                assert child.poll() is None
                time.sleep(0.002)
            child.kill()
            child.wait()
        assert start(tmp_path / "killed", server.url).wait(60) == 0
        bill = list(server.billed)
    assert (tmp_path / "killed" / "queries.jsonl").read_bytes() == (
        tmp_path / "calm" / "queries.jsonl"
    ).read_bytes()
    assert len(calm_bill) == len(set(calm_bill)) == 150
    assert set(bill) == set(calm_bill)
    assert len(bill) - len(set(bill)) <= KILLS * CONCURRENCY


RETRIED = ("429", "429-seconds", "429-date", "500", "503", "reset", "empty-body", "html",
           "not-json", "no-choices", "no-content", "cut-body")  # fmt: skip


def run(folder, url, **settings):
    with Store(folder) as store:
        chat = RecordedChat(
            OpenAIChat("m", url), store, LLMSettings(backoff=0.02, timeout=2, **settings)
        )
        return generate_queries(chunks(60), [], chat, QuerySettings())


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    with StubServer() as server:
        return run(tmp_path_factory.mktemp("calm") / "s", server.url)


def test_faults_that_pass_leave_no_trace_in_the_queries(tmp_path, calm):
    with StubServer(Behaviour(faults=0.5, kinds=RETRIED, retry_after=0.1)) as server:
        generation = run(tmp_path / "s", server.url)
        assert set(server.sent) > {"answer", "500", "html"}
    assert generation.queries == calm.queries
    assert generation.usage is not None
    assert generation.usage.retries >= 10
    assert generation.usage.waits >= 1


def test_faults_that_stay_reject_their_chunks_and_nothing_else(tmp_path, calm):
    kinds = ("html", "not-json", "no-content", "refusal", "filtered", "length", "no-schema",
             "surrogate", "fenced", "bad-usage", "too-many", "too-few")  # fmt: skip
    with StubServer(Behaviour(faults=0.7, kinds=kinds, stubborn=True)) as server:
        generation = run(tmp_path / "s", server.url)
    codes = {reject.code for reject in generation.rejects}
    assert codes == {"html", "not-json", "no-content", "refusal", "content-filter", "cut",
                     "schema", "surplus"}  # fmt: skip
    assert generation.counts.accepted == len(generation.queries)
    assert any("repaired" in query.flags for query in generation.queries)
    for query in generation.queries:
        json.dumps(query.text, ensure_ascii=False).encode("utf-8")
    hit = {reject.item for reject in generation.rejects}
    plain = [query for query in calm.queries if query.chunk not in hit]
    assert {query.text for query in plain} >= {
        query.text for query in generation.queries if query.chunk not in hit and not query.flags
    }


def test_a_dead_service_ends_with_a_service_error_and_can_be_resumed(tmp_path, calm):
    with StubServer(Behaviour(faults=0.3, kinds=("500",), stubborn=True)) as server:
        server.behaviour.faults = 1.0
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1.*500.*later"):
            run(tmp_path / "s", server.url, retries=1)
        server.behaviour.faults = 0.0
        assert run(tmp_path / "s", server.url).queries == calm.queries
