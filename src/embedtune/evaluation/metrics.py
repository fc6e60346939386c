"""Retrieval metrics per query, as trec_eval defines them (nDCG with linear gain).

All functions take ``Gains`` and give (n,) float64, one value a query, in [0, 1].
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from embedtune.embed import Similarity
from embedtune.errors import ConfigError

Values = npt.NDArray[np.float64]

SIMILARITIES = get_args(Similarity)
STANDARD = ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10", "map@100")


class Gains(NamedTuple):
    """What the metrics need of ``n`` rankings.

    ``found``: (n, depth), the grade at each rank, 0 where not relevant or past the end.
    ``ideal``: (n, m), each query's positive grades in falling order, filled up with 0.
    """

    found: Values
    ideal: Values

    @property
    def relevant(self) -> Values:
        """(n,) number of relevant chunks of each query."""
        return (self.ideal > 0).sum(axis=1).astype(np.float64)


def gains_of(
    rankings: Sequence[Sequence[str]], judgements: Sequence[Mapping[str, int]], depth: int
) -> Gains:
    """Grades of ranked ids. Ids without a judgement have grade 0, as have negative grades."""
    found = np.zeros((len(rankings), depth))
    most = max((len(grades) for grades in judgements), default=0)
    ideal = np.zeros((len(rankings), max(1, most)))
    for row, (ranking, grades) in enumerate(zip(rankings, judgements, strict=True)):
        for rank, chunk in enumerate(ranking[:depth]):
            found[row, rank] = max(0, grades.get(chunk, 0))
        best = sorted((max(0, grade) for grade in grades.values()), reverse=True)
        ideal[row, : len(best)] = best
    return Gains(found, ideal)


def discounts(k: int) -> Values:
    """(k,) 1 / log2(rank + 1) for the ranks from 1."""
    return 1 / np.log2(np.arange(2, k + 2))


def _dcg(grades: Values, k: int) -> Values:
    top = grades[:, :k]
    return top @ discounts(top.shape[1])


def ndcg(gains: Gains, k: int) -> Values:
    """Discounted gain over that of the best possible ranking; gain = grade."""
    return _ratio(_dcg(gains.found, k), _dcg(gains.ideal, k))


def hit(gains: Gains, k: int) -> Values:
    """1 where a relevant chunk is among the first ``k`` (also called success, or accuracy)."""
    return (gains.found[:, :k] > 0).any(axis=1).astype(np.float64)


def recall(gains: Gains, k: int) -> Values:
    """Share of the relevant chunks that are among the first ``k``."""
    return _ratio((gains.found[:, :k] > 0).sum(axis=1), gains.relevant)


def precision(gains: Gains, k: int) -> Values:
    """Share of the first ``k`` places that hold a relevant chunk; empty places count."""
    return (gains.found[:, :k] > 0).sum(axis=1) / k


def mrr(gains: Gains, k: int) -> Values:
    """1 / rank of the first relevant chunk, 0 where it is not among the first ``k``."""
    relevant = gains.found[:, :k] > 0
    first = relevant.argmax(axis=1)
    return np.where(relevant.any(axis=1), 1 / (first + 1), 0.0)


def average_precision(gains: Gains, k: int) -> Values:
    """Mean over all relevant chunks of the precision at their rank, 0 for those not found."""
    relevant = gains.found[:, :k] > 0
    precisions = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    return _ratio((precisions * relevant).sum(axis=1), gains.relevant)


def _ratio(part: Values, whole: Values) -> Values:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


METRICS: Mapping[str, Callable[[Gains, int], Values]] = {
    "ndcg": ndcg,
    "hit": hit,
    "accuracy": hit,  # as sentence-transformers calls it
    "recall": recall,
    "precision": precision,
    "mrr": mrr,
    "map": average_precision,
}


def parse_metric(name: str) -> tuple[Callable[[Gains, int], Values], int]:
    """Function and ``k`` of a name such as ``ndcg@20``.

    Raises:
        ConfigError: Names the metrics there are.
    """
    match = re.fullmatch(r"([a-z]+)@([1-9]\d{0,2}|1000)", name)
    if not match or match[1] not in METRICS:
        choice = ", ".join(f"{metric}@k" for metric in METRICS)
        raise ConfigError(f"unknown metric {name!r}; choose from {choice} with k from 1 to 1000")
    return METRICS[match[1]], int(match[2])


def split_metric(name: str) -> tuple[str, str]:
    """(similarity, metric) of the figure that decides: ``dot_ndcg@10`` is ndcg@10 by dot product.

    The similarity is empty where none is named. The rest is not checked.
    """
    match = re.match(f"({'|'.join(SIMILARITIES)})_", name)
    return (match[1], name[match.end() :]) if match else ("", name)


def deepest(names: Sequence[str]) -> int:
    """The largest ``k`` among metric names."""
    return max(parse_metric(name)[1] for name in names)


def score(
    rankings: Sequence[Sequence[str]],
    judgements: Sequence[Mapping[str, int]],
    names: Sequence[str] = STANDARD,
) -> dict[str, Values]:
    """Metric name -> (n,) values, one a query."""
    gains = gains_of(rankings, judgements, deepest(names))
    return {name: function(gains, k) for name in names for function, k in [parse_metric(name)]}
