"""XLSX: what a spreadsheet shows, sheet by sheet. openpyxl writes, and is the oracle for values."""

import datetime
import io
import random
import re
import zipfile
from collections.abc import Callable

import pytest
from openpyxl import Workbook, load_workbook

from embedtune.documents.office.sheets import read_xlsx
from embedtune.documents.reading import Broken, Part
from embedtune.documents.rows import Columns
from embedtune.records import Reject


def saved(book: Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def parts(book: Workbook | bytes, **columns: object) -> list[Part | Reject]:
    data = book if isinstance(book, bytes) else saved(book)
    return list(read_xlsx(data, tables=True, columns=Columns.of(columns)))  # type: ignore[arg-type]


def read(book: Workbook | bytes) -> Part:
    (part,) = parts(book)
    assert isinstance(part, Part)
    return part.cleaned()


def sheet(*rows: list[object], name: str = "Sheet") -> Workbook:
    book = Workbook()
    book.active.title = name
    for row in rows:
        book.active.append(row)
    return book


def edited(data: bytes, change: Callable[[str, str], str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name).decode()))
    return buffer.getvalue()


def notes(part: Part) -> list[str]:
    return [message for _, message in part.notes]


PRICES = (["Part", "Price"], ["阀门", 3], ["pump|motor", 12.5])


def test_a_table_with_the_header_of_the_sheet() -> None:
    assert read(sheet(*PRICES)).text == (
        "| Part | Price |\n| --- | --- |\n| 阀门 | 3 |\n| pump\\|motor | 12.5 |\n"
    )


def test_a_heading_for_each_sheet() -> None:
    book = sheet(*PRICES[:2], name="价格")
    book.create_sheet("Empty")
    book.create_sheet("Notes").append(["Order in May."])
    assert read(book).text == (
        "# 价格\n\n| Part | Price |\n| --- | --- |\n| 阀门 | 3 |\n\n# Notes\n\nOrder in May.\n"
    )


def test_empty_and_ragged_rows_and_columns_are_dropped() -> None:
    rows = [[None, "a", None, "b"], [], [None, 1, " ", 2, " "], [None, None, None, 3], [" "]]
    assert read(sheet(*rows)).text == "| a | b |\n| --- | --- |\n| 1 | 2 |\n|  | 3 |\n"


def test_titles_notes_and_a_second_table_stand_apart() -> None:
    book = sheet(
        ["Prices of 2024"], [], ["Part", "Price"], ["valve", 3], ["pump", 9], [],
        ["In coins, without tax."], [], ["Month", "Sold", "Left"], ["May", 1, 2],
    )  # fmt: skip
    assert read(book).text == (
        "Prices of 2024\n\n| Part | Price |\n| --- | --- |\n| valve | 3 |\n| pump | 9 |\n\n"
        "In coins, without tax.\n\n| Month | Sold | Left |\n| --- | --- | --- |\n| May | 1 | 2 |\n"
    )


def test_values_are_shown_as_in_the_spreadsheet() -> None:
    book = sheet(["what", "value"])
    for number, (value, code) in enumerate([
        (0.125, "0.0%"), (1234.5, "#,##0.00"), (-3, "0;(0)"), (datetime.date(2024, 3, 1), None),
        (datetime.datetime(2024, 3, 1, 18, 30), 'yyyy"年"m"月"d"日" h:mm'), (True, None),
        (1234.5, '"¥"#,##0.00'), ("007", None), (0.1 + 0.2, None), ("=1", "@"),
    ], start=2):  # fmt: skip
        cell = book.active.cell(number, 2, value)
        book.active.cell(number, 1, f"row {number}")
        if code:
            cell.number_format = code
        if value == "=1":
            cell.data_type = "s"
    shown = [line.split(" | ")[1].strip(" |") for line in read(book).text.splitlines()[2:]]
    assert shown == ["12.5%", "1,234.50", "(3)", "2024-03-01", "2024年3月1日 18:30", "TRUE",
                     "¥1,234.50", "007", "0.3", "=1"]  # fmt: skip


def test_the_calendar_of_old_macintosh_files() -> None:
    from openpyxl.utils.datetime import CALENDAR_MAC_1904

    book = Workbook()
    book.epoch = CALENDAR_MAC_1904
    book.active.append([datetime.date(2024, 3, 1), "a"])
    assert "2024-03-01" in read(book).text


def test_merged_cells_are_repeated_and_two_header_rows_joined() -> None:
    book = sheet(["Sales", None, None], ["Region", 2024, None], [None, "Q1", "Q2"],
                 ["North", 1, 2], [None, 3, 4])  # fmt: skip
    for area in ("A1:C1", "A2:A3", "B2:C2", "A4:A5"):
        book.active.merge_cells(area)
    assert read(book).text == (
        "Sales\n\n| Region | 2024 Q1 | 2024 Q2 |\n| --- | --- | --- |\n| North | 1 | 2 |\n"
        "| North | 3 | 4 |\n"
    )


def test_hidden_sheets_rows_and_columns_are_left_out_and_said() -> None:
    book = sheet(["Part", "Cost", "Price"], ["valve", 1, 3], ["secret", 5, 6], ["pump", 2, 9])
    book.active.row_dimensions[3].hidden = True
    book.active.column_dimensions["B"].hidden = True
    book.create_sheet("Lists").sheet_state = "hidden"
    book.create_sheet("Deep").sheet_state = "veryHidden"
    part = read(book)
    assert part.text == "| Part | Price |\n| --- | --- |\n| valve | 3 |\n| pump | 9 |\n"
    assert notes(part) == [
        "sheet 'Sheet': 2 hidden rows and columns left out; unhide to read them",
        "2 hidden sheets left out: Lists, Deep; unhide to read them",
    ]


def test_rows_that_only_a_filter_hides_are_kept() -> None:
    book = sheet(["Part", "Price"], ["valve", 3], ["pump", 9])
    book.active.row_dimensions[2].hidden = True
    book.active.auto_filter.ref = "A1:B3"
    book.active.auto_filter.add_filter_column(0, ["pump"])
    part = read(book)
    assert "| valve | 3 |" in part.text
    assert notes(part) == ["sheet 'Sheet': 1 rows hidden by a filter are kept"]


def test_formulas_show_their_stored_value_and_those_without_are_counted() -> None:
    data = saved(sheet(["a", "b"], [1, "=A2*2"], [2, "=A3*2"], [3, "=1/0"]))

    def change(_: str, xml: str) -> str:
        xml = re.sub(r"<v ?/>", "<v></v>", xml)
        xml = xml.replace("<f>A2*2</f><v></v>", "<f>A2*2</f><v>2</v>")
        error = '<c r="B4" t="e"><f>1/0</f><v>#DIV/0!</v>'
        return re.sub('<c r="B4"[^>]*><f>1/0</f><v></v>', error, xml)

    part = read(edited(data, change))
    assert part.text == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 2 |  |\n| 3 |  |\n"
    assert notes(part) == [
        "sheet 'Sheet': 1 formulas without a stored value; open and save the file to have them",
        "sheet 'Sheet': 1 cells that show an error left out",
    ]


def test_text_keeps_its_parts_but_not_its_reading_aids() -> None:
    data = saved(sheet(["水泵", "x"], ["RICH", "y"]))

    def change(name: str, xml: str) -> str:
        rich = (
            '<r><t>two </t></r><r><t>parts_x000D_ here</t></r><rPh sb="0" eb="1"><t>shui</t></rPh>'
        )
        return xml.replace("<t>RICH</t>", rich)

    assert "| two parts here | y |" in read(edited(data, change)).text.replace("\n here", " here")


def test_charts_and_text_boxes_over_the_sheet_are_read() -> None:
    from openpyxl.chart import BarChart, Reference

    book = sheet(["Part", "Sold"], ["valve", 3], ["pump", 9])
    chart = BarChart()
    chart.title = "Parts sold"
    chart.add_data(Reference(book.active, min_col=2, min_row=1, max_row=3), titles_from_data=True)
    book.active.add_chart(chart)
    box = (
        '<xdr:sp xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:xdr="http://'
        'schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing"><xdr:txBody><a:p><a:r><a:t>'
        "Read this first.</a:t></a:r></a:p></xdr:txBody></xdr:sp>"
    )

    def change(name: str, xml: str) -> str:
        return re.sub("(</(?:xdr:)?wsDr>)", box + r"\1", xml) if "drawing1.xml" in name else xml

    text = read(edited(saved(book), change)).text
    assert text.endswith("| pump | 9 |\n\nRead this first.\n\nParts sold\n")


def test_the_strict_edition_of_the_format_is_read() -> None:
    def change(_: str, xml: str) -> str:
        return xml.replace(
            "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            "http://purl.oclc.org/ooxml/spreadsheetml/main",
        ).replace(
            "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
            "http://purl.oclc.org/ooxml/officeDocument/relationships",
        )

    strict = edited(saved(sheet(*PRICES)), change)
    assert read(strict).text == read(sheet(*PRICES)).text


def test_what_other_programs_get_wrong_in_styles_and_views_does_not_matter() -> None:
    def change(_: str, xml: str) -> str:
        return xml.replace("<sheetView ", '<sheetView showZeroes="1" ').replace(
            "<fill>", '<fill nonsense="1">'
        )

    assert read(edited(saved(sheet(*PRICES)), change)).text == read(sheet(*PRICES)).text


def test_cells_without_a_reference_follow_one_another() -> None:
    def change(name: str, xml: str) -> str:
        return re.sub(r' r="[A-Z]*\d+"', "", xml) if "worksheets" in name else xml

    assert read(edited(saved(sheet(*PRICES)), change)).text == read(sheet(*PRICES)).text


def test_a_cell_in_the_last_corner_costs_nothing() -> None:
    book = sheet(["a", "b"], [1, 2])
    book.active.cell(1_048_576, 16_384, "far")
    book.active.cell(3, 16_384).number_format = "0.0"
    assert read(book).text == "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nfar\n"


def test_a_row_of_ten_thousand_columns() -> None:
    lines = read(sheet(list(range(10_000)), ["x"] * 10_000)).text.splitlines()
    assert [line.count(" | ") for line in lines] == [9999, 9999, 9999]


def test_every_value_of_a_random_sheet_agrees_with_openpyxl() -> None:
    draw = random.Random(7)
    choices: list[Callable[[], object]] = [
        lambda: draw.randint(-(10**9), 10**9), lambda: draw.choice(["水泵", "valve", " x "]),
        lambda: None, lambda: draw.random() * 1000, lambda: draw.choice([True, False]),
    ]  # fmt: skip
    rows = [[f"c{n}" for n in range(6)]]
    rows += [["k", *(draw.choice(choices)() for _ in range(5))] for _ in range(300)]
    data = saved(sheet(*rows))
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in read(data).text.splitlines()
    ]
    del shown[1]
    for line, row in zip(shown, load_workbook(io.BytesIO(data)).active.values, strict=True):
        for text, value in zip(line, row, strict=True):
            if isinstance(value, float):
                assert float(text) == pytest.approx(value, rel=1e-8)
            else:
                assert text == ("" if value is None else str(value).upper()
                                if isinstance(value, bool) else str(value).strip())  # fmt: skip


def test_tables_as_lines_when_asked() -> None:
    (part,) = read_xlsx(saved(sheet(*PRICES)), tables=False)
    assert part.text == "Part Price\n阀门 3\npump|motor 12.5\n"


def test_a_sheet_without_any_cell_has_no_content() -> None:
    assert read(Workbook()).text == "\n"


def test_a_sheet_whose_entry_is_missing_is_named() -> None:
    data = saved(sheet(*PRICES))
    with pytest.raises(Broken, match=r"xl/worksheets/sheet9.xml is missing"):
        read(edited(data, lambda name, xml: xml.replace("/sheet1.xml", "/sheet9.xml")
                    if name.endswith(".rels") else xml))  # fmt: skip


# ---- rows that are documents

QUESTIONS = (
    ["Our questions"], ["Nr", "Question", "Answer", "State"], [7, "How?", "So.", "open"],
    [8, None, "Only this.", "done"], [9, None, None, "empty"], [None, None, None, None],
)  # fmt: skip


def test_rows_of_a_sheet_with_the_named_columns_are_documents() -> None:
    book = sheet(*QUESTIONS, name="FAQ")
    book.create_sheet("Prices").append(["Part", "Price"])
    book["Prices"].append(["valve", 3])
    first, second, reject, rest = parts(book, text=["question", "Answer"], id="Nr", title="State")
    assert (first.text, first.title, first.line) == ("How?\n\nSo.", "open", 3)
    assert first.meta == {"sheet": "FAQ", "row_id": "7"}
    assert notes(first) == ["sheet 'FAQ': 3 rows, one document a row"]
    assert second.text == "Only this."
    assert (reject.code, reject.line, reject.field) == ("no-text", 5, "Question")
    assert rest.text == "# Prices\n\n| Part | Price |\n| --- | --- |\n| valve | 3 |\n"


def test_without_names_a_sheet_stays_a_table_even_with_a_column_called_text() -> None:
    assert read(sheet(["text", "n"], ["Words.", 1])).text.startswith("| text | n |")


def test_a_workbook_without_the_named_column_is_read_as_tables_and_says_so() -> None:
    (part,) = parts(sheet(*PRICES), text="body")
    assert part.text.startswith("| Part | Price |")
    assert notes(part) == [
        "no column 'body', which documents.columns names; the columns are: Part, Price; read as "
        "tables"
    ]
