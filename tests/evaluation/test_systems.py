"""How users name systems."""

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError
from embedtune.evaluation.systems import (
    System,
    matryoshka_dimensions,
    open_embedder,
    parse_system,
    parse_systems,
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
    ],
)  # fmt: skip
def test_a_system_is_read_as_users_write_it(text, system):
    assert parse_system(text) == system


@pytest.mark.parametrize("text", ["", "  ", "hybrid:", "hybrid:bm25", "openai:", "hashing:x", "a="])
def test_what_is_no_system_is_refused(text):
    with pytest.raises(ConfigError, match="expected"):
        parse_system(text)


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
