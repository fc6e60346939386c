"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/*.tsv, read with line numbers.

Layout: Thakur et al. 2021, arXiv:2104.08663. Every file in qrels/ is a split of that name, and
those with a usual name (``validation.tsv``) are train, dev and test, as files of pairs are.
"""

import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from embedtune.datasets.parts import split_called
from embedtune.decode import Undecodable, decode
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import read_json, read_jsonl, visible, write_json, write_jsonl, write_text
from embedtune.language import language_of
from embedtune.records import Chunk, Counts, Query, Reject, RetrievalSet

Record = TypeVar("Record")
STAGE = "data"
EXAMPLES = 3
FACTS = "embedtune.json"  # what the layout has no place for
ALONE = "; `train` learns from passages alone with training.warmup_documents"
LAYOUT = "a BEIR folder has corpus.jsonl, queries.jsonl and qrels/*.tsv, one file a split"


@dataclass(frozen=True, slots=True)
class BeirReading:
    """A BEIR folder as read. ``counts`` are of the rows of all its files."""

    data: RetrievalSet
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]
    counts: Counts


def read_beir(folder: Path, *, passages_alone: bool = False) -> BeirReading:
    """Read a BEIR folder; unusable rows are rejected with file and line.

    Ids are text; a number counts as its text. A passage's document (its group) is its field
    ``group`` or ``metadata.group`` or ``metadata.document``, else its own id; passages of one
    group without ``metadata.start`` stand one after the other. Judgements of score 0 are not
    kept, nor are those of rejected rows, which are rejected too.

    Args:
        passages_alone: A folder of nothing but corpus.jsonl will do, and has no queries.

    Raises:
        ConfigError: A file of the layout is missing, or two are one split.
        NothingUsable: No passages, no queries or no judgements are left.
        IntegrityError: Judged ids that are in neither file.
    """
    files = sorted((folder / "qrels").glob("*.tsv"))
    alone = not files and not (folder / "queries.jsonl").exists()
    enough = alone and passages_alone
    there = {
        "corpus.jsonl": (folder / "corpus.jsonl").is_file(),
        "queries.jsonl": enough or (folder / "queries.jsonl").is_file(),
        "qrels/*.tsv": enough or files,
    }
    if missing := next((name for name, found in there.items() if not found), None):
        hint = ALONE if alone and missing == "queries.jsonl" else ""
        raise ConfigError(f"{folder}: no {missing}; {LAYOUT}{hint}")
    splits = _splits(files)
    rejects: list[Reject] = []
    ends: dict[str, int] = defaultdict(int)  # where the next passage of a group begins

    def chunk(identity: str, text: str, row: Mapping[str, Any]) -> Chunk:
        return _chunk(identity, text, row, ends)

    notes: list[str] = []
    chunks = _rows(folder / "corpus.jsonl", rejects, notes, chunk)
    queries = {} if alone else _rows(folder / "queries.jsonl", rejects, notes, _query)
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    accepted = len(chunks) + len(queries)
    lost = _Lost.of(rejects, folder)
    for split, path in splits.items():
        qrels[split], lines, zeros = _qrels(path, chunks, queries, lost, rejects)
        accepted += lines
        if zeros:
            notes.append(f"{path.name}: {zeros} judgements of score 0 (not relevant) are not kept")
    if not chunks or not (alone or (queries and any(qrels.values()))):
        what = "passages" if not chunks else "queries" if not queries else "judgements"
        raise NothingUsable(
            f"{folder}: no usable {what}" + (f"; first: {_first(rejects)}" if rejects else "")
        )
    copies = sum(not reject.unusable for reject in rejects)
    return BeirReading(
        RetrievalSet(
            folder.resolve().name,
            tuple(chunks.values()),
            tuple(queries.values()),
            qrels,
            given_splits=True,
            shared_passages=_shares_passages(folder),
        ),
        tuple(rejects),
        tuple(notes),
        Counts(accepted + len(rejects), accepted, len(rejects) - copies, copies),
    )


def _splits(files: Sequence[Path]) -> dict[str, Path]:
    """Split -> its judgements."""
    splits: dict[str, Path] = {}
    faults = []
    for path in files:
        first = splits.setdefault(split := split_called(path.stem), path)
        if first != path:
            faults.append(
                f"{path.parent}: {visible(first.name)} and {visible(path.name)} are both {split}; "
                "keep one, or give one a name of its own"
            )
    if faults:
        raise ConfigError(faults)
    return splits


def _shares_passages(folder: Path) -> bool:
    try:
        facts = read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    except ValueError:
        return False
    return isinstance(facts, dict) and facts.get("shared_passages") is True


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
    if data.shared_passages:
        write_json(folder / FACTS, {"shared_passages": True})
    else:
        (folder / FACTS).unlink(missing_ok=True)


def _corpus_row(chunk: Chunk) -> dict[str, Any]:
    known = {"document": chunk.document if chunk.document != chunk.id else "", "start": chunk.start,
             "end": chunk.end, "page": chunk.page, "section": list(chunk.section),
             "language": chunk.language, "kind": chunk.kind, "tokens": chunk.tokens,
             "source": chunk.source}  # fmt: skip
    metadata = {key: value for key, value in known.items() if value not in ("", None, [])}
    return {"_id": chunk.id, "title": chunk.title, "text": chunk.text, "metadata": metadata}


def _rows(
    path: Path,
    rejects: list[Reject],
    notes: list[str],
    made: Callable[[str, str, Mapping[str, Any]], Record],
) -> dict[str, Record]:
    """The usable rows by id."""
    records: dict[str, Record] = {}
    lines: dict[str, int] = {}
    for line, row in read_jsonl(path, rejects, STAGE, notes):
        identity = _text_of(row.get("_id"))
        fault = _fault(row, lines)
        if fault:
            code, field, message = fault
            rejects.append(
                Reject(STAGE, code, message, file=str(path), line=line, field=field,
                       excerpt=visible(row), item=identity)
            )  # fmt: skip
        else:
            lines[identity] = line
            records[identity] = made(identity, row["text"], row)
    return records


def _fault(row: Mapping[str, Any], lines: Mapping[str, int]) -> tuple[str, str, str] | None:
    """(code, field, message) of what is wrong with a row."""
    identity, text, title = row.get("_id"), row.get("text"), row.get("title")
    if identity is None:
        return "id", "_id", 'no "_id"; each line needs "_id" and "text"'
    if not _text_of(identity).strip():
        found = visible(repr(identity), 40)
        return "id", "_id", f'"_id" is {found}; it must be text, not empty, or a whole number'
    if re.search(r"[\t\r\n]", _text_of(identity)):
        return "id", "_id", "a tab or line end in the _id; qrels could not name it"
    if _text_of(identity) in lines:
        found = f"{visible(identity, 40)!r} stands on line {lines[_text_of(identity)]} already"
        return "repeated-id", "_id", f"the _id {found}; the first one counts"
    if not isinstance(text, str):
        found = "missing" if "text" not in row else visible(repr(text), 40)
        return "text", "text", f'"text" is {found}; it must be text'
    if title is not None and not isinstance(title, str):
        return "title", "title", f'"title" is {visible(repr(title), 40)}; it must be text'
    if not any(sign.isprintable() and not sign.isspace() for sign in f"{title or ''}{text}"):
        return "empty", "text", "the text is empty; remove the row or give it text"
    return None


def _query(identity: str, text: str, row: Mapping[str, Any]) -> Query:
    style = _text_of(row.get("kind")) or _text_of(row.get("style"))
    return Query(identity, text, language=language_of(text), style=style, origin="beir")


def _chunk(identity: str, text: str, row: Mapping[str, Any], ends: dict[str, int]) -> Chunk:
    metadata = row.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    groups = (row.get("group"), metadata.get("group"), metadata.get("document"))
    group = next(filter(None, map(_text_of, groups)), identity)
    start, end = metadata.get("start"), metadata.get("end")
    if not (_is_count(start) and _is_count(end) and start <= end):
        start, end = ends[group], ends[group] + len(text)
    ends[group] = max(ends[group], end)
    page = metadata.get("page", row.get("page"))
    section, tokens = metadata.get("section"), metadata.get("tokens")
    return Chunk(
        id=identity,
        document=group,
        start=start,
        end=end,
        title=row.get("title") or "",
        text=text,
        section=tuple(map(str, section)) if isinstance(section, list) else (),
        page=page if _is_count(page) else None,
        language=_text_of(metadata.get("language")) or language_of(text),
        kind=_text_of(metadata.get("kind")) or "text",
        tokens=tokens if _is_count(tokens) else 0,
        source=_text_of(metadata.get("source")),
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text_of(value: object) -> str:
    """An id or label as text: whole numbers as they are written, other things as nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


@dataclass(frozen=True, slots=True)
class _Lost:
    """What judgements may name in vain, because its row was rejected."""

    ids: frozenset[str]
    nameless: Mapping[str, int]  # file name -> rejected rows whose id could not be read

    @classmethod
    def of(cls, rejects: list[Reject], folder: Path) -> "_Lost":
        nameless = {
            name: sum(not r.item and r.file == str(folder / name) for r in rejects)
            for name in ("corpus.jsonl", "queries.jsonl")
        }
        return cls(frozenset(reject.item for reject in rejects), nameless)


def _qrels(
    path: Path,
    chunks: Mapping[str, Chunk],
    queries: Mapping[str, Query],
    lost: _Lost,
    rejects: list[Reject],
) -> tuple[dict[str, dict[str, int]], int, int]:
    """The judgements of a split, the number of lines accepted, and of those with score 0."""

    def reject(line: int, code: str, message: str, cells: list[str], unusable: bool = True) -> None:
        excerpt = visible("\t".join(cells))
        rejects.append(Reject(STAGE, code, message, file=str(path), line=line, excerpt=excerpt,
                              unusable=unusable))  # fmt: skip

    try:
        text = decode(path.read_bytes()).text
    except Undecodable as error:
        reject(1, "encoding", str(error), [])
        return {}, 0, 0
    judged: dict[str, dict[str, int]] = {}
    lines: dict[tuple[str, str], int] = {}  # of judgements, once one is repeated
    zeros = accepted = 0
    unknown: dict[str, dict[str, list[tuple[int, list[str]]]]] = {
        "queries.jsonl": defaultdict(list),
        "corpus.jsonl": defaultdict(list),
    }
    for line, cells in _qrels_lines(text):
        if len(cells) != 3 or not _is_grade(cells[2]):
            expected = "expected query-id, corpus-id and a whole-number score, separated by tabs"
            reject(line, "qrels", expected, cells)
            continue
        query, chunk, grade = queries.get(cells[0]), chunks.get(cells[1]), int(float(cells[2]))
        if query is None:
            unknown["queries.jsonl"][cells[0]].append((line, cells))
        elif chunk is None:
            unknown["corpus.jsonl"][cells[1]].append((line, cells))
        elif chunk.id in judged.setdefault(query.id, {}):
            lines = lines or _first_lines(text)
            first, where = judged[query.id][chunk.id], lines[query.id, chunk.id]
            message = f"judged {first} on line {where} already; the first one counts"
            reject(line, "repeated-judgement", message, cells, unusable=grade != first)
        else:
            judged[query.id][chunk.id] = grade
            accepted += 1
            zeros += grade <= 0
    _refuse_strangers(path, unknown, {"queries.jsonl": queries, "corpus.jsonl": chunks}, lost)
    for name, found in unknown.items():
        for identity, places in found.items():
            for line, cells in places:
                reject(line, "lost", f"{visible(identity)} was rejected in {name}", cells)
    if zeros:
        judged = {
            query: {chunk: grade for chunk, grade in grades.items() if grade > 0}
            for query, grades in judged.items()
        }
    return {query: grades for query, grades in judged.items() if grades}, accepted, zeros


def _qrels_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) without blank lines and the header; TREC's four columns as three."""
    for line, row in enumerate(io.StringIO(text, newline=None), 1):
        cells = row.rstrip("\n").split("\t")
        if not row.strip() or (line == 1 and len(cells) == 3 and not _is_grade(cells[2])):
            continue
        if len(cells) == 4 and _is_grade(cells[3]):
            cells = [cells[0], *cells[2:]]  # TREC: query, iteration, passage, grade
        yield line, cells


def _first_lines(text: str) -> dict[tuple[str, str], int]:
    lines: dict[tuple[str, str], int] = {}
    for line, cells in _qrels_lines(text):
        if len(cells) == 3:
            lines.setdefault((cells[0], cells[1]), line)
    return lines


def _refuse_strangers(
    path: Path,
    unknown: Mapping[str, Mapping[str, object]],
    known: Mapping[str, Mapping[str, object]],
    lost: _Lost,
) -> None:
    """Ids that no row has make every figure wrong, unless rejected rows explain them."""
    faults = []
    for name, found in unknown.items():
        strangers = [identity for identity in found if identity not in lost.ids]
        if len(strangers) > lost.nameless[name]:
            examples = ", ".join(map(visible, strangers[:EXAMPLES]))
            there = ", ".join(map(visible, list(known[name])[:EXAMPLES])) or "none"
            faults.append(
                f"{path}: {len(strangers)} judged ids are not in {name}, e.g. {examples}; "
                f"ids there: {there}; they must be the same text in both"
            )
    if faults:
        raise IntegrityError("; ".join(faults))


def _is_grade(cell: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return math.isfinite(value) and value == int(value)


def _first(rejects: list[Reject]) -> str:
    first = rejects[0]
    return f"{first.file}:{first.line}: {first.message}"
