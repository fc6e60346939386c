"""The checks that every Office file and every EPUB book passes before it is expanded."""

import io
import random
import re
import struct
import zipfile
from collections.abc import Callable

import pytest

from embedtune.documents.office.docx import read_docx
from embedtune.documents.office.epub import read_epub
from embedtune.documents.office.package import joined
from embedtune.documents.office.sheets import read_xlsx
from embedtune.documents.office.slides import read_pptx
from embedtune.documents.reading import Broken

READERS: dict[str, Callable[[bytes], object]] = {
    "docx": lambda data: read_docx(data, tables=True),
    "pptx": read_pptx,
    "xlsx": lambda data: list(read_xlsx(data, tables=True)),
    "epub": lambda data: read_epub(data, tables=True),
}
MAIN = {"docx": "word/document.xml", "pptx": "ppt/presentation.xml", "xlsx": "xl/workbook.xml",
        "epub": "META-INF/container.xml"}  # fmt: skip
OFFICE = ["docx", "pptx", "xlsx"]
DTD = b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a SYSTEM "file:///etc/hostname">]><w>&a;</w>'
BILLION = b'<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><w>&b;</w>'


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One small file of each kind, written by the libraries people write them with."""
    import docx
    import openpyxl
    import pptx

    made = {}
    document = docx.Document()
    document.add_paragraph("Open the valve.")
    slides = pptx.Presentation()
    slides.slides.add_slide(slides.slide_layouts[5]).shapes.title.text = "Open the valve."
    book = openpyxl.Workbook()
    book.active.append(["Open the valve."])
    for kind, file in (("docx", document), ("pptx", slides), ("xlsx", book)):
        buffer = io.BytesIO()
        file.save(buffer)
        made[kind] = buffer.getvalue()
    made["epub"] = archive({
        "mimetype": b"application/epub+zip",
        "META-INF/container.xml": b'<container><rootfiles><rootfile full-path="b.opf"/></rootfiles>'
        b"</container>",
        "b.opf": b'<package><manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml'
        b'"/></manifest><spine><itemref idref="c"/></spine></package>',
        "c.xhtml": b"<html><body><p>Open the valve.</p></body></html>",
    })  # fmt: skip
    return made


def archive(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def changed(data: bytes, **changes: bytes | None) -> bytes:
    """The archive with entries added, replaced or (None) left out; ``__`` stands for ``/``."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        entries = {name: packed.read(name) for name in packed.namelist()}
    for name, content in changes.items():
        entries.pop(name.replace("__", "/"), None)
        if content is not None:
            entries[name.replace("__", "/")] = content
    return archive(entries)


def refused(kind: str, data: bytes) -> Broken:
    with pytest.raises(Broken) as caught:
        READERS[kind](data)
    return caught.value


@pytest.mark.parametrize("kind", READERS)
def test_the_file_itself_is_read(files: dict[str, bytes], kind: str) -> None:
    found = READERS[kind](files[kind])
    part = found[0] if isinstance(found, list) else found
    assert "Open the valve." in part.text


@pytest.mark.parametrize("kind", READERS)
def test_a_compression_bomb_is_refused_before_it_expands(
    files: dict[str, bytes], kind: str
) -> None:  # I09
    assert refused(kind, changed(files[kind], media__x=b"\0" * 60_000_000)).code == "archive-bomb"


def test_too_many_entries_are_refused(files: dict[str, bytes]) -> None:  # I09
    many = changed(files["docx"], **{f"x__{number}": b"" for number in range(10_001)})
    assert refused("docx", many).code == "archive-bomb"


def test_entries_that_share_their_bytes_count_once(files: dict[str, bytes]) -> None:
    """A bomb may name the same packed bytes a thousand times; only their sum looks harmless."""
    body = changed(files["docx"], media__x=b"\0" * 900_000)
    start = body.rindex(b"PK\x05\x06")
    with zipfile.ZipFile(io.BytesIO(body)) as packed:
        entries = packed.infolist()
    directory = body[struct.unpack("<I", body[start + 16 : start + 20])[0] : start]
    last = directory[directory.rindex(b"PK\x01\x02") :]
    copies = b"".join(
        last.replace(b"media/x", f"media/{number:03}"[-7:].encode().rjust(7, b"m"))
        for number in range(200)
    )
    end = bytearray(body[start:])
    struct.pack_into("<HHI", end, 8, len(entries) + 200, len(entries) + 200,
                     len(directory) + len(copies))  # fmt: skip
    bomb = body[:start] + copies + bytes(end)
    assert refused("docx", bomb).code == "archive-bomb"


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\\..\\..\\x"])
def test_entries_that_leave_the_folder_are_refused(
    files: dict[str, bytes], kind: str, name: str
) -> None:  # I11
    assert refused(kind, changed(files[kind], **{name: b"x"})).code == "archive-path"


@pytest.mark.parametrize("kind", OFFICE)
@pytest.mark.parametrize(
    "xml",
    [DTD, BILLION, b"<!--" + b"x" * 200_000 + b"-->" + BILLION, DTD.decode().encode("utf-16")],
)
def test_a_document_type_is_refused_wherever_it_hides(
    files: dict[str, bytes], kind: str, xml: bytes
) -> None:  # I10
    error = refused(kind, changed(files[kind], **{MAIN[kind]: xml}))
    assert (error.code, "entities are not resolved" in str(error)) == ("entities", True)
    other = refused(kind, changed(files[kind], **{"customXml/item9.xml": xml}))
    assert other.code == "entities"


def test_the_words_doctype_in_a_text_are_no_document_type(files: dict[str, bytes]) -> None:
    note = b"<note><![CDATA[<!DOCTYPE html><!ENTITY>]]></note>"
    READERS["docx"](changed(files["docx"], **{"customXml/item9.xml": note}))


@pytest.mark.parametrize(("name", "xml"), [
    ("META-INF/container.xml", DTD), ("b.opf", DTD), ("c.xhtml", DTD), ("c.xhtml", BILLION),
])  # fmt: skip
def test_entities_in_a_book_are_refused(files: dict[str, bytes], name: str, xml: bytes) -> None:
    assert refused("epub", changed(files["epub"], **{name: xml})).code == "entities"


@pytest.mark.parametrize("kind", OFFICE)
@pytest.mark.parametrize(("stream", "says"), [
    ("WordDocument", "old Word document; save it as .docx"),
    ("Workbook", "old Excel workbook; save it as .xlsx"),
    ("PowerPoint Document", "old PowerPoint presentation; save it as .pptx"),
    ("Other", "old or protected Office document"),
])  # fmt: skip
def test_an_old_document_under_the_new_name_says_how_to_convert_it(
    kind: str, stream: str, says: str
) -> None:  # I12
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504
    data += stream.encode("utf-16-le") + b"\0" * 64
    error = refused(kind, data)
    assert error.code == f"not-{kind}"
    assert str(error).startswith("not an Office Open XML file")
    assert says in str(error)


@pytest.mark.parametrize("kind", OFFICE)
def test_a_password_is_named_as_such(kind: str) -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504
    data += "EncryptionInfo".encode("utf-16-le") + b"\0" * 64
    data += "EncryptedPackage".encode("utf-16-le") + b"\0" * 64
    error = refused(kind, data)
    assert (error.code, str(error)) == (
        "password", "protected by a password; save it without one")  # fmt: skip


def test_an_encrypted_archive_is_named_as_such(files: dict[str, bytes]) -> None:
    data = bytearray(files["docx"])
    place = -1
    while (place := data.find(b"PK\x01\x02", place + 1)) >= 0:
        data[place + 8] |= 1
    assert refused("docx", bytes(data)).code == "password"


@pytest.mark.parametrize(("kind", "data", "says"), [
    ("docx", b"Just words, no document.", "but a text file"),
    ("xlsx", b"<html><table><tr><td>1</td></tr></table></html>", "but an HTML page"),
    ("xlsx", b"\xef\xbb\xbf<!DOCTYPE html><html></html>", "but an HTML page"),
    ("docx", b"{\\rtf1\\ansi Words}", "but an RTF text"),
    ("pptx", b"%PDF-1.7 ...", "but a PDF"),
    ("xlsx", b'<?xml version="1.0"?><Workbook/>', "but an XML file"),
    ("epub", b"PK\x03\x04 cut", "a damaged archive"),
    ("docx", b"\x00\x01\x02", "not an Office Open XML file"),
])  # fmt: skip
def test_another_file_is_named_for_what_it_is(kind: str, data: bytes, says: str) -> None:
    error = refused(kind, data)
    assert error.code == f"not-{kind}"
    assert says in str(error)


@pytest.mark.parametrize(("kind", "other", "says"), [
    ("docx", "xlsx", "an Excel workbook, but not a Word document"),
    ("xlsx", "pptx", "a PowerPoint presentation, but not an Excel workbook"),
    ("pptx", "docx", "a Word document, but not a PowerPoint presentation"),
    ("epub", "docx", "a Word document, but not an EPUB book"),
    ("docx", "epub", "an EPUB book, but not a Word document"),
])  # fmt: skip
def test_a_document_under_the_wrong_extension(
    files: dict[str, bytes], kind: str, other: str, says: str
) -> None:
    error = refused(kind, files[other])
    assert (error.code, says in str(error)) == (f"not-{kind}", True)


@pytest.mark.parametrize(("kind", "entries", "says"), [
    ("docx", {"a.txt": b"words"}, "a ZIP archive, but not a Word document"),
    ("xlsx", {"mimetype": b"application/vnd.oasis.opendocument.text"}, "an OpenDocument file"),
    ("xlsx", {"[Content_Types].xml": b"<a/>", "xl/workbook.bin": b"\x01"}, "a binary workbook"),
])  # fmt: skip
def test_an_archive_of_another_kind(kind: str, entries: dict[str, bytes], says: str) -> None:
    error = refused(kind, archive(entries))
    assert (error.code, says in str(error)) == (f"not-{kind}", True)


@pytest.mark.parametrize("kind", READERS)
def test_a_wrong_checksum_is_damage(files: dict[str, bytes], kind: str) -> None:
    data = bytearray(files[kind])
    name = {"epub": "b.opf"}.get(kind, MAIN[kind]).encode()
    for mark, offset, shift in ((b"PK\x03\x04", 14, 30), (b"PK\x01\x02", 16, 46)):
        place = data.index(name) if mark == b"PK\x03\x04" else data.rindex(name)
        assert data[place - shift : place - shift + 4] == mark
        data[place - shift + offset] ^= 0xFF
    error = refused(kind, bytes(data))
    assert (error.code, "damaged" in str(error)) == (f"broken-{kind}", True)


@pytest.mark.parametrize("kind", OFFICE)
def test_broken_xml_is_named_with_its_entry(files: dict[str, bytes], kind: str) -> None:
    error = refused(kind, changed(files[kind], **{MAIN[kind]: b"<w:document"}))
    assert (error.code, MAIN[kind] in str(error)) == (f"broken-{kind}", True)


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_part_is_named(files: dict[str, bytes], kind: str) -> None:
    name = {"docx": "word/document.xml", "pptx": "ppt/presentation.xml",
            "xlsx": "xl/worksheets/sheet1.xml", "epub": "b.opf"}[kind]  # fmt: skip
    error = refused(kind, changed(files[kind], **{name: None}))
    assert (error.code, f"{name} is missing" in str(error)) == (f"broken-{kind}", True)


@pytest.mark.parametrize("kind", OFFICE)
def test_xml_in_utf16_with_a_mark_is_read(files: dict[str, bytes], kind: str) -> None:
    with zipfile.ZipFile(io.BytesIO(files[kind])) as packed:
        xml = packed.read(MAIN[kind]).decode()
    wide = xml.replace("UTF-8", "UTF-16").replace("utf-8", "utf-16").encode("utf-16")
    found = READERS[kind](changed(files[kind], **{MAIN[kind]: wide}))
    assert "Open the valve." in (found[0] if isinstance(found, list) else found).text


@pytest.mark.parametrize(("folder", "target", "entry"), [
    ("ppt/slides", "../media/a.png", "ppt/media/a.png"), ("", "word/a.xml", "word/a.xml"),
    ("xl", "/xl/styles.xml", "xl/styles.xml"), ("OPS", "./a%20b/../c.xhtml", "OPS/c.xhtml"),
    ("a", "../../../etc/passwd", "etc/passwd"),
])  # fmt: skip
def test_targets_stay_inside_the_archive(folder: str, target: str, entry: str) -> None:
    assert joined(folder, target) == entry


@pytest.mark.parametrize("kind", READERS)
def test_whatever_the_values_in_it_a_file_is_read_or_refused(
    files: dict[str, bytes], kind: str
) -> None:
    draw = random.Random(3)
    wild = ["", "-1", "99999999999", "abc", "１", "1e9", "NaN", "../../x", "true"]
    with zipfile.ZipFile(io.BytesIO(files[kind])) as packed:
        entries = {name: packed.read(name) for name in packed.namelist()}
    names = [name for name in entries if name.endswith((".xml", ".rels", ".opf", ".xhtml"))
             and not re.search("theme|Layout|Master", name)]  # fmt: skip
    read = 0
    for _ in range(60):
        name = draw.choice(names)
        xml = entries[name].decode()
        values = list(re.finditer(r'(?<=[^?]=")[^"]*(?=")|(?<=>)[^<]+(?=<)', xml))
        for value in sorted(draw.sample(values, min(2, len(values))), key=re.Match.start)[::-1]:
            xml = xml[: value.start()] + draw.choice(wild) + xml[value.end() :]
        try:
            READERS[kind](archive(entries | {name: xml.encode()}))
            read += 1
        except Broken:
            pass
    assert read
