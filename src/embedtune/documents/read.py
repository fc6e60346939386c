"""Folders and files to documents. Every file is read by a child process under limits."""

import fnmatch
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from embedtune.documents.clean import has_content
from embedtune.documents.worker import TYPES
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

STAGE = "read"
LONGEST_NAME = 4096
logger = logging.getLogger(__name__)


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
    ocr: Literal["auto"] = Field(
        "auto",
        description="Pages without text are named and left out; scans are not recognised yet.",
    )
    broken_bytes: Literal["replace", "reject"] = Field(
        "replace",
        description="What to do with a text file that has a few broken bytes: replace and count "
        "them, or reject the file.",
    )
    password_env: str | None = Field(
        None, description="Environment variable that holds the password of encrypted PDFs."
    )
    max_seconds: PositiveInt = Field(60, description="Seconds that one file may take.")
    max_megabytes: PositiveInt = Field(
        1024, ge=256, description="Memory in MB (MiB) that reading one file may take."
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found. ``counts`` are of documents: a file, or a row of a table file, is one.

    ``rejects`` also names what is missing of a document that was kept (pages without text); those
    carry the document's id as ``item`` and are not in ``counts``. ``duplicates`` are exact copies.
    """

    documents: tuple[Document, ...]
    rejects: tuple[Reject, ...]
    duplicates: tuple[Reject, ...]
    notes: tuple[str, ...]
    counts: Counts


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    source: str  # the name shown to people, and matched by globs
    kind: str
    listed: tuple[int, int]  # size, time of change


@dataclass(slots=True)
class _Listing:
    files: list[_Found] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    repeated_links: int = 0

    def reject(self, source: str, code: str, message: str) -> None:
        self.rejects.append(Reject(STAGE, code, message, file=source))


def read_documents(
    paths: Sequence[Path],
    settings: DocumentSettings,
    progress: Progress = no_progress,
    *,
    password: str | None = None,
) -> Reading:
    """Read files, and all files of known types in folders, in the order of their names.

    A document's source is its path below the folder given. Rows of CSV and JSON Lines files with
    a text column are documents of their own (source ``name:line``). Text is cleaned (control
    characters, radicals), copies are dropped, texts without letters rejected.

    Args:
        password: For encrypted PDFs; the caller reads it from ``settings.password_env``.

    Raises:
        ConfigError: A path does not exist.
        NothingUsable: No file of a known type was found. (Where files were found and none could
            be used, the result has no documents; its rejects say why.)
    """
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing:
        raise ConfigError(
            [f"documents.paths: {visible(path)}: no such file or folder" for path in missing]
        )
    listing = _list(paths, settings)
    if not listing.files and not listing.rejects:
        seen = ", ".join(f"{name} ({count})" for name, count in listing.unknown.most_common(12))
        raise NothingUsable(
            f"0 usable files in {', '.join(visible(path) for path in paths) or 'no paths'}; "
            f"extensions seen: {seen or 'none'}; known are {' '.join(sorted(TYPES))}"
        )
    account = _Account(list(listing.rejects))
    with _Worker(settings) as worker:
        for number, found in enumerate(listing.files):
            progress(number, len(listing.files))
            account.add(found, worker.read(found, password))
    progress(len(listing.files), len(listing.files))
    return account.reading(_listing_notes(listing))


class _Account:
    """Documents, rejects and duplicates as they come in."""

    def __init__(self, rejects: list[Reject]) -> None:
        self.documents: dict[str, Document] = {}
        self.rejects = rejects
        self.rejected = len(rejects)
        self.duplicates: list[Reject] = []
        self.notes: list[tuple[str, str]] = []  # place, message

    def reject(self, found: _Found, code: str, message: str, line: int | None = None) -> None:
        self.rejected += 1
        self.rejects.append(Reject(STAGE, code, message, file=found.source, line=line))

    def add(self, found: _Found, answer: dict[str, Any]) -> None:
        if "code" in answer:
            self.reject(found, answer["code"], visible(answer["message"], 400), answer.get("line"))
            return
        for row in answer["rejects"]:
            self.rejected += 1
            self.rejects.append(replace(reject_from_row(row), file=found.source))
        for part in answer["parts"]:
            self._add_part(found, part, answer)

    def _add_part(self, found: _Found, part: dict[str, Any], answer: dict[str, Any]) -> None:
        source = found.source if part["line"] is None else f"{found.source}:{part['line']}"
        for line, message in part["notes"]:
            self.notes.append((f"{found.source}{f':{line}' if line else ''}", message))
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
            title=title or visible(found.path.stem, LONGEST_NAME),
            text=text,
            kind=part["kind"],
            language=language_of(text),
            pages=tuple((start, page) for start, page in part["pages"]),
            meta={**part["meta"], "sha256": answer["sha256"], "bytes": str(answer["bytes"])},
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


# ---- listing


def _list(paths: Sequence[Path], settings: DocumentSettings) -> _Listing:
    listing = _Listing()
    seen: set[Path] = set()  # resolved
    for path in paths:
        if path.is_dir():
            _walk(path, path.resolve(), path, listing, settings, seen)
        else:
            _take(path, path.name, listing, settings, seen, asked=True)
    names = Counter(found.source for found in listing.files)
    listing.files = [
        found
        if names[found.source] == 1
        else replace(found, source=visible(found.path, LONGEST_NAME))
        for found in listing.files
    ]
    return listing


def _walk(
    folder: Path,
    root: Path,
    given: Path,
    listing: _Listing,
    settings: DocumentSettings,
    seen: set[Path],
) -> None:
    """Files below ``folder``, by name; ``root`` is the resolved folder that was given."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real in seen:
            listing.repeated_links += 1
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            listing.reject(_shown(folder, given), "unreadable", f"folder: {error.strerror}")
            continue
        folders = []
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                listing.hidden += 1
            elif entry.is_symlink() and not _inside(path, root):
                why = "a link that leads outside the folder, or nowhere; give its target itself"
                listing.reject(_shown(path, given), "outside-link", why)
            elif entry.is_dir():
                folders.append(path)
            else:
                _take(path, _shown(path, given), listing, settings, seen, asked=False)
        waiting += reversed(folders)


def _inside(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # broken, or a loop
        return False


def _shown(path: Path, given: Path) -> str:
    return visible(path.relative_to(given).as_posix(), LONGEST_NAME)


def _take(
    path: Path,
    source: str,
    listing: _Listing,
    settings: DocumentSettings,
    seen: set[Path],
    *,
    asked: bool,
) -> None:
    """Put a file on the list, or say why not. ``asked``: it was named, not found in a folder."""
    source = visible(source, LONGEST_NAME)
    if not asked and not _wanted(source, settings):
        return
    try:
        status = path.stat()
    except OSError as error:
        listing.reject(source, "unreadable", error.strerror or str(error))
        return
    kind = TYPES.get(path.suffix.lower())
    if not stat.S_ISREG(status.st_mode):
        listing.reject(source, "special-file", "a pipe, socket or device, not a file")
    elif kind is None and asked:
        why = f"unknown extension {visible(path.suffix)!r}; known are {' '.join(sorted(TYPES))}"
        listing.reject(source, "unknown-type", why)
    elif kind is None:
        listing.unknown[visible(path.suffix.lower(), 20) or "(none)"] += 1
    elif path.resolve() in seen:
        listing.repeated_links += 1
    else:
        seen.add(path.resolve())
        listing.files.append(_Found(path, source, kind, (status.st_size, status.st_mtime_ns)))


def _wanted(source: str, settings: DocumentSettings) -> bool:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatch(source, pattern) for pattern in patterns)

    return (not settings.include or matches(settings.include)) and not matches(settings.exclude)


def _listing_notes(listing: _Listing) -> list[str]:
    notes = []
    if listing.unknown:
        seen = ", ".join(f"{name} ({count})" for name, count in listing.unknown.most_common())
        notes.append(f"{listing.unknown.total()} files of unknown type not read: {seen}")
    if listing.hidden:
        notes.append(f"{listing.hidden} hidden files and folders not read")
    if listing.repeated_links:
        notes.append(f"{listing.repeated_links} links to files and folders already listed")
    return notes


# ---- the child process


class _Worker:
    """Keeps one child alive over many files; ends it when it exceeds its limits."""

    def __init__(self, settings: DocumentSettings) -> None:
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, found: _Found, password: str | None) -> dict[str, Any]:
        """The child's answer, or a code and message when it had to be stopped."""
        task = {
            "path": str(found.path),
            "kind": found.kind,
            "listed": list(found.listed),
            "password": password,
            "most_bytes": self.settings.max_megabytes << 20,
            "seconds": self.settings.max_seconds,
            **self.settings.model_dump(include={"tables", "broken_bytes"}),
        }
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the reader was started without pipes")
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.settings.max_seconds, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(task).encode("ascii") + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            return json.loads(line)
        self._end()
        if late.is_set():
            seconds = self.settings.max_seconds
            why = f"took more than {seconds} s and was stopped (documents.max_seconds)"
        else:
            why = (
                "its parser broke down, most likely over the memory limit of "
                f"{self.settings.max_megabytes} MB (documents.max_megabytes)"
            )
        return {"code": "limits", "message": why}

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            package_root = str(Path(__file__).parents[2])
            path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                # -P: a file of the user's folder must not stand in for a library
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "embedtune.documents.worker",
                    str(self.settings.max_megabytes),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        process.wait()
