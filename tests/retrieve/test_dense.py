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
    nearest_at,
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
        queries, chunks = (  # only zeros: a score of 0
            some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-30)
            for some in (queries, chunks)
        )
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
    monkeypatch.setattr(dense, "QUERY_BLOCK", 6)
    monkeypatch.setattr(dense, "TILE", 4)


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
    monkeypatch.setattr(dense, "TILE", 16)
    angles = np.linspace(1.5, 0, 200)
    chunks = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[1, 0]], np.float32)
    found = nearest(query, chunks, [f"c{i}" for i in range(200)], 3)
    assert found.indices.tolist() == [[199, 198, 197]]


def degenerate() -> tuple[np.ndarray, np.ndarray]:
    """Equal vectors, multiples, zero columns in front and behind, tiny and huge lengths."""
    queries, chunks = vectors(11, 24, 1), vectors(150, 24, 2)
    chunks[20:50] = chunks[7]
    chunks[50:60] = 3 * chunks[7]
    chunks[60:75, 9:] = 0
    chunks[75:90, :9] = 0
    chunks[90:100] *= 1e-3
    chunks[100:110] *= 50
    queries[0] = chunks[7]
    queries[1, :9] = 0
    queries[2, 9:] = 0
    queries[3] = -chunks[7]
    return queries, chunks


EDGES = (24, 5, 9, 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("k", [1, 6, 33, 150])
@pytest.mark.parametrize("draw", [degenerate, lambda: (vectors(9, 24, 5), vectors(97, 24, 6))])
def test_all_dimensions_in_one_pass_are_those_one_by_one(similarity, k, draw):
    queries, chunks = draw()
    ids = [f"c{i}" for i in range(len(chunks))]
    without = [np.arange(row, len(chunks), 7 + row) for row in range(len(queries))]
    for barred in (None, without):
        together = nearest_at(queries, chunks, ids, k, EDGES, similarity=similarity, without=barred)
        assert sorted(together) == sorted(EDGES)
        for edge, found in together.items():
            alone = nearest(
                queries, chunks, ids, k, similarity=similarity, dimension=edge, without=barred
            )
            assert np.array_equal(found.indices, alone.indices)
            assert np.allclose(found.scores, alone.scores, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("k", [1, 6, 33])
def test_every_dimension_is_what_brute_force_finds(similarity, k):
    queries, chunks = degenerate()
    ids = [f"c{i}" for i in range(len(chunks))]
    for edge, found in nearest_at(queries, chunks, ids, k, EDGES, similarity=similarity).items():
        assert found.indices.tolist() == brute_force(queries, chunks, ids, k, similarity, edge)


def test_blocks_of_the_usual_size_find_what_brute_force_finds():
    queries, chunks = vectors(530, 40, 1), vectors(1100, 40, 2)
    ids = [f"c{i}" for i in range(1100)]
    for edge, found in nearest_at(queries, chunks, ids, 3, (8, 40)).items():
        assert found.indices.tolist() == brute_force(queries, chunks, ids, 3, "cosine", edge)


def test_distances_are_exact_for_vectors_far_from_the_origin():
    # squares near 360,000, squared distances near 1,700: float32 cannot part neighbours there
    queries, chunks = 30 + 1.5 * vectors(20, 384, 1), 30 + 1.5 * vectors(800, 384, 2)
    ids = [f"c{i}" for i in range(800)]
    found = nearest(queries, chunks, ids, 10, similarity="euclidean")
    assert found.indices.tolist() == brute_force(queries, chunks, ids, 10, "euclidean")


@pytest.mark.usefixtures("small_blocks")
def test_a_memory_map_is_searched_as_what_it_holds(tmp_path):
    queries, chunks = vectors(5, 12, 1), vectors(70, 12, 2)
    file = tmp_path / "vectors"
    chunks.tofile(file)
    mapped = np.memmap(file, np.float32, mode="r", shape=chunks.shape)
    ids = [f"c{i}" for i in range(70)]
    in_memory = nearest_at(queries, chunks, ids, 4, (6, 12))
    for edge, found in nearest_at(queries, mapped, ids, 4, (6, 12)).items():
        assert np.array_equal(found.indices, in_memory[edge].indices)
        assert np.array_equal(found.scores, in_memory[edge].scores)


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
