"""The four formats: what columns tell, and what becomes of each bad row (group D)."""

import json
from pathlib import Path

import pytest

from embedtune.datasets.columns import parse_columns
from embedtune.datasets.formats import (
    LabelledRow,
    PairRow,
    ScoredRow,
    check_trainable,
)
from embedtune.datasets.source import Source, SourceSettings, read_source, refuse_copies
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import unusable

PAIRS = [
    {"anchor": "When is the tank emptied?", "positive": "The tank is emptied on Fridays."},
    {"anchor": "水箱什么时候清空？", "positive": "水箱每周五清空一次。"},
    {"anchor": "Who checks the valve?", "positive": "The valve is checked by the night crew."},
]


def lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads it as a source."""

    def make(content, name="data.jsonl", **options) -> Source:
        text = content if isinstance(content, str | bytes) else lines(content)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_source(tmp_path / name, **options)

    return make


def rows_of(source: Source) -> list:
    return [row for rows in source.examples.values() for row in rows]


def codes(source: Source) -> list[tuple]:
    return [(Path(r.file).name, r.line, r.code, r.field) for r in source.rejects]


def adds_up(source: Source) -> bool:
    bad = sum(reject.unusable for reject in source.rejects)
    counts = source.counts
    return (counts.accepted, counts.rejected, counts.duplicates) == (
        len(rows_of(source)), bad, len(source.rejects) - bad)  # fmt: skip


# ---- what the columns tell


@pytest.mark.parametrize(
    ("row", "format", "first"),
    [
        ({"query": "a?", "answer": "b"}, "pairs", PairRow("a?", "b")),
        ({"question": "a?", "context": "b", "id": 7}, "pairs", PairRow("a?", "b")),
        ({"Question": "a?", "Positive Passage": "b"}, "pairs", PairRow("a?", "b")),
        ({"问题": "甲？", "答案": "乙"}, "pairs", PairRow("甲？", "乙")),
        ({"sentence1": "a", "sentence2": "b"}, "pairs", PairRow("a", "b")),
        ({"anchor": "a", "pos": "b", "neg": "c"}, "triplets", PairRow("a", "b", ("c",))),
        ({"anchor": "a", "positive": "b", "negative_2": "d", "negative_10": "e", "negative_1": "c"},
         "triplets", PairRow("a", "b", ("c", "d", "e"))),
        ({"query": "a", "positive": "b", "hard_negatives": ["c", "d"]}, "triplets",
         PairRow("a", "b", ("c", "d"))),
        ({"query": "a", "pos": ["b"], "neg": ["c", "d"]}, "triplets",
         PairRow("a", "b", ("c", "d"))),
        ({"sentence1": "a", "sentence2": "b", "score": 0.25}, "scored", ScoredRow("a", "b", 0.25)),
        ({"question1": "a", "question2": "b", "is_duplicate": 1}, "scored", ScoredRow("a", "b", 1)),
        ({"text1": "a", "text2": "b", "similarity": "0.5"}, "scored", ScoredRow("a", "b", 0.5)),
        ({"query": "a", "passage": "b", "label": 0}, "scored", ScoredRow("a", "b", 0)),
        ({"sentence1": "a", "sentence2": "b", "label": True}, "scored", ScoredRow("a", "b", 1)),
        ({"句子1": "甲", "句子2": "乙", "相似度": 1}, "scored", ScoredRow("甲", "乙", 1)),
        ({"text": "a", "label": "x"}, "labelled", LabelledRow("a", "x")),
        ({"sentence": "a", "intent": "x"}, "labelled", LabelledRow("a", "x")),
        ({"文本": "甲", "标签": 3}, "labelled", LabelledRow("甲", "3")),
    ],
)  # fmt: skip
def test_the_usual_names_of_columns_are_known(read, row, format, first):
    source = read([row])
    assert source.format == format
    assert rows_of(source) == [first]
    assert not source.rejects


def test_columns_can_be_named(read):
    row = {"skill": "welding", "job_description_pos": "We weld.", "job_description_neg": "We bake."}
    given = parse_columns("anchor=skill,positive=job_description_pos")
    assert rows_of(read([row], columns=given)) == [PairRow("welding", "We weld.")]
    given = parse_columns(
        "anchor=skill, positive=job_description_pos, negative=job_description_neg"
    )
    assert rows_of(read([row], columns=given)) == [PairRow("welding", "We weld.", ("We bake.",))]


def test_a_column_named_as_the_role_itself_is_preferred(read):
    row = {"anchor": "a", "positive": "b", "document": "guide.pdf", "query": "not this"}
    source = read([row])
    assert rows_of(source) == [PairRow("a", "b")]
    assert "columns not used: document, query" in source.notes[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("anchor", "expected ROLE=COLUMN"), ("anker=a", "no such role"), ("anchor=", "expected ROLE"),
     ("anchor=a,anchor=b", "named twice")],
)  # fmt: skip
def test_columns_that_are_no_naming_are_refused(text, fault):
    with pytest.raises(ConfigError, match=fault):
        parse_columns(text)


def test_a_named_column_that_is_not_there_is_refused_with_those_that_are(read):
    with pytest.raises(
        ConfigError, match=r"anchor=frage: no such column; columns found: anchor, p"
    ):
        read(PAIRS, columns={"anchor": "frage"})


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"a": "x", "b": "y"}, "columns found: a, b; they fit none of the formats"),
        ({"question": "x", "answer": "y", "context": "z"},
         "pairs (anchor=question,positive=answer); or pairs (anchor=question,positive=context)"),
        ({"sentence1": "x", "sentence2": "y", "label": "entailment"},
         "or scored (sentence1=sentence1,sentence2=sentence2,score=label)"),
        ({"sentence1": "x", "sentence2": "y", "label": 2}, "they fit pairs"),
        ({"anchor": "x", "positive": "y", "negative": "z", "score": 0.5}, "they fit triplets"),
        ({"query": "x", "answer": "y", "text": "z", "label": "l"}, "labelled (text=text"),
    ],
)  # fmt: skip
def test_d10_columns_that_fit_no_format_or_several_are_listed_and_asked_about(read, row, found):
    with pytest.raises(NothingUsable) as caught:
        read([row] * 3)
    assert found in str(caught.value)
    assert "--columns" in str(caught.value)
    assert caught.value.exit_code == 3


def test_d10_what_was_asked_is_settled_by_naming(read):
    row = {"question": "x", "answer": "y", "context": "z"}
    assert rows_of(read([row], columns={"positive": "context"})) == [PairRow("x", "z")]
    row = {"sentence1": "x", "sentence2": "y", "label": "entailment"}
    named = {"anchor": "sentence1", "positive": "sentence2"}
    assert rows_of(read([row], columns=named)) == [PairRow("x", "y")]


def test_d10_swapped_anchor_and_positive_are_asked_about(read):
    swapped = [{"anchor": row["positive"] * 3, "positive": row["anchor"]} for row in PAIRS]
    with pytest.raises(NothingUsable, match="--columns anchor=positive,positive=anchor"):
        read(swapped)
    as_it_is = read(swapped, columns={"anchor": "anchor", "positive": "positive"})
    assert rows_of(as_it_is)[0].positive == "When is the tank emptied?"


def test_d10_four_formats_in_one_file_are_told_apart(read):
    mixed = [
        *PAIRS,
        *({"anchor": f"a{n}", "positive": f"b{n}", "negative": f"c{n}"} for n in range(3)),
        *({"sentence1": f"a{n}", "sentence2": f"b{n}", "score": 0.5} for n in range(2)),
        *({"text": f"a{n}", "label": "x"} for n in range(2)),
    ]
    with pytest.raises(NothingUsable) as caught:
        read(mixed)
    message = str(caught.value)
    assert "rows of several formats in one file" in message
    for part in ("3 rows fit pairs", "3 rows fit triplets", "2 rows fit scored",
                 "2 rows fit labelled", "the first on line 9"):  # fmt: skip
        assert part in message


def test_a_stray_row_of_another_shape_is_rejected(read):
    source = read([*PAIRS, {"text": "a", "label": "b"}])
    assert codes(source) == [("data.jsonl", 4, "text", "anchor")]
    assert len(rows_of(source)) == 3


def test_files_of_different_formats_are_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(PAIRS), "utf-8")
    (tmp_path / "test.csv").write_text("text,label\na,b\n", "utf-8")
    with pytest.raises(NothingUsable, match=r"train\.jsonl: pairs .*test\.csv: labelled"):
        read_source(tmp_path)


# ---- rows


def test_d01_a_broken_line_is_named_and_the_others_are_read(read):
    text = lines(PAIRS[:2]) + '{"anchor": "x", "positive": \n' + lines([PAIRS[2]] * 1)
    source = read(text)
    assert codes(source) == [("data.jsonl", 3, "json", "")]
    assert "column 29" in source.rejects[0].message
    assert len(rows_of(source)) == 3
    assert unusable(source.rejects)
    assert adds_up(source)


def test_d01_bad_rows_stop_the_reading_by_setting(read):
    stop = SourceSettings(bad_rows="stop")
    with pytest.raises(
        NothingUsable, match=r"1 unusable rows, the first: .*data\.jsonl:4: not JSON"
    ):
        read(lines(PAIRS) + "nonsense\n", settings=stop)
    assert read(PAIRS * 2, settings=stop).counts.duplicates == 3  # copies are no fault


def test_d02_a_cut_last_line_says_so(read):
    source = read(lines(PAIRS) + '{"anchor": "Where is th')
    assert codes(source) == [("data.jsonl", 4, "json", "")]
    assert "the file ends inside a record" in source.rejects[0].message


def test_d03_an_array_in_a_jsonl_file_is_read_with_a_notice(read):
    source = read(json.dumps(PAIRS, indent=1))
    assert len(rows_of(source)) == 3
    assert "a JSON array" in source.notes[0]
    assert not read(json.dumps(PAIRS), "data.json").notes


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("data.json", '{"name": "x", "rows": []}', "one JSON object (keys: name, rows)"),
        ("data.json", '{"anchor": "a",\n "positive": "b"}\n{"anchor": "c",\n "positive": "d"}',
         "objects over several lines each"),
        ("data.json", '{"a": 1, "a": 2}', 'the key "a" stands twice'),
        ("data.jsonl", "<!DOCTYPE html>\n<html><body>404</body></html>", "a web page, not data"),
        ("data.csv", "<html><body>404</body></html>", "a web page, not data"),
        ("data.jsonl", '"text"\n5\n', "expected an object, found str"),
        ("data.parquet", "not parquet", "cannot be read as Parquet"),
        ("data.jsonl", "", "there are 0 rows"),
    ],
)  # fmt: skip
def test_d03_what_is_no_data_is_named_for_what_it_is(read, name, text, said):
    with pytest.raises(NothingUsable) as caught:
        read(text, name)
    assert said in str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"anchor": "a"}, "positive", '"positive" is nothing'),
        ({"anchor": "a", "positive": None}, "positive", "None"),
        ({"anchor": "a", "positive": ""}, "positive", "empty"),
        ({"anchor": " \u200b", "positive": "b"}, "anchor", "empty"),
        ({"anchor": "a", "positive": 5}, "positive", "5"),
        ({"anchor": "a", "positive": ["b"]}, "positive", "['b']"),
        ({"anchor": {"x": 1}, "positive": "b"}, "anchor", "{'x': 1}"),
        ({"anchor": True, "positive": "b"}, "anchor", "True"),
    ],
)
def test_d04_what_is_no_text_is_named_and_never_made_into_text(read, row, field, found):
    source = read([*PAIRS, row])
    assert [(r.line, r.field) for r in source.rejects] == [(4, field)]
    assert found in source.rejects[0].message
    assert {row.anchor for row in rows_of(source)} == {row["anchor"] for row in PAIRS}
    assert adds_up(source)


def test_d04_in_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"anchor": ["a", None, "c"], "positive": ["b", "d", ""], "id": [1, 2, 3]})
    pq.write_table(table, tmp_path / "data.parquet")
    source = read_source(tmp_path / "data.parquet")
    assert codes(source) == [
        ("data.parquet", 2, "text", "anchor"),
        ("data.parquet", 3, "empty", "positive"),
    ]
    assert rows_of(source) == [PairRow("a", "b")]


def test_d04_a_parquet_column_of_another_type_is_named_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"anchor": ["a"], "positive": [b"b"]}), tmp_path / "data.parquet")
    with pytest.raises(NothingUsable, match="the column positive holds binary"):
        read_source(tmp_path / "data.parquet")
    numbers = pa.table({"anchor": ["a", "b"], "positive": [1, 2]})
    pq.write_table(numbers, tmp_path / "data.parquet")
    with pytest.raises(NothingUsable, match='"positive" is 1; text is due'):
        read_source(tmp_path / "data.parquet")


def test_classes_of_a_hugging_face_file_have_their_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": ["leak", "noise"], "_type": "ClassLabel"}}
    facts = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    pq.write_table(table.replace_schema_metadata(facts), tmp_path / "data.parquet")
    source = read_source(tmp_path / "data.parquet")
    assert rows_of(source) == [LabelledRow("a", "noise"), LabelledRow("b", "leak")]
    assert codes(source) == [("data.parquet", 3, "text", "label")]  # -1 is no class


def test_d05_a_repeated_key_is_named_and_only_its_row_rejected(read):
    bad = '{"anchor": "a", "anchor": "b", "positive": "c"}'
    source = read(lines(PAIRS) + bad)
    assert codes(source) == [("data.jsonl", 4, "repeated-key", "anchor")]
    in_array = read(f"[{json.dumps(PAIRS[0])}, {bad}, {json.dumps(PAIRS[1])}]", "data.json")
    assert codes(in_array) == [("data.json", 2, "repeated-key", "anchor")]
    assert len(rows_of(in_array)) == 2


def scored(*scores) -> str:
    return "".join(
        f'{{"sentence1": "first {n}", "sentence2": "second {n}", "score": {score}}}\n'
        for n, score in enumerate(scores)
    )


@pytest.mark.parametrize(
    ("score", "code", "found"),
    [
        ("NaN", "json", "NaN is not a number JSON knows"),
        ("-Infinity", "json", "Infinity"),
        ("1e999", "score", "inf"),
        ('"0,8"', "score", "write 0.8"),
        ('"1_0"', "score", "'1_0'"),
        ('"high"', "score", "'high'"),
        ("null", "score", "None"),
        ("[0.5]", "score", "[0.5]"),
    ],
)
def test_d06_a_score_that_is_no_number_is_named(read, score, code, found):
    source = read(scored(0.1, score, 0.9))
    assert codes(source) == [("data.jsonl", 2, code, "score")]
    assert found in source.rejects[0].message
    assert [row.score for row in rows_of(source)] == [0.1, 0.9]


def test_d06_one_score_off_the_scale_is_rejected_with_the_range_found(read):
    source = read(scored(0.1, 0.7, 5, 1.0))
    assert codes(source) == [("data.jsonl", 3, "scale", "score")]
    assert '"score" is 5; a number from 0 to 1' in source.rejects[0].message
    assert "run from 0.1 to 5" in source.rejects[0].message
    assert adds_up(source)


def test_d06_another_scale_is_reported_once_and_can_be_named(read):
    with pytest.raises(NothingUsable) as caught:
        read(scored(0, 1, 2.5, 5))
    assert "the scores run from 0 to 5 where 0 to 1 is due" in str(caught.value)
    assert "--columns score=score/5" in str(caught.value)
    rescaled = read(scored(0, 1, 2.5, 5), columns=parse_columns("score=score/5"))
    assert [row.score for row in rows_of(rescaled)] == [0, 0.2, 0.5, 1]
    with pytest.raises(NothingUsable, match=r"run from -1 to 1.*bring them to 0 … 1"):
        read(scored(-1, -0.5, 1))


def test_d07_a_cell_too_many_in_the_first_row_shifts_nothing(read):
    source = read("anchor,positive\na,b,c\nd,e\n", "data.csv")
    assert codes(source) == [("data.csv", 2, "cells", "")]
    assert rows_of(source) == [PairRow("d", "e")]


def test_d07_an_open_quote_is_named_with_what_is_not_read_after_it(read):
    source = read('anchor,positive\na,b\nc,"d\ne,f\ng,h\n', "data.csv")
    assert codes(source) == [("data.csv", 3, "csv", "")]
    assert "the 2 lines after it are not read" in source.rejects[0].message
    assert rows_of(source) == [PairRow("a", "b")]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_d07_another_separator_is_found_and_told(read, separator):
    source = read(f"anchor{separator}positive\na, b{separator}c\n", "data.csv")
    assert rows_of(source) == [PairRow("a, b", "c")]
    assert f"separator is taken to be {separator!r}" in source.notes[0]


def test_d07_a_file_without_header_is_asked_about(read):
    with pytest.raises(NothingUsable) as caught:
        read("When is it full?,At noon.\nWho empties it?,The crew.\n", "data.csv")
    assert "columns found: When is it full?, At noon." in str(caught.value)
    assert "put a header above it" in str(caught.value)


def test_d07_a_repeated_header_is_no_row(read):
    source = read("anchor,positive\na,b\nanchor,positive\nc,d\n", "data.csv")
    assert rows_of(source) == [PairRow("a", "b"), PairRow("c", "d")]
    assert [(r.line, r.unusable) for r in source.rejects] == [(3, False)]


AWKWARD = ["NA", "null", "None", "nan", "007", "1e5", "2024-01-02", "TRUE", " x ", "-", "=1+1"]


def test_d08_cells_stay_exactly_the_text_they_are(read):
    text = "anchor,positive\n" + "".join(f"a{n},{cell}\n" for n, cell in enumerate(AWKWARD))
    assert [row.positive for row in rows_of(read(text, "data.csv"))] == AWKWARD
    text = "text,label\n" + "".join(f"a{n},{cell}\n" for n, cell in enumerate(AWKWARD))
    labels = {row.text: row.label for row in rows_of(read(text, "data.csv"))}
    assert [labels[f"a{n}"] for n in range(len(AWKWARD))] == AWKWARD


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk", "gb18030"])
@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
def test_d09_encodings_and_line_ends(read, encoding, name):
    question, answer = "公司应当怎样披露报告？", "按照国务院的规定进行披露，并说明经营的情况。"
    text = (
        f"问题,答案\r\n{question},{answer}\r\n"
        if name == "data.csv"
        else lines([{"问题": question, "答案": answer}] * 2).replace("\n", "\r\n")
    )
    source = read(text.encode(encoding), name)
    assert rows_of(source) == [PairRow(question, answer)]
    assert any("read as" in note for note in source.notes) == (encoding != "utf-8-sig")


def test_d09_an_unknown_encoding_and_nul(read):
    with pytest.raises(NothingUsable, match="encoding cannot be told"):
        read(b'{"anchor": "\x9d\x81\x8d\x90 \xfe\xfa"}\n' * 3)
    source = read(b"anchor,positive\na\x00b,c\n", "data.csv")
    assert rows_of(source) == [PairRow("ab", "c")]
    assert "NUL removed" in source.notes[0]


def test_half_characters_are_replaced_and_told(read):
    source = read('{"anchor": "a \\ud83d b", "positive": "c"}\n')
    assert rows_of(source) == [PairRow("a \ufffd b", "c")]
    assert "lone surrogates) replaced in 1 rows, the first in 1" in source.notes[0]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"anchor": "a", "positive": "b c", "negative": "B  C"}, "positive-negative"),
        ({"anchor": "a", "positive": "A ", "negative": "c"}, "anchor-positive"),
    ],
)
def test_d11_rows_that_teach_nothing_are_rejected(read, row, code):
    good = [{**row, "negative": f"other {n}"} for n, row in enumerate(PAIRS)]
    source = read([*good, row])
    assert codes(source) == [("data.jsonl", 4, code, "positive")]
    assert unusable(source.rejects)
    assert adds_up(source)


def test_d12_a_second_positive_is_a_further_one_and_never_a_negative(read):
    rows = [
        {"anchor": "Which oil?", "positive": "Oil A.", "negative": "Water."},
        {"anchor": "which  oil?", "positive": "Oil B.", "negative": "Oil A."},
    ]
    source = read(rows)
    (query,) = source.data.queries
    text = {chunk.id: chunk.text for chunk in source.data.chunks}
    assert {text[c] for c in source.data.qrels["all"][query.id]} == {"Oil A.", "Oil B."}
    assert [text[c] for c in source.negatives[query.id]] == ["Water."]
    assert "1 negatives are a positive of the same question" in source.notes[-1]


def test_d12_copies_are_counted_and_removed(read):
    source = read([*PAIRS, *[PAIRS[0]] * 500])
    assert source.counts.duplicates == 500
    assert source.counts.accepted == 3
    assert source.rejects[0].message == "the same as data.jsonl:1"
    assert not unusable(source.rejects)
    assert adds_up(source)


def test_the_same_pair_with_other_negatives_is_no_copy(read):
    rows = [{**PAIRS[0], "negative": text} for text in ("One.", "Two.", "One.")]
    source = read(rows)
    assert source.counts.duplicates == 1
    assert len(source.negatives[source.data.queries[0].id]) == 2


def labelled(*labels) -> list[dict]:
    return [{"text": f"message number {n}", "label": label} for n, label in enumerate(labels)]


def test_d13_a_label_as_number_and_as_text_is_one_class_and_named(read):
    source = read(labelled(1, "1", 1, 2, 2.0))
    assert {row.label for row in rows_of(source)} == {"1", "2"}
    assert "2 labels are written as a number and as text, e.g. 1" in source.notes[0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "a", "a"], "one class only, a; at least 2"),
        (
            ["a", "a", "b", "b", "c"],
            "1 of 3 classes have one text only, e.g. c; each needs at least 2",
        ),
    ],
)
def test_d13_classes_that_cannot_be_learned_stop_before_training(read, labels, said):
    with pytest.raises(NothingUsable, match=said) as caught:
        check_trainable(rows_of(read(labelled(*labels))), "data")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("rows", "batch", "said"),
    [
        ([], "auto", "no rows to train on"),
        (
            [PairRow("a", "b")],
            "auto",
            "1 rows to train on, at least 2 are needed: each row is learned",
        ),
        ([PairRow("a", f"b{n}") for n in range(7)], 8, "7 rows .* at least 8 .* its batch of 8"),
        ([ScoredRow("a", f"b{n}", 1) for n in range(7)], "auto", "all scores are 1; at least 2"),
    ],
)
def test_d14_too_few_rows_say_how_many_are_needed_and_why(rows, batch, said):
    with pytest.raises(NothingUsable, match=said):
        check_trainable(rows, "data", batch)
    check_trainable([PairRow("a", "b"), PairRow("c", "d")], "data", 2)


def test_d15_a_row_of_two_megabytes_is_rejected_with_its_length(read):
    source = read([*PAIRS, {"anchor": "a", "positive": "word " * 400_000}])
    assert codes(source) == [("data.jsonl", 4, "too-long", "positive")]
    assert "2,000,000 characters" in source.rejects[0].message
    assert len(source.rejects[0].excerpt) <= 80


# ---- negatives


def test_rows_with_fewer_negatives_than_others_are_kept_and_counted(read):
    text = "anchor,positive,negative_1,negative_2\na,b,c,d\ne,f,g,\nh,i,,k\n"
    source = read(text, "data.csv")
    assert rows_of(source) == [PairRow("a", "b", ("c", "d")), PairRow("e", "f", ("g",))]
    assert codes(source) == [("data.csv", 4, "empty", "negative_1")]
    assert "1 rows have fewer than 2 negatives" in source.notes[0]


def test_a_list_of_positives_makes_a_row_of_each(read):
    source = read(
        [
            {"query": "a", "pos": ["b", "c"], "neg": ["d"]},
            {"query": "e", "pos": ["f"], "neg": ["g"]},
        ]
    )
    assert rows_of(source) == [
        PairRow("a", "b", ("d",)),
        PairRow("a", "c", ("d",)),
        PairRow("e", "f", ("g",)),
    ]


def test_a_text_among_lists_is_named(read):
    rows = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": [f"n{n}"]} for n in range(3)]
    source = read(
        [
            *rows,
            {"query": "x", "pos": "text", "neg": ["n"]},
            {"query": "x", "pos": ["p"], "neg": [5]},
        ]
    )
    assert codes(source) == [("data.jsonl", 4, "text", "pos"), ("data.jsonl", 5, "text", "neg")]


# ---- copies across files (S04)


def test_s04_an_evaluation_file_that_repeats_training_rows_stops_with_the_rows_and_the_share(
    tmp_path,
):
    (tmp_path / "train.jsonl").write_text(lines(PAIRS), "utf-8")
    other = {"anchor": "When does the pump start?", "positive": "At six."}
    shouted = {key: text.upper() for key, text in PAIRS[0].items()}
    (tmp_path / "test.jsonl").write_text(lines([other, shouted, PAIRS[2]]), "utf-8")
    source = read_source(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        refuse_copies(source)
    assert caught.value.exit_code == 7
    assert "2 of 6 rows (33.3%) stand in two splits" in str(caught.value)
    assert "train.jsonl:1 and test.jsonl:2; train.jsonl:3 and test.jsonl:3" in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "copies"),
    [
        ([{"sentence1": "a b", "sentence2": "c", "score": 0.1}],
         [{"sentence1": "C", "sentence2": "A  b", "score": 0.1}], 1),
        ([{"sentence1": "a b", "sentence2": "c", "score": 0.1}],
         [{"sentence1": "a b", "sentence2": "d", "score": 0.1}], 0),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}],
         [{"text": "A", "label": "x"}], 1),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
         [{"text": "a", "label": "y"}], 0),
        ([{"query": "a", "answer": "b"}], [{"query": "a", "answer": "c"}], 0),
    ],
)  # fmt: skip
def test_s04_what_counts_as_a_copy_in_each_format(tmp_path, train, test, copies):
    (tmp_path / "train.jsonl").write_text(lines(train), "utf-8")
    (tmp_path / "test.jsonl").write_text(lines(test), "utf-8")
    assert len(read_source(tmp_path).copies) == copies
