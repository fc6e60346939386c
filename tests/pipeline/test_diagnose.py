"""Signs of a training: measured on models and data whose faults are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from embedtune.config import RunSettings
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.pipeline.console import Silent
from embedtune.pipeline.diagnose import diagnose_models
from embedtune.pipeline.signs import Case, _sample, measure_signs
from embedtune.pipeline.stored import load_given
from embedtune.pipeline.suspects import suspects_among
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.store import Store


@pytest.fixture
def dataset(small_beir):
    return load_given(small_beir, RunSettings().split)


@pytest.fixture
def settings() -> RunSettings:
    return RunSettings.model_validate({"evaluation": {"probe": "none"}})


def changed(model: Path, folder: Path, file: str, **fields: object) -> Path:
    """A copy of a model whose settings in one file are others."""
    shutil.copytree(model, folder)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def moved(model: Path, folder: Path, by: float) -> Path:
    """A copy of a model whose weights are larger by a share of themselves."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    for weights in loaded.parameters():
        weights.data *= 1 + by
    loaded.save(str(folder), create_model_card=False)
    return folder


def test_weights_that_went_so_far_before_a_merge_are_taken_back_there(
    dataset, settings, tiny_model, tmp_path
):
    far, merged = moved(tiny_model, tmp_path / "far", 0.4), tmp_path / "merged"
    moved(tiny_model, merged, 0.1)  # the same, merged at a quarter
    with Store(tmp_path / "vectors.sqlite") as store:
        known = measure_signs(Case(dataset, str(tiny_model), far, settings), store, Silent())
        case = Case(dataset, str(tiny_model), merged, settings, facts={"alpha": 0.25})
        found = measure_signs(case, store, Silent())
    assert known.moved == pytest.approx(0.4, rel=1e-4)
    assert found.moved == pytest.approx(0.4, rel=1e-4)
    assert found.dev.after == pytest.approx(known.dev.after, abs=1e-6)
    assert found.train.after == pytest.approx(known.train.after, abs=1e-6)
    assert found.vectors[1].mean_cosine == pytest.approx(known.vectors[1].mean_cosine, abs=1e-4)


def test_a_base_held_against_itself_has_no_cause_of_training(
    small_beir, settings, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = diagnose_models(small_beir, str(tiny_model), tiny_model, settings, Silent())
    assert {"learning-rate", "epochs", "collapse", "truncation", "unknown-tokens", "pooling"} & {
        cause.code for cause in found.named
    } == set()
    assert found.dev.mean == 0


def test_a_model_saved_with_a_shorter_reach_is_told_by_what_it_never_reads(
    small_beir, settings, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuned = changed(tiny_model, tmp_path / "m", "sentence_bert_config.json", max_seq_length=6)
    found = diagnose_models(small_beir, str(tiny_model), tuned, settings, Silent())
    assert found.named[0].code == "truncation"
    # passages have 24 words and two special tokens, and 6 are read: at least 20 of 26 are not
    assert found.named[0].numbers["document"] >= 20 / 26


def test_text_that_the_tokenizer_does_not_know_is_told(
    make_beir, settings, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = make_beir(tmp_path / "data", chinese=True)
    found = diagnose_models(data, str(tiny_model), tiny_model, settings, Silent())
    assert "unknown-tokens" in {cause.code for cause in found.named}


def negatives_of(chunks: dict[str, str], given: dict[str, tuple[str, ...]]):
    """What is suspect of the negatives of one query whose answer is ``right``."""
    passages = tuple(Chunk(id, id, 0, len(text), "", text) for id, text in chunks.items())
    query = Query("q", "when is the battery of the robot charged")
    data = RetrievalSet("small", passages, (query,), {"train": {"q": {"right": 1}}})
    hashing = System("hashing", "dense", "hashing", "256")
    evaluator = Evaluator(data)
    return suspects_among(
        data, evaluator, hashing, negatives=given, near_duplicates=(), batch_size=32
    )


def test_an_answer_told_again_is_a_suspect_and_another_passage_is_none():
    chunks = {
        "right": "the battery of the robot is charged overnight in the shed",
        "again": "in the shed overnight is charged the battery of the robot",
        "other": "invoices are paid within thirty days of receipt",
    }
    own, batch = negatives_of(chunks, {"q": ("again", "other")})
    assert (own.negatives, own.share) == (2, 0.5)
    assert batch is None  # no other pair
    assert negatives_of(chunks, {})[0] is None


def test_a_sample_keeps_what_is_judged_and_what_is_wanted(small_beir, dataset):
    data = _sample(dataset.data, 5, 20, {})
    assert {split: len(own) for split, own in data.qrels.items()} == dict.fromkeys(data.qrels, 5)
    kept = {chunk.id for chunk in data.chunks}
    assert len(kept) == 20
    assert all(kept.issuperset(grades) for own in data.qrels.values() for grades in own.values())
    chosen = next(iter(data.qrels["train"]))
    wanted = [chunk.id for chunk in dataset.data.chunks]
    assert len(_sample(dataset.data, 5, 20, {chosen: wanted}).chunks) == len(wanted)
    # positions decide nothing
    turned = replace(dataset.data, chunks=dataset.data.chunks[::-1])
    assert {chunk.id for chunk in _sample(turned, 5, 20, {}).chunks} == kept


def test_command_line(command, small_beir, tiny_model, tmp_path):
    assert command("diagnose").code == 2
    assert command("diagnose", "--data", small_beir, "--base", tiny_model).code == 2
    assert command("diagnose", tmp_path / "none").code == 2
    result = command("diagnose", "--data", small_beir, "--base", tiny_model, "--tuned", tiny_model,
                     "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert {cause["code"] for cause in result.json["causes"]} >= {"ceiling", "pooling", "epochs"}
    text = command("diagnose", "--data", small_beir, "--base", tiny_model, "--tuned", tiny_model)
    assert text.code == 0
    assert "dev: " in text.out


def test_a_run_is_diagnosed_and_the_outcome_is_kept_until_the_run_changes(
    command, small_beir, tiny_model, tmp_path
):
    from embedtune.pipeline.diagnose import FILE, load_diagnosis

    run = tmp_path / "run"
    assert command("diagnose", run).code == 2
    options = ("data", small_beir), ("run", run), ("model.base", tiny_model), (
        "training.minutes", 0), ("training.epochs", 1), ("evaluation.probe", "none")  # fmt: skip
    done = command("run", *(part for key, value in options for part in ("--set", f"{key}={value}")))
    assert done.code == 0, done.err
    assert "looking for the cause" in done.err  # it cannot end with ship on so few queries
    own = load_diagnosis(run)
    (run / FILE).unlink()
    assert load_diagnosis(run) is None
    result = command("diagnose", run, "--json")
    assert result.code == 0, result.err
    kept = load_diagnosis(run)
    assert kept == own
    assert [cause.code for cause in kept.causes] == [own["code"] for own in result.json["causes"]]
    assert kept.test.queries == 36  # as the run's own evaluation had them
    path = run / FILE
    whole = path.read_text()
    for other in (whole.replace("08-training", "08-other"), whole[:100], "[]"):
        path.write_text(other)
        assert load_diagnosis(run) is None
