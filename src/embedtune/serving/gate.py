"""What every request passes first: stop, key, size. Nothing behind it sees a refused request."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedtune.serving.keys import Keys
from embedtune.serving.metrics import Metrics
from embedtune.serving.refusals import Refusal, left, refusal_for, stopping, too_large
from embedtune.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz", "/openapi.json")  # for everybody, and while the server stops
ADMIN = "/admin/"
MARKS = (b",", b"[", b"{")
LINGER = 2.0  # seconds in which the rest of a refused body is read and thrown away


class Gate:
    """ASGI middleware around the application.

    The body is read here, within the limits, before the application starts, so that nothing is
    parsed that is too large. ``in_flight`` counts the requests that were accepted and have no
    whole answer yet; while ``stopping`` is set, no new one is accepted.
    """

    def __init__(
        self, app: ASGIApp, *, settings: ServerSettings, keys: Keys, metrics: Metrics
    ) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._bodies = 0  # bytes of all bodies in memory
        self.stopping = False
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        answer = _Answer(send, self)
        counted = scope["path"] not in OPEN
        self.in_flight += counted
        held = _Held()
        try:
            self._admit(scope)
            body = await self._read(scope, receive, held)
            await self._app(scope, _replayed(body, receive), answer)
        except Refusal as refusal:
            unread = refusal.status in (401, 403, 413, 422, 429, 503)
            await self._refuse(refusal, scope, receive, answer, linger=unread)
        except Exception as error:  # the border: a client never sees a broken connection for it
            logger.debug("a request failed", exc_info=error)
            if answer.status is None:
                await self._refuse(refusal_for(error), scope, receive, answer, linger=False)
            else:
                raise
        finally:
            self._bodies -= held.bytes
            self.in_flight -= counted
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, str(answer.status or "left")).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - begin)

    def _admit(self, scope: Scope) -> None:
        path = scope["path"]
        if path in OPEN:
            return
        if self.stopping:
            raise stopping()
        right = self._keys.right([v for k, v in scope["headers"] if k == b"authorization"])
        if right == "none":
            raise Refusal(
                401,
                "this server wants a key: one header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        if path.startswith(ADMIN) and right != "admin":
            raise Refusal(
                403,
                "this needs the key of the administrator"
                if self._keys.can_administer
                else "this server was started without a key of an administrator",
                code="not_allowed",
            )

    async def _read(self, scope: Scope, receive: Receive, held: "_Held") -> bytes:
        own = self._settings
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise Refusal(
                422, "Content-Encoding: packed bodies are not read; send it as it is",
                code="packed_body",
            )  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > own.max_body_bytes:
            raise self._too_large(int(length))
        parts: list[bytes] = []
        more = scope["method"] in ("POST", "PUT", "PATCH")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise left()
            part = message.get("body", b"")
            held.bytes += len(part)
            self._bodies += len(part)
            if held.bytes > own.max_body_bytes:
                raise self._too_large(held.bytes)
            if self._bodies > own.max_bodies_bytes:
                raise Refusal(429, "too many large requests at once; try again", code="busy")
            parts.append(part)
            more = message.get("more_body", False)
        body = b"".join(parts)
        # JSON of very many values takes far more memory than its text. Each mark parts two values,
        # or is a token of a text: there can be no more of them than tokens are allowed
        if any(body.count(mark) > own.max_request_tokens for mark in MARKS):
            raise too_large(f"more than {own.max_request_tokens} tokens or values in one request")
        return body

    def _too_large(self, found: int) -> Refusal:
        limit = self._settings.max_body_bytes
        return too_large(f"a body of {found} bytes or more; at most {limit} are read")

    async def _refuse(
        self, refusal: Refusal, scope: Scope, receive: Receive, answer: "_Answer", *, linger: bool
    ) -> None:
        """``linger``: a client that is still sending must find the answer before its connection
        breaks, so the rest is read for a while and thrown away."""
        body = refusal.body
        headers = {
            **refusal.headers,
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        sends = {k for k, _ in scope["headers"]} & {b"content-length", b"transfer-encoding"}
        linger = linger and bool(sends)
        if linger:
            headers["connection"] = "close"
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await answer({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await answer({"type": "http.response.body", "body": body, "more_body": linger})
        if linger:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    while (await receive()).get("more_body", False):
                        pass
            await answer({"type": "http.response.body", "body": b"", "more_body": False})


class _Held:
    """Bytes of one body."""

    bytes = 0


class _Answer:
    """`Send` that remembers the status and, while the server stops, closes the connection."""

    def __init__(self, send: Send, gate: Gate) -> None:
        self._send = send
        self._gate = gate
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._gate.stopping:
                headers: Sequence[tuple[bytes, bytes]] = message.get("headers", ())
                kept = [pair for pair in headers if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await self._send(message)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then what really comes: the client's leaving."""
    given = False

    async def own() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return own
