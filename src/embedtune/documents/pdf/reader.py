"""Text of PDF files: pages opened, scans recognised, running heads dropped, tables kept, lines
joined.

pdfium gives the text in its order of drawing and the place of every character; everything else,
from the order of reading to headings, comes from the places.
"""

import ctypes
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from embedtune.documents.clean import clean
from embedtune.documents.pdf.heads import drop_running_heads
from embedtune.documents.pdf.lines import Line, has_letters, read_lines
from embedtune.documents.pdf.order import arranged
from embedtune.documents.pdf.page import Page
from embedtune.documents.pdf.paragraphs import compose
from embedtune.documents.pdf.rules import Rules, read_rules
from embedtune.documents.pdf.tables import CONTINUED, Table, continued
from embedtune.documents.reading import Broken, Ocr, Part

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

REPEATED_LINES = 3  # of a title above a table that goes on over pages
FEW_CHARACTERS = 20  # of text on a page that was scanned: a stamp, a page number
UNSURE = 0.8  # confidence of OCR below which a page is named
MOST_DRAWN = 250_000  # lines and boxes on all pages that are looked at for tables; it takes 10 s
NO_OCR = Ocr(advice="scans are not recognised")


def read_pdf(data: bytes, password: str | None, ocr: Ocr = NO_OCR, *, tables: bool = True) -> Part:
    """The text of a PDF as one part, with the offsets of its pages. Scanned pages go to ``ocr``.

    Args:
        tables: As Markdown tables; else as lines of text.

    Raises:
        Broken: Not a PDF, encrypted, or without any text.
    """
    pages = _pages(data, password, tables=tables)
    part = Part(kind="pdf")
    _recognise(pages, ocr, part)
    _name_missing(pages, ocr, part)
    drop_running_heads(pages, part)
    _arrange(pages, part)
    compose(pages, part)
    part.meta["page_count"] = str(len(pages))
    return part


def read_scan(count: int, ocr: Ocr) -> Part:
    """Pages that are nothing but pictures, as one part.

    Raises:
        Broken: No text was found in any of them.
    """
    pages = [Page(number, scanned=True) for number in range(1, count + 1)]
    part = Part(kind="image")
    _recognise(pages, ocr, part)
    _name_missing(pages, ocr, part)
    drop_running_heads(pages, part)
    _arrange(pages, part)
    compose(pages, part)
    return part


def _pages(data: bytes, password: str | None, *, tables: bool) -> list[Page]:
    import pypdfium2

    if b"%PDF-" not in data[:1024]:
        raise Broken("not-pdf", "no PDF header; is it another type of file under this name?")
    try:
        document = pypdfium2.PdfDocument(data, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            wrong = "the given password does not open it" if password else "a password is needed"
            raise Broken(
                "encrypted",
                f"{wrong}; set documents.password_env to the name of an environment variable "
                "that holds it",
            ) from error
        raise Broken(
            "broken-pdf", f"pdfium cannot open it ({error}); is the file whole?"
        ) from error
    try:
        pages: list[Page] = []
        drawn = 0
        for index in range(len(document)):
            pages.append(_page(document, index, tables=tables, rules=drawn < MOST_DRAWN))
            drawn += pages[-1].rules.paths if pages[-1].rules else 0
        return pages
    finally:
        document.close()


def _page(document: "PdfDocument", index: int, *, tables: bool, rules: bool) -> Page:
    import pypdfium2
    import pypdfium2.raw as pdfium

    result = Page(index + 1)
    try:
        page = document[index]
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError as error:
        result.failed = str(error)
        return result
    result.blank = pdfium.FPDFPage_CountObjects(page.raw) == 0
    result.lines, turn = read_lines(textpage.raw)
    if tables and len(result.lines) > 1:
        result.rules = read_rules(page.raw, turn) if rules else Rules()
    characters = sum(map(str.isalnum, "".join(line.text for line in result.lines)))
    if characters < FEW_CHARACTERS:
        result.scanned = _is_picture(page) if characters else not result.blank
    textpage.close()
    page.close()
    return result


# ---- pages without text


def _is_picture(page: "PdfPage") -> bool:
    """Whether images cover half of it, or lie in forms."""
    import pypdfium2.raw as pdfium

    area = 0.0
    for place in range(pdfium.FPDFPage_CountObjects(page.raw)):
        item = pdfium.FPDFPage_GetObject(page.raw, place)
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind == pdfium.FPDF_PAGEOBJ_FORM and any(
            pdfium.FPDFPageObj_GetType(pdfium.FPDFFormObj_GetObject(item, inner))
            == pdfium.FPDF_PAGEOBJ_IMAGE
            for inner in range(pdfium.FPDFFormObj_CountObjects(item))
        ):
            return True
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = (ctypes.c_float() for _ in range(4))
            pdfium.FPDFPageObj_GetBounds(item, left, bottom, right, top)
            area += (right.value - left.value) * (top.value - bottom.value)
    width, height = page.get_size()
    return area >= width * height / 2


def _recognise(pages: list[Page], ocr: Ocr, part: Part) -> None:
    """Give scanned pages the lines that OCR finds."""
    scans = {page.number: page for page in pages if page.scanned}
    if not scans or not ocr.engine:
        return
    done = []
    for number, seen in ocr.recognise(tuple(scans)).items():
        page = scans[number]
        page.seen = seen
        if seen.lines:
            done.append(page)
            page.lines = [
                Line(clean(line.text).text, line.left, line.right, line.base, line.size, False)
                for line in seen.lines
            ]
    if not done:
        return
    confidence = sum(page.seen.confidence for page in done if page.seen) / len(done)
    part.meta["ocr_pages"] = ranges(page.number for page in done)
    part.meta["ocr_engine"] = ocr.engine
    part.meta["ocr_confidence"] = f"{confidence:.2f}"
    unsure = [page.number for page in done if page.seen and page.seen.confidence < UNSURE]
    part.note(
        f"{len(done)} of {len(pages)} pages recognised by {ocr.engine}, mean confidence "
        f"{confidence:.0%}: pages {ranges(page.number for page in done)}"
        + (f"; unsure, check them: pages {ranges(unsure)}" if unsure else "")
    )


def _name_missing(pages: list[Page], ocr: Ocr, part: Part) -> None:
    broken = [page.number for page in pages if page.failed]
    blank = [page.number for page in pages if page.blank]
    pictures, unseen = [], []
    for page in pages:
        if page.scanned and page.seen and not page.seen.lines and not page.seen.failed:
            pictures.append(page.number)
        elif page.unread and not page.failed:
            unseen.append(page.number)
    failures = dict.fromkeys(page.seen.failed for page in pages if page.seen and page.seen.failed)
    why = "; ".join(failures) or ocr.advice
    missing = sorted({*broken, *blank, *pictures, *unseen})
    if len(missing) == len(pages) and not any(
        has_letters(line.text) for page in pages for line in page.lines
    ):
        if part.kind == "image" and pictures == missing:
            raise Broken("no-text", f"{ocr.engine} finds no text in it", unusable=False)
        what = "readable page" if broken else "page"
        raise Broken(
            "no-text",
            f"no {what} of {len(pages)} has text (scanned, or empty; pages {ranges(missing)})"
            + (f"; {why}" if why else ""),
        )
    if unseen:
        part.reject(
            "pages-without-text",
            f"{len(unseen)} of {len(pages)} pages ({len(unseen) / len(pages):.0%}) have no text "
            f"layer: pages {ranges(unseen)}; {why}; the other pages are kept",
        )
    if broken:
        part.reject(
            "broken-pages",
            f"{len(broken)} of {len(pages)} pages cannot be read: pages {ranges(broken)}; "
            "the others are kept",
        )
        part.meta["partial"] = "true"
    if pictures:
        part.note(
            f"{len(pictures)} of {len(pages)} pages are pictures in which {ocr.engine} finds no "
            f"text: {ranges(pictures)}"
        )
    if blank:
        part.note(f"{len(blank)} of {len(pages)} pages are blank: {ranges(blank)}")


def ranges(numbers: Iterable[int]) -> str:
    """``1-3, 7`` for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


# ---- order and tables


def _arrange(pages: list[Page], part: Part) -> None:
    """Give pages their items, tables that go on over pages joined; name what was done."""
    for page in pages:
        page.items = arranged(page.lines, page.rules)
    over = _join_tables(pages)
    found = [(page.number, i) for page in pages for i in page.items if isinstance(i, Table)]
    if not found:
        return
    part.meta["tables"] = str(sum(not table.continues for _, table in found))
    if over:
        repeated = [number for number, table in found if table.repeated_header]
        part.note(
            f"tables over two pages and more joined: pages {ranges(over)}"
            + (f"; their repeated headers left out: pages {ranges(repeated)}" if repeated else "")
        )
    unsure = sorted({number for number, table in found if table.uncertain})
    if unsure:
        part.meta["uncertain_tables"] = ranges(unsure)
        part.note(f"tables whose columns are uncertain, check them: pages {ranges(unsure)}")


def _join_tables(pages: list[Page]) -> list[int]:
    """Make the first table of a page go on with the last of the page before, where their columns
    agree; mark it where they do not and it has no header. The pages that were joined."""
    over: set[int] = set()
    origin: Table | None = None  # the table at the end of the page before
    titles: set[str] = set()  # the lines above it
    for above, page in pairwise(pages):
        if not origin or not origin.continues:
            lines = [item.text for item in above.items[:-1] if isinstance(item, Line)]
            titles = set(lines[-REPEATED_LINES:])
        last = above.items[-1] if above.items else None
        origin = last if isinstance(last, Table) else None
        place = _first_table(page, titles)
        if origin is None or place is None or page.unread:
            continue
        table = page.items[place]
        if not isinstance(table, Table):
            continue
        if further := continued(origin, table):
            page.items[: place + 1] = [further]
            over |= {above.number, page.number}
        elif not place and (table.plain_header or not any(table.header)):
            table.uncertain = True
    return sorted(over)


def _first_table(page: Page, titles: set[str]) -> int | None:
    """The place of the first table, if only lines stand above it that repeat a title."""
    for place, item in enumerate(page.items[: REPEATED_LINES + 1]):
        if isinstance(item, Table):
            return place
        if item.text not in titles and not CONTINUED.search(item.text):
            return None
    return None
