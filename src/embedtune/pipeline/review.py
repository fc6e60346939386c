"""From a run to its review page and back: decisions are kept beside the run and honoured by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import read_jsonl, write_bytes, write_text
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
from embedtune.queries.review import read_decisions, save_decisions
from embedtune.records import Query, Reject
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

    Queries of test come first, then dev, those that a filter left out, and train; ``limit`` of
    them are shown.

    Raises:
        ConfigError: The folder holds no run.
        NothingUsable: The run has no queries yet, or began with given data.
    """
    from embedtune.retrieve.bm25 import BM25

    stages = _stages(run)
    chunks = load_chunks(run / CHUNKS)
    queries = load_queries(run / QUERIES)
    judged: dict[str, dict[str, int]] = judge(queries, chunks, [])
    split: dict[str, str] = {}
    if DATASET in stages:
        for name, qrels in load_dataset(run / DATASET).data.qrels.items():
            split |= dict.fromkeys(qrels, name)
            judged |= {query: dict(grades) for query, grades in qrels.items()}
    reasons = {}
    if FILTERED in stages:
        reasons = {
            reject.item: f"{reject.code}: {reject.message}"
            for reject in load_rejects(run / FILTERED)
        }

    def place(query: Query) -> int:
        return ORDER.index(split.get(query.id, "")) if split.get(query.id, "") in ORDER else 2

    chosen = sorted(queries, key=place)[:limit]
    hits = BM25(chunks).search([query.text for query in chosen], DEPTH) if chosen else []
    items = []
    for query, found in zip(chosen, hits, strict=True):
        relevant = tuple(sorted(judged.get(query.id, {}), key=lambda c: (c != query.chunk, c)))
        others = [hit.chunk for hit in found if hit.chunk not in relevant][:CANDIDATES]
        items.append(
            ReviewItem(query, split.get(query.id, ""), reasons.get(query.id, ""), relevant,
                       tuple(others))
        )  # fmt: skip
    by_id = {chunk.id: chunk for chunk in chunks}
    decided = _decided(run)
    page, table = run / "review.html", run / "review.csv"
    write_text(page, review_page(f"Review of {run.name}", items, by_id, decided))
    # spreadsheets need the mark to read UTF-8
    write_bytes(table, review_table(items, by_id).encode("utf-8-sig"))
    return Review(page, table, len(items), len(queries), len(decided))


def take_decisions(run: Path, file: Path) -> tuple[int, list[Reject]]:
    """Add the decisions in ``file`` to those of the run; how many there are now, and unusable rows.

    Raises:
        ConfigError: The folder holds no run, or the file cannot be read.
    """
    _stages(run)
    chunks = {chunk.id: chunk for chunk in load_chunks(run / CHUNKS)}
    earlier = run / DECISIONS
    old = read_decisions(earlier, chunks)[0] if earlier.is_file() else []
    new, rejects = read_decisions(file, chunks)
    return save_decisions(earlier, [*old, *new]), rejects


def _stages(run: Path) -> Mapping[str, object]:
    if not run.is_dir() or not (run / "config.yaml").is_file():
        raise ConfigError(f"{run}: no run here; name the folder that `embedtune run` left")
    stages = stage_facts(run)
    if QUERIES not in stages:
        raise NothingUsable(f"{run}: no queries to review; they come with documents, at stage 3")
    return stages


def _decided(run: Path) -> dict[str, dict[str, object]]:
    path = run / DECISIONS
    rejects: list[Reject] = []
    return {row["query"]: row for _, row in read_jsonl(path, rejects, "review")} if (
        path.is_file()
    ) else {}  # fmt: skip
