"""HTTP connections with deadlines, which uvicorn's own have none of.

Slow headers and bodies get 408, long addresses 414, long headers 431; a client that does not take
its answer is cut off; more connections than allowed get 503. All in the error form of the OpenAI
interface.
"""

import asyncio
import http
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from embedtune.serving.refusals import Refusal
from embedtune.serving.settings import ServerSettings

LONGEST_ADDRESS = 8 << 10  # bytes
LONGEST_HEADERS = 32 << 10
LINGER = 1.0  # seconds in which a refused client may still send, so that it finds its answer


class Connection(HttpToolsProtocol):
    """One connection. `connection_class` binds the settings."""

    settings = ServerSettings()

    def __init__(self, *arguments: Any, **named: Any) -> None:  # uvicorn's own
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._fault: Refusal | None = None
        self._header_bytes = 0
        self._begun = False  # bytes of the request that is due have come
        self._refused = False
        self.access_log = False  # whatever handlers there are: it shows addresses, keys in them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            self._refuse(Refusal(503, "too many connections", code="too_many_connections"))
            return
        self._start_deadline(self.settings.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._begun = True
        super().data_received(data)

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
        self._start_deadline(self.settings.body_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # the answer may come before the body has; what is left of it is not waited for for ever
        self._begun = False
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(
                self.settings.read_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

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
        if self._refused or self.transport.is_closing():
            return
        if not self._begun:  # opened, and nothing was asked
            self.transport.close()
            return
        self._refuse(Refusal(408, "the request did not come in time", code="too_slow"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer without the application, and close. A half-sent answer is only cut off."""
        self._stop_deadline()
        self._refused = True
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        if not (running and cycle.response_started):
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
            cycle.disconnected = True
            cycle.message_event.set()
        # a connection closed on unread bytes is reset, and the answer may be lost with it
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


def connection_class(own: ServerSettings) -> type[Connection]:
    """The class that uvicorn makes connections of."""
    return type("Connection", (Connection,), {"settings": own})
