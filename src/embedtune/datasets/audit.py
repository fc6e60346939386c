"""``embedtune audit``: what is wrong with a data set, found before anybody trains on it.

Every check looks at the data as read and leaves findings; none changes anything. Leaks are found
by what two texts share that others do not (see ``leaks``), so that passages of one form with
other facts are none, and sentences in another order are one.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embedtune.chance import chance_hit, chance_ndcg
from embedtune.datasets.findings import (
    SHOWN,
    Audit,
    Balance,
    Example,
    Finding,
    Leak,
    Lengths,
    Severity,
    ordered,
)
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.leaks import Shared, shared_texts
from embedtune.datasets.source import Source
from embedtune.embed.tokens import Tokens
from embedtune.files import visible
from embedtune.language import LANGUAGES, language_of
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.retrieve import Retriever
from embedtune.similar import RUN_CHARACTERS, RUN_WORDS, normalise, shares_run

What = Literal["passage", "query", "text"]
Role = Literal["query", "passage", "text"]

EXCERPT = 100  # characters of a text in an example
COMPARED = 20_000_000  # characters compared with each other; of more, the rest for equality only
SAMPLE = 20_000  # texts of one role and language whose tokens are counted
ASKED = 500  # queries put to the retriever
DEPTH = 20
LISTED = 20  # rows of a balance table
HELD_OUT = ("test", "dev")  # the stricter first
COPIES = ("exact", "edited", "re-ordered")  # kinds of shared text that say the same

UNKNOWN_SHARE = 0.20  # of tokens: `train` stops above it
CUT_SHARE = 0.20  # of texts: nothing is shipped above it
COPIED_SHARE = 0.30
LARGEST = 0.30  # share of the queries about one document above which splitting stops
FEW_QUERIES = 50
FEW_GROUPS = 20
SD_OF_DIFFERENCES = 0.30  # of nDCG@10 between two systems, per query: 0.22 to 0.36 on real sets
SIGNIFICANT, POWER = 1.959964, 0.841621  # normal quantiles of 97.5 % and 80 %
GAINS = (0.02, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the data set and the splits it is used in."""

    what: What
    id: str
    text: str
    splits: frozenset[str]


@dataclass(slots=True)
class _Look:
    """What several checks need, worked out once."""

    source: Source
    splits: tuple[str, ...] = ()
    passages: list[Text] = field(default_factory=list)
    queries: list[Text] = field(default_factory=list)
    shared_passages: list[Shared] = field(default_factory=list)
    shared_queries: list[Shared] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def data(self) -> RetrievalSet:
        return self.source.data


def audit(
    source: Source, *, tokens: Tokens | None = None, retriever: Retriever | None = None
) -> Audit:
    """Look a data set through.

    Args:
        tokens: Of the model that is to be trained or used; without it lengths, cuts and unknown
            tokens are not looked at.
        retriever: Over the data set's passages; it estimates how many unjudged passages answer as
            well. Without it only unjudged copies of relevant passages are counted.
    """
    look = _look(source)
    leaks = [*_leaks(look.passages, look.shared_passages, look),
             *_leaks(look.queries, look.shared_queries, look)]  # fmt: skip
    by_language = _by_language(look) if tokens else {}
    lengths = tuple(_lengths(by_language, tokens)) if tokens else ()
    findings = [
        *_same_pairs(look),
        *_leak_findings(look, leaks),
        *_duplicates(look),
        *_contradictions(look),
        *_labels(source),
        *_false_negatives(look, retriever),
        *(_token_findings(by_language, lengths, tokens) if tokens else ()),
        *_languages(look),
        *_copied(look),
        *_crowding(look),
        *_chance(look),
        *_test_size(look),
    ]
    return Audit(
        name=look.data.name,
        format=source.format,
        passages=0 if source.format in ("labelled", "scored") else len(look.data.chunks),
        queries=_sizes(look),
        groups={split: len(_groups(look, split)) for split in look.data.qrels},
        model=_model(tokens) if tokens else "",
        findings=ordered(findings),
        leaks=tuple(leaks),
        lengths=lengths,
        balance=tuple(_balance(look)),
        notes=(*source.notes, *look.notes),
    )


# ---- the data, as the checks want it


def _look(source: Source) -> _Look:
    data = source.data
    look = _Look(source)
    names = list(source.examples) or list(data.qrels)
    # a part such as test_jobseeker is of test
    look.splits = tuple(
        name for name in names if not any(name.startswith(f"{other}_") for other in names)
    )
    if source.format in ("labelled", "scored"):
        look.queries = _row_texts(source)
        look.shared_queries = _compare(look.queries, look.notes)
        return look
    used: dict[str, set[str]] = defaultdict(set)
    asked: dict[str, set[str]] = defaultdict(set)
    for split in look.splits:
        for query, grades in data.qrels.get(split, {}).items():
            asked[query].add(split)
            relevant = [chunk for chunk, grade in grades.items() if grade > 0]
            for chunk in (*relevant, *source.negatives.get(query, ())):
                used[chunk].add(split)
    look.passages = [
        Text("passage", chunk.id, chunk.embedded, frozenset(used[chunk.id]))
        for chunk in data.chunks
    ]
    look.queries = [
        Text("query", query.id, query.text, frozenset(asked[query.id])) for query in data.queries
    ]
    look.shared_passages = _compare(look.passages, look.notes)
    look.shared_queries = _compare(look.queries, look.notes)
    return look


def _row_texts(source: Source) -> list[Text]:
    """The texts of scored pairs or of labelled rows, each once, by the place of its first row."""
    splits: dict[str, set[str]] = defaultdict(set)
    first: dict[str, str] = {}
    for split, rows in source.examples.items():
        for row in rows:
            for column, text in enumerate(_texts_of(row)):
                splits[text].add(split)
                first.setdefault(text, _place(row) + (", second" if column else ""))
    return [Text("text", first[text], text, frozenset(own)) for text, own in splits.items()]


def _texts_of(row: object) -> tuple[str, ...]:
    if isinstance(row, LabelledRow):
        return (row.text,)
    if isinstance(row, ScoredRow):
        return (row.sentence1, row.sentence2)
    return ()


def _place(row: LabelledRow | ScoredRow | PairRow) -> str:
    return row.place.rpartition("/")[2]


def _compare(texts: Sequence[Text], notes: list[str]) -> list[Shared]:
    """What the texts share, those of held-out splits first where not all can be compared."""
    questions = any(text.what == "query" for text in texts)
    if sum(len(text.text) for text in texts) <= COMPARED:
        return shared_texts([text.text for text in texts], questions=questions)

    def urgency(number: int) -> tuple[int, str]:
        splits = texts[number].splits
        rank = 0 if splits & {*HELD_OUT} else 1 if splits else 2
        return rank, hashlib.sha256(texts[number].id.encode("utf-8", "surrogatepass")).hexdigest()

    chosen: list[int] = []
    room = COMPARED
    for number in sorted(range(len(texts)), key=urgency):
        room -= len(texts[number].text)
        if room < 0:
            break
        chosen.append(number)
    chosen.sort()
    notes.append(
        f"{len(chosen):,} of {len(texts):,} {texts[0].what} texts were compared with each other "
        f"({COMPARED:,} characters, those of test and dev first); the others only for equality"
    )
    found = {
        (chosen[pair.one], chosen[pair.other]): pair
        for pair in shared_texts([texts[number].text for number in chosen], questions=questions)
    }
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        one = first.setdefault(normalise(text.text), number)
        if one != number:
            found.setdefault((one, number), Shared(one, number, "exact", 1.0))
    return [Shared(*pair, shared.kind, shared.share) for pair, shared in sorted(found.items())]


def _example(*texts: Text, note: str = "") -> Example:
    return Example(
        tuple(visible(text.id, EXCERPT) for text in texts),
        tuple(visible(" ".join(text.text.split()), EXCERPT) for text in texts),
        note,
    )


def _sizes(look: _Look) -> dict[str, int]:
    if look.source.examples and look.source.format in ("labelled", "scored"):
        return {split: len(rows) for split, rows in look.source.examples.items()}
    return {split: len(own) for split, own in look.data.qrels.items()}


def _relevant(look: _Look, split: str) -> Iterator[tuple[str, list[str]]]:
    """(query, its relevant chunks) of a split."""
    for query, grades in look.data.qrels.get(split, {}).items():
        yield query, [chunk for chunk, grade in grades.items() if grade > 0]


def _groups(look: _Look, split: str) -> set[str]:
    """The documents asked about in a split; texts that share their passages have none."""
    if look.data.shared_passages or look.source.format == "scored":
        return set()
    documents = {chunk.id: chunk.document or chunk.id for chunk in look.data.chunks}
    return {documents[chunk] for _, chunks in _relevant(look, split) for chunk in chunks
            if chunk in documents}  # fmt: skip


def _finding(
    code: str,
    severity: Severity,
    message: str,
    advice: str,
    count: int,
    total: int,
    examples: Iterable[Example] = (),
    *,
    language: str = "",
    numbers: Mapping[str, float] | None = None,
) -> Finding:
    return Finding(code, severity, message, advice, count, total, tuple(examples)[:SHOWN],
                   language, numbers or {})  # fmt: skip


def _of(count: int, total: int) -> str:
    share = f" ({count / total:.1%})" if total else ""
    return f"{count:,} of {total:,}{share}"


# ---- leaks between splits


def _leaks(texts: Sequence[Text], pairs: Sequence[Shared], look: _Look) -> Iterator[Leak]:
    """Texts of one split that share text with one of another; in both, a text leaks into itself.

    The first named is of the split held out more strictly: test, dev, then the others.
    """
    order = [*HELD_OUT, *(split for split in look.splits if split not in HELD_OUT)]

    def rank(split: str) -> int:
        return order.index(split)

    for text in texts:
        own = sorted(text.splits & {*order}, key=rank)
        for other in own[1:]:
            yield Leak(text.what, "exact", own[0], text.id, other, text.id, 1.0)
    for pair in pairs:
        one, two = texts[pair.one], texts[pair.other]
        crossing = [(a, b) for a in one.splits for b in two.splits if a != b]
        if not crossing or one.splits & two.splits == one.splits | two.splits:
            continue
        a, b = min(crossing, key=lambda splits: sorted(map(rank, splits)))
        if rank(a) > rank(b):
            one, two, a, b = two, one, b, a
        yield Leak(one.what, pair.kind, a, one.id, b, two.id, pair.share)


LEAK_WORDS = {
    "exact": "stand in another split word for word",
    "edited": "stand in another split with small changes",
    "contained": "stand (nearly) whole in a text of another split, or hold one",
    "overlapping": "share a stretch with a text of another split, as overlapping windows do",
    "re-ordered": "stand in another split with their sentences in another order",
}
LEAK_ADVICE = {
    "passage": "keep all passages that share text in one split; training leaves such train "
    "queries out and shows both figures",
    "query": "keep equal questions in one split",
    "text": "keep equal and nearly equal texts in one split; remove them from train",
}


def _leak_findings(look: _Look, leaks: Sequence[Leak]) -> Iterator[Finding]:
    texts = {(text.what, text.id): text for text in (*look.passages, *look.queries)}
    plural = {"passage": "passages", "query": "queries", "text": "texts"}
    for what in plural:
        own = [text for text in texts.values() if text.what == what]
        held = {split: sum(split in text.splits for text in own) for split in look.splits}
        for kind, words in LEAK_WORDS.items():
            found = [leak for leak in leaks if leak.what == what and leak.kind == kind]
            if not found:
                continue
            items = {(leak.split, leak.item) for leak in found}
            total = sum(held[split] for split in {leak.split for leak in found})
            splits = Counter((leak.split, leak.other_split) for leak in found)
            between = ", ".join(
                f"{count:,} {one}/{other}" for (one, other), count in sorted(splits.items())
            )
            numbers: dict[str, float] = {"pairs": len(found)}
            tail = ""
            if what == "passage":
                affected = _affected(look, {leak.item for leak in found if leak.split == "test"})
                asked = len(look.data.qrels.get("test", ()))
                numbers |= {"test_queries": affected}
                tail = f"; {_of(affected, asked)} test queries are about them" if affected else ""
            yield _finding(
                f"{what}-leak-{kind}",
                "informs" if what == "text" and look.source.format == "scored" else "warns",
                f"{_of(len(items), total)} {plural[what]} {words} ({between} pairs{tail})",
                LEAK_ADVICE[what],
                len(items),
                total,
                (_example(texts[what, leak.item], texts[what, leak.other],
                          note=f"{leak.split}/{leak.other_split}")
                 for leak in found[:SHOWN]),
                numbers=numbers,
            )  # fmt: skip


def _affected(look: _Look, passages: set[str]) -> int:
    return sum(not passages.isdisjoint(chunks) for _, chunks in _relevant(look, "test") if chunks)


def _same_pairs(look: _Look) -> Iterator[Finding]:
    """The same example in two splits: figures on it are of learning by heart."""
    source, data = look.source, look.data
    if source.examples:
        total = sum(map(len, source.examples.values()))
        twice = [Example(tuple(visible(place.rpartition("/")[2]) for place in places), ())
                 for places in source.copies]  # fmt: skip
    else:
        texts = {query.id: normalise(query.text) for query in data.queries}
        seen: dict[tuple[str, str], tuple[str, str]] = {}
        twice, total = [], 0
        queries = {query.id: query for query in data.queries}
        for split in look.splits:
            for query, chunks in _relevant(look, split):
                total += len(chunks)
                for chunk in chunks:
                    first, where = seen.setdefault((texts[query], chunk), (query, split))
                    if where != split:
                        one, two = (Text("query", q, queries[q].text, frozenset())
                                    for q in (first, query))  # fmt: skip
                        twice.append(_example(one, two, note=f"{where}/{split}, {visible(chunk)}"))
    if twice:
        what = {"labelled": "texts", "scored": "pairs"}.get(source.format, "pairs")
        yield _finding(
            "same-pair", "stops",
            f"{_of(len(twice), total)} {what} stand in two splits",
            "remove them from one split; training and evaluation refuse such data",
            len(twice), total, twice,
        )  # fmt: skip


# ---- duplicates and contradictions


def _duplicates(look: _Look) -> Iterator[Finding]:
    copies = [reject for reject in look.source.rejects if reject.code == "copy"]
    if copies:
        yield _finding(
            "repeated-rows", "informs",
            f"{len(copies):,} rows repeat another of their split; they were left out",
            "", len(copies), look.source.counts.total,
            (Example((visible(f"{reject.file.rpartition('/')[2]}:{reject.line}"),), (),
                     visible(reject.message)) for reject in copies[:SHOWN]),
        )  # fmt: skip
    for texts, pairs, what in (
        (look.passages, look.shared_passages, "passages"),
        (look.queries, look.shared_queries, "queries"),
    ):
        if not texts or texts[0].what == "text":
            continue
        for code, kinds, words in (
            (f"duplicate-{what}", ("exact",), "repeat another word for word"),
            (f"similar-{what}", ("edited", "re-ordered"), "repeat another with changes"),
        ):
            own = [pair for pair in pairs if pair.kind in kinds]
            if not own:
                continue
            later = {pair.other for pair in own}
            advice = {
                "duplicate-passages": "keep one of each; copies are counted once in mining and "
                "evaluation",
                "similar-passages": "keep the newest version of each",
                "duplicate-queries": "give all their answers to one query; none of them is used as "
                "a negative of another",
                "similar-queries": "keep them in one split",
            }[code]
            yield _finding(
                code, "informs", f"{_of(len(later), len(texts))} {what} {words}", advice,
                len(later), len(texts),
                (_example(texts[pair.one], texts[pair.other]) for pair in own[:SHOWN]),
            )  # fmt: skip


def _contradictions(look: _Look) -> Iterator[Finding]:
    yield from _grades(look)
    yield from _positive_negatives(look)
    yield from _further_positives(look)


def _grades(look: _Look) -> Iterator[Finding]:
    """One pair of texts, two grades or scores."""
    found: dict[tuple[str, ...], dict[float, str]] = defaultdict(dict)
    if look.source.format == "scored":
        for rows in look.source.examples.values():
            for row in rows:
                if isinstance(row, ScoredRow):
                    key = tuple(sorted((normalise(row.sentence1), normalise(row.sentence2))))
                    found[key].setdefault(row.score, _place(row))
    elif look.source.format == "beir":
        texts = {query.id: normalise(query.text) for query in look.data.queries}
        chunks = {chunk.id: normalise(chunk.embedded) for chunk in look.data.chunks}
        for split in look.splits:
            for query, grades in look.data.qrels[split].items():
                for chunk, grade in grades.items():
                    key = (texts[query], chunks[chunk])
                    found[key].setdefault(grade, visible(f"{query} → {chunk}"))
    differing = {key: values for key, values in found.items() if len(values) > 1}
    if differing:
        what = "scores" if look.source.format == "scored" else "grades"
        yield _finding(
            f"different-{what}", "warns",
            f"{_of(len(differing), len(found))} pairs of texts have different {what}",
            f"settle on one of the {what} for each pair",
            len(differing), len(found),
            (Example(tuple(values.values()), tuple(visible(part, EXCERPT) for part in key),
                     " and ".join(f"{value:g}" for value in sorted(values)))
             for key, values in list(differing.items())[:SHOWN]),
        )  # fmt: skip


def _positive_negatives(look: _Look) -> Iterator[Finding]:
    """A negative that is, or nearly is, a positive of the same question."""
    rows = [row for part in look.source.examples.values() for row in part
            if isinstance(row, PairRow) and row.negatives]  # fmt: skip
    if not rows:
        return
    positives: dict[str, dict[str, None]] = defaultdict(dict)
    for part in look.source.examples.values():
        for row in part:
            if isinstance(row, PairRow):
                positives[normalise(row.anchor)][normalise(row.positive)] = None
    alike: dict[str, set[str]] = defaultdict(set)
    for pair in look.shared_passages:
        if pair.kind in COPIES:
            one, two = (normalise(look.passages[number].text) for number in (pair.one, pair.other))
            alike[one].add(two)
            alike[two].add(one)
    found: list[tuple[PairRow, str, str]] = []
    total = 0
    for row in rows:
        own = positives[normalise(row.anchor)]
        for text in row.negatives:
            total += 1
            negative = normalise(text)
            right = next((positive for positive in own
                          if negative in (positive, *alike[positive])), None)  # fmt: skip
            if right is not None:
                found.append((row, text, right))
    if found:
        yield _finding(
            "positive-and-negative", "warns",
            f"{_of(len(found), total)} negatives are a positive of the same question, or nearly so",
            "remove them; those that are equal to a positive are not used as negatives",
            len(found), total,
            (Example((visible(_place(row)),),
                     (visible(row.anchor, EXCERPT), visible(negative, EXCERPT),
                      visible(right, EXCERPT)))
             for row, negative, right in found[:SHOWN]),
        )  # fmt: skip


def _further_positives(look: _Look) -> Iterator[Finding]:
    """Questions with several answers: none of them may be held against another."""
    if look.source.format in ("labelled", "scored"):
        return
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    texts = {query.id: query for query in look.data.queries}
    for split in look.splits:
        for query, chunks in _relevant(look, split):
            for chunk in chunks:
                answers[normalise(texts[query].text)].setdefault(chunk, query)
    several = {text: own for text, own in answers.items() if len(own) > 1}
    if several:
        yield _finding(
            "several-positives", "informs",
            f"{_of(len(several), len(answers))} questions have more than one relevant passage; "
            "each counts as right, none is used as a negative of the others",
            "", len(several), len(answers),
            (Example(tuple(map(visible, list(own)[:SHOWN])), (visible(text, EXCERPT),),
                     f"{len(own)} passages") for text, own in list(several.items())[:SHOWN]),
        )  # fmt: skip


def _labels(source: Source) -> Iterator[Finding]:
    """Classes that cannot be learned, texts under two labels, labels that are nearly one."""
    rows = [row for part in source.examples.values() for row in part
            if isinstance(row, LabelledRow)]  # fmt: skip
    if not rows:
        return
    trained = source.examples.get("train") or rows
    sizes = Counter(row.label for row in trained if isinstance(row, LabelledRow))
    if len(sizes) == 1:
        yield _finding(
            "one-label", "stops", f"all texts have the label {visible(next(iter(sizes)))}",
            "at least 2 labels are needed: a text is told apart from those of other labels",
            len(trained), len(trained),
        )  # fmt: skip
    single = sorted(label for label, count in sizes.items() if count == 1)
    if single:
        yield _finding(
            "single-text-labels", "stops",
            f"{_of(len(single), len(sizes))} labels have one text only, e.g. "
            f"{', '.join(visible(label, 40) for label in single[:SHOWN])}",
            "each needs at least 2, since a text is learned with another of its label; add some, "
            "or remove these rows",
            len(single), len(sizes),
        )  # fmt: skip
    labels: dict[str, dict[str, LabelledRow]] = defaultdict(dict)
    for row in rows:
        labels[normalise(row.text)].setdefault(row.label, row)
    several = {text: own for text, own in labels.items() if len(own) > 1}
    if several:
        yield _finding(
            "two-labels", "warns", f"{_of(len(several), len(labels))} texts have several labels",
            "decide for one, unless a text may have several",
            len(several), len(labels),
            (Example(tuple(map(_place, own.values())), (visible(text, EXCERPT),),
                     " and ".join(visible(label, 40) for label in own))
             for text, own in list(several.items())[:SHOWN]),
        )  # fmt: skip
    spelled: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        spelled["".join(filter(str.isalnum, normalise(row.label)))].add(row.label)
    alike = [sorted(own) for own in spelled.values() if len(own) > 1]
    if alike:
        yield _finding(
            "labels-alike", "warns",
            f"{len(alike):,} labels are written in several ways, e.g. "
            f"{' and '.join(visible(repr(label), 40) for label in alike[0])}; each counts as a "
            "label of its own",
            "write each label in one way", len(alike), len(spelled),
        )  # fmt: skip


# ---- passages that answer and are not judged


def _false_negatives(look: _Look, retriever: Retriever | None) -> Iterator[Finding]:
    if not look.passages:
        return
    copies: dict[str, set[str]] = defaultdict(set)
    for pair in look.shared_passages:
        one, two = look.passages[pair.one], look.passages[pair.other]
        if pair.kind in COPIES or pair.kind == "contained":
            # of two texts of which one holds the other, only the longer answers as well
            if pair.kind in COPIES or len(two.text) > len(one.text):
                copies[one.id].add(two.id)
            if pair.kind in COPIES or len(one.text) > len(two.text):
                copies[two.id].add(one.id)
    by_id = {text.id: text for text in look.passages}
    found, total = [], 0
    for split in look.splits:
        for query, chunks in _relevant(look, split):
            total += 1
            unjudged = [(chunk, other) for chunk in chunks for other in sorted(copies[chunk])
                        if other not in look.data.qrels[split][query]]  # fmt: skip
            if unjudged:
                found.append((query, *unjudged[0]))
    if found:
        yield _finding(
            "unjudged-copies", "informs",
            f"{_of(len(found), total)} queries have unjudged passages that repeat a relevant one",
            "nearly equal ones count as right and are never negatives; judge the others, or remove "
            "the copies",
            len(found), total,
            (_example(by_id[chunk], by_id[other], note=visible(query))
             for query, chunk, other in found[:SHOWN]),
        )  # fmt: skip
    if retriever is not None:
        yield from _outranked(look, retriever, copies, by_id)


def _outranked(
    look: _Look, retriever: Retriever, copies: Mapping[str, set[str]], by_id: Mapping[str, Text]
) -> Iterator[Finding]:
    """Queries for which a retriever ranks unjudged passages before the relevant ones."""
    queries = {query.id: query for query in look.data.queries}
    judged = [(queries[query], frozenset(chunks)) for split in look.splits
              for query, chunks in _relevant(look, split) if chunks]  # fmt: skip
    judged.sort(key=lambda one: hashlib.sha256(one[0].id.encode("utf-8", "surrogatepass")).digest())
    judged = judged[:ASKED]
    if not judged:
        return
    hits = retriever.search([query.text for query, _ in judged], DEPTH)
    found, above, ranked = [], 0, 0
    for (query, relevant), own in zip(judged, hits, strict=True):
        right = relevant.union(*(copies.get(chunk, ()) for chunk in relevant))
        best = next((place for place, hit in enumerate(own) if hit.chunk in relevant), None)
        if best is None:
            continue
        ranked += 1
        before = [hit.chunk for hit in own[:best] if hit.chunk not in right]
        if before:
            above += len(before)
            found.append((query, before[0], own[best].chunk))
    if ranked:
        drawn = " drawn" if len(judged) == ASKED else ""
        yield _finding(
            "unjudged-above", "informs",
            f"{retriever.name} finds the passage of {ranked:,} of {len(judged):,} queries{drawn} "
            f"among its first {DEPTH}, and for {_of(len(found), ranked)} of them ranks an unjudged "
            f"passage before it, {above / ranked:.1f} a query: at most so many negatives may be "
            "false",
            "read a few: where they answer the question, judge them relevant, and mine negatives "
            "with a margin",
            len(found), ranked,
            (_example(Text("query", query.id, query.text, frozenset()), by_id[wrong], by_id[chunk],
                      note="question, unjudged, relevant")
             for query, wrong, chunk in found[:SHOWN]),
            numbers={"above": above / ranked, "asked": len(judged)},
        )  # fmt: skip


# ---- tokens and languages


def _by_language(look: _Look) -> dict[tuple[Role, str], list[Text]]:
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


def _lengths(
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


def _token_findings(
    texts: Mapping[tuple[Role, str], Sequence[Text]], lengths: Sequence[Lengths], tokens: Tokens
) -> Iterator[Finding]:
    for one in lengths:
        name = LANGUAGES.get(one.language, one.language)
        words = f"{name} {'queries' if one.role == 'query' else f'{one.role}s'}"
        if one.cut:
            cut = _longest(texts[one.role, one.language], tokens)
            yield _finding(
                "cut-texts", "warns" if one.cut > CUT_SHARE * one.texts else "informs",
                f"{_of(one.cut, one.texts)} {words} are longer than the {tokens.max_tokens} tokens "
                f"that {_model(tokens)} reads: {one.tokens_cut:.1%} of their tokens are never seen",
                "make chunks shorter, or take a model that reads more",
                one.cut, one.texts, cut, language=one.language,
                numbers={"tokens_cut": one.tokens_cut},
            )  # fmt: skip
        if one.unknown > 0.01:
            stops = one.unknown > UNKNOWN_SHARE
            yield _finding(
                "unknown-tokens", "stops" if stops else "informs",
                f"{_model(tokens)} does not know {one.unknown:.0%} of the tokens of the {words}"
                + ("; they look all the same to it" if stops else ""),
                "take a base model that reads the language; training stops above "
                f"{UNKNOWN_SHARE:.0%} unless training.allow_unknown_tokens" if stops else "",
                one.texts, one.texts, language=one.language, numbers={"share": one.unknown},
            )  # fmt: skip


def _model(tokens: Tokens) -> str:
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


def _languages(look: _Look) -> Iterator[Finding]:
    """Questions in another language than their passage."""
    if not look.passages:
        return
    languages = {chunk.id: chunk.language or language_of(chunk.embedded)
                 for chunk in look.data.chunks}  # fmt: skip
    queries = {query.id: query for query in look.data.queries}
    by_id = {text.id: text for text in look.passages}
    found, total = [], 0
    for split in look.splits:
        for query_id, chunks in _relevant(look, split):
            query = queries[query_id]
            own = query.language or language_of(query.text)
            total += bool(chunks)
            if chunks and all(languages[chunk] != own for chunk in chunks):
                found.append((query, chunks[0]))
    if found:
        yield _finding(
            "other-language", "informs",
            f"{_of(len(found), total)} queries are in another language than their passages",
            "nothing, if users ask so; BM25 can hardly find these, and the base model must know "
            "both languages",
            len(found), total,
            (_example(Text("query", query.id, query.text, frozenset()), by_id[chunk])
             for query, chunk in found[:SHOWN]),
        )  # fmt: skip


# ---- what figures on the data can say


def _copied(look: _Look) -> Iterator[Finding]:
    if not look.passages:
        return
    chunks = {text.id: text for text in look.passages}
    queries = {query.id: query for query in look.data.queries}
    for split in look.splits:
        found, total = [], 0
        for query_id, relevant in _relevant(look, split):
            query = queries[query_id]
            total += 1
            chunk = next((c for c in relevant if shares_run(query.text, chunks[c].text)), None)
            if chunk is not None:
                found.append((query, chunk))
        if found:
            yield _finding(
                "copied-queries", "warns" if len(found) >= COPIED_SHARE * total else "informs",
                f"{_of(len(found), total)} {visible(split)} queries share {RUN_WORDS} words or "
                f"{RUN_CHARACTERS} ideographs in a row with their passage",
                "reword them: real questions copy little, so such a test flatters word search and "
                "blocks shipping from 30 % on",
                len(found), total,
                (_example(Text("query", query.id, query.text, frozenset()), chunks[chunk])
                 for query, chunk in found[:SHOWN]),
                numbers={"share": len(found) / total},
            )  # fmt: skip


def _crowding(look: _Look) -> Iterator[Finding]:
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
                      for _, chunks in _relevant(look, split) for chunk in chunks[:1])  # fmt: skip
        what = "document"
    total = sum(own.values())
    name, count = max(own.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    if len(own) > 1 and count > LARGEST * total:
        advice = (
            "a document is never divided between splits; add others, or split by section"
            if what == "document"
            else "add texts of the other labels, or leave some of this one out"
        )
        yield _finding(
            f"one-{what}-crowds", "warns",
            f"{_of(count, total)} {'queries are about' if what == 'document' else 'texts have'} "
            f"one {what}, {visible(name, 60)}",
            advice, count, total,
        )  # fmt: skip
    if what == "document":
        asked = {chunk for split in look.splits for _, own in _relevant(look, split)
                 for chunk in own}  # fmt: skip
        silent = sum(text.id not in asked for text in look.passages)
        if silent:
            yield _finding(
                "passages-without-queries", "informs",
                f"{_of(silent, len(look.passages))} passages have no query; they are distractors",
                "", silent, len(look.passages),
            )  # fmt: skip


def _chance(look: _Look) -> Iterator[Finding]:
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
        yield _finding(
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


def _test_size(look: _Look) -> Iterator[Finding]:
    if look.source.format == "scored":
        return
    queries = len(look.data.qrels.get("test", ()))
    if not queries:
        return
    groups = len(_groups(look, "test"))
    few = queries < FEW_QUERIES or 0 < groups < FEW_GROUPS
    needed = ", ".join(f"{gain:.2f} takes {queries_for(gain):,}" for gain in GAINS)
    about = f" about {groups:,} documents" if groups else ""
    yield _finding(
        "test-size", "warns" if few else "informs",
        f"{queries:,} test queries{about} show a gain in nDCG@10 of {smallest_gain(queries):.3f} "
        f"or more (four times in five); {needed} queries",
        f"add test queries about other documents: with fewer than {FEW_QUERIES} queries or "
        f"{FEW_GROUPS} documents hardly any verdict is possible" if few else "",
        queries, queries,
        numbers={"smallest_gain": smallest_gain(queries), "groups": groups,
                 **{f"queries_for_{gain:.2f}": queries_for(gain) for gain in GAINS}},
    )  # fmt: skip


def _balance(look: _Look) -> Iterator[Balance]:
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
        for _, chunks in _relevant(look, split):
            asked.update(chunks)
            per_query[_few(len(chunks))] += 1
    per_passage = Counter(_few(asked[chunk.id]) for chunk in data.chunks)
    yield Balance("passages by number of queries", tuple(sorted(per_passage.items())))
    yield Balance("queries by number of relevant passages", tuple(sorted(per_query.items())))
    documents = {chunk.id: chunk.source or chunk.document or chunk.id for chunk in data.chunks}
    if len(set(documents.values())) < len(data.chunks):
        yield _counted("queries by document",
                       (documents[chunks[0]] for split in look.splits
                        for _, chunks in _relevant(look, split) if chunks))  # fmt: skip
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
