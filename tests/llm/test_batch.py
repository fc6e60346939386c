"""The Batch API over real HTTP: one bill, whatever ends the process or the batch."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from embedtune.errors import ConfigError, ServiceError
from embedtune.llm import ChatRequest, batch
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat, open_chat
from embedtune.store import Store
from stub_server import Behaviour, StubServer


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def requests(count, **fields):
    return [ChatRequest("system", f"request {number}", **fields) for number in range(count)]


def chat(url, store, **settings):
    given = {"mode": "batch", "backoff": 0.01, "timeout": 5.0, **settings}
    return RecordedChat(OpenAIChat("m", url), store, LLMSettings(**given))


def echo(body):
    return f"re: {body['messages'][-1]['content']}"


def sizes(server):
    return [found["request_counts"]["total"] for found in server.batches]


# ---- the way there and back


def test_replies_come_in_the_order_of_the_requests_though_a_batch_shuffles_them(store):
    with StubServer(Behaviour(answer=echo, batch_seconds=0.05)) as server:
        replies = chat(server.url, store).ask_all(requests(30))
        lines = server.files["file-batch_0-out"].splitlines()
    assert [reply.answer.text for reply in replies] == [f"re: request {n}" for n in range(30)]
    assert sizes(server) == [29]  # the first was asked live, to see that it works
    assert len(lines) == 29
    assert lines != sorted(lines, key=lambda line: int(line.split(b"request ")[-1].split(b'"')[0]))


def test_answers_of_batches_and_of_live_requests_are_the_same_to_the_store(store):
    with StubServer(Behaviour(answer=echo)) as server:
        chat(server.url, store, mode="live").ask_all(requests(5))
        mixed = chat(server.url, store)
        mixed.ask_all(requests(12))
        again = chat(server.url, store, mode="live")
        again.ask_all(requests(12))
        assert len(server.billed) == 12
    assert (mixed.usage.reused, mixed.usage.new) == (5, 7)
    assert (again.usage.reused, again.usage.new) == (12, 0)


def test_a_batch_costs_its_share_of_the_price(store):
    price = {"input": 1.0, "output": 10.0, "batch": 0.5}
    with StubServer(Behaviour(answer=lambda body: "x" * 40)) as server:
        one = chat(server.url, store, price=price)
        one.ask_all(requests(11))
        reread = chat(server.url, store, price=price, budget={"usd": 1.0})
        reread.ask_all(requests(11))
    # the stub counts four characters a token: 4 of "system\nrequest N", 10 of the answer
    live = (4 * 1.0 + 10 * 10.0) / 1e6
    assert one.usage.usd == pytest.approx(live + 10 * live / 2)
    assert reread._budget.spent.usd == pytest.approx(live + 10 * live / 2)


def test_requests_are_spread_over_batches_by_number_and_by_size(store, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    with StubServer() as server:
        chat(server.url, store).ask_all(requests(11))
        assert sizes(server) == [4, 4, 2]
        monkeypatch.setattr(batch, "MOST_REQUESTS", 50)
        monkeypatch.setattr(batch, "MOST_BYTES", 3000)
        chat(server.url, store).ask_all([ChatRequest("s", f"{n}" + "x" * 1000) for n in range(6)])
        assert sizes(server)[3:] == [2, 2, 1]
        assert all(
            len(server.files[found["input_file_id"]]) <= 3000 for found in server.batches[3:]
        )


def test_the_first_request_is_asked_live_so_that_a_wrong_key_is_told_at_once(store):
    with (
        StubServer(Behaviour(key="right")) as server,
        pytest.raises(ServiceError, match="OPENAI_API_KEY"),
    ):
        chat(server.url, store).ask_all(requests(5))
    assert not server.files
    assert not server.batches


def test_the_form_that_the_live_request_found_is_the_batchs(store):
    with StubServer(Behaviour(formats=())) as server:
        replies = chat(server.url, store).ask_all(requests(4, schema={"type": "object"}))
    assert all(reply.answer for reply in replies)
    assert b"response_format" not in server.files["file-0"]


def test_an_unusable_answer_is_asked_for_once_more_in_a_further_batch(store):
    def second_time(body):
        return "good" if "could not be used" in body["messages"][-1]["content"] else "bad"

    with StubServer(Behaviour(answer=second_time)) as server:
        replies = chat(server.url, store).ask_all(
            requests(4), lambda request, answer: "" if answer.text == "good" else "not-json: bad"
        )
    assert [reply.answer.text for reply in replies] == ["good"] * 4
    assert sizes(server) == [3, 3]


def test_progress_counts_what_open_batches_have_done(store):
    seen = []
    with StubServer(Behaviour(batch_seconds=0.05)) as server:
        chat(server.url, store).ask_all(requests(5), progress=lambda *pair: seen.append(pair))
    assert seen[0] == (1, 5)
    assert seen[-1] == (5, 5)
    assert sorted(seen) == seen


# ---- batches that do not end well


def test_requests_of_an_expired_batch_go_into_another_one(store):
    with StubServer(Behaviour(batch_ends=("expired", "completed"))) as server:
        replies = chat(server.url, store).ask_all(requests(9))
    assert all(reply.answer for reply in replies)
    assert sizes(server) == [8, 4]
    assert len(server.billed) == len(set(server.billed)) == 9
    assert {code for _, code, _, _ in store.faults()} == {"batch-expired"}


def test_what_expires_twice_is_given_up_with_its_reason(store):
    with StubServer(Behaviour(batch_ends=("expired",))) as server:
        one = chat(server.url, store)
        replies = one.ask_all(requests(9))
    assert [reply.code for reply in replies].count("batch-expired") == 2  # 8, then 4, then 2
    assert one.usage.failed == 2
    assert all("expired" in reply.message for reply in replies if reply.code)


def test_a_batch_that_was_cancelled_is_not_sent_again(store):
    with StubServer(Behaviour(batch_ends=("cancelled", "completed"))) as server:
        replies = chat(server.url, store).ask_all(requests(9))
        assert len(server.batches) == 1
        assert [reply.code for reply in replies].count("batch-cancelled") == 4
        assert all(reply.answer for reply in chat(server.url, store).ask_all(requests(9)))


def test_a_refused_line_is_rejected_and_the_others_are_sent_again(store):
    refused = {"code": "invalid_request", "message": "too long for this model", "line": 2}
    behaviour = Behaviour(batch_ends=("failed", "completed"), batch_errors=(refused,))
    with StubServer(behaviour) as server:
        replies = chat(server.url, store).ask_all(requests(6))
    assert [reply.code for reply in replies] == ["", "", "invalid_request", "", "", ""]
    assert "too long for this model" in replies[2].message
    assert sizes(server) == [5, 4]


def test_a_batch_refused_as_a_whole_stops_with_its_reason_and_can_be_sent_again(store):
    refused = {"code": "model_not_found", "message": "m does no batches", "line": None}
    behaviour = Behaviour(batch_ends=("failed", "completed"), batch_errors=(refused,))
    with StubServer(behaviour) as server:
        with pytest.raises(ServiceError, match=r"batch_0 was refused: m does no batches"):
            chat(server.url, store).ask_all(requests(6))
        assert all(reply.answer for reply in chat(server.url, store).ask_all(requests(6)))


def test_a_full_queue_makes_smaller_batches_one_after_another(store):
    with StubServer(Behaviour(batch_most=6, batch_seconds=0.02)) as server:
        replies = chat(server.url, store).ask_all(requests(21))
    assert all(reply.answer for reply in replies)
    assert sizes(server) == [20, 10, 10, 5, 5, 5, 5]
    assert len(server.billed) == 21


def test_a_request_too_large_for_the_queue_alone_ends_the_run(store):
    with StubServer(Behaviour(batch_most=6)) as server:
        chat(server.url, store).ask_all(requests(1))
        server.behaviour.batch_most = -1
        with pytest.raises(ServiceError, match="Enqueued token limit reached"):
            chat(server.url, store).ask_all(requests(4))


@pytest.mark.parametrize("stubborn", [False, True])
def test_lines_that_failed_are_tried_once_more_and_then_have_their_reason(store, stubborn):
    behaviour = Behaviour(faults=0.4, kinds=("500", "429"), stubborn=stubborn)
    with StubServer(behaviour) as server:
        one = chat(server.url, store, retries=1)
        replies = one.ask_all(requests(30)[::-1])
        hit = {code for _, code, _, _ in store.faults()}
        assert len(server.billed) == len(set(server.billed))
    codes = {reply.code for reply in replies}
    assert hit == {"http-500", "rate-limit"}
    assert codes == ({"", "http-500", "rate-limit"} if stubborn else {""})
    assert all(reply.code or reply.answer for reply in replies)


def test_answers_without_use_in_a_batch_have_the_reasons_they_have_live(store):
    kinds = ("refusal", "filtered", "no-content", "no-choices", "bad-usage", "length")
    replies = {}
    for mode in ("live", "batch"):
        behaviour = Behaviour(faults=0.6, kinds=kinds, stubborn=True)
        with StubServer(behaviour) as server, Store(store.path.with_name(mode)) as own:
            found = chat(server.url, own, mode=mode).ask_all(requests(40))
        replies[mode] = [(reply.code, reply.answer and reply.answer.text) for reply in found]
    assert replies["batch"] == replies["live"]
    assert len({code for code, _ in replies["live"]}) == 6


class Odd(StubServer):
    """Adds a line for a request of somebody else, and one that is no JSON."""

    def _work_through(self, found):
        super()._work_through(found)
        self.files[found["output_file_id"]] += b'\n{"custom_id": "another"}\n\nnot JSON'


def test_lines_for_other_requests_are_left_alone(store, caplog):
    with Odd() as server:
        replies = chat(server.url, store).ask_all(requests(4))
    assert all(reply.answer for reply in replies)
    assert sum("for no request of it" in record.message for record in caplog.records) == 2


class Forgetful(StubServer):
    """Leaves out the last answer."""

    def _work_through(self, found):
        super()._work_through(found)
        name = found["output_file_id"]
        self.files[name] = b"\n".join(self.files[name].splitlines()[:-1])


def test_an_answer_that_is_missing_has_a_reason_of_its_own(store):
    with Forgetful() as server:
        replies = chat(server.url, store).ask_all(requests(6))
    assert sizes(server) == [5, 1]
    assert [reply.code for reply in replies].count("batch-missing") == 1


def test_a_service_without_batches_says_so(store):
    with (
        StubServer(Behaviour(batch_most=0)) as server,
        pytest.raises(ServiceError, match=r"no Batch API.*llm\.mode: live"),
    ):
        chat(server.url, store).ask_all(requests(3))


def test_batches_need_a_provider_that_has_them():
    with pytest.raises(ConfigError, match=r"llm\.mode: batch needs llm\.provider openai"):
        open_chat(LLMSettings(provider="scripted", answers="no-such.jsonl", mode="batch"))


# ---- budget


def test_a_batch_holds_no_more_than_the_budget_allows(store):
    with StubServer(Behaviour(answer=echo)) as server:
        one = chat(server.url, store, budget={"requests": 7})
        with pytest.raises(ServiceError, match="budget used up: 7 of 7 requests"):
            one.ask_all(requests(20))
        assert len(server.billed) == 7
        chat(server.url, store, budget={"requests": 20}).ask_all(requests(20))
        assert len(server.billed) == len(set(server.billed)) == 20


def test_money_set_aside_for_a_batch_is_given_back_when_it_cost_less(store):
    """A request may take 88 tokens (of them 8 of output) and takes 4 + 4 or so."""
    with StubServer(Behaviour(answer=echo)) as server:
        with pytest.raises(ServiceError, match="budget used up"):
            chat(server.url, store, budget={"tokens": 300}).ask_all(requests(40, max_tokens=8))
        used = sum(
            stored.input_tokens + stored.output_tokens
            for stored in store.answers(
                [row[0] for row in store._reader.execute("SELECT key FROM answers")]
            ).values()
        )
    assert 300 - 95 <= used <= 300
    assert len(server.batches) > 3


# ---- killed, interrupted, cut off


def test_an_answer_lost_on_the_way_does_not_make_a_second_batch(store):
    with StubServer(Behaviour(batch_lost=1)) as server:
        assert all(reply.answer for reply in chat(server.url, store).ask_all(requests(6)))
    assert len(server.batches) == 1
    assert len(server.billed) == 6


CHILD = """
import logging, sys
from pathlib import Path
from embedtune.errors import EmbedtuneError
from embedtune.llm import ChatRequest
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.store import Store

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
with Store(Path(sys.argv[1])) as store:
    settings = LLMSettings(mode="batch", backoff=0.02)
    chat = RecordedChat(OpenAIChat("m", sys.argv[2]), store, settings)
    try:
        replies = chat.ask_all([ChatRequest("system", f"request {n}") for n in range(40)])
    except EmbedtuneError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
    assert all(reply.answer for reply in replies)
"""


def start(path, url):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), url], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_killed_at_any_moment_nothing_is_sent_twice(tmp_path):
    """Kills before, between and after the steps of sending and collecting."""
    order = random.Random(5)
    moments = ("files", "batches", "made", "output", "seconds")
    with StubServer(Behaviour(batch_seconds=0.15)) as server:
        for number, moment in enumerate(moments):
            path = tmp_path / str(number)
            del server.billed[:], server.batches[:]
            server.files.clear()
            child = start(path, server.url)
            reached = {
                "files": lambda: server.files,
                "batches": lambda: server.batches,
                "made": lambda: server.batches and time.sleep(0.03) is None,
                "output": lambda: any("output_file_id" in found for found in server.batches),
                "seconds": lambda: time.sleep(order.random() / 2) is None,
            }[moment]
            while not reached():
                time.sleep(0.001)
            child.kill()
            child.wait()
            assert start(path, server.url).wait(30) == 0
            assert len(server.batches) == 1, moment
            assert len(server.billed) == len(set(server.billed)) == 40, moment


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_ctrl_c_leaves_the_batch_to_the_next_run(tmp_path):
    with StubServer(Behaviour(batch_seconds=60)) as server:
        child = start(tmp_path / "s", server.url)
        assert child.stdout is not None
        while "requests sent" not in (line := child.stdout.readline()):
            assert line
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=10)
        assert child.returncode == 130
        assert "batch_0 is still being worked on; the same command goes on" in out
        server.behaviour.batch_seconds = 0
        assert start(tmp_path / "s", server.url).wait(30) == 0
    assert len(server.batches) == 1
    assert len(server.billed) == 40


def test_a_run_without_batches_warns_of_one_that_holds_its_requests(store, caplog):
    with StubServer(Behaviour(batch_lost=1, batch_seconds=60)) as server:
        impatient = chat(server.url, store, retries=0)
        with pytest.raises(ServiceError):  # the batch was made, its answer did not arrive
            impatient.ask_all(requests(4))
        with pytest.raises(ServiceError, match=r"401.*batch_0 is still being worked on"):
            closing(server, chat(server.url, store, retries=0)).ask_all(requests(4))
        server.behaviour.key = ""
        chat(server.url, store, mode="live").ask_all(requests(4))
    assert any("batch_0 holds 3 of these requests" in record.message for record in caplog.records)


def closing(server, one):
    """Refuse the key as soon as the batch was found again."""
    batch_of = one.model.exchange

    async def exchange(method, path, **content):
        if path.startswith("/batches/"):
            server.behaviour.key = "another"
        return await batch_of(method, path, **content)

    one.model.exchange = exchange
    return one
