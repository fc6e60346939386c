"""The review page in a real browser: decisions are made, kept and saved; nothing is fetched."""

import csv
import io
import json
import shutil

import pytest

from embedtune.records import Chunk, Query, Span
from embedtune.report.review import ReviewItem, review_page, review_table

HOSTILE = "</script><script>window.canary=1</script><img src=x onerror=window.canary=1>{{7*7}}"
TEXTS = ["The ferry costs four crowns. Children travel free.",
         "末班轮渡晚上十点开，冬季提前一小时。", "Bicycles cost two crowns.", HOSTILE]  # fmt: skip
CHUNKS = {
    f"c{n}": Chunk(f"c{n}", "d", 100 * n, 100 * n + len(text), "", text, ("Fares",),
                   source=f"fares-{n}.md", language="zh" if n == 1 else "en")
    for n, text in enumerate(TEXTS)
}  # fmt: skip
ITEMS = [
    ReviewItem(Query("q1", "ferry price", "en", "keywords", "llm", "d", "c0", Span("d", 0, 28)),
               "test", relevant=("c0",), candidates=("c2", "c1")),
    ReviewItem(Query("q2", "末班船几点", "zh", "question", "llm", "d", "c1", Span("d", 100, 109)),
               "train", relevant=("c1",), candidates=("c0",)),
    ReviewItem(Query("q3", HOSTILE, "en", "question", "llm", "d", "c3", Span("d", 300, 310)),
               "", "context: it needs its passage at hand", ("c3",), ()),
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "these tests need chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, tmp_path):
    file = tmp_path / "review.html"
    file.write_text(review_page("Review of fares", ITEMS, CHUNKS, {}), encoding="utf-8")
    context = chromium.new_context(accept_downloads=True, locale="en-GB")
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    opened.faults = []
    opened.requests = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on(
        "console", lambda line: opened.faults.append(line.text) if line.type == "error" else 0
    )
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.goto(file.as_uri())
    yield opened
    assert not opened.faults
    assert [url for url in opened.requests if not url.startswith("blob:")] == [file.as_uri()]
    context.close()


def saved(page):
    with page.expect_download() as download:
        page.keyboard.press("s")
    return [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]


@pytest.mark.browser
def test_decisions_are_made_by_keys_and_saved_as_records(page):
    assert page.inner_text(".query") == "ferry price"
    assert page.inner_text("mark") == "The ferry costs four crowns."
    page.keyboard.press("1")  # bicycles answer it too, so it is kept
    page.keyboard.press("ArrowRight")
    page.keyboard.press("e")
    page.locator("textarea").fill("末班轮渡几点开？")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert "needs its passage" in page.inner_text(".reason")
    page.keyboard.press("r")
    assert page.inner_text("#count") == "3 of 3 decided"
    span = {"document": "d", "start": 200, "end": 200 + len(TEXTS[2])}
    assert saved(page) == [
        {"query": "q1", "relevant": [span], "decision": "keep"},
        {"query": "q2", "decision": "edit", "text": "末班轮渡几点开？"},
        {"query": "q3", "decision": "reject"},
    ]


@pytest.mark.browser
def test_decisions_survive_a_reload_and_can_be_taken_back(page):
    page.click("button.reject")
    page.reload()
    page.requests.pop()
    assert page.inner_text("#count") == "1 of 3 decided"
    page.keyboard.press("u")
    assert page.inner_text("#count") == "0 of 3 decided"
    assert saved(page) == []


@pytest.mark.browser
def test_filters_search_and_language(page):
    page.select_option("#split", "train")
    assert page.inner_text(".query") == "末班船几点"
    page.select_option("#split", "")
    page.select_option("#filter", "out")
    assert page.locator(".reason").count() == 1
    page.select_option("#filter", "all")
    page.fill("#search", "末班")
    assert page.inner_text(".query") == "末班船几点"
    page.click("#language")
    assert "保留" in page.inner_text("button.keep")
    assert page.evaluate("document.documentElement.lang") == "zh"


@pytest.mark.browser
def test_hostile_text_is_shown_as_text(page):
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".query") == HOSTILE
    assert page.evaluate("window.canary") is None


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_does_not_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_earlier_decisions_are_shown(chromium, tmp_path):
    decided = {"q1": {"query": "q1", "decision": "reject", "note": "odd"}}
    file = tmp_path / "review.html"
    file.write_text(review_page("Review", ITEMS, CHUNKS, decided), encoding="utf-8")
    page = chromium.new_page()
    page.goto(file.as_uri())
    assert page.get_attribute("button.reject", "aria-pressed") == "true"
    assert page.input_value("input[type=text]") == "odd"
    page.close()


def reopened(page, file, decided):
    file.write_text(review_page("Review of fares", ITEMS, CHUNKS, decided), encoding="utf-8")
    page.reload()
    page.requests.pop()


@pytest.mark.browser
def test_what_was_decided_elsewhere_since_wins_over_this_browser(page, tmp_path):
    page.keyboard.press("k")  # the ferry price is kept here …
    page.keyboard.press("r")  # … and the last boat rejected
    later = {"q1": {"query": "q1", "decision": "reject", "note": "by a colleague"}}
    reopened(page, tmp_path / "review.html", later)
    assert page.get_attribute("button.reject", "aria-pressed") == "true"
    assert page.input_value("input[type=text]") == "by a colleague"
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("button.reject", "aria-pressed") == "true"  # nobody else did
    assert page.inner_text("#count") == "2 of 3 decided"


@pytest.mark.browser
def test_a_saved_decision_can_be_taken_back(page, tmp_path):
    span = {"document": "d", "start": 200, "end": 200 + len(TEXTS[2])}
    row = {"query": "q1", "decision": "keep", "relevant": [span]}
    reopened(page, tmp_path / "review.html", {"q1": row})
    assert page.locator("input[type=checkbox]").first.is_checked()
    page.keyboard.press("u")
    assert not page.locator("input[type=checkbox]").first.is_checked()
    page.wait_for_timeout(500)  # a busy browser writes its storage a little later
    page.reload()
    page.requests.pop()
    assert page.inner_text("#count") == "0 of 3 decided"
    assert saved(page) == [{"query": "q1", "decision": "undecided"}]


@pytest.mark.browser
def test_decisions_stay_when_the_page_shows_other_queries(page, tmp_path):
    page.keyboard.press("k")
    items = ITEMS[::-1][:2]
    file = tmp_path / "review.html"
    file.write_text(review_page("Review of fares", items, CHUNKS, {}), encoding="utf-8")
    page.reload()
    page.requests.pop()
    assert page.inner_text("#count") == "0 of 2 decided"
    reopened(page, file, {})
    assert page.inner_text("#count") == "1 of 3 decided"


def test_the_table_neutralises_formulas_and_holds_every_query():
    query = Query("q9", "=HYPERLINK(1)", evidence=Span("d", 0, 5), chunk="c0")
    rows = list(csv.DictReader(io.StringIO(review_table([*ITEMS, ReviewItem(query)], CHUNKS))))
    assert [row["id"] for row in rows] == ["q1", "q2", "q3", "q9"]
    assert rows[3]["text"] == "'=HYPERLINK(1)"
    assert rows[0]["evidence"] == "The ferry costs four crowns."
    assert (rows[2]["status"], rows[0]["status"]) == ("left out", "in")
    assert rows[0]["candidates"] == "c2 c1"


def test_the_page_cannot_be_ended_by_what_it_holds():
    html = review_page(HOSTILE, ITEMS, CHUNKS, {})
    assert html.count("</script>") == 2
    assert "window.canary=1</script>" not in html
