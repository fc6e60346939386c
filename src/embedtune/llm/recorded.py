"""The wrapper every stage talks to: store first, then retries, one rate limit, a budget.

An answer is committed to the store before anybody looks at it, so a crash, a full disk or an
impatient user never loses one that was paid for. All workers share one limiter: when the
service asks for patience, they wait together and come back fewer.
"""

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from embedtune.endpoint import backoff
from embedtune.errors import Interrupted
from embedtune.llm import ChatAnswer, ChatFault, ChatModel, ChatRequest, load_chat
from embedtune.llm.limiter import Limiter, Run, Stopped
from embedtune.records import Progress, no_progress
from embedtune.settings import PositiveInt, Settings
from embedtune.store import Store, StoredAnswer, canonical, content_key

logger = logging.getLogger(__name__)

PositiveFloat = Annotated[float, Field(gt=0)]

MORE_ROOM = 4  # times max_tokens, once, for an answer that was cut off
ANSWER_TRIES = 3  # for a body that is no answer, and for silence: each may have been paid for
HOPELESS = 10  # failed requests in a row, none answered between them, end the run
LATER = "run the same command again later"


class BudgetSettings(Settings):
    """What one data set may cost. Answers taken from the store count, so that the same command
    stops at the same place until the limit is raised."""

    usd: PositiveFloat | None = Field(
        None, description="Most money to spend, in US dollars; needs llm.price"
    )
    tokens: PositiveInt | None = Field(None, description="Most tokens, input and output together")
    requests: PositiveInt | None = Field(None, description="Most answers to ask for")


class PriceSettings(Settings):
    """Price of the model, in US dollars per million tokens."""

    input: float = Field(ge=0, description="US dollars per million input tokens")
    output: float = Field(ge=0, description="US dollars per million output tokens")


class LLMSettings(Settings):
    """The language model that writes and judges queries."""

    provider: str = Field("openai", description="openai (any compatible address) or scripted")
    model: str | None = Field(None, description="Model name; else LLM_MODEL")
    base_url: str | None = Field(
        None, description="Address up to the version part; else OPENAI_BASE_URL, OPENAI_API_BASE"
    )
    api_key_env: str = Field(
        "auto",
        description="Environment variable that holds the key, or none; auto takes OPENAI_API_KEY, "
        "or GEMINI_API_KEY when only that is set",
    )
    answers: Path | None = Field(None, description="scripted: JSONL file of recorded answers")
    concurrency: PositiveInt = Field(16, description="Requests in flight at most")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature")
    max_tokens: PositiveInt = Field(2048, description="Tokens an answer may have")
    timeout: PositiveFloat = Field(120, description="Seconds an answer may take in all")
    retries: int = Field(
        6, ge=0, description="Further tries after a failure, and pauses in a row for a rate limit"
    )
    backoff: PositiveFloat = Field(
        1.0, description="Seconds before the first further try; doubles each time"
    )
    max_wait: PositiveFloat = Field(
        600, description="Seconds; stop rather than wait longer when the service asks for it"
    )
    budget: BudgetSettings = Field(BudgetSettings(), description="Spending limits")
    price: PriceSettings | None = Field(None, description="Price of the model, to know the cost")


def open_chat(settings: LLMSettings) -> ChatModel:
    """The chat model these settings describe, without the store around it."""
    options: dict[str, Any] = {
        "openai": {
            "model": settings.model,
            "base_url": settings.base_url,
            "api_key_env": settings.api_key_env,
            "timeout": settings.timeout,
        },
        "scripted": {"answers": settings.answers},
    }
    return load_chat(settings.provider, **options.get(settings.provider, {}))


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked so far. Tokens and cost are None as soon as one answer does not tell."""

    new: int = 0  # answers asked for and stored
    reused: int = 0  # answers taken from the store
    failed: int = 0  # requests that ended without a usable answer
    retries: int = 0
    waits: int = 0  # pauses of all workers for a rate limit
    input_tokens: int | None = 0  # new answers only, like the cost
    output_tokens: int | None = 0
    usd: float | None = None

    def line(self) -> str:
        """One line for people."""
        tokens = "tokens unknown"
        if self.input_tokens is not None and self.output_tokens is not None:
            tokens = f"{self.input_tokens:,} + {self.output_tokens:,} tokens"
        cost = "cost unknown" if self.usd is None else f"{self.usd:.4f} USD"
        return (
            f"{self.reused} answers reused, {self.new} new ({tokens}, {cost}), {self.failed} "
            f"failed, {self.retries} retries, {self.waits} waits for the rate limit"
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The last answer to a request; ``code`` is empty when it is usable, else says why not."""

    answer: ChatAnswer | None
    code: str = ""
    message: str = ""


# Why an answer is unusable, as "code" or "code: message"; "" when it is fine.
Check = Callable[[ChatRequest, ChatAnswer], str]


def accept(request: ChatRequest, answer: ChatAnswer) -> str:
    """The default ``Check``: every whole answer is usable."""
    return ""


class RecordedChat:
    """A chat model with a memory.

    Args:
        model: Asked for what the store does not hold.
        store: Holds every answer under the hash of its request, for ever.
    """

    def __init__(self, model: ChatModel, store: Store, settings: LLMSettings) -> None:
        self.model = model
        self.name = model.name
        self.settings = settings
        self._store = store
        self._used: set[str] = set()  # keys of the answers this data set rests on
        self._spent = _Tally()  # all of those
        self._bought = _Tally()  # those that were not in the store
        self._failed = self._retries = self._waits = 0
        self._limiter = Limiter(settings.concurrency, settings.backoff)

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, e.g. that a money limit cannot hold without a price."""
        notes = tuple(getattr(self.model, "notes", ()))
        if self.settings.budget.usd is not None and self.settings.price is None:
            notes += (
                "llm.budget.usd cannot stop anything: give llm.price (US dollars per million "
                "tokens, input and output)",
            )
        return notes

    @property
    def usage(self) -> Usage:
        bought = self._bought
        return Usage(
            new=bought.answers,
            reused=self._spent.answers - bought.answers,
            failed=self._failed,
            retries=self._retries,
            waits=self._waits,
            input_tokens=bought.input if bought.known else None,
            output_tokens=bought.output if bought.known else None,
            usd=self._cost(bought) if bought.known else None,
        )

    def ask_all(
        self,
        requests: Sequence[ChatRequest],
        check: Check = accept,
        progress: Progress = no_progress,
    ) -> list[Reply]:
        """`ask_many` for callers without an event loop. Ctrl-C lets those in flight finish."""
        result: list[Reply] = []

        async def main() -> None:
            try:
                result.extend(await self.ask_many(requests, check, progress))
            finally:
                await self.model.close()

        _run(main)
        return result

    async def ask_many(
        self,
        requests: Sequence[ChatRequest],
        check: Check = accept,
        progress: Progress = no_progress,
    ) -> list[Reply]:
        """One reply a request, in the order of the requests; equal requests are asked once.

        An unusable answer is asked for once more (``attempt=1``), a cut one with more room.

        Raises:
            ServiceError: The service failed, refused the key or the model, or the budget is
                used up. Everything answered so far is stored; the same call goes on from there.
            Interrupted: Ctrl-C. Once: answers in flight were waited for. Twice: they were not.
        """
        places: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(self._key(request), []).append(index)
        replies: dict[str, Reply] = {}
        done = 0

        def settle(key: str, reply: Reply) -> None:
            nonlocal done
            replies[key] = reply
            self._failed += bool(reply.code)
            done += len(places[key])
            progress(done, len(requests))

        waiting: deque[tuple[str, ChatRequest]] = deque()
        for key, indices in places.items():
            request = requests[indices[0]]
            reply = self._from_store(request, check)
            if reply is None:
                waiting.append((key, request))
            else:
                settle(key, reply)
        if waiting:
            await self._ask_waiting(waiting, check, settle)
        by_index = {index: key for key, indices in places.items() for index in indices}
        return [replies[by_index[index]] for index in range(len(requests))]

    # ---- one run of workers

    async def _ask_waiting(
        self,
        waiting: deque[tuple[str, ChatRequest]],
        check: Check,
        settle: Callable[[str, Reply], None],
    ) -> None:
        run = Run(self._limiter)
        total = len(waiting)

        async def worker() -> None:
            while waiting and run.reason is None:
                key, request = waiting.popleft()
                try:
                    settle(key, await self._settled(run, request, check))
                except Stopped:
                    return
                except Exception as error:  # a full disk, a bug: the others must not go on paying
                    run.halt(error)
                    return

        workers = [
            asyncio.ensure_future(worker())
            for _ in range(min(self.settings.concurrency, len(waiting)))
        ]

        def interrupt() -> None:
            if run.reason is not None:
                for task in workers:
                    task.cancel()
            else:
                logger.warning(
                    "stopping: waiting for %d answers in flight; Ctrl-C again stops at once",
                    self._limiter.active,
                )
                run.halt(Interrupted("interrupted; answers are stored, the same command goes on"))

        with _on_interrupt(interrupt):
            try:
                results = await asyncio.gather(*workers, return_exceptions=True)
            except asyncio.CancelledError:
                for task in workers:
                    task.cancel()
                raise
        if run.reason is not None:
            logger.info("stopped with %d of %d requests answered", total - len(waiting), total)
            raise run.reason
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _from_store(self, request: ChatRequest, check: Check) -> Reply | None:
        """The reply if the store holds every answer that it takes, else None."""
        found = []
        for _ in range(2):
            key = self._key(request)
            stored = self._store.answer(key)
            if stored is None:
                return None
            found.append((key, stored))
            answer = _as_answer(stored)
            code, message, again = _verdict(request, answer, check)
            if not again:
                break
            request = _again(request, answer)
        for key, stored in found:
            self._count(key, stored)
        return Reply(answer, code, message)

    async def _settled(self, run: Run, request: ChatRequest, check: Check) -> Reply:
        for _ in range(2):
            key = self._key(request)
            stored = self._store.answer(key)
            bought = stored is None
            if stored is None:
                found = await self._ask(run, key, request)
                if isinstance(found, Reply):
                    return found
                stored = found
            self._count(key, stored, bought=bought)
            answer = _as_answer(stored)
            code, message, again = _verdict(request, answer, check)
            if not again:
                break
            request = _again(request, answer)
        return Reply(answer, code, message)

    async def _ask(self, run: Run, key: str, request: ChatRequest) -> StoredAnswer | Reply:
        """Ask until an answer is stored, or the tries are used up."""
        limiter = self._limiter
        answered_before = limiter.answered
        tries: dict[str, int] = {}
        while True:
            epoch = await run.enter()
            try:
                self._check_budget(run)
                try:
                    async with asyncio.timeout(self.settings.timeout):
                        answer = await self.model.ask(request)
                except TimeoutError:
                    fault = ChatFault(
                        "answer", "timeout", f"no whole answer within {self.settings.timeout:g} s"
                    )
                except ChatFault as raised:
                    fault = raised
                    # before this place is free for the next
                    self._wait_if_asked(run, epoch, fault)
                else:
                    limiter.succeeded()
                    stored = StoredAnswer(
                        self.name, canonical(self._content(request)), answer.text, answer.finish,
                        answer.input_tokens, answer.output_tokens, answer.raw)  # fmt: skip
                    await _on_disk(self._store.put_answer(key, stored))
                    return stored
            finally:
                limiter.leave()
            await _on_disk(self._store.put_fault(key, fault.code, fault.message, fault.raw))
            logger.debug("%s: %s", fault.code, fault.message)
            if fault.kind == "stop":
                run.fail(fault.message)
            if fault.kind in ("request", "stop"):
                return self._given_up(run, fault)
            tries[fault.kind] = tries.get(fault.kind, 0) + 1
            if fault.kind != "wait" and tries[fault.kind] >= self._tries(fault):
                silent = fault.kind == "service" or fault.code == "timeout"
                if silent and limiter.answered == answered_before:
                    run.fail(
                        f"{fault.message}; still so after {tries[fault.kind]} tries, and no other "
                        f"request was answered meanwhile; {LATER}"
                    )
                return self._given_up(run, fault)
            self._retries += 1
            if fault.kind != "wait":
                await run.sleep(backoff(self.settings.backoff, tries[fault.kind]))

    def _wait_if_asked(self, run: Run, epoch: int, fault: ChatFault) -> None:
        limiter = self._limiter
        asked = fault.kind == "wait" or (fault.kind == "service" and fault.retry_after is not None)
        if not asked or not limiter.pause(epoch, fault.retry_after):
            return
        self._waits += 1
        if limiter.wait > self.settings.max_wait:
            run.fail(
                f"{fault.message}; it asks to wait {limiter.wait:,.0f} s, more than llm.max_wait; "
                f"{LATER}"
            )
        elif limiter.pauses > self.settings.retries:
            run.fail(
                f"{fault.message}; still so after {self.settings.retries} pauses in a row; "
                f"{LATER}, perhaps with a lower llm.concurrency"
            )

    def _tries(self, fault: ChatFault) -> int:
        return self.settings.retries + 1 if fault.kind == "service" else ANSWER_TRIES

    def _given_up(self, run: Run, fault: ChatFault) -> Reply:
        run.failures = run.failures + 1 if self._limiter.answered == run.answered else 1
        run.answered = self._limiter.answered
        if run.failures >= HOPELESS:
            run.fail(
                f"{fault.message}; {run.failures} requests in a row failed and none was answered; "
                "see the faults in the answer store"
            )
        return Reply(None, fault.code, fault.message)

    def _check_budget(self, run: Run) -> None:
        budget = self.settings.budget
        spent = {
            "requests": (self._spent.answers, budget.requests),
            "tokens": (self._spent.input + self._spent.output, budget.tokens),
            "usd": (self._cost(self._spent) or 0.0, budget.usd),
        }
        for name, (value, limit) in spent.items():
            if limit is not None and value >= limit:
                shown = f"{value:.4f}" if name == "usd" else f"{value:,}"
                run.fail(
                    f"budget used up: {shown} of {limit:,} {name}; answers so far are stored, "
                    f"raise llm.budget.{name} and run the same command again"
                )
                raise Stopped

    def _count(self, key: str, stored: StoredAnswer, *, bought: bool = False) -> None:
        if key not in self._used:
            self._used.add(key)
            self._spent.add(stored)
            if bought:
                self._bought.add(stored)

    def _cost(self, tally: "_Tally") -> float | None:
        """US dollars of what is told about ``tally``; None without a price."""
        price = self.settings.price
        if price is None:
            return None
        return (tally.input * price.input + tally.output * price.output) / 1_000_000

    def _content(self, request: ChatRequest) -> Mapping[str, Any]:
        return {
            "model": self.name,
            "system": request.system,
            "user": request.user,
            "schema": request.schema,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "attempt": request.attempt,
        }

    def _key(self, request: ChatRequest) -> str:
        return content_key(self._content(request))


class _Tally:
    """Sums over answers; ``known`` as long as every answer told its tokens."""

    def __init__(self) -> None:
        self.answers = self.input = self.output = 0
        self.known = True

    def add(self, stored: StoredAnswer) -> None:
        self.answers += 1
        self.input += stored.input_tokens or 0
        self.output += stored.output_tokens or 0
        self.known &= stored.input_tokens is not None and stored.output_tokens is not None


# ---- small parts


def _verdict(request: ChatRequest, answer: ChatAnswer, check: Check) -> tuple[str, str, bool]:
    """(code, message, whether asking again may help) of an answer."""
    if answer.finish == "length":
        return "cut", f"the answer was cut off at {request.max_tokens:,} tokens", True
    if answer.finish in ("content_filter", "refusal"):
        return answer.finish.replace("_", "-"), "the model declined to answer", False
    code, _, message = check(request, answer).partition(": ")
    return code, message, bool(code)


def _again(request: ChatRequest, answer: ChatAnswer) -> ChatRequest:
    room = MORE_ROOM if answer.finish == "length" else 1
    return replace(request, attempt=1, max_tokens=request.max_tokens * room)


def _as_answer(stored: StoredAnswer) -> ChatAnswer:
    return ChatAnswer(
        stored.text, stored.finish, stored.input_tokens, stored.output_tokens, stored.raw
    )


async def _on_disk(future: Future[None]) -> None:
    # shielded: a second Ctrl-C must not cancel a write that is on its way
    await asyncio.shield(asyncio.wrap_future(future))


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in a new event loop; in another thread where this one has a loop (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(main())
        return
    errors: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="embedtune-chat")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@contextmanager
def _on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` in the event loop on SIGINT, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    # not loop.add_signal_handler: Windows has none
    signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(action))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
