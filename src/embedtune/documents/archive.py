"""ZIP archives of documents: each member is read as if it were a file in a folder.

Nothing is unpacked to disk. Members are listed and judged by what the archive says of them before
anything is expanded, and each is then expanded alone, in memory, under the limits of the reader.
"""

import functools
import re
import stat
import zipfile
import zlib
from typing import Any, BinaryIO

from embedtune.decode import Undecodable, decode
from embedtune.documents.office.package import MOST_ENTRIES, MOST_RATIO
from embedtune.documents.opening import check_size, check_unchanged, opened
from embedtune.documents.reading import Broken, Task

MOST_BYTES = 20_000_000_000  # expanded, of all members
FREE_BYTES = 10_000_000  # a member of this size may be packed as well as it will
_COMMON_GB = re.compile("[\xb0-\xd7][\xa1-\xfe]")  # the 3,755 most usual characters of GB 2312


def list_archive(task: Task) -> dict[str, Any]:
    """``members`` as (place, name, code and message of what is wrong with it, or empty), how many
    are ``hidden``, ``notes``.

    Raises:
        Broken: Not a ZIP archive, empty, or one that must not be expanded.
    """
    _, entries = _archive(task)
    if len(entries) > MOST_ENTRIES:
        raise Broken(
            "archive-bomb",
            f"{len(entries):,} files in the archive, allowed are {MOST_ENTRIES:,}; unpack it and "
            "name the folder",
        )
    if not entries:
        raise Broken("empty-archive", "there is no file in the archive")
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > MOST_BYTES or packed > task.listed[0]:
        raise Broken(
            "archive-bomb",
            f"{task.listed[0]:,} bytes that expand to {total:,}; allowed are {MOST_BYTES:,}, and "
            "no byte may be used twice; unpack it and name the folder",
        )
    names, encoding = _names(entries)
    last = {name: place for place, name in enumerate(names)}
    members = [
        (place, name, *_fault(entry, name, again=last[name] != place))
        for place, (entry, name) in enumerate(zip(entries, names, strict=True))
        if not _hidden(name)
    ]
    return {
        "members": members,
        "hidden": len(entries) - len(members),
        "notes": [f"names of members read as {encoding}"] if encoding not in ("", "utf-8") else [],
    }


def _hidden(name: str) -> bool:
    """As in a folder; and what macOS packs beside the files."""
    return name.startswith("__MACOSX/") or any(
        part.startswith(".") and part.strip(".") for part in name.split("/")
    )


def _fault(entry: zipfile.ZipInfo, name: str, *, again: bool) -> tuple[str, str]:
    """Why a member is not read: code and message, empty if it is."""
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return "archive-path", "its name leads outside of the archive; pack it again"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "outside-link", "a link in the archive; pack its target instead"
    if entry.flag_bits & 1:
        return "encrypted", "protected by a password; unpack the archive yourself"
    if name.lower().endswith(".zip"):
        return "nested-archive", "an archive in an archive; unpack the outer one"
    if entry.file_size > FREE_BYTES and entry.file_size > MOST_RATIO * entry.compress_size:
        return "archive-bomb", (
            f"{entry.compress_size:,} bytes that expand to {entry.file_size:,}; allowed is "
            f"{MOST_RATIO} times the size"
        )
    if again:
        return "repeated-name", "the archive holds this name again; only the last one is read"
    return "", ""


def member_bytes(task: Task) -> bytes:
    """A member of the archive, expanded.

    Raises:
        Broken: Too large, damaged, changed since it was listed, or packed in a way that is not
            known.
    """
    archive, entries = _archive(task)
    entry = entries[task.entry or 0]
    check_size(entry.file_size, task)
    try:
        with archive.open(entry) as member:
            return member.read(entry.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError,
            NotImplementedError) as error:  # fmt: skip
        raise Broken(
            "broken-archive", f"cannot be expanded ({error}); pack it again, or unpack it yourself"
        ) from error


def _archive(task: Task) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """The archive and its files, without folders."""
    archive, entries, file = _opened(task.path, task.listed)
    check_unchanged(file, task.listed)
    return archive, entries


@functools.lru_cache(maxsize=1)  # its members are asked for one after the other
def _opened(
    path: str, listed: tuple[int, int]
) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo], BinaryIO]:
    file = opened(path, listed)
    if not listed[0]:
        raise Broken("empty-file", "empty file")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        file.close()
        raise Broken("not-zip", f"not a ZIP archive, or a damaged one ({error})") from error
    return archive, [entry for entry in archive.infolist() if not entry.is_dir()], file


# ---- names


def _names(entries: list[zipfile.ZipInfo]) -> tuple[list[str], str]:
    """Names with ``/``, and the encoding found for those that are not marked as UTF-8."""
    raw = [entry.orig_filename for entry in entries]
    foreign = [
        name
        for entry, name in zip(entries, raw, strict=True)
        if not entry.flag_bits & 0x800 and not name.isascii()
    ]
    encoding = _encoding(b"\n".join(name.encode("cp437") for name in foreign)) if foreign else ""
    if encoding:
        known = set(foreign)
        raw = [
            name.encode("cp437").decode(encoding, "replace") if name in known else name
            for name in raw
        ]
    return [name.split("\x00")[0].replace("\\", "/") for name in raw], encoding


def _encoding(names: bytes) -> str:
    """Windows writes names in the encoding of its country and does not say which.

    Empty where it cannot be told; then they are as the standard says (code page 437).
    """
    try:
        found = decode(names, replace_broken=False).encoding
    except Undecodable:
        # too few letters to tell; usual Chinese characters are seldom chance
        rest = _COMMON_GB.sub("", names.decode("latin-1"))
        found = "gb18030" if rest.isascii() else ""
    if found == "cp1252" and not all(c.isalpha() or c.isascii() for c in names.decode(found)):
        return ""
    return found
