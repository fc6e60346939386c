import io
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw

from embedtune.documents import ocr as ocr_module
from embedtune.documents.boxes import Box, confidence_of, lines_of
from embedtune.documents.ocr import find_engine, read_image, tesseract_lines
from embedtune.documents.pdf.reader import read_pdf
from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.documents.reading import Broken, Ocr, Part, Seen, SeenLine
from embedtune.errors import ConfigError, NothingUsable

FULL = [
    "The pump moves water from the river to the upper house and from there to the lower house",
    "by way of two valves, which must be opened before the pump is started, and closed in the",
]
CHINESE = [
    "水泵把河水送到上游的房屋，再经过两个阀门送到下游的房屋，启动水泵之前必须先打开阀门，",
    "晚上关闭。",
]


def box(text: str, left: float, middle: float, height: float = 30, **more: float) -> Box:
    """As wide as its letters: half the height each, a Chinese character the height."""
    letters = sum(1 + (ord(character) >= 0x2E80) for character in text)
    return Box(text, 0.9, left, left + letters * height / 2, middle, height, **more)


def texts(*boxes: Box) -> list[str]:
    return [line.text for line in lines_of(boxes, page_height=2000, scale=1)]


def seen(*lines: str, confidence: float = 0.95, size: float = 11, failed: str = "") -> Seen:
    """Lines one under the other, as wide as Helvetica sets them."""
    rows = [
        SeenLine(line, 60, 60 + 5.3 * sum(1 + (ord(c) >= 0x2E80) for c in line), 800 - 14 * n, size)
        for n, line in enumerate(lines)
    ]
    return Seen(tuple(rows), confidence, failed)


def fake(**pages: Seen) -> Ocr:
    """An engine that sees these pages (p1, p2 …) and fails when it is asked for others."""

    def recognise(numbers: Sequence[int]) -> dict[int, Seen]:
        assert {f"p{number}" for number in numbers} == set(pages)
        return {number: pages[f"p{number}"] for number in numbers}

    return Ocr("fake 1.0", recognise=recognise)


# ---- boxes to lines


def test_cells_on_one_baseline_are_one_line_in_their_order() -> None:
    assert texts(
        box("12.50", 1100, 466), box("valve", 160, 468), box("3", 700, 464),
        box("8.75", 1100, 522), box("pipe", 160, 520), box("14", 700, 524),
    ) == ["valve 3 12.50", "pipe 14 8.75"]  # fmt: skip


def test_pieces_of_a_chinese_line_are_joined_without_a_space_and_cells_with_one() -> None:
    assert texts(box("先关闭阀门，", 100, 100), box("再开机。", 285, 101)) == [
        "先关闭阀门，再开机。"
    ]
    assert texts(box("铜管", 100, 100), box("十四", 700, 101)) == ["铜管 十四"]


def test_a_page_that_lay_askew_keeps_its_rows() -> None:
    """Two degrees: from one side of the page to the other, more than a line's distance."""
    slope = 0.035
    cells = [
        box(text, left, top + slope * (left + 200), slope=slope)
        for top in (400, 440, 480)
        for left, text in ((100, f"a cell of {top}, as long as a line"), (1400, f"{top} coins"))
    ]
    assert texts(*cells) == [
        f"a cell of {top}, as long as a line {top} coins" for top in (400, 440, 480)
    ]


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    left = [f"left column line number {n}" for n in range(8)]
    right = [f"right column line number {n}" for n in range(8)]
    boxes = [box("A title that runs across both of the columns on this page", 100, 60)]
    for n in range(8):
        boxes += [box(left[n], 100, 120 + 40 * n), box(right[n], 560, 121 + 40 * n)]
    boxes.append(box("A note at the foot that runs across both of the columns", 100, 480))
    found = lines_of(boxes, page_height=2000, scale=1)
    assert [line.text for line in found] == [boxes[0].text, *left, *right, boxes[-1].text]
    assert {line.left for line in found} == {100}  # as one long column
    steps = [above.base - below.base for above, below in pairwise(found[1:-1])]
    assert steps == [40.0] * 15


def test_columns_of_a_table_are_not_taken_for_prose() -> None:
    boxes = []
    for n in range(10):
        name = "valve of the upper house" if n % 2 else "pipe"
        boxes += [box(name, 100, 120 + 40 * n), box(f"{n}.50", 900, 121 + 40 * n)]
    assert texts(*boxes)[:2] == ["pipe 0.50", "valve of the upper house 1.50"]


def test_sizes_that_waver_become_one_and_titles_stay_larger() -> None:
    heights = [28, 30, 33, 36, 26]
    lines = [box(f"a line of usual text, number {n}", 100, 200 + 50 * n, h)
             for n, h in enumerate(heights)]  # fmt: skip
    found = lines_of([box("Title", 100, 100, 60), *lines], page_height=2000, scale=2.0)
    assert {line.size for line in found[1:]} == {15.0}
    assert found[0].size > 1.5 * 15
    assert [line.base for line in found[:2]] == [950.0, 900.0]  # points above the foot


def test_no_boxes_give_no_lines() -> None:
    assert lines_of([], page_height=100, scale=1) == ()
    assert confidence_of([]) == 0


def test_confidence_is_weighed_by_characters() -> None:
    assert confidence_of(
        [Box("a" * 9, 1.0, 0, 9, 0, 1), Box("b", 0.5, 0, 9, 0, 1)]
    ) == pytest.approx(0.95)


def test_the_table_of_tesseract_gives_lines() -> None:
    header = "level page_num block_num par_num line_num word_num left top width height conf text"
    rows = [
        header.split(),
        [1, 1, 0, 0, 0, 0, 0, 0, 900, 900, -1, ""],
        [4, 1, 1, 1, 1, 0, 50, 100, 400, 30, -1, ""],
        [5, 1, 1, 1, 1, 1, 50, 100, 100, 30, 96, "The"],
        [5, 1, 1, 1, 1, 2, 160, 100, 100, 30, 80, '"pump"'],
        [4, 1, 1, 1, 2, 0, 50, 150, 400, 30, -1, ""],
        [5, 1, 1, 1, 2, 1, 50, 150, 100, 30, 90, "水泵"],
        [5, 1, 1, 1, 2, 2, 160, 150, 100, 30, 90, "停机"],
        [4, 1, 1, 1, 3, 0, 50, 190, 400, 30, -1, ""],
        [5, 1, 1, 1, 3, 1, 50, 190, 400, 30, 95, " "],
    ]
    boxes = tesseract_lines("\n".join("\t".join(map(str, row)) for row in rows))
    assert [(b.text, b.left, b.right, b.middle, b.height) for b in boxes] == [
        ('The "pump"', 50, 450, 115, 30), ("水泵停机", 50, 450, 165, 30)]  # fmt: skip
    assert boxes[0].confidence == pytest.approx((3 * 0.96 + 6 * 0.80) / 9)


# ---- which engine


def nothing_installed(monkeypatch: pytest.MonkeyPatch, *, rapidocr: bool = False) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(
        ocr_module.importlib.util, "find_spec", lambda _: SimpleNamespace() if rapidocr else None
    )


def test_rapidocr_comes_before_tesseract(stand_in: Callable[[str], None]) -> None:
    stand_in("")
    assert find_engine("auto").name.startswith("rapidocr ")
    assert find_engine("tesseract").name == "tesseract 5.3.0 chi_sim+eng"
    assert find_engine("off").name == ""
    assert "documents.ocr is off" in find_engine("off").advice


def test_tesseract_is_taken_where_rapidocr_is_missing(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr_module.importlib.util, "find_spec", lambda _: None)
    stand_in("")
    assert find_engine("auto").name == "tesseract 5.3.0 chi_sim+eng"


def test_without_ocr_the_install_line_is_given(
    make_pdf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_installed(monkeypatch)
    (tmp_path / "a.pdf").write_bytes(make_pdf(["IMAGE"]))
    (tmp_path / "b.png").write_bytes(picture())
    reading = read(tmp_path)
    assert [(r.file, r.code) for r in reading.rejects] == [("a.pdf", "no-text")]
    assert "pip install 'embedtune[ocr]'" in reading.rejects[0].message
    assert reading.notes == ("1 files of unknown type not read: .png (1)",)
    [reject] = read(tmp_path / "b.png").rejects
    assert reject.code == "unknown-type"
    assert "pip install 'embedtune[ocr]'" in reject.message


@pytest.mark.parametrize("name", ["rapidocr", "tesseract"])
def test_an_engine_asked_for_and_missing_is_a_configuration_fault(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_installed(monkeypatch)
    with pytest.raises(ConfigError, match=f"documents.ocr: {name} is not installed"):
        read(tmp_path, ocr=name)


# ---- which pages of a PDF


def test_only_scanned_pages_are_recognised(make_pdf) -> None:
    data = make_pdf([*FULL, "evening."], ["IMAGE"], [], ["IMAGE"], ["Words of the last page here."])
    part = read_pdf(data, None, fake(p2=seen("Words of page two."), p4=seen(*CHINESE)))
    assert part.text == (
        f"{FULL[0]} {FULL[1]} evening.\n\nWords of page two.\n\n{''.join(CHINESE)}\n\n"
        "Words of the last page here."
    )
    assert [(part.text[offset:][:8], page) for offset, page in part.pages] == [
        ("The pump", 1), ("Words of", 2), (CHINESE[0][:8], 4), ("Words of", 5)]  # fmt: skip
    assert not part.rejects
    assert (part.meta["ocr_pages"], part.meta["ocr_engine"]) == ("2, 4", "fake 1.0")
    assert part.meta["ocr_confidence"] == "0.95"
    assert (None, "2 of 5 pages recognised by fake 1.0, mean confidence 95%: pages 2, 4") in (
        part.notes
    )


def test_a_stamp_on_a_scan_does_not_make_it_text(make_pdf) -> None:
    stamped = image_pdf(picture(), stamp="Page 1 of 2")
    part = read_pdf(stamped, None, fake(p1=seen("Words of the scanned page.")))
    assert part.text == "Words of the scanned page."
    with pytest.raises(Broken) as caught:
        read_pdf(image_pdf(picture()), None)
    assert caught.value.code == "no-text"
    part = read_pdf(stamped, None)
    assert [code for code, _ in part.rejects] == ["pages-without-text"]


def test_a_page_with_a_small_picture_and_few_words_is_text(make_pdf) -> None:
    part = read_pdf(image_pdf(picture(), stamp="Part two", scale=0.2), None, fake())
    assert part.text == "Part two"


def test_running_heads_of_recognised_pages_are_removed(make_pdf) -> None:
    pages = {
        f"p{n}": seen("Pump handbook", "", *FULL, f"evening of day {n}.", "", f"Page {n} of 4")
        for n in range(1, 5)
    }
    for page in pages.values():
        assert len(page.lines) == 7
    pages = {
        name: Seen(tuple(line for line in page.lines if line.text), page.confidence)
        for name, page in pages.items()
    }
    part = read_pdf(make_pdf(*[["IMAGE"]] * 4), None, fake(**pages))
    assert "handbook" not in part.text
    assert "of 4" not in part.text
    assert part.meta["running_heads"] == "8"


def test_pages_of_low_confidence_are_named(make_pdf) -> None:
    data = make_pdf(["IMAGE"], ["IMAGE"])
    part = read_pdf(data, None, fake(p1=seen("Words of it."), p2=seen("W0rcls", confidence=0.55)))
    [(_, note)] = [n for n in part.notes if "recognised" in n[1]]
    assert note.endswith("mean confidence 75%: pages 1-2; unsure, check them: pages 2")


def test_a_page_that_fails_is_named_and_the_others_are_kept(make_pdf) -> None:
    data = make_pdf(["IMAGE"], ["IMAGE"], ["IMAGE"])
    late = seen(failed="took more than 60 s")
    part = read_pdf(data, None, fake(p1=seen("First page."), p2=late, p3=seen("Third page.")))
    assert [(code, message) for code, message in part.rejects] == [
        ("pages-without-text", "1 of 3 pages (33%) have no text layer: pages 2; took more than "
         "60 s; the other pages are kept")]  # fmt: skip
    assert part.text.split("\n\n") == ["First page.", "Third page."]
    assert [page for _, page in part.pages] == [1, 3]


def test_pictures_without_text_are_only_noted(make_pdf) -> None:
    data = make_pdf(["Words of the first page of this file."], ["IMAGE"])
    part = read_pdf(data, None, fake(p2=Seen()))
    assert not part.rejects
    assert (None, "1 of 2 pages are pictures in which fake 1.0 finds no text: 2") in part.notes
    with pytest.raises(Broken, match=r"no page of 1 has text .*pages 1\)$"):
        read_pdf(make_pdf(["IMAGE"]), None, fake(p1=Seen()))


# ---- pictures as documents


def picture(*lines: str, size: tuple[int, int] = (400, 300), mode: str = "RGB", kind: str = "PNG",
            **save: object) -> bytes:  # fmt: skip
    image = Image.new(mode, size, "white" if mode == "RGB" else 0)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((20, 20 + 40 * number), line, fill="black", font_size=28)
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def image_pdf(data: bytes, *, stamp: str = "", scale: float = 1.0) -> bytes:
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(595, 842))
    canvas.drawImage(ImageReader(io.BytesIO(data)), 0, 0, 595 * scale, 842 * scale)
    canvas.drawString(60, 830, stamp)
    canvas.save()
    return out.getvalue()


def read(*paths: Path, **values: object) -> Reading:
    return read_documents(list(paths), DocumentSettings(**values))


def test_a_picture_is_a_document(tmp_path: Path) -> None:
    part = read_image(picture(), fake(p1=seen("Words in the picture.")))
    assert (part.text, part.kind, part.pages) == ("Words in the picture.", "image", [(0, 1)])


def test_frames_are_pages() -> None:
    more = [Image.new("L", (50, 50), 255), Image.new("L", (50, 50), 255)]
    data = picture(kind="TIFF", save_all=True, append_images=more)
    part: Part = read_image(data, fake(p1=seen("One."), p2=seen("Two."), p3=seen("Three.")))
    assert [page for _, page in part.pages] == [1, 2, 3]
    assert part.text == "One. Two. Three."


def test_a_picture_without_text_is_left_out_but_no_fault(
    tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("")
    (tmp_path / "photo.jpg").write_bytes(picture(kind="JPEG"))
    (tmp_path / "a.md").write_text("Words of a text.")
    [reject] = read(tmp_path, ocr="tesseract").rejects
    assert (reject.file, reject.code, reject.unusable) == ("photo.jpg", "no-text", False)


@pytest.mark.parametrize("data", [b"plain text", picture()[:60], b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_what_is_no_picture_is_rejected(
    data: bytes, tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("line('words of nothing')")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "a.md").write_text("Words of a text.")
    reading = read(tmp_path, ocr="tesseract")
    assert [r.file for r in reading.rejects] == ["a.png"]
    assert reading.rejects[0].code in ("not-image", "no-text")
    assert len(reading.documents) == 1


def test_a_picture_of_too_many_pixels_is_refused(
    tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    """A PNG of 30,000 by 30,000 white dots packs to about a hundred kilobytes."""
    stand_in("line('words of nothing')")
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000), 1).save(out, "PNG")
    (tmp_path / "bomb.png").write_bytes(out.getvalue())
    reading = read(tmp_path, ocr="tesseract")
    assert [(r.file, r.code) for r in reading.rejects] == [("bomb.png", "limits")]


def test_pictures_reach_the_engine_upright_and_on_white(
    tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    """The stand-in reads width, height and the middle pixel from the PNG it is given."""
    stand_in(
        "import io, subprocess, zlib\n"
        "place, packed = 8, b''\n"
        "while place < len(data):\n"
        "    length, name = struct.unpack('>L4s', data[place:place + 8])\n"
        "    packed += data[place + 8:place + 8 + length] if name == b'IDAT' else b''\n"
        "    place += length + 12\n"
        "row = zlib.decompress(packed)[:1 + 3 * width]\n"
        "line(f'size {width} by {height} filter {row[0]} first {row[1]}')\n"
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    (tmp_path / "camera.jpg").write_bytes(picture(size=(400, 300), kind="JPEG", exif=exif))
    clear = Image.new("RGBA", (200, 100), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    deep = Image.new("I;16", (200, 120), 40_000)
    deep.putpixel((0, 0), 65_000)
    deep.putpixel((1, 1), 10_000)
    deep.save(tmp_path / "deep.tiff")
    Image.new("RGB", (6000, 3000), "white").save(tmp_path / "large.webp")
    found = {d.source: d.text for d in read(tmp_path, ocr="tesseract").documents}
    assert found == {
        "camera.jpg": "size 300 by 400 filter 1 first 255",
        "clear.png": "size 200 by 100 filter 1 first 255",
        "deep.tiff": "size 200 by 120 filter 1 first 255",
        "large.webp": "size 3000 by 1500 filter 1 first 255",
    }


# ---- the child that recognises


def scan_pdf(tmp_path: Path, make_pdf, pages: int) -> Path:
    """Pages that are distinguished by their width, which the stand-in sees."""
    from reportlab.pdfgen.canvas import Canvas

    path = tmp_path / "scan.pdf"
    canvas = Canvas(str(path))
    for number in range(1, pages + 1):
        canvas.setPageSize((72 * number, 144))
        canvas.rect(9, 9, 50, 90, fill=1)
        canvas.showPage()
    canvas.save()
    return path


PAGE = "page = round(width / 200)\n"  # at 200 dots an inch


def test_pages_are_rendered_at_200_dpi_and_their_progress_is_told(
    tmp_path: Path, make_pdf, stand_in: Callable[[str], None]
) -> None:
    stand_in("line(f'The page of {width} by {height} dots.')")
    told: list[tuple[int, int]] = []
    reading = read_documents(
        [scan_pdf(tmp_path, make_pdf, 2)],
        DocumentSettings(ocr="tesseract"),
        pages=lambda done, total: told.append((done, total)),
    )
    [document] = reading.documents
    assert document.text == "The page of 200 by 400 dots. The page of 400 by 400 dots."
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert document.meta["ocr_engine"] == "tesseract 5.3.0 chi_sim+eng"


def test_a_page_over_the_time_limit_is_named_and_the_others_are_kept(
    tmp_path: Path, make_pdf, stand_in: Callable[[str], None]
) -> None:
    stand_in(PAGE + "if page == 2: time.sleep(600)\nline(f'Words of page {page}.')")
    reading = read(scan_pdf(tmp_path, make_pdf, 3), ocr="tesseract", max_seconds=8)
    [document] = reading.documents
    assert document.text == "Words of page 1.\n\nWords of page 3."
    [reject] = reading.rejects
    assert reject.message.startswith("1 of 3 pages (33%) have no text layer: pages 2; took more")
    assert reading.counts.accepted == 1


def test_an_engine_that_fails_on_a_page_says_why(
    tmp_path: Path, make_pdf, stand_in: Callable[[str], None]
) -> None:
    stand_in(PAGE + "if page == 1: sys.exit('Error in the trained data')\nline('Words of it.')")
    reading = read(scan_pdf(tmp_path, make_pdf, 2), ocr="tesseract")
    assert "tesseract failed (Error in the trained data)" in reading.rejects[0].message
    assert reading.documents[0].text == "Words of it."


def test_after_three_pages_in_a_row_over_the_limits_the_rest_is_left(
    tmp_path: Path, make_pdf, stand_in: Callable[[str], None]
) -> None:
    stand_in(PAGE + "if page > 1: os.kill(os.getppid(), 9)\nline('Words of it.')")
    reading = read(scan_pdf(tmp_path, make_pdf, 9), ocr="tesseract")
    message = reading.rejects[0].message
    assert "8 of 9 pages (89%) have no text layer: pages 2-9" in message
    assert "left out after 3 such pages in a row" in message


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_page_that_lies_on_its_side_is_turned(
    tmp_path: Path, stand_in: Callable[[str], None], angle: int
) -> None:
    """The stand-in is sure only where the black corner is on the upper left."""
    stand_in(
        "import zlib\n"
        "row = zlib.decompress(data[41:41 + struct.unpack('>L', data[33:37])[0]] )\n"
        "black = row[1] == 0 and height > width\n"
        "line('Words of it.' if black else 'sprom', sure=95 if black else 20)"
    )
    image = Image.new("RGB", (30, 60), "white")
    image.paste((0, 0, 0), (0, 0, 9, 9))
    image.rotate(-angle, expand=True).save(tmp_path / "a.png")
    [document] = read(tmp_path, ocr="tesseract").documents
    assert document.text == "Words of it."


def test_scans_in_archives_are_recognised_too(
    tmp_path: Path, make_pdf, stand_in: Callable[[str], None]
) -> None:
    import zipfile

    stand_in("line(f'The page of {width} by {height} dots.')")
    path = scan_pdf(tmp_path, make_pdf, 1)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "in/scan.pdf")
        archive.writestr("in/b.png", picture(size=(70, 60)))
    found = {d.source: d.text for d in read(tmp_path / "all.zip", ocr="tesseract").documents}
    assert found == {
        "all.zip/in/b.png": "The page of 70 by 60 dots.",
        "all.zip/in/scan.pdf": "The page of 200 by 400 dots.",
    }


def test_a_folder_of_pictures_needs_ocr(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    with pytest.raises(NothingUsable, match=r"\.png \(1\)"):
        read(tmp_path, ocr="off")


# ---- for real


@pytest.mark.chinese_font
def test_scans_in_both_languages_are_recognised_offline(tmp_path: Path, make_pdf) -> None:
    """A page drawn as a picture at 200 dpi: at most one character in fifty is wrong."""
    import pypdfium2
    from rapidfuzz.distance import Levenshtein
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    english = [*FULL, "evening.", "valve, small      3      12.50"]
    heading = ("河边水泵", {"size": 20, "gap": 60})
    [page] = pypdfium2.PdfDocument(make_pdf([*english, heading, *CHINESE]))
    canvas = Canvas(str(tmp_path / "scan.pdf"), pagesize=(595, 842))
    canvas.drawImage(ImageReader(page.render(scale=200 / 72).to_pil()), 0, 0, 595, 842)
    canvas.save()
    [document] = read(tmp_path, ocr="rapidocr", max_seconds=300).documents
    wanted = re.sub(r"\s", "", "".join([*english, "河边水泵", *CHINESE]))
    found = re.sub(r"\s", "", document.text)
    assert Levenshtein.distance(wanted, found) <= len(wanted) // 50
    assert f"{FULL[0]} {FULL[1]} evening." in document.text
    assert re.search(r"^valve, ?small 3 12\.50$", document.text, re.MULTILINE)
    assert "\n\n河边水泵\n\n" in document.text
    assert document.meta["ocr_pages"] == "1"
    assert float(document.meta["ocr_confidence"]) > 0.9
