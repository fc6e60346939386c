"""The parts of a Hugging Face encoder under one set of names, whatever its family calls them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedtune.embed.packed_attention import attend, group_texts, keep_mask

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layer:
    """The modules of one layer. They are the model's own: what an optimiser changes is seen."""

    query: "nn.Module"
    key: "nn.Module"
    value: "nn.Module"
    mixed: "nn.Module"  # the product after attention
    mixed_dropout: "nn.Dropout | None"
    mixed_norm: "nn.LayerNorm"
    attention_dropout: "nn.Dropout"
    wide: "nn.Module"
    activation: "Callable[[Tensor], Tensor]"
    narrow: "nn.Module"
    narrow_dropout: "nn.Dropout"
    narrow_norm: "nn.LayerNorm"


@dataclass(frozen=True, slots=True)
class Encoder:
    """Everything between token ids and token vectors."""

    words: "nn.Embedding"
    positions: "nn.Embedding"
    types: "nn.Embedding | None"
    norm: "nn.LayerNorm"
    dropout: "nn.Dropout"
    padding: int | None  # positions start after this id and skip it, as RoBERTa has it; None: at 0
    project: "nn.Module | None"
    layers: tuple[Layer, ...]
    heads: int
    bias: "Callable[[Tensor], Tensor] | None"  # of relative positions, for (1, n, any)

    @property
    def max_tokens(self) -> int:
        """The longest text that has positions."""
        before = 0 if self.padding is None else self.padding + 1
        return self.positions.num_embeddings - before


def _bert(model: Any) -> Encoder:  # any of the models of FAMILIES
    names = model.embeddings
    counts_padding = hasattr(names, "create_position_ids_from_input_ids")
    return Encoder(
        words=names.word_embeddings,
        positions=names.position_embeddings,
        types=names.token_type_embeddings,
        norm=names.LayerNorm,
        dropout=names.dropout,
        padding=names.padding_idx if counts_padding else None,
        project=getattr(model, "embeddings_project", None),
        layers=tuple(
            Layer(
                query=layer.attention.self.query,
                key=layer.attention.self.key,
                value=layer.attention.self.value,
                mixed=layer.attention.output.dense,
                mixed_dropout=layer.attention.output.dropout,
                mixed_norm=layer.attention.output.LayerNorm,
                attention_dropout=layer.attention.self.dropout,
                wide=layer.intermediate.dense,
                activation=layer.intermediate.intermediate_act_fn,
                narrow=layer.output.dense,
                narrow_dropout=layer.output.dropout,
                narrow_norm=layer.output.LayerNorm,
            )
            for layer in model.encoder.layer
        ),
        heads=model.config.num_attention_heads,
        bias=None,
    )


def _mpnet(model: Any) -> Encoder:
    names = model.embeddings
    return Encoder(
        words=names.word_embeddings,
        positions=names.position_embeddings,
        types=None,
        norm=names.LayerNorm,
        dropout=names.dropout,
        padding=names.padding_idx,
        project=None,
        layers=tuple(
            Layer(
                query=layer.attention.attn.q,
                key=layer.attention.attn.k,
                value=layer.attention.attn.v,
                mixed=layer.attention.attn.o,
                mixed_dropout=layer.attention.dropout,
                mixed_norm=layer.attention.LayerNorm,
                attention_dropout=layer.attention.attn.dropout,
                wide=layer.intermediate.dense,
                activation=layer.intermediate.intermediate_act_fn,
                narrow=layer.output.dense,
                narrow_dropout=layer.output.dropout,
                narrow_norm=layer.output.LayerNorm,
            )
            for layer in model.encoder.layer
        ),
        heads=model.config.num_attention_heads,
        bias=model.encoder.compute_position_bias,
    )


def _distilbert(model: Any) -> Encoder:
    names = model.embeddings
    return Encoder(
        words=names.word_embeddings,
        positions=names.position_embeddings,
        types=None,
        norm=names.LayerNorm,
        dropout=names.dropout,
        padding=None,
        project=None,
        layers=tuple(
            Layer(
                query=layer.attention.q_lin,
                key=layer.attention.k_lin,
                value=layer.attention.v_lin,
                mixed=layer.attention.out_lin,
                mixed_dropout=None,
                mixed_norm=layer.sa_layer_norm,
                attention_dropout=layer.attention.dropout,
                wide=layer.ffn.lin1,
                activation=layer.ffn.activation,
                narrow=layer.ffn.lin2,
                narrow_dropout=layer.ffn.dropout,
                narrow_norm=layer.output_layer_norm,
            )
            for layer in model.transformer.layer
        ),
        heads=model.config.n_heads,
        bias=None,
    )


FAMILIES: dict[str, Callable[[Any], Encoder]] = {
    "BertModel": _bert,
    "RobertaModel": _bert,
    "XLMRobertaModel": _bert,
    "CamembertModel": _bert,
    "ElectraModel": _bert,
    "MPNetModel": _mpnet,
    "DistilBertModel": _distilbert,
}


def read_encoder(model: Any) -> Encoder:
    """The parts of a model whose class is in ``FAMILIES``."""
    return FAMILIES[type(model).__name__](model)


def run_encoder(
    encoder: Encoder,
    ids: "Tensor",
    lengths: Sequence[int],
    *,
    dtype: Any,  # torch.dtype
    training: bool,
    attention_dropout: bool,
) -> "Tensor":
    """(tokens, width) fp32: the last hidden state of texts that lie end to end, longest first.

    Args:
        ids: (tokens,) int32.
        dtype: Of the matrix products and of the activations inside a layer.
        training: Whether hidden states are dropped; ``attention_dropout`` adds the probabilities.
    """
    import torch

    groups = group_texts(lengths, encoder.heads, ids.device)
    hidden = _embed(encoder, ids, lengths, training=training)
    bias = None
    if encoder.bias is not None:
        bias = encoder.bias(torch.empty(1, lengths[0], 1, device=ids.device))[0].to(dtype)
    for layer in encoder.layers:
        flat = hidden.to(dtype)
        dropout = layer.attention_dropout.p if training and attention_dropout else 0.0
        mixed = attend(
            _query_key_value(layer, flat, encoder.heads, training=training),
            groups, heads=encoder.heads, bias=bias, dropout=dropout,
        )  # fmt: skip
        mixed = _linear(layer.mixed, mixed, training=training)
        hidden = layer.mixed_norm(hidden + _dropped(mixed, layer.mixed_dropout, training).float())
        wide = layer.activation(_linear(layer.wide, hidden.to(dtype), training=training))
        narrow = _linear(layer.narrow, wide, training=training)
        hidden = layer.narrow_norm(
            hidden + _dropped(narrow, layer.narrow_dropout, training).float()
        )
    return hidden


def _embed(encoder: Encoder, ids: "Tensor", lengths: Sequence[int], *, training: bool) -> "Tensor":
    import torch

    sizes = torch.tensor(lengths, device=ids.device)
    starts = sizes.cumsum(0) - sizes
    if encoder.padding is None:
        places = torch.arange(len(ids), device=ids.device) - starts.repeat_interleave(sizes)
    else:  # a padding id inside a text takes no position
        counted = (ids != encoder.padding).long()
        before = counted.cumsum(0) - counted
        places = counted.cumsum(0) - before[starts].repeat_interleave(sizes)
        places = places * counted + encoder.padding
    hidden = encoder.words(ids)
    if encoder.types is not None:
        hidden = hidden + encoder.types.weight[0]
    hidden = encoder.norm(hidden + encoder.positions(places))
    hidden = _dropped(hidden, encoder.dropout, training)
    return hidden if encoder.project is None else encoder.project(hidden)


def _query_key_value(layer: Layer, flat: "Tensor", heads: int, *, training: bool) -> "Tensor":
    """(tokens, 3 × width), queries scaled; one product where the three are plain."""
    import torch
    from torch import nn
    from torch.nn import functional

    parts = (layer.query, layer.key, layer.value)
    if any(type(part) is not nn.Linear for part in parts):
        query, key, value = (_linear(part, flat, training=training) for part in parts)
        return torch.cat([query * (query.shape[1] // heads) ** -0.5, key, value], dim=1)
    scale = (layer.query.out_features // heads) ** -0.5
    weight = torch.cat([layer.query.weight * scale, layer.key.weight, layer.value.weight])
    bias = None
    if layer.query.bias is not None:
        bias = torch.cat([layer.query.bias * scale, layer.key.bias, layer.value.bias])
        bias = bias.to(flat.dtype)
    return functional.linear(flat, weight.to(flat.dtype), bias)


def _linear(module: "nn.Module", flat: "Tensor", *, training: bool) -> "Tensor":
    """A product in the type of ``flat``; modules that wrap one (LoRA) are called themselves."""
    import torch
    from torch.nn import functional

    if type(module) is torch.nn.Linear:
        bias = None if module.bias is None else module.bias.to(flat.dtype)
        return functional.linear(flat, module.weight.to(flat.dtype), bias)
    module.train(training)
    narrow = flat.dtype != torch.float32
    with torch.autocast(flat.device.type, flat.dtype if narrow else None, enabled=narrow):
        return module(flat).to(flat.dtype)


def _dropped(values: "Tensor", module: "nn.Dropout | None", training: bool) -> "Tensor":
    if module is None or not module.p or not training:
        return values
    return values * keep_mask(values, module.p)
