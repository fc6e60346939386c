"""The models of a server: opened, tested, changed for a newer version, and changed back."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedtune.embed import Embedder, Matrix
from embedtune.embed.facts import prompts_in
from embedtune.embed.opening import open_embedder
from embedtune.embed.tokens import ModelTokens, Tokens, WordTokens, load_tokens
from embedtune.errors import ConfigError, EmbedtuneError, IntegrityError
from embedtune.files import visible
from embedtune.records import Role
from embedtune.serving.batching import Batcher, Load
from embedtune.serving.metrics import Metrics
from embedtune.serving.refusals import Refusal, invalid
from embedtune.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = ("query", "document")
TEST_TEXTS = (
    "embedtune tests a model before it is served",
    "新的模型版本在启用之前要先检查",
    "one",
    "a longer text with figures, 12.5 % and 640 €, so that batches hold texts of unlike length "
    * 4,
)
SAME = (
    0.05  # how far a vector may move, relative to its length, when its text is alone (int8: 0.02)
)


@dataclass(frozen=True, slots=True)
class Source:
    """What a server is told to serve: a name for clients, and a model's name or folder."""

    name: str
    model: str


def parse_source(text: str) -> Source:
    """``[NAME=]MODEL``; without a name it is the model's, of a folder the folder's.

    Raises:
        ConfigError: No usable name.
    """
    name, mark, model = text.partition("=")
    if not mark:
        folder = Path(text).expanduser()
        name, model = (folder.resolve().name if folder.is_dir() else text), text
    if not name.strip() or not model.strip() or name != name.strip() or not name.isprintable():
        raise ConfigError(f"{visible(text)}: expected [NAME=]MODEL")
    if name.endswith((":query", ":document")):
        raise ConfigError(
            f"{visible(name)}: a name must not end in :query or :document, which choose the prompt"
        )
    return Source(name, model)


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A model as loaded, which no change of its files reaches.

    ``exact``: tokens are counted by the model's own tokenizer; else (an API, or no tokenizer) by
    words, and no text is refused for its length here. ``trained``: the values of ``dimensions``
    that the model was trained for, its own among them.
    """

    embedder: Embedder
    batcher: Batcher
    tokens: Tokens
    exact: bool
    prompts: Mapping[Role, str]
    dimension: int
    max_tokens: int
    trained: tuple[int, ...]
    loaded_at: int

    @property
    def revision(self) -> str:
        return self.embedder.name

    def finished(self, vectors: Matrix, dimension: int) -> Matrix:
        """Cut to ``dimension``. Of length 1 where the model's similarity is the cosine, as
        clients of the OpenAI API expect; else as the model gives them."""
        vectors = vectors[:, :dimension]
        if self.embedder.similarity != "cosine":
            return np.ascontiguousarray(vectors)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1).astype(np.float32)

    def check_dimension(self, wanted: int | None, *, any_dimension: bool) -> int:
        """Raises a `Refusal` that names what is allowed."""
        if wanted is None:
            return self.dimension
        if any_dimension and 1 <= wanted <= self.dimension:
            return wanted
        if wanted not in self.trained:
            allowed = (
                f"1 to {self.dimension}"
                if any_dimension
                else f"{', '.join(map(str, self.trained))}, which the model was trained for"
            )
            raise invalid("dimensions", f"{wanted} is not one of {allowed}")
        return wanted

    def texts_of(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts that these token ids spell."""
        if not isinstance(self.tokens, ModelTokens) or not self.exact:
            raise invalid("input", "this model takes no token ids; send the texts")
        texts = []
        for place, row in enumerate(ids):
            text = self.tokens.text_of(row)
            if text is None:
                raise invalid(
                    f"input[{place}]",
                    "these token ids spell no text of this model's tokenizer; were they made for "
                    "another model? Send the text instead (langchain: "
                    "check_embedding_ctx_length=False)",
                )
            texts.append(text)
        return texts


@dataclass(slots=True, eq=False)
class Served:
    """A name and its versions."""

    source: Source
    current: Version
    previous: Version | None = None


class Catalogue:
    """All that is served, by name. Reloading happens aside; requests go on meanwhile."""

    def __init__(
        self, settings: ServerSettings, metrics: Metrics, **local_settings: Any
    ) -> None:  # local_settings: of `open_embedder`, which differ by form
        self.settings = settings
        self.metrics = metrics
        self._local_settings = local_settings
        self._served: dict[str, Served] = {}
        self._changing = asyncio.Lock()
        metrics.watch(self.loads)

    def add(self, source: Source) -> None:
        """Open a model and test it.

        Raises:
            ConfigError: The name is taken, or the model cannot be found.
            IntegrityError: It is damaged.
        """
        if source.name in self._served:
            raise ConfigError(
                f"{visible(source.name)} is named twice; give one a name of its own: NAME=MODEL"
            )
        self._served[source.name] = Served(source, self._open(source))

    def add_embedder(self, name: str, embedder: Embedder) -> None:
        """Serve an embedder that is there already; tokens are counted by words."""
        self._served[name] = Served(Source(name, name), self._version(name, embedder, None, None))

    @property
    def served(self) -> tuple[Served, ...]:
        return tuple(self._served.values())

    def names(self) -> list[str]:
        """All that clients may write as ``model``."""
        return [
            alias for name in self._served for alias in (name, f"{name}:query", f"{name}:document")
        ]

    def find(self, model: str) -> tuple[Served, Role | None]:
        """The model of that name, and the role that its alias asks for."""
        if found := self._served.get(model):
            return found, None
        name, _, role = model.rpartition(":")
        if role in ROLES and (found := self._served.get(name)):
            return found, role
        raise Refusal(
            404,
            f"model: there is no {visible(model)!r} here; served are {', '.join(self._served)}",
            code="model_not_found",
            param="model",
        )

    def loads(self) -> dict[str, Load]:
        """Of the current versions and of older ones that are still at work."""
        loads = {}
        for name, served in self._served.items():
            versions = [own for own in (served.current, served.previous) if own]
            loads[name] = Load(
                sum(own.batcher.load.texts for own in versions),
                sum(own.batcher.load.tokens for own in versions),
            )
        return loads

    async def reload(self, served: Served) -> Version:
        """Load the files as they are now, test them, and change to them; the version before is
        kept for `roll_back`. On any fault the current one stays.

        Raises:
            Refusal: 409 when another change is going on, or the new version is no substitute.
        """
        async with self._alone():
            try:
                new = await asyncio.to_thread(self._open, served.source, served.current)
            except EmbedtuneError as error:
                raise Refusal(
                    409,
                    f"{served.source.name}: the new version is refused, the current one stays: "
                    f"{error}",
                    code="reload_refused",
                ) from error
            oldest, served.previous, served.current = served.previous, served.current, new
            if oldest:
                oldest.batcher.close(finish=True)
            logger.warning("%s: now served: %s", served.source.name, new.revision)
            return new

    async def roll_back(self, served: Served) -> Version:
        """Change to the version before; a second time changes back again.

        Raises:
            Refusal: 409 when there is none, or another change is going on.
        """
        async with self._alone():
            if served.previous is None:
                raise Refusal(
                    409,
                    f"{served.source.name}: there is no version before this one",
                    code="no_previous_version",
                )
            served.previous, served.current = served.current, served.previous
            logger.warning("%s: back to %s", served.source.name, served.current.revision)
            return served.current

    async def reload_all(self) -> None:
        """Each in turn; what is refused is logged."""
        for served in self.served:
            try:
                await self.reload(served)
            except Refusal as refusal:
                logger.warning("%s", refusal.message)
            except Exception:  # the border: nobody else waits for this
                logger.exception("%s: the current version stays", served.source.name)

    def close(self, *, finish: bool) -> None:
        for served in self.served:
            for version in (served.current, served.previous):
                if version:
                    version.batcher.close(finish=finish)

    def _alone(self) -> asyncio.Lock:
        if self._changing.locked():
            raise Refusal(409, "another change of a model is going on", code="busy")
        return self._changing

    def _open(self, source: Source, replaced: Version | None = None) -> Version:
        try:
            version = self._opened(source, replaced)
        except EmbedtuneError:
            self.metrics.loads.labels(source.name, "refused").inc()
            raise
        self.metrics.loads.labels(source.name, "loaded").inc()
        return version

    def _opened(self, source: Source, replaced: Version | None) -> Version:
        embedder = open_embedder(source.model, **self._local_settings)
        base = getattr(embedder, "base", embedder)  # what an adapter works on
        folder = _folder(base, source)
        tokens: Tokens | None = None
        try:
            tokens = load_tokens(str(folder)) if folder else None
        except ConfigError as error:  # an adapter for an API has no tokenizer
            logger.info("%s: tokens are counted by words (%s)", source.name, error)
        check_model(embedder)
        _detach(base)
        if replaced and (embedder.dimension, embedder.similarity) != (
            replaced.dimension, replaced.embedder.similarity,
        ):  # fmt: skip
            raise IntegrityError(
                f"it gives {embedder.dimension} numbers for {embedder.similarity}, the current one "
                f"{replaced.dimension} for {replaced.embedder.similarity}: no index of its clients "
                "would fit; serve it under another name"
            )
        return self._version(source.name, embedder, tokens, folder)

    def _version(
        self, name: str, embedder: Embedder, tokens: Tokens | None, folder: Path | None
    ) -> Version:
        def on_batch(texts: int, read: int, seconds: float) -> None:
            self.metrics.batch_tokens.labels(name).observe(read)
            self.metrics.batch_seconds.labels(name).observe(seconds)

        base = getattr(embedder, "base", embedder)
        exported = getattr(base, "exported", None)
        prompts = exported.prompts if exported else prompts_in(folder) if folder else {}
        return Version(
            embedder=embedder,
            batcher=Batcher(embedder, self.settings, on_batch),
            tokens=tokens or WordTokens(embedder.max_tokens),
            exact=tokens is not None,
            prompts={role: prompts.get(role, "") for role in ROLES},
            dimension=embedder.dimension,
            max_tokens=embedder.max_tokens,
            # an adapter was fitted to whole vectors
            trained=_trained_dimensions(folder if base is embedder else None, embedder.dimension),
            loaded_at=int(datetime.now(UTC).timestamp()),
        )


def check_model(embedder: Embedder) -> None:
    """Embed a few texts in both roles, together and alone.

    Raises:
        IntegrityError: Vectors of another size than it says, zero, not finite, the same for
            different texts, or others when a text is alone.
    """
    for role in ROLES:
        together = embedder.embed(TEST_TEXTS, role)
        if together.shape != (len(TEST_TEXTS), embedder.dimension):
            raise IntegrityError(
                f"self-test: vectors of shape {together.shape}, expected "
                f"{(len(TEST_TEXTS), embedder.dimension)}"
            )
        lengths = np.linalg.norm(together, axis=1)
        if not np.isfinite(together).all() or not lengths.all():
            raise IntegrityError("self-test: vectors that are NaN, infinite or zero")
        if np.allclose(together, together[0], atol=1e-6):
            raise IntegrityError("self-test: the same vector for different texts")
        alone = np.concatenate([embedder.embed([text], role) for text in TEST_TEXTS])
        apart = float(np.max(np.linalg.norm(together - alone, axis=1) / lengths))
        if apart > SAME:
            raise IntegrityError(
                f"self-test: a text's vector moves by {apart:.1e} with the texts beside it"
            )


def _detach(embedder: Embedder) -> None:
    """Copy weights that are mapped from a file, which someone may write over, into memory."""
    model = getattr(embedder, "model", None)
    if hasattr(model, "parameters"):
        for values in (*model.parameters(), *model.buffers()):
            values.data = values.data.clone()


def _folder(embedder: Embedder, source: Source) -> Path | None:
    """Where the model's files are; None for one that has none."""
    resolved = getattr(embedder, "resolved", None)
    named = Path(source.model).expanduser()
    return Path(resolved.path) if resolved else named if named.is_dir() else None


def _trained_dimensions(folder: Path | None, own: int) -> tuple[int, ...]:
    """The model's own, and shorter ones that a file of its folder names, largest first."""
    shorter: set[int] = set()
    for name in ("embedtune.json", "embedtune_onnx.json") if folder else ():
        try:
            facts = json.loads((folder / name).read_text("utf-8"))
            shorter |= {int(dim) for dim in facts.get("matryoshka_dims") or ()}
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # there is none, or it says nothing of this
    return (own, *sorted((dim for dim in shorter if 0 < dim < own), reverse=True))
