"""The command against a service over HTTP: what it leaves, what it pays for, what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedtune.cli.console import Console
from embedtune.config import RunSettings, load_config
from embedtune.embed.adapted import AdaptedEmbedder, unit
from embedtune.embed.openai import OpenAIEmbedder
from embedtune.errors import ConfigError, NothingUsable, ServiceError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import parse_system
from embedtune.pipeline.adapter_choice import gather, lesson_of
from embedtune.pipeline.adapting import adapt_into, told
from embedtune.pipeline.indexing import index_into, search_index
from embedtune.pipeline.models import compare_models, evaluate_systems
from embedtune.pipeline.stored import load_given

SYSTEM = "openai:m-small"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return load_config(None, ["evaluation.probe=none"])


def test_an_adapter_learns_what_people_call_things_and_each_text_is_paid_once(
    service, settings, write_data, tmp_path
):
    data, out = write_data(tmp_path / "data", count=200), tmp_path / "adapter"
    found = adapt_into(SYSTEM, data, out, settings, QUIET)
    by_name = {scores.name: scores.metrics["ndcg@10"] for scores in found.judgement.systems}
    assert by_name["base"] < 0.15 < 0.4 < by_name["adapted"]
    assert found.judgement.verdict.candidate == "adapted"
    assert found.judgement.verdict.differences["base"].low > 0
    assert found.facts["kind"] in ("closed form", "contrastive")
    assert found.facts["gain"][1] > 0
    assert "chosen: " in told(found.facts)[-1]

    texts = {json.loads(line)["text"] for name in ("corpus", "queries")
             for line in (data / f"{name}.jsonl").read_text("utf-8").splitlines()}  # fmt: skip
    assert set(service.paid) == texts
    assert set(service.paid.values()) == {1}

    # nothing is paid for again: by the command, by evaluate, by compare
    service.paid.clear()
    again = adapt_into(SYSTEM, data, out, settings, QUIET)
    assert again.facts == found.facts
    measured = evaluate_systems(data, "test", [str(out), SYSTEM], settings, QUIET)
    adapted, base = (scores.metrics["ndcg@10"] for scores in measured.systems)
    assert (adapted, base) == (by_name["adapted"], by_name["base"])
    compared = compare_models(data, "test", SYSTEM, str(out), settings, QUIET)
    assert compared.judgement.verdict.verdict == found.judgement.verdict.verdict
    assert not service.paid

    # the folder: no key; documents as the service gives them, questions moved
    for path in out.rglob("*"):
        assert b"sk-never-to-be-stored" not in path.read_bytes()
    described = json.loads((out / "embedtune_adapter.json").read_text())
    assert described["base"] == SYSTEM
    assert service.url in described["base_label"]
    assert described["dev"] > described["dev_base"]
    embedder, plain = AdaptedEmbedder(str(out)), OpenAIEmbedder("m-small")
    texts = ["bill pay car", "账单 工资"]
    assert np.array_equal(embedder.embed(texts, "document"), plain.embed(texts, "document"))
    moved = embedder.embed(texts, "query")
    assert np.allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    assert not np.allclose(moved, plain.embed(texts, "query"), atol=0.1)


def test_an_adapter_learns_nothing_from_a_passage_that_test_shares(settings, write_data, tmp_path):
    data = write_data(tmp_path / "data")
    with (data / "qrels" / "train.tsv").open("a") as file:
        file.write("q0\tp100\t1\n")  # q100 of test asks about it
    given = load_given(data, settings.split)
    assert given.left_out_pairs == (("q0", "p100"),)
    evaluator = Evaluator(given.data, settings.evaluation, near_duplicates=given.twins)
    asked = gather(evaluator, parse_system("hashing:96"), given)
    [(place, row)] = asked.barred
    assert (asked.answers.queries[place].id, asked.answers.ids[row]) == ("q0", "p100")
    taught = lesson_of(asked, asked.train, 1000)
    assert taught.pairs == len(asked.train) == 60
    shared = unit(asked.rows[[row]])
    assert not np.isclose(taught.passages @ shared[0], 1, atol=1e-6).any()


def test_where_no_query_may_be_learnt_from_the_reason_is_told(settings, write_data, tmp_path):
    data = write_data(tmp_path / "data")
    with (data / "qrels" / "test.tsv").open("a") as file:
        file.writelines(f"q100\tp{number}\t1\n" for number in range(60))
    with pytest.raises(NothingUsable, match="no train pair is left: each of the 60"):
        adapt_into("hashing:96", data, tmp_path / "adapter", settings, QUIET)


def test_passages_indexed_through_an_adapter_are_paid_once(service, settings, write_data, tmp_path):
    data, out = write_data(tmp_path / "data", count=200), tmp_path / "adapter"
    adapt_into(SYSTEM, data, out, settings, QUIET)
    service.paid.clear()
    for name in ("one", "other"):
        made = index_into([data], str(tmp_path / name), settings, QUIET, model=str(out))
        assert made.passages == 200
    assert not service.paid  # the adapter's training paid for them
    _, [found] = search_index(["bill pay car"], str(tmp_path / "one"), 3, QUIET)
    _, [again] = search_index(["bill pay car"], str(tmp_path / "other"), 3, QUIET)
    assert [hit.chunk.id for hit in found] == [hit.chunk.id for hit in again]
    assert service.paid["bill pay car"] <= 2


def test_without_a_gain_the_base_itself_is_left_and_that_is_said(
    service, settings, write_data, tmp_path
):
    data, out = write_data(tmp_path / "data", same_words=True), tmp_path / "adapter"
    found = adapt_into(SYSTEM, data, out, settings, QUIET)
    assert found.facts["kind"] == "identity"
    assert found.facts["rank"] == 0
    lines = "\n".join(told(found.facts))
    assert "no adapter: " in lines
    assert "finds nearly all answers already" in lines
    base, adapted = (
        next(scores for scores in found.judgement.systems if scores.name == name)
        for name in ("base", "adapted")
    )
    assert adapted.per_query == base.per_query
    assert found.judgement.verdict.verdict not in ("ship", "do-not-ship")


def test_what_the_budget_does_not_allow_is_not_paid(service, write_data, tmp_path):
    data, out = write_data(tmp_path / "data"), tmp_path / "adapter"
    tight = load_config(None, ["evaluation.probe=none", "embedding.tokens=100"])
    with pytest.raises(ServiceError, match="budget used up: 0 of 100 tokens"):
        adapt_into(SYSTEM, data, out, tight, QUIET)
    assert not service.paid
    assert not out.exists()


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("bm25", "expected openai:MODEL, cohere:MODEL or a model"),
        ("hybrid:openai:m", "expected openai:MODEL, cohere:MODEL or a model"),
        ("openai:m?precision=int8", "expected openai:MODEL, cohere:MODEL or a model"),
        ("static", "expected openai:MODEL, cohere:MODEL or a model"),
    ],
)
def test_what_has_no_vectors_of_its_own_is_refused(system, message, settings, tmp_path):
    with pytest.raises(ConfigError, match=message):
        adapt_into(system, tmp_path / "data", tmp_path / "out", settings, QUIET)


def test_a_rank_that_is_named_is_kept_and_an_adapter_is_no_base_of_another(
    service, settings, write_data, tmp_path
):
    data, out = write_data(tmp_path / "data", count=110), tmp_path / "adapter"
    found = adapt_into("hashing:96", data, out, settings, QUIET, rank=5)
    assert found.facts["rank"] == 5
    assert {point[1] for point in found.facts["curve"][1:]} == {5}
    assert not service.paid
    with pytest.raises(ConfigError, match="is an adapter; name its base"):
        adapt_into(str(out), data, tmp_path / "other", settings, QUIET)


def test_too_few_queries_to_choose_by(service, settings, write_data, tmp_path):
    data = write_data(tmp_path / "data")
    for name, kept in (("train", 12), ("dev", 4)):
        file: Path = data / "qrels" / f"{name}.tsv"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[: kept + 1]))
    with pytest.raises(NothingUsable, match="16 train and dev queries; at least 24"):
        adapt_into(SYSTEM, data, tmp_path / "adapter", settings, QUIET)


def test_data_without_passages_is_refused(settings, tmp_path):
    file = tmp_path / "scored.csv"
    rows = [f"first {row} text,second {row} text,{row % 5 / 4}" for row in range(60)]
    file.write_text("\n".join(["sentence1,sentence2,score", *rows]))
    with pytest.raises(ConfigError, match="scored data; an adapter learns from queries"):
        adapt_into("hashing", file, tmp_path / "adapter", settings, QUIET)
