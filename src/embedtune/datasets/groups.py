"""Groups: the unit that is never divided between splits.

A document (or a section, or a block of a single document), joined with every other that shares a
near-duplicate passage or a query with it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from embedtune.datasets.leaks import COMPARED, shared_within
from embedtune.errors import NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, Qrels, Query
from embedtune.relevance import Overlaps
from embedtune.similar import normalise

MIN_GROUPS = 20  # under it, a finer unit is tried
LARGEST = 0.30  # share of the queries one group may hold
BOILERPLATE = 3  # a passage with near-duplicates in more documents than this joins nothing


@dataclass(frozen=True, slots=True)
class Grouping:
    by: str
    of_query: dict[str, str]
    of_chunk: dict[str, str]
    ambiguous: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> Counter[str]:
        return Counter(self.of_query.values())


def choose_grouping(
    chunks: Mapping[str, Chunk],
    judged: Mapping[str, frozenset[str]],
    queries: Mapping[str, Query],
    joins: Sequence[tuple[str, str]],
    *,
    by: str,
    allow_cut: bool,
) -> Grouping:
    """The coarsest unit that gives enough groups, none of them too large."""
    units = ("document", "section", "block") if by == "auto" else (by,)
    problem = ""
    for unit in units:
        grouping = group_by(unit, chunks, judged, queries, joins)
        sizes = grouping.sizes
        group, largest = max(sizes.items(), key=lambda item: item[1], default=("", 0))
        too_large = largest > LARGEST * sum(sizes.values())
        if too_large and allow_cut:
            grouping = group_by(unit, chunks, judged, queries, None)
            sizes = grouping.sizes
            too_large = max(sizes.values()) > LARGEST * sum(sizes.values())
        enough = MIN_GROUPS if by == "auto" and unit != "block" else 3
        if len(sizes) >= enough and not too_large:
            if unit == "document":
                return grouping
            why = f", since {problem}" if problem else ""
            note = f"split by {unit}{why}: within one document, optimistic for new documents"
            return replace(grouping, notes=(note,))
        if len(sizes) >= enough:
            problem = _joining(group, largest, sum(sizes.values()), grouping, chunks, joins)
        elif not problem or unit == "block":
            problem = f"there is only {len(sizes)} group by {unit}" if len(sizes) == 1 else (
                f"there are only {len(sizes)} groups by {unit}")  # fmt: skip
    advice = (
        "set split.allow_cut to divide it all the same (train queries too close to test leave)"
        if by == "auto"
        else "split.by: auto finds a finer unit"
    )
    raise NothingUsable(f"the queries cannot be split: {problem}; {advice}")


def joins_well(wider: Grouping, grouping: Grouping) -> bool:
    """Whether groups joined further are still enough, and none too large to be on one side."""
    sizes = wider.sizes
    enough = min(MIN_GROUPS, len(grouping.sizes))
    return len(sizes) >= enough and max(sizes.values()) <= LARGEST * sum(sizes.values())


def _joining(
    group: str,
    largest: int,
    total: int,
    grouping: Grouping,
    chunks: Mapping[str, Chunk],
    joins: Sequence[tuple[str, str]],
) -> str:
    examples = [
        f"{visible(chunks[one].text, 40)!r} in {_shown(chunks[one])} and {_shown(chunks[other])}"
        for one, other in joins
        if grouping.of_chunk[one] == group and chunks[one].document != chunks[other].document
    ]
    why = f", joined by near-duplicates such as {'; '.join(examples[:3])}" if examples else ""
    return f"one group holds {largest} of {total} queries (over {LARGEST:.0%}){why}"


def _shown(chunk: Chunk) -> str:
    return visible(chunk.source or chunk.document, 40)


def group_by(
    unit: str,
    chunks: Mapping[str, Chunk],
    judged: Mapping[str, frozenset[str]],
    queries: Mapping[str, Query],
    joins: Sequence[tuple[str, str]] | None,
) -> Grouping:
    """Groups joined by ``joins`` and by queries; with None, by neither."""
    own = _blocks(chunks, judged, queries) if unit == "block" else {
        chunk.id: _unit_name(chunk, unit) for chunk in chunks.values()
    }  # fmt: skip
    parent = {name: name for name in own.values()}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(ids: Iterable[str]) -> None:
        first, *others = sorted({root(own[chunk]) for chunk in ids})
        for other in others:
            parent[other] = first

    for pair in joins or ():
        join(pair)
    # the same text asked of unrelated groups has no single answer; found before queries join
    asked: dict[str, set[str]] = defaultdict(set)
    for query, relevant in judged.items():
        asked[normalise(queries[query].text)] |= {root(own[chunk]) for chunk in relevant}
    together: dict[str, int] = Counter(normalise(queries[query].text) for query in judged)
    ambiguous = tuple(
        query
        for query in judged
        if together[text := normalise(queries[query].text)] > 1 and len(asked[text]) > 1
    )
    for query, relevant in judged.items():
        # blocks are contiguous: a passage on a border is dealt with by leaving it out of train
        if query not in ambiguous and unit != "block" and joins is not None:
            join(relevant)
    of_query = {
        query: root(own[min(relevant, key=lambda chunk: (chunks[chunk].start, chunk))])
        for query, relevant in judged.items()
        if query not in ambiguous
    }
    of_chunk = {chunk: root(name) for chunk, name in own.items()}
    return Grouping(unit, of_query, of_chunk, ambiguous)


def _unit_name(chunk: Chunk, unit: str) -> str:
    if unit == "document":
        return chunk.document
    return "\x1f".join((chunk.document, *chunk.section))


def _blocks(
    chunks: Mapping[str, Chunk],
    judged: Mapping[str, frozenset[str]],
    queries: Mapping[str, Query],
) -> dict[str, str]:
    """Chunk id -> block: 20 to 40 contiguous stretches of equal query count."""

    def place(chunk: Chunk) -> tuple[str, int, str]:
        return (chunk.document, chunk.start, chunk.id)

    starts = sorted(min(place(chunks[chunk]) for chunk in relevant) for relevant in judged.values())
    count = min(max(20, min(40, len(starts) // 10)), max(1, len(starts) // 2))
    borders = sorted({starts[round(number * len(starts) / count)] for number in range(1, count)})
    own = {}
    number = 0
    for chunk in sorted(chunks.values(), key=place):
        while number < len(borders) and place(chunk) >= borders[number]:
            number += 1
        own[chunk.id] = f"block {number + 1:02d}"
    return own


def boilerplate_of(
    chunks: Mapping[str, Chunk], twins: Mapping[str, Collection[str]]
) -> frozenset[str]:
    """Chunks that recur, nearly unchanged, in more than 3 documents."""
    return frozenset(
        chunk
        for chunk, alike in twins.items()
        if len({chunks[other].document for other in alike}) > BOILERPLATE
    )


def close_to(
    chunk: Chunk, twins: Mapping[str, frozenset[str]], overlaps: Overlaps
) -> frozenset[str]:
    """The chunk, its near-duplicates and what it overlaps."""
    near = twins.get(chunk.id, frozenset())
    return near | {chunk.id} | {other.id for other in overlaps.of(chunk.span)}


def relevant_in(qrels: Qrels) -> set[str]:
    """All chunks that are relevant to some query."""
    return {chunk for grades in qrels.values() for chunk, grade in grades.items() if grade > 0}


def sharing(
    chunks: Sequence[Chunk],
    judged: Collection[str],
    near_duplicates: Sequence[tuple[int, int]],
    notes: list[str],
) -> list[tuple[int, int]]:
    """Pairs of passages that give each other away without being near-duplicates.

    All passages are looked at, since what is usual wording is told from all; chunks that overlap
    in their document share text anyway and are dealt with as such.

    Args:
        judged: Ids of the passages that are relevant to some query; they are compared first where
            there is too much text to compare all.
    """
    ranks = [chunk.id not in judged for chunk in chunks]
    pairs, compared = shared_within([chunk.embedded for chunk in chunks], ranks)
    if compared < len(chunks):
        notes.append(
            f"{compared:,} of {len(chunks):,} passages were searched for text that others share "
            f"({COMPARED:,} characters); the others for near-duplicates only"
        )
    known = set(near_duplicates)
    return [
        (pair.one, pair.other)
        for pair in pairs
        if (pair.one, pair.other) not in known
        and not chunks[pair.one].span.overlap(chunks[pair.other].span)
    ]


def asked_alike(texts: Mapping[str, str], split_of: Mapping[str, str]) -> dict[str, set[str]]:
    """Query id -> ids of those that ask the same in nearly the same words; only those with any.

    Args:
        split_of: Query id -> split; train comes last where there are too many to compare all.
    """
    ids = list(texts)
    ranks = [split_of[query] == "train" for query in ids]
    pairs, _ = shared_within(list(texts.values()), ranks, questions=True)
    alike: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        alike[ids[pair.one]].add(ids[pair.other])
        alike[ids[pair.other]].add(ids[pair.one])
    return dict(alike)
