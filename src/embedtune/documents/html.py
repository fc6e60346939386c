"""HTML pages as Markdown. Nothing is ever fetched, nothing hidden gets through."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from embedtune.decode import Undecodable, decode
from embedtune.documents.clean import clean
from embedtune.documents.grid import Cell, markdown_table, spread
from embedtune.documents.mainpart import HEADINGS, drop_boilerplate, none_of
from embedtune.documents.reading import Broken, Part

if TYPE_CHECKING:
    from bs4 import Tag
    from lxml.html import HtmlElement

DROPPED = ("script", "style", "template", "noscript", "head", "iframe", "frame", "object", "embed",
           "applet", "svg", "canvas", "audio", "video", "select", "input", "textarea", "dialog",
           "meta", "link", "base", "datalist")  # fmt: skip
HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?![.\d])"
    r"|font-size\s*:\s*(?:0(?![.\d])|(?:1|0?\.\d+)p[xt]\b)|(?:^|;)\s*color\s*:\s*transparent"
    r"|(?:^|;)\s*(?:text-indent|left|top)\s*:\s*-\d{3,}",
    re.IGNORECASE,
)
RULE_HIDES_AT_MOST = 0.1  # of the page; more is what a script unfolds, and only flagged
DECLARED = re.compile(
    rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?\s*([\w:.-]{2,40})""", re.IGNORECASE
)
INLINE = ("a", "b", "strong", "em", "i", "u", "s", "del", "mark", "font", "span", "label", "form",
          "button", "math", "img")  # fmt: skip
BLOCKS = frozenset(
    (*HEADINGS, "p", "br", "li", "div", "dt", "dd", "tr", "pre", "blockquote", "table", "ul", "ol",
     "hr", "td", "th")
)  # fmt: skip
DEEPEST = 2048  # what the parser follows
# written as a reference (&#31;), a control character gets through the parser and breaks its tree
CONTROL = re.compile(
    r"&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01])(?!\d)|[xX]0*(?:[0-8bcefBCEF]|1[\da-fA-F])(?![\da-fA-F]));?"
)
_CJK = "[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"
_CJK_LINE = re.compile(rf"(?<={_CJK})[ \t]*\n\s*(?={_CJK})")
_VOID = "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
_NAME = r"[A-Za-z][\w:.-]*"


def read_html(
    data: bytes, broken_bytes: str, *, tables: bool, boilerplate: Literal["auto", "keep"] = "auto"
) -> Part:
    """The visible text of a page, as Markdown.

    Args:
        boilerplate: ``auto`` leaves out menus, footers and the like; ``keep`` keeps all that is
            visible.
    """
    text, encoding = decoded_page(data, broken_bytes)
    part = Part(kind="html", meta={"encoding": encoding})
    html_to_markdown(text, part, tables=tables, boilerplate=boilerplate)
    return part


def decoded_page(data: bytes, broken_bytes: str) -> tuple[str, str]:
    """The declared encoding when it fits, else what ``decode`` finds."""
    try:
        result = decode(data, replace_broken=broken_bytes == "replace")
        if result.encoding.startswith("utf"):
            return result.text, result.encoding
        fallback: Undecodable | None = None
    except Undecodable as error:
        result, fallback = None, error
    if declared := DECLARED.search(data[:4096]):
        name = declared[1].decode("ascii").lower()
        name = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "latin1": "cp1252",
                "shift_jis": "cp932", "big5": "big5hkscs"}.get(name, name)  # fmt: skip
        try:
            return data.decode(name), name
        except (UnicodeDecodeError, LookupError):
            pass
    if result is None:
        raise Broken("encoding", str(fallback))
    return result.text, result.encoding


def html_to_markdown(
    html: str, part: Part, *, tables: bool, boilerplate: Literal["auto", "keep"] = "keep"
) -> None:
    """Fill text and title of ``part`` from a page; hidden elements are dropped and counted.

    Raises:
        Broken: The document type defines entities, or the page is only a frame around others, or
            nested without end.
    """
    if re.search(r"<!ENTITY", html[:200_000], re.IGNORECASE):
        raise Broken("entities", "the document type defines entities; they are not resolved")
    html, written = CONTROL.subn("\ufffd", html)
    html, _, replaced = clean(html)
    if written + replaced:
        part.meta["replaced_characters"] = str(written + replaced)
        part.note(f"{written + replaced} control or broken characters replaced by U+FFFD")
    # images in the page itself are megabytes without a word
    html = re.sub(r"""(?<=["'(])\s*data:[\w/+.;=-]*;base64,[A-Za-z0-9+/=\s%]*""", "", html)
    if re.match(r"\s*<\?xml|[^>]*>?\s*<html[^>]+xmlns", html[:5000], re.IGNORECASE):
        html = _html_from_xml(html)
    page = _parsed(html)
    if page is None:
        part.text = "\n"
        return
    if not part.title:
        part.title = " ".join((page.findtext(".//title") or "").split())
    page = _open_frames(page)
    _drop_unseen(page, part)
    body = page.find("body")
    root = page if body is None else body
    if boilerplate == "auto":
        drop_boilerplate(root, part)
    _flatten(root)
    for table in list(root.iter("table")):
        if table.tag == "table" and table.getroottree().getroot() is page:
            _read_table(table, tables=tables)
    part.text = _markdown(root, part)
    if not part.title and (heading := re.search(r"^# (\S.*)$", part.text, re.MULTILINE)):
        part.title = heading[1]


def _html_from_xml(html: str) -> str:
    """XHTML written so that a reader of HTML understands it: CDATA, and elements closed at once."""
    html = re.sub(
        r"<!\[CDATA\[(.*?)\]\]>",
        lambda match: match[1].replace("&", "&amp;").replace("<", "&lt;"),
        html,
        flags=re.DOTALL,
    )
    closed = rf"<(?!(?:{_VOID})\b)({_NAME})((?:\s[^<>]*?)?)/>"
    return re.sub(closed, r"<\1\2></\1>", html, flags=re.IGNORECASE)


def _parsed(html: str) -> "HtmlElement | None":
    """The page as a tree; None where there is nothing in it."""
    from lxml import etree
    from lxml.html import HTMLParser, document_fromstring

    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        page = document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:
        return None
    if any("Excessive depth" in entry.message for entry in parser.error_log):
        raise Broken("limits", f"elements stand in one another more than {DEEPEST:,} deep")
    return page


def _open_frames(page: "HtmlElement") -> "HtmlElement":
    """What a page of frames says to a reader without frames; else its text is elsewhere."""
    frames = page.find(".//frameset")
    if frames is None:
        return page
    inside = _parsed("".join(text for tag in frames.iter("noframes") for text in tag.itertext()))
    if inside is not None and inside.text_content().strip():
        return inside
    sources = [frame.get("src") for frame in frames.iter("frame") if frame.get("src")]
    shown = ", ".join(sources[:5]) or "none named"
    raise Broken("frames", f"only a frame; its text is in other files ({shown}); read those")


# ---- what nobody sees


def _drop_unseen(page: "HtmlElement", part: Part) -> None:
    rules = _hiding_rules(page)
    for formula in page.iter("math"):
        source = formula.xpath(".//annotation[contains(@encoding, 'tex')]")
        words = formula.get("alttext") or (source[0] if source else formula).text_content()
        for child in list(formula):
            formula.remove(child)
        formula.text = " ".join(words.split())
    _drop(page.iter(*DROPPED))
    _drop(tag for tag in page.iter("nav") if tag.get("epub:type"))
    # the questions of many answer pages are buttons that unfold the answer
    _drop(tag for tag in page.iter("button") if none_of(tag.iterancestors(*HEADINGS, "dt")))
    # some servers wrap whole pages in a form
    _drop(tag for tag in page.iter("form") if none_of(tag.iter("p", "table", *HEADINGS)))
    hidden = [tag for tag in page.xpath("//*[@hidden or @aria-hidden or @style]") if _hidden(tag)]
    by_rule = [
        tag for tag in (page.xpath("//*[@class or @id]") if rules else ()) if rules & _names(tag)
    ]
    length = len(page.text_content())
    if sum(len(tag.text_content()) for tag in by_rule) <= RULE_HIDES_AT_MOST * length:
        hidden += by_rule
    elif by_rule:
        part.meta["unfolded_elements"] = str(len(by_rule))
        part.note(f"{len(by_rule)} elements that the page's own style hides at first are kept")
    if count := _drop(hidden):
        part.meta["hidden_elements"] = str(count)
        part.note(f"{count} hidden elements dropped")


def _drop(tags: "Iterable[HtmlElement]") -> int:
    """Take elements out; how many of them held text, those inside others not counted."""
    tags = list(tags)
    dropped = set(tags)
    count = 0
    for tag in tags:
        if tag.getparent() is not None and dropped.isdisjoint(tag.iterancestors()):
            count += bool(tag.text_content().strip())
            tag.drop_tree()
    return count


def _hidden(tag: "HtmlElement") -> bool:
    """Whether it is hidden by attribute or by its own style."""
    return (
        (tag.get("hidden") is not None and tag.get("hidden") != "until-found")
        or tag.get("aria-hidden", "").lower() == "true"
        or bool(HIDDEN_STYLE.search(tag.get("style", "")))
    )


def _hiding_rules(page: "HtmlElement") -> set[str]:
    """Classes (.x) and ids (#x), of all or of some elements (p.x), that the page's style hides."""
    found: set[str] = set()
    for sheet in page.iter("style"):
        css = re.sub(r"/\*.*?\*/", "", sheet.text or "", flags=re.DOTALL)
        css = re.sub(r"@[\w-]+[^{};]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css)  # @media print …
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
            if HIDDEN_STYLE.search(body):
                found |= set(map(str.strip, selectors.split(",")))
    return {name for name in found if re.fullmatch(r"[a-z]*[.#][A-Za-z_][\w-]*", name)}


def _names(tag: "HtmlElement") -> set[str]:
    """The ways a simple selector can name an element."""
    names = {f".{name}" for name in tag.get("class", "").split()}
    names |= {f"#{tag.get('id')}"} if tag.get("id") else set()
    return names | {f"{tag.tag}{name}" for name in names}


# ---- structure


def _flatten(root: "HtmlElement") -> None:
    """Text without marks inside lines, white space as a browser shows it, no needless depth."""
    from lxml import etree

    for image in root.iter("img"):
        image.text = image.get("alt")
    etree.strip_tags(root, *INLINE)
    for box in list(root.iter("div")):
        parent = box.getparent()
        alone = parent is not None and parent.tag == "div" and len(parent) == 1
        if alone and not (parent.text or "").strip() and not (box.tail or "").strip():
            box.drop_tag()  # recursion over thousands of boxes in boxes would fail
    kept = {tag for block in root.iter("pre") for tag in block.iter()}
    for tag in root.iter():
        if tag not in kept:
            tag.text = _spaced(tag.text)
        if tag not in kept or tag.tag == "pre":
            tag.tail = _spaced(tag.tail)


def _spaced(text: str | None) -> str | None:
    return text and re.sub(r"\s+", " ", _CJK_LINE.sub("", text))


def _read_table(table: "HtmlElement", *, tables: bool) -> None:
    """Put the Markdown of a table in its place; one that only arranges the page is taken apart."""
    rows = [row for row in table.iter("tr") if next(row.iterancestors("table")) is table]
    cells = [[cell for cell in row if cell.tag in ("td", "th")] for row in rows]
    if _arranges(table, cells):
        for tag in list(table.iter("caption", "thead", "tbody", "tfoot", "tr", "td", "th")):
            if next(tag.iterancestors("table"), None) is table:
                tag.tag = "div"
        table.tag = "div"
        return
    caption = table.find("caption")
    lines = [_line(caption)] if caption is not None else []
    grid = spread(
        [Cell(_line(cell), _span(cell, "rowspan"), _span(cell, "colspan")) for cell in row]
        for row in cells
    )
    if tables:
        heads = sum(not none_of(row.iterancestors("thead")) for row in rows) or _head_rows(cells)
        lines.append(markdown_table(grid, heads))
    else:
        lines += [" ".join(map(_line, row)) for row in cells]
    tail = table.tail
    table.clear()
    table.tail = tail
    table.set("data-text", "\n\n".join(filter(None, lines)))


def _arranges(table: "HtmlElement", cells: "list[list[HtmlElement]]") -> bool:
    """Whether a table is only there for the layout: its cells hold parts of a page, not values."""
    if table.get("role") in ("presentation", "none") or max(map(len, cells), default=0) <= 1:
        return True
    own = table.iterdescendants("th", "thead", "caption")
    if any(next(tag.iterancestors("table")) is table for tag in own):
        return False
    return not none_of(table.iterdescendants("table", "pre", *HEADINGS))


def _head_rows(cells: "list[list[HtmlElement]]") -> int:
    """Rows of ``th`` at the top; the first row where there are none."""
    count = 0
    for row in cells:
        if not row or any(cell.tag != "th" for cell in row):
            break
        count += 1
    return max(1, count)


def _line(cell: "HtmlElement") -> str:
    """All text of a cell as one line; what stands in blocks of its own is set apart by a space."""
    from lxml import etree

    words = []
    for event, tag in etree.iterwalk(cell, events=("start", "end")):
        if tag.tag in BLOCKS:
            words.append(" ")
        if event == "start":
            words.append(tag.text or "")
        elif tag is not cell:
            words.append(tag.tail or "")
    return " ".join("".join(words).split())


def _span(cell: "HtmlElement", name: str) -> int:
    value = cell.get(name, "1").strip()
    if name == "rowspan" and value == "0":
        return 1 << 16  # to the last row
    return int(value) if value.isdecimal() and len(value) < 6 and value != "0" else 1


def _markdown(root: "HtmlElement", part: Part) -> str:
    from bs4 import BeautifulSoup
    from lxml.html import tostring
    from markdownify import MarkdownConverter

    class Converter(MarkdownConverter):
        def convert_table(self, el: "Tag", *_: object, **__: object) -> str:
            return f"\n\n{el['data-text']}\n\n"

    converter = Converter(
        heading_style="ATX", bullets="-", escape_asterisks=False, escape_underscores=False,
        escape_misc=False,
    )  # fmt: skip
    try:
        text = converter.convert_soup(BeautifulSoup(tostring(root, encoding="unicode"), "lxml"))
    except RecursionError:
        part.note("nested too deeply for its structure; read as plain text")
        for table in root.iter("table"):
            table.text = table.get("data-text")
        text = "\n".join(root.itertext())
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
