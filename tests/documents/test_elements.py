"""What other converters wrote: elements of unstructured, documents of docling."""

import json
import random
from typing import Any

import pytest

from embedtune.documents.reading import Broken, Part
from embedtune.documents.rows import read_json, read_json_lines
from embedtune.records import Reject


def read(value: object, *, tables: bool = True) -> list[Part]:
    data = json.dumps(value, ensure_ascii=False).encode()
    items = list(read_json(data, "replace", tables=tables))
    parts = [item.cleaned() for item in items if isinstance(item, Part)]
    assert len(parts) == len(items)
    for part in parts:
        for start, _ in part.pages:
            assert start == 0 or part.text[start - 1] == "\n" != part.text[start]
    return parts


# ---- unstructured


def element(kind: str, text: str, page: int | None = None, **metadata: object) -> dict[str, object]:
    metadata |= {"filename": metadata.get("filename", "guide.pdf")}
    if page:
        metadata["page_number"] = page
    return {"type": kind, "element_id": str(hash(text)), "text": text, "metadata": metadata}


HTML = (
    "<table><thead><tr><th>Part</th><th>Price</th></tr></thead><tbody><tr><td>valve</td><td>3</td>"
    "</tr></tbody></table>"
)


def test_elements_become_headings_lists_tables_and_pages() -> None:
    (part,) = read([
        element("Header", "Works handbook", 1),
        element("Title", "Pump\nguide", 1, category_depth=0),
        element("NarrativeText", "Open the valve.", 1),
        element("Title", "启动", 2, category_depth=1),
        element("ListItem", "打开阀门", 2),
        element("ListItem", "检查压力", 2, category_depth=1),
        element("Table", "Part Price valve 3", 3, text_as_html=HTML),
        element("PageBreak", "", 3),
        element("CodeSnippet", "a = 1\n```", 4),
        element("Image", "", 4),
        element("FigureCaption", "Figure 1: the pump.", 4),
        element("UncategorizedText", "Two\nlines.", 4),
        element("Footer", "Page 4", 4),
    ])  # fmt: skip
    assert part.text == (
        "# Pump guide\n\nOpen the valve.\n\n## 启动\n\n- 打开阀门\n  - 检查压力\n\n"
        "| Part | Price |\n| --- | --- |\n| valve | 3 |\n\n````\na = 1\n```\n````\n\n"
        "Figure 1: the pump.\n\nTwo\nlines.\n"
    )
    assert part.title == "Pump guide"
    assert [(number, part.text[start:].split("\n")[0]) for start, number in part.pages] == [
        (1, "# Pump guide"), (2, "## 启动"), (3, "| Part | Price |"), (4, "````")
    ]  # fmt: skip
    assert part.meta["filename"] == "guide.pdf"
    assert part.notes == [(None, "20 characters of page headers and footers left out")]


def test_elements_of_several_files_are_several_documents() -> None:
    rows = [
        element("NarrativeText", "One.", filename="a.docx"),
        element("NarrativeText", "Two.", filename="b.docx"),
        element("NarrativeText", "Three.", filename="a.docx"),
        element("NarrativeText", "Four.", filename="a.docx", file_directory="other"),
    ]
    parts = read(rows)
    assert [(part.text, part.title, part.line) for part in parts] == [
        ("One.\n\nThree.\n", "a", 1), ("Two.\n", "b", 2), ("Four.\n", "a", 4)
    ]  # fmt: skip
    lines = "\n".join(map(json.dumps, rows)).encode()
    assert [part.text for part in read_json_lines(lines, "replace")] == [  # type: ignore[union-attr]
        part.text for part in parts
    ]


def test_a_table_without_html_keeps_its_text() -> None:
    (part,) = read(
        [element("Table", "Part Price\nvalve 3"), element("Table", "x", text_as_html="")]
    )
    assert part.text == "Part Price\nvalve 3\n\nx\n"
    (lines,) = read([element("Table", "x", text_as_html=HTML)], tables=False)
    assert lines.text == "Part Price\n\nvalve 3\n"


def test_a_row_that_is_no_element_is_a_reject() -> None:
    rows = [element("Title", "One."), {"type": "Title"}, {"text": "mine"}]
    items = list(read_json_lines("\n".join(map(json.dumps, rows)).encode(), "replace"))
    assert [(item.line, item.code) for item in items if isinstance(item, Reject)] == [
        (2, "json-kind"), (3, "json-kind")
    ]  # fmt: skip


def test_rows_with_a_type_of_their_own_are_rows() -> None:
    rows = [{"type": "faq", "text": "Once a year.", "metadata": "none"}]
    assert [part.text for part in read(rows)] == ["Once a year."]


def test_wild_metadata_does_no_harm() -> None:
    (part,) = read([
        element("Title", "A", page_number="7", category_depth=99),
        element("ListItem", "b", page_number=True, category_depth=-1),
        element("Text", "c", page_number=None, text_as_html=5, languages=[{}]),
    ])  # fmt: skip
    assert part.text == "# A\n\n- b\n\nc\n"
    assert part.pages == []


# ---- docling


def docling(body: list[str], **kinds: list[dict[str, Any]]) -> dict[str, object]:
    for kind, items in kinds.items():
        for number, item in enumerate(items):
            item.setdefault("self_ref", f"#/{kind}/{number}")
            item.setdefault("content_layer", "body")
            item["children"] = refs(item.get("children", []))
    return {"schema_name": "DoclingDocument", "version": "1.10.0", "name": "guide",
            "origin": {"filename": "guide.pdf"}, "furniture": {"children": []},
            "body": {"self_ref": "#/body", "children": refs(body)}, **kinds}  # fmt: skip


def refs(names: list[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/{name}"} for name in names]


def text(label: str, words: str, page: int = 0, **more: object) -> dict[str, Any]:
    prov = [{"page_no": page, "charspan": [0, len(words)]}] if page else []
    return {"label": label, "text": words, "orig": words, "prov": prov, **more}


def cell(words: str, row: int, column: int, height: int = 1, width: int = 1, head: bool = False):  # type: ignore[no-untyped-def]
    return {"text": words, "start_row_offset_idx": row, "end_row_offset_idx": row + height,
            "start_col_offset_idx": column, "end_col_offset_idx": column + width,
            "row_span": height, "col_span": width, "column_header": head}  # fmt: skip


def test_a_document_of_docling() -> None:
    document = docling(
        ["texts/0", "texts/1", "groups/0", "texts/6", "tables/0", "groups/2", "pictures/0"],
        texts=[
            text("title", "Pump guide", 1),
            text("section_header", "启动", 2, level=1, children=["texts/2"]),
            text("text", "先打开阀门。", 2),
            text("list_item", "One", 2, enumerated=True, marker="1."),
            text("list_item", "Two", 2, enumerated=True, marker="2.", children=["groups/1"]),
            text("list_item", "deep", 2, enumerated=False, marker="-"),
            text("code", "a = 1", 3),
            text("caption", "Table 1: prices", 3),
            text("text", "This is", 4), text("text", "bold", 4), text("text", ", 中文", 4),
            text("text", "粗体", 4),
            text("page_header", "Works handbook", 1, content_layer="furniture"),
            text("caption", "Figure 1", 4),
        ],
        groups=[
            {"label": "ordered_list", "children": ["texts/3", "texts/4"]},
            {"label": "list", "children": ["texts/5"]},
            {"label": "inline", "children": ["texts/8", "texts/9", "texts/10", "texts/11"]},
        ],
        tables=[{
            "label": "table", "prov": [{"page_no": 3}], "captions": refs(["texts/7"]),
            "data": {"num_rows": 4, "num_cols": 3, "table_cells": [
                cell("Region", 0, 0, 2, head=True), cell("2024", 0, 1, 1, 2, head=True),
                cell("Q1", 1, 1, head=True), cell("Q2", 1, 2, head=True),
                cell("North", 2, 0, 2), cell("1", 2, 1), cell("2", 2, 2),
                cell("3", 3, 1), cell("4", 3, 2),
            ]},
        }],
        pictures=[{"label": "picture", "prov": [{"page_no": 4}], "captions": refs(["texts/13"]),
                   "annotations": [{"kind": "description", "text": "A pump seen from above"}]}],
    )  # fmt: skip
    document["body"]["children"][:0] = refs(["texts/12"])  # type: ignore[index]
    (part,) = read(document)
    assert part.text == (
        "# Pump guide\n\n## 启动\n\n先打开阀门。\n\n1. One\n2. Two\n   - deep\n\n```\na = 1\n```"
        "\n\nTable 1: prices\n\n| Region | 2024 Q1 | 2024 Q2 |\n| --- | --- | --- |\n"
        "| North | 1 | 2 |\n| North | 3 | 4 |\n\nThis is bold, 中文粗体\n\nFigure 1\n\n"
        "A pump seen from above\n"
    )
    assert part.title == "Pump guide"
    assert [number for _, number in part.pages] == [1, 2, 3, 4]
    assert part.meta["filename"] == "guide.pdf"
    assert part.notes == [(None, "14 characters of page headers and footers left out")]


def test_headings_and_items_that_hold_their_words_in_a_group() -> None:
    (part,) = read(docling(
        ["texts/0", "groups/1"],
        texts=[text("section_header", "", level=2, children=["groups/0"]), text("text", "Partly"),
               text("text", "bold"), text("list_item", "", children=["groups/2"]),
               text("text", "Open"), text("text", "it")],
        groups=[{"label": "inline", "children": ["texts/1", "texts/2"]},
                {"label": "list", "children": ["texts/3"]},
                {"label": "inline", "children": ["texts/4", "texts/5"]}],
    ))  # fmt: skip
    assert part.text == "### Partly bold\n\n- Open it\n"


def test_the_words_of_cells_with_structure_come_once() -> None:
    (part,) = read(docling(
        ["tables/0"],
        texts=[text("text", "rich")],
        groups=[{"label": "unspecified", "children": ["texts/0"]}],
        tables=[{"label": "table", "children": ["groups/0"], "data": {"table_cells": [
            cell("a", 0, 0, head=True), cell("b", 0, 1, head=True),
            cell("rich", 1, 0) | {"ref": {"$ref": "#/groups/0"}}, cell("x", 1, 1)]}}],
    ))  # fmt: skip
    assert part.text == "| a | b |\n| --- | --- |\n| rich | x |\n"


def test_forms_give_their_keys_and_values() -> None:
    graph = {"cells": [{"cell_id": 0, "label": "key", "text": "Name"},
                       {"cell_id": 1, "label": "value", "text": "Ada"},
                       {"cell_id": 2, "label": "key", "text": "Alone"}],
             "links": [{"label": "to_value", "source_cell_id": 0, "target_cell_id": 1}],
             }  # fmt: skip
    (part,) = read(docling(["form_items/0"], form_items=[{"label": "form", "graph": graph}]))
    assert part.text == "Name: Ada\nAlone\n"


def test_a_body_that_runs_in_circles_or_leads_nowhere() -> None:
    texts = [text("text", "Once.", children=["texts/0", "groups/0"])]
    groups = [{"label": "section", "children": ["groups/0", "texts/0"]}]
    body = ["texts/0", "texts/0", "texts/9", "nowhere"]
    (part,) = read(docling(body, texts=texts, groups=groups))
    assert part.text == "Once.\n"
    assert part.rejects == [("docling", "2 references of the body lead nowhere")]


def test_a_document_without_a_body_and_one_with_a_table_without_end() -> None:
    with pytest.raises(Broken, match="without a body"):
        read({"schema_name": "DoclingDocument", "name": "x"})
    huge = docling(["tables/0"], tables=[{"label": "table", "data": {
        "table_cells": [cell("x", 10**6, 10**6)]}}])  # fmt: skip
    with pytest.raises(Broken, match="a table of 1,000,001"):
        read(huge)


def test_a_document_a_line() -> None:
    documents = [docling(["texts/0"], texts=[text("text", words)]) for words in ("One.", "Two.")]
    data = "\n".join(map(json.dumps, documents)).encode()
    found = [(part.text, part.line) for part in read_json_lines(data, "replace")]  # type: ignore[union-attr]
    assert found == [("One.\n", 1), ("Two.\n", 2)]


def test_whatever_the_values_in_it_a_document_is_read_or_refused() -> None:
    draw = random.Random(2)
    table = {"table_cells": [cell("a", 0, 0, head=True), cell("b", 1, 0, 1, 2)]}
    graph = {"cells": [{"cell_id": 0, "text": "k"}], "links": [{"label": "to_value"}]}
    whole = json.dumps(docling(
        ["texts/0", "tables/0", "groups/0", "forms/0"],
        texts=[text("section_header", "", 1, level=1, children=["groups/1"]), text("text", "x", 2)],
        groups=[{"label": "list", "children": ["texts/1"]},
                {"label": "inline", "children": ["texts/1"]}],
        tables=[{"label": "table", "prov": [{"page_no": 1}], "data": table}],
        forms=[{"label": "form", "graph": graph}],
    ))  # fmt: skip
    wild: list[Any] = [None, -1, 0, "", [], {}, True, 10**12, ["a"], [{"$ref": "#/body"}]]
    read = 0
    for _ in range(500):
        value = json.loads(whole)
        for _ in range(2):
            here = value
            while True:
                place = draw.choice(list(here) if isinstance(here, dict) else range(len(here)))
                if (
                    not here[place]
                    or not isinstance(here[place], dict | list)
                    or draw.random() < 0.2
                ):
                    here[place] = draw.choice(wild)
                    break
                here = here[place]
        try:
            list(read_json(json.dumps(value).encode(), "replace"))
            read += 1
        except Broken:
            pass
    assert read > 250
