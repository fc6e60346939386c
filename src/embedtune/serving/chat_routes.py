"""``/v1/chat/completions``: answers from the documents, in the form of OpenAI's interface.

Messages come in, the last question is searched and answered with citations; programs that talk
to a language model need another address and nothing else.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from embedtune.errors import ConfigError, EmbedtuneError
from embedtune.files import clean_text
from embedtune.language import language_of
from embedtune.llm import ChatFault
from embedtune.retrieve.answer import Answer
from embedtune.retrieve.answer.answering import Answerer, Question
from embedtune.serving.refusals import BUSY_SECONDS, Refusal, documented

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

logger = logging.getLogger(__name__)

NAME = "embedtune"  # a model's name that always works
LONGEST = 20_000  # characters of a question, of what was asked before, and of wishes
SOURCES = {"zh": "来源："}  # by language of the question


# ---- what comes in


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return clean_text("\n".join(part.text for part in self.content)).strip()
        return clean_text(self.content or "").strip()


class StreamOptions(_Strict):
    include_usage: bool = False


class TextFormat(_Strict):
    type: Literal["text"]


Tokens = Annotated[int, Field(ge=1, le=1_000_000)] | None


class ChatBody(_Strict):
    """A request. What would change the form of the answer is refused; ``top_p``, ``seed``,
    ``stop``, ``user`` and the like are accepted and change nothing."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=2_000)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    n: Literal[1] | None = 1
    logprobs: Literal[False] | None = None
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _asks(self) -> "ChatBody":
        if self.messages[-1].role != "user" or not self.messages[-1].text:
            raise ValueError("messages: the last one must be a question of the user, not blank")
        question = self.question()
        for text in (question.text, question.earlier, question.wishes):
            if len(text) > LONGEST:
                raise ValueError(f"messages: more than {LONGEST:,} characters in one part")
        return self

    def question(self) -> Question:
        """The last message; the user's one before it takes part in search and answer, so that
        "and in winter?" is understood. Answers given before are not looked at."""
        asked = [message.text for message in self.messages if message.role == "user"]
        wishes = [m.text for m in self.messages if m.role in ("system", "developer") and m.text]
        limits = [own for own in (self.max_tokens, self.max_completion_tokens) if own]
        return Question(
            text=asked[-1],
            earlier=asked[-2] if len(asked) > 1 else "",
            wishes="\n".join(wishes),
            max_tokens=min(limits, default=None),
            temperature=self.temperature,
        )


# ---- what goes out


def refusal_of(error: ChatFault | EmbedtuneError) -> Refusal:
    """What a client is told of a fault. Names of hosts and keys stay in the server's log."""
    if isinstance(error, ConfigError):
        return Refusal(422, str(error), code="invalid_value", param="messages")
    if isinstance(error, EmbedtuneError):
        return Refusal(503, "the index cannot be searched now", code="index_unavailable")
    wait = error.retry_after or BUSY_SECONDS
    if error.code == "timeout":
        message, code = "the language model did not answer in time", "upstream_timeout"
        return Refusal(504, message, code=code, retry_after=wait)
    if error.kind in ("wait", "service"):
        message, code = "the language model is not available now", "upstream_unavailable"
        return Refusal(503, message, code=code, retry_after=wait)
    if error.code == "content-filter":
        message = "the language model's provider refused the content"
        return Refusal(400, message, code="content_filter")
    if error.code == "passage-too-long":
        message = "question and passages are too long for the language model"
        return Refusal(400, message, code="context_length_exceeded")
    message = "the language model refused the request or sent no usable answer"
    return Refusal(502, message, code="upstream_failed", retry_after=wait)


class _Form:
    """Answers in the words of the interface: one object, or chunks of a stream."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(datetime.now(UTC).timestamp()),
            "model": model,
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text + sources(answer)}
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            **grounds(answer),
        }

    def chunk(
        self, delta: dict[str, Any], finish: str | None = None, **more: Any
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self.empty(choices=[choice], **more)

    def empty(self, **more: Any) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], **more}


def sources(answer: Answer) -> str:
    """A line a citation, for programs that show nothing but the text."""
    if not answer.citations:
        return ""
    lines = [f"[{own.number}] {clean_text(own.place)}" for own in answer.citations]
    return "\n\n" + "\n".join([SOURCES.get(language_of(answer.question), "Sources:"), *lines])


def grounds(answer: Answer) -> dict[str, Any]:
    """The fields beyond OpenAI's: what the answer rests on, and what it is worth."""
    return {
        "citations": [citation.as_json() for citation in answer.citations],
        "embedtune": {
            "status": answer.status,
            "reason": answer.reason,
            "removed_citations": list(answer.removed),
            "best_score": answer.best,
        },
    }


def _finish(answer: Answer) -> str:
    return answer.finish if answer.finish in ("length", "content_filter") else "stop"


def _usage(answer: Answer) -> dict[str, int] | None:
    if answer.reason in ("weak", "nothing-found"):
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    if answer.input_tokens is None or answer.output_tokens is None:
        return None
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


# ---- the route

Parts = AsyncGenerator[str | Answer, None]
Result = TypeVar("Result")


def names_of(answerer: Answerer) -> tuple[str, ...]:
    """Model names that the route answers to: ours, and that of the language model behind it."""
    if answerer.chat is None:
        return (NAME,)
    own = answerer.chat.name.partition("{")[0]
    return tuple(dict.fromkeys((NAME, own.partition(":")[2] or own)))


def add_chat_routes(app: "FastAPI", answerer: Answerer, *, most: int = 16) -> None:
    """Add ``POST /v1/chat/completions`` to the server.

    The app answers requests that are not valid (pydantic's errors) in its own form.

    Args:
        most: Answers in progress at a time; more are refused with 429.
    """
    from fastapi import Request
    from fastapi.responses import JSONResponse, StreamingResponse

    names = names_of(answerer)
    active = 0

    class Events(StreamingResponse):
        """Closes the work behind it, also when the client has left."""

        def __init__(self, parts: Parts, events: AsyncIterator[str]) -> None:
            super().__init__(
                events, media_type="text/event-stream", headers={"cache-control": "no-cache"}
            )
            self._parts = parts

        async def __call__(self, *arguments: Any) -> None:
            try:
                await super().__call__(*arguments)
            finally:
                await leave(self._parts)

    async def leave(parts: Parts) -> None:
        nonlocal active
        active -= 1
        await parts.aclose()

    @app.post(
        "/v1/chat/completions",
        response_model=None,
        summary="Answer from the documents",
        responses=_documented(),
    )
    async def chat(body: ChatBody, request: Request) -> "Response":
        nonlocal active
        if body.model not in names:
            message = f"no such model; this route answers as {' and '.join(names)}"
            return Refusal(404, message, code="model_not_found", param="model").response()
        if active >= most:
            return Refusal(429, "too many answers in progress", code="busy").response()
        active += 1
        parts: Parts = answerer.stream(body.question())
        form, streams = _Form(body.model), False
        try:
            # the first part before the status: later there is no way to say 503
            first = await _unless_gone(request, _first(parts))
            if body.stream:
                wants_usage = bool(body.stream_options and body.stream_options.include_usage)
                streams = True
                return Events(parts, _events(form, first, parts, wants_usage))
            answer = await _unless_gone(request, _last(first, parts))
            return JSONResponse(form.whole(answer))
        except (ChatFault, EmbedtuneError) as error:
            logger.warning("no answer: %s", error)
            return refusal_of(error).response()
        except _Gone:  # nobody reads this
            return Refusal(499, "the client has left", code="client_left").response()
        finally:
            if not streams:
                await leave(parts)


def _documented() -> dict[int | str, dict[str, Any]]:
    """The answers of the route, for the description of the interface."""
    told = {
        400: "The language model's provider refused the content, or it is too long for it",
        502: "The language model refused the request or sent no usable answer",
        503: "The language model or the index is not available, or the server stops",
        504: "The language model did not answer in time",
    }
    known = documented(400, 401, 404, 408, 413, 414, 422, 429, 431, 500, 503)
    whole = {"schema": {"type": "object", "required": ["id", "choices", "citations"]}}
    return {
        **known,
        **{status: {**known[503], "description": said} for status, said in told.items()},
        200: {
            "description": "An answer with citations; with `stream` as server-sent events",
            "content": {"application/json": whole, "text/event-stream": {}},
        },
    }


class _Gone(Exception):
    """The client closed its connection."""


async def _unless_gone(request: "Request", work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` gives; it is cancelled when the client leaves."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        return task.result()
    finally:
        for own in (task, gone):
            own.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _first(parts: Parts) -> str | Answer:
    return await anext(parts)


async def _last(part: str | Answer, parts: Parts) -> Answer:
    while not isinstance(part, Answer):
        part = await anext(parts)
    return part


async def _events(
    form: _Form, first: str | Answer, parts: Parts, wants_usage: bool
) -> AsyncIterator[str]:
    yield _event(form.chunk({"role": "assistant", "content": ""}))
    part = first
    try:
        while not isinstance(part, Answer):
            yield _event(form.chunk({"content": part}))
            part = await anext(parts)
    except (ChatFault, EmbedtuneError) as error:
        logger.warning("an answer broke off: %s", error)
        yield f"data: {refusal_of(error).body.decode()}\n\n"
        return
    if listed := sources(part):
        yield _event(form.chunk({"content": listed}))
    yield _event(form.chunk({}, _finish(part), **grounds(part)))
    if wants_usage:
        yield _event(form.empty(usage=_usage(part)))
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
