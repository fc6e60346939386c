"""Exact search: against brute force, with ties, damaged vectors and small corpora."""

from pathlib import Path

import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import IntegrityError, ResourceError
from embedtune.records import Chunk
from embedtune.retrieve import dense
from embedtune.retrieve.dense import (
    DenseRetriever,
    check_vectors,
    nearest,
    pair_scores,
    scales_of,
    similarities,
    vectors_on_disk,
)
from embedtune.retrieve.order import tie_breaker


def vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def brute_force(queries, chunks, ids, k, similarity, dimension=None):
    queries = queries[:, :dimension].astype(np.float64)
    chunks = chunks[:, :dimension].astype(np.float64)
    if similarity == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        chunks = chunks / np.linalg.norm(chunks, axis=1, keepdims=True)
    if similarity == "euclidean":
        scores = -np.linalg.norm(queries[:, None] - chunks[None], axis=2)
    else:
        scores = queries @ chunks.T
    scores = scores.round(9)
    return [
        sorted(range(len(ids)), key=lambda i: (-row[i], tie_breaker(ids[i])))[:k] for row in scores
    ]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "CHUNK_BLOCK", 16)
    monkeypatch.setattr(dense, "QUERY_BLOCK", 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dimension", [None, 5])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_blocks_find_what_brute_force_finds(similarity, dimension, k):
    queries, chunks = vectors(10, 12, 1), vectors(101, 12, 2) * 3
    chunks[50:60] = chunks[7]  # ties over several blocks
    ids = [f"c{i}" for i in range(101)]
    found = nearest(queries, chunks, ids, k, similarity=similarity, dimension=dimension)
    expected = brute_force(queries, chunks, ids, k, similarity, dimension)
    assert found.indices.tolist() == expected
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.usefixtures("small_blocks")
def test_position_never_wins_a_tie():
    chunks = vectors(64, 8, 3)
    chunks[:] = chunks[0] + 0  # all equal
    chunks[63] = -chunks[0]
    ids = [f"c{i}" for i in range(64)]
    query = chunks[:1]
    best = {ids[i] for i in nearest(query, chunks, ids, 5).indices[0]}
    order = np.random.default_rng(0).permutation(64)
    shuffled = [ids[i] for i in order]
    again = nearest(query, chunks[order], shuffled, 5).indices[0]
    assert {shuffled[i] for i in again} == best
    assert best == set(sorted(ids[:63], key=tie_breaker)[:5])


def test_k_above_the_corpus_is_cut_to_it():
    found = nearest(vectors(2, 4, 1), vectors(3, 4, 2), ["a", "b", "c"], 10)
    assert found.indices.shape == (2, 3)
    assert sorted(found.indices[0]) == [0, 1, 2]


def test_no_queries_and_no_chunks_give_nothing():
    assert nearest(vectors(0, 4, 1), vectors(3, 4, 2), ["a", "b", "c"], 2).indices.shape == (0, 2)
    assert nearest(vectors(2, 4, 1), vectors(0, 4, 2), [], 2).indices.shape == (2, 0)


def test_cosine_ignores_length_and_dot_does_not():
    chunks = np.array([[1, 0], [10, 1]], dtype=np.float32)
    query = np.array([[1, 0]], dtype=np.float32)
    assert nearest(query, chunks, ["a", "b"], 1, similarity="cosine").indices.item() == 0
    assert nearest(query, chunks, ["a", "b"], 1, similarity="dot").indices.item() == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v.__setitem__((1, 0), np.nan), "NaN.*second text"),
        (lambda v: v.__setitem__((1, 0), np.inf), "NaN or infinite"),
        (lambda v: v.__setitem__(1, 0), "only zeros"),
        (lambda v: v.__setitem__(slice(None), v[0].copy()), "all 3 vectors are the same"),
    ],
)
def test_vectors_nobody_can_search_with_are_refused_by_name(damage, message):
    bad = vectors(3, 4, 1)
    damage(bad)
    with pytest.raises(IntegrityError, match=f"my model.*{message}"):
        check_vectors(bad, ["first text", "second text", "third"], "my model")


def test_equal_texts_may_have_equal_vectors():
    check_vectors(np.ones((3, 4), np.float32), ["same", "same", "same"], "m")


def test_retriever_finds_the_chunk_that_shares_words():
    chunks = [
        Chunk("a", "d", 0, 1, "", "The battery is charged overnight"),
        Chunk("b", "d", 0, 1, "", "保护投资者的合法权益"),
        Chunk("c", "d", 0, 1, "", "Invoices are paid within thirty days"),
    ]
    retriever = DenseRetriever(HashingEmbedder(), chunks)
    hits = retriever.search(["invoices paid when", "投资者的权益"], 2)
    assert [row[0].chunk for row in hits] == ["c", "b"]
    assert all(len(row) == 2 for row in hits)


def test_collapsed_vectors_pass_only_when_allowed():
    same = np.ones((3, 4), np.float32)
    with pytest.raises(IntegrityError, match="collapsed"):
        check_vectors(same, ["a", "b", "c"], "m")
    check_vectors(same, ["a", "b", "c"], "m", allow_collapsed=True)
    with pytest.raises(IntegrityError, match="NaN"):
        check_vectors(same * np.nan, ["a", "b", "c"], "m", allow_collapsed=True)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_what_a_query_must_not_be_given_is_left_out(similarity):
    queries, chunks = vectors(7, 12, 1), vectors(60, 12, 2)
    ids = [f"c{i}" for i in range(60)]
    draw = np.random.default_rng(4)
    without = [np.sort(draw.choice(60, size, replace=False)) for size in (0, 1, 5, 30, 56, 60, 3)]
    found = nearest(queries, chunks, ids, 5, similarity=similarity, without=without)
    everything = brute_force(queries, chunks, ids, 60, similarity)
    for row, (order, barred) in enumerate(zip(everything, without, strict=True)):
        left = [column for column in order if column not in barred][:5]
        assert found.indices[row].tolist() == left + [-1] * (5 - len(left))
        assert np.isneginf(found.scores[row][len(left) :]).all()
        assert np.isfinite(found.scores[row][: len(left)]).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_pairs_have_the_scores_that_the_search_gives(similarity):
    queries, chunks = vectors(4, 12, 1), vectors(9, 12, 2) * 3
    found = nearest(queries, chunks, [f"c{i}" for i in range(9)], 9, similarity=similarity)
    rows = np.repeat(np.arange(4), 9)
    scores = pair_scores(queries, chunks, rows, found.indices.ravel(), similarity)
    assert scores.tolist() == found.scores.ravel().tolist()
    everything = similarities(queries, chunks, similarity, scales=scales_of(chunks, similarity))
    exact = found.scores if similarity != "euclidean" else -np.square(found.scores)
    assert np.take_along_axis(everything, found.indices, 1) == pytest.approx(exact, rel=1e-4)


def test_chunks_sorted_from_worst_to_best_are_searched_as_any_other(monkeypatch):
    monkeypatch.setattr(dense, "CHUNK_BLOCK", 16)
    angles = np.linspace(1.5, 0, 200)
    chunks = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[1, 0]], np.float32)
    found = nearest(query, chunks, [f"c{i}" for i in range(200)], 3)
    assert found.indices.tolist() == [[199, 198, 197]]


def test_vectors_on_disk_are_those_in_memory_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK_BLOCK", 4)
    texts = [f"text {number}" for number in range(11)]
    embedder = HashingEmbedder(16)
    found = vectors_on_disk(embedder, iter(texts), "document", folder=tmp_path)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, embedder.embed(texts, "document"))
    assert list(tmp_path.iterdir()) == []
    assert vectors_on_disk(embedder, [], "document").shape == (0, 16)


def test_vectors_on_disk_are_checked(tmp_path):
    class Broken(HashingEmbedder):
        def embed(self, texts, role):
            return np.full((len(texts), 16), np.nan, np.float32)

    with pytest.raises(IntegrityError, match="NaN"):
        vectors_on_disk(Broken(16), ["a", "b"], "document", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(dir):
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(dense.tempfile, "TemporaryFile", full)
    with pytest.raises(ResourceError, match=r"cannot write: .*free some space"):
        vectors_on_disk(HashingEmbedder(4096), ["a"] * 20, "document", folder=tmp_path)
