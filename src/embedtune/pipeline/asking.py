"""What ``ask`` needs, opened by name: index, language model, cross-encoder, threshold."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from embedtune.config import RunSettings
from embedtune.embed import is_service
from embedtune.embed.models import located
from embedtune.errors import ConfigError, ServiceError
from embedtune.evaluation.systems import parse_system
from embedtune.files import visible
from embedtune.llm import ChatFault, ChatModel
from embedtune.llm.recorded import open_chat
from embedtune.pipeline.console import Console
from embedtune.pipeline.indexing import advised_score, index_embedder
from embedtune.pipeline.models import vector_store
from embedtune.pipeline.openers import Openers
from embedtune.retrieve.answer import Answer
from embedtune.retrieve.answer.answering import Answerer, AnswerSettings, Question
from embedtune.retrieve.index import Index, prepare, update
from embedtune.retrieve.stores import How, open_store
from embedtune.store import Store

Threshold = float | Literal["auto", "off"]


@contextmanager
def open_answerer(
    place: str,
    settings: RunSettings,
    console: Console,
    *,
    k: int = 6,
    how: How | Literal["auto"] = "auto",
    model: str | None = None,
    rerank: str | None = None,
    min_score: Threshold = "auto",
    no_llm: bool = False,
) -> Iterator[Answerer]:
    """An answerer over the index at ``place`` with the language model of ``settings.llm``.

    Args:
        model: Where the model of the index is now; None: where it was.
        rerank: A cross-encoder's name or folder.
        min_score: "auto" takes the threshold that the index holds, if any.
        no_llm: Ask no language model: answers are sentences of the documents.
    """
    with ExitStack() as held:
        openers = Openers(held.enter_context(Store(vector_store())), console)
        chat = None if no_llm else _chat(settings)  # first: its faults cost nothing
        reranker = openers.reranker(parse_system(f"bm25?rerank={rerank}")) if rerank else None
        if _is_index(place):
            embedder = index_embedder(model, openers, recorded=True) if model else None
            index = held.enter_context(Index.open(place, embedder))
        else:
            raise ConfigError(f"{visible(place)}: holds no index; make one with `embedtune index`")
        yield Answerer(index, chat, _settings(index, settings, k, how, min_score), reranker)


@contextmanager
def open_other(
    other: str, answerer: Answerer, console: Console, *, min_score: Threshold = "auto"
) -> Iterator[Answerer]:
    """A second answerer to compare with: another index, or the same passages by another model.

    Args:
        other: The place of an index, or the name or folder of a model, which then embeds all
            passages of the first index into a folder that is removed afterwards.
    """
    with ExitStack() as held:
        if _is_index(other):
            index = held.enter_context(Index.open(other))
        else:
            openers = Openers(held.enter_context(Store(vector_store())), console)
            embedder = index_embedder(other, openers, recorded=True)
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="embedtune-"))
            store, own = open_store(folder), answerer.index
            prepare(
                store, embedder, source=other, how=own.info.how, weight=own.info.weight,
                min_score=advised_score(located(other)),
            )  # fmt: skip
            report = console.progress(f"passages embedded by {visible(other, 60)}")
            update(store, own.store.all_chunks(), embedder, report)
            store.close()
            index = held.enter_context(Index.open(folder, embedder))
        score = _threshold(index, min_score)
        settings = answerer.settings.model_copy(update={"min_score": score})
        yield Answerer(index, answerer.chat, settings, answerer.reranker)


def _chat(settings: RunSettings) -> ChatModel:
    try:
        return open_chat(settings.llm)
    except ConfigError as error:
        hint = "--no-llm answers in the documents' own words, without a language model"
        raise ConfigError([*error.faults, hint]) from error


def _is_index(place: str) -> bool:
    if is_service(place) or place.partition(":")[0] == "hashing":
        return False
    store = open_store(place)
    try:
        return store.info() is not None
    finally:
        store.close()


def _settings(
    index: Index, settings: RunSettings, k: int, how: Any, min_score: Threshold
) -> AnswerSettings:
    llm = settings.llm
    return AnswerSettings(
        k=k, how=how, min_score=_threshold(index, min_score), max_tokens=llm.max_tokens,
        timeout=llm.timeout, tries=min(3, llm.retries + 1),
    )  # fmt: skip


def _threshold(index: Index, wanted: Threshold) -> float | None:
    if isinstance(wanted, str):
        return index.info.min_score if wanted == "auto" else None
    return wanted


def ask(answerer: Answerer, text: str, piece: Callable[[str], None] | None = None) -> Answer:
    """The answer to one question; ``piece`` gets the text as it comes.

    Raises:
        ServiceError: The language model gave no answer.
    """
    question = Question(text)
    retrieved = answerer.retrieve(question)
    answer: Answer | None = None

    async def main() -> None:
        nonlocal answer
        try:
            async for part in answerer.stream(question, retrieved):
                if isinstance(part, Answer):
                    answer = part
                elif piece is not None:
                    piece(part)
        finally:
            if answerer.chat is not None:
                await answerer.chat.close()

    try:
        asyncio.run(main())
    except ChatFault as fault:
        raise ServiceError(f"the language model gave no answer: {fault.message}") from fault
    assert answer is not None  # a stream ends with its answer
    return answer


@dataclass(frozen=True, slots=True)
class Move:
    """A passage that either index shows; its places among them, from 1, None where it is not."""

    id: str
    text: str
    before: int | None
    after: int | None


def moves(before: Answer, after: Answer) -> list[Move]:
    """What the second index shows, in its order, then what it shows no more."""
    earlier = {own.chunk.id: own.number for own in before.passages}
    later = {own.chunk.id: own.number for own in after.passages}
    texts = {own.chunk.id: own.text for own in (*after.passages, *before.passages)}
    return [Move(id, text, earlier.get(id), later.get(id)) for id, text in texts.items()]
