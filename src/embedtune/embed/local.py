"""Embeddings from a sentence-transformers model on this machine."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.embed.checks import is_plain_encoder, read_json_object
from embedtune.embed.loading import PoolingMode, load_resolved, own_pooling, repool
from embedtune.embed.models import ResolvedModel, resolve_model
from embedtune.embed.packed import Packed, packable
from embedtune.embed.tokens import NO_LIMIT
from embedtune.errors import ConfigError, ResourceError
from embedtune.files import clean_text
from embedtune.records import Progress, Role, no_progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["fp32", "bf16"]

PORTION = 512  # texts between two calls of `progress`
LONG_TEXT = 256  # tokens of a text that counts as one of a batch; shorter ones go in with others


class LocalEmbedder:
    """A model by name or folder; loaded when first needed, so that a cached run loads nothing.

    The model's own prompts for queries and documents are used. Texts are encoded once each, in
    order of length.

    Args:
        model: Name or folder, as `resolve_model` takes it.
        batch_size: Texts of 256 tokens a forward pass; of shorter ones more, where the fast path
            applies (`packable`).
        precision: "bf16" is about 3 times as fast on a CPU that has it, and moves vectors by a
            cosine of up to 0.0001 (up to 0.004 where the fast path does not apply).
        pooling: Of a plain encoder, which has none of its own; others keep theirs.
        pooling_instead: Of any model, in the place of its own.
        prompts_instead: Put before texts of that role, in the place of the model's own.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        batch_size: int = 32,
        precision: Precision = "fp32",
        trust_remote_code: bool = False,
        pooling: PoolingMode | Literal["auto"] = "auto",
        pooling_instead: PoolingMode | None = None,
        prompts_instead: Mapping[Role, str] = {},
        progress: Progress = no_progress,
    ) -> None:
        self.resolved: ResolvedModel = resolve_model(model)
        plain = is_plain_encoder(self.resolved.path)
        self._pooling = (pooling_instead or pooling) if plain else "auto"
        unlike = not plain and pooling_instead != own_pooling(self.resolved.path)
        self._repooled = pooling_instead if unlike else None
        self._prompts = dict(prompts_instead)
        # vectors differ by precision, pooling and prompts, so caches must see them
        own = [precision if precision != "fp32" else "",
               self._repooled or self._pooling.removeprefix("auto")]  # fmt: skip
        told = [f"{role}={prompt!r}" for role, prompt in sorted(self._prompts.items())]
        of_passages = [prompt for prompt in told if not prompt.startswith("query=")]
        self.name = " ".join([self.resolved.label, *filter(None, own), *told])
        self.document_name = " ".join([self.resolved.label, *filter(None, own), *of_passages])
        self._device = device
        self._batch_size = batch_size
        self._precision = precision
        self._trust_remote_code = trust_remote_code
        self._progress = progress

    @functools.cached_property
    def model(self) -> "SentenceTransformer":
        model = load_resolved(
            self.resolved, device=self._device, trust_remote_code=self._trust_remote_code,
            pooling=self._pooling,
        )  # fmt: skip
        if self._repooled:
            repool(model, self._repooled, self.resolved.name)
        model.prompts.update(self._prompts)
        return model

    @property
    def dimension(self) -> int:
        return dimension_of(self.model)

    @property
    def max_tokens(self) -> int:
        return longest_of(self.model)

    @functools.cached_property
    def similarity(self) -> Similarity:
        """Read from the model's configuration file, without loading the model."""
        file = self.resolved.path / "config_sentence_transformers.json"
        config = read_json_object(file) if file.is_file() else {}
        return _known_similarity(config.get("similarity_fn_name") or "cosine")

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        return encode(
            self.model, texts, role, batch_size=self._batch_size, precision=self._precision,
            progress=self._progress,
        )  # fmt: skip


class MemoryEmbedder:
    """A model that is loaded already and may change, as in training. Never cache its vectors.

    Args:
        name: Shown in messages; the caller keeps it different for different weights.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        name: str,
        precision: Precision = "fp32",
        *,
        batch_size: int = 32,
    ) -> None:
        self.model = model
        self.name = name
        self._precision = precision
        self._batch_size = batch_size
        self.dimension = dimension_of(model)
        self.max_tokens = longest_of(model)
        self.similarity: Similarity = _known_similarity(model.similarity_fn_name)

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        return encode(
            self.model, texts, role, batch_size=self._batch_size, precision=self._precision
        )


def longest_of(model: "SentenceTransformer") -> int:
    """Tokens of a text that ``model`` reads; static models read all."""
    longest = model.max_seq_length or 512
    return min(longest, NO_LIMIT)


def dimension_of(model: "SentenceTransformer") -> int:
    """Numbers a vector of ``model`` has."""
    dimension = model.truncate_dim or model.get_embedding_dimension()
    return int(dimension) if dimension else int(model.encode(["?"]).shape[1])


def _known_similarity(name: object) -> Similarity:
    if name not in ("cosine", "dot", "euclidean"):
        raise ConfigError(
            f"the model wants the similarity {name!r}; known are cosine, dot and euclidean"
        )
    return name


def encode(
    model: "SentenceTransformer",
    texts: Sequence[str],
    role: Role,
    *,
    batch_size: int = 32,
    precision: Precision = "fp32",
    progress: Progress = no_progress,
) -> Matrix:
    """(n, dimension) float32 in the order of ``texts``, rows as the model gives them.

    Equal texts are encoded once; batches hold texts of like length.
    """
    distinct = list(dict.fromkeys(clean_text(text) for text in texts))
    by_length = sorted(range(len(distinct)), key=lambda index: -len(distinct[index]))
    vectors = np.empty((len(distinct), dimension_of(model)), dtype=np.float32)
    encode_portion = _encode_padded if packable(model) else _encode_packed
    for first in range(0, len(by_length), PORTION):
        part = by_length[first : first + PORTION]
        with _translated_errors(batch_size):
            vectors[part] = encode_portion(
                model, [distinct[index] for index in part], role,
                batch_size=batch_size, precision=precision,
            )  # fmt: skip
        progress(first + len(part), len(by_length))
    row_of = {text: row for row, text in enumerate(distinct)}
    return vectors[[row_of[clean_text(text)] for text in texts]]


def _encode_packed(
    model: "SentenceTransformer",
    texts: Sequence[str],
    role: Role,
    *,
    batch_size: int,
    precision: Precision,
) -> Matrix:
    """Without padding, in batches of as many tokens as ``batch_size`` long texts have."""
    import torch

    packed = Packed(model, precision=precision)
    ids = packed.token_ids(texts, role)
    vectors = np.empty((len(texts), dimension_of(model)), dtype=np.float32)
    batch: list[int] = []
    tokens = 0
    with torch.inference_mode():
        for index in [*sorted(range(len(ids)), key=lambda index: -len(ids[index])), None]:
            if batch and (index is None or tokens + len(ids[index]) > batch_size * LONG_TEXT):
                made = packed.forward([ids[row] for row in batch], training=False)
                vectors[batch] = made[:, : vectors.shape[1]].cpu().numpy()
                batch, tokens = [], 0
            if index is not None:
                batch.append(index)
                tokens += len(ids[index])
    return vectors


def _encode_padded(
    model: "SentenceTransformer",
    texts: Sequence[str],
    role: Role,
    *,
    batch_size: int,
    precision: Precision,
) -> Matrix:
    """With the library, for models that the packed pass does not know."""
    import torch

    encode_role = model.encode_query if role == "query" else model.encode_document
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        made = encode_role(
            list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True
        )
    return made.float().cpu().numpy()


@contextmanager
def _translated_errors(batch_size: int) -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            f"out of memory while encoding {batch_size} texts at once; lower the batch size "
            "(or the length of the chunks) and run the same command again"
        ) from error
