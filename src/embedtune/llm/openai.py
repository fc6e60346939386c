"""Any OpenAI-compatible endpoint, over plain HTTP.

One try a call: retries, waiting and the total deadline are `recorded.RecordedChat`'s. Answers
are asked for by JSON schema, then as a JSON object, then in words, whichever the server takes.
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from embedtune.endpoint import Fault, find_endpoint, read_variable, refused, unreachable
from embedtune.files import clean_text, number_in, visible
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest, asked, without_thoughts
from embedtune.store import canonical

if TYPE_CHECKING:
    import httpx2

LARGEST_BODY = 8_000_000  # bytes, after decompression
CHAT = "/chat/completions"
# Who is billed, for people who belong to several organisations at OpenAI.
BILLING = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


@dataclass(frozen=True, slots=True)
class _Form:
    """How this server wants to be asked; found out from its refusals, kept per client."""

    answers: int = 0  # index into ANSWERS
    limit: str = "max_tokens"
    temperature: bool = True


ANSWERS = ("json_schema", "json_object", "in words")
ADAPTATIONS = 5


class OpenAIChat:
    """A chat model behind an OpenAI-compatible address. Connections belong to an event loop.

    ``extra`` are further fields of each request's body, ``{"reasoning_effort": "low"}`` say; they
    are part of the name, and so of the key under which answers are stored.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key_env: str = "auto",
        timeout: float = 120,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint = find_endpoint(
            model, base_url, api_key_env, model_variable="LLM_MODEL", section="llm"
        )
        self.name = f"openai:{self.endpoint.model}{canonical(extra) if extra else ''}"
        self.notes = self.endpoint.notes
        self.host = self.endpoint.host
        self._timeout = timeout
        self._extra = dict(extra or {})
        self._form = _Form()
        self._tls: ssl.SSLContext | None = None
        # one connection each: a shared pool looks at all its idle ones for every request
        self._free: list[httpx2.AsyncClient] = []

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        for _ in range(ADAPTATIONS):
            form = self._form
            try:
                return self.answer(*await self.exchange("POST", CHAT, json=self.body(request)))
            except ChatFault as fault:
                if fault.kind != "request":
                    raise
                if self._form == form and not self.adapt(request, fault):
                    raise
        raise ChatFault("request", "bad-request", f"{self.host} refuses every form of the request")

    async def close(self) -> None:
        while self._free:
            await self._free.pop().aclose()

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The request as this server wants it, as far as its refusals have taught."""
        form = self._form
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": asked(request)},
            ],
            form.limit: request.max_tokens,
        }
        if form.temperature:
            body["temperature"] = request.temperature
        if request.schema is not None and form.answers == 0:
            schema = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema is not None and form.answers == 1:
            body["response_format"] = {"type": "json_object"}
        return {**body, **self._extra}

    def adapt(self, request: ChatRequest, fault: ChatFault) -> bool:
        """Whether asking in another form may help; all later requests are asked in it."""
        if fault.kind != "request":
            return False
        form = self._form
        said = f"{fault.message} {fault.raw}".lower()
        formats = ("response_format", "response format", "json_schema", "json_object", "structured")
        if (
            request.schema is not None
            and form.answers < len(ANSWERS) - 1
            and any(word in said for word in formats)
        ):
            self._form = replace(form, answers=form.answers + 1)
        elif form.limit == "max_tokens" and "max_completion_tokens" in said:
            self._form = replace(form, limit="max_completion_tokens")
        elif form.temperature and "temperature" in said:
            self._form = replace(form, temperature=False)
        return self._form != form

    # ---- over the wire

    async def exchange(self, method: str, path: str, **content: Any) -> tuple[str, str]:
        """The body of a 2xx answer as text, and its content type. ``content`` is httpx's.

        Raises:
            ChatFault: Everything else.
        """
        async with self._response(method, path, **content) as response:
            body = self.endpoint.text(await self._received(response))
            return body, response.headers.get("content-type", "")

    async def lines(self, path: str, method: str = "GET", **content: Any) -> AsyncIterator[str]:
        """The lines of a file or stream, however long it is; each as long as an answer may be.

        Raises:
            ChatFault: It cannot be had, or a line is too long.
        """
        async with self._response(method, path, **content) as response:
            rest = bytearray()
            async for part in response.aiter_bytes():
                rest += part
                *whole, last = rest.split(b"\n")
                rest = bytearray(last)
                if len(rest) > LARGEST_BODY:
                    raise self._too_large(rest)
                for line in whole:
                    yield self.endpoint.text(bytes(line))
            yield self.endpoint.text(bytes(rest))

    @asynccontextmanager
    async def _response(
        self, method: str, path: str, **content: Any
    ) -> "AsyncIterator[httpx2.Response]":
        http = http_library()
        client = self._free.pop() if self._free else self._connect(http)
        try:
            async with client.stream(method, self.endpoint.base_url + path, **content) as response:
                if not response.is_success:
                    raw = self.endpoint.text(await self._received(response))
                    fault = refused(self.endpoint, response.status_code, response.headers, raw)
                    raise _fault(fault, raw)
                yield response
        except (http.ReadTimeout, http.WriteTimeout) as error:
            raise ChatFault("answer", "timeout", f"{self.host} did not answer in time") from error
        except (http.HTTPError, http.StreamError) as error:
            raise _fault(unreachable(self.endpoint, error)) from error
        finally:
            self._free.append(client)

    async def _received(self, response: "httpx2.Response") -> bytes:
        received = bytearray()
        async for part in response.aiter_bytes():
            received += part
            if len(received) > LARGEST_BODY:
                raise self._too_large(received)
        return bytes(received)

    def _too_large(self, received: bytes | bytearray) -> ChatFault:
        start = self.endpoint.text(bytes(received[:10_000]))
        message = f"{self.host} sent more than {LARGEST_BODY:,} bytes"
        return ChatFault("answer", "too-large", message, raw=start)

    def _connect(self, http: ModuleType) -> "httpx2.AsyncClient":
        headers = {"authorization": f"Bearer {self.endpoint.key}", "user-agent": "embedtune"}
        if self.endpoint.host == "api.openai.com":
            found = {header: read_variable(name).value for name, header in BILLING.items()}
            headers |= {header: value for header, value in found.items() if value}
        if self._tls is None:  # shared, and without the slow reading of authorities over http
            secure = self.endpoint.base_url.startswith("https:")
            self._tls = (
                http.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )
        return http.AsyncClient(
            headers=headers,
            timeout=self._timeout,
            verify=self._tls,
            trust_env=not self.endpoint.local,
        )

    # ---- answers

    def answer(self, raw: str, content_type: str = "") -> ChatAnswer:
        """What a body says.

        Raises:
            ChatFault: It is no answer of this API, or an error under a status of success.
        """

        def fault(code: str, message: str) -> ChatFault:
            return ChatFault("answer", code, f"{self.host} {message}: {visible(raw)}", raw=raw)

        if not raw.strip():
            raise ChatFault("answer", "empty-body", f"{self.host} sent an empty answer")
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            if "html" in content_type or raw.lstrip()[:200].lower().startswith(
                ("<!doctype", "<html")
            ):
                raise fault("html", "sent a web page instead of an answer") from None
            raise fault("not-json", "sent something that is not JSON") from None
        if not isinstance(data, dict):
            raise fault("bad-answer", f"sent a JSON {type(data).__name__} instead of an object")
        choices = data.get("choices")
        if not choices and isinstance(data.get("error"), dict):
            code = number_in(data["error"].get("code"))
            status = int(code) if code is not None and 400 <= code < 600 else 500
            raise _fault(refused(self.endpoint, status, {}, raw), raw)
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise fault("no-choices", "sent an answer without choices")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise fault("no-message", "sent a choice without a message")
        usage = data.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        finish = _finish(choices[0].get("finish_reason"))
        text = _content(message.get("content"))
        if isinstance(message.get("refusal"), str) and message["refusal"] and not text:
            finish, text = "refusal", message["refusal"]
        if text is None and finish == "stop":
            raise fault("no-content", "sent a message without content")
        return ChatAnswer(
            text=clean_text(without_thoughts(text or "")),
            finish=finish,
            input_tokens=_tokens(usage.get("prompt_tokens")),
            output_tokens=_tokens(usage.get("completion_tokens")),
            raw=raw,
        )


def _fault(fault: Fault, raw: str = "") -> ChatFault:
    return ChatFault(fault.kind, fault.code, fault.message, retry_after=fault.retry_after, raw=raw)


def http_library() -> ModuleType:
    """The HTTP library that the openai package brings; it was renamed between its versions."""
    with suppress(ImportError):
        return import_module("httpx2")
    return import_module("httpx")


def _finish(reason: object) -> str:
    known = {"length": "length", "max_tokens": "length", "content_filter": "content_filter",
             "safety": "content_filter", "refusal": "refusal"}  # fmt: skip
    return known.get(reason.lower(), "stop") if isinstance(reason, str) else "stop"


def _content(content: object) -> str | None:
    """Text of a message; some servers send a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str)) or None
    return None


def _tokens(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
