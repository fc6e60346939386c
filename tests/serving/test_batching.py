"""Many clients share one model: what goes into a batch, in which order, and what is counted."""

import asyncio
import time

import numpy as np
import pytest

from embedtune.errors import ServiceError
from embedtune.serving.batching import Batcher, Load
from embedtune.serving.refusals import Refusal
from embedtune.serving.settings import ServerSettings


def run(stub, work, **settings):
    """Run ``work(batcher)`` in a loop, with the model held until ``stub.gate`` is set."""

    async def inside():
        batcher = Batcher(stub, ServerSettings(**settings))
        try:
            return await asyncio.wait_for(work(batcher), 20)
        finally:
            stub.gate.set()
            batcher.close(finish=True)

    return asyncio.run(inside())


async def held(batcher, stub):
    """The model is busy with one text; what comes now waits."""
    stub.gate.clear()
    job = batcher.submit(["held"], "document", [1])
    while batcher._waiting:
        await asyncio.sleep(0.001)
    return job


def test_what_waits_goes_into_one_batch_longest_first(stub, vector_of):
    async def work(batcher):
        await held(batcher, stub)
        jobs = [batcher.submit([f"text {n}"], "document", [n]) for n in (3, 9, 5)]
        stub.gate.set()
        return await asyncio.gather(*(job.answer for job in jobs))

    rows = run(stub, work)
    assert stub.seen == [["held"], ["text 9", "text 5", "text 3"]]
    for number, row in zip((3, 9, 5), rows, strict=True):
        assert np.allclose(row, 3 * vector_of(f"text {number}"))


def test_a_batch_holds_no_more_tokens_than_allowed_but_always_one_text(stub):
    async def work(batcher):
        await held(batcher, stub)
        jobs = [batcher.submit([f"{n}"], "document", [n]) for n in (40, 50, 20, 500, 10)]
        stub.gate.set()
        await asyncio.gather(*(job.answer for job in jobs))

    run(stub, work, batch_tokens=100)
    assert stub.seen[1:] == [["50", "40"], ["20"], ["500"], ["10"]]


def test_requests_take_turns(stub):
    async def work(batcher):
        await held(batcher, stub)
        long = batcher.submit([f"long {n}" for n in range(10)], "document", [10] * 10)
        short = batcher.submit(["short"], "document", [10])
        stub.gate.set()
        return await asyncio.gather(long.answer, short.answer)

    rows, _ = run(stub, work, batch_tokens=30)
    assert rows.shape == (10, 16)
    assert "short" in stub.seen[1]
    assert all(len(batch) <= 3 for batch in stub.seen)


def test_roles_are_not_mixed_and_the_older_goes_first(stub, vector_of):
    async def work(batcher):
        await held(batcher, stub)
        jobs = [batcher.submit([t], r, [1]) for t, r in (("a", "query"), ("b", "document"),
                                                         ("c", "query"))]  # fmt: skip
        stub.gate.set()
        return await asyncio.gather(*(job.answer for job in jobs))

    rows = run(stub, work)
    assert stub.seen[1:] == [["a", "c"], ["b"]]
    assert np.allclose(rows[2], 3 * vector_of("c", "query"))


def test_a_dropped_job_is_forgotten_and_its_room_is_free(stub):
    async def work(batcher):
        busy = await held(batcher, stub)
        gone = batcher.submit(["x", "y"], "document", [5, 6])
        stays = batcher.submit(["z"], "document", [7])
        before = batcher.load
        batcher.drop(gone)
        batcher.drop(gone)
        after = batcher.load
        stub.gate.set()
        await asyncio.gather(busy.answer, stays.answer)
        return before, after, batcher.load, gone.answer.cancelled()

    before, after, end, cancelled = run(stub, work)
    assert (before, after, end) == (Load(4, 19), Load(2, 8), Load(0, 0))
    assert cancelled
    assert stub.seen == [["held"], ["z"]]


def test_an_idle_queue_takes_what_is_larger_than_itself(stub):
    async def work(batcher):
        return await batcher.submit(["a"] * 7, "document", [9] * 7).answer

    assert run(stub, work, queue_texts=3, queue_tokens=10).shape == (7, 16)


def test_a_queue_that_would_take_too_long_is_full(stub):
    def slow(texts):
        time.sleep(0.1)

    stub.fault = slow

    async def work(batcher):
        await batcher.submit(["a"], "document", [10]).answer  # 100 tokens a second at most
        while batcher._speed is None:
            await asyncio.sleep(0.001)
        await held(batcher, stub)
        batcher.submit(["b"], "document", [1000])  # 10 seconds, behind 1 token
        with pytest.raises(Refusal) as caught:
            batcher.submit(["c"], "document", [1])
        return caught.value

    refusal = run(stub, work, queue_seconds=5)
    assert refusal.status == 429
    assert int(refusal.headers["retry-after"]) >= 10


def test_a_fault_hits_its_own_text_only_unless_it_is_the_service_s(stub):
    def fail(texts):
        if "bad" in texts:
            raise ValueError("cannot")
        if "away" in texts:
            raise ServiceError("no answer")

    stub.fault = fail

    async def work(batcher):
        outcomes = []
        for texts in (("good", "bad"), ("good", "away")):
            await held(batcher, stub)
            jobs = [batcher.submit([text], "document", [1]) for text in texts]
            stub.gate.set()
            answers = await asyncio.gather(*(j.answer for j in jobs), return_exceptions=True)
            outcomes.append([type(answer).__name__ for answer in answers])
        return outcomes, batcher.load

    outcomes, load = run(stub, work)
    assert outcomes == [["ndarray", "ValueError"], ["ServiceError", "ServiceError"]]
    assert load == Load(0, 0)


def test_numbers_that_are_not_finite_are_never_given_out(stub):
    stub.embed = lambda texts, role: np.full((len(texts), 16), np.nan, dtype=np.float32)

    async def work(batcher):
        (answer,) = await asyncio.gather(
            batcher.submit(["a"], "document", [1]).answer, return_exceptions=True
        )
        return answer

    assert "NaN" in str(run(stub, work))


@pytest.mark.parametrize("finish", [True, False])
def test_closing_finishes_or_refuses_what_waits(stub, finish):
    async def work(batcher):
        await held(batcher, stub)
        job = batcher.submit(["a"], "document", [1])
        batcher.close(finish=finish)
        with pytest.raises(Refusal):
            batcher.submit(["b"], "document", [1])
        stub.gate.set()
        (answer,) = await asyncio.gather(job.answer, return_exceptions=True)
        return answer

    answer = run(stub, work)
    assert isinstance(answer, np.ndarray if finish else Refusal)
    assert finish or answer.status == 503
