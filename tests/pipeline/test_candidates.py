"""Base models ranked before any training, and what is tried on the one that is taken."""

import json
import random
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml

from embedtune.cli.console import Console
from embedtune.config import RunSettings, load_config
from embedtune.datasets.beir import read_beir
from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError, NothingUsable, ServiceError
from embedtune.evaluation.systems import open_embedder, parse_system
from embedtune.pipeline.candidates import (
    bases_of,
    models_at_hand,
    rank_bases,
    rank_candidates,
    systems_of,
)
from embedtune.pipeline.stored import Dataset, load_given
from embedtune.pipeline.trying import AS_IS, Tuning, try_axes, with_prefix
from embedtune.records import Chunk

QUIET = Console(quiet=True)
SETTINGS = RunSettings()


def open_for(chunks):
    return open_embedder


@pytest.fixture(scope="module")
def given(small_beir) -> Dataset:
    return Dataset(read_beir(small_beir).data, (), {}, "", False, ())


@pytest.fixture
def broken(tiny_model, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def rank(given, *names, settings=SETTINGS):
    return rank_bases(given, systems_of(names, settings.model), settings, QUIET, open_for)


# ---- ranking


def test_what_cannot_be_loaded_is_a_row_with_its_reason(given, tiny_model, broken):
    found = rank(given, "/nowhere/model", f"broken={broken}", f"tiny={tiny_model}", "hashing")
    rows = found.as_json()["candidates"]
    assert [row["name"] for row in rows] == ["hashing", "tiny", "/nowhere/model", "broken"]
    assert "there is no such folder" in rows[2]["error"]
    assert "cut short" in rows[3]["error"]
    assert found.unusable
    assert (found.pick.name, found.pick.code) == ("tiny", "only")
    tiny = rows[1]
    assert (tiny["dimension"], tiny["max_tokens"]) == (32, 64)
    assert tiny["over_bm25"]["mean"] == pytest.approx(
        tiny["metrics"]["ndcg@10"] - found.bm25.metrics["ndcg@10"]
    )
    assert (found.queries, found.groups) == (24, 12)


def test_where_none_can_be_loaded_the_gravest_reason_gives_the_exit_code(given, broken):
    with pytest.raises(ConfigError, match="/nowhere/one"):
        rank(given, "/nowhere/one", "/nowhere/two")
    with pytest.raises(IntegrityError, match="cut short"):
        rank(given, "/nowhere/one", str(broken))
    with pytest.raises(ServiceError, match="HF_HUB_OFFLINE"):
        rank(given, "acme/not-here", "/nowhere/one")


def test_without_dev_queries_nothing_is_ranked(given, tiny_model):
    qrels = {name: part for name, part in given.data.qrels.items() if name != "dev"}
    with pytest.raises(NothingUsable, match="dev"):
        rank(replace(given, data=replace(given.data, qrels=qrels)), str(tiny_model))


def test_a_model_that_does_not_know_the_tokens_is_never_taken_before_one_that_does(
    make_beir, tmp_path, tiny_model
):
    data = read_beir(make_beir(tmp_path / "zh", chinese=True)).data
    given = Dataset(data, (), {}, "", False, ())
    found = rank(given, str(tiny_model))
    [row] = found.candidates
    assert row.unreadable > 0.2
    assert found.pick.code == "unreadable"
    allowed = load_config(None, ["training.allow_unknown_tokens=true"])
    assert rank(given, str(tiny_model), settings=allowed).pick.code == "only"


def test_models_are_ranked_as_the_training_would_begin_with_them(tiny_model):
    settings = load_config(
        None, [f"model.base=[{tiny_model}, static]", "model.pooling=cls",
               'model.prompts={query: "q: "}'],
    )  # fmt: skip
    tiny, static = bases_of(settings)
    assert (tiny.pooling, tiny.query_prompt, tiny.document_prompt) == ("cls", "q: ", "")
    assert static.pooling == ""
    [own] = systems_of([f"{tiny_model}?pooling=max"], settings.model)
    assert own.pooling == "max"


@pytest.mark.parametrize("name", ["bm25", "hybrid:m", "m?rerank=c", "m?precision=int8"])
def test_only_models_by_themselves_are_candidates(name):
    with pytest.raises(ConfigError, match="expected a model"):
        systems_of([name])


def test_without_names_what_is_at_hand_is_ranked(tmp_path, monkeypatch):
    for name, files in {
        "acme--reads": ["modules.json", "model.safetensors"],
        "acme--writes": ["config.json", "model.safetensors"],
    }.items():
        snapshot = tmp_path / f"models--{name}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (tmp_path / f"models--{name}" / "refs").mkdir()
        (tmp_path / f"models--{name}" / "refs" / "main").write_text("abc")
        for file in files:
            (snapshot / file).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    minilm = "sentence-transformers/all-MiniLM-L6-v2"
    names = models_at_hand(load_config(None, ["model.base=[acme/first, static]"]))
    assert names == ("acme/first", "static", "acme/reads", minilm)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert models_at_hand(SETTINGS) == (minilm,)


# ---- trying


def tried(given, name, *axes, prefix=""):
    return try_axes(
        given, Tuning(parse_system(name), prefix), axes, SETTINGS, open_for, QUIET
    )  # fmt: skip


def test_a_pooling_that_is_clearly_better_is_taken(given, tiny_model):
    # of a network that never learnt anything, the first token says little of the text
    every = {query: grades for part in given.data.qrels.values() for query, grades in part.items()}
    larger = replace(given, data=replace(given.data, qrels={"dev": every}))
    tuning, [axis] = tried(larger, f"{tiny_model}?pooling=cls", "pooling")
    scores = {choice.name: choice.score for choice in axis.choices}
    assert scores["mean"] > scores["cls"] + 0.1
    assert (axis.chosen, axis.changed, tuning.system.pooling) == ("mean", True, "mean")
    assert axis.choices[0].name == "cls"


def test_differences_under_noise_change_nothing(given, tiny_model):
    tuning, axes = tried(given, str(tiny_model), "pooling", "prompts")
    assert tuning == Tuning(parse_system(str(tiny_model)))
    pooling, prompts = axes
    assert [choice.name for choice in pooling.choices] == ["the model's own (mean)", "cls", "max"]
    # it has no prompts of its own, which is the same as none
    assert [choice.name for choice in prompts.choices] == [
        "none", "query: / passage: ", "instruction",
    ]  # fmt: skip
    assert not pooling.changed
    assert not prompts.changed


def test_what_a_model_has_not_is_not_tried(given):
    _, axes = tried(given, "hashing", "pooling", "prompts", "prefix")
    assert [(axis.choices, axis.chosen) for axis in axes] == [((), AS_IS)] * 3


def test_titles_that_mislead_are_left_out(given):
    draw = random.Random(0)
    texts = [chunk.text for chunk in given.data.chunks]
    chunks = tuple(
        replace(chunk, title=" ".join(draw.choice(texts) for _ in range(4)))
        for chunk in given.data.chunks
    )
    misled = replace(given, data=replace(given.data, chunks=chunks))
    tuning, [axis] = tried(misled, "hashing:512", "prefix")
    assert (axis.chosen, tuning.prefix) == ("none", "none")
    assert axis.choices[1].gain.low > 0
    again, [axis] = tried(misled, "hashing:512", "prefix", prefix="none")
    assert (again.prefix, axis.choices) == ("none", ())


def test_headings_are_put_before_passages_but_not_before_tables():
    chunk = partial(Chunk, document="d", start=0, end=1, text="text")
    cut = [
        chunk(id="a", title="", section=("One", "Two")),
        chunk(id="b", title="Old", section=("One",)),
        chunk(id="c", title="Name | Age", section=("One",), kind="table"),
        chunk(id="d", title="Book"),
    ]

    def titles(prefix):
        return [one.title for one in with_prefix(cut, prefix)]

    assert titles("headings") == ["One > Two", "One", "Name | Age", "Book"]
    assert titles("none") == ["", "", "Name | Age", ""]
    assert titles("") == ["", "Old", "Name | Age", "Book"]


def test_the_settings_that_are_written_are_those_that_a_run_reads(small_beir, tiny_model, tmp_path):
    name = f"{tiny_model}?pooling=cls&query_prompt=query:%20"
    out = tmp_path / "chosen.yaml"
    found = rank_candidates(
        small_beir, [name], SETTINGS, QUIET, out=out
    )  # fmt: skip
    assert yaml.safe_load(out.read_text("utf-8")) == found.settings()
    model = load_config(out).model
    assert (model.base, model.pooling) == ((str(tiny_model.resolve()),), "cls")
    assert (model.prompts.query, model.prompts.document) == ("query: ", "")
    for given, fault in (({"out": out}, "new .yaml file"), ({"axes": ["size"]}, "--try: size")):
        with pytest.raises(ConfigError, match=fault):
            rank_candidates(small_beir, [name], SETTINGS, QUIET, **given)


# ---- the command


def test_the_command_prints_tables_and_the_choice(command, small_beir, tiny_model):
    result = command("candidates", "--data", small_beir, f"tiny={tiny_model}", "/nowhere/model",
                     "static", "--try", "prefix")  # fmt: skip
    assert result.code == 4, result.err
    for shown in ("24 dev queries in 12 groups", "passages/s", "licence", "unknown tokens", "bm25",
                  "not measured: /nowhere/model", "take static", "prefix: nothing to try here",
                  "model:\n  base: static"):  # fmt: skip
        assert shown in result.out


def test_triplets_are_ranked_with_their_accuracy_beside(command, tmp_path, small_beir, tiny_model):
    lines = [json.loads(line) for line in (small_beir / "corpus.jsonl").open(encoding="utf-8")]
    rows = []
    for place, line in enumerate(lines):
        words, other = line["text"].split(), lines[place - 7]["text"].split()
        negative = [*words[2:7], *other] if place % 2 else other
        rows.append({"anchor": " ".join(words[:5]), "positive": line["text"],
                     "negative": " ".join(negative)})  # fmt: skip
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    result = command("candidates", "--data", data, tiny_model, "hashing", "--json", "--quiet")
    assert result.code == 0, result.err
    dev = load_given(data, SETTINGS.split).examples["dev"]
    nearer = []
    for row in dev:
        one, other, far = HashingEmbedder().embed(
            [row.anchor, row.positive, *row.negatives], "query"
        )
        one, other, far = (vector / np.linalg.norm(vector) for vector in (one, other, far))
        nearer.append(one @ other > one @ far + 1e-9)
    rows = {row["name"]: row for row in result.json["candidates"]}
    assert rows["hashing"]["triplets"]["cosine_accuracy"] == pytest.approx(np.mean(nearer))
    assert all(0 < row["metrics"]["ndcg@10"] <= 1 for row in rows.values())
    assert result.json["format"] == "triplets"
