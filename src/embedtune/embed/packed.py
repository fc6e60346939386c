"""The fast forward and backward pass: all texts of a batch in one tensor without padding.

The weights are the model's own, so that training changes the model and nothing is written back.
"""

from array import array
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from embedtune.embed.packed_layers import FAMILIES, read_encoder, run_encoder
from embedtune.errors import ConfigError
from embedtune.files import clean_text
from embedtune.records import Role

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the first that a model has, as it looks


def packable(model: "SentenceTransformer") -> str:
    """Empty when `Packed` gives the vectors that ``model`` gives; else the reason why not."""
    import torch
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    modules = list(model)
    if len(modules) < 2 or type(modules[0]) is not Transformer or type(modules[1]) is not Pooling:
        return "its modules are not Transformer and Pooling"
    for module in modules[2:]:
        if type(module) not in (Dense, Normalize):
            return f"it has a module {type(module).__name__}"
        if isinstance(module, Dense) and not (
            module.module_input_name == module.module_output_name == "sentence_embedding"
        ):
            return "its Dense module changes something other than the embedding"
    if not modules[1].include_prompt:
        return "its pooling leaves out the prompt"
    return _transformer_fault(modules[0]) or _state_fault(model, torch)


def _transformer_fault(transformer: Any) -> str:  # sentence-transformers' Transformer
    from transformers import PreTrainedTokenizerBase

    network, config = transformer.model, transformer.model.config
    kind = type(network)
    if kind.__name__ not in FAMILIES or not kind.__module__.startswith("transformers.models."):
        return f"the fast path does not know {kind.__name__}"
    if getattr(config, "is_decoder", False):  # some families have no such field
        return "it is a decoder"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"its positions are {config.position_embedding_type}"
    way = transformer.modality_config
    if set(way) != {"text"} or way["text"] != {
        "method": "forward",
        "method_output_name": "last_hidden_state",
    }:
        return "it does not read plain text only"
    if transformer.module_output_name != "token_embeddings":
        return "its first module does not give token vectors"
    tokenizer = transformer.processor
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return "it has no tokenizer"
    if transformer.processing_kwargs or transformer.query_expansion:
        return "it has options of its own for the tokenizer"
    if any(tokenizer("a", return_token_type_ids=True)["token_type_ids"]):
        return "its tokenizer gives token types"
    return ""


def _state_fault(model: "SentenceTransformer", torch: Any) -> str:  # the module torch
    if model.device.type not in ("cpu", "cuda"):
        return f"it is on {model.device.type}"
    encoder = read_encoder(model[0].model)
    embeddings = (encoder.words, encoder.positions, *([encoder.types] if encoder.types else []))
    if any(type(module) is not torch.nn.Embedding for module in embeddings):
        return "its embeddings are wrapped"
    norms = [norm for layer in encoder.layers for norm in (layer.mixed_norm, layer.narrow_norm)]
    if any(type(module) is not torch.nn.LayerNorm for module in (encoder.norm, *norms)):
        return "its layer norms are wrapped"
    if any(weights.dtype != torch.float32 for weights in model.parameters()):
        return "its weights are not 32-bit numbers"
    for module in model.modules():
        hooks = (
            *module._forward_hooks.values(),
            *module._forward_pre_hooks.values(),
            *module._backward_hooks.values(),
            *module._backward_pre_hooks.values(),
        )
        if any(not str(hook.__module__).startswith("transformers.") for hook in hooks):
            return f"its {type(module).__name__} has hooks"
    return ""


def token_ids(model: "SentenceTransformer", texts: Sequence[str], role: Role) -> list[array]:
    """Ids as ``model`` would see each text: prompt before, cut to its length, special tokens in."""
    transformer = model[0]
    length = transformer.query_length if role == "query" else transformer.document_length
    longest = read_encoder(transformer.model).max_tokens
    prompt = prompt_of(model, role)
    if not texts:
        return []
    ids = transformer.processor(
        [prompt + clean_text(text) for text in texts],
        truncation="longest_first",
        max_length=min(length or transformer.max_seq_length or longest, longest),
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return [array("i", row) for row in ids]


def prompt_of(model: "SentenceTransformer", role: Role) -> str:
    """What ``model`` puts before a text of that role, as the library looks for it."""
    names = ("query",) if role == "query" else DOCUMENT_PROMPTS
    name = next((name for name in names if name in model.prompts), model.default_prompt_name)
    return model.prompts.get(name) or "" if name is not None else ""


class Packed:
    """A model's forward pass over flat tokens. Token ids of texts are kept between calls.

    Args:
        precision: Of the matrix products. Weights, sums, layer norms and what flows between the
            layers stay fp32.
        attention_dropout: Also drop attention probabilities where the model's configuration has
            it. Costs as much as the products it decorates.

    Raises:
        ConfigError: The model is not `packable`.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        *,
        precision: Precision = "fp32",
        attention_dropout: bool = False,
    ) -> None:
        if reason := packable(model):
            raise ConfigError(f"the fast path does not apply to this model: {reason}")
        import torch

        self.model = model
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            precision
        ]
        self._attention_dropout = attention_dropout
        self._encoder = read_encoder(model[0].model)
        self._known: dict[tuple[Role, str], array] = {}

    def token_ids(self, texts: Sequence[str], role: Role) -> list[array]:
        """As the function `token_ids`, each text tokenised once in the life of this object."""
        new = list(dict.fromkeys(text for text in texts if (role, text) not in self._known))
        for text, ids in zip(new, token_ids(self.model, new, role), strict=True):
            self._known[role, text] = ids
        return [self._known[role, text] for text in texts]

    def forward(
        self, sequences: Sequence[Sequence[int]], *, training: bool, share: bool = True
    ) -> "Tensor":
        """(n, dimension) fp32 embeddings in the order of ``sequences``, as the model's modules give
        them (not cut to its ``truncate_dim``); with a graph where gradients are enabled.

        Args:
            sequences: Token ids with the special tokens, none empty.
            training: Whether hidden states are dropped at random, as the model is configured.
            share: Sequences that recur are computed once, and share what dropout drops. False
                draws anew for each, as losses that compare a text with itself need.
        """
        import torch

        if not sequences:
            return torch.empty(0, self.model.get_embedding_dimension(), device=self.model.device)
        keys: list[Any] = [array("i", ids).tobytes() for ids in sequences]
        if not share:
            keys = list(zip(keys, range(len(keys)), strict=True))
        distinct = dict(zip(keys, sequences, strict=True))
        order = sorted(distinct, key=lambda key: (-len(distinct[key]), key))
        flat = array("i")
        for key in order:
            flat.extend(distinct[key])
        lengths = [len(distinct[key]) for key in order]
        device = self.model.device
        with torch.autocast(device.type, enabled=False):
            tokens = run_encoder(
                self._encoder, torch.frombuffer(flat, dtype=torch.int32).to(device), lengths,
                dtype=self.dtype, training=training, attention_dropout=self._attention_dropout,
            )  # fmt: skip
            vectors = _pool(tokens, lengths, self.model[1].pooling_mode)
            for module in list(self.model)[2:]:
                vectors = module({"sentence_embedding": vectors})["sentence_embedding"]
        place = {key: row for row, key in enumerate(order)}
        return vectors[torch.tensor([place[key] for key in keys], device=device)]


def _pool(tokens: "Tensor", lengths: Sequence[int], modes: str | Sequence[str]) -> "Tensor":
    """One vector a text from its tokens, as sentence-transformers' Pooling; modes side by side."""
    import torch

    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    modes = (modes,) if isinstance(modes, str) else modes
    return torch.cat(
        [
            torch.cat([_pooled(part.view(count, length, -1), mode) for mode in modes], dim=1)
            for part, (length, count) in zip(
                tokens.split([length * count for length, count in runs]), runs, strict=True
            )
        ]
    )


def _pooled(tokens: "Tensor", mode: str) -> "Tensor":
    """(n, length, width) to (n, width)."""
    import torch

    length = tokens.shape[1]
    if mode == "cls":
        return tokens[:, 0]
    if mode == "lasttoken":
        return tokens[:, -1]
    if mode == "max":
        return tokens.max(dim=1).values
    if mode == "mean":
        return tokens.mean(dim=1)
    if mode == "mean_sqrt_len_tokens":
        return tokens.sum(dim=1) / length**0.5
    weights = torch.arange(1, length + 1, device=tokens.device, dtype=tokens.dtype)
    return (tokens * weights[:, None]).sum(dim=1) / weights.sum()  # weightedmean
