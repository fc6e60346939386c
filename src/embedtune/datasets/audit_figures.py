"""What figures measured on a data set can say: copied queries, crowding, chance, size, balance."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from embedtune.chance import chance_hit, chance_ndcg
from embedtune.datasets.audit_look import (
    Look,
    Text,
    example,
    finding_of,
    groups_of,
    judged_in,
    of,
)
from embedtune.datasets.findings import SHOWN, Balance, Finding
from embedtune.datasets.formats import LabelledRow, ScoredRow
from embedtune.files import visible
from embedtune.language import LANGUAGES, language_of
from embedtune.records import Chunk, Query
from embedtune.similar import RUN_CHARACTERS, RUN_WORDS, shares_run

LISTED = 20  # rows of a balance table
COPIED_SHARE = 0.30
LARGEST = 0.30  # share of the queries about one document above which splitting stops
FEW_QUERIES = 50
FEW_GROUPS = 20
SD_OF_DIFFERENCES = 0.30  # of nDCG@10 between two systems, per query: 0.22 to 0.36 on real sets
SIGNIFICANT, POWER = 1.959964, 0.841621  # normal quantiles of 97.5 % and 80 %
GAINS = (0.02, 0.05, 0.10)


def copied(look: Look) -> Iterator[Finding]:
    if not look.passages:
        return
    chunks = {text.id: text for text in look.passages}
    queries = {query.id: query for query in look.data.queries}
    for split in look.splits:
        found, total = [], 0
        for query_id, relevant in judged_in(look, split):
            query = queries[query_id]
            total += 1
            chunk = next((c for c in relevant if shares_run(query.text, chunks[c].text)), None)
            if chunk is not None:
                found.append((query, chunk))
        if found:
            yield finding_of(
                "copied-queries", "warns" if len(found) >= COPIED_SHARE * total else "informs",
                f"{of(len(found), total)} {visible(split)} queries share {RUN_WORDS} words or "
                f"{RUN_CHARACTERS} ideographs in a row with their passage",
                "reword them: real questions copy little, so such a test flatters word search and "
                "blocks shipping from 30 % on",
                len(found), total,
                (example(Text("query", query.id, query.text, frozenset()), chunks[chunk])
                 for query, chunk in found[:SHOWN]),
                numbers={"share": len(found) / total},
            )  # fmt: skip


def crowding(look: Look) -> Iterator[Finding]:
    """One document, or one label, that holds much of the data."""
    if look.source.format == "labelled":
        rows = look.source.examples.get("train") or next(iter(look.source.examples.values()))
        own = Counter(row.label for row in rows if isinstance(row, LabelledRow))
        what = "label"
    elif look.source.format == "scored":
        return
    else:
        documents = {chunk.id: chunk.document or chunk.id for chunk in look.data.chunks}
        own = Counter(documents[chunk] for split in look.splits
                      for _, chunks in judged_in(look, split) for chunk in chunks[:1])  # fmt: skip
        what = "document"
    total = sum(own.values())
    name, count = max(own.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    if len(own) > 1 and count > LARGEST * total:
        advice = (
            "a document is never divided between splits; add others, or split by section"
            if what == "document"
            else "add texts of the other labels, or leave some of this one out"
        )
        yield finding_of(
            f"one-{what}-crowds", "warns",
            f"{of(count, total)} {'queries are about' if what == 'document' else 'texts have'} "
            f"one {what}, {visible(name, 60)}",
            advice, count, total,
        )  # fmt: skip
    if what == "document":
        asked = {chunk for split in look.splits for _, own in judged_in(look, split)
                 for chunk in own}  # fmt: skip
        silent = sum(text.id not in asked for text in look.passages)
        if silent:
            yield finding_of(
                "passages-without-queries", "informs",
                f"{of(silent, len(look.passages))} passages have no query; they are distractors",
                "", silent, len(look.passages),
            )  # fmt: skip


def chance(look: Look) -> Iterator[Finding]:
    if look.source.format == "scored":
        return
    corpus = len({chunk.embedded for chunk in look.data.chunks})
    for split in look.splits:
        judged = [own for own in look.data.qrels.get(split, {}).values() if own]
        if split == "train" or not judged or not corpus:
            continue
        ndcg = float(np.mean([chance_ndcg(grades.values(), corpus) for grades in judged]))
        hits = {
            k: float(np.mean([chance_hit(sum(g > 0 for g in own.values()), corpus, k)
                              for own in judged]))
            for k in (1, 10)
        }  # fmt: skip
        yield finding_of(
            "chance-level", "warns" if ndcg >= 0.1 else "informs",
            f"a random ranking of the {corpus:,} passages has nDCG@10 {ndcg:.3f}, hit@1 "
            f"{hits[1]:.3f} and hit@10 {hits[10]:.3f} on {visible(split)}",
            "search more passages: so high a chance level leaves little to measure"
            if ndcg >= 0.1 and not look.data.shared_passages else "",
            len(judged), len(judged),
            numbers={"ndcg@10": ndcg, "hit@1": hits[1], "hit@10": hits[10]},
        )  # fmt: skip


def smallest_gain(queries: int) -> float:
    """The gain in nDCG@10 that a test of so many queries finds four times in five.

    (1.96 + 0.84) * s / sqrt(n), two-sided at 5 %, with s = 0.30 for the differences of one query
    between a tuned model and its base: 0.22 to 0.36 on three real sets, dependence of questions
    about one document included.
    """
    return (SIGNIFICANT + POWER) * SD_OF_DIFFERENCES / math.sqrt(queries)


def queries_for(gain: float) -> int:
    """How many test queries it takes to find ``gain`` four times in five."""
    return math.ceil(((SIGNIFICANT + POWER) * SD_OF_DIFFERENCES / gain) ** 2)


def test_size(look: Look) -> Iterator[Finding]:
    if look.source.format == "scored":
        return
    queries = len(look.data.qrels.get("test", ()))
    if not queries:
        return
    groups = len(groups_of(look, "test"))
    few = queries < FEW_QUERIES or 0 < groups < FEW_GROUPS
    needed = ", ".join(f"{gain:.2f} takes {queries_for(gain):,}" for gain in GAINS)
    about = f" about {groups:,} documents" if groups else ""
    yield finding_of(
        "test-size", "warns" if few else "informs",
        f"{queries:,} test queries{about} show a gain in nDCG@10 of {smallest_gain(queries):.3f} "
        f"or more (four times in five); {needed} queries",
        f"add test queries about other documents: with fewer than {FEW_QUERIES} queries or "
        f"{FEW_GROUPS} documents hardly any verdict is possible" if few else "",
        queries, queries,
        numbers={"smallest_gain": smallest_gain(queries), "groups": groups,
                 **{f"queries_for_{gain:.2f}": queries_for(gain) for gain in GAINS}},
    )  # fmt: skip


def balance_of(look: Look) -> Iterator[Balance]:
    data = look.data
    if look.source.format == "labelled":
        rows = [row for part in look.source.examples.values() for row in part]
        yield _counted("texts by label",
                       (row.label for row in rows if isinstance(row, LabelledRow)))  # fmt: skip
        yield _counted("texts by language", (language_of(text.text) for text in look.queries))
        return
    if look.source.format == "scored":
        scores = [row.score for part in look.source.examples.values() for row in part
                  if isinstance(row, ScoredRow)]  # fmt: skip
        fifths = Counter(min(4, int(score * 5)) for score in scores)
        yield Balance(
            "pairs by score",
            tuple((f"{fifth / 5:g} to {(fifth + 1) / 5:g}", fifths[fifth]) for fifth in range(5)),
        )
        yield _counted("texts by language", (language_of(text.text) for text in look.queries))
        return
    asked: Counter[str] = Counter()
    per_query: Counter[str] = Counter()
    for split in look.splits:
        for _, chunks in judged_in(look, split):
            asked.update(chunks)
            per_query[_few(len(chunks))] += 1
    per_passage = Counter(_few(asked[chunk.id]) for chunk in data.chunks)
    yield Balance("passages by number of queries", tuple(sorted(per_passage.items())))
    yield Balance("queries by number of relevant passages", tuple(sorted(per_query.items())))
    documents = {chunk.id: chunk.source or chunk.document or chunk.id for chunk in data.chunks}
    if len(set(documents.values())) < len(data.chunks):
        yield _counted("queries by document",
                       (documents[chunks[0]] for split in look.splits
                        for _, chunks in judged_in(look, split) if chunks))  # fmt: skip
    yield _counted("queries by language", (_language(query) for query in data.queries))
    yield _counted("passages by language", (_language(chunk) for chunk in data.chunks))
    for attribute, title in (("style", "queries by style"), ("origin", "queries by origin")):
        kinds = [getattr(query, attribute) or "none" for query in data.queries]
        if len(set(kinds)) > 1:
            yield _counted(title, kinds)


def _few(count: int) -> str:
    return str(count) if count < 6 else "6 and more"


def _language(one: Query | Chunk) -> str:
    text = one.text if isinstance(one, Query) else one.embedded
    code = one.language or language_of(text)
    return LANGUAGES.get(code, code)


def _counted(title: str, kinds: Iterable[str]) -> Balance:
    counts = sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    rest = counts[LISTED:]
    return Balance(
        title,
        tuple((visible(name, 60), count) for name, count in counts[:LISTED]),
        (len(rest), sum(count for _, count in rest)),
    )
