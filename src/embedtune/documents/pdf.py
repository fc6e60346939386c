"""Text of PDF files: lines joined to paragraphs, running heads dropped, headings marked.

pdfium gives the text in reading order and the place of every character; from the places come
paragraphs (gaps, indents, lines that end early) and headings (bold or larger type).
"""

import ctypes
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from embedtune.documents.clean import clean
from embedtune.documents.outline import ARTICLE, named_rank
from embedtune.documents.pdf_lines import (
    HYPHEN,
    Line,
    columns,
    gaps,
    read_lines,
    spread_out,
    unspaced,
)
from embedtune.documents.pdf_order import Item, arranged
from embedtune.documents.pdf_rows import LEADER
from embedtune.documents.pdf_rules import Rules, read_rules
from embedtune.documents.pdf_tables import CONTINUED, Table, continued
from embedtune.documents.reading import Broken, Ocr, Part, Seen

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

EDGE = 4  # lines at the top and bottom of a page that may be running heads
LONGEST_HEAD = 80  # characters of a running head
LETTERS_BESIDE_NUMBER = 24  # in a line with a page number; a Chinese character is two
WIDE_GAP = 1.2  # em between two words that are cells rather
LARGE = 1.3  # times the size of the body: a title, above all numbered headings
LARGER = 1.05
TITLE_PAGES = 2  # the document's title stands on one of the first
REPEATED_LINES = 3  # of a title above a table that goes on over pages
TITLE_RANKS = 3  # sizes of titles told apart: ranks 1, 2, 3
LARGER_RANK = 23  # beside numbered headings (outline.py)
BOLD_RANK = 28
FEW_CHARACTERS = 20  # of text on a page that was scanned: a stamp, a page number
UNSURE = 0.8  # confidence of OCR below which a page is named
MOST_DRAWN = 250_000  # lines and boxes on all pages that are looked at for tables; it takes 10 s
NO_OCR = Ocr(advice="scans are not recognised")


@dataclass(slots=True)
class _Page:
    number: int
    lines: list[Line] = field(default_factory=list)
    blank: bool = False  # nothing at all is drawn on it
    failed: str = ""
    scanned: bool = False  # what there is to read is drawn, not text
    seen: Seen | None = None  # what OCR found
    rules: Rules | None = None  # None: tables are not looked for
    items: list[Item] = field(default_factory=list)  # what is left of it, in reading order

    @property
    def unread(self) -> bool:
        """It may hold text that is not known."""
        return bool(self.failed) or (self.scanned and (self.seen is None or bool(self.seen.failed)))


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
    _drop_running_heads(pages, part)
    _arrange(pages, part)
    _compose(pages, part)
    part.meta["page_count"] = str(len(pages))
    return part


def read_scan(count: int, ocr: Ocr) -> Part:
    """Pages that are nothing but pictures, as one part.

    Raises:
        Broken: No text was found in any of them.
    """
    pages = [_Page(number, scanned=True) for number in range(1, count + 1)]
    part = Part(kind="image")
    _recognise(pages, ocr, part)
    _name_missing(pages, ocr, part)
    _drop_running_heads(pages, part)
    _arrange(pages, part)
    _compose(pages, part)
    return part


def _pages(data: bytes, password: str | None, *, tables: bool) -> list[_Page]:
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
        pages: list[_Page] = []
        drawn = 0
        for index in range(len(document)):
            pages.append(_page(document, index, tables=tables, rules=drawn < MOST_DRAWN))
            drawn += pages[-1].rules.paths if pages[-1].rules else 0
        return pages
    finally:
        document.close()


def _page(document: "PdfDocument", index: int, *, tables: bool, rules: bool) -> _Page:
    import pypdfium2
    import pypdfium2.raw as pdfium

    result = _Page(index + 1)
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


def _recognise(pages: list[_Page], ocr: Ocr, part: Part) -> None:
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


def _name_missing(pages: list[_Page], ocr: Ocr, part: Part) -> None:
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
        _letters(line.text) for page in pages for line in page.lines
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


def _letters(text: str) -> bool:
    return any(character.isalpha() for character in text)


# ---- running heads

_NUMBER = re.compile(r"\d+")
_BARE_NUMBER = re.compile(r"\W*(?:page|p\.|第)?\s*\d+\s*(?:页|(?:of|/)\s*\d+)?\W*", re.IGNORECASE)


def _drop_running_heads(pages: list[_Page], part: Part) -> None:
    """Remove lines that stand at the edges of many pages, and page numbers; count them."""
    usual = _usual_size(line for page in pages for line in page.lines)
    # from top to bottom: many programs draw the foot of a page before its text
    stacks = [sorted(page.lines, key=lambda line: -line.base) for page in pages]
    edges = [_edges(lines, usual) for lines in stacks]
    running = _recurring(stacks, edges)
    if len(pages) == 2:  # too few to tell a head from a title: it is kept once
        edges[0] = (0, edges[0][1])
    dropped = 0
    for number, (page, lines, (head, foot)) in enumerate(zip(pages, stacks, edges, strict=True)):
        first, last = 0, len(lines)
        while first < head and (number, first) in running:
            first += 1
        while last > len(lines) - foot and (number, last - 1) in running:
            last -= 1
        dropped += len(lines) - (last - first)
        kept = set(map(id, lines[first:last]))
        page.lines = [line for line in page.lines if id(line) in kept]
    if dropped:
        part.meta["running_heads"] = str(dropped)
        part.note(f"{dropped} running heads and page numbers removed")


def _edges(lines: list[Line], usual: float) -> tuple[int, int]:
    """How many lines at the top and the bottom may be running ones.

    Those before a gap; one where there is none. A line is left to the page, unless it is bare.
    """
    if len(lines) == 1:
        return 0, int(bool(_BARE_NUMBER.fullmatch(lines[0].text)))
    gap = _Layout(lines, usual).gap * 1.4

    def before_gap(numbers: Iterable[int]) -> int:
        for count, number in enumerate(numbers, 1):
            if abs(lines[number].base - lines[number + 1].base) > gap:
                return count
        return 1

    head = before_gap(range(min(EDGE, len(lines) - 1)))
    foot = before_gap(range(len(lines) - 2, max(-1, len(lines) - 2 - EDGE), -1))
    foot = min(foot, len(lines) - 1)
    return min(head, len(lines) - 1 - foot), foot


def _recurring(stacks: list[list[Line]], edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """(page, line), counted from 0, of the running lines among those at the edges.

    Equal lines on at least 3 pages (both of two) and 6 % of all; or short lines, equal but for one
    number that grows with the page, on as many (of two pages only at the foot).
    """
    exact: dict[str, list[tuple[int, int]]] = {}
    counted: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for page, (lines, (head, foot)) in enumerate(zip(stacks, edges, strict=True)):
        last = len(lines)
        for index in {*range(head), *range(last - foot, last)}:
            text = lines[index].text
            if len(text) <= LONGEST_HEAD:
                exact.setdefault(text, []).append((page, index))
            if sum(map(columns, filter(str.isalpha, text))) > LETTERS_BESIDE_NUMBER:
                continue
            if len(stacks) == 2 and index < head:
                continue
            for match in _NUMBER.finditer(text):
                if len(match[0]) <= 5:
                    frame = f"{text[: match.start()]}#{text[match.end() :]}"
                    key = (frame, int(match[0]) - page)
                    counted.setdefault(key, []).append((page, index))
    few = min(3, max(2, len(stacks)))
    least = max(few, round(len(stacks) * 0.06))

    def on(places: list[tuple[int, int]]) -> int:
        return len({page for page, _ in places})

    found = {place for places in exact.values() if on(places) >= least for place in places}
    return found | {place for places in counted.values() if on(places) >= few for place in places}


# ---- order and tables


def _arrange(pages: list[_Page], part: Part) -> None:
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


def _join_tables(pages: list[_Page]) -> list[int]:
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


def _first_table(page: _Page, titles: set[str]) -> int | None:
    """The place of the first table, if only lines stand above it that repeat a title."""
    for place, item in enumerate(page.items[: REPEATED_LINES + 1]):
        if isinstance(item, Table):
            return place
        if item.text not in titles and not CONTINUED.search(item.text):
            return None
    return None


# ---- paragraphs


def _compose(pages: list[_Page], part: Part) -> None:
    """Join the lines; fills text, page offsets, headings and title of ``part``."""
    words = _words(line for page in pages for line in page.lines)
    texts = {page.number: [item for item in page.items if isinstance(item, Line)] for page in pages}
    usual = _usual_size(line for lines in texts.values() for line in lines)
    sizes = {line.size for lines in texts.values() for line in lines if line.size >= usual * LARGE}
    titles = sorted(sizes, reverse=True)
    pieces: list[str] = []
    length = 0
    headings: list[str] = []
    above: Item | None = None
    rank_above = 0
    mended = 0
    torn = False  # what a page said is not known
    for page in pages:
        torn |= page.unread
        lines = texts[page.number]
        layouts = _layouts(lines, usual)
        number = 0  # of the line
        for place, item in enumerate(page.items):
            if isinstance(item, Table):
                text, rank = _mended_cells(item.markdown(), words), 0
                joint = "\n" if item.continues and isinstance(above, Table) else "\n\n"
            else:
                text, rank = item.text, _rank(lines, number, layouts[item.side], titles)
                number += 1
                joint = "\n\n"
                if isinstance(above, Line):
                    joint = _joint_of(above, item, layouts, new_page=place == 0)
                    alike = item.size == above.size and item.bold == above.bold
                    same = rank_above and rank and alike
                    if (rank or rank_above) and not (same and joint in (" ", "", HYPHEN)):
                        joint = "\n\n"
            if torn:
                joint = "\n\n"
            torn = False
            if above is None:
                joint = ""
            if joint == HYPHEN:
                joint, mended = "", mended + 1
                pieces[-1], cut = _mend(pieces[-1], text, words)
                length -= cut
            begin = length + len(joint)
            if place == 0:
                part.pages.append((begin, page.number))
            if rank and (joint == "\n\n" or above is None):
                headings.append(f"{begin}:{rank}")
                if not part.title and rank <= TITLE_RANKS and page.number <= TITLE_PAGES:
                    part.title = text
            pieces.append(joint + text)
            length += len(pieces[-1])
            above, rank_above = item, rank
    part.text = "".join(pieces).replace(HYPHEN, "-")
    part.meta["headings"] = " ".join(headings)
    if mended:
        part.meta["mended_hyphens"] = str(mended)


def _usual_size(lines: Iterable[Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 1.0


def _layouts(lines: Sequence[Line], usual: float) -> "dict[int, _Layout]":
    """Of each side of a page, and of lines across it."""
    return {
        side: _Layout([line for line in lines if line.side == side], usual)
        for side in {line.side for line in lines}
    }


def _joint_of(above: Line, line: Line, layouts: "dict[int, _Layout]", *, new_page: bool) -> str:
    """What stands between two lines, which may be in two columns."""
    layout = layouts[line.side]
    if above.side == line.side:
        return _joint(above, line, layout, new_page=new_page)
    if not above.side or not line.side or above.side not in layouts:
        return "\n\n"
    by = layout.left - layouts[above.side].left
    moved = replace(above, left=above.left + by, right=above.right + by)
    return _joint(moved, line, layout, new_page=True)


class _Layout:
    """What is usual on a page: edges of the text, type size, line distance, width of a letter."""

    def __init__(self, lines: list[Line], usual: float) -> None:
        long = [line for line in lines if len(line.text) > 3]
        self.left = _low([line.left for line in long], 0.1)
        self.right = -_low([-line.right for line in long], 0.1)
        self.size = _usual_size(lines) if len(long) > 5 else usual
        gaps = [
            upper.base - lower.base
            for upper, lower in pairwise(lines)
            if 0 < upper.base - lower.base < 4 * self.size
        ]
        self.gap = _low(gaps, 0.4) or self.size * 1.2
        widths = [(line.right - line.left) / columns(line.text) for line in long]
        self.letter = median(widths) if widths else self.size / 2

    def stretched(self, line: Line) -> bool:
        """A line of far-off cells: a row of a table, or of a table of contents."""
        if line.words:  # the gap after the number of a paragraph does not count
            words = line.words[1:] if _numbered(line) else line.words
            wide = max(gaps(words), default=0.0) > WIDE_GAP * line.size
            return wide and not spread_out(words)
        letter = self.letter * line.size / self.size
        return line.right - line.left > 1.4 * letter * columns(line.text) + self.size


def _low(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else 0.0


def _rank(lines: list[Line], number: int, layout: _Layout, titles: list[float]) -> int:
    """Rank of a line that is a heading by its type or its words, else 0."""
    line = lines[number]
    text = line.text
    large, larger = line.size >= layout.size * LARGE, line.size >= layout.size * LARGER
    if not (larger or line.bold) or not text[:1].isalnum() or not _letters(text):
        return 0
    if ARTICLE.match(text):
        return 0
    if layout.stretched(line) or text.endswith(("。", "；", "，", "、", ",", ";")):
        return 0
    if any(
        abs(other.base - line.base) < 1
        for other in lines[max(0, number - 1) : number + 2]
        if other is not line
    ):
        return 0  # a cell of a table row
    if named := named_rank(text, alone=True):
        return named
    if large and line.size in titles:
        return min(titles.index(line.size) + 1, TITLE_RANKS)
    if line.left > layout.left + 2 * layout.size or sum(map(str.isalpha, text)) < len(text) / 2:
        return 0
    if _bold_lines(lines, number, layout) > 3:
        return 0  # a paragraph in bold type
    return LARGER_RANK if larger else BOLD_RANK


def _bold_lines(lines: list[Line], number: int, layout: _Layout) -> int:
    """How many lines of this type stand together."""
    line = lines[number]
    count = 1
    for step in (-1, 1):
        here = number
        while 0 <= here + step < len(lines):
            near = lines[here + step]
            close = abs(near.base - lines[here].base) < 1.4 * layout.gap
            if not close or near.bold != line.bold or near.size != line.size:
                break
            here += step
            count += 1
    return count


def _joint(above: Line, line: Line, layout: _Layout, *, new_page: bool) -> str:
    """What stands between two lines: nothing, a space, a line end, an empty line, or ``HYPHEN``."""
    em = layout.size
    like = abs(above.size - line.size) <= 0.06 * max(above.size, line.size)
    if not like or ARTICLE.match(line.text):
        return "\n\n"
    if not new_page:
        gap = above.base - line.base
        if gap > layout.gap * 1.4 or gap < -em:
            return "\n\n"
    if above.text.endswith(HYPHEN):
        return HYPHEN if line.text[:1].islower() else ""
    row = layout.stretched(above) or layout.stretched(line)
    row = row or _FIGURES.search(above.text) or LEADER.search(above.text)
    if row or _BULLET.match(line.text):
        return "\n"
    ended = above.text.endswith(("。", "！", "？", ".", "!", "?", "；", "：", ";", ":"))
    full = layout.right - above.right <= _first_word(line) + em  # no room for the next word
    hangs = abs(line.left - _text_left(above)) < 0.7 * em and (
        _text_left(above) > above.left or (full and not ended)
    )
    first = min(layout.left, above.left) if not new_page else layout.left
    if line.left > max(first, above.left) + 6 * em and full and ended:
        return "\n"  # at the right margin, or in the middle
    if first + em < line.left < first + 6 * em and line.left > layout.left + em and not hangs:
        return "\n\n"  # the first line of a paragraph is indented
    if not full:
        return "\n\n" if ended or new_page else "\n"
    if ended and above.bold != line.bold:
        return "\n"
    if unspaced(above.text[-1:]) or unspaced(line.text[:1]):
        return ""
    return " "


_FIGURES = re.compile(r"(?:[ (][$(]?[\d,.]*\d\)?\s?%?|\s—\s?%?){2,}$")  # a row of a table ends so
_BULLET = re.compile(
    r"[•●▪◦‣∙·–—]\s|\(?(?:[a-z]|[ivx]{1,4}|\d{1,3})[.)]\s|（[一二三四五六七八九十]+）|[①-⑳]"
)


def _text_left(line: Line) -> float:
    """Where the text of a line begins, after the number of a list."""
    if len(line.words) > 1 and _numbered(line):
        return line.words[1].left
    return line.left


def _numbered(line: Line) -> bool:
    """A paragraph of a list: its number or bullet stands before it."""
    if _BULLET.match(line.text) or len(line.words) < 2:
        return bool(_BULLET.match(line.text))
    number, text = line.words[:2]
    numeral = number.text.isdecimal() and len(number.text) < 3 and not text.text[0].isdecimal()
    return numeral and text.left - number.right > WIDE_GAP * line.size


def _first_word(line: Line) -> float:
    """Points that the first word of a line takes (a character, where words have no spaces)."""
    first = line.text[:1] if unspaced(line.text[:1]) else line.text.split(" ", 1)[0]
    return (line.right - line.left) * columns(first) / columns(line.text)


def _words(lines: Iterable[Line]) -> set[str]:
    return {word for line in lines for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", line.text)}


def _mend(above: str, below: str, words: set[str]) -> tuple[str, int]:
    """``above`` without its hyphen, unless the hyphenated word is used elsewhere; what it lost."""
    bare = above.rstrip(f"{HYPHEN}-")
    head = re.search(r"[^\W\d_]+(?:-[^\W\d_]+)*$", bare)
    tail = re.match(r"[^\W\d_]+", below)
    if head and tail:
        whole, hyphened = head[0] + tail[0], f"{head[0]}-{tail[0]}"
        if hyphened not in words or whole in words:
            return bare, len(above) - len(bare)
    return f"{bare}-", len(above) - len(bare) - 1


def _mended_cells(text: str, words: set[str]) -> str:
    """A table without the hyphens at the line ends of its cells, where no word has one there."""
    while (place := text.find(HYPHEN)) >= 0:
        head, tail = text[: place + 1], text[place + 1 :]
        text = (_mend(head, tail, words)[0] if tail[:1].islower() else f"{head[:-1]}-") + tail
    return text
