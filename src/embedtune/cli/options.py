"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.errors import ConfigError
from embedtune.files import visible

if TYPE_CHECKING:
    from embedtune.config import RunSettings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No messages on standard error.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; see `embedtune init`.")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Set one setting, e.g. chunks.tokens=128."),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder to write; made whole or not at all.")
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", help="BEIR folder; file or folder of pairs, triplets, …; hf:OWNER/NAME."
    ),
]
Columns = Annotated[
    str,
    typer.Option("--columns", help="Columns by role, e.g. anchor=question,positive=answer."),
]
Split = Annotated[str, typer.Option("--split", help="Which qrels to use.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Near-duplicates across given splits are an error.")
]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", min=0, help="Time for finding a recipe and training with it."),
]


IndexPlace = Annotated[
    str, typer.Option("--index", help="Folder or address that `embedtune index` filled.")
]
IndexModel = Annotated[
    str | None, typer.Option("--model", help="Where the model of the index is now.")
]
How = Annotated[str, typer.Option("--how", help="auto, dense, bm25 or hybrid.")]
Rerank = Annotated[
    str | None, typer.Option("--rerank", help="Cross-encoder that reads the best again.")
]
HOW = ("auto", "dense", "bm25", "hybrid")


def check_how(how: str) -> None:
    """Raises ConfigError for a ``--how`` that is none."""
    if how not in HOW:
        raise ConfigError(f"--how {visible(how)}: expected one of {', '.join(HOW)}")


def within(minutes: float | None) -> list[str]:
    """``--minutes`` as an override."""
    return [] if minutes is None else [f"training.minutes={minutes:g}"]


def load_settings(config: Path | None, overrides: list[str], columns: str = "") -> "RunSettings":
    """The settings of file and command line; ``--columns`` over those of the file."""
    from embedtune.config import load_config, load_environment

    load_environment(Path.cwd())
    settings = load_config(config, overrides)
    if columns:
        from embedtune.datasets.columns import parse_columns

        settings = settings.model_copy(update={"columns": parse_columns(columns)})
    return settings
