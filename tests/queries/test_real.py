import json

import pytest

from embedtune.errors import ConfigError
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.queries import QuerySettings, read_real_queries
from embedtune.records import Chunk, Document
from embedtune.retrieve import Hit
from embedtune.store import Store

PARTS = {
    "rules.pdf": ["The fee is €640 and includes boots. ", "Candidates must be eighteen. ",
                  "申请人须年满十八周岁。"],
    "manual.md": ["A robot weighs 212 kilograms. ", "Grease the bearings every fortnight. "],
}  # fmt: skip
DOCUMENTS, CHUNKS = [], []
for source, parts in PARTS.items():
    DOCUMENTS.append(Document(f"d-{source}", f"docs/{source}", "", "".join(parts), "md", "en"))
    start = 0
    for part in parts:
        CHUNKS.append(Chunk(f"c{len(CHUNKS)}", f"d-{source}", start, start + len(part), "", part))
        start += len(part)
TEXT_OF = {document.id: document.text for document in DOCUMENTS}


class Everything:
    """Finds all chunks, in order."""

    name = "everything"

    def search(self, queries, k):
        return [[Hit(chunk.id, 1.0) for chunk in CHUNKS][:k] for _ in queries]


def read(path, chat=None, retriever=None):
    return read_real_queries(path, CHUNKS, DOCUMENTS, chat, retriever, QuerySettings(source="file"))


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def evidence(query):
    return TEXT_OF[query.document][query.evidence.start : query.evidence.end]


def codes(generation):
    return [(reject.line, reject.code) for reject in generation.rejects]


def test_a_quote_after_a_tab_becomes_the_evidence(tmp_path):
    path = write(tmp_path / "q.txt", "what does it cost??\tthe fee is €640 and\tincludes boots\n"
                 "\n多大可以报名\t申请人须年满十八周岁\n")  # fmt: skip
    one, two = read(path).queries
    assert (one.text, evidence(one)) == (
        "what does it cost??",
        "The fee is €640 and includes boots",
    )
    assert (two.text, evidence(two), two.language) == ("多大可以报名", "申请人须年满十八周岁", "zh")
    assert (one.origin, one.chunk, one.flags) == ("user", "c0", ())


@pytest.mark.parametrize("name", ["manual.md", "manual", "docs/manual.md", "MANUAL.MD"])
def test_a_file_name_stands_for_its_closest_passage(tmp_path, name):
    (query,) = read(write(tmp_path / "q.txt", f"how often to grease the bearings\t{name}")).queries
    assert evidence(query).strip() == "Grease the bearings every fortnight."
    assert query.flags == ("document-label",)


def test_jsonl_and_csv_have_fields(tmp_path):
    jsonl = write(tmp_path / "q.jsonl", "\n".join([
        json.dumps({"query": "price?", "quote": "The fee is €640"}),
        json.dumps({"text": "grease when", "document": "manual.md"}),
        json.dumps({"query": 7}),
        "{broken",
    ]))  # fmt: skip
    generation = read(jsonl)
    assert [query.text for query in generation.queries] == ["price?", "grease when"]
    assert codes(generation) == [(3, "field"), (4, "json")]
    table = write(tmp_path / "q.csv", "query,quote\nprice?,The fee is €640\n")
    assert [evidence(query) for query in read(table).queries] == ["The fee is €640"]


def test_what_cannot_be_placed_says_why_and_what_to_do(tmp_path):
    generation = read(write(tmp_path / "q.txt", "price?\na question\tnobody said this here\n?!\n"))
    assert generation.queries == ()
    assert sorted(codes(generation)) == [(1, "unlabelled"), (2, "quote-not-found"), (3, "empty")]
    advice = {reject.code: reject.message for reject in generation.rejects}
    assert "tab" in advice["unlabelled"]
    assert "llm" in advice["unlabelled"]
    assert generation.counts.total == 3


def test_the_same_line_twice_is_one_query(tmp_path):
    generation = read(write(tmp_path / "q.txt", "price?\tThe fee is €640\n" * 2))
    assert len(generation.queries) == 1
    assert generation.counts.duplicates == 1


def judge(tmp_path, said, lines):
    seen = []

    def script(request):
        seen.append(request)
        return said if isinstance(said, str) else json.dumps({"answers": said})

    with Store(tmp_path / "s") as store:
        chat = RecordedChat(ScriptedChat(script, "openai:judge"), store, LLMSettings())
        return read(write(tmp_path / "q.txt", lines), chat, Everything()), seen


def test_an_unlabelled_query_is_judged_over_the_best_passages(tmp_path):
    said = [{"passage": 99, "evidence": "x"}, {"passage": 4, "evidence": "weighs 212 kilograms"},
            {"passage": 1, "evidence": "The fee"}]  # fmt: skip
    generation, seen = judge(tmp_path, said, "how heavy is it\n")
    (query,) = generation.queries
    assert evidence(query) == "weighs 212 kilograms"
    assert query.flags == ("judged",)
    assert "A robot weighs" in seen[0].user
    assert generation.usage is not None
    assert generation.usage.new == 1


def test_a_file_name_limits_the_passages_that_are_judged(tmp_path):
    _, seen = judge(tmp_path, [], "how heavy is it\tmanual.md\n")
    assert "A robot weighs" in seen[0].user
    assert "The fee" not in seen[0].user


@pytest.mark.parametrize(
    ("said", "code"),
    [([], "no-answer"), ([{"passage": 1, "evidence": "not there"}], "no-answer"),
     ("I cannot say.", "not-json"), ("7", "schema")],
)  # fmt: skip
def test_a_query_without_an_answer_is_rejected_with_the_reason(tmp_path, said, code):
    generation, _ = judge(tmp_path, said, "how heavy is it\n")
    assert codes(generation) == [(1, code)]


def test_a_missing_file_is_a_configuration_fault(tmp_path):
    with pytest.raises(ConfigError, match=r"queries\.file: .*gone\.txt"):
        read(tmp_path / "gone.txt")
