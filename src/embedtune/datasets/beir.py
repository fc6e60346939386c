"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/*.tsv, read with line numbers.

Layout: Thakur et al. 2021, arXiv:2104.08663. Every file in qrels/ is a split of that name.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.decode import Undecodable, decode
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import read_jsonl, visible, write_jsonl, write_text
from embedtune.language import language_of
from embedtune.records import Chunk, Counts, Query, Reject, RetrievalSet

STAGE = "data"
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class BeirReading:
    """A BEIR folder as read. ``counts`` are of rows of corpus and queries."""

    data: RetrievalSet
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]
    counts: Counts


def read_beir(folder: Path) -> BeirReading:
    """Read a BEIR folder; unusable rows are rejected with file and line.

    A passage's document (its group) is its field ``group`` or ``metadata.group`` or
    ``metadata.document``, else its own id.

    Raises:
        ConfigError: A file of the layout is missing.
        NothingUsable: No passages, no queries or no judgements are left.
        IntegrityError: Judged ids that are in neither file.
    """
    for name in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder}: no {name}; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/*.tsv"
            )
    files = sorted((folder / "qrels").glob("*.tsv")) if (folder / "qrels").is_dir() else []
    if not files:
        raise ConfigError(f"{folder}: no qrels/*.tsv; a BEIR folder has one file a split there")
    rejects: list[Reject] = []
    total = 0
    chunks: dict[str, Chunk] = {}
    for line, row in read_jsonl(folder / "corpus.jsonl", rejects, STAGE):
        total += 1
        found = _texts(row, folder / "corpus.jsonl", line, rejects, chunks)
        if found:
            chunks[found[0]] = _chunk(*found, row)
    queries: dict[str, Query] = {}
    for line, row in read_jsonl(folder / "queries.jsonl", rejects, STAGE):
        total += 1
        found = _texts(row, folder / "queries.jsonl", line, rejects, queries)
        if found:
            queries[found[0]] = Query(
                found[0], found[1], language=language_of(found[1]), origin="beir",
                style=_text_of(row.get("kind")) or _text_of(row.get("style")),
            )  # fmt: skip
    broken = sum(reject.code in ("json", "repeated-key", "encoding") for reject in rejects)
    counts = Counts(total + broken, len(chunks) + len(queries), len(rejects))
    lost = {reject.item for reject in rejects if reject.item}
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    notes: list[str] = []
    for path in files:
        qrels[path.stem] = _qrels(path, chunks, queries, lost, rejects)
    if not chunks or not queries or not any(qrels.values()):
        what = "passages" if not chunks else "queries" if not queries else "judgements"
        raise NothingUsable(
            f"{folder}: no usable {what}" + (f"; first: {_first(rejects)}" if rejects else "")
        )
    data = RetrievalSet(
        folder.resolve().name, tuple(chunks.values()), tuple(queries.values()), qrels, True
    )
    return BeirReading(data, tuple(rejects), tuple(notes), counts)


def write_beir(data: RetrievalSet, folder: Path) -> None:
    """Write ``data`` in BEIR layout; each file appears whole or not at all."""
    write_jsonl(folder / "corpus.jsonl", map(_corpus_row, data.chunks))
    write_jsonl(
        folder / "queries.jsonl",
        (
            {"_id": q.id, "text": q.text, **({"style": q.style} if q.style else {})}
            for q in data.queries
        ),
    )
    for split, qrels in data.qrels.items():
        lines = ["query-id\tcorpus-id\tscore"]
        lines += [
            f"{query}\t{chunk}\t{grade}"
            for query, grades in qrels.items()
            for chunk, grade in grades.items()
        ]
        write_text(folder / "qrels" / f"{split}.tsv", "\n".join(lines) + "\n")


def _corpus_row(chunk: Chunk) -> dict[str, Any]:
    known = {"document": chunk.document if chunk.document != chunk.id else "", "start": chunk.start,
             "end": chunk.end, "page": chunk.page, "section": list(chunk.section),
             "language": chunk.language, "kind": chunk.kind, "tokens": chunk.tokens,
             "source": chunk.source}  # fmt: skip
    metadata = {key: value for key, value in known.items() if value not in ("", None, [])}
    return {"_id": chunk.id, "title": chunk.title, "text": chunk.text, "metadata": metadata}


def _chunk(chunk_id: str, text: str, row: Mapping[str, Any]) -> Chunk:
    metadata = row.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    group = next(
        (_text_of(value) for value in (row.get("group"), metadata.get("group"), metadata.get("document"))
         if _text_of(value)),
        chunk_id,
    )  # fmt: skip
    start = metadata.get("start") if isinstance(metadata.get("start"), int) else 0
    end = metadata.get("end") if isinstance(metadata.get("end"), int) else start + len(text)
    page = metadata.get("page", row.get("page"))
    section = metadata.get("section")
    return Chunk(
        id=chunk_id,
        document=group,
        start=start,
        end=end,
        title=_text_of(row.get("title")),
        text=text,
        section=tuple(map(str, section)) if isinstance(section, list) else (),
        page=page if isinstance(page, int) else None,
        language=_text_of(metadata.get("language")) or language_of(text),
        kind=_text_of(metadata.get("kind")) or "text",
        tokens=metadata.get("tokens") if isinstance(metadata.get("tokens"), int) else 0,
        source=_text_of(metadata.get("source")),
    )


def _text_of(value: object) -> str:
    """An id or label as text: numbers as they are written, other things as nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def _texts(
    row: Mapping[str, Any],
    path: Path,
    line: int,
    rejects: list[Reject],
    known: Mapping[str, object],
) -> tuple[str, str] | None:
    """(id, text) of a row, or None with the row rejected."""

    def reject(code: str, field: str, message: str) -> None:
        rejects.append(
            Reject(STAGE, code, message, file=str(path), line=line, field=field,
                   excerpt=visible(row), item=identity)
        )  # fmt: skip

    identity = _text_of(row.get("_id"))
    if not identity.strip():
        reject("id", "_id", 'no "_id"; each line needs "_id" and "text", both text')
        return None
    if identity in known:
        reject("repeated-id", "_id", "this _id stands on an earlier line")
        return None
    if any(character in identity for character in "\t\n\r"):
        reject("id", "_id", "a tab or line end in the _id; qrels could not name it")
        return None
    text = row.get("text")
    if not isinstance(text, str):
        reject(
            "text",
            "text",
            f'"text" is {"missing" if text is None else type(text).__name__}; it must be text',
        )
        return None
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        reject("title", "title", f'"title" is {type(title).__name__}; it must be text')
        return None
    if not f"{title or ''}{text}".strip():
        reject("empty", "text", "the text is empty")
        return None
    return identity, text


def _qrels(
    path: Path,
    chunks: Mapping[str, Chunk],
    queries: Mapping[str, Query],
    lost: set[str],
    rejects: list[Reject],
) -> dict[str, dict[str, int]]:
    try:
        text = decode(path.read_bytes()).text
    except Undecodable as error:
        rejects.append(Reject(STAGE, "encoding", str(error), file=str(path), line=1))
        return {}
    qrels: dict[str, dict[str, int]] = {}
    strangers: dict[str, list[str]] = {"query": [], "passage": []}
    rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    for line, cells in enumerate(rows, 1):
        if not any(cells) or (line == 1 and not _is_grade(cells[-1])):
            continue  # blank, or the header
        if len(cells) == 4 and _is_grade(cells[3]):
            cells = [cells[0], cells[2], cells[3]]  # TREC: query, iteration, passage, grade
        if len(cells) != 3 or not _is_grade(cells[2]):
            rejects.append(
                Reject(STAGE, "qrels", "expected query-id, corpus-id and a whole-number score, "
                       "separated by tabs", file=str(path), line=line, excerpt=visible("\t".join(cells)))
            )  # fmt: skip
            continue
        query, chunk, grade = cells[0], cells[1], int(float(cells[2]))
        if query not in queries:
            if query not in lost:
                strangers["query"].append(query)
            continue
        if chunk not in chunks:
            if chunk not in lost:
                strangers["passage"].append(chunk)
            continue
        if grade > 0:
            qrels.setdefault(query, {})[chunk] = grade
    faults = [
        f"{path}: {len(ids)} judged {kind} ids are not in {file}, e.g. {', '.join(map(visible, ids[:EXAMPLES]))}"
        f"; ids there look like {', '.join(visible(known) for known in list(there)[:EXAMPLES])}"
        for kind, ids, file, there in (
            ("query", strangers["query"], "queries.jsonl", queries),
            ("passage", strangers["passage"], "corpus.jsonl", chunks),
        )
        if ids
    ]
    if faults:
        raise IntegrityError("; ".join(faults))
    return qrels


def _is_grade(cell: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return math.isfinite(value) and value == int(value)


def _first(rejects: list[Reject]) -> str:
    first = rejects[0]
    return f"{first.file}:{first.line}: {first.message}"
