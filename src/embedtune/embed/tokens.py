"""Tokens as the model counts them: lengths, places and unknowns, without loading the model."""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from embedtune.errors import ConfigError, IntegrityError

NO_LIMIT = 1_000_000  # tokenizers write 10**30 for "not known"
STATIC = ".StaticEmbedding"  # type of a module
STRANGERS = ("\u2603", "\U00010330", "\U00013000")  # characters that hardly any model knows
BLOCK = 20_000  # characters given to a tokenizer at once: memory stays flat on huge texts


class Tokens(Protocol):
    name: str
    max_tokens: int  # what the model reads, its own special tokens included

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with the model's special tokens: cut when above ``max_tokens``."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character spans (start, end) of the tokens in order, without special tokens."""
        ...

    def unknown(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text are the unknown token."""
        ...


class WordTokens:
    """A deterministic stand-in: a word, a CJK character or a mark is one token; none unknown."""

    WORD = re.compile(
        r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+|[^\w\s]"
    )

    def __init__(self, max_tokens: int = 512) -> None:
        self.name = "words"
        self.max_tokens = max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.WORD.findall(text)) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self.WORD.finditer(text)]

    def unknown(self, texts: Sequence[str]) -> list[int]:
        return [0] * len(texts)


class ModelTokens:
    """A Hugging Face fast tokenizer (``tokenizers.Tokenizer``).

    Control tokens written in a text (``[SEP]``) are counted as the ordinary characters they are.
    Lone surrogates, which the tokenizer refuses, count as U+FFFD.
    """

    def __init__(
        self, name: str, tokenizer: Any, max_tokens: int, unknown_token: str | None
    ) -> None:
        # tokenizer is untyped: tokenizers ships no types
        self.name = name
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._unknown = None if unknown_token is None else tokenizer.token_to_id(unknown_token)
        self._special = tokenizer.num_special_tokens_to_add(False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True

    def _encodings(self, texts: Sequence[str]) -> list[list[tuple[int, Any]]]:
        """Per text its blocks as (offset, encoding), encoded in one batch."""
        blocks = [
            (index, start, text[start:end])
            for index, text in enumerate(texts)
            for start, end in _blocks(text)
        ]
        encoded = self._tokenizer.encode_batch(
            [_encodable(block) for _, _, block in blocks], add_special_tokens=False
        )
        result: list[list[tuple[int, Any]]] = [[] for _ in texts]
        for (index, start, _), encoding in zip(blocks, encoded, strict=True):
            result[index].append((start, encoding))
        return result

    def count(self, texts: Sequence[str]) -> list[int]:
        return [
            sum(len(encoding.ids) for _, encoding in parts) + self._special
            for parts in self._encodings(texts)
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        [parts] = self._encodings([text])
        return [
            (shift + start, shift + end)
            for shift, encoding in parts
            for start, end in encoding.offsets
        ]

    def unknown(self, texts: Sequence[str]) -> list[int]:
        if self._unknown is None:
            return [0] * len(texts)
        return [
            sum(encoding.ids.count(self._unknown) for _, encoding in parts)
            for parts in self._encodings(texts)
        ]

    def text_of(self, ids: Sequence[int]) -> str | None:
        """The text that these tokens spell, special tokens around it or not. None where no text
        gives just these tokens: they are of another tokenizer, or cut within a word."""
        lead, tail = self._around
        ids = list(ids)
        if lead and ids[: len(lead)] == lead:
            ids = ids[len(lead) :]
        if tail and ids[-len(tail) :] == tail:
            ids = ids[: -len(tail)]
        if not ids or not all(0 <= own < self._tokenizer.get_vocab_size() for own in ids):
            return None
        runs: list[list[int]] = [[]]
        for own in ids:
            if own == self._unknown:
                runs.append([])
            else:
                runs[-1].append(own)
        spelled = [self._tokenizer.decode(run, skip_special_tokens=False) for run in runs]
        for stranger in STRANGERS if len(runs) > 1 else ("",):
            text = f" {stranger} ".join(spelled).strip()
            if self._tokenizer.encode(text, add_special_tokens=False).ids == ids:
                return text
        return None

    @functools.cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and behind a text."""
        decoder = self._tokenizer.decoder
        if hasattr(decoder, "cleanup"):
            decoder.cleanup = False  # it would write "don't" for "do not"
        found = self._tokenizer.encode("a", add_special_tokens=True)
        own = [not special for special in found.special_tokens_mask]
        first = own.index(True) if True in own else len(own)
        last = len(own) - own[::-1].index(True) if True in own else len(own)
        return found.ids[:first], found.ids[last:]


def _blocks(text: str) -> list[tuple[int, int]]:
    """Stretches of at most about ``BLOCK`` characters, cut before a blank where there is one."""
    if len(text) <= BLOCK:
        return [(0, len(text))]
    borders = [0]
    while len(text) - borders[-1] > BLOCK:
        cut = text.rfind(" ", borders[-1] + BLOCK // 2, borders[-1] + BLOCK)
        borders.append(cut if cut > 0 else borders[-1] + BLOCK)
    return list(zip(borders, [*borders[1:], len(text)], strict=True))


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def load_tokens(model: str) -> Tokens:
    """The tokenizer of a model (name, or folder), without its weights and without torch.

    Raises:
        ConfigError: The model cannot be found, or has no tokenizer.
        IntegrityError: The tokenizer file cannot be read.
    """
    from embedtune.embed.models import resolve_model

    resolved = resolve_model(model)
    folder = _transformer_folder(resolved.path)
    maximum = _max_tokens(resolved.path, folder)
    return tokens_in(folder, name=f"{model}@{resolved.revision}", max_tokens=maximum)


def tokens_in(folder: Path, *, name: str, max_tokens: int) -> Tokens:
    """The tokenizer that lies in ``folder``."""
    config = _json(folder / "tokenizer_config.json")
    file = folder / "tokenizer.json"
    if file.exists():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise IntegrityError(
                f"{file}: not a tokenizer ({error}); fetch the model again"
            ) from error
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{folder}: no usable tokenizer (tokenizer.json) for {name}; give a model folder "
                "as sentence-transformers saves it"
            ) from error
    return ModelTokens(name, tokenizer, max_tokens, _unknown_token(config, file))


def _transformer_folder(model: Path) -> Path:
    """Where a sentence-transformers folder keeps its first module; else the folder itself."""
    modules = _json(model / "modules.json")
    if isinstance(modules, list) and modules and isinstance(modules[0], dict):
        path = str(modules[0].get("path", ""))
        if path and not Path(path).is_absolute() and ".." not in Path(path).parts:
            return model / path
    return model


def _max_tokens(model: Path, folder: Path) -> int:
    """What sentence-transformers' file says, else the smaller of tokenizer's and model's; static
    models read texts of any length."""
    modules = _json(model / "modules.json")
    first = modules[0] if isinstance(modules, list) and modules else {}
    if isinstance(first, dict) and str(first.get("type")).endswith(STATIC):
        return NO_LIMIT
    sentence = _json(folder / "sentence_bert_config.json") or _json(
        model / "sentence_bert_config.json"
    )
    if isinstance(sentence, dict) and isinstance(sentence.get("max_seq_length"), int):
        return int(sentence["max_seq_length"])
    limits = []
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        values = _json(folder / name)
        value = values.get(key) if isinstance(values, dict) else None
        if isinstance(value, int | float) and 0 < value <= NO_LIMIT:
            limits.append(int(value))
    return min(limits, default=512)


def _unknown_token(config: Any, file: Path) -> str | None:
    token = config.get("unk_token") if isinstance(config, dict) else None
    if isinstance(token, dict):  # older files keep an AddedToken
        token = token.get("content")
    if token is None and file.exists():
        model = _json(file).get("model", {})
        token = model.get("unk_token")
        if token is None and isinstance(model.get("unk_id"), int):
            token = model["vocab"][model["unk_id"]][0]
    return token if isinstance(token, str) else None


def _json(file: Path) -> Any:  # whatever the file holds; {} when absent
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{file}: cannot be read ({error}); fetch the model again") from error
