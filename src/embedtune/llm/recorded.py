"""The wrapper every stage talks to: store first, then retries, one rate limit, a budget.

An answer is committed to the store before anybody looks at it, so a crash, a full disk or an
impatient user never loses one that was paid for. All workers share one limiter: when the
service asks for patience, they wait together and come back fewer.
"""

import asyncio
import hashlib
import logging
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from embedtune.endpoint import backoff
from embedtune.errors import Interrupted
from embedtune.llm import ChatAnswer, ChatFault, ChatModel, ChatRequest
from embedtune.llm.budget import Budget, Cost
from embedtune.llm.limiter import HOPELESS, Limiter, Run, Stopped
from embedtune.llm.prices import price_of
from embedtune.llm.settings import LLMSettings, open_chat
from embedtune.records import Progress, no_progress
from embedtune.store import Store, StoredAnswer, canonical

if TYPE_CHECKING:
    from embedtune.llm.batch import Batches
    from embedtune.llm.openai import OpenAIChat

__all__ = ["Check", "LLMSettings", "RecordedChat", "Reply", "Usage", "accept", "open_chat"]

logger = logging.getLogger(__name__)

MORE_ROOM = 4  # times max_tokens, once, for an answer that was cut off
ANSWER_TRIES = 3  # for a body that is no answer, and for silence: each may have been paid for
BATCH_TRIES = 2  # batches that a request goes into, should the first not answer it
NOBODY_THERE = ("refused", "name")  # codes of a service that is away
LATER = "run the same command again later"


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


# Takes in the reply to the question of that key.
Settle = Callable[[str, Reply], None]


def accept(request: ChatRequest, answer: ChatAnswer) -> str:
    """The default ``Check``: every whole answer is usable."""
    return ""


@dataclass(frozen=True, slots=True)
class _Question:
    """A request and the key its answer is stored under."""

    key: str
    content: str  # canonical JSON of what is asked
    request: ChatRequest


class RecordedChat:
    """A chat model with a memory.

    Args:
        model: Asked for what the store does not hold.
        store: Holds every answer under the hash of its request, for ever.

    Raises:
        ConfigError: ``settings.prices`` cannot be read.
    """

    def __init__(self, model: ChatModel, store: Store, settings: LLMSettings) -> None:
        self.model = model
        self.name = model.name
        self.settings = settings
        self._store = store
        self._price = price_of(settings)
        self._budget = Budget(settings.budget, self._price)
        self._used: set[str] = set()  # keys of the answers this data set rests on
        self._failed = self._retries = self._waits = 0
        self._limiter = Limiter(settings.concurrency, settings.backoff)

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, e.g. that a money limit cannot hold without a price."""
        notes = tuple(getattr(self.model, "notes", ()))
        budget, price, untold = self.settings.budget, self._price, self._budget.spent.untold
        if budget.usd is not None and price is None:
            notes += (
                "llm.budget.usd cannot stop anything: no price is known for the model; give "
                "llm.price (US dollars per million tokens, input and output)",
            )
        if price is not None and price.origin:
            notes += (
                f"price: {price.input:g} + {price.output:g} US dollars per million tokens, input "
                f"and output ({price.origin}); llm.price overrides it",
            )
        if untold and (budget.usd is not None or budget.tokens is not None):
            notes += (f"llm.budget: {untold} answers did not tell their tokens and count as free",)
        return notes

    @property
    def usage(self) -> Usage:
        bought = self._budget.bought
        return Usage(
            new=bought.answers,
            reused=self._budget.spent.answers - bought.answers,
            failed=self._failed,
            retries=self._retries,
            waits=self._waits,
            input_tokens=None if bought.untold else bought.input,
            output_tokens=None if bought.untold else bought.output,
            usd=None if bought.untold or self._price is None else bought.usd,
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
        questions = [self._question(request) for request in requests]
        times = Counter(question.key for question in questions)
        replies: dict[str, Reply] = {}
        done = shown = 0

        def settle(key: str, reply: Reply) -> None:
            nonlocal done
            replies[key] = reply
            self._failed += bool(reply.code)
            done += times[key]
            show()

        def show(on_their_way: int = 0) -> None:
            nonlocal shown
            shown = max(shown, done + on_their_way)
            progress(shown, len(requests))

        waiting: dict[str, _Question] = {}  # what is due next, by the key of the first question
        for question in {question.key: question for question in questions}.values():
            step = self._follow(question, check)
            if isinstance(step, Reply):
                settle(question.key, step)
            else:
                waiting[question.key] = step
        if waiting and self.settings.mode == "batch":
            await self._ask_in_batches(waiting, check, settle, show)
        elif waiting:
            self._warn_of_batches(waiting.values())
            await self._ask_live(waiting, check, settle, len(times))
        return [replies[question.key] for question in questions]

    # ---- from question to reply

    def _question(self, request: ChatRequest) -> _Question:
        content = canonical(
            {
                "model": self.name,
                "system": request.system,
                "user": request.user,
                "schema": request.schema,
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
                "attempt": request.attempt,
            }
        )
        return _Question(hashlib.sha256(content.encode()).hexdigest(), content, request)

    def _follow(
        self, question: _Question, check: Check, stored: StoredAnswer | None = None
    ) -> Reply | _Question:
        """The reply that the stored answers make, or what has to be asked to come to one.

        ``stored`` is the answer to ``question`` where the caller has it.
        """
        while True:
            stored = stored or self._store.answer(question.key)
            if stored is None:
                return question
            self._count(question.key, stored)
            answer = _as_answer(stored)
            code, message, again = _verdict(question.request, answer, check)
            if not again or question.request.attempt:
                return Reply(answer, code, message)
            question, stored = self._question(_again(question.request, answer)), None

    def _kept(self, question: _Question, answer: ChatAnswer, batch: str = "") -> StoredAnswer:
        return StoredAnswer(
            self.name, question.content, answer.text, answer.finish,
            answer.input_tokens, answer.output_tokens, answer.raw, batch)  # fmt: skip

    def _count(self, key: str, stored: StoredAnswer, *, bought: bool = False) -> None:
        if key not in self._used:
            self._used.add(key)
            self._budget.spent.add(stored, self._price)
            if bought:
                self._budget.bought.add(stored, self._price)

    def _admitted(self, cost: Cost) -> str:
        """Set ``cost`` aside; or why the budget forbids it."""
        limit = self._budget.reserve(cost)
        return self._budget.used_up(limit, cost) if limit else ""

    # ---- one answer at a time

    async def _ask_live(
        self, waiting: Mapping[str, _Question], check: Check, settle: Settle, total: int
    ) -> None:
        """Let workers share the questions, of ``total`` in all, until all are settled."""
        run = Run(self._limiter, total, len(waiting))
        left = deque(waiting.items())

        async def worker() -> None:
            while left and run.reason is None:
                key, question = left.popleft()
                try:
                    settle(key, await self._settled(run, question, check))
                    run.left -= 1
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
            logger.info(
                "stopped with %d of %d requests answered", len(waiting) - len(left), len(waiting)
            )
            raise run.reason
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _settled(self, run: Run, question: _Question, check: Check) -> Reply:
        while True:
            found = await self._ask(run, question)
            if isinstance(found, Reply):
                return found
            step = self._follow(question, check, found)
            if isinstance(step, Reply):
                return step
            question = step

    async def _ask(self, run: Run, question: _Question) -> StoredAnswer | Reply:
        """Ask until an answer is stored, or the tries are used up."""
        limiter = self._limiter
        answered_before = limiter.answered
        cost = self._budget.most(question.request)
        seconds = None if getattr(self.model, "unhurried", False) else self.settings.timeout
        tries: dict[str, int] = {}
        while True:
            epoch = await run.enter(lambda: self._admitted(cost))
            try:
                try:
                    async with asyncio.timeout(seconds):
                        answer = await self.model.ask(question.request)
                except TimeoutError:
                    fault = ChatFault("answer", "timeout", f"no whole answer within {seconds:g} s")
                except ChatFault as raised:
                    fault = raised
                    # before this place is free for the next
                    self._wait_if_asked(run, epoch, fault)
                else:
                    limiter.succeeded()
                    stored = self._kept(question, answer)
                    await _on_disk(self._store.put_answer(question.key, stored))
                    self._count(question.key, stored, bought=True)
                    return stored
            finally:
                self._budget.release(cost)
                limiter.leave()
            await _on_disk(
                self._store.put_fault(question.key, fault.code, fault.message, fault.raw)
            )
            logger.debug("%s: %s", fault.code, fault.message)
            if fault.kind == "stop":
                run.fail(fault.message)
            if fault.kind in ("request", "stop"):
                return self._given_up(run, fault, answered_before)
            tries[fault.kind] = tries.get(fault.kind, 0) + 1
            if fault.kind != "wait" and tries[fault.kind] >= self._tries(fault):
                silent = fault.kind == "service" or fault.code == "timeout"
                # a few last requests may be at fault themselves, but not where nobody listens
                telling = not run.ending or fault.code in NOBODY_THERE
                if silent and telling and await run.silence(answered_before):
                    run.fail(
                        f"{fault.message}; still so after {tries[fault.kind]} tries, and no other "
                        f"request was answered meanwhile; {LATER}"
                    )
                return self._given_up(run, fault, answered_before)
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

    def _given_up(self, run: Run, fault: ChatFault, answered_before: int) -> Reply:
        """``answered_before`` requests were, when this one was asked for the first time."""
        run.failures = run.failures + 1 if self._limiter.answered == answered_before else 0
        if run.failures >= HOPELESS:
            run.fail(
                f"{fault.message}; {run.failures} requests in a row failed and none was answered; "
                "see the faults in the answer store"
            )
        return Reply(None, fault.code, fault.message)

    # ---- in batches

    async def _ask_in_batches(
        self,
        waiting: dict[str, _Question],
        check: Check,
        settle: Settle,
        advance: Callable[[int], None],
    ) -> None:
        """As `_ask_live`, but through the Batch API."""
        from embedtune.llm.batch import Batches

        run = Run(self._limiter)
        by_key = {question.key: question for question in waiting.values()}

        def keep(key: str, answer: ChatAnswer, batch: str) -> Future[None]:
            """``by_key`` has not the requests of a batch that only in part is asked for now."""
            unknown = canonical({"model": self.name, "batch": batch})
            question = by_key.get(key) or _Question(key, unknown, ChatRequest("", ""))
            stored = self._kept(question, answer, batch)
            self._limiter.succeeded()
            if key in by_key:
                self._count(key, stored, bought=True)
            return self._store.put_answer(key, stored)

        # open_chat lets no other provider use batches
        model = cast("OpenAIChat", self.model)
        batches = Batches(model, self._store, self.settings, run, keep, advance)
        work = asyncio.ensure_future(
            self._work_in_batches(run, batches, waiting, by_key, check, settle)
        )

        def interrupt() -> None:
            if run.reason is not None:
                work.cancel()
            run.halt(Interrupted(f"interrupted{batches.left()}; the same command goes on"))

        try:
            with _on_interrupt(interrupt):
                await work
        except (Stopped, asyncio.CancelledError):
            work.cancel()
            if run.reason is None:
                raise
            raise run.reason from None

    async def _work_in_batches(
        self,
        run: Run,
        batches: "Batches",
        waiting: dict[str, _Question],
        by_key: dict[str, _Question],
        check: Check,
        settle: Settle,
    ) -> None:
        """Round by round: a batch of all that is due, then what its answers make necessary."""
        tries: Counter[str] = Counter()
        known = False  # whether key, model and form of the requests were seen to be right
        answered_before = self._limiter.answered
        faults = await batches.finish({question.key for question in waiting.values()})
        while True:
            for key, question in list(waiting.items()):
                step = self._follow(question, check)
                if isinstance(step, _Question) and (fault := faults.get(step.key)) is not None:
                    tries[step.key] += 1
                    if fault.kind == "request" or tries[step.key] >= BATCH_TRIES:
                        step = self._given_up(run, fault, answered_before)
                    else:
                        self._retries += 1
                if isinstance(step, Reply):
                    settle(key, step)
                    del waiting[key]
                else:
                    waiting[key] = by_key[step.key] = step
            if run.reason is not None:
                raise run.reason
            if not waiting:
                return
            if not known:
                # a day is too long to learn that the key is wrong
                key = next(iter(waiting))
                await self._ask_live({key: waiting.pop(key)}, check, settle, 1)
                known, faults = True, {}
                continue
            due, costs, refusal = {}, [], ""
            for question in waiting.values():
                cost = self._budget.most(question.request, batch=True)
                if reason := self._admitted(cost):
                    refusal = refusal or reason
                else:
                    due[question.key] = question.request
                    costs.append(cost)
            if not due:
                run.fail(refusal)
                raise Stopped
            answered_before = self._limiter.answered
            try:
                faults = await batches.buy(due)
            finally:
                for cost in costs:
                    self._budget.release(cost)

    def _warn_of_batches(self, waiting: Iterable[_Question]) -> None:
        host = getattr(self.model, "host", None)
        if host is None:
            return
        keys = {question.key for question in waiting}
        for batch in self._store.open_batches(self.name, host):
            if batch.id and keys.intersection(batch.keys):
                logger.warning(
                    "%s holds %d of these requests, which are now paid for once more; "
                    "llm.mode: batch would collect them",
                    batch.id,
                    len(keys.intersection(batch.keys)),
                )


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
        running = True
    except RuntimeError:
        running = False
    if not running:  # not in the handler above: its exception would be the context of all others
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
