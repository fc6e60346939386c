"""The folder of an adapter: what it promises, and every way in which it can be wrong."""

import json

import numpy as np
import pytest

from embedtune.embed.adapted import FILE, WEIGHTS, AdaptedEmbedder, Adapter, write_adapter
from embedtune.embed.hashing import HashingEmbedder
from embedtune.embed.opening import open_embedder
from embedtune.errors import ConfigError, IntegrityError

FACTS = {
    "base": "hashing:6",
    "base_label": "hashing-6",
    "kind": "contrastive",
    "strength": 0.5,
    "metric": "ndcg@10",
    "dev_base": 0.4,
    "dev": 0.5,
}
TEXTS = ["night shift pay", "夜班 工资", "a"]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 2), (2, 6)))
    write_adapter(tmp_path, Adapter(down, up, "cosine"), FACTS)
    return tmp_path


def change(folder, **fields):
    described = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**described, **fields}))


def test_queries_are_moved_and_documents_are_not(folder):
    from safetensors.numpy import load_file

    embedder, base = open_embedder(str(folder)), HashingEmbedder(6)
    assert isinstance(embedder, AdaptedEmbedder)
    assert np.array_equal(embedder.embed(TEXTS, "document"), base.embed(TEXTS, "document"))
    weights = load_file(folder / WEIGHTS)
    for text, found in zip(TEXTS, embedder.embed(TEXTS, "query"), strict=True):
        [before] = base.embed([text], "query").astype(np.float64)
        before /= np.sqrt(before @ before)
        after = before + weights["up"].T @ (weights["down"].T @ before)
        assert np.allclose(found, after / np.sqrt(after @ after), atol=1e-6)
    assert embedder.embed([], "query").shape == (0, 6)
    assert (embedder.dimension, embedder.similarity) == (6, "cosine")
    assert embedder.max_tokens == base.max_tokens
    assert not embedder.is_paid


def test_other_weights_have_another_name(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_adapter(other, Adapter(np.ones((6, 1), "f4"), np.ones((1, 6), "f4"), "cosine"), FACTS)
    names = {AdaptedEmbedder(str(place)).name for place in (folder, other)}
    assert len(names) == 2
    assert all(name.startswith("hashing-6 adapted ") for name in names)


def test_the_identity_is_a_folder_too(tmp_path):
    write_adapter(tmp_path, Adapter(np.zeros((6, 0), "f4"), np.zeros((0, 6), "f4"), "dot"), FACTS)
    found = AdaptedEmbedder(str(tmp_path)).embed(TEXTS, "query")
    assert np.array_equal(found, HashingEmbedder(6).embed(TEXTS, "query"))


def test_damaged_weights_are_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    for damaged, message in (
        (whole[:-3], "cut short"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "its hash is not"),
        (b"", "empty file"),
        (b"version https://git-lfs", "text pointer"),
    ):
        (folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(IntegrityError, match=message):
            AdaptedEmbedder(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(IntegrityError, match="missing; copy the whole folder"):
        AdaptedEmbedder(str(folder))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    down = np.full((6, 1), np.nan, "f4")
    write_adapter(tmp_path, Adapter(down, np.ones((1, 6), "f4"), "cosine"), FACTS)
    with pytest.raises(IntegrityError, match="down is not all finite"):
        AdaptedEmbedder(str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 3}, "expected the shapes"),
        ({"dimension": 7}, "expected the shapes"),
        ({"similarity": "manhattan"}, "similarity"),
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"sha256": "0" * 64}, "its hash is not"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(IntegrityError, match=message):
        AdaptedEmbedder(str(folder))


def test_a_description_that_is_no_json_is_refused(folder):
    for text in ("{", "[]", ""):
        (folder / FILE).write_text(text)
        with pytest.raises(IntegrityError, match=FILE):
            AdaptedEmbedder(str(folder))


def test_another_base_than_it_was_fitted_on_is_refused(folder):
    change(folder, base_label="hashing-6 of last year")
    with pytest.raises(ConfigError, match="fitted on hashing-6 of last year"):
        AdaptedEmbedder(str(folder))


def test_a_key_goes_only_where_the_environment_says(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    change(folder, base="openai:m", base_label="openai:m at https://elsewhere.example/v1")
    with pytest.raises(ConfigError, match=r"is openai:m at http://127\.0\.0\.1:9/v1 here"):
        AdaptedEmbedder(str(folder))


def test_a_base_of_other_dimensions_is_noticed(folder):
    change(folder, base="hashing:9", base_label="hashing-9")
    with pytest.raises(IntegrityError, match="gives 9 numbers a vector"):
        AdaptedEmbedder(str(folder)).embed(TEXTS, "document")


def test_an_adapter_goes_with_its_base_as_it_is(folder):
    with pytest.raises(ConfigError, match="goes with its base as it is"):
        open_embedder(str(folder), pooling_instead="cls")
    open_embedder(str(folder), pooling_instead=None, prompts_instead={})
