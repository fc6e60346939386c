"""The command export: a model in another form, for faster encoding."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import Columns, Config, Json, Out, Overrides, Quiet, load_settings

if TYPE_CHECKING:
    from embedtune.config import RunSettings


def export(
    model: Annotated[str, typer.Argument(help="Model name or folder.")],
    to: Annotated[str, typer.Option("--to", help="onnx, onnx-int8, openvino or static.")],
    out: Out,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data set or run, on whose dev split the result is checked."),
    ] = None,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Turn a model into a form that encodes faster, and check it against the model.

    Example: embedtune export model/ --to openvino --out fast/ --data data/
    """
    from embedtune.errors import IntegrityError

    settings = load_settings(config, overrides, columns)
    if to == "static":
        return _static(model, out, data, settings, as_json=json, quiet=quiet)
    from embedtune.pipeline.exporting import export_into

    found = export_into(model, to, out, data, settings, Console(quiet=quiet))
    emit(found.as_json(), as_json=json, text=found.text)
    if found.check.outcome == "not good":
        raise IntegrityError(f"{out}: not good: {'; '.join(found.check.reasons)}")
    return 4 if found.unusable else 0


def _static(
    model: str,
    out: Path,
    data: Path | None,
    settings: "RunSettings",
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    from embedtune.errors import ConfigError
    from embedtune.pipeline.distilling import distil_into, told
    from embedtune.pipeline.stored import DATASET

    if data is None:
        raise ConfigError("--to static: give --data, whose passages the static model is made of")
    source = data / DATASET if (data / DATASET).is_dir() else data
    found = distil_into(model, source, out, settings, Console(quiet=quiet))
    emit(found.as_json(), as_json=as_json, text=lambda: told(found))
    return 4 if found.unusable else 0
