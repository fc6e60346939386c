"""What an audit finds of lengths, tokens that the model does not know, and languages."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from embedtune.datasets.audit_look import (
    EXCERPT,
    Look,
    Text,
    example,
    finding_of,
    judged_in,
    of,
)
from embedtune.datasets.findings import SHOWN, Example, Finding, Lengths
from embedtune.embed.tokens import Tokens
from embedtune.files import visible
from embedtune.language import LANGUAGES, language_of

Role = Literal["query", "passage", "text"]

SAMPLE = 20_000  # texts of one role and language whose tokens are counted
UNKNOWN_SHARE = 0.20  # of tokens: `train` stops above it
CUT_SHARE = 0.20  # of texts: nothing is shipped above it


def by_language_of(look: Look) -> dict[tuple[Role, str], list[Text]]:
    """Texts by role and language, a sample where there are very many."""
    languages: dict[str, str] = {
        one.id: one.language for one in (*look.data.queries, *look.data.chunks) if one.language
    }
    found: dict[tuple[Role, str], list[Text]] = defaultdict(list)
    for text in (*look.queries, *look.passages):
        found[text.what, languages.get(text.id) or language_of(text.text)].append(text)
    for texts in found.values():
        if len(texts) > SAMPLE:
            texts.sort(
                key=lambda text: hashlib.sha256(text.id.encode("utf-8", "surrogatepass")).digest()
            )
            del texts[SAMPLE:]
    return dict(sorted(found.items()))


def lengths_of(
    by_language: Mapping[tuple[Role, str], Sequence[Text]], tokens: Tokens
) -> Iterator[Lengths]:
    for (role, language), texts in by_language.items():
        counts = np.array(tokens.count([text.text for text in texts]))
        unknown = sum(tokens.unknown([text.text for text in texts]))
        yield Lengths(
            role,
            language,
            len(texts),
            tokens.max_tokens,
            int(np.median(counts)),
            int(counts.max()),
            int((counts > tokens.max_tokens).sum()),
            float((counts - tokens.max_tokens).clip(min=0).sum() / max(1, counts.sum())),
            float(unknown / max(1, counts.sum())),
            tuple(_bars(counts, tokens.max_tokens)),
        )


def _bars(counts: np.ndarray, limit: int) -> Iterator[tuple[int, int, int]]:
    """A histogram of up to 24 bars of a round width, one border at the model's limit.

    The last one holds all that is longer than four times the limit.
    """
    longest = int(min(counts.max(), 4 * limit))
    width = max(1, math.ceil(longest / 24))
    width = next((step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
                  if step >= width and limit % step == 0), width)  # fmt: skip
    bars = max(1, math.ceil(longest / width))
    places = np.minimum((counts - 1).clip(min=0) // width, bars - 1)
    for bar, texts in enumerate(np.bincount(places, minlength=bars).tolist()):
        last = int(counts.max()) if bar == bars - 1 else (bar + 1) * width
        yield bar * width, max(last, (bar + 1) * width), texts


def token_findings(
    texts: Mapping[tuple[Role, str], Sequence[Text]], lengths: Sequence[Lengths], tokens: Tokens
) -> Iterator[Finding]:
    for one in lengths:
        name = LANGUAGES.get(one.language, one.language)
        words = f"{name} {'queries' if one.role == 'query' else f'{one.role}s'}"
        if one.cut:
            cut = _longest(texts[one.role, one.language], tokens)
            yield finding_of(
                "cut-texts", "warns" if one.cut > CUT_SHARE * one.texts else "informs",
                f"{of(one.cut, one.texts)} {words} are longer than the {tokens.max_tokens} tokens "
                f"that {model_name(tokens)} reads: {one.tokens_cut:.1%} of their tokens are never "
                "seen",
                "make chunks shorter, or take a model that reads more",
                one.cut, one.texts, cut, language=one.language,
                numbers={"tokens_cut": one.tokens_cut},
            )  # fmt: skip
        if one.unknown > 0.01:
            stops = one.unknown > UNKNOWN_SHARE
            yield finding_of(
                "unknown-tokens", "stops" if stops else "informs",
                f"{model_name(tokens)} does not know {one.unknown:.0%} of the tokens of the {words}"
                + ("; they look all the same to it" if stops else ""),
                "take a base model that reads the language; training stops above "
                f"{UNKNOWN_SHARE:.0%} unless training.allow_unknown_tokens" if stops else "",
                one.texts, one.texts, language=one.language, numbers={"share": one.unknown},
            )  # fmt: skip


def model_name(tokens: Tokens) -> str:
    """Without the revision, which is long and says nothing here."""
    return tokens.name.partition("@")[0]


def _longest(texts: Sequence[Text], tokens: Tokens) -> list[Example]:
    """The beginnings of what is cut off texts that are among the longest."""
    longest = sorted(texts, key=lambda text: (-len(text.text), text.id))[: 10 * SHOWN]
    counts = tokens.count([text.text for text in longest])
    examples = []
    for text, count in sorted(
        zip(longest, counts, strict=True), key=lambda one: (-one[1], one[0].id)
    )[:SHOWN]:
        spans = tokens.offsets(text.text)
        seen = tokens.max_tokens - (count - len(spans))  # without the special tokens
        if 0 <= seen < len(spans):
            lost = " ".join(text.text[spans[seen][0] :].split())
            examples.append(Example((visible(text.id),), (f"… {visible(lost, EXCERPT)}",),
                                    f"{count:,} tokens; lost from here"))  # fmt: skip
    return examples


def other_languages(look: Look) -> Iterator[Finding]:
    """Questions in another language than their passage."""
    if not look.passages:
        return
    languages = {chunk.id: chunk.language or language_of(chunk.embedded)
                 for chunk in look.data.chunks}  # fmt: skip
    queries = {query.id: query for query in look.data.queries}
    by_id = {text.id: text for text in look.passages}
    found, total = [], 0
    for split in look.splits:
        for query_id, chunks in judged_in(look, split):
            query = queries[query_id]
            own = query.language or language_of(query.text)
            total += bool(chunks)
            if chunks and all(languages[chunk] != own for chunk in chunks):
                found.append((query, chunks[0]))
    if found:
        yield finding_of(
            "other-language", "informs",
            f"{of(len(found), total)} queries are in another language than their passages",
            "nothing, if users ask so; BM25 can hardly find these, and the base model must know "
            "both languages",
            len(found), total,
            (example(Text("query", query.id, query.text, frozenset()), by_id[chunk])
             for query, chunk in found[:SHOWN]),
        )  # fmt: skip
