"""Queries without any language model: headings, salient terms and cropped sentences.

They cost nothing and are worth less than written ones: they share words with the passage, which
favours lexical search. Their origin and style say ``extractive``.
"""

import re
from collections.abc import Iterable, Sequence

from embedtune.language import language_of
from embedtune.queries.asking import QuerySettings, turn_of
from embedtune.queries.checks import STAGE, query_id, settle_repeats
from embedtune.queries.generate import Generation
from embedtune.queries.terms import inverse_frequencies, terms_of
from embedtune.queries.worth import not_worth_asking
from embedtune.records import Chunk, Counts, Document, Query, Reject, Span

# A sentence ends at Chinese marks, at Latin ones before white space, and at a line's end.
SENTENCE = re.compile(r"[^。！？!?；\n.]*(?:\.(?!\s|$)[^。！？!?；\n.]*)*(?:[。！？!?；.]+|\n|$)")
TERMS = 6  # content words of a sentence that make a cropped query, at most
FEWEST_TERMS = 3  # a sentence with fewer content words is not asked about


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
    skipped = not_worth_asking(chunks, settings.min_characters)
    for chunk in chunks:
        if chunk.id in skipped:
            rejects.append(_reject(chunk, *skipped[chunk.id]))
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
