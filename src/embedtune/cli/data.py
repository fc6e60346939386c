"""Commands that make data: read, chunk, generate, split. Each leaves a folder."""

from pathlib import Path
from typing import Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import Config, Json, Out, Overrides, Quiet

Folder = Annotated[Path, typer.Argument(help="Folder left by the command before.")]


def read(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    out: Out,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Documents to text: documents.jsonl and rejects.jsonl.

    Example: embedtune read docs/ --out work/documents
    """
    from embedtune.pipeline.parts import read_into

    return _finish(read_into(paths, out, _settings(config, overrides), Console(quiet=quiet)), json)


def chunk(
    documents: Folder,
    out: Out,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Documents to chunks of the model's tokens: chunks.jsonl.

    Example: embedtune chunk work/documents --out work/chunks --set chunks.tokens=128
    """
    from embedtune.pipeline.parts import chunk_into

    return _finish(
        chunk_into(documents, out, _settings(config, overrides), Console(quiet=quiet)), json
    )


def generate(
    chunks: Folder,
    out: Out,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Queries for chunks, from a language model, without one, or from a file: queries.jsonl.

    Answers are stored before they are read; run it again to go on after a stop.

    Example: embedtune generate work/chunks --out work/queries --set llm.model=deepseek-chat
    """
    from embedtune.pipeline.parts import generate_into

    return _finish(
        generate_into(chunks, out, _settings(config, overrides), Console(quiet=quiet)), json
    )


def split(
    chunks: Annotated[Path, typer.Argument(help="Folder left by chunk.")],
    queries: Annotated[Path, typer.Argument(help="Folder left by generate.")],
    out: Out,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Chunks and queries to a BEIR folder with leak-free train, dev and test.

    Example: embedtune split work/chunks work/queries --out work/data
    """
    from embedtune.pipeline.parts import split_into

    return _finish(
        split_into(chunks, queries, out, _settings(config, overrides), Console(quiet=quiet)), json
    )


def _settings(config: Path | None, overrides: list[str]):
    from embedtune.config import load_config, load_environment

    load_environment(Path.cwd())
    return load_config(config, overrides)


def _finish(part, json: bool) -> int:
    """Counts on the last line of standard output; 4 when some input was unusable."""
    from dataclasses import asdict

    from embedtune.pipeline.console import counts_line
    from embedtune.records import unusable

    result = {
        "out": str(part.out),
        "counts": asdict(part.counts),
        "rejects": len(part.rejects),
        "notes": list(part.notes),
    }
    emit(result, as_json=json, text=lambda: f"{part.out}: {counts_line(part.counts)}")
    return 4 if unusable(part.rejects) else 0
