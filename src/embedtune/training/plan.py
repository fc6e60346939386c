"""The settings of training, and what each ``auto`` becomes."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from embedtune.errors import ConfigError, NothingUsable
from embedtune.settings import Auto, PositiveInt, Settings
from embedtune.training.batches import steps_per_epoch
from embedtune.training.builders import TEMPERATURE
from embedtune.training.lora import LoraSettings
from embedtune.training.losses import LOSSES, needs_of
from embedtune.training.ranking import Direction

log = logging.getLogger(__name__)

MATRYOSHKA_DIMENSIONS = (512, 256, 128, 64)
BATCH = 96  # pairs
WHOLE = 32  # where the activations of a batch are all held at once
PASSAGES = 240  # a step, where pairs bring negatives: more would take more time than BATCH alone
STEPS = 3  # an epoch, at least, where there are few pairs
SMALLEST = 8  # pairs
METHODS = ("tsdae", "simcse", "crops")  # of learning from passages alone: see ``warmup``
LARGE = 2  # times as many for losses that live on large batches


class TrainingSettings(Settings):
    """How a base model is fine-tuned. ``auto`` values are worked out from the data."""

    loss: Literal["auto", *LOSSES] = Field(
        "auto",
        description="One of docs/losses.md; auto: by the format of the data, mnrl for pairs.",
    )
    directions: list[Direction] | Auto = Field(
        "auto",
        description="What mnrl and gist rank: query_to_doc, always, and query_to_query, "
        "doc_to_query, doc_to_doc; auto: query_to_doc, for gist the last too and query_to_query.",
    )
    hardness: Annotated[float, Field(ge=0, le=100)] = Field(
        0.0, description="So many times its cosine is added to a negative's score (mnrl, gist)."
    )
    guide: str | None = Field(
        None, description="Embedding model that masks for gist, or teaches embed_distill."
    )
    teacher: str | None = Field(
        None, description="Cross-encoder that teaches margin_mse and distill_kl."
    )
    adaptive_layers: bool = Field(
        False,
        description="Train the earlier layers to embed too, so that some can be cut off "
        "(AdaptiveLayerLoss; with matryoshka Matryoshka2dLoss).",
    )
    matryoshka: list[PositiveInt] | Literal["auto", "off"] = Field(
        "auto", description="Dimensions trained; auto: the model's own, then 512, 256, 128, 64."
    )
    epochs: Annotated[float, Field(gt=0, le=1000)] | Auto = Field(
        "auto", description="auto: 6 under 1,000 pairs, 4 under 5,000, 2 under 20,000, else 1."
    )
    max_steps: PositiveInt | None = Field(None, description="Stop after so many steps.")
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | Auto = Field(
        "auto", description="Peak learning rate of AdamW; auto: 1e-4, with lora 4e-4."
    )
    batch_size: Annotated[int, Field(ge=2)] | Auto = Field(
        "auto",
        description="Pairs a step, each the others' negatives; auto: 96, fewer if there are few "
        "(3 steps an epoch) or each brings negatives of its own (240 passages a step); a third of "
        "that in the plain trainer.",
    )
    negatives_per_pair: NonNegativeInt | Auto = Field(
        "auto", description="Negatives a pair is trained with, hardest first; auto: all it has."
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the steps over which the learning rate rises."
    )
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.01, description="AdamW's.")
    temperature: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="Scores are divided by it before the softmax; auto: 0.05."
    )
    evaluate_every: PositiveInt | Auto = Field(
        "auto", description="Steps between evaluations on dev; auto: two to four in all."
    )
    minutes: Annotated[float, Field(ge=0)] | Auto = Field(
        "auto",
        description="Time for finding what is auto and training with it; 0: the usual values at "
        "once; auto: 10 up to 1,000 pairs, else 0.",
    )
    search: Literal["halving", "optuna"] = Field(
        "halving",
        description="How it is looked for: a few usual recipes by successive halving, or many "
        "more by Optuna (extra hpo; 60 minutes where minutes is auto).",
    )
    seeds: PositiveInt | Auto = Field(
        "auto",
        description="So many trainings, each with another seed, whose weights are averaged; auto: "
        "1.",
    )
    warmup_documents: Literal["off", *METHODS] = Field(
        "off",
        description="Learn from the passages alone first: tsdae, simcse or crops (cropped "
        "sentences); the whole training where no query is there to train with. For domains far "
        "from the base's; where there were queries, crops cost more than they gave.",
    )
    keep: Literal["auto", "best", "last", "average"] = Field(
        "auto",
        description="Which checkpoint, or the average of those of the last half; auto: the best "
        "of them on dev, the last under 200 queries.",
    )
    tokens_at_once: PositiveInt | Auto = Field(
        "auto",
        description="Most tokens whose activations are held; a larger batch is encoded in "
        "portions, with the same gradients. auto: what a third of the free memory holds.",
    )
    report_to: list[Literal["tensorboard", "trackio"]] = Field(
        default_factory=list, description="Trackers that are told of losses and dev scores."
    )
    log_every: PositiveInt = Field(10, description="Most steps between entries of the history.")
    patience: PositiveInt | None = Field(
        None, description="Stop after so many evaluations without a better dev score."
    )
    lora: LoraSettings | Literal["off"] = Field(
        "off",
        description="Train low-rank adapters, merged into the weights when saved (extra lora): "
        "{rank: 64, alpha: 128, dropout: 0.1, modules: auto}.",
    )
    freeze_layers: NonNegativeInt = Field(
        0, description="So many of the lowest layers, and the embeddings, are not trained."
    )
    new_tokens: Annotated[int, Field(ge=2)] | Literal["off"] = Field(
        "off",
        description="Words and Chinese characters that the tokenizer does not know, or cuts into "
        "4 pieces or more, become tokens where so many training texts have them (5,000 at most).",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute activations twice instead of keeping them, where the plain trainer "
        "trains; the flat forward goes in portions (tokens_at_once).",
    )
    also: list[str] = Field(
        default_factory=list,
        description="Further data sets to train on, of any format; each with the loss for it.",
    )
    mixing: Literal["proportional", "round_robin"] = Field(
        "proportional", description="How several data sets take turns: by their sizes, or evenly."
    )
    sampler: Literal["neighbours", "conflict_free", "random"] = Field(
        "neighbours",
        description="neighbours: pairs that the base finds alike meet in a batch, by fours (in "
        "small batches by twos); conflict_free keeps apart those that mask each other, as "
        "neighbours does too, but for questions on one passage, which share its encoding.",
    )
    attention_dropout: bool = Field(
        False, description="Keep dropout of attention probabilities (dear on a CPU, no gain seen)."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="Of order and dropout.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the processor computes in it, else fp32."
    )
    merge: Annotated[float, Field(ge=0, le=1)] | Literal["auto", "off"] = Field(
        "auto",
        description="Weight of the tuned model in the merge with its base; auto: the best on dev, "
        "in a run the best that holds the general probe's gate.",
    )
    allow_unknown_tokens: bool = Field(
        False, description="Train though the tokenizer does not know over 20 % of the text."
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="Further SentenceTransformerTrainingArguments fields, passed as they are.",
    )

    @field_validator("matryoshka")
    @classmethod
    def _falling_dimensions(cls, value: list[int] | str) -> list[int] | str:
        if isinstance(value, list) and (not value or sorted(set(value), reverse=True) != value):
            raise ValueError("must name dimensions once each, largest first, e.g. [384, 256, 128]")
        return value

    @field_validator("directions")
    @classmethod
    def _passages_are_ranked(cls, value: list[Direction] | str) -> list[Direction] | str:
        if "query_to_doc" not in value and value != "auto":
            raise ValueError("must hold query_to_doc: without it nothing is drawn together")
        return value

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> "TrainingSettings":
        if faults := needs_of(self):
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _warm_up_fits(self) -> "TrainingSettings":
        if self.warmup_documents != "off" and self.new_tokens != "off":
            raise ValueError("warmup_documents begins with the base's own tokens; not new_tokens")
        if self.warmup_documents == "tsdae" and (self.freeze_layers or self.lora != "off"):
            raise ValueError(
                "warmup_documents: tsdae ties all weights to a decoder's; not with lora or "
                "freeze_layers: use simcse or crops"
            )
        return self

    @model_validator(mode="after")
    def _new_words_are_trained(self) -> "TrainingSettings":
        if self.new_tokens != "off" and (self.freeze_layers or self.lora != "off"):
            raise ValueError(
                "new_tokens needs embeddings that are trained; not with lora or freeze_layers"
            )
        return self


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings with every ``auto`` replaced by its value."""

    pairs: int
    dimensions: tuple[int, ...]
    epochs: float
    steps: int
    learning_rate: float
    temperature: float
    batch_size: int
    negatives_per_pair: int
    evaluate_every: int
    log_every: int
    tokens_at_once: int
    device: str
    precision: str


def plan_training(
    settings: TrainingSettings,
    pairs: int,
    dimension: int,
    corpus: int = 0,
    *,
    negatives: int = 0,
    affordable: int = 32_768,
    large: bool = False,
    whole: bool = False,
    steps_of: Callable[[int], int] | None = None,
) -> Plan:
    """Work out every ``auto``.

    Args:
        corpus: Passages encoded at each evaluation on dev.
        negatives: The most that a pair brings.
        affordable: Tokens whose activations the memory holds.
        large: The loss is one for large batches.
        whole: The engine holds the activations of a whole batch at once, whatever the memory.
        steps_of: Batch size -> batches of an epoch; None: those of ``pairs``.

    Raises:
        ConfigError: Matryoshka dimensions that the model does not have, or repeated ones.
        NothingUsable: Fewer than two pairs.
    """
    if pairs < 2:
        raise NothingUsable(
            f"training needs at least 2 pairs with different passages, found {pairs}: each "
            "passage of a batch is the other queries' negative"
        )
    dimensions = matryoshka_dimensions(settings.matryoshka, dimension)
    if settings.negatives_per_pair != "auto":
        negatives = min(negatives, settings.negatives_per_pair)
    batch = settings.batch_size
    if batch == "auto":
        most, passages = (WHOLE, PASSAGES * WHOLE // BATCH) if whole else (BATCH, PASSAGES)
        batch = LARGE * BATCH if large else min(most, max(SMALLEST, passages // (1 + negatives)))
        batch = max(2, min(batch, pairs // STEPS))
    elif batch > pairs:
        log.warning("training.batch_size: %d is more than the %d pairs there are", batch, pairs)
        batch = pairs
    epochs = settings.epochs
    if epochs == "auto":
        epochs = next((n for limit, n in ((1000, 6), (5000, 4), (20_000, 2)) if pairs < limit), 1)
    steps = max(
        1, math.ceil(epochs * (steps_of(batch) if steps_of else steps_per_epoch(pairs, batch)))
    )
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    every = settings.evaluate_every
    if every == "auto":
        # an evaluation encodes the corpus; let all of them cost less than the training itself
        texts = 2 + negatives  # of a pair
        evaluations = int(2 * texts * steps * batch / max(1, corpus))
        every = math.ceil(steps / max(2, min(4, evaluations)))
    device, precision = device_and_precision(settings)
    return Plan(
        pairs=pairs,
        dimensions=dimensions,
        epochs=float(epochs),
        steps=steps,
        learning_rate=peak_rate(settings),
        temperature=TEMPERATURE if settings.temperature == "auto" else settings.temperature,
        batch_size=batch,
        negatives_per_pair=negatives,
        evaluate_every=every,
        # a checkpoint falls on a log entry, so that a resumed training logs the same means
        log_every=max(n for n in range(1, settings.log_every + 1) if every % n == 0),
        tokens_at_once=affordable if settings.tokens_at_once == "auto" else settings.tokens_at_once,
        device=device,
        precision=precision,
    )


def judging_precision(device: str, precision: str) -> Literal["fp32", "bf16"]:
    """What models that are trained with ``device`` and ``precision`` are judged in on the way:
    bf16 only where the processor computes in it."""
    return "bf16" if (device, precision) == ("cpu", "bf16") else "fp32"


def peak_rate(settings: TrainingSettings) -> float:
    """The learning rate; adapters, which begin at nothing, take a higher one."""
    if settings.learning_rate == "auto":
        return 1e-4 if settings.lora == "off" else 4e-4
    return settings.learning_rate


def matryoshka_dimensions(wanted: list[int] | str, dimension: int) -> tuple[int, ...]:
    """The dimensions to train, largest first; the model's own is always among them.

    Raises:
        ConfigError: A dimension above the model's.
    """
    if wanted == "off":
        return (dimension,)
    if wanted == "auto":
        return (dimension, *(dim for dim in MATRYOSHKA_DIMENSIONS if dim < dimension))
    too_large = [dim for dim in wanted if dim > dimension]
    if too_large:
        raise ConfigError(
            f"training.matryoshka: {too_large} above the model's dimension {dimension}"
        )
    return tuple(sorted({dimension, *wanted}, reverse=True))


def device_and_precision(settings: TrainingSettings) -> tuple[str, str]:
    """The device and precision to train with; imports torch."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else (
            "mps" if torch.backends.mps.is_available() else "cpu")  # fmt: skip
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"training.device: {device} asked for, but torch sees no CUDA device")
    precision = settings.precision
    if precision == "auto":
        if device == "cpu":
            # without native bf16 arithmetic autocast would be slower than fp32
            native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
            precision = "bf16" if native else "fp32"
        elif device.startswith("cuda"):
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "fp32"
    if precision == "fp16" and device == "cpu":
        raise ConfigError("training.precision: fp16 needs a GPU; use bf16, fp32 or auto")
    return device, precision
