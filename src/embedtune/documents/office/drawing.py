"""DrawingML, the language of shapes in Office files: text, tables, charts, diagrams (SmartArt)."""

from typing import TYPE_CHECKING

from embedtune.documents.grid import Cell, markdown_table, spread
from embedtune.documents.office.package import Package
from embedtune.documents.office.shown import GENERAL, shown

if TYPE_CHECKING:
    from lxml.etree import _Element

_FILE_NAMES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".emf", ".wmf", ".svg", ".tif", ".tiff")


def settle(root: "_Element") -> None:
    """Keep one of the alternatives that a file offers to newer and older programs.

    The newer one, unless only the older has words or pictures.
    """
    for choice in list(root.iter("{*}AlternateContent")):
        options = [child for child in choice if name(child) in ("Choice", "Fallback")]
        best = next((child for child in options if _worth(child)), None)
        parent = choice.getparent()
        if parent is not None:
            place = parent.index(choice)
            parent[place : place + 1] = list(best) if best is not None else []


def _worth(element: "_Element") -> bool:
    pictures = element.iter("{*}blip", "{*}imagedata", "{*}chart", "{*}relIds")
    return any((text.text or "").strip() for text in element.iter("{*}t")) or any(
        True for _ in pictures
    )


def paragraph_text(paragraph: "_Element") -> str:
    """The words of a paragraph as one line, without the numbers and dates that fields insert."""
    words = []
    for part in paragraph.iter("{*}t", "{*}br", "{*}tab"):
        if name(part) != "t":
            words.append(" ")
        elif not str(part.getparent().get("type") or "").startswith(("slidenum", "datetime")):
            words.append(part.text or "")
    return " ".join("".join(words).split())


def paragraphs(element: "_Element") -> list[str]:
    """The paragraphs below ``element`` that hold text, a line each."""
    return list(filter(None, map(paragraph_text, element.iter("{*}p"))))


def graphic(element: "_Element", package: Package, relations: dict[str, tuple[str, str]]) -> str:
    """Table, chart or diagram in a frame, as Markdown; empty where there are no words in it.

    Args:
        relations: Of the part that ``element`` belongs to.
    """
    table = element.find(".//{*}tbl")
    if table is not None:
        return _table(table)
    texts = []
    for reference in element.iter("{*}chart", "{*}relIds"):
        key = "id" if name(reference) == "chart" else "dm"
        _, target = relations.get(relation(reference, key), ("", ""))
        if target in package.names:
            root = package.xml(target)
            lines = "\n".join(f"- {line}" for line in paragraphs(root))
            texts.append(chart(root) if key == "id" else lines)
    return "\n\n".join(filter(None, texts))


def alternative_text(element: "_Element") -> str:
    """What a picture is described as, unless that is only the name of a file."""
    for properties in element.iter("{*}cNvPr", "{*}docPr"):
        text = " ".join((properties.get("descr") or "").split())
        return "" if text.lower().endswith(_FILE_NAMES) else text
    return ""


def relation(element: "_Element", key: str) -> str:
    """An attribute of the relationships namespace, of which there are two editions."""
    return next((value for full, value in element.items() if full.endswith(f"}}{key}")), "")


def name(element: "_Element") -> str:
    """The name of an element without its namespace; empty for a comment."""
    return str(element.tag).rpartition("}")[2] if isinstance(element.tag, str) else ""


def _table(table: "_Element") -> str:
    rows = []
    for row in table.iterfind("{*}tr"):
        cells = []
        for cell in row.iterfind("{*}tc"):
            if cell.get("hMerge") not in ("1", "true") and cell.get("vMerge") not in ("1", "true"):
                text = " ".join(paragraphs(cell))
                cells.append(Cell(text, _count(cell, "rowSpan"), _count(cell, "gridSpan")))
        rows.append(cells)
    return markdown_table(spread(rows))


def _count(cell: "_Element", key: str) -> int:
    value = cell.get(key, "1")
    return max(1, int(value)) if value.isdecimal() else 1


# ---- charts


def chart(root: "_Element") -> str:
    """Titles and values of a chart (the root of its part), as a Markdown table."""
    titles = [line for title in root.iter("{*}title") for line in paragraphs(title)]
    series = list(root.iter("{*}ser"))
    names = [" ".join(_values(one.find("{*}tx")).values()) for one in series]
    columns = [_values(_first(one, "val", "yVal")) for one in series]
    labels: dict[int, str] = {}
    for one in series:
        labels |= _values(_first(one, "cat", "xVal"))
    places = sorted(set(labels).union(*columns))
    rows = [
        [labels.get(place, str(place + 1)), *(column.get(place, "") for column in columns)]
        for place in places
    ]
    table = markdown_table([[" ", *names], *rows]) if rows else ""
    return "\n\n".join(filter(None, ("\n".join(titles), table)))


def _first(series: "_Element", *names: str) -> "_Element | None":
    found = (series.find(f"{{*}}{key}") for key in names)
    return next((element for element in found if element is not None), None)


def _values(element: "_Element | None") -> dict[int, str]:
    """Place -> text of the values stored with a chart. Those of several levels are joined."""
    values: dict[int, str] = {}
    if element is None:
        return values
    code = element.findtext(".//{*}formatCode") or GENERAL
    points = list(element.iter("{*}pt"))
    if not points:
        text = element.findtext("{*}v")
        return {0: text} if text else {}
    numbers = any(True for _ in element.iter("{*}numCache", "{*}numLit"))
    for point in reversed(points):  # the outermost level comes last
        place = int(point.get("idx", "0"))
        text = point.findtext("{*}v") or ""
        if numbers:
            text = _shown(text, point.get("formatCode") or code)
        values[place] = f"{values[place]} {text}" if place in values else text
    return values


def _shown(text: str, code: str) -> str:
    try:
        return shown(float(text), code)
    except (ValueError, OverflowError):
        return text
