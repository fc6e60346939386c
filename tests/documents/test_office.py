import io
import zipfile

import pytest

from embedtune.documents.office import read_docx
from embedtune.documents.reading import Broken, Part


def docx(**changes: bytes) -> bytes:
    """A small Word document; ``changes`` adds or replaces entries (``__`` stands for ``/``)."""
    from docx import Document

    document = Document()
    document.add_heading("Pump guide", 0)
    document.add_heading("Starting", 1)
    document.add_paragraph("Open the valve before the pump is started.")
    document.add_paragraph("先关闭阀门。", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Part", "Price", "valve", "3"), strict=True):
        cell.text = text
    document.add_paragraph("After the table.")
    buffer = io.BytesIO()
    document.save(buffer)
    entries = {}
    with zipfile.ZipFile(buffer) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {name.replace("__", "/"): data for name, data in changes.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def read(data: bytes) -> Part:
    return read_docx(data, tables=True).cleaned()


def refused(data: bytes) -> str:
    with pytest.raises(Broken) as caught:
        read(data)
    return caught.value.code


def test_headings_lists_and_tables_are_kept() -> None:
    part = read(docx())
    assert part.title == "Pump guide"
    assert part.text == (
        "# Pump guide\n\n# Starting\n\nOpen the valve before the pump is started.\n\n"
        "- 先关闭阀门。\n\n"
        "| Part | Price |\n| --- | --- |\n| valve | 3 |\n\nAfter the table.\n"
    )


def test_an_old_document_under_the_new_name() -> None:
    assert refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600) == "not-docx"


@pytest.mark.parametrize("data", [b"plain text", b"PK\x03\x04 cut", docx()[:900]])
def test_other_files_and_cut_files(data: bytes) -> None:
    assert refused(data) == "not-docx"


def test_an_archive_of_another_kind() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "words")
    assert refused(buffer.getvalue()) == "not-docx"


def test_a_compression_bomb_is_refused_before_it_expands() -> None:
    assert refused(docx(word__media__x=b"\x00" * 60_000_000)) == "archive-bomb"


def test_too_many_entries_are_refused() -> None:
    assert refused(docx(**{f"word__{n}": b"" for n in range(10_001)})) == "archive-bomb"


def test_entries_that_leave_the_folder_are_refused() -> None:
    assert refused(docx(**{"..__..__x": b"x"})) == "archive-path"


def test_entities_are_refused() -> None:
    xml = (
        b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        b"<w:body><w:p><w:r><w:t>&a;</w:t></w:r></w:p></w:body></w:document>"
    )
    assert refused(docx(word__document=b"", **{"word__document.xml": xml})) == "entities"


def test_broken_xml_is_named() -> None:
    assert refused(docx(**{"word__document.xml": b"<w:document"})) == "broken-docx"
