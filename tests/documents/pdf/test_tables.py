"""Tables of PDF files come out as Markdown, whole and once; what is no table stays text."""

import io
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedtune.documents.chunk import ChunkSettings, chunk_documents
from embedtune.documents.outline import blocks_of
from embedtune.documents.pdf.lines import Turn
from embedtune.documents.pdf.reader import read_pdf
from embedtune.documents.pdf.rules import grids, read_rules
from embedtune.documents.reading import Part
from embedtune.embed.tokens import WordTokens
from embedtune.records import Document

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"

ABOVE = "The parts of the pump are listed with what they weigh and what they cost this year."
BELOW = "Whoever needs another part asks the mill on the left bank of the river for it."
PARTS = [
    ["Part", "Weight", "Price", "Supplier"],
    ["Valve, small", "12 kg", "$ 40", "North Mill"],
    ["Valve, large", "31 kg", "$ 95", "North Mill"],
    ["Pipe", "3 kg", "$ 7", "River Works"],
]
PARTS_MARKDOWN = """\
| Part | Weight | Price | Supplier |
| --- | --- | --- | --- |
| Valve, small | 12 kg | $40 | North Mill |
| Valve, large | 31 kg | $95 | North Mill |
| Pipe | 3 kg | $7 | River Works |"""
PROSE = (
    "The pump moves water from the river to the upper house and from there to the lower house by "
    "way of two valves, which must be opened before the pump is started, and closed in the evening "
    "when nobody is at work any more. "
)

Row = Sequence[str]


def read(data: bytes, *, tables: bool = True) -> Part:
    return read_pdf(data, None, tables=tables)


def flowed(*items: Any, margin: float = 72) -> bytes:
    """A PDF that reportlab lays out: texts become paragraphs."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

    style = getSampleStyleSheet()["Normal"]
    buffer = io.BytesIO()
    flow: list[Any] = []
    for item in items:
        text = isinstance(item, str)
        flow += [Paragraph(item, style) if text else item, Spacer(1, 8)]
    SimpleDocTemplate(buffer, leftMargin=margin, rightMargin=margin).build(flow)
    return buffer.getvalue()


def table(rows: Sequence[Sequence[Any]], *style: tuple[Any, ...], widths: Any = None) -> Any:
    from reportlab.platypus import Table

    repeated = 1 if len(rows) > 40 else 0
    return Table([list(row) for row in rows], colWidths=widths, style=style, repeatRows=repeated)


def wrapped(text: str) -> Any:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph

    return Paragraph(text, getSampleStyleSheet()["Normal"])


def drawn(*lines: tuple[float, list[tuple[float, str]]], font: str = "Helvetica") -> bytes:
    """A PDF of texts at places: (height above the foot, [(left, text), …])."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(595, 842))
    canvas.setFont(font, 10)
    for height, texts in lines:
        for left, text in texts:
            canvas.drawString(left, height, text)
    canvas.save()
    return buffer.getvalue()


def in_rows(
    rows: Sequence[Row], places: Sequence[float], top: float = 760, step: float = 15
) -> Any:
    return [
        (top - number * step, [(x, text) for x, text in zip(places, row, strict=False) if text])
        for number, row in enumerate(rows)
    ]


GRID = ("GRID", (0, 0), (-1, -1), 0.5, (0, 0, 0))


# ---- tables with and without lines


def test_a_ruled_table_stands_between_the_text_above_and_below_it() -> None:
    part = read(flowed(ABOVE, table(PARTS, GRID), BELOW))
    assert part.text == f"{ABOVE}\n\n{PARTS_MARKDOWN}\n\n{BELOW}"
    assert part.meta["tables"] == "1"
    assert "uncertain_tables" not in part.meta


def test_a_table_without_lines_is_known_by_its_columns() -> None:
    assert read(flowed(ABOVE, table(PARTS, widths=[120] * 4), BELOW)).text == (
        f"{ABOVE}\n\n{PARTS_MARKDOWN}\n\n{BELOW}"
    )


def test_a_shaded_table_without_lines_is_read() -> None:
    shades = [("BACKGROUND", (0, n), (-1, n), (0.8, 0.9, 0.8)) for n in (1, 3)]
    part = read(flowed(ABOVE, table(PARTS, *shades, widths=[120] * 4), BELOW))
    assert part.text == f"{ABOVE}\n\n{PARTS_MARKDOWN}\n\n{BELOW}"


BLACK = (0, 0, 0)
TOP = ("LINEABOVE", (0, 0), (-1, 0), 1, BLACK)
BOTTOM = ("LINEBELOW", (0, -1), (-1, -1), 1, BLACK)
UNDER_HEADER = ("LINEBELOW", (0, 0), (-1, 0), 0.5, BLACK)


@pytest.mark.parametrize(
    "style",
    [
        [("INNERGRID", (0, 0), (-1, -1), 0.5, BLACK), TOP, BOTTOM],
        [("BOX", (0, 0), (-1, -1), 1, BLACK), ("LINEBEFORE", (1, 0), (-1, -1), 1, BLACK), TOP,
         UNDER_HEADER],
        [TOP, UNDER_HEADER, BOTTOM],
    ],
    ids=["open sides", "rows without lines", "three lines"],
)  # fmt: skip
def test_lines_need_not_be_complete(style: list[tuple[Any, ...]]) -> None:
    part = read(flowed(ABOVE, table(PARTS, *style, widths=[100] * 4), BELOW))
    assert part.text == f"{ABOVE}\n\n{PARTS_MARKDOWN}\n\n{BELOW}"


def test_grids_are_those_that_pdfplumber_finds() -> None:
    import pdfplumber
    import pypdfium2

    merges = [("SPAN", (0, 0), (1, 0)), ("SPAN", (3, 1), (3, 2))]
    data = flowed(ABOVE, table(PARTS, GRID), BELOW, table(PARTS, GRID, *merges))
    with pdfplumber.open(io.BytesIO(data)) as theirs:
        expected = [
            (len(found.cells), [round(side) for side in found.bbox])
            for found in theirs.pages[0].find_tables()
        ]
        height = theirs.pages[0].height
    document = pypdfium2.PdfDocument(data)
    page = document[0]
    ours = list(grids(read_rules(page.raw, Turn())))
    page.close()
    document.close()
    assert [
        (len(grid.cells), [round(side) for side in (
            grid.columns[0], height - grid.rows[0], grid.columns[-1], height - grid.rows[-1])])
        for grid in ours
    ] == expected  # fmt: skip


def test_lines_of_a_cell_are_joined_and_bars_escaped() -> None:
    long = "Opens the way for the water to the upper house when the pump has reached its speed."
    rows = [["Part", "What it does"], ["Valve", wrapped(long)], ["Pipe | hose", "Leads it down"]]
    part = read(flowed(ABOVE, table(rows, GRID, widths=[80, 150]), BELOW))
    assert f"| Valve | {long} |\n| Pipe \\| hose | Leads it down |" in part.text


def test_lines_of_a_row_without_grid_are_joined() -> None:
    rows = [
        ["Part", "Weight", "Price"],
        ["Valve that opens the way for", "12", "40"],
        ["the water"],
        ["Pipe", "3", "7"],
        ["Sieve of fine wire"],
        ["that keeps out leaves", "1", "2"],
        ["Repairs:"],
        ["Labour", "16", "49"],
    ]
    text = read(drawn(*in_rows(rows, [60, 300, 400], step=12))).text
    assert text.split("\n")[2:] == [
        "| Valve that opens the way for the water | 12 | 40 |",
        "| Pipe | 3 | 7 |",
        "| Sieve of fine wire that keeps out leaves | 1 | 2 |",
        "| Repairs: |  |  |",
        "| Labour | 16 | 49 |",
    ]


def test_cells_in_the_middle_of_a_higher_row_belong_to_it() -> None:
    rows = [["Part", "Weight", "Note"], ["Valve that opens the\nway for the water", "12", "heavy"],
            ["Pipe", "3", "long"]]  # fmt: skip
    part = read(flowed(table(rows, ("VALIGN", (0, 0), (-1, -1), "MIDDLE"), widths=[150, 80, 80])))
    assert (
        "| Valve that opens the way for the water | 12 | heavy |\n| Pipe | 3 | long |" in part.text
    )


# ---- figures and headers


def test_signs_and_per_cents_are_merged_into_their_numbers() -> None:
    rows = [["Year", "Sales", "", "Change", ""], ["2022", "$", "1,204", "3.5", "%"],
            ["2023", "$", "1,310", "(8)", "%"], ["All", "", "2,514", "—", "%"]]  # fmt: skip
    expected = [
        "| 2022 | $1,204 | 3.5% |",
        "| 2023 | $1,310 | (8)% |",
        "| All | 2,514 | —% |",
    ]
    places = [60, 200, 240, 330, 356]
    assert read(drawn(*in_rows(rows, places))).text.split("\n")[2:] == expected
    ruled = read(flowed(table(rows, GRID))).text.split("\n")
    assert [re.sub(r"\|  (?=\|)", "", row) for row in ruled[2:]] == expected


def test_headings_over_several_columns_stand_over_each_of_them() -> None:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.setFont("Helvetica-Bold", 10)
    canvas.drawString(250, 700, "River")
    canvas.drawString(430, 700, "Mill")
    canvas.line(200, 696, 320, 696)  # the rule says how far the heading reaches
    canvas.line(380, 696, 500, 696)
    for x, text in ((200, "Weight"), (280, "Price"), (380, "Weight"), (460, "Price")):
        canvas.drawString(x, 686, text)
    canvas.setFont("Helvetica", 10)
    canvas.drawString(310, 672, "(in coins)")
    for height, row in (
        (656, ("Valve", "12", "40", "31", "95")),
        (642, ("Pipe", "3", "7", "4", "8")),
    ):
        for x, text in zip((60, 200, 280, 380, 460), row, strict=True):
            canvas.drawString(x, height, text)
    canvas.save()
    assert read(buffer.getvalue()).text == (
        "| (in coins) | River Weight | River Price | Mill Weight | Mill Price |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| Valve | 12 | 40 | 31 | 95 |\n"
        "| Pipe | 3 | 7 | 4 | 8 |"
    )


def test_a_first_row_of_figures_is_no_header() -> None:
    rows = [["Valve", "12", "40"], ["Pipe", "3", "7"], ["Sieve", "1", "2"]]
    lines = read(drawn(*in_rows(rows, [60, 200, 300]))).text.split("\n")
    assert lines[0] == "|  |  |  |"
    assert lines[2] == "| Valve | 12 | 40 |"


SHARED_HEADS = [
    ["Region", "2023", "", "2022", ""],
    ["", "Units", "Sales", "Units", "Sales"],
    ["North", "10", "1,200", "9", "1,100"],
    ["South", "7", "800", "8", "(910)"],
]
SPANS = [("SPAN", (0, 0), (0, 1)), ("SPAN", (1, 0), (2, 0)), ("SPAN", (3, 0), (4, 0))]


@pytest.mark.parametrize("lines", [[], [TOP, BOTTOM]], ids=["no lines", "two lines"])
def test_headings_in_the_middle_of_several_columns_stand_over_each_without_a_line(
    lines: list[tuple[Any, ...]],
) -> None:
    middle = ("ALIGN", (1, 0), (-1, 1), "CENTER")  # the figures stand at the left: not below them
    part = read(flowed(table(SHARED_HEADS, *SPANS, middle, *lines, widths=[100] + [70] * 4)))
    assert part.text == (
        "| Region | 2023 Units | 2023 Sales | 2022 Units | 2022 Sales |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| North | 10 | 1,200 | 9 | 1,100 |\n"
        "| South | 7 | 800 | 8 | (910) |"
    )


def test_a_heading_beside_its_figures_stands_over_them() -> None:
    rows = [["Part", "Price", "Sold in the year"], ["Valve", "", "", "40", "2"],
            ["Pipe", "", "", "7", "13"]]  # fmt: skip
    assert read(drawn(*in_rows(rows, [60, 200, 320, 240, 420]))).text == (
        "| Part | Price | Sold in the year |\n"
        "| --- | --- | --- |\n"
        "| Valve | 40 | 2 |\n"
        "| Pipe | 7 | 13 |"
    )


def test_tables_beside_each_other_are_two_where_their_lines_stop() -> None:
    from reportlab.platypus import Table

    towns = [["Town", "Mills", "Pumps"], ["Oberau", "4", "9"], ["Unterau", "1", "2"]]
    prices = [["Part", "Price"], ["Valve", "40"], ["Pipe", "7"], ["Sieve", "12"]]
    lines = [TOP, UNDER_HEADER, BOTTOM]
    both = Table(
        [[table(prices, *lines, widths=[80, 60]), table(towns, *lines, widths=[80, 50, 50])]],
        colWidths=[200, 220],
        style=[("VALIGN", (0, 0), (-1, -1), "TOP")],
    )
    part = read(flowed(ABOVE, both, BELOW))
    assert part.text.split("\n\n")[1:-1] == [
        "| Part | Price |\n| --- | --- |\n| Valve | 40 |\n| Pipe | 7 |\n| Sieve | 12 |",
        "| Town | Mills | Pumps |\n| --- | --- | --- |\n| Oberau | 4 | 9 |\n| Unterau | 1 | 2 |",
    ]


# ---- merged cells and tables over two pages (I24)


def test_the_text_of_merged_cells_is_not_lost() -> None:
    rows = [
        ["Region", "Year", "", "All"],
        ["", "2021", "2022", ""],
        ["North", "1,200", "1,300", "2,500"],
        ["", "40", "60", "100"],
        ["South", "7", "8", "15"],
    ]
    merges = [((1, 0), (2, 0)), ((0, 0), (0, 1)), ((3, 0), (3, 1)), ((0, 2), (0, 3))]
    part = read(flowed(ABOVE, table(rows, GRID, *(("SPAN", *span) for span in merges)), BELOW))
    assert part.text.split("\n\n")[1] == (
        "| Region | Year 2021 | Year 2022 | All |\n"
        "| --- | --- | --- | --- |\n"
        "| North | 1,200 | 1,300 | 2,500 |\n"
        "| North | 40 | 60 | 100 |\n"
        "| South | 7 | 8 | 15 |"
    )


@pytest.mark.parametrize("style", [[GRID], []], ids=["ruled", "without lines"])
def test_a_table_over_two_pages_is_one_and_its_repeated_header_noted(
    style: list[tuple[Any, ...]],
) -> None:
    rows = [
        ["No", "Name", "Amount"],
        *([str(n), f"Part {n}", f"{n * 37}.50"] for n in range(1, 61)),
    ]
    part = read(flowed(ABOVE, table(rows, *style, widths=[60, 200, 100]), BELOW))
    above, found, below = part.text.split("\n\n")
    assert (above, below) == (ABOVE, BELOW)
    assert found.split("\n") == [
        "| No | Name | Amount |",
        "| --- | --- | --- |",
        *(f"| {n} | Part {n} | {n * 37}.50 |" for n in range(1, 61)),
    ]
    assert part.meta["tables"] == "1"
    note = (
        "tables over two pages and more joined: pages 1-2; their repeated headers left out: pages 2"
    )
    assert (None, note) in part.notes
    [_, (offset, page)] = part.pages
    assert page == 2
    assert re.match(r"\| \d+ \| Part \d+ ", part.text[offset:])


def test_running_heads_drawn_before_the_text_do_not_part_a_table() -> None:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    sheet = Canvas(buffer, pagesize=(595, 842))
    rows = [["Part", "Price"], *([f"Valve {n}", f"{n * 31}.00"] for n in range(1, 31))]
    for page, members in enumerate((rows[:16], rows[:1] + rows[16:]), 1):
        sheet.drawString(60, 815, "River Works, annual review")
        sheet.drawString(280, 30, f"Page {page}")
        for number, row in enumerate(members):
            for x, text in zip((60, 300), row, strict=True):
                sheet.drawString(x, 760 - number * 20, text)
        sheet.showPage()
    sheet.save()
    part = read(buffer.getvalue())
    title, found = part.text.split("\n\n")
    assert title == "River Works, annual review"  # once: it may be the title
    assert found.split("\n") == [
        "| Part | Price |",
        "| --- | --- |",
        *(f"| Valve {n} | {n * 31}.00 |" for n in range(1, 31)),
    ]


def test_a_repeated_title_is_left_out_with_the_header() -> None:
    rows = [
        ["Firm", "Town"],
        *([f"Mill number {n}", f"Town {n * n} on the river"] for n in range(40)),
    ]

    def canvas(pages: list[tuple[str, list[list[str]]]]) -> bytes:
        from reportlab.pdfgen.canvas import Canvas

        buffer = io.BytesIO()
        sheet = Canvas(buffer, pagesize=(595, 842))
        for title, members in pages:
            sheet.setFont("Helvetica", 10)
            sheet.drawString(220, 800, title)
            for number, row in enumerate(members):
                sheet.setFont("Helvetica-Bold" if row[0] == "Firm" else "Helvetica", 10)
                for x, text in zip((60, 300), row, strict=True):
                    sheet.drawString(x, 770 - number * 15, text)
            sheet.showPage()
        sheet.save()
        return buffer.getvalue()

    part = read(canvas([("Firms on the river", rows[:25]), ("Firms on the river", rows[25:])]))
    assert part.text.count("Firms on the river") == 1
    assert part.text.count("| Firm | Town |") == 1
    assert part.text.count("\n| Mill number") == 40
    assert "\n\n" not in part.text.split("| Firm")[1]


def test_a_table_that_may_go_on_with_other_columns_is_marked() -> None:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    sheet = Canvas(buffer, pagesize=(595, 842))
    for rows, places in (
        ([["Part", "Weight", "Price"], ["Valve", "12", "40"], ["Pipe", "3", "7"]], (60, 200, 300)),
        ([["8", "Sieve", "9", "10"], ["11", "Wheel", "12", "13"]], (60, 250, 380, 480)),
    ):
        for number, row in enumerate(rows):
            for x, text in zip(places, row, strict=True):
                sheet.drawString(x, 800 - number * 15, text)
        sheet.showPage()
    sheet.save()
    part = read(buffer.getvalue())
    assert part.meta["tables"] == "2"
    assert part.meta["uncertain_tables"] == "2"
    assert (None, "tables whose columns are uncertain, check them: pages 2") in part.notes


# ---- Chinese


@pytest.mark.parametrize("ruled", [True, False])
def test_chinese_tables_are_read(ruled: bool) -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    rows = [["项目", "2022年", "2023年"], ["水泵收入", "1,204.5", "1,310.2"],
            ["水泵成本", "800.1", "822.0"], ["净利润", "96.3万元", "101.7万元"]]  # fmt: skip
    font = ("FONTNAME", (0, 0), (-1, -1), "STSong-Light")
    style = [font, GRID] if ruled else [font]
    assert read(flowed(table(rows, *style, widths=[150, 100, 100]))).text == (
        "| 项目 | 2022年 | 2023年 |\n"
        "| --- | --- | --- |\n"
        "| 水泵收入 | 1,204.5 | 1,310.2 |\n"
        "| 水泵成本 | 800.1 | 822.0 |\n"
        "| 净利润 | 96.3万元 | 101.7万元 |"
    )


def in_chinese(*items: Any) -> list[Any]:
    """Texts as justified paragraphs; a text that begins with a bar at the right margin."""
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.platypus import Paragraph

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    style = ParagraphStyle(
        "chinese", fontName="STSong-Light", fontSize=10, leading=14, wordWrap="CJK", alignment=4
    )
    right = ParagraphStyle("right", parent=style, alignment=2)
    return [
        Paragraph(item.lstrip("|"), right if item.startswith("|") else style)
        if isinstance(item, str)
        else item
        for item in items
    ]


CHINESE_PROSE = (
    "水泵把河水送到高处的房子，再从那里送到低处的房子，中间要经过两道阀门，"
    "开泵以前要先把它们打开，晚上没有人的时候再关上。"
)
CHINESE = ("FONTNAME", (0, 0), (-1, -1), "STSong-Light")
UPWARDS = ("VALIGN", (0, 0), (-1, -1), "TOP")


@pytest.mark.parametrize("lines", [[GRID], []], ids=["ruled", "without lines"])
def test_lines_of_a_chinese_cell_are_joined_without_a_space(lines: list[tuple[Any, ...]]) -> None:
    cells = [
        "磨坊与村庄就水泵的质量发生争议，村里已经请人查验，目前还没有结论。",
        "为下游的村庄修建水渠，工期三年，由磨坊出资。",
    ]
    rows = [["事项", "说明", "金额（万元）"], ["争议", *in_chinese(cells[0]), "1,204.50"],
            ["水渠", *in_chinese(cells[1]), "800.00"]]  # fmt: skip
    part = read(flowed(table(rows, CHINESE, UPWARDS, *lines, widths=[60, 150, 90])))
    assert part.text == (
        "| 事项 | 说明 | 金额（万元） |\n"
        "| --- | --- | --- |\n"
        f"| 争议 | {cells[0]} | 1,204.50 |\n"
        f"| 水渠 | {cells[1]} | 800.00 |"
    )


RESULTS = [["项目", "2023年", "2022年", "增减"], ["营业收入", "125.36亿元", "118.20亿元", "6.06%"],
           ["净利润", "18.42亿元", "(2.15)亿元", "不适用"],
           ["现金流量净额", "-3.27亿元", "4.80亿元", "-168.13%"]]  # fmt: skip
RESULTS_ROWS = """\
| --- | --- | --- | --- |
| 营业收入 | 125.36亿元 | 118.20亿元 | 6.06% |
| 净利润 | 18.42亿元 | (2.15)亿元 | 不适用 |
| 现金流量净额 | -3.27亿元 | 4.80亿元 | -168.13% |"""


@pytest.mark.parametrize("lines", [[], [TOP, UNDER_HEADER, BOTTOM]], ids=["no lines", "three"])
def test_the_unit_of_a_table_is_no_heading_of_its_last_column(
    lines: list[tuple[Any, ...]],
) -> None:
    figures = ("ALIGN", (1, 0), (-1, -1), "RIGHT")
    data = flowed(
        *in_chinese("水泵今年的主要数据列在下面。", "|单位：亿元"),
        table(RESULTS, CHINESE, figures, *lines, widths=[150, 95, 95, 100]),
    )
    assert read(data).text.split("\n\n")[1] == (
        f"| 单位：亿元 项目 | 2023年 | 2022年 | 增减 |\n{RESULTS_ROWS}"
    )


def test_a_line_at_the_right_margin_is_no_part_of_the_paragraph_above_it() -> None:
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    text = CHINESE_PROSE
    paragraph, unit = in_chinese(text[:43] + "。", "|单位：亿元")  # the line is full
    buffer = io.BytesIO()
    flow: list[Paragraph] = [*in_chinese(text * 3), paragraph, unit]
    SimpleDocTemplate(buffer, leftMargin=72, rightMargin=72).build(flow)
    assert read(buffer.getvalue()).text.endswith(f"{text[:43]}。\n单位：亿元")


# ---- what is no table


def test_figures_in_prose_are_no_table() -> None:
    text = (
        "In 2019, 2020 and 2021 the mill sold 1,204, 1,310 and 1,402 pumps for $ 12, $ 13 and $ 14 "
        "each, while in 2022 and 2023 it sold 900 and 950 for $ 15. "
    )
    part = read(flowed(text * 4))
    assert "tables" not in part.meta
    assert part.text == (text * 4).strip()


@pytest.mark.parametrize(
    "rows",
    [
        [["1.", "Open the valve."], ["2.", "Start the pump."], ["3.", "Look at the gauge."]],
        [["•", "a pump"], ["•", "two valves"], ["•", "a pipe of copper"]],
        [["第一条", "本办法适用于水泵。"], ["第二条", "每年检修。"], ["第三条", "今日起施行。"]],
        [["Contents"], ["Safety", "3"], ["Starting", "7"], ["Winter", "12"], ["Repairs", "19"]],
        [["Safety ......................", "3"], ["Starting ..................", "7"],
         ["Winter ......................", "9"]],
    ],
    ids=["numbers", "bullets", "articles", "contents", "leaders"],
)  # fmt: skip
def test_lists_and_tables_of_contents_stay_lines(rows: list[Row]) -> None:
    font = "STSong-Light" if "第" in rows[0][0] else "Helvetica"
    part = read(drawn(*in_rows(rows, [60, 130 if rows[0][0] != "Contents" else 480]), font=font))
    assert "|" not in part.text
    assert [line for line in part.text.split("\n") if line] == [" ".join(row) for row in rows]


def test_a_program_is_no_table() -> None:
    lines = [["valve.turn(90)", "# open"], ["pump.start()", "# start"], ["return valve", "# give"]]
    part = read(drawn(*in_rows(lines, [60, 200], step=12), font="Courier"))
    assert "|" not in part.text


def test_columns_of_prose_are_no_table_and_are_read_one_after_the_other() -> None:
    left = [f"left line {n:02} of the column is as long as these others" for n in range(20)]
    right = [f"right line {n:02} of the column is as long as the others" for n in range(20)]
    lines = in_rows(list(zip(left, right, strict=True)), [50, 310], step=12)
    part = read(drawn(*lines))  # drawn line by line across both columns
    assert "tables" not in part.meta
    assert re.findall(r"(left|right) line (\d\d)", part.text) == [
        (side, f"{n:02}") for side in ("left", "right") for n in range(20)
    ]


@pytest.mark.parametrize(("count", "width"), [(2, 26), (3, 22), (3, 34)])
@pytest.mark.parametrize("lines", [5, 14])
def test_justified_prose_in_narrow_columns_is_no_table(count: int, width: int, lines: int) -> None:
    from reportlab.pdfbase.pdfmetrics import stringWidth
    from reportlab.pdfgen.canvas import Canvas

    text = textwrap.wrap(PROSE * 10, width)
    place = {22: 115, 26: 130, 34: 165}[width]
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(595, 842))
    for number in range(lines):  # drawn line by line across all columns
        for column in range(count):
            line = text[column * lines + number]
            room = place - 12 - stringWidth(line, "Helvetica", 8)
            shown = canvas.beginText(50 + column * place, 760 - number * 10)
            shown.setFont("Helvetica", 8)
            shown.setWordSpace(max(0.0, room / max(1, line.count(" "))))
            shown.textOut(line)
            canvas.drawText(shown)
    canvas.save()
    part = read(buffer.getvalue())
    assert "tables" not in part.meta
    assert "|" not in part.text


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_prose_set_in_frames_is_no_table(count: int, language: str) -> None:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

    style = ParagraphStyle("narrow", fontSize=9, leading=11, alignment=4)
    texts = [Paragraph(PROSE * (1 + n % 3), style) for n in range(24)]
    if language == "zh":
        texts = in_chinese(*(CHINESE_PROSE * (2 + n % 3) for n in range(24)))
    width = (495 - 18 * (count - 1)) / count
    frames = [Frame(50 + n * (width + 18), 80, width, 680, 0, 0, 0, 0) for n in range(count)]
    buffer = io.BytesIO()
    document = BaseDocTemplate(buffer, pagesize=(595, 842))
    document.addPageTemplates(PageTemplate(frames=frames))
    document.build(list(texts))
    part = read(buffer.getvalue())
    assert "tables" not in part.meta
    assert "|" not in part.text


def test_a_table_in_a_column_and_one_across_both_are_told_apart() -> None:
    left = [[f"left line {n:02} of the column is as long as these others"] for n in range(12)]
    right = [f"right line {n:02} of the column is as long as the others" for n in range(18)]
    small = [["Part", "Weight"], ["Valve", "12"], ["Pipe", "3"], ["Sieve", "1"]]
    wide = [["Town", "Mills", "Pumps", "Water"], ["Oberau", "4", "9", "810"],
            ["Unterau", "1", "2", "77"], ["Au", "3", "3", "120"]]  # fmt: skip
    part = read(
        drawn(
            *in_rows(left, [50], step=12),
            *in_rows(small, [50, 160], top=760 - 13 * 12, step=12),
            *((760 - n * 12, [(310, text)]) for n, text in enumerate(right)),
            *in_rows(wide, [50, 200, 330, 460], top=500, step=12),
        )
    )
    heads = re.findall(r"^\| ([A-Z].*) \|\n\| -", part.text, re.MULTILINE)
    assert heads == ["Part | Weight", "Town | Mills | Pumps | Water"]
    at = [
        part.text.index(text) for text in ("left line 11", "| Valve", "right line 00", "| Oberau")
    ]
    assert at == sorted(at)


# ---- nothing lost, nothing twice


def characters(text: str) -> Counter[str]:
    return Counter(re.sub(r"[\s|\\-]", "", text))


@pytest.mark.parametrize("style", [[GRID], [], [("BACKGROUND", (0, 1), (-1, 1), (0.9, 0.9, 0.9))]])
def test_a_table_has_the_characters_of_its_lines_once(style: list[tuple[Any, ...]]) -> None:
    rows = [*PARTS, ["", "", "", "a note"], ["All of them", "46 kg", "$ 142", ""]]
    data = flowed(PROSE, table(rows, *style, widths=[110] * 4), PROSE)
    with_tables, lines = read(data), read(data, tables=False)
    assert "tables" in with_tables.meta
    assert "tables" not in lines.meta
    assert characters(with_tables.text) == characters(lines.text)
    assert "Valve, small 12 kg $ 40 North Mill" in lines.text


def test_a_sideways_table_is_read_like_an_upright_one() -> None:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(595, 842))
    canvas.rotate(90)
    canvas.translate(0, -595)
    for number, row in enumerate(PARTS):
        for x, text in zip((60, 240, 380, 520), row, strict=True):
            canvas.drawString(x, 500 - number * 15, text)
    canvas.save()
    assert read(buffer.getvalue()).text == PARTS_MARKDOWN


# ---- chunks


def test_chunks_keep_a_table_whole_or_its_rows_with_the_header() -> None:
    rows = [
        ["No", "Name", "Amount"],
        *([str(n), f"Part {n}", f"{n * 37}.50"] for n in range(1, 61)),
    ]
    part = read(flowed(PROSE, table(rows, GRID), PROSE))
    document = Document("d1", "parts.pdf", "", part.text, "pdf", "en", meta=part.meta)
    [found] = [block for block in blocks_of(document) if block.kind == "table"]
    assert document.text[found.start : found.end].count("\n") == 61
    chunks = chunk_documents([document], WordTokens(), ChunkSettings(tokens=120, overlap=0)).chunks
    pieces = [chunk for chunk in chunks if "| Part " in chunk.text]
    assert len(pieces) > 2
    for chunk in pieces[1:]:
        assert "No | Name | Amount" in chunk.title
        assert all(line.startswith("|") == line.endswith("|") for line in chunk.text.split("\n"))


# ---- the filing


@pytest.mark.shared
def test_statements_of_a_filing_are_tables_with_their_headers() -> None:
    part = read((SHARED / "nvidia_10k" / "nvidia-10k-fy2023.pdf").read_bytes())
    assert int(part.meta["tables"]) > 50
    assert "| Compute & Networking | $15,068 | $11,046 | $4,022 | 36% |" in part.text
    dates = "January 29, 2023 | January 30, 2022"
    assert f"| Year Ended ($ in millions) | {dates} | $ Change | % Change |\n| --- |" in part.text
    assert any("pages 88-90" in note for _, note in part.notes)  # the exhibit index is one table
    assert "Agreement and Plan of Merger" in part.text


@pytest.mark.shared
def test_a_statute_has_no_tables() -> None:
    part = read((SHARED / "securities_law" / "law.pdf").read_bytes())
    assert "tables" not in part.meta
    assert "|" not in part.text
