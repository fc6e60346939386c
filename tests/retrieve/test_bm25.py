"""BM25: terms of both languages, scores, ties."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedtune.records import Chunk
from embedtune.retrieve.bm25 import BM25, term, terms, words
from embedtune.retrieve.order import tie_breaker


def chunk(id: str, text: str, title: str = "") -> Chunk:
    return Chunk(id, "d", 0, len(text), title, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The 10-K of NVIDIA's", ["the", "10", "k", "of", "nvidia", "s"]),
        ("ＧＰＵ ３０", ["gpu", "30"]),
        ("证券法", ["证", "券", "法", "证券", "券法"]),
        ("买A股", ["买", "a", "股"]),
        ("snake_case café", ["snake", "case", "café"]),
        ("  \n…", []),
    ],
)
def test_words_are_also_numbers_and_chinese_characters_with_their_pairs(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Charging batteries", ["charg", "batteri"]),
        ("charged the battery", ["charg", "the", "batteri"]),
        ("B12s cafés 10ths", ["b12s", "cafés", "10ths"]),  # not words of English letters alone
        ("买ETFs", ["买", "etf"]),
        ("证券法", ["证", "券", "法", "证券", "券法"]),
    ],
)
def test_terms_are_the_stems_of_english_words(text, expected):
    assert terms(text) == expected


def test_a_question_in_the_singular_finds_the_passage_in_the_plural(tmp_path):
    retriever = BM25([chunk("a", "Leases of warehouses"), chunk("b", "The gate is open")])
    retriever.save(tmp_path / "words.npz")
    for found in (retriever, BM25.load(tmp_path / "words.npz", ["a", "b"])):
        [[hit]] = found.search(["leasing a warehouse"], 5)
        assert hit.chunk == "a"


def test_threads_find_the_same_stems():
    ends = ("e", "es", "ed", "ing", "er", "ers", "ement", "ational", "iveness", "fully")
    every = [start + end for start in ("charg", "leas", "pump", "drov") for end in ends]
    alone = list(map(term, every))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                term.cache_clear()
                assert list(pool.map(term, every * 4)) == alone * 4
    finally:
        sys.setswitchinterval(interval)


def test_scores_are_lucenes_formula():
    retriever = BM25([chunk("a", "red red blue"), chunk("b", "green"), chunk("c", "blue")])
    [[hit]] = retriever.search(["red"], 5)
    # idf = ln(1 + (N - n + 0.5) / (n + 0.5)); tf = f / (f + k1 (1 - b + b * length / average))
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    tf = 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / (5 / 3)))
    assert hit.chunk == "a"
    assert hit.score == pytest.approx(idf * tf, abs=1e-5)


def test_only_chunks_that_share_a_term_are_returned():
    retriever = BM25([chunk("a", "red"), chunk("b", "blue"), chunk("c", "red wine")])
    [hits, nothing, empty] = retriever.search(["RED", "purple", ""], 10)
    assert {hit.chunk for hit in hits} == {"a", "c"}
    assert nothing == empty == []


def test_equal_scores_are_ordered_by_the_id_not_the_position():
    ids = [f"c{i}" for i in range(30)]
    for order in (ids, ids[::-1]):
        [hits] = BM25([chunk(id, "same words") for id in order]).search(["words"], 7)
        assert [hit.chunk for hit in hits] == sorted(ids, key=tie_breaker)[:7]


def test_scores_of_all_chunks_can_be_asked_for_and_cut_to_the_best():
    retriever = BM25([chunk(f"c{n}", f"word{n} " + "red " * (n % 3)) for n in range(20)])
    scores = retriever.scores("red")
    assert (scores > 0).tolist() == [n % 3 > 0 for n in range(20)]
    [hits] = retriever.search(["red"], 9)
    best = retriever.best(scores, 9)
    assert [f"c{row}" for row in best] == [hit.chunk for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-6)
    scores[best] = 0  # what is taken out is not found
    assert set(best).isdisjoint(retriever.best(scores, 9))
    assert (retriever.scores("purple") == 0).all()


def test_the_title_is_searched_too_and_chinese_is_found():
    retriever = BM25([chunk("a", "内容甲", "第一章 总则"), chunk("b", "内容乙", "附则")])
    [hits] = retriever.search(["总则是什么？"], 5)
    assert [hit.chunk for hit in hits] == ["a", "b"]  # b shares one character


def test_a_corpus_without_any_term_finds_nothing():
    assert BM25([chunk("a", "…"), chunk("b", "!!")]).search(["anything"], 3) == [[]]
