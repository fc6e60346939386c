"""Content words of a text in either language, and how rare they are."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from embedtune.language import language_of

WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")

ENGLISH_STOPWORDS = """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can cannot could did do does doing down during each either
    few for from further had has have having he her here hers him his how however i if in into
    is it its itself just may me might more most must my neither no nor not now of off on once
    only or other our out over own per same shall she should so some such than that the their
    them then there these they this those through thus to too under until up upon us very was
    we were what when where whether which while who whom whose why will with within without
    would you your
"""
CHINESE_STOPWORDS = """
    的 了 在 是 和 与 及 或 等 对 为 以 由 于 被 将 其 之 不 也 都 就 而 并 但 如 若 从 到 向 把
    让 给 这 那 该 此 各 每 个 们 有 无 可 能 会 应 应当 可以 不得 以及 或者 并且 但是 如果 因为
    所以 因此 对于 关于 按照 根据 通过 进行 其他 其中 以上 以下 之间 之后 之前 一个 一种 这个
    那个 这些 那些 我们 他们 你们 它们 自己 没有 不是 就是 还是 只有 只要 必须 需要 已经 正在
    同时 以外 之外 上述 下列 有关 相关 所有 任何 什么 怎么 如何 哪些 多少 是否 且 则 即 及其 其它
    所 者 时 中 上 下 内 外 后 前 里 间 要 用 使 当 又 再 很 更 最 比 只 仅 均 还 已 曾 某 由于 为了
"""
STOPWORDS = frozenset(ENGLISH_STOPWORDS.split() + CHINESE_STOPWORDS.split())


def terms_of(text: str) -> list[str]:
    """Content words in order, case folded; Chinese is cut by jieba."""
    if language_of(text) == "zh":
        words: Iterable[str] = (
            word for part in _jieba().cut(text) for word in WORD.findall(part.casefold())
        )
    else:
        words = WORD.findall(text.casefold())
    return [word for word in words if word not in STOPWORDS and (len(word) > 1 or word.isdigit())]


def han_words(text: str) -> list[str]:
    """The text cut into the words of a Chinese dictionary; joined they are the text again."""
    return list(_jieba().cut(text, HMM=False))


def inverse_frequencies(texts: Iterable[str]) -> dict[str, float]:
    """log((1 + n) / (1 + df)) + 1 of each term, n texts."""
    frequencies: Counter[str] = Counter()
    total = 0
    for text in texts:
        total += 1
        frequencies.update(set(terms_of(text)))
    return {term: math.log((1 + total) / (1 + count)) + 1 for term, count in frequencies.items()}


@cache
def _jieba() -> Any:  # a module without types
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba
