"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): few weights are trained, and what is saved
is a plain model with the adapters merged into its weights.
"""

import copy
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from embedtune.errors import ConfigError
from embedtune.settings import Auto, PositiveInt, Settings

INSTALL = "pip install 'embedtune[lora]'"


class LoraSettings(Settings):
    """Adapters in the place of whole weights."""

    rank: PositiveInt = Field(64, description="Inner size of an adapter.")
    alpha: Annotated[float, Field(gt=0)] = Field(
        128.0, description="What an adapter gives is multiplied by alpha / rank."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Of what goes into an adapter."
    )
    modules: list[str] | Auto = Field(
        "auto", description="Names of the products adapted (query, value); auto: all in a layer."
    )


def check_installed() -> None:
    """Raises ConfigError, with what to do, where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"training.lora: peft is not installed: {INSTALL}")


def add_adapters(
    network: Any, layers: Sequence[tuple[str, Any]], settings: LoraSettings, seed: int
) -> int:
    """Put an adapter on each product of ``layers``, in place; nothing but adapters is trained in
    ``network`` afterwards, and its output is what it was.

    Args:
        network: The transformers model.
        layers: (name within ``network``, module) of those that may change.

    Returns:
        The number of weights that are trained.

    Raises:
        ConfigError: peft is not installed, or no module has a name that was asked for.
    """
    check_installed()
    import peft
    import torch

    products = [
        f"{layer}.{name}"
        for layer, module in layers
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear)
    ]
    if settings.modules == "auto":
        wanted = products
    else:
        ends = tuple(f".{name}" for name in settings.modules)
        wanted = [name for name in products if name.endswith(ends)]
        unmet = [end[1:] for end in ends if not any(name.endswith(end) for name in products)]
        if unmet:
            known = sorted({name.rpartition(".")[2] for name in products})
            raise ConfigError(
                f"training.lora.modules: {', '.join(unmet)} is not in this model's layers; there "
                f"are {', '.join(known)}"
            )
    if not wanted:
        raise ConfigError("training.lora: the model's layers have no products to adapt")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=wanted,
            ),
            network,
        )
    return sum(own.numel() for own in network.parameters() if own.requires_grad)


def has_adapters(model: Any) -> bool:
    """Whether any module of a SentenceTransformer is adapted."""
    return any(hasattr(module, "lora_A") for module in model.modules())


def save_plain(model: Any, folder: Path) -> None:
    """Save a SentenceTransformer so that nobody sees adapters in it; ``model`` stays as it is."""
    if has_adapters(model):
        model = copy.deepcopy(model)  # merging back and forth would not be exact
        _merge(model)
    model.save(str(folder), create_model_card=False)


def _merge(model: Any) -> None:
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A"):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
