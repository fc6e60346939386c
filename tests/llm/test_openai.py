import asyncio

import pytest

from embedtune.llm import ChatFault, ChatRequest
from embedtune.llm.openai import OpenAIChat
from stub_server import Behaviour, StubServer

SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
REQUEST = ChatRequest("system", "1. question: x\nThe fee is twelve euros a month here.", SCHEMA)


def ask(url, request=REQUEST, model="m", timeout=5.0):
    async def main():
        chat = OpenAIChat(model, url, timeout=timeout)
        try:
            return await chat.ask(request)
        finally:
            await chat.close()

    return asyncio.run(main())


def fault_of(behaviour, **options):
    with StubServer(behaviour) as server, pytest.raises(ChatFault) as caught:
        ask(server.url, **options)
    return caught.value


def test_an_answer_comes_with_usage_and_raw_body():
    with StubServer() as server:
        answer = ask(server.url)
    assert answer.finish == "stop"
    assert answer.input_tokens is not None
    assert answer.input_tokens > 0
    assert "chatcmpl" in answer.raw


def test_the_form_of_answer_steps_down_and_is_remembered():
    async def main(url):
        chat = OpenAIChat("m", url)
        await chat.ask(REQUEST)
        await chat.ask(REQUEST)
        await chat.close()

    with StubServer(Behaviour(formats=())) as server:
        asyncio.run(main(server.url))
        forms = [body.get("response_format", {}).get("type") for _, body in server.requests]
    assert forms == ["json_schema", "json_object", None, None]


def test_without_a_schema_no_form_is_asked_for():
    with StubServer(Behaviour(formats=())) as server:
        ask(server.url, ChatRequest("s", "u"))
        assert len(server.requests) == 1


def test_a_second_attempt_reminds_of_the_form():
    with StubServer() as server:
        ask(server.url, ChatRequest("s", "u", attempt=1))
        assert "could not be used" in server.requests[0][1]["messages"][-1]["content"]


def test_a_wrong_key_stops_and_names_the_variable(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    fault = fault_of(Behaviour(key="another"))
    assert fault.kind == "stop"
    assert "OPENAI_API_KEY" in fault.message
    assert "sk-very-secret" not in fault.message + fault.raw


def test_an_unknown_model_stops_and_names_model_and_address():
    with StubServer(Behaviour(model="real")) as server, pytest.raises(ChatFault) as caught:
        ask(server.url, model="imagined")
    assert caught.value.kind == "stop"
    assert "imagined" in caught.value.message
    assert server.url in caught.value.message


def test_a_passage_beyond_the_window_is_refused_for_good():
    fault = fault_of(Behaviour(window=10))
    assert (fault.kind, fault.code) == ("request", "passage-too-long")


@pytest.mark.parametrize(
    ("kind", "fault", "code"),
    [
        ("429", "wait", "rate-limit"),
        ("500", "service", "http-500"),
        ("reset", "service", "connection"),
        ("cut-body", "service", "connection"),
        ("empty-body", "answer", "empty-body"),
        ("html", "answer", "html"),
        ("not-json", "answer", "not-json"),
        ("no-choices", "answer", "no-choices"),
        ("no-content", "answer", "no-content"),
    ],
)
def test_each_fault_of_the_service_has_its_kind_and_code(kind, fault, code):
    found = fault_of(Behaviour(faults=1, kinds=(kind,)))
    assert (found.kind, found.code) == (fault, code)
    assert "127.0.0.1" in found.message


@pytest.mark.parametrize(
    ("kind", "finish"),
    [("length", "length"), ("filtered", "content_filter"), ("refusal", "refusal")],
)
def test_the_reason_why_an_answer_ended_is_kept(kind, finish):
    with StubServer(Behaviour(faults=1, kinds=(kind,))) as server:
        assert ask(server.url).finish == finish


def test_nonsense_in_usage_is_unknown_usage():
    with StubServer(Behaviour(faults=1, kinds=("bad-usage",))) as server:
        answer = ask(server.url)
    assert (answer.input_tokens, answer.output_tokens) == (None, None)


def test_a_refused_connection_names_the_host():
    with StubServer() as server:
        url = server.url
    with pytest.raises(ChatFault) as caught:
        ask(url)
    assert caught.value.kind == "service"
    assert url.split("/")[2] in caught.value.message


def test_https_asked_of_a_plain_server_is_told_as_a_tls_fault():
    with StubServer() as server, pytest.raises(ChatFault) as caught:
        ask(server.url.replace("http:", "https:"))
    assert (caught.value.kind, caught.value.code) == ("service", "tls")
    assert "https against http" in caught.value.message
