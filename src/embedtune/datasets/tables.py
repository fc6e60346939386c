"""The rows of a data file, whatever its type: JSON Lines, JSON, CSV, TSV, Parquet, Arrow.

No type is guessed from text: what stands in a CSV cell is the text of that cell, so that ``NA``,
``007`` and ``1e5`` stay what they are.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.errors import ConfigError
from embedtune.files import clean_text, decoded_text, json_rows, parse_json, table_rows, visible
from embedtune.records import Reject

STAGE = "data"
TYPES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
BATCH = 10_000  # rows of a Parquet file turned into Python values at a time


@dataclass(frozen=True, slots=True)
class Table:
    """The usable rows of one file.

    Rows are numbered as people find them: by line in JSON Lines and CSV, by item elsewhere.
    """

    file: Path
    rows: tuple[tuple[int, Mapping[str, Any]], ...]
    columns: tuple[str, ...]
    unreadable: Mapping[str, str]  # columns of a type that holds neither text nor numbers -> type

    @property
    def name(self) -> str:
        return self.file.name


def type_of(path: Path) -> str:
    """The suffix that says what a file is, without ``.gz``; empty for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = suffixes[-1] if suffixes else ""
    return found if found in TYPES else ""


def read_rows(path: Path, rejects: list[Reject], notes: list[str]) -> Table | dict[str, Any]:
    """The rows of ``path``; or the object, where a ``.json`` file is one object, not rows.

    Args:
        rejects: Gets what cannot be read, with line and reason.
        notes: Gets what had to be assumed (separator, encoding, array).

    Raises:
        ConfigError: The file is of another type, or is not there.
    """
    kind = type_of(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if not kind:
        raise ConfigError(f"{path}: expected a folder, or a file of one of {', '.join(TYPES)}")
    if kind in (".parquet", ".arrow"):
        return _columnar(path, kind, rejects)
    text = decoded_text(path, rejects, STAGE, notes)
    if text is None:
        return Table(path, (), (), {})
    if kind in (".csv", ".tsv"):
        separator = "\t" if kind == ".tsv" else None
        rows = tuple(
            table_rows(text, rejects, STAGE, file=str(path), separator=separator, notes=notes)
        )
        return Table(path, rows, tuple(rows[0][1]) if rows else (), {})
    if kind == ".json" and (whole := _one_object(path, text, rejects)) is not None:
        return whole or Table(path, (), (), {})
    rows = tuple(json_rows(text, rejects, STAGE, file=str(path), notes=notes))
    return Table(path, rows, tuple(dict.fromkeys(key for _, row in rows for key in row)), {})


def _one_object(path: Path, text: str, rejects: list[Reject]) -> dict[str, Any] | None:
    """The object that is the whole of a JSON file; None if the file holds rows."""
    begin = len(text) - len(text.lstrip())
    if not text.startswith("{", begin):
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None  # broken, or broken in the first of many rows: read, and rejected, by line
    if text[end:].strip():
        if "\n" not in text[begin:end]:
            return None
        message = "objects over several lines each; write one object a line, or an array of them"
        rejects.append(Reject(STAGE, "json", message, file=str(path), line=1))
        return {}
    try:
        found = parse_json(text)
    except (ValueError, RecursionError) as error:
        rejects.append(Reject(STAGE, "json", f"not JSON: {error}", file=str(path), line=1))
        return {}
    return found


def _columnar(path: Path, kind: str, rejects: list[Reject]) -> Table:
    """A Parquet file, or one of the Arrow files that ``datasets`` saves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if kind == ".parquet":
            table = pq.read_table(path)
        else:
            with pa.OSFile(str(path)) as source:
                try:
                    table = pa.ipc.open_stream(source).read_all()
                except pa.ArrowInvalid:
                    source.seek(0)
                    table = pa.ipc.open_file(source).read_all()
        if len(set(table.schema.names)) < len(table.schema.names):
            raise pa.ArrowInvalid("a column's name stands twice")
        readable, unreadable = _readable(table.schema)
        rows = tuple(enumerate(_values(table.select(readable)), 1))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"cannot be read as {kind[1:].capitalize()}: {visible(error)}"
        rejects.append(Reject(STAGE, kind[1:], message, file=str(path)))
        return Table(path, (), (), {})
    return Table(path, rows, tuple(table.schema.names), unreadable)


def _readable(schema: Any) -> tuple[list[str], dict[str, str]]:
    """Columns of text, numbers, truth values, or lists of text; and the types of the others."""
    from pyarrow import types

    def text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    readable, unreadable = [], {}
    for field in schema:
        kind = field.type
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        if (
            plain
            or text(kind)
            or types.is_null(kind)
            or (listed and (text(kind.value_type) or types.is_null(kind.value_type)))
        ):
            readable.append(field.name)
        else:
            unreadable[field.name] = str(kind)
    return readable, unreadable


def _values(table: Any) -> Iterator[dict[str, Any]]:
    """Rows as Python values; class numbers of Hugging Face data sets become their names."""
    names = _class_names(table.schema)
    for batch in table.to_batches(max_chunksize=BATCH):
        for row in batch.to_pylist():
            for column, classes in names.items():
                number = row[column]
                if isinstance(number, int) and number < len(classes):
                    # -1 is how the library marks a row without a class
                    row[column] = classes[number] if number >= 0 else None
            yield {key: _cleaned(value) for key, value in row.items()}


def _cleaned(value: Any) -> Any:  # a cell
    if isinstance(value, str):
        return clean_text(value)
    return list(map(_cleaned, value)) if isinstance(value, list) else value


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, as the ``datasets`` library leaves them in the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if column in schema.names
            and isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
