"""What all embedding services share: batches, patience, and a limit on what they may cost."""

import base64
import binascii
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from embedtune.embed import Matrix, Similarity
from embedtune.endpoint import Fault, backoff
from embedtune.errors import ServiceError
from embedtune.files import clean_text, visible
from embedtune.records import Progress, Role, no_progress
from embedtune.settings import PositiveInt, Settings

FIRST_WAIT = 0.5  # seconds before the first further try
LONGEST_WAIT = 60.0  # seconds, whatever the provider asks for
TRIES = 6
AGAIN = "what came before is stored, run the same command again"


class EmbeddingSettings(Settings):
    """What embedding services may cost in one command. Vectors that are stored cost nothing."""

    usd: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most money to spend, in US dollars; needs a price."
    )
    tokens: PositiveInt | None = Field(None, description="Most tokens to pay for.")
    price: Annotated[float, Field(ge=0)] | None = Field(
        None, description="US dollars per million tokens, where the table does not know the model."
    )


@dataclass(slots=True)
class Spent:
    """What one service was asked. ``untold`` requests did not say how many tokens they took."""

    requests: int = 0
    tokens: int = 0
    untold: int = 0
    usd: float | None = 0.0  # None: its price is not known

    def line(self) -> str:
        """For people."""
        tokens = "tokens unknown" if self.untold else f"{self.tokens:,} tokens"
        cost = "cost unknown" if self.usd is None or self.untold else f"{self.usd:.4f} USD"
        return f"{self.requests:,} requests, {tokens}, {cost}"


@dataclass(slots=True)
class Purse:
    """Limits that all services of a command share, and what was spent of them, by name.

    A request is sent only if the limits hold even should each of its bytes be a token.
    """

    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    spent: dict[str, Spent] = field(default_factory=dict)

    def admit(self, name: str, texts: Sequence[str], price: float | None) -> None:
        """Raises ServiceError where a limit might be passed.

        Args:
            price: US dollars per million tokens, None where nobody knows it.
        """
        wanted = sum(len(text.encode("utf-8", "replace")) for text in texts)
        tokens = sum(own.tokens for own in self.spent.values())
        usd = sum(own.usd or 0.0 for own in self.spent.values())
        limits = self.settings
        if limits.tokens is not None and tokens + wanted > limits.tokens:
            raise ServiceError(
                f"{name}: budget used up: {tokens:,} of {limits.tokens:,} tokens, and the next "
                f"request may take {wanted:,}; raise embedding.tokens; {AGAIN}"
            )
        if limits.usd is None:
            return
        if price is None:
            raise ServiceError(
                f"{name}: embedding.usd cannot be held, no price is known for the model; give "
                "embedding.price (US dollars per million tokens)"
            )
        if usd + wanted * price / 1e6 > limits.usd:
            raise ServiceError(
                f"{name}: budget used up: {usd:.4f} of {limits.usd:g} USD, and the next request "
                f"may take {wanted * price / 1e6:.4f}; raise embedding.usd; {AGAIN}"
            )

    def paid(self, name: str, tokens: int | None, price: float | None) -> None:
        own = self.spent.setdefault(name, Spent())
        own.requests += 1
        own.tokens += tokens or 0
        own.untold += tokens is None
        own.usd = None if price is None else own.tokens * price / 1e6

    def lines(self) -> list[str]:
        """What was paid for, one line a service."""
        return [f"{name}: {spent.line()}" for name, spent in self.spent.items()]


@dataclass(frozen=True, slots=True)
class Received:
    """A body, with what the service calls the request."""

    body: str
    request: str


class RemoteEmbedder:
    """An embedder whose vectors come over HTTP, in batches; see `embed_in_batches`.

    Wrap it in `RecordedEmbedder`, so that nothing paid for is bought twice.

    Args:
        name: Service, model and address.
        max_tokens: What the provider reads of a text; the rest is cut there.
        dimension: None: asked of the provider when it is wanted.
        timeout: Seconds a request may take in all its parts.
        retries: Further attempts after a failure that may pass.
        price: US dollars per million tokens.
        purse: Shared by all services of a command.
    """

    similarity: Similarity = "cosine"

    def __init__(
        self,
        name: str,
        *,
        max_tokens: int,
        batch_size: int,
        dimension: int | None = None,
        timeout: float = 60.0,
        retries: int = TRIES - 1,
        price: float | None = None,
        purse: Purse | None = None,
        progress: Progress = no_progress,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.max_tokens = max_tokens
        self._dimension = dimension
        self.batch_size = batch_size
        self._timeout = timeout
        self._retries = retries
        self._price = price
        self._purse = purse
        self._progress = progress
        self._sleep = sleep

    @property
    def dimension(self) -> int:
        """Asked of the provider (one short text) when nothing was embedded yet."""
        if self._dimension is None:
            self.embed(["dimension"], "query")
        return self._dimension or 0

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        vectors = embed_in_batches(
            self, texts, role, batch_size=self.batch_size,
            dimension=self._dimension if texts else self.dimension, retries=self._retries,
            price=self._price, purse=self._purse, progress=self._progress, sleep=self._sleep,
        )  # fmt: skip
        self._dimension = vectors.shape[1]
        return vectors

    def ask(self, texts: Sequence[str], role: Role) -> Received | Fault:
        """One try at one batch."""
        raise NotImplementedError

    def read(self, body: str, count: int, dimension: int | None) -> tuple[Matrix, int | None]:
        """(count, dimension) float32 in the order of the texts, and the tokens paid for.

        Raises:
            ValueError: Says what is wrong with the answer.
        """
        raise NotImplementedError


def embed_in_batches(
    service: RemoteEmbedder,
    texts: Sequence[str],
    role: Role,
    *,
    batch_size: int,
    dimension: int | None = None,
    retries: int = TRIES - 1,
    price: float | None = None,
    purse: Purse | None = None,
    progress: Progress = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> Matrix:
    """(n, d) float32 of ``texts``. Everything an answer claims is checked before it is used.

    Args:
        dimension: What the vectors must have; None: what the first batch has.
        retries: Further attempts after a failure that may pass.
        price: US dollars per million tokens.

    Raises:
        ServiceError: Refused, still failing after all attempts, an answer that does not fit, or
            the purse is empty; names the batch and the request.
    """
    purse = purse or Purse()
    cleaned = [clean_text(text) for text in texts]
    batches = [cleaned[first : first + batch_size] for first in range(0, len(texts), batch_size)]
    parts: list[Matrix] = []
    for number, batch in enumerate(batches, 1):
        place = f"batch {number} of {len(batches)}"
        purse.admit(service.name, batch, price)
        answer = _ask_patiently(service, batch, role, place, retries, sleep)
        try:
            vectors, tokens = service.read(answer.body, len(batch), dimension)
        except ValueError as error:
            raise ServiceError(
                f"{service.name}: {place} (request {answer.request}): {error}"
            ) from error
        purse.paid(service.name, tokens, price)
        dimension = vectors.shape[1]
        parts.append(vectors)
        progress(min(number * batch_size, len(texts)), len(texts))
    return np.concatenate(parts) if parts else np.zeros((0, dimension or 0), np.float32)


def _ask_patiently(
    service: RemoteEmbedder,
    texts: Sequence[str],
    role: Role,
    place: str,
    retries: int,
    sleep: Callable[[float], None],
) -> Received:
    tries = 0
    while True:
        answer = service.ask(texts, role)
        if not isinstance(answer, Fault):
            return answer
        tries += 1
        passing = answer.kind in ("wait", "service")
        if not passing or tries > retries:
            advice = f"; still so after {tries} tries" if passing else ""
            raise ServiceError(f"{service.name}: {place}: {answer.message}{advice}; {AGAIN}")
        asked = answer.retry_after
        sleep(min(LONGEST_WAIT, backoff(FIRST_WAIT, tries) if asked is None else asked))


def stacked(rows: Sequence[Any], dimension: int | None) -> Matrix:
    """(n, dimension) float32 of vectors as a provider sends them: numbers, or base64 of them.

    Raises:
        ValueError: One is no vector, has another dimension, or numbers that are not finite.
    """
    vectors = [_vector(row, place) for place, row in enumerate(rows)]
    widths = sorted({len(row) for row in vectors} | ({dimension} if dimension else set()))
    if len(widths) != 1:
        raise ValueError(f"vectors of different dimensions: {widths}")
    made = np.stack(vectors)
    if not np.isfinite(made).all():
        raise ValueError("vectors with NaN or infinite numbers")
    return made


def tokens_in(value: object) -> int | None:
    """A number of tokens, where the provider told one."""
    known = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return int(value) if known else None


def _vector(value: Any, place: int) -> np.ndarray:  # whatever the provider put there
    try:
        if isinstance(value, str):  # base64 of little-endian float32
            vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        else:
            vector = np.array(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise ValueError(f"item {place} holds no vector: {visible(value)}") from error
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"item {place} holds no vector: {visible(value)}")
    return vector
