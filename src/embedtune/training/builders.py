"""How each loss is built from sentence-transformers' own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Embedder
from embedtune.training.examples import Examples, role_of
from embedtune.training.ranking import FORWARD, Direction, Excluded, mega_batch_loss, ranking_loss

if TYPE_CHECKING:
    from embedtune.training.plan import TrainingSettings

Teacher = Callable[[Sequence[str], Sequence[str]], Sequence[float]]  # queries, passages -> scores
Loss = Any  # a torch module: (features by column, labels) -> a number

TEMPERATURE = 0.05
MARGIN = 0.2  # of cosine distances: the same for models whose vectors have length 1 and others
GUIDED: tuple[Direction, ...] = ("query_to_doc", "query_to_query", "doc_to_doc")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loss is built from."""

    model: Any  # a SentenceTransformer, or ``vectors_only``
    examples: Examples
    excluded: Excluded
    settings: "TrainingSettings"
    guide: Embedder | None
    teacher: Teacher | None
    cached: bool  # whether the loss may call the model in portions

    @property
    def temperature(self) -> float:
        own = self.settings.temperature
        return TEMPERATURE if own == "auto" else own


def _library() -> Any:
    from sentence_transformers.sentence_transformer import losses

    return losses


def ranking(parts: Parts, directions: Sequence[Direction] = FORWARD, **further: Any) -> Loss:
    settings = parts.settings
    return ranking_loss(
        parts.model,
        parts.examples.pairs,
        parts.excluded,
        temperature=parts.temperature,
        directions=directions if settings.directions == "auto" else settings.directions,
        hardness=settings.hardness,
        **further,
    )


def cached_ranking(parts: Parts) -> Loss:
    return ranking(parts, cached=parts.cached)


def guided(parts: Parts) -> Loss:
    return ranking(parts, GUIDED, guide=_guide_vectors(parts))


def cached_guided(parts: Parts) -> Loss:
    return ranking(parts, GUIDED, guide=_guide_vectors(parts), cached=parts.cached)


def mega_batch(parts: Parts) -> Loss:
    return mega_batch_loss(parts.model, parts.examples.pairs, parts.excluded, cached=parts.cached)


def _guide_vectors(parts: Parts) -> list[npt.NDArray[np.float32]]:
    """Of each column, the guide's vector of each row; a text is embedded once."""
    assert parts.guide is not None  # build_loss has checked it
    columns = parts.examples.columns
    found = {}
    for role in ("query", "document"):
        own = [texts for column, texts in columns.items() if role_of(column) == role]
        texts = list(dict.fromkeys(chain.from_iterable(own)))
        if texts:
            vectors = parts.guide.embed(texts, role)
            found[role] = dict(zip(texts, _unit(vectors), strict=True))
    return [
        np.stack([found[role_of(column)][text] for text in texts])
        for column, texts in columns.items()
    ]


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def triplet(parts: Parts) -> Loss:
    losses = _library()
    return losses.TripletLoss(
        parts.model, losses.TripletDistanceMetric.COSINE, triplet_margin=MARGIN
    )


def _cosine_distances(vectors: Any) -> Any:
    import torch

    with torch.autocast(vectors.device.type, enabled=False):
        own = torch.nn.functional.normalize(
            vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1
        )
        return 1 - own @ own.T


def batch_hard(parts: Parts) -> Loss:
    return _library().BatchHardTripletLoss(parts.model, _cosine_distances, margin=MARGIN)


def batch_hard_soft_margin(parts: Parts) -> Loss:
    return _library().BatchHardSoftMarginTripletLoss(parts.model)


def batch_semi_hard(parts: Parts) -> Loss:
    return _library().BatchSemiHardTripletLoss(parts.model, _cosine_distances, margin=MARGIN)


def batch_all(parts: Parts) -> Loss:
    return _library().BatchAllTripletLoss(parts.model, _cosine_distances, margin=MARGIN)


def contrastive(parts: Parts) -> Loss:
    return _library().ContrastiveLoss(parts.model)


def online_contrastive(parts: Parts) -> Loss:
    return _library().OnlineContrastiveLoss(parts.model)


def cosine(parts: Parts) -> Loss:
    return _library().CosineSimilarityLoss(parts.model)


def cosent(parts: Parts) -> Loss:
    return _library().CoSENTLoss(parts.model, scale=1 / parts.temperature)


def angle(parts: Parts) -> Loss:
    return _library().AnglELoss(parts.model, scale=1 / parts.temperature)


def softmax(parts: Parts) -> Loss:
    classes = len(set(parts.examples.labels or ()))
    return _library().SoftmaxLoss(
        parts.model, parts.model.get_embedding_dimension(), num_labels=classes
    )


def margin_mse(parts: Parts) -> Loss:
    loss = _library().MarginMSELoss(parts.model, similarity_fct=_logits(parts))
    return _taught(loss, _teacher_scores(parts))


def distill_kl(parts: Parts) -> Loss:
    loss = _library().DistillKLDivLoss(parts.model, similarity_fct=_logits(parts))
    return _taught(loss, _teacher_scores(parts))


def embed_distill(parts: Parts) -> Loss:
    vectors = np.stack(_guide_vectors(parts), axis=1)
    width = vectors.shape[-1]
    other = width != parts.model.get_embedding_dimension()
    loss = _library().EmbedDistillLoss(parts.model, projection_dim=width if other else None)
    return _taught(loss, vectors)


def _logits(parts: Parts) -> Callable[[Any, Any], Any]:
    """Cosines on the scale of a cross-encoder's logits: ±1 / temperature."""
    from sentence_transformers.util import pairwise_cos_sim

    temperature = parts.temperature
    return lambda queries, passages: pairwise_cos_sim(queries, passages) / temperature


def _teacher_scores(parts: Parts) -> npt.NDArray[np.float32]:
    """(rows, passages a row) float32; a query and a passage that recur are judged once."""
    assert parts.teacher is not None  # build_loss has checked it
    anchors, *columns = parts.examples.columns.values()
    wanted = [list(zip(anchors, column, strict=True)) for column in columns]
    distinct = list(dict.fromkeys(chain.from_iterable(wanted)))
    scores = parts.teacher([query for query, _ in distinct], [passage for _, passage in distinct])
    score = dict(zip(distinct, scores, strict=True))
    return np.array([[score[own] for own in row] for row in zip(*wanted, strict=True)], np.float32)


def _taught(loss: Loss, targets: npt.NDArray[np.float32]) -> Loss:
    """``loss`` with the targets of the rows whose positions it is given."""
    import torch

    class Taught(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = loss
            # not in the state: the teacher is asked again
            self.register_buffer("targets", torch.from_numpy(targets), persistent=False)

        def forward(self, sentence_features: Any, labels: Any) -> Any:
            return self.loss(sentence_features, self.targets[labels])

    return Taught()
