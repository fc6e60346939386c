import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtune.queries.parse import Item, parse_queries, without_mark

TWO = [
    {"query": "How much is the fee?", "style": "question", "evidence": "The fee is €640."},
    {"query": "费用是多少？", "style": "question", "evidence": "费用为640欧元。"},
]
WHOLE = json.dumps({"queries": TWO}, ensure_ascii=False)
ITEMS = tuple(Item(**query) for query in TWO)


def test_a_clean_answer_is_read_as_it_is():
    parsed = parse_queries(WHOLE)
    assert (parsed.items, parsed.repaired, parsed.code) == (ITEMS, False, "")


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{WHOLE}\n```",
        f"```\n{WHOLE}```",
        f"Here are 2 questions:\n{WHOLE}\nLet me know if you need more!",
        f"好的，以下是两个查询：\n{WHOLE}\n希望有帮助。",
        f"<think>The user wants {{2}} queries, maybe {{\"queries\": []}}.</think>\n{WHOLE}",
        WHOLE.replace("}]", "},]").replace('."}', '.",}'),
        WHOLE.replace('"', "'"),
        str({"queries": TWO}),
        f"{WHOLE}\n{WHOLE}",
        json.dumps(TWO, ensure_ascii=False),
        "\n".join(json.dumps(query, ensure_ascii=False) for query in TWO),
        json.dumps({"questions": TWO}, ensure_ascii=False),
        WHOLE.replace('"query"', '"question"').replace('"evidence"', '"quote"'),
        WHOLE.replace(" is ", " is\n"),
        f"See [1] and {{note}} first. {WHOLE}",
    ],
)  # fmt: skip
def test_an_unambiguous_answer_is_recovered_and_marked(text):
    parsed = parse_queries(text)
    assert parsed.code == ""
    assert parsed.repaired
    texts = [item.query.replace("\n", " ") for item in parsed.items]
    assert texts == [item.query for item in ITEMS]


def test_a_byte_order_mark_is_no_damage():
    assert parse_queries("\ufeff" + WHOLE).items == ITEMS


@pytest.mark.parametrize(
    "lines",
    [
        ["1. {}", "2. {}"], ["1、{}", "2、{}"], ["1．{}", "2．{}"], ["1) {}", "2) {}"],
        ["（1）{}", "（2）{}"],
        ["Q1: {}", "Q2: {}"], ["问题1：{}", "问题2：{}"], ["- {}", "- {}"], ["* {}", "• {}"],
        ["一、{}", "二、{}"], ["**1.** {}", "**2.** {}"], ['1. "{}"', "2. “{}”"], ["{}", "{}"],
    ],
)  # fmt: skip
def test_a_plain_list_is_read_without_marks_and_preamble(lines):
    texts = [item.query for item in ITEMS]
    body = "\n".join(line.format(text) for line, text in zip(lines, texts, strict=True))
    parsed = parse_queries(f"Here are 2 questions:\n\n{body}")
    assert [item.query for item in parsed.items] == texts
    assert parsed.repaired


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty-answer"),
        ("  \n", "empty-answer"),
        ("7", "schema"),
        ("true", "schema"),
        ("null", "schema"),
        ('"a question?"', "schema"),
        ("[[1, 2], [3]]", "schema"),
        ('{"queries": "one"}', "schema"),
        ('{"result": []}', "schema"),
        (WHOLE[:80], "cut"),
        (f"```json\n{WHOLE[:-4]}", "cut"),
        ("I would rather not write about this.", "not-json"),
        ('{"queries": [{"query": "a?"}]} or {"queries": [{"query": "b?"}]}', "ambiguous"),
        ("x" * 1_000_001, "answer-too-long"),
        ("[" * 100_000, "cut"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_with_a_reason(text, code):
    parsed = parse_queries(text)
    assert parsed.code == code
    assert parsed.message
    assert parsed.items == ()


def test_a_wrong_type_names_the_field():
    parsed = parse_queries('{"queries": [{"query": 7}, 5, {"query": "fine?"}, {"style": "x"}]}')
    assert [item.query for item in parsed.items] == ["fine?"]
    assert [fault.field for fault in parsed.faults] == [
        "queries[0].query",
        "queries[1]",
        "queries[3]",
    ]
    assert parse_queries('{"queries": 3}').message.startswith("queries: expected a list")


def test_broken_characters_are_cleaned():
    parsed = parse_queries('{"queries": [{"query": "a \\ud83d b\\u0000?", "evidence": "\\udc00"}]}')
    parsed.items[0].query.encode("utf-8")
    parsed.items[0].evidence.encode("utf-8")
    assert "\x00" not in parsed.items[0].query


def test_marks_are_removed_only_where_they_are_marks():
    assert without_mark("3.5 percent of what?") == "3.5 percent of what?"
    assert without_mark("2024年的规定") == "2024年的规定"
    assert without_mark("Question 2: why?") == "why?"


@given(st.text(max_size=200) | st.text(alphabet="{}[]\",:'qu1. \n\\", max_size=60))
def test_no_answer_makes_it_fail(text):
    parsed = parse_queries(text)
    assert bool(parsed.code) != bool(parsed.items) or not parsed.code
