"""The stand-in must be good enough to stand in: real HTTP, sensible questions, all endpoints."""

import openai
import pytest

from embedtune.queries.prompts import judgement_prompt
from stub_server import StubServer, embedding, judgement, questions

ENGLISH = (
    "The fee is €640 and includes boots. Orchard robots must pass the safety inspection yearly."
)
CHINESE = "采摘机器人每年须通过安全检查。报名费为六百四十欧元，包含一双靴子。"


@pytest.mark.parametrize("passage", [ENGLISH, CHINESE])
def test_questions_rest_on_sentences_of_the_passage(passage):
    asked = questions(passage, ["question", "keywords", "colloquial", "scenario"])
    assert [query["style"] for query in asked] == ["question", "keywords", "colloquial", "scenario"]
    assert all(query["evidence"] in passage for query in asked)
    assert len({query["query"] for query in asked}) == 4
    assert asked == questions(passage, ["question", "keywords", "colloquial", "scenario"])


def test_the_passage_that_answers_is_judged_best():
    _, user = judgement_prompt(
        "which boots are included", [CHINESE, ENGLISH], language="en", digest="d"
    )
    (answer,) = judgement(user)
    assert answer["passage"] == 2
    assert "boots" in answer["evidence"]


def test_all_endpoints_speak_to_the_sdk():
    with StubServer() as server:
        client = openai.OpenAI(base_url=server.url, api_key="k", max_retries=0)
        assert client.models.list().data[0].id == "stub"
        data = client.embeddings.create(
            model="m", input=["one", "another"], encoding_format="float"
        ).data
        client.close()
    assert data[1].embedding == pytest.approx(embedding("another"))
    assert sum(value**2 for value in data[0].embedding) == pytest.approx(1)
