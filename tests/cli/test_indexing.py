"""index and search as commands: documents, data sets and runs in, passages out."""

import json
import shutil

import numpy as np
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.records import Chunk, as_row
from embedtune.retrieve.disk import DiskStore

LEAVE = """# Leave

## Parental leave
Employees may take up to sixteen weeks of parental leave. The request goes to the personnel office.

## Sick days
A doctor's note is needed from the third day on. Call before nine in the morning.
"""
PRINTER = """# 打印机

## 卡纸
打开后盖，取出卡住的纸张，再关上后盖。不要用力拉扯，以免损坏滚筒。

## 更换墨盒
指示灯闪烁时需要更换墨盒。先关机，等待三十秒，再装入新墨盒。
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, command):
    """Documents in two languages, and an index of them. Do not change."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text(LEAVE, "utf-8")
    (folder / "docs" / "打印机.md").write_text(PRINTER, "utf-8")
    result = command("index", folder / "docs", "--model", "hashing", "--out", folder / "index")
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def docs(made, tmp_path):
    return shutil.copytree(made / "docs", tmp_path / "docs")


@pytest.fixture
def place(made, tmp_path):
    return shutil.copytree(made / "index", tmp_path / "index")


def counts(result):
    return [result.json[name] for name in ("added", "changed", "removed", "unchanged", "embedded")]


def test_documents_are_indexed_and_kept_up_to_date(command, docs, place):
    again = command("index", docs, "--out", place, "--json")
    assert (again.code, counts(again)) == (0, [0, 0, 0, 4, 0])
    assert again.json["model"] == "hashing-256"
    assert again.json["passages"] == 4
    (docs / "leave.md").write_text(LEAVE.replace("sixteen", "eighteen"), "utf-8")
    # both passages of the document have new ids, one a new text
    assert counts(command("index", docs, "--out", place, "--json")) == [2, 0, 2, 2, 1]
    (docs / "打印机.md").unlink()
    told = command("index", docs, "--out", place)
    assert "0 added, 0 changed, 2 removed, 2 unchanged; 0 embedded" in told.out


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("how many weeks of parental leave", "sixteen weeks"),
        ("doctor's note", "third day"),
        ("打印机卡纸怎么办", "取出卡住的纸张"),
        ("更换墨盒", "装入新墨盒"),
    ],
)
@pytest.mark.parametrize("how", ["auto", "dense", "bm25"])
def test_search_finds_the_passage_in_both_languages(command, place, query, expected, how):
    result = command("search", query, "--index", place, "-k", 2, "--how", how, "--json")
    assert result.code == 0, result.err
    assert set(result.json) == {"index", "how", "query", "hits"}
    assert result.json["how"] == ("hybrid" if how == "auto" else how)
    hits = result.json["hits"]
    assert expected in hits[0]["text"]
    assert hits[0]["source"].endswith(("leave.md", "打印机.md"))
    assert hits[0]["section"]
    shown = command("search", query, "--index", place, "--how", how)
    assert expected[:4] in shown.out.splitlines()[1]


def test_several_queries_from_a_file(command, place, tmp_path):
    lines, rows = tmp_path / "queries.txt", tmp_path / "queries.jsonl"
    lines.write_text("sick days\n\n更换墨盒\n", "utf-8")
    rows.write_text(
        '{"_id": "1", "text": "sick days"}\n{"text": ""}\n{"text": "更换墨盒"}\n', "utf-8"
    )
    one = command("search", "--queries", lines, "--index", place, "--json")
    other = command("search", "--queries", rows, "--index", place, "--json")
    assert (one.code, other.code) == (0, 4)
    assert "queries.jsonl:2" in other.err
    assert one.json == other.json
    assert [row["query"] for row in one.json["results"]] == ["sick days", "更换墨盒"]
    assert "墨盒" in one.json["results"][1]["hits"][0]["text"]
    assert command("search", "--queries", lines, "--index", place).out.count("score") == 2


def test_data_sets_and_chunks_are_indexed_as_they_are(command, small_beir, tmp_path):
    place = tmp_path / "index"
    done = command("index", small_beir, "--model", "hashing", "--out", place, "--json")
    corpus = [json.loads(line) for line in (small_beir / "corpus.jsonl").open(encoding="utf-8")]
    assert done.json["passages"] == len(corpus)
    assert set(DiskStore(place).digests()) == {row["_id"] for row in corpus}
    hit = command("search", corpus[7]["text"], "--index", place, "--json").json["hits"][0]
    assert (hit["id"], hit["text"]) == ("p7", corpus[7]["text"])

    broken = tmp_path / "broken"
    shutil.copytree(small_beir, broken)
    with (broken / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "cut"\n')
    assert command("index", broken, "--out", place, "-q").code == 4

    chunks = tmp_path / "chunks"
    chunks.mkdir()
    own = Chunk("c1", "d1", 0, 9, "标题", "一段文字", ("甲",), 2)
    (chunks / "chunks.jsonl").write_text(json.dumps(as_row(own)) + "\n", "utf-8")
    done = command("index", chunks, "--model", "hashing", "--out", tmp_path / "other", "--json")
    assert done.json["passages"] == 1
    assert DiskStore(tmp_path / "other").chunks(["c1"]) == [own]


def test_export_is_what_others_read(command, place, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "export"
    done = command("index", "--out", place, "--export", out, "--json")
    assert done.json == {"index": str(place), "export": {"folder": str(out), "passages": 4}}
    table = pq.read_table(out / "passages.parquet")
    assert table.column_names == [
        "id", "document", "text", "title", "section", "page", "source", "vector",
    ]  # fmt: skip
    rows = table.to_pylist()
    lines = [json.loads(line) for line in (out / "passages.jsonl").open(encoding="utf-8")]
    vectors = np.load(out / "vectors.npy")
    assert [row["id"] for row in rows] == [line["id"] for line in lines] == sorted(
        row["id"] for row in rows
    )  # fmt: skip
    texts = [f"{row['title']} {row['text']}".strip() for row in rows]
    expected = HashingEmbedder().embed(texts, "document")
    assert np.array_equal(vectors, expected)
    assert np.array_equal([row["vector"] for row in rows], expected)
    assert {row["section"][-1] for row in rows} == {
        "Parental leave",
        "Sick days",
        "卡纸",
        "更换墨盒",
    }
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    assert command("index", "--out", place, "--export", tmp_path / "full").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("index",), 2, "--out"),
        (("index", "--out", "{index}"), 2, "expected documents"),
        (("index", "{docs}", "--out", "{none}"), 2, "--model"),
        (("index", "{none}", "--out", "{index}"), 2, "no such file"),
        (("index", "{docs}", "--out", "{docs}/inside", "--model", "hashing"), 2, "outside"),
        (("index", "{docs}", "--out", "{docs}", "--model", "hashing"), 2, "choose another"),
        (("index", "{docs}", "--out", "{index}/index.json", "--model", "hashing"), 2, "is a file"),
        (("index", "{docs}", "--out", "odd://x", "--model", "hashing"), 2, "no such store"),
        (("index", "{docs}", "--out", "{index}", "--model", "hashing:32"), 7, "hashing-256"),
        (("index", "{docs}", "{chunks}", "--out", "{index}"), 2, "alone"),
        (("index", "{docs}", "--out", "{index}", "--approximate"), 2, "4 passages"),
        (("index", "--out", "{none}", "--export", "{none}/export"), 2, "holds no index"),
        (("search", "--index", "{index}"), 2, "expected a query"),
        (("search", "x", "--queries", "{docs}/leave.md", "--index", "{index}"), 2, "expected"),
        (("search", "x"), 2, "--index"),
        (("search", "x", "--data", "{docs}"), 2, "--system"),
        (("search", " ", "--index", "{index}"), 2, "empty"),
        (("search", "x", "--index", "{none}"), 2, "holds no index"),
        (("search", "x", "--index", "{docs}"), 2, "holds no index"),
        (("search", "x", "--index", "{index}", "--how", "best"), 2, "--how best"),
        (("search", "x", "--index", "{index}", "--model", "hashing:32"), 7, "hashing-256"),
        (("search", "--queries", "{none}", "--index", "{index}"), 2, "no such file"),
    ],
)
def test_faults_are_told_and_nothing_is_changed(
    command, docs, place, tmp_path, arguments, code, said
):
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "chunks.jsonl").touch()
    names = {"docs": docs, "index": place, "none": tmp_path / "none", "chunks": tmp_path / "chunks"}
    before = DiskStore(place).digests()
    result = command(*(argument.format(**names) for argument in arguments), "--quiet")
    assert (result.code, len(result.lines), result.out) == (code, 1, ""), result
    assert said in result.err
    assert DiskStore(place).digests() == before
    assert not (tmp_path / "none").exists()
    assert sorted(path.name for path in docs.iterdir()) == ["leave.md", "打印机.md"]


def test_a_damaged_index_is_7(command, place):
    path = next(place.glob("vectors-*.npy"))
    path.write_bytes(path.read_bytes()[:-4])
    for arguments in (
        ("search", "x", "--index", place),
        ("index", "--out", place, "--export", "e"),
    ):
        result = command(*arguments)
        assert (result.code, len(result.lines)) == (7, 1)
        assert str(path) in result.err


@pytest.mark.model
@pytest.mark.parametrize(
    ("verdict", "apart", "how"),
    [("ship", "", "dense"), ("ship", "zh", "hybrid"), ("ship-hybrid", "", "hybrid")],
)
def test_a_run_gives_its_model_its_passages_and_how_to_search(
    command, tmp_path, make_run, verdict, apart, how
):
    run, place = make_run(tmp_path / "run", verdict, apart), tmp_path / "index"
    done = command("index", run, "--out", place, "--json")
    assert done.code == 0, done.err
    assert verdict in done.err
    assert ("not for Chinese" in done.err) == bool(apart)
    assert (done.json["passages"], done.json["how"], done.json["weight"]) == (4, how, 0.8)
    found = command("search", "battery is charged", "--index", place, "--json").json
    assert found["how"] == how
    assert "battery is charged" in found["hits"][0]["text"]
    other = command("index", run, "--model", "hashing", "--out", tmp_path / "other", "--json")
    assert (other.json["model"], other.json["how"]) == ("hashing-256", "hybrid")


@pytest.mark.model
def test_a_run_stands_for_its_final_model(command, tmp_path, make_run, docs):
    run, place = make_run(tmp_path / "run"), tmp_path / "index"
    done = command("index", docs, "--model", run, "--out", place, "--json").json
    model = run / "08-training" / "model"
    assert done["source"] == str(model)
    again = command("index", docs, "--model", model, "--out", place, "--json").json
    assert (again["model"], again["embedded"]) == (done["model"], 0)
    itself = command("index", run, "--model", run, "--out", tmp_path / "own", "--json").json
    assert itself["how"] == "dense", "named or not, it is the model that the verdict is about"


def test_a_run_without_model_is_said(command, tmp_path, docs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").touch()
    done = command("index", docs, "--model", tmp_path / "run", "--out", tmp_path / "index")
    assert (done.code, done.out) == (3, "")
    assert "the run has trained no model" in done.err
