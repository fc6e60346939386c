"""What a training needs of memory and disk, told before it begins."""

import shutil
from pathlib import Path
from typing import Any

from embedtune.errors import ResourceError

SHARE = 1 / 3  # of the free memory that activations may take
MOST_TOKENS = 32_768  # at once: beyond, nothing gets faster
COPIES = (
    3 * 3 + 2
)  # on disk: two checkpoints and one being written, of weights and two moments; best


def affordable_tokens(model: Any, device: str) -> int:
    """Tokens whose activations a share of the free memory holds; at least one full text.

    Counts 16 vectors of the hidden size a layer and token, and the attention scores twice.
    """
    import torch

    longest = int(model.max_seq_length or 512)
    config = getattr(model[0], "auto_model", None)
    config = getattr(config, "config", None)
    layers = getattr(config, "num_hidden_layers", None) or getattr(config, "n_layers", None)
    if not layers:  # no transformer: a table of vectors
        return MOST_TOKENS
    hidden = getattr(config, "hidden_size", 0) or getattr(config, "dim", 768)
    heads = getattr(config, "num_attention_heads", 0) or getattr(config, "n_heads", 12)
    a_token = 4 * layers * (16 * hidden + 2 * heads * longest)
    if device.startswith("cuda"):
        free = torch.cuda.mem_get_info(torch.device(device))[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    return max(longest, min(MOST_TOKENS, int(SHARE * free / a_token)))


def check_disk(model: Any, work: Path) -> None:
    """Raises ResourceError where the checkpoints of a training would not find room."""
    weights = sum(own.numel() * own.element_size() for own in model.parameters())
    needed, free = COPIES * weights, shutil.disk_usage(work).free
    if free < needed:
        raise ResourceError(
            f"{work}: training needs about {needed / 1e9:.1f} GB for its checkpoints, "
            f"{free / 1e9:.1f} GB are free; free some space and run the same command again"
        )
