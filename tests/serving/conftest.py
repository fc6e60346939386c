"""A running server in a thread, over real HTTP, with models that tests can hold and count."""

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.records import Chunk, content_id
from embedtune.retrieve.answer.answering import Answerer
from embedtune.retrieve.index import Index, prepare, update
from embedtune.retrieve.stores import open_store
from embedtune.serving.app import create_app
from embedtune.serving.gate import Gate
from embedtune.serving.keys import Keys
from embedtune.serving.metrics import Metrics
from embedtune.serving.models import Catalogue, Source
from embedtune.serving.process import Server, open_port
from embedtune.serving.settings import ServerSettings


def vector_of(text: str, role: str = "document", dimension: int = 16) -> np.ndarray:
    """A vector of length 1 that no other text has."""
    digest = hashlib.shake_128(f"{role}:{text}".encode("utf-8", "replace")).digest(dimension)
    row = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5
    return row / np.linalg.norm(row)


class StubEmbedder:
    """Vectors by hash. Waits while ``gate`` is closed; ``begun`` counts the calls, ``seen`` holds
    the texts of each that got through."""

    name = "stub@1"
    max_tokens = 64
    similarity = "cosine"

    def __init__(self, dimension: int = 16) -> None:
        self.dimension = dimension
        self.gate = threading.Event()
        self.gate.set()
        self.begun = 0
        self.seen: list[list[str]] = []
        self.fault: Callable[[Sequence[str]], None] = lambda texts: None

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        self.begun += 1
        self.gate.wait(30)
        self.seen.append(list(texts))
        self.fault(texts)
        return np.array([3 * vector_of(text, role, self.dimension) for text in texts])


@dataclass
class Running:
    """A server that listens."""

    url: str
    host: str
    port: int
    gate: Gate
    catalogue: Catalogue
    client: httpx2.Client

    def embed(self, value: object, model: str = "stub", **more: object) -> httpx2.Response:
        body = {"model": model, "input": value, **more}
        return self.client.post("/v1/embeddings", json=body)

    def raw(self, data: bytes, *, seconds: float = 10) -> bytes:
        """Send bytes, read until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=seconds) as own:
            own.sendall(data)
            parts = []
            while part := own.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def settle(self, seconds: float = 20) -> None:
        """Wait until no request is in flight: its client has the whole answer a little before."""
        end = time.monotonic() + seconds
        while self.gate.in_flight:
            assert time.monotonic() < end, f"{self.gate.in_flight} requests are still in flight"
            time.sleep(0.01)

    def figure(self, name: str, **labels: str) -> float:
        return self.catalogue.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(
    *embedders: StubEmbedder,
    sources: Sequence[Source] = (),
    keys: Keys | None = None,
    headers: dict[str, str] | None = None,
    answerer: Answerer | None = None,
    **settings: object,
) -> Iterator[Running]:
    own = ServerSettings(grace_seconds=0.0, **settings)
    catalogue = Catalogue(own, Metrics())
    for number, embedder in enumerate(embedders):
        catalogue.add_embedder("stub" if not number else f"stub{number}", embedder)
    for source in sources:
        catalogue.add(source)
    gate = create_app(own, catalogue, keys=keys, answerer=answerer)
    listener = open_port("127.0.0.1", 0)
    host, port = listener.getsockname()
    ready = threading.Event()
    server = Server(gate, catalogue, own, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    assert ready.wait(20)
    url = f"http://{host}:{port}"
    try:
        with httpx2.Client(base_url=url, headers=headers, timeout=30) as client:
            yield Running(url, host, port, gate, catalogue, client)
    finally:
        for embedder in embedders:
            embedder.gate.set()
        server.should_exit = True
        thread.join(35)
        assert not thread.is_alive()


@pytest.fixture
def stub() -> StubEmbedder:
    return StubEmbedder()


@pytest.fixture
def server(stub) -> Iterator[Running]:
    with running(stub) as own:
        yield own


PAGE = Path(__file__).parents[2] / "docs" / "proofs.md"
HANDBOOK = [
    ("fees.md", 3, "The night fee is 12 euros a shift."),
    ("battery.md", None, "A flat battery needs ninety minutes at the dock."),
    ("手册.md", 2, "夜班费用为每班十二欧元。"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Iterator[Index]:
    """Three passages, one of them Chinese."""
    place = tmp_path_factory.mktemp("handbook") / "index"
    chunks = [
        Chunk(content_id("c", text), name, 0, len(text), "", text, page=page, source=name)
        for name, page, text in HANDBOOK
    ]
    embedder, store = HashingEmbedder(), open_store(place)
    prepare(store, embedder, source="hashing:256")
    update(store, chunks, embedder)
    store.close()
    with Index.open(place) as opened:
        yield opened


@pytest.fixture(scope="session")
def prove() -> Callable[[str, str, str, float, str], None]:
    """Writes what was found into the page of proofs: section, title, line, seconds, tests."""

    def write(section: str, title: str, line: str, seconds: float, tests: str) -> None:
        from kills import commit_now, put_section

        commit = commit_now("src/embedtune/serving")
        line += f" {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {seconds:,.0f} s, PROVE=1."
        put_section(PAGE, section, title, line, f"-m pytest -q {tests}")

    return write


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Running]]:
    """Starts a server with settings of the test's own."""
    return running


@pytest.fixture(scope="session")
def make_stub() -> type[StubEmbedder]:
    return StubEmbedder


@pytest.fixture(scope="session", name="vector_of")
def vector_of_fixture() -> Callable[..., np.ndarray]:
    return vector_of
