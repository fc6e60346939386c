"""An index: brought up to date without embedding twice, searched in three ways, from threads."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError
from embedtune.records import Chunk
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.dense import DenseRetriever
from embedtune.retrieve.disk import DiskStore
from embedtune.retrieve.fusion import FusedRetriever, Fusion
from embedtune.retrieve.index import Index, check_same, keep_words, prepare, same_model, update
from embedtune.retrieve.rerank import ScriptedReranker

TEXTS = [
    "Night shifts are paid by the plant that orders them, at time and a half.",
    "The charger must be unplugged before the battery is taken out.",
    "Claims for lost luggage are made at the counter within seven days.",
    "A visitor badge is valid for one day and is returned at the gate.",
    "Meeting rooms are booked in the calendar; unused bookings lapse.",
    "The pump stops when the water level falls below the lower mark.",
    "夜班津贴由下达任务的车间支付，按一点五倍计算。",
    "取出电池之前必须先拔下充电器。",
    "行李遗失须在七日内到柜台登记。",
    "访客证当日有效，离开时在门口交还。",
    "会议室在日历中预订，未使用的预订自动失效。",
    "水位低于下限时水泵自动停止。",
]
QUERIES = [
    "who pays for night shifts?",
    "夜班津贴由谁支付",
    "battery charger",
    "水泵何时停止",
    "lost luggage claims",
]


def passage(id: str, text: str, **more: object) -> Chunk:
    return Chunk(id, "d1", 0, len(text), "", text, **more)


PASSAGES = [passage(f"p{number}", text) for number, text in enumerate(TEXTS)]


class Counting(HashingEmbedder):
    """Remembers what it was asked for; fails where it is told to."""

    def __init__(self, dimension: int = 64, name: str = "") -> None:
        super().__init__(dimension)
        self.name = name or self.name
        self.texts: list[str] = []
        self.fails_after: int | None = None

    def embed(self, texts, role):
        if self.fails_after is not None and len(self.texts) >= self.fails_after:
            raise KeyboardInterrupt
        self.texts += texts
        return super().embed(texts, role)


def filled(folder, passages=PASSAGES, **told) -> DiskStore:
    store = DiskStore(folder)
    embedder = Counting()
    prepare(store, embedder, source="hashing:64", **told)
    update(store, passages, embedder)
    store.close()
    return store


def flat(rows):
    return [[(found.chunk.id, found.score) for found in row] for row in rows]


def hits(rows):
    return [[tuple(hit) for hit in row] for row in rows]


@pytest.mark.parametrize("kept", [False, True])
def test_each_way_to_search_is_that_of_its_retriever(tmp_path, kept):
    store = filled(tmp_path / "index", weight=0.3)
    if kept:
        keep_words(store)
        store.close()
        assert list((tmp_path / "index").glob("bm25-*"))
    dense, words = DenseRetriever(HashingEmbedder(64), PASSAGES), BM25(PASSAGES)
    both = FusedRetriever([dense, words], Fusion(weight=0.3))
    with Index.open(tmp_path / "index") as index:
        for how, retriever in (("dense", dense), ("bm25", words), ("hybrid", both)):
            assert flat(index.search(QUERIES, 4, how)) == hits(retriever.search(QUERIES, 4)), how
        best = [row[0].chunk.text for row in index.search(QUERIES, 1)]
    assert best == [TEXTS[0], TEXTS[6], TEXTS[1], TEXTS[11], TEXTS[2]]


@pytest.mark.parametrize("how", ["dense", "bm25", "hybrid"])
def test_auto_is_what_the_index_says(tmp_path, how):
    filled(tmp_path / "index", how=how)
    index = Index.open(tmp_path / "index")
    assert index.info.how == how
    assert flat(index.search(QUERIES, 5)) == flat(index.search(QUERIES, 5, how))
    others = {"dense", "bm25", "hybrid"} - {how}
    assert all(flat(index.search(QUERIES, 5)) != flat(index.search(QUERIES, 5, o)) for o in others)


def test_what_a_run_said_stays_until_another_says_otherwise(tmp_path):
    store = filled(tmp_path / "index", how="dense", weight=0.8)
    info = prepare(store, Counting(), source="elsewhere")
    assert (info.how, info.weight, info.source) == ("dense", 0.8, "elsewhere")
    prepare(store, Counting(), source="elsewhere", how="bm25")
    store.close()
    assert DiskStore(tmp_path / "index").info() == replace(info, how="bm25")


def test_only_new_texts_are_embedded(tmp_path):
    store = filled(tmp_path / "index")
    embedder = Counting()
    again = update(store, PASSAGES, embedder)
    assert (again.added, again.changed, again.removed, again.unchanged) == (0, 0, 0, 12)
    assert embedder.texts == []

    changed = [
        *PASSAGES[2:10],
        replace(PASSAGES[10], page=3),  # the same text
        passage("p11", "水位高于上限时报警。"),
        passage("moved", TEXTS[0]),  # the text of p0 under another id, as in an edited document
        passage("new", "The alarm rings when the level is above the upper mark."),
    ]
    done = update(store, changed, embedder)
    assert (done.added, done.changed, done.removed, done.unchanged) == (2, 2, 2, 8)
    assert sorted(embedder.texts) == sorted([changed[-3].text, changed[-1].text])
    assert done.embedded == 2
    store.close()

    fresh = filled(tmp_path / "fresh", changed)
    assert DiskStore(tmp_path / "index").digests() == fresh.digests()
    ids = sorted(fresh.digests())
    assert np.array_equal(DiskStore(tmp_path / "index").vectors(ids), fresh.vectors(ids))


def test_texts_that_change_places_keep_their_own_vectors(tmp_path):
    store = filled(tmp_path / "index")
    turned = [replace(PASSAGES[0], text=TEXTS[1]), replace(PASSAGES[1], text=TEXTS[0])]
    update(store, [*turned, *PASSAGES[2:]], Counting())
    expected = HashingEmbedder(64).embed([TEXTS[1], TEXTS[0]], "document")
    assert np.array_equal(store.vectors(["p0", "p1"]), expected)
    store.close()


def test_what_was_embedded_before_a_stop_is_kept(tmp_path):
    many = [passage(f"m{number}", f"rule {number} of the house") for number in range(700)]
    store, embedder = DiskStore(tmp_path / "index"), Counting()
    embedder.fails_after = 512
    prepare(store, embedder, source="hashing:64")
    with pytest.raises(KeyboardInterrupt):
        update(store, many, embedder)
    store.close()
    assert len(DiskStore(tmp_path / "index").digests()) == 512
    embedder.fails_after = None
    done = update(store, many, embedder)
    assert (done.added, done.unchanged, done.embedded) == (188, 512, 188)
    assert sorted(embedder.texts) == sorted(chunk.text for chunk in many)
    store.close()


def test_the_order_of_the_passages_changes_nothing(tmp_path):
    filled(tmp_path / "one")
    filled(tmp_path / "other", PASSAGES[::-1])
    for file in ("vectors-000001.npy", "passages-000001.jsonl", "index.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_two_passages_of_one_id_are_refused(tmp_path):
    store = filled(tmp_path / "index")
    with pytest.raises(IntegrityError, match="p0"):
        update(store, [*PASSAGES, passage("p0", "another")], Counting())
    assert update(store, [*PASSAGES, PASSAGES[0]], Counting()).unchanged == 12


def test_another_model_is_refused_with_both_names(tmp_path):
    store = filled(tmp_path / "index")
    with pytest.raises(IntegrityError, match=r"hashing-64.* hashing-128.*--model"):
        Index.open(tmp_path / "index", HashingEmbedder(128))
    with pytest.raises(IntegrityError, match=r"hashing-64.* hashing-128.*--fresh"):
        prepare(store, HashingEmbedder(128), source="hashing:128")
    check_same(store, HashingEmbedder(64))
    prepare(store, HashingEmbedder(128), source="hashing:128", fresh=True)
    store.close()
    assert DiskStore(tmp_path / "index").info().dimension == 128


def test_a_renamed_model_folder_is_the_same_model():
    assert same_model("model@0123456789abcdef", "prod@0123456789abcdef")
    assert not same_model("model@0123456789abcdef", "model@0123456789abcdee")
    assert not same_model("model@0123456789abcdef bf16", "model@0123456789abcdef")
    assert not same_model("text-embedding-3@eu", "text-embedding-4@eu")


@pytest.mark.model
def test_a_moved_model_is_found_where_it_is_now(tmp_path, tiny_model):
    from embedtune.embed.opening import open_embedder

    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, tmp_path / "first")
    store, embedder = DiskStore(tmp_path / "index"), open_embedder(str(tmp_path / "first"))
    prepare(store, embedder, source=str(tmp_path / "first"))
    update(store, PASSAGES[:6], embedder)
    store.close()
    (tmp_path / "first").rename(moved)
    with pytest.raises(ConfigError, match="--model"):
        Index.open(tmp_path / "index")
    index = Index.open(tmp_path / "index", open_embedder(str(moved)))
    assert index.search([TEXTS[3]], 1, "dense")[0][0].chunk == PASSAGES[3]
    config = moved / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_eps": 1e-3}))
    with pytest.raises(IntegrityError, match="first@"):
        Index.open(tmp_path / "index", open_embedder(str(moved)))


@pytest.mark.parametrize(
    ("queries", "said"), [([""], "the query is empty"), (["  \n"], "the query is empty"),
                          (["a", "　"], "query 2 of 2 is empty")],
)  # fmt: skip
def test_an_empty_query_is_refused(tmp_path, queries, said):
    index = Index.open(filled(tmp_path / "index").folder)
    with pytest.raises(ConfigError, match=said):
        index.search(queries, 3)


def test_odd_searches(tmp_path):
    index = Index.open(filled(tmp_path / "index").folder)
    assert index.search([], 3) == []
    with pytest.raises(ConfigError, match="'best'"):
        index.search(["a"], 3, "best")
    assert index.search(["zzz"], 3, "bm25") == [[]]
    for how in ("dense", "hybrid"):
        assert len(index.search(["battery"], 1000, how)[0]) == 12
    empty = Index.open(filled(tmp_path / "empty", []).folder)
    for how in ("dense", "bm25", "hybrid"):
        assert empty.search(["battery"], 3, how) == [[]]
    with pytest.raises(ConfigError, match="holds no index"):
        Index.open(tmp_path / "none")


def test_a_reranker_has_the_last_word_among_the_first(tmp_path):
    index = Index.open(filled(tmp_path / "index").folder)
    query = "battery charger"
    first = [found.chunk for found in index.search([query], 4)[0]]
    reranker = ScriptedReranker({(query, first[2].embedded): 3.0, (query, first[3].embedded): 9.0})
    [found] = index.search([query], 2, reranker=reranker, depth=3)
    assert (found[0].chunk, found[0].score) == (first[2], 3.0)
    assert found[1].chunk in first[:2]
    [found] = index.search([query], 2, reranker=reranker, depth=4)
    assert [row.chunk for row in found] == [first[3], first[2]]


def test_threads_get_their_own_answers(tmp_path):
    many = [passage(f"m{number}", f"rule{number} of house{number % 7}") for number in range(400)]
    index = Index.open(filled(tmp_path / "index", many).folder)
    queries = [f"rule{number} of house{number % 7}" for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda query: index.search([query], 1)[0][0].chunk.text, queries))
    assert found == queries
