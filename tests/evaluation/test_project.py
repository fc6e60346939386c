"""The map: the same points before and after, and figures that a picture cannot give."""

import json
import sys

import numpy as np
import pytest

from embedtune.evaluation import project as module
from embedtune.evaluation.encoded import Answers, Encoded
from embedtune.evaluation.project import project
from embedtune.records import Chunk, Query

RNG = np.random.default_rng(11)
FAMILIES = np.eye(3)[:, :, None] * np.ones(4)  # three directions in 12 dimensions
CENTRES = FAMILIES.reshape(3, 12)


def system(vectors, queries, name="base", similarity="cosine"):
    rows = np.asarray(vectors, np.float32)
    return Encoded(
        name, similarity, rows[: len(rows) - queries], rows[len(rows) - queries :], (12,)
    )


def planted(chunks=45, queries=15):
    """Vectors around three centres, as many documents, and each query beside its answer."""
    family = np.arange(chunks) % 3
    rows = CENTRES[family] + 0.2 * RNG.normal(size=(chunks, 12))
    asked = rows[:queries] + 0.05 * RNG.normal(size=(queries, 12))
    records = {
        f"c{row}": Chunk(f"c{row}", f"d{family[row]}", 0, 9, "Title", f"Passage {row}")
        for row in range(chunks)
    }
    own = tuple(Query(f"q{place}", f"Question {place}") for place in range(queries))
    answers = Answers(
        split="test",
        ids=tuple(records),
        queries=own,
        judgements={f"q{place}": {f"c{place}": 1} for place in range(queries)},
        groups={query.id: query.id for query in own},
        relevant=tuple({place: (f"c{place}",)} for place in range(queries)),
        masked=tuple(np.array([place]) for place in range(queries)),
    )
    return np.vstack([rows, asked]), answers, records


def turned(vectors):
    rotation, _ = np.linalg.qr(RNG.normal(size=(12, 12)))
    return vectors @ rotation


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_one_map_of_the_same_points_before_and_after(method):
    vectors, answers, chunks = planted()
    after = vectors + 0.1 * RNG.normal(size=vectors.shape)
    systems = [system(vectors, 15), system(after, 15, "tuned")]
    drawn = project(systems, answers, chunks, method=method, seed=1)
    assert (drawn.method, drawn.notice, drawn.neighbours) == (method, "", 10)
    assert [layout.system for layout in drawn.layouts] == ["base", "tuned"]
    assert [point.kind for point in drawn.points] == ["chunk"] * 45 + ["query"] * 15
    assert drawn.points[0].hover == "Title: Passage 0"
    assert drawn.points[46] == drawn.points[46].__class__("q1", "query", "d1", "Question 1")
    assert drawn.colours == ("d0", "d1", "d2")
    for layout in drawn.layouts:
        assert len(layout.places) == 60
        assert layout.trustworthiness > 0.8
        # families lie apart on the map too
        centres = [
            np.mean([layout.places[n] for n, o in enumerate(drawn.points) if o.colour == c], 0)
            for c in drawn.colours
        ]
        nearest = [
            drawn.colours[int(np.argmin([np.linalg.norm(np.subtract(place, c)) for c in centres]))]
            for place in layout.places
        ]
        assert nearest == [point.colour for point in drawn.points]
    json.dumps(drawn.as_json(), allow_nan=False)
    assert project(systems, answers, chunks, method=method, seed=1) == drawn


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_the_figures_are_those_of_the_definitions(similarity):
    vectors, answers, chunks = planted()
    vectors *= RNG.uniform(0.5, 2, size=(60, 1))
    other = vectors + 0.3 * RNG.normal(size=vectors.shape)
    systems = [system(v, 15, n, similarity) for v, n in ((vectors, "base"), (other, "tuned"))]
    drawn = project(systems, answers, chunks, method="pca", seed=1)
    k, n, spaces = 10, 60, []
    for layout, space in zip(drawn.layouts, (vectors, other), strict=True):
        if similarity != "euclidean":
            space = space / np.linalg.norm(space, axis=1, keepdims=True)
        true, flat = distances(space), distances(np.array(layout.places))
        spaces.append(true)
        rank = true.argsort(1).argsort(1)  # 0 is the point itself
        near, shown = true.argsort(1)[:, 1 : k + 1], flat.argsort(1)[:, 1 : k + 1]
        strange = sum(rank[i, j] - k for i in range(n) for j in shown[i] if j not in near[i])
        trust = 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * strange
        assert layout.trustworthiness == pytest.approx(trust, abs=2e-3)  # places are rounded
        common = np.mean([len(set(a) & set(b)) / k for a, b in zip(near, shown, strict=True)])
        assert layout.preserved == pytest.approx(common, abs=5e-3)
        apart = true if similarity == "euclidean" else true**2 / 2
        assert layout.silhouette == pytest.approx(silhouette(apart[:45, :45], np.arange(45) % 3))
    both = [true.argsort(1)[:, 1 : k + 1] for true in spaces]
    kept = np.mean([len(set(a) & set(b)) / k for a, b in zip(*both, strict=True)])
    assert drawn.kept == pytest.approx(kept)


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def silhouette(apart, labels):
    values = []
    for row, own in enumerate(labels):
        means = {
            label: apart[row][(labels == label) & (np.arange(len(labels)) != row)].mean()
            for label in set(labels.tolist())
        }
        a, b = means[own], min(mean for label, mean in means.items() if label != own)
        values.append((b - a) / max(a, b))
    return np.mean(values)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_space_that_was_only_turned_lies_where_it_lay(method):
    vectors, answers, chunks = planted()
    systems = [system(vectors, 15), system(turned(vectors), 15, "tuned")]
    drawn = project(systems, answers, chunks, method=method, seed=1)
    assert drawn.kept == 1
    before, after = (np.array(layout.places) for layout in drawn.layouts)
    moved = np.linalg.norm(before - after, axis=1)
    assert np.median(moved) < (1e-3 if method == "pca" else 0.25 * before.std())


def test_few_points_or_a_collapsed_model_give_a_plain_projection():
    vectors, answers, chunks = planted(12, 4)
    few = project([system(vectors, 4)], answers, chunks, seed=1)
    assert (few.method, few.notice, few.kept) == ("pca", "few-points", None)
    vectors, answers, chunks = planted()
    flat = project([system(np.ones_like(vectors), 15)], answers, chunks, seed=1)
    assert (flat.method, flat.notice) == ("pca", "few-points")
    assert set(flat.layouts[0].places) == {(0.0, 0.0)}
    json.dumps(flat.as_json(), allow_nan=False)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_next_to_nothing_is_still_a_map(count):
    vectors, answers, chunks = planted(count, 1)
    drawn = project([system(vectors, 1)], answers, chunks, seed=1)
    assert len(drawn.layouts[0].places) == count + 1
    json.dumps(drawn.as_json(), allow_nan=False)


def test_without_the_extra_umap_falls_back_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
    vectors, answers, chunks = planted()
    drawn = project([system(vectors, 15)], answers, chunks, method="umap", seed=1)
    assert (drawn.method, drawn.notice) == ("pca", "no-umap")


def test_documents_of_one_passage_are_no_colour():
    vectors, answers, chunks = planted()
    alone = {id: Chunk(id, id, 0, 9, chunk.title, chunk.text) for id, chunk in chunks.items()}
    drawn = project([system(vectors, 15)], answers, alone, method="pca", seed=1)
    assert (drawn.colours, drawn.layouts[0].silhouette) == ((), None)


def test_a_sample_keeps_the_answers_and_does_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(module, "CHUNKS", 12)
    monkeypatch.setattr(module, "QUERIES", 8)
    vectors, answers, chunks = planted()
    drawn = project([system(vectors, 15)], answers, chunks, method="pca", seed=1)
    ids = {point.id for point in drawn.points}
    queries = {id for id in ids if id.startswith("q")}
    assert (len(ids), len(queries), drawn.chunks, drawn.queries) == (20, 8, 45, 15)
    assert {f"c{id[1:]}" for id in queries} <= ids
    order = np.r_[np.arange(45)[::-1], 45 + np.arange(15)]
    place = {int(old): new for new, old in enumerate(order[:45])}
    again = Answers(
        "test", answers.ids[::-1], answers.queries, answers.judgements, answers.groups,
        tuple({place[row]: own for row, own in some.items()} for some in answers.relevant),
        answers.masked,
    )  # fmt: skip
    other = project([system(vectors[order], 15)], again, chunks, method="pca", seed=1)
    assert {point.id for point in other.points} == ids
    elsewhere = project([system(vectors, 15)], answers, chunks, method="pca", seed=2)
    assert {point.id for point in elsewhere.points} != ids


def test_hover_text_is_short_and_in_one_line():
    vectors, answers, chunks = planted()
    chunks["c0"] = Chunk("c0", "d0", 0, 9, "", "割草机\n" + "每周清洗 " * 60)
    drawn = project([system(vectors, 15)], answers, chunks, method="pca", seed=1)
    assert len(drawn.points[0].hover) == 120
    assert drawn.points[0].hover.startswith("割草机 每周清洗 每周清洗")
    assert drawn.points[0].hover.endswith("…")
