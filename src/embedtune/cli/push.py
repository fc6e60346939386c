"""The command that sends a model or a data set to a hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import Json, Quiet

if TYPE_CHECKING:
    from embedtune.pipeline.pushing import PushOutcome


def push(
    place: Annotated[Path, typer.Argument(help="Run directory or model folder.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    data: Annotated[
        bool, typer.Option("--data", help="The data set of the run (or a BEIR folder).")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may read it; else it is private.")
    ] = False,
    revision: Annotated[
        str, typer.Option("--revision", help="Branch; made if there is none.")
    ] = "",
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also against the verdict, or without one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent; needs no network.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Send a model with its card, or a data set, to a Hugging Face hub; private by default.

    Example: embedtune push run/ my-team/handbook-embedder
    """
    from embedtune.config import load_environment
    from embedtune.pipeline.pushing import push_from

    load_environment(Path.cwd())
    outcome = push_from(
        place,
        repository,
        Console(quiet=quiet),
        data=data,
        public=public,
        revision=revision,
        message=message,
        anyway=anyway,
        dry_run=dry_run,
    )
    emit(outcome.as_json(), as_json=json, text=lambda: _told(outcome))
    return 0


def _told(outcome: "PushOutcome") -> str:
    done = outcome.pushed
    if done is None:
        return "\n".join([*outcome.lines(), "a dry run: nothing was sent"])
    seen = "private" if done.private else "public"
    lines = [
        f"pushed to {outcome.repository} ({seen}): {done.url}"
        if done.changed
        else f"{outcome.repository} ({seen}) has all of it already: {done.url}"
    ]
    if done.kept:
        lines.append(f"there before, and left as they are: {', '.join(done.kept)}")
    return "\n".join(lines)
