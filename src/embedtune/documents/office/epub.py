"""EPUB books: their chapters in reading order."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from embedtune.documents.html import decoded_page, html_to_markdown
from embedtune.documents.office.drawing import name
from embedtune.documents.office.package import Package, joined, open_package
from embedtune.documents.reading import Broken, Part

if TYPE_CHECKING:
    from lxml.etree import _Element

CHAPTERS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
# what only makes fonts unusable outside the book
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(data: bytes, *, tables: bool) -> Part:
    """The text of a book. A chapter without a heading gets its name in the table of contents.

    A chapter that is missing or damaged is named in ``rejects``; the others are kept.

    Raises:
        Broken: Not an EPUB book, protected against copying, or not safe to expand.
    """
    package = open_package(data, "epub")
    book = _Book(package)
    part = Part(kind="epub", title=book.title)
    texts: list[str] = []
    hidden = replaced = 0
    for path in book.chapters:
        chapter = Part(kind="html")
        try:
            html, _ = decoded_page(package.read(path), "replace")
            html_to_markdown(html, chapter, tables=tables)
        except Broken as error:
            if error.code == "entities":
                raise
            part.reject("chapter", f"chapter {path}: {error}")
            continue
        hidden += int(chapter.meta.get("hidden_elements", "0"))
        replaced += int(chapter.meta.get("replaced_characters", "0"))
        text = chapter.text.strip()
        if text and path in book.names and not re.search(r"^#{1,6} ", text, re.MULTILINE):
            text = f"# {book.names[path]}\n\n{text}"
        texts.append(text)
    if hidden:
        part.meta["hidden_elements"] = str(hidden)
        part.note(f"{hidden} hidden elements dropped")
    if replaced:
        part.meta["replaced_characters"] = str(replaced)
        part.note(f"{replaced} control or broken characters replaced by U+FFFD")
    part.text = "\n\n".join(filter(None, texts)) + "\n"
    return part


class _Book:
    """Title, chapters in reading order, and their names in the table of contents."""

    def __init__(self, package: Package) -> None:
        self.package = package
        container = package.xml("META-INF/container.xml")
        paths = [root.get("full-path", "") for root in container.iter("{*}rootfile")]
        if not paths:
            raise Broken("broken-epub", "META-INF/container.xml names no book; save it again")
        self.folder = paths[0].rpartition("/")[0]
        root = package.xml(paths[0], recover=True)
        title = root.find(".//{http://purl.org/dc/elements/1.1/}title")
        self.title = " ".join("".join(title.itertext()).split()) if title is not None else ""
        items = {item.get("id", ""): item for item in root.iter("{*}item")}
        contents = [item for item in items.values() if "nav" in item.get("properties", "").split()]
        contents += [mark for mark in root.iter("{*}reference") if mark.get("type") == "toc"]
        listed = {self._path(item) for item in contents}
        order = [items[ref.get("idref", "")] for ref in root.iter("{*}itemref")
                 if ref.get("idref") in items]  # fmt: skip
        pages = [item for item in order or items.values() if item.get("media-type") in CHAPTERS]
        self.chapters = [path for item in pages if (path := self._path(item)) not in listed]
        self._refuse_protection()
        self.names: dict[str, str] = {}
        for item in items.values():
            if item.get("media-type") == "application/x-dtbncx+xml" or item in contents:
                self._learn_names(self._path(item))

    def _path(self, item: "_Element") -> str:
        return joined(self.folder, unquote(item.get("href", "").partition("#")[0]))

    def _refuse_protection(self) -> None:
        listing = "META-INF/encryption.xml"
        if listing not in self.package.names:
            return
        for entry in self.package.xml(listing).iter("{*}EncryptedData"):
            method = entry.find("{*}EncryptionMethod")
            algorithm = method.get("Algorithm", "") if method is not None else ""
            hidden = {unquote(it.get("URI", "")) for it in entry.iter("{*}CipherReference")}
            if algorithm not in FONTS and hidden & set(self.chapters):
                raise Broken("drm", "protected against copying (DRM), its chapters are encrypted; "
                                    "use a copy without protection")  # fmt: skip

    def _learn_names(self, path: str) -> None:
        """From a table of contents: a navigation page, or the older NCX."""
        if path not in self.package.names:
            return
        folder = path.rpartition("/")[0]
        for entry in self.package.xml(path, recover=True).iter("{*}a", "{*}navPoint"):
            target = entry.find("{*}content")
            link = entry.get("href") if target is None else target.get("src")
            label = entry if name(entry) == "a" else entry.find("{*}navLabel")
            text = " ".join("".join(label.itertext()).split()) if label is not None else ""
            if link and text:
                chapter = joined(folder, unquote(link.partition("#")[0]))
                self.names.setdefault(chapter, text)
