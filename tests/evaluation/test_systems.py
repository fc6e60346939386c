"""How users name systems."""

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.embed.remote import EmbeddingSettings, Purse
from embedtune.errors import ConfigError
from embedtune.evaluation.systems import (
    System,
    matryoshka_dimensions,
    open_embedder,
    parse_system,
    parse_systems,
    system_text,
)


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("bm25", System("bm25", "bm25")),
        ("lexical=BM25", System("lexical", "bm25")),
        ("all-MiniLM-L6-v2", System("all-MiniLM-L6-v2", "dense", "local", "all-MiniLM-L6-v2")),
        ("./a=b/model", System("./a=b/model", "dense", "local", "./a=b/model")),
        ("tuned=runs/x/model", System("tuned", "dense", "local", "runs/x/model")),
        ("hybrid:org/m", System("hybrid:org/m", "hybrid", "local", "org/m")),
        ("h=hybrid:openai:m-3", System("h", "hybrid", "openai", "m-3")),
        ("openai:text-embedding-3-small",
         System("openai:text-embedding-3-small", "api", "openai", "text-embedding-3-small")),
        ("hashing:64", System("hashing:64", "dense", "hashing", "64")),
        (r"C:\models\m", System(r"C:\models\m", "dense", "local", r"C:\models\m")),
        ("c=cohere:embed-x", System("c", "api", "cohere", "embed-x")),
        ("hybrid:cohere:embed-x", System("hybrid:cohere:embed-x", "hybrid", "cohere", "embed-x")),
        ("org/m?pooling=cls",
         System("org/m?pooling=cls", "dense", "local", "org/m", pooling="cls")),
        ("h=hybrid:./m?pooling=max&precision=int8",
         System("h", "hybrid", "local", "./m", pooling="max", precision="int8")),
        ("e5=m?query_prompt=query:%20&document_prompt=a%26b%3F",
         System("e5", "dense", "local", "m", query_prompt="query: ", document_prompt="a&b?")),
        ("none=m?query_prompt=", System("none", "dense", "local", "m", query_prompt="")),
        ("openai:m?precision=binary%2Brescore",
         System("openai:m?precision=binary%2Brescore", "api", "openai", "m",
                precision="binary+rescore")),
        ("r=bm25?rerank=org/ce&depth=20",
         System("r", "rerank", model="org/ce", first=System("r", "bm25"), depth=20)),
        ("r=hybrid:m?pooling=cls&rerank=./ce",
         System("r", "rerank", model="./ce", depth=50,
                first=System("r", "hybrid", "local", "m", pooling="cls"))),
        ("./what?/model", System("./what?/model", "dense", "local", "./what?/model")),
        ("./odd?a=b?", System("./odd?a=b?", "dense", "local", "./odd?a=b")),
        ("o=./odd?a=b?pooling=cls",
         System("o", "dense", "local", "./odd?a=b", pooling="cls")),
    ],
)  # fmt: skip
def test_a_system_is_read_as_users_write_it(text, system):
    assert parse_system(text) == system


@pytest.mark.parametrize(
    "text",
    ["", "  ", "hybrid:", "hybrid:bm25", "openai:", "cohere:", "hashing:x", "a=",
     "m?poling=cls", "m?pooling=first", "m?pooling=cls&pooling=max", "m?precision=int4",
     "bm25?precision=int8", "bm25?pooling=cls", "openai:m?query_prompt=x", "hashing?pooling=cls",
     "m?depth=5", "m?rerank=", "m?rerank=ce&depth=0", "m?rerank=ce&depth=x", "hybrid:hybrid:m",
     "?pooling=cls", "hybrid:?pooling=cls"],
)  # fmt: skip
def test_what_is_no_system_is_refused(text):
    with pytest.raises(ConfigError, match="expected"):
        parse_system(text)


def test_a_fault_names_the_option_and_what_it_may_be():
    with pytest.raises(ConfigError) as caught:
        parse_system("x=m?pooling=first&precision=int4")
    assert list(caught.value.faults) == [
        "system x=m?pooling=first&precision=int4: pooling 'first': expected one of mean, cls, max, "
        "lasttoken, weightedmean",
        "system x=m?pooling=first&precision=int4: precision 'int4': expected one of float32, "
        "float16, int8, binary, binary+rescore",
    ]


@pytest.mark.parametrize(
    ("mapping", "system"),
    [
        ({"openai": "m"}, System("openai:m", "api", "openai", "m")),
        ({"hashing": 64}, System("hashing:64", "dense", "hashing", "64")),
        ({"hybrid": "org/m", "label": "h"}, System("h", "hybrid", "local", "org/m")),
        ({"model": "m", "label": "x", "pooling": "cls", "query_prompt": "why? ",
          "document_prompt": "a&b=c: "},
         System("x", "dense", "local", "m", pooling="cls", query_prompt="why? ",
                document_prompt="a&b=c: ")),
        ({"system": "bm25", "label": "r", "rerank": "./c e", "depth": 20},
         System("r", "rerank", model="./c e", first=System("r", "bm25"), depth=20)),
        ({"model": "./odd?a=b", "label": "o"}, System("o", "dense", "local", "./odd?a=b")),
        ({"model": "./odd?a=b", "label": "o", "precision": "binary+rescore"},
         System("o", "dense", "local", "./odd?a=b", precision="binary+rescore")),
        ({"model": "a=b"}, System("./a=b", "dense", "local", "./a=b")),
    ],
)  # fmt: skip
def test_a_mapping_says_the_same_with_values_as_they_are(mapping, system):
    assert parse_system(system_text(mapping)) == system


@pytest.mark.parametrize(
    "mapping",
    [{}, {"pooling": "cls", "label": "x"}, {"model": "m", "openai": "n"}, {"model": "m", "x": 1}],
)
def test_a_mapping_that_names_no_system_is_refused(mapping):
    with pytest.raises(ConfigError, match="expected one of system, model"):
        system_text(mapping)


def test_systems_share_an_encoder_where_their_vectors_are_the_same():
    plain, quantised, hybrid, other = (
        parse_system(text) for text in ("m", "q=m?precision=int8", "hybrid:m", "m?pooling=cls")
    )
    assert plain.encoder == quantised.encoder == hybrid.encoder != other.encoder


def test_services_are_opened_with_their_price_and_one_purse(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("COHERE_API_KEY", "k")
    monkeypatch.delenv("CO_API_URL", raising=False)
    purse = Purse()
    known = open_embedder(parse_system("openai:text-embedding-3-small"), purse=purse)
    unknown = open_embedder(parse_system("cohere:embed-x"), purse=purse)
    assert (known._price, unknown._price) == (0.02, None)
    assert known._purse is unknown._purse is purse
    own = Purse(EmbeddingSettings(price=0.5))
    assert open_embedder(parse_system("cohere:embed-x"), purse=own)._price == 0.5


def test_all_faults_of_a_list_are_told_together():
    with pytest.raises(ConfigError) as caught:
        parse_systems(["bm25", "hybrid:", "x=bm25", "x=hashing"])
    assert len(caught.value.faults) == 2
    assert "two systems are called x" in caught.value.faults[1]


def test_an_embedder_is_opened_by_name():
    assert open_embedder(parse_system("hashing:64")).dimension == 64
    with pytest.raises(ConfigError, match="no embedder"):
        open_embedder(parse_system("bm25"))


def test_dimensions_are_the_models_own_and_the_usual_ones_below():
    assert matryoshka_dimensions(HashingEmbedder(300), 300) == (300, 256, 128, 64)
    assert matryoshka_dimensions(HashingEmbedder(64), 64) == (64,)


@pytest.mark.parametrize("file", ["embedtune.json", "README.md"])
def test_a_models_folder_says_what_dimensions_it_was_trained_for(tmp_path, file):
    text = '```json\n{"loss": "X",\n "matryoshka_dims": [\n  384,\n  96\n ]}\n```'
    (tmp_path / file).write_text(text, "utf-8")

    class Resolved:
        path = tmp_path

    class Wrapped:
        resolved = Resolved()

    class Wrapper:
        embedder = Wrapped()

    assert matryoshka_dimensions(Wrapped(), 384) == (384, 96)
    assert matryoshka_dimensions(Wrapper(), 384) == (384, 96)
