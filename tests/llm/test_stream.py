import asyncio

import pytest

from embedtune.llm import ChatAnswer, ChatFault, ChatRequest
from embedtune.llm.openai import OpenAIChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.llm.stream import stream
from stub_server import Behaviour, StubServer

REQUEST = ChatRequest("system", "user")
TEXT = "The night fee is 12 euros a shift [1]. 夜班费用为十二欧元。"


def streamed(model, *, request=REQUEST, timeout=5.0, **options):
    """The pieces, and the whole answer."""

    async def main():
        try:
            return [item async for item in stream(model, request, timeout=timeout, **options)]
        finally:
            await model.close()

    *pieces, answer = asyncio.run(main())
    assert isinstance(answer, ChatAnswer)
    assert all(isinstance(piece, str) for piece in pieces)
    return pieces, answer


def answering(text=TEXT, **more):
    return Behaviour(answer=lambda body: text, **more)


def test_pieces_come_one_by_one_and_make_up_the_answer():
    with StubServer(answering()) as server:
        pieces, answer = streamed(OpenAIChat("m", server.url))
        sent = server.requests[0][1]
    assert len(pieces) == -(-len(TEXT) // 8)
    assert "".join(pieces) == answer.text == TEXT
    assert answer.finish == "stop"
    assert answer.output_tokens == len(TEXT) // 4  # as the stand-in counts
    assert sent["stream"] is True
    assert sent["messages"][0] == {"role": "system", "content": "system"}


def test_the_first_piece_is_there_before_the_last_was_sent():
    async def main(url):
        model = OpenAIChat("m", url)
        pieces = stream(model, REQUEST, timeout=5)
        first = await anext(pieces)
        done = len(server.served)
        await pieces.aclose()
        await model.close()
        return first, done

    with StubServer(answering("word " * 2_000, pace=0.02)) as server:
        first, _ = asyncio.run(main(server.url))
        for _ in range(200):  # the server learns of it when it writes
            if server.sent["left"]:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert server.sent["left"] == 1, "leaving in the middle ends the request"
    assert first == "word wor"


def test_a_server_that_does_not_stream_gives_one_piece():
    with StubServer(answering(streams=False)) as server:
        pieces, answer = streamed(OpenAIChat("m", server.url))
    assert pieces == [TEXT]
    assert answer.text == TEXT


def test_a_model_that_is_no_server_gives_one_piece():
    pieces, answer = streamed(ScriptedChat(lambda request: TEXT))
    assert pieces == [TEXT]
    assert answer.text == TEXT


def test_thoughts_are_left_out_while_they_come():
    text = "\n<think>Is it [9]? Perhaps.</think>\n\nTwelve euros [1]."
    with StubServer(answering(text)) as server:
        pieces, answer = streamed(OpenAIChat("m", server.url))
    assert "".join(pieces).strip() == answer.text.strip() == "Twelve euros [1]."


def test_a_tag_that_is_no_thought_comes_out():
    with StubServer(answering("<the> tag")) as server:
        pieces, _ = streamed(OpenAIChat("m", server.url))
    assert "".join(pieces) == "<the> tag"


@pytest.mark.parametrize(("end", "code"), [("cut", "cut-body"), ("error", "http-500")])
def test_a_stream_that_ends_in_the_middle_is_a_fault_and_not_asked_again(end, code):
    with StubServer(answering(stream_end=end)) as server, pytest.raises(ChatFault) as caught:
        streamed(OpenAIChat("m", server.url), tries=3, first_wait=0.01)
    assert caught.value.code == code
    assert len(server.requests) == 1


def test_a_service_that_fails_before_the_first_piece_is_asked_again():
    behaviour = answering(faults=1.0, kinds=("503",))  # the first try only
    with StubServer(behaviour) as server:
        _, answer = streamed(OpenAIChat("m", server.url), tries=2, first_wait=0.01)
        assert len(server.requests) == 2
    assert answer.text == TEXT


def test_a_service_that_asks_for_a_long_pause_is_not_waited_for():
    behaviour = answering(faults=1.0, kinds=("429-seconds",), retry_after=3600)
    with StubServer(behaviour) as server, pytest.raises(ChatFault) as caught:
        streamed(OpenAIChat("m", server.url), tries=5)
    assert caught.value.retry_after == 3600


def test_a_stream_that_dawdles_ends_at_the_deadline():
    slow = answering("word " * 2_000, pace=0.05)
    with StubServer(slow) as server, pytest.raises(ChatFault) as caught:
        streamed(OpenAIChat("m", server.url), timeout=0.4)
    assert caught.value.code == "timeout"


def test_an_option_that_the_server_refuses_is_left_out():
    def answer(body):
        return TEXT

    class Picky(StubServer):
        def reply(self, body):
            if "stream_options" in body:
                said = {"error": {"message": "stream_options is not supported"}}
                return 400, said, "refused"
            return super().reply(body)

    with Picky(Behaviour(answer=answer)) as server:
        _, found = streamed(OpenAIChat("m", server.url))
        assert len(server.requests) == 2
    assert found.text == TEXT
    assert found.output_tokens is None
