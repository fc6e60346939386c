"""What other converters made of a document: the element lists of unstructured, docling's JSON.

Schemas: https://docs.unstructured.io/open-source/concepts/document-elements and
https://docling-project.github.io/docling/concepts/docling_document.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from embedtune.documents.grid import markdown_table
from embedtune.documents.html import html_to_markdown
from embedtune.documents.reading import Broken, Part

Row = Mapping[str, Any]  # an object of the file
RUNNING = ("Header", "Footer", "Page-header", "Page-footer", "PageNumber", "page_header",
           "page_footer")  # fmt: skip
_TITLES = ("Title", "Headline", "Subheadline", "Section-header")
_ITEMS = ("ListItem", "List-item", "BulletedText")
MOST_CELLS = 5_000_000  # of one table


class _Text:
    """A document in the making: blocks of Markdown with the pages they stand on."""

    def __init__(self, kind: str) -> None:
        self.part = Part(kind=kind)
        self._blocks: list[str] = []
        self._length = 0
        self._in_list = False
        self.running = 0  # characters of headers and footers

    def add(self, text: str, page: object = None, *, item: bool = False) -> None:
        text = text.strip("\n") if item else text.strip()
        if not text.strip():
            return
        join = ("\n" if item and self._in_list else "\n\n") if self._blocks else ""
        self._in_list = item
        start = self._length + len(join)
        pages = self.part.pages
        is_page = isinstance(page, int) and not isinstance(page, bool) and page > 0
        if is_page and (not pages or pages[-1][1] != page):
            pages.append((start if pages else 0, page))
        self._blocks.append(join + text)
        self._length = start + len(text)

    def heading(self, text: str, rank: int, page: object = None) -> None:
        text = " ".join(text.split())
        self.part.title = self.part.title or text
        if text:
            self.add(f"{'#' * min(6, max(1, rank))} {text}", page)

    def code(self, text: str, page: object = None) -> None:
        fence = "```"
        while fence in text:
            fence += "`"
        if text.strip():
            self.add(f"{fence}\n{text.strip(chr(10))}\n{fence}", page)

    def done(self) -> Part:
        self.part.text = "".join(self._blocks) + "\n"
        if self.running:
            self.part.meta["boilerplate_characters"] = str(self.running)
            self.part.note(f"{self.running} characters of page headers and footers left out")
        return self.part


def _string(row: Row, key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _object(value: object) -> Row:
    return value if isinstance(value, dict) else {}


# ---- unstructured


def is_element(row: Row) -> bool:
    """Whether a row is an element of unstructured, not a row of somebody's data."""
    return (
        isinstance(row.get("type"), str)
        and isinstance(row.get("text"), str)
        and isinstance(row.get("metadata"), dict)
    )


def read_elements(rows: Iterable[tuple[int, Row]], *, tables: bool) -> Iterator[Part]:
    """A document for each file that the elements come from, in the order of their first element.

    Titles become headings as deep as ``category_depth`` says, page headers and footers are left
    out and counted.
    """
    texts: dict[tuple[str, str], _Text] = {}
    for number, row in rows:
        metadata = _object(row.get("metadata"))
        file = (_string(metadata, "file_directory"), _string(metadata, "filename"))
        if file not in texts:
            texts[file] = _Text("unstructured")
            texts[file].part.line = number
            if file[1]:
                texts[file].part.meta["filename"] = file[1]
        _add_element(texts[file], row, metadata, tables=tables)
    for (_, name), text in texts.items():
        part = text.done()
        part.title = part.title or PurePath(name).stem
        part.line = part.line if len(texts) > 1 else None
        yield part


def _add_element(document: _Text, row: Row, metadata: Row, *, tables: bool) -> None:
    kind, text, page = _string(row, "type"), _string(row, "text"), metadata.get("page_number")
    depth = metadata.get("category_depth")
    depth = depth if isinstance(depth, int) and 0 <= depth < 6 else 0
    html = _string(metadata, "text_as_html")
    if kind in RUNNING:
        document.running += len(text)
    elif kind in _TITLES:
        document.heading(text, depth + 1, page)
    elif kind in _ITEMS:
        document.add(f"{'  ' * depth}- {' '.join(text.split())}", page, item=True)
    elif kind == "CodeSnippet":
        document.code(text, page)
    elif html and "<t" in html:
        table = Part(kind="html")
        html_to_markdown(html, table, tables=tables)
        document.add(table.text if table.text.strip() else text, page)
    else:
        document.add(text, page)


# ---- docling


def is_docling(value: Row) -> bool:
    return value.get("schema_name") == "DoclingDocument"


def read_docling(value: Row, *, tables: bool) -> Part:
    """The body of a ``DoclingDocument``; what it counts as furniture is left out and counted.

    Raises:
        Broken: It has no body.
    """
    body = _object(value.get("body"))
    if not body:
        raise Broken("docling", "a DoclingDocument without a body; convert the document again")
    walk = _Docling(value, tables=tables)
    walk.children(body)
    part = walk.text.done()
    if walk.lost:
        part.reject("docling", f"{walk.lost} references of the body lead nowhere")
    origin = _string(_object(value.get("origin")), "filename")
    if origin:
        part.meta["filename"] = origin
    part.title = part.title or _string(value, "name")
    return part


class _Docling:
    """One walk through the tree of a document, in reading order."""

    def __init__(self, document: Row, *, tables: bool) -> None:
        self.document = document
        self.tables = tables
        self.text = _Text("docling")
        self.lost = 0
        self._seen: set[str] = set()

    def children(self, item: Row, depth: int = -1) -> None:
        for place, child in enumerate(self._resolve(item.get("children")), 1):
            self._add(child, depth, place)

    def _resolve(self, references: object) -> Iterator[Row]:
        """The items referred to, each only once in the whole document."""
        for reference in references if isinstance(references, list) else ():
            pointer = _string(_object(reference), "$ref") or _string(_object(reference), "cref")
            if pointer in self._seen:
                continue
            self._seen.add(pointer)
            found: Any = self.document
            for key in pointer.removeprefix("#/").split("/"):
                if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                    found = found[int(key)]
                else:
                    found = _object(found).get(key)
            if isinstance(found, dict):
                yield found
            else:
                self.lost += 1

    def _add(self, item: Row, depth: int, place: int) -> None:
        label = _string(item, "label")
        if _string(item, "content_layer") not in ("", "body", "notes") or label in RUNNING:
            self.text.running += len(_words(item))
            return
        page = _page(item)
        words = _words(item)
        if label in ("list", "ordered_list"):
            self.children(item, depth + 1)
        elif label == "inline":
            self.text.add(self._inline(item), page)
        elif "data" in item and "table_cells" in _object(item["data"]):
            self._table(item, page)
        elif label in ("title", "section_header"):
            level = item.get("level") if label == "section_header" else 0
            rank = (level if isinstance(level, int) else 1) + 1
            self.text.heading(words or self._first_inline(item), rank, page)
            self.children(item)
        elif label == "list_item":
            words = " ".join((words or self._first_inline(item)).split())
            mark = f"{place}." if item.get("enumerated") is True else "-"
            indent = "   " * max(0, depth)
            if words:
                self.text.add(f"{indent}{mark} {words}", page, item=True)
            self.children(item, max(0, depth))
        elif label == "code":
            self.text.code(words, page)
        elif "graph" in item:
            self.text.add("\n".join(_pairs(_object(item["graph"]))), page)
        else:
            self._caption(item, page)
            marks = {"checkbox_selected": "[x] ", "checkbox_unselected": "[ ] "}
            self.text.add(marks.get(label, "") + words if words else "", page)
            self.children(item, depth)

    def _first_inline(self, item: Row) -> str:
        """The words of an item that holds them in a group of differently formatted stretches."""
        children = item.get("children")
        first = children[:1] if isinstance(children, list) else []
        for child in self._peek(first):
            if _string(child, "label") == "inline":
                self._seen.add(_string(_object(first[0]), "$ref"))
                return self._inline(child)
        return ""

    def _peek(self, references: Sequence[object]) -> list[Row]:
        before = set(self._seen)
        found = list(self._resolve(references))
        self._seen = before
        return found

    def _inline(self, group: Row) -> str:
        text = ""
        for child in self._resolve(group.get("children")):
            words = _words(child)
            if _string(child, "label") == "inline":
                words = self._inline(child)
            text += (" " if _apart(text[-1:], words[:1]) else "") + words
        return text

    def _caption(self, item: Row, page: object) -> None:
        for caption in self._resolve(item.get("captions")):
            self.text.add(_words(caption), page)

    def _table(self, item: Row, page: object) -> None:
        self._caption(item, page)
        data = _object(item["data"])
        rows = _grid(data)
        if self.tables:
            self.text.add(markdown_table(rows, _heads(data)), page)
        else:
            self.text.add("\n".join(" ".join(filter(None, row)) for row in rows), page)
        for note in self._resolve(item.get("footnotes")):
            self.text.add(_words(note), page)
        self._pass_over(item)

    def _pass_over(self, item: Row) -> None:
        """The text of cells stands under the table once more, with its structure."""
        for child in self._resolve(item.get("children")):
            self._pass_over(child)


def _apart(before: str, after: str) -> bool:
    """Whether a space stands between two characters, as between words, but not in Chinese."""
    words = after.isalnum() and (before.isalnum() or before in ",;:.)")
    return bool(before and words) and max(before, after) < "\u2e80"


def _words(item: Row) -> str:
    text = _string(item, "text") or _string(item, "orig")
    if text:
        return text
    notes = item.get("annotations")  # what a model said of a picture
    notes = notes if isinstance(notes, list) else []
    described = (_string(_object(note), "text") for note in notes)
    return "\n".join(filter(None, described))


def _page(item: Row) -> object:
    places = item.get("prov")
    return _object(places[0]).get("page_no") if isinstance(places, list) and places else None


def _number(row: Row, key: str, default: int) -> int:
    value = row.get(key)
    return value if isinstance(value, int) and value >= 0 else default


def _objects(row: Row, key: str) -> list[Row]:
    items = row.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _place(cell: Row) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last."""
    top = _number(cell, "start_row_offset_idx", 0)
    left = _number(cell, "start_col_offset_idx", 0)
    bottom = _number(cell, "end_row_offset_idx", top + 1)
    right = _number(cell, "end_col_offset_idx", left + 1)
    return top, max(top + 1, bottom), left, max(left + 1, right)


def _grid(data: Row) -> list[list[str]]:
    """The text of every place; cells over a whole row stay single."""
    cells = [(_string(cell, "text"), *_place(cell)) for cell in _objects(data, "table_cells")]
    height = max((bottom for _, _, bottom, _, _ in cells), default=0)
    width = max((right for *_, right in cells), default=0)
    if width * height > MOST_CELLS:
        raise Broken("docling", f"a table of {height:,} × {width:,} cells")
    grid = [[""] * width for _ in range(height)]
    for text, top, bottom, left, right in cells:
        for row in range(top, bottom):
            if right - left == width > 1:
                grid[row] = [text]
            for column in range(left, min(right, len(grid[row]))):
                grid[row][column] = grid[row][column] or text
    return grid


def _heads(data: Row) -> int:
    marked = {
        _place(cell)[0]
        for cell in _objects(data, "table_cells")
        if cell.get("column_header") is True
    }
    count = 0
    while count in marked:
        count += 1
    return max(1, count)


def _pairs(graph: Row) -> list[str]:
    """The keys and values of a form."""
    cells = {str(cell.get("cell_id")): _string(cell, "text") for cell in _objects(graph, "cells")}
    lines, told = [], set()
    for link in _objects(graph, "links"):
        if _string(link, "label") == "to_value":
            key, value = str(link.get("source_cell_id")), str(link.get("target_cell_id"))
            lines.append(f"{cells.get(key, '')}: {cells.get(value, '')}")
            told |= {key, value}
    return lines + [text for number, text in cells.items() if number not in told and text]
