"""The losses that rank a query's passage before the others of its batch, false negatives masked."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedtune.records import Pair

Excluded = Callable[[str], frozenset[str]]  # query id -> chunk ids that are no negatives for it
Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Mask = npt.NDArray[np.bool_]

FORWARD: tuple[Direction, ...] = ("query_to_doc",)
SYMMETRIC: tuple[Direction, ...] = ("query_to_doc", "doc_to_query")
PORTION = 32  # rows at a time where gradients are cached


def ranking_loss(
    model: Any,  # a SentenceTransformer, or what stands for it; torch is not imported for a type
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    temperature: float,
    directions: Sequence[Direction] = FORWARD,
    hardness: float = 0.0,
    guide: Sequence[npt.NDArray[np.float32]] = (),
    cached: bool = False,
) -> Any:
    """MultipleNegativesRankingLoss (van den Oord et al. 2018, arXiv:1807.03748) with masking.

    In a batch, a query's negatives are the passages of the other pairs and the explicit negatives
    of all pairs. One is none when it is excluded for that query: judged relevant, a near-duplicate
    of a relevant one, or overlapping the evidence. Such entries of the score matrix are minus
    infinity, so that neither loss nor gradient sees them. A sampler alone cannot give that: it
    knows equal texts only. Nor is a passage seen twice that several pairs bring along.

    The features are columns of anchors, positives, and one for each of ``negative_columns``;
    labels hold the position of each row in ``pairs``. Where several processes train together, the
    batches of all are ranked as one (each process must bring as many rows).

    Args:
        directions: What else must score below query and passage; masked alike (see ``masks``).
            Query to passage and back are two softmaxes (Günther et al. 2023, arXiv:2310.19923);
            with further ones there is one for all (Li et al. 2023, arXiv:2308.03281).
        hardness: This many times its cosine is added to a negative's score, without gradient, so
            that hard ones weigh more (Lan et al. 2025, arXiv:2503.04812).
        guide: A matrix a column: vectors of a guide for each of ``pairs``. What the guide finds
            nearer than query and passage is masked too (Solatorio 2024, arXiv:2402.16829).
        cached: Gradients are cached (Gao et al. 2021, arXiv:2101.06983): ``model`` is called in
            portions. For a loss that is fed with texts; a loop that has vectors can do it itself.
    """
    import torch
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from sentence_transformers.util.distributed import (
        all_gather,
        all_gather_with_grad,
        get_rank,
        get_world_size,
    )

    columns = max((len(pair.negatives) for pair in pairs), default=0)
    ordered = [direction for direction in DIRECTIONS if direction in directions]

    class MaskedRankingLoss(MultipleNegativesRankingLoss):
        def __init__(self) -> None:
            super().__init__(
                model,
                scale=1 / temperature,
                directions=tuple(ordered),
                partition_mode="per_direction" if ordered == list(SYMMETRIC) else "joint",
                hardness_mode="all_negatives" if hardness else None,
                hardness_strength=hardness,
            )
            for number, vectors in enumerate(guide):
                # not in the state: it is made from the guide again
                self.register_buffer(f"guide_{number}", torch.tensor(vectors), persistent=False)
            self._masked: tuple[list[int], Mapping[Direction, Mask]] = ([], {})

        def compute_loss_from_embeddings(self, embeddings: list[Any], labels: Any) -> Any:
            return self.row_losses(embeddings, labels, 0, len(embeddings[0])).mean()

        def row_losses(self, embeddings: list[Any], labels: Any, start: int, stop: int) -> Any:
            """The losses of this process's rows from ``start`` to ``stop``."""
            offset = get_rank() * len(embeddings[0])
            if get_world_size() > 1:
                embeddings = [all_gather_with_grad(own) for own in embeddings]
                labels = all_gather(labels)
            queries, *documents = embeddings
            rows = torch.arange(offset + start, offset + stop, device=queries.device)
            at = torch.arange(len(rows), device=queries.device)
            masked = {
                direction: torch.from_numpy(mask).to(queries.device)[rows]
                for direction, mask in self.masks_of(labels.tolist()).items()
            }
            if guide:
                seen = [getattr(self, f"guide_{n}")[labels] for n in range(len(embeddings))]
                near = similarities(seen[0], seen[1:], rows, ordered)
                least = near["query_to_doc"][at, rows][:, None]
                for direction, scores in near.items():
                    masked[direction] |= scores > least
                    if direction in SYMMETRIC:
                        masked[direction][at, rows] = False  # equal but for rounding
            logits = {}
            for direction, scores in similarities(queries, documents, rows, ordered).items():
                logits[direction] = scores * self.scale
                if hardness and direction == "query_to_doc":
                    weight = hardness * scores.detach()
                    weight[at, rows] = 0
                    logits[direction] = logits[direction] + weight
                logits[direction] = logits[direction].masked_fill(masked[direction], -torch.inf)
            own = logits["query_to_doc"][at, rows]
            if self.partition_mode == "joint":
                return torch.logsumexp(torch.cat(list(logits.values()), dim=1), dim=1) - own
            sums = [torch.logsumexp(scores, dim=1) for scores in logits.values()]
            return torch.stack(sums).mean(dim=0) - own

        def masks_of(self, rows: list[int]) -> Mapping[Direction, Mask]:
            if rows != self._masked[0]:  # Matryoshka asks once a dimension
                self._masked = rows, masks(rows, pairs, excluded, columns, ordered)
            return self._masked[1]

        def get_config_dict(self) -> dict[str, Any]:
            return {"scale": self.scale, "directions": ordered, "masked": True}

    class CachedMaskedRankingLoss(CachedMultipleNegativesRankingLoss):
        def __init__(self) -> None:
            super().__init__(model, mini_batch_size=PORTION)
            self.loss = MaskedRankingLoss()

        def calculate_loss(
            self, reps: list[list[Any]], labels: Any = None, *, with_backward: bool = False
        ) -> Any:
            embeddings = [torch.cat(portions) for portions in reps]
            count = len(embeddings[0])
            total = 0.0
            for start in range(0, count, PORTION):
                stop = min(start + PORTION, count)
                part = self.loss.row_losses(embeddings, labels, start, stop).sum() / count
                if with_backward:
                    part.backward()
                    part = part.detach()
                total = total + part
            return total

        def get_config_dict(self) -> dict[str, Any]:
            return self.loss.get_config_dict()

    def similarities(
        queries: Any, documents: Sequence[Any], rows: Any, wanted: Sequence[Direction]
    ) -> dict[Direction, Any]:
        # in full precision: with a scale of 20, bfloat16 would round scores to 0.1
        precision = torch.promote_types(queries.dtype, torch.float32)
        with torch.autocast(queries.device.type, enabled=False):
            asked, answers = (
                torch.nn.functional.normalize(vectors.to(precision), dim=1)
                for vectors in (queries, torch.cat(list(documents)))
            )
            sides = {
                "query_to_doc": (asked, answers),
                "query_to_query": (asked, asked),
                "doc_to_query": (answers, asked),
                "doc_to_doc": (answers, answers),
            }
            return {name: sides[name][0][rows] @ sides[name][1].T for name in wanted}

    return CachedMaskedRankingLoss() if cached else MaskedRankingLoss()


def mega_batch_loss(
    model: Any,  # as above
    pairs: Sequence[Pair],
    excluded: Excluded,
    *,
    cached: bool,
) -> Any:
    """MegaBatchMarginLoss (Wieting and Gimpel 2018, doi:10.18653/v1/P18-1042) with masking.

    Of each query, the nearest other passage of the batch is pushed below a cosine of 0.3 and its
    own is drawn to 0.8. The nearest other one is the likeliest false negative of all; what is
    excluded for the query is not looked at. Explicit negatives are not used.
    """
    import torch
    from sentence_transformers.sentence_transformer.losses import MegaBatchMarginLoss
    from sentence_transformers.util import cos_sim

    class MaskedMegaBatchLoss(MegaBatchMarginLoss):
        def __init__(self) -> None:
            super().__init__(model, use_mini_batched_version=cached, mini_batch_size=PORTION)

        def forward_non_mini_batched(self, sentence_features: Any, labels: Any) -> Any:
            columns = list(sentence_features)
            vectors = [[model(features)["sentence_embedding"]] for features in columns]
            return self.calculate_loss(vectors, labels)

        def calculate_loss(
            self, reps: list[list[Any]], labels: Any = None, *, with_backward: bool = False
        ) -> Any:
            queries, passages = (torch.cat(portions) for portions in reps)
            with torch.autocast(queries.device.type, enabled=False):
                precision = torch.promote_types(queries.dtype, torch.float32)
                scores = cos_sim(queries.to(precision), passages.to(precision))
            mask = torch.from_numpy(false_negatives(labels.tolist(), pairs, excluded))
            own = torch.eye(len(scores), dtype=torch.bool)
            others = scores.masked_fill((mask | own).to(scores.device), -1.0)
            loss = (
                torch.relu(self.positive_margin - scores.diagonal())
                + torch.relu(others.max(dim=1).values - self.negative_margin)
            ).mean()
            if with_backward:
                loss.backward()
                loss = loss.detach()
            return loss

    return MaskedMegaBatchLoss()


def false_negatives(
    batch: Sequence[int], pairs: Sequence[Pair], excluded: Excluded, columns: int = 0
) -> Mask:
    """mask[i][j]: passage j must not count against query i, or counts already.

    The passages are the positives of the batch, then the first negative of each pair, the second,
    and so on. A pair with fewer has none there, and that is masked. The diagonal is False.
    """
    return _query_to_doc(_related(batch, pairs, excluded, columns))


def masks(
    batch: Sequence[int],
    pairs: Sequence[Pair],
    excluded: Excluded,
    columns: int,
    directions: Sequence[Direction],
) -> dict[Direction, Mask]:
    """What must not count in each direction; row i stands for pair i of the batch.

    - query_to_doc: see ``false_negatives``.
    - query_to_query: query j where its passage answers query i, or the other way round, or it is
      the same query or stands there already.
    - doc_to_query: query j where passage i answers it, or it is query i again or stands there
      already. The diagonal, the pair itself, is False.
    - doc_to_doc: passage j where it must not count against query i, and those of pair i itself.
    """
    related = _related(batch, pairs, excluded, columns)
    count = len(batch)
    own = np.eye(count, dtype=bool)
    queries = np.array([pairs[row].query for row in batch], dtype=object)
    same = (queries[:, None] == queries[None]) | _again(list(queries))[None]
    answers = related.answers[:, :count]
    made: dict[Direction, Mask] = {}
    for direction in directions:
        if direction == "query_to_doc":
            made[direction] = _query_to_doc(related)
        elif direction == "query_to_query":
            made[direction] = answers | answers.T | same
        elif direction == "doc_to_query":
            made[direction] = (answers.T | same) & ~own
        else:
            made[direction] = _query_to_doc(related) | np.tile(own, 1 + columns)
    return made


@dataclass(frozen=True, slots=True)
class _Related:
    """Queries and passages of a batch."""

    answers: Mask  # [i][j]: passage j answers query i, as its own or as an excluded one
    again: Mask  # [j]: passage j stands further left already, or is none


def _related(
    batch: Sequence[int], pairs: Sequence[Pair], excluded: Excluded, columns: int
) -> _Related:
    chunks: list[str | None] = [pairs[row].chunk for row in batch]
    for column in range(columns):
        chunks += [
            pairs[row].negatives[column][0] if column < len(pairs[row].negatives) else None
            for row in batch
        ]
    places = defaultdict(list)
    for place, chunk in enumerate(chunks):
        places[chunk].append(place)
    answers = np.zeros((len(batch), len(chunks)), dtype=bool)
    for i, row in enumerate(batch):
        for chunk in (excluded(pairs[row].query) | {pairs[row].chunk}) & places.keys():
            answers[i, places[chunk]] = True
    return _Related(answers, _again(chunks))


def _again(ids: Sequence[str | None]) -> Mask:
    """Which stand further left already; where there is none, it is as good as that."""
    first: dict[str | None, int] = {None: -1}
    return np.array([first.setdefault(own, j) != j for j, own in enumerate(ids)], dtype=bool)


def _query_to_doc(related: _Related) -> Mask:
    mask = related.answers | related.again
    np.fill_diagonal(mask, False)
    return mask


DIRECTIONS: tuple[Direction, ...] = (
    "query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"
)  # fmt: skip
