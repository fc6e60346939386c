"""Every language says the same, with the same values, and all of it."""

import re
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
from bs4 import BeautifulSoup

import embedtune
from embedtune.datasets.leaks import Kind
from embedtune.evaluation.changes import CODES
from embedtune.evaluation.diagnose import CODES as CAUSES
from embedtune.evaluation.quantise import PRECISIONS
from embedtune.evaluation.reasons import REASONS
from embedtune.report import build_report, model_card
from embedtune.report.audit import audit_section
from embedtune.report.texts import LANGUAGES
from embedtune.results import Flag

ENGLISH, CHINESE = LANGUAGES["en"], LANGUAGES["zh"]
SOURCES = Path(__file__).parents[2] / "src" / "embedtune" / "report"
HAN = re.compile("[\u4e00-\u9fff]")


def names_in(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_the_same_keys():
    extra = (
        "reason.",
        "flag.",
        "finding.",
        "balance.",
        "language.",
    )  # English has these from elsewhere
    assert set(ENGLISH) == {key for key in CHINESE if not key.startswith(extra)}


def test_both_languages_name_the_same_values():
    assert {key: names_in(text) for key, text in ENGLISH.items()} == {
        key: names_in(CHINESE[key]) for key in ENGLISH
    }


def test_every_reason_of_a_verdict_can_be_given_in_chinese_from_the_same_values():
    given = {key.removeprefix("reason."): text for key, text in CHINESE.items()
             if key.startswith("reason.")}  # fmt: skip
    assert given.keys() == REASONS["en"].keys()
    assert {code: names_in(text) for code, text in given.items()} == {
        code: names_in(text) for code, text in REASONS["en"].items()
    }


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_codes_of_the_evidence_have_words(texts):
    wanted = [f"code.{code}" for code in CODES]
    wanted += [f"cause.{code}{end}" for code in CAUSES for end in ("", ".do")]
    wanted += [f"precision.{name}" for name in PRECISIONS]
    assert [key for key in wanted if key not in texts] == []


def test_no_text_is_left_that_nothing_says():
    code = "".join(
        path.read_text("utf-8")
        for path in (*SOURCES.glob("*.py"), *SOURCES.glob("templates/*.j2"))
        if not path.name.startswith(("texts_", "reasons_"))
    )
    # keys are written whole, or as a beginning that a code of the data completes
    begun = set(re.findall(r'["\']([a-z.]+)\.?["\'] ~|f["\']([a-z.]+)\.\{', code))
    starts = {start.rstrip(".") for pair in begun for start in pair if start}
    starts |= set(re.findall(r'word\("([a-z]+)"', code))
    unsaid = [
        key
        for key in ENGLISH
        if not re.search(rf"""["']{re.escape(key)}["']""", code)
        and not any(key.startswith(f"{start}.") for start in starts)
    ]
    assert unsaid == []


def test_a_chinese_report_says_nothing_of_its_own_in_english(full):
    codes = (
        ("ship", {"candidate": "tuned", "base": "base", "metric": "ndcg@10", "a": "0.845",
                  "b": "0.569", "gain": "+0.276", "low": "+0.142", "high": "+0.409",
                  "queries": "8", "groups": "6"}),
        ("flag", {"message": "Only 8 test queries; under 50 nothing can be shipped on them"}),
        ("flag-language", {"candidate": "tuned", "language": "Chinese", "queries": "5",
                           "message": "the model cannot read the Chinese text: 42% of its tokens"}),
    )  # fmt: skip
    flags = (
        Flag("few-queries", "only 8 test queries; under 50 nothing can be shipped on them", True,
             numbers={"queries": 8}),
        Flag("unknown-tokens", "the model cannot read the Chinese text: 42% of its tokens", True,
             "zh", {"share": 0.42, "texts": 9}),
    )  # fmt: skip
    verdict = replace(
        full.verdict, codes=codes, flags=flags, reasons=("one", "two", "three", "added behind")
    )
    facts = replace(full, verdict=verdict, notes=(), rejects=(), probes=(), split=None)
    page = BeautifulSoup(build_report(facts, CHINESE).html, "html.parser")
    assert page.html["lang"] == "zh-CN"
    banner = page.find(id="verdict").get_text(" ")
    assert "结论：可以上线" in banner
    assert "tuned 可以上线：检索效果优于 base，nDCG@10 为 0.845" in banner
    assert "6 个文档组、8 个问题" in banner
    assert "只有 8 个测试问题；不足 50 个时不能据此上线。" in banner
    assert "tuned 不要用于中文文本：模型读不懂中文文本：42\u202f% 的 token" in banner
    assert "added behind" in banner  # what has no code is not lost
    assert {"one", "two", "three"}.isdisjoint(banner.split())
    for heading in page.find_all(["h2", "h3", "h4"]):
        told = heading.get_text(" ").strip()
        own = heading.find("bdi") or not told
        assert own or HAN.search(told) or told == "Seeds", told


def test_a_flag_of_an_unknown_kind_or_without_its_number_stays_as_it_was(full):
    flags = (Flag("brand-new", "something else", False), Flag("few-queries", "few", False))
    facts = replace(full, verdict=replace(full.verdict, flags=flags))
    said = BeautifulSoup(build_report(facts, CHINESE).html, "html.parser").find(id="flags")
    assert "something else" in said.get_text()
    assert "few" in said.get_text()


def test_a_chinese_card_keeps_the_front_matter_and_translates_the_rest(full):
    english, chinese = model_card(full), model_card(full, CHINESE)
    assert english.split("---")[1] == chinese.split("---")[1]
    assert "## 局限" in chinese
    assert "## Limits" not in chinese


def test_every_finding_of_an_audit_is_said_in_chinese():
    """Codes are taken from the source; those made of parts are named here."""
    made = {f"{what}-leak-{kind}" for what in ("passage", "query", "text")
            for kind in get_args(Kind)}  # fmt: skip
    made |= {f"{form}-{what}" for form in ("duplicate", "similar")
             for what in ("passages", "queries")}  # fmt: skip
    made |= {"one-document-crowds", "one-label-crowds", "different-scores", "different-grades"}
    folder = Path(embedtune.__file__).parent / "datasets"
    source = "".join(path.read_text("utf-8") for path in sorted(folder.glob("audit*.py")))
    made |= set(re.findall(r'finding_of\(\s*"([\w-]+)"', source))
    assert len(made) > 30
    said = {key.removeprefix("finding.").removesuffix(".do") for key in CHINESE
            if key.startswith("finding.")}  # fmt: skip
    assert said == made


def test_a_finding_is_told_in_the_language_of_the_report():
    finding = {"code": "cut-texts", "severity": "warns", "message": "7 of 9 texts are longer",
               "advice": "make chunks shorter", "count": 7, "total": 9, "share": 7 / 9,
               "examples": [], "numbers": {"tokens_cut": 0.125}, "language": "zh"}  # fmt: skip
    audit = {"findings": [finding], "leaks": {"pairs": 0, "by_kind": []}, "lengths": [],
             "balance": [], "model": ""}  # fmt: skip
    (english,) = audit_section(audit, ENGLISH)["findings"]
    (chinese,) = audit_section(audit, CHINESE)["findings"]
    assert english["message"] == "7 of 9 texts are longer"
    assert chinese["message"].startswith("9 条中文文本中有 7 条")
    assert "12.5%" in chinese["message"]
    assert chinese["advice"] != english["advice"]
