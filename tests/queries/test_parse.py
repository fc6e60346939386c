import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtune.queries.loose import read_value
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
        f"In the form {{name: text}}: {WHOLE}",
        f"<think>One</think> more <thinking>{{\"queries\": [7]}}</thinking>{WHOLE}",
        WHOLE.translate(str.maketrans('{}[]:,', "｛｝［］：，")),
        re.sub('"([^"]*)"', "“\\1”", WHOLE),
        re.sub('"([^"]*)"', "‘\\1’", WHOLE),
        re.sub('"([^"]*)"', "「\\1」", WHOLE).replace(",", "，").replace(":", "："),
        re.sub('"(queries|query|style|evidence)"', "\\1", WHOLE),
        WHOLE.replace("}, {", "} {"),
        f"{WHOLE},",
    ],
)  # fmt: skip
def test_an_unambiguous_answer_is_recovered_and_marked(text):
    parsed = parse_queries(text)
    assert parsed.code == ""
    assert parsed.repaired
    texts = [item.query.replace("\n", " ") for item in parsed.items]
    assert texts == [item.query for item in ITEMS]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ('{"queries": [{"query": "What is "DGX" now?", "evidence": "x"}]}', 'What is "DGX" now?'),
        ('{"queries": [{"query": "他说"好"，然后呢？", "evidence": "x"}]}', '他说"好"，然后呢？'),
        ("{'queries': [{'query': 'What's the fee?', 'evidence': None}]}", "What's the fee?"),
        ('{"queries": [{"query": "a \\ud83d\\ude00 b?"}],}', "a 😀 b?"),
        ('{"queries": [{"query": "where is C:\\dos?"}]}', "where is C:\\dos?"),
        ('{"queries": [{"query": "one\n\tline?",},]}', "one\n\tline?"),
    ],
)  # fmt: skip
def test_signs_within_a_text_are_kept(text, query):
    parsed = parse_queries(text)
    assert [item.query for item in parsed.items] == [query]
    assert parsed.repaired


def test_the_second_evidence_and_the_answer_are_read():
    entry = {"query": "a?", "evidence_1": "one", "evidence_2": "two", "answer": "three"}
    expected = Item("a?", evidence="one", second="two", answer="three")
    assert parse_queries(json.dumps({"queries": [entry]})).items == (expected,)
    entry = {"查询": "a?", "证据": ["one", "two"], "答案": "three"}
    assert parse_queries(json.dumps({"queries": [entry]})).items == (expected,)


def test_labels_under_an_entry_of_a_list_belong_to_it():
    parsed = parse_queries(
        '1. What is it?\n   - Evidence: "It is a thing."\n   - Style: keywords\n'
        "2. **Why?**\n   **证据**：因为。\n   答案：因为它。\n"
    )
    assert parsed.items == (
        Item("What is it?", "keywords", "It is a thing."),
        Item("Why?", evidence="因为。", answer="因为它。"),
    )


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
        ('<think>maybe {"queries": [{"query": "a draft?"}]}', "cut"),
        # what is whole of it must not pass for all of it
        (
            '{"queries": [{"query": "a?"}, {"query": "b?, "evidence": "c"}, {"query": "d?"}]}',
            "not-json",
        ),
        ('{"queries": [{"query": "a?", "query": "b?"}],}', "not-json"),
        ('{"queries": [{"query": "a?", oops}]}', "not-json"),
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


@pytest.mark.parametrize(
    "text",
    ['{"' * 300_000, '["a" ' * 200_000, '{"a":' * 150_000, '"' * 900_000, '{"' + '" , ' * 200_000,
     '{"a":"' + '",' * 300_000, '{"a" ' * 200_000, "{'" + "x' " * 300_000],
)  # fmt: skip
def test_a_hostile_answer_of_a_megabyte_is_refused(text):
    assert parse_queries(text).code in ("cut", "not-json")


@given(st.text(max_size=200) | st.text(alphabet="{}[]\",:'qu1. \n\\｛“”，：", max_size=60))
def test_no_answer_makes_it_fail(text):
    parsed = parse_queries(text)
    assert bool(parsed.code) != bool(parsed.items) or not parsed.code


WHOLE_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
JSON = st.recursive(
    WHOLE_TEXT | st.none() | st.booleans() | st.integers(-(10**9), 10**9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WHOLE_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WHOLE_TEXT, JSON, max_size=4) | st.lists(JSON, max_size=4), st.booleans())
def test_clean_json_is_read_as_json_reads_it(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read_value(f"so: {text} and on", 4) == (json.loads(text), 4 + len(text))
