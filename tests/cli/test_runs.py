"""init, run, status, report, doctor: faults are found before any work, and all at once."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def project(tmp_path, mixed_folder, tiny_model):
    """Writes a configuration that would run, with other lines in place of some of its own."""

    def write(text: str = "", **parts: str) -> "Path":  # noqa: F821
        own = {
            "run": "out/first",
            "documents": f"{{paths: [{mixed_folder / 'docs'}]}}",
            "chunks": "{tokens: 48, overlap: 0}",
            "llm": f"{{provider: scripted, answers: {mixed_folder / 'answers.jsonl'}}}",
            "model": f"{{base: {tiny_model}}}",
            **parts,
        }
        lines = [f"{key}: {value}" for key, value in own.items() if value]
        path = tmp_path / "embedtune.yaml"
        path.write_text(text or "\n".join(lines) + "\n", "utf-8")
        return path

    return write


def refused(result, path, *said, code=2, lines=1):
    """Ended as it should, with one line a fault, and nothing created beside the configuration."""
    assert (result.code, len(result.lines), result.out) == (code, lines, ""), result
    assert "Traceback" not in result.err
    for text in said:
        assert text in result.err
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_init_writes_a_configuration_once(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("init").code == 0
    path = tmp_path / "embedtune.yaml"
    text = path.read_text("utf-8")
    assert "documents:" in text
    again = command("init")
    assert (again.code, len(again.lines)) == (2, 1)
    assert path.read_text("utf-8") == text
    # as it is, it names a folder that is not there
    result = command("run", "-c", path)
    assert result.code == 2
    assert "docs" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chunks:\n  tokens: 128\n\n\n\nsplit:\n\tseed: 1\n", (":7: column 1", "tabs")),
        ("training:\n  leraning_rate: 1\n", (":2:", "leraning_rate", "learning_rate?")),
        ("chunks:\n  tokens: 128\n  tokens: 64\n", ("lines 2 and 3",)),
        ("", ("empty",)),
        ("# nothing\n", ("empty",)),
        ("- a\n", ("mapping", "list")),
        ("chunks: {tokens: 64, overlap: 64}\n", ("64",)),
        ("chunks: {tokens: 0}\n", ("chunks.tokens", "'0'")),
        ("evaluation: {metric: accuracy}\n", ("evaluation.metric", "ndcg@")),
        ("run: CON\n", ("CON",)),
        ("run: ../runs/-lead\n", ("-lead",)),
        (f"run: {'x' * 300}\n", ("xxx",)),
        ("run: ''\n", ("run",)),
        ("a: [b\n", ("not YAML",)),
    ],
)  # fmt: skip
def test_faults_of_the_file(command, tmp_path, text, said):
    path = tmp_path / "embedtune.yaml"
    path.write_text(text, "utf-8")
    refused(command("run", "-c", path), path, "embedtune.yaml", *said)


def test_a_missing_file_is_named(command, tmp_path):
    result = command("run", "-c", tmp_path / "none.yaml")
    assert (result.code, len(result.lines)) == (2, 1)
    assert "none.yaml" in result.err
    result = command("run", "-c", tmp_path)
    assert (result.code, len(result.lines)) == (2, 1)


def test_three_faults_are_three_lines(command, project):
    path = project(
        training="{epochs: 'three', batch_size: -4}", split="{train: 0.8, dev: 0.3, test: 0.1}"
    )
    said = ("training.epochs", "three", "training.batch_size", "-4", "1.2")
    refused(command("run", "-c", path), path, *said, lines=3)


def test_object_tags_never_run(command, project, tmp_path):
    canary = tmp_path.parent / f"{tmp_path.name}-canary"
    path = project(run=f"!!python/object/apply:os.system ['touch {canary}']")
    refused(command("run", "-c", path), path, "tag", "refused")
    assert not canary.exists()


def test_an_alias_bomb_is_refused_quickly(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines) + "\n")
    program = (
        "import resource, sys; from embedtune.cli import run_command_line;"
        "import embedtune.config; before = resource.getrusage(resource.RUSAGE_SELF);"
        f"code = run_command_line(['run', '-c', {str(path)!r}]);"
        "after = resource.getrusage(resource.RUSAGE_SELF);"
        "print(code, after.ru_utime - before.ru_utime, after.ru_maxrss - before.ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    code, seconds, kilobytes = done.stdout.split()
    assert code == "2"
    assert float(seconds) < 20
    assert int(kilobytes) < 100_000
    assert "aliases" in done.stderr


def test_a_key_in_the_file_is_refused_and_shown_nowhere(command, project):
    path = project(llm="{api_key: sk-verysecretverysecret123}")
    result = command("run", "-c", path)
    refused(result, path, "llm.api_key", "environment variable")
    assert "verysecret" not in result.err
    result = command("run", "-c", project(), "--set", "llm.api_key=topsecret")
    assert result.code == 2
    assert "topsecret" not in result.err


@pytest.mark.parametrize(
    ("environment", "said"), [({}, "not set"), ({"OPENAI_API_KEY": " \n"}, "empty")]
)
def test_a_missing_key_is_named_before_any_work(command, project, environment, said):
    path = project(llm="{model: m}", evaluation="{rivals: [bm25, {openai: embed}]}")
    result = command("run", "-c", path, env=environment)
    refused(result, path, "OPENAI_API_KEY", said, "evaluation.rivals", lines=2)


def test_where_a_run_may_not_go(command, project, tmp_path, mixed_folder):
    docs = mixed_folder / "docs"
    path = project(run=str(docs / "out"))
    refused(command("run", "-c", path), path, "inside the documents folder")
    data = mixed_folder.parent
    path = project(run=str(data / "x"), data=str(data))
    refused(command("run", "-c", path), path, "inside data")
    path = project(run=f"{path}/out")
    refused(command("run", "-c", path), path, "cannot write here")
    path = project(run=str(path))
    refused(command("run", "-c", path), path, "is a file")
    path = project(run=".")  # the folder of the configuration itself
    refused(command("run", "-c", path), path, "holds other files")
    assert len(list(docs.iterdir())) == 12


def test_no_documents(command, project, tmp_path):
    refused(command("run", "-c", project(documents="")), project(), "documents.paths")
    path = project(documents="{paths: [gone]}", data="nowhere")
    refused(command("run", "-c", path), path, "data", "nowhere")
    path = project(documents="{paths: [gone]}")
    refused(command("run", "-c", path), path, "gone")


def test_what_the_model_cannot_do_is_found_first(command, project):
    path = project(chunks="{tokens: 1000}", training="{matryoshka: [64, 32]}")
    result = command("run", "-c", path)
    refused(result, path, "94%", "[64] above the model's dimension 32", lines=2)
    path = project(training="{trainer: {num_train_epoch: 3}}", evaluation="{probe: nowhere}")
    refused(command("run", "-c", path), path, "num_train_epoch", "evaluation.probe", lines=2)
    path = project(model="{base: ./none}")
    refused(command("run", "-c", path), path, "none")


def test_a_damaged_base_is_found_before_anything_is_paid(command, project, tmp_path, tiny_model):
    import shutil

    broken = tmp_path.parent / f"{tmp_path.name}-model"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    path = project(model=f"{{base: {broken}}}")
    refused(command("run", "-c", path), path, "model.safetensors", code=7)


def test_overrides_win_and_their_faults_are_named(command, project):
    path = project(training="{epochs: nonsense}")
    result = command("run", "-c", path, "--set", "training.epochs=2", "--set", "chunks.tokens=-1",
                     "--set", "nonsense", "--set", "training.x.y=1")  # fmt: skip
    refused(result, path, "--set", "chunks.tokens", "key=value", "training.x", lines=3)


def test_dry_run_says_the_cost_and_writes_nothing(command, project):
    path = project(
        llm="{model: m, base_url: 'http://127.0.0.1:9/v1', price: {input: 1, output: 2}}"
    )
    result = command("run", "-c", path, "--dry-run", "--json")
    assert result.code == 0, result.err
    plan = result.json
    assert plan["documents"] == 12
    assert plan["requests"] == plan["chunks"] > 50
    assert plan["queries"] == 2 * plan["chunks"]
    tokens = plan["input tokens"], plan["output tokens"]
    assert plan["usd"] == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6, abs=1e-4)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_endpoint_that_is_not_there_is_5_and_leaves_a_report(command, project):
    path = project(llm="{model: m, base_url: 'http://127.0.0.1:9/v1', retries: 0, backoff: 0.01}")
    result = command("run", "-c", path)
    assert result.code == 5
    assert "127.0.0.1" in result.lines[-1]
    run = path.parent / "out" / "first"
    summary = json.loads((run / "report.json").read_text("utf-8"))
    assert summary["verdict"] is None
    assert summary["missing"] == ["generate", "filter", "split", "audit", "train", "evaluate"]
    status = command("status", run, "--json").json
    assert [row["stage"] for row in status["stages"] if row["done"]] == [
        "01-documents", "02-chunks"]  # fmt: skip
    assert set(status) == {"run", "stages"}
    assert set(status["stages"][0]) == {"stage", "done", "finished", "seconds"}
    report = command("report", run, "--json")
    assert report.code == 0
    assert report.json["missing"] == summary["missing"]
    assert command("report", run).out.strip() == str(run / "report.html")


def test_status_and_report_of_something_else(command, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("status", "report"):
        assert command(name, tmp_path).code == 3
        assert command(name, tmp_path / "none").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_doctor_says_what_is_here(command, tiny_model, tmp_path):
    result = command("doctor", "--model", tiny_model, "--json", env={"OPENAI_API_KEY": "sk-secret"})
    assert result.code == 0
    assert result.json["ok"] is True
    checks = {check["name"]: check for check in result.json["checks"]}
    assert {"python", "torch", "model", "language model", "disk"} <= set(checks)
    assert all(set(check) == {"name", "ok", "found"} for check in checks.values())
    assert "sk-secret" not in result.out
    missing = command("doctor", "--model", tmp_path / "none")
    assert missing.code == 2
    assert "FAIL  model" in missing.out
