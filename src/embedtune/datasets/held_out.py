"""What dev and test of a data set hold, and which rows of another would give it away."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from embedtune.datasets.formats import LabelledRow, PairRow, Row, ScoredRow, key_of
from embedtune.datasets.groups import asked_alike
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Pair, RetrievalSet
from embedtune.similar import near_duplicates, normalise

SPLITS = ("test", "dev")  # the stricter first
BATCH = 5_000  # texts compared with the held-out ones at once: the cost grows with their number
EXAMPLES = 3  # shown in a message

Key = tuple[str, ...]
Learnt = TypeVar("Learnt", bound=Pair | Row)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Dev and test of a data set, texts normalised, each with the split it is of."""

    name: str
    asked: Mapping[str, str]
    answers: Mapping[str, str]  # passages relevant there; of labelled data its texts
    judged: Mapping[Key, str]  # query and passage, sorted; of labelled data text and label
    labelled: bool
    loose: bool  # scored or labelled: a text may stand on either side


def held_out(data: RetrievalSet, examples: Mapping[str, Sequence[Row]]) -> HeldOut:
    """Dev and test of ``data``; ``examples`` are its rows by split, none for a BEIR folder."""
    asked: dict[str, str] = {}
    answers: dict[str, str] = {}
    judged: dict[Key, str] = {}
    texts = {query.id: normalise(query.text) for query in data.queries}
    # with and without the title: further rows may hold either
    passages = {chunk.id: dict.fromkeys(map(normalise, (chunk.embedded, chunk.text)))
                for chunk in data.chunks}  # fmt: skip
    labels = {normalise(row.text): row.label for row in examples.get("train", ())
              if isinstance(row, LabelledRow)}  # fmt: skip
    for split in SPLITS:
        for query, grades in data.qrels.get(split, {}).items():
            text = texts[query]
            if data.shared_passages:
                answers.setdefault(text, split)
                peer = next(iter(grades), "")  # any text of its class
                judged.update(
                    {(text, labels[own]): split for own in passages.get(peer, ()) if own in labels}
                )
                continue
            asked.setdefault(text, split)
            for chunk, grade in grades.items():
                for passage in passages[chunk] if grade > 0 else ():
                    answers.setdefault(passage, split)
                    judged.setdefault(_sorted(text, passage), split)
        for row in examples.get(split, ()):
            if isinstance(row, ScoredRow):  # those that count as irrelevant, too
                asked.setdefault(normalise(row.sentence1), split)
                answers.setdefault(normalise(row.sentence2), split)
                judged.setdefault(key_of(row), split)
    scored = any(isinstance(row, ScoredRow) for rows in examples.values() for row in rows)
    return HeldOut(
        data.name, asked, answers, judged, data.shared_passages, scored or data.shared_passages
    )


def leave_out_held(rows: Sequence[Learnt], held: HeldOut, name: str) -> tuple[list[Learnt], str]:
    """The rows that give away nothing of dev and test, and what to say of the others.

    Left out are rows that ask what is asked there, equally or nearly (``asked_alike``), or whose
    passage is equal or a near-duplicate of one that is relevant there. Scored pairs and labelled
    texts have no such sides: of theirs, and beside them, every text is compared with both kinds.
    Negatives are not looked at: they teach no answer.

    Args:
        rows: Of one format.
        name: Of the data set, for messages.

    Raises:
        IntegrityError: The same query with the same passage (of labelled texts: the same text and
            label) is judged in dev or test.
        NothingUsable: No row is left.
    """
    _refuse_judged(rows, held, name)
    texts = [_texts(row) for row in rows]
    sided = not held.loose and isinstance(rows[0], Pair | PairRow)
    asking = [own[:1] if sided else own for own in texts]
    telling = [own[1:] if sided else own for own in texts]
    asked = _close({text for own in asking for text in own}, held.asked, _questions)
    told = _close({text for own in telling for text in own}, held.answers, _passages)
    by_question = [not asked.isdisjoint(own) for own in asking]
    by_passage = [not told.isdisjoint(own) for own in telling]
    kept = [row for row, *out in zip(rows, by_question, by_passage, strict=True) if not any(out)]
    if len(kept) == len(rows):
        return kept, ""
    first = next(own for own, *out in zip(texts, by_question, by_passage, strict=True) if any(out))
    note = (
        f"{name}: {len(rows) - len(kept):,} of {len(rows):,} rows are left out of training, too "
        f"close to dev or test of {held.name}: {sum(by_question):,} by a question that is asked "
        f"there, {sum(by_passage):,} by a passage or text that stands there, equal or nearly, e.g. "
        f"{visible(first[0], 60)!r}"
    )
    if not kept:
        raise NothingUsable(f"{note}; no row is left to train on")
    return kept, note


def _refuse_judged(rows: Sequence[Pair | Row], held: HeldOut, name: str) -> None:
    keys = ((row, _key(row)) for row in rows if isinstance(row, LabelledRow) == held.labelled)
    twice = [(row, held.judged[key]) for row, key in keys if key in held.judged]
    if not twice:
        return
    splits = {split for _, split in twice}
    where = " and ".join(split for split in SPLITS if split in splits)
    shown = "; ".join(
        f"{' with '.join(repr(visible(text, 60)) for text in _texts(row))} ({split})"
        for row, split in twice[:EXAMPLES]
    )
    same = "text with the same label" if held.labelled else "query with the same passage"
    raise IntegrityError(
        f"{name}: {len(twice):,} of {len(rows):,} rows ({len(twice) / len(rows):.1%}) stand in "
        f"{where} of {held.name}, the same {same}, e.g. {shown}; remove them from one"
    )


def _texts(row: Pair | Row) -> tuple[str, ...]:
    """What is learnt of a row, normalised."""
    if isinstance(row, LabelledRow):
        return (normalise(row.text),)
    if isinstance(row, ScoredRow):
        return normalise(row.sentence1), normalise(row.sentence2)
    return normalise(row.anchor), normalise(row.positive)


def _key(row: Pair | Row) -> Key:
    return key_of(row) if isinstance(row, LabelledRow) else _sorted(*_texts(row))


def _sorted(*texts: str) -> Key:
    return tuple(sorted(texts))


def _close(
    texts: Collection[str],
    held: Collection[str],
    alike: Callable[[Sequence[str], int], Iterable[tuple[int, int]]],
) -> set[str]:
    """Those of ``texts`` that are among ``held``, or ``alike`` to one of them.

    Each is compared with all held-out ones but with few of the others, so that the cost grows with
    their number only. Sorted and then dealt out, the members of a large family, of which
    ``near_duplicates`` compares only some, come into different batches.
    """
    known = list(dict.fromkeys(held))
    found = {text for text in texts if text in held}
    rest = sorted(text for text in texts if text not in found)
    batches = math.ceil(len(rest) / max(BATCH, len(known))) if known else 0
    for number in range(batches):
        some = [*known, *rest[number::batches]]
        for pair in alike(some, len(known)):
            one, other = sorted(pair)
            if one < len(known) <= other:
                found.add(some[other])
    return found


def _questions(texts: Sequence[str], held: int) -> Iterable[tuple[int, int]]:
    numbered = {str(number): text for number, text in enumerate(texts)}
    split_of = {name: "train" if int(name) >= held else "test" for name in numbered}
    for one, others in asked_alike(numbered, split_of).items():
        for other in others:
            yield int(one), int(other)


def _passages(texts: Sequence[str], held: int) -> Iterable[tuple[int, int]]:
    return near_duplicates(texts)
