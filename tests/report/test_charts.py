from dataclasses import replace
from xml.etree import ElementTree

import pytest

from embedtune.evidence import MapPoint
from embedtune.report import MergeFacts, charts, drawing, evidence_charts

NAMES = {"base": "before", "candidate": "after", "rival": "rival"}
EVIL = "</text><script>alert(1)</script><image href='https://example.org/x'/>\u202e\x00 标签"
PICTURES = {
    "scores": lambda full: charts.scores_chart(
        [{"metric": "nDCG@10", "role": "base", "value": 0.5, "low": 0.4, "high": 0.6},
         {"metric": "nDCG@10", "role": "candidate", "value": 0.7, "low": 0.7, "high": 0.7}],
        NAMES, EVIL),
    "differences": lambda full: charts.differences_chart(
        [{"name": EVIL, "mean": 0.1, "low": -0.1, "high": 0.3},
         {"name": EVIL, "mean": -0.1, "low": -0.2, "high": -0.05}], EVIL, EVIL),
    "dimensions": lambda full: charts.dimensions_chart(
        [{"dimension": 64, "role": "base", "value": 0.5},
         {"dimension": 128, "role": "base", "value": 0.5}], NAMES, EVIL, EVIL),
    "wins": lambda full: charts.wins_chart([0.5, -0.25, 0.0], (EVIL, EVIL), EVIL),
    "one question": lambda full: charts.wins_chart([1.0], ("x", "y"), EVIL),
    "tradeoff": lambda full: evidence_charts.tradeoff_chart(
        [MergeFacts(alpha=0.2, dev=0.5, loss=-0.01),
         MergeFacts(alpha=1.0, dev=0.6, loss=0.02, chosen=True)], 0.01, (EVIL, EVIL), EVIL, EVIL),
    "compression": lambda full: evidence_charts.compression_chart(
        full.evidence.compression, dict.fromkeys(("float32", "int8", "binary"), EVIL), (EVIL, EVIL),
        EVIL, EVIL),
    "spread": lambda full: evidence_charts.spread_chart(
        (0.0, 0.5, 1.0), (0, 3), (2, 0), (f"{EVIL} 1", EVIL), (EVIL, EVIL), EVIL,
        lines=[(0.4, EVIL)]),
    "an empty spread": lambda full: evidence_charts.spread_chart(
        (0.0, 0.5, 1.0), (0, 0), (0, 0), ("x", "y"), ("x", "y"), EVIL),
    "map": lambda full: evidence_charts.map_chart(
        replace(full.evidence.map, points=(MapPoint("c", "chunk", EVIL, EVIL),)),
        replace(full.evidence.map.layouts[0], places=((1.0, 2.0),)), [0], {EVIL: EVIL}, EVIL),
    "curve": lambda full: charts.curve_chart([(0, 0.5), (10, 0.5)], EVIL, EVIL, mark=10,
                                         line=(0.5, EVIL)),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_chart_holds_only_shapes_and_text(full, name):
    picture = PICTURES[name](full)
    for svg in filter(None, (picture.wide, picture.narrow)):
        root = ElementTree.fromstring(svg)
        assert {element.tag for element in root.iter()} <= {
            drawing.SVG + tag for tag in drawing.ELEMENTS
        }
        for element in root.iter():
            assert not [name for name in element.attrib if "href" in name or name.startswith("on")]
        assert root.get("role") == "img"
        assert "标签" in root.get("aria-label")
        assert "\\u202e" in root.get("aria-label")
        assert "script>" not in svg


def test_names_on_an_axis_are_never_merged(full):
    picture = PICTURES["differences"](full)
    texts = [
        element.text or ""
        for element in ElementTree.fromstring(picture.wide).iter(f"{drawing.SVG}text")
    ]
    assert sum(text.startswith("</text>") for text in texts) >= 2


def test_ids_differ_between_the_charts_of_a_page(full):
    ids = [
        element.get("id")
        for make in PICTURES.values()
        for picture in [make(full)]
        for svg in filter(None, (picture.wide, picture.narrow))
        for element in ElementTree.fromstring(svg).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids))


def test_ten_thousand_questions_and_steps_make_a_small_chart():
    wins = charts.wins_chart(
        [number / 10_000 - 0.5 for number in range(10_000)], ("x", "y"), "wins"
    )
    curve = charts.curve_chart([(step, 1 / (step + 1)) for step in range(10_000)], "step", "loss")
    assert max(map(len, (wins.wide, curve.wide))) < 40_000
