"""Checkpoints that can be trusted after a kill: hashed when whole, set aside when not."""

import errno
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedtune.files import disk_errors, read_json, sha256_of, sync_folder, write_json

log = logging.getLogger(__name__)

STATE = "state.pt"
HASHES = "embedtune-checkpoint.json"


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as whole by writing the hashes of its files, last of all."""
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file())
    write_json(
        checkpoint / HASHES,
        {str(path.relative_to(checkpoint)): sha256_of(path) for path in files},
    )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files all have the hashes written after it.

    Half-written or damaged ones are set aside under ``damaged-`` and named in the log.
    """
    if not folder.is_dir():
        return None
    for path in _newest_first(folder):
        try:
            hashes = read_json(path / HASHES)
            whole = all(sha256_of(path / name) == digest for name, digest in hashes.items())
        except (OSError, ValueError, AttributeError):
            whole = False
        if whole:
            return path
        aside = folder / f"damaged-{path.name}"
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        log.warning("%s is not whole; set aside as %s", path.name, aside.name)
    return None


def save_state(folder: Path, step: int, parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``checkpoint-STEP``: the weights and states of ``parts``, the random numbers'
    state, and ``state`` (plain values). Beside, flushed, hashed; the name comes last.

    Raises:
        ResourceError: The disk is full; the earlier checkpoints are as they were.
    """
    import torch

    whole = {
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": {"torch": torch.get_rng_state(), "cuda": _gpu_states()},
        "state": dict(state),
    }
    aside = folder / f".checkpoint-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(aside):
        aside.mkdir(parents=True)
        try:
            with (aside / STATE).open("wb") as file:
                torch.save(whole, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # how torch says that a write failed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        seal(aside)
        sync_folder(aside)
        final = folder / f"checkpoint-{step}"
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        sync_folder(folder)


def load_state(checkpoint: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Give ``parts`` and the random numbers what ``save_state`` kept; its ``state`` comes back."""
    import torch

    whole = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(whole["parts"][name])
    torch.set_rng_state(whole["random"]["torch"])
    if whole["random"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(whole["random"]["cuda"])
    return whole["state"]


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what a kill left half-written."""
    for path in _newest_first(folder)[keep:]:
        shutil.rmtree(path)
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path)


def _gpu_states() -> list[Any]:
    import torch

    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _newest_first(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()),
        key=lambda path: int(path.name.split("-")[1]),
        reverse=True,
    )
