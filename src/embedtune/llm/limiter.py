"""One rate limit for all workers: how many requests are in flight, and when all of them pause."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from embedtune.endpoint import backoff
from embedtune.errors import ServiceError

HOPELESS = 10  # failed requests in a row, none answered between them, end the run


class Stopped(Exception):
    """No new requests: the reason is in the run."""


class Limiter:
    """How many requests may be in flight, and from when on; shared by all workers.

    A rate limit closes it for everybody and halves the window (at least one); each answer
    widens it again, a window's worth of answers by one place.
    """

    def __init__(self, concurrency: int, first_wait: float) -> None:
        self._most = concurrency
        self._first_wait = first_wait  # seconds
        self.window = float(concurrency)
        self.active = 0
        self.answered = 0
        self.opens = 0.0  # time of the event loop
        self.epoch = 0  # number of pauses so far
        self.pauses = 0  # in a row, no answer between them
        self.wait = 0.0  # length of the last pause
        self.changed = asyncio.Event()

    def succeeded(self) -> None:
        self.answered += 1
        self.pauses = 0
        self.window = min(self._most, self.window + 1 / self.window)

    def leave(self) -> None:
        self.active -= 1
        self.announce()

    def pause(self, epoch: int, seconds: float | None) -> bool:
        """Close for ``seconds`` or, untold, exponentially longer each time.

        Requests sent before the last pause do not pause again; they may make it longer. Returns
        whether this was a new pause.
        """
        now = asyncio.get_running_loop().time()
        new = epoch == self.epoch
        if new:
            self.epoch += 1
            self.pauses += 1
            self.window = max(1.0, self.window / 2)
            self.wait = max(seconds or 0.0, backoff(self._first_wait, self.pauses))
        elif seconds is not None and now + seconds > self.opens:
            self.wait = seconds
        else:
            return False
        self.opens = max(self.opens, now + self.wait)
        return new

    def announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Run:
    """One call of `ask_many`: its reason to stop, and the ways to wait that end with it.

    ``left`` requests of ``total`` are not settled yet.
    """

    def __init__(self, limiter: Limiter, total: int = 1, left: int = 1) -> None:
        self._limiter = limiter
        self.total = total
        self.left = left
        self.reason: Exception | None = None
        self.failures = 0  # in a row
        self._stopping = asyncio.Event()
        limiter.changed = asyncio.Event()  # an event belongs to one event loop

    @property
    def ending(self) -> bool:
        """Whether so few are left, of many, that silence says more of them than of the service:
        a run must come to its end though one request of a thousand never works."""
        return self.total > 1 and self.left <= min(HOPELESS - 1, max(1, self.total // 10))

    def halt(self, reason: Exception) -> None:
        """No new requests from now on; the first reason stays."""
        if self.reason is None:
            self.reason = reason
        self._stopping.set()
        self._limiter.announce()

    def fail(self, message: str) -> None:
        self.halt(ServiceError(message))

    async def enter(self, admitted: Callable[[], str]) -> int:
        """Wait for a place in the window; the number says which pause the request follows.

        ``admitted`` is asked last: a reason why the request may not go out now, which ends the
        run unless something on its way may still change that.
        """
        limiter = self._limiter
        while True:
            if self.reason is not None:
                raise Stopped
            pause = limiter.opens - asyncio.get_running_loop().time()
            if pause > 0:
                await self.sleep(pause + random.random() * min(1.0, limiter.wait / 4))
            elif limiter.active >= max(1, int(limiter.window)):
                await limiter.changed.wait()
            elif not (reason := admitted()):
                limiter.active += 1
                return limiter.epoch
            elif limiter.active:
                await limiter.changed.wait()
            else:
                self.fail(reason)

    async def silence(self, answered: int) -> bool:
        """Whether no more than ``answered`` requests were; waits for those that may yet be."""
        limiter = self._limiter
        while limiter.answered == answered and limiter.active and self.reason is None:
            await limiter.changed.wait()
        return limiter.answered == answered

    async def sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
