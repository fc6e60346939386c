"""Train, dev and test that share no group (see ``groups``), and no near-duplicate."""

import fnmatch
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from embedtune.datasets.groups import (
    Grouping,
    boilerplate_of,
    choose_grouping,
    close_to,
    group_by,
    relevant_in,
)
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, Counts, Qrels, Query, Reject
from embedtune.relevance import Overlaps, twins_of
from embedtune.settings import Settings

STAGE = "split"
WANTED_TEST_GROUPS = 20
MOST = {"test": 0.30, "dev": 0.15}  # share of the queries that a part may be raised to
FEW_QUERIES = 30
REAL_QUERIES = {"test": 100, "dev": 50}  # a part is raised for so many real queries
EXAMPLE = "example"  # flag of a real query that generation was shown, for its tone
ENOUGH_REAL = 50  # queries, in
ENOUGH_REAL_GROUPS = 10  # groups: from here the real ones of a part are enough by themselves
TYPICAL_SD = 0.35  # of nDCG@10 over queries, as seen on real sets
NAMES = ("train", "dev", "test")


class NamedFiles(Settings):
    """A split named by its documents."""

    documents: tuple[str, ...] = Field(description="Globs of document names (docs/2024-*.pdf).")


Part = Annotated[float, Field(gt=0, lt=1)] | NamedFiles | None


class SplitSettings(Settings):
    """How queries are divided into train, dev and test."""

    by: Literal["auto", "document", "section", "block"] = Field(
        "auto", description="The unit never divided; auto takes the coarsest that gives 20 groups."
    )
    seed: Annotated[int, Field(ge=0)] = Field(42, description="Which groups go where.")
    train: Part = Field(None, description="Share of the queries, or documents: [globs].")
    dev: Part = Field(None, description="Share of the queries, or documents: [globs].")
    test: Part = Field(None, description="Share of the queries, or documents: [globs].")
    allow_cut: bool = Field(
        False,
        description="Divide a group that holds over 30 % of the queries; train queries that are "
        "then too close to dev or test leave.",
    )

    @field_validator("train", "dev", "test", mode="before")
    @classmethod
    def _auto_is_none(cls, value: object) -> object:
        return None if value == "auto" else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = (self.train, self.dev, self.test)
        shares = [part for part in parts if isinstance(part, float)]
        named = [part for part in parts if isinstance(part, NamedFiles)]
        if shares and named:
            raise ValueError("give shares or documents for the parts, not both")
        if shares and (len(shares) != 3 or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(
                f"the shares {', '.join(f'{share:g}' for share in shares)} sum to {sum(shares):g}; "
                "give train, dev and test, summing to 1"
            )
        if named and not (self.dev and self.test):
            raise ValueError("name the documents of dev and of test; the others are train")
        return self


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
    and sections also by queries with passages in several. Which group goes where follows from
    the seed and the group's name, not from the order of the input; each language is spread over
    the parts by its share. Train queries whose passage overlaps or repeats one of dev or test
    (on the border of a block, or beside boilerplate) leave.

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
    named = isinstance(settings.test, NamedFiles)
    grouping = (
        group_by("document", index, primary, by_id, joins)
        if named
        else choose_grouping(
            index, primary, by_id, joins, by=settings.by, allow_cut=settings.allow_cut
        )
    )
    for query_id in grouping.ambiguous:
        dropped.append(
            _drop(by_id[query_id], "ambiguous", "the same text is asked of more than one group")
        )
        del judged[query_id]
    notes = list(grouping.notes)
    across = sum(index[one].document != index[other].document for one, other in joins)
    if across:
        notes.append(f"{across} pairs of near-duplicates keep their documents on one side")
    if named:
        parts = _by_files(grouping, index, judged, settings, notes)
        for query_id in grouping.of_query.keys() - parts.keys():
            dropped.append(_drop(by_id[query_id], "unnamed", "no part names its document"))
    else:
        parts = _assign(grouping.of_query, by_id, settings, names, notes)
    parts, border = _clear_borders(parts, judged, index, twins, grouping)
    dropped += [
        _drop(
            by_id[query],
            "border",
            "a passage of it overlaps, repeats or belongs to those of dev or test",
        )
        for query in sorted(border)
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
    found = leaks(chunks, made, near_duplicates)
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


def _assign(
    of_query: Mapping[str, str],
    queries: Mapping[str, Query],
    settings: SplitSettings,
    names: Sequence[str],
    notes: list[str],
) -> dict[str, str]:
    """Query id -> split, whole groups at a time, each language by its share."""
    members: dict[str, list[str]] = defaultdict(list)
    for query, group in of_query.items():
        members[group].append(query)
    by_language: dict[str, list[str]] = defaultdict(list)
    for group, own in members.items():
        spoken = Counter(queries[query].language for query in own)
        by_language[max(sorted(spoken), key=spoken.__getitem__)].append(group)
    asked = [query for query in of_query if queries[query].origin == "user"]
    shown = {query for query in asked if EXAMPLE in queries[query].flags}
    mixed = 0 < len(asked) < len(of_query)  # otherwise all groups are alike
    real = Counter(of_query[query] for query in asked if mixed and query not in shown)
    lost = {of_query[query] for query in shown if mixed}
    for groups in by_language.values():
        groups.sort(key=lambda group: (group not in real, group in lost,
                                       draw_order(settings.seed, group)))  # fmt: skip
    for_dev = _for_dev(by_language.values(), real) if "dev" in names else frozenset()
    due = {"test": real.total() - sum(real[group] for group in for_dev),
           "dev": sum(real[group] for group in for_dev)}  # fmt: skip
    sizes = {group: len(own) for group, own in members.items()}
    wanted = {
        name: share_of(name, len(of_query), settings) for name in ("test", "dev") if name in names
    }
    begin = dict(wanted)
    parts = fill_parts(by_language, sizes, wanted, for_dev)

    def lacks(name: str) -> bool:
        if wanted[name] >= MOST[name] or getattr(settings, name) is not None:
            return False
        if name == "test" and _count(parts, name) < WANTED_TEST_GROUPS:
            return True
        held = sum(count for group, count in real.items() if parts[group] == name)
        return held < min(REAL_QUERIES[name], due[name])

    for name in wanted:
        while lacks(name):
            wanted[name] = min(MOST[name], wanted[name] + 0.01)
            parts = fill_parts(by_language, sizes, wanted, for_dev)
        if wanted[name] > begin[name]:
            notes.append(
                f"{name} raised from {begin[name]:.0%} to {wanted[name]:.0%} of the queries; it "
                f"holds {_count(parts, name)} groups"
            )
    return {query: parts[group] for query, group in of_query.items()}


def _for_dev(languages: Iterable[Sequence[str]], real: Mapping[str, int]) -> frozenset[str]:
    """Of each language's groups with real queries, in their order, those that test leaves to dev:
    as near to a third of the queries as it can be without being more."""
    kept = set()
    share = REAL_QUERIES["dev"] / sum(REAL_QUERIES.values())
    for groups in languages:
        seen = dev = 0
        for group in groups:
            seen += real.get(group, 0)
            if group in real and dev + real[group] <= share * seen:
                kept.add(group)
                dev += real[group]
    return frozenset(kept)


def _count(parts: Mapping[str, str], name: str) -> int:
    return sum(part == name for part in parts.values())


def fill_parts(
    by_language: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
    wanted: Mapping[str, float],
    for_dev: Collection[str] = (),
) -> dict[str, str]:
    """Group -> part: for each language, test and dev take groups in order until they are full.

    Args:
        for_dev: Groups that test leaves to dev.
    """
    parts: dict[str, str] = {}
    for groups in by_language.values():
        total = sum(sizes[group] for group in groups)
        for name, share in wanted.items():
            target, filled = share * total, 0
            for group in groups:
                if name == "test" and group in for_dev:
                    continue
                # take it when that brings the part nearer to its size than leaving it
                if group not in parts and filled + sizes[group] / 2 <= target:
                    parts[group] = name
                    filled += sizes[group]
        for group in groups:
            parts.setdefault(group, "train")
    return parts


def share_of(name: str, total: int, settings: SplitSettings) -> float:
    given = getattr(settings, name)
    if isinstance(given, float):
        return given
    if name == "test":
        return max(0.10, min(100 / total, 0.30)) if total else 0.1
    if name == "dev":
        return max(0.10, min(50 / total, 0.15)) if total else 0.1
    return 1.0


def draw_order(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode("utf-8", "surrogatepass")).hexdigest()


def _by_files(
    grouping: Grouping,
    chunks: Mapping[str, Chunk],
    judged: Mapping[str, frozenset[str]],
    settings: SplitSettings,
    notes: list[str],
) -> dict[str, str]:
    """Named documents. A group that reaches into two parts goes to test before dev before train.

    What no part names is train; where train is named too, it is left out.
    """
    ranking = ("test", "dev", "train", "")
    part_of = _named_parts({chunk.source or chunk.document for chunk in chunks.values()}, settings)
    own = {
        query: min(
            (part_of[chunks[chunk].source or chunks[chunk].document] for chunk in judged[query]),
            key=ranking.index,
        )
        for query in grouping.of_query
    }
    part_of_group: dict[str, str] = {}
    for query, group in grouping.of_query.items():
        best = part_of_group.setdefault(group, own[query])
        part_of_group[group] = min(best, own[query], key=ranking.index)
    parts = {query: part_of_group[group] for query, group in grouping.of_query.items()}
    moved = sum(part != own[query] for query, part in parts.items())
    if moved:
        notes.append(
            f"{moved} queries moved to the part of a document that shares near-duplicates or "
            "queries with theirs"
        )
    return {query: part for query, part in parts.items() if part}


def _named_parts(sources: Iterable[str], settings: SplitSettings) -> dict[str, str]:
    """Document name -> the part that names it."""
    sources = sorted(sources)
    part_of = dict.fromkeys(sources, "" if isinstance(settings.train, NamedFiles) else "train")
    faults = []
    claimed: dict[str, str] = {}
    for name in ("test", "dev", "train"):
        named = getattr(settings, name)
        for glob in named.documents if isinstance(named, NamedFiles) else ():
            fitting = [
                source
                for source in sources
                if fnmatch.fnmatchcase(source, glob)
                or fnmatch.fnmatchcase(PurePath(source).name, glob)
            ]
            if not fitting:
                faults.append(
                    f"split.{name}.documents: {visible(glob)!r} fits none of {len(sources)} "
                    f"documents; there is {', '.join(map(visible, sources[:3]))}"
                )
            for source in fitting:
                if claimed.setdefault(source, name) != name:
                    faults.append(
                        f"split: {visible(source)} is named by {claimed[source]} and by {name}"
                    )
                part_of[source] = claimed[source]
    if faults:
        raise ConfigError(faults)
    return part_of


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
