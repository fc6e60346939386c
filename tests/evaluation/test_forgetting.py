"""The probe and its gate."""

import pytest

from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.forgetting import bundled_probe, forgetting, gate
from embedtune.evaluation.systems import parse_system


@pytest.mark.parametrize(
    ("base", "tuned", "low", "counted", "holds"),
    [
        (0.80, 0.81, -0.02, True, True),
        (0.80, 0.795, 0.001, True, True),  # a mean loss of 0.005
        (0.80, 0.78, 0.005, True, True),  # 0.02, but the interval reaches 0.01
        (0.80, 0.78, 0.015, True, False),
        (0.80, 0.765, 0.0, True, False),  # never over 0.03
        (0.97, 0.90, 0.05, False, True),  # outside 0.3 to 0.95 nothing is counted
        (0.20, 0.10, 0.05, False, True),
    ],
)
def test_the_gate(base, tuned, low, counted, holds):
    result = gate("probe", base, tuned, 300, low, 0.1)
    assert (result.counted, result.holds) == (counted, holds)
    assert result.loss == pytest.approx(base - tuned)
    assert "general probe" in result.message


def test_the_bundled_probe_is_whole():
    probe = bundled_probe("en")
    assert len(probe.qrels["test"]) >= 100
    assert len({chunk.document for chunk in probe.chunks}) >= 20
    evaluator = Evaluator(probe)
    assert len(evaluator.queries("test")) == len(probe.queries)  # checks all ids


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


def test_a_loss_that_may_be_chance_is_not_called_nothing():
    result = gate("general", 0.795, 0.771, 168, 0.005, 0.045)
    assert result.holds
    assert "nothing" not in result.message
    assert "0.024 (0.005 to 0.045)" in result.message
