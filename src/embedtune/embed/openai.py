"""Embeddings from any endpoint that speaks the OpenAI embeddings API."""

import base64
import binascii
import json
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.errors import ConfigError, ServiceError
from embedtune.files import clean_text, visible
from embedtune.records import Progress, Role, no_progress

if TYPE_CHECKING:
    import httpx2
    import openai
    import tenacity

logger = logging.getLogger(__name__)

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LONGEST_WAIT = 60.0  # seconds before a retry, whatever the provider asks for


class OpenAIEmbedder:
    """Vectors over HTTP, in batches. Everything an answer claims is checked before it is used.

    Wrap it in `RecordedEmbedder`, so that nothing paid for is bought twice.

    Args:
        base_url: Else ``OPENAI_BASE_URL``, ``OPENAI_API_BASE``, or OpenAI itself.
        api_key_env: Name of the variable that holds the key; not needed for a local server.
        dimensions: Asked of the provider, for models that can shorten their vectors.
        timeout: Seconds a request may take in all its parts.
        retries: Further attempts after a failure that may pass.
    """

    similarity: Similarity = "cosine"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        dimensions: int | None = None,
        batch_size: int = 64,
        max_tokens: int = 8191,
        timeout: float = 60.0,
        retries: int = 5,
        progress: Progress = no_progress,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._model = model
        self.address = _address(
            base_url
            or os.environ.get("OPENAI_BASE_URL")
            or os.environ.get("OPENAI_API_BASE")
            or "https://api.openai.com/v1"
        )
        self._key_name = api_key_env
        self._key = os.environ.get(api_key_env, "").strip()
        if not self._key and urlsplit(self.address).hostname not in LOCAL_HOSTS:
            raise ConfigError(
                f"openai:{visible(model)}: the environment variable {api_key_env} is not set (or "
                f"empty); it must hold the key for {self.address}"
            )
        shortened = f" {dimensions}d" if dimensions else ""
        self.name = f"openai:{model}{shortened} at {self.address}"
        self.max_tokens = max_tokens
        self._dimensions = dimensions
        self._dimension: int | None = dimensions
        self._batch_size = batch_size
        self._timeout = timeout
        self._retries = retries
        self._progress = progress
        self._sleep = sleep
        self._client: openai.OpenAI | None = None

    @property
    def dimension(self) -> int:
        """Asked of the provider (one short text) when nothing was embedded yet."""
        if self._dimension is None:
            self.embed(["dimension"], "query")
        return self._dimension or 0

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        batches = [
            [clean_text(text) for text in texts[first : first + self._batch_size]]
            for first in range(0, len(texts), self._batch_size)
        ]
        parts = []
        for number, batch in enumerate(batches, 1):
            parts.append(self._embed_batch(batch, f"batch {number} of {len(batches)}"))
            self._progress(min(number * self._batch_size, len(texts)), len(texts))
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    def _embed_batch(self, texts: Sequence[str], batch: str) -> Matrix:
        import openai
        import tenacity

        policy = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception(_may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            answer = policy(self._ask, texts)
        except openai.APIStatusError as error:
            raise ServiceError(f"{self.name}: {batch}: {self._reason(error)}") from error
        except openai.APIError as error:  # no connection, time-out, TLS
            cause = error.__cause__ or error
            raise ServiceError(
                f"{self.name}: {batch}: no answer from {self.address} after "
                f"{self._retries + 1} attempts ({visible(cause)}); what came before is stored, "
                "run the same command again"
            ) from error
        request = answer.headers.get("x-request-id", "unknown")
        try:
            vectors = parse_answer(answer.content, len(texts), self._dimension)
        except ValueError as error:
            raise ServiceError(
                f"{self.name}: {batch} (request {visible(request)}): {error}"
            ) from error
        self._dimension = vectors.shape[1]
        return vectors

    def _ask(self, texts: Sequence[str]) -> "httpx2.Response":
        import openai

        if self._client is None:
            self._client = openai.OpenAI(
                api_key=self._key or "none", base_url=self.address, max_retries=0,
                timeout=self._timeout,
            )  # fmt: skip
        optional = {"dimensions": self._dimensions} if self._dimensions else {}
        # the body is parsed here, so that nothing wrong in it is smoothed over
        return self._client.embeddings.with_raw_response.create(
            model=self._model, input=list(texts), encoding_format="float", **optional
        ).http_response

    def _reason(self, error: "openai.APIStatusError") -> str:
        status = error.status_code
        if status in (401, 403):
            return f"{self.address} refused the key in {self._key_name} ({status})"
        if status == 404:
            return f"{self.address} has no model {visible(self._model)!r}, or is no such API (404)"
        if status in RETRIED_STATUS:
            return (f"{self.address} answered {status} to all {self._retries + 1} attempts; what "
                    "came before is stored, run the same command again later")  # fmt: skip
        return f"{self.address} answered {status}: {visible(error.message, 200)}"


def _address(url: str) -> str:
    """``url`` without trailing slash; credentials inside it and other schemes are refused."""
    parts = urlsplit(url.strip())
    shown = visible(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url {shown}: expected http://… or https://…")
    if "@" in parts.netloc:
        raise ConfigError(f"base_url {shown}: holds a user name or password; take it out and put "
                          "the key into an environment variable")  # fmt: skip
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), query="", fragment=""))


def _may_pass(error: BaseException) -> bool:
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in RETRIED_STATUS
    return isinstance(error, openai.APIConnectionError)


def _wait(state: "tenacity.RetryCallState") -> float:
    """What the provider asks for, else 0.5, 1, 2, … seconds with jitter."""
    error = state.outcome.exception() if state.outcome else None
    response = getattr(error, "response", None)
    asked = retry_after(response.headers.get("retry-after", "")) if response is not None else None
    if asked is None:
        asked = 0.5 * 2 ** (state.attempt_number - 1)
    return min(LONGEST_WAIT, asked * random.uniform(1, 1.25))


def retry_after(header: str) -> float | None:
    """Seconds of a ``Retry-After`` header, given in seconds or as a date."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def parse_answer(body: bytes, count: int, dimension: int | None) -> Matrix:
    """(count, dimension) float32 of an embeddings answer, in the order of the texts asked.

    Raises:
        ValueError: Says what is wrong: not JSON, missing, repeated or surplus vectors, another
            dimension, numbers that are not finite.
    """
    try:
        items = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the answer is no list of embeddings: {visible(body[:200].decode('utf-8', 'replace'))}"
        ) from error
    if not isinstance(items, list) or len(items) != count:
        found = len(items) if isinstance(items, list) else type(items).__name__
        raise ValueError(f"{found} vectors for {count} texts")
    rows: dict[int, np.ndarray] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"item {place} is {type(item).__name__} instead of an object")
        index = item.get("index", place)
        if not isinstance(index, int) or not 0 <= index < count or index in rows:
            raise ValueError(f"item {place} has the index {visible(repr(index))}, repeated or not "
                             f"within 0 to {count - 1}")  # fmt: skip
        rows[index] = _vector(item.get("embedding"), place)
    widths = sorted({len(row) for row in rows.values()} | ({dimension} if dimension else set()))
    if len(widths) != 1:
        raise ValueError(f"vectors of different dimensions: {widths}")
    vectors = np.stack([rows[index] for index in range(count)])
    if not np.isfinite(vectors).all():
        raise ValueError("vectors with NaN or infinite numbers")
    return vectors


def _vector(value: Any, place: int) -> np.ndarray:  # whatever the provider put there
    try:
        if isinstance(value, str):  # base64 of little-endian float32, as the SDK asks by default
            vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        else:
            vector = np.array(value, dtype=np.float32)
    except (ValueError, TypeError, binascii.Error) as error:
        raise ValueError(f"item {place} holds no vector: {visible(value)}") from error
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"item {place} holds no vector: {visible(value)}")
    return vector
