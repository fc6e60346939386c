"""What a training needs of memory and disk, told before it begins, or when there is no more."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedtune.errors import ResourceError

SHARE = 1 / 3  # of the free memory that activations may take
MOST_TOKENS = 32_768  # at once: beyond, nothing gets faster
COPIES = (
    3 * 3 + 2
)  # on disk: two checkpoints and one being written, of weights and two moments; best

FULL = (  # as safetensors and torch say it
    "No space left", "File too large", "Disk quota exceeded",
    "PytorchStreamWriter failed", "iostream error", "unexpected pos",
)  # fmt: skip


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
        free //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that train together
    return max(longest, min(MOST_TOKENS, int(SHARE * free / a_token)))


def check_disk(model: Any, work: Path, further: int = 0) -> None:
    """Raises ResourceError where the checkpoints of a training, and so many ``further`` models,
    would not find room."""
    needed, free = (COPIES + further) * _size(model), shutil.disk_usage(work).free
    if free < needed:
        raise ResourceError(
            f"{work}: training needs about {needed / 1e9:.1f} GB for its checkpoints, "
            f"{free / 1e9:.1f} GB are free; free some space and run the same command again"
        )


@contextmanager
def told_when_full(folder: Path, model: Any) -> Iterator[None]:
    """Turn whatever a library says of a disk that became full into a ``ResourceError`` with what
    a checkpoint needs and what is free."""
    try:
        yield
    except Exception as error:  # safetensors, torch and the system say it each in its own way
        if not _disk_is_full(error):
            raise
        free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free
        raise ResourceError(
            f"{folder}: no space left: a checkpoint needs about {3 * _size(model):,} bytes, "
            f"{free:,} are free; the earlier ones are as they were; free some space and run the "
            "same command again"
        ) from error


def _size(model: Any) -> int:
    return sum(own.numel() * own.element_size() for own in model.parameters())


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if isinstance(error, OSError) and error.errno in full:
            return True
        if any(said in str(error) for said in FULL):
            return True
        error = error.__cause__
    return False
