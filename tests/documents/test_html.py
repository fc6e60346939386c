import pytest

from embedtune.documents.html import read_html
from embedtune.documents.reading import Broken, Part


def page(html: str | bytes, *, tables: bool = True) -> Part:
    data = html if isinstance(html, bytes) else html.encode()
    return read_html(data, "replace", tables=tables).cleaned()


def test_structure_becomes_markdown() -> None:
    part = page(
        "<html><head><title>Pump &amp; valve</title></head><body><h1>The <em>pump</em></h1>"
        "<p>Water, 1 * 2 and a_b_c <a href='http://x'>there</a>.</p><ul><li>one<li>two</ul>"
        "<h2>停机</h2><p>先关闭\n阀门 and\nwait.</p>"
        "<pre><code>a = 1\n# b</code></pre></body></html>"
    )
    assert part.title == "Pump & valve"
    assert part.text == (
        "# The pump\n\nWater, 1 * 2 and a_b_c there.\n\n- one\n- two\n\n## 停机\n\n"
        "先关闭阀门 and wait.\n\n```\na = 1\n# b\n```\n"
    )


def test_scripts_comments_and_hidden_text_never_get_through() -> None:
    part = page(
        "<p>Seen.</p><script>evil()</script><style>p{}</style><!-- secret -->"
        "<template>t</template><noscript>n</noscript><p hidden>h</p><p aria-hidden=true>i</p>"
        "<p style='color:red; display : none'>d</p><div style='visibility:hidden'><p>v</p></div>"
        "<span style='font-size:0'>f</span><p style='opacity:0'>o</p><p "
        "style='opacity:0.5'>Half.</p>"
    )
    assert part.text == "Seen.\n\nHalf.\n"
    assert part.meta["hidden_elements"] == "6"


def test_navigation_goes_when_the_page_has_a_main_part() -> None:
    bars = "<nav>Home</nav><header>Site</header>{}<aside>Ads</aside><footer>(c)</footer>"
    part = page(bars.format("<main><header>Of the article</header><p>Body.</p></main>"))
    assert part.text == "Of the article\n\nBody.\n"
    assert part.meta["boilerplate_elements"] == "4"
    assert "Home" in page(bars.format("<p>Body.</p>")).text


def test_text_beside_the_main_part_is_kept() -> None:
    assert "Beside" in page("<main>Body.</main><div>Beside it.</div><nav>Home</nav>").text


TABLE = (
    "<table><tr><td>Part</td><td>Price</td></tr><tr><td>a|b<br>c</td><td><p>3</p></td></tr></table>"
)


def test_tables_get_a_header_row() -> None:
    assert page(TABLE).text == "| Part | Price |\n| --- | --- |\n| a\\|b c | 3 |\n"


def test_tables_as_lines() -> None:
    assert page(TABLE, tables=False).text == "Part Price\n\na|b c 3\n"


def test_entities_are_refused() -> None:
    with pytest.raises(Broken, match="entities"):
        page('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><p>&a;</p>')


@pytest.mark.parametrize(
    ("charset", "encoding"), [("gb2312", "gbk"), ("big5", "big5"), ("iso-8859-1", "cp1252")]
)
def test_the_declared_encoding_is_used(charset: str, encoding: str) -> None:
    text = "café" if encoding == "cp1252" else "水泵"  # too little text to guess from
    html = f'<meta charset="{charset}"><p>{text}</p>'.encode(encoding)
    assert page(html).text == f"{text}\n"


def test_a_wrong_declaration_does_not_garble() -> None:
    assert page('<meta charset="iso-8859-1"><p>水泵</p>'.encode()).text == "水泵\n"
