"""HTML pages as Markdown. Nothing is ever fetched, nothing hidden gets through."""

import re
from typing import TYPE_CHECKING

from embedtune.decode import Undecodable, decode
from embedtune.documents.reading import Broken, Part

if TYPE_CHECKING:
    from bs4 import Tag

DROPPED = ("script", "style", "template", "noscript", "head", "iframe", "frame", "frameset",
           "object", "embed", "applet", "svg", "math", "canvas", "audio", "video", "form", "button",
           "select", "input", "textarea", "dialog", "meta", "link", "base")  # fmt: skip
BOILERPLATE = ("nav", "header", "footer", "aside")
BOILERPLATE_ROLES = ("navigation", "banner", "contentinfo", "complementary", "search")
HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|font-size\s*:\s*0(?![.\d])"
    r"|opacity\s*:\s*0(?![.\d])|(?:^|;)\s*(?:text-indent|left|top)\s*:\s*-\d{3,}",
    re.IGNORECASE,
)
DECLARED = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.IGNORECASE)
INLINE = ("a", "b", "strong", "em", "i", "u", "s", "del", "mark", "font", "span")
_CJK = "[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"


def read_html(data: bytes, broken_bytes: str, *, tables: bool) -> Part:
    """The visible text of a page, as Markdown."""
    text, encoding = _decoded(data, broken_bytes)
    if re.search(r"<!ENTITY", text[:200_000], re.IGNORECASE):
        raise Broken("entities", "the document type defines entities; they are not resolved")
    part = Part(kind="html", meta={"encoding": encoding})
    html_to_markdown(text, part, tables=tables)
    return part


def _decoded(data: bytes, broken_bytes: str) -> tuple[str, str]:
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


def html_to_markdown(html: str, part: Part, *, tables: bool) -> None:
    """Fill text and title of ``part`` from a page; hidden elements are dropped and counted."""
    from bs4 import BeautifulSoup, Comment, Doctype, ProcessingInstruction
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(html, "lxml")
    if soup.title and not part.title:
        part.title = soup.title.get_text(" ", strip=True)
    for node in soup.find_all(
        string=lambda text: isinstance(text, Comment | Doctype | ProcessingInstruction)
    ):
        node.extract()
    for tag in soup.find_all(DROPPED):
        tag.decompose()
    hidden = 0
    for tag in soup.find_all(True):
        if not tag.decomposed and _hidden(tag):
            hidden += bool(tag.get_text(strip=True))
            tag.decompose()
    if hidden:
        part.meta["hidden_elements"] = str(hidden)
        part.note(f"{hidden} hidden elements dropped")
    root = soup.body or soup
    main = root.find("main") or root.find(attrs={"role": "main"}) or root.find("article")
    if main is not None and len(main.get_text(strip=True)) > 0:
        articles = [tag for tag in root.find_all("article") if not tag.find_parent("article")]
        boilerplate = [
            tag
            for tag in root.find_all(True)
            if (tag.name in BOILERPLATE or tag.get("role") in BOILERPLATE_ROLES)
            and not any(parent is main or parent in articles for parent in tag.parents)
        ]
        dropped = 0
        for tag in boilerplate:
            if not tag.decomposed and tag.find(["main", "article"]) is None:
                dropped += 1
                tag.decompose()
        if dropped:
            part.meta["boilerplate_elements"] = str(dropped)
            part.note(f"{dropped} navigation, header and footer elements dropped")
    for image in root.find_all("img"):
        image.replace_with(image.get("alt") or "")
    for mark in root.find_all(INLINE):
        mark.unwrap()
    root.smooth()
    for string in root.find_all(string=True):
        if not string.find_parent("pre"):
            joined = re.sub(rf"(?<={_CJK})[ \t]*\n\s*(?={_CJK})", "", string)
            string.replace_with(re.sub(r"\s+", " ", joined))
    if tables:
        for table in root.find_all("table"):
            _promote_header(table)
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", escape_asterisks=False, escape_underscores=False,
        escape_misc=False,
        strip=[] if tables else ["table", "thead", "tbody", "tfoot", "caption"],
    )  # fmt: skip
    if not tables:
        for row in root.find_all("tr"):
            cells = [cell.get_text(" ", strip=True) for cell in row.find_all(["td", "th"])]
            row.replace_with(soup.new_tag("p", string=" ".join(cells)))
    try:
        text = converter.convert_soup(root)
    except RecursionError:
        part.note("nested too deeply for its structure; read as plain text")
        text = root.get_text("\n")
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    part.text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _hidden(tag: "Tag") -> bool:
    """Whether it is hidden by attribute or by its own style."""
    return (
        "hidden" in tag.attrs
        or str(tag.get("aria-hidden", "")).lower() == "true"
        or bool(HIDDEN_STYLE.search(str(tag.get("style", ""))))
    )


def _promote_header(table: "Tag") -> None:
    """Markdown needs a header row: the first row, where the page names none."""
    rows = table.find_all("tr")
    if rows and not rows[0].find("th") and not table.find("thead"):
        for cell in rows[0].find_all("td", recursive=False):
            cell.name = "th"
    for cell in table.find_all(["td", "th"]):
        for string in cell.find_all(string=lambda text: "|" in text):
            string.replace_with(string.replace("|", "\\|"))
        for mark in cell.find_all(["p", "br", "li", "div"]):
            mark.insert_before(" ")  # blocks in a cell become one line
            mark.unwrap() if mark.name != "br" else mark.decompose()
