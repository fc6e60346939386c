"""Queries without any language model: headings, salient terms and cropped sentences.

They cost nothing and are worth less than written ones: they share words with the passage, which
favours lexical search. Their origin and style say ``extractive``.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from embedtune.language import language_of
from embedtune.queries.generate import (
    STAGE,
    Generation,
    QuerySettings,
    query_id,
    settle_repeats,
    turn_of,
    weight,
)
from embedtune.records import Chunk, Counts, Document, Query, Reject, Span

# A sentence ends at Chinese marks, at Latin ones before white space, and at a line's end.
SENTENCE = re.compile(r"[^。！？!?；\n.]*(?:\.(?!\s|$)[^。！？!?；\n.]*)*(?:[。！？!?；.]+|\n|$)")
WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
TERMS = 6  # content words of a sentence that make a cropped query, at most
FEWEST_TERMS = 3  # a sentence with fewer content words is not asked about

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


def extract_queries(
    chunks: Sequence[Chunk], documents: Iterable[Document], settings: QuerySettings
) -> Generation:
    """``per_chunk`` queries of each chunk made of its own words; the same input, the same queries.

    The sentences with the rarest words (tf-idf over all chunks) are taken, in three turning
    forms: the heading with the sentence's rarest words, those words alone, and the sentence
    cropped to its content words. The sentence is the evidence.
    """
    titles = {document.id: document.title for document in documents}
    idf = inverse_frequencies(chunk.text for chunk in chunks)
    queries: list[Query] = []
    rejects: list[Reject] = []
    for chunk in chunks:
        if weight(chunk.text) < settings.min_characters:
            rejects.append(_reject(chunk, "too-small", "too little text to ask about"))
            continue
        taken = _sentences(chunk, idf)[: settings.per_chunk]
        if not taken:
            rejects.append(_reject(chunk, "no-queries", "no sentence with enough content words"))
        heading = chunk.section[-1] if chunk.section else titles.get(chunk.document, "")
        turn = turn_of(chunk)
        for number, (span, terms) in enumerate(taken):
            text = FORMS[(turn + number) % len(FORMS)](heading, terms, idf)
            queries.append(
                Query(
                    id=query_id(text, span),
                    text=text,
                    language=language_of(text),
                    style="extractive",
                    origin="extractive",
                    document=chunk.document,
                    chunk=chunk.id,
                    evidence=span,
                )
            )
    kept, duplicates = settle_repeats(queries, rejects)
    counts = Counts(
        len(kept) + len(rejects) + len(duplicates), len(kept), len(rejects), len(duplicates)
    )
    return Generation(tuple(kept), (*rejects, *duplicates), counts)


def terms_of(text: str) -> list[str]:
    """Content words in order, case folded; Chinese is cut by jieba."""
    if language_of(text) == "zh":
        words: Iterable[str] = (
            word for part in _jieba().cut(text) for word in WORD.findall(part.casefold())
        )
    else:
        words = WORD.findall(text.casefold())
    return [word for word in words if word not in STOPWORDS and (len(word) > 1 or word.isdigit())]


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


def _sentences(chunk: Chunk, idf: dict[str, float]) -> list[tuple[Span, list[str]]]:
    """Sentences worth asking about with their distinct content words, rarest sentences first."""
    scored = []
    for match in SENTENCE.finditer(chunk.text):
        sentence = match[0]
        terms = list(dict.fromkeys(terms_of(sentence)))
        if len(terms) < FEWEST_TERMS:
            continue
        start = match.start() + len(sentence) - len(sentence.lstrip())
        end = match.start() + len(sentence.rstrip())
        # the rarest few count, so that a long sentence does not win by its length
        score = sum(sorted((idf.get(term, 1.0) for term in terms), reverse=True)[:TERMS])
        span = Span(chunk.document, chunk.start + start, chunk.start + end)
        scored.append((-score, span.start, span, terms))
    return [(span, terms) for _, _, span, terms in sorted(scored, key=lambda entry: entry[:2])]


def _rarest(terms: Sequence[str], idf: dict[str, float], count: int) -> list[str]:
    """The ``count`` rarest terms, in their order in the sentence."""
    chosen = set(sorted(terms, key=lambda term: (-idf.get(term, 1.0), term))[:count])
    return [term for term in terms if term in chosen]


def _with_heading(heading: str, terms: Sequence[str], idf: dict[str, float]) -> str:
    known = set(terms_of(heading))
    return " ".join(
        [heading, *_rarest([t for t in terms if t not in known] or terms, idf, 2)]
    ).strip()


def _salient(heading: str, terms: Sequence[str], idf: dict[str, float]) -> str:
    return " ".join(_rarest(terms, idf, 4))


def _cropped(heading: str, terms: Sequence[str], idf: dict[str, float]) -> str:
    """A window of neighbouring content words, the one with the rarest."""
    windows = [terms[start : start + TERMS] for start in range(max(1, len(terms) - TERMS + 1))]
    return " ".join(max(windows, key=lambda window: sum(idf.get(term, 1.0) for term in window)))


FORMS = (_with_heading, _salient, _cropped)


def _reject(chunk: Chunk, code: str, message: str) -> Reject:
    return Reject(STAGE, code, message, file=chunk.source, item=chunk.id, unusable=False)
