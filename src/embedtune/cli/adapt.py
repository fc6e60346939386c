"""``embedtune adapt``: better queries for a model that cannot be tuned."""

from typing import Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import (
    Columns,
    Config,
    Data,
    Json,
    Out,
    Overrides,
    Quiet,
    Split,
    Strict,
    load_settings,
)
from embedtune.errors import ConfigError


def adapt(
    system: Annotated[str, typer.Argument(help="openai:MODEL, cohere:MODEL or MODEL.")],
    data: Data,
    out: Out,
    rank: Annotated[
        str, typer.Option("--rank", help="Directions a query may be moved in: a number, or auto.")
    ] = "auto",
    split: Split = "test",
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    strict: Strict = False,
    require: Annotated[
        str, typer.Option("--require", help="Verdicts that are good enough; else 9.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """An adapter on the queries of a model that cannot be tuned, and its verdict; documents stay.

    Example: embedtune adapt openai:text-embedding-3-small --data data/ --out adapter/
    """
    from embedtune.cli.runs import Required, judgement_text
    from embedtune.pipeline.adapting import adapt_into, told

    settings = load_settings(config, overrides, columns)
    wanted = Required(require)
    if rank != "auto" and not (rank.isascii() and rank.isdigit() and int(rank)):
        raise ConfigError(f"--rank: expected auto or a whole number above 0, found {rank!r}")
    found = adapt_into(
        system, data, out, settings, Console(quiet=quiet),
        rank=None if rank == "auto" else int(rank), split=split, strict=strict,
    )  # fmt: skip
    emit(
        {"data": str(data), **found.as_json()},
        as_json=json,
        text=lambda: "\n".join([*told(found.facts), "", judgement_text(found.judgement)]),
    )
    wanted.check(found.judgement.verdict.verdict)
    return 4 if found.unusable else 0
