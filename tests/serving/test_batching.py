"""Many clients share one model: what goes into a batch, in which order, and what is counted."""

import asyncio
import random
import time
from collections import Counter

import numpy as np
import pytest

from embedtune.errors import IntegrityError, ServiceError
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


def test_a_short_request_behind_more_long_ones_than_a_batch_holds_waits_one_turn(stub):
    async def work(batcher):
        await held(batcher, stub)
        long = [batcher.submit([f"{n} {m}" for m in range(9)], "document", [10] * 9)
                for n in range(8)]  # fmt: skip
        short = batcher.submit(["short"], "document", [10])
        stub.gate.set()
        rows = await asyncio.gather(*(job.answer for job in long), short.answer)
        return batcher.load, [own.shape for own in rows]

    load, shapes = run(stub, work, batch_tokens=30)
    assert load == Load(0, 0)
    assert shapes == [(9, 16)] * 8 + [(1, 16)]
    assert "short" in stub.seen[3]  # eight long ones and it, three a batch
    assert sorted(text for batch in stub.seen[1:4] for text in batch) == sorted(
        [*(f"{n} 0" for n in range(8)), "short"]
    )


def test_the_other_role_has_its_turn_while_long_requests_wait(stub):
    async def work(batcher):
        await held(batcher, stub)
        long = batcher.submit([f"long {n}" for n in range(9)], "document", [10] * 9)
        short = batcher.submit(["short"], "query", [10])
        stub.gate.set()
        await asyncio.gather(long.answer, short.answer)

    run(stub, work, batch_tokens=30)
    assert stub.seen[2] == ["short"]


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
        await batcher.submit(["a"], "document", [25]).answer  # 250 tokens a second at most
        while batcher._speed is None:
            await asyncio.sleep(0.001)
        await held(batcher, stub)
        batcher.submit(["b"], "document", [2500])  # 10 seconds, behind 1 token
        with pytest.raises(Refusal) as caught:
            batcher.submit(["c"], "document", [1])
        return caught.value

    refusal = run(stub, work, queue_seconds=5, batch_tokens=100)
    assert refusal.status == 429
    assert int(refusal.headers["retry-after"]) >= 10


def test_small_batches_do_not_make_a_burst_look_slow(stub):
    """A text alone takes nearly as long as many together: its speed is not that of a full batch."""
    stub.fault = lambda texts: time.sleep(0.02)

    async def work(batcher):
        for number in range(3):
            await batcher.submit([f"{number}"], "document", [5]).answer  # 250 tokens a second
        jobs = [batcher.submit([f"burst {n}"], "document", [1000]) for n in range(40)]
        await asyncio.gather(*(job.answer for job in jobs))

    run(stub, work, queue_seconds=5)


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


@pytest.mark.parametrize("shape", [(1, 16), (4, 16), (3, 15), (2, 15)])
def test_vectors_of_the_wrong_number_or_size_are_a_fault_and_the_queue_goes_on(stub, shape):
    right = stub.embed

    def embed(texts, role):
        return np.ones(shape, np.float32) if "bad" in texts[0] else right(texts, role)

    async def work(batcher):
        await held(batcher, stub)
        wrong = batcher.submit(["bad 1", "bad 2"], "document", [2, 2])
        other = batcher.submit(["good"], "document", [1])
        stub.gate.set()
        answers = await asyncio.gather(wrong.answer, other.answer, return_exceptions=True)
        return answers, batcher.load

    stub.embed = embed
    (wrong, other), load = run(stub, work)
    assert isinstance(wrong, IntegrityError)
    assert other.shape == (1, 16)
    assert load == Load(0, 0)


def test_clients_that_come_and_go_leave_the_counters_at_zero(stub, vector_of):
    """Drops at every moment, faults among them: nothing is lost, nothing stays."""
    draw = random.Random(3)
    stub.fault = lambda texts: "fault" in " ".join(texts) and 1 / 0

    async def one(batcher, number):
        count = draw.randint(1, 30)
        texts = [f"{number} {n}{' fault' * (draw.random() < 0.01)}" for n in range(count)]
        job = batcher.submit(texts, draw.choice(["query", "document"]), [5] * count)
        if draw.random() < 0.4:
            await asyncio.sleep(draw.random() * 0.02)
            batcher.drop(job)
            return "dropped"
        try:
            rows = await job.answer
        except ZeroDivisionError:
            return "fault"
        expected = [3 * vector_of(text, job.role) for text in texts]
        return "right" if np.allclose(rows, expected) else "wrong"

    async def work(batcher):
        outcomes = Counter()
        for _ in range(10):
            outcomes.update(await asyncio.gather(*(one(batcher, n) for n in range(40))))
        while batcher.load != Load(0, 0):
            await asyncio.sleep(0.01)
        return outcomes, len(batcher._waiting)

    outcomes, waiting = run(stub, work, batch_tokens=200)
    assert waiting == 0
    assert set(outcomes) == {"right", "dropped", "fault"}


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
