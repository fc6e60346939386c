import io
import os
import sys
from collections.abc import Callable

import pytest

MakePdf = Callable[..., bytes]


@pytest.fixture
def make_pdf() -> MakePdf:
    """Pages of lines to a PDF. A line is text, or (text, options: size, bold, x, gap)."""
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def make(*pages: list, password: str | None = None, compress: int = 0) -> bytes:  # type: ignore[type-arg]
        buffer = io.BytesIO()
        encrypt = None if password is None else StandardEncryption(password, "owner", strength=128)
        canvas = Canvas(buffer, pagesize=(595, 842), encrypt=encrypt, pageCompression=compress)
        for lines in pages:
            height = 800.0
            for line in lines:
                text, options = (line, {}) if isinstance(line, str) else line
                size = options.get("size", 11)
                height -= options.get("gap", size * 1.3)
                font = "Helvetica-Bold" if options.get("bold") else "Helvetica"
                if not text.isascii():
                    font = "STSong-Light"
                canvas.setFont(font, size)
                if text == "IMAGE":
                    canvas.rect(50, 50, 400, 600, fill=1)
                else:
                    canvas.drawString(options.get("x", 60), height, text)
            canvas.showPage()
        canvas.save()
        return buffer.getvalue()

    return make


StandIn = Callable[[str], None]
_STAND_IN = """#!{python}
import os, struct, sys, time
if "--version" in sys.argv:
    sys.exit(print("tesseract 5.3.0"))
if "--list-langs" in sys.argv:
    sys.exit(print("List of available languages (3):\\nchi_sim\\neng\\nosd"))
data = sys.stdin.buffer.read()
width, height = struct.unpack(">LL", data[16:24])
names = "level page_num block_num par_num line_num word_num left top width height conf text"
print(*names.split(), sep="\\t")
lines = 0
def line(text, top=100, left=100, size=30, sure=95):
    global lines
    lines += 1
    place = [1, 1, 1, lines]
    box = [left, top, size * len(text) // 2, size]
    print(4, *place, 0, *box, -1, "", sep="\\t")
    for number, word in enumerate(text.split(), 1):
        print(5, *place, number, *box, sure, word, sep="\\t")
{body}
"""


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Puts a program named tesseract first on the path. Its body has the PNG as ``data``, its
    ``width`` and ``height``, and says what it sees by ``line(text, top, left, size, sure)``."""

    def put(body: str) -> None:
        folder = tmp_path_factory.mktemp("bin")
        program = folder / "tesseract"
        program.write_text(_STAND_IN.format(python=sys.executable, body=body))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return put
