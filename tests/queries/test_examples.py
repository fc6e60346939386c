"""Personas, and real queries as examples: what is shown to the model, and what never is."""

import json

import pytest
from pydantic import ValidationError

from embedtune.errors import ConfigError
from embedtune.queries import QuerySettings, mark_examples
from embedtune.records import Chunk, Document, Query, Span

ENGLISH = "The fee is €640 and includes boots, which you keep. Candidates must be eighteen."
CHINESE = "报名费为640欧元，包含靴子一双。申请人须年满十八周岁，并持有有效证件。"
DOCUMENTS = [Document("d1", "a.md", "", ENGLISH, "md", "en"),
             Document("d2", "b.md", "", CHINESE, "md", "zh"),
             Document("d3", "c.md", "", ENGLISH + " Part two.", "md", "en")]  # fmt: skip
EN, ZH, OTHER = (
    Chunk(f"c-{d.id}", d.id, 0, len(d.text), "", d.text, language=d.language) for d in DOCUMENTS
)


def real(text, document="d1", language="en", origin="user"):
    span = Span(document, 0, 20)
    return Query(f"q-{text}", text, language, "real", origin, document, evidence=span)


def by_text(requests):
    return {request.facts["text"]: request.user for request in requests}


def test_examples_of_a_file_are_shown_in_the_chunks_language(asked, tmp_path):
    path = tmp_path / "real.txt"
    path.write_text("boots size??\trules.pdf\n靴子多大码\n\nboots size??\n", encoding="utf-8")
    users = by_text(asked((EN, ZH), DOCUMENTS, examples=path))
    assert users[ENGLISH].count("- boots size??") == 1
    assert "rules.pdf" not in users[ENGLISH]
    assert "靴子多大码" not in users[ENGLISH]
    assert "- 靴子多大码" in users[CHINESE]


def test_an_unusable_file_of_examples_is_a_configuration_fault(generate_from, tmp_path):
    with pytest.raises(ConfigError, match=r"queries\.examples: .*missing"):
        generate_from([], [EN], DOCUMENTS, examples=tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match="no line of text"):
        generate_from([], [EN], DOCUMENTS, examples=tmp_path / "empty.txt")


def test_at_most_five_examples_are_shown_and_they_take_turns(asked, tmp_path):
    path = tmp_path / "real.txt"
    path.write_text("\n".join(f"example number {n}" for n in range(40)), encoding="utf-8")
    documents = [Document(f"e{n}", f"{n}", "", f"{n} {w} " * 9, "md", "en")
                 for n, w in enumerate("ash beech cedar elm fir hazel".split())]  # fmt: skip # noqa: SIM905
    chunks = [Chunk(d.id, d.id, 0, len(d.text), "", d.text, language="en") for d in documents]
    shown = [
        frozenset(line for line in request.user.splitlines() if line.startswith("- example"))
        for request in asked(chunks, documents, examples=path)
    ]
    assert {len(lines) for lines in shown} == {5}
    assert len(set(shown)) > 1


def test_a_handful_of_real_queries_is_set_aside_and_no_other_is_ever_shown(asked):
    queries = [real(f"real query number {n}") for n in range(30)]
    marked = mark_examples(queries)
    chosen = [query.text for query in marked if "example" in query.flags]
    assert len(chosen) == 6  # a fifth
    assert [query.text for query in marked] == [query.text for query in queries]
    assert mark_examples(list(reversed(queries)))[::-1] == marked
    (request,) = asked([ZH, OTHER][1:], DOCUMENTS, real=marked)
    shown = {line[2:] for line in request.user.splitlines() if line.startswith("- real")}
    assert len(shown) == 5
    assert shown <= set(chosen)
    (request,) = asked([OTHER], DOCUMENTS, real=queries)  # none is marked
    assert "real query" not in request.user


def test_never_more_than_ten_of_a_language_and_none_of_a_few():
    many = mark_examples([real(f"real query {n}") for n in range(200)])
    assert sum("example" in query.flags for query in many) == 10
    few = mark_examples([real(f"real query {n}") for n in range(4)])
    assert not any(query.flags for query in few)
    written = mark_examples([real(f"query {n}", origin="llm") for n in range(50)])
    assert not any(query.flags for query in written)
    both = [real(f"query {n}") for n in range(10)]
    both += [real(f"查询 {n}", language="zh") for n in range(10)]
    chosen = [query.language for query in mark_examples(both) if query.flags]
    assert sorted(chosen) == ["en", "en", "zh", "zh"]


def test_a_real_query_is_not_shown_for_the_document_that_answers_it(asked):
    marked = mark_examples([real(f"real query number {n}") for n in range(10)])
    users = by_text(asked([EN, OTHER], DOCUMENTS, real=marked))
    assert "real query" not in users[ENGLISH]
    assert "real query" in users[OTHER.text]


def test_a_copied_example_is_no_query(generate_from, tmp_path):
    path = tmp_path / "real.txt"
    path.write_text("how expensive is the whole course now\n", encoding="utf-8")
    said = [
        {"query": "How expensive is the  whole course now?", "evidence": "The fee is €640"},
        {"query": "price of the boots", "evidence": "The fee is €640"},
    ]
    generation = generate_from(said, [EN], DOCUMENTS, examples=path)
    assert [query.text for query in generation.queries] == ["price of the boots"]
    assert [reject.code for reject in generation.rejects] == ["copied-example"]


# ---- personas


def test_personas_take_turns_and_are_kept_with_the_query(generate_from):
    personas = ("a night-shift nurse", "新来的会计")
    seen = []

    def said(request):
        seen.append(request.user)
        word = request.facts["text"].split()[0]
        return [{"query": f"what about {word} then", "evidence": request.facts["text"][:20]}]

    texts = [" ".join(f"{n * 31 + k}ab{k}" for k in range(12)) for n in range(24)]
    documents = [Document(f"e{n}", "", "", text, "md", "en") for n, text in enumerate(texts)]
    chunks = [Chunk(d.id, d.id, 0, len(d.text), "", d.text, language="en") for d in documents]
    styles = ("question", "keywords")
    generation = generate_from(
        said, chunks, documents, personas=personas, styles=styles, per_chunk=1
    )
    assert {query.persona for query in generation.queries} == set(personas)
    for query, user in zip(generation.queries, seen, strict=True):
        assert f": {query.persona}." in user or f"：{query.persona}。" in user
    # each persona comes to write in each style
    assert {(query.persona, query.style) for query in generation.queries} == {
        (persona, style) for persona in personas for style in styles
    }


def test_without_personas_none_is_mentioned(asked):
    (request,) = asked([EN], DOCUMENTS)
    assert "person" not in request.user


@pytest.mark.parametrize("persona", ["", "   ", "x" * 201])
def test_a_persona_is_a_short_text(persona):
    with pytest.raises(ValidationError):
        QuerySettings.model_validate({"personas": [persona]})


def test_unchanged_settings_ask_what_they_always_asked(asked):
    """Answers that were paid for with an earlier version are found again."""
    (request,) = asked([EN], [DOCUMENTS[0]], per_chunk=1, styles=("question",))
    assert request.user == (
        "Write 1 queries in English, in these styles:\n"
        "1. question: a complete question, as put to a colleague\n\n"
        "The passage is from: a.md\nSection: -\n\n"
        "The passage stands between the two lines that read ===== passage {0} =====\n"
        "===== passage {0} =====\n{1}\n===== passage {0} ====="
    ).format(request.user.split("===== passage ")[1].split(" ")[0], ENGLISH)
    assert request.system.endswith('{"queries": [{"query": "…", "style": "…", "evidence": "…"}]}')
    assert json.loads(json.dumps(request.schema)) == {
        "type": "object",
        "properties": {"queries": {"type": "array", "items": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("query", "style", "evidence")},
            "required": ["query", "style", "evidence"], "additionalProperties": False}}},
        "required": ["queries"], "additionalProperties": False,
    }  # fmt: skip
