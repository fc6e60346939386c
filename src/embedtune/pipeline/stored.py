"""What the stages of a run leave on disk, written and read back."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedtune.datasets.formats import LabelledRow, Row, ScoredRow
from embedtune.datasets.source import SourceSettings
from embedtune.datasets.split import SplitSettings
from embedtune.errors import IntegrityError
from embedtune.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from embedtune.pipeline.judge import Judgement
from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Query,
    Reject,
    RetrievalSet,
    as_row,
    chunk_from_row,
    document_from_row,
    query_from_row,
    reject_from_row,
    unusable,
)
from embedtune.run import StageFolder, find_stage
from embedtune.store import Store

DOCUMENTS = "01-documents"
CHUNKS = "02-chunks"
QUERIES = "03-queries"
FILTERED = "04-filtered"
DATASET = "05-dataset"
AUDIT = "06-audit"
NEGATIVES = "07-negatives"
TRAINING = "08-training"
EVALUATION = "09-evaluation"
STAGES = (DOCUMENTS, CHUNKS, QUERIES, FILTERED, DATASET, AUDIT, NEGATIVES, TRAINING, EVALUATION)

EXAMPLE_FORMATS = {"scored": ScoredRow, "labelled": LabelledRow}  # learnt as they came


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set with all that was found out about it."""

    data: RetrievalSet
    twins: tuple[tuple[str, str], ...]  # ids of near-duplicate chunks
    groups: dict[str, str]  # chunk id -> group; empty for given data
    by: str
    optimistic: bool
    notes: tuple[str, ...]
    affected: tuple[str, ...] = ()  # test queries with near-duplicates in train
    left_out: tuple[str, ...] = ()  # train queries that are therefore not trained on
    left_out_pairs: tuple[tuple[str, str], ...] = ()  # and (query, chunk) of other train queries
    counts: Counts | None = None  # of the rows read, for given data
    rejects: tuple[Reject, ...] = ()
    format: str = "beir"  # or pairs, triplets, scored, labelled: as it came
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # that came with it
    examples: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)  # its rows by split


def _rows(path: Path) -> list[dict[str, Any]]:
    rejects: list[Reject] = []
    rows = [row for _, row in read_jsonl(path, rejects, "run")]
    if rejects:
        raise IntegrityError(f"{path}:{rejects[0].line}: {rejects[0].message}")
    return rows


def load_documents(folder: Path) -> tuple[Document, ...]:
    return tuple(document_from_row(row) for row in _rows(folder / "documents.jsonl"))


def load_chunks(folder: Path) -> tuple[Chunk, ...]:
    return tuple(chunk_from_row(row) for row in _rows(folder / "chunks.jsonl"))


def load_queries(folder: Path, name: str = "queries.jsonl") -> tuple[Query, ...]:
    return tuple(query_from_row(row) for row in _rows(folder / name))


def load_rejects(folder: Path) -> tuple[Reject, ...]:
    path = folder / "rejects.jsonl"
    return tuple(reject_from_row(row) for row in _rows(path)) if path.exists() else ()


def load_dataset(folder: Path) -> Dataset:
    """The data set stage of a run."""
    from embedtune.datasets.beir import read_beir

    data = read_beir(folder).data
    full = {query.id: query for query in load_queries(folder, "queries-full.jsonl")}
    split = read_json(folder / "split.json")
    queries = tuple(full.get(query.id, query) for query in data.queries)
    return Dataset(
        data=replace(data, queries=queries, given_splits=split["given"]),
        twins=tuple((row["one"], row["other"]) for row in _rows(folder / "near_duplicates.jsonl")),
        groups=split["groups"],
        by=split["by"],
        optimistic=split["optimistic"],
        notes=tuple(split["notes"]),
        affected=tuple(split["affected"]),
        left_out=tuple(split["left_out"]),
        left_out_pairs=tuple((query, chunk) for query, chunk in split.get("left_out_pairs", ())),
        format=split["format"],
        negatives={
            row["query"]: tuple(row["negatives"]) for row in _rows(folder / "given-negatives.jsonl")
        }
        if (folder / "given-negatives.jsonl").exists()
        else {},
        examples={
            path.stem.removeprefix("examples-"): tuple(
                EXAMPLE_FORMATS[split["format"]](**row) for row in _rows(path)
            )
            for path in sorted(folder.glob("examples-*.jsonl"))
        },
    )


def load_given(
    where: Path | str,
    split: SplitSettings,
    *,
    columns: Mapping[str, str] = {},
    settings: SourceSettings | None = None,
    strict: bool = False,
    passages_alone: bool = False,
) -> Dataset:
    """Data of the user's in any format, with its leaks found; missing parts are made by groups.

    Raises:
        ConfigError, NothingUsable, ServiceError, IntegrityError: See ``read_source``,
            ``complete_splits`` and ``check_given_splits``; rows that stand in two splits.
    """
    from embedtune.datasets.given import check_given_splits, complete_splits
    from embedtune.datasets.source import examples_by_split, read_source, refuse_copies
    from embedtune.similar import near_duplicates

    reading = read_source(
        where, columns, split=split, settings=settings, passages_alone=passages_alone
    )
    refuse_copies(reading)
    pairs = near_duplicates([chunk.embedded for chunk in reading.data.chunks])
    made = complete_splits(reading.data, pairs, split)
    data = made.data
    leaks = check_given_splits(data, pairs, strict=strict)
    ids = [chunk.id for chunk in data.chunks]
    return Dataset(
        data=data,
        # among labelled texts the labels alone decide what is relevant
        twins=() if data.shared_passages else tuple((ids[one], ids[other]) for one, other in pairs),
        groups=dict(made.group_of_chunk),
        by=made.by,
        optimistic=made.optimistic,
        notes=(*reading.notes, *made.notes, *leaks.notes),
        affected=leaks.affected,
        left_out=leaks.left_out,
        left_out_pairs=leaks.left_out_pairs,
        counts=reading.counts,
        rejects=(*reading.rejects, *made.dropped),
        format=reading.format,
        negatives=reading.negatives,
        examples=examples_by_split(reading, data),
    )


def save_dataset(folder: Path, dataset: Dataset) -> None:
    """Leave a data set in BEIR layout, with what that layout has no place for beside it."""
    from embedtune.datasets.beir import write_beir

    write_beir(dataset.data, folder)
    write_jsonl(folder / "queries-full.jsonl", map(as_row, dataset.data.queries))
    write_jsonl(
        folder / "near_duplicates.jsonl",
        ({"one": one, "other": other} for one, other in dataset.twins),
    )
    if dataset.negatives:
        write_jsonl(
            folder / "given-negatives.jsonl",
            ({"query": q, "negatives": list(chunks)} for q, chunks in dataset.negatives.items()),
        )
    for name, rows in dataset.examples.items():
        if dataset.format in EXAMPLE_FORMATS and name != "test":
            write_jsonl(folder / f"examples-{name}.jsonl", map(asdict, rows))
    facts = {
        "by": dataset.by,
        "optimistic": dataset.optimistic,
        "given": dataset.data.given_splits,
        "groups": dataset.groups,
        "notes": list(dataset.notes),
        "affected": list(dataset.affected),
        "left_out": list(dataset.left_out),
        "left_out_pairs": list(map(list, dataset.left_out_pairs)),
        "format": dataset.format,
    }
    write_json(folder / "split.json", facts)


def answers_beside(out: Path, needed: bool) -> AbstractContextManager[Store | None]:
    """The store of answers beside ``out``, where a language model is asked at all."""
    return Store(out.parent / "answers.sqlite") if needed else nullcontext()


def save_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    rows = ({**as_row(reject), "unusable": reject.unusable} for reject in rejects)
    write_jsonl(folder / "rejects.jsonl", rows)


def save_judgement(folder: Path, judgement: Judgement) -> None:
    from pydantic import TypeAdapter

    write_text(
        folder / "judgement.json", TypeAdapter(Judgement).dump_json(judgement).decode() + "\n"
    )


def load_judgement(folder: Path) -> Judgement:
    from pydantic import TypeAdapter

    return TypeAdapter(Judgement).validate_json((folder / "judgement.json").read_bytes())


def has_unusable(run_folder: Path) -> bool:
    """Whether any stage of the run had unusable input."""
    return any(unusable(load_rejects(run_folder / stage)) for stage in stage_facts(run_folder))


def stage_facts(run_folder: Path) -> Mapping[str, StageFolder]:
    """The whole stages of a run, by folder name; those made from what is there no more, after a
    stage before them was done again, are left out."""
    found = {name: stage for name in STAGES if (stage := find_stage(run_folder, name))}
    if DATASET in found and found[DATASET].manifest["stage"] == "given":
        found = {name: stage for name, stage in found.items() if name >= DATASET}
    digests: dict[str, str | None] = {}
    for name in STAGES:
        if name in found:
            inputs = found[name].manifest["recipe"]["inputs"]
            # an input that is named and empty was not used, whatever an earlier run left there
            if any(inputs.get(part) and inputs[part] != digest for part, digest in digests.items()):
                del found[name]
        digests[name.partition("-")[2]] = found[name].digest if name in found else None
    return found
