"""Embeddings from any endpoint that speaks the OpenAI embeddings API."""

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedtune.embed import Matrix
from embedtune.embed.remote import Received, RemoteEmbedder, stacked, tokens_in
from embedtune.endpoint import Fault, find_endpoint, refused, unreachable
from embedtune.files import visible
from embedtune.records import Role

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)


class OpenAIEmbedder(RemoteEmbedder):
    """Vectors of an endpoint's ``/embeddings``.

    Args:
        model: Else ``EMBEDDING_MODEL``.
        base_url: Else ``OPENAI_BASE_URL``, ``OPENAI_API_BASE``, or OpenAI itself.
        api_key_env: The variable that holds the key, ``none``, or ``auto``: see
            `endpoint.find_endpoint`.
        dimensions: Asked of the provider, for models that can shorten their vectors.
        sending: See `RemoteEmbedder`.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key_env: str = "auto",
        dimensions: int | None = None,
        batch_size: int = 64,
        max_tokens: int = 8191,
        **sending: Any,
    ) -> None:
        self.endpoint = find_endpoint(
            model, base_url, api_key_env, model_variable="EMBEDDING_MODEL"
        )
        for note in self.endpoint.notes:
            logger.info(note)
        shortened = f" {dimensions}d" if dimensions else ""
        super().__init__(
            f"openai:{self.endpoint.model}{shortened} at {self.endpoint.base_url}",
            max_tokens=max_tokens,
            batch_size=batch_size,
            dimension=dimensions,
            **sending,
        )
        self._dimensions = dimensions
        self._client: openai.OpenAI | None = None

    def ask(self, texts: Sequence[str], role: Role) -> Received | Fault:
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
            answer = self._client.embeddings.with_raw_response.create(
                model=self.endpoint.model, input=list(texts), encoding_format="float", **optional
            ).http_response
        except openai.APIStatusError as error:
            body = self.endpoint.text(error.response.content)
            return refused(self.endpoint, error.status_code, error.response.headers, body)
        except openai.APIConnectionError as error:
            return unreachable(self.endpoint, error)
        request = visible(answer.headers.get("x-request-id", "unknown"))
        return Received(self.endpoint.text(answer.content), request)

    def read(self, body: str, count: int, dimension: int | None) -> tuple[Matrix, int | None]:
        return parse_answer(body, count, dimension), _tokens(body)


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
    rows: dict[int, object] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"item {place} is {type(item).__name__} instead of an object")
        index = item.get("index", place)
        if not isinstance(index, int) or not 0 <= index < count or index in rows:
            raise ValueError(
                f"item {place} has the index {visible(repr(index))}, repeated or not "
                f"within 0 to {count - 1}"
            )
        rows[index] = item.get("embedding")
    return stacked([rows[index] for index in range(count)], dimension)


def _tokens(body: str) -> int | None:
    """Of an answer that was parsed already."""
    usage = json.loads(body).get("usage")
    return tokens_in(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
