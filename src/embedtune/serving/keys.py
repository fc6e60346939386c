"""Who may ask: keys from the environment or a file, compared in constant time."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from embedtune.endpoint import read_variable
from embedtune.errors import ConfigError
from embedtune.files import visible

Right = Literal["none", "use", "admin"]
SHORTEST = 8  # characters of a key


class Keys:
    """Which keys are known; only their hashes are kept, so that no log or dump can show them.

    Without any key everybody may use the server, and nobody may administer it.
    """

    def __init__(self, use: Sequence[str] = (), admin: Sequence[str] = ()) -> None:
        self._known: list[tuple[bytes, Right]] = [
            *((_digest(key.encode()), "use") for key in use),
            *((_digest(key.encode()), "admin") for key in admin),
        ]
        self.required = bool(use)
        self.can_administer = bool(admin)

    def right(self, authorization: Sequence[bytes]) -> Right:
        """What the values of the Authorization header allow. Every known key is compared in full,
        whatever was found before, so that the time tells nothing."""
        given = authorization[0] if len(authorization) == 1 else b""
        scheme, _, key = given.partition(b" ")
        digest = _digest(key.strip())
        right: Right = "none"
        for known, its in self._known:
            if hmac.compare_digest(digest, known) and right != "admin":
                right = its
        if scheme.lower() != b"bearer" or len(authorization) != 1:
            right = "none"
        if right == "none" and not self.required:
            return "use"
        return right


def read_keys(
    variables: Sequence[str],
    file: Path | None,
    admin_variables: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Keys:
    """The keys that these variables and the lines of ``file`` hold.

    Raises:
        ConfigError: A variable is not set, a file cannot be read, or a key cannot be one.
    """
    faults: list[str] = []
    use = _from_variables(variables, environment, faults)
    if file is not None:
        use += _from_file(file, faults)
    admin = _from_variables(admin_variables, environment, faults)
    if set(use) & set(admin):
        faults.append("the key of the administrator is also one for use; give it another")
    if faults:
        raise ConfigError(faults)
    return Keys(use, admin)


def _from_variables(
    names: Sequence[str], environment: Mapping[str, str] | None, faults: list[str]
) -> list[str]:
    keys = []
    for name in names:
        variable = read_variable(name, environment)
        if variable.value is None:
            faults.append(
                f"{visible(name)} is {variable.state}; put the key into that variable "
                "(the option takes its name, never the key)"
            )
        elif fault := _fault(variable.value):
            faults.append(f"{visible(name)}: {fault}")
        else:
            keys.append(variable.value)
    return keys


def _from_file(file: Path, faults: list[str]) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{file}: cannot be read ({visible(error)})")
        return []
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if fault := _fault(key):
            faults.append(f"{file}:{number}: {fault}")
        else:
            keys.append(key)
    if not keys and not faults:
        faults.append(f"{file}: holds no key; write one a line")
    return keys


def _fault(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        return "holds characters that cannot be part of a key"
    return f"a key needs at least {SHORTEST} characters" if len(key) < SHORTEST else ""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
