"""What is wrong with a test set or a base model, found before anybody believes a figure."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from embedtune.embed.tokens import Tokens
from embedtune.evaluation.metrics import discounts
from embedtune.language import HAN, LANGUAGES, SCRIPTS, language_of
from embedtune.records import Chunk, Query
from embedtune.results import Flag, SystemScores

FEW_QUERIES = 50
TIMES_CHANCE = 3
COPIED_SHARE = 0.30
UNKNOWN_SHARE = 0.20
CUT_SHARE = 0.20
RUN_CHARACTERS = 12
RUN_WORDS = 8
LANGUAGE_CODES = ("unknown-tokens", "cut-texts")  # flags that concern one language

Judgements = Mapping[str, Mapping[str, int]]

RUN_ITEM = re.compile(rf"[{HAN}]|(?:(?![{HAN}])[^\W\d_])+|\d+")


# ---- chance


def chance_ndcg(grades: Iterable[int], corpus: int, k: int = 10) -> float:
    """Expected nDCG@k of a random ranking: (R/N) * sum of 1/log2(i+1) for i <= k, over the ideal.

    With grades, R is their sum.
    """
    gains = sorted((grade for grade in grades if grade > 0), reverse=True)
    if not gains:
        return 0.0
    k = min(k, corpus)
    ideal = float(np.dot(gains[:k], discounts(len(gains[:k]))))
    return sum(gains) / corpus * float(discounts(k).sum()) / ideal


def chance_hit(relevant: int, corpus: int, k: int) -> float:
    """Probability that a random ranking has one of ``relevant`` among its first ``k``
    (hypergeometric)."""
    missed = 1.0
    for draw in range(min(k, corpus)):
        missed *= max(0, corpus - relevant - draw) / (corpus - draw)
    return 1 - missed


def chance(judgements: Judgements, corpus: int, k: int = 10) -> dict[str, float]:
    """Mean chance levels of a split: nDCG@k and hit@k."""
    return {
        f"ndcg@{k}": float(np.mean([chance_ndcg(g.values(), corpus, k)
                                    for g in judgements.values()])),
        f"hit@{k}": float(np.mean([chance_hit(sum(v > 0 for v in g.values()), corpus, k)
                                   for g in judgements.values()])),
    }  # fmt: skip


# ---- flags


def chance_flags(
    base: SystemScores, untuned: Sequence[SystemScores], judgements: Judgements, corpus: int
) -> tuple[Flag, ...]:
    """*Broken test set*: even the best untuned system does not rise above chance. *Unsuitable
    base*: only the base does not; that blocks nothing.

    Args:
        untuned: All untuned systems, BM25 and APIs included.
        corpus: Number of different texts searched.
    """
    metric = "ndcg@10"
    level = chance(judgements, corpus)[metric]
    best = max((base, *untuned), key=lambda scores: scores.metrics[metric])

    def at_chance(scores: SystemScores) -> bool:
        low, _ = scores.intervals[metric]
        return low <= level or scores.metrics[metric] < TIMES_CHANCE * level

    if at_chance(best):
        return (
            Flag(
                "broken-test-set",
                f"the best untuned system ({best.name}) has nDCG@10 {best.metrics[metric]:.3f} "
                f"where chance gives {level:.3f}: the test set is broken, its questions or its "
                "judgements do not fit the passages",
                blocks=True,
                numbers={"best": best.metrics[metric], "chance": level},
            ),
        )
    if at_chance(base):
        return (
            Flag(
                "unsuitable-base",
                f"the base {base.name} is near chance (nDCG@10 {base.metrics[metric]:.3f}, chance "
                f"{level:.3f}) while {best.name} reaches {best.metrics[metric]:.3f}: another base "
                "will do better",
                blocks=False,
                numbers={"base": base.metrics[metric], "chance": level},
            ),
        )
    return ()


def few_queries_flag(queries: int) -> tuple[Flag, ...]:
    """A flag under 50 test queries."""
    if queries >= FEW_QUERIES:
        return ()
    message = f"only {queries} test queries; under {FEW_QUERIES} nothing can be shipped on them"
    return (Flag("few-queries", message, blocks=True, numbers={"queries": queries}),)


def copied_flag(
    queries: Sequence[Query], chunks: Mapping[str, Chunk], judgements: Judgements
) -> tuple[Flag, ...]:
    """A flag when 30 % of the queries copy a run of their passage: such a test rewards word
    overlap that real questions do not have."""
    copied = sum(
        any(shares_run(query.text, chunks[chunk].embedded) for chunk in judgements[query.id])
        for query in queries
    )
    share = copied / len(queries) if queries else 0.0
    if share < COPIED_SHARE:
        return ()
    return (
        Flag(
            "copied-queries",
            f"{share:.0%} of the queries share {RUN_WORDS} words or {RUN_CHARACTERS} characters "
            "in a row with their passage; real questions do not, so the figures flatter BM25 and "
            "say little",
            blocks=True,
            numbers={"share": share},
        ),
    )


def shares_run(query: str, passage: str) -> bool:
    """Whether both hold the same 12 Chinese characters, or the same 8 words, in a row."""
    return _shares(_han(query), _han(passage), RUN_CHARACTERS) or _shares(
        _words(query), _words(passage), RUN_WORDS
    )


def _han(text: str) -> list[str]:
    # punctuation and blanks end no run; a Latin word does
    normal = unicodedata.normalize("NFKC", text).lower()
    return RUN_ITEM.findall(normal)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())


def _shares(query: list[str], passage: list[str], length: int) -> bool:
    runs = _runs(query, length)
    return bool(runs) and not runs.isdisjoint(_runs(passage, length))


def _runs(items: list[str], length: int) -> set[tuple[str, ...]]:
    runs = (tuple(items[first : first + length]) for first in range(len(items) - length + 1))
    if length == RUN_CHARACTERS:
        return {run for run in runs if all(SCRIPTS["han"].fullmatch(item) for item in run)}
    return set(runs)


def leakage_flag(affected: int, total: int, *, removed: bool) -> tuple[Flag, ...]:
    """A flag when test queries have near-duplicates in training.

    Args:
        affected: Test queries whose passages have one.
        removed: Whether the training pairs concerned were left out; then it blocks nothing.
    """
    if not affected:
        return ()
    what = (
        "; the training pairs concerned were left out"
        if removed
        else ", and the model was trained on them: the figures are too good"
    )
    return (
        Flag(
            "leakage",
            f"{affected} of {total} test queries have near-duplicates of their passages in the "
            f"training split{what}",
            blocks=not removed,
            numbers={"affected": affected, "queries": total},
        ),
    )


def language_flags(
    queries: Sequence[Query], chunks: Sequence[Chunk], tokens: Tokens
) -> tuple[Flag, ...]:
    """Flags for each language the model cannot read, or of which it would not see enough.

    Unknown: over 20 % of the tokens of its texts. Cut: over 20 % of its texts are longer than
    the model reads.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for query in queries:
        texts[query.language or language_of(query.text)].append(query.text)
    for chunk in chunks:
        texts[chunk.language or language_of(chunk.embedded)].append(chunk.embedded)
    flags = []
    for language, own in sorted(texts.items()):
        name = LANGUAGES.get(language, language)
        counts = tokens.count(own)
        unknown = sum(tokens.unknown(own)) / max(1, sum(counts))
        cut = sum(count > tokens.max_tokens for count in counts) / len(own)
        if unknown > UNKNOWN_SHARE:
            flags.append(
                Flag(
                    "unknown-tokens",
                    f"the model cannot read the {name} text: {unknown:.0%} of its tokens are "
                    "unknown to the model's tokenizer and look all the same to it",
                    blocks=True,
                    language=language,
                    numbers={"share": unknown, "texts": len(own)},
                )
            )
        if cut > CUT_SHARE:
            flags.append(
                Flag(
                    "cut-texts",
                    f"the model does not see the end of {cut:.0%} of the {name} texts: they are "
                    f"longer than the {tokens.max_tokens} tokens it reads; make chunks shorter",
                    blocks=True,
                    language=language,
                    numbers={"share": cut, "texts": len(own)},
                )
            )
    return tuple(flags)
