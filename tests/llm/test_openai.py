import asyncio
import datetime
import http.server
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory):
    """The address of a server whose certificate nobody has signed but itself, and that file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}/v1", file
    server.shutdown()
    server.server_close()


def test_a_certificate_nobody_trusts_stops_and_names_the_host_and_the_remedy(self_signed):
    url, _ = self_signed
    with pytest.raises(ChatFault) as caught:
        ask(url)
    assert (caught.value.kind, caught.value.code) == ("stop", "tls")
    assert "localhost:" in caught.value.message
    assert "SSL_CERT_FILE" in caught.value.message


def test_the_remedy_for_an_untrusted_certificate_helps(self_signed, monkeypatch):
    url, file = self_signed
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ChatFault) as caught:
        ask(url)
    assert caught.value.code == "http-501"  # it spoke, and knows no POST


def test_a_name_that_is_not_found_is_told_with_the_host(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(ChatFault) as caught:
        ask("http://no-such-host.invalid/v1")
    assert (caught.value.kind, caught.value.code) == ("service", "name")
    assert "no-such-host.invalid" in caught.value.message
    assert "llm.base_url" in caught.value.message


def test_a_body_that_never_ends_is_cut_off_and_its_start_kept(monkeypatch):
    monkeypatch.setattr("embedtune.llm.openai.LARGEST_BODY", 10_000)
    with (
        StubServer(Behaviour(answer=lambda body: "x" * 20_000)) as server,
        pytest.raises(ChatFault) as caught,
    ):
        ask(server.url)
    assert (caught.value.kind, caught.value.code) == ("answer", "too-large")
    assert "chatcmpl" in caught.value.raw


def test_a_redirect_is_not_followed_with_the_key():
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        seen: list[str] = []  # noqa: RUF012

        def do_POST(self):
            self.seen.append(self.path)
            self.send_response(307)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(ChatFault) as caught:
        ask(f"http://127.0.0.1:{server.server_address[1]}/v1")
    server.shutdown()
    server.server_close()
    assert (caught.value.kind, caught.value.code) == ("stop", "address")
    assert Elsewhere.seen == ["/v1/chat/completions"]


def test_further_fields_are_sent_and_are_part_of_the_name():
    async def main(url):
        chat = OpenAIChat("m", url, extra={"thinking": {"type": "disabled"}, "temperature": None})
        await chat.ask(REQUEST)
        await chat.close()
        return chat.name

    with StubServer() as server:
        name = asyncio.run(main(server.url))
        sent = server.requests[0][1]
    assert sent["thinking"] == {"type": "disabled"}
    assert sent["temperature"] is None
    assert name == 'openai:m{"temperature":null,"thinking":{"type":"disabled"}}'
    assert OpenAIChat("m", server.url).name == "openai:m"


@pytest.mark.parametrize("opening", ["<think>\n", "\n <think>", ""])
def test_thoughts_before_an_answer_are_not_part_of_it(opening):
    text = opening + 'Maybe {"queries": []}?\n</think>\n\n{"queries": [1]}'
    with StubServer(Behaviour(answer=lambda body: text)) as server:
        answer = ask(server.url)
    assert answer.text == '{"queries": [1]}'
    assert "Maybe" in answer.raw


@pytest.mark.parametrize(
    "text", ['{"evidence": "the tag </think> ends it"}', '```json\n["</think>"]```', "<b></think>"]
)
def test_an_answer_that_speaks_of_thoughts_stays_as_it_is(text):
    with StubServer(Behaviour(answer=lambda body: text)) as server:
        assert ask(server.url).text == text


def test_an_organisation_is_told_to_openai_and_to_nobody_else(monkeypatch):
    from embedtune.llm.openai import http_library

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    headers = [
        OpenAIChat("m", url)._connect(http_library()).headers
        for url in ("https://api.openai.com/v1", "https://elsewhere.example/v1")
    ]
    assert headers[0]["openai-organization"] == "org-1"
    assert "openai-organization" not in headers[1]
