"""Reports from run directories: of a language, half done, or left by another version."""

import json

import pytest

from embedtune.files import write_json, write_jsonl, write_text
from embedtune.pipeline.report import collect, write_report
from embedtune.pipeline.stored import DATASET, EVALUATION, TRAINING, Dataset, save_dataset
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.run import Recipe, RunDirectory

CANDIDATES = [{"learning_rate": 5e-5, "epochs": 2.0}, {"learning_rate": 2e-4, "epochs": 2.0}]
SEARCH = {
    "candidate": CANDIDATES[0],
    "trials": [
        {"candidate": CANDIDATES[0], "rung": 0, "queries": 9, "score": 0.5, "alpha": 1.0,
         "seconds": 2.0},
        {"candidate": CANDIDATES[1], "rung": 0, "queries": 9, "score": 0.4, "alpha": 0.8,
         "seconds": 2.0},
        {"candidate": CANDIDATES[0], "rung": 1, "queries": 9, "score": 0.6, "alpha": 0.8,
         "seconds": 3.0},
    ],
}  # fmt: skip
TRAINED = {"base": "base/model", "trained": True, "notes": [], "metric": "ndcg@10", "alpha": 0.8,
           "best_step": 4, "best_score": 0.6, "base_score": 0.4, "plan": {"pairs": 7},
           "search": SEARCH}  # fmt: skip
CURVE = [{"alpha": 0.0, "dev": 0.4, "probe_loss": 0.0, "holds": True},
         {"alpha": 0.8, "dev": 0.6, "probe_loss": 0.004, "holds": True}]  # fmt: skip


@pytest.fixture
def half(tmp_path):
    """A run that was stopped after training."""
    chunk = Chunk(id="c", document="d", start=0, end=4, title="", text="text", language="en")
    query = Query(id="q", text="what?", language="en", origin="user")
    data = RetrievalSet("small", (chunk,), (query,), {"test": {"q": {"c": 1}}})

    def data_step(folder):
        save_dataset(folder, Dataset(data, (), {"c": "d"}, "document", False, ()))
        return {}

    def train_step(folder):
        write_json(folder / "merge.json", CURVE)
        write_jsonl(folder / "history.jsonl", [{"step": 4, "dev": 0.6}])
        return TRAINED

    with RunDirectory(tmp_path / "run") as run:
        config = "data: hf:owner/questions\nreport: {language: zh}\n"
        write_text(run.path / "config.yaml", config)
        stage = run.stage(DATASET, Recipe("given", 1), data_step)
        settings = {"training": {"seed": 42}}
        recipe = Recipe("train", 1, settings, inputs={"dataset": stage.digest})
        run.stage(TRAINING, recipe, train_step)
    return tmp_path / "run"


def test_a_run_stopped_half_way_is_reported_in_its_language_in_three_forms(half):
    write_report(half)
    page = (half / "report.html").read_text("utf-8")
    assert '<html lang="zh-CN">' in page
    assert "“评测”阶段尚未完成" in page
    assert "还没有结论" in (half / "report.md").read_text("utf-8")
    summary = json.loads((half / "report.json").read_text("utf-8"))
    assert summary["missing"] == ["audit", "evaluate"]
    assert summary["systems"] == []
    assert not (half / "model-card.md").exists()
    write_report(half, language="en")
    assert '<html lang="en">' in (half / "report.html").read_text("utf-8")


def test_what_training_left_reaches_the_report(half):
    facts = collect(half)
    assert facts.dataset == "owner/questions"
    assert [(point.alpha, point.chosen) for point in facts.training.curve] == [
        (0.0, False), (0.8, True),
    ]  # fmt: skip
    # the recipe taken is marked once, on the last round that it was tried in
    assert [trial.chosen for trial in facts.training.trials] == [False, False, True]


def test_an_evaluation_of_another_version_is_missing_and_said(half):
    def judge_step(folder):
        write_text(folder / "judgement.json", '{"verdict": "of long ago"}')
        return {}

    with RunDirectory(half) as run:
        inputs = {"training": run.find(TRAINING).digest}
        run.stage(EVALUATION, Recipe("evaluate", 1, inputs=inputs), judge_step)
    facts = collect(half)
    assert "evaluate" in facts.missing
    assert any("another version" in note for note in facts.notes)


@pytest.mark.parametrize("config", ["", "[", "report: 3\n", "report: {language: xx}\n"])
def test_a_report_is_made_whatever_the_settings_say(half, config):
    write_text(half / "config.yaml", config)
    write_report(half)
    assert '<html lang="en">' in (half / "report.html").read_text("utf-8")
