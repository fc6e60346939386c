"""XLSX workbooks: a heading and a Markdown table for each sheet, cells as they are displayed.

Sheets are read cell by cell from their XML: a hundred thousand rows take a few seconds and little
memory, and hidden rows, merged cells and formulas without a value are seen on the way.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedtune.documents.grid import LONGEST_REPEAT, markdown_table
from embedtune.documents.office import drawing
from embedtune.documents.office.package import Package, open_package
from embedtune.documents.office.shown import BUILT_IN, GENERAL, shown
from embedtune.documents.reading import Broken, Part
from embedtune.documents.rows import NO_COLUMNS, Columns, absent, row_parts
from embedtune.records import Reject

if TYPE_CHECKING:
    from lxml.etree import _Element

HEADER_WITHIN = 10  # rows from the top
MOST_COLUMNS = 1 << 14
WIDEST_MERGE = 60  # columns
TALLEST_MERGE = 10_000  # rows
_DEFAULT_NAME = re.compile(r"(?:Sheet|工作表|表)\s?\d*", re.IGNORECASE)


@dataclass(slots=True)
class Sheet:
    """The visible cells of a sheet. ``rows`` is row number -> column number -> text."""

    name: str
    rows: dict[int, dict[int, str]] = field(default_factory=dict)
    wide_heads: set[int] = field(default_factory=set)  # rows with a cell over some columns
    lines: list[str] = field(default_factory=list)  # text boxes and charts
    filtered: int = 0  # rows that a filter hides; they are kept
    hidden: int = 0  # rows and columns left out
    uncomputed: int = 0  # formulas without a stored value
    errors: int = 0  # cells that show #N/A and the like


def read_xlsx(
    data: bytes, *, tables: bool, columns: Columns = NO_COLUMNS
) -> Iterator[Part | Reject]:
    """All visible sheets as one document; but one a row of a sheet with the named text columns.

    Raises:
        Broken: Not an Excel workbook, not safe to expand, or damaged.
    """
    part = Part(kind="xlsx")
    sheets, listed = list(open_sheets(data, part)), []
    for sheet in sheets if columns.text else ():
        if header := _header(sheet, columns):
            listed.append(sheet)
            yield from _listed(sheet, *header)
    if columns.text and not listed:
        headers = (text for sheet in sheets for text in _first_row(sheet))
        lacking = str(absent(columns.text, list(dict.fromkeys(headers))))
        part.meta["without_columns"] = lacking
        part.note(f"{lacking}; read as tables")
    _write(part, [sheet for sheet in sheets if sheet not in listed], tables=tables)
    if part.text.strip() or not listed:
        yield part


def _write(part: Part, sheets: list["Sheet"], *, tables: bool) -> None:
    texts = []
    for sheet in sheets:
        text = "\n\n".join(filter(None, (*_blocks(sheet, tables=tables), *sheet.lines)))
        if text and (len(sheets) > 1 or not _DEFAULT_NAME.fullmatch(sheet.name)):
            text = f"# {' '.join(sheet.name.split())}\n\n{text}"
        texts.append(text)
    part.text = "\n\n".join(filter(None, texts)) + "\n"
    return part


def open_sheets(data: bytes, part: Part) -> Iterator[Sheet]:
    """The visible sheets in their order; what is left out is noted in ``part``."""
    package = open_package(data, "xlsx")
    book = _Book(package)
    for name, path in book.visible:
        sheet = book.read(name, path)
        _note(sheet, part)
        yield sheet
    if book.hidden:
        shown_names = ", ".join(book.hidden[:5])
        part.note(f"{len(book.hidden)} hidden sheets left out: {shown_names}; unhide to read them")
    if any(re.search(r"/(?:threaded)?comments?\d*\.xml$", name, re.I) for name in package.names):
        part.note("comments on cells are left out")


def _note(sheet: Sheet, part: Part) -> None:
    for count, what in (
        (sheet.hidden, "hidden rows and columns left out; unhide to read them"),
        (sheet.filtered, "rows hidden by a filter are kept"),
        (sheet.uncomputed, "formulas without a stored value; open and save the file to have them"),
        (sheet.errors, "cells that show an error left out"),
    ):
        if count:
            part.note(f"sheet {sheet.name!r}: {count} {what}")


# ---- rows that are documents


def _first_row(sheet: Sheet) -> list[str]:
    return list(next((cells for _, cells in sorted(sheet.rows.items()) if cells), {}).values())


def _header(sheet: Sheet, columns: Columns) -> tuple[int, Columns] | None:
    """The row with the names of the columns, and the columns as they are spelt there."""
    for number, cells in sorted(sheet.rows.items())[:HEADER_WITHIN]:
        with contextlib.suppress(Broken):
            return number, columns.found_in([text.strip() for text in cells.values()])
    return None


def _listed(sheet: Sheet, header: int, columns: Columns) -> Iterator[Part | Reject]:
    names = {column: text.strip() for column, text in sheet.rows[header].items()}
    rows = [
        (number, {name: cells.get(column, "") for column, name in reversed(names.items())})
        for number, cells in sorted(sheet.rows.items())
        if number > header and cells
    ]
    note = f"sheet {sheet.name!r}: {len(rows)} rows, one document a row"
    yield from row_parts(rows, columns, "xlsx", meta={"sheet": sheet.name}, notes=[(None, note)])


class _Book:
    """What the sheets of a workbook share: their list, strings and number formats."""

    def __init__(self, package: Package) -> None:
        self.package = package
        relations = package.relations("")
        main = next((to for kind, to in relations.values() if kind == "officeDocument"), None)
        main = main or "xl/workbook.xml"
        root = package.xml(main)
        parts = package.relations(main)
        self.visible: list[tuple[str, str]] = []
        self.hidden: list[str] = []
        for sheet in root.iterfind("{*}sheets/{*}sheet"):
            name = sheet.get("name", "")
            kind, path = parts.get(drawing.relation(sheet, "id"), ("", ""))
            if sheet.get("state", "visible") != "visible":
                self.hidden.append(name)
            elif kind == "worksheet":
                self.visible.append((name, path))
        properties = root.find("{*}workbookPr")
        self.since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        found = dict(parts.values())
        self.strings = self._strings(found.get("sharedStrings", ""))
        self.formats = self._formats(found.get("styles", ""))
        self._shown: dict[tuple[str, str], str] = {}

    def _strings(self, name: str) -> list[str]:
        if name not in self.package.names:
            return []
        return [_rich_text(item) for item in self.package.xml(name).iterfind("{*}si")]

    def _formats(self, name: str) -> list[str]:
        """Style number -> number format. What else styles say is not looked at."""
        if name not in self.package.names:
            return []
        root = self.package.xml(name)
        own = {
            item.get("numFmtId"): item.get("formatCode", GENERAL)
            for item in root.iterfind("{*}numFmts/{*}numFmt")
        }
        ids = [item.get("numFmtId", "0") for item in root.iterfind("{*}cellXfs/{*}xf")]
        return [own.get(i) or BUILT_IN.get(int(i) if i.isdecimal() else 0, GENERAL) for i in ids]

    def read(self, name: str, path: str) -> Sheet:
        sheet = Sheet(name)
        hidden_columns: set[int] = set()
        hidden_rows: list[int] = []
        filters = False
        merged: list[tuple[int, int, int, int]] = []
        row = 0
        for element in self.package.elements(path, ("row", "col", "mergeCell", "autoFilter")):
            kind = element.tag.rpartition("}")[2]
            hidden = element.get("hidden") in ("1", "true")
            if kind == "row":
                row = _number(element.get("r"), row + 1)
                if cells := self._cells(element, sheet):
                    sheet.rows[row] = cells
                if hidden:
                    hidden_rows.append(row)
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
            elif kind == "col" and hidden:
                last = min(_number(element.get("max"), 0), MOST_COLUMNS)
                hidden_columns |= set(range(_number(element.get("min"), 1), last + 1))
            elif kind == "mergeCell":
                merged.append(_range(element.get("ref", "")))
            elif kind == "autoFilter":
                filters = element.find("{*}filterColumn") is not None
        for kind, target in self.package.relations(path).values():
            if kind == "table" and target in self.package.names:
                condition = self.package.xml(target).find("{*}autoFilter/{*}filterColumn")
                filters = filters or condition is not None
        _spread(sheet, merged)
        _hide(sheet, hidden_rows, hidden_columns, filters=filters)
        self._draw(sheet, path)
        return sheet

    def _cells(self, row: "_Element", sheet: Sheet) -> dict[int, str]:
        cells: dict[int, str] = {}
        column = 0
        for cell in row:
            if not str(cell.tag).endswith("}c"):
                continue
            reference = cell.get("r")
            column = _column(reference) if reference else column + 1
            text = self._text(cell, sheet)
            if text and not text.isspace():
                cells[column] = text
        return cells

    def _text(self, cell: "_Element", sheet: Sheet) -> str:
        kind = cell.get("t", "n")
        value, formula = None, False
        for child in cell:
            tag = str(child.tag).rpartition("}")[2]
            if tag == "v":
                value = child.text
            elif tag == "f":
                formula = True
            elif tag == "is":
                return _rich_text(child)
        if not value:
            sheet.uncomputed += formula and kind != "str"
            return ""
        if kind == "s":
            place = _number(value, -1)
            return self.strings[place] if 0 <= place < len(self.strings) else ""
        if kind == "b":
            return "TRUE" if value == "1" else "FALSE"
        if kind == "e":
            sheet.errors += 1
            return ""
        if kind != "n":  # text of a formula, or an ISO date
            return value.strip()
        style = _number(cell.get("s"), 0)
        code = self.formats[style] if style < len(self.formats) else GENERAL
        key = (value, code)
        if key not in self._shown:
            if len(self._shown) > 100_000:
                self._shown.clear()
            self._shown[key] = self._number(value, code)
        return self._shown[key]

    def _number(self, value: str, code: str) -> str:
        if code == GENERAL and len(value) < 10:
            return value
        try:
            return shown(float(value), code, since_1904=self.since_1904)
        except (ValueError, OverflowError):
            return value

    def _draw(self, sheet: Sheet, path: str) -> None:
        """Text boxes and charts that lie over the sheet."""
        for kind, target in self.package.relations(path).values():
            if kind != "drawing" or target not in self.package.names:
                continue
            root = self.package.xml(target)
            drawing.settle(root)
            sheet.lines += drawing.paragraphs(root)
            for chart_kind, chart in self.package.relations(target).values():
                if chart_kind == "chart" and chart in self.package.names:
                    sheet.lines.append(drawing.chart(self.package.xml(chart)))


def _rich_text(element: "_Element") -> str:
    """The text of a string without the reading aids (furigana, pinyin)."""
    texts = (
        child.text or ""
        for child in element.iter("{*}t")
        if not str(child.getparent().tag).endswith("}rPh")
    )
    text = "".join(texts)
    if "_x" in text:
        text = re.sub(r"_x([0-9A-Fa-f]{4})_", lambda code: chr(int(code[1], 16)), text)
    return text


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default


def _column(reference: str) -> int:
    """The number, from 1, of the column of ``AB12``."""
    number = 0
    for letter in reference.rstrip("0123456789").upper():
        number = number * 26 + ord(letter) - 64
    return number


def _range(reference: str) -> tuple[int, int, int, int]:
    """First row, last row, first column, last column of ``A1:C4``."""
    first, _, last = reference.partition(":")
    last = last or first
    rows = [_number(re.sub(r"\D", "", cell), 1) for cell in (first, last)]
    return rows[0], rows[1], _column(first), _column(last)


def _spread(sheet: Sheet, merged: list[tuple[int, int, int, int]]) -> None:
    """Repeat the text of merged cells, but not that of a cell with nothing beside it."""
    for top, bottom, left, right in merged:
        text = sheet.rows.get(top, {}).get(left, "")
        if not text or len(text) > LONGEST_REPEAT or bottom - top > TALLEST_MERGE:
            continue
        beside = any(not left <= column <= right for column in sheet.rows[top])
        columns = range(left, min(right, left + WIDEST_MERGE) + 1) if beside else [left]
        if beside and right > left:
            sheet.wide_heads.add(top)
        for row in range(top, bottom + 1):
            if row == top or row in sheet.rows:
                for column in columns:
                    sheet.rows[row].setdefault(column, text)


def _hide(sheet: Sheet, rows: list[int], columns: set[int], *, filters: bool) -> None:
    """Take hidden rows and columns out; rows that only a filter hides stay."""
    if filters:
        sheet.filtered = sum(row in sheet.rows for row in rows)
    else:
        sheet.hidden = sum(sheet.rows.pop(row, None) is not None for row in rows)
    seen = set()
    for cells in sheet.rows.values():
        for column in columns & cells.keys():
            seen.add(column)
            del cells[column]
    sheet.hidden += len(seen)


# ---- from cells to text


def _blocks(sheet: Sheet, *, tables: bool) -> Iterator[str]:
    """Tables and the lines between them. A gap of rows ends a table where another one begins."""
    block: list[tuple[int, dict[int, str]]] = []
    for number, cells in sorted(sheet.rows.items()):
        if not cells:
            continue
        if block and number > block[-1][0] + 1 and _begins(cells, block):
            yield _block(block, sheet, tables=tables)
            block = []
        block.append((number, cells))
    if block:
        yield _block(block, sheet, tables=tables)


def _begins(cells: dict[int, str], block: list[tuple[int, dict[int, str]]]) -> bool:
    """Whether a row after a gap is not one more row of the table before."""
    head = max((above for _, above in block[:3]), key=len)
    return len(cells) == 1 or len(head) == 1 or not cells.keys() <= head.keys()


def _block(block: list[tuple[int, dict[int, str]]], sheet: Sheet, *, tables: bool) -> str:
    columns = sorted({column for _, cells in block for column in cells})
    rows = [[cells.get(column, "") for column in columns] for _, cells in block]
    if not tables:
        return "\n".join(" ".join(filter(None, row)) for row in rows)
    titles = 0
    while titles + 1 < len(rows) and block[titles][1].keys() == {columns[0]}:
        rows[titles] = rows[titles][:1]
        titles += 1
    heads = titles + 1
    while heads < len(rows) and block[heads - 1][0] in sheet.wide_heads:
        heads += 1  # names over the names of columns
    return markdown_table(rows, heads)
