"""Embeddings from Cohere, whose models read queries and passages in different ways."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedtune.embed import Matrix
from embedtune.embed.remote import Received, RemoteEmbedder, stacked, tokens_in
from embedtune.endpoint import (
    Endpoint,
    Fault,
    check_base_url,
    read_variable,
    refused,
    unreachable,
)
from embedtune.errors import ConfigError
from embedtune.files import visible
from embedtune.records import Role

if TYPE_CHECKING:
    import httpx2

COHERE_URL = "https://api.cohere.com"
ADDRESS = "CO_API_URL"
KEYS = ("COHERE_API_KEY", "CO_API_KEY")
MOST_TEXTS = 96  # a request
INPUT_TYPES = {"query": "search_query", "document": "search_document"}


class CohereEmbedder(RemoteEmbedder):
    """Vectors of ``/v2/embed``.

    Args:
        base_url: Else ``CO_API_URL``, or Cohere itself.
        batch_size: Texts a request, 96 at most.
        sending: See `RemoteEmbedder`.

    Raises:
        ConfigError: The address is none, or ``COHERE_API_KEY`` is not set.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        batch_size: int = MOST_TEXTS,
        max_tokens: int = 512,
        **sending: Any,
    ) -> None:
        self.endpoint = find_cohere(model, base_url)
        super().__init__(
            f"cohere:{model} at {self.endpoint.base_url}",
            max_tokens=max_tokens,
            batch_size=min(batch_size, MOST_TEXTS),
            **sending,
        )
        self._client: httpx2.Client | None = None

    def ask(self, texts: Sequence[str], role: Role) -> Received | Fault:
        import httpx2

        if self._client is None:
            self._client = httpx2.Client(
                headers={"authorization": f"Bearer {self.endpoint.key}", "user-agent": "embedtune"},
                timeout=self._timeout,
                trust_env=not self.endpoint.local,
            )
        question = {
            "model": self.endpoint.model,
            "texts": list(texts),
            "input_type": INPUT_TYPES[role],
            "embedding_types": ["float"],
        }
        try:
            answer = self._client.post(f"{self.endpoint.base_url}/embed", json=question)
        except httpx2.HTTPError as error:
            return unreachable(self.endpoint, error)
        body = self.endpoint.text(answer.content)
        if not answer.is_success:
            return refused(self.endpoint, answer.status_code, answer.headers, body)
        return Received(body, _request(answer.headers.get("x-request-id"), body))

    def read(self, body: str, count: int, dimension: int | None) -> tuple[Matrix, int | None]:
        try:
            answer = json.loads(body)
            embeddings = answer["embeddings"]
            rows = embeddings["float"] if isinstance(embeddings, dict) else embeddings
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"the answer holds no float embeddings: {visible(body, 200)}"
            ) from error
        if not isinstance(rows, list) or len(rows) != count:
            found = len(rows) if isinstance(rows, list) else type(rows).__name__
            raise ValueError(f"{found} vectors for {count} texts")
        meta = answer.get("meta")
        billed = meta.get("billed_units") if isinstance(meta, dict) else None
        tokens = billed.get("input_tokens") if isinstance(billed, dict) else None
        return stacked(rows, dimension), tokens_in(tokens)


def find_cohere(model: str, base_url: str | None = None) -> Endpoint:
    """Where and as whom to ask Cohere.

    Raises:
        ConfigError: With all faults together.
    """
    faults: list[str] = []
    given = base_url or read_variable(ADDRESS).value or COHERE_URL
    address = ""
    try:
        address = check_base_url(given, "base_url" if base_url else ADDRESS)
    except ConfigError as error:
        faults += error.faults
    for end in ("/embed", "/v1", "/v2"):
        address = address.removesuffix(end)
    found = [read_variable(name) for name in KEYS]
    variable = next((one for one in found if one.value), found[0])
    key = variable.value or ""
    endpoint = Endpoint(f"{address}/v2", model, key or "none", variable.name)
    if not key and not endpoint.local:
        faults.append(
            f"{variable.name} is {variable.state}, and {endpoint.host or 'Cohere'} needs a key"
        )
    elif not key.isascii() or not key.isprintable():
        faults.append(f"{variable.name}: holds characters that cannot be part of a key")
    if faults:
        raise ConfigError(faults)
    return endpoint


def _request(header: str | None, body: str) -> str:
    """What Cohere calls the request: in a header, or in the body."""
    if header:
        return visible(header)
    try:
        return visible(json.loads(body)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown"
