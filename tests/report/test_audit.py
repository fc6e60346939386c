"""The section of the report on the data set itself."""

from dataclasses import asdict

import pytest
from bs4 import BeautifulSoup

from embedtune.datasets.findings import Audit, Balance, Example, Finding, Leak, Lengths
from embedtune.report import ReportFacts, build_report

EVIL = "<script>window.canary=1</script>\u202egnp.exe\x00 </text> {{7*7}}"
FOUND = Audit(
    name="handbook",
    format="beir",
    passages=120,
    queries={"train": 80, "test": 20},
    groups={"train": 30, "test": 9},
    model="small-model",
    findings=(
        Finding("unknown-tokens", "stops", "small-model does not know 66% of the tokens",
                "take another base", 40, 40, language="zh"),
        Finding("passage-leak-edited", "warns", "3 of 20 (15.0%) passages stand in another split",
                "keep them in one split", 3, 20,
                (Example(("p1", "p9"), ("灯塔的灯夜里每九秒闪一次", "灯塔的灯夜里闪光"),
                         "test/train"),)),
        Finding("chance-level", "informs", "a random ranking has nDCG@10 0.012", "", 20, 20),
    ),
    leaks=tuple(Leak("passage", "edited", "test", f"p{number}", "train", "p9", 0.9)
                for number in range(4)),
    lengths=(
        Lengths("query", "zh", 100, 64, 9, 20, 0, 0.0, 0.66, ((0, 32, 100),)),
        Lengths("passage", "zh", 120, 64, 70, 400, 70, 0.4, 0.65,
                ((0, 32, 10), (32, 64, 40), (64, 96, 30), (96, 400, 40))),
    ),
    balance=(
        Balance("queries by style", tuple((f"style {number}", 30 - number) for number in range(20)),
                (5, 9)),
        Balance("passages by language", (("Chinese", 120),)),
    ),
)  # fmt: skip


def section(found):
    html = build_report(ReportFacts(title="x", audit=found)).html
    return BeautifulSoup(html, "html.parser").find(id="audit")


def text_of(element):
    return " ".join(element.get_text(" ").split())


@pytest.fixture(scope="module")
def page():
    return section(FOUND.as_json())


def test_findings_stand_most_severe_first_with_advice_and_examples(page):
    details = page.find_all("details")
    assert [text_of(one.find("summary").find(class_="tag")) for one in details] == [
        "stops", "warns", "informs",
    ]  # fmt: skip
    assert [one.has_attr("open") for one in details] == [True, False, False]
    assert "What to do: keep them in one split" in text_of(details[1])
    assert "p1, p9 (test/train) 灯塔的灯夜里每九秒闪一次" in text_of(details[1])
    assert "1 findings that stop, 1 that warn, 1 for your information" in text_of(page)


def test_leaks_are_a_table_by_kind(page):
    [row] = page.find("table").find("tbody").find_all("tr")
    assert [text_of(cell) for cell in row.find_all(["th", "td"])] == [
        "passages, edited", "3", "15\u202f%".replace("\u202f", " "), "4",
    ]  # fmt: skip


def test_lengths_show_the_limit_and_what_is_cut(page):
    text = text_of(page)
    assert (
        "Chinese passages (120) 58 % are longer than the 64 tokens that small-model reads" in text
    )
    assert "40 % of all tokens are never seen, 65 % are unknown" in text
    charts = page.find_all(
        "svg", {"aria-label": lambda label: label and "number of tokens" in label}
    )
    assert len(charts) == 2  # for wide and narrow screens; queries far below the limit need none
    assert "the model reads 64" in charts[0].get_text()
    assert "70" in charts[0]["aria-label"]


def test_balance_shows_the_first_and_says_how_many_there_are(page):
    text = text_of(page)
    assert "Queries by style (the first 12 of 25)" in text
    assert "Passages by language" not in text  # one kind is no balance
    chart = page.find("svg", {"aria-label": lambda label: label and "style 11 19" in label})
    assert "style 12" not in chart["aria-label"]


def test_without_an_audit_the_section_says_so_and_without_findings_too():
    assert "Not part of this run" in text_of(section(None))
    empty = Audit("x", "pairs", 3, {"train": 3}, {}, "", ())
    text = text_of(section(empty.as_json()))
    assert "Nothing was found." in text
    assert "No text of one split stands in another." in text


def test_hostile_text_of_the_data_stays_text():
    def evil(value):
        if isinstance(value, str) and value not in (
            "stops",
            "warns",
            "informs",
            "passage",
            "edited",
        ):
            return EVIL
        if isinstance(value, dict):
            return {key: evil(item) for key, item in value.items()}
        return [evil(item) for item in value] if isinstance(value, list | tuple) else value

    found = FOUND.as_json()
    found["findings"] = [{**evil(row), "severity": row["severity"]} for row in found["findings"]]
    found["balance"] = [{**evil(asdict(FOUND.balance[0])), "of": EVIL}]
    found["lengths"] = [{**row, "language": EVIL} for row in found["lengths"]]
    found["model"] = EVIL
    page = section(found)
    assert not page.find("script")
    assert "{{7*7}}" in page.get_text()
    assert {"\u202e", "\x00"}.isdisjoint(str(page))
