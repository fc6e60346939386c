import socket
from typing import Literal

import pytest

from embedtune.documents.html import read_html
from embedtune.documents.reading import Broken, Part


def page(
    html: str | bytes, *, tables: bool = True, boilerplate: Literal["auto", "keep"] = "auto"
) -> Part:
    data = html if isinstance(html, bytes) else html.encode()
    return read_html(data, "replace", tables=tables, boilerplate=boilerplate).cleaned()


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


# ---- what a browser does not show


def test_more_ways_to_hide_text() -> None:
    part = page(
        "<p>Seen.</p><p style='color:transparent'>a</p><p style='font-size:1px'>b</p>"
        "<p style='background-color:transparent'>Seen too.</p><p style='font-size:1.2em'>And.</p>"
        "<p hidden=until-found>Unfolded by a search.</p><p style='position:absolute;left:-9999px'>c"
        "</p><dialog>closed</dialog>"
    )
    assert part.text == "Seen.\n\nSeen too.\n\nAnd.\n\nUnfolded by a search.\n"
    assert part.meta["hidden_elements"] == "3"


LONG = "<p>" + "The pump is cleaned in spring. " * 20 + "</p>"


def test_what_the_pages_own_style_sheet_hides_is_hidden() -> None:
    sheet = (
        "<style>/* .seen{display:none} */ .x, p#y {display: none} @media print {.seen{display:none"
        "}}.seen:hover{display:none}</style>"
    )
    part = page(f"{sheet}<p class='x big'>evil</p><p id=y>worse</p><p class=seen>Seen.</p>{LONG}")
    assert part.text.startswith("Seen.\n\nThe pump")
    assert part.meta["hidden_elements"] == "2"


def test_answers_that_a_script_unfolds_are_kept_and_flagged() -> None:
    part = page(
        f"<style>.answer{{display:none}}</style><h3>Oil?</h3><div class=answer>{LONG}</div>"
    )
    assert "cleaned in spring" in part.text
    assert part.meta["unfolded_elements"] == "1"
    assert "hidden_elements" not in part.meta


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:  # I17
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    part = page(
        '<!DOCTYPE html SYSTEM "http://127.0.0.1:9/x.dtd"><link rel=stylesheet href="http://127.0.0.1'
        ':9/a.css"><style>@import url(http://127.0.0.1:9/b.css);</style><base href="http://127.0.0.1:9'
        '/"><img src="http://127.0.0.1:9/a.png" alt="A pump"><iframe src="http://127.0.0.1:9/"></ifram'
        f'e><object data="http://127.0.0.1:9/x"></object>{LONG}'
    )
    assert part.text.startswith("A pump")


def test_forms_buttons_and_formulas() -> None:
    part = page(
        "<form action=x><h1>Oil</h1><p>Once a year.</p><label>Name</label><input value=v><select>"
        "<option>o</select><button>Send</button></form><form><input><button>Search</button>site</for"
        "m><h3><button>How often?</button></h3><p>Area <math alttext='a^2'><mi>a</mi></math> and "
        "<math><semantics><mi>b</mi><annotation encoding='application/x-tex'>b_1</annotation>"
        "</semantics></math>.</p>"
    )
    assert part.text == "# Oil\n\nOnce a year.\n\nName\n\n### How often?\n\nArea a^2 and b_1.\n"


# ---- boilerplate of pages that do not mark their main part

SENTENCES = {
    "en": ("Before winter the upper pipe is emptied and the valve is left half open.",
           "A pump that stands still for a month is turned by hand once a week."),
    "zh": ("入冬之前应当把上方的水管放空，并让阀门保持半开状态，以免积水结冰损坏管道和水泵的外壳。",
           "停用一个月以上的水泵，每周应当用手转动一次，防止轴承因为长期静止而生锈或者卡死。"),
}  # fmt: skip
MENU = {
    "en": ("Home", "News", "Shop", "About us", "Jobs"),
    "zh": ("首页", "新闻", "商店", "关于我们", "招聘"),
}


def links(words: tuple[str, ...]) -> str:
    return "".join(f'<li><a href="/{n}">{word}</a></li>' for n, word in enumerate(words))


def article(language: str, body: str = "") -> str:
    one, two = SENTENCES[language]
    return (
        f'<html><body><div class="top"><ul>{links(MENU[language])}</ul></div><div class="wrap">'
        f"<div class='text'><h1>Title 标题</h1><p>{one} {two}</p>{body}<h2>Second 第二</h2>"
        f"<p>{two}</p><p>{one} {one}</p></div><div class='side'><h4>{MENU[language][1]}</h4><ul>"
        f"{links(MENU[language] * 2)}</ul></div></div><div id='footer'>© 2024 Works</div></body>"
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_menus_and_footers_go_without_any_mark_of_the_main_part(language: str) -> None:
    part = page(article(language))
    one, two = SENTENCES[language]
    assert part.text == (f"# Title 标题\n\n{one} {two}\n\n## Second 第二\n\n{two}\n\n{one} {one}\n")
    assert part.meta["boilerplate_elements"] == "3"
    assert "3 navigation, header and footer elements dropped" in part.notes[0][1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_all_that_is_visible_stays_when_asked(language: str) -> None:
    part = page(article(language), boilerplate="keep")
    assert all(word in part.text for word in (*MENU[language], "© 2024 Works"))
    assert "boilerplate_elements" not in part.meta


@pytest.mark.parametrize("body", [
    "<dl><dt>Flange</dt><dd>A ring.</dd></dl>",  # definitions
    "<pre><code>open valve</code></pre>",
    "<table><tr><th>Part</th><th>Coins</th></tr><tr><td>Flange</td><td>3</td></tr></table>",
    '<table><tr><td><a href="#">Flange</a></td><td><a href="#">Gasket</a></td></tr>'
    '<tr><td><a href="#">Bolt</a></td><td><a href="#">Shaft</a></td></tr></table>',
    "<p>Short.</p>", "<ul><li>Flange</li><li>Bolt</li></ul>",
    "<h3><a href='#'>Flanges and their bolts</a></h3>",
    "<div class='social-security'><p>Flange.</p></div>",
    "<div class='menu'><p>Soup 5.00</p><p>Bread 1.00</p></div>",
    "<figure><figcaption>A flange.</figcaption></figure>",
])  # fmt: skip
def test_content_that_looks_unlike_prose_is_kept(body: str) -> None:
    text = page(article("en", body)).text
    for word in ("Flange", "open valve", "Short", "Soup", "Bread", "Bolt", "Shaft", "Coins"):
        assert (word.lower() in text.lower()) == (word.lower() in body.lower())
    assert "Jobs" not in text


def test_a_page_of_nothing_but_links_is_kept() -> None:
    index = links(tuple(f"How to mend a pump of kind {n}" for n in range(30)))
    assert (
        page(f"<html><body><h1>Index</h1><ul>{index}</ul></body></html>").text.count("- How") == 30
    )


def test_a_plain_page_loses_nothing() -> None:
    html = f"<body>{LONG}<p>Short.</p><ul><li>a<li>b</ul>{LONG}</body>"
    assert page(html).text == page(html, boilerplate="keep").text


def test_the_cookie_notice_goes() -> None:
    notice = (
        "<div class='cookie-banner'>We use cookies for a better visit. <a href=#>Fine</a></div>"
    )
    assert "cookies" not in page(article("en").replace("<body>", f"<body>{notice}")).text


# ---- tables


def test_merged_cells_and_two_header_rows() -> None:
    html = (
        "<table><caption>Sales</caption><thead><tr><th rowspan=2>Region<th colspan=2>2024</tr><tr>"
        "<th>Q1<th>Q2</tr></thead><tr><td rowspan=2>North<td>1<td>2</tr><tr><td>3<td>4</tr></table>"
    )
    assert page(html).text == (
        "Sales\n\n| Region | 2024 Q1 | 2024 Q2 |\n| --- | --- | --- |\n| North | 1 | 2 |\n"
        "| North | 3 | 4 |\n"
    )


def test_tables_in_tables_and_tables_for_the_layout() -> None:
    inner = "<table><tr><th>Part</th><th>Price</th></tr><tr><td>valve</td><td>3</td></tr></table>"
    layout = f"<table><tr><td><h1>Title</h1><p>Text.</p>{inner}</td><td>Side.</td></tr></table>"
    assert page(layout).text == (
        "# Title\n\nText.\n\n| Part | Price |\n| --- | --- |\n| valve | 3 |\n\nSide.\n"
    )
    data = f"<table><tr><th>a</th><th>b</th></tr><tr><td>{inner}</td><td>x</td></tr></table>"
    assert page(data).text == "| a | b |\n| --- | --- |\n| Part Price valve 3 | x |\n"


def test_lists_and_lines_in_a_cell() -> None:
    html = "<table><tr><th>a<th>b<tr><td><ul><li>one<li>two</ul><td>x<br>y<p>z</p></table>"
    assert page(html).text == "| a | b |\n| --- | --- |\n| one two | x y z |\n"


def test_wild_spans_are_bounded() -> None:
    html = "<table><tr><td colspan=999999999 rowspan=0>a<td>b<tr><td>c</table>"
    assert len(page(html).text) < 10_000
    assert {"a", "b", "c"} <= set(page(html).text.split())


# ---- strange pages


def test_xhtml_with_cdata_and_elements_closed_at_once() -> None:
    html = (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/><script src='
        '"a"/></head><body><p>One<a id="x"/> two<br/>three</p><p><![CDATA[4 < 5 & 6]]></p></body>'
        "</html>"
    )
    assert page(html).text == "One two\nthree\n\n4 < 5 & 6\n"


def test_a_frame_names_the_pages_that_hold_the_text() -> None:
    html = '<frameset cols="1,2"><frame src="menu.html"><frame src="text.html">{}</frameset>'
    with pytest.raises(Broken, match=r"menu\.html, text\.html") as caught:
        page(html.format(""))
    assert caught.value.code == "frames"
    without = html.format("<noframes><body><p>Words for old readers.</p></body></noframes>")
    assert page(without).text == "Words for old readers.\n"


def test_pictures_in_the_page_itself_leave_no_letters() -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 1_200_000
    html = f'<p>Before.</p><img alt="A pump" src="{picture}">'
    html += f'<p style="background:url({picture})">After.'
    assert page(html).text == "Before.\n\nA pump\n\nAfter.\n"


def test_text_in_boxes_in_boxes_is_found() -> None:
    html = "<p>Start</p>" + "<div>" * 900 + "deep" + "</div>" * 900 + "<h2>End</h2>"
    assert page(html).text == "Start\n\ndeep\n\n## End\n"


def test_a_page_that_nests_without_end_is_refused() -> None:
    with pytest.raises(Broken, match="more than 2,048 deep"):
        page("<p>Start</p>" + "<div>" * 50_000 + "deep")


def test_what_is_nested_too_deeply_for_its_structure_is_read_as_text() -> None:
    html = "<blockquote>x" * 1500 + "<table><tr><td>a<td>b</table>"
    part = page(html)
    assert part.text.count("x") == 1500
    assert "| a | b |" in part.text
    assert "read as plain text" in part.notes[-1][1]


def test_five_megabytes_in_one_line() -> None:
    html = (
        "<html><body>" + ("<p>" + "The pump <b>runs</b>. " * 50 + "</p>") * 4600 + "</body></html>"
    )
    assert len(html) > 5_000_000
    assert page(html).text.count("The pump runs.") == 230_000


def test_text_from_right_to_left_keeps_its_order() -> None:
    html = (
        '<html dir="rtl"><body><h1>المضخة</h1><p>افتح <b>الصمام</b> قبل التشغيل.</p></body></html>'
    )
    assert page(html).text == "# المضخة\n\nافتح الصمام قبل التشغيل.\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_page_with_a_byte_order_mark(encoding: str) -> None:
    assert page("<p>水泵 pump</p>".encode(encoding)).text == "水泵 pump\n"
