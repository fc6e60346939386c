"""The ranking loss with false negatives masked, and the batches it is fed with."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from embedtune.records import Pair

Excluded = Callable[[str], frozenset[str]]  # query id -> chunk ids that are no negatives for it


def ranking_loss(
    model: Any,  # a SentenceTransformer; torch is not imported for a type
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    temperature: float,
    dimensions: Sequence[int],
) -> Any:
    """MultipleNegativesRankingLoss (van den Oord et al. 2018, arXiv:1807.03748) with masking,
    inside MatryoshkaLoss (arXiv:2205.13147) when there is more than one dimension.

    In a batch, a query's negatives are the passages of the other pairs and the explicit negatives
    of all pairs. One is none when it is excluded for that query: judged relevant, a near-duplicate
    of a relevant one, or overlapping the evidence. Such entries of the score matrix are minus
    infinity, so that neither loss nor gradient sees them. A sampler alone cannot give that: it
    knows equal texts only. Nor is a passage seen twice that several pairs bring along.

    The data set's columns are anchor, positive, and one for each of ``negative_columns``; ``label``
    holds the position of each pair in ``pairs``.
    """
    import torch
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )
    from sentence_transformers.util import cos_sim

    columns = len(negative_columns(pairs))

    class MaskedRankingLoss(MultipleNegativesRankingLoss):
        def __init__(self) -> None:
            super().__init__(model, scale=1 / temperature, similarity_fct=self.masked_similarity)

        def forward(self, sentence_features: Any, labels: Any) -> Any:
            self.mask = torch.tensor(false_negatives(labels.tolist(), pairs, excluded, columns))
            return super().forward(sentence_features, labels)

        def masked_similarity(self, queries: Any, passages: Any) -> Any:
            # scores in full precision: with a scale of 20, bfloat16 would round them to 0.1
            precision = torch.promote_types(queries.dtype, torch.float32)
            with torch.autocast(queries.device.type, enabled=False):
                scores = cos_sim(queries.to(precision), passages.to(precision))
            return scores.masked_fill(self.mask.to(scores.device), -torch.inf)

        def get_config_dict(self) -> dict[str, Any]:
            return {"scale": self.scale, "masked": True}

    loss = MaskedRankingLoss()
    if len(dimensions) == 1:
        return loss
    return MatryoshkaLoss(model, loss, matryoshka_dims=list(dimensions))


def negative_columns(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Names of the columns that hold the explicit negatives: as many as a pair has at most."""
    most = max((len(pair.negatives) for pair in pairs), default=0)
    return tuple(f"negative_{number}" for number in range(1, most + 1))


def false_negatives(
    batch: Sequence[int], pairs: Sequence[Pair], excluded: Excluded, columns: int = 0
) -> list[list[bool]]:
    """mask[i][j]: passage j must not count against query i, or counts already.

    The passages are the positives of the batch, then the first negative of each pair, the second,
    and so on. A pair with fewer has none there, and that is masked. The diagonal is False.
    """
    chunks: list[str | None] = [pairs[row].chunk for row in batch]
    for column in range(columns):
        chunks += [
            pairs[row].negatives[column][0] if column < len(pairs[row].negatives) else None
            for row in batch
        ]
    first: dict[str | None, int] = {}
    again = [chunk is None or first.setdefault(chunk, j) != j for j, chunk in enumerate(chunks)]
    mask = []
    for i, row in enumerate(batch):
        barred = excluded(pairs[row].query)
        own = pairs[row].chunk
        mask.append(
            [
                i != j and (again[j] or chunk == own or chunk in barred)
                for j, chunk in enumerate(chunks)
            ]
        )
    return mask


def batches(
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    size: int,
    seed: int,
    epoch: int,
    avoid_conflicts: bool = True,
) -> Iterator[list[int]]:
    """The batches of one epoch: every pair once, order given by seed and epoch alone.

    With ``avoid_conflicts``, pairs of which a passage, positive or negative, is masked for the
    other are put into different batches where possible, so that each query meets as many
    negatives as it can. No batch has one pair only (it would teach nothing): such a rest joins the
    batch before.
    """
    import random

    brought = [{pair.chunk, *(chunk for chunk, _ in pair.negatives)} for pair in pairs]
    order = list(range(len(pairs)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    made: list[list[int]] = []
    while order:
        batch: list[int] = []
        barred: set[str] = set()
        held: set[str] = set()
        waiting: list[int] = []
        for position, index in enumerate(order):
            own, chunks = excluded(pairs[index].query), brought[index]
            if avoid_conflicts and not (chunks.isdisjoint(barred) and held.isdisjoint(own)):
                waiting.append(index)
                continue
            batch.append(index)
            barred |= own
            held |= chunks
            if len(batch) == size:
                waiting.extend(order[position + 1 :])
                break
        # towards the end only conflicting pairs may be left: fill up rather than leave them out
        while len(batch) < size and waiting:
            batch.append(waiting.pop(0))
        made.append(batch)
        order = waiting
    if len(made) > 1 and len(made[-1]) == 1:
        made[-2].extend(made.pop())
    yield from made


def steps_per_epoch(pairs: int, batch: int) -> int:
    """How many batches ``batches`` makes of one epoch."""
    steps = math.ceil(pairs / batch)
    return steps - 1 if steps > 1 and pairs % batch == 1 else steps  # the rest of one is joined
