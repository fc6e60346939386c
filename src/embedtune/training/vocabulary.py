"""New words for a tokenizer: those it does not know, or cuts into many pieces, and that recur.

An English tokenizer reads most Chinese characters as one and the same unknown token, so that a
model cannot tell their texts apart; as tokens of their own they can be trained.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from embedtune.errors import ConfigError
from embedtune.language import HAN

MANY = 4  # pieces of a word that is worth a token
MOST = 5_000  # new tokens
UNSPACED = HAN + r"\u3041-\u3096\u30a1-\u30fa\u30fc\u31f0-\u31ff"  # no spaces between words
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
ALONE = re.compile(rf"[{UNSPACED}]")


def new_words(tokenizer: Any, texts: Sequence[str], at_least: int) -> list[str]:
    """Words and Chinese or Japanese characters that stand in ``at_least`` different texts, of which
    the tokenizer makes an unknown token, or ``MANY`` pieces or more.

    As the tokenizer normalises them (lower case, say); unknown ones first, then by number of texts,
    ``MOST`` of them at most. Numbers are left out.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    normal: dict[str, str] = {}
    found: Counter[str] = Counter()
    for text in set(texts):
        raw = set(WORD.findall(text))
        for word in raw - normal.keys():
            kept = normalizer.normalize_str(word).strip() if normalizer else word
            normal[word] = kept if WORD.fullmatch(kept) and not kept.isdigit() else ""
        found.update({normal[word] for word in raw} - {""})
    recurring = sorted(word for word, count in found.items() if count >= at_least)
    pieces = _pieces(tokenizer, recurring)
    unknown = {
        word for word, ids in zip(recurring, pieces, strict=True) if tokenizer.unk_token_id in ids
    }
    many = {word for word, ids in zip(recurring, pieces, strict=True) if len(ids) >= MANY}
    order = sorted(unknown | many, key=lambda word: (word not in unknown, -found[word], word))
    return order[:MOST]


def extend(model: Any, words: Sequence[str]) -> None:
    """Add ``words``, of which none is a token yet, to the tokenizer and the table of a
    SentenceTransformer whose first module is a Transformer.

    A word's vector begins as the mean of its pieces'; where none is known, as a draw from the
    distribution of all vectors, fixed by the word. Old tokens keep their vectors.

    Raises:
        ConfigError: The tokenizer cannot be extended.
    """
    import torch
    from transformers import AddedToken

    network, tokenizer = model[0].model, model[0].tokenizer
    old = network.get_input_embeddings().weight.detach().clone()
    used = old[: len(tokenizer)].double()
    mean, spread = used.mean(dim=0), used.std(dim=0)
    starts = []
    for word, ids in zip(words, _pieces(tokenizer, words), strict=True):
        known = [id for id in ids if id != tokenizer.unk_token_id]
        if known:
            starts.append(used[known].mean(dim=0))
            continue
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) >> 1
        drawn = torch.randn(len(mean), generator=torch.Generator().manual_seed(seed))
        starts.append(mean + spread * drawn.to(mean))
    added = tokenizer.add_tokens([_token(AddedToken, word) for word in words])
    if added != len(words):
        raise ConfigError(
            f"training.new_tokens: the tokenizer took {added} of {len(words)} new words; leave it "
            "off for this model"
        )
    network.resize_token_embeddings(max(len(old), len(tokenizer)), mean_resizing=False)
    table = network.get_input_embeddings().weight
    with torch.no_grad():
        table[: len(old)] = old
        for word, start in zip(words, starts, strict=True):
            table[tokenizer.convert_tokens_to_ids(word)] = start.to(table)


def _token(kind: Any, word: str) -> Any:  # transformers' AddedToken
    if ALONE.fullmatch(word):
        return kind(word, normalized=False)
    return kind(word, normalized=True, single_word=True, lstrip=True)


def _pieces(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    """Ids of each word where it stands inside a text."""
    if not words:
        return []
    return tokenizer(
        [f" {word}" for word in words], add_special_tokens=False, return_attention_mask=False,
        return_token_type_ids=False, verbose=False,
    )["input_ids"]  # fmt: skip
