"""What two runs differ in, and that figures of different things never stand side by side (E06)."""

import json
from dataclasses import replace

import pytest

from embedtune.cli import run_command_line
from embedtune.evaluation.forgetting import ProbeResult
from embedtune.files import write_text
from embedtune.pipeline.comparing import compare_runs
from embedtune.pipeline.judge import Judgement
from embedtune.pipeline.stored import DATASET, EVALUATION, Dataset, save_dataset, save_judgement
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.report.texts import LANGUAGES
from embedtune.results import SystemScores, Verdict
from embedtune.retrieve.fusion import Fusion
from embedtune.run import Recipe, RunDirectory

CHUNKS = tuple(
    Chunk(
        id=f"c{n}", document=f"d{n}", start=0, end=9, title="", text=f"passage {n}", language="en"
    )
    for n in range(12)
)
QUERIES = tuple(
    Query(id=f"q{n}", text=f"question {n}?", language="en", origin="user") for n in range(12)
)
DATA = RetrievalSet("small", CHUNKS, QUERIES, {"test": {f"q{n}": {f"c{n}": 1} for n in range(12)}})


def scores(name, values, kind="dense"):
    per_query = {"ndcg@10": {f"q{n}": value for n, value in enumerate(values)}}
    return SystemScores(name, kind, {"ndcg@10": sum(values) / len(values)}, per_query, {},
                        facts={"data": "same"})  # fmt: skip


def make_run(folder, candidate, *, data=DATA, config="seed: 1\n", judged=True, groups=None):
    """A run directory with a data set and, if ``judged``, a judgement."""
    groups = groups or {chunk.id: chunk.document for chunk in data.chunks}
    dataset = Dataset(data, (), groups, "document", False, ())

    def data_step(at):
        save_dataset(at, dataset)
        return {}

    def judge_step(at):
        verdict = Verdict("inconclusive", ("because",), "tuned", "base", "bm25", {})
        probe: tuple[ProbeResult, ...] = ()
        systems = (scores("tuned", candidate), scores("base", [0.5] * 12),
                   scores("bm25", [0.25] * 12, "bm25"))  # fmt: skip
        save_judgement(at, Judgement(verdict, systems, "test", probe, Fusion(), "dev", {}))
        return {}

    with RunDirectory(folder) as run:
        write_text(folder / "config.yaml", config)
        stage = run.stage(DATASET, Recipe("given", 1, inputs={"data": folder.name}), data_step)
        if judged:
            run.stage(
                EVALUATION, Recipe("evaluate", 1, inputs={"dataset": stage.digest}), judge_step
            )
    return folder


@pytest.fixture
def one(tmp_path):
    return make_run(tmp_path / "one", [0.5] * 12, config="training: {epochs: 1, seed: 3}\n")


def test_settings_and_figures_of_two_runs_on_the_same_data(tmp_path, one):
    other = make_run(
        tmp_path / "other", [0.75] * 11 + [0.5], config="training: {epochs: 2, seed: 3}\nx: y\n"
    )
    found = compare_runs(one, other)
    changed = {(own.name, own.one, own.other) for own in found.settings}
    assert changed == {("training.epochs", 1, 2), ("x", None, "y")}
    assert found.faults == ()
    assert found.data == ()
    # 11 of 12 questions gain 0.25
    assert found.difference.mean == pytest.approx(11 * 0.25 / 12)
    assert (found.difference.queries, found.difference.groups) == (12, 12)
    assert found.difference.p < 0.01
    text = found.text(LANGUAGES["en"])
    assert "| training.epochs | 1 | 2 |" in text
    assert "| tuned (candidate) | 0.500 → 0.729 |" in text
    assert "Candidate of other minus candidate of one: +0.229 nDCG@10" in text
    chinese = found.text(LANGUAGES["zh"])
    assert "## 配置" in chinese
    assert "other 的候选减去 one 的候选：nDCG@10 +0.229" in chinese
    json.dumps(found.as_json(), allow_nan=False)


CHANGES = {
    "corpus": replace(DATA, chunks=(*CHUNKS[:-1], replace(CHUNKS[-1], text="another text"))),
    "queries": replace(DATA, queries=(*QUERIES[:-1], replace(QUERIES[-1], text="something else"))),
    "judgements": replace(DATA, qrels={"test": {**DATA.qrels["test"], "q3": {"c4": 1}}}),
}


@pytest.mark.parametrize("code", CHANGES)
def test_figures_of_other_data_are_refused_and_the_rest_is_shown(tmp_path, one, code):
    other = make_run(
        tmp_path / "other", [0.75] * 12, data=CHANGES[code], config="training: {epochs: 9}\n"
    )
    found = compare_runs(one, other)
    assert [fault.code for fault in found.faults] == [code]
    assert (found.figures, found.difference) == ((), None)
    text = found.text(LANGUAGES["en"])
    assert "| training.epochs | 1 | 9 |" in text
    assert "0.750" not in text
    assert "0.500" not in text


def test_another_metric_or_grouping_is_another_question(tmp_path, one):
    other = make_run(
        tmp_path / "other", [0.75] * 12, config='evaluation: {metric: "ndcg@5"}\n',
        groups={chunk.id: "all" for chunk in CHUNKS},
    )  # fmt: skip
    codes = [fault.code for fault in compare_runs(one, other).faults]
    assert codes == ["metric", "grouping"]
    assert "one was decided by ndcg@10, other by ndcg@5" in compare_runs(one, other).text(
        LANGUAGES["en"]
    )


def test_a_run_without_results_is_named_and_its_settings_are_compared(tmp_path, one):
    other = make_run(tmp_path / "other", [], judged=False, config="training: {epochs: 4}\n")
    found = compare_runs(one, other)
    assert found.unjudged == ("other",)
    assert found.faults == ()
    assert "other has no results yet" in found.text(LANGUAGES["en"])
    assert "| training.epochs | 1 | 4 |" in found.text(LANGUAGES["en"])


def test_the_command_lists_the_differences_and_ends_with_7(tmp_path, one, capsys):
    other = make_run(tmp_path / "other", [0.75] * 12, data=CHANGES["corpus"])
    assert run_command_line(["report", "--compare", str(one), str(other)]) == 7
    said = capsys.readouterr()
    assert "| training.epochs | 1 | – |" in said.out
    assert "the passages searched differ: 1 only in one, 1 only in other" in said.out
    assert "not comparable" in said.err
    assert run_command_line(["report", "--compare", str(one), str(one), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"]["mean"] == 0


@pytest.mark.parametrize("arguments", [[], ["a", "--compare", "a", "b"], ["a", "--language", "xx"]])
def test_what_is_asked_must_be_one_thing(arguments, capsys):
    assert run_command_line(["report", *arguments]) == 2
    assert capsys.readouterr().err
