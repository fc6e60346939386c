"""What each data stage does with files: read records, call its function, leave the outcome.

The same steps serve ``embedtune run`` and the commands that do one stage alone.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.tokens import Tokens
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import write_json, write_jsonl
from embedtune.llm.recorded import RecordedChat
from embedtune.pipeline.console import Console, counts_line, reject_lines
from embedtune.pipeline.stored import (
    Dataset,
    load_chunks,
    load_documents,
    load_queries,
    save_dataset,
    save_rejects,
)
from embedtune.pipeline.tune import unreadable
from embedtune.queries import Generation, Preview, QuerySettings
from embedtune.queries.review import Reviewed
from embedtune.records import Chunk, Counts, Document, Qrels, Query, Reject, RetrievalSet, as_row
from embedtune.retrieve import Retriever


@dataclass(frozen=True, slots=True)
class Step:
    """The account of one stage, for its manifest."""

    name: str
    counts: Counts
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        return {"counts": {self.name: asdict(self.counts)}, "notes": list(self.notes)}


def read_step(
    paths: Sequence[Path],
    folder: Path,
    chat: RecordedChat | None,
    settings: RunSettings,
    console: Console,
) -> Step:
    """Files to ``documents.jsonl``, without what the cleaning rules leave out."""
    from embedtune.documents import read_documents
    from embedtune.documents.cleaning import clean_documents

    own = settings.documents
    password = os.environ.get(own.password_env) if own.password_env else None
    reading = read_documents(
        paths, own, console.progress("files"), password=password,
        pages=console.progress("scanned pages"),
    )  # fmt: skip
    made = clean_documents(
        reading.documents, settings.cleaning, chat, console.progress("documents looked through")
    )
    write_jsonl(folder / "documents.jsonl", map(as_row, made.documents))
    if made.repeated:
        write_json(folder / "cleaning.json", [asdict(rule) for rule in made.repeated])
    lost, copies = made.counts.rejected, made.counts.duplicates
    counts = Counts(
        reading.counts.total,
        made.counts.accepted,
        reading.counts.rejected + lost,
        reading.counts.duplicates + copies,
    )
    rejects = (*reading.rejects, *reading.duplicates, *made.rejects)
    step = _leave(Step("read", counts, rejects, (*reading.notes, *made.notes)), folder, console)
    if not made.documents:
        raise NothingUsable("no document could be read; see the messages above")
    return step


def chunk_step(
    documents: Path, folder: Path, tokens: Tokens, settings: RunSettings, console: Console
) -> Step:
    """``documents.jsonl`` to ``chunks.jsonl``."""
    from embedtune.documents import chunk_documents

    made = chunk_documents(
        load_documents(documents), tokens, settings.chunks, console.progress("documents cut")
    )
    write_jsonl(folder / "chunks.jsonl", map(as_row, made.chunks))
    step = _leave(Step("chunk", made.counts, made.rejects, ()), folder, console)
    if not made.chunks:
        raise NothingUsable("no chunk could be made of the documents; see the messages above")
    return step


def query_step(
    documents: Path,
    chunks: Path,
    folder: Path,
    chat: RecordedChat | None,
    settings: RunSettings,
    console: Console,
) -> Step:
    """``chunks.jsonl`` to ``queries.jsonl``: brought by the user, generated or extracted."""
    from embedtune.queries import extract_queries, generate_queries

    own = settings.queries
    pieces, sources = load_chunks(chunks), load_documents(documents)
    made = []
    real: tuple[Query, ...] = ()
    if own.file is not None:
        brought = _real_queries(own, pieces, sources, chat, console)
        made.append(brought)
        real = brought.queries
    if own.source == "llm" and chat is not None:
        console.say(f"queries from {chat.name}")
        report = console.progress("chunks asked about")
        made.append(generate_queries(pieces, sources, chat, own, report, real=real))
    elif own.source == "extractive":
        made.append(extract_queries(pieces, sources, own))
    found = {query.id: query for part in made for query in part.queries}
    write_jsonl(folder / "queries.jsonl", map(as_row, found.values()))
    rejects = tuple(reject for part in made for reject in part.rejects)
    notes = tuple(note for part in made for note in part.notes)
    step = _leave(
        Step("generate", _added([part.counts for part in made]), rejects, notes), folder, console
    )
    if not found:
        raise NothingUsable("no query is left to work with; see the messages above")
    return step


def filter_step(
    documents: Path,
    chunks: Path,
    queries: Path,
    folder: Path,
    tokens: Tokens,
    open_base: Callable[[], Embedder],
    chat: RecordedChat | None,
    decisions: Path,
    settings: RunSettings,
    console: Console,
) -> Step:
    """``queries.jsonl`` as reviewed, without what would teach or test the wrong thing."""
    from embedtune.queries.filter import filter_queries
    from embedtune.queries.gap import query_gap
    from embedtune.retrieve.bm25 import BM25
    from embedtune.retrieve.dense import DenseRetriever
    from embedtune.retrieve.fusion import FusedRetriever
    from embedtune.similar import near_duplicates

    own = settings.filters
    pieces, asked = load_chunks(chunks), load_queries(queries)
    reviewed = _reviewed(asked, decisions, pieces)
    readable = not unreadable(pieces, tokens, tokens.name)
    base = open_base() if readable and (own.duplicates is not None or own.round_trip) else None
    retriever: Retriever = BM25(pieces)
    if base is not None and (own.round_trip or own.judge):
        retriever = FusedRetriever([retriever, DenseRetriever(base, pieces)])
    made = filter_queries(
        reviewed.queries,
        pieces,
        load_documents(documents),
        own,
        alike=near_duplicates([chunk.embedded for chunk in pieces]),
        embedder=base,
        tokens=tokens,
        retriever=retriever,
        chat=chat if own.judge else None,
        progress=console.progress("queries judged"),
    )
    write_jsonl(folder / "queries.jsonl", map(as_row, made.queries))
    real = [query for query in made.queries if query.origin == "user"]
    written = [query for query in made.queries if query.origin != "user"]
    gap = query_gap(written, real, {chunk.id: chunk for chunk in pieces})
    notes = (*made.notes, *(gap.lines() if gap else ()))
    if reviewed.applied or reviewed.unknown:
        notes = (f"{reviewed.applied} decisions of the review applied", *notes)
    if reviewed.unknown:
        notes = (*notes, f"{reviewed.unknown} decisions are about queries that are not there now")
    copies = sum(reject.code == "duplicate" for reject in reviewed.rejects)
    counts = replace(
        made.counts,
        total=len(asked),
        rejected=made.counts.rejected + len(reviewed.rejects) - copies,
        duplicates=made.counts.duplicates + copies,
    )
    rejects = (*reviewed.rejects, *made.rejects)
    step = _leave(Step("filter", counts, rejects, notes), folder, console)
    if gap is not None:
        write_json(folder / "gap.json", gap.as_json())
    if not made.queries:
        raise NothingUsable("no query is left after the filters; see the messages above")
    return step


def _real_queries(
    own: QuerySettings,
    chunks: Sequence[Chunk],
    documents: Sequence[Document],
    chat: RecordedChat | None,
    console: Console,
) -> Generation:
    """The user's queries, those that generation shows as examples marked."""
    from embedtune.queries import mark_examples, read_real_queries
    from embedtune.retrieve.bm25 import BM25

    pool = BM25(chunks) if chat else None  # proposes the passages that the model judges
    report = console.progress("real queries")
    found = read_real_queries(own.file, chunks, documents, chat, pool, own, report)
    return replace(found, queries=mark_examples(found.queries)) if own.source == "llm" else found


def preview_step(
    documents: Path,
    chunks: Path,
    chat: RecordedChat,
    count: int,
    settings: RunSettings,
    console: Console,
) -> Preview:
    """The queries of a few chunks, before all are paid for; nothing is written but the answers."""
    from embedtune.queries import preview_queries

    own = settings.queries
    pieces, sources = load_chunks(chunks), load_documents(documents)
    real = _real_queries(own, pieces, sources, chat, console).queries if own.file else ()
    report = console.progress("chunks asked about")
    return preview_queries(pieces, sources, chat, own, count, report, real=real)


def _reviewed(queries: Sequence[Query], decisions: Path, chunks: Sequence[Chunk]) -> Reviewed:
    from embedtune.queries.review import apply_decisions, read_decisions

    if not decisions.is_file():
        return apply_decisions(queries, ())
    made, faults = read_decisions(decisions, {chunk.id: chunk for chunk in chunks})
    if faults:
        first = faults[0]
        raise IntegrityError(f"{first.file}:{first.line}: {first.field}: {first.message}")
    return apply_decisions(queries, made)


def split_step(
    name: str, chunks: Path, queries: Path, folder: Path, settings: RunSettings, console: Console
) -> Step:
    """Chunks and queries to a BEIR folder with judgements and leak-free splits."""
    from embedtune.datasets.split import split_queries
    from embedtune.relevance import judge
    from embedtune.similar import near_duplicates

    pieces, asked = load_chunks(chunks), load_queries(queries)
    pairs = near_duplicates([chunk.embedded for chunk in pieces])
    split = split_queries(pieces, asked, judge(asked, pieces, pairs), pairs, settings.split)
    kept = {query for part in split.qrels.values() for query in part}
    save_dataset(
        folder,
        Dataset(
            data=RetrievalSet(name, pieces, tuple(q for q in asked if q.id in kept), split.qrels),
            twins=tuple((pieces[one].id, pieces[other].id) for one, other in pairs),
            groups=dict(split.group_of_chunk),
            by=split.by,
            optimistic=split.optimistic,
            notes=tuple(split.notes),
        ),
    )
    _write_answers(folder, pieces, asked, split.qrels)
    return _leave(Step("split", split.counts, tuple(split.dropped), split.notes), folder, console)


def _write_answers(
    folder: Path, chunks: Sequence[Chunk], queries: Sequence[Query], qrels: Mapping[str, Qrels]
) -> None:
    """``answers.jsonl``: questions with their answers in words, where answers were asked for."""
    by_id = {chunk.id: chunk for chunk in chunks}
    split_of = {query: name for name, part in qrels.items() for query in part}
    rows = [
        {
            "question": query.text,
            "answer": query.answer,
            "passage": by_id[query.chunk].text if query.chunk in by_id else "",
            "source": by_id[query.chunk].source if query.chunk in by_id else "",
            "split": split_of[query.id],
        }
        for query in queries
        if query.answer and query.id in split_of
    ]
    if rows:
        write_jsonl(folder / "answers.jsonl", rows)


def given_step(given: Dataset, folder: Path, console: Console) -> Step:
    """A BEIR folder of the user's, with its leaks found."""
    save_dataset(folder, given)
    counts = given.counts or Counts(0, 0)
    return _leave(Step("split", counts, given.rejects, given.notes), folder, console)


def _leave(step: Step, folder: Path, console: Console) -> Step:
    """Write the rejects beside the outcome, and tell the account."""
    save_rejects(folder, step.rejects)
    console.say(f"  {step.name}: {counts_line(step.counts)}")
    for line in reject_lines([reject for reject in step.rejects if reject.unusable]):
        console.say(f"  {line}")
    for note in step.notes[:20]:
        console.say(f"  {note}")
    return step


def _added(counts: Sequence[Counts]) -> Counts:
    names = ("total", "accepted", "rejected", "duplicates")
    return Counts(*(sum(getattr(part, name) for part in counts) for name in names))
