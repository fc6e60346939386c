"""Data sets that are trained on beside the main one: masks, leaks, and what is not reused."""

import json
from dataclasses import replace

import pytest

from embedtune.config import RunSettings
from embedtune.datasets.split import SplitSettings
from embedtune.errors import IntegrityError
from embedtune.pipeline.material import further_digest, further_examples
from embedtune.pipeline.models import train_digest
from embedtune.pipeline.stored import load_given
from embedtune.training.plan import TrainingSettings

QUICK = ("--set", "training.max_steps=2", "--set", "training.merge=off", "--set",
         "training.batch_size=8", "--set", "training.allow_unknown_tokens=true", "--set",
         "evaluation.probe=none", "--minutes", "0", "--json")  # fmt: skip


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def beside(*where) -> RunSettings:
    return RunSettings(training=TrainingSettings(also=[str(path) for path in where]))


def test_pairs(folder):
    """(question, passage) of the test split of a BEIR folder."""

    def texts(name):
        rows = map(json.loads, (folder / name).read_text("utf-8").splitlines())
        return {row["_id"]: row["text"] for row in rows}

    queries, passages = texts("queries.jsonl"), texts("corpus.jsonl")
    lines = (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    return [(queries[line.split("\t")[0]], passages[line.split("\t")[1]]) for line in lines]


test_pairs.__test__ = False

SIGHTS = [(f"which sight is number {n}", f"sight {n}: " + word * 9) for n, word in enumerate(
    ["tower ", "bridge ", "castle ", "island ", "museum ", "garden ", "palace ", "market ",
     "abbey ", "mill ", "quay ", "cave "])]  # fmt: skip


def folder_of_sights(folder, train):
    """A BEIR folder with the ids of ``small_beir``; ``train`` is (query, passage) by place."""
    (folder / "qrels").mkdir(parents=True)
    for name, kind, place in (("queries", "q", 0), ("corpus", "d", 1)):
        write_jsonl(
            folder / f"{name}.jsonl",
            [{"_id": f"{kind}{n}", "text": texts[place]} for n, texts in enumerate(SIGHTS)],
        )
    for name, judged in {"train": train, "test": [(0, 9), (11, 11)]}.items():
        lines = [f"q{query}\td{passage}\t2\n" for query, passage in judged]
        (folder / "qrels" / f"{name}.tsv").write_text(
            "".join(["query-id\tcorpus-id\tscore\n", *lines]), "utf-8"
        )
    return folder


@pytest.fixture
def main(small_beir):
    return load_given(small_beir, SplitSettings())


def test_ids_of_further_sets_are_no_others_and_all_their_answers_are_masked(main, tmp_path):
    one = folder_of_sights(tmp_path / "one", [(0, 0), (0, 1), (2, 2)])
    two = folder_of_sights(tmp_path / "two", [(0, 5), (3, 3)])
    found = further_examples(beside(one, two), main.data, main.examples)
    queries = [{pair.query for pair in part.examples.pairs} for part in found]
    assert queries[0].isdisjoint(queries[1])
    assert {query.id for query in main.data.queries}.isdisjoint(queries[0] | queries[1])
    masked = []
    for part in found:
        texts = {pair.chunk: pair.positive.split(":")[0] for pair in part.examples.pairs}
        masked.append({
            pair.anchor[-1]: {texts.get(chunk, chunk[-2:]) for chunk in part.answers[pair.query]}
            for pair in part.examples.pairs
        })  # fmt: skip
    assert masked == [
        {"0": {"sight 0", "sight 1", "d9"}, "2": {"sight 2"}},  # d9 by its test qrels
        {"0": {"sight 5", "d9"}, "3": {"sight 3"}},
    ]


def test_pairs_in_files_are_masked_by_what_they_say_in_any_writing(main, tmp_path):
    rows = [("which sight", "the tower"), ("Which  sight", "the bridge"), ("who", "the guide")]
    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in rows])
    (part,) = further_examples(beside(file), main.data, main.examples)
    chunks = {pair.positive: pair.chunk for pair in part.examples.pairs}
    both = {chunks["the tower"], chunks["the bridge"]}
    assert [part.answers[pair.query] for pair in part.examples.pairs] == [
        both, both, {chunks["the guide"]}
    ]  # fmt: skip


def test_the_main_queries_keep_their_own_masks(
    main, small_beir, tiny_model, tmp_path, command, monkeypatch
):
    from embedtune.pipeline import tune as module
    from embedtune.training.train import train

    seen = {}

    def watched(sets, *arguments, excluded, **further):
        seen.update(pairs=sets[0].pairs, beside=sets[1].pairs, excluded=excluded)
        return train(sets, *arguments, excluded=excluded, **further)

    monkeypatch.setattr(module, "train", watched)
    # ids of the main set, so that each of its queries has a namesake
    source = folder_of_sights(tmp_path / "sights", [(n, n) for n in range(1, 10)])
    names = sorted(main.data.qrels["train"])
    rename = {f"q{n}": names[n] for n in range(1, 10)}
    for path in (source / "queries.jsonl", source / "qrels" / "train.tsv"):
        text = path.read_text("utf-8")
        for old, new in rename.items():
            text = text.replace(f'"{old}"', f'"{new}"').replace(f"{old}\t", f"{new}\t")
        path.write_text(text, "utf-8")
    result = command("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", f"training.also=[{source}]", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    chunks = {pair.chunk for pair in seen["pairs"]}
    assert {pair.query for pair in seen["pairs"]} >= set(rename.values())
    assert all(pair.chunk in seen["excluded"](pair.query) for pair in seen["pairs"])
    assert not any(seen["excluded"](pair.query) & chunks for pair in seen["beside"])


def test_s04_a_further_set_that_holds_the_test_split_is_refused(
    small_beir, tiny_model, tmp_path, command
):
    copied = test_pairs(small_beir)
    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in copied])
    result = command("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", f"training.also=[{file}]", *QUICK)  # fmt: skip
    assert result.code == 7, result.err
    assert f"{len(copied)} of {len(copied)} rows (100.0%) stand in test of" in result.err
    assert not (tmp_path / "m").exists()


def test_rows_close_to_test_are_left_out_counted_and_kept_in_the_manifest(
    small_beir, tiny_model, tmp_path, command
):
    (asked, answer), *_ = test_pairs(small_beir)
    rows = [*SIGHTS, (asked, "nobody knows"), ("another question", answer)]
    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in rows])
    result = command("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", f"training.also=[{file}]", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    said = f"training.also: {file}: 2 of 14 rows are left out of training"
    assert said in result.err
    (kept,) = json.loads((tmp_path / "m" / "manifest.json").read_text("utf-8"))["facts"]["also"]
    assert (kept["data"], kept["rows"], kept["left_out"]) == ("f (1)", 12, 2)
    assert said in kept["note"]
    assert result.json["also"] == [kept]


# ---- a training is done again when what it learns from has changed


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_t08_changed_rows_of_a_further_set_are_trained_on(
    small_beir, tiny_model, tmp_path, command
):
    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in SIGHTS])
    options = ("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "m",
               "--set", f"training.also=[{file}]", "--set", "training.mixing=round_robin",
               *QUICK)  # fmt: skip
    assert command(*options).code == 0
    first, known = weights(tmp_path / "m"), json.loads((tmp_path / "m/embedtune.json").read_text())
    assert command(*options).code == 0
    assert weights(tmp_path / "m") == first
    write_jsonl(file, [{"anchor": a, "positive": p.upper() + " now"} for a, p in SIGHTS])
    result = command(*options)
    assert result.code == 0, result.err
    assert weights(tmp_path / "m") != first
    told = json.loads((tmp_path / "m/embedtune.json").read_text())
    assert told["data"] == known["data"]
    assert told["also"] != known["also"]


def test_t08_half_done_work_on_other_rows_of_a_further_set_is_refused(
    small_beir, tiny_model, tmp_path, command, monkeypatch
):
    from embedtune.pipeline import models

    def interrupted(*arguments, **further):
        raise IntegrityError("stopped")

    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in SIGHTS])
    options = ("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "m",
               "--set", f"training.also=[{file}]", *QUICK)  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(models, "tune", interrupted)
        assert command(*options).code == 7
    write_jsonl(file, [{"anchor": a, "positive": f"{p} now"} for a, p in SIGHTS])
    result = command(*options)
    assert result.code == 7
    assert "half-done work of another recipe" in result.err
    assert "also" in result.lines[-1]
    assert command(*options, "--fresh").code == 0


def test_a_run_trains_again_when_a_further_set_changed(small_beir, tiny_model, tmp_path, command):
    file = write_jsonl(tmp_path / "f.jsonl", [{"anchor": a, "positive": p} for a, p in SIGHTS])
    config = tmp_path / "embedtune.yaml"
    run = tmp_path / "run"
    config.write_text(json.dumps({
        "run": str(run), "data": str(small_beir), "model": {"base": str(tiny_model)},
        "training": {"max_steps": 2, "batch_size": 8, "also": [str(file)]},
        "evaluation": {"probe": "none"},
    }), "utf-8")  # fmt: skip

    def made():
        result = command("run", "-c", config, "--json")
        assert result.code == 0, result.err
        return json.loads((run / "08-training" / "manifest.json").read_text("utf-8")), result

    first, _ = made()
    assert made()[0] == first
    (asked, _), *_ = test_pairs(small_beir)
    write_jsonl(file, [{"anchor": a, "positive": p} for a, p in [*SIGHTS, (asked, "unknown")]])
    again, result = made()
    # its rows are the same once the last is left out; nothing else was learnt
    assert again == first
    write_jsonl(file, [{"anchor": a, "positive": f"{p} now"} for a, p in
                       [*SIGHTS, (asked, "unknown")]])  # fmt: skip
    again, result = made()
    assert again["digest"] != first["digest"]
    assert again["facts"]["also"][0]["left_out"] == 1
    assert "1 of 13 rows are left out of training" in result.err
    assert "1 of 13 rows are left out of training" in (run / "report.html").read_text("utf-8")


SCORED = [(f"the {word} is old {n}", f"an old {word} {n}", n % 5 / 4) for n in range(12)
          for word in ("tower", "bridge", "castle", "island", "museum")]  # fmt: skip


def test_the_digest_knows_scores(tmp_path):
    def digest(name, rows):
        return train_digest(load_given(write_jsonl(tmp_path / name, rows), SplitSettings()))

    def scored(change=0.0):
        # all on the same side of what counts as relevant
        return [{"sentence1": a, "sentence2": b, "score": score + change * (score == 0.25)}
                for a, b, score in SCORED]  # fmt: skip

    assert digest("s.jsonl", scored()) == digest("s.jsonl", scored())
    assert digest("s.jsonl", scored()) != digest("s.jsonl", scored(change=0.1))


def test_the_digest_knows_given_negatives_and_what_other_splits_say_of_a_train_query(main):
    train, dev = (next(iter(main.data.qrels[name])) for name in ("train", "dev"))
    chunk = main.data.chunks[0].id

    def judged_elsewhere(query):
        qrels = {**main.data.qrels, "extra": {query: {chunk: 1}}}
        return train_digest(replace(main, data=replace(main.data, qrels=qrels)))

    known = train_digest(main)
    assert train_digest(replace(main, negatives={train: (chunk,)})) != known
    assert judged_elsewhere(train) != known
    assert judged_elsewhere(dev) == known


def test_the_digest_of_further_sets_is_of_what_is_learnt(main, tmp_path):
    def digest(rows):
        file = write_jsonl(tmp_path / "f.jsonl", rows)
        return further_digest(further_examples(beside(file), main.data, main.examples))

    rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in SCORED]
    assert further_digest([]) == {}
    assert digest(rows) == digest(rows)
    assert digest(rows) != digest([{**row, "score": 1 - row["score"]} for row in rows])
    labelled = [{"text": a, "label": str(n % 3)} for n, (a, _) in enumerate(SIGHTS)]
    assert digest(labelled) != digest([{**row, "label": "x" + row["label"] if n % 2 else "a"}
                                       for n, row in enumerate(labelled)])  # fmt: skip
