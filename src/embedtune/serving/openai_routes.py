"""``/v1/embeddings`` and ``/v1/models``, as the OpenAI API has them."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import to_json

from embedtune.embed import Matrix
from embedtune.files import clean_text, visible
from embedtune.records import Role
from embedtune.serving.batching import Job
from embedtune.serving.models import Catalogue, Served, Version
from embedtune.serving.refusals import Refusal, documented, invalid, refusal_for, too_large
from embedtune.serving.refusals import left as client_left
from embedtune.serving.settings import ServerSettings

INLINE = 4_000  # characters, or numbers, that are worked on without a thread
PORTION = 50_000  # characters given to a tokenizer at once: about 20 MB
WRITTEN = (400, 401, 404, 408, 413, 414, 422, 429, 431, 500, 503)
EXPECTED = "a text, a list of texts, a list of token ids, or a list of such lists"
TEXT = {"type": "string", "minLength": 1, "pattern": r"\S"}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
INPUT = {
    "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}, IDS,
              {"type": "array", "items": IDS, "minItems": 1}],
    "description": f"What to embed: {EXPECTED}. Token ids are those of the model's own tokenizer.",
}  # fmt: skip


class EmbeddingRequest(BaseModel):
    """What clients of the OpenAI API send, and ``input_type``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: Annotated[Any, WithJsonSchema(INPUT)]  # read by `read_input`, which names the place
    model: str = Field(description="A name, or NAME:query or NAME:document to choose the prompt.")
    dimensions: int | None = Field(
        None, ge=1, description="Shorter vectors, of a length that the model was trained for."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: float32 numbers, little-endian."
    )
    user: str | None = Field(None, description="Accepted; changes nothing.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which of the model's prompts stands before the texts; else document."
    )


class EmbeddingItem(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool = Field(
        False, description="The text was cut. Only there when the server cuts long texts."
    )


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    revision: str
    dimension: int
    dimensions: list[int]
    max_tokens: int
    similarity: str
    aliases: list[str]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelEntry]


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of each text as the client wrote it, with prompt and special tokens."""

    tokens: tuple[int, ...]
    too_long: tuple[bool, ...]


def read_request(body: bytes, content_type: str) -> EmbeddingRequest:
    """Raises a `Refusal`: 400 for what is not JSON, 422 that names each field at fault."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        found = visible(content_type) or "none"
        raise invalid("Content-Type", f"found {found}; send application/json")
    try:
        return EmbeddingRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    if first["type"] == "json_invalid":
        raise Refusal(400, f"the body is not JSON: {first['msg']}", code="not_json")
    if not first["loc"]:
        raise Refusal(422, "the body is not a JSON object", code="invalid_value")
    told = [f"{visible('.'.join(map(str, one['loc'])), 40)}: {one['msg']}" for one in faults[:5]]
    raise Refusal(
        422, "; ".join(told), code="invalid_value", param=visible(str(first["loc"][0]), 40)
    )


def read_input(value: Any, settings: ServerSettings) -> list[str] | list[list[int]]:
    """Texts, or token ids; ``value`` is any JSON. Raises a `Refusal` that names the place."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise invalid("input", f"found {_kind(value)}; expected {EXPECTED}")
    if not value:
        raise invalid("input", f"an empty list; expected {EXPECTED}")
    if _kind(value[0]) == "a whole number":
        return [_ids(value, "input")]
    if len(value) > settings.max_items:
        raise too_large(
            f"input: {len(value)} texts; at most {settings.max_items} a request", "input"
        )
    if isinstance(value[0], list):
        return [_ids(row, f"input[{place}]") for place, row in enumerate(value)]
    texts = []
    for place, text in enumerate(value):
        if not isinstance(text, str):
            raise invalid(f"input[{place}]", f"found {_kind(text)}; expected a text")
        if len(text) > settings.max_text_chars:
            raise too_large(
                f"input[{place}]: {len(text)} characters; at most {settings.max_text_chars}",
                "input",
            )
        text = clean_text(text)
        if not text.strip():
            raise invalid(f"input[{place}]", "nothing to embed: the text is empty or blank")
        texts.append(text)
    return texts


def _ids(row: Any, place: str) -> list[int]:
    if not isinstance(row, list):
        raise invalid(place, f"found {_kind(row)}; expected a list of token ids")
    if not row:
        raise invalid(place, "an empty list of token ids")
    for index, own in enumerate(row):
        if _kind(own) != "a whole number" or not 0 <= own < 2**31:
            raise invalid(f"{place}[{index}]", f"found {_kind(own)}; expected a token id")
    return row


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    kinds = {int: "a whole number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "an object")


def count_tokens(
    version: Version, texts: Sequence[str], role: Role, settings: ServerSettings
) -> Counted:
    """Raises a `Refusal` at the first text that is too long, or when all are too many."""
    prompt = version.prompts[role]
    counts: list[int] = []
    portion: list[str] = []
    total = 0
    for place, text in enumerate(texts):
        portion.append(prompt + text)
        if place + 1 < len(texts) and sum(map(len, portion)) < PORTION and len(portion) < 512:
            continue
        counts += version.tokens.count(portion)
        total += sum(counts[-len(portion) :])
        portion = []
        if total > settings.max_request_tokens:
            raise too_large(
                f"input: more than {settings.max_request_tokens} tokens in one request", "input"
            )
    too_long = [version.exact and count > version.max_tokens for count in counts]
    if any(too_long) and settings.too_long == "refuse":
        place = too_long.index(True)
        raise Refusal(
            422,
            f"input[{place}]: {counts[place]} tokens; the model reads {version.max_tokens}. Send "
            "shorter texts, or start the server with --truncate",
            code="context_length_exceeded",
            param="input",
        )
    return Counted(tuple(counts), tuple(too_long))


def add_openai_routes(app: FastAPI, catalogue: Catalogue, settings: ServerSettings) -> None:
    """Add the routes. Keys, sizes and stopping are the gate's."""

    body = {
        "required": True,
        "content": {"application/json": {"schema": _request_schema(catalogue)}},
    }

    @app.post(
        "/v1/embeddings",
        summary="Embed texts",
        response_model=EmbeddingAnswer,
        responses=documented(*WRITTEN),
        openapi_extra={"requestBody": body},
    )
    async def embeddings(request: Request) -> Response:
        raw = await request.body()
        asked = read_request(raw, request.headers.get("content-type", ""))
        served, role = _choose(catalogue, asked)
        version = served.current
        dimension = version.check_dimension(asked.dimensions, any_dimension=settings.any_dimension)
        given = read_input(asked.input, settings)
        version.batcher.check_room(len(given))
        size = len(raw)

        def prepare() -> tuple[list[str], Counted]:
            texts = [own for own in given if isinstance(own, str)]
            if not texts:
                texts = version.texts_of([own for own in given if isinstance(own, list)])
            return texts, count_tokens(version, texts, role, settings)

        with version.batcher.expecting():
            texts, counted = await _maybe_threaded(prepare, size)
            job = version.batcher.submit(texts, role, counted.tokens)
        vectors = await _answered(job, version, request, catalogue)
        metrics = catalogue.metrics
        metrics.texts.labels(served.source.name, role).inc(len(texts))
        metrics.tokens.labels(served.source.name).inc(sum(counted.tokens))
        done = version.finished(vectors, dimension)
        answer = await _maybe_threaded(
            lambda: _answer_body(asked, done, counted, version, settings), done.size
        )
        return Response(answer, media_type="application/json")

    @app.get(
        "/v1/models",
        summary="What is served",
        response_model=ModelList,
        responses=documented(401, 408, 414, 431, 500, 503),
    )
    async def models() -> ModelList:
        return ModelList(object="list", data=[_entry(served) for served in catalogue.served])

    @app.get(
        "/v1/models/{model:path}",
        summary="One model",
        response_model=ModelEntry,
        responses=documented(400, 401, 404, 408, 414, 431, 500, 503),
    )
    async def model(model: str) -> ModelEntry:
        served, _ = catalogue.find(model)
        return _entry(served)


def _request_schema(catalogue: Catalogue) -> dict[str, Any]:
    schema = EmbeddingRequest.model_json_schema()
    schema["properties"]["model"]["enum"] = catalogue.names()
    return schema


def _choose(catalogue: Catalogue, asked: EmbeddingRequest) -> tuple[Served, Role]:
    served, alias = catalogue.find(asked.model)
    if alias and asked.input_type and alias != asked.input_type:
        raise invalid("input_type", f"is {asked.input_type}, but the model's name says {alias}")
    return served, alias or asked.input_type or "document"


async def _maybe_threaded(work: Any, size: int) -> Any:  # () -> what it gives
    """Small work at once, large work in a thread, so that other clients are answered meanwhile."""
    return work() if size < INLINE else await asyncio.to_thread(work)


async def _answered(job: Job, version: Version, request: Request, catalogue: Catalogue) -> Matrix:
    """The vectors; when the client leaves before them, its texts are dropped."""

    async def leaving() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    left = asyncio.ensure_future(leaving())
    try:
        await asyncio.wait((job.answer, left), return_when=asyncio.FIRST_COMPLETED)
        if not job.answer.done():
            catalogue.metrics.left.inc()
            raise client_left()
        try:
            return job.answer.result()
        except Exception as error:  # what the model, or the service behind it, raised
            raise refusal_for(error) from error
    finally:
        left.cancel()
        if not job.answer.done():
            version.batcher.drop(job)


def _answer_body(
    asked: EmbeddingRequest,
    vectors: Matrix,
    counted: Counted,
    version: Version,
    settings: ServerSettings,
) -> bytes:
    if asked.encoding_format == "base64":
        little = vectors.astype("<f4", copy=False)
        written: list[Any] = [base64.b64encode(row.tobytes()).decode() for row in little]
    else:
        written = np.asarray(vectors, dtype=np.float64).tolist()
    data = []
    for index, vector in enumerate(written):
        item = {"object": "embedding", "index": index, "embedding": vector}
        if settings.too_long == "truncate":
            item["truncated"] = counted.too_long[index]
        data.append(item)
    read = sum(min(count, version.max_tokens) for count in counted.tokens)
    usage = {"prompt_tokens": read, "total_tokens": read}
    return to_json({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _entry(served: Served) -> ModelEntry:
    version, name = served.current, served.source.name
    return ModelEntry(
        id=name,
        object="model",
        created=version.loaded_at,
        owned_by="embedtune",
        revision=version.revision,
        dimension=version.dimension,
        dimensions=list(version.trained),
        max_tokens=version.max_tokens,
        similarity=version.embedder.similarity,
        aliases=[f"{name}:query", f"{name}:document"],
    )
