"""Killed while it generates, trains and evaluates, a run ends as if nothing had happened."""

import json
import os
import signal
import time

import pytest
import yaml

from stub_server import Behaviour, StubServer

SECONDS = 240  # more than anything here takes


def wait_for(condition, process):
    """Until something is there; the process must not end before."""
    end = time.monotonic() + SECONDS

    def met():
        try:
            return condition()
        except FileNotFoundError:  # a folder that went while it was looked through
            return False

    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.003)


def outcome(run):
    """What must be equal: data set, model, scores and verdict."""
    dataset = {
        str(path.relative_to(run)): path.read_bytes()
        for path in (run / "05-dataset").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    judgement = json.loads((run / "09-evaluation" / "judgement.json").read_text("utf-8"))
    return {
        **dataset,
        "queries": (run / "03-queries" / "queries.jsonl").read_bytes(),
        "weights": (run / "08-training" / "model" / "model.safetensors").read_bytes(),
        "history": (run / "08-training" / "history.jsonl").read_bytes(),
        "merge": (run / "08-training" / "merge.json").read_bytes(),
        "systems": judgement["systems"],
        "verdict": judgement["verdict"],
    }


@pytest.fixture(scope="module")
def story(tmp_path_factory, child, command, mixed_folder, tiny_model):
    """A calm run, and one that is stopped four times; what was seen at each stop."""
    config = {
        "documents": {"paths": [str(mixed_folder / "docs")]},
        "chunks": {"tokens": 48, "overlap": 0},
        "queries": {"per_chunk": 1},
        "model": {"base": str(tiny_model)},
        "training": {"minutes": 0, "epochs": 14, "batch_size": 16, "evaluate_every": 10, "seed": 3},
        "evaluation": {"probe": "none"},
    }
    seen = {}
    folders = {}
    with StubServer(Behaviour()) as server:
        config["llm"] = {"model": "stub", "base_url": server.url, "concurrency": 2}
        for name in ("calm", "killed"):
            folders[name] = tmp_path_factory.mktemp(name) / "story"
            path = folders[name].parent / "embedtune.yaml"
            path.write_text(yaml.safe_dump({**config, "run": "story"}), "utf-8")
        calm = child("run", "-c", folders["calm"].parent / "embedtune.yaml", "--json")
        seen["calm"] = (*calm.communicate(timeout=SECONDS), calm.returncode)
        needed = len(server.billed)

        run = folders["killed"]
        arguments = ("run", "-c", run.parent / "embedtune.yaml", "--json")
        server.behaviour.latency = 0.05
        billed = needed

        def stopped(name, condition, number):
            process = child(*arguments)
            wait_for(condition, process)
            if name == "killed in generation":
                seen["locked"] = process.pid, command(*arguments)
            process.send_signal(number)
            seen[name] = (*process.communicate(timeout=SECONDS), process.returncode)

        stopped("interrupted", lambda: len(server.billed) > billed + 10, signal.SIGINT)
        billed = len(server.billed)
        stopped("killed in generation", lambda: len(server.billed) > billed + 10, signal.SIGKILL)
        server.behaviour.latency = 0
        stopped(
            "killed in training",
            lambda: any(run.glob(".work/train-*/checkpoints/checkpoint-20")),
            signal.SIGKILL,
        )
        stopped("killed in evaluation", lambda: any(run.glob(".work/evaluate-*")), signal.SIGKILL)
        last = child(*arguments)
        seen["last"] = (*last.communicate(timeout=SECONDS), last.returncode)
        asked = len(server.billed) - needed
    return folders, seen, needed, asked


def test_the_calm_run_ends_well(story):
    _, seen, _, _ = story
    out, err, code = seen["calm"]
    assert code == 0, err
    assert json.loads(out)["verdict"]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(story):
    _, seen, _, _ = story
    out, err, code = seen["interrupted"]
    assert (out, code) == ("", 130)
    assert "Traceback" not in err
    assert "same command" in err.splitlines()[-1]


def test_a_second_run_in_the_same_directory_is_refused(story):
    _, seen, _, _ = story
    pid, result = seen["locked"]
    assert (result.code, len(result.lines)) == (8, 1)
    assert f"process {pid} " in result.err
    assert "started" in result.err


def test_each_kill_hit_what_it_was_meant_for(story):
    _, seen, _, _ = story
    for name in ("generation", "training", "evaluation"):
        _, err, code = seen[f"killed in {name}"]
        assert code == -signal.SIGKILL, (name, err)
    said = {name: seen[f"killed in {name}"][1] for name in ("generation", "training", "evaluation")}
    assert "judging" not in said["generation"]
    assert "training " in said["training"]
    assert "evaluating" not in said["training"]
    assert "training goes on from checkpoint-" in said["evaluation"]
    assert seen["killed in evaluation"][0] == ""  # no verdict yet
    assert "training " not in seen["last"][1]


def test_the_outcome_is_that_of_the_calm_run(story):
    folders, seen, _, _ = story
    _, err, code = seen["last"]
    assert code == 0, err
    calm, killed = outcome(folders["calm"]), outcome(folders["killed"])
    assert calm.keys() == killed.keys()
    assert [part for part in calm if calm[part] != killed[part]] == []


def test_no_answer_was_bought_twice(story):
    _, _, needed, asked = story
    in_flight = 2  # at the one kill; after Ctrl-C those in flight are stored
    assert needed <= asked <= needed + in_flight


def test_nothing_half_done_is_left(story):
    folders, _, _, _ = story
    assert not (folders["killed"] / ".work").exists()
    assert not [name for name in os.listdir(folders["killed"]) if name.startswith(".old")]
    assert not any(folders["killed"].glob("*/checkpoints"))
