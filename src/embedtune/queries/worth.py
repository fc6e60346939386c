"""Chunks that no question should be bought for."""

import re
from collections.abc import Sequence
from itertools import pairwise

from embedtune.quotes import skeleton
from embedtune.records import Chunk
from embedtune.relevance import twins_of
from embedtune.similar import near_duplicates

BOILERPLATE = 3  # queries of a text that recurs in more documents are left out of any split
ENTRIES = 4  # a list of contents has at least so many
LINE_END = 200  # characters in which the pages of an entry stand
SHARE = 0.6  # of its lines that are entries

DOTS = re.compile(r"\.{3}|\. \.|…{2}|·{3}|_{4}")  # quick to look for
LEADERS = re.compile(r"(?:\.{3,}|(?:\. ){3,}|…{2,}|·{3,}|_{4,})\s*[0-9ivxlc]+\b", re.IGNORECASE)
PAGES = re.compile(r"\D\s*(\d{1,4})(?:\s*[,，、–-]\s*\d{1,4})*$")
WIDE = re.compile("[\u2e80-\U0010ffff]")
CONTENTS = re.compile(r"(?:table of )?contents|目\s*[录次]", re.IGNORECASE)
INDEX = re.compile(r"(?:subject |general )?index|(?:主题)?索\s*引", re.IGNORECASE)


def weight(text: str) -> int:
    """How much ``text`` says: its letters and digits, those of Chinese and the like twice."""
    letters = skeleton(text)
    return len(letters) + (0 if letters.isascii() else len(WIDE.findall(letters)))


def not_worth_asking(chunks: Sequence[Chunk], min_characters: int) -> dict[str, tuple[str, str]]:
    """(code, message) by the ids of the chunks that are not asked about.

    ``too-small``; ``contents`` (a table of contents or an index: it names what stands elsewhere);
    ``boilerplate`` (near-duplicates of it stand in more than 3 documents).
    """
    found = {}
    for chunk in chunks:
        if weight(chunk.text) < min_characters:
            found[chunk.id] = "too-small", "too little text to ask about"
        elif is_contents(chunk):
            found[chunk.id] = "contents", "a table of contents or an index"
    rest = [chunk for chunk in chunks if chunk.id not in found]
    document_of = {chunk.id: chunk.document for chunk in rest}
    if len(set(document_of.values())) > BOILERPLATE:
        pairs = near_duplicates([chunk.embedded for chunk in rest])
        for chunk_id, twins in twins_of(rest, pairs).items():
            if len({document_of[twin] for twin in twins}) > BOILERPLATE:
                found[chunk_id] = "boilerplate", f"it recurs in more than {BOILERPLATE} documents"
    return found


def is_contents(chunk: Chunk) -> bool:
    """Whether a chunk only says on which page something else stands.

    Either most of its entries have leaders, or a heading says so and most of its lines end in
    pages, in a table of contents in rising order. (A price list ends in numbers too.)
    """
    leaders = len(LEADERS.findall(chunk.text)) if DOTS.search(chunk.text) else 0
    lines = [line.strip(" |\t").replace("|", " ") for line in chunk.text.splitlines()]
    lines = [line for line in lines if re.search(r"\w", line)]
    if leaders >= ENTRIES and leaders >= SHARE * min(len(lines), len(chunk.text) / 60):
        return True
    pages = [int(match[1]) for line in lines if (match := PAGES.search(line[-LINE_END:]))]
    if len(pages) < ENTRIES or len(pages) < SHARE * len(lines):
        return False
    names = {" ".join(name.split()).strip(" :：#*") for name in (*chunk.section, *lines[:3])}
    if any(INDEX.fullmatch(name) for name in names):
        return True
    rising = sum(one <= other for one, other in pairwise(pages))
    return rising >= 0.8 * (len(pages) - 1) and any(CONTENTS.fullmatch(name) for name in names)
