"""Documents that are archives (Office Open XML, EPUB), checked before anything in them is expanded.

What is refused: bombs, entries that leave the folder, document types (entities), passwords, and
files that are something else than their name says.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.parsers import expat

from embedtune.documents.reading import Broken

if TYPE_CHECKING:
    from lxml.etree import _Element

MOST_ENTRIES = 10_000
MOST_BYTES = 300_000_000  # expanded
MOST_RATIO = 200  # expanded to packed, above 10 MB
PROLOG = 1 << 16  # bytes fed to the parser at a time until the root element begins

_OLE = b"\xd0\xcf\x11\xe0"
_OLE_CONTENTS = (  # names in the directory of an OLE file, in UTF-16
    ("EncryptedPackage", "password", "protected by a password; save it without one"),
    ("WordDocument", "", "not an Office Open XML file, but an old Word document; save it as .docx"),
    ("Workbook", "", "not an Office Open XML file, but an old Excel workbook; save it as .xlsx"),
    ("Book", "", "not an Office Open XML file, but an old Excel workbook; save it as .xlsx"),
    ("PowerPoint Document", "",
     "not an Office Open XML file, but an old PowerPoint presentation; save it as .pptx"),
)  # fmt: skip
_MAIN_PARTS = {
    "docx": ("word/", "a Word document"),
    "pptx": ("ppt/", "a PowerPoint presentation"),
    "xlsx": ("xl/", "an Excel workbook"),
    "epub": ("META-INF/container.xml", "an EPUB book"),
}
_BEGINNINGS = (
    (rb"%PDF-", "a PDF"),
    (rb"\{\\rtf", "an RTF text"),
    (rb"(?:<\?xml[^>]*>\s*)?<!doctype html|<html", "an HTML page"),
    (rb"<\?xml", "an XML file"),
    (rb"[\x20-\x7e\s]", "a text file"),
)
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError)


class Package:
    """An archive that passed the checks. Entries are read one by one, each at most once."""

    def __init__(self, archive: zipfile.ZipFile, kind: str) -> None:
        self.kind = kind
        self.names = frozenset(archive.namelist())
        self._archive = archive

    def read(self, name: str) -> bytes:
        """The bytes of an entry.

        Raises:
            Broken: There is no such entry, or it is damaged (a wrong checksum among others).
        """
        try:
            return self._archive.read(name)
        except KeyError as error:
            raise Broken(
                f"broken-{self.kind}", f"{name} is missing in the archive; save it again"
            ) from error
        except _DAMAGE as error:
            raise self.damaged(name, error) from error

    def damaged(self, name: str, error: Exception) -> Broken:
        why = str(error) or type(error).__name__
        return Broken(f"broken-{self.kind}", f"{name} in the archive is damaged ({why})")

    def xml(self, name: str, *, recover: bool = False) -> "_Element":
        """The root element of an entry; nothing outside the entry is read for it.

        Args:
            recover: Read on over faults, where there is any element at all.

        Raises:
            Broken: Missing, damaged, not XML, or with entities of its own.
        """
        from lxml import etree

        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, recover=recover
        )
        data = self.read(name)
        try:
            root = etree.fromstring(data, parser)
        except (etree.XMLSyntaxError, ValueError) as error:
            raise self.damaged(name, error) from error
        if root is None:
            raise self.damaged(name, ValueError("no XML"))
        dtd = root.getroottree().docinfo.internalDTD
        if dtd is not None and any(True for _ in dtd.iterentities()):
            raise _entities(name)
        return root

    def elements(self, name: str, tags: Sequence[str]) -> "Iterator[_Element]":
        """The elements of these names as they end, of an entry too large to hold as a tree."""
        from lxml import etree

        if name not in self.names:
            raise Broken(f"broken-{self.kind}", f"{name} is missing in the archive; save it again")
        try:
            with self._archive.open(name) as file:
                for _, element in etree.iterparse(
                    file,
                    tag=[f"{{*}}{tag}" for tag in tags],
                    resolve_entities=False,
                    no_network=True,
                    huge_tree=True,
                ):
                    yield element
        except (etree.XMLSyntaxError, *_DAMAGE) as error:
            raise self.damaged(name, error) from error

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Id -> (kind, entry) of what the part ``name`` refers to inside the archive."""
        folder, _, file = name.rpartition("/")
        rels = f"{folder}/_rels/{file}.rels".lstrip("/")
        if rels not in self.names:
            return {}
        return {
            item.get("Id", ""): (
                item.get("Type", "").rpartition("/")[2],
                joined(folder, item.get("Target", "")),
            )
            for item in self.xml(rels).iter("{*}Relationship")
            if item.get("TargetMode") != "External"
        }


def joined(folder: str, target: str) -> str:
    """The entry that ``target`` names, seen from ``folder``."""
    parts = [] if target.startswith("/") else folder.split("/")
    for part in target.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(part for part in parts if part)


def open_package(data: bytes, kind: str) -> Package:
    """The archive of a ``kind`` of document (docx, pptx, xlsx, epub), safe to expand.

    Raises:
        Broken: It is something else, protected, damaged, or not safe.
    """
    name = _MAIN_PARTS[kind][1]
    if data.startswith(_OLE):
        raise _old_office(data, kind)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise Broken(f"not-{kind}", _other_file(data, kind, error)) from error
    if len(entries) > MOST_ENTRIES:
        raise Broken(
            "archive-bomb", f"{len(entries):,} entries in the archive, allowed are {MOST_ENTRIES:,}"
        )
    total = sum(entry.file_size for entry in entries)
    packed = min(len(data), sum(entry.compress_size for entry in entries))  # entries can overlap
    if total > MOST_BYTES or (total > 10_000_000 and total > MOST_RATIO * max(1, packed)):
        raise Broken("archive-bomb", f"{packed:,} bytes that expand to {total:,}; allowed are "
                                     f"{MOST_BYTES:,} and {MOST_RATIO} times the size")  # fmt: skip
    names = {entry.filename for entry in entries}
    unsafe = [
        entry for entry in names if re.match(r"[/\\]", entry) or ".." in re.split(r"[/\\]", entry)
    ]
    if unsafe:
        raise Broken("archive-path", f"an entry of the archive leaves its folder: {min(unsafe)!r}")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Broken("password", "protected by a password; save it without one")
    package = Package(archive, kind)
    if not _is(kind, names):
        found = [_MAIN_PARTS[other][1] for other in _MAIN_PARTS if _is(other, names)]
        if "mimetype" in names and b"opendocument" in package.read("mimetype"):
            found = ["an OpenDocument file"]
        what = found[0] if found else "a ZIP archive"
        raise Broken(f"not-{kind}", f"{what}, but not {name}; {_advice(kind, bool(found))}")
    if kind == "xlsx" and "xl/workbook.bin" in names:
        raise Broken("not-xlsx", "a binary workbook (.xlsb); save it as .xlsx")
    if kind != "epub":  # its pages rightly have a document type
        for entry in entries:
            if entry.filename.endswith((".xml", ".rels", ".vml")):
                _refuse_document_type(archive, entry.filename, package)
    return package


def _is(kind: str, names: set[str]) -> bool:
    main = _MAIN_PARTS[kind][0]
    if kind == "epub":
        return main in names
    return "[Content_Types].xml" in names and any(name.startswith(main) for name in names)


def _advice(kind: str, known: bool) -> str:
    if known:
        return f"give it its own extension, or save it as .{kind}"
    return f"save it as .{kind}"


def _old_office(data: bytes, kind: str) -> Broken:
    for name, code, message in _OLE_CONTENTS:
        if name.encode("utf-16-le") + b"\x00\x00" in data:
            return Broken(code or f"not-{kind}", message)
    return Broken(f"not-{kind}", f"not an Office Open XML file, but an old or protected Office "
                                 f"document; save it as .{kind} without a password")  # fmt: skip


def _other_file(data: bytes, kind: str, error: Exception) -> str:
    form = "an EPUB book" if kind == "epub" else "an Office Open XML file"
    head = data[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(b"PK"):
        return f"not {form}: a damaged archive ({error}); copy it again, or save it as .{kind}"
    for pattern, what in _BEGINNINGS:
        if re.match(pattern, head, re.IGNORECASE):
            return f"not {form}, but {what}; give it its own extension, or save it as .{kind}"
    return f"not {form} ({error}); save it as .{kind}"


class _RootReached(Exception):
    pass


def _refuse_document_type(archive: zipfile.ZipFile, name: str, package: Package) -> None:
    """Office files never have one; it would come before the root element."""

    def root(*_: object) -> None:
        raise _RootReached

    def document_type(*_: object) -> None:
        raise _entities(name)

    parser = expat.ParserCreate()
    parser.StartElementHandler = root
    parser.StartDoctypeDeclHandler = document_type
    try:
        with archive.open(name) as file:
            while block := file.read(PROLOG):
                parser.Parse(block, False)
            parser.Parse(b"", True)
    except _RootReached:
        return
    except (expat.ExpatError, LookupError, ValueError, *_DAMAGE) as error:  # encodings too
        raise package.damaged(name, error) from error


def _entities(name: str) -> Broken:
    return Broken(
        "entities", f"{name} in the archive has a document type; entities are not resolved"
    )
