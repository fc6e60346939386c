"""The compression grid, on spaces in which it is known what may be left out."""

import json

import numpy as np
import pytest

from embedtune.evaluation import compress
from embedtune.evaluation.compress import compression_grid
from embedtune.evaluation.encoded import Answers, Encoded, answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.quantise import PRECISIONS
from embedtune.evaluation.systems import parse_system
from embedtune.evidence import CompressedIndex
from embedtune.records import Query

HASHING = parse_system("hashing")
RNG = np.random.default_rng(7)


def asked_for_rows(vectors, rows, *, noise=0.0, groups=25, split="test", dimensions=None):
    """Queries that are the vectors of ``rows``, each of which is the only answer."""
    ids = tuple(f"c{row}" for row in range(len(vectors)))
    queries = tuple(Query(f"q{row}", f"question {row}") for row in rows)
    asked = vectors[rows] + noise * RNG.normal(size=(len(rows), vectors.shape[1]))
    encoded = Encoded(
        "planted", "cosine", vectors.astype(np.float32), asked.astype(np.float32),
        dimensions or (vectors.shape[1],),
    )  # fmt: skip
    answers = Answers(
        split=split,
        ids=ids,
        queries=queries,
        judgements={f"q{row}": {f"c{row}": 1} for row in rows},
        groups={f"q{row}": f"g{place % groups}" for place, row in enumerate(rows)},
        relevant=tuple({row: (f"c{row}",)} for row in rows),
        masked=tuple(np.array([row]) for row in rows),
    )
    return encoded, answers


def grid(planted, **more):
    return compression_grid(*planted, metric="ndcg@10", seed=1, **more)


def names(result):
    return [(index.dimension, index.precision) for index in result.indexes]


def by_name(result):
    return dict(zip(names(result), result.indexes, strict=True))


def test_every_dimension_in_every_precision_beside_the_evaluators_own_figure(small):
    evaluator = Evaluator(small)
    planted = encode(evaluator, HASHING, "test"), answers_of(evaluator, "test", [])
    result = grid(planted)
    assert names(result) == [(d, p) for d in (256, 128, 64) for p in PRECISIONS]
    own = evaluator.score(HASHING, "test")
    full = result.indexes[0]
    assert full.score == pytest.approx(own.metrics["ndcg@10"])
    assert (full.difference, full.low, full.high) == (0, pytest.approx(0), pytest.approx(0))
    for dimension, figures in own.dims.items():
        index = by_name(result)[dimension, "float32"]
        assert index.score == pytest.approx(figures["ndcg@10"])
        assert index.difference == pytest.approx(index.score - full.score)
    assert (result.queries, result.rows, result.judged_on) == (4, 6, ("test",))
    assert all(index.milliseconds > 0 for index in result.indexes)
    json.dumps(result.as_json(), allow_nan=False)


def test_binary_is_recommended_where_the_signs_say_it_all():
    vectors = RNG.choice([-1.0, 1.0], size=(60, 64))
    result = grid(asked_for_rows(vectors, list(range(50)), noise=0.3))
    assert (result.best.precision, result.best.memory, result.best.score) == ("binary", 8, 1.0)


def test_int8_is_recommended_where_the_signs_say_nothing():
    vectors = RNG.uniform(0.1, 1.0, size=(60, 64))
    result = grid(asked_for_rows(vectors, list(range(50))))
    binary = by_name(result)[64, "binary"]
    assert binary.difference < -0.5
    assert (result.best.precision, result.best.memory) == ("int8", 64)


def test_a_shorter_index_is_recommended_where_the_rest_is_noise():
    vectors = np.hstack([3 * RNG.uniform(0, 1, (60, 16)), 0.01 * RNG.uniform(0, 1, (60, 48))])
    result = grid(asked_for_rows(vectors, list(range(50)), dimensions=(64, 16, 1)))
    assert (result.best.dimension, result.best.precision, result.best.memory) == (16, "int8", 16)


def test_what_only_dev_permits_is_not_recommended():
    signs = RNG.choice([-1.0, 1.0], size=(40, 64))
    sizes = RNG.uniform(0.1, 1.0, size=(40, 64))
    vectors = np.vstack([signs, sizes])
    test = asked_for_rows(vectors, list(range(40, 80)))
    dev = asked_for_rows(vectors, list(range(40)), split="dev")
    assert grid(dev).best.precision == "binary"
    for one, other in ((test, dev), (dev, test)):  # whichever of the two objects
        result = grid(one, dev=other)
        assert result.best.precision == "int8"
    assert grid(test, dev=dev).judged_on == ("dev", "test")


def test_a_loss_that_few_groups_cannot_rule_out_is_not_risked():
    vectors = RNG.choice([-1.0, 1.0], size=(60, 64))
    planted = asked_for_rows(vectors, list(range(50)), groups=1)
    assert grid(planted).recommended == 0  # one group tells nothing, so nothing is changed


def test_rescoring_counts_only_where_there_is_something_to_find():
    # by fives of equal signs: the bits find the five, the numbers the row
    signs = np.repeat(RNG.choice([-1.0, 1.0], size=(420, 32)), 5, axis=0)
    vectors = signs * RNG.uniform(0.1, 1.0, size=(2100, 32))
    many = grid(asked_for_rows(vectors, list(range(60)), noise=0.05))
    few = grid(asked_for_rows(vectors[:200], list(range(60)), noise=0.05))
    assert by_name(few)[32, "binary+rescore"].difference == pytest.approx(0, abs=0.01)
    assert not few.rescoring_counts
    assert few.best.precision != "binary+rescore"
    assert many.rescoring_counts
    assert by_name(many)[32, "binary"].difference < -0.01
    assert (many.best.precision, many.best.memory, many.best.disk) == ("binary+rescore", 4, 128)


def test_sizes_of_a_million_and_a_hundred_million_vectors():
    row = CompressedIndex(384, "binary+rescore", 48, 1536, 0.8, 0.0, 0.0, 0.0, 0.1).as_json()
    assert row["memory_1000000"] == 48_000_000
    assert row["memory_100000000"] == 4_800_000_000
    assert row["disk_100000000"] == 153_600_000_000


def test_the_timed_search_finds_what_the_measured_one_finds():
    vectors = RNG.normal(size=(500, 48)).astype(np.float32)
    for precision in PRECISIONS:
        index = compress.quantise(vectors, precision)
        asked = vectors[:20] / np.linalg.norm(vectors[:20], axis=1, keepdims=True)
        ids = [str(row) for row in range(500)]
        measured = compress.nearest(vectors[:20], index, ids, 10).indices
        search = compress._searcher(index)
        for query, rows in zip(asked, measured, strict=True):
            found = [int(row) for row in search(query)]
            assert found[0] == rows[0]
            if "binary" in precision:  # many rows differ in equally many bits
                assert len(set(found) & set(rows.tolist())) >= 5
            else:
                assert found == rows.tolist()


def test_of_a_large_corpus_fewer_queries_are_asked(monkeypatch):
    monkeypatch.setattr(compress, "WORK", 0)
    vectors = RNG.normal(size=(80, 16))
    result = grid(asked_for_rows(vectors, list(range(80))))
    assert result.queries == 50
