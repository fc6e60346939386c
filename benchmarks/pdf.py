"""Tables and sentences of a long filing: what our PDF reader keeps, beside other readers.

    python benchmarks/pdf.py [PDF] [--reader NAME …] [--json]

60 table cells of 15 pages drawn by seed, 40 harder cells of 12 further pages (labels over two
lines, headings over headings, gaps inside tables), both listed from images of the pages
(``pdf_cells.jsonl``), and 200 sentences, drawn by seed from the passages beside the PDF
(``corpus.jsonl``). Whatever the reader, a cell is found

- on its line: one line has the words of the row's label and, somewhere after them, the cell;
- as a cell: such a line is a row of a Markdown table, and the cell stands alone between its bars;
- under its header: and the header of its column has the words of the column. Words that stand over
  all columns may be in the first cell of the header.

A sentence is found if its characters follow each other, white space and hyphens apart. Pages are
not asked for, since not all readers give them. Every reader runs in a process of its own; CPU
seconds, so that other work on the machine matters little.
"""

import argparse
import importlib.util
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "shared" / "data" / "nvidia_10k"
ABOVE = 45  # points above a table in which pdfplumber's header is looked for
SENTENCES = 200
SEED = 7
LISTS = ("drawn", "harder")
GATE = 8  # drawn paths on a page in which pdfplumber looks for tables
READERS = {  # name -> the library it needs
    "embedtune": "embedtune",
    "embedtune, tables: false": "embedtune",
    "pypdf": "pypdf",
    "markitdown": "markitdown",
    "pdfplumber, text": "pdfplumber",
    "pdfplumber, tables": "pdfplumber",  # on pages with drawn paths only
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pdf", nargs="?", type=Path, default=FOLDER / "nvidia-10k-fy2023.pdf")
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(read(options.child, options.pdf)))
        return
    lines = (HERE / "pdf_cells.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    lists = {
        name: [record for record in records if record["list"] == name and "cell" in record]
        for name in LISTS
    }
    sentences = drawn_sentences(options.pdf.with_name("corpus.jsonl"))
    results = {}
    for name in options.reader:
        if not importlib.util.find_spec(READERS[name]):
            print(f"{name}: {READERS[name]} is not installed, skipped", file=sys.stderr)
            continue
        done = subprocess.run(
            [sys.executable, __file__, str(options.pdf), "--child", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1][:80]}", file=sys.stderr)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        results[name] = {
            **{name: cells_found(found["text"], cells) for name, cells in lists.items()},
            "sentences": sentences_found(found["text"], sentences),
            "seconds": round(found["seconds"], 1),
            "megabytes": round(found["megabytes"]),
        }
    if options.json:
        sizes = {name: len(cells) for name, cells in lists.items()}
        print(json.dumps({**sizes, "sentences": len(sentences), "readers": results}, indent=2))
        return
    for name, cells in lists.items():
        print(f"{len(cells)} {name} cells of {len({cell['page'] for cell in cells})} pages")
    print(f"{len(sentences)} sentences\n")
    measures = ["on its line", "as a cell", "under header"]
    print(f"{'':26}{'drawn cells':^39}{'harder cells':^39}")
    print(f"{'':26}" + "".join(f"{name:>13}" for name in measures * 2)
          + f"{'sentences':>11}{'CPU s':>8}{'MB':>7}")  # fmt: skip
    for name, row in results.items():
        counts = [row[kind][measure] for kind in LISTS for measure in measures]
        print(f"{name:26}" + "".join(f"{count:>13}" for count in counts)
              + f"{row['sentences']:>11}{row['seconds']:>8}{row['megabytes']:>7}")  # fmt: skip


# ---- readers, in a child process


def read(name: str, path: Path) -> dict[str, object]:
    """The text that a reader gives, with the CPU seconds and the peak memory it took."""
    begin = time.process_time()
    if name.startswith("embedtune"):
        from embedtune.documents.pdf.reader import read_pdf

        text = read_pdf(path.read_bytes(), None, tables="false" not in name).text
    elif name == "pypdf":
        from pypdf import PdfReader

        text = "\n".join(page.extract_text() for page in PdfReader(path).pages)
    elif name == "markitdown":
        from markitdown import MarkItDown

        text = MarkItDown(enable_plugins=False).convert(path).text_content
    elif name == "pdfplumber, tables":
        text = "\n".join(pdfplumber_pages(path))
    else:
        import pdfplumber

        with pdfplumber.open(path) as document:
            text = "\n".join(page.extract_text() for page in document.pages)
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "text": text,
        "seconds": seconds,
        "megabytes": peak / (2**20 if sys.platform == "darwin" else 2**10),
    }


# ---- tables by pdfplumber


def pdfplumber_pages(path: Path) -> Iterator[str]:
    """Tables where paths are drawn, as Markdown above the rest of the page; else pdfium's text."""
    import pdfplumber
    import pypdfium2
    import pypdfium2.raw as pdfium

    fast = pypdfium2.PdfDocument(path)
    with pdfplumber.open(path) as document:
        for page, quick in zip(document.pages, fast, strict=True):
            kinds = [
                pdfium.FPDFPageObj_GetType(pdfium.FPDFPage_GetObject(quick.raw, place))
                for place in range(pdfium.FPDFPage_CountObjects(quick.raw))
            ]
            if kinds.count(pdfium.FPDF_PAGEOBJ_PATH) < GATE:
                yield quick.get_textpage().get_text_range()
                continue
            rest = page
            for table in page.find_tables():
                yield markdown_of(page, table)
                rest = rest.filter(outside(table.bbox))
            yield rest.extract_text()
            page.close()  # it keeps all characters otherwise
    fast.close()


def outside(box: tuple[float, float, float, float]) -> Callable[[dict[str, Any]], bool]:
    left, top, right, bottom = box

    def is_outside(thing: dict[str, Any]) -> bool:
        x, y = (thing["x0"] + thing["x1"]) / 2, (thing["top"] + thing["bottom"]) / 2
        return not (left <= x <= right and top <= y <= bottom)

    return is_outside


def markdown_of(page: Any, table: Any) -> str:
    """The words above the columns as their header; signs put to their figures, columns of nothing
    else given to those beside them."""
    left, top, right, _ = table.bbox
    sides = [column.bbox for column in table.columns]
    above = page.crop(
        (max(0, left), max(0, top - ABOVE), min(right, page.width), top), strict=False
    )
    header = [
        " ".join(w["text"] for w in above.extract_words() if a <= (w["x0"] + w["x1"]) / 2 < b)
        for a, _, b, _ in sides
    ]
    rows = [[" ".join((cell or "").split()) for cell in row] for row in table.extract()]
    for row in rows:
        for n in range(len(row) - 1):
            if row[n] == "$" and row[n + 1]:
                row[n], row[n + 1] = "", f"${row[n + 1]}"
            elif row[n] and row[n + 1] in ("%", ")", ")%"):
                row[n], row[n + 1] = row[n] + row[n + 1], ""
    for n in range(len(sides) - 1):
        if not any(row[n] for row in rows):
            header[n], header[n + 1] = "", f"{header[n]} {header[n + 1]}".strip()
    kept = [n for n in range(len(sides)) if any(row[n] for row in rows)]
    lines = [[line[n] for n in kept] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(kept))
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# ---- cells


def cells_found(text: str, cells: list[dict[str, str]]) -> dict[str, int]:
    """How many cells stand on a line of their row, as cells of it, and below their header too."""
    lines = [(tuple(words_of(line)), line) for line in text.splitlines() if line.strip()]
    headers = headers_of(text)
    counts: Counter[str] = Counter()
    for cell in cells:
        label, value, column = (words_of(cell[key]) for key in ("row", "cell", "column"))
        found = [line for words, line in lines if follows(words, label, value)]
        counts["on its line"] += bool(found)
        places = [
            (headers.get(line, []), n)
            for line in found
            if line.lstrip().startswith("|")
            for n, content in enumerate(cells_of(line))
            if n and words_of(content) == value
        ]
        counts["as a cell"] += bool(places)
        counts["under header"] += any(
            set(column) <= set(words_of(f"{header[0]} {header[n]}"))
            for header, n in places
            if n < len(header)
        )
    return dict(counts)


def words_of(text: str) -> list[str]:
    """Words and numbers, without signs of currency, blanks and the bars of tables."""
    return re.findall(r"[^\s$|%]+|%", re.sub(r"(?<=[(])\s+|\s+(?=[)])", "", text.replace("$", " ")))


def follows(words: tuple[str, ...], label: list[str], value: list[str]) -> bool:
    """Whether the label stands among the words, and the value somewhere after it."""
    for start in range(len(words) - len(label) + 1):
        if list(words[start : start + len(label)]) == label:
            rest = list(words[start + len(label) :])
            return any(rest[n : n + len(value)] == value for n in range(len(rest)))
    return False


def headers_of(text: str) -> dict[str, list[str]]:
    """The header cells above every row of a Markdown table."""
    found: dict[str, list[str]] = {}
    lines, header = text.splitlines(), []
    for number, line in enumerate(lines):
        if "|" not in line:
            header = []
        elif number + 1 < len(lines) and re.fullmatch(r"[\s|:-]*-[\s|:-]*", lines[number + 1]):
            header = cells_of(line)
        elif header:
            found.setdefault(line, header)
    return found


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


# ---- sentences


def drawn_sentences(path: Path) -> list[str]:
    """Sentences of running text, the same at every run."""
    found = []
    for line in path.open("r", encoding="utf-8"):
        text = " ".join(json.loads(line)["text"].split())
        for sentence in re.split(r"(?<=[.;])\s+(?=[A-Z])", text):
            words = sentence.split()
            letters = sum(map(str.isalpha, sentence))
            plain = letters > 0.75 * len(sentence) and sentence[0].isupper()
            plain = plain and "(Continued)" not in sentence  # a running head before it
            ends = re.fullmatch(r"[a-z]{3,}\.", words[-1])  # not with a page number or an initial
            if plain and ends and 10 <= len(words) <= 60:
                found.append(sentence)
    return random.Random(SEED).sample(sorted(set(found)), SENTENCES)


def sentences_found(text: str, sentences: list[str]) -> int:
    whole = bare(text)
    return sum(bare(sentence) in whole for sentence in sentences)


def bare(text: str) -> str:
    """Without white space and hyphens."""
    return re.sub(r"[\s\u00ad\u2010-]", "", text)


if __name__ == "__main__":
    main()
