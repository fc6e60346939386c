"""Any OpenAI-compatible endpoint, through the openai SDK.

One try a call: retries, waiting and the total deadline are `recorded.RecordedChat`'s. Answers
are asked for by JSON schema, then as a JSON object, then in words, whichever the server takes.
"""

import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from embedtune.errors import ConfigError
from embedtune.files import clean_text, number_in, visible
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/openai"
LARGEST_BODY = 8_000_000  # bytes, after decompression
LOOPBACK = ("localhost", "127.0.0.1", "::1")


# ---- environment and address


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable as found; ``value`` is None when unset or empty."""

    name: str
    value: str | None
    state: str  # "set", "not set", "set but empty"
    note: str = ""


def read_variable(name: str, environment: Mapping[str, str] | None = None) -> Variable:
    """The one place where this package reads a provider's variable.

    White space around the value (a line end from ``echo``, mostly) is stripped with a note.
    """
    found = (os.environ if environment is None else environment).get(name)
    if found is None:
        return Variable(name, None, "not set")
    value = found.strip()
    if not value:
        return Variable(name, None, "set but empty")
    note = f"{name}: white space or a line end around the value was removed"
    return Variable(name, value, "set", note if value != found else "")


def check_base_url(url: str, field: str = "llm.base_url") -> str:
    """The address in the form used: no trailing slash, ``/v1`` where no path was given.

    Raises:
        ConfigError: Not http(s), no host, or a user, password, query or fragment in it.
    """
    text = url.strip()
    fault = ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{field}: {visible(_shown(text))} is no address: {error}") from None
    host = parts.hostname or ""
    if any(not character.isprintable() or character.isspace() for character in text):
        fault = "holds blanks or control characters"
    elif parts.scheme not in ("http", "https"):
        fault = f"has the scheme {parts.scheme or 'none'!r}; only http and https are used"
    elif not host:
        fault = "names no host"
    elif parts.username is not None or parts.password is not None:
        fault = "holds a user or password; name an environment variable in api_key_env instead"
    elif parts.query or parts.fragment:
        fault = "holds a query or fragment; give the address up to the version part"
    if fault:
        raise ConfigError(
            f"{field}: {visible(_shown(text))} {fault}; expected something like {OPENAI_URL}"
        )
    netloc = f"[{host}]" if ":" in host else host
    netloc += f":{port}" if port is not None else ""
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/completions", "/embeddings", "/models"):
        path = path.removesuffix(endpoint).rstrip("/")
    return urlunsplit((parts.scheme, netloc, path or "/v1", "", ""))


def _shown(url: str) -> str:
    """The address without user, password and query, fit for a message."""
    head, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    place = place.rpartition("@")[2]
    return f"{head}{mark}{place}{slash}{path.partition('?')[0]}" if mark else url.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to ask. ``key`` never leaves the client."""

    base_url: str
    model: str
    key: str
    key_name: str  # the variable it came from
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r}, key of {self.key_name!r})"


def find_endpoint(
    model: str | None,
    base_url: str | None,
    api_key_env: str = "auto",
    *,
    model_variable: str = "LLM_MODEL",
    section: str = "llm",
    environment: Mapping[str, str] | None = None,
) -> Endpoint:
    """Settings first, then OPENAI_BASE_URL, OPENAI_API_BASE, LLM_MODEL and the keys.

    ``api_key_env``: a variable's name; ``none`` for a server without keys; ``auto`` takes
    OPENAI_API_KEY, or GEMINI_API_KEY when only that is set or Google's address is given, and
    asks for no key on this machine's own addresses.

    Raises:
        ConfigError: With all faults together.
    """

    def read(name: str) -> Variable:
        variable = read_variable(name, environment)
        if variable.note:
            notes.append(variable.note)
        return variable

    notes: list[str] = []
    faults: list[str] = []
    openai_key, gemini_key = read("OPENAI_API_KEY"), read("GEMINI_API_KEY")
    if not base_url:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
            if value := read(name).value:
                base_url, field = value, name
                break
        else:
            only_gemini = api_key_env == "auto" and gemini_key.value and not openai_key.value
            base_url = GEMINI_URL if only_gemini or api_key_env == gemini_key.name else OPENAI_URL
            field = "default address"
    else:
        field = f"{section}.base_url"
    try:
        address = check_base_url(base_url, field)
        if address.rstrip("/") != base_url.strip().rstrip("/"):
            notes.append(f"{field}: using {address}")
    except ConfigError as error:
        faults += error.faults
        address = ""
    host = urlsplit(address).hostname or ""
    model = model or read(model_variable).value
    if not model:
        faults.append(f"{section}.model: not given; name a model there or in {model_variable}")
    google = host.endswith(".googleapis.com")
    if api_key_env == "auto":
        variable = gemini_key if google and not openai_key.value else openai_key
        needed = host not in LOOPBACK
    else:
        variable, needed = read(api_key_env), True
    key = variable.value or ""
    if api_key_env == "none":
        key = "none"
    elif not key and not needed:
        notes.append(f"{variable.name} is {variable.state}: asking {host} without a key")
        key = "none"
    elif not key:
        faults.append(
            f"{variable.name} is {variable.state}, and {host or 'the service'} needs a key; set "
            f"it, name another variable in {section}.api_key_env, or write none there for a server "
            "without keys"
        )
    elif not key.isascii() or not key.isprintable():
        faults.append(f"{variable.name}: holds characters that cannot be part of a key")
    if faults:
        raise ConfigError(faults)
    return Endpoint(address, model or "", key, variable.name, tuple(notes))


# ---- the client


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
        self.endpoint = find_endpoint(model, base_url, api_key_env)
        self.name = f"openai:{self.endpoint.model}"
        self.notes = self.endpoint.notes
        self.host = urlsplit(self.endpoint.base_url).netloc
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
                        raise ChatFault("answer", "too-large",
                                        f"{self.host} sent more than {LARGEST_BODY:,} bytes",
                                        raw=self._text(bytes(received[:10_000])))  # fmt: skip
                return bytes(received), response.headers.get("content-type", "")
        except openai.APIStatusError as error:
            raise self._refused(
                error.status_code, error.response.headers, self._text(error.response.content)
            ) from None
        except openai.APITimeoutError as error:
            raise ChatFault("answer", "timeout", f"{self.host} did not answer in time") from error
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from error
        except tuple(_transport_errors()) as error:
            raise self._unreachable(error) from error
        except openai.OpenAIError as error:
            raise ChatFault("answer", "bad-answer", f"{self.host}: {visible(error)}") from error

    def _connection(self) -> "AsyncOpenAI":
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            # a proxy cannot reach this machine's own addresses
            proxied = urlsplit(self.endpoint.base_url).hostname not in LOOPBACK
            self._client = AsyncOpenAI(
                api_key=self.endpoint.key,
                base_url=self.endpoint.base_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=DefaultAsyncHttpxClient(trust_env=proxied),
            )
        return self._client

    # ---- answers

    def _answer(self, body: bytes, content_type: str) -> ChatAnswer:
        raw = self._text(body)

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
            raise self._refused(status, {}, raw)
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

    def _text(self, body: bytes) -> str:
        """The body as text, the key blotted out should the server repeat it."""
        text = body.decode("utf-8", "replace")
        if len(self.endpoint.key) > 7:
            text = text.replace(self.endpoint.key, "[key]")
        return clean_text(text)

    # ---- faults

    def _refused(self, status: int, headers: Mapping[str, str], raw: str) -> ChatFault:
        said = visible(_error_message(raw), 200)
        model, address, key = self.endpoint.model, self.endpoint.base_url, self.endpoint.key_name
        wait = retry_after(headers)
        lowered = raw.lower()

        def fault(kind: Any, code: str, advice: str) -> ChatFault:  # kind: a FaultKind literal
            message = f"{self.host} answered {status} ({said or 'no reason given'}){advice}"
            return ChatFault(kind, code, message, retry_after=wait, raw=raw)

        if status in (401, 403):
            return fault("stop", "key", f"; check the key in {key}, and that it may use {model}")
        if status == 402 or (status == 429 and "insufficient_quota" in lowered):
            return fault("stop", "no-credit", f"; the account behind {key} has no credit left")
        if status == 404:
            return fault("stop", "not-found", f"; asked for the model {model!r} at {address}: "
                         "check llm.model and llm.base_url (most end in /v1)")  # fmt: skip
        if status == 429:
            return fault("wait", "rate-limit", "")
        if status in (408, 409, 425) or status >= 500:
            return fault("service", f"http-{status}", "")
        if status < 400 or status in (405, 410):
            return fault("stop", "address", f"; {address} is no chat address, check llm.base_url")
        too_long = "context" in lowered and ("length" in lowered or "window" in lowered)
        if too_long or status == 413:
            return fault("request", "passage-too-long", "; the passage does not fit the model")
        if "content_filter" in lowered or "content management policy" in lowered:
            return fault("request", "content-filter", "")
        return fault("request", "bad-request", "")

    def _unreachable(self, error: BaseException) -> ChatFault:
        """Name and TLS faults by name, found at the bottom of the chain of causes."""
        chain = list(_causes(error))
        reason = visible(str(chain[-1]) or type(chain[-1]).__name__, 160)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
            return ChatFault("stop", "tls", f"{self.host}: its certificate is not trusted "
                             f"({reason}); name your authority's file in SSL_CERT_FILE, or check "
                             "llm.base_url")  # fmt: skip
        if any(isinstance(cause, ssl.SSLError) for cause in chain):
            return ChatFault("service", "tls", f"{self.host}: TLS failed ({reason}); "
                             "check https against http in llm.base_url")  # fmt: skip
        if any(isinstance(cause, socket.gaierror) for cause in chain):
            return ChatFault("service", "name", f"{self.host}: name not found ({reason}); "
                             "check llm.base_url and the network")  # fmt: skip
        return ChatFault("service", "connection", f"{self.host}: no connection ({reason})")


def _transport_errors() -> Iterator[type[Exception]]:
    """What reading a body may raise; the SDK's HTTP library was renamed between its versions."""
    for library in ("httpx2", "httpx"):
        with suppress(ImportError):
            module = import_module(library)
            yield module.HTTPError
            yield module.StreamError


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait from ``retry-after-ms`` or ``Retry-After`` (seconds or date), if given."""
    milliseconds = number_in(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = number_in(value)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


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


def _error_message(raw: str) -> str:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return "" if raw.lstrip().startswith("<") else raw
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)
