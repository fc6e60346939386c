"""What a model folder says of the model, without loading it."""

import shutil

import pytest

from embedtune.embed.facts import facts_in, prompts_in
from embedtune.embed.local import LocalEmbedder
from embedtune.embed.tokens import load_tokens


@pytest.fixture
def folder(tiny_model, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(tiny_model, out)
    return out


def facts(folder):
    return facts_in(folder, load_tokens(str(folder)))


def test_weights_are_those_of_the_loaded_model(folder):
    model = LocalEmbedder(str(folder)).model
    weights = {name: own.numel() for name, own in model.named_parameters()}
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    looked_up = sum(n for name, n in weights.items() if any(table in name for table in tables))
    found = facts(folder)
    assert found.parameters == sum(weights.values())
    assert found.computing == sum(weights.values()) - looked_up > 0
    assert (found.dimension, found.max_tokens) == (32, 64)


def test_weights_for_other_engines_and_checkpoints_are_not_counted(folder):
    before = facts(folder)
    for name in ("onnx", "checkpoint-20"):
        shutil.copytree(folder / "1_Pooling", folder / name)
        shutil.copy(folder / "model.safetensors", folder / name)
    after = facts(folder)
    assert (after.parameters, after.bytes) == (before.parameters, before.bytes)
    needed = [path for path in folder.rglob("*") if path.is_file()]
    assert before.bytes < sum(path.stat().st_size for path in needed)


@pytest.mark.parametrize(
    ("card", "licence", "languages"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# A model", "mit", ("en",)),
        ("---\nlicense: other\nlicense_name: gemma\nlanguage: [zh, en]\n---\n", "gemma",
         ("zh", "en")),
        ("---\nlanguage: no\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0", ("no",)),
        ("---\r\nlicense: mit\r\n---\r\ntext", "mit", ()),
        ("# no front matter\nlicense: mit\n", "", ()),
        ("---\nlicense: [mit\n---\n", "", ()),
        ("---\nlicense: {a: b}\nlanguage: [1, {x: y}, '']\n---\n", "", ("1",)),
        ("---\n- a list\n---\n", "", ()),
    ],
)  # fmt: skip
def test_licence_and_languages_are_read_from_the_card(folder, card, licence, languages):
    (folder / "README.md").write_text(card, "utf-8", newline="")
    found = facts(folder)
    assert (found.licence, found.languages) == (licence, languages)


def test_own_prompts_go_by_any_of_the_names_that_the_library_reads(folder):
    assert prompts_in(folder) == {"query": "", "document": ""}
    (folder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "query: ", "passage": "passage: "}}', "utf-8"
    )
    assert prompts_in(folder) == {"query": "query: ", "document": "passage: "}
