"""One stage at a time, for the commands that do a part of the job over plain folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.errors import ConfigError
from embedtune.pipeline.console import Console
from embedtune.pipeline.preflight import (
    check_length,
)
from embedtune.pipeline.recipes import (
    chunk_recipe,
    open_recorded_chat,
    query_recipe,
    read_recipe,
    split_recipe,
)
from embedtune.pipeline.steps import (
    Step,
    chunk_step,
    preview_step,
    query_step,
    read_step,
    split_step,
)
from embedtune.pipeline.stored import answers_beside, load_rejects
from embedtune.pipeline.untrained import (
    tokens_of,
)
from embedtune.queries import Preview
from embedtune.records import Counts, Reject
from embedtune.run import MANIFEST, Recipe, StageFolder, build_folder
from embedtune.store import Store


@dataclass(frozen=True, slots=True)
class Part:
    """The folder that a data command left, and its account."""

    out: Path
    counts: Counts
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]


def read_into(paths: Sequence[Path], out: Path, settings: RunSettings, console: Console) -> Part:
    """``embedtune read``: documents.jsonl and rejects.jsonl in ``out``."""
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"--out {out} is inside {path}: choose a folder outside the input")
    with answers_beside(out, settings.cleaning.ask is not None) as store:
        chat = open_recorded_chat(settings, store) if store else None
        recipe = read_recipe(settings, paths, chat)
        return _part(
            "read", out, recipe, lambda folder: read_step(paths, folder, chat, settings, console)
        )


def chunk_into(documents: Path, out: Path, settings: RunSettings, console: Console) -> Part:
    """``embedtune chunk``: chunks.jsonl in ``out``; the documents are kept beside them."""
    source = _left_by("read", documents, "documents.jsonl")
    tokens = tokens_of(settings.model.base[0])
    check_length(settings, settings.model.base[0])
    recipe = chunk_recipe(settings, source.digest, tokens.name)

    def build(folder: Path) -> Step:
        step = chunk_step(documents, folder, tokens, settings, console)
        _copy(documents / "documents.jsonl", folder)
        return step

    return _part("chunk", out, recipe, build)


def generate_into(chunks: Path, out: Path, settings: RunSettings, console: Console) -> Part:
    """``embedtune generate``: queries.jsonl in ``out``; answers are stored beside it."""
    source = _left_by("chunk", chunks, "chunks.jsonl")
    with Store(out.parent / "answers.sqlite") as store:
        chat = open_recorded_chat(settings, store)
        recipe = query_recipe(settings, "", source.digest, chat)
        return _part(
            "generate",
            out,
            recipe,
            lambda folder: query_step(chunks, chunks, folder, chat, settings, console),
        )


def preview(
    chunks: Path, out: Path, count: int, settings: RunSettings, console: Console
) -> Preview:
    """``embedtune generate --preview``: the queries of a few chunks; the answers are kept beside
    ``out``, so that the full command does not pay for them again.

    Raises:
        ConfigError: No language model writes the queries.
    """
    _left_by("chunk", chunks, "chunks.jsonl")
    live = settings.llm.model_copy(update={"mode": "live"})  # of the same request keys
    with Store(out.parent / "answers.sqlite") as store:
        chat = open_recorded_chat(settings.model_copy(update={"llm": live}), store)
        if chat is None or settings.queries.source != "llm":
            raise ConfigError("--preview: only queries that a language model writes are previewed")
        return preview_step(chunks, chunks, chat, count, settings, console)


def split_into(
    chunks: Path, queries: Path, out: Path, settings: RunSettings, console: Console
) -> Part:
    """``embedtune split``: a BEIR folder with train, dev and test in ``out``."""
    sources = (
        _left_by("chunk", chunks, "chunks.jsonl"),
        _left_by("generate", queries, "queries.jsonl"),
    )
    recipe = split_recipe(settings, *(source.digest for source in sources))
    return _part(
        "split",
        out,
        recipe,
        lambda folder: split_step(out.name, chunks, queries, folder, settings, console),
    )


def _part(name: str, out: Path, recipe: Recipe, build: Any) -> Part:
    done = build_folder(out, recipe, lambda folder: build(folder).facts(), fresh=True)
    return Part(
        out, Counts(**done.facts["counts"][name]), load_rejects(out), tuple(done.facts["notes"])
    )


def _left_by(command: str, folder: Path, file: str) -> StageFolder:
    """A folder that another command left, whole."""
    from embedtune.run import find_stage, verify

    if not (folder / file).is_file() or not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder}: expected a folder left by `embedtune {command}`, with {file}")
    stage = find_stage(folder.parent, folder.name)
    if stage is None:
        raise ConfigError(f"{folder}: expected a folder left by `embedtune {command}`")
    verify(stage)
    return stage


def _copy(file: Path, folder: Path) -> None:
    from embedtune.files import write_bytes

    write_bytes(folder / file.name, file.read_bytes())
