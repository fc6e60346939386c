"""The embeddings route keeps to the OpenAI API, and each wrong request is told what is wrong."""

import base64
import json

import numpy as np
import pytest

from embedtune.embed.local import LocalEmbedder
from embedtune.embed.tokens import load_tokens
from embedtune.serving.models import Source, parse_source


def vectors(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)


def fault(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def test_texts_get_their_vectors_in_order_and_of_length_1(server, vector_of):
    texts = ["one", "二", "a text with more words"]
    found = vectors(server.embed(texts))
    assert np.allclose(found, [vector_of(text) for text in texts], atol=1e-6)
    assert np.allclose(vectors(server.embed("one")), [vector_of("one")], atol=1e-6)


def test_the_form_is_that_of_the_api(server):
    answer = server.embed(["one two", "二"], user="somebody", encoding_format=None).json()
    assert answer["object"] == "list"
    assert answer["model"] == "stub"
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}  # words: 2 + 1


def test_base64_holds_little_endian_floats(server, vector_of):
    item = server.embed("一", encoding_format="base64").json()["data"][0]
    found = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    assert np.allclose(found, vector_of("一"), atol=1e-6)


def test_the_role_comes_from_the_alias_or_the_field_and_is_document_otherwise(server, vector_of):
    query, document = vector_of("a", "query"), vector_of("a", "document")
    assert np.allclose(vectors(server.embed("a")), [document], atol=1e-6)
    assert np.allclose(vectors(server.embed("a", "stub:query")), [query], atol=1e-6)
    assert np.allclose(vectors(server.embed("a", "stub:document")), [document], atol=1e-6)
    assert np.allclose(vectors(server.embed("a", input_type="query")), [query], atol=1e-6)
    assert "stub:query" in server.client.get("/v1/models").json()["data"][0]["aliases"]
    error = fault(server.embed("a", "stub:query", input_type="document"), 422)
    assert error["param"] == "input_type"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("{", 400, None),
        ("", 400, None),
        ('{"model": "stub", "input": "\\ud800"}', 400, None),
        ("[]", 422, None),
        ("null", 422, None),
        ({"model": "stub"}, 422, "input"),
        ({"input": "a"}, 422, "model"),
        ({"model": "stub", "input": None}, 422, "input"),
        ({"model": "stub", "input": 3}, 422, "input"),
        ({"model": "stub", "input": {"a": "b"}}, 422, "input"),
        ({"model": "stub", "input": [["a"]]}, 422, "input"),
        ({"model": "stub", "input": [[[1]]]}, 422, "input"),
        ({"model": "stub", "input": ["a", 1]}, 422, "input"),
        ({"model": "stub", "input": [1, "a"]}, 422, "input"),
        ({"model": "stub", "input": [True]}, 422, "input"),
        ({"model": "stub", "input": [-1]}, 422, "input"),
        ({"model": "stub", "input": "a", "colour": "red"}, 422, "colour"),
        ({"model": 3, "input": "a"}, 422, "model"),
        ({"model": "other", "input": "a"}, 404, "model"),
        ({"model": "stub", "input": "a", "encoding_format": "xml"}, 422, "encoding_format"),
        ({"model": "stub", "input": "a", "dimensions": 0}, 422, "dimensions"),
        ({"model": "stub", "input": "a", "dimensions": -1}, 422, "dimensions"),
        ({"model": "stub", "input": "a", "dimensions": 17}, 422, "dimensions"),
        ({"model": "stub", "input": "a", "dimensions": 8}, 422, "dimensions"),
        ({"model": "stub", "input": "a", "input_type": "passage"}, 422, "input_type"),
    ],
)
def test_v01_v05_wrong_requests_are_told_the_field(server, stub, body, status, param):
    content = body if isinstance(body, str) else json.dumps(body)
    answer = server.client.post(
        "/v1/embeddings", content=content, headers={"content-type": "application/json"}
    )
    assert fault(answer, status)["param"] == param
    assert stub.seen == []
    assert server.client.get("/readyz").status_code == 200


def test_v05_allowed_values_are_named(server):
    assert "'float' or 'base64'" in fault(server.embed("a", encoding_format="x"), 422)["message"]
    assert "16" in fault(server.embed("a", dimensions=17), 422)["message"]
    assert "stub" in fault(server.embed("a", "other"), 404)["message"]


def test_a_body_that_is_not_called_json_is_refused(server):
    answer = server.client.post("/v1/embeddings", data={"model": "stub", "input": "a"})
    assert "application/json" in fault(answer, 422)["message"]


@pytest.mark.parametrize(
    ("value", "place"),
    [("", "input[0]"), ([], "input"), (["a", ""], "input[1]"), ("  \n\t　", "input[0]"),
     (["a", "b", "\x00"], "input[2]"), ([[1], []], "input[1]")],
)  # fmt: skip
def test_v02_nothing_to_embed_names_the_index(server, value, place):
    assert fault(server.embed(value), 422)["message"].startswith(f"{place}:")


def test_dimensions_are_cut_and_normalised_again_where_allowed(serving, stub, vector_of):
    with serving(stub, any_dimension=True) as server:
        found = vectors(server.embed("a", dimensions=4))
        expected = vector_of("a")[:4]
        assert np.allclose(found, [expected / np.linalg.norm(expected)], atol=1e-6)
        assert fault(server.embed("a", dimensions=17), 422)["param"] == "dimensions"


def test_vectors_for_the_dot_product_keep_their_length(serving, stub, vector_of):
    stub.similarity = "dot"
    with serving(stub) as server:
        assert np.allclose(vectors(server.embed("a")), [3 * vector_of("a")], atol=1e-5)


def test_models_are_listed_and_found_by_name(server):
    (entry,) = server.client.get("/v1/models").json()["data"]
    assert entry["id"] == "stub"
    assert entry["dimension"] == 16
    assert server.client.get("/v1/models/stub").json() == entry
    assert server.client.get("/v1/models/stub:query").json() == entry
    assert fault(server.client.get("/v1/models/other"), 404)["code"] == "model_not_found"


def test_names_are_the_folder_s_or_given():
    assert parse_source("docs=some/place") == Source("docs", "some/place")
    assert parse_source("owner/name") == Source("owner/name", "owner/name")


# ---- with a real tokenizer

LONG = "robot " * 100  # 100 tokens and two special ones; the tiny model reads 64


@pytest.fixture(scope="module")
def tiny(tiny_model, serving):
    with serving(sources=[Source("tiny", str(tiny_model))]) as own:
        yield own


def test_served_vectors_are_those_of_the_library(tiny, tiny_model):
    texts = ["the robot stops at night", "机器人电池费用", "dock", "a [SEP] b"]
    found = vectors(tiny.embed(texts, "tiny"))
    embedder = LocalEmbedder(str(tiny_model))
    assert np.abs(found - embedder.embed(texts, "document")).max() < 1e-5
    plain = embedder.model.encode(texts)
    assert np.abs(found - plain).max() < 1e-5


def test_usage_counts_the_tokens_that_the_model_reads(tiny):
    usage = tiny.embed(["the robot", "机器"], "tiny").json()["usage"]
    assert usage["prompt_tokens"] == (2 + 2) + (2 + 2)  # words, or characters, and two special


def test_v04_too_long_is_refused_with_given_and_allowed(tiny):
    for value, place in ((LONG, 0), (["dock", LONG], 1)):
        error = fault(tiny.embed(value, "tiny"), 422)
        assert error["code"] == "context_length_exceeded"
        assert error["message"].startswith(f"input[{place}]: 102 tokens; the model reads 64")


def test_v04_or_cut_and_marked(serving, tiny_model):
    with serving(sources=[Source("tiny", str(tiny_model))], too_long="truncate") as server:
        alone = server.embed(LONG, "tiny")
        both = server.embed(["dock", LONG], "tiny")
        assert [item["truncated"] for item in alone.json()["data"]] == [True]
        assert [item["truncated"] for item in both.json()["data"]] == [False, True]
        assert alone.json()["usage"]["prompt_tokens"] == 64
        expected = LocalEmbedder(str(tiny_model)).embed([LONG], "document")
        assert np.abs(vectors(alone) - expected).max() < 1e-5
        assert np.abs(vectors(both)[1] - vectors(alone)[0]).max() < 1e-5


@pytest.mark.parametrize("special", [True, False])
def test_token_ids_give_the_vector_of_their_text(tiny, tiny_model, special):
    texts = ["Do not dock; the robot isn't ripe.", "机器人 电池 row", "夜 ☃ 班"]
    tokenizer = load_tokens(str(tiny_model))._tokenizer
    ids = [tokenizer.encode(text, add_special_tokens=special).ids for text in texts]
    assert (
        np.abs(vectors(tiny.embed(ids, "tiny")) - vectors(tiny.embed(texts, "tiny"))).max() < 1e-5
    )
    one = vectors(tiny.embed(ids[0], "tiny"))
    assert np.abs(one - vectors(tiny.embed(texts[:1], "tiny"))).max() < 1e-5


def test_token_ids_of_another_tokenizer_are_refused(tiny):
    for ids in ([100_000, 5], [2, 2, 2], [4, 0, 4]):
        error = fault(tiny.embed([[5], ids], "tiny"), 422)
        assert error["message"].startswith("input[1]: these token ids spell no text")
