"""The probes, their gate, and drift."""

import itertools

import numpy as np
import pytest

from embedtune.errors import ConfigError, IntegrityError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.forgetting import (
    LANGUAGES,
    ask_probes,
    bundled_probe,
    drift,
    forgetting,
    gate,
    open_probes,
)
from embedtune.evaluation.systems import System, parse_system
from embedtune.language import language_of
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.similar import near_duplicates, shares_run


@pytest.mark.parametrize(
    ("base", "tuned", "low", "holds", "outcome"),
    [
        (0.80, 0.81, -0.02, True, "kept"),
        (0.80, 0.795, 0.001, True, "kept"),  # a mean loss of 0.005
        (0.80, 0.78, 0.005, True, "chance"),  # 0.02, but the interval reaches 0.01
        (0.80, 0.78, 0.015, False, "lost"),
        (0.80, 0.765, 0.0, False, "lost"),  # never over 0.03
        (0.97, 0.90, 0.05, True, "uncounted"),  # outside 0.3 to 0.95 nothing is counted
        (0.20, 0.10, 0.05, True, "uncounted"),
    ],
)
def test_the_gate(base, tuned, low, holds, outcome):
    result = gate("probe", base, tuned, 300, low, 0.1)
    assert (result.holds, result.outcome) == (holds, outcome)
    assert result.counted == (outcome != "uncounted")
    assert result.loss == pytest.approx(base - tuned)
    assert result.as_json()["outcome"] == outcome


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_bundled_probes_are_whole(language):
    probe = bundled_probe(language)
    assert len(probe.qrels["test"]) >= 300
    topics = {chunk.document: 0 for chunk in probe.chunks}
    for chunk in probe.chunks:
        topics[chunk.document] += 1
        size = len(chunk.text) if language == "zh" else len(chunk.text.split())
        assert (60 <= size <= 160) if language == "zh" else (35 <= size <= 90), chunk.text
    assert len(topics) >= 20
    assert min(topics.values()) >= 5  # the right one is told from its neighbours
    assert {language_of(item.text) for item in (*probe.chunks, *probe.queries)} == {language}
    assert len(Evaluator(probe).queries("test")) == len(probe.queries)  # checks all ids


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_of_a_probe_is_a_copy_of_another(language):
    probe = bundled_probe(language)
    assert near_duplicates([chunk.text for chunk in probe.chunks]) == []
    assert near_duplicates([query.text for query in probe.queries]) == []
    texts = {chunk.id: chunk.text for chunk in probe.chunks}
    for query in probe.queries:
        for relevant in probe.qrels["test"][query.id]:
            assert not shares_run(query.text, texts[relevant]), query.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_questions_follow_no_template(language):
    beginnings = [query.text[:8].casefold() for query in bundled_probe(language).queries]
    # of the eight characters a question begins with, few are shared by many
    most = max(beginnings.count(own) for own in beginnings)
    assert most <= len(beginnings) * 0.08


def test_the_chinese_probe_is_neither_trivial_nor_broken():
    scores = Evaluator(bundled_probe("zh")).score(parse_system("bm25"), "test")
    assert 0.3 < scores.metrics["ndcg@10"] < 0.9


def test_a_language_without_probe_is_refused():
    with pytest.raises(ConfigError, match="no bundled probe"):
        bundled_probe("xx")


def test_the_same_system_loses_nothing():
    evaluator = Evaluator(bundled_probe("en"))
    scores = evaluator.score(parse_system("hashing"), "test")
    result = forgetting(scores, scores, evaluator)
    assert (result.loss, result.low, result.high, result.holds) == (0, 0, 0, True)
    assert result.queries == len(scores.per_query["ndcg@10"])


@pytest.mark.model
def test_minilm_scores_where_a_loss_would_show():
    evaluator = Evaluator(bundled_probe("en"))
    scores = evaluator.score(parse_system("all-MiniLM-L6-v2"), "test")
    assert 0.5 <= scores.metrics["ndcg@10"] <= 0.9


class Fixed:
    """Vectors by text; texts that are not known get zeros."""

    max_tokens = 512
    similarity = "cosine"

    def __init__(self, name, vectors):
        self.name, self._vectors = name, vectors
        self.dimension = len(next(iter(vectors.values())))

    def embed(self, texts, role):
        zeros = [0.0] * self.dimension
        return np.array([self._vectors.get(text, zeros) for text in texts], np.float32)


def small_set(name, marks, right):
    """Passages and queries ``mark 0`` …; ``right``: the place of each query's passage."""
    chunks = tuple(
        Chunk(id=f"{name}{place}", document=f"d{place % 20}", start=0, end=9, title="",
              text=f"{marks} passage {place}") for place in range(len(right))
    )  # fmt: skip
    queries = tuple(
        Query(id=f"{name}q{place}", text=f"{marks} query {place}", language="en", origin="beir")
        for place in range(len(right))
    )
    qrels = {f"{name}q{place}": {f"{name}{own}": 1} for place, own in enumerate(right)}
    return RetrievalSet(name, chunks, queries, {"test": qrels}, True)


def vectors_of(marks, count, found):
    """One axis a passage; a query lies on the axis of its own passage, the first ``found`` ones do,
    the others on the next one's."""
    axes = np.eye(count)
    passages = {f"{marks} passage {place}": list(axes[place]) for place in range(count)}
    asked = {
        f"{marks} query {place}": list(axes[place if place < found else (place + 1) % count])
        for place in range(count)
    }
    return {**passages, **asked}


def test_every_probe_that_counts_is_asked():
    count = 40
    one, two = (small_set(name, name, range(count)) for name in ("one", "two"))
    base = Fixed("base", {**vectors_of("one", count, 20), **vectors_of("two", count, 20)})
    worse = Fixed("worse", {**vectors_of("one", count, 20), **vectors_of("two", count, 4)})
    embedders = {"base": base, "worse": worse}
    probes = open_probes((one, two), lambda system: embedders[system.label])
    kept, lost = ask_probes(
        probes, System("base", "dense", "local", "b"), System("worse", "dense", "local", "w")
    )
    assert (kept.name, kept.loss, kept.outcome) == ("one", 0, "kept")
    # 16 of 40 queries fall from the first place to a place among equals
    assert lost.outcome == "lost"
    assert 0.3 < lost.loss <= 16 / 40
    assert kept.drift is not None
    assert (kept.drift.texts, kept.drift.cosine) == (count, pytest.approx(1))


def test_a_probe_that_the_base_cannot_read_does_not_count():
    count = 40
    known, unknown = (small_set(name, name, range(count)) for name in ("known", "unknown"))
    base = Fixed("base", vectors_of("known", count, 20))  # zeros for the other
    system = System("base", "dense", "local", "b")
    read, unread = ask_probes(open_probes((known, unknown), lambda _: base), system, system)
    assert (read.outcome, unread.outcome) == ("kept", "uncounted")
    assert (unread.holds, unread.queries, unread.drift) == (True, count, None)


def test_broken_judgements_are_not_taken_for_a_language():
    data = small_set("broken", "x", range(40))
    data.qrels["test"]["brokenq0"] = {"nowhere": 1}
    base = Fixed("base", vectors_of("x", 40, 20))
    system = System("base", "dense", "local", "b")
    with pytest.raises(IntegrityError, match="nowhere"):
        ask_probes(open_probes((data,), lambda _: base), system, system)


# drift


def ids_of(count):
    return [f"t{place}" for place in range(count)]


def test_what_did_not_move_has_no_drift():
    vectors = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    found = drift(ids_of(60), vectors, vectors * 3)  # lengths do not count
    assert found is not None
    assert (found.texts, found.overlap) == (60, 1)
    assert (found.cosine, found.cka) == (pytest.approx(1), pytest.approx(1))


def test_a_rotation_moves_vectors_and_no_neighbours():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(60, 16))
    rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    found = drift(ids_of(60), vectors.astype(np.float32), (vectors @ rotation).astype(np.float32))
    assert found is not None
    assert found.overlap == pytest.approx(1, abs=0.01)  # float32 may swap the tenth
    assert found.cka == pytest.approx(1, abs=1e-4)
    assert found.cosine < 0.5


def test_noise_is_like_nothing_even_with_more_dimensions_than_texts():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 250, 400)).astype(np.float32)
    found = drift(ids_of(250), one, other)
    assert found is not None
    assert abs(found.cka) < 0.05
    assert abs(found.cosine) < 0.02
    assert found.overlap == pytest.approx(10 / 249, abs=0.02)  # ten of 249, by chance


def test_cka_agrees_with_the_sum_over_quadruples():
    """HSIC as a U-statistic (Gretton et al. 2005): over all ordered quadruples of texts."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(20, 3)), rng.normal(size=(20, 5))
    other[:, :3] += one
    left, right = ((rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (one, other))

    def hsic(k, m):
        quadruples = itertools.permutations(range(len(k)), 4)
        return sum(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in quadruples)

    k, m = left @ left.T, right @ right.T
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    found = drift(ids_of(20), one.astype(np.float32), other.astype(np.float32))
    assert found is not None
    assert found.cka == pytest.approx(expected, abs=1e-5)
    assert found.cosine is None  # 3 dimensions and 5
    near = [np.argsort(-(rows @ rows.T) + 9 * np.eye(20), axis=1)[:, :10] for rows in (left, right)]
    common = [len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]
    assert found.overlap == pytest.approx(np.mean(common))


def test_few_texts_show_no_drift_and_many_are_sampled():
    vectors = np.random.default_rng(4).normal(size=(2500, 4)).astype(np.float32)
    assert drift(ids_of(19), vectors[:19], vectors[:19]) is None
    found = drift(ids_of(2500), vectors, vectors)
    assert found is not None
    assert found.texts == 2000
    order = np.random.default_rng(5).permutation(2500)
    again = drift([f"t{place}" for place in order], vectors[order], -vectors[order])
    assert again is not None
    assert (again.texts, again.overlap) == (2000, 1)


def test_a_space_without_spread_has_no_cka():
    flat = np.ones((30, 4), np.float32)
    spread = np.random.default_rng(6).normal(size=(30, 4)).astype(np.float32)
    found = drift(ids_of(30), flat, spread)
    assert found is not None
    assert found.cka is None
