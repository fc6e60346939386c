"""Data sets of the Hugging Face hub: their files are fetched, and read as any folder is.

The ``datasets`` library would read them, too, but with types guessed from CSV cells (``NA`` becomes
nothing, ``007`` becomes 7) and without the lines that a fault stands on.
"""

import os
import re
import threading
from pathlib import Path

from embedtune.datasets.parts import card_configs
from embedtune.datasets.tables import TYPES
from embedtune.errors import ConfigError, EmbedtuneError, ResourceError, ServiceError
from embedtune.files import visible

FORM = "hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:CONFIGURATION"
ADDRESS = re.compile(
    r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:@]+))?(?::(?P<config>.+))?"
)
HUB_SECONDS = 5.0  # for the first answer


def parse_address(address: str) -> tuple[str, str | None, str]:
    """(name, revision, configuration) of ``hf:OWNER/NAME@REVISION:CONFIGURATION``.

    Raises:
        ConfigError: Not of that form.
    """
    match = ADDRESS.fullmatch(address)
    if not match:
        raise ConfigError(f"{visible(address)}: expected {FORM}")
    return match["name"], match["revision"], match["config"] or ""


def fetch(address: str) -> Path:
    """The folder of the local cache with the data set's card and files of data.

    The folder's name is the revision. With the hub out of reach, what the cache holds. Of a data
    set with a card, only the files of the configuration named are fetched.

    Raises:
        ConfigError: No such data set or revision, or no right to read it.
        ServiceError: The hub cannot be reached and the cache does not hold it.
        ResourceError: The files cannot be stored.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, revision, config = parse_address(address)
    unreachable = _ask_hub(address, name, revision)

    def download(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, local_files_only=bool(unreachable),
                allow_patterns=["README.md", *patterns],
            )
        )  # fmt: skip

    try:
        parts = card_configs(download()).get(config)
        if config and parts:
            return download(*(glob for globs in parts.values() for glob in globs))
        return download(*(f"*{kind}{packed}" for kind in TYPES for packed in ("", ".gz")))
    except HFValidationError as error:
        raise ConfigError(f"{visible(address)}: {visible(error, 200)}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if getattr(error, "errno", None):
            raise ResourceError(
                f"{visible(address)}: cannot be stored: {visible(error)}"
            ) from error
        raise ServiceError(
            f"{visible(address)}: not in the cache, and {unreachable or visible(error, 200)}; "
            "download it where there is a network and give its folder"
        ) from error


def _ask_hub(address: str, name: str, revision: str | None) -> str:
    """Why the hub cannot be asked; empty when it has the data set.

    In a thread, because looking up a host name has no time-out of its own.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    found: list[str | EmbedtuneError] = [f"{constants.ENDPOINT} does not answer"]

    def ask() -> None:
        try:
            HfApi().dataset_info(name, revision=revision, timeout=HUB_SECONDS)
        except GatedRepoError:
            why = "its owner lets only some read it; ask there, and set HF_TOKEN"
            found.append(ConfigError(f"{visible(address)}: {why}"))
        except RepositoryNotFoundError:
            why = "the hub has no such data set, or it is private: set HF_TOKEN"
            found.append(ConfigError(f"{visible(address)}: {why}"))
        except RevisionNotFoundError:
            found.append(ConfigError(f"{visible(address)}: it has no revision {revision}"))
        except HFValidationError as error:
            found.append(ConfigError(f"{visible(address)}: {visible(error, 200)}"))
        except OfflineModeIsEnabled:
            switch = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "offline mode"
            found.append(f"the hub is not asked: {switch} is set")
        except Exception as error:  # whatever the transport below raises: it is not reachable
            found.append(f"{constants.ENDPOINT} cannot be reached: {type(error).__name__}")
        else:
            found.append("")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS + 0.5)
    answer = found[-1]
    if isinstance(answer, EmbedtuneError):
        raise answer
    return answer
