"""Scanned pages and pictures to lines of text: rapidocr (models in its wheel) or tesseract.

The first half runs in the process of the user and in the reader; the second is a child process of
its own, started by `read.py` as ``python -m embedtune.documents.ocr``, that is given a file and
the number of a page. Nothing is fetched: the child cannot connect to anything.
"""

import csv
import functools
import importlib.metadata
import importlib.util
import io
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedtune.documents.boxes import Box, confidence_of, lines_of
from embedtune.documents.child import serve
from embedtune.documents.opening import bytes_of
from embedtune.documents.reading import Broken, Ocr, Part, Task
from embedtune.documents.worker import refusal
from embedtune.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from pypdfium2 import PdfDocument

    Sight = Callable[[Image], list[Box]]

DPI = 200  # of rendered pages
LONGEST_SIDE = 3000  # pixels; what is larger is made smaller
MOST_PIXELS = 250_000_000  # of a picture; a page of a newspaper at 600 dpi has 160 million
LEAST_CONFIDENCE = 0.8  # below, a page may lie on its side
RAPID_HEIGHT = 1.25  # times the size of the type: so high are its boxes
LANGUAGES = ("chi_sim", "eng")  # of tesseract, those installed
INSTALL = "pip install 'embedtune[ocr]'"


@dataclass(frozen=True, slots=True)
class Engine:
    """``name`` goes into fingerprints and records; empty where there is no OCR.

    ``advice`` then says why, and what to do.
    """

    name: str = ""
    advice: str = ""


def find_engine(setting: str) -> Engine:
    """The engine for ``documents.ocr``: auto takes rapidocr where it is installed, else tesseract.

    Raises:
        ConfigError: An engine was asked for by name and is not installed.
    """
    if setting == "off":
        return Engine(advice="scans are not recognised (documents.ocr is off)")
    if setting in ("auto", "rapidocr") and (name := _rapidocr()):
        return Engine(name)
    if setting in ("auto", "tesseract") and (name := _tesseract()):
        return Engine(name)
    if setting == "auto":
        return Engine(advice=f"scans are not recognised without OCR: {INSTALL}")
    how = INSTALL if setting == "rapidocr" else "install tesseract with a language of it"
    raise ConfigError(f"documents.ocr: {setting} is not installed: {how}; or set it to auto")


def _rapidocr() -> str:
    if not all(map(importlib.util.find_spec, ("rapidocr", "onnxruntime"))):
        return ""
    return f"rapidocr {importlib.metadata.version('rapidocr')}"


def _tesseract() -> str:
    """``tesseract 5.3.0 chi_sim+eng``."""
    program = shutil.which("tesseract")
    if not program:
        return ""

    def said(option: str) -> list[str]:
        found = subprocess.run(
            [program, option], capture_output=True, text=True, errors="replace", timeout=30
        )
        return (found.stdout or found.stderr).split("\n")

    try:
        version = said("--version")[0].split()[-1]
        installed = {line.strip() for line in said("--list-langs")}
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""
    languages = "+".join(language for language in LANGUAGES if language in installed)
    return f"tesseract {version} {languages}" if languages else ""


def read_image(data: bytes, ocr: Ocr) -> Part:
    """A picture, or the frames of one, as a document.

    Raises:
        Broken: Not a picture, or no text could be found in it.
    """
    from embedtune.documents.pdf.reader import read_scan

    return read_scan(getattr(_opened_image(data), "n_frames", 1), ocr)


# ---- in the child: pages to pictures


def see_page(task: Task) -> dict[str, Any]:
    """Lines of a page with places in points, and the confidence; or why there are none."""
    try:
        image, scale = _picture(task)
        boxes, image = _upright(image, _sight(task.ocr, task.seconds))
        lines = lines_of(boxes, page_height=image.height, scale=scale)
        rows = [list(asdict(line).values()) for line in lines]
        return {"lines": rows, "confidence": round(confidence_of(boxes), 4)}
    except Exception as error:  # whatever the page holds, the next one is read
        return refusal(error)


def _picture(task: Task) -> "tuple[Image, float]":
    """A page in RGB, and its pixels a point."""
    number = (task.page or 1) - 1
    source = _source(task.path, task.kind, task.listed, task.entry, task.most_bytes, task.password)
    if task.kind == "pdf":
        page = source[number]
        scale = min(DPI / 72, LONGEST_SIDE / max(page.get_size()))
        return page.render(scale=scale).to_pil().convert("RGB"), scale
    source.seek(number)
    image = _flat(source)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image, DPI / 72  # as if scanned so; only proportions count


@functools.lru_cache(maxsize=1)  # page after page of one file is asked for
def _source(
    path: str,
    kind: str,
    listed: tuple[int, int],
    entry: int | None,
    most_bytes: int,
    password: str | None,
) -> "PdfDocument | Image":
    data = bytes_of(Task(path, kind, listed, most_bytes, seconds=0, entry=entry))
    if kind == "pdf":
        from pypdfium2 import PdfDocument

        return PdfDocument(data, password=password)
    return _opened_image(data)


def _opened_image(data: bytes) -> "Image":
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError) as error:  # all three come from its parsers
        raise Broken("not-image", f"not a picture, or a damaged one ({error})") from error
    if image.width * image.height > MOST_PIXELS:
        raise Broken("limits", f"{image.width:,} x {image.height:,} pixels; allowed are "
                               f"{MOST_PIXELS:,} in all")  # fmt: skip
    return image


def _flat(image: "Image") -> "Image":
    """Upright as the camera says, on white, eight bits a colour."""
    import numpy
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = numpy.asarray(image, dtype=float)
        low, high = values.min(), values.max()
        image = Image.fromarray(((values - low) * 255 / max(high - low, 1)).astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


# ---- in the child: pictures to boxes


def _upright(image: "Image", see: "Sight") -> "tuple[list[Box], Image]":
    """What is seen, the page turned where it lies on its side or stands on its head."""
    best, upright = see(image), image
    turns = (90, 270) if _sideways(best) else (180, 90, 270)
    for angle in turns if best else ():
        if confidence_of(best) >= LEAST_CONFIDENCE and not _sideways(best):
            break
        turned = image.rotate(angle, expand=True)
        boxes = see(turned)
        if _worth(boxes) > _worth(best):
            best, upright = boxes, turned
    return best, upright


def _worth(boxes: list[Box]) -> float:
    return sum(box.confidence * len(box.text) for box in boxes if not box.tall)


def _sideways(boxes: list[Box]) -> bool:
    tall = sum(len(box.text) for box in boxes if box.tall)
    return 2 * tall > sum(len(box.text) for box in boxes)


@functools.lru_cache(maxsize=1)
def _sight(engine: str, seconds: int) -> "Sight":
    name, _, rest = engine.partition(" ")
    if name == "rapidocr":
        return _rapid_sight()
    return functools.partial(_tesseract_boxes, rest.split()[-1], seconds)


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable or 1, int(asked)) if asked.isdecimal() and int(asked) else usable or 1


def _rapid_sight() -> "Sight":
    import cv2
    import numpy
    from rapidocr import RapidOCR

    cv2.setNumThreads(_cores())
    engine = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.max_side_len": LONGEST_SIDE,
            "Global.use_cls": False,  # pages are turned as a whole
            "EngineConfig.onnxruntime.intra_op_num_threads": _cores(),
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def see(image: "Image") -> list[Box]:
        found = engine(numpy.asarray(image)[:, :, ::-1])
        if found.boxes is None or found.txts is None:
            return []
        return [
            _rapid_box(numpy.asarray(quad, dtype=float), text.strip(), float(score))
            for quad, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if text.strip()
        ]

    return see


def _rapid_box(quad: Any, text: str, score: float) -> Box:  # a (4, 2) array, from upper left
    import numpy

    right = (quad[1] - quad[0] + quad[2] - quad[3]) / 2  # along the line
    down = (quad[3] - quad[0] + quad[2] - quad[1]) / 2
    width, height = (float(numpy.hypot(*side)) for side in (right, down))
    return Box(
        text,
        score,
        left=float(quad[:, 0].min()),
        right=float(quad[:, 0].max()),
        middle=float(quad[:, 1].mean()),
        height=height / RAPID_HEIGHT,
        slope=float(right[1] / right[0]) if right[0] else 0.0,
        tall=height > 1.5 * width and len(text) > 1,
    )


def _tesseract_boxes(languages: str, seconds: int, image: "Image") -> list[Box]:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    command = ["tesseract", "stdin", "stdout", "-l", languages, "--dpi", str(DPI),
               "-c", "tessedit_create_tsv=1"]  # fmt: skip
    try:
        found = subprocess.run(
            command,
            input=data.getvalue(),
            capture_output=True,
            check=True,
            timeout=seconds,
            env={**os.environ, "OMP_THREAD_LIMIT": str(_cores())},
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        raise Broken("ocr", f"tesseract failed ({said or error.returncode})") from error
    return tesseract_lines(found.stdout.decode("utf-8", "replace"))


def tesseract_lines(table: str) -> list[Box]:
    """Its TSV: rows of words (level 5) after the row of their line (level 4)."""
    lines: list[tuple[dict[str, str], list[dict[str, str]]]] = []
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == "4":
            lines.append((row, []))
        elif row["level"] == "5" and lines and row["text"].strip() and float(row["conf"]) >= 0:
            lines[-1][1].append(row)
    return [_tesseract_box(line, words) for line, words in lines if words]


def _tesseract_box(line: dict[str, str], words: list[dict[str, str]]) -> Box:
    text = ""
    for word in words:
        wide = text and ord(text[-1]) >= 0x2E80 and ord(word["text"][0]) >= 0x2E80
        text += ("" if wide or not text else " ") + word["text"]
    letters = sum(len(word["text"]) for word in words)
    left, top, width, height = (int(line[name]) for name in ("left", "top", "width", "height"))
    return Box(
        text,
        confidence=sum(float(w["conf"]) * len(w["text"]) for w in words) / letters / 100,
        left=left,
        right=left + width,
        middle=top + height / 2,
        height=max(1, height),
        tall=height > 1.5 * width and len(text) > 1,
    )


if __name__ == "__main__":
    serve(lambda row, _: see_page(Task.from_row(row)))
