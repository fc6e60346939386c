"""Checkpoints that can be trusted after a kill: hashed when whole, set aside when not."""

import logging
import shutil
from pathlib import Path

from embedtune.files import read_json, sha256_of, write_json

log = logging.getLogger(__name__)

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
    found = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()),
        key=lambda path: int(path.name.split("-")[1]),
        reverse=True,
    )
    for path in found:
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
