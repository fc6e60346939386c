"""Which parts of a web page are content, and which are menus, footers and the like.

A page that marks its main part is believed. Otherwise trafilatura says which texts belong to the
content; what it leaves out is dropped only where it also looks like boilerplate (nearly all links,
or named a menu, a footer …), because what trafilatura leaves out is often content: tables, code,
short paragraphs, definition lists.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING

from embedtune.documents.reading import Part

if TYPE_CHECKING:
    from lxml.html import HtmlElement

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
WHOLE = (*HEADINGS, "p", "pre", "blockquote", "dt", "dd")  # nothing of these is dropped
BOILERPLATE = ("nav", "header", "footer", "aside")
BOILERPLATE_ROLES = ("navigation", "banner", "contentinfo", "complementary", "search")
NOTICES = re.compile(
    r"(?:^|[\s_-])(?:(?:site|page)?footer|copyright|cookies?|consent|subscribe|newsletter"
    r"|advert(?:s|isements?)?|ads?)(?:$|[\s_-])",
    re.IGNORECASE,
)
MENUS = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|menu|sidebar|breadcrumbs?|(?:site|page)?header|topbar"
    r"|toolbar|share|sharing|social|related|recommend(?:ed|ations?)?|promo|banner|pagination|pager)"
    r"(?:$|[\s_-])",
    re.IGNORECASE,
)
MENU_LINKS = 0.2  # share of the text of a menu that stands in links, at least
LINKS = 0.5  # the same for what has no telling name
LEAST_KEPT = 0.5  # of what would stay; less, and trafilatura has not understood the page
LONGEST_PAGE = 2_000_000  # characters
MOST_TEXTS = 50_000  # with more, a page is data, and trafilatura would take minutes
# marks put before texts to find them again: Yi syllables, which trafilatura passes on as letters
_MARKS = [chr(code) for code in range(0xA000, 0xA48D)]
_MARK = re.compile(f"{_MARKS[0]}([{_MARKS[0]}-{_MARKS[-1]}])([{_MARKS[0]}-{_MARKS[-1]}])")


def none_of(elements: "Iterator[HtmlElement]") -> bool:
    """Whether there is no element; elements without children count as false, so ``any`` fails."""
    return next(elements, None) is None


def drop_boilerplate(root: "HtmlElement", part: Part) -> None:
    """Take boilerplate out of a page; what was dropped is counted in ``part``."""
    main = next(root.iter("main"), None)
    if main is None:
        main = next(iter(root.xpath(".//*[@role='main']")), None)
    if main is None:
        main = next(root.iter("article"), None)
    marked = main is not None and main.text_content().strip()
    dropped = _outside(root, main) if marked else _left_out(root)
    count = characters = 0
    for tag in dropped:
        if text := tag.text_content().strip():
            count += 1
            characters += len(text)
        tag.drop_tree()
    if count:
        part.meta["boilerplate_elements"] = str(count)
        part.meta["boilerplate_characters"] = str(characters)
        part.note(f"{count} navigation, header and footer elements dropped (documents.boilerplate)")


def _outside(root: "HtmlElement", main: "HtmlElement") -> "list[HtmlElement]":
    """The marked boilerplate outside the marked main part, without that in other such."""
    inside = {main, *root.iter("article")}
    found: list[HtmlElement] = []
    for tag in root.iter():
        if (
            _marked(tag)
            and none_of(tag.iter("main", "article"))
            and inside.isdisjoint(tag.iterancestors())
            and not any(above in tag.iterancestors() for above in found[-1:])
        ):
            found.append(tag)
    return found


def _marked(tag: "HtmlElement") -> bool:
    return tag.tag in BOILERPLATE or tag.get("role") in BOILERPLATE_ROLES


def _strings(root: "HtmlElement") -> "Iterator[tuple[HtmlElement, str, str]]":
    """(element, "text" or "tail", text) of every text that is not only space, element by element.

    The text belongs to the element itself, or ("tail") to its parent.
    """
    for tag in root.iter():
        if tag.text and not tag.text.isspace():
            yield tag, "text", tag.text
        if tag is not root and tag.tail and not tag.tail.isspace():
            yield tag, "tail", tag.tail


def _left_out(root: "HtmlElement") -> "list[HtmlElement]":
    """The largest elements without any text that trafilatura keeps and that look the part."""
    kept = _kept(root)
    if not kept:
        return []
    size: Counter[HtmlElement] = Counter()  # characters
    inside: Counter[HtmlElement] = Counter()  # of them in texts that are kept
    linked: Counter[HtmlElement] = Counter()  # of them in links
    for number, (tag, place, text) in enumerate(_strings(root)):
        owner = tag if place == "text" else tag.getparent()
        length = len("".join(text.split()))
        size[owner] += length
        inside[owner] += length * (number in kept)
    elements = list(root.iter())
    for tag in reversed(elements):  # children before their parents
        if tag.tag == "a":
            linked[tag] = size[tag]
        if tag is not root:
            for count in (size, inside, linked):
                count[tag.getparent()] += count[tag]

    def boilerplate(tag: "HtmlElement") -> bool:
        if _content(tag) or size[tag] > inside[root]:
            return False
        names = f"{tag.get('class', '')} {tag.get('id', '')}"
        least = MENU_LINKS if MENUS.search(names) else LINKS
        links = linked[tag] / size[tag]
        return links >= least or _marked(tag) or bool(NOTICES.search(names))

    found, waiting = [], [root]
    while waiting:
        for tag in waiting.pop():
            if not size[tag] or tag.tag in WHOLE or (tag.tag == "table" and _holds_values(tag)):
                continue
            if not inside[tag] and boilerplate(tag):
                found.append(tag)
            else:
                waiting.append(tag)
    rest = size[root] - sum(size[tag] for tag in found)
    return found if inside[root] >= LEAST_KEPT * rest else []


def _content(tag: "HtmlElement") -> bool:
    """Whether it holds what is worth keeping even if it is nothing but links."""
    title = next(tag.iter("h1"), None)
    if title is not None and title.find(".//a") is None and none_of(title.iterancestors("a")):
        return True
    return any(map(_holds_values, tag.iter("table")))


def _holds_values(table: "HtmlElement") -> bool:
    """Whether it has rows of several cells, as a table that only arranges links does not."""
    if not none_of(table.iterdescendants("table")):
        return False
    rows = (sum(cell.tag in ("td", "th") for cell in row) for row in table.iter("tr"))
    return sum(cells > 1 for cells in rows) > 1


def _kept(root: "HtmlElement") -> set[int]:
    """Numbers of the texts that trafilatura takes for content; none where it finds nothing."""
    from lxml.html import document_fromstring
    from trafilatura import extract

    page = document_fromstring("<html></html>")
    page.append(deepcopy(root))
    strings = list(_strings(page[-1]))
    length = sum(len(text) for *_, text in strings)
    if length > LONGEST_PAGE or len(strings) > MOST_TEXTS:
        return set()
    if any(_MARK.search(text) for *_, text in strings):
        return set()
    for number, (tag, place, text) in enumerate(strings):
        high, low = divmod(number, len(_MARKS))
        setattr(tag, place, _MARKS[0] + _MARKS[high] + _MARKS[low] + text)
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        text = extract(
            page,
            output_format="txt",
            favor_recall=True,
            include_comments=True,
            include_tables=True,
            include_formatting=False,
        )
    except Exception:  # whatever it stumbles over must not cost the page
        text = None
    return {
        _MARKS.index(high) * len(_MARKS) + _MARKS.index(low)
        for high, low in _MARK.findall(text or "")
    }
