"""The command as users start it: real clients, signals, and a stop that loses nothing."""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.embed.local import LocalEmbedder
from embedtune.embed.opening import open_embedder

STOPS = 50 if os.environ.get("PROVE") else 3
CLIENTS = 40
KEY = "key-for-the-tests"
TEXTS = ["the robot stops at night", "机器人电池费用", "dock"]


def started(process) -> dict:
    """What the command prints when it listens."""
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return json.loads(line)


def stopped(process, number: int = signal.SIGTERM) -> float:
    """Seconds until it ends, which it must with 0."""
    begin = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def forms(tiny_model, tiny_graph, tmp_path_factory):
    """Folders of one model with prompts: as it is, as a graph, and with adapters on both."""
    from embedtune.embed.adapted import Adapter, label_of, write_adapter

    parent, prompts = tmp_path_factory.mktemp("forms"), {"query": "how ", "document": "the "}
    made = {"prompted": shutil.copytree(tiny_model, parent / "prompted"),
            "graph": shutil.copytree(tiny_graph[0], parent / "graph")}  # fmt: skip
    change_json(made["prompted"] / "config_sentence_transformers.json", prompts=prompts)
    change_json(made["graph"] / "embedtune_onnx.json", prompts=prompts)
    (made["graph"] / "SHA256SUMS").unlink()  # of the description before the change
    draw = np.random.default_rng(0)
    down, up = (draw.normal(size=shape).astype(np.float32) for shape in ((32, 4), (4, 32)))
    for base in ("prompted", "graph"):
        folder = made[f"{base}-adapted"] = parent / f"{base}-adapted"
        folder.mkdir()
        facts = {"base": str(made[base]), "base_label": label_of(open_embedder(str(made[base]))),
                 "kind": "contrastive", "strength": 1.0, "metric": "ndcg@10", "dev_base": 0.5,
                 "dev": 0.6}  # fmt: skip
        write_adapter(folder, Adapter(down, up, "cosine"), facts)
    return made


def change_json(file, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")


@pytest.fixture(scope="module")
def served(child, tiny_model, forms, tmp_path_factory):
    """(address, folder of the model called docs, process)."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("served") / "model")
    others = [f"{name}={path}" for name, path in forms.items()]
    process = child("serve", f"docs={folder}", "hashing", *others, "--port", "0", "--json",
                    "--api-key-env", "SERVER_KEY", env={"SERVER_KEY": KEY})  # fmt: skip
    try:
        yield started(process)["url"], folder, process
        stopped(process, signal.SIGINT)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def expected(tiny_model):
    embedder = LocalEmbedder(str(tiny_model))
    return embedder.embed(TEXTS, "document")


def near(found, expected) -> bool:
    return np.abs(np.array(found) - expected).max() < 1e-5


# ---- clients


def test_the_openai_client(served, expected):
    import openai

    with openai.OpenAI(base_url=served[0], api_key=KEY, max_retries=0) as client:
        default = client.embeddings.create(model="docs", input=TEXTS)  # asks for base64
        assert near([item.embedding for item in default.data], expected)
        floats = client.embeddings.create(model="docs", input=TEXTS[1], encoding_format="float")
        assert near(floats.data[0].embedding, expected[1])
        # the robot stop ##s at night; seven characters; dock; two special tokens each
        assert default.usage.prompt_tokens == (6 + 2) + (7 + 2) + (1 + 2)
        assert {model.id for model in client.models.list()} >= {"docs", "hashing"}
        assert client.models.retrieve("docs").id == "docs"
        with pytest.raises(openai.NotFoundError, match="there is no 'other'"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.UnprocessableEntityError, match=r"input\[1\]") as caught:
            client.embeddings.create(model="docs", input=["a", ""])
        assert caught.value.param == "input"
    with (
        openai.OpenAI(base_url=served[0], api_key="wrong-key", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_langchain(served, expected):
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model="docs", base_url=served[0], api_key=KEY, check_embedding_ctx_length=False
    )
    assert near(embeddings.embed_documents(TEXTS), expected)
    assert near(embeddings.embed_query(TEXTS[0]), expected[0])


def test_llama_index(served, expected):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embedding = OpenAILikeEmbedding(model_name="docs", api_base=served[0], api_key=KEY)
    assert near(embedding.get_text_embedding_batch(TEXTS), expected)
    assert near(embedding.get_query_embedding(TEXTS[2]), expected[2])


def test_curl(served, expected):
    body = json.dumps({"model": "docs", "input": TEXTS}, ensure_ascii=False)
    done = subprocess.run(
        ["curl", "-sS", f"{served[0]}/embeddings", "-H", f"Authorization: Bearer {KEY}",
         "-H", "Content-Type: application/json", "-d", body],
        capture_output=True, check=True,
    )  # fmt: skip
    assert near([item["embedding"] for item in json.loads(done.stdout)["data"]], expected)


@pytest.mark.parametrize("name", ["prompted", "graph", "prompted-adapted", "graph-adapted"])
def test_each_form_of_a_model_gives_the_library_s_vectors(served, forms, name):
    """Over HTTP, in both roles, alone and together, as numbers and as base64."""
    library = open_embedder(str(forms[name]))
    expected = {role: library.embed(TEXTS, role) for role in ("query", "document")}
    assert np.abs(expected["query"] - expected["document"]).max() > 0.01
    with httpx2.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=30) as client:

        def ask(**body: object) -> dict:
            answer = client.post(f"{served[0]}/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        for role, vectors in expected.items():
            found = ask(model=f"{name}:{role}", input=TEXTS)
            assert near([item["embedding"] for item in found["data"]], vectors)
            packed = ask(model=name, input_type=role, input=TEXTS, encoding_format="base64")
            rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
                    for item in packed["data"]]  # fmt: skip
            assert near(rows, vectors)
            alone = [ask(model=f"{name}:{role}", input=text)["data"][0] for text in TEXTS]
            assert near([item["embedding"] for item in alone], vectors)
            # the prompt is a token of each text; two are special
            assert found["usage"]["prompt_tokens"] == (6 + 3) + (7 + 3) + (1 + 3)
        assert near(
            [item["embedding"] for item in ask(model=name, input=TEXTS)["data"]],
            expected["document"],
        )
        long = client.post(f"{served[0]}/embeddings", json={"model": name, "input": "robot " * 62})
        assert long.status_code == 422
        assert "65 tokens; the model reads 64" in long.json()["error"]["message"]


# ---- the command


def test_sighup_loads_a_new_version(served):
    url, folder, process = served
    headers = {"authorization": f"Bearer {KEY}"}
    read = lambda: httpx2.get(f"{url}/models/docs", headers=headers).json()["revision"]  # noqa: E731
    first = read()
    (folder / "modules.json").write_text((folder / "modules.json").read_text("utf-8") + "\n")
    process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 60
    while read() == first:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere/at/all"], "there is no such folder"),
        (["hashing", "hashing"], "named twice"),
        (["hashing", "--api-key-env", "NOT_THERE"], "NOT_THERE is not set"),
        (["hashing", "--set", "queue_texts=0"], "queue_texts"),
        (["hashing", "--set", "colour=red"], "known are"),
        (["hashing", "--host", "no.such.host.invalid"], "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_listens(command, arguments, told):
    done = command("serve", *arguments, "--port", "0")
    assert done.code == 2
    assert told in done.err
    assert done.out == ""


def test_a_taken_port_is_named(command):
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        port = own.getsockname()[1]
        done = command("serve", "hashing", "--port", port)
    assert done.code == 2
    assert f"port {port}" in done.err


# ---- V11


class Load:
    """Clients that ask without pause; what became of each request, by when it was sent."""

    def __init__(self, url: str) -> None:
        self.address = url.removeprefix("http://").removesuffix("/v1").split(":")
        self.signalled = float("inf")
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.thread.start()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        text = f"{number} " + "robot night " * 400
        body = json.dumps({"model": "hashing", "input": [text]}).encode()
        request = (
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        expected = HashingEmbedder().embed([text], "document")[0]
        expected /= np.linalg.norm(expected)
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self.address)
            except OSError:  # the port is closed
                return
            closed = False
            while not closed:
                writer.write(request)
                sent = time.monotonic()
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                    answer = await reader.readexactly(length)
                    outcome = head.split()[1].decode()
                    closed = b"connection: close" in head.lower()
                    if outcome == "200":
                        found = json.loads(answer)["data"][0]["embedding"]
                        outcome += "" if near(found, expected) else " with wrong vectors"
                    elif b"retry-after" not in head.lower():
                        outcome += " without retry-after"
                except (OSError, asyncio.IncompleteReadError) as error:
                    partial = getattr(error, "partial", b"")
                    outcome, closed = "cut" if partial else "no answer", True
                (self.before if sent < self.signalled else self.after)[outcome] += 1
            writer.close()


@pytest.fixture(scope="module")
def stops(prove) -> Iterator[Counter[str]]:
    """Counts over all stops, written down at the end."""
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    yield counts
    if os.environ.get("PROVE") and counts["stops"] == STOPS:
        prove(
            "server stops",
            "A stop loses no accepted request",
            f"{STOPS} stops (SIGTERM) of a server with {CLIENTS} clients that ask without pause: "
            f"of {counts['before']:,} requests sent before the signal {counts['200']:,} got their "
            f"own vectors, {counts['before'] - counts['200']:,} a 503 or 429 with Retry-After; "
            f"0 lost, 0 wrong vectors. All ended with 0, the slowest after "
            f"{counts['slowest'] / 1000:.1f} s.",
            time.monotonic() - begin,
            "tests/serving/test_process.py -k v11",
        )


@pytest.mark.parametrize("number", range(STOPS))
def test_v11_a_stop_under_load_loses_no_accepted_request(child, stops, number):
    process = child("serve", "hashing", "--port", "0", "--json")
    try:
        url = started(process)["url"]
        load = Load(url)
        end = time.monotonic() + 60
        while load.before["200"] < 2 * CLIENTS + 17 * number:
            assert time.monotonic() < end
            time.sleep(0.01)
        load.signalled = time.monotonic()
        process.send_signal(signal.SIGTERM)
        states = set()
        with httpx2.Client() as client:
            while process.poll() is None and time.monotonic() < load.signalled + 31:
                try:
                    answer = client.get(url.removesuffix("/v1") + "/readyz")
                    states.add(answer.status_code)
                except httpx2.TransportError:
                    break
        assert process.wait(30) == 0
        ended = time.monotonic()
        assert ended < load.signalled + 30
        load.thread.join(10)
        assert not load.thread.is_alive()
        assert states <= {200, 503}
        assert 503 in states
        assert set(load.before) <= {"200", "503", "429"}, load.before
        assert set(load.after) <= {"200", "503", "429", "no answer"}, load.after
        assert load.after["503"]
        stops.update(stops=1, before=load.before.total())
        stops["200"] += load.before["200"]
        stops["slowest"] = max(stops["slowest"], int(1000 * (ended - load.signalled)))
    finally:
        process.kill()
        process.communicate()


def test_an_index_answers_questions_at_the_chat_route(child, tmp_path):
    from embedtune.records import Chunk, content_id
    from embedtune.retrieve.index import prepare, update
    from embedtune.retrieve.stores import open_store
    from stub_server import Behaviour, StubServer

    text = "The night fee is 12 euros a shift."
    store, embedder = open_store(tmp_path / "index"), HashingEmbedder()
    prepare(store, embedder, source="hashing:256")
    update(store, [Chunk(content_id("c", text), "fees.md", 0, len(text), "", text)], embedder)
    store.close()
    with StubServer(Behaviour(answer=lambda body: "It is 12 euros [1].")) as upstream:
        process = child("serve", "hashing", "--index", tmp_path / "index", "--port", "0", "--json",
                        "--set", f"llm.base_url={upstream.url}", "--set", "llm.model=stub",
                        "--set", "queue_seconds=5")  # fmt: skip
        try:
            url = started(process)["url"]
            asked = {"role": "user", "content": "What is the night fee?"}
            body = {"model": "embedtune", "messages": [asked]}
            answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=30).json()
            assert "12 euros [1]" in answer["choices"][0]["message"]["content"]
            wrong = httpx2.post(f"{url}/chat/completions", json={"model": 1}, timeout=30)
            assert wrong.status_code == 422
            assert wrong.json()["error"]["param"] == "model"
            stopped(process)
        finally:
            process.kill()


# ---- in front of a service that cannot be tuned


def test_an_adapter_is_a_proxy_in_front_of_its_api(child, tmp_path, monkeypatch):
    """Queries are moved, documents come as the API gives them, and the API's key stays here."""
    import openai

    from embedtune.embed.adapted import Adapter, label_of, write_adapter
    from stub_server import DIMENSION, StubServer, embedding

    with StubServer() as api:
        monkeypatch.setenv("OPENAI_BASE_URL", api.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-service")
        draw = np.random.default_rng(1)
        down, up = (draw.normal(size=shape).astype(np.float32)
                    for shape in ((DIMENSION, 4), (4, DIMENSION)))  # fmt: skip
        base = open_embedder("openai:text-embedding-3-small")
        facts = {"base": "openai:text-embedding-3-small", "base_label": label_of(base),
                 "kind": "contrastive", "strength": 1.0, "metric": "ndcg@10", "dev_base": 0.5,
                 "dev": 0.6}  # fmt: skip
        folder = tmp_path / "adapter"
        folder.mkdir()
        write_adapter(folder, Adapter(down, up, "cosine"), facts)
        text = "How long does it take to charge? 充电要多久？"
        plain = np.array(embedding(text))
        moved = plain + plain @ down @ up
        moved /= np.linalg.norm(moved)
        process = child("serve", f"docs={folder}", "--port", "0", "--json", env={
            "OPENAI_BASE_URL": api.url, "OPENAI_API_KEY": "sk-of-the-service"})  # fmt: skip
        try:
            url = started(process)["url"]
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                for model, expected in (("docs", plain), ("docs:query", moved)):
                    answer = client.embeddings.create(model=model, input=text)
                    assert near(answer.data[0].embedding, expected), model
                assert np.abs(plain - moved).max() > 0.1
            stopped(process, signal.SIGTERM)
        finally:
            process.kill()
