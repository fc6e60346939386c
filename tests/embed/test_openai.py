"""The embeddings API against a real HTTP server on this machine that answers as told."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from embedtune.embed.openai import OpenAIEmbedder, parse_answer
from embedtune.errors import ConfigError, ServiceError


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(ord(text[0])), 1.0]


def good(texts: list[str]) -> dict:
    rows = [{"index": i, "embedding": vector_of(text)} for i, text in enumerate(texts)]
    return {"data": rows, "usage": {"prompt_tokens": 3}}


class Server(ThreadingHTTPServer):
    """``plan`` holds (status, headers, body) of the coming answers; after that good ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[tuple[int, dict[str, str], object]] = []
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers.get("authorization"))
        if self.server.plan:
            status, headers, answer = self.server.plan.pop(0)
        else:
            status, headers, answer = 200, {}, good(body["input"])
        if callable(answer):
            answer = answer(body["input"])
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"x-request-id": "req-7", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def embedder(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> OpenAIEmbedder:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    return OpenAIEmbedder("m-small", base_url=server.url, batch_size=2, sleep=waits.append)


def test_texts_go_in_batches_and_come_back_in_order(embedder, server):
    texts = ["a", "bb", "ccc", "d", "eeeee"]
    vectors = embedder.embed(texts, "document")
    assert vectors.tolist() == [vector_of(text) for text in texts]
    assert vectors.dtype == np.float32
    assert [request["input"] for request in server.requests] == [texts[:2], texts[2:4], texts[4:]]
    assert server.keys[0] == "Bearer sk-secret"
    assert embedder.dimension == 3
    assert embedder.name == f"openai:m-small at {server.url}"


def test_vectors_are_placed_by_index_and_base64_is_read(embedder, server):
    def answer(texts):
        rows = good(texts)["data"]
        for row in rows:
            packed = np.array(row["embedding"], dtype="<f4").tobytes()
            row["embedding"] = base64.b64encode(packed).decode()
        return {"data": rows[::-1]}

    server.plan = [(200, {}, answer)]
    assert embedder.embed(["a", "bb"], "query").tolist() == [vector_of("a"), vector_of("bb")]


def changed(**of_second: object):
    def answer(texts):
        rows = good(texts)
        rows["data"][1].update(of_second)
        return rows

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: good(texts[:1]), "1 vectors for 2 texts"),
        (lambda texts: good([*texts, "more"]), "3 vectors for 2 texts"),
        (changed(index=0), "item 1 has the index 0"),
        (changed(index=7), "item 1 has the index 7"),
        (changed(index="1"), "item 1 has the index '1'"),
        (changed(embedding=[1.0]), "different dimensions: [1, 3]"),
        (changed(embedding="not base64!"), "item 1 holds no vector"),
        (changed(embedding=None), "item 1 holds no vector"),
        (changed(embedding=["x", "y", "z"]), "item 1 holds no vector"),
        (changed(embedding=[1.0, float("nan"), 2.0]), "NaN or infinite"),
        (lambda texts: {"data": [1, 2]}, "item 0 is int instead of an object"),
        (lambda texts: {"error": "odd"}, "no list of embeddings"),
        (lambda texts: [1], "no list of embeddings"),
        (b"<html>Welcome</html>", "no list of embeddings: <html>Welcome"),
        (b"", "no list of embeddings"),
    ],
)
def test_an_answer_that_does_not_fit_stops_with_batch_and_request(
    embedder, server, answer, message
):
    embedder.embed(["x", "y"], "query")
    server.plan = [(200, {}, answer)]
    with pytest.raises(ServiceError) as caught:
        embedder.embed(["a", "bb"], "query")
    assert message in str(caught.value)
    assert "batch 1 of 1 (request req-7)" in str(caught.value)


def test_another_dimension_in_a_later_batch_is_found(embedder, server):
    wide = {"data": [{"index": i, "embedding": [1.0] * 5} for i in range(2)]}
    server.plan = [(200, {}, good), (200, {}, wide)]
    with pytest.raises(ServiceError, match=r"batch 2 of 2 .*different dimensions: \[3, 5\]"):
        embedder.embed(["a", "b", "c", "d"], "query")


def test_a_busy_server_is_asked_again_when_it_says(embedder, server, waits):
    server.plan = [(429, {"Retry-After": "7"}, {}), (503, {}, {}), (500, {}, {})]
    assert len(embedder.embed(["a"], "query")) == 1
    assert waits[0] == 7
    assert 1 <= waits[1] <= 1.25  # 0.5, 1, 2 … with jitter
    assert 2 <= waits[2] <= 2.5
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_ends_with_a_resumable_error(embedder, server, waits):
    server.plan = [(429, {}, {})] * 9
    with pytest.raises(ServiceError, match=r"answered 429 .* after 6 tries") as caught:
        embedder.embed(["a"], "query")
    assert len(server.requests) == 6
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "check the key in OPENAI_API_KEY"),
        (403, "check the key"),
        (404, "asked for the model 'm-small'"),
        (400, r"answered 400 \(no\)"),
    ],
)
def test_a_refusal_is_not_repeated_and_shows_no_key(embedder, server, waits, status, message):
    server.plan = [(status, {}, {"error": {"message": "no"}})]
    with pytest.raises(ServiceError, match=message) as caught:
        embedder.embed(["a"], "query")
    assert waits == []
    assert len(server.requests) == 1
    assert "sk-secret" not in str(caught.value)


def test_an_unreachable_server_is_named(waits):
    embedder = OpenAIEmbedder("m", base_url="http://127.0.0.1:9/v1", retries=1, sleep=waits.append)
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9: no connection .* after 2 tries"):
        embedder.embed(["a"], "query")
    assert len(waits) == 1


def test_dimensions_are_asked_for_and_part_of_the_name(server):
    embedder = OpenAIEmbedder("m", base_url=server.url, dimensions=3)
    embedder.embed(["a"], "query")
    assert server.requests[0]["dimensions"] == 3
    assert " 3d" in embedder.name


def test_model_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_BASE", "https://api.example.com/")
    with pytest.raises(ConfigError) as caught:
        OpenAIEmbedder()
    assert "EMBEDDING_MODEL" in caught.value.faults[0]
    assert "OPENAI_API_KEY is not set, and api.example.com" in caught.value.faults[1]
    monkeypatch.setenv("EMBEDDING_MODEL", "m-large")
    monkeypatch.setenv("MY_KEY", "k")
    embedder = OpenAIEmbedder(api_key_env="MY_KEY")
    assert embedder.name == "openai:m-large at https://api.example.com/v1"


def test_a_whole_answer_is_read_in_the_order_of_the_texts():
    rows = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]
    body = json.dumps({"data": rows})
    assert parse_answer(body, 2, None).tolist() == [[1, 2], [3, 4]]
