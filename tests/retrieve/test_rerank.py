"""A second look at the first hits: by a script, and by a cross-encoder of random weights."""

import numpy as np
import pytest

from embedtune.errors import IntegrityError
from embedtune.retrieve.order import tie_breaker
from embedtune.retrieve.rerank import (
    CrossEncoderReranker,
    RecordedReranker,
    ScriptedReranker,
    rerank,
)
from embedtune.store import Store

QUERIES = {"q1": "red", "q2": "blue"}
PASSAGES = {"c1": "a red door", "c2": "a blue door", "c3": "a wall", "c4": "a roof"}
FIRST = {
    "q1": [("c3", 3.0), ("c1", 2.0), ("c2", 1.0)],
    "q2": [("c4", 3.0), ("c2", 2.0), ("c3", 1.0), ("c1", 0.5)],
}
TABLE = {("red", "a red door"): 5.0, ("blue", "a blue door"): 4.0, ("blue", "a red door"): 9.0}


class Counting(ScriptedReranker):
    def __init__(self) -> None:
        super().__init__(TABLE)
        self.read: list[tuple[str, str]] = []

    def scores(self, pairs):
        self.read += pairs
        return super().scores(pairs)


def test_the_first_hits_are_ordered_anew_and_the_rest_is_left_out():
    found = rerank(ScriptedReranker(TABLE), QUERIES, FIRST, PASSAGES, depth=3)
    tied = sorted(["c3", "c2"], key=tie_breaker)
    assert found["q1"] == [("c1", 5.0), (tied[0], 0.0), (tied[1], 0.0)]
    assert found["q2"][0][0] == "c2"  # c1 would win, but is not read
    assert {chunk for chunk, _ in found["q2"]} == {"c4", "c2", "c3"}


def test_a_query_without_hits_stays_without():
    found = rerank(ScriptedReranker({}), QUERIES, {"q1": [], "q2": FIRST["q2"]}, PASSAGES)
    assert found["q1"] == []
    assert len(found["q2"]) == 4


def test_no_pair_is_read_twice(tmp_path):
    inner = Counting()
    with Store(tmp_path / "s.sqlite") as store:
        first = rerank(RecordedReranker(inner, store), QUERIES, FIRST, PASSAGES, depth=2)
        assert len(inner.read) == 4
        again = rerank(RecordedReranker(inner, store), QUERIES, FIRST, PASSAGES, depth=3)
    assert sorted(inner.read[4:]) == [("blue", "a wall"), ("red", "a blue door")]
    assert again["q1"][0] == first["q1"][0]
    assert again == rerank(ScriptedReranker(TABLE), QUERIES, FIRST, PASSAGES, depth=3)


@pytest.mark.parametrize("bad", [np.array([np.nan, 1.0]), np.ones(1), np.ones((2, 1))])
def test_scores_that_are_none_are_refused_and_not_stored(tmp_path, bad):
    class Damaged(ScriptedReranker):
        def scores(self, pairs):
            return bad.astype(np.float32)

    pairs = [("red", "a"), ("red", "b")]
    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(IntegrityError, match="scripted: "):
            RecordedReranker(Damaged({}), store).scores(pairs)
        assert RecordedReranker(ScriptedReranker({}), store).scores(pairs).tolist() == [0, 0]


def test_a_cross_encoder_orders_by_its_own_numbers(tiny_cross_encoder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from embedtune.embed.cross_encoder import load_cross_encoder

    reranker = CrossEncoderReranker(
        "tiny", lambda: load_cross_encoder(str(tiny_cross_encoder), "cpu", "rerank")
    )
    found = rerank(reranker, QUERIES, FIRST, PASSAGES)
    tokenizer = AutoTokenizer.from_pretrained(tiny_cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_cross_encoder).eval()
    for query, ranking in FIRST.items():
        texts = [PASSAGES[chunk] for chunk, _ in ranking]
        inputs = tokenizer([QUERIES[query]] * len(texts), texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            numbers = model(**inputs).logits[:, 0].tolist()
        expected = dict(zip((chunk for chunk, _ in ranking), numbers, strict=True))
        assert len({round(number, 3) for number in numbers}) > 1  # it does tell them apart
        assert dict(found[query]) == pytest.approx(expected, abs=1e-4)
        assert [chunk for chunk, _ in found[query]] == sorted(expected, key=lambda c: -expected[c])
    assert reranker.scores([]).shape == (0,)
