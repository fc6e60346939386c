"""One contract for all databases. PostgreSQL and Chroma run as servers of their own here; Milvus
and Qdrant in the forms their clients bring; Redis only where EMBEDTUNE_TEST_REDIS names one."""

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, EmbedtuneError, IntegrityError, ServiceError
from embedtune.records import Chunk
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.index import Index
from embedtune.retrieve.stores import IndexInfo, digest_of, open_store

DIMENSION = 24
NUMBERS = itertools.count()
REDIS = os.environ.get("EMBEDTUNE_TEST_REDIS", "")  # host:port of a server that may be written to


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as own:
        return own.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A real PostgreSQL server; gives the part of an address after ``pgvector://``."""
    import pgserver
    from pgserver import postgres_server

    pg_ctl = postgres_server.pg_ctl

    def patient(arguments, *, timeout=None, **named):
        # it gives up after 10 s, which a busy machine may take; what it then leaves is neither
        # started nor stopped, and its next try stumbles over that
        return pg_ctl(["-t", "180", *arguments], timeout=200, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_server, "pg_ctl", patient)
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
        yield server.get_uri().removeprefix("postgresql://")
        server.cleanup()


@pytest.fixture(scope="session")
def chroma(tmp_path_factory):
    """A real Chroma server; gives its port."""
    port, log = free_port(), tmp_path_factory.mktemp("chroma")
    command = Path(sys.executable).with_name("chroma")
    with (log / "out").open("w") as out:
        server = subprocess.Popen(
            [command, "run", "--path", log / "data", "--host", "127.0.0.1", "--port", str(port)],
            stdout=out, stderr=out,
        )  # fmt: skip
    end = time.monotonic() + 180
    while not answers(port):
        assert server.poll() is None, (log / "out").read_text()
        assert time.monotonic() < end, (log / "out").read_text()
        time.sleep(0.1)
    yield port
    server.terminate()
    server.wait()


@pytest.fixture
def quick_folder(tmp_path):
    """In memory where there is such a place: Qdrant's local mode flushes each passage to disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(params=["pgvector", "milvus", "chroma", "chroma-folder", "qdrant", "redis"])
def place(request, tmp_path, quick_folder):
    """An address where nothing is yet."""
    name = f"passages_{next(NUMBERS)}"
    kind = request.param
    if kind == "pgvector":
        return f"pgvector://{request.getfixturevalue('postgres')}&table={name}"
    if kind == "chroma":
        return f"chroma://127.0.0.1:{request.getfixturevalue('chroma')}?collection={name}"
    if kind == "redis":
        if not REDIS:
            pytest.skip("no Redis server is named by EMBEDTUNE_TEST_REDIS")
        return f"redis://{REDIS}?index={name}"
    file = {"milvus": "milvus:{}/m.db", "chroma-folder": "chroma:{}/c", "qdrant": "qdrant:{}/q"}
    folder = quick_folder if kind == "qdrant" else tmp_path
    return f"{file[kind].format(folder)}?collection={name}"


@pytest.fixture
def store(place):
    opened = open_store(place)
    yield opened
    opened.close()


def info_of(similarity: str = "cosine") -> IndexInfo:
    return IndexInfo("model@1 模型", "模/it's", DIMENSION, similarity, "dense", 0.3, 0.41)


def passages(count: int, start: int = 0) -> list[Chunk]:
    return [
        Chunk(f"c{n}", f"d{n // 3}", n, n + 9, f"Title {n}", f"passage 段落 {n}", ("A", f"§{n}"), n)
        for n in range(start, start + count)
    ]


def rows(count: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return made * np.linspace(0.5, 2, count, dtype=np.float32)[:, None]


ODD = [
    Chunk("it's; DROP TABLE x; --", "d", 0, 1, "引号", "quotes \" ' ` \\ %s $1 {x}"),
    Chunk("中文 id 😀", "d", 1, 2, "", "表情 😀👨‍👩‍👧 und Ümläute\u2028\ttabs\nlines"),
    Chunk("a/b?c=d&e#f", "文档", 2, 3, "", "\u202eright to left\u202c", page=3, language="zh"),
    Chunk("long", "d", 3, 4, "", "长文" * 25_000 + "x" * 50_000, ("one", "二"), kind="table"),
    Chunk("no text", "d", 0, 0, "only a title", ""),
    Chunk("*", "d", 4, 5, "", "[1,2,3]"),
]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_hits_are_those_of_the_exact_search(store, similarity):
    store.create(info_of(similarity))
    chunks, vectors, queries = passages(150), rows(150), rows(30, seed=1)
    store.put(chunks[:90], vectors[:90])
    store.put(chunks[90:], vectors[90:])
    ids = [chunk.id for chunk in chunks]
    exact = nearest(queries, vectors, ids, 10, similarity=similarity)
    found = store.nearest(queries, 10)
    assert [[hit.chunk for hit in hits] for hits in found] == [
        [ids[row] for row in own] for own in exact.indices
    ]
    scores = np.array([[hit.score for hit in hits] for hits in found])
    np.testing.assert_allclose(scores, exact.scores, atol=1e-4)


def test_what_is_stored_is_given_back_as_it_was(place, store):
    assert store.info() is None
    assert store.digests() == {}
    store.create(info_of())
    vectors = rows(len(ODD))
    store.put(ODD, vectors)
    store.close()
    again = open_store(place)
    assert again.info() == info_of()
    assert again.digests() == {chunk.id: digest_of(chunk) for chunk in ODD}
    assert list(again.all_chunks()) == sorted(ODD, key=lambda chunk: chunk.id)
    ids = [chunk.id for chunk in reversed(ODD)]
    assert again.chunks(ids) == ODD[::-1]
    given = again.vectors(ids)
    assert given.dtype == np.float32
    # Qdrant keeps directions only where cosine compares
    lengths = np.linalg.norm(given, axis=1) if place.startswith("qdrant") else 1.0
    expected = np.linalg.norm(vectors[::-1], axis=1) if place.startswith("qdrant") else 1.0
    np.testing.assert_allclose(
        given / np.reshape(lengths, (-1, 1)), vectors[::-1] / np.reshape(expected, (-1, 1)),
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip
    for chunk, vector in zip(ODD, vectors, strict=True):
        assert again.nearest(vector[None], 1)[0][0].chunk == chunk.id
    again.close()


def test_what_another_process_put_is_seen(place):
    code = (
        "import sys, numpy as np\n"
        "from embedtune.records import Chunk\n"
        "from embedtune.retrieve.stores import IndexInfo, open_store\n"
        "store = open_store(sys.argv[1])\n"
        "store.create(IndexInfo('model', 'here', 2, 'cosine'))\n"
        "store.put([Chunk('甲', 'd', 0, 2, '', '内容')], np.ones((1, 2), np.float32))\n"
        "store.close()"
    )
    environment = {**os.environ, "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", code, place], check=True, env=environment)
    store = open_store(place)
    assert store.info() == IndexInfo("model", "here", 2, "cosine")
    assert [chunk.text for chunk in store.all_chunks()] == ["内容"]
    store.close()


def test_passages_are_replaced_and_removed(store):
    store.create(info_of())
    chunks, vectors = passages(5), rows(5)
    store.put(chunks, vectors)
    changed = replace(chunks[2], text="changed 变了", section=())
    store.put([changed], -vectors[2:3])
    store.remove(["c0", "c4", "never there"])
    store.remove([])
    kept = [chunks[1], changed, chunks[3]]
    assert store.digests() == {chunk.id: digest_of(chunk) for chunk in kept}
    assert list(store.all_chunks()) == kept
    [hits] = store.nearest(vectors[2:3], 10)
    assert {hit.chunk for hit in hits} == {"c1", "c2", "c3"}
    assert hits[-1].chunk == "c2"  # it points the other way now
    assert hits[-1].score == pytest.approx(-1, abs=1e-4)
    with pytest.raises(KeyError):
        store.chunks(["c1", "c0"])
    with pytest.raises(KeyError):
        store.vectors(["c0"])


def test_nothing_more_is_found_than_there_is(store):
    store.create(info_of())
    assert store.nearest(rows(2), 5) == [[], []]
    assert list(store.all_chunks()) == store.chunks([]) == []
    assert store.vectors([]).shape == (0, DIMENSION)
    store.put([], np.zeros((0, DIMENSION), np.float32))
    store.put(passages(3), rows(3))
    assert [len(hits) for hits in store.nearest(rows(2), 50)] == [3, 3]
    assert store.nearest(rows(0), 5) == []


def test_equal_scores_are_ordered_by_the_ids(store):
    store.create(info_of())
    same = np.repeat(rows(1), 20, axis=0)
    store.put(passages(20), same)
    expected = nearest(same[:1], same, [f"c{n}" for n in range(20)], 5).indices[0]
    assert [hit.chunk for hit in store.nearest(same[:1], 5)[0]] == [f"c{n}" for n in expected]


def test_a_new_index_empties_the_place(store):
    store.create(info_of())
    store.put(passages(3), rows(3))
    other = replace(info_of("dot"), model="other", dimension=8)
    store.create(other)
    assert store.info() == other
    assert store.digests() == {}
    store.put(passages(1), rows(1)[:, :8])
    assert len(store.nearest(rows(1)[:, :8], 3)[0]) == 1
    store.drop()
    assert store.info() is None
    store.drop()  # a second time is no fault


def test_vectors_that_do_not_fit_are_refused(store):
    with pytest.raises(IntegrityError, match="no index"):
        store.put(passages(1), rows(1))
    with pytest.raises(IntegrityError, match="no index"):
        store.nearest(rows(1), 1)
    store.create(info_of())
    with pytest.raises(IntegrityError, match="24 dimensions by model@1 模型, not of 8"):
        store.put(passages(1), rows(1)[:, :8])
    with pytest.raises(IntegrityError, match="not of 8"):
        store.nearest(rows(1)[:, :8], 1)
    with pytest.raises(IntegrityError, match="2 vectors for 1"):
        store.put(passages(1), rows(2))
    bad = rows(2)
    bad[1, 3] = np.nan
    with pytest.raises(IntegrityError, match=r"NaN.*c1"):
        store.put(passages(2), bad)
    assert store.digests() == {}


def test_another_model_is_refused(place, store):
    store.create(info_of())
    store.put(passages(2), rows(2))
    store.close()
    with pytest.raises(IntegrityError, match=r"model@1 模型.*hashing-24"):
        Index.open(place, HashingEmbedder(DIMENSION))


def test_many_passages_come_in_portions_and_in_order_of_id(store):
    store.create(info_of())
    chunks, vectors = passages(250), rows(250)  # three portions
    store.put(chunks, vectors)
    assert store.digests() == {chunk.id: digest_of(chunk) for chunk in chunks}
    assert [chunk.id for chunk in store.all_chunks()] == sorted(chunk.id for chunk in chunks)
    store.remove([chunk.id for chunk in chunks[:201]])
    assert len(store.digests()) == 49


def test_threads_may_search_at_once(store):
    store.create(info_of())
    store.put(passages(40), rows(40))
    expected = store.nearest(rows(40), 3)
    wrong: list[object] = []

    def search() -> None:
        for _ in range(5):
            if (found := store.nearest(rows(40), 3)) != expected:
                wrong.append(found)
            if [c.id for c in store.chunks(["c7", "c3"])] != ["c7", "c3"]:
                wrong.append("chunks")

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- of one kind


def test_a_table_of_somebody_else_is_left_alone(postgres):
    import psycopg

    with psycopg.connect(f"postgresql://{postgres}", autocommit=True) as connection:
        connection.execute("CREATE TABLE bookkeeping (x int)")
        connection.execute("INSERT INTO bookkeeping VALUES (7)")
        with pytest.raises(ConfigError, match="not make"):
            open_store(f"pgvector://{postgres}&table=bookkeeping")
        assert connection.execute("SELECT x FROM bookkeeping").fetchall() == [(7,)]


def test_a_connection_that_was_lost_is_made_again(postgres):
    import psycopg

    store = open_store(f"pgvector://{postgres}&table=lost")
    store.create(info_of())
    store.put(passages(3), rows(3))
    with psycopg.connect(f"postgresql://{postgres}", autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'embedtune'"
        )
    assert len(store.nearest(rows(1), 3)[0]) == 3
    store.drop()
    store.close()


def test_a_put_that_fails_in_the_middle_leaves_nothing(postgres):
    store = open_store(f"pgvector://{postgres}&table=halves")
    store.create(info_of())
    broken = replace(passages(1, start=2)[0], text="NUL \x00 is refused by PostgreSQL")
    with pytest.raises(ServiceError):
        store.put([*passages(2), broken], rows(3))
    assert store.digests() == {}
    store.drop()
    store.close()


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_an_alias_moves_in_one_step(kind, tmp_path):
    place = f"{kind}:{tmp_path}/x.db?collection="
    first = open_store(f"{place}first")
    first.create(info_of())
    first.set_alias("live")
    first.close()
    second = open_store(f"{place}second")
    second.create(replace(info_of(), model="new"))
    second.set_alias("live")
    second.close()
    live = open_store(f"{place}live")
    assert live.info().model == "new"
    live.close()


SERVERS = {
    "pgvector": "pgvector://me:geheim@127.0.0.1:{}/db?table=docs",
    "milvus": "milvus://me:geheim@127.0.0.1:{}?collection=docs",
    "chroma": "chroma://:geheim@127.0.0.1:{}?collection=docs",
    "qdrant": "qdrant://:geheim@127.0.0.1:{}?collection=docs",
    "redis": "redis://:geheim@127.0.0.1:{}/0?index=docs",
}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_away_is_named_without_the_password(kind, caplog):
    port = free_port()
    with pytest.raises(ServiceError) as told:
        open_store(SERVERS[kind].format(port))
    assert f"127.0.0.1:{port}" in str(told.value)
    assert "geheim" not in str(told.value) + caplog.text


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    ("old", "new"), [("=docs", "=a;drop"), ("=docs", "=x"), ("=docs", '="t"'), (":{}", ":port")]
)
def test_a_wrong_address_is_a_fault_of_usage_without_the_password(kind, old, new):
    with pytest.raises(EmbedtuneError) as told:
        open_store(SERVERS[kind].replace(old, new).format(1))
    assert told.value.exit_code in ((2, 5) if new == ":port" else (2,))
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("milvus:?collection=docs", "no folder"),
        ("qdrant:x?collektion=docs", "option collektion"),
        ("chroma://host?tls=perhaps", "option tls"),
        ("redis://?index=docs", "no host"),
        ("redis://host/first?index=docs", "redis://host:6379/0"),
    ],
)
def test_a_wrong_address_says_what_was_expected(address, fault):
    with pytest.raises(ConfigError, match=fault):
        open_store(address)


@pytest.mark.parametrize("extra", SERVERS)
def test_a_missing_client_names_what_to_install(extra, monkeypatch):
    module = {"pgvector": "psycopg", "milvus": "pymilvus", "chroma": "chromadb",
              "qdrant": "qdrant_client", "redis": "redis"}[extra]  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'embedtune\[{extra}\]'"):
        open_store(SERVERS[extra].format(1))
