"""From a run to its review page and back: decisions are kept beside the run and honoured by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import write_bytes, write_text
from embedtune.pipeline.stored import (
    CHUNKS,
    DATASET,
    FILTERED,
    QUERIES,
    load_chunks,
    load_dataset,
    load_queries,
    load_rejects,
    stage_facts,
)
from embedtune.queries.review import (
    STAGE,
    Decision,
    as_decided,
    decision_row,
    read_decisions,
    save_decisions,
    settled,
)
from embedtune.records import Chunk, Query, Reject
from embedtune.relevance import judge
from embedtune.report.review import ReviewItem, review_page, review_table

DECISIONS = "decisions.jsonl"
CANDIDATES = 5
DEPTH = 20  # hits among which candidates are looked for
ORDER = ("test", "dev", "", "train")  # what decides the verdict is looked at first


@dataclass(frozen=True, slots=True)
class Review:
    page: Path
    table: Path
    queries: int  # on the page
    total: int
    decided: int


def write_review(run: Path, limit: int) -> Review:
    """``review.html`` and ``review.csv`` in the run folder.

    Queries of test come first, then dev, those that a filter or the split left out, and train;
    ``limit`` of them are shown.

    Raises:
        ConfigError: The folder holds no run.
        NothingUsable: The run has no queries yet, or began with given data.
        IntegrityError: Its decisions cannot be read.
    """
    from embedtune.retrieve.bm25 import BM25

    stages = _stages(run)
    chunks = load_chunks(run / CHUNKS)
    by_id = {chunk.id: chunk for chunk in chunks}
    queries = load_queries(run / QUERIES)
    judged: dict[str, dict[str, int]] = judge(queries, chunks, [])
    split: dict[str, str] = {}
    if DATASET in stages:
        for name, qrels in load_dataset(run / DATASET).data.qrels.items():
            split |= dict.fromkeys(qrels, name)
            judged |= {query: dict(grades) for query, grades in qrels.items()}
    reviewed, reasons = {}, {}
    for stage in (FILTERED, DATASET):
        for reject in load_rejects(run / stage) if stage in stages else ():
            where = reviewed if reject.stage == STAGE else reasons
            where[reject.item] = f"{reject.code}: {reject.message}"
    decisions = settled(_earlier(run, by_id))
    # later stages know an edited query by the id of its new text
    edited = {query.id: as_decided(query, decisions[query.id]).id for query in queries
              if query.id in decisions}  # fmt: skip

    def part(query: Query) -> str:
        return split.get(edited.get(query.id, query.id), "")

    def place(query: Query) -> int:
        return ORDER.index(part(query)) if part(query) in ORDER else ORDER.index("")

    chosen = sorted(queries, key=place)[:limit]
    hits = BM25(chunks).search([query.text for query in chosen], DEPTH) if chosen else []
    items = []
    for query, found in zip(chosen, hits, strict=True):
        now = edited.get(query.id, query.id)
        known = judged.get(now) or judged.get(query.id, {})
        relevant = tuple(sorted(known, key=lambda c: (c != query.chunk, c)))
        others = [hit.chunk for hit in found if hit.chunk not in relevant][:CANDIDATES]
        gone = reviewed.get(query.id, "")
        reason = gone or ("" if part(query) else reasons.get(now, ""))
        items.append(
            ReviewItem(query, "" if gone else part(query), reason, relevant, tuple(others))
        )
    decided = {query: decision_row(made) for query, made in decisions.items()}
    page, table = run / "review.html", run / "review.csv"
    write_text(page, review_page(f"Review of {run.name}", items, by_id, decided))
    # spreadsheets need the mark to read UTF-8
    write_bytes(table, review_table(items, by_id).encode("utf-8-sig"))
    return Review(page, table, len(items), len(queries), len(decided))


def take_decisions(run: Path, file: Path) -> tuple[int, list[Reject]]:
    """Add the decisions in ``file`` to those of the run; how many there are now, and unusable rows.

    Raises:
        ConfigError: The folder holds no run, or the file cannot be read.
        IntegrityError: The earlier decisions cannot be read.
    """
    _stages(run)
    chunks = {chunk.id: chunk for chunk in load_chunks(run / CHUNKS)}
    old = _earlier(run, chunks)
    new, rejects = read_decisions(file, chunks)
    return save_decisions(run / DECISIONS, [*old, *new]), rejects


def _stages(run: Path) -> Mapping[str, object]:
    if not run.is_dir() or not (run / "config.yaml").is_file():
        raise ConfigError(f"{run}: no run here; name the folder that `embedtune run` left")
    stages = stage_facts(run)
    if QUERIES not in stages:
        raise NothingUsable(f"{run}: no queries to review; they come with documents, at stage 3")
    return stages


def _earlier(run: Path, chunks: Mapping[str, Chunk]) -> list[Decision]:
    """The decisions kept beside the run."""
    path = run / DECISIONS
    if not path.is_file():
        return []
    made, faults = read_decisions(path, chunks)
    if faults:
        raise IntegrityError(
            f"{path}:{faults[0].line}: {faults[0].field}: {faults[0].message}; mend the line, or "
            "take it out"
        )
    return made
