import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from embedtune.errors import ServiceError
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest
from embedtune.llm.limiter import Limiter
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.store import Store
from stub_server import Behaviour, StubServer

FAST = {"backoff": 0.01, "timeout": 5.0}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def requests(count, **fields):
    return [ChatRequest("system", f"request {number}", **fields) for number in range(count)]


def answered(request):
    return ChatAnswer(f"re: {request.user}", input_tokens=10, output_tokens=5)


class Asked:
    """A script that counts what it is asked and how many at a time."""

    def __init__(self, script=answered, delay=0.0):
        self.script = script
        self.delay = delay
        self.users = []
        self.running = self.most = 0

    async def __call__(self, request):
        self.users.append(request.user)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay)
            return self.script(request)
        finally:
            self.running -= 1


def chat(script, store, **settings):
    return RecordedChat(ScriptedChat(script), store, LLMSettings(**{**FAST, **settings}))


# ---- the store comes first


def test_replies_come_in_the_order_of_the_requests_whatever_order_they_arrive_in(store):
    async def script(request):
        await asyncio.sleep(random.random() / 50)
        return answered(request)

    replies = chat(script, store).ask_all(requests(40))
    assert [reply.answer.text for reply in replies] == [f"re: request {n}" for n in range(40)]


def test_an_answer_is_paid_for_once(store):
    asked = Asked()
    first = chat(asked, store)
    first.ask_all(requests(3))
    second = chat(asked, store)
    second.ask_all(requests(5))
    assert sorted(asked.users) == [f"request {n}" for n in range(5)]
    assert (second.usage.reused, second.usage.new) == (3, 2)
    assert second.usage.input_tokens == 20


def test_equal_requests_are_asked_once(store):
    asked = Asked()
    replies = chat(asked, store).ask_all(requests(2) * 3)
    assert len(asked.users) == 2
    assert [reply.answer.text for reply in replies] == ["re: request 0", "re: request 1"] * 3


@pytest.mark.parametrize(
    "change", [{"temperature": 0.1}, {"max_tokens": 7}, {"schema": {"type": "object"}}]
)
def test_a_changed_request_does_not_reuse_old_answers_nor_delete_them(store, change):
    asked = Asked()
    chat(asked, store).ask_all(requests(2))
    changed = chat(asked, store)
    changed.ask_all(requests(2, **change))
    assert (changed.usage.reused, changed.usage.new) == (0, 2)
    again = chat(asked, store)
    again.ask_all(requests(2))
    assert (again.usage.reused, again.usage.new) == (2, 0)


def test_facts_are_no_part_of_the_key(store):
    asked = Asked()
    chat(asked, store).ask_all(requests(1, facts={"source": "a"}))
    chat(asked, store).ask_all(requests(1, facts={"source": "b"}))
    assert len(asked.users) == 1


def test_an_answer_is_stored_before_it_is_looked_at(store):
    def check(request, answer):
        raise RuntimeError("a bug in the parser")

    asked = Asked()
    with pytest.raises(RuntimeError):
        chat(asked, store, concurrency=1).ask_all(requests(1), check)
    chat(asked, store).ask_all(requests(1))
    assert len(asked.users) == 1


# ---- concurrency


def test_no_more_than_the_asked_for_requests_are_in_flight(store):
    asked = Asked(delay=0.01)
    chat(asked, store, concurrency=4).ask_all(requests(20))
    assert asked.most == 4


def test_a_slow_answer_does_not_hold_the_others(store):
    others = []
    done = asyncio.Event()

    async def script(request):
        if request.user == "request 0":  # the others do not wait for it, though two go at a time
            await asyncio.wait_for(done.wait(), 60)
        else:
            others.append(request.user)
            if len(others) == 19:
                done.set()
        return answered(request)

    replies = chat(script, store, concurrency=2).ask_all(requests(20))
    assert all(reply.answer for reply in replies)


def test_progress_tells_done_and_total(store):
    seen = []
    chat(answered, store).ask_all(requests(3), progress=lambda *pair: seen.append(pair))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- unusable answers


def test_an_unusable_answer_is_asked_for_once_more(store):
    asked = Asked(lambda request: ChatAnswer("good" if request.attempt else "bad"))
    replies = chat(asked, store).ask_all(
        requests(1), lambda request, answer: "" if answer.text == "good" else "not-json: bad"
    )
    assert replies[0].answer.text == "good"
    assert replies[0].code == ""


def test_an_answer_that_stays_unusable_comes_back_with_its_code(store):
    asked = Asked(lambda request: ChatAnswer("bad"))
    one = chat(asked, store)
    replies = one.ask_all(requests(1), lambda request, answer: "not-json: found bad")
    assert (replies[0].code, replies[0].message) == ("not-json", "found bad")
    assert len(asked.users) == 2
    assert one.usage.failed == 1


def test_a_cut_answer_gets_more_room_once(store):
    rooms = []

    def script(request):
        rooms.append(request.max_tokens)
        return ChatAnswer("x", finish="length")

    replies = chat(script, store).ask_all(requests(1, max_tokens=100))
    assert rooms == [100, 400]
    assert replies[0].code == "cut"


@pytest.mark.parametrize(
    ("finish", "code"), [("refusal", "refusal"), ("content_filter", "content-filter")]
)
def test_a_refusal_is_not_asked_again(store, finish, code):
    asked = Asked(lambda request: ChatAnswer("no", finish=finish))
    replies = chat(asked, store).ask_all(requests(1))
    assert replies[0].code == code
    assert len(asked.users) == 1


# ---- faults


def failing(times, fault):
    """A script that raises ``fault`` the first ``times`` a request is seen."""
    seen = {}

    def script(request):
        seen[request.user] = seen.get(request.user, 0) + 1
        if seen[request.user] <= times:
            raise fault
        return answered(request)

    return script


SERVICE = ChatFault("service", "http-500", "host answered 500")
ANSWER = ChatFault("answer", "html", "host sent a web page", raw="<html>")
RATE = ChatFault("wait", "rate-limit", "host answered 429")


def test_a_passing_fault_is_retried(store):
    one = chat(failing(2, SERVICE), store)
    assert all(reply.answer for reply in one.ask_all(requests(5)))
    assert one.usage.retries == 10


def test_a_dead_service_stops_the_run_and_keeps_what_was_answered(store):
    alive = {"request 0", "request 1"}

    def script(request):
        if request.user in alive:
            return answered(request)
        raise SERVICE

    with pytest.raises(ServiceError, match=r"500.*3 tries.*later"):
        chat(script, store, retries=2, concurrency=1).ask_all(requests(5))
    resumed = chat(answered, store)
    resumed.ask_all(requests(5))
    assert (resumed.usage.reused, resumed.usage.new) == (2, 3)


def test_one_request_that_never_works_does_not_stop_the_others(store):
    def script(request):
        if request.user == "request 0":
            raise SERVICE
        return answered(request)

    replies = chat(script, store, retries=2, concurrency=2).ask_all(requests(8))
    assert [bool(reply.code) for reply in replies] == [True] + [False] * 7
    assert replies[0].code == "http-500"


@pytest.mark.parametrize("run", ["first", "second"])
def test_the_last_requests_of_many_may_fail_without_ending_the_run(store, run):
    """Silence about three of forty is theirs; nobody is left whose answer could show it."""
    bad = {f"request {number}" for number in (37, 38, 39)}

    def script(request):
        if request.user in bad:
            raise SERVICE
        return answered(request)

    if run == "second":  # all others are in the store
        chat(answered, store).ask_all(requests(37))
    replies = chat(script, store, retries=1, concurrency=3).ask_all(requests(40))
    assert [reply.code for reply in replies] == [""] * 37 + ["http-500"] * 3


def test_a_body_that_is_no_answer_is_retried_within_limits_and_kept(store):
    def script(request):
        if request.user == "request 1":
            raise ANSWER
        return answered(request)

    replies = chat(script, store).ask_all(requests(3))
    assert [reply.code for reply in replies] == ["", "html", ""]
    assert [(code, raw) for _, code, _, raw in store.faults()] == [("html", "<html>")] * 3


def test_many_failures_in_a_row_end_the_run(store):
    asked = Asked(failing(99, ANSWER))
    with pytest.raises(ServiceError, match="10 requests in a row"):
        chat(asked, store, concurrency=2).ask_all(requests(100))
    assert len(asked.users) <= 3 * 12


def test_a_refused_request_is_not_sent_again(store):
    asked = Asked(failing(99, ChatFault("request", "passage-too-long", "too long")))
    replies = chat(asked, store).ask_all(requests(1))
    assert replies[0].code == "passage-too-long"
    assert len(asked.users) == 1


def test_a_wrong_key_is_refused_once_for_each_in_flight_and_never_again(store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with StubServer(Behaviour(key="right", latency=0.05)) as server:
        one = RecordedChat(OpenAIChat("m", server.url), store, LLMSettings(concurrency=3, **FAST))
        with pytest.raises(ServiceError, match=r"401.*OPENAI_API_KEY") as caught:
            one.ask_all(requests(50))
        assert len(server.requests) == 3
    kept = f"{caught.value}{store.faults()}"
    assert "sk-of-somebody-else" not in kept


def test_a_wrong_key_stops_at_once(store):
    asked = Asked(failing(99, ChatFault("stop", "key", "check OPENAI_API_KEY")), delay=0.01)
    with pytest.raises(ServiceError, match="OPENAI_API_KEY"):
        chat(asked, store, concurrency=3).ask_all(requests(50))
    assert len(asked.users) == 3  # those in flight, no retries


def test_an_answer_that_never_comes_frees_its_worker(store):
    async def script(request):
        if request.user == "request 0" and not script.seen:
            script.seen = True
            await asyncio.sleep(60)
        return answered(request)

    script.seen = False
    one = chat(script, store, timeout=0.1, concurrency=1)
    assert all(reply.answer for reply in one.ask_all(requests(3)))
    assert [code for _, code, _, _ in store.faults()] == ["timeout"]


# ---- the shared rate limit


def test_nobody_sends_before_the_time_the_service_asked_for(store):
    behaviour = Behaviour(faults=0.1, kinds=("429-seconds",), retry_after=0.4, latency=0.02)
    with StubServer(behaviour) as server:
        one = RecordedChat(OpenAIChat("m", server.url), store,
                           LLMSettings(concurrency=6, **FAST))  # fmt: skip
        replies = one.ask_all(requests(40))
        times = sorted(moment for moment, _ in server.requests)
        limited = server.sent["429-seconds"]
    assert all(reply.answer for reply in replies)
    assert 1 <= one.usage.waits <= limited
    assert f"{one.usage.waits} waits" in one.usage.line()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    # after each pause of all workers there is one gap as long as was asked for, less the flight
    assert sum(gap > 0.3 for gap in gaps) >= one.usage.waits


def test_nobody_sends_before_the_date_the_service_named(store):
    behaviour = Behaviour(faults=1, kinds=("429-date",), retry_after=2, latency=0.05)
    with StubServer(behaviour) as server:
        one = RecordedChat(OpenAIChat("m", server.url), store,
                           LLMSettings(concurrency=6, **FAST))  # fmt: skip
        assert all(reply.answer for reply in one.ask_all(requests(6)))
        times = sorted(moment for moment, _ in server.requests)
    assert one.usage.waits == 1
    assert times[5] - times[0] < 0.5
    # a date has whole seconds: two from now is one to two from now
    assert times[6] - times[0] >= 1


def test_untold_how_long_to_wait_the_pauses_grow_with_jitter(store, monkeypatch):
    waits = []
    pause = Limiter.pause

    def noted(self, epoch, seconds):
        assert seconds is None
        new = pause(self, epoch, seconds)
        if new:
            waits.append(self.wait)
        return new

    monkeypatch.setattr(Limiter, "pause", noted)
    with pytest.raises(ServiceError, match="4 pauses in a row"):
        chat(failing(99, RATE), store, retries=4, backoff=0.01).ask_all(requests(20))
    for number, wait in enumerate(waits):
        assert 0.01 * 2**number <= wait <= 0.0125 * 2**number
    assert len({wait / 2**number for number, wait in enumerate(waits)}) == len(waits) == 5


def test_the_window_shrinks_when_the_service_is_overrun_and_grows_again(store):
    limit = 3

    class Overrun(Asked):
        async def __call__(self, request):
            self.running += 1
            try:
                await asyncio.sleep(0.005)
                if self.running > limit:
                    raise RATE
                return answered(request)
            finally:
                self.running -= 1

    one = chat(Overrun(), store, concurrency=16, retries=8)
    assert all(reply.answer for reply in one.ask_all(requests(60)))
    assert one._limiter.window < 16


def test_a_rate_limit_for_ever_stops_after_the_retry_budget(store):
    asked = Asked(failing(99, RATE))
    with pytest.raises(ServiceError, match=r"429.*3 pauses in a row.*llm\.concurrency"):
        chat(asked, store, retries=3, concurrency=8).ask_all(requests(50))
    # 8, then 4, 2 and 1 at a time
    assert len(asked.users) <= 8 + 4 + 2 + 1


def test_a_rate_limit_for_ever_slows_down_stops_and_can_be_resumed(store):
    with StubServer(Behaviour(faults=1, kinds=("429",), stubborn=True)) as server:

        def one():
            settings = LLMSettings(concurrency=8, retries=3, **FAST)
            return RecordedChat(OpenAIChat("m", server.url), store, settings)

        server.behaviour.faults = 0
        one().ask_all(requests(4))
        server.behaviour.faults = 1
        with pytest.raises(ServiceError, match=r"429.*3 pauses in a row"):
            one().ask_all(requests(50))
        assert server.sent["429"] <= 8 + 4 + 2 + 1
        server.behaviour.faults = 0
        resumed = one()
        assert all(reply.answer for reply in resumed.ask_all(requests(50)))
    assert (resumed.usage.reused, resumed.usage.new) == (4, 46)


def test_a_wait_longer_than_wanted_stops_instead(store):
    fault = ChatFault("wait", "rate-limit", "host answered 429", retry_after=7200)
    begun = time.monotonic()
    with pytest.raises(ServiceError, match="7,200 s"):
        chat(failing(99, fault), store).ask_all(requests(5))
    assert time.monotonic() - begun < 60


# ---- budget


PRICE = {"input": 1.0, "output": 2.0}
LIMITS = [{"requests": 10}, {"tokens": 2500}, {"usd": 0.004}]


def dear(request):
    """As dear as an answer can be: a token for each byte sent, and all that it may have."""
    sent = len(request.system) + len(request.user) + 64
    return ChatAnswer("x", input_tokens=sent, output_tokens=request.max_tokens)


def spent(store):
    """(answers, tokens, US dollars) that the store tells of, at `PRICE`."""
    (found,) = store._reader.execute(
        "SELECT count(*), sum(input_tokens + output_tokens), sum(input_tokens + 2 * output_tokens)"
        " / 1e6 FROM answers"
    )
    return found


@pytest.mark.parametrize("budget", LIMITS)
def test_a_limit_is_not_passed_even_by_requests_in_flight(store, budget):
    asked = Asked(dear, delay=0.002)
    one = chat(asked, store, budget=budget, price=PRICE, concurrency=6)
    with pytest.raises(ServiceError, match=r"budget used up: .*raise llm\.budget"):
        one.ask_all(requests(50, max_tokens=100))
    ((name, limit),) = budget.items()
    used = dict(zip(("requests", "tokens", "usd"), spent(store), strict=True))[name]
    most = {"requests": 1, "tokens": 180, "usd": 280e-6}[name]  # of one request
    assert limit - most < used <= limit
    # the same command stops at the same place, a raised limit goes on
    before = len(asked.users)
    with pytest.raises(ServiceError, match="budget used up"):
        chat(asked, store, budget=budget, price=PRICE).ask_all(requests(50, max_tokens=100))
    assert len(asked.users) == before
    resumed = chat(asked, store)
    resumed.ask_all(requests(50, max_tokens=100))
    assert resumed.usage.reused == before
    assert len(asked.users) == 50


@pytest.mark.parametrize("budget", LIMITS)
def test_what_requests_leave_of_their_reserve_is_spent_on_others(store, budget):
    """Answers take 15 tokens of the 180 that they might."""
    one = chat(Asked(delay=0.002), store, budget=budget, price=PRICE, concurrency=6)
    with pytest.raises(ServiceError, match="budget used up"):
        one.ask_all(requests(400, max_tokens=100))
    ((name, limit),) = budget.items()
    used = dict(zip(("requests", "tokens", "usd"), spent(store), strict=True))[name]
    assert limit - {"requests": 1, "tokens": 181, "usd": 282e-6}[name] < used <= limit


def test_the_message_says_what_is_spent_and_what_the_next_request_may_take(store):
    with pytest.raises(ServiceError) as caught:
        chat(dear, store, budget={"usd": 0.0005}, price=PRICE, concurrency=1).ask_all(
            requests(3, max_tokens=100)
        )
    # "system" + "request 0" + 64 are 79 tokens, 100 of output at twice the price: 279e-6
    assert str(caught.value).startswith(
        "budget used up: 0.0003 of 0.0005 usd, and the next request may take 0.0003; answers so "
    )


def test_unknown_usage_makes_the_cost_unknown_and_does_not_stop(store):
    one = chat(lambda request: ChatAnswer("x"), store, price={"input": 1, "output": 1},
               budget={"usd": 0.01})  # fmt: skip
    one.ask_all(requests(3))
    assert one.usage.usd is None
    assert "cost unknown" in one.usage.line()


def test_answers_that_do_not_tell_their_tokens_are_named_beside_a_limit(store):
    one = chat(lambda request: ChatAnswer("x"), store, budget={"tokens": 5000})
    one.ask_all(requests(3))
    assert any("3 answers did not tell their tokens" in note for note in one.notes)


def test_a_money_limit_without_a_price_says_that_it_cannot_hold(store):
    one = chat(answered, store, budget={"usd": 1}, model="a model nobody has priced")
    one.ask_all(requests(3))
    assert any("llm.price" in note for note in one.notes)
    assert one.usage.usd is None


def test_a_price_from_the_table_is_told_with_its_date(store):
    one = chat(answered, store, model="gpt-4.1-mini", base_url="https://api.openai.com/v1")
    one.ask_all(requests(2))
    assert one.usage.usd == pytest.approx(2 * (10 * 0.40 + 5 * 1.60) / 1e6)
    (note,) = one.notes
    assert note.startswith("price: 0.4 + 1.6 US dollars per million tokens")
    assert "as known on 2026-" in note


# ---- callers


def test_it_works_inside_a_running_event_loop(store):
    async def main():
        return chat(answered, store).ask_all(requests(2))

    assert len(asyncio.run(main())) == 2


CHILD = """
import asyncio, sys
from pathlib import Path
from embedtune.errors import Interrupted
from embedtune.llm import ChatAnswer, ChatRequest
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.store import Store

async def script(request):
    print("asked", flush=True)
    await asyncio.sleep({seconds})
    return ChatAnswer("x")

with Store(Path(sys.argv[1])) as store:
    chat = RecordedChat(ScriptedChat(script), store, LLMSettings(concurrency=2))
    try:
        chat.ask_all([ChatRequest("s", str(n)) for n in range(100)])
    except Interrupted as error:
        print("stopped", chat.usage.new, error, flush=True)
        sys.exit(error.exit_code)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize(("presses", "seconds", "stored"), [(1, 0.5, 2), (2, 60, 0)])
def test_ctrl_c_once_finishes_what_is_in_flight_and_twice_stops_at_once(
    tmp_path: Path, presses, seconds, stored
):
    program = textwrap.dedent(CHILD).format(seconds=seconds)
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "s")],
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    assert [child.stdout.readline().strip() for _ in range(2)] == ["asked", "asked"]
    begun = time.monotonic()
    for _ in range(presses):
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 130
    assert time.monotonic() - begun < seconds + 8
    assert out.startswith(f"stopped {stored}")
    with Store(tmp_path / "s") as store:
        rows = store._reader.execute("SELECT count(*) FROM answers").fetchone()
    assert rows == (stored,)


def test_an_answer_that_trickles_meets_the_total_deadline(store):
    behaviour = Behaviour(faults=1, kinds=("trickle",), trickle=0.1)
    with StubServer(behaviour) as server:
        one = RecordedChat(OpenAIChat("m", server.url), store, LLMSettings(**FAST | {"timeout": 1}))
        begun = time.monotonic()
        replies = one.ask_all(requests(2))
        assert time.monotonic() - begun < 15  # all its bytes would take longer
    assert all(reply.answer for reply in replies)
    assert [code for _, code, _, _ in store.faults()] == ["timeout", "timeout"]
