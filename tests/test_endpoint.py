import functools
import socket
import ssl
import time
from email.utils import formatdate

import pytest

from embedtune.endpoint import (
    GEMINI_URL,
    Endpoint,
    backoff,
    check_base_url,
    find_endpoint,
    read_variable,
    refused,
    retry_after,
    unreachable,
)
from embedtune.errors import ConfigError

find = functools.partial(find_endpoint, model_variable="LLM_MODEL")
LOCAL = Endpoint("http://localhost:1/v1", "m", "sk-very-secret", "MY_KEY", "llm")


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
    assert str(caught.value).startswith("base_url: ")


# ---- environment (C10)


def test_an_unset_and_an_empty_variable_are_told_apart():
    assert read_variable("X", {}).state == "not set"
    assert read_variable("X", {"X": "  \n"}).state == "set but empty"


def test_a_line_end_after_the_key_is_stripped_with_a_note():
    found = find("m", "https://h", environment={"OPENAI_API_KEY": "sk-1\n"})
    assert found.key == "sk-1"
    assert any("OPENAI_API_KEY" in note and "removed" in note for note in found.notes)
    assert "sk-1" not in repr(found) + str(found.notes)


def test_all_faults_of_the_endpoint_are_told_together():
    with pytest.raises(ConfigError) as caught:
        find(None, "file:///x", environment={"OPENAI_API_KEY": ""})
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
    found = find(None, None, environment={
        "OPENAI_API_KEY": "k", "LLM_MODEL": "from-env", **environment})  # fmt: skip
    assert (found.base_url, found.model) == (url, "from-env")


def test_a_google_key_alone_means_googles_address():
    found = find("gemini", None, environment={"GEMINI_API_KEY": "g"})
    assert (found.base_url, found.key, found.key_name) == (GEMINI_URL, "g", "GEMINI_API_KEY")


def test_a_google_key_is_not_sent_elsewhere():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        find("m", "https://elsewhere.example", environment={"GEMINI_API_KEY": "g"})


def test_this_machines_own_servers_need_no_key():
    assert find("m", "http://localhost:11434/v1", environment={}).key == "none"
    with pytest.raises(ConfigError, match="MY_KEY is not set"):  # unless one is named
        find("m", "http://localhost:1", "MY_KEY", environment={})


# ---- faults


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, "no", "stop", "key"),
        (403, "", "stop", "key"),
        (402, "", "stop", "no-credit"),
        (429, '{"error": {"code": "insufficient_quota"}}', "stop", "no-credit"),
        (429, "slow down", "wait", "rate-limit"),
        (404, "", "stop", "not-found"),
        (405, "", "stop", "address"),
        (301, "", "stop", "address"),
        (408, "", "service", "http-408"),
        (500, "", "service", "http-500"),
        (502, "<html>", "service", "http-502"),
        (503, "", "service", "http-503"),
        (529, "", "service", "http-529"),
        (413, "", "request", "passage-too-long"),
        (400, "maximum context length is 10", "request", "passage-too-long"),
        (400, "content_filter", "request", "content-filter"),
        (422, "", "request", "bad-request"),
    ],
)
def test_each_refusal_says_what_may_help(status, body, kind, code):
    fault = refused(LOCAL, status, {"retry-after": "3"}, body)
    assert (fault.kind, fault.code, fault.retry_after) == (kind, code, 3)
    assert f"localhost:1 answered {status}" in fault.message


def test_a_refusal_names_the_variable_or_the_setting_to_look_at():
    assert "MY_KEY" in refused(LOCAL, 403, {}, "").message
    assert "llm.model and llm.base_url" in refused(LOCAL, 404, {}, "").message
    assert LOCAL.text(b"your key sk-very-secret is wrong") == "your key [key] is wrong"


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        (socket.gaierror(-2, "Name or service not known"), "service", "name"),
        (ssl.SSLCertVerificationError("self-signed certificate"), "stop", "tls"),
        (ssl.SSLError("wrong version number"), "service", "tls"),
        (TimeoutError("timed out"), "service", "timeout"),
        (ConnectionResetError("reset by peer"), "service", "connection"),
    ],
)
def test_faults_on_the_way_are_named_with_the_host(cause, kind, code):
    error = ConnectionError("Connection error.")
    error.__cause__ = cause
    fault = unreachable(LOCAL, error)
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


def test_waiting_doubles_with_a_quarter_of_jitter_up_to_a_minute():
    assert 1 <= backoff(1, 1) <= 1.25
    assert 4 <= backoff(1, 3) <= 5
    assert 60 <= backoff(1, 20) <= 75
