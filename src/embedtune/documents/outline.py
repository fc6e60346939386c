"""The blocks of a document: headings, paragraphs, tables, code fences, with their places.

Headings are Markdown's, the numbered lines of Chinese statutes (第一章, 第一节, 第十二条),
those of English filings (PART II, ITEM 1A. RISK FACTORS, 2.3 Scope) and lines in capitals, and
what the PDF reader saw as a heading (``Document.meta["headings"]``).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from embedtune.records import Document

# Kinds whose readers write Markdown; a row of a table file holds it as often as not. In the others
# (text, pdf, image) only tables are read as such.
MARKDOWN_KINDS = ("markdown", "html", "docx", "pptx", "xlsx", "epub", "unstructured", "docling",
                  "csv", "jsonl")  # fmt: skip

# Ranks of headings: 1 to 6 are Markdown's own and large type in a PDF, larger is deeper.
_NUMERAL = "[一二三四五六七八九十百千零〇两0-9０-９]{1,7}"
_CHINESE = (
    (re.compile(rf"第{_NUMERAL}(?:分编|部分|编|篇)(?=[\s\u3000:：]|$)"), 20),
    (re.compile(rf"第{_NUMERAL}章"), 21),
    (re.compile(rf"第{_NUMERAL}节"), 22),
    (re.compile(r"(?:附录|附件|附表)[一二三四五六七八九十A-Z0-9]{0,3}(?=[\s\u3000:：]|$)"), 21),
    (re.compile(r"[一二三四五六七八九十]{1,3}、"), 30),
)
ARTICLE = re.compile(rf"第{_NUMERAL}条(?:之[一二三四五六七八九十]{{1,2}})?(?=[\s\u3000:：【（(])")
ARTICLE_RANK = 40
LONGEST_NAMED = 120  # characters of a heading that has no mark but its words
_ENGLISH = (
    (re.compile(r"PART\s+(?:[IVXL]+|\d+)\b", re.IGNORECASE), 20),
    (re.compile(r"(?:ITEM|CHAPTER|ARTICLE)\s+(?:\d+[A-Z]?|[IVXL]+)\b", re.IGNORECASE), 21),
    (re.compile(r"(?:NOTE|SECTION|APPENDIX|ANNEX|SCHEDULE|EXHIBIT)\s+(?:\d+(?:\.\d+)*|[A-Z]{1,4})\b(?!,)",
                re.IGNORECASE), 22),
)  # fmt: skip
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){1,4})\.?\s+(?=[A-Z\u4e00-\u9fff])")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ,.&'’()/:\-–—]{3,79}")
CAPITALS_RANK = 25
_NUMBERED_RANK = 25  # 2.1 is 26, 2.1.1 is 27
_ATX = re.compile(r"(#{1,6})[ \t]+(\S.*)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
FENCE = re.compile(r" {0,3}(```+|~~~+)(.*)$")
TABLE_RULE = re.compile(r"\s*(?:\|\s*)?:?-+:?\s*(?:\|\s*:?-+:?\s*)*(?:\|\s*)?$")
_ENDS_SENTENCE = tuple("。；，、,;!！?？")


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the document. ``rank`` > 0 opens a section called ``label``.

    An article of a statute opens a section too, but is itself a paragraph (kind "text").
    """

    start: int
    end: int
    kind: str  # heading, text, table or code
    rank: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int  # without the line end
    text: str


def _lines(text: str) -> list[_Line]:
    lines, start = [], 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        lines.append(_Line(start, end, text[start:end]))
        start = end + 1
    return lines


def blocks_of(document: Document) -> Iterator[Block]:
    """The blocks of a document in order; only white space lies between them."""
    markdown = document.kind in MARKDOWN_KINDS
    seen = _seen_headings(document)
    lines = _lines(document.text)
    fences = _closed_fences(lines) if markdown else {}
    here = 0
    while here < len(lines):
        line = lines[here]
        if not line.text.strip():
            here += 1
            continue
        after = here + 1
        rank, label = _heading(lines, here, markdown, seen)
        if here in fences:
            after = fences[here] + 1
            yield Block(line.start, lines[after - 1].end, "code")
        elif _table_begins(lines, here):
            while after < len(lines) and "|" in lines[after].text:
                after += 1
            yield Block(line.start, lines[after - 1].end, "table")
        elif rank:
            setext = markdown and not line.text.startswith("#") and _is_setext(lines, here)
            after += setext
            yield Block(line.start, lines[after - 1].end, "heading", rank, label)
        else:
            article = ARTICLE.match(line.text.strip())
            while after < len(lines) and not (
                not lines[after].text.strip()
                or after in fences
                or _table_begins(lines, after)
                or ARTICLE.match(lines[after].text.strip())
                or _heading(lines, after, markdown, seen)[0]
            ):
                after += 1
            if article:
                yield Block(line.start, lines[after - 1].end, "text", ARTICLE_RANK, article[0])
            else:
                yield Block(line.start, lines[after - 1].end, "text")
        here = after


def _seen_headings(document: Document) -> dict[int, int]:
    """Offset -> rank of the headings that the PDF reader found by their type."""
    pairs = (item.split(":") for item in document.meta.get("headings", "").split())
    return {int(offset): int(rank) for offset, rank in pairs}


def _heading(
    lines: list[_Line], here: int, markdown: bool, seen: dict[int, int]
) -> tuple[int, str]:
    """Rank and label when a heading begins on this line, else (0, "")."""
    line = lines[here]
    text = line.text.strip()
    if not text:
        return 0, ""
    if markdown and (atx := _ATX.match(line.text)):
        return len(atx[1]), _unclosed(atx[2])
    if markdown and _is_setext(lines, here):
        return (1 if "=" in lines[here + 1].text else 2), text
    rank = named_rank(text, alone=_alone(lines, here)) or seen.get(line.start, 0)
    if 20 <= rank <= 22 and _contents_line(_next_text(lines, here)):
        return 0, ""  # "PART I" in a table of contents
    return rank, text


def _unclosed(heading: str) -> str:
    """A heading without the hashes that may close it (``## Scope ##``, but ``# C#``)."""
    heading = heading.rstrip()
    bare = heading.rstrip("#")
    return bare.rstrip() if bare != heading and bare.endswith((" ", "\t")) else heading


def named_rank(text: str, *, alone: bool) -> int:
    """The rank of a line that is a heading by its words, else 0.

    Args:
        text: One line, stripped.
        alone: Whether blank lines, or other headings, stand around it.
    """
    if len(text) > LONGEST_NAMED or text.endswith(_ENDS_SENTENCE) or _contents_line(text):
        return 0
    if len(text) <= 60:
        for pattern, rank in _CHINESE:
            if pattern.match(text) and (rank < 30 or (alone and len(text) <= 30)):
                return rank
    for pattern, rank in _ENGLISH:
        match = pattern.match(text)
        if match and alone and _title_follows(text[match.end() :]):
            return rank
    if not alone:
        return 0
    if (match := _NUMBERED.match(text)) and len(text) <= 80 and not text.endswith("."):
        return _NUMBERED_RANK + match[1].count(".")
    if _CAPITALS.fullmatch(text) and sum(map(str.isalpha, text)) > len(text) / 2:
        return CAPITALS_RANK
    return 0


def _title_follows(rest: str) -> bool:
    """Whether what follows "Item 7" reads as a title, not as the middle of a sentence."""
    rest = rest.strip(" \t.:-–—")
    return not rest or rest[0].isupper() or not rest[0].isascii()


def _contents_line(text: str) -> bool:
    """A line of a table of contents: leaders, or a page number after a title."""
    text = text[-LONGEST_NAMED:]
    return bool(
        re.search(r"(?:\.{3,}|…{2,}|·{3,})\s*\d*$|[^\W\d]\W*\s\d{1,4}$", text)
    ) and not re.fullmatch(r"\w+\s+\d+", text)


def _next_text(lines: list[_Line], here: int) -> str:
    return next((line.text.strip() for line in lines[here + 1 : here + 4] if line.text.strip()), "")


def _alone(lines: list[_Line], here: int) -> bool:
    before = here == 0 or not lines[here - 1].text.strip()
    after = here + 1 == len(lines) or not lines[here + 1].text.strip()
    return before and after


def _is_setext(lines: list[_Line], here: int) -> bool:
    if here + 1 >= len(lines) or not _SETEXT.match(lines[here + 1].text):
        return False
    text = lines[here].text
    one_line = here == 0 or not lines[here - 1].text.strip()
    return (
        one_line
        and bool(text.strip())
        and "|" not in text
        and not text.startswith((" " * 4, "-", "*", ">", "#"))
    )


def _table_begins(lines: list[_Line], here: int) -> bool:
    return (
        "|" in lines[here].text
        and here + 1 < len(lines)
        and "|" in lines[here + 1].text
        and bool(TABLE_RULE.match(lines[here + 1].text))
    )


def cells_of(row: str) -> list[str]:
    """The texts of the cells of a row of a Markdown table."""
    inner = row.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _closed_fences(lines: list[_Line]) -> dict[int, int]:
    """First line -> last line of each code fence that is closed; an unclosed one is plain text."""
    found: dict[int, int] = {}
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        match = FENCE.match(line.text)
        if not match:
            continue
        if opened is None:
            opened = (number, match[1])
        elif match[1].startswith(opened[1]) and not match[2].strip():
            found[opened[0]] = number
            opened = None
    return found


def open_fence(text: str) -> int | None:
    """The line (from 1) of a code fence that is never closed."""
    lines = _lines(text)
    closed = _closed_fences(lines)
    inside = {n for first, last in closed.items() for n in range(first, last + 1)}
    for number, line in enumerate(lines):
        if number not in inside and FENCE.match(line.text):
            return number + 1
    return None
