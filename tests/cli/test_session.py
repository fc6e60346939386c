"""The session of the README, and the server over an index without a language model."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "session.sh"
README = SCRIPT.parents[1] / "README.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.model
def test_from_a_run_to_answers(make_run, tmp_path):
    run = make_run(tmp_path / "run", apart="zh")
    own = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPT, run, str(free_port()), tmp_path / "index"],
        env={**own, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].partition(":")[2].startswith(" 4 passages, 32 numbers each")
    assert any(line.startswith("serving docs at http://127.0.0.1:") for line in lines)
    assert any(line.startswith("32 numbers; ") for line in lines)
    english, chinese = (
        done.stdout.index("In the documents' own words"),
        done.stdout.index("文档原文"),
    )
    assert "battery" in done.stdout[english:chinese]
    assert "\nSources:\n[1] " in done.stdout[english:chinese]
    assert "\n\n[1] " in done.stdout[chinese:]


def test_its_commands_are_those_of_the_readme():
    script = SCRIPT.read_text("utf-8").replace(' --port "$port" &', "")
    defaults = dict(re.findall(r'^(\w+)="?(?:\$\{\d:-)?([^"}\n]+)', script, re.MULTILINE))
    said = README.read_text("utf-8").replace("\\\n", " ")
    shown = [shlex.split(line) for line in re.findall(r"^embedtune .*", said, re.MULTILINE)]
    commands = re.findall(r"^embedtune .*", script, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        meant = re.sub(r"\$(\w+)", lambda name: defaults[name[1]], command)
        assert shlex.split(meant) in shown


@pytest.mark.model
def test_an_index_alone_serves_its_model_and_quotes(child, command, make_run, tmp_path):
    import httpx2

    place = tmp_path / "index"
    assert command("index", make_run(tmp_path / "run"), "--out", place).code == 0
    process = child("serve", "--index", place, "--no-llm", "--port", "0", "--json")
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        url = json.loads(line)["url"]
        asked = {"model": "embedtune", "input": "the driver", "input_type": "query"}
        vector = httpx2.post(f"{url}/embeddings", json=asked, timeout=60).json()["data"][0]
        assert len(vector["embedding"]) == 32
        question = [{"role": "user", "content": "who is the driver"}]
        body = {"model": "embedtune", "messages": question, "stream": True}
        events = httpx2.post(f"{url}/chat/completions", json=body, timeout=60).text
        assert '"status": "quoted"' in events
        assert "the driver is the grower." in events
        assert events.rstrip().endswith("[DONE]")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected a model; or --index"),
        (["hashing", "--no-llm"], "--no-llm is for --index"),
    ],
)
def test_serve_says_what_is_missing(command, arguments, said):
    done = command("serve", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
