"""Which group goes to train, dev or test: by the seed and its size, or by the user's word."""

import fnmatch
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from embedtune.datasets.groups import Grouping
from embedtune.errors import ConfigError
from embedtune.files import visible
from embedtune.records import Chunk, Query
from embedtune.settings import Settings

NAMES = ("train", "dev", "test")
WANTED_TEST_GROUPS = 20
MOST = {"test": 0.30, "dev": 0.15}  # share of the queries that a part may be raised to
REAL_QUERIES = {"test": 100, "dev": 50}  # a part is raised for so many real queries
EXAMPLE = "example"  # flag of a real query that generation was shown, for its tone


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


def assign(
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


def by_files(
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
