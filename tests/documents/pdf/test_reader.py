import re
from pathlib import Path

import pytest

from embedtune.documents.chunk import ChunkSettings, chunk_documents
from embedtune.documents.pdf.reader import ranges, read_pdf
from embedtune.documents.read import DocumentSettings, read_documents
from embedtune.documents.reading import Broken, Part
from embedtune.embed.tokens import WordTokens

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"

# as wide as the page: 93 to 97 characters in Helvetica 11 are about 470 points
FULL = [
    "The pump moves water from the river to the upper house and from there to the lower house",
    "by way of two valves, which must be opened before the pump is started, and closed in the",
]


def read(data: bytes, password: str | None = None) -> Part:
    return read_pdf(data, password)


def test_lines_of_a_paragraph_are_joined_and_paragraphs_kept_apart(make_pdf) -> None:
    part = read(make_pdf([*FULL, "evening.", ("A second paragraph.", {"gap": 30})]))
    assert part.text == f"{FULL[0]} {FULL[1]} evening.\n\nA second paragraph."


def test_chinese_lines_are_joined_without_a_space(make_pdf) -> None:
    first = "水泵把河水送到上游的房屋，再经过两个阀门送到下游的房屋，启动水泵之前必须先打开阀门，"
    part = read(make_pdf([first, "晚上关闭。", ("第二段从这里开始。", {"gap": 34})]))
    assert part.text == f"{first}晚上关闭。\n\n第二段从这里开始。"


def test_hyphens_at_line_ends_are_mended(make_pdf) -> None:
    first = "The pump moves water from the river to the upper house, which needs careful mainte-"
    part = read(make_pdf([first, "nance every day."]))
    assert part.text.endswith("careful maintenance every day.")
    assert part.meta["mended_hyphens"] == "1"


def test_a_word_hyphened_elsewhere_keeps_its_hyphen(make_pdf) -> None:
    first = "The pump moves water from the river to the upper house, which is a long-term well-"
    part = read(make_pdf([first, "known plan.", ("The well-known plan is old.", {"gap": 30})]))
    assert "long-term well-known plan." in part.text


def test_rows_of_a_table_stay_on_their_lines(make_pdf) -> None:
    part = read(make_pdf([*FULL, "evening.", "valve small 3 coins", "pipe large 4 coins"]))
    assert "valve small 3 coins\npipe large 4 coins" in part.text


def test_lines_under_the_number_of_a_list_belong_to_it(make_pdf) -> None:
    part = read(
        make_pdf(
            [
                "Before the pump is started, whoever starts it has to do all of what stands below:",
                "1)   open both of the valves between the upper house and the lower house, and the",
                ("small one behind them,", {"x": 79}),
                "2)   wait.",
            ]
        )
    )
    assert part.text.split("\n")[1:] == [
        "1) open both of the valves between the upper house and the lower house, and the small one "
        "behind them,",
        "2) wait.",
    ]


def test_a_short_word_at_the_end_of_a_sentence_is_no_number_of_a_list(make_pdf) -> None:
    first = (
        "The pump moves water from the river to the upper house until nobody needs any of it, no"
    )
    assert read(make_pdf([first, "more. Then it stops."])).text == f"{first} more. Then it stops."


def test_a_line_that_is_twice_on_one_page_is_no_running_head(make_pdf) -> None:
    part = read(
        make_pdf(["Close the valve.", *FULL, "evening.", ("Close the valve.", {"gap": 40})])
    )
    assert part.text.count("Close the valve.") == 2
    assert "running_heads" not in part.meta


def test_characters_of_two_halves_are_whole() -> None:
    import pypdfium2.raw as pdfium

    from embedtune.documents.pdf import lines as pdf_lines

    assert pdf_lines._text([0xD842, 0xDFB7, 0x91CE]) == "\U00020bb7\u91ce"
    assert pdf_lines._text([0xD842, 0x91CE]) == "\ufffd\u91ce"
    assert pdf_lines._text([0xF0B7, 0x20, 0x61]) == "• a"  # a bullet of a symbol font
    assert pdfium.FPDFText_GetUnicode  # which gives those halves


def test_headings_are_known_by_their_type(make_pdf) -> None:
    big = {"size": 20, "bold": True}
    bold = {"bold": True, "gap": 26}
    part = read(
        make_pdf([("Pump guide", big), *FULL, "evening.", ("Winter", bold), *FULL, "night."])
    )
    assert part.title == "Pump guide"
    marked = {int(o): int(r) for o, r in (x.split(":") for x in part.meta["headings"].split())}
    assert [part.text[o:].split("\n")[0] for o in marked] == ["Pump guide", "Winter"]
    top, inner = marked.values()
    assert top < inner


def test_a_heading_of_two_lines_is_one(make_pdf) -> None:
    bold = {"bold": True}
    first = "Risks of the pump, of both valves and of all pipes between the two houses on the"
    lines = [(first, bold), ("river", bold)]
    part = read(make_pdf([*lines, *[*FULL, *FULL, "evening."]]))
    assert part.text.startswith(f"{first} river\n\nThe pump")
    assert part.meta["headings"].startswith("0:")
    assert " " not in part.meta["headings"]


def test_pages_begin_where_their_text_begins(make_pdf) -> None:
    part = read(make_pdf(["First page."], ["Second page."], ["Third page."]))
    assert [(part.text[offset:][:6], page) for offset, page in part.pages] == [
        ("First ", 1), ("Second", 2), ("Third ", 3)]  # fmt: skip


def test_running_heads_and_page_numbers_are_removed_and_counted(make_pdf) -> None:
    pages = [
        [
            "Pump handbook",
            "Edition of May",
            ("First of all:", {"gap": 40}),
            *FULL,
            f"evening of day {n} in the house.",
            ("", {}),
            f"Page {n} of 300",
        ]
        for n in range(1, 301)
    ]
    part = read(make_pdf(*pages))
    assert "handbook" not in part.text
    assert "Edition" not in part.text
    assert "of 300" not in part.text
    assert part.text.count("evening of day") == 300
    assert part.meta["running_heads"] == "900"
    assert ("900 running heads" in note for _, note in part.notes)


def test_of_two_pages_the_foot_is_removed_and_the_head_kept_once(make_pdf) -> None:
    pages = [
        ["Pump guide", *FULL, f"evening {n}.", ("Mill House", {"gap": 60}), f"{n} / 2"]
        for n in (1, 2)
    ]
    part = read(make_pdf(*pages))
    assert part.text.startswith("Pump guide")
    assert part.text.count("Pump guide") == 1
    assert part.text.endswith("evening 2.")


def test_page_numbers_drawn_before_the_text_are_removed(make_pdf) -> None:
    up = {"gap": -740}  # the foot is drawn first, then the text from the top
    pages = [
        [("Pump handbook", {"gap": 0}), (f"Page {n}", {"gap": 770}), (FULL[0], up), *FULL[1:],
         f"evening {n}."]
        for n in range(1, 5)
    ]  # fmt: skip
    part = read(make_pdf(*pages))
    assert "Page" not in part.text
    assert "handbook" not in part.text
    assert part.text.count("evening") == 4 * (1 + " ".join(FULL).count("evening"))


def test_totals_at_the_foot_of_pages_are_no_page_numbers(make_pdf) -> None:
    pages = [[*FULL, f"Total {n * n * 37 + 5}"] for n in range(1, 9)]
    assert read(make_pdf(*pages)).text.count("Total") == 8


def test_an_empty_user_password_opens(make_pdf) -> None:
    assert read(make_pdf(["Words behind an empty password."], password="")).text == (
        "Words behind an empty password."
    )


def test_a_password_is_asked_for_and_used(make_pdf) -> None:
    data = make_pdf(["Words behind a password."], password="open")
    with pytest.raises(Broken, match=r"a password is needed; set documents\.password_env"):
        read(data)
    with pytest.raises(Broken, match="the given password does not open it"):
        read(data, "wrong")
    assert read(data, "open").text == "Words behind a password."


def test_a_scan_is_never_a_success_without_characters(make_pdf) -> None:
    with pytest.raises(Broken, match=r"no page of 2 has text .*pages 1-2") as caught:
        read(make_pdf(["IMAGE"], ["IMAGE"]))
    assert caught.value.code == "no-text"


def test_scanned_pages_inside_are_named_as_a_range(make_pdf) -> None:
    pages = [
        ["IMAGE"] if 50 <= n <= 120 else [f"Words of the page that is number {n}."]
        for n in range(1, 201)
    ]
    part = read(make_pdf(*pages))
    [(code, message)] = part.rejects
    assert code == "pages-without-text"
    assert message.startswith("71 of 200 pages (36%) have no text layer: pages 50-120")
    assert "scans are not recognised" in message
    assert "number 49" in part.text


def test_blank_pages_are_only_noted(make_pdf) -> None:
    part = read(make_pdf(["Words of the first page."], [], ["Words of the last page."]))
    assert not part.rejects
    assert (None, "1 of 3 pages are blank: 2") in part.notes


@pytest.mark.parametrize("data", [b"plain text under this name", b"%PDF-1.4\nnothing more"])
def test_other_files_under_the_name_are_rejected(data: bytes) -> None:
    with pytest.raises(Broken):
        read(data)


@pytest.mark.parametrize("damage", ["half", "middle", "head", "tail"])
def test_a_damaged_file_is_rejected_or_says_what_is_missing(make_pdf, damage: str) -> None:
    pages = [[f"Words of the page that is number {n}.", *FULL] for n in range(1, 31)]
    data = make_pdf(*pages, compress=1)
    middle = len(data) // 2
    noise = bytes((i * 37 + i // 3 * 11) % 256 for i in range(2000))
    broken = {
        "half": data[:middle],
        "middle": data[:middle] + noise + data[middle + len(noise) :],
        "head": data[:9] + noise + data[9 + len(noise) :],
        "tail": data[:-300],
    }[damage]
    try:
        part = read(broken)
    except Broken:
        return
    kept = set(map(int, re.findall(r"is number (\d+)\.", part.text)))
    assert kept == set(range(1, 31)) or part.rejects or part.notes


def test_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"


@pytest.mark.shared
def test_a_statute_as_pdf_has_the_text_of_its_markdown() -> None:
    law = SHARED / "securities_law"
    reading = read_documents([law / "law.pdf"], DocumentSettings())
    [document] = reading.documents
    markdown = (law / "law.md").read_text("utf-8")
    assert re.sub(r"\s", "", document.text) == re.sub(r"[\s#]", "", markdown)
    assert document.title == "中华人民共和国证券法"
    assert document.language == "zh"
    assert document.meta["running_heads"] == "26"
    chunks = chunk_documents([document], WordTokens(), ChunkSettings(tokens=512)).chunks
    assert len({c.section[-1] for c in chunks if c.section[-1].endswith("条")}) == 226
    [twelfth] = [c for c in chunks if c.section[-1] == "第十二条"]
    assert twelfth.title == "中华人民共和国证券法 > 第二章 证券发行"
    assert twelfth.text.startswith("第十二条 公司首次公开发行新股，应当符合下列条件：\n")
    assert twelfth.page == 2


@pytest.mark.shared
def test_an_encrypted_filing_keeps_its_items_apart() -> None:
    reading = read_documents([SHARED / "nvidia_10k" / "nvidia-10k-fy2023.pdf"], DocumentSettings())
    [document] = reading.documents
    assert not reading.rejects
    assert "| Compute & Networking | $15,068 | $11,046 | $4,022 | 36% |" in document.text
    assert "NOTES TO THE CONSOLIDATED FINANCIAL STATEMENTS\n\n(Continued)" not in document.text
    result = chunk_documents([document], WordTokens(), ChunkSettings())
    sections = {chunk.section for chunk in result.chunks}
    items = {section[1] for section in sections if len(section) > 1}
    assert {"ITEM 1. BUSINESS", "ITEM 1A. RISK FACTORS", "ITEM 2. PROPERTIES"} <= items
    assert ("PART I", "ITEM 1. BUSINESS", "Our Company") in sections
