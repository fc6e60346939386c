"""Reading with line numbers, writing whole or not at all.

Every write goes to a scratch file beside the target, is flushed to disk and renamed, so that
a file under its final name is always complete. Every reader names file and line.
"""

import csv
import errno
import gzip
import hashlib
import io
import json
import logging
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.decode import Undecodable, decode
from embedtune.errors import ResourceError
from embedtune.records import Reject

logger = logging.getLogger(__name__)

EXCERPT = 80
LARGEST = 4 << 30  # bytes that a packed file may unpack to


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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError(_repeated(pairs).message)
    return row


def _repeated(pairs: list[tuple[str, Any]]) -> "_Fault":
    seen: set[str] = set()
    key = next(key for key, _ in pairs if key in seen or seen.add(key))
    return _Fault("repeated-key", f'the key "{visible(key)}" stands twice', key)


def _refuse_constant(name: str) -> float:
    raise ValueError(_constant(name).message)


def _constant(name: str) -> "_Fault":
    return _Fault("json", f"not JSON: {name} is not a number JSON knows")


def parse_json(text: str) -> Any:  # whatever the text holds
    """Strict JSON: repeated keys, NaN and Infinity are errors (ValueError)."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def read_json(path: Path) -> Any:  # whatever the file holds
    return parse_json(read_text(path))


def read_jsonl(
    path: Path, rejects: list[Reject], stage: str, notes: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each usable line; the others are added to ``rejects``.

    A JSON array of objects is accepted too (its items are numbered instead of lines), and so is a
    file packed with gzip. NUL is removed from strings, lone surrogates become U+FFFD.

    Args:
        notes: Gets what had to be assumed or mended (encoding, array, characters).
    """
    text = decoded_text(path, rejects, stage, notes)
    if text is not None:
        yield from json_rows(text, rejects, stage, file=str(path), notes=notes)


def decoded_text(
    path: Path, rejects: list[Reject], stage: str, notes: list[str] | None = None
) -> str | None:
    """The text of a file; None and a reject where it cannot be had (encoding, a web page)."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as packed:
                data = packed.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise EOFError(f"it holds over {LARGEST >> 30} GiB")
        else:
            data = path.read_bytes()
        found = decode(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        rejects.append(Reject(stage, "gzip", f"cannot be unpacked: {error}", file=str(path)))
        return None
    except Undecodable as error:
        rejects.append(Reject(stage, "encoding", str(error), file=str(path), line=1))
        return None
    if found.replaced:
        logger.warning("%s: %d broken bytes replaced, the first on line %s",
                       visible(path), found.replaced, found.first_bad_line)  # fmt: skip
    if notes is not None and not found.encoding.startswith("utf-8"):
        notes.append(f"{path.name}: read as {found.encoding}")
    if re.match(r"\s*<(!doctype\s+html|html)\b", found.text[:1000], re.IGNORECASE):
        message = "a web page, not data; the download may have failed"
        rejects.append(Reject(stage, "html", message, file=str(path), line=1,
                              excerpt=visible(found.text.strip())))  # fmt: skip
        return None
    return found.text


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands in a parsed row for what JSON does not allow, so that the field can be named."""

    code: str
    message: str
    field: str = ""


class _Faulty(ValueError):
    def __init__(self, fault: _Fault, field: str) -> None:
        super().__init__(fault.message)
        self.code, self.field = fault.code, fault.field or field


def _object_or_fault(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    row = dict(pairs)
    return row if len(row) == len(pairs) else _repeated(pairs)


def json_rows(
    text: str,
    rejects: list[Reject],
    stage: str,
    *,
    file: str,
    notes: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As ``read_jsonl``, from text that is already decoded."""
    mended: list[int] = []

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

    def usable(number: int, row: Any, excerpt: str) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            cleaned = _clean(row)
        except _Faulty as fault:
            reject(number, fault.code, str(fault), excerpt, fault.field)
            return
        if not isinstance(cleaned, dict):
            found = type(row).__name__
            reject(number, "json", f"expected an object, found {found}", excerpt)
            return
        if cleaned != row:
            mended.append(number)
        yield number, cleaned

    def parse(part: str) -> Any:
        return json.loads(part, object_pairs_hook=_object_or_fault, parse_constant=_constant)

    if text.lstrip().startswith("["):
        try:
            items = parse(text)
        except json.JSONDecodeError as error:
            reject(error.lineno, "json", f"a JSON array that cannot be read: {error.msg} at "
                   f"column {error.colno}", text.split("\n")[error.lineno - 1])  # fmt: skip
            return
        except (ValueError, RecursionError) as error:
            reject(1, "json", f"a JSON array that cannot be read: {error}")
            return
        if notes is not None and re.search(r"\.(jsonl|ndjson)(\.gz)?$", file, re.IGNORECASE):
            notes.append(f"{Path(file).name}: a JSON array, not a row a line; its items are read")
        for number, item in enumerate(items, 1):
            yield from usable(number, item, str(item)[: EXCERPT + 1])
    else:
        lines = text.split("\n")  # not splitlines: U+2028 and the like are text
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = parse(line)
            except json.JSONDecodeError as error:
                last = number == len(lines)
                cut = "; the file ends inside a record" if last else ""
                reject(number, "json", f"not JSON: {error.msg} at column {error.colno}{cut}", line)
            except (ValueError, RecursionError) as error:
                reject(number, "json", f"not JSON: {error}", line)
            else:
                yield from usable(number, row, line)
    if mended and notes is not None:
        notes.append(_mended(file, mended))


def _mended(file: str, lines: list[int]) -> str:
    return (
        f"{Path(file).name}: NUL removed or half characters (lone surrogates) replaced in "
        f"{len(lines)} rows, the first in {lines[0]}"
    )


def _clean(value: Any, field: str = "") -> Any:  # recursive over JSON values
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): _clean(item, field or key) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, field) for item in value]
    if isinstance(value, _Fault):
        raise _Faulty(value, field)
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
    path: Path, rejects: list[Reject], stage: str, notes: list[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of a CSV or TSV file; cells stay exactly the text they are.

    The separator is guessed from the header among comma, semicolon, tab and bar. A row with
    another number of cells than the header is rejected, so that columns never shift.

    Args:
        notes: Gets what had to be assumed or mended (encoding, separator, characters).
    """
    text = decoded_text(path, rejects, stage, notes)
    if text is not None:
        tabs = "\t" if ".tsv" in map(str.lower, path.suffixes) else None
        yield from table_rows(text, rejects, stage, file=str(path), separator=tabs, notes=notes)


def table_rows(
    text: str,
    rejects: list[Reject],
    stage: str,
    *,
    file: str,
    separator: str | None = None,
    notes: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """As ``read_table``, from text that is already decoded."""
    header_line = text.lstrip("\n").split("\n", 1)[0]
    guessed = separator or max(",;\t|", key=header_line.count)
    if notes is not None and separator is None and guessed != ",":
        notes.append(f"{Path(file).name}: the separator is taken to be {guessed!r}")
    csv.field_size_limit(2**31 - 1)
    quoting = _quoting(text, guessed)
    if notes is not None and quoting == csv.QUOTE_NONE:
        notes.append(f"{Path(file).name}: quotes are read as characters, as they do not pair")
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=guessed, quoting=quoting, strict=True)
    header: list[str] | None = None
    mended: list[int] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # where the next row begins cannot be told: it could be inside a quoted cell
            all_lines = text.rstrip("\n").split("\n")
            rest = len(all_lines) - line
            message = f"not CSV: {error} (separator {guessed!r})" + (
                f"; a quote may be open: the {rest} lines after it are not read" if rest > 0 else ""
            )
            rejects.append(
                Reject(
                    stage,
                    "csv",
                    message,
                    file=file,
                    line=line,
                    excerpt=visible(all_lines[line - 1]),
                )
            )
            break
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            header[0] = header[0] or "Unnamed: 0"  # the index of a table that pandas wrote
            if len(set(header)) != len(header) or "" in header:
                why = "the header repeats a column or leaves one unnamed"
                rejects.append(
                    Reject(stage, "header", why, file=file, line=line, excerpt=visible(header_line))
                )
                break
        elif len(cells) != len(header):
            rejects.append(
                Reject(stage, "cells", f"{len(cells)} cells where the header has {len(header)} "
                       f"(separator {guessed!r})", file=file, line=line,
                       excerpt=visible(guessed.join(cells))))  # fmt: skip
        elif cells == header:
            rejects.append(
                Reject(stage, "header", "the header again", file=file, line=line, unusable=False)
            )
        else:
            cleaned = list(map(clean_text, cells))
            if cleaned != cells:
                mended.append(line)
            yield line, dict(zip(header, cleaned, strict=True))
    if mended and notes is not None:
        notes.append(_mended(file, mended))


def _quoting(text: str, separator: str) -> int:
    """Whether quotes enclose cells. Files separated by tabs are often written without quoting;
    there a quote is a character, and reading it as a quote would swallow lines."""
    if separator != "\t" or '"' not in text:
        return csv.QUOTE_MINIMAL

    def widths(quoting: int) -> set[int]:
        lines = io.StringIO(text, newline="")
        return {
            len(cells)
            for cells in csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
            if cells
        }

    try:
        if len(widths(csv.QUOTE_MINIMAL)) == 1:
            return csv.QUOTE_MINIMAL
    except csv.Error:
        pass
    return csv.QUOTE_NONE if len(widths(csv.QUOTE_NONE)) == 1 else csv.QUOTE_MINIMAL


def number_in(value: object) -> float | None:
    """``value`` as a finite float, or None. Booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python would read 1_0 as ten
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# ---- cells that a spreadsheet would take for formulas

_FORMULA = re.compile(r"[=+\-@\t\r]")


def neutralised(text: str) -> str:
    """``text`` with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unneutralised(text: str) -> str:
    """Undo ``neutralised``."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text
