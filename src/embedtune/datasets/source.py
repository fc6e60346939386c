"""Any data set a user may bring, read into one shape.

A BEIR folder, a LlamaIndex file, a file or folder of pairs, triplets, scored pairs or labelled
texts in any type of file, or a data set of the Hugging Face hub.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from embedtune.datasets.beir import read_beir
from embedtune.datasets.columns import Layout, tell_layout
from embedtune.datasets.divide import divide_rows
from embedtune.datasets.formats import (
    Row,
    check_not_swapped,
    check_scale,
    on_scale,
    read_examples,
    settle_copies,
    shown,
)
from embedtune.datasets.judging import Judged, judge_labelled, judge_pairs, judge_scored, query_id
from embedtune.datasets.llama_index import is_llama, read_llama
from embedtune.datasets.parts import SPLITS, WHOLE, Parts, find_parts, split_called
from embedtune.datasets.split import SplitSettings
from embedtune.datasets.tables import Table, read_rows
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Counts, Reject, RetrievalSet
from embedtune.settings import Settings

SourceFormat = Literal["beir", "pairs", "triplets", "scored", "labelled"]
EXAMPLES = 3  # shown in a message


class SourceSettings(Settings):
    """How data that the user brings is read."""

    bad_rows: Literal["reject", "stop"] = Field(
        "reject", description="Unusable rows: reject and list them (exit 4), or stop (exit 3)."
    )
    positive_score: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Scored pairs from here on count as relevant in retrieval."
    )


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as read. ``examples`` are the rows of its format by split, none for BEIR."""

    format: SourceFormat
    data: RetrievalSet  # what training on positives and evaluation of retrieval work on
    negatives: Mapping[str, tuple[str, ...]]  # query id -> chunk ids that came as negatives
    examples: Mapping[str, tuple[Row, ...]]
    copies: tuple[tuple[str, str], ...]  # (file:line, file:line) of a row in two splits
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]
    counts: Counts


def read_source(
    where: str | Path,
    columns: Mapping[str, str] = {},
    *,
    splits: Mapping[str, str] = {},
    split: SplitSettings | None = None,
    settings: SourceSettings | None = None,
    passages_alone: bool = False,
) -> Source:
    """Read a data set; unusable rows are rejected with file and line.

    Data of one file has the one split ``all``, to be divided by ``complete_splits``; scored pairs
    and labelled texts are divided here, row by row.

    Args:
        where: A file, a folder, or ``hf:OWNER/NAME`` (``@REVISION``, ``:CONFIGURATION``).
        columns: Role -> column, where the names do not tell (see ``columns.NAMES``).
        splits: Split -> file or glob, where the names do not tell.
        split: Shares and seed for data without splits.
        passages_alone: A BEIR folder of nothing but a corpus will do.

    Raises:
        ConfigError: Nothing there that could be read, or a column or file named in vain.
        NothingUsable: No usable rows, or columns that fit no format, or several.
        ServiceError: The hub cannot be reached.
        IntegrityError: Judged ids that no row has.
    """
    settings = settings or SourceSettings()
    rejects: list[Reject] = []
    notes: list[str] = []
    name, folder, config = _located(where, notes)
    if not splits and _is_beir(folder):
        reading = read_beir(folder, passages_alone=passages_alone)
        source = Source("beir", replace(reading.data, name=name), {}, {}, (), reading.rejects,
                        reading.notes, reading.counts)  # fmt: skip
        return _accepted(source, settings)
    parts = find_parts(folder, splits, notes, config=config, name=str(where))
    read = {part: [read_rows(file, rejects, notes) for file in files]
            for part, files in parts.items()}  # fmt: skip
    objects = [found for files in read.values() for found in files if isinstance(found, dict)]
    if objects:
        return _accepted(_llama(name, parts, read, rejects, notes), settings)
    format, found = _examples(folder, read, columns, rejects, notes)
    examples, copies = settle_copies(found, rejects)
    given = WHOLE not in examples
    if format in ("scored", "labelled"):
        examples = divide_rows(examples, split or SplitSettings(), notes)
    judged = _judged(format, name, examples, given, settings)
    kept = sum(map(len, examples.values()))
    harmless = sum(not reject.unusable for reject in rejects)
    source = Source(
        format,
        judged.data,
        judged.negatives,
        {part: tuple(rows) for part, rows in examples.items()},
        tuple(copies),
        tuple(sorted(rejects, key=_place)),
        (*notes, *judged.notes),
        Counts(kept + len(rejects), kept, len(rejects) - harmless, harmless),
    )
    return _accepted(source, settings)


def refuse_copies(source: Source) -> None:
    """Stop where rows of one split stand in another: the figures would be of learning by heart.

    Raises:
        IntegrityError: Names the first of them, and their share.
    """
    if not source.copies:
        return
    total = sum(map(len, source.examples.values()))
    first = "; ".join(f"{shown(one)} and {shown(other)}" for one, other in source.copies[:EXAMPLES])
    raise IntegrityError(
        f"{source.data.name}: {len(source.copies)} of {total} rows "
        f"({len(source.copies) / total:.1%}) stand in two splits, e.g. {first}; remove them from "
        "one"
    )


def examples_by_split(source: Source, data: RetrievalSet) -> dict[str, tuple[Row, ...]]:
    """The rows by the splits of ``data``, where those of the source were completed.

    Rows of queries that the splitting left out are in none.
    """
    if source.format not in ("pairs", "triplets"):
        return dict(source.examples)
    everything = [row for rows in source.examples.values() for row in rows]
    found: dict[str, tuple[Row, ...]] = {}
    for name, qrels in data.qrels.items():
        rows = source.examples.get(name) or source.examples.get("train") or everything
        found[name] = tuple(row for row in rows if query_id(row.anchor) in qrels)
    return found


def _located(where: str | Path, notes: list[str]) -> tuple[str, Path, str]:
    """(name, folder or file, configuration)."""
    if str(where).startswith("hf:"):
        from embedtune.datasets.hub import fetch, parse_address

        name, _, config = parse_address(str(where))
        folder = fetch(str(where))
        notes.append(f"{where}: revision {folder.name}")
        return name, folder, config
    path = Path(where)
    name = path.resolve().name
    return path.stem if path.is_file() else name, path, ""


def _is_beir(folder: Path) -> bool:
    return folder.is_dir() and any(
        (folder / name).exists() for name in ("corpus.jsonl", "queries.jsonl", "qrels")
    )


def _accepted(source: Source, settings: SourceSettings) -> Source:
    bad = [reject for reject in source.rejects if reject.unusable]
    if bad and settings.bad_rows == "stop":
        raise NothingUsable(
            f"{source.data.name}: {len(bad)} unusable rows, the first: {_told(bad[0])}; mend them, "
            "or let them be rejected (bad_rows: reject)"
        )
    return source


def _place(reject: Reject) -> tuple[str, int]:
    return reject.file, reject.line or 0


def _told(reject: Reject) -> str:
    line = f":{reject.line}" if reject.line else ""
    return f"{reject.file}{line}: {reject.message}"


def _llama(
    name: str,
    parts: Parts,
    read: Mapping[str, Sequence[Any]],
    rejects: list[Reject],
    notes: list[str],
) -> Source:
    """The source that LlamaIndex files make; other objects and rows beside them are refused."""
    files = {part: list(zip(paths, read[part], strict=True)) for part, paths in parts.items()}
    for own in files.values():
        for path, found in own:
            if not isinstance(found, dict):
                first = next((_told(reject) for reject in rejects), "it holds rows")
                raise NothingUsable(f"{path}: not of LlamaIndex, as other files are: {first}")
            if not is_llama(found):
                keys = ", ".join(visible(key, 40) for key in list(found)[:6]) or "none"
                raise NothingUsable(
                    f"{path}: one JSON object (keys: {keys}); expected an array of rows, a row a "
                    "line, or queries, corpus and relevant_docs as LlamaIndex writes them"
                )
    reading = read_llama(name, files)
    found = (*rejects, *reading.rejects)
    return Source("beir", reading.data, {}, {}, (), found, tuple(notes),
                  Counts(reading.accepted + len(found), reading.accepted, len(found)))  # fmt: skip


def _examples(
    where: Path,
    read: Mapping[str, Sequence[Table]],
    columns: Mapping[str, str],
    rejects: list[Reject],
    notes: list[str],
) -> tuple[SourceFormat, dict[str, list[Row]]]:
    """The format, and the checked rows by split."""
    known = {column for tables in read.values() for table in tables for column in table.columns}
    layouts: dict[str, Layout] = {}
    rows: dict[str, list[tuple[Row, str]]] = {}
    for part, tables in read.items():
        found = rows.setdefault(part, [])
        for table in tables:
            if not table.rows:
                continue
            # negatives, say, may be named that only train has
            given = {role: column for role, column in columns.items()
                     if column not in known or column in table.columns}  # fmt: skip
            layouts[str(table.file)] = layout = tell_layout(table, given)
            found += read_examples(table, layout, rejects, notes)
        if not found:
            own = {str(table.file) for table in tables}
            first = min((r for r in rejects if r.file in own), key=_place, default=None)
            why = f"; the first: {_told(first)}" if first else "; there are 0 rows"
            raise NothingUsable(f"{tables[0].file if tables else where}: no usable rows{why}")
    formats = {layout.format for layout in layouts.values()}
    if formats == {"pairs", "triplets"}:
        without = [Path(file).name for file, one in layouts.items() if one.format == "pairs"]
        notes.append(f"no negatives in {', '.join(without)}")
    elif len(formats) > 1:
        shown_layouts = "; ".join(f"{Path(file).name}: {one}" for file, one in layouts.items())
        raise NothingUsable(
            f"{where}: files of several formats: {shown_layouts}; read one at a time"
        )
    layout = next(iter(layouts.values()))
    format = "triplets" if "triplets" in formats else layout.format
    examples = _by_split(rows, notes)
    everything = [row for own in examples.values() for row in own]
    if format == "scored":
        check_scale(everything, str(where), layout.column("score"), rejects)
        examples = {part: list(filter(on_scale, own)) for part, own in examples.items()}
    elif format != "labelled" and not {"anchor", "positive"} & columns.keys():
        check_not_swapped(everything, str(where), layout)
    return format, examples


def _by_split(
    rows: Mapping[str, Sequence[tuple[Row, str]]], notes: list[str]
) -> dict[str, list[Row]]:
    """Rows of a single file go where its column ``split`` says, if that names splits only."""
    named = {name for _, name in rows.get(WHOLE, ())}
    if all(name.strip().casefold() in SPLITS for name in named) and named:
        examples: dict[str, list[Row]] = {}
        for row, name in rows[WHOLE]:
            examples.setdefault(split_called(name), []).append(row)
        notes.append(f"splits as the column split says: {', '.join(sorted(examples))}")
        return examples
    if named - {""}:
        shown_names = ", ".join(visible(name, 40) for name in sorted(named)[:EXAMPLES])
        notes.append(f"the column split is not followed: it holds {shown_names}")
    return {part: [row for row, _ in own] for part, own in rows.items()}


def _judged(
    format: SourceFormat,
    name: str,
    examples: Mapping[str, list[Any]],
    given: bool,
    settings: SourceSettings,
) -> Judged:
    if format == "labelled":
        return judge_labelled(name, examples, given)
    if format == "scored":
        return judge_scored(name, examples, given, settings.positive_score)
    return judge_pairs(name, examples, given)
