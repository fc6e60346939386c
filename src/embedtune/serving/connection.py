"""HTTP connections with deadlines, which uvicorn's own have none of.

Slow headers and bodies get 408, long addresses 414, long headers 431; a client that does not take
its answer is cut off; more connections than allowed get 503. All in the error form of the OpenAI
interface, and after the answers to what the same connection asked before.
"""

import asyncio
import http
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from embedtune.serving.refusals import Refusal
from embedtune.serving.settings import ServerSettings

LONGEST_ADDRESS = 8 << 10  # bytes
LONGEST_HEADERS = 32 << 10
LINGER = 1.0  # seconds in which a refused client may still send, so that it finds its answer
MOST_WAITING = 100  # requests that one connection sends before the answer to the first
PORTION = 1 << 20  # bytes of an answer that a client takes within `read_seconds`, if not all
OF_UPGRADES = (b"upgrade", b"http2-settings")


class Connection(HttpToolsProtocol):
    """One connection. `connection_class` binds the settings."""

    settings = ServerSettings()

    def __init__(self, *arguments: Any, **named: Any) -> None:  # uvicorn's own
        super().__init__(*arguments, **named)
        self._running: RequestResponseCycle | None = None  # `cycle` is the newest: it may wait
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes, when the client was last looked at
        self._fault: Refusal | None = None
        self._due: Refusal | None = None  # follows the answers that are still to come
        self._header_bytes = 0
        self._begun = False  # bytes of the request that is due have come
        self._upgrades = False
        self._refused = False
        self.access_log = False  # whatever handlers there are: it shows addresses, keys in them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            self.connections.discard(self)  # else those that are refused keep others out
            self._refuse(Refusal(503, "too many connections", code="too_many_connections"))
            return
        self._start_deadline(self.settings.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._stop_write_deadline()

    def data_received(self, data: bytes) -> None:
        if self._refused or self._due or self.transport.is_closing():
            return
        self._begun = True
        if not self.flow.write_paused:
            self._stop_write_deadline()
        if self._deadline is None and (self._running is None or self._running.response_complete):
            self._start_deadline(self.settings.header_seconds)  # even blank lines end the idling
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_again(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        if self._deadline is None:
            self._start_deadline(self.settings.header_seconds)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > LONGEST_ADDRESS:
            self._stop_parsing(
                Refusal(
                    414,
                    f"the address is longer than {LONGEST_ADDRESS} bytes",
                    code="address_too_long",
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > LONGEST_HEADERS:
            self._stop_parsing(
                Refusal(
                    431,
                    f"the headers are longer than {LONGEST_HEADERS} bytes",
                    code="headers_too_long",
                )
            )

    def on_headers_complete(self) -> None:
        self._upgrades = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._upgrades:
            return
        if len(self.pipeline) >= MOST_WAITING:
            told = f"more than {MOST_WAITING} requests wait on this connection; send them later"
            self._stop_parsing(Refusal(503, told, code="too_many_requests"))
        self._start_deadline(self.settings.body_seconds)
        super().on_headers_complete()
        self.headers = []  # what comes behind the body is none
        if not self.pipeline:
            self._running = self.cycle
        elif sum(len(cycle.body) for cycle, _ in self.pipeline) < HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # else nobody would notice that the client leaves

    def on_message_complete(self) -> None:
        if not self._upgrades:
            self._stop_deadline()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
            if self._deadline is not None:  # it was not read while it waited
                self._start_deadline(self.settings.body_seconds)
        elif self.cycle.more_body:
            # the answer came before all of the body; the rest is not waited for for ever
            self._begun = False
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._start_write_deadline()
        if self._due and self._running and self._running.response_complete:
            self._refuse(self._due)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_deadline()

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        super().resume_writing()
        if self.transport.get_write_buffer_size():
            self._start_write_deadline()

    def _parse_again(self, rest: bytes) -> None:
        """The request without its wish for another protocol, which Java's client sends with each.
        The parser takes what follows such headers for the other protocol, and leaves the body."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() not in OF_UPGRADES)
            if name not in OF_UPGRADES and value:
                lines.append(b"%s: %s" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the bytes are no HTTP, or a callback of the parser raises."""
        self._refuse(self._fault or Refusal(400, "this is not HTTP/1.1", code="not_http"))

    def _stop_parsing(self, refusal: Refusal) -> None:
        self._fault = refusal
        raise ValueError(refusal.message)  # the parser stops, and `send_400_response` is called

    def _start_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._refused or self._due or self.transport.is_closing():
            return
        if self.pipeline:  # little is read while a request waits for its turn
            self._start_deadline(self.settings.body_seconds)
        elif not self._begun:  # opened, and nothing was asked
            self.transport.close()
        else:
            self._refuse(Refusal(408, "the request did not come in time", code="too_slow"))

    def _start_write_deadline(self) -> None:
        if self._write_deadline is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._write_deadline = self.loop.call_later(
                self.settings.read_seconds, self._look_at_reader
            )

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _look_at_reader(self) -> None:
        """Cut off a client that takes nothing of what is written, or next to nothing."""
        self._write_deadline = None
        unsent = self.transport.get_write_buffer_size()
        writes = self._is_running() and not self.flow.write_paused
        if unsent > self._unsent - PORTION and unsent and not writes:
            self.transport.abort()
        elif unsent:
            self._start_write_deadline()

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _refuse(self, refusal: Refusal) -> None:
        """Answer without the application, and close. A half-sent answer is only cut off; whole
        requests that came before are answered first."""
        self._stop_deadline()
        running = self._running if self._is_running() else None
        if running and (running is not self.cycle or not running.more_body):
            self._due = refusal
            if self.pipeline and self.pipeline[0][0].more_body:  # the newest, which is at fault
                self.pipeline.popleft()
            return
        self._refused = True
        if not (running and running.response_started):
            phrase = http.HTTPStatus(refusal.status).phrase
            lines = [
                f"HTTP/1.1 {refusal.status} {phrase}",
                "content-type: application/json",
                f"content-length: {len(refusal.body)}",
                *(f"{name}: {value}" for name, value in refusal.headers.items()),
                "connection: close",
            ]
            head = "\r\n".join(lines).encode() + b"\r\n\r\n"
            self.transport.write(head + refusal.body)
        if running:  # the application is told that its client has left
            running.disconnected = True
            running.message_event.set()
        if self.transport.get_write_buffer_size():
            self._start_write_deadline()
        # a connection closed on unread bytes is reset, and the answer may be lost with it
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


def connection_class(own: ServerSettings) -> type[Connection]:
    """The class that uvicorn makes connections of."""
    return type("Connection", (Connection,), {"settings": own})
