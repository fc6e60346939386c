"""embedtune run from documents to the verdict: what it leaves, redoes, and stops at."""

import json
import shutil

import pytest
import yaml

from stub_server import Behaviour, StubServer

STAGES = (
    "01-documents",
    "02-chunks",
    "03-queries",
    "04-filtered",
    "05-dataset",
    "08-training",
    "09-evaluation",
)
KEY = "sk-test-0123456789abcdefghij"


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def manifests(run):
    return {
        name: json.loads((run / name / "manifest.json").read_text("utf-8"))
        for name in STAGES
        if (run / name / "manifest.json").exists()
    }


def write_config(folder, mixed_folder, tiny_model, **parts):
    config = {
        "run": "runs/first",
        "documents": {"paths": [str(mixed_folder / "docs")]},
        "chunks": {"tokens": 48, "overlap": 0},
        "llm": {"provider": "scripted", "answers": str(mixed_folder / "answers.jsonl")},
        "model": {"base": str(tiny_model)},
        "training": {"max_steps": 20, "batch_size": 16, "learning_rate": 1e-3},
        "evaluation": {"probe": "none"},
        **parts,
    }
    folder.mkdir(exist_ok=True)
    path = folder / "embedtune.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, command, mixed_folder, tiny_model):
    """A whole run, with questions over HTTP from a server that wants a key."""
    folder = tmp_path_factory.mktemp("finished")
    with StubServer(Behaviour(key=KEY)) as server:
        llm = {"model": "stub", "base_url": server.url, "price": {"input": 1, "output": 1}}
        config = write_config(folder, mixed_folder, tiny_model, llm=llm)
        result = command("run", "-c", config, "--json", env={"OPENAI_API_KEY": f"{KEY}\n"})
        yield config, folder / "runs" / "first", result, server


@pytest.fixture
def own_copy(finished, tmp_path):
    """The finished run, to be spoilt."""
    config, run, _, _ = finished
    shutil.copytree(run, tmp_path / "runs" / "first")
    shutil.copy(run.parent / "answers.sqlite", tmp_path / "runs")
    shutil.copy(config, tmp_path)
    return tmp_path / "embedtune.yaml", tmp_path / "runs" / "first"


def test_it_ends_with_a_verdict(finished):
    _, run, result, _ = finished
    assert result.code == 0, result.err
    found = result.json
    assert {"verdict", "reasons", "systems", "run", "report", "difference"} <= set(found)
    assert (found["run"], found["report"]) == (str(run), str(run / "report.html"))
    assert {"base", "tuned", "bm25"} <= {system["name"] for system in found["systems"]}
    assert all({"name", "metrics", "dims"} <= set(system) for system in found["systems"])
    page = (run / "report.html").read_text("utf-8")
    assert found["reasons"][0].split(",")[0].replace("ndcg@10", "nDCG@10") in page
    assert (
        json.loads((run / "report.json").read_text("utf-8"))["verdict"]["verdict"]
        == (found["verdict"])
    )


def test_every_stage_has_its_files_and_its_account(finished):
    _, run, _, _ = finished
    found = manifests(run)
    assert tuple(found) == STAGES
    for name, manifest in found.items():
        files = {str(p.relative_to(run / name)) for p in (run / name).rglob("*") if p.is_file()}
        assert files == {*manifest["outputs"], "manifest.json"}
        for counts in manifest["facts"].get("counts", {}).values():
            parts = counts["accepted"] + counts["rejected"] + counts["duplicates"]
            assert counts["total"] == parts
            rejects = rows(run / name / "rejects.jsonl")
            assert len(rejects) == counts["rejected"] + counts["duplicates"]
    accepted = {n: m["facts"]["counts"] for n, m in found.items() if "counts" in m["facts"]}
    assert accepted["01-documents"]["read"]["accepted"] == 12
    chunks = rows(run / "02-chunks" / "chunks.jsonl")
    assert accepted["02-chunks"]["chunk"]["accepted"] == len(chunks)
    assert {chunk["language"] for chunk in chunks} == {"en", "zh"}
    queries = rows(run / "03-queries" / "queries.jsonl")
    assert accepted["03-queries"]["generate"]["accepted"] == len(queries)
    filtered = rows(run / "04-filtered" / "queries.jsonl")
    assert accepted["04-filtered"]["filter"]["total"] == len(queries)
    assert accepted["05-dataset"]["split"]["total"] == len(filtered)
    judged = sum(
        len({line.split("\t")[0] for line in path.read_text().splitlines()[1:]})
        for path in (run / "05-dataset" / "qrels").iterdir()
    )
    assert judged == accepted["05-dataset"]["split"]["accepted"]
    assert not (run / ".work").exists()


def test_the_key_is_nowhere_and_its_line_end_was_said(finished):
    _, run, result, _ = finished
    assert "OPENAI_API_KEY: white space" in result.err
    assert KEY not in result.err + result.out
    files = [path for path in run.parent.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_same_command_does_nothing_more(finished, command, monkeypatch):
    config, run, result, server = finished
    files = {path: path.stat().st_mtime_ns for name in STAGES for path in (run / name).rglob("*")}
    asked = len(server.requests)
    read = []
    monkeypatch.setattr("torch.nn.Module.__call__", lambda module, *_, **__: read.append(module))
    again = command("run", "-c", config, "--json", env={"OPENAI_API_KEY": KEY})
    assert not read
    assert again.json == result.json
    assert len(server.requests) == asked
    assert files == {
        path: path.stat().st_mtime_ns for name in STAGES for path in (run / name).rglob("*")
    }


def test_changed_settings_are_told_and_only_what_depends_on_them_is_redone(own_copy, command):
    config, run = own_copy
    before = manifests(run)
    result = command("run", "-c", config, "--set", "training.max_steps=10", "--json",
                     env={"OPENAI_API_KEY": KEY})  # fmt: skip
    assert result.code == 0, result.err
    assert "training.max_steps: 20 → 10" in result.lines
    assert "redone where needed: 08-training, 09-evaluation" in result.err
    after = manifests(run)
    assert [name for name in STAGES if before[name] != after[name]] == [
        "08-training", "09-evaluation"]  # fmt: skip
    saved = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert saved["training"]["max_steps"] == 10


def test_paid_work_is_done_again_only_when_allowed(own_copy, command):
    config, run = own_copy
    before, settings = manifests(run), (run / "config.yaml").read_bytes()
    arguments = ("run", "-c", config, "--set", "queries.per_chunk=1")
    result = command(*arguments, env={"OPENAI_API_KEY": KEY})
    assert result.code == 2
    assert "queries.per_chunk: 2 → 1" in result.lines
    assert "--yes" in result.lines[-1]
    assert manifests(run) == before
    assert (run / "config.yaml").read_bytes() == settings
    result = command(*arguments, "--yes", env={"OPENAI_API_KEY": KEY})
    assert result.code == 0, result.err
    assert manifests(run)["03-queries"] != before["03-queries"]


def test_require_ends_with_9_after_the_result(finished, command):
    config, _, result, _ = finished
    again = command("run", "-c", config, "--json", "--require", "ship",
                    env={"OPENAI_API_KEY": KEY})  # fmt: skip
    assert again.json == result.json
    assert again.code == (0 if result.json["verdict"] == "ship" else 9)


@pytest.mark.parametrize("name", ["03-queries/queries.jsonl", "08-training/model/config.json"])
def test_a_damaged_stage_file_is_7(own_copy, command, name):
    config, run = own_copy
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"e", b"E", 1))
    result = command("run", "-c", config, env={"OPENAI_API_KEY": KEY})
    assert result.code == 7
    assert str(path) in result.lines[-1]


def test_a_damaged_manifest_is_7(own_copy, command):
    config, run = own_copy
    path = run / "02-chunks" / "manifest.json"
    path.write_text("{", "utf-8")
    for arguments in (("run", "-c", config), ("status", run), ("report", run)):
        result = command(*arguments, env={"OPENAI_API_KEY": KEY})
        assert result.code == 7
        assert str(path) in result.lines[-1]


def test_results_of_what_is_no_more_are_not_shown(own_copy, command):
    """A document changed, and the language model is away: the old verdict is not the new one."""
    config, run = own_copy
    docs = config.parent / "docs"
    settings = yaml.safe_load(config.read_text("utf-8"))
    shutil.copytree(settings["documents"]["paths"][0], docs)
    (docs / "guide-00.md").write_text(
        "## New\n\nThe winter fee of the night shift is new, and so is all of the rest here.\n",
        "utf-8",
    )
    result = command("run", "-c", config, "--set", f"documents.paths=[{docs}]", "--yes",
                     "--set", "llm.base_url=http://127.0.0.1:9/v1", "--set", "llm.retries=0",
                     env={"OPENAI_API_KEY": KEY})  # fmt: skip
    assert result.code == 5
    stages = command("status", run, "--json").json["stages"]
    assert [row["stage"] for row in stages if row["done"]] == ["01-documents", "02-chunks"]
    assert json.loads((run / "report.json").read_text("utf-8"))["verdict"] is None


def test_documents_without_content_are_3(command, tmp_path, mixed_folder, tiny_model):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.md").write_text(" \n")
    config = write_config(tmp_path, mixed_folder, tiny_model, documents={"paths": ["empty"]})
    result = command("run", "-c", config, "--quiet")
    assert (result.code, result.out, len(result.lines)) == (3, "", 1)
    assert not (tmp_path / "runs" / "first" / "01-documents").exists()


def test_queries_without_a_language_model(command, tmp_path, mixed_folder, tiny_model):
    config = write_config(
        tmp_path, mixed_folder, tiny_model, llm={}, queries={"from": "extractive"}
    )
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    assert {row["origin"] for row in rows(tmp_path / "runs/first/03-queries/queries.jsonl")} == {
        "extractive"
    }


def test_real_queries_of_the_user(command, tmp_path, mixed_folder, tiny_model):
    answers = rows(mixed_folder / "answers.jsonl")
    lines = [f"{row['question']}\t{row['quote']}" for row in answers]
    path = tmp_path / "real.txt"
    path.write_text("\n".join([*lines, "nobody knows this\tno such words"]) + "\n", "utf-8")
    config = write_config(tmp_path, mixed_folder, tiny_model, llm={},
                          queries={"from": "file", "file": "real.txt"})  # fmt: skip
    result = command("run", "-c", config, "--json")
    assert result.code == 4, result.err  # one line could not be used
    run = tmp_path / "runs" / "first"
    assert {row["origin"] for row in rows(run / "03-queries" / "queries.jsonl")} == {"user"}
    (reject,) = [row for row in rows(run / "03-queries/rejects.jsonl") if row["unusable"]]
    assert reject["line"] == len(lines) + 1
    assert any("real.txt:145" in line for line in result.lines)


def test_given_data_with_leaks(command, make_beir, tmp_path, tiny_model):
    data = make_beir(tmp_path / "data", leak=True)
    config = write_config(tmp_path, tmp_path, tiny_model, data=str(data), documents={}, llm={})
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    run = tmp_path / "runs" / "first"
    split = json.loads((run / "05-dataset" / "split.json").read_text("utf-8"))
    assert (len(split["left_out"]), len(split["affected"])) == (4, 4)
    assert split["given"] is True
    clean, full = result.json["clean"], result.json["systems"]
    assert [system["name"] for system in clean] == [system["name"] for system in full]
    assert manifests(run)["08-training"]["facts"]["plan"]["pairs"] == 56
    assert "4 of 36 test queries are flagged" in (run / "report.html").read_text("utf-8")
    # one pair on both sides: nothing of it can be trusted
    copied = make_beir(tmp_path / "copied", copy=True)
    result = command("run", "-c", config, "--set", f"data={copied}", "--set", f"run={tmp_path}/b")
    assert result.code == 7
    assert "q0-0 (train) and q0-0 (test)" in result.lines[-1]


def test_a_base_that_cannot_read_the_text_gives_way_to_a_static_model(
    command, make_beir, tmp_path, tiny_model
):
    from embedtune.pipeline.stored import load_judgement

    data = make_beir(tmp_path / "data", chinese=True)
    config = write_config(tmp_path, tmp_path, tiny_model, data=str(data), documents={}, llm={})
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    assert "unknown" in " ".join(result.json["reasons"])
    assert "transductive" in " ".join(result.json["reasons"])
    assert result.json["verdict"] in ("do-not-ship", "inconclusive")  # 36 test queries
    systems = {system["name"]: system["metrics"] for system in result.json["systems"]}
    assert {"base", "untrained", "tuned", "bm25", "tuned + bm25"} <= set(systems)
    assert systems["tuned"]["ndcg@10"] > systems["base"]["ndcg@10"] + 0.1
    # its opponent is no model that cannot read, but the best that dev found untuned
    run = tmp_path / "runs" / "first"
    verdict = load_judgement(run / "09-evaluation").verdict
    assert verdict.base in ("bm25", "untrained", "untrained + bm25")
    facts = manifests(run)["08-training"]["facts"]
    assert (facts["base"], facts["unreadable"]) == ("static", str(tiny_model))
    assert (run / "report.html").exists()


def test_of_several_bases_the_best_on_dev_is_trained(command, small_beir, tmp_path, tiny_model):
    import torch
    from safetensors.torch import load_file, save_file

    worse = tmp_path / "worse"
    shutil.copytree(tiny_model, worse)
    weights = load_file(worse / "model.safetensors")
    torch.manual_seed(1)
    noisy = {name: values + torch.randn_like(values) for name, values in weights.items()}
    save_file(noisy, worse / "model.safetensors")
    config = write_config(tmp_path, tmp_path, tiny_model, data=str(small_beir), documents={},
                          llm={}, model={"base": [str(worse), str(tiny_model)]})  # fmt: skip
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    on_dev = {line.split(":")[0].strip(): line for line in result.lines if "on dev" in line}
    assert set(on_dev) == {str(worse), str(tiny_model)}
    systems = {system["name"] for system in result.json["systems"]}
    chosen = manifests(tmp_path / "runs" / "first")["08-training"]["facts"]["base"]
    other = ({str(worse), str(tiny_model)} - {chosen}).pop()
    assert other in systems  # shown, and decides nothing
    page = (tmp_path / "runs" / "first" / "report.html").read_text("utf-8")
    assert "Base models considered" in page
    bases = json.loads((tmp_path / "runs" / "first" / "report.json").read_text())["training"][
        "bases"
    ]
    assert [row["name"] for row in bases if row["chosen"]] == [chosen]
    assert float(on_dev[chosen].split()[-3]) >= float(on_dev[other].split()[-3])


def test_another_address_or_limit_asks_nothing_anew():
    from embedtune.config import load_config
    from embedtune.llm.scripted import ScriptedChat
    from embedtune.pipeline.recipes import query_recipe

    def fingerprint(*overrides: str) -> str:
        settings = load_config(None, overrides)
        chat = ScriptedChat(lambda request: "")
        return query_recipe(settings, "d", "c", chat).fingerprint

    first = fingerprint("llm.base_url=http://one.example/v1")
    assert fingerprint("llm.base_url=http://two.example/v1", "llm.concurrency=3") == first
    assert fingerprint("llm.temperature=0.1") != first
