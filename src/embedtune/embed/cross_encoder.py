"""Cross-encoders: names to models that were checked."""

from typing import Any

from embedtune.embed.checks import read_json_object
from embedtune.embed.models import ResolvedModel, resolve_model
from embedtune.errors import ConfigError
from embedtune.files import visible


def load_cross_encoder(name: str, device: str | None, setting: str) -> Any:
    """The sentence-transformers CrossEncoder of that name or folder.

    Args:
        setting: Where the user named it; messages begin with it.

    Raises:
        ConfigError: There is no such model, it is no cross-encoder, or it gives more than one
            number a pair.
        ServiceError: It is not here, and the hub cannot be reached.
    """
    from sentence_transformers import CrossEncoder

    resolved = find_cross_encoder(name, setting)
    try:
        model = CrossEncoder(str(resolved.path), device=device, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{setting}: {visible(name)} cannot be loaded as a cross-encoder: {visible(error)}"
        ) from error
    if model.num_labels != 1:
        raise ConfigError(
            f"{setting}: {visible(name)} gives {model.num_labels} numbers a pair; a "
            "cross-encoder for relevance gives one"
        )
    return model


def find_cross_encoder(name: str, setting: str) -> ResolvedModel:
    """Where it is; told from an embedding model, which would load with a head of random numbers,
    by its configuration alone.

    Raises:
        ConfigError, ServiceError: As ``load_cross_encoder``.
    """
    try:
        resolved = resolve_model(name)
    except ConfigError as error:
        raise ConfigError([f"{setting}: {fault}" for fault in error.faults]) from error
    file = resolved.path / "config.json"
    kinds = read_json_object(file).get("architectures") if file.is_file() else None
    if (resolved.path / "1_Pooling").is_dir() or (
        isinstance(kinds, list) and any(str(kind).endswith("Model") for kind in kinds)
    ):
        raise ConfigError(
            f"{setting}: {visible(name)} is an embedding model; a cross-encoder reads query and "
            "passage together and gives one number, e.g. cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    return resolved
