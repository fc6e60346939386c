import re
from dataclasses import replace

import pytest
import yaml

from embedtune.report import ReportFacts, model_card
from embedtune.report.texts import LANGUAGES
from embedtune.report.verdict import verdict_words
from embedtune.results import Flag


def parts_of(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_model_hubs_read(full):
    front, _ = parts_of(model_card(replace(full, license="apache-2.0")))
    assert front["language"] == ["en", "zh"]
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front["pipeline_tag"] == "sentence-similarity"
    assert front["library_name"] == "sentence-transformers"
    results = front["model-index"][0]["results"]
    assert [result["dataset"]["name"].rsplit(", ")[-1] for result in results] == [
        "dimension 384", "dimension 256", "dimension 128", "dimension 64",
    ]  # fmt: skip
    assert results[0]["metrics"] == [{"type": "ndcg@10", "name": "nDCG@10", "value": 0.8452}]


def test_the_hub_reads_the_front_matter_and_every_result(full):
    from huggingface_hub import ModelCard

    facts = replace(full, license="apache-2.0", dataset="owner/questions")
    card = ModelCard(model_card(facts, LANGUAGES["zh"]))
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "sentence-transformers")
    assert data.pipeline_tag == "sentence-similarity"
    assert data.language == ["en", "zh"]
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.datasets == ["owner/questions"]
    assert data.model_name == "model"
    # 4 dimensions; only nDCG@10 was measured of them
    results = [(own.task_type, own.metric_type, own.metric_value) for own in data.eval_results]
    assert results == [
        ("information-retrieval", "ndcg@10", value) for value in (0.8452, 0.8532, 0.8372, 0.7672)
    ]
    assert {own.dataset_type for own in data.eval_results} == {"custom"}
    assert len({own.dataset_name for own in data.eval_results}) == 4


def test_a_hostile_card_is_read_by_the_hub_too(hostile):
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(hostile)).data
    assert data.pipeline_tag == "sentence-similarity"
    assert data.eval_results


def test_the_body_tells_result_use_and_limits(full):
    _, body = parts_of(model_card(full))
    assert "**Ship the tuned model" in body
    assert "| model | 64 | 0.767 |" in body
    assert "Measured on 8 test questions" in body
    code = re.search(r"```python\n(.*?)```", body, re.S).group(1)
    compile(code, "card", "exec")
    assert len(code.splitlines()) == 5


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_language_that_the_verdict_leaves_out_is_told(full, language):
    texts = LANGUAGES[language]
    flag = Flag("unknown-tokens", "it cannot read the Chinese text", True, "zh", {"share": 0.63})
    codes = (("flag-language", {"language": "Chinese", "message": flag.message, "queries": "6",
                                "candidate": "tuned"}),)  # fmt: skip
    base = replace(full.verdict.differences["base"], queries=6)
    verdict = replace(full.verdict, flags=(flag,), codes=codes,
                      differences={**full.verdict.differences, "base": base})  # fmt: skip
    facts = replace(full, verdict=verdict)
    front, body = parts_of(model_card(facts, texts))
    assert front["language"] == ["en"]
    name = {"en": "Chinese", "zh": "中文"}[language]
    limit = body.partition(f"## {texts['card.limits']}")[2]
    assert name in limit
    words = verdict_words(facts, texts)
    assert name in words["next"][-1]
    assert "6" in words["number"].replace(verdict_words(full, texts)["number"], "")
    shown = replace(facts, verdict=replace(verdict, verdict="inconclusive"))
    assert not any(name in step for step in verdict_words(shown, texts)["next"])


def test_a_card_names_no_folder_of_this_machine(full):
    card = model_card(replace(full, base_model="/home/someone/models/base", model="/srv/x/tuned"))
    assert "/home" not in card
    assert "/srv" not in card
    assert "base_model" not in parts_of(card)[0]
    assert "tuned from base by" in card


def test_hostile_text_is_neither_yaml_nor_markdown(hostile):
    card = model_card(hostile)
    front, body = parts_of(card)
    assert set(front) <= {
        "language", "license", "pipeline_tag", "library_name", "tags", "metrics", "model-index",
    }  # fmt: skip
    code = re.search(r"```python\n(.*?)```", body, re.S).group(1)
    compile(code, "card", "exec")
    prose = body.replace(code, "")
    assert not re.search(r"(?<!\\)<(script|img|iframe|svg|a )", prose)
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x00\x1b\ud800]", card)


@pytest.mark.parametrize(
    "facts", [ReportFacts(title="Empty"), ReportFacts(title="x: [y", model="m")]
)
def test_a_card_without_results_has_none(facts):
    front, body = parts_of(model_card(facts))
    assert "model-index" not in front
    assert "|" not in body
    assert "0.000" not in body
