import json
from pathlib import Path

import pytest

from embedtune.embed.tokens import ModelTokens, Tokens, WordTokens, load_tokens, tokens_in
from embedtune.errors import ConfigError, IntegrityError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "the",
    "pump",
    "runs",
    "，",
    "泵",
    "[",
    "]",
    "se",
    "##p",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing

    tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"unk_token": "[UNK]", "model_max_length": 512})
    )
    return tmp_path


@pytest.fixture
def tokens(folder: Path) -> Tokens:
    return tokens_in(folder, name="tiny", max_tokens=16)


def test_count_has_the_special_tokens_and_is_never_cut(tokens: Tokens) -> None:
    assert tokens.count(["the pump runs", "", "the " * 50]) == [5, 2, 52]


def test_offsets_are_of_characters(tokens: Tokens) -> None:
    assert tokens.offsets("泵 runs，the") == [(0, 1), (2, 6), (6, 7), (7, 10)]


def test_unknown_tokens_are_counted(tokens: Tokens) -> None:
    assert tokens.unknown(["the pump", "水 runs 电", ""]) == [0, 2, 0]


def test_control_tokens_in_a_text_are_counted_as_text(tokens: Tokens) -> None:
    assert tokens.count(["[SEP]"]) == [6]  # [CLS] [ se ##p ] [SEP]


def test_a_lone_surrogate_does_not_break_the_batch(tokens: Tokens) -> None:
    assert tokens.count(["the \ud83d pump", "the"])[1] == 3


def test_long_texts_are_read_in_blocks(tokens: Tokens) -> None:
    text = "pump runs " * 10_000
    assert tokens.count([text]) == [20_002]
    assert tokens.offsets(text)[-1] == (len(text) - 5, len(text) - 1)


def test_words_and_chinese_characters_are_the_tokens_of_the_stand_in() -> None:
    tokens = WordTokens()
    assert tokens.count(["The pump, 水泵runs!"]) == [7]
    assert tokens.offsets("水泵runs") == [(0, 1), (1, 2), (2, 6)]
    assert tokens.unknown(["x"]) == [0]


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        tokens_in(folder, name="tiny", max_tokens=16)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable tokenizer"):
        tokens_in(tmp_path, name="tiny", max_tokens=16)


@pytest.mark.model
def test_minilm() -> None:
    tokens = load_tokens("sentence-transformers/all-MiniLM-L6-v2")
    assert isinstance(tokens, ModelTokens)
    assert tokens.max_tokens == 256
    assert tokens.count(["hello world"]) == [4]
    [unknown] = tokens.unknown(["证券发行注册制的具体范围由国务院规定"])
    assert unknown > 3
