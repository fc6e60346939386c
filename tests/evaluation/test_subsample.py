"""A large corpus made smaller for choices on dev."""

from dataclasses import replace

import pytest

from embedtune.evaluation import subsample
from embedtune.evaluation.subsample import subsample_note, subsampled
from embedtune.records import Chunk, Query, RetrievalSet

THINGS = ("barley", "clutch", "dynamo", "estuary", "flint")


@pytest.fixture
def data():
    """200 passages, 40 about each of five things; a dev query for the last of each but one."""
    chunks = tuple(
        Chunk(f"d{n}", f"d{n}", 0, 0, "", f"Number {n} is of {THINGS[n % 5]}.") for n in range(200)
    )
    queries = (*(Query(f"q{n}", f"which {THINGS[n]}") for n in range(4)), Query("t", "flint"))
    dev = {f"q{n}": {f"d{195 + n}": 1, f"d{190 + n}": 0} for n in range(4)}
    return RetrievalSet("made", chunks, queries, {"dev": dev, "test": {"t": {"d4": 1}}})


def things_of(data):
    return {thing: sum(thing in chunk.text for chunk in data.chunks) for thing in THINGS}


def test_a_corpus_that_is_not_large_is_left_alone(data, monkeypatch):
    monkeypatch.setattr(subsample, "MOST", 200)
    assert subsampled([data, data]) == [data, data]
    assert subsample_note(data, data) == ""


def test_what_is_judged_is_kept_with_what_is_like_it_and_others(data, monkeypatch):
    monkeypatch.setattr(subsample, "MOST", 100)
    [smaller] = subsampled([data])
    assert len(smaller.chunks) == 100
    assert (smaller.queries, smaller.qrels) == (data.queries, data.qrels)
    judged = {chunk for grades in data.qrels["dev"].values() for chunk in grades}
    ids = [chunk.id for chunk in smaller.chunks]
    assert judged <= set(ids)
    assert ids == [chunk.id for chunk in data.chunks if chunk.id in set(ids)]  # their order
    # 8 judged, 46 for BM25 by rank, 46 by chance, of which the fifth thing has its share
    found = things_of(smaller)
    assert all(found[thing] > 2 + 46 // 4 for thing in THINGS[:4])
    assert 0 < found["flint"] < 25
    assert subsampled([data])[0] == smaller
    assert "100 of 200 passages" in subsample_note(smaller, data)


def test_each_set_has_its_own_queries(data, monkeypatch):
    monkeypatch.setattr(subsample, "MOST", 60)
    dev = data.qrels["dev"]
    parts = [replace(data, qrels={"dev": {name: dev[name]}}) for name in ("q0", "q1")]
    first, second = map(things_of, subsampled(parts))
    assert first["barley"] > second["barley"]
    assert first["clutch"] < second["clutch"]


def test_all_that_is_judged_is_kept_though_it_be_more(data, monkeypatch):
    monkeypatch.setattr(subsample, "MOST", 5)
    [smaller] = subsampled([data])
    assert len(smaller.chunks) == 8


def test_without_dev_queries_chance_alone_decides(data, monkeypatch):
    monkeypatch.setattr(subsample, "MOST", 50)
    [smaller] = subsampled([replace(data, qrels={})])
    assert len(smaller.chunks) == 50
    assert min(things_of(smaller).values()) > 2
