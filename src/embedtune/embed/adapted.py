"""A model with an adapter on its queries: passages, and what an index holds of them, stay."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationError

from embedtune.embed import Embedder, Matrix, Similarity, is_service
from embedtune.embed.checks import hash_of, read_json_object, safetensors_header
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import sha256_of, visible, write_bytes, write_json
from embedtune.records import Progress, Role, no_progress
from embedtune.settings import PositiveInt, Settings

logger = logging.getLogger(__name__)

FILE = "embedtune_adapter.json"
WEIGHTS = "adapter.safetensors"
OF_A_MODEL = ("pooling_instead", "prompts_instead")  # what would make another model of the base


@dataclass(frozen=True, slots=True)
class Adapter:
    """q' = q + q · down · up; identity at rank 0.

    Where vectors are compared by cosine, q is brought to length 1 before and q' after, so that an
    index that compares by dot product ranks alike.
    """

    down: Matrix  # (d, r) float32
    up: Matrix  # (r, d) float32
    similarity: Similarity

    @property
    def dimension(self) -> int:
        return self.down.shape[0]

    @property
    def rank(self) -> int:
        return self.down.shape[1]

    def __call__(self, queries: Matrix) -> Matrix:
        """(n, d) float32 of (n, d)."""
        cosine = self.similarity == "cosine"
        before = unit(queries) if cosine else queries
        after = before + (before @ self.down) @ self.up
        return unit(after) if cosine else after


class Point(NamedTuple):
    """A candidate at its best strength, as the file keeps it."""

    kind: str
    rank: int | None  # None: all that the queries support
    strength: float
    dev: float


class AdapterFile(Settings):
    """``embedtune_adapter.json``: on what the weights beside it work, and where they are from."""

    format: Literal[1] = 1
    base: str  # as systems are written: openai:MODEL, or a model's name or folder
    base_label: str  # what the base was called when the adapter was fitted: address or revision
    base_settings: dict[str, Any] = Field(default_factory=dict)  # pooling and prompts, if not own
    dimension: PositiveInt
    rank: int = Field(ge=0)
    similarity: Similarity
    kind: str
    strength: float
    metric: str
    dev_base: float
    dev: float
    curve: tuple[Point, ...] = ()
    sha256: str


def unit(vectors: Matrix) -> Matrix:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)


def write_adapter(folder: Path, adapter: Adapter, facts: Mapping[str, Any]) -> None:
    """Leave an adapter in ``folder``.

    Args:
        facts: The fields of `AdapterFile` that the adapter itself does not tell.
    """
    from safetensors.numpy import save

    tensors = {"down": np.ascontiguousarray(adapter.down), "up": np.ascontiguousarray(adapter.up)}
    write_bytes(folder / WEIGHTS, save(tensors))
    described = AdapterFile(
        dimension=adapter.dimension,
        rank=adapter.rank,
        similarity=adapter.similarity,
        sha256=sha256_of(folder / WEIGHTS),
        **facts,
    )
    write_json(folder / FILE, described.model_dump(mode="json"))


def read_adapter(folder: Path) -> tuple[Adapter, AdapterFile]:
    """What ``write_adapter`` left.

    Raises:
        IntegrityError: Damaged, changed, or not what the description says.
    """
    file, weights = folder / FILE, folder / WEIGHTS
    described = _described(file)
    if not weights.is_file():
        raise IntegrityError(f"{weights}: missing; copy the whole folder again")
    safetensors_header(weights)
    if hash_of(weights) != described.sha256:
        raise IntegrityError(f"{weights}: its hash is not the one in {FILE}; copy it again")
    tensors = _tensors(weights)
    shapes = {"down": (described.dimension, described.rank),
              "up": (described.rank, described.dimension)}  # fmt: skip
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes:
        raise IntegrityError(f"{weights}: expected the shapes {shapes}, found {found}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise IntegrityError(f"{weights}: {name} is not all finite float32; fit it again")
    return Adapter(tensors["down"], tensors["up"], described.similarity), described


def base_of(model: str) -> str:
    """What the adapter in that folder works on; empty where it is none."""
    file = Path(model).expanduser() / FILE
    return _described(file).base if file.is_file() else ""


class AdaptedEmbedder:
    """Queries: the adapter on the base's vectors. Documents: the base's vectors, untouched.

    The address of a service and its key come from the environment as always, never from the
    folder: a folder from elsewhere cannot have the key sent to another place.

    Args:
        purse, price: Of a base that is a service.
        settings: Of a base on this machine, as `LocalEmbedder` takes them.

    Raises:
        ConfigError: The base that is found is not the one the adapter was fitted on.
        IntegrityError: See ``read_adapter``.
    """

    def __init__(
        self,
        folder: str,
        *,
        purse: Purse | None = None,
        price: float | None = None,
        progress: Progress = no_progress,
        **settings: Any,  # as the base takes them
    ) -> None:
        self.adapter, self.described = read_adapter(Path(folder).expanduser())
        own = [name for name in OF_A_MODEL if settings.pop(name, None)]
        if own:
            raise ConfigError(f"{folder}: {own[0]}: an adapter goes with its base as it is")
        self.base = self._open(purse, price, progress, settings)
        label = label_of(self.base)
        if label != self.described.base_label:
            raise ConfigError(
                f"{visible(folder)}: fitted on {visible(self.described.base_label)}, and "
                f"{visible(self.described.base)} is {visible(label)} here; make them agree "
                "(OPENAI_BASE_URL, or the model's folder), or fit the adapter again. Is it the "
                f"same model at another address: change base_label in {FILE}"
            )
        self.name = f"{self.base.name} adapted {self.described.sha256[:16]}"
        self.dimension = self.adapter.dimension
        self.similarity: Similarity = self.described.similarity

    @property
    def max_tokens(self) -> int:
        return self.base.max_tokens

    @property
    def document_name(self) -> str:
        """What an index of its documents may be called: they are the base's."""
        return self.base.name

    @property
    def is_paid(self) -> bool:
        """Whether the base's vectors cost money."""
        return is_service(self.described.base)

    def over(self, base: Embedder) -> Self:
        """The same in front of ``base``, which wraps this one's."""
        self.base = base
        return self

    def embed(self, texts: Any, role: Role) -> Matrix:  # a sequence of texts, as in the contract
        vectors = self.base.embed(texts, role)
        if len(vectors) and vectors.shape[1] != self.dimension:
            raise IntegrityError(
                f"{self.name}: the base gives {vectors.shape[1]} numbers a vector, the adapter "
                f"was fitted on {self.dimension}; the model behind the name has changed"
            )
        return self.adapter(vectors) if role == "query" and len(vectors) else vectors

    def _open(
        self, purse: Purse | None, price: float | None, progress: Progress, settings: dict[str, Any]
    ) -> Embedder:
        from embedtune.embed.opening import open_embedder

        base = self.described.base
        if self.is_paid:
            return open_embedder(base, purse=purse, price=price, progress=progress)
        if base.partition(":")[0] == "hashing":
            return open_embedder(base)
        return open_embedder(
            base, progress=progress, **{**settings, **self.described.base_settings}
        )


def label_of(embedder: Embedder) -> str:
    """What tells a model from another, whatever the precision it runs in."""
    resolved = getattr(embedder, "resolved", None)
    return resolved.label if resolved else embedder.name


def _described(file: Path) -> AdapterFile:
    try:
        return AdapterFile.model_validate(read_json_object(file))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise IntegrityError(f"{file}: {place}: {visible(fault['msg'])}") from error


def _tensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(file.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise IntegrityError(f"{file}: damaged ({visible(error)}); copy it again") from error
