"""embedtune review: the page and table of a run, and decisions that the next run honours."""

import csv
import json

import pytest
import yaml


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, command, mixed_folder, tiny_model):
    folder = tmp_path_factory.mktemp("reviewed")
    config = folder / "embedtune.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "run": "runs/first",
                "documents": {"paths": [str(mixed_folder / "docs")]},
                "chunks": {"tokens": 48, "overlap": 0},
                "llm": {"provider": "scripted", "answers": str(mixed_folder / "answers.jsonl")},
                "model": {"base": str(tiny_model)},
                "training": {"max_steps": 4, "batch_size": 16},
                "evaluation": {"probe": "none"},
            }
        ),
        "utf-8",
    )
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    return config, folder / "runs" / "first"


def test_decisions_change_the_data_set_of_the_next_run(finished, command, tmp_path):
    config, run = finished
    made = command("review", run, "--json")
    assert made.code == 0, made.err
    queries = rows(run / "03-queries" / "queries.jsonl")
    assert (made.json["queries"], made.json["decided"]) == (len(queries), 0)
    assert (run / "review.html").stat().st_size > 10_000
    with (run / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["id"] for row in listed} == {query["id"] for query in queries}
    splits = [row["split"] for row in listed]
    assert splits.index("test") == 0
    assert splits == sorted(splits, key=["test", "dev", "", "train"].index)

    gone, reworded, widened = listed[0]["id"], listed[1]["id"], listed[2]
    other = widened["candidates"].split()[0]
    saved = tmp_path / "decisions.csv"
    with saved.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        for row in listed:
            decided = {gone: "reject", reworded: "edit"}.get(row["id"], "")
            text = "how is this ever paid for" if row["id"] == reworded else row["text"]
            also = other if row is widened else ""
            writer.writerow({**row, "decision": decided, "text": text, "also_relevant": also})
    taken = command("review", run, "--decisions", saved, "--json")
    assert (taken.code, taken.json["decided"]) == (0, 3), taken.err

    again = command("run", "-c", config, "--json")
    assert again.code == 0, again.err
    assert "3 decisions of the review applied" in again.err
    after = rows(run / "05-dataset" / "queries.jsonl")
    assert gone not in {query["_id"] for query in after}
    assert "how is this ever paid for" in {query["text"] for query in after}
    judged = [line.split("\t") for path in (run / "05-dataset" / "qrels").iterdir()
              for line in path.read_text("utf-8").splitlines()]  # fmt: skip
    assert [widened["id"], other, "1"] in judged
    rejected = [row for row in rows(run / "04-filtered" / "rejects.jsonl") if row["item"] == gone]
    assert rejected[0]["code"] == "reviewed"


def test_the_page_knows_edited_queries_and_what_the_split_left_out(finished, command, tmp_path):
    config, run = finished
    command("review", run)
    with (run / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        before = {row["id"]: row for row in csv.DictReader(file)}
    tested = [name for name, row in before.items() if row["split"] == "test"]
    saved = tmp_path / "decisions.jsonl"
    edit = {"query": tested[2], "decision": "edit", "text": "which of these is never asked"}
    trained = next(name for name, row in before.items() if row["split"] == "train")
    evidence = next(row["evidence"] for row in rows(run / "03-queries" / "queries.jsonl")
                    if row["id"] == trained)  # fmt: skip
    mark = {"query": tested[3], "decision": "keep", "relevant": [evidence]}
    saved.write_text(f"{json.dumps(edit)}\n{json.dumps(mark)}\n", "utf-8")
    assert command("review", run, "--decisions", saved).code == 0
    assert command("run", "-c", config).code == 0
    command("review", run)
    with (run / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        after = {row["id"]: row for row in csv.DictReader(file)}
    assert after[tested[2]]["split"] in ("test", "dev", "train")
    held = {row["_id"] for row in rows(run / "05-dataset" / "queries.jsonl")}
    dropped = {row["item"]: row["code"] for stage in ("04-filtered", "05-dataset")
               for row in rows(run / stage / "rejects.jsonl")}  # fmt: skip
    assert dropped[trained] == "border"  # it is about a passage that answers a test query
    for name, row in after.items():
        assert (row["status"] == "in") == bool(row["split"]), row
        if name in dropped:
            assert row["reason"].startswith(dropped[name])
            assert name not in held


def test_decisions_that_were_damaged_are_named_with_their_line(finished, command):
    _, run = finished
    path = run / "decisions.jsonl"
    whole = path.read_text("utf-8") if path.exists() else ""  # of a test before this one
    path.write_text(f'{whole}{{"decision": "keep"}}\n', "utf-8")
    try:
        made = command("review", run)
        assert (made.code, len(made.lines)) == (7, 1)
        assert f"{path}:{len(whole.splitlines()) + 1}: query" in made.err
    finally:
        path.write_text(whole, "utf-8")


def test_unusable_decisions_are_named_and_the_others_kept(finished, command, tmp_path):
    _, run = finished
    some = rows(run / "03-queries" / "queries.jsonl")[5]["id"]
    path = tmp_path / "decisions.jsonl"
    path.write_text(f'{{"query": "{some}", "decision": "keep"}}\n{{"query": "x"}}\n', "utf-8")
    result = command("review", run, "--decisions", path, "--json")
    assert result.code == 4
    assert f"{path}:2: decision:" in result.err
    assert some in (run / "decisions.jsonl").read_text("utf-8")


def test_a_folder_without_a_run_is_refused(command, tmp_path):
    assert command("review", tmp_path / "none").code == 2
    assert command("review", tmp_path).code == 3
