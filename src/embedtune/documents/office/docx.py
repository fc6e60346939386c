"""DOCX files as Markdown: put in order for mammoth, which makes HTML of them, then read as HTML.

What mammoth does not see is put where it does: text boxes, formulas, fields, charts, diagrams,
footnotes, the numbers of numbered paragraphs, headings by outline level. What nobody reads is taken
out: deleted and hidden text, the table of contents, running heads.
"""

import copy
import io
import re
import zipfile
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError

from embedtune.documents.html import html_to_markdown
from embedtune.documents.office import drawing
from embedtune.documents.office.drawing import name
from embedtune.documents.office.numbering import BULLET, LEVELS, Numbering
from embedtune.documents.office.package import Package, open_package
from embedtune.documents.reading import Broken, Part

if TYPE_CHECKING:
    from lxml.etree import _Element

_HEADING = re.compile(r"(?:heading|überschrift|titre|标题|標題|見出し)\s*([1-9])", re.IGNORECASE)
_TITLE = re.compile(r"title|标题|標題|titel|titre", re.IGNORECASE)
_CONTENTS = re.compile(r"(?:toc|目录|目錄)\s*(?:\d|heading|标题)", re.IGNORECASE)
_DELETED = ("del", "moveFrom", "proofErr", "bookmarkStart", "bookmarkEnd", "lastRenderedPageBreak",
            "permStart", "permEnd", "commentRangeStart", "commentRangeEnd", "commentReference",
            "annotationRef", "footnoteRef", "endnoteRef", "rt")  # fmt: skip
_WRAPPERS = ("ins", "moveTo", "fldSimple", "dir", "bdo", "hyperlink", "smartTag", "customXml",
             "ruby", "rubyBase")  # fmt: skip
_BEFORE = {"sup": "^", "sub": "_"}  # parts of a formula -> what stands before them
BULLETS = "1"  # the only list left for mammoth; numbers are text by then
_MARK = "\ue000{}\ue001"  # stands in the text for Markdown of its own


def read_docx(data: bytes, *, tables: bool) -> Part:
    """The text of a DOCX with its headings, lists, tables and notes, as Markdown.

    Raises:
        Broken: Not an Office Open XML file, or an archive or XML that is not safe to expand.
    """
    package = open_package(data, "docx")
    part = Part(kind="docx")
    story = _Story(package, part)
    import mammoth

    try:
        result = mammoth.convert_to_html(
            io.BytesIO(story.archive()),
            convert_image=mammoth.images.img_element(lambda _: {}),
        )
    except (KeyError, ValueError, zipfile.BadZipFile, OSError, EOFError, AttributeError,
            IndexError, TypeError, ExpatError, NotImplementedError) as error:  # fmt: skip
        # mammoth lets whatever its XML reader meets through
        raise Broken(
            "broken-docx", f"cannot be read ({type(error).__name__}: {error}); save it again"
        ) from error
    html_to_markdown(result.value, part, tables=tables)
    for number, text in enumerate(story.graphics):
        part.text = part.text.replace(_MARK.format(number), text)
    return part


class _Story:
    """The text of a document, put in order."""

    def __init__(self, package: Package, part: Part) -> None:
        self.package = package
        self.part = part
        self.graphics: list[str] = []
        kinds = package.relations("").values()
        self.main = next((to for kind, to in kinds if kind == "officeDocument"), "")
        self.main = self.main or "word/document.xml"
        self.relations = package.relations(self.main)
        self.parts = {kind: path for kind, path in self.relations.values() if path in package.names}
        self.root = package.xml(self.main)
        styles = self._root("styles")
        self.numbering = Numbering(self._root("numbering"), styles)
        self.levels, self.contents = _styles(styles)
        self.hidden = 0
        self._take_out_contents()
        self._tidy(self.root)
        self._text_boxes()
        self._graphics()
        self._notes()
        for element in list(self.root.iter(*(f"{{*}}{tag}" for tag in _WRAPPERS))):
            _unwrap(element)
        self._paragraphs()
        _merge_runs(self.root)
        self._say_what_is_missing()

    def _root(self, kind: str) -> "_Element | None":
        return self.package.xml(self.parts[kind]) if kind in self.parts else None

    def archive(self) -> bytes:
        """What mammoth needs, as a small archive."""
        from lxml import etree

        folder, _, file = self.main.rpartition("/")
        kept = ["[Content_Types].xml", "_rels/.rels", f"{folder}/_rels/{file}.rels".lstrip("/")]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(self.main, etree.tostring(self.root, encoding="utf-8"))
            numbering = self.parts.get("numbering", "word/numbering.xml")
            archive.writestr(numbering, etree.tostring(_bullets(self.root), encoding="utf-8"))
            for entry in kept:
                if entry in self.package.names:
                    archive.writestr(entry, self.package.read(entry))
        return buffer.getvalue()

    def _take_out_contents(self) -> None:
        """The table of contents says nothing that the headings do not say."""
        count = 0
        for gallery in list(self.root.iter("{*}docPartGallery")):
            if "contents" in _value(gallery).lower():
                box = next(gallery.iterancestors("{*}sdt"))
                count += sum(1 for _ in box.iter("{*}p"))
                _remove(box)
        for paragraph in list(self.root.iter("{*}p")):
            if _style(paragraph) in self.contents:
                count += 1
                _remove(paragraph)
        if count:
            self.part.note(f"a table of contents of {count} lines left out")

    def _tidy(self, root: "_Element") -> None:
        """Take out what is deleted or hidden, and write formulas as text."""
        drawing.settle(root)
        for mark in list(root.iter("{*}del")):
            if name(mark.getparent()) == "trPr":
                _remove(mark.getparent().getparent())
        for mark in list(root.iter("{*}showingPlcHdr")):
            _remove(next(mark.iterancestors("{*}sdt")))
        for element in list(root.iter(*(f"{{*}}{tag}" for tag in _DELETED))):
            if name(element.getparent()) not in ("rPr", "trPr"):
                _remove(element)
        for mark in list(root.iter("{*}vanish")):
            run = mark.getparent().getparent()
            if name(run) == "r" and _value(mark) not in ("0", "false"):
                self.hidden += any((text.text or "").strip() for text in run.iter("{*}t"))
                _remove(run)
        for formula in list(root.iter("{*}oMath")):
            text = " ".join(_formula(formula).split())
            parent = formula.getparent()
            parent.replace(formula, _run(self.root, text))
            if name(parent) == "oMathPara":
                _unwrap(parent)

    def _text_boxes(self) -> None:
        """The paragraphs of a text box come after the one that it hangs on."""
        last: dict[_Element, _Element] = {}
        for box in list(self.root.iter("{*}txbxContent")):
            host = next(box.iterancestors("{*}p"), None)
            if host is not None:
                _insert(host, list(box), last)

    def _graphics(self) -> None:
        last: dict[_Element, _Element] = {}
        for frame in list(self.root.iter("{*}drawing")):
            text = drawing.graphic(frame, self.package, self.relations)
            if text:
                mark = _MARK.format(len(self.graphics))
                self.graphics.append(text)
                tables = list(frame.iterancestors("{*}tbl"))
                host = tables[-1] if tables else next(frame.iterancestors("{*}p"))
                _insert(host, [_paragraph(self.root, _run(self.root, mark))], last)

    def _notes(self) -> None:
        """Footnotes come after their paragraph, endnotes at the end."""
        last: dict[_Element, _Element] = {}
        number = 0
        for kind in ("footnote", "endnote"):
            root = self._root(f"{kind}s")
            if root is not None:
                self._tidy(root)
            found = root.iterfind(f"{{*}}{kind}") if root is not None else ()
            notes = {note.get(_w(note, "id")): note for note in found}
            for reference in list(self.root.iter(f"{{*}}{kind}Reference")):
                note = notes.get(reference.get(_w(reference, "id")))
                host = next(reference.iterancestors("{*}p"), None)
                if note is None or host is None:
                    _remove(reference)
                    continue
                number += 1
                reference.getparent().replace(reference, _text(self.root, f"[{number}]"))
                paragraphs = [copy.deepcopy(p) for p in note.iter("{*}p")]
                for paragraph in paragraphs:
                    for child in list(paragraph.iter("{*}pPr", "{*}drawing", "{*}pict")):
                        _remove(child)
                if paragraphs:
                    paragraphs[0].insert(0, _run(self.root, f"[{number}] "))
                if kind == "endnote":
                    host = self.root.find("{*}body")[-1]
                _insert(host, paragraphs, last)

    def _paragraphs(self) -> None:
        """Labels of numbered paragraphs become text, outline levels become styles."""
        within = set(self.root.iterfind(".//{*}tbl//{*}p"))
        for paragraph in self.root.iter("{*}p"):
            properties = paragraph.find("{*}pPr")
            if properties is None:
                continue
            label = self.numbering.label(paragraph)
            own = properties.find("{*}outlineLvl")
            level = self.levels.get(_style(paragraph), 0) if own is None else _level(own)
            for tag in ("numPr", "pStyle", "outlineLvl"):
                for element in properties.findall(f"{{*}}{tag}"):
                    properties.remove(element)
            if level and paragraph not in within:
                properties.insert(0, _valued(self.root, "pStyle", f"Heading{min(level, 6)}"))
            if label is None:
                continue
            depth, text = label
            if text != BULLET:
                properties.addnext(_run(self.root, text.lstrip()))
            elif not level:
                item = _element(self.root, "numPr")
                item.append(_valued(self.root, "ilvl", str(depth)))
                item.append(_valued(self.root, "numId", BULLETS))
                properties.append(item)

    def _say_what_is_missing(self) -> None:
        if self.hidden:
            self.part.meta["hidden_elements"] = str(self.hidden)
            self.part.note(f"{self.hidden} hidden stretches of text dropped")
        running = {
            text
            for kind, path in self.relations.values()
            if kind in ("header", "footer") and path in self.package.names
            for text in drawing.paragraphs(self.package.xml(path))
            if any(map(str.isalpha, text))
        }
        if running:
            self.part.meta["boilerplate_characters"] = str(sum(map(len, running)))
            self.part.note(f"{len(running)} lines of page headers and footers left out")
        if "comments" in self.parts:
            self.part.note("comments in the margin are left out")
        if self.root.find(".//{*}altChunk") is not None:
            self.part.reject("embedded", "an embedded file is not read; save the document again")


def _bullets(root: "_Element") -> "_Element":
    """A numbering part with one list, of bullets on every level."""
    numbering = _element(root, "numbering")
    definition = _element(root, "abstractNum")
    definition.set(_w(root, "abstractNumId"), BULLETS)
    for depth in range(LEVELS):
        level = _element(root, "lvl")
        level.set(_w(root, "ilvl"), str(depth))
        level.append(_valued(root, "numFmt", "bullet"))
        definition.append(level)
    use = _element(root, "num")
    use.set(_w(root, "numId"), BULLETS)
    use.append(_valued(root, "abstractNumId", BULLETS))
    numbering.extend([definition, use])
    return numbering


def _styles(root: "_Element | None") -> tuple[dict[str, int], set[str]]:
    """Heading level, from 1, by style; and the styles of tables of contents."""
    levels: dict[str, int] = {}
    contents: set[str] = set()
    if root is None:
        return levels, contents
    styles = {style.get(_w(style, "styleId"), ""): style for style in root.iterfind("{*}style")}
    for known in styles:
        here, seen = known, set()
        while here in styles and here not in seen:
            seen.add(here)
            label = _find(styles[here], "name")
            outline = styles[here].find("{*}pPr/{*}outlineLvl")
            named = _HEADING.fullmatch(label)
            if _CONTENTS.match(label):
                contents.add(known)
                break
            if outline is not None or named or _TITLE.fullmatch(label):
                level = _level(outline) if outline is not None else int(named[1]) if named else 1
                if level:
                    levels[known] = level
                break
            here = _find(styles[here], "basedOn")
    return levels, contents


def _formula(element: "_Element") -> str:
    """A formula on one line: a/b, x^2, a_i."""
    text = ""
    for child in element:
        tag = name(child)
        if tag == "t":
            text += child.text or ""
            continue
        inner = _formula(child)
        if tag in ("num", "den", "sup", "sub", "deg") and len(inner) > 1:
            inner = f"({inner})"
        text += _BEFORE.get(tag, "") + inner + ("/" if tag == "num" else "")
    return text


def _merge_runs(root: "_Element") -> None:
    """How letters look does not matter here, and thousands of runs would cost mammoth minutes."""
    for paragraph in root.iter("{*}p"):
        before = None
        for child in list(paragraph):
            if name(child) != "r":
                before = None
                continue
            for look in child.findall("{*}rPr"):
                child.remove(look)
            if before is None:
                before = child
                continue
            for part in list(child):
                last = before[-1] if len(before) else None
                if name(part) == "t" and last is not None and name(last) == "t":
                    last.text = (last.text or "") + (part.text or "")
                else:
                    before.append(part)
            paragraph.remove(child)


# ---- elements


def _w(element: "_Element", key: str) -> str:
    """A name in the namespace of ``element``."""
    return f"{str(element.tag).rpartition('}')[0]}}}{key}"


def _value(element: "_Element") -> str:
    return element.get(_w(element, "val"), "")


def _find(element: "_Element", tag: str) -> str:
    found = element.find(f"{{*}}{tag}")
    return "" if found is None else _value(found)


def _style(paragraph: "_Element") -> str:
    found = paragraph.find("{*}pPr/{*}pStyle")
    return "" if found is None else _value(found)


def _level(outline: "_Element") -> int:
    """1 to 9; 0 for body text."""
    value = _value(outline)
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0


def _element(root: "_Element", tag: str) -> "_Element":
    return root.makeelement(_w(root, tag))


def _valued(root: "_Element", tag: str, value: str) -> "_Element":
    element = _element(root, tag)
    element.set(_w(root, "val"), value)
    return element


def _text(root: "_Element", text: str) -> "_Element":
    element = _element(root, "t")
    element.text = text
    return element


def _run(root: "_Element", text: str) -> "_Element":
    run = _element(root, "r")
    run.append(_text(root, text))
    return run


def _paragraph(root: "_Element", run: "_Element") -> "_Element":
    paragraph = _element(root, "p")
    paragraph.append(run)
    return paragraph


def _insert(host: "_Element", elements: "list[_Element]", last: "dict[_Element, _Element]") -> None:
    """Put elements after ``host``, and after those put there before."""
    for element in elements:
        last.get(host, host).addnext(element)
        last[host] = element


def _remove(element: "_Element") -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _unwrap(element: "_Element") -> None:
    parent = element.getparent()
    if parent is not None:
        place = parent.index(element)
        parent[place : place + 1] = list(element)
