"""Embeddings from any endpoint that speaks the OpenAI embeddings API."""

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.endpoint import Fault, backoff, find_endpoint, refused, unreachable
from embedtune.errors import ServiceError
from embedtune.files import clean_text, visible
from embedtune.records import Progress, Role, no_progress

if TYPE_CHECKING:
    import httpx2
    import openai

logger = logging.getLogger(__name__)

FIRST_WAIT = 0.5  # seconds before the first further try
LONGEST_WAIT = 60.0  # seconds, whatever the provider asks for


class OpenAIEmbedder:
    """Vectors over HTTP, in batches. Everything an answer claims is checked before it is used.

    Wrap it in `RecordedEmbedder`, so that nothing paid for is bought twice.

    Args:
        model: Else ``EMBEDDING_MODEL``.
        base_url: Else ``OPENAI_BASE_URL``, ``OPENAI_API_BASE``, or OpenAI itself.
        api_key_env: The variable that holds the key, ``none``, or ``auto``: see
            `endpoint.find_endpoint`.
        dimensions: Asked of the provider, for models that can shorten their vectors.
        timeout: Seconds a request may take in all its parts.
        retries: Further attempts after a failure that may pass.
    """

    similarity: Similarity = "cosine"

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key_env: str = "auto",
        dimensions: int | None = None,
        batch_size: int = 64,
        max_tokens: int = 8191,
        timeout: float = 60.0,
        retries: int = 5,
        progress: Progress = no_progress,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = find_endpoint(
            model, base_url, api_key_env, model_variable="EMBEDDING_MODEL"
        )
        for note in self.endpoint.notes:
            logger.info(note)
        shortened = f" {dimensions}d" if dimensions else ""
        self.name = f"openai:{self.endpoint.model}{shortened} at {self.endpoint.base_url}"
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
        answer = self._ask_patiently(texts, batch)
        try:
            body = self.endpoint.text(answer.content)
            vectors = parse_answer(body, len(texts), self._dimension)
        except ValueError as error:
            request = visible(answer.headers.get("x-request-id", "unknown"))
            raise ServiceError(f"{self.name}: {batch} (request {request}): {error}") from error
        self._dimension = vectors.shape[1]
        return vectors

    def _ask_patiently(self, texts: Sequence[str], batch: str) -> "httpx2.Response":
        tries = 0
        while True:
            answer = self._ask(texts)
            if not isinstance(answer, Fault):
                return answer
            tries += 1
            passing = answer.kind in ("wait", "service")
            if not passing or tries > self._retries:
                advice = f"; still so after {tries} tries" if passing else ""
                raise ServiceError(
                    f"{self.name}: {batch}: {answer.message}{advice}; what came before is stored, "
                    "run the same command again"
                )
            asked = answer.retry_after
            wait = backoff(FIRST_WAIT, tries) if asked is None else asked
            self._sleep(min(LONGEST_WAIT, wait))

    def _ask(self, texts: Sequence[str]) -> "httpx2.Response | Fault":
        import openai

        if self._client is None:
            self._client = openai.OpenAI(
                api_key=self.endpoint.key,
                base_url=self.endpoint.base_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=openai.DefaultHttpxClient(trust_env=not self.endpoint.local),
            )
        optional = {"dimensions": self._dimensions} if self._dimensions else {}
        try:
            # the body is parsed here, so that nothing wrong in it is smoothed over
            return self._client.embeddings.with_raw_response.create(
                model=self.endpoint.model, input=list(texts), encoding_format="float", **optional
            ).http_response
        except openai.APIStatusError as error:
            body = self.endpoint.text(error.response.content)
            return refused(self.endpoint, error.status_code, error.response.headers, body)
        except openai.APIConnectionError as error:
            return unreachable(self.endpoint, error)


def parse_answer(body: str, count: int, dimension: int | None) -> Matrix:
    """(count, dimension) float32 of an embeddings answer, in the order of the texts asked.

    Raises:
        ValueError: Says what is wrong: not JSON, missing, repeated or surplus vectors, another
            dimension, numbers that are not finite.
    """
    try:
        items = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the answer is no list of embeddings: {visible(body, 200)}") from error
    if not isinstance(items, list) or len(items) != count:
        found = len(items) if isinstance(items, list) else type(items).__name__
        raise ValueError(f"{found} vectors for {count} texts")
    rows: dict[int, np.ndarray] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"item {place} is {type(item).__name__} instead of an object")
        index = item.get("index", place)
        if not isinstance(index, int) or not 0 <= index < count or index in rows:
            raise ValueError(
                f"item {place} has the index {visible(repr(index))}, repeated or not "
                f"within 0 to {count - 1}"
            )
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
