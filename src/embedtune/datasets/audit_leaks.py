"""What an audit finds of leaks between splits, and of texts that stand in a data set twice."""

from collections import Counter
from collections.abc import Iterator, Sequence

from embedtune.datasets.audit_look import (
    HELD_OUT,
    Look,
    Text,
    example,
    finding_of,
    judged_in,
    of,
)
from embedtune.datasets.findings import SHOWN, Example, Finding, Leak
from embedtune.datasets.leaks import Shared
from embedtune.files import visible
from embedtune.similar import normalise


def leaks_between(texts: Sequence[Text], pairs: Sequence[Shared], look: Look) -> Iterator[Leak]:
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


def leak_findings(look: Look, leaks: Sequence[Leak]) -> Iterator[Finding]:
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
                tail = f"; {of(affected, asked)} test queries are about them" if affected else ""
            yield finding_of(
                f"{what}-leak-{kind}",
                "informs" if what == "text" and look.source.format == "scored" else "warns",
                f"{of(len(items), total)} {plural[what]} {words} ({between} pairs{tail})",
                LEAK_ADVICE[what],
                len(items),
                total,
                (example(texts[what, leak.item], texts[what, leak.other],
                          note=f"{leak.split}/{leak.other_split}")
                 for leak in found[:SHOWN]),
                numbers=numbers,
            )  # fmt: skip


def _affected(look: Look, passages: set[str]) -> int:
    return sum(not passages.isdisjoint(chunks) for _, chunks in judged_in(look, "test") if chunks)


def same_pairs(look: Look) -> Iterator[Finding]:
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
            for query, chunks in judged_in(look, split):
                total += len(chunks)
                for chunk in chunks:
                    first, where = seen.setdefault((texts[query], chunk), (query, split))
                    if where != split:
                        one, two = (Text("query", q, queries[q].text, frozenset())
                                    for q in (first, query))  # fmt: skip
                        twice.append(example(one, two, note=f"{where}/{split}, {visible(chunk)}"))
    if twice:
        what = {"labelled": "texts", "scored": "pairs"}.get(source.format, "pairs")
        yield finding_of(
            "same-pair", "stops",
            f"{of(len(twice), total)} {what} stand in two splits",
            "remove them from one split; training and evaluation refuse such data",
            len(twice), total, twice,
        )  # fmt: skip


def duplicates(look: Look) -> Iterator[Finding]:
    copies = [reject for reject in look.source.rejects if reject.code == "copy"]
    if copies:
        yield finding_of(
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
            yield finding_of(
                code, "informs", f"{of(len(later), len(texts))} {what} {words}", advice,
                len(later), len(texts),
                (example(texts[pair.one], texts[pair.other]) for pair in own[:SHOWN]),
            )  # fmt: skip
