"""Commands that make data: read, chunk, generate, split, mine, convert; and audit."""

from pathlib import Path
from typing import Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import Columns, Config, Data, Json, Out, Overrides, Quiet, load_settings

BASE = "sentence-transformers/all-MiniLM-L6-v2"

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

    return _finish(
        read_into(paths, out, load_settings(config, overrides), Console(quiet=quiet)), json
    )


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
        chunk_into(documents, out, load_settings(config, overrides), Console(quiet=quiet)), json
    )


def generate(
    chunks: Folder,
    out: Out,
    preview: Annotated[
        int | None, typer.Option("--preview", min=1, help="Show the queries of so many chunks.")
    ] = None,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Queries for chunks, from a language model, without one, or from a file: queries.jsonl.

    Answers are stored before they are read; run it again to go on after a stop.

    Example: embedtune generate work/chunks --out work/queries --set llm.model=deepseek-chat
    """
    from embedtune.pipeline import parts

    settings, console = load_settings(config, overrides), Console(quiet=quiet)
    if preview:
        from embedtune.cli.runs import show_preview

        show_preview(parts.preview(chunks, out, preview, settings, console), json)
        return 0
    return _finish(parts.generate_into(chunks, out, settings, console), json)


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
        split_into(chunks, queries, out, load_settings(config, overrides), Console(quiet=quiet)),
        json,
    )


def audit(
    data: Data,
    model: Annotated[
        str, typer.Option("--model", help="Whose tokens are counted: the base, or the model used.")
    ] = BASE,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 7 where a finding should stop training.")
    ] = False,
    json: Json = False,
) -> int:
    """What is wrong with a data set: leaks, duplicates, contradictions, cut and unreadable texts.

    Nothing is changed. It takes any format that train takes.

    Example: embedtune audit --data data/ --model BAAI/bge-small-zh-v1.5 --json
    """
    from embedtune.errors import IntegrityError
    from embedtune.pipeline.audit import audit_data
    from embedtune.records import unusable

    found, source = audit_data(data, model, load_settings(config, overrides, columns))
    emit(found.as_json(), as_json=json, text=lambda: "\n".join(found.lines()))
    if strict and found.stops:
        raise IntegrityError(f"{data}: the audit found what should stop training (--strict)")
    return 4 if unusable(source.rejects) else 0


def mine(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl, .csv, …")],
    base: Annotated[str, typer.Option("--base", help="Model that finds the negatives.")] = BASE,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Triplets for the train queries of a data set, with negatives that are none of the answers.

    Example: embedtune mine --data data/ --base model/ --out triplets.jsonl --set negatives.count=2
    """
    from dataclasses import asdict

    from embedtune.pipeline.models import mine_triplets

    settings = load_settings(config, overrides, columns)
    found = mine_triplets(data, base, out, settings, Console(quiet=quiet))
    account = {key: value for key, value in asdict(found.account).items() if key != "settings"}
    result = {
        "out": str(found.out),
        "triplets": found.rows,
        "false_negative_rate": found.account.false_negative_rate,
        **account,
    }
    emit(
        result,
        as_json=json,
        text=lambda: "\n".join([*found.account.lines(), f"{found.out}: {found.rows} triplets"]),
    )
    return 4 if found.unusable else 0


def convert(
    data: Data,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="pairs, triplets, scored, binary, labelled, beir or llama_index."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File (.jsonl, .csv, .parquet, .json) or folder.")
    ],
    kind: Annotated[
        str, typer.Option("--type", help="Of a folder's files: jsonl, csv, parquet, json, hf.")
    ] = "jsonl",
    base: Annotated[
        str, typer.Option("--base", help="Model that finds negatives, where triplets need some.")
    ] = BASE,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """A data set in another of the field's formats, as sentence-transformers and datasets read it.

    Example: embedtune convert --data data/ --to triplets --out triplets/
    """
    from embedtune.pipeline.convert import convert_data

    settings = load_settings(config, overrides, columns)
    found = convert_data(data, to, out, kind, base, settings, Console(quiet=quiet))
    rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    result = {
        "out": str(found.out),
        "from": found.format,
        "to": to,
        "rows": dict(found.rows),
        "notes": list(found.notes),
    }
    emit(result, as_json=json, text=lambda: f"{found.out}: {found.format} to {to}: {rows}")
    return 4 if found.unusable else 0


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
