"""The tokenizer of a static model: whole words, and Chinese as its characters and their pairs.

It is a plain ``tokenizers.Tokenizer``, so that whoever loads the model needs nothing of ours.
Overlapping pairs are nothing such a tokenizer offers. A table that writes every character thrice,
with a mark between (``股票`` becomes ``股␟股␟股票␟票␟票``), makes them: cut at the marks, that
is the characters and the pairs, with the first and the last character once too often, which a
second cut removes. The table is the compiled one of SentencePiece, which maps single characters to
any text; one written for each corpus knows its characters only. Others have no row in the model.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from embedtune.language import HAN

UNKNOWN = "[UNK]"
MARK = "\u241f"
# scripts without spaces between words (Hangul has them, but its words carry endings)
UNSPACED = HAN.replace(r"\U00020000-\U000323af", r"\x{20000}-\x{323af}") + (
    r"\u3041-\u3096\u30a1-\u30fa\u30fc\u31f0-\u31ff\uac00-\ud7a3"
)
# English plurals and verbs in -s (Harman 1991), where at least three letters stay
ENDINGS = (
    (r"(?<=[a-z]{2}[b-df-hj-np-tv-z])ies\b", "y"),
    (r"(?<=[a-z]{2}(?:ss|sh|ch|[xz]))es\b", ""),
    (r"(?<=[a-z]{2}[a-hj-rtv-z])s\b", ""),
)
BLOCK = 256  # units of the table that belong to one node


def build_tokenizer(
    passages: Sequence[str], queries: Sequence[str], *, limit: int
) -> Any:  # a tokenizers.Tokenizer, imported below
    """The tokenizer of the words in ``passages`` and ``queries``; id 0 is the unknown word's.

    Case, width, accents and the plural s of Latin words are folded. Of more than ``limit``
    different words the most frequent ones are kept (number of texts, then by content).
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    folding = [
        normalizers.NFKD(),
        normalizers.StripAccents(),
        normalizers.NFKC(),
        normalizers.Lowercase(),
        *(normalizers.Replace(Regex(ending), short) for ending, short in ENDINGS),
    ]
    letters = r"[\p{L}\p{M}\p{N}]"
    runs = Regex(f"[{UNSPACED}{MARK}]+|(?:(?![{UNSPACED}]){letters})+")
    texts = [*passages, *queries]
    folded = normalizers.Sequence(folding)
    unspaced = Regex(f"[{UNSPACED}]")
    only_unspaced = pre_tokenizers.Split(unspaced, "removed", invert=True)
    characters: set[str] = set()
    for text in texts:
        pieces = only_unspaced.pre_tokenize_str(folded.normalize_str(text))
        characters.update(piece for piece, _ in pieces)
    thrice = [(sign, MARK.join((sign, sign, sign))) for sign in sorted(characters)]
    table = [normalizers.Precompiled(compiled_table(thrice))] if thrice else []

    def with_words(words: dict[str, int]) -> Any:
        made = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
        made.normalizer = normalizers.Sequence([*folding, *table])
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(runs, "removed", invert=True),
            pre_tokenizers.Split(Regex(rf"\A[{UNSPACED}]{MARK}|{MARK}[{UNSPACED}]\z"), "removed"),
            pre_tokenizers.Split(Regex(MARK), "removed"),
        ])  # fmt: skip
        return made

    probe = with_words({UNKNOWN: 0})
    number: Counter[str] = Counter()
    for text in texts:
        number.update(set(split_text(probe, text)))
    kept = sorted(number, key=lambda word: (-number[word], word))[:limit]
    return with_words({UNKNOWN: 0, **{word: place for place, word in enumerate(kept, 1)}})


def split_text(tokenizer: Any, text: str) -> list[str]:
    """The words of a text as the tokenizer cuts them, known or not."""
    folded = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(folded)]


def compiled_table(pairs: Iterable[tuple[str, str]]) -> bytes:
    """SentencePiece's ``precompiled_charsmap`` for single characters and what stands for each.

    Layout: size of the tree in bytes, the tree, the replacements, each closed by a zero byte. The
    tree is a double array (Aoe 1989) as darts-clone stores it: one 32-bit unit a byte of the key,
    with its label (bits 0 to 7), whether a key ends here (bit 8) and the way to its children
    (from bit 10; xor with the own place). A unit with bit 31 holds the place of a replacement.
    Every node has a block of 256 units to itself: larger than need be, and free of clashes.
    """
    tree: dict[int, Any] = {}  # byte -> node, or the place of the replacement
    replacements = bytearray()
    for sign, replacement in pairs:
        node = tree
        *path, last = sign.encode()
        for byte in path:
            node = node.setdefault(byte, {})
        node[last] = len(replacements)
        replacements += replacement.encode() + b"\0"
    nodes = [tree]
    for node in nodes:  # grows while it is walked
        nodes += [child for _, child in sorted(node.items()) if isinstance(child, dict)]
    first_of = {id(node): BLOCK * place for place, node in enumerate(nodes, 1)}
    units = [0] * (BLOCK * (len(nodes) + 1))
    units[0] = BLOCK << 10
    for node in nodes:
        for byte, child in sorted(node.items()):
            place = first_of[id(node)] ^ byte
            if isinstance(child, dict):
                units[place] = byte | (place ^ first_of[id(child)]) << 10
            else:
                units[place] = byte | 1 << 8 | (place ^ len(units)) << 10
                units.append(1 << 31 | child)
    units += [0] * (-len(units) % BLOCK)
    packed = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(packed)) + packed + bytes(replacements)
