"""A data set as the checks of an audit want it: its texts, where each is used, what they share."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from embedtune.datasets.findings import SHOWN, Example, Finding, Severity
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.leaks import COMPARED, Shared, shared_within
from embedtune.datasets.source import Source
from embedtune.files import visible
from embedtune.records import RetrievalSet

What = Literal["passage", "query", "text"]

EXCERPT = 100  # characters of a text in an example
HELD_OUT = ("test", "dev")  # the stricter first
COPIES = ("exact", "edited", "re-ordered")  # kinds of shared text that say the same


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the data set and the splits it is used in."""

    what: What
    id: str
    text: str
    splits: frozenset[str]


@dataclass(slots=True)
class Look:
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


def look_at(source: Source) -> Look:
    data = source.data
    look = Look(source)
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
                first.setdefault(text, place_of(row) + (", second" if column else ""))
    return [Text("text", first[text], text, frozenset(own)) for text, own in splits.items()]


def _texts_of(row: object) -> tuple[str, ...]:
    if isinstance(row, LabelledRow):
        return (row.text,)
    if isinstance(row, ScoredRow):
        return (row.sentence1, row.sentence2)
    return ()


def place_of(row: LabelledRow | ScoredRow | PairRow) -> str:
    return row.place.rpartition("/")[2]


def _compare(texts: Sequence[Text], notes: list[str]) -> list[Shared]:
    """What the texts share, those of held-out splits first where not all can be compared."""
    ranks = [0 if text.splits & {*HELD_OUT} else 1 if text.splits else 2 for text in texts]
    questions = any(text.what == "query" for text in texts)
    pairs, compared = shared_within([text.text for text in texts], ranks, questions=questions)
    if compared < len(texts):
        notes.append(
            f"{compared:,} of {len(texts):,} {texts[0].what} texts were compared with each other "
            f"({COMPARED:,} characters, those of test and dev first); the others only for equality"
        )
    return pairs


def example(*texts: Text, note: str = "") -> Example:
    return Example(
        tuple(visible(text.id, EXCERPT) for text in texts),
        tuple(visible(" ".join(text.text.split()), EXCERPT) for text in texts),
        note,
    )


def sizes(look: Look) -> dict[str, int]:
    if look.source.examples and look.source.format in ("labelled", "scored"):
        return {split: len(rows) for split, rows in look.source.examples.items()}
    return {split: len(own) for split, own in look.data.qrels.items()}


def judged_in(look: Look, split: str) -> Iterator[tuple[str, list[str]]]:
    """(query, its relevant chunks) of a split."""
    for query, grades in look.data.qrels.get(split, {}).items():
        yield query, [chunk for chunk, grade in grades.items() if grade > 0]


def groups_of(look: Look, split: str) -> set[str]:
    """The documents asked about in a split; texts that share their passages have none."""
    if look.data.shared_passages or look.source.format == "scored":
        return set()
    documents = {chunk.id: chunk.document or chunk.id for chunk in look.data.chunks}
    return {documents[chunk] for _, chunks in judged_in(look, split) for chunk in chunks
            if chunk in documents}  # fmt: skip


def finding_of(
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


def of(count: int, total: int) -> str:
    """``3 of 40 (7.5%)``."""
    share = f" ({count / total:.1%})" if total else ""
    return f"{count:,} of {total:,}{share}"
