"""Files of rows: CSV, TSV, JSON Lines and JSON. A row with a text is a document.

JSON may also be what another converter made of a document; `elements.py` reads that.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

from embedtune.documents.elements import is_docling, is_element, read_docling, read_elements
from embedtune.documents.grid import markdown_table
from embedtune.documents.plain import decoded
from embedtune.documents.reading import Broken, Part
from embedtune.files import json_rows, parse_json, table_rows, visible
from embedtune.records import Reject

TEXT_COLUMNS = ("text", "content", "body", "passage", "正文", "内容", "文本")
TITLE_COLUMNS = ("title", "heading", "subject", "标题", "题目")
ID_COLUMNS = ("_id", "id", "编号")

JSON_KINDS = (
    "read are arrays of rows, elements of unstructured and documents of docling (DoclingDocument)"
)

Names = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that hold text, title and id of a row; where empty, those with usual names.

    Several text columns are joined by blank lines. Where text columns are named, the other columns
    are left out: the user has said what matters.
    """

    text: tuple[str, ...] = ()
    title: tuple[str, ...] = ()
    id: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Names]) -> Self:
        """From ``documents.columns``: {text: body} or {text: [question, answer]}."""
        return cls(
            **{
                role: (names,) if isinstance(names, str) else tuple(names)
                for role, names in settings.items()
            }
        )

    def found_in(self, header: Sequence[str], *, partly: bool = False) -> "Columns":
        """The same with the spelling of ``header``; what is not named is looked for by its name.

        Args:
            partly: One of the text columns is enough, as in JSON, where empty ones are left out.

        Raises:
            Broken: A named column is not there.
        """
        known = {name.strip().lower(): name for name in reversed(header)}
        known |= {name: name for name in header}

        def spelt(names: tuple[str, ...], usual: tuple[str, ...]) -> tuple[str, ...]:
            found = (known.get(name) or known.get(name.strip().lower()) for name in names or usual)
            return tuple(dict.fromkeys(filter(None, found)))[: None if names else 1]

        named = (*self.text, *self.title, *self.id)
        missing = [name for name in named if not spelt((name,), ())]
        if partly:
            missing = list(self.text) if set(self.text) <= set(missing) else []
        if missing:
            raise absent(missing, header)
        return Columns(
            spelt(self.text, TEXT_COLUMNS),
            spelt(self.title, TITLE_COLUMNS),
            spelt(self.id, ID_COLUMNS),
        )


NO_COLUMNS = Columns()


def absent(missing: Sequence[str], header: Sequence[str]) -> Broken:
    shown = ", ".join(visible(name, 40) for name in header[:20])
    more = f" and {len(header) - 20} more" if len(header) > 20 else ""
    return Broken(
        "columns",
        f"no column {', '.join(map(repr, missing))}, which documents.columns names; the columns "
        f"are: {shown}{more}",
    )


def read_table(
    data: bytes, broken_bytes: str, *, tabs: bool, columns: Columns = NO_COLUMNS
) -> Iterator[Part | Reject]:
    """CSV or TSV: a document a row where a column holds text, else one Markdown table.

    Raises:
        Broken: No row can be used, or a column that ``columns`` names is absent.
    """
    text, meta, notes = decoded(data, broken_bytes)
    rejects: list[Reject] = []
    told: list[str] = []
    rows = list(
        table_rows(text, rejects, "read", file="", separator="\t" if tabs else None, notes=told)
    )
    notes += [(None, note.removeprefix(": ")) for note in told]
    yield from rejects
    if not rows:
        if rejects:
            return
        raise Broken("no-rows", "no row can be used")
    header = list(rows[0][1])
    found = columns.found_in(header)
    if not found.text:
        usual = ", ".join(TEXT_COLUMNS)
        notes.append((None, f"{len(rows)} rows without a text column ({usual}): one table"))
        table = markdown_table([header, *([*row.values()] for _, row in rows)])
        yield Part(kind="csv", text=table, meta=meta, notes=notes)
        return
    notes.append((None, _counted(len(rows), found)))
    whole = not columns.text  # nobody has said what of a row matters
    yield from row_parts(rows, found, "csv", whole=whole, meta=meta, notes=notes)


def _counted(rows: int, found: Columns) -> str:
    names = " and ".join(repr(visible(name)) for name in found.text)
    return f"{rows} rows with a column {names}: one document a row"


def row_parts(
    rows: Iterable[tuple[int, Mapping[str, Any]]],  # values: whatever JSON holds
    columns: Columns,
    kind: str,
    *,
    whole: bool = False,
    meta: Mapping[str, str] = MappingProxyType({}),
    notes: Sequence[tuple[int | None, str]] = (),
) -> Iterator[Part | Reject]:
    """A part for each row, or why there is none.

    Args:
        whole: Put the other columns below the text, a line "name: value" each.
        notes: Said once, with the first part.
    """
    used = {*columns.text, *columns.title, *columns.id, *ID_COLUMNS}
    for line, row in rows:
        texts = []
        for name in columns.text:
            value = row.get(name)
            if isinstance(value, str) and value.strip():
                texts.append(value.strip())
            elif value is not None and not isinstance(value, str):
                why = f"{visible(repr(value), 30)}; each row needs a text there"
                yield Reject(
                    "read", "field", why, line=line, field=name, excerpt=visible(dict(row))
                )
                break
        else:
            if not texts:
                names = " and ".join(repr(visible(name)) for name in columns.text)
                why = f"the column {names} is empty; each row needs a text there"
                yield Reject("read", "no-text", why, line=line, field=columns.text[0],
                             excerpt=visible(dict(row)))  # fmt: skip
                continue
            if whole:
                others = [f"{name}: {' '.join(value.split())}" for name, value in row.items()
                          if name not in used and value.strip()]  # fmt: skip
                texts.append("\n".join(others))
            identity = " ".join(str(row[name]) for name in columns.id if row.get(name))
            yield Part(
                kind=kind,
                text="\n\n".join(filter(None, texts)),
                title=" ".join(
                    value for name in columns.title if isinstance(value := row.get(name), str)
                ),
                line=line,
                meta={**meta, **({"row_id": identity} if identity else {})},
                notes=list(notes),
            )
            notes = ()


def read_json_lines(
    data: bytes, broken_bytes: str, *, columns: Columns = NO_COLUMNS, tables: bool = True
) -> Iterator[Part | Reject]:
    """JSON Lines, or a JSON array: a document a row, or what `elements.py` reads.

    Raises:
        Broken: No row can be used, or a column that ``columns`` names is in none of them.
    """
    text, meta, notes = decoded(data, broken_bytes)
    if text.lstrip().startswith("["):
        notes.append((None, "a JSON array, not a row a line; its items are read"))
    yield from _json_parts(text, columns, meta, notes, tables=tables)


def read_json(
    data: bytes, broken_bytes: str, *, columns: Columns = NO_COLUMNS, tables: bool = True
) -> Iterator[Part | Reject]:
    """A JSON file: a ``DoclingDocument``, elements of unstructured, or an array of rows.

    Raises:
        Broken: Not JSON, or JSON of another kind.
    """
    text, meta, notes = decoded(data, broken_bytes)
    if not text.lstrip().startswith("{"):
        yield from _json_parts(text, columns, meta, notes, tables=tables)
        return
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # an object a line
            yield from _json_parts(text, columns, meta, notes, tables=tables)
            return
        why = f"not JSON: {error.msg} at column {error.colno}"
        raise Broken("json", why, error.lineno) from error
    except ValueError as error:
        raise Broken("json", f"not JSON: {error}") from error
    if not is_docling(value):
        keys = ", ".join(visible(key, 30) for key in list(value)[:8])
        raise Broken("json-kind", f"a JSON object with {keys or 'no key'}; {JSON_KINDS}")
    part = read_docling(value, tables=tables)
    part.meta |= meta
    part.notes += notes
    yield part


def _json_parts(
    text: str,
    columns: Columns,
    meta: Mapping[str, str],
    notes: list[tuple[int | None, str]],
    *,
    tables: bool,
) -> Iterator[Part | Reject]:
    rejects: list[Reject] = []
    rows = json_rows(text, rejects, "read", file="")
    first = next(rows, None)
    if first is None:
        if not rejects:
            raise Broken("no-rows", "no row can be used")
        if all(reject.message.startswith("expected an object") for reject in rejects):
            found = rejects[0].message.removeprefix("expected an object, found ")
            raise Broken("json-kind", f"JSON without any object (the first is {found}); "
                                      f"{JSON_KINDS}", rejects[0].line)  # fmt: skip
    elif is_element(first[1]):
        yield from _with(
            read_elements(_of_kind(is_element, first, rows, rejects), tables=tables), meta, notes
        )
    elif is_docling(first[1]):
        for line, row in _of_kind(is_docling, first, rows, rejects):
            part = read_docling(row, tables=tables)
            part.line = line
            yield from _with([part], meta, notes)
            notes = []
    else:
        yield from _rows_of_json(chain([first], rows), columns, meta, notes)
    yield from rejects


def _with(
    parts: Iterable[Part], meta: Mapping[str, str], notes: Sequence[tuple[int | None, str]]
) -> Iterator[Part]:
    for part in parts:
        part.meta |= meta
        part.notes += notes
        yield part
        notes = ()


def _of_kind(
    check: Callable[[Mapping[str, Any]], bool],
    first: tuple[int, Mapping[str, Any]],
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    rejects: list[Reject],
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows that are what the first one is."""
    for line, row in chain([first], rows):
        if check(row):
            yield line, row
        else:
            why = "not of the kind of the first row, which a converter of documents has written"
            rejects.append(Reject("read", "json-kind", why, line=line, excerpt=visible(dict(row))))


def _rows_of_json(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    columns: Columns,
    meta: Mapping[str, str],
    notes: list[tuple[int | None, str]],
) -> Iterator[Part | Reject]:
    known: dict[tuple[str, ...], Columns | Broken] = {}  # by the keys of a row
    keys: dict[str, None] = {}
    for line, row in rows:
        names = tuple(row)
        if names not in known:
            keys |= dict.fromkeys(names)
            try:
                known[names] = columns.found_in(names, partly=True)
            except Broken as error:
                known[names] = error
        found = known[names]
        if isinstance(found, Broken) or not found.text:
            usual = f"no {', '.join(TEXT_COLUMNS[:3])} or the like; name it in documents.columns"
            code, why = ("columns", str(found)) if isinstance(found, Broken) else ("field", usual)
            field = (columns.text or ("text",))[0]
            yield Reject("read", code, why, line=line, field=field, excerpt=visible(dict(row)))
            continue
        for item in row_parts([(line, row)], found, "jsonl", meta=meta, notes=notes):
            notes = [] if isinstance(item, Part) else notes
            yield item
    columns.found_in(tuple(keys))  # a column that no row has is a fault of the whole file
