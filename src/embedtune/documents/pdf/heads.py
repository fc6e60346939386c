"""Running heads and page numbers of a PDF: known by recurring at the edges of pages."""

import re
from collections.abc import Iterable

from embedtune.documents.pdf.lines import Line, columns
from embedtune.documents.pdf.page import Page
from embedtune.documents.pdf.paragraphs import Layout, usual_size
from embedtune.documents.reading import Part

EDGE = 4  # lines at the top and bottom of a page that may be running heads
LONGEST_HEAD = 80  # characters of a running head
LETTERS_BESIDE_NUMBER = 24  # in a line with a page number; a Chinese character is two

_NUMBER = re.compile(r"\d+")
_BARE_NUMBER = re.compile(r"\W*(?:page|p\.|第)?\s*\d+\s*(?:页|(?:of|/)\s*\d+)?\W*", re.IGNORECASE)


def drop_running_heads(pages: list[Page], part: Part) -> None:
    """Remove lines that stand at the edges of many pages, and page numbers; count them."""
    usual = usual_size(line for page in pages for line in page.lines)
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
    gap = Layout(lines, usual).gap * 1.4

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
