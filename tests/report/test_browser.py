"""The page in a real browser: nothing runs, nothing is fetched, nothing leaves the screen."""

import os
import shutil

import pytest

from embedtune.report import ReportFacts, build_report
from embedtune.report.texts import LANGUAGES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(full, hostile):
    """HTML by kind of run."""
    runs = {"full": full, "hostile": hostile, "empty": ReportFacts(title="Empty")}
    return {kind: build_report(facts).html for kind, facts in runs.items()}


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "these tests need chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium, tmp_path, html, **options):
    """The page opened from disk, with the requests it made."""
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    page = chromium.new_context(**options).new_page()
    page.set_default_timeout(20_000)
    requests, dialogs = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    page.wait_for_timeout(200)
    assert not dialogs
    return page, requests


BODIES = (
    "<script>window.canary=1</script>", "<ScRiPt>window.canary=1</sCrIpT>",
    "<script src=//example.org/x.js></script>", "<img src=x onerror=window.canary=1>",
    "<img src=//example.org/x.png>", "<svg onload=window.canary=1>",
    "<svg><script>canary=1</script>",
    "<iframe srcdoc='<script>parent.canary=1</script>'>", "<iframe src=javascript:parent.canary=1>",
    "<body onload=window.canary=1>", "<input autofocus onfocus=window.canary=1>",
    "<details open ontoggle=window.canary=1>", "<a href=javascript:window.canary=1>x</a>",
    "<link rel=stylesheet href=//example.org/x.css>", "<style>@import '//example.org/x'</style>",
    "<base href=//example.org/>", "<meta http-equiv=refresh content=0;url=//example.org>",
    "<object data=//example.org/x></object>", "<form action=//example.org><button autofocus>",
    "{{7*7}}${7*7}<%=7*7%>",
)  # fmt: skip
WRAPPED = ("{}", "'{}", '">{}', "</title></style></svg>{}", "\u202e\x00-->]]>{}")
STRINGS = [wrapping.replace("{}", body) for body in BODIES for wrapping in WRAPPED]


assert len(set(STRINGS)) == 100
ALL = "PROVE" in os.environ  # a page a string takes minutes; else 10, of all wrappings


# every string in every place, without the policy
@pytest.mark.parametrize("text", STRINGS if ALL else STRINGS[::11])
def test_no_string_runs_anything_in_any_place(chromium, tmp_path, poisoned, text):
    report = build_report(poisoned(text), LANGUAGES["zh"])
    html = report.html.replace("Content-Security-Policy", "x")
    page, requests = opened(chromium, tmp_path, html, bypass_csp=True)
    assert page.evaluate("window.canary") is None
    assert page.evaluate("document.scripts.length") == 0
    foreign = "img, iframe, object, link, base, form, input"
    assert page.evaluate(f"document.querySelectorAll('{foreign}').length") == 0
    assert requests == [(tmp_path / "report.html").as_uri()]
    page.context.close()


# without the policy too: escaping must hold alone
@pytest.mark.parametrize("bypass_csp", [False, True])
def test_hostile_text_runs_nothing_and_fetches_nothing(chromium, tmp_path, pages, bypass_csp):
    html = pages["hostile"]
    if bypass_csp:
        html = html.replace("Content-Security-Policy", "x")
    page, requests = opened(chromium, tmp_path, html, bypass_csp=bypass_csp)
    assert "window.canary=1" in page.inner_text("h1")
    assert page.evaluate("window.canary") is None
    assert page.evaluate("document.scripts.length") == 0
    assert requests == [(tmp_path / "report.html").as_uri()]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["full", "hostile", "empty"])
def test_no_page_scrolls_sideways(chromium, tmp_path, pages, kind, width, scheme):
    page, _ = opened(
        chromium, tmp_path, pages[kind],
        viewport={"width": width, "height": 800}, color_scheme=scheme,
    )  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # charts: the one for this width, and only that, inside its card
    shown = page.evaluate(
        "[...document.querySelectorAll('figure div svg')].map(it => it.getBoundingClientRect())"
        ".filter(box => box.width > 0).map(box => [box.left, box.right])"
    )
    assert len(shown) == {"full": 12, "hostile": 12, "empty": 0}[kind]
    assert all(left >= 0 and right <= width for left, right in shown)
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(chromium, tmp_path, pages, scheme):
    """WCAG AA: 4.5 to 1 for the colours of text on what they stand on."""
    page, _ = opened(chromium, tmp_path, pages["full"], color_scheme=scheme)
    value = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    for ink, paper in (
        ("ink", "page"), ("ink", "card"), ("muted", "page"), ("muted", "card"), ("link", "page"),
        ("good", "good-soft"), ("bad", "bad-soft"), ("open", "open-soft"), ("none", "none-soft"),
        ("ink", "mark"), ("candidate", "card"), ("rival", "card"), ("muted", "soft"),
    ):  # fmt: skip
        light = [luminance(page.evaluate(value.format(name))) for name in (ink, paper)]
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5, (scheme, ink, paper)
    page.context.close()


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2)."""
    hexes = colour.lstrip("#")
    hexes = "".join(digit * 2 for digit in hexes) if len(hexes) == 3 else hexes
    channels = [int(hexes[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
