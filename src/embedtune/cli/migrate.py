"""The command migrate: an index of one model becomes one of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedtune.cli.console import Console, emit, table
from embedtune.cli.options import Config, Json, Overrides, Quiet, load_settings
from embedtune.errors import ConfigError

if TYPE_CHECKING:
    from embedtune.pipeline.migrating import Migrated, Plan
    from embedtune.retrieve.migrate import Gap, Pointer, Recalibrated

STEPS = ("plan", "run", "status", "threshold", "switch", "rollback", "drop")
# what each step takes beside --json and --quiet; those in capitals it must be given
TAKES = {
    "plan": "MODEL to",
    "run": "MODEL TO",
    "status": "to",
    "threshold": "TO THRESHOLD queries data split k",
    "switch": "TO old alias partial",
    "rollback": "alias",
    "drop": "yes",
}


def migrate(
    step: Annotated[str, typer.Argument(help=f"One of {', '.join(STEPS)}.")],
    index: Annotated[
        str, typer.Argument(help="The index, or the folder that stands for it (live/).")
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="plan, run: the new model, or openai:MODEL.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Folder or address of the new index.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="threshold: on the old index's scores.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="threshold: file of what people ask."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="threshold: data set that judges the passages.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="threshold: its split (dev).")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, max=1000, help="threshold: hits of a query (10).")
    ] = None,
    old: Annotated[
        str | None, typer.Option("--old", help="switch: the old index, where live/ is new.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", help="switch, rollback: alias in the database.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="switch: although passages are missing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="drop: do it.")] = False,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Move an index to another model: plan, run, threshold, switch; rollback or drop.

    The old index serves until the switch, which changes one small file in one step. `run` goes on
    after a stop, and catches up with what changed in the old index.

    Example: embedtune migrate run index/ --model model/ --to index-2/
    """
    from embedtune.pipeline import migrating

    given = {"model": model, "to": to, "threshold": threshold, "queries": queries, "data": data,
             "split": split, "k": k, "old": old, "alias": alias, "partial": partial or None,
             "yes": yes or None}  # fmt: skip
    _check(step, {name for name, value in given.items() if value is not None})
    settings, console = load_settings(config, overrides), Console(quiet=quiet)
    place, name = to or "", model or ""
    if step == "plan":
        plan = migrating.plan_migration(index, name, settings, console, to=to)
        emit(plan.as_json(), as_json=json, text=lambda: _plan_text(plan))
    elif step == "run":
        done = migrating.run_migration(index, name, place, settings, console)
        emit(done.as_json(), as_json=json, text=lambda: _run_text(done))
    elif step == "status":
        pointer, gap = migrating.migration_status(index, to)
        emit(_told(pointer, gap), as_json=json, text=lambda: _status_text(index, pointer, gap))
    elif step == "switch":
        pointer = migrating.switch(index, place, old=old, alias=alias or "", partial=partial)
        emit(_told(pointer, None), as_json=json, text=lambda: _status_text(index, pointer, None))
    elif step == "rollback":
        pointer, gap = migrating.rollback(index, alias=alias or "")
        emit(_told(pointer, gap), as_json=json, text=lambda: _back_text(index, pointer, gap))
    elif step == "drop":
        gone = migrating.drop_previous(index, confirmed=yes)
        emit({"deleted": gone}, as_json=json, text=lambda: f"deleted: {gone}")
    else:
        return _threshold(index, place, threshold or 0.0, console, queries, data, split, k, json)
    return 0


def _check(step: str, given: set[str]) -> None:
    if step not in TAKES:
        raise ConfigError(f"migrate {step}: expected one of {', '.join(STEPS)}")
    taken = TAKES[step].split()
    missing = sorted({name.lower() for name in taken if name.isupper()} - given)
    surplus = sorted(given - {name.lower() for name in taken})
    faults = [f"migrate {step}: expected --{name}" for name in missing]
    faults += [f"migrate {step}: takes no {'-' if name == 'k' else '--'}{name}" for name in surplus]
    if step == "threshold" and ("queries" in given) == ("data" in given):
        faults.append("migrate threshold: expected --queries or --data, one of them")
    if faults:
        raise ConfigError(faults)


def _threshold(
    index: str, to: str, threshold: float, console: Console, file: Path | None, data: Path | None,
    split: str | None, k: int | None, json: bool,
) -> int:  # fmt: skip
    from embedtune.pipeline.indexing import queries_in
    from embedtune.pipeline.migrating import HITS, recalibrate_threshold
    from embedtune.records import Reject

    rejects: list[Reject] = []
    queries = queries_in(file, rejects) if file else []
    console.error(f"{reject.file}:{reject.line}: {reject.message}" for reject in rejects)
    found = recalibrate_threshold(
        index, to, threshold, console, queries=queries, data=data, split=split or "dev",
        k=k or HITS,
    )  # fmt: skip
    emit(found.as_json(), as_json=json, text=lambda: _threshold_text(found))
    return 4 if rejects else 0


def _plan_text(plan: "Plan") -> str:
    from embedtune.files import visible

    rows = [
        ["from", visible(plan.old_model)],
        ["to", visible(plan.model)],
        ["passages", f"{plan.passages:,}"],
        ["texts to embed", f"{plan.texts:,}"],
        ["tokens, about", f"{plan.tokens:,}"],
    ]
    if plan.bytes is not None:
        rows.append(["vectors", f"{plan.bytes / 1e6:,.1f} MB"])
    if plan.seconds is not None:
        rows.append(["time here, about", f"{plan.seconds / 60:,.1f} min"])
    if plan.paid:
        rows.append(["cost, about", "unknown" if plan.usd is None else f"{plan.usd:.4f} USD"])
    return table(["migration", ""], rows)


def _run_text(done: "Migrated") -> str:
    from embedtune.files import visible

    lines = [f"{visible(done.place, 200)}: made by {visible(done.info.model)}", done.update.line()]
    if not done.gap.closed:
        lines.append(f"changed meanwhile: {done.gap.line()}; run it again")
    return "\n".join(lines)


def _told(pointer: "Pointer | None", gap: "Gap | None") -> dict[str, Any]:
    from dataclasses import asdict

    told: dict[str, Any] = asdict(pointer) if pointer else {}
    return told | ({"gap": asdict(gap), "complete": gap.closed} if gap else {})


def _status_text(index: str, pointer: "Pointer | None", gap: "Gap | None") -> str:
    lines = []
    if pointer:
        lines.append(f"{index} stands for {pointer.place}")
        if pointer.previous:
            lines.append(f"before: {pointer.previous} (embedtune migrate rollback, or drop)")
    if gap:
        lines.append(gap.line())
    return "\n".join(lines) or f"{index} is the index itself; nothing was switched"


def _back_text(index: str, pointer: "Pointer", gap: "Gap") -> str:
    lines = [f"{index} stands for {pointer.place} again"]
    if not gap.closed:
        lines.append(f"it lacks what came since: {gap.line()}")
    return "\n".join(lines)


def _threshold_text(found: "Recalibrated") -> str:
    chosen = "none" if found.new is None else f"{found.new:.4f}"
    rows = [["threshold", f"{found.old:.4f}", chosen],
            ["hits that pass", f"{found.old_share:.1%}", f"{found.new_share:.1%}"],
            ["queries with one", f"{found.old_answered:.1%}",
             f"{found.new_answered:.1%}"]]  # fmt: skip
    if found.old_precision is not None:
        new = found.new_precision
        rows.append(["right ones of them", f"{found.old_precision:.1%}",
                     "" if new is None else f"{new:.1%}"])  # fmt: skip
    lines = [f"{found.queries:,} queries, {found.hits:,} hits", table(["", "old", "new"], rows)]
    if found.new is None:
        lines.append("no threshold on the new scores is as precise as the old one")
    return "\n".join(lines)
