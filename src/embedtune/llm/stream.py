"""An answer piece by piece, as it is written.

Servers that do not stream, and models that are none, give their answer in one piece.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from embedtune.endpoint import backoff
from embedtune.llm import ChatAnswer, ChatFault, ChatModel, ChatRequest
from embedtune.llm.openai import ADAPTATIONS, CHAT, OpenAIChat

LONGEST_WAIT = 60.0  # seconds; a service that asks for more is not waited for
OPEN, CLOSE = "<think>", "</think>"

Pieces = AsyncGenerator[str | ChatAnswer, None]


async def stream(
    model: ChatModel,
    request: ChatRequest,
    *,
    timeout: float,
    tries: int = 1,
    first_wait: float = 1.0,
) -> Pieces:
    """Pieces of text as they come, and last the whole answer.

    What a thinking model thinks aloud in front of its answer is left out.

    Args:
        timeout: Seconds for one try, from the question to the end of the answer.
        tries: As long as no piece came, a service that failed or asked to wait is asked again.
        first_wait: Seconds before the second try; doubles each time.

    Raises:
        ChatFault: No answer came, or it ended in the middle.
    """
    for number in range(1, tries + 1):
        begun = False
        try:
            async with aclosing(_within(timeout, _pieces(model, request))) as pieces:
                async for piece in pieces:
                    begun = True
                    yield piece
            return
        except ChatFault as fault:
            pause = fault.retry_after or backoff(first_wait, number)
            hopeless = fault.kind in ("stop", "request") or pause > LONGEST_WAIT
            if begun or hopeless or number == tries:
                raise
        await asyncio.sleep(pause)


async def _within(seconds: float, pieces: Pieces) -> Pieces:
    # a timeout around the whole loop would also count what the reader of the pieces does
    end = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            try:
                async with asyncio.timeout_at(end):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                message = f"no whole answer within {seconds:g} s"
                raise ChatFault("answer", "timeout", message) from error
            yield piece
    finally:
        await pieces.aclose()


async def _pieces(model: ChatModel, request: ChatRequest) -> Pieces:
    if not isinstance(model, OpenAIChat):
        answer = await model.ask(request)
        if answer.text:
            yield answer.text
        yield answer
        return
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    for _ in range(ADAPTATIONS):
        try:
            async with aclosing(_streamed(model, model.body(request) | options)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except ChatFault as fault:  # a refusal comes before the first piece
            said = f"{fault.message} {fault.raw}".lower()
            if fault.kind == "request" and "stream_options" in said and len(options) > 1:
                del options["stream_options"]
            elif not model.adapt(request, fault):
                raise
    raise ChatFault("request", "bad-request", f"{model.host} refuses every form of the request")


async def _streamed(model: OpenAIChat, body: dict[str, Any]) -> Pieces:
    whole, thoughts = _Whole(), _Thoughts()
    plain: list[str] = []  # of a server that does not stream
    ended = False
    async with aclosing(model.lines(CHAT, "POST", json=body)) as lines:
        async for line in lines:
            kind, _, data = line.strip().partition(":")
            data = data.strip()
            if kind == "data" and data == "[DONE]":
                ended = True
                break
            if kind == "data":
                if text := thoughts.feed(whole.take(_event(model, data))):
                    yield text
            elif kind not in ("", "event", "id", "retry"):  # fields of a stream, comments
                plain.append(line)
    if whole.nothing and plain:
        answer = model.answer("\n".join(plain))
        if answer.text:
            yield answer.text
        yield answer
        return
    if text := thoughts.rest():
        yield text
    yield whole.answer(model, ended)


def _event(model: OpenAIChat, data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        message = f"{model.host} sent something that is not JSON in its stream"
        raise ChatFault("answer", "not-json", message, raw=data)
    if event.get("error"):
        model.answer(data)  # raises what the error means
    return event


class _Whole:
    """What all events together say, in the form of an answer that came at once."""

    def __init__(self) -> None:
        self.nothing = True
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> str:
        """The text that this event adds."""
        self.nothing = False
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        if not isinstance(choice, dict):
            return ""
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if isinstance(delta.get("refusal"), str):
            self._refusals.append(delta["refusal"])
        text = delta.get("content")
        if not isinstance(text, str):
            return ""
        self._texts.append(text)
        return text

    def answer(self, model: OpenAIChat, ended: bool) -> ChatAnswer:
        if not ended and self._finish is None:
            message = f"{model.host} ended its stream in the middle of the answer"
            raise ChatFault("answer", "cut-body", message, raw="".join(self._texts))
        message: dict[str, Any] = {"content": "".join(self._texts) or None}
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        choice = {"message": message, "finish_reason": self._finish}
        return model.answer(json.dumps({"choices": [choice], "usage": self._usage}))


class _Thoughts:
    """Holds back what stands between the tags at the beginning of an answer."""

    def __init__(self) -> None:
        self._held = ""
        self._open = True  # whether thoughts may still come

    def feed(self, text: str) -> str:
        if not self._open:
            return text
        self._held += text
        start = self._held.lstrip()
        if OPEN.startswith(start[: len(OPEN)]):  # thinks, or may be about to
            _, closed, answer = start.partition(CLOSE)
            if not closed or not answer.strip():
                return ""
            self._held = answer
        self._open = False
        text, self._held = self._held.lstrip(), ""
        return text

    def rest(self) -> str:
        """What is left when all has come: thoughts without an end are no answer."""
        start = self._held.lstrip()
        return "" if start.startswith(OPEN) else start
