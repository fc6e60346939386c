"""Reading with line numbers, writing whole or not at all.

Every write goes to a scratch file beside the target, is flushed to disk and renamed, so that
a file under its final name is always complete. Every reader names file and line.
"""

import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedtune.decode import Undecodable, decode
from embedtune.errors import ResourceError
from embedtune.records import Reject

logger = logging.getLogger(__name__)

EXCERPT = 80


def visible(text: object, limit: int = EXCERPT) -> str:
    """``text`` fit for a terminal or a message: one line, at most ``limit`` characters.

    Control characters, bidirectional overrides, zero-width characters and lone surrogates are
    shown as escapes.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


# ---- writing


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, and the like, into a ``ResourceError`` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE):
            raise ResourceError(
                f"{path}: cannot write: {error.strerror}; free some space and run the same "
                "command again"
            ) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all (scratch file, fsync, rename)."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, UTF-8, non-ASCII as it is."""
    write_text(
        path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    )


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- reading


def read_text(path: Path) -> str:
    return decode(path.read_bytes()).text


class _RepeatedKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _RepeatedKey(repeated)
    return row


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number JSON knows")


def parse_json(text: str) -> Any:  # whatever the text holds
    """Strict JSON: repeated keys, NaN and Infinity are errors (ValueError)."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def read_json(path: Path) -> Any:  # whatever the file holds
    return parse_json(read_text(path))


def read_jsonl(
    path: Path, rejects: list[Reject], stage: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each usable line; the others are added to ``rejects``.

    A JSON array of objects is accepted too (its items are numbered instead of lines). Strings
    may hold lone surrogates; they are replaced by U+FFFD.
    """
    text = _decoded(path, rejects, stage)
    if text is not None:
        yield from json_rows(text, rejects, stage, file=str(path))


def _decoded(path: Path, rejects: list[Reject], stage: str) -> str | None:
    """The text of a file; None with a reject where its encoding cannot be told."""
    try:
        found = decode(path.read_bytes())
    except Undecodable as error:
        rejects.append(Reject(stage, "encoding", str(error), file=str(path), line=1))
        return None
    if found.replaced:
        logger.warning("%s: %d broken bytes replaced, the first on line %s",
                       visible(path), found.replaced, found.first_bad_line)  # fmt: skip
    return found.text


def json_rows(
    text: str, rejects: list[Reject], stage: str, *, file: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As ``read_jsonl``, from text that is already decoded."""

    def reject(line: int, code: str, message: str, excerpt: str = "", field: str = "") -> None:
        rejects.append(
            Reject(
                stage,
                code,
                message,
                file=file,
                line=line,
                field=field,
                excerpt=visible(excerpt),
            )
        )

    if text.lstrip().startswith("["):
        try:
            items = parse_json(text)
        except ValueError as error:
            reject(1, "json", f"a JSON array that cannot be read: {error}")
            return
        numbered: Iterable[tuple[int, Any]] = enumerate(items, 1)
        for number, item in numbered:
            if isinstance(item, dict):
                yield number, _clean(item)
            else:
                reject(
                    number, "json", f"expected an object, found {type(item).__name__}", str(item)
                )
        return
    lines = text.split("\n")  # not splitlines: U+2028 and the like are text
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except _RepeatedKey as error:
            key = str(error)
            reject(number, "repeated-key", f'the key "{visible(key)}" stands twice', line, key)
        except json.JSONDecodeError as error:
            last = number == len(lines)
            cut = "; the file ends inside a record" if last else ""
            reject(number, "json", f"not JSON: {error.msg} at column {error.colno}{cut}", line)
        except (ValueError, RecursionError) as error:
            reject(number, "json", f"not JSON: {error}", line)
        else:
            if isinstance(row, dict):
                yield number, _clean(row)
            else:
                reject(number, "json", f"expected an object, found {type(row).__name__}", line)


def _clean(value: Any) -> Any:  # recursive over JSON values
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def clean_text(text: str) -> str:
    """Without NUL and lone surrogates, which break tokenizers and JSON writers."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def read_table(
    path: Path, rejects: list[Reject], stage: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of a CSV or TSV file; cells stay exactly the text they are.

    The separator is guessed from the header among comma, semicolon, tab and bar. A row with
    another number of cells than the header is rejected, so that columns never shift.
    """
    text = _decoded(path, rejects, stage)
    if text is not None:
        tabs = "\t" if path.suffix.lower() == ".tsv" else None
        yield from table_rows(text, rejects, stage, file=str(path), separator=tabs)


def table_rows(
    text: str, rejects: list[Reject], stage: str, *, file: str, separator: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """As ``read_table``, from text that is already decoded."""
    header_line = text.lstrip("\n").split("\n", 1)[0]
    separator = separator or max(",;\t|", key=header_line.count)
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            rejects.append(Reject(stage, "csv", f"not CSV: {error} (separator {separator!r})",
                                  file=file, line=begin))  # fmt: skip
            return
        if cells is None:
            return
        line = begin
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) != len(header) or "" in header:
                why = "the header repeats a column or leaves one unnamed"
                rejects.append(
                    Reject(stage, "header", why, file=file, line=line, excerpt=visible(header_line))
                )
                return
        elif len(cells) != len(header):
            rejects.append(
                Reject(stage, "cells", f"{len(cells)} cells where the header has {len(header)} "
                       f"(separator {separator!r})", file=file, line=line,
                       excerpt=visible(separator.join(cells))))  # fmt: skip
        elif cells == header:
            rejects.append(
                Reject(stage, "header", "the header again", file=file, line=line, unusable=False)
            )
        else:
            yield line, dict(zip(header, map(clean_text, cells), strict=True))


def number_in(value: object) -> float | None:
    """``value`` as a finite float, or None. Booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
