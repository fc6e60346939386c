"""From one format to another, where that means something."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from embedtune.datasets.formats import LabelledRow, PairRow, Row, ScoredRow
from embedtune.datasets.judging import query_id
from embedtune.datasets.source import Source, examples_by_split
from embedtune.errors import ConfigError, NothingUsable
from embedtune.records import Pair, RetrievalSet
from embedtune.settings import PositiveInt, Settings
from embedtune.similar import normalise

Target = Literal["pairs", "triplets", "scored", "binary", "labelled"]
Mined = Mapping[str, Sequence[str]]  # query id -> chunk ids, hardest first


class ConvertSettings(Settings):
    """What conversions draw, and where they cut."""

    positives: PositiveInt = Field(
        1, description="Labelled texts: so many others of its label are drawn for each text."
    )
    negatives: PositiveInt = Field(
        1, description="Most negatives of a triplet: drawn for labelled texts, else mined."
    )
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Scored pairs from here on become pairs, or 1 where 0 and 1 are wanted."
    )
    seed: Annotated[int, Field(ge=0)] = Field(42, description="Of what is drawn.")


@dataclass(frozen=True, slots=True)
class Conversion:
    parts: Mapping[str, tuple[Row, ...]]  # split -> rows
    notes: tuple[str, ...]


def convert(
    source: Source,
    to: Target,
    settings: ConvertSettings | None = None,
    *,
    data: RetrievalSet | None = None,
    mined: Mined | None = None,
) -> Conversion:
    """The rows of a data set in another format, split by split.

    - pairs: triplets without their negatives; scored pairs from ``threshold`` on; labelled texts,
      each with others of its label; every judgement of retrieval data.
    - triplets: labelled texts with texts of other labels, too; all others with mined negatives.
    - binary: the data of contrastive loss: scored pairs from ``threshold`` on as 1, others as 0; of
      a triplet, 1 for the positive and 0 for each negative. scored: the same of triplets.

    Args:
        data: The source's retrieval set with its splits completed; else the source's own.
        mined: Negatives for rows that have none. Rows that get none are left out, and counted.

    Raises:
        ConfigError: A conversion that means nothing; the message names what is missing.
        NothingUsable: No row is left.
    """
    settings, data = settings or ConvertSettings(), data or source.data
    _check(source, to, mined)
    if source.format == "beir":
        parts: Mapping[str, Sequence[Row]] = {split: _judged(data, split) for split in data.qrels}
    else:
        parts = examples_by_split(source, data)
    negatives = _negatives_by_text(data, mined or {})

    def made(rows: Sequence[Row]) -> Iterable[Row]:
        if to == "pairs":
            return _pairs(rows, settings)
        if to == "triplets":
            return _triplets(rows, settings, negatives)
        if to == "labelled" or (to == "scored" and source.format == "scored"):
            return rows
        return _scored(rows, settings, negatives)

    found = {split: tuple(made(rows)) for split, rows in parts.items()}
    if not any(found.values()):
        raise NothingUsable(f"{data.name}: no {to} can be made of it")
    notes = [
        f"{split}: {len(lost)} of {len(rows)} rows make no {to}"
        for split, rows in parts.items()
        if (lost := {row.place for row in rows} - {row.place for row in found[split]})
    ]
    return Conversion(found, tuple(notes))


def _check(source: Source, to: Target, mined: Mined | None) -> None:
    if to == "labelled" and source.format != "labelled":
        missing = "labels"
    elif mined is None and (
        (source.format in ("pairs", "beir") and to in ("triplets", "scored", "binary"))
        or (source.format == "scored" and to == "triplets")
    ):
        missing = "negatives: mine them first"
    else:
        return
    raise ConfigError(f"{source.data.name}: {source.format} to {to}: the data has no {missing}")


def _negatives_by_text(data: RetrievalSet, mined: Mined) -> dict[str, tuple[str, ...]]:
    """Normalised text of a query -> texts of what was mined for it."""
    texts = {chunk.id: chunk.embedded for chunk in data.chunks}
    return {
        normalise(query.text): tuple(texts[chunk] for chunk in mined[query.id])
        for query in data.queries
        if mined.get(query.id)
    }


def _judged(data: RetrievalSet, split: str) -> list[Row]:
    """A pair for each judgement."""
    texts = {chunk.id: chunk.embedded for chunk in data.chunks}
    return [
        PairRow(query.text, texts[chunk], place=f"{query.id}/{chunk}")
        for query in data.queries_of(split)
        for chunk, grade in data.qrels[split][query.id].items()
        if grade > 0
    ]


def _pairs(rows: Sequence[Row], settings: ConvertSettings) -> list[PairRow]:
    labelled = [row for row in rows if isinstance(row, LabelledRow)]
    if labelled:
        return [replace(row, negatives=()) for row in _by_label(labelled, settings)]
    return [
        replace(row, negatives=())
        if isinstance(row, PairRow)
        else PairRow(row.sentence1, row.sentence2, place=row.place)
        for row in rows
        if isinstance(row, PairRow)
        or (isinstance(row, ScoredRow) and row.score >= settings.threshold and _differ(row))
    ]


def _differ(row: ScoredRow) -> bool:
    """Nothing is learned from a pair of equal texts."""
    return normalise(row.sentence1) != normalise(row.sentence2)


def _triplets(
    rows: Sequence[Row], settings: ConvertSettings, negatives: Mapping[str, tuple[str, ...]]
) -> list[PairRow]:
    labelled = [row for row in rows if isinstance(row, LabelledRow)]
    if labelled:
        return [row for row in _by_label(labelled, settings) if row.negatives]
    found = []
    for row in rows:
        if isinstance(row, PairRow) and row.negatives:
            found.append(row)
            continue
        for pair in _pairs([row], settings):
            mined = negatives.get(normalise(pair.anchor), ())[: settings.negatives]
            found.append(replace(pair, negatives=mined))
    return [row for row in found if row.negatives]


def _scored(
    rows: Sequence[Row], settings: ConvertSettings, negatives: Mapping[str, tuple[str, ...]]
) -> list[ScoredRow]:
    """Scores of 0 and 1."""
    found = [
        replace(row, score=float(row.score >= settings.threshold))
        for row in rows
        if isinstance(row, ScoredRow)
    ]
    if found:
        return found
    seen: dict[tuple[str, str, float], ScoredRow] = {}
    for row in _triplets(rows, settings, negatives):
        for text, score in ((row.positive, 1.0), *((text, 0.0) for text in row.negatives)):
            made = ScoredRow(row.anchor, text, score, row.place)
            seen.setdefault((row.anchor, text, score), made)
    return list(seen.values())


def _by_label(rows: Sequence[LabelledRow], settings: ConvertSettings) -> list[PairRow]:
    """Each text with drawn others of its label, and with texts of other labels as negatives.

    What is drawn follows from the seed and the text, not from the order of the rows.
    """
    ordered = sorted(rows, key=lambda row: (row.label, row.text))
    begin: dict[str, int] = {}
    sizes: dict[str, int] = defaultdict(int)
    labels: dict[str, set[str]] = defaultdict(set)  # a text may have several
    for place, row in enumerate(ordered):
        begin.setdefault(row.label, place)
        sizes[row.label] += 1
        labels[normalise(row.text)].add(row.label)
    made = []
    for row in rows:
        first, size = begin[row.label], sizes[row.label]
        draw = random.Random(f"{settings.seed}/{row.label}/{row.text}")
        own, mine = normalise(row.text), labels[normalise(row.text)]
        peers = [ordered[first + n].text for n in _some(draw, size, settings.positives + 1)]
        peers = [text for text in peers if normalise(text) != own][: settings.positives]
        others = [
            ordered[n if n < first else n + size]
            for n in _some(draw, len(ordered) - size, settings.negatives + len(mine))
        ]
        negatives = [one.text for one in others if mine.isdisjoint(labels[normalise(one.text)])]
        made += [
            PairRow(row.text, text, tuple(negatives[: settings.negatives]), place=row.place)
            for text in peers
        ]
    return made


def _some(draw: random.Random, total: int, wanted: int) -> list[int]:
    return draw.sample(range(total), min(total, wanted))


def draw_pairs(
    data: RetrievalSet, left_out: Iterable[str], *, per_query: int, seed: int
) -> list[Pair]:
    """Training pairs of a set of labelled texts, which has a million judgements.

    For each train query, up to ``per_query`` of its relevant passages, drawn by seed and text. No
    text that is left out is on either side.
    """
    barred = set(left_out)
    chunks = {chunk.id: chunk for chunk in data.chunks}
    kept = {chunk.id for chunk in data.chunks if query_id(chunk.text) not in barred}
    pairs = []
    for query in data.queries_of("train"):
        if query.id in barred:
            continue
        peers = sorted(chunk for chunk in data.qrels["train"][query.id] if chunk in kept)
        draw = random.Random(f"{seed}/{query.id}")
        for chunk in draw.sample(peers, min(per_query, len(peers))):
            pairs.append(Pair(query.id, chunk, query.text, chunks[chunk].embedded))
    return pairs
