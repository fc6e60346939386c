import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from embedtune.records import Counts, Reject
from embedtune.report import ReportFacts, SplitFacts, build_report
from embedtune.results import Breakdown, Difference, Flag, Power
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
    gained, lost = cases[0], cases[2]
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


def test_without_what_evaluation_saw_the_largest_changes_are_found_in_the_scores(full):
    cases = page_of(replace(full, changes=None)).find(id="wins").find_all("details")
    assert [text_of(case).split(" Right")[0].split()[-1] for case in cases] == [
        "+0.644", "+0.631", "+0.569", "+0.500", "+0.369", "−0.500",
    ]  # fmt: skip


def test_what_can_be_seen_of_a_change_stands_under_its_passages(page):
    gained, _, lost = page.find(id="wins").find_all("details")
    assert "that the right passage has too: 机器, 泥 (2 of 5)" in text_of(gained)
    assert "took its place, or lost it, has: 机器" in text_of(gained)
    assert "longer than the base reads" in text_of(lost)
    counts = page.find(id="wins").find_all("tbody")[-1]
    assert cells_of(counts.find_all("tr")[0]) == [
        "no term in common with the right passage", "1", "0", "0",
    ]  # fmt: skip


def test_parts_have_their_size_and_an_interval_only_where_they_are_large_enough(page):
    tables = page.find(id="parts").find_all("tbody")
    rows = [cells_of(row) for row in tables[0].find_all("tr")]
    assert rows[0][-3:] == ["+0.087 −0.010 … +0.200", "2", "1"]
    assert rows[1] == ["Chinese", "3", "2", "0.285", "0.877", "+0.592", "3", "0"]
    assert cells_of(tables[1].find_all("tr")[-1])[:3] == ["4 smaller ones together", "4", "4"]


def test_the_index_recommended_is_told_with_its_price(page):
    said = text_of(page.find(id="dims"))
    assert "Recommended: 128 dimensions as int8. That is 8 % of the memory at −0.007" in said
    # 128 bytes, and 1,536 of the full one, times a million
    assert "a million passages need 128 MB instead of 1.54 GB" in said
    assert "rescoring has next to nothing to leave out" in said
    best = page.find(id="dims").find("td", class_="best")
    assert text_of(best) == "0.838 −0.007 recommended"


def test_thresholds_say_what_they_cost_and_why_there_is_none(page):
    section = page.find(id="thresholds")
    rows = [cells_of(row) for row in section.find("tbody").find_all("tr")]
    assert rows[0][1:4] == ["90 %", "0.520", "88 % 60 % … 100 %"]
    assert rows[1][2] == "not reached; at most 97 %"
    assert "too few questions ask for the same (3 on dev, 1 on test)" in text_of(section)


def test_the_map_shows_the_same_points_twice_with_their_texts(page):
    section = page.find(id="space")
    pictures = section.select(".maps svg[role=img]")
    assert len(pictures) == 2
    titles = [sorted(title.get_text() for title in one.find_all("title")) for one in pictures]
    assert titles[0] == titles[1]
    assert len(titles[0]) == 14
    assert "发票多久之内要交？" in titles[0]
    rows = [cells_of(row) for row in section.select("tbody tr")]
    assert rows == [["Before: base", "0.930", "71 %", "–"],
                    ["After: tuned", "0.950", "71 %", "+0.310"]]  # fmt: skip


def test_a_large_map_is_thinned_by_content_and_keeps_both_kinds(full):
    space = full.evidence.map
    points = tuple(
        replace(space.points[0], id=f"p{n}", kind="query" if n % 4 == 0 else "chunk")
        for n in range(4000)
    )
    layouts = tuple(
        replace(layout, places=tuple((n % 61, n % 67) for n in range(4000)))
        for layout in space.layouts
    )
    drawn = []
    for order in (1, -1):
        own = replace(space, points=points[::order], layouts=tuple(
            replace(layout, places=layout.places[::order]) for layout in layouts))  # fmt: skip
        page = page_of(replace(full, evidence=replace(full.evidence, map=own)))
        assert "750 passages" in text_of(page.find(id="space"))
        assert "250 questions" in text_of(page.find(id="space"))
        drawn.append(sorted(p["transform"] for p in page.select("#space svg[role=img]")[0]
                            .select("path[transform]")))  # fmt: skip
    assert drawn[0] == drawn[1]


def test_the_merge_curve_names_its_point_and_recipes_are_listed(page):
    rows = [cells_of(row) for row in page.find(id="probe").find_all("tbody")[-1].find_all("tr")]
    assert rows[4] == ["0.8 chosen", "0.630", "+0.006", "held"]
    assert rows[5] == ["1", "0.640", "+0.021", "broken"]
    trials = page.find(id="training").find_all("tbody")[-1].find_all("tr")
    assert cells_of(trials[0])[0] == "learning rate 5e-05, epochs 2 chosen"


def test_only_causes_that_hold_are_named_with_what_to_do(full, page):
    said = text_of(page.find(id="causes"))
    assert "The learning rate is too high (measured 0.3, limit 0.15) Lower" in said
    assert "epochs" not in said
    healthy = page_of(replace(full, causes=full.causes[1:])).find(id="causes")
    assert "None of the known causes" in text_of(healthy)
    assert "Not part of this run." in text_of(page_of(replace(full, causes=None)).find(id="causes"))


def test_what_would_settle_an_open_verdict_is_a_number_of_questions(concluded):
    base = Difference(0.01, -0.02, 0.04, 0.4, 0.4, 100, 20)
    open_ = {"differences": {"base": base}}
    page = page_of(concluded("inconclusive", **open_, power=Power(0.015, 0.045, 0.01, 380, 1900)))
    said = text_of(page.find(id="verdict"))
    assert "Add about 1 800 test questions (1 900 in all)" in said
    assert "about 360 further documents" in said
    assert "a gain of about 0.045 or more" in text_of(page.find(id="systems"))
    never = page_of(concluded("inconclusive", **open_, power=Power(0.015, 0.045, 0.01, None, None)))
    assert "no realistic number would settle it" in text_of(never.find(id="verdict"))


def test_the_markdown_holds_the_same_facts_and_no_markup_of_the_data(full, hostile):
    text = build_report(full).markdown
    assert "## Verdict: Ship" in text
    assert "| runs/handbook/train/model (candidate) | 0.845 |" in text
    assert "**Recommended: 128 dimensions as int8." in text
    assert "\n\n\n" not in text
    evil = build_report(hostile).markdown
    assert not re.search(r"(?<!\\)<(script|img|iframe|svg|a )", evil)
    assert not re.search(r"(?<!\\)\]\(", evil)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x00\x1b\ud800]", evil)


def test_dimensions_recommend_the_smallest_that_keeps_the_quality(full, page):
    bare = replace(full, evidence=None)
    assert "128 of 384 dimensions keep 99" in text_of(page_of(bare).find(id="dims"))
    assert "keep 99" not in text_of(page.find(id="dims"))  # the grid recommends
    one = replace(bare, systems=tuple(replace(system, dims={}) for system in full.systems))
    assert "Not part of this run." in text_of(page_of(one).find(id="dims"))


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
    assert summary["breakdown"][0]["parts"][1]["queries"] == 3
    assert summary["evidence"]["compression"]["recommended"]["memory"] == 128
    assert summary["evidence"]["map"]["points"] == 14
    assert summary["changes"]["most_lost"][0]["look"]["query"] == "q6"
    assert [cause["code"] for cause in summary["causes"] if cause["holds"]] == ["learning-rate"]
    assert summary["training"]["curve"][4]["chosen"] is True


def test_the_same_facts_give_the_same_page(full, drawn_charts):
    first = build_report(full).html
    drawn_charts.clear()
    assert build_report(full).html == first


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


def test_parts_by_length_stand_in_the_order_of_lengths(full):
    part = full.breakdowns[0].parts[0]
    parts = tuple(replace(part, name=name) for name in (">12", "8-12", "≤7"))
    facts = replace(full, breakdowns=(Breakdown("query-length", parts),))
    rows = page_of(facts).find(id="parts").select("tbody tr")
    assert [cells_of(row)[0] for row in rows] == ["≤7", "8-12", ">12"]


def test_reasons_name_measures_as_tables_do(full):
    reasons = ("Ship x: ndcg@10 0.6 against 0.5", "mail to a@1 and x@10 stays")
    facts = replace(full, verdict=replace(full.verdict, reasons=reasons, codes=()))
    text = text_of(page_of(facts).find("body"))
    assert "Ship x: nDCG@10 0.6 against 0.5" in text
    assert "mail to a@1 and x@10 stays" in text
