"""Real queries brought by the user, with or without a hint where their answer stands."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from embedtune.errors import ConfigError
from embedtune.files import Undecodable, decode, number_in, read_jsonl, read_table, visible
from embedtune.language import language_of
from embedtune.llm import ChatAnswer, ChatRequest
from embedtune.llm.recorded import RecordedChat
from embedtune.queries.asking import QuerySettings
from embedtune.queries.checks import (
    STAGE,
    clean_query,
    locate,
    query_id,
    settle_repeats,
    text_fault,
)
from embedtune.queries.generate import Generation
from embedtune.queries.parse import read_json_answer
from embedtune.queries.prompts import JUDGEMENT_SCHEMA, judgement_prompt
from embedtune.queries.terms import inverse_frequencies, terms_of
from embedtune.quotes import find_quote
from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Progress,
    Query,
    Reject,
    Span,
    content_id,
    no_progress,
)
from embedtune.retrieve import Retriever

POOL = 10  # passages shown to the model for one query
FIELDS = {  # each with the names it goes by
    "text": ("query", "text", "question", "查询", "问题"),
    "quote": ("quote", "evidence", "answer", "positive", "原文"),
    "document": ("document", "file", "source", "文档", "文件"),
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A query as brought: where it stood, and what it was labelled with."""

    line: int
    text: str
    label: str = ""  # a quote or a file name, as the text format leaves open
    quote: str = ""
    document: str = ""


def read_real_queries(
    path: Path,
    chunks: Sequence[Chunk],
    documents: Iterable[Document],
    chat: RecordedChat | None,
    retriever: Retriever | None,
    settings: QuerySettings,
    progress: Progress = no_progress,
) -> Generation:
    """The user's queries with evidence: their own label, or the model's judgement.

    A text file holds a query a line, optionally followed by a tab and a quote from the documents
    or a file name; JSONL and CSV have the fields ``query`` (or ``text``) and optionally ``quote``
    and ``document``. A quote is looked up in the documents. A query with a file name, or with
    nothing, is judged by the model over the passages the retriever ranks highest; without a model
    a file name stands for that file's passage sharing the rarest words with the query (flag
    ``document-label``), and a query with nothing is rejected.

    ``settings.source`` is not looked at. Origin is ``user``.

    Raises:
        ConfigError: The file cannot be read.
        ServiceError: See `generate_queries`.
    """
    rejects: list[Reject] = []
    library = _Library(chunks, documents)
    lines = _place(path, library, rejects)
    spans = dict(lines.spans)
    notes: list[str] = []
    if chat is not None and retriever is not None:
        judged = _judge(lines.open, library, chat, retriever, progress)
        for (line, _), outcome in zip(lines.open, judged, strict=True):
            if isinstance(outcome, Span):
                spans[line.line] = outcome, ("judged",)
            else:
                rejects.append(_reject(path, line, *outcome))
        notes = [*chat.notes, f"judgements: {chat.usage.line()}"]
    else:
        for line, document in lines.open:
            span = library.closest(line.text, document) if document else None
            if span is not None:
                spans[line.line] = span, ("document-label",)
            else:
                message = (
                    "nothing says where its answer stands; put a tab and a quote or a file name "
                    "after the query, or configure llm so that a model finds it"
                )
                rejects.append(_reject(path, line, "unlabelled", message))
    queries = [
        _query(line, *spans[line.line], library) for line in lines.usable if line.line in spans
    ]
    kept, duplicates = settle_repeats(queries, rejects)
    counts = Counts(
        len(kept) + len(rejects) + len(duplicates), len(kept), len(rejects), len(duplicates)
    )
    usage = chat.usage if chat is not None else None
    return Generation(tuple(kept), (*rejects, *duplicates), counts, usage, tuple(notes))


def count_to_judge(path: Path, chunks: Sequence[Chunk], documents: Iterable[Document]) -> int:
    """How many queries of the file have no label that says where their answer stands.

    Raises:
        ConfigError: The file cannot be read.
    """
    return len(_place(path, _Library(chunks, documents), []).open)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines that are queries, and what their labels say about them."""

    usable: tuple[_Line, ...]
    spans: dict[int, tuple[Span, tuple[str, ...]]]  # line number -> evidence and flags
    open: tuple[tuple[_Line, str], ...]  # to be judged; the document to look in, "" for any


def _place(path: Path, library: "_Library", rejects: list[Reject]) -> _Lines:
    usable: list[_Line] = []
    spans: dict[int, tuple[Span, tuple[str, ...]]] = {}
    undecided: list[tuple[_Line, str]] = []
    for line in _read(path, rejects):
        if fault := text_fault(line.text, ""):
            rejects.append(_reject(path, line, *fault))
            continue
        usable.append(line)
        document, quote = library.resolve(line)
        if quote:
            span = library.quoted(quote, document)
            if span is None:
                where = f"the document {visible(line.document)}" if document else "any document"
                message = (
                    f"its label {visible(quote)} is neither a file name nor a quote found in "
                    f"{where}; copy the sentence as it stands there"
                )
                rejects.append(_reject(path, line, "quote-not-found", message))
            else:
                spans[line.line] = span, ()
        elif line.document and not document:
            message = f"no document is called {visible(line.document)}"
            rejects.append(_reject(path, line, "document-not-found", message))
        else:
            undecided.append((line, document))
    return _Lines(tuple(usable), spans, tuple(undecided))


def _reject(path: Path, line: _Line, code: str, message: str) -> Reject:
    return Reject(STAGE, code, message, file=str(path), line=line.line, excerpt=visible(line.text))


def _query(line: _Line, span: Span, flags: tuple[str, ...], library: "_Library") -> Query:
    return Query(
        id=query_id(line.text, span),
        text=line.text,
        language=language_of(line.text),
        style="real",
        origin="user",
        document=span.document,
        chunk=library.chunk_of(span),
        evidence=span,
        flags=flags,
    )


# ---- the file


def _read(path: Path, rejects: list[Reject]) -> list[_Line]:
    try:
        suffix = path.suffix.lower()
        if suffix in (".jsonl", ".json", ".csv", ".tsv"):
            reader = read_jsonl if suffix.startswith(".json") else read_table
            return [
                line
                for number, row in reader(path, rejects, STAGE)
                if (line := _line_of_row(path, number, row, rejects)) is not None
            ]
        text = decode(path.read_bytes()).text
    except Undecodable as error:
        raise ConfigError(f"queries.file: {path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"queries.file: {path} cannot be read ({error.strerror})") from error
    lines = []
    for number, content in enumerate(text.split("\n"), 1):
        query, _, label = content.partition("\t")
        if content.strip():
            lines.append(_Line(number, clean_query(query), label=label.strip()))
    return lines


def _line_of_row(
    path: Path, number: int, row: dict[str, object] | dict[str, str], rejects: list[Reject]
) -> _Line | None:
    values = {}
    for kind, names in FIELDS.items():
        name = next((name for name in names if row.get(name) not in (None, "")), names[0])
        value = row.get(name, "")
        if value is None:
            value = ""
        if not isinstance(value, str) or (kind == "text" and not value.strip()):
            found = f"found {type(value).__name__}" if not isinstance(value, str) else (
                f"found {', '.join(visible(key, 20) for key in row) or 'nothing'}")  # fmt: skip
            rejects.append(Reject(STAGE, "field", f'expected text in "{name}", {found}',
                                  file=str(path), line=number, field=name))  # fmt: skip
            return None
        values[kind] = value.strip()
    return _Line(
        number, clean_query(values["text"]), quote=values["quote"], document=values["document"]
    )


# ---- the documents


class _Library:
    """Documents by the names users call them, and their chunks."""

    def __init__(self, chunks: Sequence[Chunk], documents: Iterable[Document]) -> None:
        self.documents = {document.id: document for document in documents}
        self.chunks = {chunk.id: chunk for chunk in chunks}
        self._by_document: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            self._by_document.setdefault(chunk.document, []).append(chunk)
        self._idf: dict[str, float] | None = None
        self._names: dict[str, str] = {}
        for document in self.documents.values():
            source = document.source.replace("\\", "/")
            for name in (document.id, source, PurePath(source).name, PurePath(source).stem):
                self._names.setdefault(name.casefold(), document.id)

    def resolve(self, line: _Line) -> tuple[str, str]:
        """(document id, quote) that the line is labelled with; either may be empty."""
        if line.label:
            named = self._names.get(line.label.replace("\\", "/").casefold(), "")
            return named, "" if named else line.label
        return self._names.get(line.document.replace("\\", "/").casefold(), ""), line.quote

    def quoted(self, quote: str, document: str = "") -> Span | None:
        """The first place of ``quote``, in the order of the documents."""
        for found in [self.documents[document]] if document else self.documents.values():
            place = find_quote(quote, found.text)
            if place is not None:
                return Span(found.id, *place)
        return None

    def closest(self, text: str, document: str) -> Span | None:
        """The chunk of ``document`` that shares the rarest words with ``text``."""
        if self._idf is None:
            self._idf = inverse_frequencies(chunk.text for chunk in self.chunks.values())
        terms = set(terms_of(text))
        idf, best, best_score = self._idf, None, -math.inf
        for chunk in self._by_document.get(document, ()):
            score = sum(idf.get(term, 0.0) for term in sorted(terms & set(terms_of(chunk.text))))
            if score > best_score:
                best, best_score = chunk.span, score
        return best

    def of_document(self, document: str) -> list[Chunk]:
        return self._by_document.get(document, [])

    def chunk_of(self, span: Span) -> str:
        """The chunk that holds most of ``span``."""
        held = self._by_document.get(span.document, ())
        best = max(held, key=lambda chunk: chunk.span.overlap(span), default=None)
        return best.id if best is not None else ""


# ---- the model's judgement


def _judge(
    lines: Sequence[tuple[_Line, str]],
    library: _Library,
    chat: RecordedChat,
    retriever: Retriever,
    progress: Progress,
) -> list[Span | tuple[str, str]]:
    """For each line the best evidence among the retriever's top passages, or why there is none."""
    pools = []
    # enough depth to find passages of the one document a line names
    depth = max([POOL, *(len(library.chunks) for _, document in lines if document)])
    for (_, document), hits in zip(
        lines,
        retriever.search([line.text for line, _ in lines], depth) if lines else [],
        strict=True,
    ):
        found = [library.chunks[hit.chunk] for hit in hits if hit.chunk in library.chunks]
        if document:
            found = [chunk for chunk in found if chunk.document == document]
            found += [chunk for chunk in library.of_document(document) if chunk not in found]
        pools.append(found[:POOL])
    requests = []
    for (line, _), pool in zip(lines, pools, strict=True):
        language = language_of(line.text)
        system, user = judgement_prompt(
            line.text,
            [chunk.embedded for chunk in pool],
            language=language,
            digest=content_id("", line.text, *(chunk.id for chunk in pool)),
        )
        requests.append(
            ChatRequest(
                system,
                user,
                schema=JUDGEMENT_SCHEMA,
                temperature=0.0,
                max_tokens=chat.settings.max_tokens,
                facts={"query": line.text, "passages": [chunk.text for chunk in pool]},
            )
        )
    outcomes: list[Span | tuple[str, str]] = []
    for reply, pool in zip(chat.ask_all(requests, _check, progress), pools, strict=True):
        if reply.answer is None or reply.code:
            outcomes.append((reply.code, reply.message))
            continue
        span = None
        for passage, evidence in _judgements(reply.answer.text)[0]:
            if 1 <= passage <= len(pool):
                chunk = pool[passage - 1]
                span = locate(evidence, chunk, library.documents.get(chunk.document))
                if span is not None:
                    break
        advice = "label it, or check that the documents hold the answer"
        missing = f"none of the {len(pool)} best passages answers it; {advice}"
        outcomes.append(span or ("no-answer", missing))
    return outcomes


def _check(request: ChatRequest, answer: ChatAnswer) -> str:
    return _judgements(answer.text)[1]


def _judgements(text: str) -> tuple[list[tuple[int, str]], str]:
    """((passage number, evidence) pairs, why the answer is unusable or "")."""
    found = read_json_answer(text)
    if found.code:
        return [], f"{found.code}: {found.message}"
    value = found.values[0]
    entries = value.get("answers") if isinstance(value, dict) else value
    if not isinstance(entries, list) or len(found.values) > 1:
        return [], "schema: expected an object with a list of answers"
    pairs = []
    for entry in entries:
        number = number_in(entry.get("passage")) if isinstance(entry, dict) else None
        if number is not None and isinstance(entry.get("evidence"), str):
            pairs.append((int(number), entry["evidence"]))
    return pairs, ""
