"""Texts of many clients, embedded together: a bounded queue and one thread a model."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from embedtune.embed import Embedder, Matrix
from embedtune.errors import IntegrityError, ResourceError, ServiceError
from embedtune.records import Role
from embedtune.serving.refusals import Refusal, stopping
from embedtune.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

LARGEST_BATCH = 512  # texts
MEMORY = 0.2  # weight of the newest batch in the measured speed
TELLING = 0.25  # of `batch_tokens`: smaller batches tell nothing of the speed under load


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request. ``answer`` gets their vectors, in their order."""

    texts: Sequence[str]
    role: Role
    tokens: Sequence[int]
    answer: "asyncio.Future[Matrix]"
    taken: int = 0  # texts that went into a batch; the others can still be dropped
    done: int = 0
    dropped: bool = False
    vectors: Matrix | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Texts and tokens that were accepted and have no vector yet."""

    texts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Batch:
    role: Role
    places: list[tuple[Job, int]] = field(default_factory=list)  # job, row in it
    tokens: int = 0
    is_full: bool = False  # more waited


class Batcher:
    """Embeds what is submitted, in batches of up to ``batch_tokens`` tokens of one role.

    Requests take turns text by text, so that a short one does not wait for all of a long one. A
    batch is made as soon as the model is free: under load they grow by themselves, and nobody
    waits for a timer. Equal work for the thread and for the event loop: `submit` and `drop` are
    called in the loop, all else happens in the thread.

    Args:
        on_batch: Called in the thread with texts, tokens and seconds of each batch.
    """

    def __init__(
        self,
        embedder: Embedder,
        settings: ServerSettings,
        on_batch: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
    ) -> None:
        self._embedder = embedder
        self._settings = settings
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._texts = 0
        self._tokens = 0
        self._speed: float | None = None  # tokens a second
        self._expected = 0  # requests that are being prepared
        self._closed = False
        self._refuses = False
        # a daemon: a model that hangs must not keep the process from ending
        self._thread = threading.Thread(target=self._work, name="embedder", daemon=True)
        self._thread.start()

    @property
    def load(self) -> Load:
        return Load(self._texts, self._tokens)

    def check_room(self, texts: int, tokens: int = 0) -> None:
        """Raise a `Refusal` (429) where so much more does not fit; an idle queue takes anything."""
        own, queued = self._settings, self.load
        wait = queued.tokens / self._speed if self._speed else 0.0
        full = (
            queued.texts + texts > own.queue_texts
            or queued.tokens + tokens > own.queue_tokens
            or wait > own.queue_seconds
        )
        if queued.texts and full:
            raise Refusal(
                429,
                f"the queue is full ({queued.texts} texts, {queued.tokens} tokens wait); try again",
                code="queue_full",
                retry_after=min(wait, 60.0),
            )

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """For a request that is being prepared: it may still `submit` after a close that finishes,
        as that of a version which was changed for another meanwhile."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify()

    def submit(self, texts: Sequence[str], role: Role, tokens: Sequence[int]) -> Job:
        """Queue the texts, whose lengths ``tokens`` are. None may be empty.

        Raises:
            Refusal: The queue is full (429), or closed (503).
        """
        with self._changed:
            if self._refuses or (self._closed and not self._expected):
                raise stopping()
            total = sum(tokens)
            self.check_room(len(texts), total)
            job = Job(texts, role, tokens, asyncio.get_running_loop().create_future())
            self._waiting.append(job)
            self._texts += len(texts)
            self._tokens += total
            self._changed.notify()
            return job

    def drop(self, job: Job) -> None:
        """Forget a job whose client has left: what is in no batch yet is never embedded."""
        with self._changed:
            if not job.dropped:
                job.dropped = True
                if job in self._waiting:
                    self._waiting.remove(job)
                    self._release(job, range(job.taken, len(job.texts)))
        job.answer.cancel()

    def close(self, *, finish: bool) -> None:
        """Take nothing more; ``finish`` what was accepted, or refuse it with 503."""
        with self._changed:
            self._closed = True
            self._refuses = self._refuses or not finish
            left = [] if finish else list(self._waiting)
            for job in left:
                self._waiting.remove(job)
                self._release(job, range(job.taken, len(job.texts)))
            self._changed.notify()
        for job in left:
            self._deliver(job, stopping())

    # ---- in the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and (
                    not self._closed or (self._expected and not self._refuses)
                ):
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = self._next_batch()
            begin = time.monotonic()
            self._embed(batch)
            seconds = max(time.monotonic() - begin, 1e-6)
            if batch.is_full or batch.tokens >= TELLING * self._settings.batch_tokens:
                speed = batch.tokens / seconds
                self._speed = speed if self._speed is None else (
                    MEMORY * speed + (1 - MEMORY) * self._speed
                )  # fmt: skip
            self._on_batch(len(batch.places), batch.tokens, seconds)

    def _next_batch(self) -> _Batch:
        """Of the role that has waited longest; at least one text, however long it is. Requests
        that are in it and have more go to the end of the queue."""
        batch = _Batch(self._waiting[0].role)
        turns = deque(job for job in self._waiting if job.role == batch.role)
        while turns and len(batch.places) < LARGEST_BATCH:
            job = turns[0]
            size = job.tokens[job.taken]
            if batch.places and batch.tokens + size > self._settings.batch_tokens:
                break
            turns.popleft()
            batch.places.append((job, job.taken))
            batch.tokens += size
            job.taken += 1
            if job.taken < len(job.texts):
                turns.append(job)
        served = {job for job, _ in batch.places}
        batch.is_full = bool(turns)
        self._waiting = deque(
            [*(job for job in self._waiting if job not in served),
             *(job for job in turns if job in served)]
        )  # fmt: skip
        return batch

    def _embed(self, batch: _Batch) -> None:
        places = sorted(batch.places, key=lambda place: -place[0].tokens[place[1]])
        try:
            self._embed_together(places, batch.role)
        except (ServiceError, ResourceError) as error:
            self._fail({job for job, _ in places}, error)
        except Exception as error:  # whatever a model raises; of one text, perhaps
            jobs = list(dict.fromkeys(job for job, _ in places))
            if len(jobs) == 1:
                logger.debug("a batch failed", exc_info=error)
                self._fail(jobs, error)
                return
            for job in jobs:
                self._embed(_Batch(batch.role, [place for place in places if place[0] is job]))

    def _embed_together(self, places: list[tuple[Job, int]], role: Role) -> None:
        rows = self._embedder.embed([job.texts[row] for job, row in places], role)
        expected = (len(places), self._embedder.dimension)
        if rows.shape != expected:
            raise IntegrityError(f"the model gave vectors of shape {rows.shape}, not {expected}")
        if not np.isfinite(rows).all():
            raise IntegrityError("the model gave a vector that holds NaN or infinite numbers")
        for job, _ in places:
            if job.vectors is None:
                job.vectors = np.empty((len(job.texts), rows.shape[1]), dtype=np.float32)
        finished = []
        with self._changed:
            for vector, (job, row) in zip(rows, places, strict=True):
                job.vectors[row] = vector
                job.done += 1
                self._release(job, (row,))
                if job.done == len(job.texts):
                    finished.append(job)
        for job in finished:
            self._deliver(job, job.vectors)

    def _fail(self, jobs: Sequence[Job] | set[Job], error: Exception) -> None:
        for job in jobs:
            with self._changed:
                # batches take rows in order and end one after the other: these are in this one
                end = job.taken
                if job in self._waiting:
                    self._waiting.remove(job)
                    end = len(job.texts)
                self._release(job, range(job.done, end))
                job.done = end
            self._deliver(job, error)

    def _release(self, job: Job, rows: Sequence[int]) -> None:
        self._texts -= len(rows)
        self._tokens -= sum(job.tokens[row] for row in rows)

    def _deliver(self, job: Job, result: Matrix | Exception | None) -> None:
        def set_answer() -> None:
            if job.answer.done():  # the client left
                return
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            elif result is not None:
                job.answer.set_result(result)

        try:
            job.answer.get_loop().call_soon_threadsafe(set_answer)
        except RuntimeError:  # the loop is closed: nobody waits any more
            logger.debug("an answer came after the server had ended")
