"""Bytes on a connection: several requests at once, promises, trailers, and clients that dawdle."""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from embedtune.serving import process
from embedtune.serving.keys import Keys

MEGABYTE = 1 << 20
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
KEY = "key-of-a-client"


def until(true, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def post(value: object, *headers: bytes, **more: object) -> bytes:
    body = json.dumps({"model": "stub", "input": value, **more}).encode()
    return b"\r\n".join(
        [
            b"POST /v1/embeddings HTTP/1.1",
            b"Host: x",
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            *headers,
            b"",
            body,
        ]
    )


@contextmanager
def connected(server, *, seconds: float = 10):
    """(socket, file to read answers from)"""
    with (
        socket.create_connection((server.host, server.port), timeout=seconds) as own,
        own.makefile("rb") as file,
    ):
        yield own, file


def answer(file) -> tuple[int, dict[bytes, bytes], bytes]:
    """The next answer: status, headers, body. Status 0 at the end of the connection."""
    first = file.readline()
    if not first:
        return 0, {}, b""
    lines = iter(file.readline, b"\r\n")
    headers = dict(line.strip().lower().split(b": ", 1) for line in lines)
    return int(first.split()[1]), headers, file.read(int(headers.get(b"content-length", 0)))


def loads(server):
    return server.catalogue.loads()["stub"]


# ---- several requests on one connection


def test_requests_sent_together_are_answered_in_order(server):
    with connected(server) as (own, file):
        own.sendall(b"".join(post(f"text {n}", dimensions=None) for n in range(20)) + GET)
        found = [answer(file) for _ in range(21)]
    assert [status for status, _, _ in found] == [200] * 21
    vectors = [json.loads(body)["data"][0]["embedding"] for _, _, body in found[:-1]]
    alone = [server.embed(f"text {n}").json()["data"][0]["embedding"] for n in range(20)]
    assert vectors == alone
    assert json.loads(found[-1][2]) == {"status": "ok"}


@pytest.mark.parametrize(
    "second",
    [b"\x00\x01 this is no HTTP\r\n\r\n", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
     b"POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids=["bytes", "address", "chunk"],
)  # fmt: skip
@pytest.mark.parametrize("between", [b"", GET])
def test_a_fault_after_a_request_does_not_take_the_place_of_its_answer(
    server, stub, second, between
):
    stub.gate.clear()
    with connected(server) as (own, file):
        own.sendall(post("first"))
        until(lambda: loads(server).texts == 1)
        own.sendall(between + second)
        time.sleep(0.1)
        stub.gate.set()
        status, _, body = answer(file)
        assert status == 200, body
        assert json.loads(body)["data"]
        if between:
            assert answer(file)[0] == 200
        status, headers, body = answer(file)
        assert status in (400, 414)
        assert json.loads(body)["error"]["message"]
        assert headers[b"connection"] == b"close"
        assert answer(file)[0] == 0


def test_a_slow_second_request_does_not_take_the_place_of_the_first_s_answer(serving, stub):
    with serving(stub, header_seconds=0.3) as server:
        stub.gate.clear()
        with connected(server) as (own, file):
            own.sendall(post("first") + b"GET /healthz HT")
            until(lambda: loads(server).texts == 1)
            time.sleep(0.6)
            stub.gate.set()
            assert [answer(file)[0], answer(file)[0], answer(file)[0]] == [200, 408, 0]


def test_a_request_that_waits_its_turn_is_not_called_slow(serving, stub):
    """While the first is worked on, what follows it is not read."""
    with serving(stub, body_seconds=0.4) as server:
        stub.gate.clear()
        with connected(server) as (own, file):
            own.settimeout(20)
            own.sendall(post("first"))
            until(lambda: loads(server).texts == 1)
            second = post("a" * 50_000)  # more than is read at a time while another is answered
            own.sendall(second[: len(second) // 2])
            time.sleep(0.1)
            own.sendall(second[len(second) // 2 :])
            time.sleep(0.8)
            stub.gate.set()
            assert [answer(file)[0], answer(file)[0]] == [200, 200]


def test_a_client_that_leaves_is_noticed_though_it_sent_more_requests(server, stub):
    stub.gate.clear()
    with connected(server) as (own, _), connected(server) as (other, file):
        other.sendall(post("held"))
        until(lambda: stub.begun == 1)  # in a batch of its own
        own.sendall(post("gone"))
        until(lambda: loads(server).texts == 2)
        own.sendall(GET + GET)
        time.sleep(0.1)
        own.close()
        _.close()
        until(lambda: loads(server).texts == 1)
        stub.gate.set()
        assert answer(file)[0] == 200
    assert stub.seen == [["held"]]


def test_very_many_requests_at_once_are_not_kept_in_memory(server, stub):
    stub.gate.clear()
    own_process = psutil.Process(os.getpid())
    with connected(server) as (own, file):
        own.sendall(post("first"))
        until(lambda: loads(server).texts == 1)
        before = own_process.memory_info().rss
        own.settimeout(1)
        with suppress(OSError):
            for _ in range(40):
                own.sendall(GET * 3000)
        assert own_process.memory_info().rss - before < 20 * MEGABYTE
        stub.gate.set()
        statuses = []
        with suppress(OSError):
            while status := answer(file)[0]:
                statuses.append(status)
        assert statuses[:2] == [200, 200]
    assert own_process.memory_info().rss - before < 30 * MEGABYTE
    assert server.embed("others").status_code == 200


def test_java_clients_ask_for_another_protocol_with_each_request(server):
    """They get HTTP/1.1, with the body read and the connection kept."""
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA")
    with connected(server) as (own, file):
        for number in range(3):
            own.sendall(post(f"text {number}", *upgrade))
            status, _, body = answer(file)
            assert status == 200, body
            own.sendall(
                b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(upgrade) + b"\r\n\r\n"
            )
            assert answer(file)[0] == 200


# ---- promises


def test_a_body_is_asked_for_only_where_it_will_be_read(serving, stub):
    promise = b"Expect: 100-continue"
    with serving(stub, max_body_bytes=1000) as server:
        request = post("small", promise)
        head, _, body = request.partition(b"\r\n\r\n")
        with connected(server) as (own, file):
            own.sendall(head + b"\r\n\r\n")
            assert file.readline() + file.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
            own.sendall(body)
            assert answer(file)[0] == 200
        head, _, body = post("a" * 2000, promise).partition(b"\r\n\r\n")
        with connected(server) as (own, file):
            own.sendall(head + b"\r\n\r\n")
            assert answer(file)[0] == 413
    with serving(stub, keys=Keys([KEY])) as server, connected(server) as (own, file):
        own.sendall(head + b"\r\n\r\n")
        assert answer(file)[0] == 401


def test_the_answer_to_head_has_no_body_and_the_connection_stays_in_step(server):
    with connected(server) as (own, file):
        for path in (b"/v1/models", b"/healthz", b"/nothing"):
            own.sendall(b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            status = int(file.readline().split()[1])
            assert status in (404, 405)
            while file.readline() != b"\r\n":
                pass
        own.sendall(GET)
        assert answer(file)[0] == 200


@pytest.mark.parametrize(
    "method",
    [b"OPTIONS *", b"OPTIONS /v1/embeddings", b"TRACE /healthz", b"CONNECT x:1", b"GET http://x",
     b"DELETE /v1/models"],
)  # fmt: skip
def test_other_methods_and_forms_of_address_are_refused(server, method):
    found = server.raw(method + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert int(found.split()[1]) in (400, 404, 405), found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["message"]


# ---- what one part of the way could read in another way than the next


@pytest.mark.parametrize(
    "headers",
    [b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6",
     b"Content-Length: 5, 6", b"Content-Length: +5", b"Content-Length : 5",
     b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: xchunked",
     b"X: 1\r\n Content-Length: 5", b"X: a\x00b", b"Content-Length: 0x5"],
)  # fmt: skip
def test_requests_with_two_meanings_are_refused(server, stub, headers):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    found = server.raw(head + headers + b"\r\n\r\n0\r\n\r\n" + GET)
    assert int(found.split()[1]) == 400, found
    assert found.count(b"HTTP/1.1 ") == 1


def test_headers_after_the_body_are_no_headers(serving, stub):
    with serving(stub, keys=Keys([KEY])) as server, connected(server) as (own, file):
        own.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n"
        )
        assert answer(file)[0] == 401


# ---- clients that dawdle


@pytest.mark.parametrize("sent", [b"\r\n", b"\r\n\r\n", b"G"])
def test_an_open_connection_that_says_next_to_nothing_is_closed(serving, stub, sent):
    with (
        serving(stub, header_seconds=0.4, idle_seconds=1) as server,
        connected(server, seconds=5) as (own, file),
    ):
        own.sendall(GET)
        assert answer(file)[0] == 200
        own.sendall(sent)
        assert answer(file)[0] in (0, 408)


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(serving, make_stub):
    with (
        serving(make_stub(dimension=4096), read_seconds=0.5) as server,
        socket.socket() as own,
    ):
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        own.settimeout(10)
        own.connect((server.host, server.port))
        own.sendall(post([f"t{n}" for n in range(100)]))  # an answer of 8 MB
        head = b""
        while b"\r\n\r\n" not in head:
            head += own.recv(100)
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        assert length > 5 * MEGABYTE
        received, begin = len(head.partition(b"\r\n\r\n")[2]), time.monotonic()
        while received < length:
            part = own.recv(1 << 17)
            assert part, f"cut off after {received} of {length} bytes"
            received += len(part)
            time.sleep(max(0.0, begin + received / (4 * MEGABYTE) - time.monotonic()))
        assert time.monotonic() - begin > 1  # much longer than `read_seconds`


def test_refused_connections_take_no_places(serving, stub):
    with serving(stub, max_connections=2) as server:
        held = [socket.create_connection((server.host, server.port)) for _ in range(2)]
        time.sleep(0.1)
        refused = []
        for _ in range(5):  # they stay open on their side
            refused.append(socket.create_connection((server.host, server.port), timeout=5))
            assert b" 503 " in refused[-1].recv(100)
        for own in held:
            own.close()
        time.sleep(0.1)
        with connected(server) as (own, file):
            own.sendall(GET)
            assert answer(file)[0] == 200
        for own in refused:
            own.close()


def test_a_stop_waits_for_clients_that_still_take_their_answer(serving, make_stub, monkeypatch):
    monkeypatch.setattr(process, "LAST_SECONDS", 0.1)
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        own.settimeout(10)
        with serving(make_stub(dimension=4096)) as server:
            own.connect((server.host, server.port))
            own.sendall(post([f"t{n}" for n in range(150)]))
            answered = {"route": "/v1/embeddings", "status": "200"}
            until(lambda: server.figure("embedtune_requests_total", **answered), 30)
            received: list[int] = []

            def read() -> None:
                time.sleep(1)
                while part := own.recv(1 << 17):
                    received.append(len(part))
                    time.sleep(0.01)

            reader = threading.Thread(target=read)
            reader.start()
        reader.join(20)
    assert sum(received) > 12 * MEGABYTE  # 150 texts of 4,096 numbers, all of them
