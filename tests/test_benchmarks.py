"""Benchmarks whose commands are run on sets that nobody has seen."""

import json
import sys

import pytest

import quality


@pytest.fixture
def beir(tmp_path):
    """A set of four passages about one thing each, and a query for each of them."""

    def write(name, **splits):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        things = ("barley", "clutch", "dynamo", "estuary")
        passages = [{"_id": f"d{n}", "text": f"What is said of the {thing} in these pages."}
                    for n, thing in enumerate(things)]  # fmt: skip
        queries = [{"_id": f"q{n}", "text": f"which {thing}"} for n, thing in enumerate(things)]
        for file, rows in (("corpus", passages), ("queries", queries)):
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        for split, numbers in splits.items():
            rows = "".join(f"q{n}\td{n}\t1\n" for n in numbers)
            (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
        return folder

    return write


@pytest.mark.model
def test_a_set_that_cannot_be_trained_on_costs_the_others_nothing(
    beir, tmp_path, monkeypatch, capsys
):
    broken = beir("broken", test=[0, 1])
    (broken / "queries.jsonl").write_text('{"_id": "q0", "text": 7}\n')
    untrained = beir("untrained", test=[0, 1, 2, 3])
    folders = [str(broken), str(untrained)]
    monkeypatch.setattr(sys, "argv", ["quality.py", *folders, "--no-tutorials", "--json"])
    assert quality.main() == 1
    told = capsys.readouterr()
    first, second = json.loads(told.out)["sets"]
    assert "queries.jsonl" in first["error"]
    assert [first[name] for name in quality.COLUMNS] == [None] * len(quality.COLUMNS)
    assert "train" in second["error"]
    assert second["bm25"] == second["base"] == 1
    assert second["ours"] is None
    rows = [json.loads(line) for line in told.err.splitlines() if line.startswith("{")]
    assert rows == [first, second]  # each as soon as it is there


def test_one_seed_has_no_interval():
    assert quality.interval([0.8]) is None
    assert quality.interval([0.8, 0.81, 0.82]) == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
