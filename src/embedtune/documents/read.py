"""Folders and files to documents. Every file is read by a child process under limits."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from embedtune.documents.child import Child, Row, Stopped
from embedtune.documents.clean import has_content
from embedtune.documents.listing import (
    ARCHIVE,
    LONGEST_NAME,
    STAGE,
    Choice,
    Found,
    Listing,
    list_files,
)
from embedtune.documents.ocr import Engine, find_engine
from embedtune.documents.reading import Task
from embedtune.documents.worker import IMAGES, TYPES
from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import visible
from embedtune.language import language_of
from embedtune.records import (
    Counts,
    Document,
    Progress,
    Reject,
    content_id,
    no_progress,
    reject_from_row,
)
from embedtune.settings import PositiveInt, Settings

OCR_MEGABYTES = 4096  # of addresses; a page takes about half of it
FAILURES = 3  # pages in a row that exceed the limits; the rest of the file is left then


class DocumentSettings(Settings):
    """What is read, and within which limits."""

    paths: tuple[Path, ...] = Field((), description="Files and folders with the documents.")
    include: tuple[str, ...] = Field(
        (),
        description="Only files whose path matches one of these patterns (*.md); all if empty.",
    )
    exclude: tuple[str, ...] = Field((), description="No files whose path matches one of these.")
    tables: bool = Field(
        True,
        description="Keep tables of HTML and DOCX as Markdown tables; false: as lines of text.",
    )
    boilerplate: Literal["auto", "keep"] = Field(
        "auto",
        description="Menus, footers and the like of web pages: auto leaves them out, keep keeps "
        "all that is visible.",
    )
    columns: dict[Literal["text", "title", "id"], str | tuple[str, ...]] = Field(
        default_factory=dict,
        description="Columns of CSV and JSON rows: {text: body, title: subject, id: nr}, text may "
        "be several; by default those with usual names. Other columns are left out then.",
    )
    ocr: Literal["auto", "off", "rapidocr", "tesseract"] = Field(
        "auto",
        description="What recognises scanned pages and pictures; auto: rapidocr (extra `ocr`) "
        "where installed, else tesseract; off: they are named and left out.",
    )
    broken_bytes: Literal["replace", "reject"] = Field(
        "replace",
        description="What to do with a text file that has a few broken bytes: replace and count "
        "them, or reject the file.",
    )
    password_env: str | None = Field(
        None, description="Environment variable that holds the password of encrypted PDFs."
    )
    max_seconds: PositiveInt = Field(
        60, description="Seconds that one file, or one scanned page, may take."
    )
    max_megabytes: PositiveInt = Field(
        1024, ge=256, description="Memory in MB (MiB) that reading one file may take."
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found. ``counts`` are of documents: a file, a member of an archive, or a row of a
    table file, is one.

    ``rejects`` also names what is missing of a document that was kept (pages without text); those
    carry the document's id as ``item`` and are not in ``counts``. ``duplicates`` are exact copies.
    """

    documents: tuple[Document, ...]
    rejects: tuple[Reject, ...]
    duplicates: tuple[Reject, ...]
    notes: tuple[str, ...]
    counts: Counts


def read_documents(
    paths: Sequence[Path],
    settings: DocumentSettings,
    progress: Progress = no_progress,
    *,
    password: str | None = None,
    pages: Progress = no_progress,
) -> Reading:
    """Read files, and all files of known types in folders, in the order of their names.

    A document's source is its path below the folder given; a member of an archive stands below the
    archive (``a.zip/b.pdf``). Rows of CSV and JSON Lines files with a text column are documents of
    their own (source ``name:line``). Text is cleaned (control characters, radicals), copies are
    dropped, texts without letters rejected. Pictures are read where there is OCR.

    Args:
        password: For encrypted PDFs; the caller reads it from ``settings.password_env``.
        pages: Told of the scanned pages of each file.

    Raises:
        ConfigError: A path does not exist, or the OCR asked for is not installed.
        NothingUsable: No file of a known type was found. (Where files were found and none could
            be used, the result has no documents; its rejects say why.)
    """
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing:
        raise ConfigError(
            [f"documents.paths: {visible(path)}: no such file or folder" for path in missing]
        )
    engine = find_engine(settings.ocr)
    choice = Choice(
        settings.include,
        settings.exclude,
        types=TYPES | IMAGES if engine.name else TYPES,
        advice={} if engine.name else dict.fromkeys(IMAGES, f"a picture; {engine.advice}"),
    )
    listing = list_files(paths, choice)
    with _Readers(settings, engine, password, pages) as readers:
        files = _with_members(listing, choice, readers)
        if not files and not listing.rejects:
            seen = ", ".join(f"{name} ({count})" for name, count in listing.unknown.most_common(12))
            raise NothingUsable(
                f"0 usable files in {', '.join(visible(path) for path in paths) or 'no paths'}; "
                f"extensions seen: {seen or 'none'}; known are {choice.known}"
            )
        account = _Account(listing)
        for number, found in enumerate(files):
            progress(number, len(files))
            account.add(found, readers.read(found))
    account.refuse_absent_columns()
    progress(len(files), len(files))
    return account.reading(listing.notes())


def _with_members(listing: Listing, choice: Choice, readers: "_Readers") -> list[Found]:
    """The files, with the members of archives in place of the archives."""
    files: list[Found] = []
    for found in listing.files:
        if found.kind != ARCHIVE:
            files.append(found)
            continue
        answer = readers.read(found)
        if "code" in answer:
            listing.reject(found.source, answer["code"], visible(answer["message"], 400))
            continue
        listing.hidden += answer["hidden"]
        listing.told += [(found.source, note) for note in answer["notes"]]
        for place, name, code, message in sorted(answer["members"], key=lambda row: row[1]):
            source = visible(f"{found.source}/{name}", LONGEST_NAME)
            kind = choice.kind(name)
            if not choice.wanted(source, kind):
                continue
            if kind is None:
                listing.skip_unknown(name)
            elif code:
                listing.reject(source, code, visible(message, 400))
            else:
                files.append(replace(found, source=source, kind=kind, entry=place))
    return files


class _Account:
    """Documents, rejects and duplicates as they come in."""

    def __init__(self, listing: Listing) -> None:
        self.documents: dict[str, Document] = {}
        self.rejects = list(listing.rejects)
        self.rejected = len(listing.rejects)
        self.duplicates: list[Reject] = []
        self.notes = list(listing.told)  # place, message
        self.rows = 0  # parts of files of rows, copies and empty ones included
        self.without_columns: dict[str, str] = {}  # file -> which columns it lacks

    def reject(
        self,
        found: Found,
        code: str,
        message: str,
        line: int | None = None,
        *,
        unusable: bool = True,
    ) -> None:
        self.rejected += 1
        self.rejects.append(
            Reject(STAGE, code, message, file=found.source, line=line, unusable=unusable)
        )

    def add(self, found: Found, answer: Row) -> None:
        if "code" in answer:
            self.reject(
                found,
                answer["code"],
                visible(answer["message"], 400),
                answer.get("line"),
                unusable=answer.get("unusable", True),
            )
            return
        for row in answer["rejects"]:
            self.rejected += 1
            self.rejects.append(replace(reject_from_row(row), file=found.source))
        for part in answer["parts"]:
            self._add_part(found, part, answer)

    def _add_part(self, found: Found, part: dict[str, Any], answer: Row) -> None:
        source = found.source if part["line"] is None else f"{found.source}:{part['line']}"
        for line, message in part["notes"]:
            self.notes.append((f"{found.source}{f':{line}' if line else ''}", message))
        self.rows += part["line"] is not None
        if lacking := part["meta"].pop("without_columns", ""):
            self.without_columns[found.source] = lacking
        text, title = part["text"], part["title"]
        if not has_content(text):
            self.reject(found, "no-content", "no content: there is no letter in it", part["line"])
            return
        identity = content_id("d", title, text)
        if earlier := self.documents.get(identity):
            self.duplicates.append(Reject(STAGE, "duplicate", f"the same text as {earlier.source}",
                                          file=found.source, line=part["line"], item=identity,
                                          unusable=False))  # fmt: skip
            return
        for code, message in part["rejects"]:
            self.rejects.append(Reject(STAGE, code, message, file=found.source, item=identity))
        self.documents[identity] = Document(
            id=identity,
            source=source,
            title=title or found.stem,
            text=text,
            kind=part["kind"],
            language=language_of(text),
            pages=tuple((start, page) for start, page in part["pages"]),
            meta={**part["meta"], "sha256": answer["sha256"], "bytes": str(answer["bytes"])},
        )

    def refuse_absent_columns(self) -> None:
        """Columns that no file has are a fault of the settings, not of the files."""
        lacking = {
            reject.file: reject.message for reject in self.rejects if reject.code == "columns"
        }
        if not self.rows and (lacking := lacking | self.without_columns):
            raise ConfigError(
                [f"documents.columns: {file}: {message}" for file, message in lacking.items()]
            )

    def reading(self, notes: list[str]) -> Reading:
        documents = tuple(self.documents.values())
        total = len(documents) + self.rejected + len(self.duplicates)
        return Reading(
            documents,
            tuple(self.rejects),
            tuple(self.duplicates),
            (*notes, *_gathered(self.notes)),
            Counts(total, len(documents), self.rejected, len(self.duplicates)),
        )


def _gathered(notes: Sequence[tuple[str, str]]) -> list[str]:
    """One line for what is said of several files: the first named, the others counted."""
    places: dict[str, list[str]] = {}
    for place, message in notes:
        places.setdefault(message, []).append(place)
    return [
        f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {message}"
        for message, found in places.items()
    ]


# ---- the child processes


class _Readers:
    """One child that reads files, and one that recognises pages, each started when needed."""

    def __init__(
        self, settings: DocumentSettings, engine: Engine, password: str | None, pages: Progress
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.password = password
        self.progress = pages
        own = settings.max_megabytes
        seconds = settings.max_seconds
        self._files = Child("embedtune.documents.worker", megabytes=own, seconds=seconds)
        self._pages = Child(
            "embedtune.documents.ocr", megabytes=max(own, OCR_MEGABYTES), seconds=seconds
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.end()
        self._pages.end()

    def read(self, found: Found) -> Row:
        """The child's answer, or a code and message when it had to be stopped."""
        task = Task(
            str(found.path),
            found.kind,
            found.listed,
            entry=found.entry,
            password=self.password,
            most_bytes=self.settings.max_megabytes << 20,
            seconds=self.settings.max_seconds,
            ocr=self.engine.name,
            no_ocr=self.engine.advice,
            **self.settings.model_dump(
                include={"tables", "boilerplate", "broken_bytes", "columns"}
            ),
        )
        try:
            return self._files.ask(asdict(task), partial(self._recognise, task))
        except Stopped as stopped:
            return {"code": "limits", "message": self._why(stopped, self._files)}

    def _recognise(self, task: Task, question: Row) -> Row:
        """The pages asked for, by number. One that exceeds the limits does not cost the others."""
        found: dict[str, Row] = {}
        failures = 0
        numbers = question["recognise"]
        for count, page in enumerate(numbers):
            self.progress(count, len(numbers))
            if failures == FAILURES:
                found[str(page)] = {"message": f"left out after {FAILURES} such pages in a row"}
                continue
            try:
                found[str(page)] = self._pages.ask(asdict(replace(task, page=page)))
                failures = 0
            except Stopped as stopped:
                found[str(page)] = {"message": self._why(stopped, self._pages)}
                failures += 1
        self.progress(len(numbers), len(numbers))
        return found

    def _why(self, stopped: Stopped, child: Child) -> str:
        if stopped.late:
            return f"took more than {child.seconds} s and was stopped (documents.max_seconds)"
        return (
            f"its parser broke down, most likely over the memory limit of {child.megabytes} MB "
            "(documents.max_megabytes)"
        )
