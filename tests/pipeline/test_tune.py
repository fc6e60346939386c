"""From data to a candidate: what is learnt from passages alone, several seeds, larger searches."""

import importlib.util
import json
from dataclasses import replace

import pytest

from embedtune.config import RunSettings
from embedtune.datasets.beir import read_beir
from embedtune.errors import ConfigError, IntegrityError
from embedtune.evaluation import subsample
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.pipeline import search
from embedtune.pipeline.console import Silent
from embedtune.pipeline.material import training_pairs
from embedtune.pipeline.preflight import check_model
from embedtune.pipeline.tune import tune
from embedtune.training.plan import TrainingSettings

QUICK = ("training.epochs=1", "training.matryoshka=off", "evaluation.probe=none")


def train(command, data, base, out, *changes: str, minutes: str = "0"):
    options = [part for change in (*QUICK, *changes) for part in ("--set", change)]
    result = command("train", "--data", data, "--base", base, "--out", out, "--json",
                     "--minutes", minutes, *options)  # fmt: skip
    assert result.code == 0, result.err
    return result.json


def test_a_warm_up_is_said_to_be_transductive_and_compared_with_the_untouched_base(
    small_beir, tiny_model, command, tmp_path
):
    plain = train(command, small_beir, tiny_model, tmp_path / "plain")
    warm = train(command, small_beir, tiny_model, tmp_path / "warm",
                 "training.warmup_documents=simcse")  # fmt: skip
    assert plain["warmup_documents"] is None
    assert warm["warmup_documents"]["method"] == "simcse"
    assert warm["warmup_documents"]["passages"] == 60
    assert warm["base_score"] == plain["base_score"]
    facts = [json.loads((tmp_path / name / "embedtune.json").read_text()) for name in
             ("plain", "warm")]  # fmt: skip
    assert "transductive" not in facts[0]
    assert facts[1]["transductive"] is True
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in
             ("plain", "warm")]  # fmt: skip
    assert names[0] == names[1]
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "warm")]
    assert models[0] != models[1]


@pytest.mark.parametrize("dev", [True, False])
def test_without_a_query_to_train_with_the_warm_up_is_the_training(
    small_beir, tiny_model, tmp_path, dev
):
    data = read_beir(small_beir).data
    qrels = {"dev": data.qrels["dev"]} if dev else {}
    tuned = tune(
        replace(data, qrels=qrels), str(tiny_model), tmp_path, near_duplicates=(), left_out=(),
        training=TrainingSettings(warmup_documents="simcse", precision="fp32", device="cpu"),
        evaluation=EvaluationSettings(probe="none"), facts={}, console=Silent(),
    )  # fmt: skip
    assert tuned.warmed is not None
    assert (tuned.model / "model.safetensors").is_file()
    assert tuned.losses == ()
    assert bool(tuned.curve) == dev
    assert tuned.alpha > 0
    assert tuned.facts()["warmup_documents"]["passages"] == 60
    told = json.loads((tuned.model / "embedtune.json").read_text())
    assert (told["pairs"], told["transductive"]) == (0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.jsonl", "merge.json", "model"]  # fmt: skip


def test_a_folder_of_passages_alone_can_be_learnt_from(small_beir, tiny_model, command, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "corpus.jsonl").write_bytes((small_beir / "corpus.jsonl").read_bytes())
    options = ("train", "--data", alone, "--base", tiny_model, "--out", tmp_path / "model",
               "--set", "evaluation.probe=none")  # fmt: skip
    refused = command(*options)
    assert refused.code == 2
    assert "no queries.jsonl" in refused.err
    assert "training.warmup_documents" in refused.err
    done = command(*options, "--set", "training.warmup_documents=simcse")
    assert done.code == 0, done.err
    assert "learnt from 60 passages (simcse); no dev queries to measure it by" in done.out
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["queries.jsonl", "qrels/train.tsv"])
def test_passages_alone_are_not_what_half_a_data_set_is(
    small_beir, tiny_model, command, tmp_path, name
):
    half = tmp_path / "half"
    (half / name).parent.mkdir(parents=True)
    for kept in ("corpus.jsonl", name):
        (half / kept).write_bytes((small_beir / kept).read_bytes())
    done = command("train", "--data", half, "--base", tiny_model, "--out", tmp_path / "model",
                   "--set", "training.warmup_documents=crops")  # fmt: skip
    missing = "qrels/*.tsv" if name == "queries.jsonl" else "queries.jsonl"
    assert done.code == 2
    assert f"no {missing}" in done.err


def test_seeds_are_averaged_before_the_merge(small_beir, tiny_model, command, tmp_path):
    told = train(command, small_beir, tiny_model, tmp_path / "two", "training.seeds=2")
    assert "the mean of 2 trainings" in told["training_notes"][-1]
    assert sorted(path.name for path in (tmp_path / "two").glob("seed*")) == []
    assert (tmp_path / "two" / "history.jsonl").is_file()


def test_no_search_is_begun_that_the_time_does_not_hold(small_beir, tiny_model, command, tmp_path):
    out = tmp_path / "model"
    done = command("train", "--data", small_beir, "--base", tiny_model, "--out", out, "--json",
                   "--minutes", "0.001", "--set", "evaluation.probe=none",
                   "--set", "training.epochs=1")  # fmt: skip
    assert done.code == 0, done.err
    assert "no search for a recipe: 0.001 minutes do not hold a trial (about" in done.err
    assert done.json["search"] is None
    assert 0 < done.json["alpha"] <= 1  # on dev, as without a search


def looked_for(data, base, work, minutes=5.0, **settings):
    """What ``find_recipe`` finds in ``work`` for pairs of ``data``."""
    return search.find_recipe(
        data, str(base), work, pairs_of=training_pairs, excluded=lambda query: frozenset(),
        near_duplicates=(), training=TrainingSettings(epochs=1, device="cpu", **settings),
        evaluation=EvaluationSettings(probe="none"), minutes=minutes, console=Silent(),
    )  # fmt: skip


@pytest.mark.parametrize("minutes", [5.0, 1e-5])
def test_after_a_kill_the_training_goes_on_with_the_recipe_that_it_began_with(
    small_beir, tiny_model, tmp_path, monkeypatch, minutes
):
    data = read_beir(small_beir).data
    first = looked_for(data, tiny_model, tmp_path, minutes)
    assert (first is None) == (minutes < 1)
    monkeypatch.setattr(search, "_trial", lambda *_: pytest.fail("looked for again"))
    assert looked_for(data, tiny_model, tmp_path, 1000.0) == first


def test_time_that_trials_took_before_a_kill_counts(small_beir, tiny_model, tmp_path):
    data = read_beir(small_beir).data
    whole = looked_for(data, tiny_model, tmp_path)
    (tmp_path / search.OUTCOME).unlink()
    file = tmp_path / search.FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) > 4
    for line in lines:
        line["seconds"] = 60.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]))
    short = looked_for(data, tiny_model, tmp_path, 5.5)  # three trials, and two are kept back
    assert (len(short.trials), short.complete) == (3, False)
    assert [one.candidate for one in short.trials] == [one.candidate for one in whole.trials[:3]]


def test_a_candidate_whose_training_fails_is_none_any_more(
    small_beir, tiny_model, tmp_path, monkeypatch, caplog
):
    trial = search._trial

    def fails(candidate, *others):
        if candidate.temperature == 0.03:
            raise IntegrityError("step 3: the loss is nan")
        return trial(candidate, *others)

    monkeypatch.setattr(search, "_trial", fails)
    chosen = looked_for(read_beir(small_beir).data, tiny_model, tmp_path)
    assert chosen.candidate.temperature == 0.05
    assert "no candidate any more: step 3: the loss is nan" in caplog.text
    monkeypatch.setattr(search, "_trial", lambda *_: (_ for _ in ()).throw(IntegrityError("nan")))
    with pytest.raises(IntegrityError):  # the usual one
        looked_for(read_beir(small_beir).data, tiny_model, tmp_path / "other")


def test_dimensions_are_given_to_the_model_and_not_to_the_search(small_beir, tiny_model, tmp_path):
    chosen = looked_for(read_beir(small_beir).data, tiny_model, tmp_path, matryoshka=[16])
    assert chosen is not None


def test_choices_on_a_large_corpus_are_made_over_a_part_of_it(
    small_beir, tiny_model, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(subsample, "MOST", 40)
    read = []
    score = Evaluator.score_embedder
    monkeypatch.setattr(
        Evaluator, "score_embedder",
        lambda self, *others: read.append(self.corpus_size) or score(self, *others),
    )  # fmt: skip
    told = train(command, small_beir, tiny_model, tmp_path / "model", minutes="5")
    assert set(read) == {40}
    assert told["judged_on"].startswith("in training, dev is judged over 40 of 60 passages")
    assert len(told["search"]["trials"]) > 1


def test_train_queries_that_are_left_out_judge_no_recipe(small_beir):
    data = read_beir(small_beir).data
    left_out = frozenset(list(data.qrels["train"])[:2])
    rungs = search._rungs(data, training_pairs, (), EvaluationSettings(), left_out)
    for rung in rungs:
        assert left_out.isdisjoint(rung.data.qrels["dev"])
        assert left_out.isdisjoint(rung.data.qrels["train"])


def test_optuna_searches_and_its_trials_are_told(small_beir, tiny_model, command, tmp_path):
    told = train(command, small_beir, tiny_model, tmp_path / "model", "training.search=optuna",
                 "training.batch_size=16", minutes="0.3")  # fmt: skip
    trials = told["search"]["trials"]
    assert trials[0]["candidate"]["learning_rate"] == 1e-4
    assert all(trial.keys() == {"candidate", "rung", "queries", "score", "alpha", "seconds"}
               for trial in trials)  # fmt: skip
    assert all(trial["candidate"]["epochs"] == 1 for trial in trials)
    assert told["plan"]["temperature"] == told["search"]["candidate"]["temperature"]
    assert told["plan"]["batch_size"] == 16


def test_a_missing_extra_is_told_before_anything_is_done(tiny_model, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *others: None if name in ("optuna", "peft") else found(name, *others),
    )  # fmt: skip
    for change in ({"search": "optuna"}, {"lora": {"rank": 8}}):
        with pytest.raises(ConfigError, match="pip install 'embedtune"):
            check_model(str(tiny_model), RunSettings.model_validate({"training": change}))
