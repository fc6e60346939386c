"""Build the demo corpus and its recorded questions from scripts/demo_source.

    python scripts/build_demo.py            # check the sources, then write src/embedtune/demo
    python scripts/build_demo.py --check    # write nothing; also check what is shipped already

A source `name.md` ships as it is. `name.pdf.md`, `name.docx.md`, `name.html.md` and
`name.txt.md` are converted, so that the demo reads the file types that users have.
Needs the dev extra, Debian's `chromium` and, for the Chinese PDFs, `fonts-droid-fallback`.
The output depends on the sources only (no dates inside): rebuilding changes no byte.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import docx
import jinja2
import pypdfium2
from bs4 import BeautifulSoup
from docx.oxml.ns import qn
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "scripts/demo_source"
DEMO = ROOT / "src/embedtune/demo"
CORPUS = DEMO / "corpus"
ANSWERS = DEMO / "answers.jsonl"

Language = Literal["en", "zh"]
ROW_KEYS = {"section", "quote", "question", "style"}
STYLES = {"question", "keywords", "colloquial", "scenario"}
QUESTIONS_PER_SECTION = 3
QUOTE_LENGTH = {"en": (30, 200), "zh": (12, 80)}  # characters
COPIED_RUN = {"en": 6, "zh": 9}  # words, characters
MAX_PDF_BYTES = 200_000
FIXED_DATE = datetime(2026, 1, 1)

COMPANY = {"en": "Tarnhollow", "zh": "塔恩霍洛"}
# Noto CJK would be embedded as hundreds of Type 3 glyphs (450 kB a file); this one is TrueType
PRINT_FONT = {"en": "DejaVu Sans", "zh": "Droid Sans Fallback"}
PAGE_LABELS = {
    "en": {
        "menu": "Main menu",
        "links": ["Growers", "Support", "Status", "Sign in"],
        "toc": "On this page",
        "footer": "© Tarnhollow · Privacy · Imprint · Cookie settings",
    },
    "zh": {
        "menu": "主菜单",
        "links": ["首页", "帮助中心", "服务状态", "登录"],
        "toc": "本页目录",
        "footer": "© 塔恩霍洛华东分部 · 隐私政策 · 联系我们 · 返回顶部",
    },
}
UNCONVERTED = {"fence", "code_block", "html_block"}  # `blocks` has no rule for them
MARKDOWN = MarkdownIt("commonmark").enable("table")
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(SOURCE / "templates"))


# ---- sources and questions ----


@dataclass(frozen=True, slots=True)
class Document:
    path: Path
    text: str
    title: str
    sections: dict[str, str]  # heading -> body, Markdown
    language: Language

    @property
    def shipped_name(self) -> str:
        stem = self.path.name.removesuffix(".md")
        return stem if "." in stem else self.path.name

    @property
    def questions_path(self) -> Path:
        return self.path.parent / "questions" / f"{self.path.name.removesuffix('.md')}.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    document: Document
    line: int
    section: str
    quote: str
    question: str
    style: str

    @property
    def place(self) -> str:
        return f"{shown(self.document.questions_path)}:{self.line}"

    def answer_line(self) -> str:
        row = {
            "document": self.document.shipped_name,
            "section": self.section,
            "quote": self.quote,
            "question": self.question,
            "style": self.style,
            "language": self.document.language,
        }
        return json.dumps(row, ensure_ascii=False) + "\n"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def read_document(path: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    head, *rest = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    title = re.search(r"^# (.+)$", head, flags=re.MULTILINE)
    return Document(
        path=path,
        text=text,
        title=title[1].strip() if title else "",
        sections={
            heading.strip(): body for heading, body in zip(rest[::2], rest[1::2], strict=True)
        },
        language="zh" if title and re.search(r"[\u4e00-\u9fff]", title[1]) else "en",
    )


def read_questions(document: Document, problems: list[str]) -> list[Question]:
    """Read a document's question file; rows that cannot be read become problems."""
    path = document.questions_path
    if not path.exists():
        problems.append(f"{shown(document.path)}: no question file {shown(path)}")
        return []
    questions = []
    for line, content in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            problems.append(f"{shown(path)}:{line}: not JSON: {error}")
            continue
        if not isinstance(row, dict) or row.keys() != ROW_KEYS:
            problems.append(f"{shown(path)}:{line}: expected exactly {', '.join(sorted(ROW_KEYS))}")
        elif not all(isinstance(value, str) for value in row.values()):
            problems.append(f"{shown(path)}:{line}: every value must be a string")
        else:
            questions.append(Question(document=document, line=line, **row))
    return questions


# ---- checks ----


def check_document(document: Document) -> Iterator[str]:
    place = shown(document.path)
    if not document.title:
        yield f"{place}: no `# Title`"
    if not document.sections:
        yield f"{place}: no `## Section`"
    elif len(document.sections) != len(re.findall(r"^## ", document.text, flags=re.MULTILINE)):
        yield f"{place}: two sections with the same heading"
    kind = document.shipped_name.rpartition(".")[2]
    if kind in ("docx", "txt"):
        for token in MARKDOWN.parse(document.text):
            if token.type in UNCONVERTED:
                line = token.map[0] + 1
                yield f"{place}:{line}: a {token.type} cannot be converted to {kind}"
    if kind not in WRITERS:
        yield f"{place}: cannot ship {document.shipped_name}; know {', '.join(WRITERS)}"


def check_question(question: Question, documents: list[Document]) -> Iterator[str]:
    document = question.document
    if question.style not in STYLES:
        known = ", ".join(sorted(STYLES))
        yield f'{question.place}: style "{question.style}" is not one of {known}'
    body = document.sections.get(question.section)
    if body is None:
        yield f'{question.place}: no section "{question.section}" in {document.path.name}'
        return
    low, high = QUOTE_LENGTH[document.language]
    if not low <= len(question.quote) <= high:
        yield f"{question.place}: quote has {len(question.quote)} characters, not {low} to {high}"
    if question.quote not in without_tables(body):
        yield f'{question.place}: not in the prose of "{question.section}": {question.quote}'
    elif (count := sum(other.text.count(question.quote) for other in documents)) > 1:
        yield f"{question.place}: quote occurs {count} times in the corpus: {question.quote}"
    copied = copied_run(question.question, f"{question.section}\n{body}", document.language)
    if copied:
        yield f'{question.place}: question copies "{copied}" from its section'


def without_tables(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if not line.startswith("|"))


def copied_run(question: str, section: str, language: Language) -> str | None:
    """The first run of words (zh: characters) that the question shares with its section."""
    length = COPIED_RUN[language]
    pattern, joint = (r"\S", "") if language == "zh" else (r"\w+", " ")
    asked, given = (re.findall(pattern, text.lower()) for text in (question, section))
    runs = {tuple(given[i : i + length]) for i in range(len(given) - length + 1)}
    for i in range(len(asked) - length + 1):
        if tuple(asked[i : i + length]) in runs:
            return joint.join(asked[i : i + length])
    return None


def check_sources(
    documents: list[Document], questions: list[Question], folder: Path
) -> Iterator[str]:
    for document in documents:
        yield from check_document(document)
    for question in questions:
        yield from check_question(question, documents)

    known = {document.questions_path for document in documents}
    for path in sorted((folder / "questions").glob("*.jsonl")):
        if path not in known:
            yield f"{shown(path)}: no document of this name"

    asked: dict[str, str] = {}
    for question in questions:
        first = asked.setdefault(question.question.casefold().strip(), question.place)
        if first != question.place:
            yield f"{question.place}: the same question as {first}"

    per_section = Counter((question.document.path, question.section) for question in questions)
    for document in documents:
        for section in document.sections:
            count = per_section[document.path, section]
            if count < QUESTIONS_PER_SECTION and document.questions_path.exists():
                yield (
                    f'{shown(document.questions_path)}: {count} questions for "{section}", '
                    f"need {QUESTIONS_PER_SECTION}"
                )


def check_shipped(documents: list[Document], questions: list[Question]) -> Iterator[str]:
    """Every quote must be found in its shipped file, white space apart."""
    quotes = defaultdict(list)
    for question in questions:
        quotes[question.document.shipped_name].append(question)
    for document in documents:
        path = CORPUS / document.shipped_name
        if not path.exists():
            yield f"{shown(path)}: missing; run scripts/build_demo.py"
            continue
        text = squeezed(READERS[path.suffix[1:]](path))
        for question in quotes[document.shipped_name]:
            if squeezed(question.quote) not in text:
                yield f"{question.place}: quote not found in {shown(path)}: {question.quote}"
        if path.suffix == ".pdf" and path.stat().st_size > MAX_PDF_BYTES:
            yield f"{shown(path)}: {path.stat().st_size} bytes, more than {MAX_PDF_BYTES}"

    names = {document.shipped_name for document in documents}
    for path in sorted(CORPUS.glob("*")):
        if path.name not in names:
            yield f"{shown(path)}: has no source; run scripts/build_demo.py"
    if not ANSWERS.exists() or ANSWERS.read_text(encoding="utf-8") != answers(questions):
        yield f"{shown(ANSWERS)}: not made from these questions; run scripts/build_demo.py"


def squeezed(text: str) -> str:
    # pdfium writes U+0002 (older ones U+FFFE) for the hyphen at the end of a line
    return re.sub(r"\s+", "", re.sub("[\x02\ufffe]", "-", text))


# ---- reading shipped files, each with a plain library call ----


def read_text_file(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("gb18030")


def read_html(path: Path) -> str:
    page = BeautifulSoup(path.read_bytes(), "lxml")
    return page.main.get_text() if page.main else ""


def read_docx(path: Path) -> str:
    return "\n".join(paragraph.text for paragraph in docx.Document(str(path)).paragraphs)


def read_pdf(path: Path) -> str:
    with pypdfium2.PdfDocument(path) as pdf:
        return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)


READERS: dict[str, Callable[[Path], str]] = {
    "md": read_text_file,
    "txt": read_text_file,
    "html": read_html,
    "docx": read_docx,
    "pdf": read_pdf,
}


# ---- Markdown as a flat list of blocks, for docx and txt ----


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    kind: Literal["heading", "paragraph", "bullet", "number", "table"]
    spans: list[Span]
    level: int = 0  # of a heading: 1 to 6; of a list item: its depth from 1
    number: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def blocks(markdown: str) -> Iterator[Block]:
    lists: list[tuple[str, int]] = []  # kind and current number of the open lists
    item_starts = False
    level = 0
    rows: list[list[str]] = []
    in_table = False
    for token in MARKDOWN.parse(markdown):
        match token.type:
            case "heading_open":
                level = int(token.tag[1])
            case "heading_close":
                level = 0
            case "bullet_list_open":
                lists.append(("bullet", 0))
            case "ordered_list_open":
                lists.append(("number", int(token.attrs.get("start", 1)) - 1))
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "list_item_open":
                kind, number = lists.pop()
                lists.append((kind, number + 1))
                item_starts = True
            case "table_open":
                in_table, rows = True, []
            case "tr_open":
                rows.append([])
            case "table_close":
                in_table = False
                yield Block("table", [], rows=tuple(map(tuple, rows)))
            case "inline" if in_table:
                rows[-1].append("".join(span.text for span in spans(token)))
            case "inline" if level:
                yield Block("heading", spans(token), level=level)
            case "inline" if lists and item_starts:
                kind, number = lists[-1]
                yield Block(kind, spans(token), level=len(lists), number=number)
                item_starts = False
            case "inline":
                yield Block("paragraph", spans(token))


def spans(inline: Token) -> list[Span]:
    found: list[Span] = []
    bold = italic = False
    for token in inline.children or []:
        match token.type:
            case "strong_open" | "strong_close":
                bold = token.nesting == 1
            case "em_open" | "em_close":
                italic = token.nesting == 1
            case "softbreak" | "hardbreak":
                found.append(Span(" "))
            case "text" | "code_inline":
                found.append(Span(token.content, bold, italic, token.type == "code_inline"))
    return found


# ---- writers: Document -> bytes of the shipped file ----


def write_md(document: Document) -> bytes:
    return document.text.encode("utf-8")


def write_txt(document: Document) -> bytes:
    """Plain text: English in UTF-8 with lines of 80, Chinese in GB18030 as Windows saves it."""
    parts = []
    for block in blocks(document.text):
        text = "".join(span.text for span in block.spans)
        if block.kind == "table":
            parts.append("\n".join("\t".join(row) for row in block.rows))
            continue
        marker = {"bullet": "- ", "number": f"{block.number}. "}.get(block.kind, "")
        indent = "  " * (block.level - 1) if marker else ""
        if document.language == "en":
            text = textwrap.fill(
                text,
                width=80,
                initial_indent=indent + marker,
                subsequent_indent=indent + " " * len(marker),
                break_on_hyphens=False,
                break_long_words=False,
            )
        else:
            text = indent + marker + text
        parts.append(text)
    content = "\n\n".join(parts) + "\n"
    if document.language == "zh":
        return content.replace("\n", "\r\n").encode("gb18030")
    return content.encode("utf-8")


def write_html(document: Document) -> bytes:
    tokens = MARKDOWN.parse(document.text)
    sections = (token for token in tokens if token.type == "heading_open" and token.tag == "h2")
    for number, token in enumerate(sections, start=1):
        token.attrSet("id", f"s{number}")  # the table of contents links here
    page = TEMPLATES.get_template("page.html").render(
        title=document.title,
        language=document.language,
        company=COMPANY[document.language],
        labels=PAGE_LABELS[document.language],
        sections=list(document.sections),
        content=MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}),
    )
    return page.encode("utf-8")


def write_docx(document: Document) -> bytes:
    file = docx.Document()
    normal = file.styles["Normal"]
    normal.font.name = "Calibri"
    normal.element.rPr.rFonts.set(qn("w:eastAsia"), "宋体")
    file.core_properties.title = document.title
    file.core_properties.author = COMPANY[document.language]
    file.core_properties.created = file.core_properties.modified = FIXED_DATE
    for block in blocks(document.text):
        match block.kind:
            case "table":
                table = file.add_table(
                    rows=len(block.rows), cols=len(block.rows[0]), style="Table Grid"
                )
                for cells, row in zip(table.rows, block.rows, strict=True):
                    for cell, text in zip(cells.cells, row, strict=True):
                        cell.text = text
                continue
            case "heading":
                paragraph = file.add_heading(level=block.level)
            case "bullet" | "number":
                style = "List Bullet" if block.kind == "bullet" else "List Number"
                depth = f" {block.level}" if block.level > 1 else ""
                paragraph = file.add_paragraph(style=style + depth)
            case "paragraph":
                paragraph = file.add_paragraph()
        for span in block.spans:
            run = paragraph.add_run(span.text)
            run.bold, run.italic = span.bold or None, span.italic or None
            if span.code:
                run.font.name = "Consolas"
    buffer = io.BytesIO()
    file.save(buffer)
    return without_zip_times(buffer)


def without_zip_times(archive: io.BytesIO) -> bytes:
    result = io.BytesIO()
    with (
        zipfile.ZipFile(archive) as before,
        zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            entry = zipfile.ZipInfo(name, date_time=FIXED_DATE.timetuple()[:6])
            after.writestr(entry, before.read(name), compress_type=zipfile.ZIP_DEFLATED)
    return result.getvalue()


def write_pdf(document: Document) -> bytes:
    page = TEMPLATES.get_template("print.html").render(
        title=document.title,
        language=document.language,
        company=COMPANY[document.language],
        font=PRINT_FONT[document.language],
        content=MARKDOWN.render(document.text),
    )
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(page, encoding="utf-8")
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",  # as root, in a container, the sandbox does not start
                "--disable-gpu",
                "--no-pdf-header-footer",  # the template brings its own
                f"--user-data-dir={folder}/profile",
                f"--print-to-pdf={result}",
                source.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        content = result.read_bytes()
    # same length, so the offsets in the cross-reference table stay right
    fixed = FIXED_DATE.strftime("D:%Y%m%d%H%M%S").encode()
    return re.sub(rb"(Date \()D:\d{14}", rb"\1" + fixed, content)


WRITERS: dict[str, Callable[[Document], bytes]] = {
    "md": write_md,
    "txt": write_txt,
    "html": write_html,
    "docx": write_docx,
    "pdf": write_pdf,
}


# ---- the command ----


def answers(questions: list[Question]) -> str:
    return "".join(question.answer_line() for question in questions)


def build(documents: list[Document], questions: list[Question]) -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    names = {document.shipped_name for document in documents}
    for path in CORPUS.iterdir():
        if path.name not in names:
            path.unlink()
    for document in documents:
        name = document.shipped_name
        (CORPUS / name).write_bytes(WRITERS[name.rpartition(".")[2]](document))
    ANSWERS.write_text(answers(questions), encoding="utf-8")


def fail_on(problems: list[str]) -> None:
    if problems:
        print("\n".join(problems), file=sys.stderr)
        sys.exit(f"build_demo: {len(problems)} problems")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="check only, write nothing")
    check_only = parser.parse_args().check

    problems: list[str] = []
    documents = [read_document(path) for path in sorted(SOURCE.glob("*.md"))]
    questions = [
        question for document in documents for question in read_questions(document, problems)
    ]
    fail_on(problems + list(check_sources(documents, questions, SOURCE)))
    if not check_only:
        build(documents, questions)
    fail_on(list(check_shipped(documents, questions)))

    styles = Counter(question.style for question in questions)
    sections = sum(len(document.sections) for document in documents)
    print(f"{len(documents)} documents, {sections} sections, {len(questions)} questions")
    print(", ".join(f"{style} {count}" for style, count in styles.most_common()))


if __name__ == "__main__":
    main()
