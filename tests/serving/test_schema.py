"""The description of the interface is true: made-up requests get documented answers only."""

import os
import time
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from embedtune.llm.openai import OpenAIChat
from embedtune.retrieve.answer.answering import Answerer, AnswerSettings
from embedtune.serving.keys import Keys
from stub_server import Behaviour, StubServer

CHAT = "/v1/chat/completions"
PROVE = bool(os.environ.get("PROVE"))
EXAMPLES = 5000 if PROVE else 200
ADMIN = "key-of-the-admin"


@pytest.fixture(scope="module")
def server(serving, make_stub, index):
    headers = {"authorization": f"Bearer {ADMIN}"}
    with StubServer(Behaviour(answer=lambda body: "It is 12 euros [1].")) as upstream:
        chat = OpenAIChat("stub-1", upstream.url)
        answerer = Answerer(index, chat, AnswerSettings(timeout=30))
        with serving(make_stub(), keys=Keys(admin=[ADMIN]), headers=headers, answerer=answerer,
                     any_dimension=True) as own:  # fmt: skip
            yield own


def make_answerable(body: object) -> None:
    """What a description cannot say: which models there are, and that the last message asks."""
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = "embedtune"
    if isinstance(body, dict) and isinstance(body.get("messages"), list) and body["messages"]:
        body["messages"].append({"role": "user", "content": "What is the night fee?"})


def test_made_up_requests_get_documented_answers_and_no_5xx(server, prove):
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_schema_conformance,
        status_code_conformance,
    )

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [own.ok() for own in schema.get_all_operations()]
    assert len(operations) == 9
    seen: Counter[tuple[str, int]] = Counter()
    begin = time.monotonic()
    for operation in operations:
        # most calls go to the routes that read a body
        parts = {"/v1/embeddings": 1, CHAT: 5}
        share = EXAMPLES // parts.get(operation.path, 20)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=max(1, share // 2), deadline=None, database=None, derandomize=True,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                if case.operation.path == CHAT:
                    make_answerable(case.body)
                answer = case.call(headers={"authorization": f"Bearer {ADMIN}"})
                seen[case.operation.path, answer.status_code] += 1
                case.validate_response(
                    answer,
                    checks=[
                        not_a_server_error, status_code_conformance, content_type_conformance,
                        response_schema_conformance, negative_data_rejection,
                    ],
                )  # fmt: skip

            with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
                ask()
    assert sum(seen.values()) >= EXAMPLES, seen
    assert seen["/v1/embeddings", 200] >= EXAMPLES // 20
    assert seen["/v1/embeddings", 422] >= EXAMPLES // 20
    assert seen[CHAT, 200]
    assert seen[CHAT, 422] >= EXAMPLES // 20
    if PROVE:
        statuses = Counter()
        for (_, status), count in seen.items():
            statuses[status] += count
        told = ", ".join(f"{count:,} of {status}" for status, count in sorted(statuses.items()))
        prove(
            "server schema",
            "The server answers as its description says",
            f"{statuses.total():,} made-up requests (schemathesis, right and wrong ones) to "
            f"{len(operations)} routes: 0 answers of 5xx, 0 that are not in the description; "
            f"{told}.",
            time.monotonic() - begin,
            "tests/serving/test_schema.py",
        )
