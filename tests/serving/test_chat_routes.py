"""The chat route over real HTTP: the whole server before a language model's stand-in."""

import functools
import json
import time
from contextlib import contextmanager

import httpx
import openai
import pytest

from embedtune.llm.openai import OpenAIChat
from embedtune.retrieve.answer.answering import Answerer, AnswerSettings
from embedtune.serving import chat_routes
from embedtune.serving.models import Source
from stub_server import Behaviour, StubServer

NIGHT = "What does a night shift cost?"


@pytest.fixture
def running(index, serving, monkeypatch):
    """Starts a server behind all that stands before the route; ``most`` is that of the route."""

    @contextmanager
    def start(behaviour, *, most=16, **settings):
        route = functools.partial(chat_routes.add_chat_routes, most=most)
        monkeypatch.setattr(chat_routes, "add_chat_routes", route)
        with StubServer(behaviour) as upstream:
            chat = OpenAIChat("stub-1", upstream.url)
            answerer = Answerer(index, chat, AnswerSettings(**settings))
            with serving(sources=[Source("hashing", "hashing")], answerer=answerer) as server:
                yield f"{server.url}/v1", upstream

    return start


def saying(text="The fee is 12 euros [1]. Sure [9].", **more):
    return Behaviour(answer=lambda body: text, **more)


def client(url):
    return openai.OpenAI(base_url=url, api_key="k", max_retries=0)


def post(url, timeout=10, **body):
    body = {"model": "embedtune", "messages": [{"role": "user", "content": NIGHT}], **body}
    with httpx.Client(trust_env=False, timeout=timeout) as http:
        return http.post(f"{url}/chat/completions", json=body)


def messages(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_the_official_client_gets_an_answer_with_citations(running):
    with running(saying()) as (url, _), client(url) as ask:
        found = ask.chat.completions.create(model="stub-1", messages=messages(NIGHT))
    (choice,) = found.choices
    text, _, listed = choice.message.content.partition("\n\n")
    assert text == "The fee is 12 euros [1]. Sure."
    assert listed == "Sources:\n[1] fees.md, p. 3"
    assert choice.finish_reason == "stop"
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    (citation,) = found.citations
    assert citation["source"] == "fees.md"
    assert citation["page"] == 3
    assert citation["quote"] == "The night fee is 12 euros a shift."
    assert found.embedtune["status"] == "answered"
    assert found.embedtune["removed_citations"] == [9]


def test_a_stream_is_the_same_answer_in_pieces(running):
    with running(saying()) as (url, _), client(url) as ask:
        whole = ask.chat.completions.create(model="stub-1", messages=messages(NIGHT))
        chunks = list(
            ask.chat.completions.create(
                model="stub-1", messages=messages(NIGHT), stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip
    *parts, usage = chunks
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert len(parts) > 4
    assert parts[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert parts[-1].citations == whole.citations
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert len({part.id for part in chunks}) == 1


def test_a_stream_is_server_sent_events_with_an_end(running):
    with running(saying()) as (url, _):
        answer = post(url, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


def test_a_question_in_chinese_is_answered_in_chinese(running):
    behaviour = saying("每班十二欧元【1】。")
    with running(behaviour) as (url, upstream):
        found = post(url, messages=messages("夜班费用是多少？")).json()
        system = upstream.requests[0][1]["messages"][0]["content"]
    assert (
        found["choices"][0]["message"]["content"]
        == "每班十二欧元[1]。\n\n来源：\n[1] 手册.md, p. 2"
    )
    assert system.startswith("你根据")


def test_the_message_before_makes_the_question_stand_alone(running):
    talk = messages("How long does a battery need?", "Ninety minutes.", "And when it is flat?")
    rules = {"role": "system", "content": "Answer in one word."}
    with running(saying("Ninety [1].")) as (url, upstream):
        found = post(url, messages=[rules, *talk]).json()
        system, user = (m["content"] for m in upstream.requests[0][1]["messages"])
    assert found["citations"][0]["source"] == "battery.md"
    assert system.endswith("Answer in one word.")
    assert "How long does a battery need?" in user
    assert "Ninety minutes." not in user.split("asked before")[1]


def test_what_is_not_in_the_documents_is_no_error(running):
    with running(saying(), min_score=0.99) as (url, upstream):
        found = post(url).json()
        assert upstream.requests == []
    assert found["choices"][0]["message"]["content"] == "The documents do not answer this question."
    assert found["citations"] == []
    assert found["embedtune"]["reason"] == "weak"
    assert found["usage"]["total_tokens"] == 0


def test_limits_of_the_caller_reach_the_model(running):
    with running(saying(), max_tokens=100) as (url, upstream):
        post(url, max_completion_tokens=7, temperature=0.5)
        post(url, max_tokens=1000)
        first, second = (body for _, body in upstream.requests)
    assert (first["max_tokens"], first["temperature"]) == (7, 0.5)
    assert (second["max_tokens"], second["temperature"]) == (100, 0.0)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": "  "}]},
        {"messages": [{"role": "assistant", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": "x" * 20_001}]},
        {"messages": "What?"},
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 0},
        {"temperature": -1},
        {"stream": "yes"},
    ],
)
def test_what_cannot_be_answered_is_refused_before_any_model_is_asked(running, body):
    with running(saying()) as (url, upstream):
        assert post(url, **body).status_code == 422
        assert upstream.requests == []


def test_an_unknown_model_is_named_in_the_form_of_the_interface(running):
    with running(saying()) as (url, _), client(url) as ask:
        with pytest.raises(openai.NotFoundError) as caught:
            ask.chat.completions.create(model="gpt-x", messages=messages(NIGHT))
        assert caught.value.code == "model_not_found"
        assert "stub-1" in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status", "wait"),
    [
        (saying(faults=1.0, stubborn=True, kinds=("503",)), 503, "5"),
        (saying(faults=1.0, stubborn=True, kinds=("429-seconds",), retry_after=40), 503, "40"),
        (saying(faults=1.0, stubborn=True, kinds=("reset",)), 503, "5"),
        (saying(faults=1.0, stubborn=True, kinds=("html",)), 502, "5"),
        (saying(key="another"), 502, "5"),
        (saying(latency=3.0), 504, "5"),
        (saying(window=10), 400, None),
    ],
    ids=["503", "429", "reset", "html", "key", "slow", "too-long"],
)
def test_faults_of_the_language_model_have_their_status(running, behaviour, status, wait, stream):
    with running(behaviour, timeout=0.5) as (url, upstream):
        answer = post(url, stream=stream)
        host = upstream.url.split("/")[2]
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == wait
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert host not in answer.text
    assert "OPENAI_API_KEY" not in answer.text


@pytest.mark.parametrize("end", ["cut", "error"])
def test_a_stream_that_breaks_off_says_so(running, end):
    with running(saying("word " * 50, stream_end=end)) as (url, _), client(url) as ask:
        stream = ask.chat.completions.create(model="stub-1", messages=messages(NIGHT), stream=True)
        with pytest.raises(openai.APIError):
            list(stream)
        assert "[DONE]" not in post(url, stream=True).text


@contextmanager
def reading(url):
    """A stream of which the first part has come."""
    body = {"model": "embedtune", "stream": True, "messages": messages(NIGHT)}
    with (
        httpx.Client(trust_env=False, timeout=5) as http,
        http.stream("POST", f"{url}/chat/completions", json=body) as answer,
    ):
        parts = answer.iter_text()
        next(parts)
        yield answer


def test_a_client_that_leaves_ends_the_work_upstream(running):
    with running(saying("word " * 4_000, pace=0.02)) as (url, upstream):
        with pytest.raises(httpx.ReadTimeout):
            post(url, timeout=0.5)
        until(lambda: upstream.sent["left"] == 1)
        with reading(url):
            pass
        until(lambda: upstream.sent["left"] == 2)


def test_more_than_so_many_at_a_time_are_told_to_wait_and_places_come_back(running):
    with running(saying("word " * 4_000, pace=0.02), most=1) as (url, upstream):
        for left in (1, 2):
            with reading(url) as answer:
                assert answer.status_code == 200
                refused = post(url)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
            until(lambda left=left: upstream.sent["left"] == left)


def test_hostile_characters_in_a_question_are_no_fault(running):
    with running(saying()) as (url, _):
        body = json.dumps(
            {"model": "embedtune", "messages": messages("night \ud800 \x00 fee? \u202e")}
        )
        with httpx.Client(trust_env=False) as http:
            answer = http.post(
                f"{url}/chat/completions",
                content=body,
                headers={"content-type": "application/json"},
            )
    assert answer.status_code == 200


def test_the_route_is_in_the_description_of_the_interface(running):
    with running(saying()) as (url, _), httpx.Client(trust_env=False) as http:
        described = http.get(f"{url.removesuffix('/v1')}/openapi.json").json()
    route = described["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "404", "422", "429", "502", "503", "504"} <= set(route["responses"])
    assert "text/event-stream" in route["responses"]["200"]["content"]
