"""Commands over the four formats: train, evaluate, mine, convert, with columns named or known."""

import csv
import json
import random
import re

import pytest

from embedtune.datasets.source import read_source

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


def test_what_is_converted_for_llama_index_reads_back(small_beir, command, tmp_path):
    out = tmp_path / "llama"
    made = command("convert", "--data", small_beir, "--to", "llama_index", "--out", out, "--json")
    assert made.code == 0, made.err
    assert sorted(path.name for path in out.iterdir()) == ["dev.json", "test.json", "train.json"]
    data, again = (read_source(folder).data for folder in (small_beir, out))
    assert again.qrels == data.qrels
    assert {c.id: c.text for c in again.chunks} == {c.id: c.embedded for c in data.chunks}
    one = command("convert", "--data", out / "test.json", "--to", "llama_index", "--out",
                  tmp_path / "one.json")  # fmt: skip
    assert one.code == 0, one.err
    assert read_source(tmp_path / "one.json").data.qrels == {"all": data.qrels["test"]}
    several = command("convert", "--data", small_beir, "--to", "llama_index", "--out",
                      tmp_path / "several.json")  # fmt: skip
    assert several.code == 2
    assert "name a folder" in several.err


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
    assert [own["loss"] for own in facts["facts"]["losses"]] == ["mnrl"]
    assert "loss of train: mnrl: the passages of a batch" in result.err
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "loss of train</th><td><code>mnrl</code>" in report


# ---- each format trains with the loss for it, and the user is told which


def test_scored_pairs_learn_their_order(command, tiny_model, tmp_path):
    source = tmp_path / "scored.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        for place, row in enumerate(rows()):
            writer.writerow([row[0], row[1 + place % 2], [1.0, 0.25, 0.75, 0.0][place % 4]])
    result = command("train", "--data", source, "--base", tiny_model, "--out", tmp_path / "m",
                     "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert "loss of train: cosent: the order of the scores" in result.err
    assert [own["loss"] for own in result.json["losses"]] == ["cosent"]
    assert result.json["metric"] == "Spearman"
    assert -1 <= result.json["dev"] <= 1


def test_labelled_texts_learn_their_classes(command, tiny_model, tmp_path):
    source = tmp_path / "labelled.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((row[0], row[3]) for row in rows())
    result = command("train", "--data", source, "--base", tiny_model, "--out", tmp_path / "m",
                     "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert "loss of train: batch_hard: texts of a class belong together" in result.err
    assert result.json["metric"] == "ndcg@10"


@pytest.fixture
def jsonl(tmp_path):
    """Writes rows as one of the formats."""

    def write(name, **columns):
        path = tmp_path / f"{name}.jsonl"
        lines = [{key: row[place] for key, place in columns.items()} for row in rows()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("loss", "said"),
    [("auto", "loss of train: mnrl: the passages of a batch"),
     ("triplet", "loss of train: triplet, as training.loss says")],
)  # fmt: skip
def test_triplets_learn_with_the_loss_that_is_named(command, tiny_model, tmp_path, jsonl, loss,
                                                    said):  # fmt: skip
    source = jsonl("triplets", anchor=0, positive=1, negative=2)
    out = tmp_path / "m"
    result = command("train", "--data", source, "--base", tiny_model, "--out", out,
                     "--set", f"training.loss={loss}", "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert said in result.err
    assert result.json["plan"]["negatives_per_pair"] == 1
    kept = json.loads((out / "manifest.json").read_text("utf-8"))["facts"]["losses"]
    assert [own["data"] for own in kept] == ["train"]
    assert kept[0]["why"] == said.removeprefix("loss of train: ") or loss == "auto"


def test_a_data_set_beside_has_a_loss_of_its_own(command, tiny_model, tmp_path, jsonl):
    pairs = jsonl("pairs", anchor=0, positive=1)
    beside = tmp_path / "beside.csv"
    lines = [f"{port},{'north' if place % 2 else 'south'}" for place, port in enumerate(PORTS)]
    beside.write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    result = command("train", "--data", pairs, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", f"training.also=[{beside}]", "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert [own["loss"] for own in result.json["losses"]] == ["mnrl", "batch_hard"]
    assert "loss of beside (1): batch_hard: " in result.err
    assert result.json["losses"][1]["data"] == "beside (1)"


@pytest.mark.parametrize(
    ("columns", "loss", "needs"),
    [
        ({"anchor": 0, "positive": 1}, "triplet", "needs triplets"),
        ({"anchor": 0, "positive": 1}, "cosent", "needs scored"),
        ({"text": 0, "label": 3}, "cosent", "the data are labelled"),
        ({"anchor": 0, "positive": 1, "negative": 2}, "batch_all", "the data are triplets"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_before_a_model_is_loaded(
    command, tiny_model, tmp_path, jsonl, monkeypatch, columns, loss, needs
):
    from embedtune.embed import loading

    def refuse(*arguments, **further):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(loading, "load_resolved", refuse)
    result = command("train", "--data", jsonl("data", **columns), "--base", tiny_model,
                     "--out", tmp_path / "m", "--set", f"training.loss={loss}", *QUICK)  # fmt: skip
    assert result.code == 2, result.err
    assert needs in result.err
    for format in ("pairs", "triplets", "scored", "labelled"):
        assert re.search(rf"^embedtune: +{format} \(.+\): \w+", result.err, re.MULTILINE), (
            result.err
        )
    assert not (tmp_path / "m").exists()


# ---- a cross-encoder that teaches


@pytest.fixture(scope="module")
def cross_encoder(tiny_model, tmp_path_factory):
    """One with the tokenizer of the tiny model, and random weights."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    folder, out = tmp_path_factory.mktemp("cross"), tmp_path_factory.mktemp("teacher") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32, num_labels=1,
                        max_position_embeddings=64, initializer_range=0.5)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    CrossEncoder(str(folder), device="cpu").save_pretrained(str(out))
    return out


@pytest.mark.parametrize("loss", ["margin_mse", "distill_kl"])
def test_a_teacher_in_a_folder_is_learnt_from(
    command, tiny_model, cross_encoder, tmp_path, jsonl, loss
):
    source = jsonl("triplets", anchor=0, positive=1, negative=2)
    result = command("train", "--data", source, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", f"training.loss={loss}", "--set",
                     f"training.teacher={cross_encoder}", "--json", *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert f"loss of train: {loss}, as training.loss says" in result.err
    assert (tmp_path / "m" / "modules.json").is_file()


@pytest.mark.parametrize(
    ("teacher", "said"),
    [("nowhere", "there is no such folder"), ("tiny", "is an embedding model")],
)
def test_a_teacher_that_cannot_judge_is_refused_before_anything_is_done(
    command, tiny_model, tmp_path, jsonl, teacher, said
):
    teacher = tiny_model if teacher == "tiny" else tmp_path / teacher
    source = jsonl("triplets", anchor=0, positive=1, negative=2)
    result = command("train", "--data", source, "--base", tiny_model, "--out", tmp_path / "m",
                     "--set", "training.loss=margin_mse", "--set",
                     f"training.teacher={teacher}", *QUICK)  # fmt: skip
    assert result.code == 2, result.err
    assert "training.teacher: " in result.err
    assert said in result.err
    assert not (tmp_path / "m").exists()
