"""Tables and sentences of a long filing: what our PDF reader keeps, beside other readers.

    python benchmarks/pdf.py [PDF] [--reader NAME …]

60 table cells, listed from images of the pages (``pdf_cells.jsonl``), and 200 sentences, drawn by
seed from the passages beside the PDF (``corpus.jsonl``). A cell is found in its row when one line
has the words of the row's label and after them the cell; in its column when it is a cell of a
Markdown table below a header that has the words of the column. Every reader runs in a process of
its own; CPU seconds, so that other work on the machine matters little.
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "shared" / "data" / "nvidia_10k"
SENTENCES = 200
SEED = 7
READERS = {  # name -> the library it needs
    "embedtune": "embedtune",
    "embedtune, tables: false": "embedtune",
    "pypdf": "pypdf",
    "markitdown": "markitdown",
    "pdfplumber, text": "pdfplumber",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pdf", nargs="?", type=Path, default=FOLDER / "nvidia-10k-fy2023.pdf")
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(read(options.child, options.pdf)))
        return
    cells = [json.loads(line) for line in (HERE / "pdf_cells.jsonl").open("r", encoding="utf-8")]
    cells = [cell for cell in cells if "cell" in cell]
    sentences = drawn_sentences(options.pdf.with_name("corpus.jsonl"))
    print(f"{options.pdf.name}: {len(cells)} cells of {len({c['page'] for c in cells})} pages, "
          f"{len(sentences)} sentences")  # fmt: skip
    print(
        f"{'':26}{'in row':>8}{'in column':>11}{'sentences':>11}{'CPU s':>8}{'MB':>7}{'× ours':>8}"
    )
    ours = 0.0
    for name in options.reader:
        if not importlib.util.find_spec(READERS[name]):
            print(f"{name:26}{READERS[name]} is not installed: skipped")
            continue
        done = subprocess.run(
            [sys.executable, __file__, str(options.pdf), "--child", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(f"{name:26}failed: {done.stderr.strip().splitlines()[-1][:80]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        ours = ours or found["seconds"]
        row, column = cells_found(found["text"], cells)
        kept = sentences_found(found["text"], sentences)
        print(f"{name:26}{row:>5}/{len(cells)}{column:>8}/{len(cells)}{kept:>7}/{len(sentences)}"
              f"{found['seconds']:>8.1f}{found['megabytes']:>7.0f}"
              f"{found['seconds'] / ours:>8.1f}")  # fmt: skip


# ---- readers, in a child process


def read(name: str, path: Path) -> dict[str, object]:
    """The text that a reader gives, with the CPU seconds and the peak memory it took."""
    begin = time.process_time()
    if name.startswith("embedtune"):
        from embedtune.documents.pdf import read_pdf

        text = read_pdf(path.read_bytes(), None, tables="false" not in name).text
    elif name == "pypdf":
        from pypdf import PdfReader

        text = "\n".join(page.extract_text() for page in PdfReader(path).pages)
    elif name == "markitdown":
        from markitdown import MarkItDown

        text = MarkItDown(enable_plugins=False).convert(path).text_content
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


# ---- cells


def cells_found(text: str, cells: list[dict[str, str]]) -> tuple[int, int]:
    """How many cells stand in a line of their row, and how many below their header too."""
    lines = [(tuple(words_of(line)), line) for line in text.splitlines() if line.strip()]
    headers = headers_of(text)
    rows = columns = 0
    for cell in cells:
        label, value = words_of(cell["row"]), words_of(cell["cell"])
        found = [line for words, line in lines if follows(words, label, value)]
        rows += bool(found)
        columns += any(
            words_of(content) == value and set(words_of(cell["column"])) <= set(words_of(header))
            for line in found
            if line in headers
            for content, header in zip(cells_of(line), headers[line], strict=False)
        )
    return rows, columns


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
