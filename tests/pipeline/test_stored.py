"""What the data set stage leaves is what it was given."""

from dataclasses import replace

import pytest

from embedtune.files import read_json, write_json
from embedtune.pipeline.models import train_digest
from embedtune.pipeline.stored import Dataset, load_dataset, save_dataset
from embedtune.records import Chunk, Query, RetrievalSet


@pytest.fixture
def dataset():
    chunks = tuple(Chunk(name, name, 0, 9, "", f"passage {name}") for name in "abc")
    queries = (Query("q", "which?"), Query("r", "where?"))
    qrels = {"train": {"q": {"a": 1, "b": 1}}, "test": {"r": {"b": 1, "c": 1}}}
    data = RetrievalSet("set", chunks, queries, qrels, given_splits=True)
    return Dataset(data, (), {}, "given", False, (), left_out_pairs=(("q", "b"),))


def test_pairs_that_are_left_out_are_read_back(dataset, tmp_path):
    save_dataset(tmp_path, dataset)
    assert load_dataset(tmp_path).left_out_pairs == (("q", "b"),)


def test_a_data_set_from_before_there_were_such_pairs_has_none(dataset, tmp_path):
    save_dataset(tmp_path, dataset)
    facts = read_json(tmp_path / "split.json")
    del facts["left_out_pairs"]
    write_json(tmp_path / "split.json", facts)
    assert load_dataset(tmp_path).left_out_pairs == ()


def test_a_training_on_other_pairs_is_another_training(dataset):
    whole = replace(dataset, left_out_pairs=())
    assert train_digest(whole) != train_digest(dataset)
    assert train_digest(dataset) == train_digest(replace(dataset, twins=()))
