import asyncio
import json

import pytest

from embedtune.errors import ConfigError
from embedtune.llm import ChatRequest
from embedtune.llm.scripted import ScriptedChat

ROWS = [
    {
        "document": "rules.pdf",
        "section": "Fees",
        "quote": "The fee is €640 and includes boots, which you keep.",
        "question": "course price",
        "style": "keywords",
        "language": "en",
    },
    {
        "document": "rules.pdf",
        "quote": "申请人须年满十八周岁，并持有有效证件。",
        "question": "多大可以报名",
        "style": "colloquial",
    },
    {"document": "other.md", "quote": "The fee is €640", "question": "elsewhere"},
]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def questions(chat, text, source="docs/rules.pdf"):
    request = ChatRequest("s", "u", facts={"text": text, "source": source})
    answer = asyncio.run(chat.ask(request))
    return [query["query"] for query in json.loads(answer.text)["queries"]]


@pytest.fixture
def chat(tmp_path):
    return ScriptedChat(write(tmp_path / "answers.jsonl", ROWS))


def test_a_question_is_found_by_its_quote_across_line_breaks_and_width(chat):
    text = (
        "Then: the fee is €640\n  and includes boots, which you **keep**. "
        "申请人须年满\n十八周岁,并持有有效证件"
    )
    assert questions(chat, text) == ["course price", "多大可以报名"]


def test_only_the_document_asked_about_answers(chat):
    assert questions(chat, "The fee is €640", "other.md") == ["elsewhere"]
    assert questions(chat, "The fee is €640 and includes boots, which you keep.", "third.md") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The fee is €640 and includes", True),  # the first half
        ("includes boots, which you keep. More follows", True),  # the last half
        ("The fee is €640", False),
        ("boots, which you", False),
    ],
)
def test_a_quote_cut_by_a_border_belongs_to_the_chunk_with_a_whole_half(chat, text, found):
    assert bool(questions(chat, text)) is found


def test_another_file_has_another_name(tmp_path):
    one = ScriptedChat(write(tmp_path / "a.jsonl", ROWS))
    other = ScriptedChat(write(tmp_path / "a.jsonl", ROWS[:1]))
    assert one.name != other.name


def test_an_unusable_file_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"bad\.jsonl: line 2"):
        ScriptedChat(write(tmp_path / "bad.jsonl", [ROWS[0], {"quote": "x"}]))
    with pytest.raises(ConfigError, match="cannot be read"):
        ScriptedChat(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match="needs a JSONL file"):
        ScriptedChat(None)
