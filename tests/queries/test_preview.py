import json

import pytest

from embedtune.queries import QuerySettings, generate_queries, preview_queries
from embedtune.records import Chunk, Document

WORDS = """anchor barrel candle dagger engine feather goblet hammer island jacket kettle ladder
    mirror needle orchard pillow quarry ribbon saddle tunnel""".split()  # noqa: SIM905
HAN = "锚桶烛剑机羽杯锤岛衣壶梯镜针园枕矿带鞍洞"


def corpus():
    documents, chunks = [], []
    for number in range(6):
        chinese = number in (2, 5)
        signs = HAN if chinese else WORDS
        parts = [
            ("" if chinese else " ").join(
                signs[(number * 7 + part * 3 + step * step) % 20] for step in range(12)
            ) + (f"第{number}{part}号。" if chinese else f" of item {number}{part}.")
            for part in range(4)
        ]  # fmt: skip
        language = "zh" if chinese else "en"
        text = "\n".join(parts)
        documents.append(Document(f"d{number}", f"{number}.md", "", text, "md", language))
        chunks += [
            Chunk(f"c{number}{part}", f"d{number}", text.index(body), text.index(body) + len(body),
                  "", body, (f"Part {part}",), page=part + 1, language=language,
                  source=f"{number}.md")
            for part, body in enumerate(parts)
        ]  # fmt: skip
    return chunks, documents


CHUNKS, DOCUMENTS = corpus()


def said(request):
    passage = request.facts.get("text", "")
    if not passage:
        return []
    if "第" in passage:
        return [{"query": f"{passage[-4:-1]}是什么", "evidence": passage, "answer": passage}]
    return [{"query": f"what is {passage[-8:-1]}", "evidence": passage, "answer": passage},
            {"query": "", "evidence": passage}]  # fmt: skip


def test_a_few_chunks_spread_over_languages_and_documents_are_asked_about(open_chat):
    preview = preview_queries(CHUNKS, DOCUMENTS, open_chat(said), QuerySettings(), 5)
    shown = [sample.passages[0] for sample in preview.samples]
    assert [chunk.language for chunk in shown] == ["en", "zh", "en", "zh", "en"]
    assert len({chunk.document for chunk in shown}) == 5
    shuffled = preview_queries(CHUNKS[::-1], DOCUMENTS, open_chat(said), QuerySettings(), 5)
    assert [sample.passages for sample in shuffled.samples] == [
        sample.passages for sample in preview.samples
    ]


def test_what_a_preview_paid_for_is_not_paid_again(open_chat):
    chat = open_chat(said)
    preview = preview_queries(CHUNKS, DOCUMENTS, chat, QuerySettings(), 5)
    assert preview.usage.new == 5
    generation = generate_queries(CHUNKS, DOCUMENTS, chat, QuerySettings())
    assert chat.usage.new == len(CHUNKS)
    known = {query.id for query in generation.queries}
    assert {query.id for sample in preview.samples for query in sample.queries} <= known


def test_a_preview_shows_the_place_the_passage_the_queries_and_what_is_wrong(open_chat):
    settings = QuerySettings(personas=("a clerk",), answers=True)
    preview = preview_queries(CHUNKS, DOCUMENTS, open_chat(said), settings, 1)
    (sample,) = preview.samples
    chunk, (query,) = sample.passages[0], sample.queries
    lines = sample.lines()
    assert lines[0] == f"{chunk.source} › {chunk.section[0]} › p. {chunk.page}"
    assert chunk.text in lines[1]
    assert lines[2] == f"  - {query.text}  [question, a clerk]" or query.style in lines[2]
    assert lines[3] == f"    = {chunk.text}"
    assert lines[4].startswith("  x empty: ")
    found = json.loads(json.dumps(preview.as_json()))
    assert found["samples"][0]["queries"][0]["text"] == query.text
    assert found["samples"][0]["passages"][0]["chunk"] == chunk.id


def test_where_comparisons_are_wanted_one_is_shown(open_chat):
    settings = QuerySettings(styles=("question", "comparison"), comparisons=1.0)
    preview = preview_queries(CHUNKS, DOCUMENTS, open_chat(said), settings, 3)
    assert [len(sample.passages) for sample in preview.samples] == [1, 1, 2]
    assert any("no-queries" in line for line in preview.samples[2].lines())


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (100, 24)])
def test_never_more_than_there_are(open_chat, count, expected):
    preview = preview_queries(CHUNKS, DOCUMENTS, open_chat(said), QuerySettings(), count)
    assert len(preview.samples) == expected
    assert preview_queries([], [], open_chat(said), QuerySettings()).samples == ()


def test_control_characters_do_not_reach_the_terminal(open_chat):
    text = "A passage\x1b[31m with colours and a long enough text to be asked about."
    chunk = Chunk("c", "d", 0, len(text), "", text, ("\x1b]0;title",), source="a\x07.md")
    preview = preview_queries([chunk], [], open_chat([]), QuerySettings())
    assert not any("\x1b" in line or "\x07" in line for line in preview.samples[0].lines())
