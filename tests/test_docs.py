"""The documentation keeps what it promises: nothing undocumented, nothing dead, snippets run."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import typer
import yaml

from embedtune.cli.app import app
from embedtune.config import load_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COMMANDS = typer.main.get_command(app).commands
BLOCK = re.compile(r"(?:<!-- (?P<note>[^\n]*) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
ELSEWHERE = "checked, not run, by the tests"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks() -> list[tuple[str, bool, str]]:
    """(page and number, whether it can run here, code) of every Python snippet."""
    return [
        (f"{name_of(page)} {number}", ELSEWHERE not in (match["note"] or ""), match["code"])
        for page in PAGES
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8")), 1)
    ]


def update_docs():
    spec = importlib.util.spec_from_file_location("update_docs", ROOT / "scripts/update_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section_of(command: str) -> str:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    match = re.search(rf"^### embedtune {command}\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    assert match, f"docs/commands.md has no section for {command}"
    return match[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command):
    section = section_of(command)
    assert "```shell" in section, "an example"
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            shown = max(parameter.opts, key=len)
            page = section if shown not in ("--json", "--quiet", "--set") else section + shared()
            if command in ("read", "chunk", "generate", "split"):
                page += shared()
            assert re.search(rf"`{shown}[` ]", page), f"{command}: {shown} is not in its section"


def shared() -> str:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    return page.partition("Exit codes:")[0]


def test_no_command_is_documented_that_does_not_exist():
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert set(re.findall(r"^### embedtune (\w+)$", page, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_examples_name_real_commands_and_options(page):
    text = page.read_text("utf-8")
    for block in re.findall(r"```shell\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"embedtune ([a-z]+)(.*)", line)
            if not found:
                continue
            assert found[1] in COMMANDS, line
            known = {name for option in COMMANDS[found[1]].params for name in option.opts}
            assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", found[2])) <= known, line
            load_config(None, re.findall(r"--set (\S+)", line.replace("'", "")))


def test_exit_codes_are_those_of_the_errors():
    from embedtune import errors

    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    codes = {error.exit_code for error in vars(errors).values()
             if isinstance(error, type) and issubclass(error, errors.EmbedtuneError)}  # fmt: skip
    for code in codes:
        assert re.search(rf"^\| (\d+, )?{code}(, \d+)? \|", page, re.MULTILINE), code


def test_configuration_page_is_made_from_the_settings():
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    made = update_docs().configuration_page()
    assert page == made, "run: python scripts/update_docs.py"


def test_every_setting_is_on_the_configuration_page():
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    settings = list(update_docs().described_settings())
    assert len(settings) > 70
    for path, description in settings:
        assert description, f"{'.'.join(path)} has no description"
        assert description in page, path
        shown = f"`{'.'.join(path)}`" if len(path) > 2 else f"{path[-1]}:"
        assert shown in page, path


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_example_configurations_load(path):
    assert yaml.safe_load(path.read_text("utf-8"))
    settings = load_config(path)
    assert settings.run.is_relative_to(ROOT / "examples")
    assert bool(settings.documents.paths) != bool(settings.data)


def test_examples_show_each_way_in():
    found = {path.stem: load_config(path) for path in EXAMPLES}
    assert found["beir"].data
    assert found["no_llm"].queries.source == "extractive"
    assert found["english_docs"].llm.budget.usd
    assert found["chinese_docs"].model.base != load_config(None).model.base


def test_there_are_snippets_that_run():
    pages = {name.split()[0] for name, runs, _ in python_blocks() if runs}
    assert {"README.md", "docs/data.md"} <= pages


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name) for name, runs, code in python_blocks() if runs]
)
def test_snippets_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name) for name, runs, code in python_blocks() if not runs]
)
def test_imports_of_other_snippets_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("embedtune"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_named_in_the_text_exist(page):
    for name in re.findall(r"`(embedtune(?:\.\w+)+)`", page.read_text("utf-8")):
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_or_path_is_dead(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:src|tests|docs|examples|scripts|benchmarks)/[^`*… ]*)`", text):
        if path != "docs/":
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name_of)
def test_pages_hold_no_absolute_paths(page):
    found = re.findall(
        r"(?<![\w.:/~])/(?:tmp|home|root|work|usr|Users)/\S*", page.read_text("utf-8")
    )
    assert not found


def test_folders_of_the_package_are_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    package = ROOT / "src" / "embedtune"
    for folder in package.iterdir():
        if (folder / "__init__.py").exists():
            assert f"`src/embedtune/{folder.name}/`" in text, folder.name


def test_readme_has_one_place_for_the_demo_result_and_its_picture():
    text = (ROOT / "README.md").read_text("utf-8")
    module = update_docs()
    assert text.count(module.BEGIN) == text.count(module.END) == 1
    assert "Verdict: **" in text.partition(module.BEGIN)[2].partition(module.END)[0]
    picture = (ROOT / "docs" / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 300_000
    assert int.from_bytes(picture[16:20], "big") == 1280


def test_citation_has_the_version_of_the_package():
    import embedtune

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == embedtune.__version__
    assert citation["license"] == "Apache-2.0"
