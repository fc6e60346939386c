"""The child process that reads files: one JSON line in, one JSON line out.

A parser that hangs or swells can be stopped only from outside, so readers never run in the
process of the user. Started by `read.py` as ``python -m embedtune.documents.worker``.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from embedtune.documents.child import Ask, serve
from embedtune.documents.opening import bytes_of
from embedtune.documents.reading import Broken, Ocr, Part, Seen, Task
from embedtune.records import Reject

TYPES = {
    ".pdf": "pdf", ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown", ".txt": "text",
    ".text": "text", ".log": "text", ".rst": "text", ".html": "html", ".htm": "html",
    ".xhtml": "html", ".xht": "html", ".epub": "epub",
    ".docx": "docx", ".docm": "docx", ".dotx": "docx", ".doc": "docx",
    ".pptx": "pptx", ".pptm": "pptx", ".ppsx": "pptx", ".ppt": "pptx",
    ".xlsx": "xlsx", ".xlsm": "xlsx", ".xltx": "xlsx", ".xls": "xlsx", ".xlsb": "xlsx",
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".zip": "zip",
}  # fmt: skip
IMAGES = {
    ".png": "image", ".jpg": "image", ".jpeg": "image", ".tif": "image", ".tiff": "image",
    ".bmp": "image", ".webp": "image",
}  # fmt: skip
# top-level module -> the extra of this package that brings it
EXTRAS = {"rapidocr": "ocr", "onnxruntime": "ocr"}
SWOLLEN = 20_000_000  # characters of text from a file that is 100 times smaller


def read_file(task: Task, ask: Ask | None = None) -> dict[str, Any]:
    """The parts of one file (or the members of an archive), or why there are none.

    Never raises for what a file holds. ``ask`` is told the numbers of pages to recognise.
    """
    try:
        if task.kind == "zip":
            from embedtune.documents.archive import list_archive

            return list_archive(task)
        data = bytes_of(task)
        parts, rejects = [], []
        for item in _parts(data, task, ask):
            if isinstance(item, Reject):
                rejects.append(asdict(item))
                continue
            if len(item.text) > max(SWOLLEN, 100 * len(data)):
                raise Broken(
                    "expands", f"{len(data):,} bytes that expand to {len(item.text):,} characters"
                )
            parts.append(item.cleaned().as_row())
        digest = hashlib.sha256(data).hexdigest()
        return {"parts": parts, "rejects": rejects, "sha256": digest, "bytes": len(data)}
    except Exception as error:  # a parser's own fault with this file: name it and go on
        return refusal(error)


def refusal(error: Exception) -> dict[str, Any]:
    """What is answered in place of a result."""
    match error:
        case Broken():
            return {"code": error.code, "message": str(error), "line": error.line,
                    "unusable": error.unusable}  # fmt: skip
        case FileNotFoundError():
            return {"code": "gone", "message": "deleted after it was listed; run again"}
        case OSError():
            return {"code": "unreadable", "message": error.strerror or str(error)}
        case MemoryError():
            return {"code": "limits", "message": "needs more memory than allowed"}
        case RecursionError():
            return {"code": "limits", "message": "needs more nesting than allowed"}
        case ModuleNotFoundError(name=str(name)) if extra := EXTRAS.get(name.split(".")[0]):
            return {"code": "missing-extra", "message": f"reading it needs {name}, which is not "
                    f"installed: pip install 'embedtune[{extra}]'"}  # fmt: skip
    return {"code": "parser", "message": f"the parser failed ({type(error).__name__}: {error})"}


def _parts(data: bytes, task: Task, ask: Ask | None) -> Iterable[Part | Reject]:
    """Each reader is imported when it is needed. One that is a generator yields many parts."""
    broken, tables = task.broken_bytes, task.tables
    match task.kind:
        case "pdf":
            from embedtune.documents.pdf.reader import read_pdf

            yield read_pdf(data, task.password, _ocr(task, ask), tables=tables)
        case "image":
            from embedtune.documents.ocr import read_image

            yield read_image(data, _ocr(task, ask))
        case "docx":
            from embedtune.documents.office.docx import read_docx

            yield read_docx(data, tables=tables)
        case "pptx":
            from embedtune.documents.office.slides import read_pptx

            yield read_pptx(data)
        case "xlsx":
            from embedtune.documents.office.sheets import read_xlsx
            from embedtune.documents.rows import Columns

            columns = Columns.of(task.columns)
            yield from read_xlsx(data, tables=tables, columns=columns)
        case "epub":
            from embedtune.documents.office.epub import read_epub

            yield read_epub(data, tables=tables)
        case "html":
            from embedtune.documents.html import read_html

            yield read_html(data, broken, tables=tables, boilerplate=task.boilerplate)
        case "markdown":
            from embedtune.documents.plain import read_markdown

            yield read_markdown(data, broken)
        case "csv" | "tsv" | "jsonl" | "json":
            yield from _rows(data, task)
        case _:
            from embedtune.documents.plain import read_text

            yield read_text(data, broken)


def _rows(data: bytes, task: Task) -> Iterable[Part | Reject]:
    from embedtune.documents import rows

    columns = rows.Columns.of(task.columns)
    broken = task.broken_bytes
    if task.kind in ("csv", "tsv"):
        return rows.read_table(data, broken, tabs=task.kind == "tsv", columns=columns)
    reader = rows.read_json if task.kind == "json" else rows.read_json_lines
    return reader(data, broken, columns=columns, tables=task.tables)


def _ocr(task: Task, ask: Ask | None) -> Ocr:
    """Pages are recognised by another child, which the parent keeps."""
    if not task.ocr or ask is None:
        return Ocr(advice=task.no_ocr)

    def recognise(pages: Sequence[int]) -> dict[int, Seen]:
        found = ask({"recognise": list(pages)})
        return {page: Seen.from_row(found[str(page)]) for page in pages}

    return Ocr(task.ocr, recognise=recognise)


if __name__ == "__main__":
    serve(lambda row, ask: read_file(Task.from_row(row), ask))
