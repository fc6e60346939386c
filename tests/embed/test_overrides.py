"""Pooling and prompts in the place of a model's own, against the library's own tokens."""

import json

import numpy as np
import pytest

from embedtune.embed import document_name
from embedtune.embed.loading import own_pooling
from embedtune.embed.local import LocalEmbedder
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.errors import ConfigError
from embedtune.store import Store

TEXTS = ["robot battery night shift", "the mud", "who does the report"]


def tokens_of(model, text: str) -> np.ndarray:
    """(length, width): the last layer's vectors of one text, special tokens in."""
    import torch

    features = model.tokenize([text])
    with torch.no_grad():
        states = model[0].model(
            input_ids=features["input_ids"], attention_mask=features["attention_mask"]
        )
    return states.last_hidden_state[0].numpy()


POOLED = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(axis=0),
    "lasttoken": lambda tokens: tokens[-1],
    "weightedmean": lambda tokens: np.average(
        tokens, axis=0, weights=np.arange(1, len(tokens) + 1)
    ),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_another_pooling_takes_the_place_of_the_models_own(tiny_model, pooling):
    embedder = LocalEmbedder(str(tiny_model), pooling_instead=pooling)
    expected = np.stack([POOLED[pooling](tokens_of(embedder.model, text)) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)  # the model normalises behind it
    np.testing.assert_allclose(embedder.embed(TEXTS, "document"), expected, atol=1e-5)


def test_caches_see_what_changes_the_vectors_and_nothing_else(tiny_model):
    model = str(tiny_model)
    names = [
        LocalEmbedder(model).name,
        LocalEmbedder(model, pooling_instead="cls").name,
        LocalEmbedder(model, pooling_instead="max").name,
        LocalEmbedder(model, prompts_instead={"query": "q: "}).name,
        LocalEmbedder(model, prompts_instead={"document": "q: "}).name,
        LocalEmbedder(model, prompts_instead={"query": ""}).name,
    ]
    assert len(set(names)) == len(names)
    assert LocalEmbedder(model, pooling_instead="mean").name == names[0]  # its own


def test_prompts_are_put_before_texts_of_their_role(tiny_model):
    plain = LocalEmbedder(str(tiny_model))
    prompted = LocalEmbedder(str(tiny_model), prompts_instead={"query": "mud: "})
    asked = [f"mud: {text}" for text in TEXTS]
    np.testing.assert_allclose(
        prompted.embed(TEXTS, "query"), plain.embed(asked, "query"), atol=1e-6
    )
    np.testing.assert_allclose(
        prompted.embed(TEXTS, "document"), plain.embed(TEXTS, "document"), atol=1e-6
    )


def test_a_model_with_prompts_of_its_own_gives_them_up(tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = {"query": "how ", "document": "what "}
    model.save(str(tmp_path / "m"), create_model_card=False)
    without = LocalEmbedder(str(tmp_path / "m"), prompts_instead={"query": "", "document": ""})
    plain = LocalEmbedder(str(tiny_model))
    for role in ("query", "document"):
        expected = plain.embed(TEXTS, role)
        np.testing.assert_allclose(without.embed(TEXTS, role), expected, atol=1e-6)
        own = LocalEmbedder(str(tmp_path / "m")).embed(TEXTS, role)
        assert np.abs(own - expected).max() > 1e-3


def test_a_plain_encoder_is_pooled_as_its_system_says(tiny_model, tmp_path):
    import shutil

    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path / name)
    named = LocalEmbedder(str(tmp_path), pooling="mean", pooling_instead="cls")
    np.testing.assert_allclose(
        named.embed(TEXTS, "query"),
        LocalEmbedder(str(tiny_model), pooling_instead="cls").embed(TEXTS, "query"),
        atol=1e-5,
    )
    assert named.name != LocalEmbedder(str(tmp_path), pooling="mean").name


def test_a_static_model_has_no_pooling_to_replace(tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "robot": 1, "mud": 2, "the": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)])
    model.save(str(tmp_path / "static"), create_model_card=False)
    assert LocalEmbedder(str(tmp_path / "static")).embed(["the mud"], "query").shape == (1, 8)
    with pytest.raises(ConfigError, match="has no pooling that cls could replace"):
        LocalEmbedder(str(tmp_path / "static"), pooling_instead="cls").embed(["mud"], "query")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["cls", "mean"]}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, None),
        ({}, None),
    ],
)
def test_a_folder_says_its_pooling_in_the_old_way_and_the_new(tmp_path, config, pooling):
    assert own_pooling(tmp_path) is None
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config), "utf-8")
    assert own_pooling(tmp_path) == pooling


def test_a_prompt_before_queries_leaves_the_vectors_of_passages(tiny_model, tmp_path):
    """They are not made anew, and an index of the one model is searched with the other."""
    plain = LocalEmbedder(str(tiny_model))
    asked = LocalEmbedder(str(tiny_model), prompts_instead={"query": "find: "})
    both = LocalEmbedder(str(tiny_model), prompts_instead={"query": "q: ", "document": "p: "})
    assert document_name(asked) == document_name(plain) == plain.name != asked.name
    assert document_name(both) not in (plain.name, both.name)
    texts = ["one", "two"]
    with Store(tmp_path / "vectors.sqlite") as store:
        first = RecordedEmbedder(plain, store).embed(texts, "document")
        asked.embed = None  # nothing is left to embed
        assert (RecordedEmbedder(asked, store).embed(texts, "document") == first).all()
        with pytest.raises(TypeError):
            RecordedEmbedder(asked, store).embed(texts, "query")
