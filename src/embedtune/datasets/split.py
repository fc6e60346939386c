"""Train, dev and test that share no group (see ``groups``), no near-duplicate, and no text.

What an audit would call a leak between the parts (see ``leaks``) is looked for before they are
made: passages that share text join their groups where that leaves enough of them, and what is
left of such pairs afterwards, and of questions that are asked in two parts, leaves train.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from embedtune.datasets.assign import (
    EXAMPLE,
    NAMES,
    NamedFiles,
    SplitSettings,
    assign,
    by_files,
)
from embedtune.datasets.groups import (
    Grouping,
    asked_alike,
    boilerplate_of,
    choose_grouping,
    close_to,
    group_by,
    joins_well,
    relevant_in,
    sharing,
)
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, Counts, Qrels, Query, Reject
from embedtune.relevance import Overlaps, twins_of

STAGE = "split"
FEW_QUERIES = 30
ENOUGH_REAL = 50  # queries, in
ENOUGH_REAL_GROUPS = 10  # groups: from here the real ones of a part are enough by themselves
TYPICAL_SD = 0.35  # of nDCG@10 over queries, as seen on real sets


@dataclass(frozen=True, slots=True)
class Splitting:
    """The judgements by split, and what was decided on the way."""

    qrels: Mapping[str, Qrels]
    group_of_query: Mapping[str, str]
    group_of_chunk: Mapping[str, str]
    dropped: tuple[Reject, ...]
    counts: Counts  # of queries
    notes: tuple[str, ...]
    by: str  # document, section or block
    optimistic: bool  # train and test come from one document


def split_queries(
    chunks: Sequence[Chunk],
    queries: Sequence[Query],
    qrels: Qrels,
    near_duplicates: Sequence[tuple[int, int]],
    settings: SplitSettings,
    names: Sequence[str] = NAMES,
) -> Splitting:
    """Divide judged queries into train, dev and test by whole groups.

    Removed first, with reason: queries without a relevant passage, queries with a passage that is
    boilerplate (near-duplicates in more than 3 documents), and ambiguous ones (the same text
    asked of more than one group). Groups are joined by near-duplicate passages, and documents
    and sections also by queries with passages in several; passages that share text otherwise
    (contained, overlapping, re-ordered) join them too, unless too few or too large ones would be
    left or the user names the parts. Which group goes where follows from the seed and the group's
    name, not from the order of the input; each language is spread over the parts by its share.
    Train queries leave whose passage overlaps, repeats or shares text with one of dev or test (on
    the border of a block, say, or beside boilerplate), or that are asked there in nearly the same
    words.

    Further evidence of a query joins no groups: train queries that touch it leave instead, and so
    do those with further evidence in a group of dev or test.

    Sizes by default: test = max(10 %, min(100 queries, 30 %)), dev = max(10 %, min(50, 15 %)),
    the rest train. Test is raised, up to 30 %, until it holds 20 groups: the verdict's unit is
    the group, and under 20 of them it can say little.

    Beside generated queries, real ones (origin ``user``) go to test and dev first, two to one:
    groups that hold some are taken before others, the parts are raised for them (to 30 % and 15 %),
    and where a part holds 50 real ones of 10 groups, its generated ones leave, so that real ones
    decide. Real ones that were shown to the writer of the generated ones decide nothing.

    Args:
        near_duplicates: Pairs of indices into ``chunks``.

    Raises:
        NothingUsable: Too few groups to divide, or one group (named) with over 30 % of the
            queries and no ``allow_cut``.
        ConfigError: A glob of a named part fits no document, or two parts name one document.
    """
    index = {chunk.id: chunk for chunk in chunks}
    pairs = [(chunks[one].id, chunks[other].id) for one, other in near_duplicates]
    twins = twins_of(chunks, near_duplicates)
    boilerplate = boilerplate_of(index, twins)
    dropped: list[Reject] = []
    judged: dict[str, frozenset[str]] = {}
    for query in queries:
        relevant = frozenset(chunk for chunk, grade in qrels.get(query.id, {}).items() if grade > 0)
        if not relevant:
            dropped.append(_drop(query, "no-passage", "no chunk holds its evidence"))
        elif not relevant.isdisjoint(boilerplate):
            dropped.append(
                _drop(query, "boilerplate", "a passage of it recurs in more than 3 documents")
            )
        else:
            judged[query.id] = relevant
    by_id = {query.id: query for query in queries if query.id in judged}
    primary = {
        query: _primary(by_id[query], relevant, index, twins) for query, relevant in judged.items()
    }
    joins = [pair for pair in pairs if boilerplate.isdisjoint(pair)]
    notes: list[str] = []
    asked = frozenset[str]().union(*judged.values())
    shared = sharing(chunks, asked, near_duplicates, notes)
    further = [
        (chunks[one].id, chunks[other].id)
        for one, other in shared
        if boilerplate.isdisjoint((chunks[one].id, chunks[other].id))
    ]
    named = isinstance(settings.test, NamedFiles)
    grouping = (
        group_by("document", index, primary, by_id, joins)
        if named
        else choose_grouping(
            index, primary, by_id, joins, by=settings.by, allow_cut=settings.allow_cut
        )
    )
    wider = group_by(grouping.by, index, primary, by_id, [*joins, *further])
    if further and not named and joins_well(wider, grouping):
        grouping = replace(wider, notes=grouping.notes)
    for query_id in grouping.ambiguous:
        dropped.append(
            _drop(by_id[query_id], "ambiguous", "the same text is asked of more than one group")
        )
        del judged[query_id]
    notes = [*grouping.notes, *notes]
    for found, what in ((joins, "near-duplicates"), (further, "passages that share text")):
        across = sum(
            index[one].document != index[other].document
            and grouping.of_chunk[one] == grouping.of_chunk[other]
            for one, other in found
        )
        if across:
            notes.append(f"{across} pairs of {what} keep their documents on one side")
    if named:
        parts = by_files(grouping, index, judged, settings, notes)
        for query_id in grouping.of_query.keys() - parts.keys():
            dropped.append(_drop(by_id[query_id], "unnamed", "no part names its document"))
    else:
        parts = assign(grouping.of_query, by_id, settings, names, notes)
    close = [*near_duplicates, *shared]
    parts, border = _clear_borders(parts, judged, index, twins_of(chunks, close), grouping)
    parts, again = _clear_questions(parts, by_id)
    dropped += [
        _drop(
            by_id[query],
            "border",
            "a passage of it overlaps, repeats or belongs to those of dev or test",
        )
        for query in sorted(border)
    ]
    dropped += [
        _drop(by_id[query], "asked-again", "dev or test asks the same in nearly the same words")
        for query in sorted(again)
    ]
    parts, outdone = _real_alone(parts, by_id, grouping.of_query, notes)
    dropped += [
        _drop(by_id[query], "example", "it was shown to the model that wrote the others")
        if by_id[query].origin == "user"
        else _drop(by_id[query], "beside-real", "generated; the real queries of its part decide")
        for query in outdone
    ]
    made = {
        name: {query.id: dict(qrels[query.id]) for query in queries if parts.get(query.id) == name}
        for name in names
    }
    _check_sizes(made, grouping, notes)
    found = leaks(chunks, made, close)
    if found:  # cannot be, by the above; never train on it all the same
        raise IntegrityError(f"the split leaks: {found[:3]}; please report this")
    kept = sum(map(len, made.values()))
    return Splitting(
        qrels=made,
        group_of_query={q: g for q, g in grouping.of_query.items() if q in parts},
        group_of_chunk=grouping.of_chunk,
        dropped=tuple(dropped),
        counts=Counts(len(queries), kept, len(dropped)),
        notes=tuple(notes),
        by=grouping.by,
        optimistic=grouping.by != "document",
    )


def leaks(
    chunks: Sequence[Chunk],
    qrels: Mapping[str, Qrels],
    near_duplicates: Sequence[tuple[int, int]],
) -> list[tuple[str, str, str, str]]:
    """What train, dev and test share: (split, passage, other split, passage there).

    Relevant passages that are the same, near-duplicates, or overlapping stretches of a document.

    Args:
        near_duplicates: Pairs of indices into ``chunks``.
    """
    index = {chunk.id: chunk for chunk in chunks}
    twins, overlaps = twins_of(chunks, near_duplicates), Overlaps(chunks)
    held = {name: relevant_in(qrels.get(name, {})) for name in NAMES}
    return [
        (one, close, other, chunk)
        for one, other in combinations(NAMES, 2)
        for chunk in sorted(held[other])
        for close in sorted(close_to(index[chunk], twins, overlaps) & held[one])
    ]


def _primary(
    query: Query,
    relevant: frozenset[str],
    chunks: Mapping[str, Chunk],
    twins: Mapping[str, frozenset[str]],
) -> frozenset[str]:
    """Of its relevant chunks those of the stretch it was written from, and their copies."""
    if query.evidence is None or not query.more_evidence:
        return relevant
    own = {chunk for chunk in relevant if chunks[chunk].span.overlap(query.evidence)}
    near = {other for chunk in own for other in twins.get(chunk, ())}
    return frozenset((own | near) & relevant) or relevant


def _real_alone(
    parts: Mapping[str, str],
    queries: Mapping[str, Query],
    group_of: Mapping[str, str],
    notes: list[str],
) -> tuple[dict[str, str], list[str]]:
    """Parts without the generated queries that real ones make needless, and without those real
    ones that the writer of the generated ones has seen; and the queries left out."""
    outdone = [
        query
        for query, part in parts.items()
        if part in ("test", "dev") and EXAMPLE in queries[query].flags
    ]
    seen = set(outdone)
    for name in ("test", "dev"):
        members = [query for query, part in parts.items() if part == name and query not in seen]
        real = [query for query in members if queries[query].origin == "user"]
        groups = {group_of[query] for query in real}
        others = [query for query in members if queries[query].origin != "user"]
        if len(real) >= ENOUGH_REAL and len(groups) >= ENOUGH_REAL_GROUPS and others:
            outdone += others
            notes.append(
                f"{name} is decided by its {len(real)} real queries; {len(others)} generated ones "
                "about the same documents are left out"
            )
    left = set(outdone)
    return {query: part for query, part in parts.items() if query not in left}, outdone


def _clear_borders(
    parts: Mapping[str, str],
    judged: Mapping[str, frozenset[str]],
    chunks: Mapping[str, Chunk],
    twins: Mapping[str, frozenset[str]],
    grouping: Grouping,
) -> tuple[dict[str, str], set[str]]:
    """Leave out of dev, then of train, what overlaps or repeats passages of a later part, or has
    one in a group of it."""
    part_of = {grouping.of_query[query]: part for query, part in parts.items()}
    overlaps = Overlaps(chunks.values())
    kept = dict(parts)
    border: set[str] = set()
    for name, guarded in (("dev", ("test",)), ("train", ("dev", "test"))):
        held = {chunk for query, part in kept.items() if part in guarded for chunk in judged[query]}
        near = {other for chunk in held for other in close_to(chunks[chunk], twins, overlaps)}
        near |= {c for c, group in grouping.of_chunk.items() if part_of.get(group) in guarded}
        leaving = {q for q, part in kept.items() if part == name and not near.isdisjoint(judged[q])}
        border |= leaving
        kept = {query: part for query, part in kept.items() if query not in leaving}
    return kept, border


def _clear_questions(
    parts: Mapping[str, str], queries: Mapping[str, Query]
) -> tuple[dict[str, str], set[str]]:
    """Leave out of dev, then of train, what a later part asks in nearly the same words."""
    alike = asked_alike({query: queries[query].text for query in parts}, parts)
    kept = dict(parts)
    for name, guarded in (("dev", ("test",)), ("train", ("dev", "test"))):
        for query, others in alike.items():
            if parts[query] == name and any(kept.get(other) in guarded for other in others):
                del kept[query]
    return kept, parts.keys() - kept.keys()


def _check_sizes(
    made: Mapping[str, Mapping[str, object]], grouping: Grouping, notes: list[str]
) -> None:
    empty = [name for name, part in made.items() if not part]
    if empty:
        raise NothingUsable(
            f"the queries cannot be split: {' and '.join(empty)} would be empty with "
            f"{len(grouping.sizes)} groups and {len(grouping.of_query)} queries; give more "
            "documents or queries, or split.by: auto"
        )
    tests = len(made.get("test", ()))
    if 0 < tests < FEW_QUERIES:
        width = 2 * 1.96 * TYPICAL_SD / math.sqrt(tests)
        notes.append(
            f"only {tests} test queries: the 95 % interval of nDCG@10 will be about {width:.2f} "
            f"wide (± {width / 2:.2f})"
        )


def _drop(query: Query, code: str, message: str) -> Reject:
    return Reject(STAGE, code, message, excerpt=visible(query.text), item=query.id, unusable=False)
