import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from embedtune.records import Counts, Reject
from embedtune.report import ReportFacts, SplitFacts, build_report
from embedtune.results import Difference, Flag
from embedtune.retrieve.fusion import Fusion


def page_of(facts):
    return BeautifulSoup(build_report(facts).html, "html.parser")


@pytest.fixture(scope="module")
def page(full):
    return page_of(full)


def text_of(element):
    return " ".join(element.get_text(" ").split())


def cells_of(row):
    return [text_of(cell) for cell in row.find_all(["th", "td"])]


def test_the_first_screen_holds_the_verdict_what_next_and_why(full, page):
    banner = page.find(id="verdict")
    said = text_of(banner)
    assert "Verdict: Ship" in said
    assert "Ship the tuned model: it finds the right passages more often" in said
    assert "nDCG@10 rose from 0.569 to 0.845: +0.276 (95 % interval +0.142 to +0.409)" in said
    assert "Encode all passages again" in said
    assert all(reason in said for reason in full.verdict.reasons)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("ship-hybrid", {}, "together with BM25"),
        ("do-not-ship", {}, "Do not ship the tuned model: bm25 finds the right"),
        ("do-not-ship", {"differences": {"base": Difference(-0.1, -0.2, -0.05, 0.01)}},
         "Do not ship the tuned model: all-MiniLM-L6-v2 finds"),
        ("do-not-ship", {"candidate": "all-MiniLM-L6-v2"}, "ship the base model: bm25 finds"),
        ("inconclusive", {}, "neither that the tuned model is better nor that it is worse"),
        ("inconclusive", {"flags": (Flag("leakage", "leaks", True),)}, "cannot be trusted until"),
    ],
)  # fmt: skip
def test_each_verdict_has_its_sentence_and_its_word(concluded, name, changes, said):
    banner = page_of(concluded(name, **changes)).find(id="verdict")
    assert said in text_of(banner)
    assert name in banner["class"]
    assert banner.find("ol").find_all("li")


def test_systems_are_listed_best_first_with_intervals_and_their_roles(page):
    rows = page.find(id="systems").find("tbody").find_all("tr")
    listed = [cells_of(row) for row in rows]
    assert [row[0].split()[0] for row in listed] == [
        "hybrid:runs/handbook/train/model",
        "runs/handbook/train/model",
        "all-MiniLM-L6-v2",
        "bm25",
    ]
    assert listed[1][0].endswith("candidate dense")
    assert listed[2][0].endswith("base dense")
    assert listed[3][0].endswith("best rival bm25")
    # 5 of 8 right passages first
    assert listed[1][2] == "0.625 0.515 … 0.725"


def test_a_number_that_was_not_measured_is_a_dash_and_never_zero(full):
    bare = replace(full.systems[2], metrics={"ndcg@10": 0.5, "hit@1": math.nan}, intervals={})
    report = build_report(replace(full, systems=(*full.systems[:2], bare)))
    row = (
        BeautifulSoup(report.html, "html.parser").find(id="systems").find("tbody").find_all("tr")[2]
    )
    assert cells_of(row)[1:] == ["0.500", "–", "–", "–", "–"]
    assert json.loads(json.dumps(report.summary, allow_nan=False))["systems"][2]["metrics"] == {
        "ndcg@10": 0.5, "hit@1": None,
    }  # fmt: skip


def test_wins_and_losses_show_the_retrieved_passage_beside_the_right_one(page):
    section = page.find(id="wins")
    assert "5 better, 2 equal, 1 worse." in text_of(section)
    cases = section.find_all("details")
    gained, lost = cases[0], cases[5]
    # the Chinese question on rank 6 of the base: 1 - 1 / log2(7) = 0.644
    assert "机器陷泥里了怎么办？ +0.644 Right passage: rank 6 → rank 1" in text_of(gained)
    right, before, after = gained.select(".passage")
    assert "再用两块垫板从后轮一侧脱困。" in text_of(right)
    assert right.find("mark").get_text() == "中时，先断开主电源，再用两块垫板从后轮一侧脱困。"
    assert "wrong" in text_of(before)
    assert "When soil falls below" in text_of(before)
    assert text_of(after) == "First passage after right The right passage itself."
    assert "which frequency do the nodes use? −0.500" in text_of(lost)
    assert section.find("div", lang="zh")


def test_a_question_not_found_before_says_so(page):
    found = page.find(id="wins").find_all("details")[1]
    assert "not among the first 100 → rank 2" in text_of(found)


def test_means_by_language_are_those_of_its_questions(page):
    rows = page.find(id="languages").find("tbody").find_all("tr")
    # zh: before (0 + 0.3869 [rank 6: 0.3562] + 0.5) / 3, after (0.6309 + 1 + 1) / 3
    assert cells_of(rows[1]) == ["zh", "3", "0.285", "0.877", "+0.592", "3", "0"]


def test_dimensions_recommend_the_smallest_that_keeps_the_quality(full, page):
    assert "128 of 384 dimensions keep 99" in text_of(page.find(id="dims"))
    one = tuple(replace(system, dims={}) for system in full.systems)
    assert "Not part of this run." in text_of(page_of(replace(full, systems=one)).find(id="dims"))


def test_rejects_are_counted_all_and_listed_up_to_fifty(full):
    rejects = [Reject("read", "empty-file", "empty", file=f"{number}.txt") for number in range(73)]
    section = page_of(replace(full, rejects=rejects)).find(id="data")
    assert "reading documents empty-file unusable 73" in text_of(section)
    assert "49.txt" in text_of(section)
    assert "50.txt" not in text_of(section)
    assert "… and 23 more" in text_of(section)


def test_counts_and_split_are_shown_as_they_are(page):
    row = page.find(id="data").find("tbody").find_all("tr")[0]
    assert cells_of(row) == ["reading documents", "54", "52", "1", "1"]
    split = text_of(page.find(id="split"))
    assert "train 430 30" in split
    assert "Moved to another split: 3" in split
    assert "optimistic" not in split


def test_a_split_within_one_document_is_called_optimistic(full):
    facts = replace(full, split=SplitFacts(by="blocks", queries={"test": 9}, optimistic=True))
    said = text_of(page_of(facts).find(id="split"))
    assert "Within one document: optimistic for new documents." in said
    assert "test 9 –" in said  # groups were not given


def test_probes_show_the_gate(page):
    rows = page.find(id="probe").find("tbody").find_all("tr")
    assert cells_of(rows[0]) == [
        "general, English", "312", "0.712", "0.708", "−0.004 −0.011 … +0.003", "held",
    ]  # fmt: skip
    assert cells_of(rows[1])[-1] == "does not count"


def test_use_and_reproduce_give_what_one_needs(page):
    lines = page.find(id="use").find("code").get_text().splitlines()
    assert len(lines) == 5
    compile("\n".join(lines), "report", "exec")
    assert 'SentenceTransformer("runs/handbook/train/model")' in lines[1]
    said = text_of(page.find(id="reproduce"))
    for part in ("embedtune run -c embedtune.yaml", "paths: [docs/]", "2.13.0", "42", "5c1f0f0ad2"):
        assert part in said


def test_hybrid_use_tells_how_to_join_the_lists(concluded):
    facts = replace(concluded("ship-hybrid"), fusion=Fusion("ranks", 0.8, 10))
    assert "0.8 / (10 + rank with the model) + 0.2" in text_of(page_of(facts).find(id="use"))
    facts = replace(facts, fusion=Fusion("scores", 0.3))
    said = text_of(page_of(facts).find(id="use"))
    assert "0.3 times that of the model plus 0.7 times that of BM25" in said


def test_a_run_with_nothing_but_a_title_renders():
    report = build_report(ReportFacts(title="Empty"))
    page = BeautifulSoup(report.html, "html.parser")
    assert "No verdict yet" in text_of(page.find(id="verdict"))
    assert "0.000" not in text_of(page.body)
    assert report.summary["verdict"] is None
    assert report.summary["systems"] == []


def test_a_run_that_stopped_half_way_names_the_stages_missing(full):
    facts = ReportFacts(
        title="Half",
        missing=("train", "evaluate", "compare"),
        counts={"read": Counts(3, 3)},
        split=full.split,
    )
    report = build_report(facts)
    page = BeautifulSoup(report.html, "html.parser")
    assert "Stages missing: training, evaluation, comparison" in text_of(page.find(id="verdict"))
    assert "The stage “training” has not finished" in text_of(page.find(id="training"))
    assert "The stage “evaluation” has not finished" in text_of(page.find(id="systems"))
    assert "Run the same command again" in text_of(page.find(id="verdict"))
    assert "0.000" not in text_of(page.body)
    assert not page.select("figure")
    assert report.summary["missing"] == ["train", "evaluate", "compare"]


def test_systems_without_a_verdict_are_still_shown(full):
    page = page_of(replace(full, verdict=None, missing=("compare",)))
    assert "0.845" in text_of(page.find(id="systems"))
    assert "The stage “comparison” has not finished" in text_of(page.find(id="wins"))


def test_a_candidate_that_is_the_base_renders(concluded):
    page = page_of(concluded("inconclusive", candidate="all-MiniLM-L6-v2"))
    assert "No question changed." in text_of(page.find(id="wins"))
    assert "that the base model is better" in text_of(page.find(id="verdict"))


def test_the_summary_is_strict_json_with_the_same_facts(full):
    summary = json.loads(json.dumps(build_report(full).summary, allow_nan=False))
    assert summary["verdict"]["verdict"] == "ship"
    assert {name: summary["wins"][name] for name in ("gained", "equal", "lost")} == {
        "gained": 5, "equal": 2, "lost": 1,
    }  # fmt: skip
    assert next(iter(summary["wins"]["queries_gained"])) == "q5"
    assert list(summary["wins"]["queries_lost"]) == ["q6"]
    assert summary["counts"]["read"]["rejected"] == 1
    assert summary["breakdown"]["language"]["zh"]["queries"] == 3


def test_the_same_facts_give_the_same_page(full):
    assert build_report(full).html == build_report(full).html


def test_importing_the_report_loads_no_chart_or_template_library():
    heavy = "{'altair', 'jinja2', 'vl_convert', 'yaml'}"
    code = f"import sys, embedtune.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_figures_without_near_duplicates_of_training_stand_beside_the_others(full):
    clean = tuple(restricted_to_first(system) for system in full.systems)
    page = build_report(replace(full, clean=clean)).html
    assert "Without near-duplicates of the training data" in page
    assert "on the 1 test questions whose passages" in page
    assert "Without near-duplicates of the training data" not in build_report(full).html


def restricted_to_first(system):
    per_query = {
        metric: dict(list(values.items())[:1]) for metric, values in system.per_query.items()
    }
    return replace(system, per_query=per_query)
