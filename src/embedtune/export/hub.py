"""Models and data sets to a Hugging Face hub: what is sent, and the sending.

What goes out is chosen by name, so that nothing goes out by accident: checkpoints, stores of
answers and vectors, manifests and hidden files stay here, and are named.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedtune.embed.checks import CHECKSUM, CHECKSUMS
from embedtune.errors import ConfigError, ResourceError, ServiceError
from embedtune.files import visible
from embedtune.run import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

Kind = Literal["model", "dataset"]

CARD = "README.md"
HUB_SECONDS = 10.0  # for the first answer
MODEL_TYPES = (".json", ".txt", ".model", ".safetensors", ".onnx", ".onnx_data", ".data", ".xml",
               ".jinja", ".md")  # fmt: skip
MODEL_NAMES = (CHECKSUMS, "LICENSE", "NOTICE")
NEVER = (MANIFEST, "trainer_state.json", "rejects.jsonl")  # with paths of this machine in them
DATA_FILES = ("corpus.jsonl", "queries.jsonl", "embedtune.json")
DATA_JUDGEMENTS = re.compile(r"qrels/[^/]+\.tsv")
OWN_BY_HUB = ".gitattributes"
BRANCH = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*", re.ASCII)
LOCAL_PATH = re.compile(r"(~|[A-Za-z]:)[/\\][^\n]+|/[^/\n]+(/[^/\n]+)+/?")
WORDS_FILES = ("tokenizer.json", "vocab.json")  # their texts are words, not paths


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file that is sent: one that lies here, or content made for it."""

    path: str  # in the repository
    source: Path | bytes

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that is sent, by path; and what lies beside it and is not."""

    kind: Kind
    files: tuple[Outgoing, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Pushed:
    """How a push ended."""

    url: str  # of the commit
    commit: str
    private: bool
    created: bool  # the repository was not there before
    changed: bool  # False: all files were there already, as they are
    kept: tuple[str, ...]  # files of the repository that were not sent, and stay


def endpoint() -> str:
    """The hub's address. Read now: huggingface_hub keeps the one it found at its first import.

    Raises:
        ConfigError: ``HF_ENDPOINT`` is no address.
    """
    from huggingface_hub import constants

    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or constants.ENDPOINT
    if not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", address):
        raise ConfigError(f"HF_ENDPOINT: {visible(address)} is no address; expected https://HOST")
    return address


def check_names(repository: str, revision: str = "") -> None:
    """Refuse a repository or branch that no hub would have.

    Raises:
        ConfigError: Not OWNER/NAME, or a name that cannot be.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    faults = []
    try:
        validate_repo_id(repository)
        named = repository.count("/") == 1
    except HFValidationError:
        named = False
    if not named:
        faults.append(
            f"repository {visible(repository)}: expected OWNER/NAME of letters, digits, '-', '_' "
            "and '.', at most 96 together"
        )
    if revision and (not BRANCH.fullmatch(revision) or ".." in revision):
        faults.append(f"--revision {visible(revision)}: expected the name of a branch")
    if faults:
        raise ConfigError(faults)


def pack_model(folder: Path, card: str = "") -> Parcel:
    """The files of a model folder that passed ``check_model_folder``.

    In configurations, paths of this machine are sent by their last part only; the folder's
    checksums are then those of what is sent.

    Args:
        card: The README.md to send; empty: the folder's own, where it has one.
    """
    chosen: dict[str, Path | bytes] = {}
    left_out = []
    for path, name in _files(folder):
        suited = path.suffix in MODEL_TYPES or path.name in MODEL_NAMES
        openvino = path.suffix == ".bin" and path.with_suffix(".xml").is_file()
        if path.name in NEVER or not (suited or openvino) or _leads_outside(path, folder):
            left_out.append(name)
        else:
            chosen[name] = _without_local_paths(path)
    if card:
        chosen[CARD] = card.encode()
    if CHECKSUMS in chosen:
        chosen[CHECKSUMS] = _checksums(folder / CHECKSUMS, chosen)
    return _parcel("model", chosen, left_out)


def pack_dataset(folder: Path, made: Mapping[str, bytes]) -> Parcel:
    """A data set in BEIR layout: passages, queries, judgements, and what was ``made`` for it (path
    -> content), its card among it."""
    chosen: dict[str, Path | bytes] = dict(made)
    left_out = []
    for path, name in _files(folder):
        suited = name in DATA_FILES or DATA_JUDGEMENTS.fullmatch(name)
        if suited and not _leads_outside(path, folder):
            chosen[name] = path
        elif name not in made:
            left_out.append(name)
    return _parcel("dataset", chosen, left_out)


def _parcel(kind: Kind, chosen: dict[str, Path | bytes], left_out: list[str]) -> Parcel:
    files = tuple(Outgoing(name, chosen[name]) for name in sorted(chosen))
    return Parcel(kind, files, tuple(sorted(left_out)))


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, path below the folder); hidden folders and checkpoints are one entry each."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.startswith((".", "checkpoint-")):
            yield path, f"{path.name}/"
        elif path.is_dir() and not path.is_symlink():
            for below, name in _files(path):
                yield below, f"{path.name}/{name}"
        else:
            yield path, path.name


def _leads_outside(path: Path, folder: Path) -> bool:
    """Hidden, or no file, or a link to elsewhere; the links of a hub cache lead to its blobs."""
    if path.name.startswith(".") or not path.is_file():
        return True
    home, place = path.resolve(), folder.resolve()
    return not (home.is_relative_to(place) or home.parent == place.parent.parent / "blobs")


def _without_local_paths(path: Path) -> Path | bytes:
    if path.suffix != ".json" or path.name in WORDS_FILES:
        return path
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return path
    public = _public(content)
    if public == content:
        return path
    return (json.dumps(public, ensure_ascii=False, indent=2) + "\n").encode()


def _public(value: Any) -> Any:  # recursive over JSON values
    if isinstance(value, dict):
        return {key: _public(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_public(own) for own in value]
    if isinstance(value, str) and LOCAL_PATH.fullmatch(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _checksums(path: Path, chosen: dict[str, Path | bytes]) -> bytes:
    """The lines of SHA256SUMS for what is sent, as it is sent."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        match = CHECKSUM.fullmatch(line)
        sent = chosen.get(match[2]) if match else None
        if match and isinstance(sent, bytes):
            line = f"{sha256(sent).hexdigest()}  {match[2]}"
        if sent is not None:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines).encode()


def hub_token(address: str) -> str:
    """The token of ``HF_TOKEN``, or of the login of huggingface_hub.

    Raises:
        ConfigError: There is none, or none that could be sent.
        ServiceError: It comes from a server, which fails.
    """
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:  # keyless logins ask a server, and raise what they like
        raise ServiceError(f"no token could be had: {visible(error, 200)}") from error
    if not token:
        raise ConfigError(
            f"no token for {address}: set HF_TOKEN to one with write access (made at "
            f"{address}/settings/tokens), or log in with `hf auth login`"
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError("HF_TOKEN: holds characters that no token has; copy it again")
    return token


def push(
    parcel: Parcel, repository: str, *, public: bool = False, revision: str = "", message: str = ""
) -> Pushed:
    """Send a parcel as one commit. Other files of the repository stay as they are.

    A repository that is not there is made, private unless ``public``; one that is there keeps
    what it is. A commit by someone else in the meantime is never written over.

    Args:
        repository: OWNER/NAME.
        revision: A branch, made where there is none; empty: main.

    Raises:
        ConfigError: No token; a name, card or address that the hub cannot take; the repository is
            public and ``public`` was not asked for.
        ServiceError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_names(repository, revision)
    address = endpoint()
    token = hub_token(address)
    # "No files have been modified" is told by Pushed.changed
    logging.getLogger("huggingface_hub.hf_api").setLevel(logging.ERROR)
    api = HfApi(endpoint=address, token=token, library_name="embedtune")
    with _hub_errors(address, repository, token):
        info = _there(api, repository, parcel.kind)
        created = info is None
        if info is None:
            api.create_repo(repository, repo_type=parcel.kind, private=not public)
            info = api.repo_info(repository, repo_type=parcel.kind)
        if not public and info.private is not True:
            what = "the hub made it public" if created else "it is public"
            raise ConfigError(
                f"{repository}: {what}, and what is sent would be public at once; nothing was "
                "sent: add --public, or take another name"
            )
        if revision and revision != "main":
            api.create_branch(repository, branch=revision, repo_type=parcel.kind, exist_ok=True)
            info = api.repo_info(repository, repo_type=parcel.kind, revision=revision)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(file.path, file.source) for file in parcel.files],
            commit_message=message or f"{parcel.kind.capitalize()} pushed by embedtune",
            repo_type=parcel.kind,
            revision=revision or None,
            parent_commit=info.sha,
        )
    sent = {file.path for file in parcel.files}
    kept = [file.rfilename for file in info.siblings or () if file.rfilename != OWN_BY_HUB]
    return Pushed(
        url=str(commit.commit_url),
        commit=commit.oid,
        private=info.private is True,
        created=created,
        changed=commit.oid != info.sha,
        kept=tuple(name for name in kept if name not in sent),
    )


def _there(api: "HfApi", repository: str, kind: Kind) -> "ModelInfo | DatasetInfo | None":
    """The repository; None where there is none that this token may see."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.repo_info(repository, repo_type=kind, timeout=HUB_SECONDS)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


@contextmanager
def _hub_errors(address: str, repository: str, token: str) -> Iterator[None]:
    """Whatever the hub's client raises, as an error that says what to do. No token in it."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    def told(error: BaseException) -> str:
        return visible(str(error).replace(token, "…"), 200)

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            "the hub is switched off (HF_HUB_OFFLINE is set); unset it to push"
        ) from error
    except HfHubHTTPError as error:
        said = (error.server_message or "").replace(token, "…")
        raise ServiceError(_answer(error, visible(said, 200), address, repository)) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise ServiceError(
            f"{address} cannot be reached ({type(error).__name__}: {told(error)}); check the "
            "network and HF_ENDPOINT, and run the same command again"
        ) from error
    except RuntimeError as error:  # of a thread that sends one file
        with _hub_errors(address, repository, token):
            if error.__cause__ is not None:
                raise error.__cause__ from None
        raise ServiceError(f"{address}: {told(error)}; run the same command again") from error
    except ValueError as error:
        if "README.md" in str(error):
            raise ConfigError(f"the hub refuses the card: {told(error)}; mend README.md") from error
        raise ServiceError(f"{address} does not answer as a hub does: {told(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ServiceError(
            f"{address} does not answer as a hub does ({type(error).__name__}); check HF_ENDPOINT"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise ServiceError(f"{address}: {told(error)}; run the same command again") from error
        raise ResourceError(f"a file cannot be read: {told(error)}") from error


def _answer(error: Any, said: str, address: str, repository: str) -> str:
    """What an HTTP error means for who pushes."""
    status = error.response.status_code
    again = "run the same command again"
    means = {
        401: f"the token is not valid; make one with write access at {address}/settings/tokens "
        "and set HF_TOKEN",
        403: f"the token may not write to {repository}; it needs write access there (see "
        f"{address}/settings/tokens)",
        404: "there is no such repository or branch, or the address is not that of a hub",
        409: f"someone else changes {repository} now; {again}",
        412: f"{repository} was changed while this was sent; {again}",
        413: "a file is larger than the hub takes",
        429: f"too many requests; wait, then {again}",
    }.get(status, f"the hub has a problem; {again}" if status >= 500 else "the hub refuses")
    if status == 404 and "xet" in str(error.response.url):
        means = "this hub has no Xet storage; set HF_HUB_DISABLE_XET=1"
    return f"{address} answered {status}{f' ({said})' if said else ''}: {means}"
