"""The switch between two indexes, and what a threshold becomes."""

import json
import os

import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError
from embedtune.records import Chunk
from embedtune.retrieve import Hit
from embedtune.retrieve.index import Index, prepare, update
from embedtune.retrieve.migrate import (
    Gap,
    Pointer,
    forget_previous,
    gap_between,
    open_place,
    point,
    read_pointer,
    recalibrate,
    roll_back,
    settled,
)
from embedtune.retrieve.stores import open_store

TEXTS = ["The night shift is paid double.", "夜班加倍付薪。", "Batteries are charged in the dock.",
         "机器人在雨天停止工作。", "A crate holds forty apples."]  # fmt: skip


def chunks(texts=TEXTS):
    return [Chunk(f"p{n}", "d", n, n + 1, "", text) for n, text in enumerate(texts)]


def made(place, dimension, passages=None):
    embedder = HashingEmbedder(dimension)
    store = open_store(place)
    prepare(store, embedder, source=f"hashing:{dimension}")
    update(store, chunks() if passages is None else passages, embedder)
    store.close()
    return str(place)


# ---- what is missing


def test_the_gap_counts_what_is_missing_changed_and_surplus(tmp_path):
    old = made(tmp_path / "old", 64)
    passages = chunks()
    changed = Chunk("p1", "d", 1, 2, "", "夜班不加薪。")
    new = made(tmp_path / "new", 32, [passages[0], changed, Chunk("x", "d", 9, 10, "", "gone")])
    gap = gap_between(open_store(old), open_store(new))
    assert gap == Gap(passages=5, missing=3, changed=1, surplus=1)
    assert not gap.closed
    update(store := open_store(new), open_store(old).all_chunks(), HashingEmbedder(32))
    store.close()
    assert gap_between(open_store(old), open_store(new)) == Gap(5, 0, 0, 0)
    assert gap_between(open_store(old), open_store(tmp_path / "nothing")) == Gap(5, 5, 0, 0)


# ---- which one counts


def model_of(place):
    with Index.open(place) as index:
        assert index.search(["night shift"], 1, "dense")[0][0].chunk.id == "p0"
        return index.info.model


def test_an_index_in_a_folder_is_switched_and_switched_back(tmp_path):
    live, new = made(tmp_path / "live", 64), made(tmp_path / "new", 32)
    folder = tmp_path / "live"
    assert point(folder, new) == Pointer(new, ".")
    assert model_of(live) == "hashing-32"
    assert roll_back(folder) == Pointer(".", new)
    assert model_of(live) == "hashing-64"
    assert roll_back(folder) == Pointer(new, ".")  # and forth again
    assert model_of(live) == "hashing-32"
    with pytest.raises(ConfigError, match="already"):
        point(folder, new)
    newest = made(tmp_path / "newest", 16)
    assert point(folder, newest) == Pointer(newest, new)
    assert model_of(live) == "hashing-16"
    assert json.loads((folder / "current.json").read_text()) == {"place": newest, "previous": new}


def test_a_new_folder_stands_for_an_index_elsewhere(tmp_path, monkeypatch):
    old, new = made(tmp_path / "old", 64), made(tmp_path / "new", 32)
    live = tmp_path / "live"
    with pytest.raises(ConfigError, match="--old"):
        point(live, new)
    monkeypatch.chdir(tmp_path)
    assert point(live, "new", old="old") == Pointer(new, old)
    monkeypatch.chdir(os.sep)
    assert model_of(live) == "hashing-32"
    forget_previous(live)
    assert read_pointer(live) == Pointer(new)
    with pytest.raises(ConfigError, match="no index of before"):
        roll_back(live)


def test_the_old_index_is_deleted_and_the_folder_still_stands_for_the_new(tmp_path):
    live, new = made(tmp_path / "live", 64), made(tmp_path / "new", 32)
    folder = tmp_path / "live"
    point(folder, new)
    forget_previous(folder)
    open_place(folder, ".").drop()
    assert [path.name for path in folder.iterdir()] == ["current.json"]
    assert model_of(live) == "hashing-32"
    open_store(new).drop()
    assert not (tmp_path / "new").exists()


def test_a_damaged_pointer_is_an_integrity_fault(tmp_path):
    (tmp_path / "current.json").write_text('{"place": "x", "previous": 3}')
    with pytest.raises(IntegrityError, match="previous"):
        read_pointer(tmp_path)
    (tmp_path / "current.json").write_text('{"pla')
    with pytest.raises(IntegrityError, match=r"current\.json"):
        read_pointer(tmp_path)


def test_a_password_is_not_written_down(tmp_path, monkeypatch):
    for place in ("pgvector://me:geheim@host/db", "pgvector://host/db?password=geheim"):
        with pytest.raises(ConfigError, match="PGPASSWORD") as told:
            settled(place)
        assert "geheim" not in str(told.value)
    monkeypatch.chdir(tmp_path)
    assert settled("pgvector://me@host/db?table=x") == "pgvector://me@host/db?table=x"
    assert settled("milvus:a.db?collection=x") == f"milvus:{tmp_path}/a.db?collection=x"


# ---- what a threshold becomes


def hits(*rows):
    return [[Hit(f"p{n}", score) for n, score in enumerate(row)] for row in rows]


def test_as_many_hits_pass_as_before():
    old = hits([0.9, 0.5, 0.3], [0.6, 0.4, 0.2])
    new = hits([0.81, 0.80, 0.70], [0.79, 0.72, 0.60])
    found = recalibrate(old, new, 0.45)
    # three of six pass: 0.9, 0.6, 0.5; of the new ones 0.81, 0.80, 0.79, and 0.72 is the next
    assert found.new == pytest.approx((0.79 + 0.72) / 2)
    assert (found.old_share, found.new_share) == (0.5, 0.5)
    assert (found.old_answered, found.new_answered) == (1.0, 1.0)
    assert recalibrate(old, new, 0.55).new_answered == 0.5  # 0.81 and 0.80 are of one query


def test_nothing_and_everything_stay_so():
    old, new = hits([0.9, 0.5]), hits([7.0, 3.0])
    assert recalibrate(old, new, 0.95).new_share == 0
    assert recalibrate(old, new, 0.1).new_share == 1


def test_equal_scores_are_not_parted():
    old, new = hits([0.9, 0.8, 0.7, 0.6]), hits([0.5, 0.5, 0.5, 0.1])
    found = recalibrate(old, new, 0.75)
    assert found.new == pytest.approx(0.3)  # 3 of 4 are nearer to 2 of 4 than 0 of 4
    assert found.new_share == 0.75


def test_a_monotone_change_of_scores_is_undone_exactly():
    draw = np.random.default_rng(3)
    scores = draw.uniform(-1, 1, (50, 10))
    old, new = hits(*scores.tolist()), hits(*(scores**3 / 2 + 5).tolist())
    for threshold in (-0.7, 0.0, 0.35, 0.9):
        chosen = recalibrate(old, new, threshold).new
        assert ((scores >= threshold) == (scores**3 / 2 + 5 >= chosen)).all()


def test_with_judgements_as_many_of_those_that_pass_are_right():
    old = hits([0.9, 0.5, 0.3], [0.6, 0.4, 0.2])
    relevant = [{"p0"}, {"p0", "p2"}]
    new = hits([0.9, 0.2, 0.1], [0.8, 0.3, 0.7])
    # old: 0.9 right, 0.6 right, 0.5 wrong -> 2/3; new in order: right, right, right, wrong (3/4),
    # wrong (3/5): four may pass
    found = recalibrate(old, new, 0.45, relevant)
    assert found.old_precision == pytest.approx(2 / 3)
    assert found.new == pytest.approx((0.3 + 0.2) / 2)
    assert found.new_precision == 0.75
    worse = recalibrate(old, hits([0.1, 0.9, 0.8], [0.2, 0.7, 0.3]), 0.55, relevant)
    assert worse.old_precision == 1
    assert worse.new is None
    with pytest.raises(ConfigError, match="scores 2"):
        recalibrate(old, new, 2, relevant)


def test_no_hits_are_a_fault_of_usage():
    with pytest.raises(ConfigError, match="more queries"):
        recalibrate([[]], [[]], 0.5)
