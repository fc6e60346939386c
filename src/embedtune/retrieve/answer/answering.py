"""From a question to an answer: search, a second look, a language model, checked citations."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from embedtune.errors import ConfigError
from embedtune.llm import ChatAnswer, ChatFault, ChatModel, ChatRequest
from embedtune.llm.stream import stream
from embedtune.retrieve.answer import Answer, Passage, Reason, Status
from embedtune.retrieve.answer.citations import CitationFilter, citations_in
from embedtune.retrieve.answer.passages import choose_passages
from embedtune.retrieve.answer.prompts import answer_prompt, wording
from embedtune.retrieve.answer.quoting import best_quotes, quoted
from embedtune.retrieve.index import Index
from embedtune.retrieve.rerank import Reranker
from embedtune.retrieve.stores import How
from embedtune.settings import PositiveInt, Settings

DECLINED = ("content_filter", "refusal")


class AnswerSettings(Settings):
    """How questions are answered."""

    k: PositiveInt = Field(6, description="Passages shown to the language model at most")
    how: How | Literal["auto"] = Field(
        "auto", description="How passages are searched; auto: as the index says"
    )
    context_tokens: PositiveInt = Field(
        4000, description="Tokens that the passages may take together, about"
    )
    min_score: float | None = Field(
        None,
        description="Least vector score of the best passage; below it no model is asked",
    )
    max_tokens: PositiveInt = Field(2048, description="Tokens an answer may have")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature")
    timeout: float = Field(120, gt=0, description="Seconds an answer may take in all")
    tries: PositiveInt = Field(1, description="Tries before the first word of an answer came")


@dataclass(frozen=True, slots=True)
class Question:
    """``earlier``: what was asked before, where this builds on it; it takes part in the search.
    ``wishes``: of the calling program, about form and tone. The rest is over the settings."""

    text: str
    earlier: str = ""
    wishes: str = ""
    max_tokens: int | None = None
    temperature: float | None = None

    @property
    def searched(self) -> str:
        return f"{self.earlier}\n{self.text}".strip()


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages for a question; ``best`` is the vector score of the best, where it was needed."""

    passages: tuple[Passage, ...]
    best: float | None
    weak: bool


class Answerer:
    """Answers questions from an index by a chat model.

    Args:
        chat: None quotes the sentences that answer best, and generates nothing.
        reranker: Orders the first 50 passages anew before the best are taken.
    """

    def __init__(
        self,
        index: Index,
        chat: ChatModel | None,
        settings: AnswerSettings | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.index = index
        self.chat = chat
        self.settings = settings or AnswerSettings()
        self.reranker = reranker

    def retrieve(self, question: Question) -> Retrieved:
        """The passages that a model would be shown. Slow: not for an event loop.

        Raises:
            ConfigError: The question is blank.
        """
        text, settings = question.searched, self.settings
        if not question.text.strip():
            raise ConfigError("the question is empty; ask something")
        spare = 2 * settings.k  # duplicates are left out
        [found] = self.index.search([text], spare, settings.how, reranker=self.reranker)
        best = None
        if settings.min_score is not None and found:
            # scores of a fusion depend on all passages found: no threshold fits them
            [[(_, best)]] = self.index.search([text], 1, "dense")
        weak = best is not None and best < (settings.min_score or 0.0)
        return Retrieved(choose_passages(found, settings.context_tokens, settings.k), best, weak)

    async def stream(
        self, question: Question, retrieved: Retrieved | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Pieces of the answer as they come, and last the ``Answer``, whose text they make up.

        Numbers of passages that do not exist never come out.

        Raises:
            ChatFault: The model did not answer, or not to the end.
            ConfigError: The question is blank.
        """
        if retrieved is None:
            retrieved = await asyncio.to_thread(self.retrieve, question)
        missing = wording(question.text).missing
        reason: Reason = "weak" if retrieved.weak else ""
        if not retrieved.passages:
            reason = "nothing-found"
        if reason:
            yield missing
            yield Answer(
                question.text, missing, "not-in-documents", reason,
                passages=retrieved.passages, best=retrieved.best,
            )  # fmt: skip
            return
        passages, chat = retrieved.passages, self.chat
        if chat is None:
            answer = await asyncio.to_thread(self._quoted, question, retrieved)
            yield answer.text
            yield answer
            return
        checked, texts, begun = CitationFilter(len(passages)), [], ""
        whole = ChatAnswer("")
        async with aclosing(self._asked(chat, question, passages)) as pieces:
            async for piece in pieces:
                if isinstance(piece, ChatAnswer):
                    whole, text = piece, checked.rest()
                else:
                    text = checked.feed(piece)
                if not texts:  # no word yet: what comes may be the token, in quotes say
                    begun = "" if checked.refused else begun + text
                    words = any(map(str.isalnum, begun)) or piece is whole
                    text = begun.lstrip() if words else ""
                if text:
                    texts.append(text)
                    yield text
        text = "".join(texts)
        if not text.strip():
            if whole.finish == "length":
                message = f"no word of an answer came within {whole.output_tokens or 'its'} tokens"
                raise ChatFault("answer", "cut", f"{message}; raise llm.max_tokens")
            text = whole.text if whole.finish in DECLINED else missing
            if text:
                yield text
        citations = tuple(citations_in(text, checked.used, passages))
        status: Status = "answered" if citations else "uncited"
        if not citations and (checked.refused or text == missing):
            status, reason = "not-in-documents", "model"
        yield Answer(
            question.text, text, status, reason, citations, passages, tuple(checked.removed),
            retrieved.best, whole.finish, whole.input_tokens, whole.output_tokens,
        )  # fmt: skip

    def _quoted(self, question: Question, retrieved: Retrieved) -> Answer:
        passages, best = retrieved.passages, retrieved.best
        quotes = best_quotes(question.searched, passages, self.index)
        if not quotes:
            missing = wording(question.text).missing
            return Answer(question.text, missing, "not-in-documents", "nothing-found",
                          passages=passages, best=best)  # fmt: skip
        text, citations = quoted(question.text, quotes)
        return Answer(question.text, text, "quoted", "", citations, passages, best=best,
                      input_tokens=0, output_tokens=0)  # fmt: skip

    def _asked(
        self, chat: ChatModel, question: Question, passages: Sequence[Passage]
    ) -> AsyncGenerator[str | ChatAnswer, None]:
        system, user = answer_prompt(
            question.text, passages, earlier=question.earlier, wishes=question.wishes
        )
        own = self.settings
        request = ChatRequest(
            system,
            user,
            temperature=own.temperature if question.temperature is None else question.temperature,
            max_tokens=min(own.max_tokens, question.max_tokens or own.max_tokens),
        )
        return stream(chat, request, timeout=own.timeout, tries=own.tries)

    async def answer(self, question: Question, retrieved: Retrieved | None = None) -> Answer:
        """As ``stream``, whole."""
        async with aclosing(self.stream(question, retrieved)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    return piece
        raise AssertionError("a stream ends with its answer")
