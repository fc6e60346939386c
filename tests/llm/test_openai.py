import asyncio
import socket
import ssl
import time
from email.utils import formatdate

import pytest

from embedtune.errors import ConfigError
from embedtune.llm import ChatFault, ChatRequest
from embedtune.llm.openai import (
    GEMINI_URL,
    OpenAIChat,
    check_base_url,
    find_endpoint,
    read_variable,
    retry_after,
)
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


# ---- addresses (G23)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        (" https://api.example.com\n", "https://api.example.com/v1"),
        ("https://open.example.cn/api/paas/v4/", "https://open.example.cn/api/paas/v4"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
    ],
)
def test_an_address_is_brought_into_one_form(given, used):
    assert check_base_url(given) == used


@pytest.mark.parametrize(
    "url",
    ["https://user:secret@h/v1", "file:///etc/passwd", "ftp://h/v1", "https:///v1", "h/v1", "",
     "https://h/v1?key=secret", "https://h:port/v1", "https://user:se cret@h"],
)  # fmt: skip
def test_an_unusable_address_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        check_base_url(url)
    assert "secret" not in str(caught.value)
    assert "llm.base_url" in str(caught.value)


# ---- environment (C10)


def test_an_unset_and_an_empty_variable_are_told_apart():
    assert read_variable("X", {}).state == "not set"
    assert read_variable("X", {"X": "  \n"}).state == "set but empty"


def test_a_line_end_after_the_key_is_stripped_with_a_note():
    found = find_endpoint("m", "https://h", environment={"OPENAI_API_KEY": "sk-1\n"})
    assert found.key == "sk-1"
    assert any("OPENAI_API_KEY" in note and "removed" in note for note in found.notes)
    assert "sk-1" not in repr(found) + str(found.notes)


def test_all_faults_of_the_endpoint_are_told_together():
    with pytest.raises(ConfigError) as caught:
        find_endpoint(None, "file:///x", environment={"OPENAI_API_KEY": ""})
    text = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 3
    assert "scheme" in text
    assert "LLM_MODEL" in text
    assert "OPENAI_API_KEY is set but empty" in text


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"OPENAI_BASE_URL": "https://a", "OPENAI_API_BASE": "https://b"}, "https://a/v1"),
        ({"OPENAI_API_BASE": "https://b/v3"}, "https://b/v3"),
        ({}, "https://api.openai.com/v1"),
    ],
)
def test_the_address_comes_from_the_environment(environment, url):
    found = find_endpoint(None, None, environment={
        "OPENAI_API_KEY": "k", "LLM_MODEL": "from-env", **environment})  # fmt: skip
    assert (found.base_url, found.model) == (url, "from-env")


def test_a_google_key_alone_means_googles_address():
    found = find_endpoint("gemini", None, environment={"GEMINI_API_KEY": "g"})
    assert (found.base_url, found.key, found.key_name) == (GEMINI_URL, "g", "GEMINI_API_KEY")


def test_a_google_key_is_not_sent_elsewhere():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        find_endpoint("m", "https://elsewhere.example", environment={"GEMINI_API_KEY": "g"})


def test_this_machines_own_servers_need_no_key():
    assert find_endpoint("m", "http://localhost:11434/v1", environment={}).key == "none"
    with pytest.raises(ConfigError, match="MY_KEY is not set"):  # unless one is named
        find_endpoint("m", "http://localhost:1", "MY_KEY", environment={})


# ---- asking


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


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        (socket.gaierror(-2, "Name or service not known"), "service", "name"),
        (ssl.SSLCertVerificationError("self-signed certificate"), "stop", "tls"),
    ],
)
def test_faults_on_the_way_are_named_with_the_host(cause, kind, code):
    error = ConnectionError("Connection error.")
    error.__cause__ = cause
    fault = OpenAIChat("m", "http://localhost:1/v1")._unreachable(error)
    assert (fault.kind, fault.code) == (kind, code)
    assert "localhost:1" in fault.message


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    date = formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
