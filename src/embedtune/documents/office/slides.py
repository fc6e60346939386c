"""PPTX presentations: a heading for each slide, below it its text, tables, charts and notes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embedtune.documents.office import drawing
from embedtune.documents.office.drawing import name
from embedtune.documents.office.package import Package, open_package
from embedtune.documents.reading import Part

if TYPE_CHECKING:
    from lxml.etree import _Element

RUNNING = ("dt", "ftr", "sldNum", "hdr")  # date, footer, slide number, header
TITLES = ("title", "ctrTitle")
OPENING = ("title", "secHead")  # layouts whose title stands above the slides that follow


def read_pptx(data: bytes) -> Part:
    """All visible slides as one document; ``pages`` are the numbers of the slides.

    Shapes come in the order of the file, the one that screen readers use too, the title first.

    Raises:
        Broken: Not a PowerPoint presentation, not safe to expand, or damaged.
    """
    package = open_package(data, "pptx")
    part = Part(kind="pptx")
    hidden: list[int] = []
    texts: list[str] = []
    length = 0
    for number, path in enumerate(_slides(package), 1):
        root = package.xml(path)
        if root.get("show") in ("0", "false"):
            hidden.append(number)
            continue
        title, text = _slide(root, path, package)
        part.title = part.title or title
        if text:
            part.pages.append((length, number))
            texts.append(text)
            length += len(text) + 2
    part.text = "\n\n".join(texts) + "\n"
    if hidden:
        shown = ", ".join(map(str, hidden[:20]))
        part.note(f"{len(hidden)} hidden slides left out: {shown}; unhide to read them")
    if any(entry.startswith("ppt/comments/") for entry in package.names):
        part.note("comments on slides are left out")
    return part


def _slides(package: Package) -> Iterator[str]:
    relations = package.relations("")
    main = next((to for kind, to in relations.values() if kind == "officeDocument"), "")
    main = main or "ppt/presentation.xml"
    parts = package.relations(main)
    for slide in package.xml(main).iterfind("{*}sldIdLst/{*}sldId"):
        _, path = parts.get(drawing.relation(slide, "id"), ("", ""))
        if path in package.names:
            yield path


def _slide(root: "_Element", path: str, package: Package) -> tuple[str, str]:
    """Title and Markdown of a slide."""
    drawing.settle(root)
    relations = package.relations(path)
    targets = dict(relations.values())
    layout = targets.get("slideLayout", "")
    opening = layout in package.names and package.xml(layout).get("type") in OPENING
    title, blocks = "", []
    for shape in _shapes(root):
        kind = _placeholder(shape)
        if kind in TITLES and not title:
            title = " ".join(drawing.paragraphs(shape))
        elif name(shape) == "graphicFrame":
            blocks.append(drawing.graphic(shape, package, relations))
        elif name(shape) == "pic":
            blocks.append(drawing.alternative_text(shape))
        elif kind not in RUNNING:
            blocks.append(_text(shape, kind))
    if title:
        blocks.insert(0, f"{'#' if opening else '##'} {title}")
    if (notes := targets.get("notesSlide", "")) in package.names:
        spoken = package.xml(notes)
        blocks += [_text(shape, "notes") for shape in _shapes(spoken)
                   if _placeholder(shape) == "body"]  # fmt: skip
    return title, "\n\n".join(filter(None, blocks))


def _shapes(root: "_Element") -> Iterator["_Element"]:
    """Shapes in order, those of groups in the place of the group; hidden ones left out."""
    tree = root.find("{*}cSld/{*}spTree")
    waiting = list(tree)[::-1] if tree is not None else []
    while waiting:
        shape = waiting.pop()
        properties = shape.find("*/{*}cNvPr") if name(shape) else None
        if properties is not None and properties.get("hidden") in ("1", "true"):
            continue
        if name(shape) == "grpSp":
            waiting += list(shape)[::-1]
        elif name(shape) in ("sp", "pic", "graphicFrame", "cxnSp"):
            yield shape


def _placeholder(shape: "_Element") -> str | None:
    """The kind of a placeholder (``obj`` where it does not say); None for other shapes."""
    mark = shape.find("*/{*}nvPr/{*}ph")
    return None if mark is None else mark.get("type", "obj")


def _text(shape: "_Element", kind: str | None) -> str:
    """The paragraphs of a shape; those of the body, and those with bullets, as a list."""
    body = shape.find("{*}txBody")
    if body is None:
        return ""
    found = [(p, text) for p in body.iterfind("{*}p") if (text := drawing.paragraph_text(p))]
    lines = []
    counts: dict[int, int] = {}
    for paragraph, text in found:
        properties = paragraph.find("{*}pPr")
        level = int(properties.get("lvl", "0")) if properties is not None else 0
        marks = {name(child) for child in properties} if properties is not None else set()
        counts = {deeper: count for deeper, count in counts.items() if deeper <= level}
        if "buAutoNum" in marks:
            counts[level] = counts.get(level, 0) + 1
            lines.append(f"{'   ' * level}{counts[level]}. {text}")
            continue
        counts.pop(level, None)
        listed = kind in ("obj", "body") and len(found) > 1 and "buNone" not in marks
        if listed or "buChar" in marks or "buBlip" in marks:
            lines.append(f"{'  ' * level}- {text}")
        else:
            lines.append(text)
    return "\n".join(lines)
