"""Where data sets come from: files, folders, Hugging Face and LlamaIndex; and what they become."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from embedtune.datasets.beir import read_beir, write_beir
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow
from embedtune.datasets.given import check_given_splits, complete_splits
from embedtune.datasets.hub import parse_address
from embedtune.datasets.source import (
    SourceSettings,
    examples_by_split,
    read_source,
    refuse_copies,
)
from embedtune.datasets.split import SplitSettings
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.similar import near_duplicates

SHARED = Path(__file__).resolve().parents[3] / "shared"


def lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pairs(*names) -> str:
    return lines({"question": f"what is {name}?", "answer": f"{name} it is"} for name in names)


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of files: name -> text."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path / "set"

    return make


def sizes(source) -> dict[str, int]:
    return {split: len(rows) for split, rows in source.examples.items()}


# ---- files of a folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train.jsonl": "a b", "dev.jsonl": "c", "test.jsonl": "d e f"},
         {"train": 2, "dev": 1, "test": 3}),
        ({"train.jsonl": "a", "validation.jsonl": "b", "eval.jsonl": "c"},
         {"train": 1, "dev": 1, "test": 1}),
        ({"my_train_v2.jsonl": "a", "my-val.jsonl": "b"}, {"train": 1, "dev": 1}),
        ({"train-00000-of-00002.jsonl": "a", "train-00001-of-00002.jsonl": "b c",
          "test-00000-of-00001.jsonl": "d"}, {"train": 3, "test": 1}),
        ({"train.jsonl": "a", "test.jsonl": "b", "test_hard.jsonl": "c d"},
         {"train": 1, "test": 1, "test_hard": 2}),
        ({"data/train.jsonl": "a", "data/test.jsonl": "b", "README.md": ""},
         {"train": 1, "test": 1}),
        ({"train/0.jsonl": "a", "train/1.jsonl": "b", "test/0.jsonl": "c"},
         {"train": 2, "test": 1}),
        ({"训练集.jsonl": "a", "测试集.jsonl": "b"}, {"train": 1, "test": 1}),
        ({"part-1.jsonl": "a", "part-2.jsonl": "b"}, {"all": 2}),
        ({"faq.jsonl": "a b c"}, {"all": 3}),
        ({"train.jsonl": "a", "rejects.jsonl": "b", ".hidden.jsonl": "c"}, {"train": 1}),
    ],
)  # fmt: skip
def test_the_files_of_a_folder_are_known_by_their_names(folder, files, expected):
    where = folder({
        name: pairs(*text.split()) if name.endswith("jsonl") else text
        for name, text in files.items()
    })  # fmt: skip
    assert sizes(read_source(where)) == expected


def test_files_whose_names_say_nothing_are_told(folder):
    together = read_source(folder({"a.jsonl": pairs("a"), "b.jsonl": pairs("b")}))
    assert together.notes[0] == "a.jsonl, b.jsonl: no name says which split it is; read as one"
    beside = read_source(folder({"train.jsonl": pairs("c")}))
    assert beside.notes[0] == "not read, since the name says no split: a.jsonl, b.jsonl"


def test_files_can_be_named(folder):
    where = folder(
        {"a.jsonl": pairs("a", "b"), "b.jsonl": pairs("c"), "c-1.csv": "query,pos\nx,y\n"}
    )
    source = read_source(
        where, splits={"train": "a.jsonl", "validation": "b.jsonl", "hard": "c-*.csv"}
    )
    assert sizes(source) == {"train": 2, "dev": 1, "hard": 1}
    beside = read_source(where / "a.jsonl", splits={"test": "b.jsonl"})
    assert sizes(beside) == {"train": 2, "test": 1}
    with pytest.raises(ConfigError, match=r"--splits test=d\.jsonl: no such file"):
        read_source(where, splits={"test": "d.jsonl"})


def test_two_files_for_one_split_in_different_types_are_asked_about(folder):
    where = folder({"train.jsonl": pairs("a"), "train.csv": "query,pos\nx,y\n"})
    with pytest.raises(ConfigError, match=r"train\.csv, train\.jsonl are of several types"):
        read_source(where)


def test_what_is_no_data_set_is_a_usage_error(folder, tmp_path):
    where = folder({"en/train.jsonl": pairs("a"), "zh/train.jsonl": pairs("b"), "notes.txt": "x"})
    with pytest.raises(ConfigError, match=r"neither a BEIR folder nor .*there is en, zh: name one"):
        read_source(where)
    with pytest.raises(ConfigError, match=r"expected a folder, or a file of one of \.jsonl"):
        read_source(where / "notes.txt")
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_source(tmp_path / "gone")


def test_a_split_without_a_usable_row_stops(folder):
    empty = '{"question": "x?", "answer": ""}\n{\n'
    where = folder({"train.jsonl": pairs("a"), "test.jsonl": empty})
    with pytest.raises(NothingUsable, match=r'no usable rows; .*test\.jsonl:1: "answer" is empty'):
        read_source(where)


def test_a_column_of_splits_is_followed(tmp_path):
    rows = ["split,question,answer", "train,a?,b", "dev,c?,d", "train,e?,f", "Test,g?,h"]
    (tmp_path / "set.csv").write_text("\n".join(rows), "utf-8")
    source = read_source(tmp_path / "set.csv")
    assert sizes(source) == {"train": 2, "dev": 1, "test": 1}
    assert source.data.given_splits
    (tmp_path / "set.csv").write_text("split,question,answer\nleft,a?,b\nright,c?,d\n", "utf-8")
    source = read_source(tmp_path / "set.csv")
    assert sizes(source) == {"all": 2}
    assert source.notes == ("the column split is not followed: it holds left, right",)


def test_a_packed_file_is_read(tmp_path):
    import gzip

    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(pairs("a", "b").encode()))
    assert sizes(read_source(tmp_path)) == {"train": 2}
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(pairs("a").encode())[:-9])
    with pytest.raises(NothingUsable, match="cannot be unpacked"):
        read_source(tmp_path)


def test_a_beir_folder_is_read_as_such(small_beir):
    source = read_source(small_beir)
    assert source.format == "beir"
    assert source.data == read_beir(small_beir).data
    assert source.examples == source.negatives == {}


def test_negatives_that_only_training_has_are_no_fault(folder):
    triplets = lines({"query": f"q{n}", "pos": f"p{n}", "wrong": f"n{n}"} for n in range(3))
    where = folder({"train.jsonl": triplets, "test.jsonl": lines([{"query": "x", "pos": "y"}])})
    source = read_source(where, {"negative": "wrong"})
    assert source.format == "triplets"
    assert sizes(source) == {"train": 3, "test": 1}
    assert "no negatives in test.jsonl" in source.notes


# ---- as retrieval sets


def test_pairs_become_queries_passages_and_judgements(folder):
    where = folder({
        "train.jsonl": pairs("a", "b"),
        "test.jsonl": lines([
            {"question": "c?", "answer": "a it is"}, {"question": "C?", "answer": "c"}]),
    })  # fmt: skip
    data = read_source(where).data
    text = {chunk.id: chunk.text for chunk in data.chunks}
    assert sorted(text.values()) == ["a it is", "b it is", "c"]  # equal texts are one passage
    (asked,) = data.queries_of("test")  # case makes no other question
    assert {text[chunk] for chunk in data.qrels["test"][asked.id]} == {"a it is", "c"}
    assert data.given_splits
    assert not data.shared_passages
    assert {query.origin for query in data.queries} == {"user"}
    assert all(chunk.document == chunk.id for chunk in data.chunks)


def test_rows_with_a_group_belong_to_one_document(folder):
    rows = [
        {"query": f"q{n}", "pos": f"passage {n}", "group": "manual" if n < 2 else 7}
        for n in range(3)
    ]
    chunks = read_source(folder({"train.jsonl": lines(rows)})).data.chunks
    assert [(c.document, c.start, c.end) for c in chunks] == [
        ("manual", 0, 9), ("manual", 9, 18), ("7", 0, 9)]  # fmt: skip


def test_negatives_are_passages_to_be_searched_too(folder):
    rows = [{"query": "q", "pos": "p", "negative_1": "n", "negative_2": "m"},
            {"query": "r", "pos": "n", "negative_1": "p", "negative_2": "n2"}]  # fmt: skip
    source = read_source(folder({"train.jsonl": lines(rows)}))
    text = {chunk.id: chunk.text for chunk in source.data.chunks}
    assert set(text.values()) == {"p", "n", "m", "n2"}
    given = {q.text: [text[c] for c in source.negatives[q.id]] for q in source.data.queries}
    assert given == {"q": ["n", "m"], "r": ["p", "n2"]}


def test_scored_pairs_from_the_threshold_on_are_relevant(folder):
    rows = [("a", "b", 0.9), ("a", "c", 0.5), ("a", "d", 0.4), ("e", "f", 0.1), ("a", "g", 0),
            ("h", "H ", 1)]  # fmt: skip
    text = lines({"sentence1": a, "sentence2": b, "score": score} for a, b, score in rows)
    where = folder({"train.jsonl": text, "dev.jsonl": scored(2), "test.jsonl": scored(4)})
    source = read_source(where)
    text = {chunk.id: chunk.text for chunk in source.data.chunks}
    (query,) = source.data.queries_of("train")
    assert {text[c] for c in source.data.qrels["train"][query.id]} == {"b", "c"}
    assert [text[c] for c in source.negatives[query.id]] == ["g"]
    assert {"d", "f", "g", "H "} <= set(text.values())
    assert "those scored 0.5 or more; 1 more are of two equal texts" in source.notes[-1]
    strict = read_source(where, settings=SourceSettings(positive_score=0.6))
    assert sum(map(len, strict.data.qrels["train"].values())) == 1


def scored(count: int) -> str:
    return lines(
        {"sentence1": f"{count} one {n}", "sentence2": f"{count} two {n}", "score": n % 2}
        for n in range(count)
    )


LABELLED = {
    "train.csv": "text,label\nred one,warm\norange two,warm\nyellow three,warm\nblue four,cold\n"
    "grey five,cold\nlonely,single\n",
    "dev.csv": "text,label\ncrimson,warm\n",
    "test.csv": "text,label\nnavy,cold\nmauve,unheard\n",
}


def test_labelled_texts_search_the_train_texts_of_their_label(folder):
    source = read_source(folder(LABELLED))
    data = source.data
    assert data.shared_passages
    text = {chunk.id: chunk.text for chunk in data.chunks}
    assert len(text) == 6  # of train only
    answers = {
        query.text: {text[chunk] for chunk in data.qrels[split][query.id]}
        for split in data.qrels
        for query in data.queries_of(split)
    }
    assert answers == {
        "red one": {"orange two", "yellow three"},  # not itself
        "orange two": {"red one", "yellow three"},
        "yellow three": {"red one", "orange two"},
        "blue four": {"grey five"},
        "grey five": {"blue four"},
        "crimson": {"red one", "orange two", "yellow three"},
        "navy": {"blue four", "grey five"},
    }
    assert (
        "2 texts have a label that no other train text has, e.g. single, unheard" in source.notes[0]
    )


def test_hit_at_1_on_labelled_texts_is_the_accuracy_of_the_nearest_neighbour(folder):
    import numpy as np

    from embedtune.embed.hashing import HashingEmbedder
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.systems import parse_systems

    rows = many(240)
    parts = {"train.jsonl": rows[:150], "dev.jsonl": rows[150:160], "test.jsonl": rows[160:]}
    source = read_source(folder({name: lines(own) for name, own in parts.items()}))
    (system,) = parse_systems(["hashing"])
    scores = Evaluator(source.data).score(system, "test")

    def unit(texts, role):
        vectors = HashingEmbedder().embed(texts, role)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    train, test = source.examples["train"], source.examples["test"]
    found = unit([r.text for r in test], "query") @ unit([r.text for r in train], "document").T
    right = [
        train[best].label == row.label for best, row in zip(found.argmax(1), test, strict=True)
    ]
    assert 0.1 < np.mean(right) < 0.9
    assert scores.metrics["hit@1"] == pytest.approx(np.mean(right))


def test_a_text_with_two_labels_has_the_peers_of_both(folder):
    files = {**LABELLED, "test.csv": "text,label\nviolet,warm\nviolet,cold\n"}
    data = read_source(folder(files)).data
    (query,) = data.queries_of("test")
    relevant = data.qrels["test"][query.id]
    assert len(relevant) == len(list(relevant)) == len(set(relevant)) == 5
    assert dict(relevant) == dict.fromkeys(relevant, 1)
    assert "nothing" not in relevant


def test_labelled_data_survives_the_beir_layout(folder, tmp_path):
    data = read_source(folder(LABELLED)).data
    write_beir(data, tmp_path / "beir")
    again = read_beir(tmp_path / "beir").data
    assert again.shared_passages
    assert again.qrels == {
        split: {query: dict(grades) for query, grades in part.items()}
        for split, part in data.qrels.items()
    }
    write_beir(replace(again, shared_passages=False), tmp_path / "beir")
    assert not read_beir(tmp_path / "beir").data.shared_passages


# ---- data without splits


def many(count: int) -> list[dict]:
    """Texts of four labels; every fifth is nearly the one before it."""
    made = []
    for number in range(count):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        words = " ".join(digest[place : place + 5] for place in range(0, 40, 5))
        if number % 5 == 4:
            words = made[-1]["text"] + "s"
        made.append({"text": words, "label": "nesw"[number % 16 // 4]})
    return made


def test_labelled_texts_of_one_file_are_divided_with_alike_texts_together(tmp_path):
    rows = many(400)
    (tmp_path / "all.jsonl").write_text(lines(rows), "utf-8")
    source = read_source(tmp_path / "all.jsonl")
    assert sizes(source) == {"train": pytest.approx(250, abs=12), "dev": pytest.approx(50, abs=8),
                             "test": pytest.approx(100, abs=12)}  # fmt: skip
    assert sum(sizes(source).values()) == 400
    assert not source.data.given_splits
    split_of = {row.text: split for split, own in source.examples.items() for row in own}
    for row in rows:
        if row["text"].endswith("s"):
            assert split_of[row["text"]] == split_of[row["text"][:-1]]
    for own in source.examples.values():
        shares = Counter(row.label for row in own)
        assert all(count / len(own) == pytest.approx(0.25, abs=0.05) for count in shares.values())
    assert check_given_splits(source.data, []).pairs == 0
    (tmp_path / "all.jsonl").write_text(lines(rows[::-1]), "utf-8")
    shuffled = read_source(tmp_path / "all.jsonl")
    assert {row.text: split for split, own in shuffled.examples.items() for row in own} == split_of
    other = read_source(tmp_path / "all.jsonl", split=SplitSettings(seed=1))
    assert {r.text for r in other.examples["test"]} != {r.text for r in source.examples["test"]}


def test_scored_pairs_of_one_file_share_no_sentence_across_parts(tmp_path):
    rows = [
        {"sentence1": one["text"], "sentence2": other["text"], "score": n % 6 / 5}
        for n, (one, other) in enumerate(zip(many(300)[:-1], many(300)[1:], strict=True))
        if n % 10 != 9  # chains of ten
    ]
    (tmp_path / "all.jsonl").write_text(lines(rows), "utf-8")
    source = read_source(tmp_path / "all.jsonl")
    assert all(sizes(source)[split] > 15 for split in ("train", "dev", "test"))
    texts = {
        split: {text for row in own for text in (row.sentence1, row.sentence2)}
        for split, own in source.examples.items()
    }
    assert texts["train"].isdisjoint(texts["test"] | texts["dev"])
    assert texts["dev"].isdisjoint(texts["test"])


def test_rows_too_few_to_be_divided_are_left_whole(tmp_path):
    (tmp_path / "all.csv").write_text("text,label\na,x\nb,x\nc,y\n", "utf-8")
    source = read_source(tmp_path / "all.csv")
    assert sizes(source) == {"all": 3}
    assert "3 rows are too few to be divided" in source.notes[0]
    with pytest.raises(NothingUsable, match="too few texts to cut one"):
        complete_splits(source.data, [], SplitSettings())


def test_a_missing_dev_part_is_cut_from_the_train_rows(folder):
    where = folder({"train.jsonl": lines(many(200)), "test.jsonl": lines(
        {"text": f"test text number {n}", "label": "n"} for n in range(20))})  # fmt: skip
    source = read_source(where)
    assert sizes(source)["train"] + sizes(source)["dev"] == 200
    assert sizes(source)["test"] == 20
    assert source.data.given_splits


def test_pairs_of_one_file_are_divided_by_passage_and_their_rows_with_them(tmp_path):
    rows = [{"question": f"what of {row['text']}?", "answer": row["text"]} for row in many(200)]
    (tmp_path / "all.jsonl").write_text(lines(rows), "utf-8")
    source = read_source(tmp_path / "all.jsonl")
    alike = near_duplicates([chunk.embedded for chunk in source.data.chunks])
    made = complete_splits(source.data, alike, SplitSettings())
    rows_of = examples_by_split(source, made.data)
    assert {name: len(part) for name, part in rows_of.items()} == {
        name: sum(map(len, part.values())) for name, part in made.data.qrels.items()
    }
    assert sum(map(len, rows_of.values())) == 200
    asked = {query.text for query in made.data.queries_of("test")}
    assert {row.anchor for row in rows_of["test"]} == asked
    assert check_given_splits(made.data, alike).pairs == 0


# ---- LlamaIndex


def llama(queries, corpus, relevant) -> str:
    found = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "mode": "text"}
    return json.dumps(found, ensure_ascii=False, indent=4)


def test_llama_index_files_are_read_by_split(folder):
    where = folder({
        "train_dataset.json": llama({"q1": "水？"}, {"c1": "水。", "c2": "火。"}, {"q1": ["c1"]}),
        "val_dataset.json": llama({"q1": "fire?"}, {"c2": "火。", "c1": "new"},
                                  {"q1": ["c2", "c1"]}),
    })  # fmt: skip
    source = read_source(where)
    data = source.data
    assert source.format == "beir"
    assert {chunk.id: chunk.text for chunk in data.chunks} == {
        "c1": "水。", "c2": "火。", "dev/c1": "new"}  # fmt: skip
    assert {query.id: query.text for query in data.queries} == {"q1": "水？", "dev/q1": "fire?"}
    assert data.qrels == {"train": {"q1": {"c1": 1}}, "dev": {"dev/q1": {"c2": 1, "dev/c1": 1}}}
    assert source.counts.total == source.counts.accepted == 8


def test_one_llama_index_file_has_no_splits(tmp_path):
    (tmp_path / "qa.json").write_text(llama({"q": "a?"}, {"c": "b"}, {"q": ["c"]}), "utf-8")
    assert read_source(tmp_path / "qa.json").data.qrels == {"all": {"q": {"c": 1}}}


def test_faults_of_llama_index_files_are_named(tmp_path):
    path = tmp_path / "qa.json"
    path.write_text(
        llama({"q": "a?", "r": None, "s": "b?"}, {"c": "b", "d": " "},
              {"q": ["c", "d"], "r": ["c"], "s": "c"}), "utf-8")  # fmt: skip
    source = read_source(path)
    assert [(r.item, r.field) for r in source.rejects] == [
        ("d", "corpus"), ("r", "queries"), ("s", "relevant_docs")]  # fmt: skip
    assert source.data.qrels == {"all": {"q": {"c": 1}}}
    assert (source.counts.accepted, source.counts.rejected) == (4, 3)
    path.write_text(llama({"q": "a?"}, {"c": "b"}, {"q": ["gone"]}), "utf-8")
    with pytest.raises(IntegrityError, match="1 ids in relevant_docs are in neither"):
        read_source(path)
    path.write_text(llama({"q": ""}, {"c": "b"}, {"q": ["c"]}), "utf-8")
    with pytest.raises(NothingUsable, match="no usable queries"):
        read_source(path)


def test_rows_beside_llama_index_files_are_refused(folder):
    files = {"train.json": llama({"q": "a?"}, {"c": "b"}, {"q": ["c"]}), "test.json": "[{}]"}
    with pytest.raises(NothingUsable, match=r"test\.json: not of LlamaIndex, as other files are"):
        read_source(folder(files))


# ---- Hugging Face

CARD = """---
language: en
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train.jsonl
  - split: validation
    path:
    - en/dev-*.jsonl
- config_name: zh
  data_files: zh/*.csv
---
# A card
"""
FILES = {
    "README.md": CARD,
    "en/train.jsonl": pairs("a", "b"),
    "en/dev-1.jsonl": pairs("c"),
    "zh/all.csv": "问题,答案\n几号门？,007\n",
    "model.bin": "x" * 100,
}


def test_the_card_of_a_hugging_face_folder_says_what_is_what(folder):
    where = folder({**FILES, "README.md": CARD.replace("name: en", "name: default")})
    assert sizes(read_source(where)) == {"train": 2, "dev": 1}
    where = folder(FILES)
    with pytest.raises(ConfigError, match="several data sets in one: en, zh; name one"):
        read_source(where)
    where = folder(
        {"README.md": CARD.replace("dev-*", "gone-*").replace("name: en", "name: default")}
    )
    with pytest.raises(ConfigError, match=r"README\.md names en/gone-\*\.jsonl for dev; no such"):
        read_source(where)


def test_a_card_reaches_no_file_outside_its_folder(folder, tmp_path):
    (tmp_path / "secret.jsonl").write_text(pairs("a"), "utf-8")
    files = "['../secret.jsonl', '/etc/hosts']"
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"
    where = folder({"README.md": card, "train.jsonl": pairs("b")})
    assert [row.anchor for row in read_source(where).examples["train"]] == ["what is b?"]


def test_what_the_datasets_library_saves_is_read(tmp_path):
    import datasets

    rows = {"anchor": ["a?", "b?", "c?"], "positive": ["1", "NA", "3"]}
    table = datasets.Dataset.from_dict(rows)
    table.save_to_disk(str(tmp_path / "one"))
    assert read_source(tmp_path / "one").examples == {
        "all": (PairRow("a?", "1"), PairRow("b?", "NA"), PairRow("c?", "3"))}  # fmt: skip
    labels = datasets.ClassLabel(names=["no", "yes"])
    classes = datasets.Dataset.from_dict(
        {"text": ["x", "y", "z"], "label": [1, 0, 1]},
        datasets.Features({"text": datasets.Value("string"), "label": labels}),
    )
    parts = datasets.DatasetDict({"train": classes, "validation": classes.select([2, 0])})
    parts.save_to_disk(str(tmp_path / "both"))
    source = read_source(tmp_path / "both")
    assert source.examples["dev"] == (LabelledRow("z", "yes"), LabelledRow("x", "yes"))


@pytest.mark.parametrize("name", ["README.md", "state.json", "dataset_dict.json", "embedtune.json"])
@pytest.mark.parametrize("text", ["", "---\nconfigs: [\n---\n", "[1]", '{"splits": 3', "\x9d\x81"])
def test_a_broken_file_beside_the_data_hides_none_of_it(folder, name, text):
    where = folder({"train.jsonl": pairs("a")})
    (where / name).write_bytes(text.encode("latin-1"))
    assert sizes(read_source(where)) == {"train": 1}


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("hf:me/set", ("me/set", None, "")),
        ("hf:set", ("set", None, "")),
        ("hf:me/set@v1.0", ("me/set", "v1.0", "")),
        ("hf:me/set:en-zh", ("me/set", None, "en-zh")),
        ("hf:me/set@refs/pr/3:en", ("me/set", "refs/pr/3", "en")),
    ],
)
def test_addresses_of_the_hub(address, parsed):
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["hf:", "hf:a/b/c", "hf:a b", "hf:me/set@"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="expected hf:OWNER/NAME"):
        read_source(address)


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as fetching the files of one data set needs."""

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/me/set"):
            if "/revision/" in path and not path.endswith(("/main", "a" * 40)):
                return self._answer(404, code="RevisionNotFound")
            if "/tree/" in path:
                found = [{"type": "file", "oid": _etag(name), "path": name,
                          "size": len(text.encode())} for name, text in FILES.items()]  # fmt: skip
            else:
                found = {"id": "me/set", "sha": "a" * 40,
                         "siblings": [{"rfilename": name} for name in FILES]}  # fmt: skip
            return self._answer(200, json.dumps(found))
        name = path.removeprefix("/datasets/me/set/resolve/").partition("/")[2]
        if name in FILES:
            self.server.served.append(name)
            return self._answer(200, FILES[name], etag=_etag(name))
        return self._answer(404, code="RepoNotFound")

    do_HEAD = do_GET

    def _answer(self, status, text="{}", *, etag="", code=""):
        body = text.encode()
        self.send_response(status)
        for name, value in {"ETag": etag and f'"{etag}"', "X-Error-Code": code,
                            "X-Repo-Commit": "a" * 40, "Content-Length": str(len(body)),
                            "Content-Type": "application/json"}.items():  # fmt: skip
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def _etag(name: str) -> str:
    return hashlib.sha1(FILES[name].encode()).hexdigest()


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.served = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


READ = """
import json, sys
from embedtune.datasets.source import read_source
from embedtune.errors import EmbedtuneError
for address in sys.argv[1:]:
    try:
        source = read_source(address)
        print(json.dumps({split: [row.positive for row in rows]
                          for split, rows in source.examples.items()}), source.notes[0])
    except EmbedtuneError as error:
        print(error.exit_code, error)
"""


def test_a_data_set_of_the_hub_is_fetched_exactly_and_read_again_without_network(hub, tmp_path):
    def run(*addresses: str, **more: str) -> list[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", READ, *addresses], capture_output=True, text=True, check=True,
            env={**environment, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1",
                 "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", **more},
        )  # fmt: skip
        return done.stdout.splitlines()

    english, chinese, which, nobody, revision = run(
        "hf:me/set:en", "hf:me/set:zh", "hf:me/set", "hf:me/other", "hf:me/set@v9:en"
    )
    parts, revision_said = english.split(" hf:")
    assert json.loads(parts) == {"train": ["a it is", "b it is"], "dev": ["c it is"]}
    assert revision_said == f"me/set:en: revision {'a' * 40}"
    assert chinese.startswith('{"all": ["007"]}')  # the text of the cell, not a number
    assert which.startswith("2 hf:me/set: several data sets in one: en, zh")
    assert nobody == "2 hf:me/other: the hub has no such data set, or it is private: set HF_TOKEN"
    assert revision == "2 hf:me/set@v9:en: it has no revision v9"
    assert "model.bin" not in hub.served
    served = len(hub.served)

    offline, gone = run("hf:me/set:en", "hf:me/gone", HF_HUB_OFFLINE="1")
    assert offline == english
    assert gone.startswith(
        "5 hf:me/gone: not in the cache, and the hub is not asked: HF_HUB_OFFLINE"
    )
    closed, away = run("hf:me/set:en", "hf:me/gone", HF_ENDPOINT="http://127.0.0.1:9")
    assert closed == english
    assert away.startswith(
        "5 hf:me/gone: not in the cache, and http://127.0.0.1:9 cannot be reached"
    )
    assert len(hub.served) == served


# ---- the real sets


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "format", "counts", "kept"),
    [
        ("medquad_triplets", "triplets", {"train": 1751, "dev": 245, "test": 475}, PairRow),
        ("stsb_en_zh/en", "scored", {"train": 5673, "dev": 1494, "test": 1377}, ScoredRow),
        ("stsb_en_zh/zh", "scored", {"train": 5640, "dev": 1487, "test": 1369}, ScoredRow),
        ("banking77", "labelled", {"train": 9027, "dev": 965, "test": 3079}, LabelledRow),
    ],
)
def test_real_sets_are_read_without_any_option(name, format, counts, kept):
    source = read_source(SHARED / "data" / name)
    assert source.format == format
    assert sizes(source) == counts
    assert not any(reject.unusable for reject in source.rejects)
    assert all(isinstance(row, kept) for rows in source.examples.values() for row in rows)
    refuse_copies(source)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["medquad", "nvidia_10k", "onet_jobs", "securities_law", "zh_medical_qa"]
)
def test_real_beir_folders_are_read_without_any_option(name):
    source = read_source(SHARED / "data" / name)
    assert source.format == "beir"
    assert source.counts.rejected == 0
    assert {"train", "dev", "test"} <= source.data.qrels.keys()


@pytest.mark.shared
def test_a_million_judgements_of_real_labels_take_little_memory():
    data = read_source(SHARED / "data" / "banking77").data
    assert sum(map(len, data.qrels["train"].values())) == 1_116_710
    held = {id(group) for grades in data.qrels["train"].values() for group in grades._groups}
    assert len(held) == 77  # one table a label, not one a text
