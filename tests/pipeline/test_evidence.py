"""All evidence of a run at once: two languages, what is missing, what is left on disk."""

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from embedtune.embed.hashing import HashingEmbedder
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import System, parse_system
from embedtune.pipeline.evidence import (
    EvidenceSettings,
    gather_evidence,
    load_evidence,
    save_evidence,
)
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.store import Store

BASE = parse_system("base=hashing:64")
TUNED = parse_system("tuned=hashing:256")
PLACES = ("shed", "orchard", "stable", "dairy", "mill", "forge", "cellar", "barn")
THINGS = ("ladder", "lantern", "barrow", "kettle", "saddle", "anvil", "churn", "scythe")
ZH_PLACES, ZH_THINGS = "棚园厩坊磨炉窖仓", "梯灯车壶鞍砧桶镰"


@pytest.fixture(scope="module")
def farm() -> RetrievalSet:
    """128 passages in 16 documents, half of them Chinese; every question is asked twice."""
    chunks, queries, qrels = [], [], {"dev": {}, "test": {}}
    for place, (name, zh_name) in enumerate(zip(PLACES, ZH_PLACES, strict=True)):
        for thing, (own, zh_own) in enumerate(zip(THINGS, ZH_THINGS, strict=True)):
            for language, text, asked in (
                ("en", f"The {own} of the {name} hangs at door {place}{thing}",
                 (f"where is the {own} of the {name}", f"the {name} has its {own} where")),
                ("zh", f"{zh_name}里的{zh_own}挂在第{place}{thing}号门",
                 (f"{zh_name}里的{zh_own}在哪里", f"{zh_own}挂在{zh_name}里何处")),
            ):  # fmt: skip
                id = f"{language}{place}{thing}"
                chunks.append(Chunk(id, f"{language}{place}", thing, thing + 1, "", text))
                for number, question in enumerate(asked):
                    queries.append(Query(f"q{id}{number}", question, language))
                    split = "dev" if place % 2 else "test"
                    qrels[split][f"q{id}{number}"] = {id: 1}
    return RetrievalSet("farm", tuple(chunks), tuple(queries), qrels)


class Counting(HashingEmbedder):
    """Counts what it encodes."""

    encoded: list[str] = []  # noqa: RUF012 - of all instances together

    def embed(self, texts, role):
        self.encoded.extend((self.name, text) for text in texts)
        return super().embed(texts, role)


@pytest.fixture(scope="module")
def found(farm, tmp_path_factory):
    Counting.encoded.clear()
    with Store(tmp_path_factory.mktemp("vectors") / "vectors.sqlite") as store:

        def open_recorded(system: System) -> RecordedEmbedder:
            return RecordedEmbedder(Counting(int(system.model)), store)

        evaluator = Evaluator(farm, embedder_of=open_recorded)
        for system in (BASE, TUNED):
            evaluator.score(system, "test")
        yield evaluator, gather_evidence(evaluator, BASE, TUNED), list(Counting.encoded)


def test_the_candidate_is_compressed_and_both_are_mapped_and_given_thresholds(found):
    evaluator, evidence, _ = found
    grid = evidence.compression
    assert (grid.system, grid.judged_on, grid.rows, grid.queries) == (
        "tuned", ("dev", "test"), 128, 128,
    )  # fmt: skip
    assert grid.indexes[0].score == evaluator.score(TUNED, "test").metrics["ndcg@10"]
    assert [layout.system for layout in evidence.map.layouts] == ["base", "tuned"]
    assert len(evidence.map.points) == 128 + 128
    assert len(evidence.map.colours) == 16
    advice = {(advice.use, advice.system): advice for advice in evidence.scores.advice}
    assert set(advice) == {(u, s) for u in ("no-answer", "cache") for s in ("base", "tuned")}
    assert all(not own.code and own.dev == own.test == 128 for own in advice.values())
    assert advice["cache", "tuned"].basis == "passage"
    assert [own.wanted for own in advice["cache", "base"].thresholds] == [0.9, 0.95]


def test_nothing_is_encoded_twice(found):
    _, _, encoded = found
    assert len(encoded) == len(set(encoded)) == 2 * (128 + 256)


def test_what_is_saved_is_what_is_loaded(found, tmp_path):
    _, evidence, _ = found
    save_evidence(tmp_path, evidence)
    assert load_evidence(tmp_path) == evidence
    assert json.loads((tmp_path / "evidence.json").read_text("utf-8"))["map"]["points"][0]["id"]
    shown = json.dumps(evidence.as_json(), allow_nan=False)
    assert len(shown) < 30_000  # the points stay in the file
    assert load_evidence(tmp_path / "elsewhere") is None


def test_a_base_without_vectors_is_left_out(farm):
    evidence = gather_evidence(
        Evaluator(farm), parse_system("bm25"), TUNED, settings=EvidenceSettings(map="pca")
    )
    assert [layout.system for layout in evidence.map.layouts] == ["tuned"]
    assert evidence.map.kept is None
    assert [spread.system for spread in evidence.scores.spreads] == ["tuned"]


def test_a_model_is_not_compared_with_itself(farm):
    same = replace(TUNED, label="base")
    evidence = gather_evidence(Evaluator(farm), same, TUNED, settings=EvidenceSettings(map="none"))
    assert evidence.map is None
    assert len(evidence.scores.spreads) == 1


def test_without_dev_the_test_split_judges_and_no_threshold_is_advised(farm):
    data = replace(farm, qrels={"test": farm.qrels["test"]})
    evidence = gather_evidence(
        Evaluator(data), BASE, TUNED, settings=EvidenceSettings(map="none", precision=(0.8,))
    )
    assert evidence.compression.judged_on == ("test",)
    assert {advice.code for advice in evidence.scores.advice} == {"no-dev"}


@pytest.mark.parametrize("wrong", [{"map": "som"}, {"precision": [1.0]}, {"precision": [0]}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        EvidenceSettings(**wrong)
