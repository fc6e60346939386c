import io
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
