"""What every embedder promises; the local model; the cache around any of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedtune.embed import EMBEDDERS, Embedder, load_embedder
from embedtune.embed.hashing import HashingEmbedder
from embedtune.embed.local import MemoryEmbedder
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.errors import ConfigError, IntegrityError
from embedtune.store import Store

TEXTS = [
    "a b",
    "The battery is charged overnight in the shed.",
    "保护投资者的合法权益",
    "a b",
    "long " * 400,
    "\ud800 lone surrogate",
    "?",
]


class Counting(HashingEmbedder):
    def __init__(self) -> None:
        super().__init__(16)
        self.calls: list[tuple[str, ...]] = []

    def embed(self, texts: Sequence[str], role):
        self.calls.append(tuple(texts))
        return super().embed(texts, role)


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    return load_embedder("local", model="sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(params=["hashing", "recorded", pytest.param("local", marks=pytest.mark.model)])
def embedder(request: pytest.FixtureRequest, tmp_path: Path) -> Embedder:
    if request.param == "local":
        return request.getfixturevalue("minilm")
    if request.param == "memory":
        return MemoryEmbedder(request.getfixturevalue("minilm").model, "in training")
    if request.param == "recorded":
        return RecordedEmbedder(HashingEmbedder(), Store(tmp_path / "store.sqlite"))
    return load_embedder("hashing")


def test_rows_are_float32_in_the_order_of_the_texts(embedder: Embedder):
    vectors = embedder.embed(TEXTS, "document")
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (vectors[0] == vectors[3]).all()
    alone = embedder.embed([TEXTS[1]], "document")
    np.testing.assert_allclose(vectors[1], alone[0], atol=1e-5)
    assert np.abs(vectors[1] - vectors[2]).max() > 0.01


def test_no_texts_give_no_rows(embedder: Embedder):
    assert embedder.embed([], "query").shape == (0, embedder.dimension)


def test_every_embedder_says_its_name_length_and_similarity(embedder: Embedder):
    assert embedder.name
    assert embedder.max_tokens > 0
    assert embedder.similarity in ("cosine", "dot", "euclidean")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="choose from"):
        load_embedder("nope")
    assert set(EMBEDDERS) == {"local", "openai", "cohere", "hashing"}


def test_hashing_never_changes():
    [vector] = HashingEmbedder(8).embed(["red 投资"], "query")
    # crc32 of red, 投, 资, 投资 modulo 8, sign from bit 30
    import zlib

    expected = np.zeros(8, np.float32)
    for term in ("red", "投", "资", "投资"):
        code = zlib.crc32(term.encode())
        expected[code % 8] += 1 if code & 0x40000000 else -1
    assert (vector == expected).all()


# ---- the cache


def test_a_text_is_encoded_once_per_model_and_role(tmp_path: Path):
    inner = Counting()
    with Store(tmp_path / "s.sqlite") as store:
        recorded = RecordedEmbedder(inner, store)
        first = recorded.embed(["x", "yy", "x"], "query")
        again = recorded.embed(["yy", "x"], "query")
        assert inner.calls == [("yy", "x")]
        assert (first[[1, 0]] == again).all()
        recorded.embed(["x"], "document")
        assert inner.calls[1:] == [("x",)]


def test_vectors_survive_the_process_and_another_revision_gets_its_own(tmp_path: Path):
    with Store(tmp_path / "s.sqlite") as store:
        before = RecordedEmbedder(Counting(), store).embed(["x", "y"], "query")
    inner = Counting()
    with Store(tmp_path / "s.sqlite") as store:
        after = RecordedEmbedder(inner, store).embed(["x", "y"], "query")
        assert (before == after).all()
        assert inner.calls == []
        inner.name = "another revision"
        RecordedEmbedder(inner, store).embed(["x"], "query")
        assert inner.calls == [("x",)]


def test_what_was_encoded_before_a_failure_is_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("embedtune.embed.recorded.PORTION", 2)

    class FailsLater(Counting):
        def embed(self, texts, role):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().embed(texts, role)

    texts = [f"text {i}" for i in range(6)]
    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            RecordedEmbedder(FailsLater(), store).embed(texts, "query")
        inner = Counting()
        RecordedEmbedder(inner, store).embed(texts, "query")
        assert sum(map(len, inner.calls)) == 2


def test_damaged_vectors_are_never_stored(tmp_path: Path):
    class Damaged(Counting):
        def embed(self, texts, role):
            vectors = super().embed(texts, role)
            vectors[0, 0] = np.nan
            return vectors

    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(IntegrityError, match=r"hashing-16: 1 of 1 .* \"x\""):
            RecordedEmbedder(Damaged(), store).embed(["x"], "query")
        inner = Counting()
        RecordedEmbedder(inner, store).embed(["x"], "query")
        assert inner.calls == [("x",)]


def test_a_model_that_changed_its_dimension_under_one_name_is_found(tmp_path: Path):
    inner = Counting()
    with Store(tmp_path / "s.sqlite") as store:
        recorded = RecordedEmbedder(inner, store)
        recorded.embed(["x"], "query")
        inner.dimension = 8
        with pytest.raises(IntegrityError, match=r"\[8, 16\] dimensions"):
            recorded.embed(["x", "y"], "query")


# ---- the local model


@pytest.mark.model
def test_minilm_reads_256_tokens_and_gives_384_numbers_of_length_one(minilm):
    assert (minilm.dimension, minilm.max_tokens, minilm.similarity) == (384, 256, "cosine")
    assert minilm.name == "sentence-transformers/all-MiniLM-L6-v2@53aa51172d142c89"
    vectors = minilm.embed(["one", "two words"], "query")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.model
def test_the_models_own_prompts_are_used_by_role(minilm):
    from embedtune.embed.local import encode

    model = minilm.model
    before = dict(model.prompts)
    try:
        model.prompts.update(query="query: ", document="passage: ")
        asked = encode(model, ["red"], "query")
        stored = encode(model, ["red"], "document")
        model.prompts.update(query="", document="")
        np.testing.assert_allclose(asked, encode(model, ["query: red"], "query"), atol=1e-6)
        np.testing.assert_allclose(stored, encode(model, ["passage: red"], "document"), atol=1e-6)
    finally:
        model.prompts.clear()
        model.prompts.update(before)


@pytest.mark.model
def test_progress_ends_at_the_number_of_different_texts(minilm):
    from embedtune.embed.local import encode

    calls: list[tuple[int, int]] = []
    encode(minilm.model, ["a", "b", "a"], "query", progress=lambda *call: calls.append(call))
    assert calls == [(2, 2)]


@pytest.mark.model
def test_control_tokens_in_a_text_are_read_as_characters(minilm):
    tokens = minilm.model.tokenize(["red [SEP] [PAD]"])["input_ids"][0].tolist()
    names = minilm.model.tokenizer.convert_ids_to_tokens(tokens)
    assert names == ["[CLS]", "red", "[", "sep", "]", "[", "pad", "]", "[SEP]"]
