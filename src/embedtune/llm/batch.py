"""OpenAI's Batch API: half the price, answers within a day.

Requests go up as a file, a batch is made of the file, and its answers lie in files too, in any
order. What a batch is made of is stored before it is sent, and our digest of that is kept beside
the batch by the service. So a process that was killed anywhere finds its batch again: by the
stored id, or among the service's batches by the digest. Only making a batch costs anything.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from embedtune.endpoint import FaultKind, backoff, refused
from embedtune.files import number_in, visible
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest
from embedtune.llm.limiter import Run, Stopped
from embedtune.llm.openai import OpenAIChat
from embedtune.store import Store, StoredBatch, content_key

if TYPE_CHECKING:
    from embedtune.llm.settings import LLMSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Stores an answer; the future is done when it is on disk. Arguments: key, answer, id of the batch.
Keep = Callable[[str, ChatAnswer, str], Future[None]]

MOST_REQUESTS = 50_000  # of a batch
MOST_BYTES = 200_000_000  # of its file
CALLS = "/v1/chat/completions"
DIGEST = "embedtune"  # name under which the service keeps our digest
CLOCKS = 86_400  # seconds that our clock and the service's may differ
PAGE = 100  # batches a listing gives at a time
TOGETHER = 500  # answers between two looks at the disk
ENDED = ("completed", "failed", "expired", "cancelled")
TOO_MUCH = "token_limit_exceeded"  # more is waiting for this model than the account may queue


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the service tells it."""

    id: str
    status: str
    digest: str
    created: float  # seconds of the epoch
    done: int
    files: tuple[str, ...]  # of answers and of errors
    errors: tuple[tuple[int | None, str, str], ...]  # (line from 1, code, message)


class Batches:
    """The Batch API of one endpoint, for one run."""

    def __init__(
        self,
        model: OpenAIChat,
        store: Store,
        settings: "LLMSettings",
        run: Run,
        keep: Keep,
        advance: Callable[[int], None],
    ) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self._run = run
        self._keep = keep
        self._advance = advance  # is told how many requests of open batches are answered
        self._open: list[StoredBatch] = []
        self._singly = False  # one batch at a time

    def left(self) -> str:
        """For messages: the batches that go on without us."""
        names = ", ".join(batch.id for batch in self._open if batch.id)
        verb = "are" if len(self._open) > 1 else "is"
        return f"; {names} {verb} still being worked on" if names else ""

    async def finish(self, wanted: Collection[str]) -> dict[str, ChatFault]:
        """Collect what was sent before: all open batches with one of the ``wanted`` keys.

        Returns:
            Why requests have no answer, by key.

        Raises:
            Stopped: The reason is in the run.
        """
        wanted = set(wanted)
        for batch in self._store.open_batches(self._model.name, self._model.host):
            if wanted.isdisjoint(batch.keys):
                continue
            if not batch.id:
                found = await self._patiently(partial(self._find, batch))
                if found is None:
                    await self._stored(self._store.end_batch(batch.digest, "never made"))
                    continue
                await self._known_as(batch, found.id)
            else:
                self._open.append(batch)
            logger.info("%s holds %d requests sent earlier", self._open[-1].id, len(batch.keys))
        refused: deque[list[str]] = deque()
        faults = await self._collect_all(refused, {})
        again = ChatFault("service", "batch-failed", f"{self._model.host} refused their batch")
        return faults | {key: again for keys in refused for key in keys}

    async def buy(self, requests: Mapping[str, ChatRequest]) -> dict[str, ChatFault]:
        """Send requests, by key, and wait for their answers. Returns and raises as `finish`."""
        return await self._collect_all(deque(self._parts(requests)), requests)

    async def _collect_all(
        self, parts: deque[list[str]], requests: Mapping[str, ChatRequest]
    ) -> dict[str, ChatFault]:
        faults: dict[str, ChatFault] = {}
        polls = ended = 0
        while (parts and requests) or self._open:
            while parts and requests and not (self._singly and self._open):
                await self._send(parts.popleft(), requests)
            done = ended
            for stored in list(self._open):
                batch = await self._patiently(partial(self._batch, stored.id))
                done += batch.done
                if batch.status in ENDED:
                    faults |= await self._collect(stored, batch, parts)
                    self._open.remove(stored)
                    ended += batch.done
                    polls = 0
            self._advance(done)
            if self._open:
                polls += 1
                await self._run.sleep(backoff(self._settings.backoff, polls))
        return faults

    # ---- sending

    def _parts(self, requests: Mapping[str, ChatRequest]) -> Iterator[list[str]]:
        """Keys in portions that a batch may have."""
        part: list[str] = []
        size = 0
        for key, request in requests.items():
            line = len(self._line(key, request))
            if part and (len(part) == MOST_REQUESTS or size + line > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append(key)
            size += line
        if part:
            yield part

    def _line(self, key: str, request: ChatRequest) -> bytes:
        body = self._model.body(request)
        call = {"custom_id": key, "method": "POST", "url": CALLS, "body": body}
        return json.dumps(call).encode() + b"\n"

    async def _send(self, keys: list[str], requests: Mapping[str, ChatRequest]) -> None:
        digest = content_key({"keys": keys, "number": self._store.batches()})
        batch = StoredBatch(digest, self._model.name, self._model.host, tuple(keys))
        await self._stored(self._store.put_batch(batch))
        lines = b"".join(self._line(key, requests[key]) for key in keys)
        file = {"file": (f"embedtune-{digest[:16]}.jsonl", lines, "application/jsonl")}
        uploaded = await self._patiently(
            partial(self._asked, "POST", "/files", data={"purpose": "batch"}, files=file)
        )
        made = await self._patiently(_Making(self, batch, str(uploaded.get("id", ""))))
        await self._known_as(batch, made.id)
        logger.info("%s: %d requests sent", made.id, len(keys))

    async def _known_as(self, batch: StoredBatch, batch_id: str) -> None:
        self._open.append(replace(batch, id=batch_id))
        await self._stored(self._store.put_batch_id(batch.digest, batch_id))

    async def _find(self, stored: StoredBatch) -> Batch | None:
        """The batch of that digest, if it was made after all."""
        made = datetime.fromisoformat(stored.created) if stored.created else datetime.now(UTC)
        oldest = made.timestamp() - CLOCKS
        after: dict[str, str] = {}
        while True:
            page = await self._asked("GET", "/batches", params={"limit": str(PAGE), **after})
            batches = [_batch(item) for item in page.get("data") or () if isinstance(item, dict)]
            for batch in batches:
                if batch.digest == stored.digest:
                    return batch
            if not page.get("has_more") or not batches or batches[-1].created < oldest:
                return None
            after = {"after": batches[-1].id}

    # ---- collecting

    async def _batch(self, batch_id: str) -> Batch:
        return _batch(await self._asked("GET", f"/batches/{batch_id}"))

    async def _collect(
        self, stored: StoredBatch, batch: Batch, parts: deque[list[str]]
    ) -> dict[str, ChatFault]:
        """Store the answers of a batch that has ended. Why others have none, by key; what was not
        even begun and fits into smaller batches goes back to ``parts``."""
        faults: dict[str, ChatFault] = {}
        answered: set[str] = set()
        keys = frozenset(stored.keys)
        for file in batch.files:
            await self._patiently(partial(self._read, file, batch, keys, answered, faults))
        missing = [key for key in stored.keys if key not in answered and key not in faults]
        if batch.status == "failed" and batch.errors:
            missing = self._refused(stored, batch, missing, faults, parts)
        for key in missing:
            faults[key] = _unanswered(batch)
        for key, fault in faults.items():
            if fault.kind == "stop":
                self._run.fail(fault.message)
            await self._stored(self._store.put_fault(key, fault.code, fault.message, fault.raw))
        await self._stored(self._store.end_batch(stored.digest, batch.status))
        logger.info("%s %s: %d answers", batch.id, batch.status, len(answered))
        return faults

    def _refused(
        self,
        stored: StoredBatch,
        batch: Batch,
        missing: list[str],
        faults: dict[str, ChatFault],
        parts: deque[list[str]],
    ) -> list[str]:
        """Sort out a batch that was refused as a whole; what is left has no reason of its own."""
        line, code, message = batch.errors[0]
        told = f"{batch.id} was refused: {message}"
        if code == TOO_MUCH and len(missing) > 1:
            self._singly = True
            half = len(missing) // 2
            parts.extend((missing[:half], missing[half:]))
            return []
        lines = {line for line, _, _ in batch.errors}
        if None in lines or len(lines) >= len(stored.keys):
            self._run.fail(f"{told} ({code}{f', line {line}' if line else ''})")
            return missing
        for line, code, message in batch.errors:
            if line is not None and line <= len(stored.keys):
                fault = f"{batch.id} was refused for this request: {message}"
                faults[stored.keys[line - 1]] = ChatFault("request", code or "bad-request", fault)
        parts.append([key for key in missing if key not in faults])
        return []

    async def _read(
        self,
        file: str,
        batch: Batch,
        keys: Collection[str],
        answered: set[str],
        faults: dict[str, ChatFault],
    ) -> None:
        """Take in a file of answers or errors; again from its start after a fault on the way."""
        writes: list[Future[None]] = []
        async with aclosing(self._model.lines(f"/files/{file}/content")) as lines:
            async for line in lines:
                if not line.strip():
                    continue
                key, outcome = self._outcome(line)
                if key not in keys:
                    logger.warning("%s: a line for no request of it: %s", batch.id, visible(line))
                elif isinstance(outcome, ChatFault):
                    faults[key] = outcome
                elif key not in answered:
                    answered.add(key)
                    writes.append(self._keep(key, outcome, batch.id))
                if len(writes) == TOGETHER:
                    await self._stored(*writes)
                    writes.clear()
        await self._stored(*writes)

    def _outcome(self, line: str) -> tuple[str, ChatAnswer | ChatFault]:
        """(key, answer or fault) of a line."""
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        entry = entry if isinstance(entry, dict) else {}
        key = str(entry.get("custom_id") or "")
        response, error = entry.get("response"), entry.get("error")
        if isinstance(response, dict):
            raw = json.dumps(response.get("body"), ensure_ascii=False)
            status = int(number_in(response.get("status_code")) or 0)
            if 200 <= status < 300:
                try:
                    return key, self._model.answer(raw)
                except ChatFault as fault:
                    return key, fault
            found = refused(self._model.endpoint, status or 500, {}, raw)
            return key, ChatFault(found.kind, found.code, found.message, raw=raw)
        if isinstance(error, dict):
            code = str(error.get("code") or "no-answer").replace("_", "-")
            message = f"{self._model.host}: {visible(error.get('message') or code, 200)}"
            return key, ChatFault(_kind(code), code, message, raw=line)
        message = f"{self._model.host} gave a line that is no answer: {visible(line)}"
        return key, ChatFault("answer", "bad-answer", message, raw=line)

    # ---- over the wire

    async def _asked(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The JSON object that is answered.

        Raises:
            ChatFault: None came.
        """
        async with asyncio.timeout(None if "files" in content else self._settings.timeout):
            body, _ = await self._model.exchange(method, path, **content)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            host = self._model.host
            raise ChatFault("service", "not-json", f"{host} sent no JSON object: {visible(body)}")
        return value

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds, within the limits for retries.

        Raises:
            Stopped: It does not, or the run was stopped meanwhile; the reason is in the run.
        """
        tries = 0
        while True:
            if self._run.reason is not None:
                raise Stopped
            try:
                return await call()
            except TimeoutError:
                fault = ChatFault("service", "timeout", f"{self._model.host} gave no whole answer")
            except ChatFault as raised:
                fault = raised
            tries += 1
            wait = max(fault.retry_after or 0.0, backoff(self._settings.backoff, tries))
            hopeless = fault.kind in ("stop", "request") or wait > self._settings.max_wait
            if hopeless or tries > self._settings.retries:
                advice = "; run the same command again later" if fault.kind != "stop" else ""
                if fault.code in ("not-found", "address"):
                    advice = "; is there no Batch API, or the batch forgotten: llm.mode: live"
                self._run.fail(f"{fault.message}{self.left()}{advice}")
                raise Stopped
            logger.debug("%s: %s", fault.code, fault.message)
            await self._run.sleep(wait)

    async def _stored(self, *writes: Future[None]) -> None:
        for write in writes:
            # shielded: a second Ctrl-C must not cancel a write that is on its way
            await asyncio.shield(asyncio.wrap_future(write))


class _Making:
    """Makes a batch; from the second try on it looks first whether it was made after all."""

    def __init__(self, batches: Batches, batch: StoredBatch, file: str) -> None:
        self._batches, self._batch, self._file = batches, batch, file
        self._tried = False

    async def __call__(self) -> Batch:
        if self._tried and (found := await self._batches._find(self._batch)):
            return found
        self._tried = True
        content = {
            "input_file_id": self._file,
            "endpoint": CALLS,
            "completion_window": "24h",
            "metadata": {DIGEST: self._batch.digest},
        }
        return _batch(await self._batches._asked("POST", "/batches", json=content))


def _batch(item: Mapping[str, Any]) -> Batch:
    """A batch out of the service's JSON, whatever it leaves out."""
    counts, metadata = item.get("request_counts"), item.get("metadata")
    errors = item.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else errors
    found = []
    for error in listed if isinstance(listed, list) else ():
        if isinstance(error, dict):
            line = number_in(error.get("line"))
            code, message = str(error.get("code") or ""), visible(error.get("message") or "", 200)
            found.append((int(line) if line else None, code, message))
    files = (item.get("output_file_id"), item.get("error_file_id"))
    done = number_in(counts.get("completed")) if isinstance(counts, dict) else None
    return Batch(
        id=str(item.get("id") or ""),
        status=str(item.get("status") or ""),
        digest=str(metadata.get(DIGEST) or "") if isinstance(metadata, dict) else "",
        created=number_in(item.get("created_at")) or 0.0,
        done=int(done or 0),
        files=tuple(str(file) for file in files if file),
        errors=tuple(found),
    )


def _kind(code: str) -> FaultKind:
    """Whether a further batch may help a request that a batch did not answer."""
    return "request" if code in ("batch-cancelled", "content-filter") else "service"


def _unanswered(batch: Batch) -> ChatFault:
    code = f"batch-{batch.status}" if batch.status != "completed" else "batch-missing"
    said = f": {batch.errors[0][2]}" if batch.errors else ""
    return ChatFault(_kind(code), code, f"{batch.id} {batch.status} without this answer{said}")
