"""Any OpenAI-compatible endpoint, through the openai SDK.

One try a call: retries, waiting and the total deadline are `recorded.RecordedChat`'s. Answers
are asked for by JSON schema, then as a JSON object, then in words, whichever the server takes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedtune.endpoint import Fault, find_endpoint, refused, unreachable
from embedtune.files import clean_text, number_in, visible
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LARGEST_BODY = 8_000_000  # bytes, after decompression


@dataclass(frozen=True, slots=True)
class _Form:
    """How this server wants to be asked; found out from its refusals, kept per client."""

    answers: int = 0  # index into ANSWERS
    limit: str = "max_tokens"
    temperature: bool = True


ANSWERS = ("json_schema", "json_object", "in words")
ADAPTATIONS = 5
REMINDER = "\n\nYour previous answer could not be used. Give the complete JSON object only."


class OpenAIChat:
    """A chat model behind an OpenAI-compatible address. Connections belong to an event loop."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key_env: str = "auto",
        timeout: float = 120,
    ) -> None:
        self.endpoint = find_endpoint(
            model, base_url, api_key_env, model_variable="LLM_MODEL", section="llm"
        )
        self.name = f"openai:{self.endpoint.model}"
        self.notes = self.endpoint.notes
        self.host = self.endpoint.host
        self._timeout = timeout
        self._form = _Form()
        self._client: AsyncOpenAI | None = None

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        for _ in range(ADAPTATIONS):
            form = self._form
            try:
                return self._answer(*await self._send(self._body(request, form)))
            except ChatFault as fault:
                if fault.kind != "request" or not self._adapt(form, fault, request):
                    raise
        raise ChatFault("request", "bad-request", f"{self.host} refuses every form of the request")

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _body(self, request: ChatRequest, form: _Form) -> dict[str, Any]:
        user = request.user
        if request.attempt:
            user += REMINDER
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": user},
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
        return body

    def _adapt(self, form: _Form, fault: ChatFault, request: ChatRequest) -> bool:
        """Whether asking in another form may help; remembered for all later requests."""
        if self._form != form:  # another request found out meanwhile
            return True
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

    async def _send(self, body: Mapping[str, Any]) -> tuple[bytes, str]:
        """The body of a 2xx answer and its content type.

        Raises:
            ChatFault: Everything else.
        """
        import openai

        create = self._connection().chat.completions.with_streaming_response.create
        try:
            # as extra_body the SDK sends it as it is, instead of walking through it for types
            async with create(model=body["model"], messages=[], extra_body=body) as response:
                received = bytearray()
                async for part in response.iter_bytes():
                    received += part
                    if len(received) > LARGEST_BODY:
                        start = self.endpoint.text(bytes(received[:10_000]))
                        message = f"{self.host} sent more than {LARGEST_BODY:,} bytes"
                        raise ChatFault("answer", "too-large", message, raw=start)
                return bytes(received), response.headers.get("content-type", "")
        except openai.APIStatusError as error:
            raw = self.endpoint.text(error.response.content)
            fault = refused(self.endpoint, error.status_code, error.response.headers, raw)
            raise _fault(fault, raw) from None
        except openai.APITimeoutError as error:
            raise ChatFault("answer", "timeout", f"{self.host} did not answer in time") from error
        except (openai.APIConnectionError, *_transport_errors()) as error:
            raise _fault(unreachable(self.endpoint, error)) from error
        except openai.OpenAIError as error:
            raise ChatFault("answer", "bad-answer", f"{self.host}: {visible(error)}") from error

    def _connection(self) -> "AsyncOpenAI":
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            self._client = AsyncOpenAI(
                api_key=self.endpoint.key,
                base_url=self.endpoint.base_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=DefaultAsyncHttpxClient(trust_env=not self.endpoint.local),
            )
        return self._client

    # ---- answers

    def _answer(self, body: bytes, content_type: str) -> ChatAnswer:
        raw = self.endpoint.text(body)

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
            text=clean_text(text or ""),
            finish=finish,
            input_tokens=_tokens(usage.get("prompt_tokens")),
            output_tokens=_tokens(usage.get("completion_tokens")),
            raw=raw,
        )


def _fault(fault: Fault, raw: str = "") -> ChatFault:
    return ChatFault(fault.kind, fault.code, fault.message, retry_after=fault.retry_after, raw=raw)


def _transport_errors() -> Iterator[type[Exception]]:
    """What reading a body may raise; the SDK's HTTP library was renamed between its versions."""
    for library in ("httpx2", "httpx"):
        with suppress(ImportError):
            module = import_module(library)
            yield module.HTTPError
            yield module.StreamError


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
