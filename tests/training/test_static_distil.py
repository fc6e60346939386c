"""Distilled static models: what they take over from the teacher, and the command."""

import json

import numpy as np
import pytest

from embedtune.errors import IntegrityError, NothingUsable
from embedtune.training.static import StaticSettings
from embedtune.training.static_distil import PULL, distil_static, imitated

PASSAGES = [
    "robot battery night. The tow fee stands in the price list.",
    "fee stop mud tow",
    "robot fee battery battery",
    "司机承担拖车费用。电池夜间充电，不另行收费。",
]


class Teacher:
    """Knows a vector for each text it is asked for: a fixed random one."""

    name, similarity, max_tokens, dimension = "teacher", "cosine", 512, 5

    def embed(self, texts, role):
        assert role == "document"
        return np.stack([
            np.random.default_rng(list(text.encode())).standard_normal(self.dimension)
            for text in texts
        ]).astype(np.float32)  # fmt: skip


def rows_of(model) -> dict[str, np.ndarray]:
    weights = model[0].embedding.weight.detach().numpy()
    return {word: weights[row] for word, row in model[0].tokenizer.get_vocab().items()}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_sentences_are_imitated_beside_the_passages():
    texts = imitated(PASSAGES)
    assert set(texts[:4]) == set(PASSAGES)
    assert set(texts[4:]) == {
        "robot battery night.", "The tow fee stands in the price list.", "司机承担拖车费用。",
        "电池夜间充电，不另行收费。",
    }  # fmt: skip
    assert imitated(PASSAGES[::-1]) == texts


def test_the_words_are_those_of_the_ridge_regression():
    """The same by ordinary least squares, the pull written as further lines."""
    teacher = Teacher()
    model = distil_static(teacher, PASSAGES, StaticSettings())
    tokenizer = model[0].tokenizer
    vocabulary = tokenizer.get_vocab()
    words = sorted(vocabulary, key=vocabulary.get)[1:]

    def counts(texts):
        found = np.zeros((len(texts), len(words)))
        for line, text in enumerate(texts):
            for token in tokenizer.encode(text, add_special_tokens=False).ids:
                found[line, token - 1] += 1
        return found

    holders = (counts(PASSAGES) > 0).sum(axis=0)
    idf = np.log(1 + (len(PASSAGES) - holders + 0.5) / (holders + 0.5))
    alone = teacher.embed(words, "document").astype(float)
    start = (alone - alone.mean(axis=0)) * idf[:, None]
    texts = imitated(PASSAGES)
    lines = counts(texts)
    lines /= np.linalg.norm(lines @ start, axis=1, keepdims=True)
    pull = np.sqrt(PULL * (lines**2).sum() / len(lines))
    expected, *_ = np.linalg.lstsq(
        np.vstack([lines, pull * np.eye(len(words))]),
        np.vstack([unit(teacher.embed(texts, "document").astype(float)), pull * start]),
    )
    found = rows_of(model)
    np.testing.assert_allclose([found[word] for word in words], expected, atol=1e-4)
    assert np.linalg.norm(found["[UNK]"]) < 0.1


def test_texts_come_nearer_to_the_teacher_than_their_words_alone():
    teacher = Teacher()
    model = distil_static(teacher, PASSAGES, StaticSettings())
    targets = unit(teacher.embed(PASSAGES, "document"))
    cosines = (unit(model.encode(PASSAGES)) * targets).sum(axis=1)
    assert cosines.min() > 0.8
    assert model.get_embedding_dimension() == teacher.dimension


def test_fewer_dimensions_keep_what_tells_passages_apart():
    whole = distil_static(Teacher(), PASSAGES, StaticSettings())
    short = distil_static(Teacher(), PASSAGES, StaticSettings(dimensions=4))
    assert short.get_embedding_dimension() == 4
    full, cut = (
        (vectors := model.encode(PASSAGES, normalize_embeddings=True)) @ vectors.T
        for model in (whole, short)
    )
    assert full == pytest.approx(cut, abs=1e-4)  # four passages span four dimensions


def test_the_order_of_the_passages_does_not_matter():
    one, other = (
        rows_of(distil_static(Teacher(), passages, StaticSettings()))
        for passages in (PASSAGES, [*PASSAGES[::-1], PASSAGES[1]])
    )
    assert one.keys() == other.keys()
    for word, row in one.items():
        np.testing.assert_array_equal(row, other[word])


def test_a_teacher_of_nonsense_and_passages_of_one_word_are_refused():
    class Broken(Teacher):
        def embed(self, texts, role):
            return np.full((len(texts), 5), np.nan, np.float32)

    with pytest.raises(IntegrityError, match="teacher"):
        distil_static(Broken(), PASSAGES, StaticSettings())
    with pytest.raises(NothingUsable, match="1 different words"):
        distil_static(Teacher(), ["robot", "robot robot"], StaticSettings())


# ---- the command


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, command, tiny_model, small_beir):
    out = tmp_path_factory.mktemp("distilled") / "student"
    return out, command("distil", tiny_model, "--data", small_beir, "--out", out, "--json")


def test_the_command_leaves_a_model_for_plain_sentence_transformers(distilled):
    out, result = distilled
    assert result.code == 0, result.err
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(out), device="cpu")
    facts = json.loads((out / "embedtune.json").read_text("utf-8"))
    assert type(model[0]).__name__ == "StaticEmbedding"
    assert facts["matryoshka_dims"] == [model.encode("robot").shape[0]]
    assert facts["transductive"] is True
    assert not list(out.glob("*.sqlite*"))


def test_its_figures_are_those_of_evaluate(distilled, command, tiny_model, small_beir):
    out, result = distilled
    again = command("evaluate", "--data", small_beir, "--split", "dev", f"teacher={tiny_model}",
                    f"student={out}", "bm25", "--json")  # fmt: skip
    scores = {one["name"]: one["metrics"]["ndcg@10"] for one in again.json["systems"]}
    assert result.json["teacher"]["dev"] == pytest.approx(scores["teacher"], abs=1e-9)
    assert result.json["student"]["dev"] == pytest.approx(scores["student"], abs=1e-9)
    assert result.json["bm25"] == pytest.approx(scores["bm25"], abs=1e-9)
    weights = (out / "model.safetensors").stat().st_size
    assert result.json["student"]["bytes"] == weights
    assert result.json["student"]["passages_per_second"] > 0


def test_the_same_command_again_is_done_already_and_says_it_in_words(
    distilled, command, tiny_model, small_beir
):
    out, result = distilled
    again = command("distil", tiny_model, "--data", small_beir, "--out", out)
    assert again.code == 0, again.err
    lines = again.out.splitlines()
    assert lines[0].startswith(f"{out}: a static model of")
    assert f"ndcg@10 on dev {result.json['student']['dev']:.3f}" in lines[2]
    assert "BM25" in lines[3]


def test_a_model_that_is_none_is_refused_at_once(command, small_beir, tmp_path):
    for name, code in (("static", 2), ("static:words.vec", 2), ("no/such-model", 5)):
        result = command("distil", name, "--data", small_beir, "--out", tmp_path / "out")
        assert (result.code, len(result.lines)) == (code, 1), result.err
        assert name in result.err
        assert not (tmp_path / "out").exists()
