"""A folder as teams have it: every type of document, some of them broken, read in one run."""

import io
import re
import zipfile
from collections.abc import Callable

import pytest

from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.records import unusable

NOTE = "水泵的使用应当符合下列条件：先打开两个阀门，再启动水泵；晚上必须先关闭下游的阀门。"
SCAN_ENGLISH = ["Filters are washed in rain water and dried in the shade.",
                "A filter that has a crack is replaced on the same day."]  # fmt: skip
SCAN_CHINESE = ["滤芯应当用雨水清洗，并在阴凉处晾干。", "有裂纹的滤芯应当在当天更换。"]


def table_pdf() -> bytes:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Table, TableStyle

    out = io.BytesIO()
    rows = [["Part", "Pieces", "Price"], ["valve", "3", "12.50"], ["copper pipe", "14", "8.75"]]
    lines = TableStyle([("GRID", (0, 0), (-1, -1), 1, "black")])
    style = getSampleStyleSheet()["Normal"]
    SimpleDocTemplate(out).build(
        [Paragraph("The parts in the store are counted in May. " * 4, style),
         Table(rows, style=lines), Paragraph("Orders go to Mill House.", style)]
    )  # fmt: skip
    return out.getvalue()


def plain_pdf(*pages: list[str]) -> bytes:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(595, 842))
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.setFont("Helvetica" if line.isascii() else "STSong-Light", 14)
            canvas.drawString(60, 780 - 20 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def scan_pdf() -> bytes:
    """A page of text, then two that are nothing but pictures."""
    import pypdfium2
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(595, 842))
    canvas.drawString(60, 700, "This page has text of its own and stays as it is.")
    canvas.showPage()
    for page in pypdfium2.PdfDocument(plain_pdf(SCAN_ENGLISH, SCAN_CHINESE)):
        canvas.drawImage(ImageReader(page.render(scale=200 / 72).to_pil()), 0, 0, 595, 842)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def docx() -> bytes:
    from docx import Document

    document = Document()
    document.add_heading("Care of the pump", 1)
    document.add_paragraph("The pump is cleaned every spring.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Month", "Work", "May", "cleaning"), strict=True):
        cell.text = text
    return _saved(document.save)


def pptx() -> bytes:
    from pptx import Presentation

    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Winter"
    slide.placeholders[1].text = "In frost the upper pipe is emptied."
    return _saved(show.save)


def xlsx() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for row in (["Fee", "Coins"], ["a house of four", 18.5], ["each further person", 2.75]):
        book.active.append(row)
    return _saved(book.save)


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def packed(**members: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def epub() -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
        '<rootfiles><rootfile full-path="book.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    book = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Rivers</dc:title>'
        '</metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="a"/></spine></package>'
    )
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Rivers</title></head><body>'
        "<h1>Rivers</h1><p>The river rises in April and falls in August.</p></body></html>"
    )
    mark = "application/epub+zip"
    names = {"META-INF/container.xml": container, "book.opf": book, "a.xhtml": page}
    return packed(mimetype=mark, **names)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """The folder, read once, with real OCR."""
    folder = tmp_path_factory.mktemp("team")
    good: dict[str, str | bytes] = {
        "parts.pdf": table_pdf(),
        "scan.pdf": scan_pdf(),
        "care.docx": docx(),
        "winter.pptx": pptx(),
        "fees.xlsx": xlsx(),
        "rivers.epub": epub(),
        "store.html": "<html><body><main><h1>Store</h1><p>The store opens at seven.</p></main>"
                      "<script>alert(1)</script></body></html>",
        "规定.txt": NOTE.encode("gb18030"),
        "rows.csv": "title,text\nValve,A valve is opened by hand.\n管道,铜管每年检查一次。\nNo,\n",
        "rows.jsonl": '{"text": "Drains are closed in May."}\n{"text": 5}\n',
        "elements.json": '[{"type": "Title", "text": "Drains", "element_id": "1", "metadata": {}},'
                         '{"type": "NarrativeText", "text": "A drain is a pipe that leads down.", '
                         '"element_id": "2", "metadata": {}}]',
    }  # fmt: skip
    inner = {"notes/gate.md": "# Gate\n\nThe gate is locked at nine.\n", "broken.pdf": "no pdf",
             "again.txt": NOTE.encode("gb18030"), "tool.exe": "x"}  # fmt: skip
    bad = {
        "cut.pdf": plain_pdf(["Words of a page."])[:300],
        "old.docx": b"\xd0\xcf\x11\xe0" + bytes(600),
        "empty.md": b"",
        "spaces.txt": b"  \n ",
        "bomb.docx": packed(**{"word/document.xml": b"\x00" * 60_000_000}),
        "noise.txt": bytes((i * 167 + i // 7 * 91) % 256 for i in range(5000)),
    }  # fmt: skip
    for name, data in {**good, **bad, "old.zip": packed(**inner)}.items():
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    reading = read_documents([folder], DocumentSettings(ocr="rapidocr", max_seconds=300))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    return reading


def test_everything_is_accounted_for(mixed: Reading) -> None:
    sources = [document.source for document in mixed.documents]
    assert sources == [
        "care.docx", "elements.json", "fees.xlsx", "old.zip/again.txt", "old.zip/notes/gate.md",
        "parts.pdf", "rivers.epub", "rows.csv:2", "rows.csv:3", "rows.jsonl:1", "scan.pdf",
        "store.html", "winter.pptx",
    ]  # fmt: skip
    assert [duplicate.file for duplicate in mixed.duplicates] == ["规定.txt"]
    assert {(reject.file, reject.line): reject.code for reject in mixed.rejects} == {
        ("bomb.docx", None): "archive-bomb", ("cut.pdf", None): "broken-pdf",
        ("empty.md", None): "empty-file", ("noise.txt", None): "encoding",
        ("old.docx", None): "not-docx", ("old.zip/broken.pdf", None): "not-pdf",
        ("rows.csv", 4): "no-text", ("rows.jsonl", 2): "field", ("spaces.txt", None): "no-content",
    }  # fmt: skip
    counts = mixed.counts
    assert (counts.total, counts.accepted, counts.rejected, counts.duplicates) == (23, 13, 9, 1)
    assert unusable(mixed.rejects)
    assert "1 files of unknown type not read: .exe (1)" in mixed.notes


def text_of(mixed: Reading, source: str) -> str:
    return next(document.text for document in mixed.documents if document.source == source)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("care.docx", "The pump is cleaned every spring."),
        ("care.docx", "| May | cleaning |"),
        ("winter.pptx", "In frost the upper pipe is emptied."),
        ("fees.xlsx", "| each further person | 2.75 |"),
        ("rivers.epub", "The river rises in April and falls in August."),
        ("store.html", "The store opens at seven."),
        ("old.zip/again.txt", NOTE),
        ("old.zip/notes/gate.md", "The gate is locked at nine."),
        ("elements.json", "A drain is a pipe that leads down."),
        ("rows.csv:3", "铜管每年检查一次。"),
        ("scan.pdf", "This page has text of its own and stays as it is."),
    ],
)
def test_the_words_of_each_are_there(mixed: Reading, source: str, wanted: str) -> None:
    assert wanted in text_of(mixed, source)


def test_rows_of_the_table_are_whole(mixed: Reading) -> None:
    assert re.search(r"copper pipe\W+14\W+8\.75", text_of(mixed, "parts.pdf"))


@pytest.mark.chinese_font
def test_scanned_pages_are_recognised_in_both_languages(mixed: Reading) -> None:
    from rapidfuzz.distance import Levenshtein

    document = next(d for d in mixed.documents if d.source == "scan.pdf")
    assert document.meta["ocr_pages"] == "2-3"
    begins = [offset for offset, _ in document.pages]
    for (start, end), lines in zip(
        ((begins[1], begins[2]), (begins[2], None)), (SCAN_ENGLISH, SCAN_CHINESE), strict=True
    ):
        found, wanted = (re.sub(r"\s", "", text) for text in
                         (document.text[start:end], "".join(lines)))  # fmt: skip
        assert Levenshtein.distance(found, wanted) <= 1
