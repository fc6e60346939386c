"""BEIR folders: what is read, what is refused by name, and writing them back."""

import json
from pathlib import Path

import pytest

from embedtune.datasets.beir import read_beir, write_beir
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import Chunk, Query, RetrievalSet, unusable

SHARED = Path(__file__).resolve().parents[3] / "shared"
CORPUS = [
    {"_id": "p1", "title": "Charging", "text": "The robot charges at night."},
    {"_id": "p2", "title": "", "text": "机器人夜间充电。", "metadata": {"group": "manual"}},
    {"_id": "p3", "text": "Clean the gripper weekly.", "group": "manual"},
]
QUERIES = [
    {"_id": "q1", "text": "When does it charge?", "kind": "question"},
    {"_id": "q2", "text": "什么时候充电？", "metadata": {}},
    {"_id": "q3", "text": "gripper cleaning"},
]
QRELS = {
    "train": "query-id\tcorpus-id\tscore\nq1\tp1\t1\n",
    "dev": "query-id\tcorpus-id\tscore\nq2\tp2\t1\n",
    "test": "query-id\tcorpus-id\tscore\nq3\tp3\t2\nq3\tp2\t1\n",
}


def lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    """Makes a BEIR folder; text replaces a file, None leaves it out."""

    def make(corpus=CORPUS, queries=QUERIES, qrels=QRELS):
        for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
            if rows is not None:
                text = rows if isinstance(rows, str | bytes) else lines(rows)
                data = text if isinstance(text, bytes) else text.encode()
                (tmp_path / name).write_bytes(data)
        for split, text in (qrels or {}).items():
            (tmp_path / "qrels").mkdir(exist_ok=True)
            (tmp_path / "qrels" / f"{split}.tsv").write_text(text, "utf-8")
        return tmp_path

    return make


def codes(reading):
    return [(Path(r.file).name, r.line, r.code, r.field) for r in reading.rejects]


def test_reads_passages_queries_and_judgements(folder):
    reading = read_beir(folder())
    data = reading.data
    assert data.given_splits
    assert data.chunks[0] == Chunk("p1", "p1", 0, 27, "Charging", CORPUS[0]["text"], language="en")
    assert data.queries[0] == Query(
        "q1", "When does it charge?", "en", style="question", origin="beir"
    )
    assert data.queries[1].language == data.chunks[1].language == "zh"
    assert data.qrels == {
        "train": {"q1": {"p1": 1}}, "dev": {"q2": {"p2": 1}}, "test": {"q3": {"p3": 2, "p2": 1}},
    }  # fmt: skip
    assert reading.rejects == reading.notes == ()
    assert (reading.counts.total, reading.counts.accepted) == (10, 10)


def test_passages_of_a_group_stand_one_after_the_other(folder):
    _, second, third = read_beir(folder()).data.chunks
    assert (second.document, second.start, second.end) == ("manual", 0, 8)
    assert (third.document, third.start, third.end) == ("manual", 8, 33)


def test_further_parts_keep_their_names(folder):
    data = read_beir(folder(qrels={**QRELS, "test_hard": "q3\tp3\t2\n"})).data
    assert data.qrels["test_hard"] == {"q3": {"p3": 2}}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "Validation", "验证集"])
def test_dev_may_be_called_as_in_files_of_pairs(folder, name):
    data = read_beir(folder(qrels={"train": QRELS["train"], name: QRELS["dev"]})).data
    assert data.qrels == {"train": {"q1": {"p1": 1}}, "dev": {"q2": {"p2": 1}}}


def test_two_files_of_one_split_are_both_named(folder):
    more = {"validation": "q3\tp3\t2\n", "eval": "q1\tp1\t1\n"}
    with pytest.raises(ConfigError) as caught:
        read_beir(folder(qrels={**QRELS, **more}))
    assert [fault.partition("qrels: ")[2] for fault in caught.value.faults] == [
        "eval.tsv and test.tsv are both test; keep one, or give one a name of its own",
        "dev.tsv and validation.tsv are both dev; keep one, or give one a name of its own",
    ]


def test_numbers_as_ids_are_their_text(folder):
    corpus = [{"_id": 7, "text": "seven"}, {"_id": "08", "text": "eight"}]
    queries = [{"_id": 1, "text": "which?"}]
    data = read_beir(folder(corpus, queries, {"test": "1\t7\t1\n1\t08\t1\n"})).data
    assert data.qrels["test"] == {"1": {"7": 1, "08": 1}}


def test_a_number_and_its_text_are_one_id_and_the_second_is_named(folder):
    corpus = [*CORPUS, {"_id": 7, "text": "seven"}, {"_id": "7", "text": "other seven"}]
    reading = read_beir(folder(corpus))
    assert codes(reading) == [("corpus.jsonl", 5, "repeated-id", "_id")]
    assert "line 4" in reading.rejects[0].message


@pytest.mark.parametrize(
    ("row", "code", "field", "found"),
    [
        ('{"text": "no id"}', "id", "_id", 'no "_id"'),
        ('{"_id": null, "text": "x"}', "id", "_id", 'no "_id"'),
        ('{"_id": 1.5, "text": "x"}', "id", "_id", "1.5"),
        ('{"_id": true, "text": "x"}', "id", "_id", "True"),
        ('{"_id": " ", "text": "x"}', "id", "_id", "' '"),
        (r'{"_id": "a\tb", "text": "x"}', "id", "_id", "tab"),
        ('{"_id": "x9"}', "text", "text", "missing"),
        ('{"_id": "x9", "text": null}', "text", "text", "None"),
        ('{"_id": "x9", "text": 5}', "text", "text", "5"),
        ('{"_id": "x9", "text": ["a"]}', "text", "text", "['a']"),
        ('{"_id": "x9", "text": ""}', "empty", "text", "empty"),
        (r'{"_id": "x9", "text": " \n\u200b"}', "empty", "text", "empty"),
        ('{"_id": "x9", "title": 3, "text": "x"}', "title", "title", "3"),
        ('{"_id": "p1", "text": "again"}', "repeated-id", "_id", "line 1"),
        ('{"_id": "x9", "text": "a", "text": "b"}', "repeated-key", "text", "text"),
        ('{"_id": "x9", "text": NaN}', "json", "text", "NaN"),
        ('{"_id": "x9", "text": "cut', "json", "", "ends inside"),
        ('["x9", "text"]', "json", "", "list"),
        ("<html><body>404</body></html>", "json", "", "not JSON"),
    ],
)
def test_each_unusable_row_is_named_and_the_others_are_read(folder, row, code, field, found):
    reading = read_beir(folder(lines(CORPUS) + row))
    assert codes(reading) == [("corpus.jsonl", 4, code, field)]
    assert found in reading.rejects[0].message
    assert unusable(reading.rejects)
    assert len(reading.data.chunks) == 3
    assert (reading.counts.total, reading.counts.rejected) == (11, 1)


def test_a_title_alone_is_a_passage(folder):
    reading = read_beir(folder([*CORPUS, {"_id": "p4", "title": "Warranty", "text": ""}]))
    assert reading.data.chunks[3].embedded == "Warranty"


def test_an_array_of_rows_is_read_too(folder):
    assert len(read_beir(folder(json.dumps(CORPUS))).data.chunks) == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_other_encodings_are_read(folder, encoding):
    rows = [*CORPUS, {"_id": "p4", "text": "本机在夜间充电，白天采摘苹果。每周清洁夹爪一次。" * 5}]
    data = read_beir(folder(lines(rows).replace("\n", "\r\n").encode(encoding))).data
    assert data.chunks[1].text == "机器人夜间充电。"
    assert data.chunks[0].id == "p1"


def test_control_characters_and_lone_surrogates_do_not_reach_the_text(folder):
    text = '{"_id": "p4", "text": "a\\u0000b \\ud83d c"}\n'
    assert read_beir(folder(lines(CORPUS) + text)).data.chunks[3].text == "ab \ufffd c"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("q1\tp99\t1", "p99"),
        ("q99\tp1\t1", "q99"),
        ("q1\t1\t1", "corpus.jsonl, e.g. 1; ids there: p1"),
    ],
)
def test_judged_ids_that_no_file_has_stop_with_examples(folder, line, named):
    with pytest.raises(IntegrityError) as caught:
        read_beir(folder(qrels={**QRELS, "test": QRELS["test"] + line + "\n"}))
    assert named in str(caught.value)
    assert caught.value.exit_code == 7


def test_leading_zeros_are_no_match(folder):
    with pytest.raises(IntegrityError, match="ids there: 7"):
        read_beir(folder([{"_id": 7, "text": "seven"}], qrels={"test": "q1\t007\t1\n"}))


def test_judgements_of_rejected_rows_are_rejected_too(folder):
    corpus = [CORPUS[0], {**CORPUS[1], "text": None}, CORPUS[2]]
    reading = read_beir(folder(corpus))
    assert codes(reading) == [
        ("corpus.jsonl", 2, "text", "text"),
        ("dev.tsv", 2, "lost", ""),
        ("test.tsv", 3, "lost", ""),
    ]
    assert reading.data.qrels["dev"] == {}


def test_a_broken_line_explains_one_unknown_id_and_no_more(folder):
    broken = lines(CORPUS[:2]) + '{"_id": "p3", "text": \n'
    reading = read_beir(folder(broken))
    assert [reject.code for reject in reading.rejects] == ["json", "lost"]
    with pytest.raises(IntegrityError, match="p3, p4"):
        read_beir(folder(broken, qrels={"test": "q3\tp3\t1\nq3\tp4\t1\n"}))


def test_lines_of_qrels_that_say_nothing_are_named(folder):
    rows = ["q1\tp1\t1", "", "q1 p2 1", "q1\tp2\tyes", "q1\tp1\t1", "q1\tp1\t2", "q2\tp1\t0"]
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows])
    reading = read_beir(folder(qrels={"test": text}))
    assert codes(reading) == [
        ("test.tsv", 4, "qrels", ""), ("test.tsv", 5, "qrels", ""),
        ("test.tsv", 6, "repeated-judgement", ""), ("test.tsv", 7, "repeated-judgement", ""),
    ]  # fmt: skip
    assert [reject.unusable for reject in reading.rejects] == [True, True, False, True]
    assert reading.data.qrels["test"] == {"q1": {"p1": 1}}
    assert reading.notes == ("test.tsv: 1 judgements of score 0 (not relevant) are not kept",)
    assert reading.counts.duplicates == 1


def test_qrels_of_trec_shape_and_windows_line_ends(folder):
    data = read_beir(folder(qrels={"test": "q1\t0\tp1\t1\r\nq2\tQ0\tp2\t1\r\n"})).data
    assert data.qrels["test"] == {"q1": {"p1": 1}, "q2": {"p2": 1}}


def test_quotes_in_ids_are_characters(folder):
    data = read_beir(folder([{"_id": '"p', "text": "x y"}], qrels={"test": 'q1\t"p\t1\n'})).data
    assert data.qrels["test"] == {"q1": {'"p': 1}}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"corpus": None}, "corpus.jsonl"),
        ({"queries": None}, "queries.jsonl"),
        ({"qrels": None}, "qrels"),
    ],
)
def test_a_missing_file_is_a_usage_error(folder, change, missing):
    with pytest.raises(ConfigError, match=f"no {missing}"):
        read_beir(folder(**change))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"corpus": "", "qrels": {"test": ""}}, "passages"),
        ({"queries": "[]", "qrels": {"test": ""}}, "queries"),
        ({"qrels": {"test": "query-id\tcorpus-id\tscore\n", "train": ""}}, "judgements"),
    ],
)
def test_nothing_to_work_on_stops(folder, change, what):
    with pytest.raises(NothingUsable, match=f"no usable {what}"):
        read_beir(folder(**change))


def test_what_is_written_reads_back_equal(tmp_path, folder):
    first = read_beir(folder()).data
    write_beir(first, tmp_path / "copy" / tmp_path.name)
    again = read_beir(tmp_path / "copy" / tmp_path.name)
    assert again.data == first
    assert not again.rejects


def test_provenance_survives_a_round_trip(tmp_path):
    chunk = Chunk(
        "c1", "d1", 10, 16, "一 > 二", "正文 text", ("一", "二"), 3, "zh", "table", 9, "指南.pdf"
    )
    data = RetrievalSet("x", (chunk,), (Query("q1", "what?", "en", origin="beir"),),
                        {"train": {}, "test": {"q1": {"c1": 2}}}, True)  # fmt: skip
    write_beir(data, tmp_path / "x")
    assert read_beir(tmp_path / "x").data == data


def test_other_tools_find_the_layout_they_know(tmp_path, folder):
    write_beir(read_beir(folder()).data, tmp_path / "out")
    rows = [
        json.loads(row) for row in (tmp_path / "out/corpus.jsonl").read_text("utf-8").splitlines()
    ]
    assert all({"_id", "title", "text"} <= row.keys() for row in rows)
    assert (tmp_path / "out/qrels/train.tsv").read_text("utf-8") == QRELS["train"]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["onet_jobs", "securities_law"])
def test_real_folders_round_trip(name, tmp_path):
    data = read_beir(SHARED / "data" / name).data
    write_beir(data, tmp_path / name)
    assert read_beir(tmp_path / name).data == data


@pytest.mark.shared
def test_the_extra_split_of_a_real_folder_is_read():
    reading = read_beir(SHARED / "data/onet_jobs")
    assert {name: len(part) for name, part in reading.data.qrels.items()} == {
        "train": 706, "dev": 85, "test": 337, "test_jobseeker": 30}  # fmt: skip
    assert not reading.rejects
