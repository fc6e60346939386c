"""Everything that can be known to be wrong before anything is spent."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.documents.ocr import find_engine
from embedtune.errors import ConfigError
from embedtune.evaluation.systems import open_embedder, open_reranker, parse_systems
from embedtune.files import visible
from embedtune.pipeline.material import check_fits, check_helpers
from embedtune.pipeline.untrained import check_static, is_static, tokens_of
from embedtune.training.plan import TrainingSettings


def preflight(settings: RunSettings) -> None:
    """Everything that can be known to be wrong before the first stage, reported together.

    Raises:
        ConfigError: All faults found.
    """
    faults: list[str] = []

    def check(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    if settings.data is None:
        check(_check_paths, settings)
        check(find_engine, settings.documents.ocr)
        if settings.queries.source == "llm":
            from embedtune.llm.recorded import open_chat

            check(open_chat, settings.llm)
        if settings.queries.source == "file" and settings.queries.file is None:
            faults.append("queries.file: name the file, since queries.from is file")
    elif str(settings.data).startswith("hf:"):
        from embedtune.datasets.hub import parse_address

        check(parse_address, str(settings.data))
    elif not settings.data.exists():
        faults.append(f"data: {settings.data}: no such file or folder")
    elif settings.run.resolve().is_relative_to(settings.data.resolve()):
        faults.append(
            f"run: {settings.run} is inside data {settings.data}; choose a folder outside"
        )
    for name in settings.model.base:
        check(check_model, name, settings)
        if settings.data is None:
            check(check_length, settings, name)
    check(check_evaluation, settings)
    check(check_device, settings.training)
    check(check_helpers, settings.training)
    if settings.data is None:
        mined = settings.negatives.method not in ("auto", "none")
        check(partial(check_fits, (), settings.training, negatives=mined))
    if settings.training.trainer:
        from embedtune.training.plain import validate_trainer_fields

        check(validate_trainer_fields, settings.training.trainer)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


def _check_paths(settings: RunSettings) -> None:
    faults = []
    if not settings.documents.paths:
        faults.append("documents.paths: name the files or folders to read (or set data)")
    target = settings.run.resolve()
    for path in map(Path, settings.documents.paths):
        if not os.path.lexists(path):
            faults.append(f"documents.paths: {visible(path)}: no such file or folder")
        elif path.is_dir() and target.is_relative_to(path.resolve()):
            faults.append(
                f"run: {settings.run} is inside the documents folder {path}: the next run would "
                "read its own output; choose a folder outside"
            )
    if faults:
        raise ConfigError(faults)


def check_model(name: str, settings: RunSettings) -> None:
    """A base whose files are whole and that has the dimensions asked for, seen without torch.

    Raises:
        ConfigError: It is not found, ``training.matryoshka`` goes beyond it, or an extra that the
            training needs is not installed.
        IntegrityError: Its files are damaged.
    """
    from embedtune.embed.checks import check_model_folder, dimension_in
    from embedtune.embed.models import resolve_model
    from embedtune.training import lora, tpe
    from embedtune.training.plan import matryoshka_dimensions

    if is_static(name):
        check_static(name, settings.training)
        return
    resolved = resolve_model(name)
    check_model_folder(resolved.path, modules_required=settings.model.pooling == "auto")
    if settings.training.lora != "off":
        lora.check_installed()
    if settings.training.search == "optuna":
        tpe.check_installed()
    dimension = dimension_in(resolved.path)
    if dimension is not None:
        matryoshka_dimensions(settings.training.matryoshka, dimension)


def check_evaluation(settings: RunSettings) -> None:
    """Rivals that can be opened, and a probe that is there; known before anything is trained.

    Raises:
        ConfigError: All faults found.
    """
    from embedtune.embed.models import resolve_model
    from embedtune.pipeline.tune import probe_sets

    faults: list[str] = []
    for system in parse_systems(settings.evaluation.rivals):
        try:
            if system.first:
                open_reranker(system)
            used = system.first or system
            if used.embedder == "local":
                resolve_model(used.model)
            elif used.embedder:
                open_embedder(used)
        except ConfigError as error:
            faults += [f"evaluation.rivals: {fault}" for fault in error.faults]
    try:
        probe_sets(settings.evaluation.probe)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)


def check_device(training: TrainingSettings) -> None:
    """A device and precision that torch can use; torch is only asked about unusual ones.

    Raises:
        ConfigError: It has no such device, or cannot compute so there.
    """
    from embedtune.training.plan import device_and_precision

    if training.device not in ("auto", "cpu") or training.precision == "fp16":
        device_and_precision(training)


def check_length(settings: RunSettings, model: str) -> None:
    """Refuse chunks that the model would not see to their end."""
    wanted, max_tokens = settings.chunks.tokens, tokens_of(model).max_tokens
    if wanted != "auto" and wanted > max_tokens:
        raise ConfigError(
            f"chunks.tokens: {wanted} is more than the {max_tokens} tokens {model} reads: it would "
            f"not see the last {1 - max_tokens / wanted:.0%} of a full chunk; use {max_tokens} or "
            "auto"
        )
