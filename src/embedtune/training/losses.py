"""The losses: which there are, which fits which data, and how each is built.

They are sentence-transformers' own (those that rank in a batch with false negatives masked), so
that a loss serves both engines: the trainer feeds it with texts, the fast loop with vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from embedtune.embed import Embedder
from embedtune.errors import ConfigError
from embedtune.training import builders
from embedtune.training.builders import MARGIN, Loss, Parts, Teacher
from embedtune.training.examples import Examples, Format
from embedtune.training.ranking import Excluded
from embedtune.training.shapes import (
    as_classes,
    one_negative_a_row,
    same_number_of_negatives,
    unshaped,
    with_two_a_class,
    without_negatives,
)

if TYPE_CHECKING:
    from embedtune.training.plan import TrainingSettings

COLUMNS: Mapping[Format, str] = {
    "pairs": "anchor, positive",
    "triplets": "anchor, positive, negative…",
    "scored": "sentence1, sentence2, score",
    "labelled": "text, label",
}
MOST_CLASSES = 20  # more distinct scores than that are degrees, not classes


@dataclass(frozen=True, slots=True)
class LossKind:
    """One loss. Whoever trains with it gives it, as ``labels``, the rows' positions in the examples
    (``position``) or ``Examples.labels`` (``label``)."""

    name: str
    formats: tuple[Format, ...]
    what: str
    paper: str
    build: Callable[[Parts], Loss]
    labels: Literal["position", "label"]
    shape: Callable[[Examples, Excluded], Examples] = unshaped
    flat: bool = True  # needs vectors and labels alone, or does where the loop caches by itself
    calls_in_portions: bool = False  # where it is fed with texts; no wrapper over layers then
    batches: Literal["any", "large", "by_label"] = "any"
    meets: bool = False  # the passages of a batch are the other rows' negatives
    needs: Literal["", "guide", "teacher"] = ""  # an embedding model; a cross-encoder
    scores: Literal["any", "binary", "classes"] = "any"
    matryoshka: bool = True
    even: bool = False  # only dimensions that can be halved
    anew: bool = False  # compares a text with itself: see ``Task``


def build_loss(
    kind: LossKind,
    model: Any,  # a SentenceTransformer, or ``vectors_only``
    examples: Examples,
    excluded: Excluded,
    settings: "TrainingSettings",
    dimensions: Sequence[int],
    *,
    guide: Embedder | None = None,
    teacher: Teacher | None = None,
    embedded: bool = False,
) -> Loss:
    """The loss as a torch module, inside Matryoshka (Kusupati et al. 2022, arXiv:2205.13147) where
    there is more than one dimension, inside AdaptiveLayer where the settings ask for it.

    Args:
        examples: As ``shaped`` gives them; their number of rows stays.
        excluded: Chunks that are no negatives for a query id.
        guide: Embeds every text once, here.
        teacher: Judges every query and passage once, here.
        embedded: The loss is fed with vectors, and caching of gradients is the caller's.

    Raises:
        ConfigError: Guide or teacher is missing; layers are wanted of a model without; dimensions
            that the loss cannot halve.
    """
    from sentence_transformers.sentence_transformer.losses import (
        AdaptiveLayerLoss,
        Matryoshka2dLoss,
        MatryoshkaLoss,
    )
    from sentence_transformers.sentence_transformer.modules import Transformer

    if kind.needs and (guide if kind.needs == "guide" else teacher) is None:
        raise ConfigError(_needed(kind))
    layered = not embedded and isinstance(model[0], Transformer)
    if settings.adaptive_layers and not layered:
        raise ConfigError("training.adaptive_layers: the model has no layers; it needs an encoder")
    if kind.even and (odd := [dimension for dimension in dimensions if dimension % 2]):
        raise ConfigError(f"training.matryoshka: {odd}; {kind.name} needs even dimensions")
    cached = layered and not settings.adaptive_layers
    loss = kind.build(Parts(model, examples, excluded, settings, guide, teacher, cached))
    several = len(dimensions) > 1 and kind.matryoshka
    if settings.adaptive_layers:
        return (
            Matryoshka2dLoss(model, loss, matryoshka_dims=list(dimensions))
            if several
            else AdaptiveLayerLoss(model, loss)
        )
    return MatryoshkaLoss(model, loss, matryoshka_dims=list(dimensions)) if several else loss


def vectors_only(dimension: int, device: str = "cpu") -> Any:
    """What a loss takes for a model when its features are vectors already."""
    import torch

    class VectorsOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.device = torch.device(device)

        def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
            return dict(features)  # a copy: Matryoshka writes into what it gets

        def get_embedding_dimension(self) -> int:
            return dimension

    return VectorsOnly()


def choose_loss(
    name: str, format: Format, labels: Sequence[float] | None = None
) -> tuple[LossKind, str]:
    """The loss to train with, and why, in a sentence; ``auto`` picks by the data.

    Raises:
        ConfigError: It does not fit the data.
    """
    if name != "auto":
        check_loss(name, format, labels)
        return LOSSES[name], f"{name}, as training.loss says"
    if format == "scored":
        best, why = "cosent", "the order of the scores is what has to be learnt"
    elif format == "labelled":
        best, why = "batch_hard", "texts of a class belong together, those of others apart"
    else:
        best, why = "mnrl", "the passages of a batch are the other queries' negatives"
    return LOSSES[best], f"{best}: {why}"


def check_loss(name: str, format: Format, labels: Sequence[float] | None = None) -> None:
    """Whether a loss can be trained on data of a format; needs no model.

    Raises:
        ConfigError: It cannot; tells for every format which losses fit.
    """
    kind = LOSSES[name]
    if format not in kind.formats:
        wanted = " or ".join(f"{own} ({COLUMNS[own]})" for own in kind.formats)
        problem = f"needs {wanted}; the data are {format} ({COLUMNS[format]})"
    elif not _scores_fit(kind, format, labels):
        problem = (
            "needs scores that are all 0 or 1"
            if kind.scores == "binary"
            else f"needs scores that stand for classes: 2 to {MOST_CLASSES} different ones"
        )
    else:
        return
    rows = [
        f"  {own} ({columns}): {', '.join(fitting(own, labels if own == format else None))}"
        for own, columns in COLUMNS.items()
    ]
    raise ConfigError([f"training.loss: {name} {problem}. What fits:", *rows])


def fitting(format: Format, labels: Sequence[float] | None = None) -> list[str]:
    """Names of the losses for a format; given the labels, for these."""
    return [
        kind.name
        for kind in LOSSES.values()
        if format in kind.formats and (labels is None or _scores_fit(kind, format, labels))
    ]


def shaped(examples: Examples, kind: LossKind, excluded: Excluded) -> Examples:
    """The rows as the loss wants them; what is left out is counted in a warning.

    Raises:
        NothingUsable: No row is left.
    """
    return kind.shape(examples, excluded)


def losses_table() -> str:
    """The table of docs/losses.md."""
    lines = ["| loss | data | what it does | after |", "|---|---|---|---|"]
    for kind in LOSSES.values():
        data = ", ".join(kind.formats)
        if kind.scores != "any":
            data += {"binary": " (0 or 1)", "classes": " (as classes)"}[kind.scores]
        needs = {"": "", "guide": " Needs `guide`.", "teacher": " Needs `teacher`."}[kind.needs]
        lines.append(f"| `{kind.name}` | {data} | {kind.what}{needs} | {kind.paper} |")
    return "\n".join(lines)


def needs_of(settings: "TrainingSettings") -> list[str]:
    """Faults of settings that do not go together, whatever the data."""
    kind = LOSSES.get(settings.loss)
    if kind is None:
        return []
    faults = []
    if kind.needs and getattr(settings, kind.needs) is None:
        faults.append(_needed(kind))
    if kind.calls_in_portions and settings.adaptive_layers:
        faults.append(
            f"training.adaptive_layers: not with {kind.name}, which calls the model in portions"
        )
    return faults


def _needed(kind: LossKind) -> str:
    model = "an embedding model" if kind.needs == "guide" else "a cross-encoder"
    return f"training.{kind.needs}: {kind.name} needs one, the name or folder of {model}"


def _binary(labels: Sequence[float] | None) -> bool:
    return labels is not None and set(labels) <= {0, 1}


def _scores_fit(kind: LossKind, format: Format, labels: Sequence[float] | None) -> bool:
    if format != "scored" or kind.scores == "any":
        return True
    if kind.scores == "binary":
        return _binary(labels)
    return labels is not None and 2 <= len(set(labels)) <= MOST_CLASSES


RANKED: tuple[Format, ...] = ("pairs", "triplets")
TRIPLET_PAPER = "Hermans et al. 2017, arXiv:1703.07737"

LOSSES: Mapping[str, LossKind] = {
    kind.name: kind
    for kind in (
        LossKind(
            "mnrl", RANKED,
            "Multiple negatives ranking: a query's passage before all others of the batch, false "
            "negatives masked; `directions` and `hardness` vary it.",
            "van den Oord et al. 2018, arXiv:1807.03748", builders.ranking, "position",
            meets=True,
        ),
        LossKind(
            "cached_mnrl", RANKED,
            "The same with gradients cached, for batches larger than memory holds.",
            "Gao et al. 2021, arXiv:2101.06983", builders.cached_ranking, "position",
            calls_in_portions=True, batches="large", meets=True,
        ),
        LossKind(
            "gist", RANKED,
            "Ranking with queries and passages among themselves too; what a guide finds nearer "
            "than query and passage is masked, beside the known false negatives.",
            "Solatorio 2024, arXiv:2402.16829", builders.guided, "position", needs="guide",
            meets=True,
        ),
        LossKind(
            "cached_gist", RANKED, "The same with gradients cached.",
            "Solatorio 2024, arXiv:2402.16829; Gao et al. 2021, arXiv:2101.06983",
            builders.cached_guided, "position", calls_in_portions=True, batches="large", meets=True,
            needs="guide",
        ),
        LossKind(
            "mega_batch_margin", RANKED,
            "The nearest other passage of a large batch below a cosine of 0.3, the own one drawn "
            "to 0.8; false negatives masked, explicit negatives not used.",
            "Wieting and Gimpel 2018, doi:10.18653/v1/P18-1042", builders.mega_batch, "position",
            shape=without_negatives, calls_in_portions=True, batches="large", meets=True,
        ),
        LossKind(
            "triplet", ("triplets",),
            f"Passage nearer than negative by {MARGIN} of cosine distance, one negative a row.",
            TRIPLET_PAPER, builders.triplet, "position", shape=one_negative_a_row,
        ),
        LossKind(
            "margin_mse", ("triplets",),
            "The difference between passage and negative as a cross-encoder scores it.",
            "Hofstätter et al. 2020, arXiv:2010.02666", builders.margin_mse, "position",
            shape=one_negative_a_row, needs="teacher",
        ),
        LossKind(
            "distill_kl", ("triplets",),
            "A cross-encoder's distribution over a query's passage and negatives.",
            "Lin et al. 2020, arXiv:2010.11386", builders.distill_kl, "position",
            shape=same_number_of_negatives, needs="teacher",
        ),
        LossKind(
            "cosent", ("scored",), "A higher score is a higher cosine, for any two pairs.",
            "Huang et al. 2024, doi:10.1109/TASLP.2024.3402087", builders.cosent, "label",
        ),
        LossKind(
            "angle", ("scored",), "The same with an angle in complex space, which saturates less.",
            "Li and Li 2023, arXiv:2309.12871", builders.angle, "label", even=True,
        ),
        LossKind(
            "cosine", ("scored",), "The cosine is the score (squared error).",
            "Reimers and Gurevych 2019, arXiv:1908.10084", builders.cosine, "label",
        ),
        LossKind(
            "contrastive", ("scored",),
            "Pairs of 1 drawn together, pairs of 0 pushed 0.5 of cosine distance apart.",
            "Hadsell et al. 2006, doi:10.1109/CVPR.2006.100", builders.contrastive, "label",
            shape=as_classes, scores="binary",
        ),
        LossKind(
            "online_contrastive", ("scored",),
            "The same on the batch's hard pairs alone: 0 nearer than the farthest 1, and back.",
            "Hadsell et al. 2006, doi:10.1109/CVPR.2006.100", builders.online_contrastive, "label",
            shape=as_classes, scores="binary",
        ),
        LossKind(
            "softmax", ("scored",), "A classifier over both vectors tells the class of a pair.",
            "Reimers and Gurevych 2019, arXiv:1908.10084", builders.softmax, "label",
            shape=as_classes, scores="classes", matryoshka=False,
        ),
        LossKind(
            "batch_hard", ("labelled",), 
            "Each text's farthest of its class nearer than the nearest of another, by a margin of "
            f"{MARGIN} of cosine distance.",
            TRIPLET_PAPER, builders.batch_hard, "label", shape=with_two_a_class, batches="by_label",
        ),
        LossKind(
            "batch_hard_soft_margin", ("labelled",),
            "The same without a margin, softly.",
            TRIPLET_PAPER, builders.batch_hard_soft_margin, "label",
            shape=with_two_a_class, batches="by_label",
        ),
        LossKind(
            "batch_semi_hard", ("labelled",),
            "Against the nearest of other classes that is farther than the text's own.",
            TRIPLET_PAPER, builders.batch_semi_hard, "label",
            shape=with_two_a_class, batches="by_label",
        ),
        LossKind(
            "batch_all", ("labelled",), "All triplets of a batch that still violate the margin.",
            TRIPLET_PAPER, builders.batch_all, "label", shape=with_two_a_class, batches="by_label",
        ),
        LossKind(
            "embed_distill", ("pairs", "triplets", "scored", "labelled"),
            "The vectors of a larger model, text by text.",
            "Kim et al. 2023, arXiv:2301.12005", builders.embed_distill, "position",
            needs="guide", matryoshka=False,
        ),
    )
}  # fmt: skip
