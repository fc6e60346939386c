"""The first impression: help is quick and light, and what is not there is said in a line."""

import json
import re
import subprocess
import sys

import pytest

COMMANDS = """demo init run status report read chunk generate split train evaluate compare search
    export push serve index ask doctor""".split()  # noqa: SIM905
HEAVY = """torch transformers sentence_transformers datasets pypdfium2 scipy sklearn jieba bm25s
    openai altair""".split()  # noqa: SIM905
LOOK = """
import json, resource, sys
from embedtune.cli import run_command_line
code = run_command_line(sys.argv[1:])
seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
print(json.dumps({"code": code, "seconds": seconds, "modules": list(sys.modules)}), file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_quick_and_imports_nothing_heavy(name):
    arguments = [name, "--help"] if name else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stderr)
    assert seen["code"] == 0
    assert seen["seconds"] < 1  # of processor time, a quarter on an idle machine
    assert not set(HEAVY) & set(seen["modules"])
    assert "Usage: embedtune" in done.stdout
    if name:
        assert re.search(r"Example: embedtune " + name, done.stdout)
    else:
        assert all(re.search(rf"^  {command} ", done.stdout, re.M) for command in COMMANDS)


def test_version(command):
    import embedtune

    assert command("--version").out.strip() == embedtune.__version__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'"),
        (["run", "--sped"], "No such option: --sped"),
        (["read"], "Missing argument"),
        (["read", "docs"], "Missing option '--out'"),
        (["search", "words", "--data", "x", "--system", "bm25", "-k", "0"], "'-k'"),
        (["train", "--data"], "requires an argument"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_line_that_says_so(command, arguments, said):
    result = command(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert said in result.lines[0]
    assert all(line.startswith("embedtune: ") for line in result.lines)
