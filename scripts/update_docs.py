"""Write the parts of the documentation that are made from the code and from a demo run.

python scripts/update_docs.py                  docs/configuration.md, from the settings classes, and
                                               the table of docs/losses.md
python scripts/update_docs.py embedtune-demo   also the result in README.md and docs/report.png
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from embedtune.config import RunSettings, example_config
from embedtune.files import read_text, write_text
from embedtune.settings import Settings
from embedtune.training.losses import losses_table

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- demo result: begin -->", "<!-- demo result: end -->"
LOSSES = "<!-- losses: begin -->", "<!-- losses: end -->"
COLUMNS = ("ndcg@10", "hit@1", "recall@10")

INTRODUCTION = """\
# Configuration

This page is made from the settings classes by `python scripts/update_docs.py`; a test compares
them. `embedtune init` writes the file below; only `documents.paths` (or `data`) has to be set.

- Relative paths in the file are taken from the folder of the file, those of `--set` from where you
  are.
- `--set a.b=c` overrides any setting, as often as needed: `--set training.epochs=1`,
  `--set documents.paths='[docs/]'`, `--set split.by=document`.
- An unknown or repeated key, a value of the wrong kind, an object tag: each is an error with file
  and line. All faults are told at once, before anything is done.
- Keys of services never stand in the file (it is refused). They are read from environment variables
  or from a `.env` file in the current folder or beside the configuration: `OPENAI_API_KEY`,
  `OPENAI_BASE_URL`, `OPENAI_API_BASE`, `LLM_MODEL`, `GEMINI_API_KEY`, or the variable that
  `llm.api_key_env` names.
- The run directory keeps the settings of the run, with every default written out, in `config.yaml`.
"""


def configuration_page() -> str:
    """The text of docs/configuration.md."""
    nested = [
        f"| `{'.'.join(path)}` | {description} |"
        for path, description in described_settings()
        if len(path) > 2
    ]
    return "\n".join(
        [
            INTRODUCTION,
            "```yaml",
            example_config().rstrip("\n"),
            "```",
            "",
            "## Settings inside settings",
            "",
            "| setting | |",
            "|---|---|",
            *nested,
            "",
        ]
    )


def described_settings() -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, description) of every setting, as users write it."""
    yield from _described(RunSettings, ())


def _described(kind: type[Settings], path: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    for name, info in kind.model_fields.items():
        here = (*path, info.alias or name)
        yield here, info.description or ""
        for inner in _settings_in(info.annotation):
            yield from _described(inner, here)


def _settings_in(annotation: Any) -> Iterator[type[Settings]]:  # a type, or a union of types
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in get_args(annotation):
        yield from _settings_in(part)


def result_block(report: dict[str, Any]) -> str:
    """The demo's result as Markdown, from its report.json."""
    verdict = report["verdict"]
    lines = [
        BEGIN,
        f"Verdict: **{verdict['verdict']}**.",
        "",
        *(f"- {reason}" for reason in verdict["reasons"]),
        "",
        f"All {_test_queries(report)} test questions, both languages, mean and 95 % interval by "
        "group of documents:",
        "",
        f"| system | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for system in sorted(report["systems"], key=lambda row: -row["metrics"][COLUMNS[0]]):
        cells = []
        for metric in COLUMNS:
            low, high = system["intervals"][metric]
            cells.append(f"{system['metrics'][metric]:.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {system['name']} | {' | '.join(cells)} |")
    versions = ", ".join(
        f"{name} {report['versions'][name]}" for name in ("torch", "sentence-transformers")
    )
    lines += ["", f"Made by `embedtune demo` on {report['created'][:10]} with {versions}.", END]
    return "\n".join(lines)


def _test_queries(report: dict[str, Any]) -> int:
    return report["split"]["queries"]["test"]


def losses_page(page: str) -> str:
    """docs/losses.md with its table made anew."""
    begin, end = LOSSES
    return replaced_block(page, f"{begin}\n{losses_table()}\n{end}", LOSSES, "docs/losses.md")


def replaced_block(
    page: str, block: str, marks: tuple[str, str] = (BEGIN, END), name: str = "README.md"
) -> str:
    begin, end = marks
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    found, count = re.subn(pattern, lambda _: block, page, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{name}: expected one block between {begin} and {end}, found {count}")
    return found


def take_picture(page: Path, picture: Path) -> None:
    """The first screen of a page, 1280 pixels wide."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        raise SystemExit("chromium is not installed; the picture is left as it is")
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--force-device-scale-factor=1", "--window-size=1280,900",
         f"--screenshot={picture}", page.resolve().as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def main() -> None:
    write_text(ROOT / "docs" / "configuration.md", configuration_page())
    losses = ROOT / "docs" / "losses.md"
    write_text(losses, losses_page(read_text(losses)))
    if len(sys.argv) > 1:
        run = Path(sys.argv[1])
        report = json.loads(read_text(run / "report.json"))
        readme = ROOT / "README.md"
        write_text(readme, replaced_block(read_text(readme), result_block(report)))
        take_picture(run / "report.html", ROOT / "docs" / "report.png")


if __name__ == "__main__":
    main()
