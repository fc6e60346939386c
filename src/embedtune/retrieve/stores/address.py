"""The address of an index in a database: ``kind:FOLDER?name=…`` or ``kind://user@host:port/…``."""

import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from embedtune.errors import ConfigError
from embedtune.files import visible

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{2,47}")  # fits all databases, and needs no quoting
DEFAULT_NAME = "embedtune"
TRUE, FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class Address:
    """``folder`` is set where the database is in files, ``host`` where it is a server.

    ``label`` is the address for messages, without password; ``name`` is the table, collection or
    index; ``secret`` is the password, or the key of the service.
    """

    label: str
    name: str
    folder: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    secret: str = ""
    path: str = ""
    tls: bool = False


def read_address(text: str, *, option: str, port: int, secret_variable: str) -> Address:
    """The parts of an address.

    Args:
        option: How the name is written: ``table``, ``collection`` or ``index``.
        port: Where the address names none.
        secret_variable: The variable of the environment that holds password or key, where the
            address does not.

    Raises:
        ConfigError: Says what was expected. The message holds no password.
    """
    kind, parts = _split(text)
    head = f"{kind}://" if "://" in text else f"{kind}:"
    shown = visible(without_password(text), 200)
    form = f"{kind}://host:{port}?{option}=NAME"
    try:
        number = parts.port or port
    except ValueError:
        raise ConfigError(f"index {shown}: the port is no number; expected {form}") from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - {option, "tls"})
    name = options.get(option, DEFAULT_NAME)
    tls = options.get("tls", "").lower()
    check_name(name, f"index {shown}: {option}")
    if unknown or tls not in (*TRUE, *FALSE):
        wrong = unknown[0] if unknown else "tls"
        raise ConfigError(f"index {shown}: option {visible(wrong)}: expected {option}, tls=true")
    if head.endswith("//"):
        if not parts.hostname:
            raise ConfigError(f"index {shown}: no host; expected {form}")
        place = f"{head}{parts.hostname}:{number}{parts.path}"
        secret = unquote(parts.password or "") or os.environ.get(secret_variable, "")
        return Address(
            f"{place}?{option}={name}", name, host=parts.hostname, port=number,
            user=unquote(parts.username or ""), secret=secret, path=parts.path.strip("/"),
            tls=tls in TRUE,
        )  # fmt: skip
    if not parts.path:
        raise ConfigError(f"index {shown}: no folder; expected {kind}:FOLDER?{option}=NAME")
    return Address(f"{head}{parts.path}?{option}={name}", name, folder=parts.path)


def check_name(name: str, where: str) -> None:
    """Raises ConfigError for what could not be the name of a table everywhere."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: {visible(repr(name))} cannot be a name: expected 3 to 48 letters a to z, "
            "digits and underscores, a letter first"
        )


def without_password(text: str) -> str:
    """An address as it may be shown."""
    text = re.sub(r"([?&]password=)[^&#]*", r"\1…", text)
    return re.sub(r"^([^?#]*?://[^@/?#]*?):[^?#]*@", r"\1@", text)


def has_password(text: str) -> bool:
    return without_password(text) != text


def _split(text: str) -> tuple[str, SplitResult]:
    kind, _, rest = text.partition(":")
    if rest.startswith("//"):
        try:
            return kind, urlsplit(f"x:{rest}")
        except ValueError as error:
            raise ConfigError(f"index {visible(without_password(text))}: {error}") from None
    path, _, query = rest.rpartition("?") if re.search(r"\?\w+=[^/]*$", rest) else (rest, "", "")
    return kind, SplitResult("", "", path, query, "")
