"""What is done to a base model before it is trained: pooling, prompts, length, vocabulary, and
which of its weights change.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from embedtune.embed.loading import PoolingMode, longest_text, read_control_tokens_as_text
from embedtune.errors import ConfigError
from embedtune.records import Role
from embedtune.settings import Auto, PositiveInt, Settings
from embedtune.training.lora import add_adapters
from embedtune.training.vocabulary import extend, new_words

if TYPE_CHECKING:
    from embedtune.training.plan import TrainingSettings

log = logging.getLogger(__name__)

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
OTHER_NAMES = {"last": "lasttoken", "weighted": "weightedmean"}
LONG_ENOUGH = 99  # percentile of the training texts' lengths that is read to the end
ENOUGH = 256  # tokens: what is learnt on short texts may be asked to read longer ones
MANY_CUT = 0.05  # of the training texts of a role: the limit is raised
RAISED_MOST = 512  # tokens; what was never read so long is not trusted further
STEP = 8  # tokens


class Prompts(Settings):
    """Texts put before each query and each passage, when training and ever after."""

    query: str = Field("", description='Before queries, e.g. "query: ".')
    document: str = Field("", description='Before passages, e.g. "passage: ".')


def _full_name(value: Any) -> Any:  # whatever the configuration holds
    return OTHER_NAMES.get(value, value) if isinstance(value, str) else value


class ModelSettings(Settings):
    """The model to start from."""

    base: tuple[str, ...] = Field(
        (DEFAULT_MODEL,),
        description="Name or folder; of several, dev chooses the one to train, as "
        "`embedtune candidates` does.",
    )
    pooling: Annotated[PoolingMode | Auto, BeforeValidator(_full_name)] = Field(
        "auto",
        description="How token vectors become one: mean, cls, max, lasttoken or weightedmean; "
        "auto: the model's own. A plain encoder has none, so it must be named.",
    )
    max_length: PositiveInt | Auto = Field(
        "auto",
        description="Tokens read of a text; auto: the model's own limit, or as many as 99 % of "
        "the training texts have, where that is less (256 at least) or where more than 5 % of "
        "them would be cut and the model can read more (512 at most).",
    )
    prompts: Prompts | Auto = Field(
        "auto",
        description="Texts before each query and each passage, saved with the model: "
        '{query: "query: ", document: "passage: "}; auto: the model\'s own.',
    )

    @field_validator("base", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("base")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(name.strip() for name in value):
            raise ValueError("name at least one model")
        return value


AS_IT_IS = ModelSettings()  # the default base, or any that is named beside


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done to a model, in sentences, and whether its weights have other shapes now than
    those of the base, so that the two could not be merged."""

    notes: tuple[str, ...]
    reshaped: bool


def prepare(
    model: Any,  # SentenceTransformer
    settings: ModelSettings,
    training: "TrainingSettings",
    *,
    queries: Sequence[str],
    passages: Sequence[str],
) -> Prepared:
    """Apply the settings to a loaded model, in place: pooling, prompts, vocabulary, length, then
    freezing and adapters. The same arguments give the same model.

    Args:
        queries: Those trained on, as lengths and new words are taken from them.
        passages: So are these.

    Raises:
        ConfigError: A setting does not fit the model.
    """
    notes: list[str] = []
    words: list[str] = []
    if settings.pooling != "auto":
        _pool_by(model, settings.pooling)
    if settings.prompts != "auto":
        _prompt_with(model, settings.prompts)
    if training.new_tokens != "off":
        _need_transformer(model, "training.new_tokens")
        words = new_words(model[0].tokenizer, [*queries, *passages], training.new_tokens)
        if words:
            extend(model, words)
        notes.append(_said_of_words(words))
    notes += _set_length(model, settings.max_length, queries, passages)
    if training.lora != "off":
        _need_transformer(model, "training.lora")
        network = model[0].model
        layers = _layers(network)[_frozen(training.freeze_layers, network) :]
        count = add_adapters(network, layers, training.lora, training.seed)
        every = sum(own.numel() for own in network.parameters())
        notes.append(f"LoRA trains {count:,} weights beside {every - count:,} that stay")
    elif training.freeze_layers:
        notes.append(_freeze(model, training.freeze_layers))
    for note in notes:
        log.info("%s", note)
    return Prepared(tuple(notes), bool(words))


def _need_transformer(model: Any, setting: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import PreTrainedTokenizerFast

    if not isinstance(model[0], Transformer):
        raise ConfigError(f"{setting}: the model is no transformer ({type(model[0]).__name__})")
    if not isinstance(model[0].tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{setting}: the model has no fast tokenizer (tokenizer.json)")


# ---- pooling, prompts, length


def _pool_by(model: Any, mode: PoolingMode) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    places = [place for place, module in enumerate(model) if isinstance(module, Pooling)]
    if len(places) != 1:
        raise ConfigError(f"model.pooling: {mode} asked for, but the model does no pooling; auto")
    old = model[places[0]]
    if old.pooling_mode in (mode, (mode,)):
        return
    new = Pooling(old.embedding_dimension, pooling_mode=mode, include_prompt=old.include_prompt)
    if new.pooling_output_dimension != old.pooling_output_dimension and any(
        hasattr(module, "in_features") for module in model
    ):
        raise ConfigError(
            f"model.pooling: the model's dense layer wants {old.pooling_output_dimension} numbers, "
            f"{mode} gives {new.pooling_output_dimension}; leave it at auto"
        )
    model[places[0]] = new


def _prompt_with(model: Any, prompts: Prompts) -> None:
    # other names (passage, corpus) or a default would be looked at too
    model.prompts = {"query": prompts.query, "document": prompts.document}
    model.default_prompt_name = None
    read_control_tokens_as_text(model)


def _set_length(
    model: Any, wanted: int | str, queries: Sequence[str], passages: Sequence[str]
) -> list[str]:
    own, limit = model.max_seq_length, longest_text(model)
    if not isinstance(own, int) or not hasattr(model[0], "tokenizer"):
        if wanted != "auto":
            raise ConfigError(
                f"model.max_length: {wanted}, but the model reads texts of any length"
            )
        return []
    if limit is not None and wanted != "auto" and wanted > limit:
        raise ConfigError(f"model.max_length: {wanted} is more than the {limit} tokens it can read")
    by_role = [_token_counts(model, queries, "query"), _token_counts(model, passages, "document")]
    counts = np.concatenate(by_role)
    if wanted == "auto":
        wanted = own if limit is None else min(own, limit)
        covering = max(map(_covering, by_role))
        if wanted > ENOUGH:
            wanted = min(wanted, max(ENOUGH, covering))
        if limit is not None and any(
            (role > wanted).mean() > MANY_CUT for role in by_role if len(role)
        ):
            wanted = max(wanted, min(covering, limit, RAISED_MOST))
    notes = [f"{wanted} tokens of a text are read, not {own}, as many are longer"] * (wanted > own)
    for name in ("query_length", "document_length"):  # lengths of its own for a role go first
        if (getattr(model[0], name, None) or 0) > wanted:
            setattr(model[0], name, wanted)
    model.max_seq_length = wanted
    cut = int((counts > wanted).sum())
    if cut:
        notes.append(f"{cut:,} of {len(counts):,} training texts are cut at {wanted} tokens")
    return notes


def _covering(counts: np.ndarray) -> int:
    """Tokens that nearly all texts of these lengths have at most, in whole steps."""
    if not len(counts):
        return 0
    longest = int(np.percentile(counts, LONG_ENOUGH, method="inverted_cdf"))
    return -(-longest // STEP) * STEP


def _token_counts(model: Any, texts: Sequence[str], role: Role) -> np.ndarray:
    prompt = model.prompts.get(role) or ""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return np.zeros(0, np.int64)
    found = model[0].tokenizer(
        [prompt + text for text in distinct], truncation=False, return_attention_mask=False,
        return_token_type_ids=False, verbose=False,
    )  # fmt: skip
    return np.array([len(ids) for ids in found["input_ids"]])


def _said_of_words(words: Sequence[str]) -> str:
    if not words:
        return "no word recurs that the tokenizer does not know"
    shown = ", ".join(words[:20])
    more = f" and {len(words) - 20:,} more" if len(words) > 20 else ""
    return f"{len(words):,} words are new to the tokenizer: {shown}{more}"


# ---- which weights change


def _layers(network: Any) -> list[tuple[str, Any]]:
    """(name, module) of the layers of a transformers model, lowest first."""
    import torch

    config = network.config
    count = getattr(config, "num_hidden_layers", None) or getattr(config, "n_layers", None)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return [(f"{name}.{place}", layer) for place, layer in enumerate(module)]
    raise ConfigError(
        f"training.lora, training.freeze_layers: the layers of {type(network).__name__} are not "
        "known; leave them at off and 0"
    )


def _frozen(wanted: int, network: Any) -> int:
    count = len(_layers(network))
    if wanted >= count:
        raise ConfigError(
            f"training.freeze_layers: {wanted} of the {count} layers leaves nothing to train; "
            f"{count - 1} at most"
        )
    return wanted


def _freeze(model: Any, wanted: int) -> str:
    _need_transformer(model, "training.freeze_layers")
    network = model[0].model
    layers = _layers(network)
    below = [layer for _, layer in layers[: _frozen(wanted, network)]]
    inside = {id(own) for _, layer in layers for own in layer.parameters()}
    embeddings = [
        own for name, own in network.named_parameters() if "embed" in name and id(own) not in inside
    ]
    for own in chain(embeddings, *(layer.parameters() for layer in below)):
        own.requires_grad_(False)
    return f"the embeddings and the {wanted} lowest of {len(layers)} layers are not trained"
