"""What an audit finds of judgements and labels that contradict each other, or are missing."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from embedtune.datasets.audit_look import (
    COPIES,
    EXCERPT,
    Look,
    Text,
    example,
    finding_of,
    judged_in,
    of,
    place_of,
)
from embedtune.datasets.findings import SHOWN, Example, Finding
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.source import Source
from embedtune.files import visible
from embedtune.retrieve import Retriever
from embedtune.similar import normalise

ASKED = 500  # queries put to the retriever
DEPTH = 20


def contradictions(look: Look) -> Iterator[Finding]:
    yield from _grades(look)
    yield from _positive_negatives(look)
    yield from _further_positives(look)


def _grades(look: Look) -> Iterator[Finding]:
    """One pair of texts, two grades or scores."""
    found: dict[tuple[str, ...], dict[float, str]] = defaultdict(dict)
    if look.source.format == "scored":
        for rows in look.source.examples.values():
            for row in rows:
                if isinstance(row, ScoredRow):
                    key = tuple(sorted((normalise(row.sentence1), normalise(row.sentence2))))
                    found[key].setdefault(row.score, place_of(row))
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
        yield finding_of(
            f"different-{what}", "warns",
            f"{of(len(differing), len(found))} pairs of texts have different {what}",
            f"settle on one of the {what} for each pair",
            len(differing), len(found),
            (Example(tuple(values.values()), tuple(visible(part, EXCERPT) for part in key),
                     " and ".join(f"{value:g}" for value in sorted(values)))
             for key, values in list(differing.items())[:SHOWN]),
        )  # fmt: skip


def _positive_negatives(look: Look) -> Iterator[Finding]:
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
        yield finding_of(
            "positive-and-negative", "warns",
            f"{of(len(found), total)} negatives are a positive of the same question, or nearly so",
            "remove them; those that are equal to a positive are not used as negatives",
            len(found), total,
            (Example((visible(place_of(row)),),
                     (visible(row.anchor, EXCERPT), visible(negative, EXCERPT),
                      visible(right, EXCERPT)))
             for row, negative, right in found[:SHOWN]),
        )  # fmt: skip


def _further_positives(look: Look) -> Iterator[Finding]:
    """Questions with several answers: none of them may be held against another."""
    if look.source.format in ("labelled", "scored"):
        return
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    texts = {query.id: query for query in look.data.queries}
    for split in look.splits:
        for query, chunks in judged_in(look, split):
            for chunk in chunks:
                answers[normalise(texts[query].text)].setdefault(chunk, query)
    several = {text: own for text, own in answers.items() if len(own) > 1}
    if several:
        yield finding_of(
            "several-positives", "informs",
            f"{of(len(several), len(answers))} questions have more than one relevant passage; "
            "each counts as right, none is used as a negative of the others",
            "", len(several), len(answers),
            (Example(tuple(map(visible, list(own)[:SHOWN])), (visible(text, EXCERPT),),
                     f"{len(own)} passages") for text, own in list(several.items())[:SHOWN]),
        )  # fmt: skip


def labels(source: Source) -> Iterator[Finding]:
    """Classes that cannot be learned, texts under two labels, labels that are nearly one."""
    rows = [row for part in source.examples.values() for row in part
            if isinstance(row, LabelledRow)]  # fmt: skip
    if not rows:
        return
    trained = source.examples.get("train") or rows
    sizes = Counter(row.label for row in trained if isinstance(row, LabelledRow))
    if len(sizes) == 1:
        yield finding_of(
            "one-label", "stops", f"all texts have the label {visible(next(iter(sizes)))}",
            "at least 2 labels are needed: a text is told apart from those of other labels",
            len(trained), len(trained),
        )  # fmt: skip
    single = sorted(label for label, count in sizes.items() if count == 1)
    if single:
        yield finding_of(
            "single-text-labels", "stops",
            f"{of(len(single), len(sizes))} labels have one text only, e.g. "
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
        yield finding_of(
            "two-labels", "warns", f"{of(len(several), len(labels))} texts have several labels",
            "decide for one, unless a text may have several",
            len(several), len(labels),
            (Example(tuple(map(place_of, own.values())), (visible(text, EXCERPT),),
                     " and ".join(visible(label, 40) for label in own))
             for text, own in list(several.items())[:SHOWN]),
        )  # fmt: skip
    spelled: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        spelled["".join(filter(str.isalnum, normalise(row.label)))].add(row.label)
    alike = [sorted(own) for own in spelled.values() if len(own) > 1]
    if alike:
        yield finding_of(
            "labels-alike", "warns",
            f"{len(alike):,} labels are written in several ways, e.g. "
            f"{' and '.join(visible(repr(label), 40) for label in alike[0])}; each counts as a "
            "label of its own",
            "write each label in one way", len(alike), len(spelled),
        )  # fmt: skip


def false_negatives(look: Look, retriever: Retriever | None) -> Iterator[Finding]:
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
        for query, chunks in judged_in(look, split):
            total += 1
            unjudged = [(chunk, other) for chunk in chunks for other in sorted(copies[chunk])
                        if other not in look.data.qrels[split][query]]  # fmt: skip
            if unjudged:
                found.append((query, *unjudged[0]))
    if found:
        yield finding_of(
            "unjudged-copies", "informs",
            f"{of(len(found), total)} queries have unjudged passages that repeat a relevant one",
            "nearly equal ones count as right and are never negatives; judge the others, or remove "
            "the copies",
            len(found), total,
            (example(by_id[chunk], by_id[other], note=visible(query))
             for query, chunk, other in found[:SHOWN]),
        )  # fmt: skip
    if retriever is not None:
        yield from _outranked(look, retriever, copies, by_id)


def _outranked(
    look: Look, retriever: Retriever, copies: Mapping[str, set[str]], by_id: Mapping[str, Text]
) -> Iterator[Finding]:
    """Queries for which a retriever ranks unjudged passages before the relevant ones."""
    queries = {query.id: query for query in look.data.queries}
    judged = [(queries[query], frozenset(chunks)) for split in look.splits
              for query, chunks in judged_in(look, split) if chunks]  # fmt: skip
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
        yield finding_of(
            "unjudged-above", "informs",
            f"{retriever.name} finds the passage of {ranked:,} of {len(judged):,} queries{drawn} "
            f"among its first {DEPTH}, and for {of(len(found), ranked)} of them ranks an unjudged "
            f"passage before it, {above / ranked:.1f} a query: at most so many negatives may be "
            "false",
            "read a few: where they answer the question, judge them relevant, and mine negatives "
            "with a margin",
            len(found), ranked,
            (example(Text("query", query.id, query.text, frozenset()), by_id[wrong], by_id[chunk],
                      note="question, unjudged, relevant")
             for query, wrong, chunk in found[:SHOWN]),
            numbers={"above": above / ranked, "asked": len(judged)},
        )  # fmt: skip
