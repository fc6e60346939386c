"""Too much, too slow, too curious: each is refused in time, and other clients are served."""

import gzip
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from embedtune.errors import ConfigError
from embedtune.serving.keys import Keys, read_keys

MEGABYTE = 1 << 20


def memory() -> int:
    return psutil.Process(os.getpid()).memory_info().rss


def fault(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


def until(true, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


# ---- V03: size


def test_v03_too_many_texts_and_too_long_ones(server, stub):
    assert "10001 texts" in fault(server.embed(["a"] * 10_001), 413)["message"]
    assert "3000000 characters" in fault(server.embed("a " * 1_500_000), 413)["message"]
    assert stub.seen == []


def test_v03_too_many_tokens_in_one_request(serving, stub):
    with serving(stub, max_request_tokens=100) as server:
        assert server.embed(["a b c d e"] * 20).status_code == 200
        assert "100 tokens" in fault(server.embed(["a b c d e"] * 21), 413)["message"]


@pytest.mark.parametrize(
    "value",
    ["[" * 3_000_000, "[" + "7," * 3_000_000 + "7]", "[" + "[]," * 2_000_000 + "[]]",
     "[" + '"a",' * 1_500_000 + '"a"]', '[{"a":1}' + ',{"a":1}' * 800_000 + "]"],
    ids=["nested", "ids", "lists", "texts", "objects"],
)  # fmt: skip
def test_v03_a_body_of_very_many_values_is_not_built_in_memory(server, value):
    body = b'{"model": "stub", "input": ' + value.encode() + b"}"
    assert len(body) < 8 * MEGABYTE
    before = memory()
    answer = server.client.post(
        "/v1/embeddings", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 413, 422)
    assert memory() - before < 50 * MEGABYTE


def test_v03_a_gigabyte_is_refused_before_it_is_read(server):
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % (1 << 30)
    )
    before = memory()
    begin = time.monotonic()
    with socket.create_connection((server.host, server.port), timeout=10) as own:
        own.sendall(head)
        assert status_of(own.recv(65536)) == 413
        with suppress(OSError):  # the server stops listening to it soon
            while time.monotonic() < begin + 20:
                own.sendall(b"x" * 65536)
        assert time.monotonic() < begin + 20
    assert memory() - before < 50 * MEGABYTE


def test_v03_a_body_without_length_is_cut_off_at_the_limit(serving, stub):
    with serving(stub, max_body_bytes=MEGABYTE) as server:
        before = memory()

        def parts():
            for _ in range(200):
                yield b" " * 65536

        answer = server.client.post(
            "/v1/embeddings", content=parts(), headers={"content-type": "application/json"}
        )
        assert "1048576" in fault(answer, 413)["message"]
        assert memory() - before < 50 * MEGABYTE


def test_v03_packed_bodies_are_not_unpacked(server, stub):
    bomb = gzip.compress(json.dumps({"model": "stub", "input": "a " * 5_000_000}).encode())
    before = memory()
    answer = server.client.post(
        "/v1/embeddings", content=bomb,
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )  # fmt: skip
    assert fault(answer, 422)["code"] == "packed_body"
    assert memory() - before < 50 * MEGABYTE
    assert stub.seen == []


def test_all_bodies_together_are_bounded(serving, stub):
    with serving(stub, max_body_bytes=1000, max_bodies_bytes=1500) as server:
        stub.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(server.embed, "a" * 800)
            until(lambda: server.catalogue.loads()["stub"].texts == 1)
            second = server.embed("b" * 800)
            stub.gate.set()
            assert first.result().status_code == 200
        assert fault(second, 429)["code"] == "busy"
        assert int(second.headers["retry-after"]) >= 1
        assert server.embed("b" * 800).status_code == 200


# ---- V06: more than the queue holds


def test_v06_a_full_queue_gives_429_and_accepted_ones_are_answered(serving, stub):
    with serving(stub, queue_texts=5) as server:
        stub.gate.clear()
        with ThreadPoolExecutor(8) as pool:
            batch = pool.submit(server.embed, ["a", "b", "c", "d"])
            until(lambda: server.catalogue.loads()["stub"].texts == 4)
            single = pool.submit(server.embed, "e")
            until(lambda: server.catalogue.loads()["stub"].texts == 5)
            refused = [server.embed("f"), server.embed(["g", "h"])]
            stub.gate.set()
            assert batch.result().status_code == single.result().status_code == 200
        for answer in refused:
            assert fault(answer, 429)["type"] == "rate_limit_error"
            assert int(answer.headers["retry-after"]) >= 1
        assert server.figure("embedtune_queue_texts", model="stub") == 0
        assert server.figure("embedtune_queue_tokens", model="stub") == 0


def test_v06_tokens_count_as_texts_do(serving, stub):
    with serving(stub, queue_tokens=10) as server:
        stub.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.embed, "a b c d e f g h")
            until(lambda: server.catalogue.loads()["stub"].tokens == 8)
            refused = server.embed("a b c")
            fits = pool.submit(server.embed, "a b")
            until(lambda: server.catalogue.loads()["stub"].tokens == 10)
            stub.gate.set()
            assert first.result().status_code == fits.result().status_code == 200
        assert refused.status_code == 429


# ---- V07: clients that leave


def ask(server, text: str) -> socket.socket:
    body = json.dumps({"model": "stub", "input": text}).encode()
    own = socket.create_connection((server.host, server.port), timeout=10)
    own.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    return own


def test_v07_texts_of_clients_that_left_are_not_embedded(server, stub):
    stub.gate.clear()
    first = ask(server, "first")
    until(lambda: stub.begun == 1)  # in a batch of its own
    before, files = memory(), psutil.Process().num_fds()
    for number in range(20):
        own = [ask(server, f"gone {number} {place}") for place in range(50)]
        until(lambda: server.catalogue.loads()["stub"].texts == 51)
        for connection in own:
            connection.close()
        until(lambda: server.catalogue.loads()["stub"].texts == 1)
    until(lambda: server.figure("embedtune_clients_left_total") == 1000)
    until(lambda: psutil.Process().num_fds() <= files + 2)
    assert memory() - before < 20 * MEGABYTE
    stub.gate.set()
    assert status_of(first.recv(65536)) == 200
    first.close()
    assert server.embed("after").status_code == 200
    assert [text for batch in stub.seen for text in batch] == ["first", "after"]


# ---- V08: slow clients


def test_v08_slow_headers_slow_bodies_and_silence_end_at_the_deadline(serving, stub):
    with serving(stub, header_seconds=0.6, body_seconds=0.6) as server:
        ended: dict[str, bytes] = {}

        def trickle(name: str, first: bytes, drip: bytes) -> None:
            with socket.create_connection((server.host, server.port), timeout=10) as own:
                own.sendall(first)
                own.settimeout(0.05)
                received = b""
                while True:
                    try:
                        part = own.recv(65536)
                        if not part:
                            break
                        received += part
                    except TimeoutError:
                        try:
                            own.sendall(drip)
                        except OSError:
                            break
                    except OSError:
                        break
                ended[name] = received

        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        threads = [
            threading.Thread(target=trickle, args=own)
            for own in (
                ("headers", head[:10], b"x"),
                ("body", head + b"Content-Length: 1000\r\n\r\n{", b" "),
                ("chunks", head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
                ("promised", head + b"Content-Length: 1000\r\n\r\n", b""),
                ("silent", b"", b""),
            )
        ]
        for thread in threads:
            thread.start()
        assert server.embed("others are served").status_code == 200
        for thread in threads:
            thread.join(15)
        assert set(ended) == {"headers", "body", "chunks", "promised", "silent"}
        assert ended.pop("silent") == b""
        for name, raw in ended.items():
            assert status_of(raw) == 408, name
            assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_slow"
        assert stub.seen == [["others are served"]]


def test_a_client_that_does_not_take_its_answer_is_cut_off(serving, make_stub):
    with serving(make_stub(dimension=4096), read_seconds=0.3) as server:
        body = json.dumps({"model": "stub", "input": [f"t{n}" for n in range(400)]}).encode()
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own.connect((server.host, server.port))
            own.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            answered = {"route": "/v1/embeddings", "status": "200"}
            until(lambda: server.figure("embedtune_requests_total", **answered), 30)
            time.sleep(1)
            received = 0
            with suppress(ConnectionResetError):
                while part := own.recv(65536):
                    received += len(part)
            assert received < 20 * MEGABYTE


def test_more_connections_than_allowed_get_503(serving, stub):
    with serving(stub, max_connections=3) as server:
        server.client.get("/healthz")  # keeps one open
        idle = [socket.create_connection((server.host, server.port)) for _ in range(2)]
        time.sleep(0.1)
        raw = server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of(raw) == 503
        assert b"retry-after: " in raw
        for own in idle:
            own.close()


# ---- V09: keys

KEY, OTHER, ADMIN = "key-of-a-client", "key-of-another", "key-of-the-admin"


@pytest.fixture(scope="module")
def locked(serving, make_stub):
    with serving(make_stub(), keys=Keys([KEY, OTHER], [ADMIN])) as own:
        yield own


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("Authorization", f"Bearer {KEY}")], 200),
        ([("Authorization", f"bearer {OTHER}")], 200),
        ([("Authorization", f"Bearer {ADMIN}")], 200),
        ([("Authorization", f"Bearer {KEY}x")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", f"Basic {KEY}")], 401),
        ([("Authorization", KEY)], 401),
        ([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")], 401),
        ([("Authorization", "Bearer wrong-key"), ("Authorization", f"Bearer {KEY}")], 401),
        ([("X-Api-Key", KEY)], 401),
    ],
)
def test_v09_only_one_right_key_is_let_in(locked, headers, status):
    answer = locked.client.get("/v1/models", headers=headers)
    assert answer.status_code == status
    assert KEY not in answer.text
    if status == 401:
        assert fault(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_v09_a_key_in_the_address_does_not_count_and_is_never_logged(locked, caplog):
    caplog.set_level(0)
    answer = locked.client.get(f"/v1/models?api_key={KEY}&key={KEY}")
    assert answer.status_code == 401
    logged = [own for own in caplog.records if not own.name.startswith(("httpx", "httpcore"))]
    assert not [own for own in logged if KEY in own.getMessage()]
    assert KEY.encode() not in locked.catalogue.metrics.shown()


def test_v09_everything_but_health_and_description_is_locked(locked):
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert locked.client.get(path).status_code == 200
    for path in ("/metrics", "/v1/models", "/unknown", "/admin/models/stub/reload"):
        assert locked.client.get(path).status_code == 401
    assert locked.client.get("/openapi.json").json()["security"] == [{"key": []}]


def test_v09_the_body_of_a_stranger_is_not_read(locked):
    body = b"x" * 100_000
    answer = locked.client.post("/v1/embeddings", content=body)
    assert answer.status_code == 401


def test_models_are_changed_by_the_administrator_only(locked, serving, make_stub):
    path = "/admin/models/stub/rollback"
    for key, status in ((KEY, 403), (ADMIN, 409)):
        answer = locked.client.post(path, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status
    with serving(make_stub()) as server:  # without any key
        assert "without a key" in fault(server.client.post(path), 403)["message"]


def test_keys_come_from_variables_and_files(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# clients\n{OTHER}\n\n", "utf-8")
    keys = read_keys(["ONE"], file, ["ROOT"], {"ONE": f"{KEY}\n", "ROOT": ADMIN})
    rights = [keys.right([f"Bearer {key}".encode()]) for key in (KEY, OTHER, ADMIN, "none-of-them")]
    assert rights == ["use", "use", "admin", "none"]
    assert KEY not in repr(vars(keys))


def test_faulty_keys_are_told_together_and_never_shown(tmp_path):
    file = tmp_path / "keys"
    file.write_text("short\nwith a blank in it\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_keys(["UNSET", "EMPTY"], file, [], {"EMPTY": " "})
    told = caught.value.faults
    assert len(told) == 4
    assert told[0].startswith("UNSET is not set")
    assert told[2].startswith(f"{file}:1: ")
    assert not any("blank in it" in line for line in told)


# ---- V10: methods, paths, addresses


def test_v10_wrong_methods_and_paths(server):
    answer = server.client.get("/v1/embeddings")
    assert fault(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"
    assert fault(server.client.post("/healthz"), 405)
    assert fault(server.client.get("/v1/nothing"), 404)["code"] == "not_found"


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd",
     "/v1/models/%00", "/v1/models/%ff%fe", "//etc/passwd", "/docs", "/admin/../metrics/"],
)  # fmt: skip
def test_v10_paths_lead_nowhere(server, path):
    raw = server.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status_of(raw) in (403, 404)
    assert b"root:" not in raw
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_v10_long_addresses_and_headers_and_what_is_no_http(server):
    for raw, status in (
        (b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 65536 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20000 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    ):
        found = server.raw(raw)
        assert status_of(found) == status, raw[:40]
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert server.client.get("/readyz").status_code == 200


def test_a_fault_of_the_model_is_told_in_the_form_of_the_api(server, stub):
    def fail(texts):
        if "bad" in texts:
            raise RuntimeError("inner matters")

    stub.fault = fail
    stub.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(server.embed, text) for text in ("good", "bad", "fine")]
        until(lambda: server.catalogue.loads()["stub"].texts == 3)
        stub.gate.set()
        codes = [own.result().status_code for own in answers]
    assert codes == [200, 500, 200]  # one text that cannot be embedded fails alone
    error = fault(server.embed("bad"), 500)
    assert error["type"] == "server_error"
    assert "inner matters" not in error["message"]
    assert server.catalogue.loads()["stub"].texts == 0
