"""Static models: lexical from the first moment, and the same wherever they are loaded."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.retrieve.bm25 import words
from embedtune.training.static import (
    StaticSettings,
    build_static,
    word_vectors,
)
from embedtune.training.static_tokens import build_tokenizer, compiled_table, split_text

PASSAGES = [
    "The tow fee is paid by the driver.",
    "A robot stuck in mud may call a tow.",
    "Batteries charge at night in the dock.",
    "拖车费用由司机承担。",
    "机器人夜间在机库充电。",
    "电池温度过高时停止充电，并报告故障。",
]


def encode(model, texts):
    return model.encode(texts, normalize_embeddings=True)


# ---- the tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "拖车",
        "车",
        "拖 车",
        "费用abc拖车12％，司机。",
        "ＡＢＣ 由 １２",
        "night 机库 dock",
        "",
        "，。!",
    ],
)
def test_words_are_those_of_lexical_search(text):
    tokenizer = build_tokenizer([*PASSAGES, text], [], limit=1000)
    assert sorted(split_text(tokenizer, text)) == sorted(words(text))


def test_pairs_overlap_and_keep_their_order():
    tokenizer = build_tokenizer(["机器人"], [], limit=100)
    assert tokenizer.encode("机器人").tokens == ["机", "机器", "器", "器人", "人"]


def test_a_character_that_the_texts_do_not_have_takes_only_its_own_pairs_away():
    tokenizer = build_tokenizer(["拖车费"], [], limit=100)
    assert tokenizer.encode("拖车税费").tokens == ["拖", "拖车", "车", "[UNK]", "费"]


def test_case_width_accents_and_plurals_are_folded():
    tokenizer = build_tokenizer(["Fees Batteries Boxes Déjà glass analysis bus"], [], limit=100)
    assert sorted(tokenizer.get_vocab()) == sorted(
        ["[UNK]", "fee", "battery", "box", "deja", "glass", "analysis", "bus"]
    )
    assert tokenizer.encode("ＦＥＥ battery deja").tokens == ["fee", "battery", "deja"]


def test_the_limit_keeps_the_words_of_most_texts_whatever_their_order():
    texts = ["a b", "b c", "c b"]
    kept = build_tokenizer(texts, [], limit=2).get_vocab()
    assert kept == {"[UNK]": 0, "b": 1, "c": 2}
    assert build_tokenizer(texts[::-1], [], limit=2).get_vocab() == kept


def test_the_compiled_table_maps_every_character_and_no_other():
    from tokenizers.normalizers import Precompiled

    signs = [chr(code) for code in range(0x4E00, 0x9FFF, 7)] + ["é", "x", "\U00020001", "가"]
    table = Precompiled(compiled_table([(sign, f"<{ord(sign)}>") for sign in signs]))
    for sign in signs:
        assert table.normalize_str(sign) == f"<{ord(sign)}>"
    for sign in ("一"[:0] + chr(0x4E01), "y", "è", "\U00020002", "각"):
        assert table.normalize_str(sign) == sign


# ---- the model before training


def test_with_enough_dimensions_the_cosines_are_those_of_the_weighted_words():
    # by hand: tf-idf dot products, each passage projected to the span of the BM25-weighted ones
    passages = ["fee tow tow", "fee dock", "mud dock night"]
    vocabulary = ["fee", "tow", "dock", "mud", "night"]
    held = {"fee": 2, "tow": 1, "dock": 2, "mud": 1, "night": 1}
    idf = np.array([math.log(1 + (3 - held[w] + 0.5) / (held[w] + 0.5)) for w in vocabulary])
    counts = np.array([[text.split().count(w) for w in vocabulary] for text in passages], float)
    lengths = counts.sum(axis=1, keepdims=True)
    penalty = 1.5 * (1 - 0.75 + 0.75 * lengths / lengths.mean())
    weights = idf * counts / (counts + penalty)
    span = np.linalg.qr(weights.T)[0]
    projected = (counts * idf) @ span
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    query = (np.array([0, 1, 1, 0, 0]) * idf) @ span
    expected = projected @ query / np.linalg.norm(query)

    model = build_static(passages, StaticSettings())
    found = encode(model, passages) @ encode(model, ["dock tow"])[0]
    assert found == pytest.approx(expected, abs=1e-5)


def test_it_begins_as_lexical_search_in_both_languages():
    model = build_static(PASSAGES, StaticSettings(dimensions=64))
    asked = ["who pays the tow fee?", "robots in mud", "谁承担拖车费？", "夜间充电"]
    best = (encode(model, asked) @ encode(model, PASSAGES).T).argmax(axis=1)
    assert best.tolist() == [0, 1, 3, 4]


def test_fewer_dimensions_are_kept():
    assert build_static(PASSAGES, StaticSettings(dimensions=3)).get_embedding_dimension() == 3
    assert build_static(PASSAGES, StaticSettings()).get_embedding_dimension() == len(PASSAGES)


def test_order_and_repeats_of_the_texts_change_nothing():
    one = build_static(PASSAGES, StaticSettings(), queries=["a", "b"])
    other = build_static([*PASSAGES[::-1], PASSAGES[2]], StaticSettings(), queries=["b", "a"])
    assert np.array_equal(encode(one, PASSAGES), encode(other, PASSAGES))


def test_many_passages_take_the_other_way_to_the_same_place(monkeypatch):
    exact = build_static(PASSAGES, StaticSettings())
    monkeypatch.setattr("embedtune.training.static.EXACT", 2)
    random = build_static(PASSAGES, StaticSettings())
    cosines = [encode(model, PASSAGES) @ encode(model, PASSAGES).T for model in (exact, random)]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-4)


def test_no_text_has_a_vector_of_zeros_and_unknown_words_hardly_count():
    model = build_static(PASSAGES, StaticSettings(), queries=["坑了谁"])
    plain, strange, unknown, asked = encode(model, ["tow fee", "tow fee zebra", "zebra", "坑了"])
    assert plain @ strange > 0.999
    for vector in (unknown, asked):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert abs(unknown @ asked) < 0.999  # words of queries have rows of their own


def test_every_row_can_be_trained():
    import torch

    model = build_static(PASSAGES, StaticSettings(), queries=["坑了谁"])
    assert isinstance(model[0].embedding, torch.nn.EmbeddingBag)
    assert model[0].embedding.weight.requires_grad
    features = model.preprocess(["坑 tow"])
    model(features)["sentence_embedding"].sum().backward()
    changed = model[0].embedding.weight.grad.abs().sum(dim=1) > 0
    assert changed.sum() == 2


def test_plain_sentence_transformers_loads_it_and_gives_the_same_vectors(tmp_path):
    model = build_static(PASSAGES, StaticSettings(), queries=["坑了谁"])
    model.save(str(tmp_path / "model"))
    texts = [*PASSAGES, "拖车税费 Fees", "zebra"]
    code = (
        "import json, sys\nfrom sentence_transformers import SentenceTransformer\n"
        "texts = json.load(sys.stdin)\n"
        f"model = SentenceTransformer({str(tmp_path / 'model')!r}, device='cpu')\n"
        "assert not any(name.startswith('embedtune') for name in sys.modules)\n"
        "print(json.dumps([model.similarity_fn_name, model.encode(texts).tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    similarity, vectors = json.loads(done.stdout.splitlines()[-1])
    assert similarity == "cosine"
    assert np.array_equal(np.array(vectors, np.float32), model.encode(texts))


@pytest.mark.parametrize("passages", [[], ["", "  "], ["，。!?"]])
def test_passages_without_words_are_refused(passages):
    with pytest.raises(NothingUsable, match="no word in the"):
        build_static(passages, StaticSettings())


def test_one_passage_is_enough():
    assert build_static(["tow fee"], StaticSettings()).get_embedding_dimension() == 1


# ---- word vectors


def vector_file(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "words.vec"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("start", ["", "4 2\n", "\ufeff4 2\n", "\ufeff"])
def test_word_vectors_are_read_with_and_without_header_and_mark(tmp_path, start):
    tokenizer = build_tokenizer(PASSAGES, [], limit=100)
    path = vector_file(tmp_path, f"{start}tow 1 0\nBatteries 0.5 -1e-1 \n拖车\t0 2\nzebra 9 9\r\n")
    rows = word_vectors(path, tokenizer)
    vocabulary = tokenizer.get_vocab()
    assert rows[vocabulary["tow"]].tolist() == [1, 0]
    assert rows[vocabulary["battery"]] == pytest.approx([0.5, -0.1])
    assert rows[vocabulary["拖车"]].tolist() == [0, 2]
    assert np.count_nonzero(rows.any(axis=1)) == 3


def test_word_vectors_bring_words_together_that_share_no_letter(tmp_path):
    path = vector_file(tmp_path, "mud 1 0\nswamp 1 0.1\ndock 0 1\nfee -1 0\n")
    asked = ["swamp"]
    with_file = build_static(PASSAGES, StaticSettings(vectors=path), queries=asked)
    best = (encode(with_file, asked) @ encode(with_file, PASSAGES).T).argmax()
    assert best == 1
    assert with_file.get_embedding_dimension() == len(PASSAGES) + 2


def test_a_word_that_stands_twice_counts_the_first_time_and_is_named(tmp_path, caplog):
    tokenizer = build_tokenizer(["tow Tow"], [], limit=9)
    path = vector_file(tmp_path, "Tow 5 5\ntow 1 0\ntow 2 0\n")
    assert word_vectors(path, tokenizer)[tokenizer.get_vocab()["tow"]].tolist() == [1, 0]
    assert "line 3 (tow)" in caplog.text


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("tow 1 0\nfee 1\n", 2, "1 numbers after the word, expected 2"),
        ("tow 1 0\nfee 1 2 3\n", 2, "3 numbers after the word, expected 2"),
        ("2 3\ntow 1 0 0\nfee 1 0\n", 3, "2 numbers after the word, expected 3"),
        ("3 2\ntow 1 0\nfee 0 1\n", 3, "its first line says 3"),
        ("tow 1 0\nfee nan 1\n", 2, "NaN, infinite"),
        ("tow 1 0\nfee 1e999 1\n", 2, "NaN, infinite"),
        ("tow 1 0\nfee x 1\n", 2, "expected a word and 2 numbers"),
        ("tow 1 0\n\nfee 1 1\n", 2, "an empty line"),
        ("tow\n", 1, "0 numbers after the word"),
    ],
)
def test_damaged_word_vectors_are_refused_with_file_and_line(tmp_path, text, line, what):
    path = vector_file(tmp_path, text)
    with pytest.raises(IntegrityError, match=what) as raised:
        build_static(PASSAGES, StaticSettings(vectors=path))
    assert f"{path}:{line}:" in str(raised.value)


def test_word_vectors_that_are_no_text_or_not_there_are_refused(tmp_path):
    settings = StaticSettings(vectors=vector_file(tmp_path, "拖车 1 0\n", "gb18030"))
    with pytest.raises(IntegrityError, match=":1: not UTF-8"):
        build_static(PASSAGES, settings)
    with pytest.raises(IntegrityError, match="no word vectors"):
        build_static(PASSAGES, StaticSettings(vectors=vector_file(tmp_path, "")))
    with pytest.raises(ConfigError, match="no such file"):
        build_static(PASSAGES, StaticSettings(vectors=tmp_path / "none.vec"))
    with pytest.raises(NothingUsable, match="none of its words"):
        build_static(PASSAGES, StaticSettings(vectors=vector_file(tmp_path, "zebra 1 0\n")))


# ---- on disk


def test_what_commands_ask_of_a_folder_is_answered_without_loading_it(tmp_path):
    from embedtune.embed.checks import dimension_in
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.embed.tokens import NO_LIMIT, load_tokens

    chinese = PASSAGES[3:]  # none of the words that every model is tried with
    build_static(chinese, StaticSettings()).save(str(tmp_path / "m"), create_model_card=False)
    assert dimension_in(tmp_path / "m") == 3
    tokens = load_tokens(str(tmp_path / "m"))
    assert tokens.max_tokens == NO_LIMIT
    assert tokens.unknown(["电池", "fee 电"]) == [0, 1]
    loaded = load_sentence_transformer(str(tmp_path / "m"), device="cpu")
    assert MemoryEmbedder(loaded, "static").max_tokens == NO_LIMIT
    vectors = MemoryEmbedder(loaded, "static").embed(["充电" * 3000], "document")
    assert vectors.shape == (1, 3)


def test_damaged_weights_that_give_every_word_one_vector_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    from embedtune.embed.loading import load_sentence_transformer

    build_static(PASSAGES, StaticSettings()).save(str(tmp_path / "m"), create_model_card=False)
    file = tmp_path / "m" / "model.safetensors"
    save_file({name: np.ones_like(rows) for name, rows in load_file(file).items()}, file)
    with pytest.raises(IntegrityError, match="same vector"):
        load_sentence_transformer(str(tmp_path / "m"), device="cpu")
