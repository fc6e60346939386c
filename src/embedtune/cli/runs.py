"""Commands over run directories: demo, init, run, status, report."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtune.cli.console import Console, emit, table
from embedtune.cli.options import (
    Columns,
    Config,
    Json,
    Minutes,
    Overrides,
    Quiet,
    load_settings,
    within,
)
from embedtune.errors import ConfigError, IntegrityError, NothingUsable, RequirementError

if TYPE_CHECKING:
    from embedtune.evaluation.diagnose import Diagnosis
    from embedtune.queries import Preview

Require = Annotated[
    str, typer.Option("--require", help="Verdicts that are good enough, e.g. ship,ship-hybrid; "
                      "any other ends with exit code 9.")]  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory.")] = Path(
        "embedtune-demo"
    ),
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole job on a bundled corpus, offline, in minutes.

    Example: embedtune demo
    """
    from embedtune.demo import demo_settings

    _run(demo_settings(out, overrides), Console(quiet=quiet), json, command="embedtune demo")


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("embedtune.yaml"),
) -> None:
    """Write a configuration with every setting explained.

    Example: embedtune init && embedtune run -c embedtune.yaml
    """
    from embedtune.config import example_config
    from embedtune.files import write_text

    if path.exists():
        raise ConfigError(f"{path}: exists already; it is left as it is")
    write_text(path, example_config())
    Console().say(f"{path}: set documents.paths, then: embedtune run -c {path}")


def run(
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Pay again where settings changed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and cost.")
    ] = False,
    preview: Annotated[
        int | None, typer.Option("--preview", min=1, help="Show the queries of so many chunks.")
    ] = None,
    minutes: Minutes = None,
    require: Require = "",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Documents in; tuned model, verdict and report out. Run it again to go on after a stop.

    Example: embedtune run -c embedtune.yaml --set queries.per_chunk=3
    """
    from embedtune.config import load_config, load_environment

    load_environment(Path.cwd())
    if config is not None:
        load_environment(config.resolve().parent)
    overrides = [*overrides, *([f"run={out}"] if out else []), *within(minutes)]
    settings = load_config(config, overrides)
    console = Console(quiet=quiet)
    if dry_run:
        from embedtune.pipeline.plan import plan

        found = plan(settings, console)
        emit(found, as_json=json, text=lambda: "\n".join(f"{k}: {v}" for k, v in found.items()))
        return 0
    if preview:
        from embedtune.pipeline.run import preview as preview_run

        show_preview(preview_run(settings, console, preview), json)
        return 0
    return _run(settings, console, json, yes=yes, require=require,
                command=shlex.join(["embedtune", *sys.argv[1:]]))  # fmt: skip


def _run(settings, console: Console, json: bool, *, yes: bool = False, require: str = "",
         command: str = "") -> int:  # fmt: skip
    from embedtune.pipeline.run import run as run_pipeline

    wanted = Required(require)
    outcome = run_pipeline(settings, console, assume_yes=yes, command=command)
    emit(
        outcome.as_json(),
        as_json=json,
        text=lambda: judgement_text(outcome.judgement, outcome.report),
    )
    wanted.check(outcome.judgement.verdict.verdict)
    return 4 if outcome.unusable_input else 0


def show_preview(preview: "Preview", json: bool) -> None:
    """What a few chunks would be asked, for people or as JSON."""

    def text() -> str:
        samples = ["\n".join(sample.lines()) for sample in preview.samples]
        return "\n\n".join([*samples, preview.usage.line()])

    emit(preview.as_json(), as_json=json, text=text)


class Required:
    """The verdicts named by --require; checked before any work, applied after all of it."""

    def __init__(self, text: str) -> None:
        self.names = {name.strip() for name in text.split(",") if name.strip()}
        unknown = self.names - {"ship", "ship-hybrid", "do-not-ship", "inconclusive"}
        if unknown:
            raise ConfigError(f"--require: unknown verdict {', '.join(sorted(unknown))}")

    def check(self, verdict: str) -> None:
        if self.names and verdict not in self.names:
            raise RequirementError(
                f"the verdict is {verdict}, not {' or '.join(sorted(self.names))}"
            )


def judgement_text(judgement, report: Path | None = None) -> str:
    """Verdict, reasons and the table of systems, for people."""
    verdict = judgement.verdict
    lines = [f"verdict: {verdict.verdict}", *(f"  - {reason}" for reason in verdict.reasons), ""]
    lines.append(systems_text(judgement.systems))
    if judgement.clean:
        lines += ["", "without test queries that have near-duplicates in training:",
                  systems_text(judgement.clean)]  # fmt: skip
    if report:
        lines += ["", f"report: {report}"]
    return "\n".join(lines)


def systems_text(systems) -> str:
    names = list(systems[0].metrics)
    rows = []
    for scores in sorted(systems, key=lambda scores: -scores.metrics[names[0]]):
        low, high = scores.intervals.get(names[0], (None, None))
        interval = f"{low:.3f} to {high:.3f}" if low is not None else ""
        rows.append([scores.name, *(f"{scores.metrics[name]:.3f}" for name in names), interval])
    return table(["system", *names, f"95 % of {names[0]}"], rows)


def status(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    json: Json = False,
) -> None:
    """Which stages of a run are done.

    Example: embedtune status runs/run
    """
    from embedtune.pipeline.stored import STAGES, stage_facts

    _check_run(run)
    stages = stage_facts(run)
    rows = [
        {
            "stage": name,
            "done": name in stages,
            "finished": stages[name].manifest["finished"] if name in stages else None,
            "seconds": stages[name].manifest["seconds"] if name in stages else None,
        }
        for name in STAGES
    ]
    emit(
        {"run": str(run), "stages": rows},
        as_json=json,
        text=lambda: table(
            ["stage", "done", "finished", "seconds"],
            [[row["stage"], "yes" if row["done"] else "no", row["finished"] or "",
              str(row["seconds"] or "")] for row in rows],
        ),
    )  # fmt: skip


def report(
    run: Annotated[Path | None, typer.Argument(help="Run directory.")] = None,
    language: Annotated[
        str, typer.Option("--language", help="en or zh; else as the run's settings say.")
    ] = "",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two run directories: what differs between them."),
    ] = None,
    json: Json = False,
) -> None:
    """Write report.html, report.md and report.json anew from what a run directory holds, whole or
    not; or say what differs between two runs in data, settings and results.

    Figures of different data, splits or measures are not compared: their differences are listed,
    and the exit code is 7.

    Example: embedtune report runs/run && embedtune report --compare runs/one runs/other
    """
    from embedtune.report.texts import LANGUAGES

    if language and language not in LANGUAGES:
        raise ConfigError(f"--language: must be one of {', '.join(LANGUAGES)}")
    if run is not None and compare is None:
        from embedtune.files import read_json
        from embedtune.pipeline.report import write_report

        _check_run(run)
        path = write_report(run, language=language)
        emit(read_json(run / "report.json"), as_json=json, text=lambda: str(path))
    elif compare is not None and run is None:
        from embedtune.pipeline.comparing import compare_runs

        for one in compare:
            _check_run(one)
        found, texts = compare_runs(*compare), LANGUAGES[language or "en"]
        emit(found.as_json(), as_json=json, text=lambda: found.text(texts))
        if found.faults:
            told = "; ".join(found.told(fault, texts) for fault in found.faults)
            raise IntegrityError(f"{compare[0]}, {compare[1]}: figures not comparable: {told}")
    else:
        raise ConfigError("report: give a run directory, or --compare and two of them")


def diagnose(
    run: Annotated[Path | None, typer.Argument(help="Run directory.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Without a run: the data set.")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="The untuned model.")] = None,
    tuned: Annotated[Path | None, typer.Option("--tuned", help="Folder of the tuned one.")] = None,
    columns: Columns = "",
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Why tuning did not help, or hurt: the known causes, each measured, the likeliest first.

    Example: embedtune diagnose runs/run
    """
    from embedtune.pipeline.diagnose import diagnose_models, diagnose_run

    console = Console(quiet=quiet)
    if run is not None and data is base is tuned is None:
        _check_run(run)
        found = diagnose_run(run, console)
    elif run is None and data is not None and base is not None and tuned is not None:
        settings = load_settings(config, overrides, columns)
        found = diagnose_models(data, base, tuned, settings, console)
    else:
        raise ConfigError("name a run directory, or --data, --base and --tuned, all three")
    emit(found.as_json(), as_json=json, text=lambda: diagnosis_text(found))
    return 0


def diagnosis_text(found: "Diagnosis") -> str:
    """The causes that hold, each with its number and what to do, for people."""
    from embedtune.report.texts import LANGUAGES

    texts = LANGUAGES["en"]
    gains = {"train": found.train, "dev": found.dev, "test": found.test}
    lines = [
        f"{split}: {gain.before:.3f} → {gain.after:.3f} ({gain.queries} queries)"
        for split, gain in gains.items()
        if gain is not None
    ]
    for place, cause in enumerate(found.named, 1):
        number = texts["causes.number"].format(number=f"{cause.number:.3g}",
                                               limit=f"{cause.limit:.3g}")  # fmt: skip
        follows = f"; follows from: {texts[f'cause.{cause.after}']}" if cause.after else ""
        what = WHAT[cause.code]
        lines += ["", f"{place}. {texts[f'cause.{cause.code}']} ({what}: {number}{follows})",
                  f"   {texts[f'cause.{cause.code}.do']}"]  # fmt: skip
    if not found.named:
        lines += ["", texts["causes.none"]]
    if found.unmeasured:
        lines += ["", f"not measured: {', '.join(found.unmeasured)}"]
    return "\n".join(lines)


WHAT = {  # the number of each cause
    "test-set": "the best untuned system, in times of chance",
    "unknown-tokens": "share of the tokens that are unknown",
    "truncation": "share of the tokens that are never read",
    "pooling": "nDCG gained by another pooling of the same weights",
    "prompts": "nDCG gained by other prompts with the same weights",
    "false-negatives": "share of the negatives that look like answers; of a batch, how many",
    "learning-rate": "nDCG on dev lost on the way from the base",
    "epochs": "nDCG on dev lost since its best",
    "collapse": "mean cosine of different passages",
    "query-gap": "how far the queries of training are from those of the test",
    "ceiling": "nDCG of the base",
}


def review(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="JSONL saved by the page, or the CSV filled in."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Queries on the page.")] = 1000,
    json: Json = False,
) -> int:
    """A page (and a CSV) to keep, edit or reject queries, and to mark further answers.

    Decisions are kept beside the run; the next `embedtune run` honours them.

    Example: embedtune review runs/run && embedtune review runs/run --decisions decisions.jsonl
    """
    from embedtune.pipeline.review import take_decisions, write_review

    _check_run(run)
    rejects = []
    if decisions is not None:
        _, rejects = take_decisions(run, decisions)
        Console().error(
            f"{reject.file}:{reject.line}: {reject.field}: {reject.message}" for reject in rejects
        )
    found = write_review(run, limit)
    result = {
        "page": str(found.page),
        "table": str(found.table),
        "queries": found.queries,
        "total": found.total,
        "decided": found.decided,
        "rejected": len(rejects),
    }
    emit(
        result,
        as_json=json,
        text=lambda: (
            f"{found.page} and {found.table.name}: {found.queries} of {found.total} queries, "
            f"{found.decided} decided"
        ),
    )
    return 4 if rejects else 0


def _check_run(run: Path) -> None:
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run directory")
    if not (run / "run.lock").exists():
        raise NothingUsable(f"{run}: not a run directory")
