"""EPUB: chapters in reading order, the table of contents once, protection refused."""

import io
import zipfile

import pytest

from embedtune.documents.office.epub import read_epub
from embedtune.documents.reading import Broken, Part

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)
PAGE = (
    '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x">'
)
PAGE += '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'


def item(name: str, href: str, more: str = "", kind: str = "application/xhtml+xml") -> str:
    return f'<item id="{name}" href="{href}" media-type="{kind}" {more}/>'


def book(
    chapters: dict[str, str], manifest: str = "", spine: str = "", more: str = "", **entries: bytes
) -> bytes:
    """Chapters by href, in this order; ``entries`` are further files (``__`` stands for ``.``)."""
    items = "".join(item(f"c{n}", href) for n, href in enumerate(chapters)) + manifest
    order = spine or "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/eleme'
        f'nts/1.1/"><dc:title>The pump</dc:title></metadata><manifest>{items}</manifest>'
        f"<spine>{order}</spine>{more}</package>"
    )  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OPS/book.opf", opf)
        for href, body in chapters.items():
            archive.writestr(f"OPS/{href.replace('%20', ' ')}", PAGE.format(body))
        for name, data in entries.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def read(data: bytes) -> Part:
    return read_epub(data, tables=True).cleaned()


def test_chapters_come_in_the_order_of_the_spine() -> None:
    chapters = {
        "b.xhtml": "<h1>第二章</h1><p>关闭阀门。</p>",
        "a%20b.xhtml": "<h1>One</h1><p>Open.</p>",
    }
    part = read(book(chapters, spine='<itemref idref="c1" linear="no"/><itemref idref="c0"/>'))
    assert part.title == "The pump"
    assert part.text == "# One\n\nOpen.\n\n# 第二章\n\n关闭阀门。\n"


def test_the_table_of_contents_is_not_repeated_and_names_chapters_without_a_heading() -> None:
    links = '<nav xmlns:epub="e" epub:type="toc"><ol><li><a href="a.xhtml#x">Starting</a></li>' \
            '<li><a href="b.xhtml">Stopping</a></li></ol></nav>'  # fmt: skip
    chapters = {"nav.xhtml": links, "a.xhtml": "<p>Open the valve.</p>",
                "b.xhtml": "<h2>Own heading</h2><p>Close it.</p>"}  # fmt: skip
    manifest = item("n", "nav.xhtml", 'properties="nav"')
    part = read(book(chapters, manifest=manifest))
    assert part.text == ("# Starting\n\nOpen the valve.\n\n## Own heading\n\nClose it.\n")


def test_the_older_table_of_contents_names_chapters_too() -> None:
    ncx = (
        b'<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "x"><ncx xmlns="http://www.daisy.org/z398'
        b'6/2005/ncx/"><navMap><navPoint><navLabel><text>\xe5\x90\xaf\xe5\x8a\xa8</text></navLabel>'
        b'<content src="a.xhtml"/></navPoint></navMap></ncx>'
    )  # fmt: skip
    manifest = item("ncx", "toc.ncx", kind="application/x-dtbncx+xml")
    guide = '<guide><reference type="toc" href="toc.xhtml"/></guide>'
    chapters = {"toc.xhtml": "<p>启动 1</p>", "a.xhtml": "<p>打开阀门。</p>"}
    data = book(chapters, manifest, more=guide, **{"OPS/toc__ncx": ncx})
    assert read(data).text == "# 启动\n\n打开阀门。\n"


def test_xhtml_is_read_as_what_it_is() -> None:
    body = (
        '<p>a&#160;b &amp; c &eacute;<a id="x"/> d</p><script src="x"/><p><![CDATA[1 < 2]]></p>'
        '<div/><aside xmlns:epub="e" epub:type="footnote"><p>A note.</p></aside>'
        '<nav xmlns:epub="e" epub:type="landmarks"><p>Cover</p></nav><p hidden="hidden">No.</p>'
        "<table><tr><th>a</th><th/></tr><tr><td>1</td><td>2</td></tr></table>"
    )
    part = read(book({"a.xhtml": body}))
    assert part.text == ("a b & c é d\n\n1 < 2\n\nA note.\n\n| a |  |\n| --- | --- |\n| 1 | 2 |\n")
    assert part.meta["hidden_elements"] == "1"


def test_a_missing_or_damaged_chapter_is_named_and_the_others_are_kept() -> None:
    spine = '<itemref idref="m"/><itemref idref="c0"/><itemref idref="no"/>'
    part = read(book({"a.xhtml": "<p>Open.</p>"}, item("m", "gone.xhtml"), spine))
    assert part.text == "Open.\n"
    (reject,) = part.rejects
    assert reject[0] == "chapter"
    assert "OPS/gone.xhtml is missing" in reject[1]


ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData xmlns="htt'
    'p://www.w3.org/2001/04/xmlenc#"><EncryptionMethod Algorithm="{}"/><CipherData>'
    '<CipherReference URI="{}"/></CipherData></EncryptedData></encryption>'
)  # fmt: skip


def test_a_protected_book_is_refused_by_name() -> None:
    aes = ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OPS/a%20b.xhtml")
    with pytest.raises(Broken, match=r"\(DRM\)") as caught:
        read(book({"a%20b.xhtml": "<p>x</p>"}, **{"META-INF/encryption__xml": aes.encode()}))
    assert caught.value.code == "drm"


@pytest.mark.parametrize(("algorithm", "entry"), [
    ("http://www.idpf.org/2008/embedding", "OPS/a.xhtml"),
    ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OPS/font.otf"),
])  # fmt: skip
def test_hidden_fonts_are_no_protection(algorithm: str, entry: str) -> None:
    listing = ENCRYPTION.format(algorithm, entry).encode()
    assert read(
        book({"a.xhtml": "<p>Open.</p>"}, **{"META-INF/encryption__xml": listing})
    ).text == "Open.\n"  # fmt: skip


def test_without_a_spine_the_pages_of_the_manifest_are_read() -> None:
    assert read(book({"a.xhtml": "<p>Open.</p>"}, spine="<x/>")).text == "Open.\n"


def test_a_container_that_names_no_book() -> None:
    data = book({}).replace(b"rootfile full-path", b"rootless full-path")
    with pytest.raises(Broken):
        read(data)


def test_a_chapter_in_another_encoding_than_utf8() -> None:
    page = '<?xml version="1.0" encoding="gb2312"?><html><body><p>水泵</p></body></html>'
    data = book({}, manifest=item("c", "a.xhtml"), spine='<itemref idref="c"/>',
                **{"OPS/a__xhtml": page.encode("gb2312")})  # fmt: skip
    assert read(data).text == "水泵\n"
