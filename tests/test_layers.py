"""Imports point one way (design.md §2), and importing the package stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embedtune

PACKAGE = Path(embedtune.__file__).parent
STAGES = ("documents", "queries", "datasets", "training", "evaluation", "report", "adapt", "export")
BASE = re.findall(
    r"\w+",
    """
    records results settings errors files store run similar relevance language decode quotes
    endpoint chance evidence sentences
    """,
)
RANKS = {
    **dict.fromkeys(BASE, 0),
    **dict.fromkeys(("llm", "embed"), 1),
    "retrieve": 2,
    **dict.fromkeys(STAGES, 3),
    **dict.fromkeys(("config", "pipeline", "demo", "scale"), 4),
    **dict.fromkeys(("cli", "serving", "clients", "web", "__main__"), 5),
}
HEAVY = re.findall(
    r"\w+",
    """
    torch sentence_transformers transformers datasets pypdfium2 altair vl_convert jieba bm25s scipy
    sklearn rapidfuzz openai docx mammoth bs4 jinja2
    """,
)


def modules():
    return {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Our modules that a file imports, anywhere in it: ``retrieve.dense`` and the like."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module)
            if node.module == "embedtune":
                found |= {f"embedtune.{name.name}" for name in node.names}
    return {name.removeprefix("embedtune.") for name in found if name.startswith("embedtune.")}


def top(module: str) -> str:
    return module.split(".")[0]


def forbidden(own: str, other: str) -> bool:
    """Whether a module of ``own`` (top name) may not import ``other`` (dotted)."""
    mine, theirs = RANKS[own], RANKS[top(other)]
    if own == top(other):
        return False
    if own == "retrieve" and top(other) == "embed":
        # the contract and the table of names, not an implementation
        return other not in ("embed", "embed.opening")
    if own == "serving":
        return theirs > 2
    if mine == 0:
        return theirs > 0
    return theirs >= mine and (mine <= 3 or theirs > mine)


@pytest.mark.parametrize(
    "name", [str(name) for name in modules() if len(name.parts) > 1 or name.stem != "__init__"]
)
def test_imports_point_one_way(name):
    own = Path(name).parts[0].removesuffix(".py")
    others = imported(PACKAGE / name)
    for module in (own, *map(top, others)):
        assert module in RANKS, f"give {module} a rank, here and in the design"
    wrong = sorted(other for other in others if forbidden(own, other))
    assert not wrong, f"{name} imports {', '.join(wrong)}"


def test_the_rule_itself_sees_a_wrong_import():
    assert forbidden("training", "evaluation.metrics")
    assert forbidden("records", "llm")
    assert forbidden("retrieve", "embed.local")
    assert forbidden("embed", "llm")
    assert forbidden("pipeline", "cli.app")
    assert not forbidden("retrieve", "embed")
    assert not forbidden("training", "retrieve.dense")
    assert not forbidden("cli", "pipeline.run")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def importable() -> list[str]:
    names = [".".join(name.with_suffix("").parts) for name in modules()]
    names = [name.removesuffix(".__init__") for name in names if not name.startswith("__")]
    # retrievers for other frameworks: those bring what they bring
    names = [name for name in names if not name.startswith("clients.")]
    return ["embedtune", *(f"embedtune.{name}" for name in names)]


def test_no_module_loads_a_heavy_library_when_imported():
    # `datasets` as a top-level name is the library, ours is embedtune.datasets
    code = (
        f"import importlib, sys\nfor name in {importable()!r}:\n"
        f"    importlib.import_module(name)\n"
        f"    loaded = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "    if loaded: print(name, loaded); break"
    )
    assert run_python(code) == ""


@pytest.mark.parametrize("name", [str(name) for name in modules()])
def test_every_module_says_what_it_is_for(name):
    assert ast.get_docstring(ast.parse((PACKAGE / name).read_text("utf-8")))


def test_no_file_names_a_folder_of_this_machine():
    root = Path(__file__).resolve().parents[1]
    here = [str(folder) for folder in (root, Path.home()) if len(folder.parts) > 2]
    texts = ("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.json", "*.jsonl", "*.sh", "Makefile")
    parts = ("src", "tests", "benchmarks", "scripts", "docs", "examples", ".ci", ".github")
    files = {file for kind in texts for part in parts for file in (root / part).rglob(kind)}
    files |= {file for kind in texts for file in root.glob(kind)}
    assert len(files) > 100
    found = [
        f"{file}: {folder}"
        for file in sorted(files)
        for folder in here
        if folder in file.read_text("utf-8", "replace")
    ]
    assert not found
