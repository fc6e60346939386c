"""Where and as whom to ask an OpenAI-compatible service, and what its refusals mean.

Chat models and embedders share this: addresses, keys, waiting, and one table of faults.
"""

import json
import os
import random
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from embedtune.errors import ConfigError
from embedtune.files import clean_text, number_in, visible

OPENAI_URL = "https://api.openai.com/v1"
GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/openai"
ADDRESS_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_BACKOFF = 60.0  # seconds


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


def check_base_url(url: str, field: str = "base_url") -> str:
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
    section: str = ""  # of the configuration, where one describes this endpoint
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r}, key of {self.key_name!r})"

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    @property
    def local(self) -> bool:
        """On this machine, where no proxy can reach it and no key is needed."""
        return urlsplit(self.base_url).hostname in LOOPBACK

    def text(self, body: bytes) -> str:
        """A body as text, the key blotted out should the server repeat it."""
        text = body.decode("utf-8", "replace")
        if len(self.key) > 7:
            text = text.replace(self.key, "[key]")
        return clean_text(text)


def find_address(
    base_url: str | None, api_key_env: str = "auto", environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """The address as written, and the variable it is from (or "default address"; "" if given)."""
    if base_url:
        return base_url.strip(), ""
    for name in ADDRESS_VARIABLES:
        if value := read_variable(name, environment).value:
            return value, name
    openai_key, gemini_key = (
        read_variable(name, environment).value for name in ("OPENAI_API_KEY", "GEMINI_API_KEY")
    )
    only_gemini = api_key_env == "auto" and gemini_key and not openai_key
    google = only_gemini or api_key_env == "GEMINI_API_KEY"
    return GEMINI_URL if google else OPENAI_URL, "default address"


def find_endpoint(
    model: str | None,
    base_url: str | None,
    api_key_env: str = "auto",
    *,
    model_variable: str,
    section: str = "",
    environment: Mapping[str, str] | None = None,
) -> Endpoint:
    """Arguments first, then OPENAI_BASE_URL, OPENAI_API_BASE, the model's variable and the keys.

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
    base_url, variable_name = find_address(base_url, api_key_env, environment)
    field = variable_name or _named(section, "base_url")
    if variable_name in ADDRESS_VARIABLES:
        read(variable_name)  # for its note
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
        faults.append(
            f"{_named(section, 'model')}: not given; name a model there or in {model_variable}"
        )
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
            f"it, name another variable in {_named(section, 'api_key_env')}, or write none there "
            "for a server without keys"
        )
    elif not key.isascii() or not key.isprintable():
        faults.append(f"{variable.name}: holds characters that cannot be part of a key")
    if faults:
        raise ConfigError(faults)
    return Endpoint(address, model or "", key, variable.name, section, tuple(notes))


def _named(section: str, field: str) -> str:
    return f"{section}.{field}" if section else field


# ---- faults and waiting

FaultKind = Literal[
    "stop",  # no request can succeed: wrong key, unknown model, no money left
    "wait",  # too many requests: all wait together
    "service",  # the service or the way to it failed: worth several tries
    "answer",  # an answer came, but not one of this API: worth another try or two
    "request",  # this request is refused for good; others may pass
]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request got no answer; ``kind`` says what may help."""

    kind: FaultKind
    code: str  # short and stable, e.g. "rate-limit"
    message: str
    retry_after: float | None = None  # seconds


def refused(endpoint: Endpoint, status: int, headers: Mapping[str, str], body: str) -> Fault:
    """What an answer with an error status means. ``body`` as `Endpoint.text` gives it."""
    said = visible(_error_message(body), 200) or "no reason given"
    model, address, key = endpoint.model, endpoint.base_url, endpoint.key_name
    lowered = body.lower()
    model_field = _named(endpoint.section, "model")
    address_field = _named(endpoint.section, "base_url")

    def fault(kind: FaultKind, code: str, advice: str = "") -> Fault:
        message = f"{endpoint.host} answered {status} ({said}){advice}"
        return Fault(kind, code, message, retry_after(headers))

    if status in (401, 403):
        return fault("stop", "key", f"; check the key in {key}, and that it may use {model}")
    if status == 402 or (status == 429 and "insufficient_quota" in lowered):
        return fault("stop", "no-credit", f"; the account behind {key} has no credit left")
    if status == 404:
        return fault("stop", "not-found", f"; asked for the model {model!r} at {address}: "
                     f"check {model_field} and {address_field} (most end in /v1)")  # fmt: skip
    if status == 429:
        return fault("wait", "rate-limit")
    if status in (408, 409, 425) or status >= 500:
        return fault("service", f"http-{status}")
    if status < 400 or status in (405, 410):
        return fault("stop", "address", f"; {address} is no such API, check {address_field}")
    too_long = "context" in lowered and ("length" in lowered or "window" in lowered)
    if too_long or status == 413:
        return fault("request", "passage-too-long", "; the passage does not fit the model")
    if "content_filter" in lowered or "content management policy" in lowered:
        return fault("request", "content-filter")
    return fault("request", "bad-request")


def unreachable(endpoint: Endpoint, error: BaseException) -> Fault:
    """Why no answer came over the network: names, TLS and silence are told apart, by what is
    found at the bottom of the chain of causes."""
    chain = list(_causes(error))
    host, field = endpoint.host, _named(endpoint.section, "base_url")
    reason = visible(str(chain[-1]) or type(chain[-1]).__name__, 160)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        return Fault("stop", "tls", f"{host}: its certificate is not trusted ({reason}); name your "
                     f"authority's file in SSL_CERT_FILE, or check {field}")  # fmt: skip
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        return Fault(
            "service", "tls", f"{host}: TLS failed ({reason}); check https against http in {field}"
        )
    if any(isinstance(cause, socket.gaierror) for cause in chain):
        return Fault(
            "service", "name", f"{host}: name not found ({reason}); check {field} and the network"
        )
    if any(isinstance(cause, TimeoutError) for cause in chain):
        return Fault("service", "timeout", f"{host} did not answer in time")
    if any(isinstance(cause, ConnectionRefusedError) for cause in chain):
        return Fault("service", "refused", f"{host}: no connection ({reason})")
    return Fault("service", "connection", f"{host}: no connection ({reason})")


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


def backoff(first: float, tries: int) -> float:
    """Seconds before the next try: doubling from ``first``, with up to a quarter of jitter."""
    return min(LONGEST_BACKOFF, first * 2 ** (tries - 1)) * (1 + random.random() / 4)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _error_message(raw: str) -> str:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return "" if raw.lstrip().startswith("<") else raw
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)
