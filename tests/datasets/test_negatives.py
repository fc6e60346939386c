"""Negatives: never an answer, never a passage of dev or test, counted to the last."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.datasets import mining
from embedtune.datasets.cross_encoder import cross_encoder_check
from embedtune.datasets.mining import mine_negatives
from embedtune.datasets.negatives import (
    Account,
    Doubt,
    Mined,
    NegativeSettings,
    attach_negatives,
    read_negatives,
    save_negatives,
    tally,
)
from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import Chunk, Pair, Query, RetrievalSet, Span
from embedtune.retrieve.order import tie_breaker
from embedtune.similar import near_duplicates, normalise


class Known:
    """An embedder that knows a vector for each text."""

    name, max_tokens = "known", 512

    def __init__(self, vectors: Mapping[str, Sequence[float]], similarity: str = "cosine") -> None:
        self.vectors, self.similarity = vectors, similarity
        self.dimension = len(next(iter(vectors.values())))

    def embed(self, texts: Sequence[str], role: str) -> np.ndarray:
        rows = [self.vectors[text] for text in texts]
        return np.array(rows, np.float32).reshape(-1, self.dimension)


def at(cosine: float) -> tuple[float, float]:
    """A vector of length 1 with that cosine to (1, 0)."""
    return cosine, float(np.sqrt(1 - cosine**2))


def chunk(id: str, text: str = "", document: str = "", start: int = 0) -> Chunk:
    text = text or id * 3
    return Chunk(id, document or id, start, start + len(text), "", text)


def of(
    chunks: Sequence[Chunk],
    queries: Sequence[Query],
    train: Mapping[str, Sequence[str]],
    **others: Mapping[str, Sequence[str]],
) -> RetrievalSet:
    qrels = {
        name: {query: dict.fromkeys(relevant, 1) for query, relevant in part.items()}
        for name, part in {"train": train, **others}.items()
    }
    return RetrievalSet("set", tuple(chunks), tuple(queries), qrels)


def mined(
    data: RetrievalSet, how: NegativeSettings | None = None, **arguments: object
) -> tuple[dict[str, Mined], Account]:
    result = mine_negatives(data, how or NegativeSettings(method="hard", count=2), **arguments)
    rows: dict[str, Mined] = {}

    def kept():
        for one in result.mined:
            rows[one.query] = one
            yield one

    return rows, tally(result, kept())


def ids(one: Mined) -> list[str]:
    return [negative.chunk for negative in one.negatives]


@pytest.fixture
def line() -> tuple[RetrievalSet, Known]:
    """One query; its answer p at a cosine of 0.8, candidates around it."""
    cosines = {"a": 0.9, "b": 0.77, "c": 0.76, "d": 0.75, "e": 0.4, "f": -0.5, "p": 0.8}
    chunks = [chunk(id) for id in cosines]
    vectors = {one.embedded: at(cosines[one.id]) for one in chunks}
    vectors["which?"] = (1.0, 0.0)
    return of(chunks, [Query("q", "which?")], {"q": ["p"]}), Known(vectors)


# ---- hard


def test_hard_negatives_are_the_best_ranked_below_95_percent_of_the_answer(line):
    data, embedder = line
    rows, account = mined(data, NegativeSettings(method="hard", count=3), embedder=embedder)
    one = rows["q"]
    # 0.95 * 0.8 = 0.76: a and b are above it, c is exactly there
    assert [(n.chunk, pytest.approx(n.score)) for n in one.negatives] == [
        ("c", 0.76), ("d", 0.75), ("e", 0.4)]  # fmt: skip
    assert (one.candidates, one.relevant, one.above) == (7, 1, 2)
    # of the three hardest, a alone scores as high as the answer
    assert (one.hardest, one.suspects) == (3, 1)
    assert account.false_negative_rate == pytest.approx(1 / 3)
    assert any("33.3%" in text for text in account.lines())


def test_skip_ceiling_and_depth_change_which_are_taken(line):
    data, embedder = line

    def taken(**how: object) -> list[str]:
        chosen = NegativeSettings(method="hard", **{"count": 2, **how})
        return ids(mined(data, chosen, embedder=embedder)[0]["q"])

    assert taken(ceiling=None) == ["a", "b"]
    assert taken(ceiling=None, skip=1) == ["b", "c"]
    assert taken(ceiling=1.0) == ["b", "c"]
    assert taken(ceiling=0.5) == ["e", "f"]
    assert taken(depth=3) == ["c"]


def test_for_answers_scored_below_0_the_ceiling_asks_for_a_distance_too():
    cosines = {"p": -0.2, "a": -0.195, "b": -0.205, "c": -0.22}
    chunks = [chunk(id) for id in cosines]
    vectors = {one.embedded: at(cosines[one.id]) for one in chunks} | {"which?": (1.0, 0.0)}
    data = of(chunks, [Query("q", "which?")], {"q": ["p"]})
    rows, _ = mined(data, embedder=Known(vectors))
    # -0.2 - 0.05 * 0.2 = -0.21; 0.95 * -0.2 = -0.19 would let all pass
    assert ids(rows["q"]) == ["c"]


def test_euclidean_negatives_are_at_least_5_percent_farther_than_the_answer():
    spots = {"p": 1.0, "a": 0.9, "b": 1.04, "c": 1.06, "d": 2.0}
    chunks = [chunk(id) for id in spots]
    vectors = {one.embedded: (spots[one.id], 0.0) for one in chunks} | {"which?": (0.0, 1e-6)}
    data = of(chunks, [Query("q", "which?")], {"q": ["p"]})
    rows, _ = mined(data, embedder=Known(vectors, "euclidean"))
    assert ids(rows["q"]) == ["c", "d"]


def test_of_several_answers_the_lowest_scored_sets_the_ceiling(line):
    data, embedder = line
    both = replace(data, qrels={"train": {"q": {"p": 1, "e": 2, "d": 0}}})
    rows, _ = mined(both, embedder=embedder)
    assert ids(rows["q"]) == ["f"]  # 0.95 * 0.4 = 0.38


def test_bm25_takes_what_shares_words_and_stays_below_the_answer():
    chunks = [chunk("p", "robot battery robot"), chunk("a", "robot arm and gate"),
              chunk("b", "fruit crates"), chunk("c", "battery of the harvester is old and heavy"),
              chunk("d", "battery battery robot robot dock")]  # fmt: skip
    data = of(chunks, [Query("q", "robot battery"), Query("r", "什么")], {"q": ["p"], "r": ["p"]})
    rows, account = mined(data, NegativeSettings(method="hard", retriever="bm25", count=2))
    assert ids(rows["q"]) == ["a", "c"]  # d beats the answer
    assert (rows["q"].above, rows["r"].negatives) == (1, ())
    assert (account.too_few, account.empty) == (1, 1)


def test_both_retrievers_are_fused_by_rank_and_the_vectors_score():
    texts = {"p": "zz", "a": "aa battery", "b": "bb", "c": "cc", "d": "dd battery", "e": "ee"}
    cosines = {"p": 0.9, "a": 0.5, "b": 0.8, "c": 0.7, "d": 0.1, "e": 0.6}
    chunks = [chunk(id, text) for id, text in texts.items()]
    vectors = {texts[id]: at(cosine) for id, cosine in cosines.items()} | {"battery": (1.0, 0.0)}
    data = of(chunks, [Query("q", "battery")], {"q": ["p"]})
    rows, _ = mined(
        data, NegativeSettings(method="hard", retriever="both", count=3), embedder=Known(vectors)
    )
    # ranks of the vectors: b c e a d; of BM25: a and d alike. Both know a and d
    assert {"a", "d"} < set(ids(rows["q"]))
    assert [n.score for n in rows["q"].negatives] == pytest.approx([0.8, 0.5, 0.1])


def test_ties_go_by_the_hash_of_the_id_whatever_the_order():
    chunks = [chunk(f"c{number}") for number in range(12)]
    vectors = {one.embedded: at(0.5) for one in chunks} | {"which?": (1.0, 0.0)}
    vectors[chunks[0].embedded] = at(0.9)
    expected = sorted((one.id for one in chunks[1:]), key=tie_breaker)[:4]
    for order in (chunks, chunks[::-1]):
        data = of(order, [Query("q", "which?")], {"q": ["c0"]})
        rows, _ = mined(data, NegativeSettings(method="hard"), embedder=Known(vectors))
        assert ids(rows["q"]) == expected


# ---- what is no negative


def test_chunks_that_overlap_the_evidence_are_no_negatives(line):
    data, embedder = line
    chunks = [replace(one, document="guide", start=10 * n, end=10 * n + 10)
              for n, one in enumerate(data.chunks)]  # a at 0, b at 10, c at 20, …  # fmt: skip
    query = Query("q", "which?", evidence=Span("guide", 25, 45))  # in c, d and e
    rows, _ = mined(of(chunks, [query], {"q": ["p"]}), embedder=embedder)
    assert ids(rows["q"]) == ["f"]
    assert rows["q"].relevant == 4


def test_what_answers_the_same_question_elsewhere_is_no_negative(line):
    data, embedder = line
    queries = [Query("q", "which?"), Query("again", "Which?  ")]
    vectors = {**embedder.vectors, "Which?  ": (1.0, 0.0)}
    data = of(data.chunks, queries, {"q": ["p"], "again": ["c"]})
    rows, _ = mined(data, embedder=Known(vectors))
    # held to their own answer, 0.8 and 0.76; of both p and c are relevant
    assert (ids(rows["q"]), ids(rows["again"])) == (["d", "e"], ["e", "f"])


def test_a_passage_that_is_the_query_itself_is_no_negative():
    texts = {"own": "how do i pay", "p": "by card", "a": "cash only", "b": "not at all"}
    chunks = [chunk(id, text) for id, text in texts.items()]
    vectors = dict(zip(texts.values(), map(at, (0.99, 0.999, 0.3, 0.2)), strict=True))
    vectors["How do I pay"] = (1.0, 0.0)
    data = of(chunks, [Query("q", "How do I pay")], {"q": ["p"]})
    rows, _ = mined(data, NegativeSettings(method="hard", count=2, ceiling=None),
                    embedder=Known(vectors))  # fmt: skip
    assert ids(rows["q"]) == ["a", "b"]


def test_equal_and_nearly_equal_passages_of_an_answer_are_dropped_and_counted():  # S06
    answer = "The robot charges at the dock every night and reports faults at once by radio."
    texts = {
        "p": answer,
        "copy": "  THE robot charges at the dock every night and reports faults at once by radio. ",
        "near": answer.replace("radio", "phone"),
        "within": f"Chapter 2. {answer} See also the next page for the fee.",
        "a": "Crates are emptied at the gate by the driver.",
        "b": "机器人每天夜里在充电桩充电。",
    }
    chunks = [chunk(id, text) for id, text in texts.items()]
    vectors = {one.embedded: at(0.9 - n / 99) for n, one in enumerate(chunks)}
    vectors["when?"] = (1.0, 0.0)
    data = of(chunks, [Query("q", "when?")], {"q": ["p"]})
    listed = [("p", "copy"), ("p", "near"), ("p", "within")]
    how = NegativeSettings(method="hard", count=2, ceiling=None)
    for pairs in (listed, []):  # whether anybody had looked for near-duplicates or not
        rows, account = mined(data, how, embedder=Known(vectors), near_duplicates=pairs)
        assert set(ids(rows["q"])) == {"a", "b"}
        # p with its copy is one candidate; the two others nearly repeat it
        assert (account.relevant, account.alike) == ((3, 0) if pairs else (1, 2))
    for method in ("random", "farthest", "given"):
        how = NegativeSettings(method=method, count=2)
        rows, _ = mined(data, how, embedder=Known(vectors), given={"q": list(texts)})
        assert set(ids(rows["q"])) == {"a", "b"}


def test_a_passage_repeated_under_many_ids_is_counted_once():  # S07
    chunks = [chunk("p", "the answer"), *(chunk(f"r{n}", f"Read  the manual{' ' * n}")
                                          for n in range(9)),
              chunk("a", "a third text"), chunk("b", "and a fourth")]  # fmt: skip
    vectors = {one.embedded: at(0.7) for one in chunks if one.id.startswith("r")}
    vectors |= {"the answer": at(0.9), "a third text": at(0.5), "and a fourth": at(0.4)}
    vectors["which?"] = (1.0, 0.0)
    data = of(chunks, [Query("q", "which?")], {"q": ["p"]})
    for method in ("hard", "farthest", "random"):
        how = NegativeSettings(method=method, count=3)
        rows, account = mined(data, how, embedder=Known(vectors))
        taken = ids(rows["q"])
        assert sorted(id[0] for id in taken) == ["a", "b", "r"]
        assert (account.passages, account.copies) == (4, 8)


# ---- what belongs to dev and test


def test_passages_of_dev_and_test_and_what_repeats_or_overlaps_them_are_not_used():
    chunks = [
        chunk("p", document="train.md"), chunk("free", document="train.md", start=500),
        chunk("nobody", document="other.md"),
        chunk("t", document="test.md"), chunk("beside", document="test.md", start=500),
        chunk("d"), chunk("again", document="third.md"), chunk("over", document="mixed.md"),
        chunk("tt", document="mixed.md", start=10), chunk("pp", document="mixed.md", start=900),
        chunk("far", document="mixed.md", start=2000),
    ]  # fmt: skip
    queries = [Query(name, f"{name}?") for name in ("q", "r", "x", "y", "z")]
    data = of(chunks, queries, {"q": ["p"], "r": ["pp"]}, dev={"x": ["d"]},
              test={"y": ["t"], "z": ["tt"]})  # fmt: skip
    how = NegativeSettings(method="random", count=1)
    # drawn without an end: every passage that may be a negative comes up
    seen = set()
    for seed in range(60):
        rows, account = mined(data, how.model_copy(update={"seed": seed}),
                              near_duplicates=[("d", "again")])  # fmt: skip
        seen |= set(ids(rows["q"]))
    # test.md is test's alone; mixed.md is train's too, so only what overlaps tt is test's
    assert seen == {"free", "nobody", "pp", "far"}
    assert account.reserved == 6  # t, beside, d, again, over, tt


def test_groups_of_the_split_go_before_documents():
    chunks = [chunk(id, document="one.pdf", start=1000 * n)
              for n, id in enumerate(("p", "a", "t", "b"))]  # fmt: skip
    data = of(chunks, [Query("q", "?q"), Query("x", "?x")], {"q": ["p"]}, test={"x": ["t"]})
    groups = {"p": "block 1", "a": "block 1", "t": "block 2", "b": "block 2"}
    rows, account = mined(data, NegativeSettings(method="random", count=1), groups=groups)
    assert (ids(rows["q"]), account.reserved) == (["a"], 2)


def test_labelled_texts_share_their_passages_and_have_no_ceiling(line):
    data, embedder = line
    data = replace(data, qrels={**data.qrels, "test": {"q": {"p": 1, "c": 1}}})
    rows, account = mined(replace(data, shared_passages=True), embedder=embedder)
    assert ids(rows["q"]) == ["a", "b"]
    assert (account.reserved, account.false_negative_rate) == (0, None)


def test_queries_that_were_left_out_get_no_negatives(line):
    data, embedder = line
    queries = [*data.queries, Query("gone", "which?")]
    data = of(data.chunks, queries, {"q": ["p"], "gone": ["e"]})
    rows, account = mined(data, embedder=embedder, left_out=["gone"])
    assert (list(rows), account.queries) == (["q"], 1)


def test_a_pair_that_was_left_out_measures_nothing_and_gives_no_negative(line):
    data, embedder = line
    data = of(data.chunks, data.queries, {"q": ["p", "c"]})
    how = NegativeSettings(method="hard", count=2, ceiling=0.95)
    assert ids(mined(data, how, embedder=embedder)[0]["q"]) == ["e", "f"]  # below 0.95 * 0.76
    rows, _ = mined(data, how, embedder=embedder, left_out_pairs=[("q", "c"), ("gone", "c")])
    assert ids(rows["q"]) == ["d", "e"]  # below 0.95 * 0.8, without c


def test_where_every_query_was_left_out_the_reason_is_told(line):
    data, embedder = line
    with pytest.raises(NothingUsable, match="each of the 1 shares its passage"):
        mined(data, embedder=embedder, left_out=["q"])


# ---- too few


@pytest.mark.parametrize("method", ["hard", "farthest", "random"])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_fewer_passages_than_negatives_asked_stop_and_say_so(method, others):  # S05
    chunks = [chunk("p"), *(chunk(f"c{n}") for n in range(others))]
    vectors = {one.embedded: at(0.1 * n) for n, one in enumerate(chunks)} | {"?": (1.0, 0.0)}
    data = of(chunks, [Query("q", "?")], {"q": ["p"]})
    how = NegativeSettings(method=method, count=3)
    with pytest.raises(NothingUsable, match=rf"count: 3 asked.* more than {others} .*lower"):
        mine_negatives(data, how, embedder=Known(vectors))


def test_who_gets_fewer_is_counted_and_never_filled_up(line):  # S05
    data, embedder = line
    how = NegativeSettings(method="hard", count=6)
    rows, account = mined(data, how, embedder=embedder)
    assert ids(rows["q"]) == ["c", "d", "e", "f"]
    assert (account.too_few, account.empty) == (1, 0)
    assert any("1 queries have fewer than 6" in text for text in account.lines())


def test_an_empty_corpus_no_train_queries_and_all_excluded_stop():
    how, embedder = NegativeSettings(method="hard", count=1), HashingEmbedder()
    asked = [Query("q", "which?")]
    for data in (
        of([], asked, {"q": ["p"]}),
        of([chunk("p", "the answer"), chunk("b", "the other")], asked, {"q": ["p", "b"]}),
        of([chunk("p", "the answer"), chunk("b", " \u3000 ")], asked, {"q": ["p"]}),
    ):
        with pytest.raises(NothingUsable, match="count: 1 asked"):
            mine_negatives(data, how, embedder=embedder)
    for data in (of([chunk("p")], asked, {}), RetrievalSet("s", (chunk("p"),), (), {})):
        with pytest.raises(NothingUsable, match="no train queries"):
            mine_negatives(data, how, embedder=embedder)


def test_equal_scores_everywhere_are_all_above_the_ceiling_and_nothing_is_written(tmp_path):
    chunks = [chunk(f"c{n}", f"text {n}") for n in range(5)]
    vectors = {one.embedded: (1.0, 1e-3 * n) for n, one in enumerate(chunks)} | {"?": (1.0, 0.0)}
    data = of(chunks, [Query("q", "?")], {"q": ["c0"]})
    how = NegativeSettings(method="hard", count=2)
    path = tmp_path / "negatives.jsonl"
    with pytest.raises(NothingUsable, match=r"no negatives: .*4 score above 0\.95"):
        save_negatives(mine_negatives(data, how, embedder=Known(vectors)), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["hard", "farthest"])
@pytest.mark.parametrize(
    ("vector", "fault"), [((1.0, 1.0), "the same"), ((np.nan, 1.0), "NaN"), ((0.0, 0.0), "zeros")]
)
def test_vectors_that_say_nothing_are_refused(method, vector, fault):
    chunks = [chunk(f"c{n}", f"text {n}") for n in range(5)]
    data = of(chunks, [Query("q", "?")], {"q": ["c0"]})
    embedder = Known({**{one.embedded: vector for one in chunks}, "?": (1.0, 0.0)})
    with pytest.raises(IntegrityError, match=f"known: .*{fault}"):
        mined(data, NegativeSettings(method=method, count=1), embedder=embedder)


def test_a_method_that_needs_vectors_says_so():
    data = of([chunk("p"), chunk("a")], [Query("q", "?")], {"q": ["p"]})
    for method in ("hard", "farthest"):
        with pytest.raises(ConfigError, match="needs an embedding model"):
            mine_negatives(data, NegativeSettings(method=method, count=1))
    with pytest.raises(ValueError, match="depth 5 leaves fewer than 4"):
        NegativeSettings(method="hard", depth=5, skip=2)


# ---- farthest, random, given


def test_farthest_gives_each_answer_its_least_similar_and_none_twice():
    rng = np.random.default_rng(3)
    chunks = [chunk(f"c{n}", f"number {n * 7919} of {n}") for n in range(40)]
    vectors = {one.embedded: rng.normal(size=8) for one in chunks}
    data = of(chunks, [Query(f"q{n}", f"?{n}") for n in range(20)],
              {f"q{n}": [f"c{n}"] for n in range(20)})  # fmt: skip
    how = NegativeSettings(method="farthest", count=1)
    rows, account = mined(data, how, embedder=Known(vectors))
    # by hand: in the order of the hash of the answer's id, the lowest cosine still free
    free, expected = {one.id for one in chunks}, {}
    unit = {one.id: vectors[one.embedded] / np.linalg.norm(vectors[one.embedded]) for one in chunks}
    for answer in sorted((f"c{n}" for n in range(20)), key=tie_breaker):
        expected[answer] = min(free - {answer}, key=lambda id: unit[id] @ unit[answer])
        free.remove(expected[answer])
    assert {f"c{query[1:]}": ids(one)[0] for query, one in rows.items()} == expected
    assert (account.negatives, account.too_few) == (20, 0)
    for query, one in rows.items():
        score = unit[one.negatives[0].chunk] @ unit[f"c{query[1:]}"]
        assert one.negatives[0].score == pytest.approx(score, abs=1e-6)


def test_farthest_in_small_blocks_is_the_same(monkeypatch):
    rng = np.random.default_rng(4)
    chunks = [chunk(f"c{n}", f"number {n * 7919} of {n}") for n in range(30)]
    data = of(chunks, [Query(f"q{n}", f"?{n}") for n in range(10)],
              {f"q{n}": [f"c{n}", f"c{n + 10}"] for n in range(10)})  # fmt: skip
    embedder = Known({one.embedded: rng.normal(size=8) for one in chunks})
    how = NegativeSettings(method="farthest", count=1)
    whole, account = mined(data, how, embedder=embedder)
    monkeypatch.setattr(mining, "SCORE_BLOCK", 90)
    monkeypatch.setattr(mining, "CHUNK_BLOCK", 7)
    assert mined(data, how, embedder=embedder) == (whole, account)


def test_farthest_runs_out_and_says_who_got_none():
    chunks = [chunk(f"c{n}", f"number {n * 7919}") for n in range(5)]
    rng = np.random.default_rng(4)
    data = of(chunks, [Query(f"q{n}", f"?{n}") for n in range(4)],
              {f"q{n}": [f"c{n}"] for n in range(4)})  # fmt: skip
    embedder = Known({one.embedded: rng.normal(size=4) for one in chunks})
    rows, account = mined(data, NegativeSettings(method="farthest", count=2), embedder=embedder)
    taken = [id for one in rows.values() for id in ids(one)]
    assert len(taken) == len(set(taken)) <= 5
    assert account.too_few >= 1


def test_random_negatives_depend_on_seed_and_query_alone():
    chunks = [chunk(f"c{n}") for n in range(50)]
    queries = [Query(f"q{n}", f"question {n}") for n in range(6)]
    train = {f"q{n}": [f"c{n}"] for n in range(6)}

    def drawn(order: Sequence[Chunk], asked: Sequence[Query], seed: int) -> dict[str, list[str]]:
        how = NegativeSettings(method="random", count=3, seed=seed)
        return {query: ids(one) for query, one in mined(of(order, asked, train), how)[0].items()}

    first = drawn(chunks, queries, 1)
    assert drawn(chunks[::-1], queries[::-1], 1) == first
    assert drawn(chunks, queries, 2) != first
    assert all(f"c{query[1:]}" not in own and len(set(own)) == 3 for query, own in first.items())


def test_given_negatives_pass_the_same_tests_and_keep_their_order(line):
    data, embedder = line
    data = of([*data.chunks, chunk("t"), chunk("copy", "  eee")],
              [*data.queries, Query("x", "else?")], {"q": ["p"]}, test={"x": ["t"]})  # fmt: skip
    offered = {"q": ["f", "e", "p", "t", "copy", "a"], "unknown": ["zz"]}
    how = NegativeSettings(method="given", count=1)
    rows, account = mined(data, how, given=offered)
    same = min("e", "copy", key=tie_breaker)  # stands for both
    assert [tuple(negative) for negative in rows["q"].negatives] == [
        ("f", None), (same, None), ("a", None)]  # fmt: skip
    assert (account.candidates, account.relevant, account.unfit) == (6, 1, 2)
    assert (account.too_few, account.empty) == (0, 0)
    vectors = {**embedder.vectors, "ttt": at(0.1)}
    vectors["  eee"] = vectors["eee"]
    rows, account = mined(data, how, given=offered, embedder=Known(vectors))
    assert ids(rows["q"]) == ["a", same, "f"]  # hardest first; a is above the ceiling, but given
    assert account.above == 1
    with pytest.raises(ConfigError, match=r"1 given negatives are not in the corpus, e\.g\. zz"):
        mine_negatives(data, how, given={"q": ["zz"]})


def test_auto_takes_what_was_given_and_mines_nothing(line):
    data, _ = line
    assert ids(mined(data, NegativeSettings(), given={"q": ["b"]})[0]["q"]) == ["b"]

    assert (
        mined(data, NegativeSettings())[0] == mined(data, NegativeSettings(method="none"))[0] == {}
    )


# ---- checks


def test_what_the_check_calls_an_answer_is_not_taken_and_is_told(line):
    data, embedder = line
    data = of([*data.chunks, chunk("c2", "CCC")], data.queries, {"q": ["p"]})  # c once more
    embedder = Known({**embedder.vectors, "CCC": embedder.vectors["ccc"]})
    doubts: list[Doubt] = []

    def check(asked: Sequence[Doubt]) -> list[frozenset[int]]:
        doubts.extend(asked)
        return [frozenset({0}) for _ in asked]

    how = NegativeSettings(method="hard", count=2, check="llm")
    rows, account = mined(data, how, embedder=embedder, check=check)
    [doubt] = doubts
    assert [one.id for one in doubt.relevant] == ["p"]
    assert [one.text.lower() for one in doubt.candidates] == ["ccc", "ddd", "eee", "fff"]
    assert (ids(rows["q"]), sorted(rows["q"].answers)) == (["d", "e"], ["c", "c2"])
    assert (account.refused, account.refused_rate) == (1, 0.25)


def test_without_an_opinion_of_the_check_nothing_is_taken(line):
    data, embedder = line
    how = NegativeSettings(method="hard", count=2, check="llm")
    rows, account = mined(data, how, embedder=embedder, check=lambda asked: [None for _ in asked])
    assert rows["q"].negatives == ()
    assert (account.unchecked, account.refused_rate) == (1, None)
    assert any("no opinion" in text for text in account.lines())


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory) -> Path:
    """A cross-encoder with random weights."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cross")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", "##a", "##b"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_labels=1,
                        num_attention_heads=2, intermediate_size=32,
                        initializer_range=1.0)  # opinions, not 0.5 for everything  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    out = tmp_path_factory.mktemp("cross-out") / "model"
    CrossEncoder(str(folder), device="cpu").save_pretrained(str(out))
    return out


def test_a_cross_encoder_calls_answer_what_it_scores_like_the_answer(tiny_cross_encoder):
    from sentence_transformers import CrossEncoder

    texts = {"p": "a b c", "r": "c b a", "x": "a b c", "y": "j i h g f", "z": "e e e e"}
    chunks = [chunk(id, text) for id, text in texts.items()]
    doubts = [
        Doubt(Query("q", "a b"), tuple(chunks[:2]), tuple(chunks[2:])),
        Doubt(Query("s", "j j"), tuple(chunks[3:4]), tuple(chunks[:2])),
        Doubt(Query("t", "d"), tuple(chunks[4:]), tuple(chunks[:4])),
    ]
    answers = cross_encoder_check(str(tiny_cross_encoder), device="cpu")(doubts)
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu")

    def probability(query: str, one: Chunk) -> float:
        logit = model.predict([(query, one.text)], activation_fn=lambda x: x)[0]
        return float(1 / (1 + np.exp(-logit)))

    for doubt, found in zip(doubts, answers, strict=True):
        lowest = min(probability(doubt.query.text, one) for one in doubt.relevant)
        assert found == {
            place
            for place, one in enumerate(doubt.candidates)
            if probability(doubt.query.text, one) >= 0.95 * lowest
        }
    assert 0 in answers[0]  # the very text of an answer
    assert sum(map(len, answers)) < 9  # and not just everything


def test_a_model_that_is_no_cross_encoder_is_named(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"negatives\.check: .*cannot be loaded"):
        cross_encoder_check(str(tmp_path / "model"))([Doubt(Query("q", "?"), (), (chunk("a"),))])


# ---- kept on disk, and attached


def test_saved_negatives_come_back_and_join_their_pairs(line, tmp_path):
    data, embedder = line
    how = NegativeSettings(method="hard", count=2, check="llm")
    result = mine_negatives(data, how, embedder=embedder, scratch=tmp_path,
                            check=lambda asked: [frozenset({1}) for _ in asked])  # fmt: skip
    path = tmp_path / "negatives.jsonl"
    account = save_negatives(result, path)
    [row] = map(json.loads, path.read_text("utf-8").splitlines())
    assert [tuple(negative.values()) for negative in row["negatives"]] == [
        ("c", pytest.approx(0.76)), ("e", pytest.approx(0.4))]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["negatives.jsonl"]
    saved = read_negatives(path)
    assert (saved.negatives["q"], saved.answers["q"]) == (("c", "e"), ("d",))
    pairs = [Pair("q", "p", "which?", "text"), Pair("r", "a", "who?", "text")]
    joined = attach_negatives(pairs, saved.negatives, data.chunks)
    texts = {one.id: one.embedded for one in data.chunks}
    assert joined[0].negatives == (("c", texts["c"]), ("e", texts["e"]))
    assert joined[1] == pairs[1]
    assert account.negatives == 2
    path.write_text('{"query": "q"}\n', "utf-8")
    with pytest.raises(IntegrityError, match=r"negatives\.jsonl:1: expected"):
        read_negatives(path)


# ---- any data

WORDS = ("robot", "battery", "gate", "fee", "crate", "机器", "电池", "夜班", "night")


@st.composite
def data_sets(draw: st.DrawFn) -> RetrievalSet:
    texts = draw(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join),
                          min_size=2, max_size=14))  # fmt: skip
    chunks = [chunk(f"c{n}", text, document=f"d{n % 3}", start=8 * n)
              for n, text in enumerate(texts)]  # fmt: skip
    queries, parts = [], {"train": {}, "dev": {}, "test": {}}
    for number in range(draw(st.integers(1, 5))):
        text = " ".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)))
        evidence = draw(st.none() | st.builds(Span, st.sampled_from(["d0", "d1"]),
                                              st.just(0), st.integers(1, 40)))  # fmt: skip
        queries.append(Query(f"q{number}", text, evidence=evidence))
        relevant = draw(st.lists(st.sampled_from(chunks), min_size=1, max_size=3))
        part = draw(st.sampled_from(["train", "train", "dev", "test"])) if number else "train"
        parts[part][f"q{number}"] = [one.id for one in relevant]
    return of(chunks, queries, **parts)


@settings(max_examples=60, deadline=None)
@given(
    data=data_sets(),
    method=st.sampled_from(["hard", "farthest", "random", "given"]),
    retriever=st.sampled_from(["dense", "bm25", "both"]),
    ceiling=st.sampled_from([None, 0.95]),
    listed=st.booleans(),
)
def test_whatever_the_data_no_negative_is_an_answer_or_of_dev_or_test(
    data, method, retriever, ceiling, listed
):
    how = NegativeSettings(method=method, retriever=retriever, count=1, ceiling=ceiling)
    pairs = near_duplicates([one.embedded for one in data.chunks]) if listed else []
    named = [(data.chunks[one].id, data.chunks[other].id) for one, other in pairs]
    everything = [one.id for one in data.chunks]
    try:
        rows, account = mined(
            data, how, embedder=HashingEmbedder(16), near_duplicates=named,
            given={query.id: everything for query in data.queries},
        )  # fmt: skip
    except NothingUsable:
        return
    texts = {one.id: normalise(one.embedded) for one in data.chunks}
    held = {id for part in ("dev", "test") for grades in data.qrels[part].values() for id in grades}
    asked = {query.id: query for query in data.queries}
    for id, one in rows.items():
        answers = {texts[chunk] for query, text in asked.items()
                   if normalise(text.text) == normalise(asked[id].text)
                   for part in data.qrels.values() for chunk in part.get(query, ())}  # fmt: skip
        taken = [texts[chunk] for chunk in ids(one)]
        assert len(taken) == len(set(taken))
        assert answers.isdisjoint(taken)
        own = [texts[chunk] for chunk in data.qrels["train"][id]]
        assert not any(near_duplicates([text, answer]) for text in taken for answer in own)
        assert {texts[chunk] for chunk in held}.isdisjoint(taken)
        assert normalise(asked[id].text) not in taken
        spans = asked[id].spans
        for other in data.chunks:
            if other.id in ids(one):
                assert not any(other.span.overlap(span) for span in spans)
        fates = (len(one.negatives) + one.relevant + one.alike + one.unfit + one.skipped
                 + one.refused + (one.above if method != "given" else 0))  # fmt: skip
        assert fates <= one.candidates
    assert account.negatives == sum(len(one.negatives) for one in rows.values())
