"""What a training learns from: the loss that fits, and a teacher's scores."""

import shutil

import numpy as np
import pytest

from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.errors import ConfigError
from embedtune.pipeline.material import (
    check_fits,
    check_helpers,
    labels_of_helpers,
    open_teacher,
    own_examples,
    training_pairs,
)
from embedtune.records import Chunk, Pair, Query, RetrievalSet
from embedtune.training.plan import TrainingSettings

SCORED = [ScoredRow("a b", "c d", 0.5), ScoredRow("e", "f", 1.0)]
LABELLED = [LabelledRow("a b", "fee"), LabelledRow("c d", "tow")]
PAIRS = [Pair("q", "c", "a b", "c d")]


def test_queries_and_single_pairs_that_are_left_out_are_not_learnt_from():
    chunks = tuple(Chunk(name, name, 0, 9, "", f"passage {name}") for name in "abc")
    queries = (Query("q", "which?"), Query("r", "where?"))
    train = {"q": {"a": 1, "b": 1}, "r": {"b": 1, "c": 2}}
    data = RetrievalSet("set", chunks, queries, {"train": train})

    def learnt(*left_out):
        return [(pair.query, pair.chunk) for pair in training_pairs(data, *left_out)]

    assert learnt() == [("q", "a"), ("q", "b"), ("r", "b"), ("r", "c")]
    assert learnt(["q"], [("r", "b")]) == [("r", "c")]
    assert learnt((), [("q", "b")]) == [("q", "a"), ("r", "b"), ("r", "c")]


@pytest.mark.parametrize(
    ("rows", "loss", "format"),
    [
        (SCORED, "auto", "scored"),
        (SCORED, "angle", "scored"),
        (SCORED, "mnrl", "pairs"),
        (LABELLED, "mnrl", "pairs"),
        (LABELLED, "embed_distill", "labelled"),
        (LABELLED, "cosent", "labelled"),  # so that the refusal speaks of what the user has
        ([PairRow("a b", "c d")], "auto", "pairs"),
    ],
)
def test_rows_are_learnt_as_they_came_where_the_loss_allows(rows, loss, format):
    training = TrainingSettings(loss=loss, guide="m" if loss == "embed_distill" else None)
    assert own_examples(rows, PAIRS, training).format == format


@pytest.mark.parametrize(
    ("rows", "loss", "negatives", "said"),
    [
        ([], "triplet", False, "the data are pairs"),
        ([], "cosent", True, "the data are triplets"),
        (SCORED, "contrastive", False, "scores that are all 0 or 1"),
        (LABELLED, "cosent", False, "the data are labelled"),
    ],
)
def test_a_loss_that_will_not_fit_is_known_from_the_rows(rows, loss, negatives, said):
    with pytest.raises(ConfigError, match=said):
        check_fits(rows, TrainingSettings(loss=loss), negatives=negatives)


def test_a_loss_that_will_fit_passes():
    check_fits([], TrainingSettings(loss="triplet"), negatives=True)
    check_fits(LABELLED, TrainingSettings(loss="mnrl"), negatives=False)
    check_fits(SCORED, TrainingSettings(loss="angle"), negatives=False)


def taught(folder) -> TrainingSettings:
    return TrainingSettings(loss="margin_mse", teacher=str(folder))


def test_a_teacher_gives_the_numbers_of_its_head_one_pair_once(tiny_cross_encoder, monkeypatch):
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judged = []
    predict = CrossEncoder.predict

    def watched(self, pairs, **further):
        judged.extend(pairs)
        return predict(self, pairs, **further)

    monkeypatch.setattr(CrossEncoder, "predict", watched)
    teacher = open_teacher(taught(tiny_cross_encoder), "cpu")
    queries, passages = ["a b", "夜班", "a b", "a b"], ["c d", "夜班费", "c d", "e"]
    found = teacher(queries, passages)
    again = teacher(["a b", "j"], ["e", "i"])
    assert judged == [("a b", "c d"), ("夜班", "夜班费"), ("a b", "e"), ("j", "i")]
    assert found[0] == found[2] != found[3] == again[0]

    tokenizer = AutoTokenizer.from_pretrained(tiny_cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_cross_encoder).eval()
    one_by_one = [
        model(**tokenizer(query, passage, return_tensors="pt")).logits.item()
        for query, passage in zip(queries, passages, strict=True)
    ]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-4, atol=1e-5)


def test_a_teacher_is_loaded_only_for_a_loss_that_asks_it():
    assert open_teacher(TrainingSettings(teacher="/nowhere"), "cpu") is None
    assert open_teacher(TrainingSettings(loss="triplet", teacher="/nowhere"), "cpu") is None


def test_all_faults_of_guide_and_teacher_are_told(tiny_model, tmp_path):
    settings = TrainingSettings(guide=str(tmp_path / "gone"), teacher=str(tiny_model))
    with pytest.raises(ConfigError) as caught:
        check_helpers(settings)
    guide, teacher = caught.value.faults
    assert guide.startswith("training.guide: ")
    assert "no such folder" in guide
    assert teacher.startswith("training.teacher: ")
    assert "is an embedding model" in teacher


def test_a_guide_and_a_teacher_that_are_there_pass(tiny_model, tiny_cross_encoder):
    check_helpers(TrainingSettings(guide=str(tiny_model), teacher=str(tiny_cross_encoder)))


def test_a_teacher_that_changed_is_another_one(tiny_cross_encoder, tmp_path):
    assert labels_of_helpers(TrainingSettings()) == {}
    copy = shutil.copytree(tiny_cross_encoder, tmp_path / tiny_cross_encoder.name)
    assert labels_of_helpers(taught(copy)) == labels_of_helpers(taught(tiny_cross_encoder))
    config = copy / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    assert labels_of_helpers(taught(copy)) != labels_of_helpers(taught(tiny_cross_encoder))
