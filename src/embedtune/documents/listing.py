"""The files that are to be read: folders walked, links followed once, other things named."""

import fnmatch
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedtune.files import visible
from embedtune.records import Reject

STAGE = "read"
LONGEST_NAME = 4096
ARCHIVE = "zip"


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a member of an archive."""

    path: Path
    source: str  # the name shown to people, and matched by globs
    kind: str
    listed: tuple[int, int]  # size, time of change
    entry: int | None = None  # the member's place in the archive

    @property
    def stem(self) -> str:
        return (
            visible(self.path.stem, LONGEST_NAME) if self.entry is None else Path(self.source).stem
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which files are documents: by pattern, and by extension -> kind."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    types: Mapping[str, str]
    advice: Mapping[str, str] = field(default_factory=dict)  # extension -> what it would need

    def wanted(self, source: str, kind: str | None) -> bool:
        """Archives are opened for what may be included of them."""
        included = not self.include or kind == ARCHIVE or _matches(source, self.include)
        return included and not _matches(source, self.exclude)

    def kind(self, name: str) -> str | None:
        return self.types.get(Path(name).suffix.lower())

    @property
    def known(self) -> str:
        return " ".join(sorted(self.types))


@dataclass(slots=True)
class Listing:
    files: list[Found] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    repeated_links: int = 0
    told: list[tuple[str, str]] = field(default_factory=list)  # place, message

    def reject(self, source: str, code: str, message: str) -> None:
        self.rejects.append(Reject(STAGE, code, message, file=source))

    def skip_unknown(self, name: str) -> None:
        self.unknown[visible(Path(name).suffix.lower(), 20) or "(none)"] += 1

    def notes(self) -> list[str]:
        notes = []
        if self.unknown:
            seen = ", ".join(f"{name} ({count})" for name, count in self.unknown.most_common())
            notes.append(f"{self.unknown.total()} files of unknown type not read: {seen}")
        if self.hidden:
            notes.append(f"{self.hidden} hidden files and folders not read")
        if self.repeated_links:
            notes.append(f"{self.repeated_links} links to files and folders already listed")
        return notes


def list_files(paths: Sequence[Path], choice: Choice) -> Listing:
    """The files named and those in the folders named, in the order of their names."""
    listing = Listing()
    seen: set[Path] = set()  # resolved
    for path in paths:
        if path.is_dir():
            _walk(path, path.resolve(), path, listing, choice, seen)
        else:
            _take(path, path.name, listing, choice, seen, asked=True)
    names = Counter(found.source for found in listing.files)
    listing.files = [
        found
        if names[found.source] == 1
        else replace(found, source=visible(found.path, LONGEST_NAME))
        for found in listing.files
    ]
    return listing


def _walk(
    folder: Path, root: Path, given: Path, listing: Listing, choice: Choice, seen: set[Path]
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
                _take(path, _shown(path, given), listing, choice, seen, asked=False)
        waiting += reversed(folders)


def _inside(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # broken, or a loop
        return False


def _shown(path: Path, given: Path) -> str:
    return visible(path.relative_to(given).as_posix(), LONGEST_NAME)


def _take(
    path: Path, source: str, listing: Listing, choice: Choice, seen: set[Path], *, asked: bool
) -> None:
    """Put a file on the list, or say why not. ``asked``: it was named, not found in a folder."""
    source = visible(source, LONGEST_NAME)
    kind = choice.kind(path.name)
    if not asked and not choice.wanted(source, kind):
        return
    try:
        status = path.stat()
    except OSError as error:
        listing.reject(source, "unreadable", error.strerror or str(error))
        return
    if not stat.S_ISREG(status.st_mode):
        listing.reject(source, "special-file", "a pipe, socket or device, not a file")
    elif kind is None and asked:
        suffix = path.suffix.lower()
        why = choice.advice.get(suffix) or (
            f"unknown extension {visible(path.suffix)!r}; known are {choice.known}"
        )
        listing.reject(source, "unknown-type", why)
    elif kind is None:
        listing.skip_unknown(path.name)
    elif path.resolve() in seen:
        listing.repeated_links += 1
    else:
        seen.add(path.resolve())
        listing.files.append(Found(path, source, kind, (status.st_size, status.st_mtime_ns)))


def _matches(source: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(source, pattern) for pattern in patterns)
