"""Cleaning and chunking of unusual input (bad_inputs K01 to K07), whatever it was read from."""

import ast
import io
import json
import random
import re
from pathlib import Path

import pytest
import yaml

import embedtune.documents
from embedtune.documents.chunk import Chunking, ChunkSettings, chunk_documents
from embedtune.documents.clean import has_content
from embedtune.documents.cuts import Costs
from embedtune.documents.outline import MARKDOWN_KINDS, blocks_of, cells_of
from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.embed.tokens import WordTokens, load_tokens
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.queries import QuerySettings, generate_queries
from embedtune.records import Document, as_row, unusable
from embedtune.store import Store

WORDS = WordTokens()
PLAIN_KINDS = {"text", "pdf", "image"}


class Bytewise(WordTokens):
    """Line ends cost a token too, as they do for byte-level tokenizers."""

    WORD = re.compile(WordTokens.WORD.pattern + r"|\n")


def document(text: str, kind: str = "markdown", **rest: object) -> Document:
    return Document("d1", "a.md", "", text, kind, "en", **rest)  # type: ignore[arg-type]


def cut(text: str, kind: str = "markdown", by: WordTokens = WORDS, **values: int) -> Chunking:
    return chunk_documents([document(text, kind)], by, ChunkSettings(**values))


def read(folder: Path, **settings: object) -> Reading:
    return read_documents([folder], DocumentSettings(**settings))  # type: ignore[arg-type]


# ---- K01: words and sentences without end


class Counting(WordTokens):
    """Counts the characters it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def offsets(self, text: str) -> list[tuple[int, int]]:
        self.seen += len(text)
        return super().offsets(text)

    def count(self, texts: list[str]) -> list[int]:
        self.seen += sum(map(len, texts))
        return super().count(texts)


@pytest.mark.parametrize("piece", ["word ", "水泵阀门", "x", "1234 ", "... "])
def test_the_tokenizer_sees_a_sentence_of_any_length_a_few_times_only(piece: str) -> None:
    seen = []
    for size in (20_000, 80_000):
        tokens = Counting()
        cut("Words before it: " + (piece * size)[:size] + " the end of it.", by=tokens)
        seen.append(tokens.seen)
    assert seen[1] < 5 * seen[0]


HOSTILE = {
    "dotted leaders": "Pumps " + "." * 30_000 + " 12",
    "blanks inside a heading": "# Pumps" + " " * 30_000 + "and valves",
    "blanks inside a table rule": "a | b\n" + " " * 30_000 + "|---" + " " * 30_000 + "|x",
    "headings only": "# Pumps and valves\n" * 6_000,
    "headings with nothing that counts": "# -\n\n--\n\n" * 6_000,
    "a contents line below a part": "PART I\n\n" + "." * 30_000 + "x",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_line_takes_time_in_the_square_of_its_length(text: str) -> None:
    """Each of these once took minutes: the tests' own time limit would stop it."""
    result = cut(f"{text}\n\nWords that follow, enough of them for a chunk.")
    assert result.chunks[-1].text.endswith("enough of them for a chunk.")


@pytest.mark.model
@pytest.mark.parametrize("text", ["lorem" * 10_000, "水" * 50_000, "many words, no stop " * 4_000])
def test_every_chunk_fits_the_models_own_tokenizer(text: str) -> None:
    tokens = load_tokens("sentence-transformers/all-MiniLM-L6-v2")
    result = chunk_documents([document(text)], tokens, ChunkSettings(overlap=0))
    assert max(tokens.count([chunk.embedded for chunk in result.chunks])) <= 256
    held = "".join(text[span.start : span.end] for span in
                   sorted([c.span for c in result.chunks] + list(result.rejected),
                          key=lambda span: span.start))  # fmt: skip
    assert held.replace(" ", "") == text.replace(" ", "")


# ---- K02: nothing to read


@pytest.mark.parametrize(
    "text",
    ["12\n\n13\n", "Page 1 of 2\n\x0cPage 2 of 2\n", "第 1 页\n\n第 2 页 共 2 页\n", "p. 7\n",
     "1 / 3\n2 / 3\n", "\u200b\u200d\ufeff", " \u3000\t\n"],
)  # fmt: skip
def test_a_document_of_page_numbers_is_no_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "numbers.txt").write_text(text, "utf-8")
    (tmp_path / "good.txt").write_text("The pump is cleaned in spring.", "utf-8")
    reading = read(tmp_path)
    assert [(r.code, r.unusable) for r in reading.rejects] == [("no-content", True)]
    assert [r.code for r in cut(text).rejects] == ["no-content"]
    assert cut(text).chunks == ()


@pytest.mark.parametrize("text", ["Page one", "第三页", "Page 3 is missing", "第3条", "a", "½ cup"])
def test_words_beside_a_number_are_content(text: str) -> None:
    assert has_content(text)


# ---- K03: characters that are none


def test_broken_characters_never_reach_a_file(tmp_path: Path) -> None:
    rows = [
        {"id": "\ud800", "title": "Val\x00ve\ud83d", "text": "The val\x07ve is\ufeff open\udfff."},
        {"id": "b", "title": "\x1b[31mRed", "text": "阀门\x00已经打开，请先关闭。"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "page.html").write_bytes(b"<h1>The\x00 valve</h1><p>It is \x0bopen &#x1F; now.</p>")
    reading = read(tmp_path)
    made = chunk_documents(reading.documents, WORDS, ChunkSettings(min_characters=0))
    assert len(reading.documents) == 3
    assert made.chunks
    for record in (*reading.documents, *made.chunks, *reading.rejects, *made.rejects):
        line = json.dumps(as_row(record), ensure_ascii=False)
        line.encode("utf-8")  # no lone surrogate is left
        assert not re.search(r"[\x00-\x08\x0b\x0e-\x1f]|\\u00[01]", line)
    assert [doc.meta.get("replaced_characters") for doc in reading.documents] == ["3", "1", "1"]


# ---- K04: the same lines on every page


def test_head_and_foot_of_300_pages_are_in_no_chunk(tmp_path: Path, make_pdf) -> None:
    pages = [
        ["Pump handbook, edition of May",
         (f"Pump {n} stands in house {n * 7} and has {n * 3} valves, all of them", {"gap": 40}),
         "made of brass and cleaned in spring by those who use the water.",
         (f"Mill House    page {n}", {"gap": 60})]
        for n in range(1, 301)
    ]  # fmt: skip
    (tmp_path / "book.pdf").write_bytes(make_pdf(*pages))
    [found] = read(tmp_path).documents
    assert found.meta["running_heads"] == "600"
    result = chunk_documents([found], WORDS, ChunkSettings())
    texts = [chunk.embedded for chunk in result.chunks]
    assert len(set(texts)) == len(texts)
    assert not any("handbook" in text or "Mill House" in text for text in texts)
    assert "Pump 300 stands in house 2100" in texts[-1]


# ---- K05 and K06: characters of several code points, and chunks of nearly none


@pytest.mark.parametrize("cluster", ["👩🏽‍🚒", "🇩🇰", "a\u0308\u0323", "ก็", "नि", "각"])
def test_no_reader_kind_splits_a_character(cluster: str) -> None:
    text = "Before it. " + cluster * 200
    result = cut(text, "pdf", tokens=24, overlap=0, min_characters=0)
    spans = sorted([c.span for c in result.chunks] + list(result.rejected), key=lambda s: s.start)
    for span in spans[1:]:
        assert (span.start - text.index(cluster)) % len(cluster) == 0


def test_what_is_too_short_is_counted_and_never_asked_about(tmp_path: Path) -> None:
    long = document("# Fees\n\nThe first hour costs four crowns and the second one costs two.\n")
    short = Document("d2", "b.md", "", "附录：略。", "markdown", "zh")
    result = chunk_documents([long, short], WORDS, ChunkSettings(min_characters=24))
    assert [(reject.code, reject.file) for reject in result.rejects] == [("too-short", "b.md")]
    assert (result.counts.total, result.counts.rejected) == (2, 1)
    asked = []

    def answer(request: object) -> str:
        asked.append(request)
        return '{"queries": []}'

    with Store(tmp_path / "a.sqlite") as store:
        chat = RecordedChat(ScriptedChat(answer), store, LLMSettings(provider="scripted"))
        generate_queries(result.chunks, [long, short], chat, QuerySettings(per_chunk=1))
    assert asked
    assert not any("略" in request.user for request in asked)


# ---- K07: a model that does not know the script


def test_a_run_goes_on_without_training_a_base_that_cannot_read(
    command, tmp_path, tiny_model, chinese_docs
) -> None:
    config = tmp_path / "embedtune.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "run": "run",
                "documents": {"paths": [str(chinese_docs)]},
                "chunks": {"tokens": 60, "overlap": 0},
                "queries": {"from": "extractive"},
                "model": {"base": str(tiny_model)},
                "evaluation": {"probe": "none"},
            }
        ),
        "utf-8",
    )
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    assert re.search(r"is not trained: \d\d ?% of the tokens .* unknown", result.err)
    assert result.json["verdict"] != "ship"
    [made] = (tmp_path / "run").glob("08-*/model/embedtune.json")
    assert json.loads(made.read_text("utf-8"))["base"] == "static"


@pytest.fixture
def chinese_docs(tmp_path: Path) -> Path:
    """Forty sheets in characters of which the tiny model knows none."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(40):
        draw = random.Random(number)
        signs = "泵阀管渠闸井堰槽塔桥船桨帆锚舵港岸滩礁湾检修拆洗更换登记"
        clauses = ["".join(draw.choices(signs, k=12)) for _ in range(8)]
        body = "，".join(clauses[:4]) + "。\n\n## 更换\n\n" + "，".join(clauses[4:]) + "。\n"
        (folder / f"sheet-{number:02d}.md").write_text(f"# 规程{number}\n\n{body}", "utf-8")
    return folder


# ---- the kinds of all readers


def test_every_kind_that_a_reader_gives_is_markdown_or_known_to_be_plain() -> None:
    folder = Path(embedtune.documents.__file__).parent
    found = set()
    for path in folder.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call):
                named = [word.value for word in call.keywords if word.arg == "kind"]
                found |= {
                    value.value
                    for value in named
                    if getattr(call.func, "id", "") == "Part" and isinstance(value, ast.Constant)
                }
    # those that are handed on: row_parts(…, "csv"), _Text("docling")
    found |= {"csv", "jsonl", "unstructured", "docling"}
    assert found >= {"pdf", "docx", "pptx", "xlsx", "epub", "html", "markdown", "text", "image"}
    assert found == PLAIN_KINDS | set(MARKDOWN_KINDS)


def test_headings_of_every_reader_open_sections(tmp_path: Path) -> None:
    from docx import Document as Word
    from openpyxl import Workbook
    from pptx import Presentation

    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Winter"
    slide.placeholders[1].text = "In frost the upper pipe of the pump is emptied."
    show.save(tmp_path / "show.pptx")
    book = Workbook()
    book.active.title = "Winter"
    for row in (["Fee", "Coins"], ["a house of four people", 18.5], ["each other person", 2.75]):
        book.active.append(row)
    book.save(tmp_path / "fees.xlsx")
    word = Word()
    word.add_heading("Winter", 1)
    word.add_paragraph("In frost the lower pipe of the pump is emptied.")
    word.save(str(tmp_path / "care.docx"))
    elements = [{"type": "Title", "text": "Winter", "metadata": {"filename": "a.pdf"}},
                {"type": "NarrativeText", "text": "In frost the third pipe is emptied.",
                 "metadata": {"filename": "a.pdf"}}]  # fmt: skip
    (tmp_path / "elements.json").write_text(json.dumps(elements), "utf-8")
    row = {"text": "# Winter\n\nIn frost the fourth pipe is emptied at once."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), "utf-8")
    documents = read(tmp_path).documents
    assert {doc.kind for doc in documents} == {"pptx", "xlsx", "docx", "unstructured", "jsonl"}
    for doc in documents:
        [chunk] = chunk_documents([doc], WORDS, ChunkSettings()).chunks
        assert chunk.section == ("Winter",), doc.kind


@pytest.mark.parametrize(
    ("line", "label"),
    [("## Scope ##", "Scope"), ("# C#", "C#"), ("# F# and C# #", "F# and C#"), ("# 停机 ", "停机")],
)
def test_hashes_that_close_a_heading_are_no_part_of_it(line: str, label: str) -> None:
    assert [block.label for block in blocks_of(document(f"{line}\n\nText.\n"))] == [label, ""]


# ---- tables


def table(count: int, header: str = "| Part | 2024 | 2023 |") -> str:
    rows = (f"| income of part {n} | {n * 7} | {n * 5} |\n" for n in range(count))
    return f"{header}\n| --- | --- | --- |\n{''.join(rows)}"


@pytest.mark.parametrize("by", [WORDS, Bytewise()], ids=["words", "bytewise"])
@pytest.mark.parametrize("budget", range(50, 100, 3))
def test_no_row_of_a_pdf_table_is_broken(by: WordTokens, budget: int) -> None:
    text = f"The income of all parts.\n\n{table(12)}\nWords after it, which are no row.\n"
    result = cut(text, "pdf", by, tokens=budget, overlap=8)
    lines = [line for chunk in result.chunks for line in chunk.text.split("\n")]
    rows = [line for line in lines if line.startswith("| income")]
    assert rows == [line for line in text.split("\n") if line.startswith("| income")]
    for chunk in result.chunks:
        if chunk.kind == "table" and not chunk.text.startswith("| Part"):
            assert chunk.title == "Part | 2024 | 2023"


def test_a_table_of_a_pdf_that_fits_is_one_chunk(tmp_path: Path) -> None:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Table, TableStyle

    parts = [[f"valve {n}", str(n * 3), f"{n}.50"] for n in range(1, 7)]
    out = io.BytesIO()
    style = TableStyle([("GRID", (0, 0), (-1, -1), 1, "black")])
    normal = getSampleStyleSheet()["Normal"]
    before = Paragraph("The parts in the store are counted in May. " * 8, normal)
    after = Paragraph("Orders go to Mill House. " * 8, normal)
    rows = Table([["Part", "Pieces", "Price"], *parts], style=style)
    SimpleDocTemplate(out).build([before, rows, after])
    (tmp_path / "parts.pdf").write_bytes(out.getvalue())
    [found] = read(tmp_path).documents
    assert found.kind == "pdf"
    whole = "\n".join(line for line in found.text.split("\n") if line.startswith("|"))
    assert whole.count("\n") == 7
    for budget in (100, 150, 250):
        chunks = chunk_documents([found], WORDS, ChunkSettings(tokens=budget, overlap=8)).chunks
        assert sum(whole in chunk.text for chunk in chunks) == 1


def test_the_header_in_the_title_is_that_of_the_cells() -> None:
    result = cut(table(12, r"|  | Net \| gross | 2023 |"), "pdf", tokens=64, overlap=0)
    assert len(result.chunks) > 2
    assert {chunk.title for chunk in result.chunks[1:]} == {"Net | gross | 2023"}


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("| a | b |", ["a", "b"]),
        ("a|b", ["a", "b"]),
        (r"| a \| b | c \| |", ["a | b", "c |"]),
        ("|  | x |", ["", "x"]),
    ],
)
def test_cells_of_a_row(row: str, cells: list[str]) -> None:
    assert cells_of(row) == cells


def test_a_row_over_the_budget_is_cut_between_cells_under_their_own_names() -> None:
    header = "| " + " | ".join(f"Week {n}" for n in range(40)) + " |\n|" + " --- |" * 40
    loads = " | ".join(f"{n * 11} loads of good black coal" for n in range(1, 40))
    text = f"{header}\n| pump seven | {loads} |\n"
    chunks = cut(text, "xlsx", tokens=64, overlap=0).chunks
    pieces = [chunk for chunk in chunks if "loads" in chunk.text]
    assert len(pieces) > 2
    for piece in pieces:
        for cell in cells_of(piece.text):
            if cell != "pump seven":  # the load of week n is 11 n
                assert f"Week {int(cell.split()[0]) // 11}" in piece.title
        assert "pump seven" in piece.embedded
        assert piece.tokens <= 64


def test_a_cell_over_the_budget_is_cut_at_blanks() -> None:
    text = f"| Part | Text |\n| --- | --- |\n| valve | {'many words ' * 60}|\n"
    result = cut(text, tokens=40, overlap=0, min_characters=0)
    assert " ".join(c.text for c in result.chunks).count("many words") == 60
    assert all(chunk.tokens <= 40 for chunk in result.chunks)


def test_pieces_of_a_stretch_join_to_the_whole() -> None:
    text = "alpha beta, gamma | delta epsilon | zeta eta theta"  # a sign is a token too
    costs = Costs(WORDS, text, 0, len(text))
    pieces = [text[a:b] for a, b in costs.cut(0, len(text), 5, first=re.compile(r"\|"))]
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert pieces == ["alpha beta, gamma |", "delta epsilon |", "zeta eta theta"]


def test_the_page_of_a_chunk_is_that_of_its_first_character() -> None:
    pages = tuple((28 * n, n + 1) for n in range(2_000))
    text = "".join(f"Page {n:05d} tells one thing.\n\n"[:28] for n in range(2_000))
    result = chunk_documents([document(text, "text", pages=pages)], WORDS,
                             ChunkSettings(tokens=30, overlap=0))  # fmt: skip
    assert all(chunk.page == chunk.start // 28 + 1 for chunk in result.chunks)


def test_rejects_of_unreadable_documents_make_exit_4() -> None:
    assert unusable(cut("12\n\n13").rejects)
    assert not unusable(cut("Yes.").rejects)
