"""Commands over models: candidates, train, merge, distil, evaluate, compare."""

from pathlib import Path
from typing import Annotated

import typer

from embedtune.cli.console import Console, emit
from embedtune.cli.options import (
    Columns,
    Config,
    Data,
    Json,
    Minutes,
    Out,
    Overrides,
    Quiet,
    Split,
    Strict,
    load_settings,
    within,
)

Require = Annotated[str, typer.Option("--require", help="Verdicts that are good enough; else 9.")]


def candidates(
    data: Data,
    models: Annotated[
        list[str],
        typer.Argument(help="[label=]MODEL, static; without any, those of the config and at hand."),
    ] = [],  # noqa: B006  (typer copies it)
    axes: Annotated[
        str,
        typer.Option("--try", help="Of the one taken, some of pooling,prompts,prefix."),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="YAML file for the settings chosen.")
    ] = None,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Rank base models on dev before any training: quality, speed, size, licence, languages.

    Example: embedtune candidates --data data/ all-MiniLM-L6-v2 BAAI/bge-small-en-v1.5 static
    """
    from embedtune.cli.candidates import candidates_text
    from embedtune.pipeline.candidates import rank_candidates

    settings = load_settings(config, overrides, columns)
    wanted = [axis.strip() for axis in axes.split(",") if axis.strip()]
    found = rank_candidates(data, models, settings, Console(quiet=quiet), axes=wanted, out=out)
    emit(
        {"data": str(data), **found.as_json()},
        as_json=json,
        text=lambda: candidates_text(found),
    )
    return 4 if found.unusable else 0


def train(
    data: Data,
    out: Out,
    base: Annotated[str, typer.Option("--base", help="Model name or folder to start from.")],
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    minutes: Minutes = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget a half-done training in OUT.")
    ] = False,
    strict: Strict = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Fine-tune a model on your data; only its train and dev splits are used.

    Example: embedtune train --data data/ --base sentence-transformers/all-MiniLM-L6-v2 --out model/
    """
    from embedtune.pipeline.models import train_into

    settings = load_settings(config, [*overrides, *within(minutes)], columns)
    trained = train_into(
        data, base, out, settings, Console(quiet=quiet), fresh=fresh, strict=strict
    )
    emit(trained.facts, as_json=json, text=lambda: trained.text())
    return 4 if trained.unusable else 0


def merge(
    models: Annotated[list[str], typer.Argument(help="Tuned models; of several, their mean.")],
    out: Out,
    base: Annotated[str | None, typer.Option("--base", help="Model to go back towards.")] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", min=0, max=1, help="Weight of the tuned models.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set whose dev split chooses alpha.")
    ] = None,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Average tuned models, and take them part of the way back to their base.

    Example: embedtune merge model/ --base all-MiniLM-L6-v2 --data data/ --out merged/
    """
    from embedtune.pipeline.merging import merge_models, told

    settings = load_settings(config, overrides, columns)
    facts = merge_models(models, base, out, settings, Console(quiet=quiet), alpha=alpha, data=data)
    emit(facts, as_json=json, text=lambda: told(facts))
    return 0


def distil(
    model: Annotated[str, typer.Argument(help="The model to imitate: name or folder.")],
    data: Data,
    out: Out,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a static model, small and very fast, that imitates a model on your passages.

    Example: embedtune distil model/ --data data/ --out static/
    """
    from embedtune.pipeline.distilling import distil_into, told

    settings = load_settings(config, overrides, columns)
    found = distil_into(model, data, out, settings, Console(quiet=quiet))
    emit(found.as_json(), as_json=json, text=lambda: told(found))
    return 4 if found.unusable else 0


def evaluate(
    data: Data,
    systems: Annotated[
        list[str], typer.Argument(help="[label=]MODEL, bm25, hybrid:MODEL or openai:MODEL.")
    ] = [],  # noqa: B006  (typer copies it)
    split: Split = "test",
    runs: Annotated[
        list[str], typer.Option("--run", help="TREC run file as a further system: [LABEL=]FILE.")
    ] = [],  # noqa: B006
    qrels: Annotated[
        Path | None, typer.Option("--qrels", help="TREC qrels in place of those of the split.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for systems.csv, per_query.csv and TREC files."),
    ] = None,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure systems side by side, by what the data is: ranking, triplets, scores or labels.

    Example: embedtune evaluate --data data/ bm25 all-MiniLM-L6-v2 tuned=model/ hybrid:model/
    """
    from embedtune.cli.measures import evaluation_text
    from embedtune.pipeline.measures import check_out
    from embedtune.pipeline.models import evaluate_systems

    settings = load_settings(config, overrides, columns)
    if out is not None:
        check_out(out)
    found = evaluate_systems(
        data, split, systems, settings, Console(quiet=quiet), runs=runs, qrels=qrels
    )
    if out is not None:
        found.write(out)
    emit(
        {"data": str(data), **found.as_json()},
        as_json=json,
        text=lambda: evaluation_text(found),
    )
    return 4 if found.unusable else 0


def compare(
    data: Data,
    base: Annotated[str, typer.Option("--base", help="The untuned model.")],
    tuned: Annotated[str, typer.Option("--tuned", help="The candidate.")],
    split: Split = "test",
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    strict: Strict = False,
    require: Require = "",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """The verdict on a tuned model: does it help, beside its base, BM25 and hybrid search?

    Example: embedtune compare --data data/ --base all-MiniLM-L6-v2 --tuned model/ --json
    """
    from embedtune.cli.runs import Required, judgement_text
    from embedtune.pipeline.models import compare_models

    settings = load_settings(config, overrides, columns)
    wanted = Required(require)
    found = compare_models(data, split, base, tuned, settings, Console(quiet=quiet), strict=strict)
    judgement = found.judgement
    result = {
        "data": str(data),
        "split": split,
        "queries": len(next(iter(judgement.systems[0].per_query.values()))),
        "systems": [scores.as_json() for scores in judgement.systems],
        "clean": [scores.as_json() for scores in judgement.clean],
        "notes": list(found.notes),
        **judgement.verdict.as_json(),
    }
    emit(result, as_json=json, text=lambda: judgement_text(judgement))
    wanted.check(judgement.verdict.verdict)
    return 4 if found.unusable else 0
