"""Cohere's embeddings against a real HTTP server on this machine; what a service may cost."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from embedtune.embed.cohere import CohereEmbedder, find_cohere
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.embed.remote import EmbeddingSettings, Purse
from embedtune.errors import ConfigError, ServiceError
from embedtune.store import Store


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(ord(text[0])), 1.0]


def good(texts: list[str]) -> dict:
    return {
        "id": "embed-9",
        "embeddings": {"float": [vector_of(text) for text in texts]},
        "meta": {"billed_units": {"input_tokens": 10 * len(texts)}},
    }


class Server(ThreadingHTTPServer):
    """``plan`` holds (status, headers, body) of the coming answers; after that good ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[tuple[int, dict[str, str], object]] = []
        self.requests: list[dict] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        self.server.paths.append(self.path)
        self.server.keys.append(self.headers.get("authorization"))
        status, headers, answer = 200, {}, good
        if self.server.plan:
            status, headers, answer = self.server.plan.pop(0)
        if callable(answer):
            answer = answer(body["texts"])
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("CO_API_URL", "CO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COHERE_API_KEY", "co-secret-key")
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def embedder(server: Server, waits: list[float]) -> CohereEmbedder:
    return CohereEmbedder("embed-x", base_url=server.url, sleep=waits.append)


def test_ninety_six_texts_go_into_a_request_and_their_role_goes_with_them(embedder, server):
    texts = [f"{'x' * (number % 7)}text {number}" for number in range(100)]
    vectors = embedder.embed(texts, "document")
    assert vectors.tolist() == [vector_of(text) for text in texts]
    assert vectors.dtype == np.float32
    assert [len(request["texts"]) for request in server.requests] == [96, 4]
    assert server.requests[1] == {
        "model": "embed-x",
        "texts": texts[96:],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }
    embedder.embed(["a"], "query")
    assert server.requests[2]["input_type"] == "search_query"
    assert set(server.paths) == {"/v2/embed"}
    assert server.keys[0] == "Bearer co-secret-key"
    assert embedder.name == f"cohere:embed-x at {server.url}/v2"
    assert embedder.dimension == 3


def test_queries_and_passages_of_one_text_are_stored_apart(embedder, server, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        recorded = RecordedEmbedder(embedder, store)
        for role in ("query", "document", "query"):
            recorded.embed(["same"], role)
    assert len(server.requests) == 2


def test_base64_is_read(embedder, server):
    def answer(texts):
        rows = [np.array(vector_of(text), "<f4").tobytes() for text in texts]
        return {"embeddings": {"float": [base64.b64encode(row).decode() for row in rows]}}

    server.plan = [(200, {}, answer)]
    assert embedder.embed(["a", "bb"], "query").tolist() == [vector_of("a"), vector_of("bb")]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: good(texts[:1]), "1 vectors for 2 texts"),
        (lambda texts: good([*texts, "more"]), "3 vectors for 2 texts"),
        ({"embeddings": {"float": [[1.0, 2.0], [1.0, 2.0]]}}, "different dimensions: [2, 3]"),
        ({"embeddings": {"float": [[1.0, 2.0, 3.0], "no base64!"]}}, "item 1 holds no vector"),
        ({"embeddings": {"float": [[1.0, 2.0, 3.0], None]}}, "item 1 holds no vector"),
        ({"embeddings": {"float": [[1, 2, 3], [1, 2, float("nan")]]}}, "NaN or infinite"),
        ({"embeddings": {"float": [[1, 2, 3], [1, 2, 10**400]]}}, "item 1 holds no vector"),
        ({"embeddings": {"int8": [[1, 2, 3], [1, 2, 3]]}}, "no float embeddings"),
        ({"embeddings": {"float": 7}}, "int vectors for 2 texts"),
        ([1], "no float embeddings"),
        (b"<html>Welcome</html>", "no float embeddings: <html>Welcome"),
        (b"", "no float embeddings"),
    ],
)
def test_an_answer_that_does_not_fit_stops_with_batch_and_request(
    embedder, server, answer, message
):
    embedder.embed(["x", "y"], "query")
    server.plan = [(200, {"x-request-id": "req-7"}, answer)]
    with pytest.raises(ServiceError) as caught:
        embedder.embed(["a", "bb"], "query")
    assert message in str(caught.value)
    assert "batch 1 of 1 (request req-7)" in str(caught.value)
    assert caught.value.exit_code == 5


def test_the_request_is_named_by_the_body_where_no_header_does(embedder, server):
    server.plan = [(200, {}, lambda texts: {**good([]), "id": "embed-9"})]
    with pytest.raises(ServiceError, match=r"request embed-9\): 0 vectors for 1 texts"):
        embedder.embed(["a"], "query")


def test_a_busy_server_is_asked_again_when_it_says(embedder, server, waits):
    server.plan = [(429, {"Retry-After": "7"}, {"message": "slow"}), (503, {}, {})]
    assert len(embedder.embed(["a"], "query")) == 1
    assert waits[0] == 7
    assert 1 <= waits[1] <= 1.25


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "check the key in COHERE_API_KEY"), (400, r"answered 400 \(too odd\)")],
)
def test_a_refusal_is_not_repeated_and_shows_no_key(embedder, server, waits, status, message):
    server.plan = [(status, {}, {"message": "too odd"})]
    with pytest.raises(ServiceError, match=message) as caught:
        embedder.embed(["a"], "query")
    assert waits == []
    assert "co-secret-key" not in str(caught.value)


def test_an_unreachable_server_is_named(server, waits):
    embedder = CohereEmbedder("m", base_url="http://127.0.0.1:9", retries=1, sleep=waits.append)
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9: no connection .* after 2 tries"):
        embedder.embed(["a"], "query")


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("COHERE_API_KEY", "CO_API_KEY", "CO_API_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"COHERE_API_KEY is not set, and api\.cohere\.com"):
        find_cohere("m")
    assert find_cohere("m", "http://localhost:8080").key == "none"
    monkeypatch.setenv("CO_API_KEY", "k")
    assert find_cohere("m").base_url == "https://api.cohere.com/v2"
    for given in ("https://gate.example.com/cohere", "https://gate.example.com/cohere/v2/embed/"):
        monkeypatch.setenv("CO_API_URL", given)
        assert find_cohere("m").base_url == "https://gate.example.com/cohere/v2"
    monkeypatch.setenv("CO_API_URL", "gate.example.com")
    with pytest.raises(ConfigError, match="CO_API_URL"):
        find_cohere("m")


# ---- what it may cost


def test_what_was_paid_is_counted_with_the_price(server):
    purse = Purse()
    embedder = CohereEmbedder("m", base_url=server.url, batch_size=2, price=0.5, purse=purse)
    embedder.embed(["a", "b", "c"], "document")
    assert purse.lines() == [f"{embedder.name}: 2 requests, 30 tokens, 0.0000 USD"]
    assert purse.spent[embedder.name].usd == pytest.approx(30 * 0.5 / 1e6)
    server.plan = [(200, {}, lambda texts: {**good(texts), "meta": None})]
    embedder.embed(["d"], "document")
    assert purse.lines() == [f"{embedder.name}: 3 requests, tokens unknown, cost unknown"]


@pytest.mark.parametrize(
    ("limits", "requests", "message"),
    [
        # 4 bytes a batch may be 4 tokens; 20 are paid for each
        (EmbeddingSettings(tokens=24), 2, "40 of 24 tokens, and the next request may take 4"),
        (EmbeddingSettings(tokens=3), 0, "0 of 3 tokens, and the next request may take 4"),
        (EmbeddingSettings(usd=2.5e-5), 2, "budget used up: 0.0000 of 2.5e-05 USD"),
    ],
)
def test_a_limit_stops_before_it_may_be_passed(server, limits, requests, message):
    embedder = CohereEmbedder(
        "m", base_url=server.url, batch_size=2, price=1.0, purse=Purse(limits)
    )
    with pytest.raises(ServiceError, match=message) as caught:
        embedder.embed(["ab", "cd"] * 3, "document")
    assert len(server.requests) == requests
    assert caught.value.exit_code == 5


def test_a_limit_on_money_needs_a_price(server):
    embedder = CohereEmbedder("m", base_url=server.url, purse=Purse(EmbeddingSettings(usd=1)))
    with pytest.raises(ServiceError, match=r"no price is known .* embedding\.price"):
        embedder.embed(["a"], "query")
    assert server.requests == []


def test_services_of_one_command_share_the_purse(server):
    purse = Purse(EmbeddingSettings(tokens=12))
    CohereEmbedder("one", base_url=server.url, purse=purse).embed(["a"], "query")
    with pytest.raises(ServiceError, match="10 of 12 tokens"):
        CohereEmbedder("two", base_url=server.url, purse=purse).embed(["abc"], "query")
