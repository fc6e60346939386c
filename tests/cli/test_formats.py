"""Commands over the four formats: train, evaluate, mine, convert, with columns named or known."""

import csv
import json
import random
import re

import pytest

PORTS = ["Arran", "Bressay", "Coll", "Danna", "Eigg", "Fetlar", "Gigha", "Hoy", "Iona", "Jura",
         "Kerrera", "Luing", "Muck", "Noss", "Oronsay", "Papa", "Raasay", "Sanda", "Tiree", "Unst",
         "Vaila", "Wiay", "Yell", "Zansay"]  # fmt: skip
WORDS = re.findall(
    r"\w+",
    """harbour lantern rope winter ticket captain island crate weather engine cabin anchor
    bridge market signal cargo tide morning evening steward oil bell window ladder deck kettle
    blanket compass chart uniform whistle gate barrel""",
)
SIGNS = "港船票风灯绳岛舱货潮早晚钟窗梯甲板壶毯图哨门桶"


def rows():
    """(anchor, positive, negative, label): passages of random words, so that none are alike."""
    made = []
    for number, port in enumerate(PORTS):
        draw = random.Random(number)
        words = " ".join(draw.choices(WORDS, k=14))
        signs = "".join(draw.choices(SIGNS, k=24))
        made.append((f"what about {words.split()[3]} in {port}", f"{port}: {words}.", "fare"))
        made.append((f"{port} 的{signs[3:6]}怎么样", f"{port}：{signs}。", "time"))
    for place, (asked, answer, label) in enumerate(made):
        yield asked, answer, made[(place + 14) % len(made)][1], label


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """A CSV whose columns have names of their own."""
    path = tmp_path_factory.mktemp("triplets") / "ferries.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["asked", "good", "bad"])
        writer.writerows(row[:3] for row in rows())
    return path


NAMED = "anchor=asked,positive=good,negative=bad"
QUICK = ("--set", "training.max_steps=2", "--set", "training.merge=off", "--set",
         "training.batch_size=8", "--set", "training.allow_unknown_tokens=true")  # fmt: skip


def test_columns_without_known_names_are_asked_for(triplets, command):
    result = command("evaluate", "--data", triplets, "bm25")
    assert result.code == 3
    assert "asked" in result.err
    assert "--columns" in result.err


def test_a_file_is_evaluated_whole(triplets, command):
    result = command("evaluate", "--data", triplets, "bm25", "--columns", NAMED, "--json")
    assert result.code == 0, result.err
    assert result.json["queries"] == 2 * len(PORTS)
    assert result.json["systems"][0]["metrics"]["hit@1"] > 0.5


def test_triplets_train_with_their_negatives(triplets, command, tiny_model, tmp_path):
    result = command("train", "--data", triplets, "--base", tiny_model, "--out", tmp_path / "m",
                     "--columns", NAMED, "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["plan"]["negatives_per_pair"] == 1
    assert "negatives (given)" in result.err
    assert (tmp_path / "m" / "modules.json").is_file()


def test_without_negatives_when_told_so(triplets, command, tiny_model, tmp_path):
    result = command("train", "--data", triplets, "--base", tiny_model, "--out", tmp_path / "m",
                     "--columns", NAMED, "--json", *QUICK,
                     "--set", "negatives.method=none")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["plan"]["negatives_per_pair"] == 0


def test_mine_writes_triplets_whose_negatives_answer_nothing(triplets, command, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    answers = {row[0]: row[1] for row in rows()}
    pairs.write_text(
        "".join(json.dumps({"query": q, "answer": a}) + "\n" for q, a in answers.items()), "utf-8"
    )
    out = tmp_path / "mined.jsonl"
    result = command("mine", "--data", pairs, "--out", out, "--json",
                     "--set", "negatives.retriever=bm25", "--set", "negatives.count=2",
                     "--set", "negatives.ceiling=1")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["negatives"] > 0
    made = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(made) == result.json["triplets"]
    for row in made:
        assert answers[row["anchor"]] == row["positive"]
        negatives = {text for name, text in row.items() if name.startswith("negative")}
        assert row["positive"] not in negatives
        assert negatives <= set(answers.values())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json", "hf"])
def test_labelled_texts_become_pairs_in_every_type(command, tmp_path, kind):
    source = tmp_path / "labelled"
    source.mkdir()
    for name, part in (("train", slice(0, 32)), ("dev", slice(32, 40)), ("test", slice(40, 48))):
        lines = [json.dumps({"text": row[0], "label": row[3]}) for row in list(rows())[part]]
        (source / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    out = tmp_path / "out"
    result = command("convert", "--data", source, "--to", "pairs", "--type", kind, "--out", out,
                     "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["rows"] == {"train": 32, "dev": 8, "test": 8}
    again = command("evaluate", "--data", out, "bm25", "--json")
    assert again.code == 0, again.err
    assert again.json["queries"] == 8


def test_convert_to_beir_and_back_keeps_every_judgement(triplets, command, tmp_path):
    beir, pairs = tmp_path / "beir", tmp_path / "pairs.csv"
    made = command("convert", "--data", triplets, "--columns", NAMED, "--to", "beir", "--out", beir)
    assert made.code == 0, made.err
    assert command("convert", "--data", beir, "--to", "pairs", "--out", pairs).code == 0
    with pairs.open(encoding="utf-8", newline="") as file:
        found = {(row["anchor"], row["positive"]) for row in csv.DictReader(file)}
    assert found == {row[:2] for row in rows()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "poems", "--out", "x.csv"), "expected one of pairs"),
        (("--to", "labelled", "--out", "x.csv"), "no labels"),
        (("--to", "pairs", "--type", "xlsx", "--out", "x"), "--type xlsx"),
        (("--to", "pairs", "--columns", "anchor", "--out", "x"), "ROLE=COLUMN"),
    ],
)
def test_a_conversion_that_means_nothing_is_refused(triplets, command, arguments, said):
    columns = () if "--columns" in arguments else ("--columns", NAMED)
    result = command("convert", "--data", triplets, *columns, *arguments)
    assert result.code == 2
    assert said in result.err


def test_train_and_test_that_share_rows_are_7(command, tiny_model, tmp_path):
    source = tmp_path / "data"
    source.mkdir()
    lines = [json.dumps({"anchor": row[0], "positive": row[1]}) for row in rows()]
    (source / "train.jsonl").write_text("\n".join(lines[:40]), "utf-8")
    (source / "test.jsonl").write_text("\n".join(lines[38:]), "utf-8")
    result = command("train", "--data", source, "--base", tiny_model, "--out", tmp_path / "m")
    assert result.code == 7
    assert "train.jsonl:39 and test.jsonl:1" in result.err


def test_a_run_takes_pairs_as_it_takes_a_beir_folder(command, tiny_model, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"query": row[0], "answer": row[1]}) + "\n" for row in rows()), "utf-8"
    )
    result = command("run", "--set", f"data={pairs}", "--set", f"model.base={tiny_model}",
                     "--set", "evaluation.probe=none", "--out", tmp_path / "run", "--json",
                     "--set", "negatives.method=random", "--set", "negatives.count=2",
                     *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "07-negatives" / "negatives.jsonl").is_file()
    facts = json.loads((tmp_path / "run" / "08-training" / "manifest.json").read_text("utf-8"))
    assert facts["facts"]["plan"]["negatives_per_pair"] == 2
