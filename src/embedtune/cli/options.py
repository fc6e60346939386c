"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

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
    Path, typer.Option("--data", help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv.")
]
Split = Annotated[str, typer.Option("--split", help="Which qrels to use.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Near-duplicates across given splits are an error.")
]
