"""An answer without a language model: the sentences that answer best, word for word."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedtune.records import Chunk
from embedtune.retrieve.answer import Citation, Passage
from embedtune.retrieve.answer.citations import body_of, shortened
from embedtune.retrieve.answer.prompts import wording
from embedtune.retrieve.bm25 import BM25, terms
from embedtune.retrieve.index import Index
from embedtune.sentences import sentences
from embedtune.similar import normalise

MOST = 3  # sentences quoted
FEWEST_TERMS = 2  # a sentence of fewer says nothing by itself


class Quote(NamedTuple):
    """A sentence, cut where it is very long, and the passage that holds it."""

    passage: Passage
    text: str


def quoted(question: str, quotes: Sequence[Quote]) -> tuple[str, tuple[Citation, ...]]:
    """The text of an answer that says what it is, a sentence a line with its ``[n]``; and its
    citations in order of number, each with the best sentence of its passage."""
    lines = [f"{quote.text} [{quote.passage.number}]" for quote in quotes]
    best: dict[int, Quote] = {}
    for quote in quotes:
        best.setdefault(quote.passage.number, quote)
    citations = tuple(
        Citation(number, own.passage.chunk, own.passage.score, own.text)
        for number, own in sorted(best.items())
    )
    return "\n".join([wording(question).quoted, "", *lines]), citations


def best_quotes(question: str, passages: Sequence[Passage], index: Index) -> list[Quote]:
    """The sentences that answer best, the best first; none where the passages hold no sentence.

    What counts is how near a sentence is to the question by the index's model, by BM25 among the
    sentences, and how well its passage was found: three scores, standardised and added. Slow: the
    model reads every sentence.
    """
    quotes = _sentences(passages)
    if not quotes:
        return []
    texts = [quote.text for quote in quotes]
    words = BM25([Chunk(str(n), "", 0, 0, "", text) for n, text in enumerate(texts)])
    total = (
        _standardised(index.rate(question, texts))
        + _standardised(words.scores(question))
        + _standardised([quote.passage.score for quote in quotes])
    )
    order = np.lexsort((np.arange(len(quotes)), -total.round(6)))
    return [quotes[place] for place in order[:MOST]]


def _sentences(passages: Sequence[Passage]) -> list[Quote]:
    """Each once, from the best passage that holds it: neighbours among passages overlap. Headings
    and questions answer nothing."""
    found: dict[str, Quote] = {}
    for passage in passages:
        text = body_of(passage)
        headings = {normalise(heading) for heading in passage.chunk.section}
        for start, end in sentences(text, 0, len(text)):
            sentence = text[start:end]
            plain = normalise(sentence)
            asks = sentence.endswith(("?", "？"))
            heading = sentence.startswith("#") or plain in headings
            if not asks and not heading and len(terms(sentence)) >= FEWEST_TERMS:
                found.setdefault(plain, Quote(passage, shortened(sentence)))
    return list(found.values())


def _standardised(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros(len(values))
