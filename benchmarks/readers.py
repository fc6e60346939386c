"""Web pages and workbooks: what our readers keep, beside the libraries they could have used.

    python benchmarks/readers.py [--rows 100000]

First table: pages whose content and boilerplate are known, in English and Chinese; which shares of
both come out of the visible page, of trafilatura alone, and of our reader. Second table: a workbook
read in a process of its own under 1 GiB, by us, by openpyxl (read-only) and by markitdown where it
is installed; CPU seconds and peak memory.
"""

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ENGLISH = """pump valve seal pressure bearing motor shaft rotor casing flange gauge filter coolant
    impeller gasket sensor relay switch cabinet manual torque bolt grease leak noise"""
CHINESE = """水泵 阀门 密封 压力 轴承 电机 转子 外壳 法兰 仪表 过滤 冷却 叶轮 垫片 继电 开关 机柜
    检查 扭矩 螺栓 润滑 泄漏 振动 噪声 温度"""
WORDS = {"en": ENGLISH.split(), "zh": CHINESE.split()}


class Page:
    """Makes texts that occur once, and remembers which of them are content."""

    def __init__(self, language: str) -> None:
        self.draw = random.Random(7)
        self.language = language
        self.content: list[str] = []
        self.boilerplate: list[str] = []

    def _words(self, count: int) -> str:
        number = len(self.content) + len(self.boilerplate)
        chosen = [self.draw.choice(WORDS[self.language]) for _ in range(count)]
        return f"{number}{'号' if self.language == 'zh' else ' '}" + (
            "".join(chosen) + "。" if self.language == "zh" else " ".join(chosen) + "."
        )

    def say(self, count: int = 14) -> str:
        self.content.append(self._words(count))
        return self.content[-1]

    def text(self) -> str:
        return f"<p>{self.say()} {self.say()} {self.say()}</p>"

    def aside(self, count: int = 3) -> str:
        self.boilerplate.append(self._words(count))
        return self.boilerplate[-1]

    def links(self, count: int, words: int = 3) -> str:
        return "".join(f'<li><a href="/{n}">{self.aside(words)}</a></li>' for n in range(count))


def news(p: Page) -> str:
    return (
        f"<div class='topbar'><a href=#>{p.aside()}</a></div><div class='menu'><ul>{p.links(12)}"
        f"</ul></div><div class='text'><h1>{p.say(5)}</h1>{p.text()}{p.text()}<h2>{p.say(4)}</h2>"
        f"{p.text()}<blockquote>{p.say()}</blockquote><p>{p.say(4)}</p><ul><li>{p.say(5)}</li></ul></div>"
        f"<div class='side'><h3>{p.aside()}</h3><ul>{p.links(8, 6)}</ul></div><div id='footer'>"
        f"<p>{p.aside(5)}</p><ul>{p.links(9)}</ul></div>"
    )


def manual(p: Page) -> str:
    rows = "".join(f"<tr><td>{p.say(2)}</td><td>{p.say(4)}</td></tr>" for _ in range(6))
    return (
        f"<div class='sidebar'><h3>{p.aside()}</h3><ul>{p.links(30)}</ul></div><div class='body'>"
        f"<h1>{p.say(3)}</h1>{p.text()}<h2>{p.say(3)}</h2><pre>{p.say(8)}</pre><p>{p.say(6)}</p>"
        f"<dl><dt>{p.say(2)}</dt><dd>{p.say(8)}</dd></dl><table><tr><th>{p.say(2)}</th><th>{p.say(2)}"
        f"</th></tr>{rows}</table><div class='note'><p>{p.say(7)}</p></div><ol><li>{p.say(7)}</li>"
        f"</ol></div><div class='footer'>{p.aside(5)}</div>"
    )


def forum(p: Page) -> str:
    posts = "".join(
        f"<div class='post'><div class='by'>user{n}</div><div><p>{p.say(8 + n)}</p></div><div>"
        f"<a href=#>{p.aside(1)}</a> <a href=#>{p.aside(1)}</a></div></div>"
        for n in range(8)
    )
    return f"<div class='header'><ul>{p.links(8)}</ul></div><h1>{p.say(5)}</h1><div>{posts}</div>"


def plain(p: Page) -> str:
    return f"<h1>{p.say(3)}</h1>{p.text()}{p.text()}<p>{p.say(3)}</p><ul><li>{p.say(3)}</li></ul>"


def tables(p: Page) -> str:
    def table() -> str:
        rows = "".join(f"<tr><td>{p.say(2)}</td><td>{p.say(3)}</td></tr>" for _ in range(15))
        return f"<table><tr><th>{p.say(1)}</th><th>{p.say(1)}</th></tr>{rows}</table>"

    return (
        f"<div class='nav'><ul>{p.links(10)}</ul></div><h1>{p.say(3)}</h1>{table()}{p.text()}"
        f"<h2>{p.say(2)}</h2>{table()}<div class='footer'><a href=#>{p.aside()}</a></div>"
    )


def answers(p: Page) -> str:
    pairs = "".join(f"<h3>{p.say(5)}</h3><div>{p.say(8)}</div>" for _ in range(12))
    return f"<div class='nav'><ul>{p.links(8)}</ul></div><h1>{p.say(3)}</h1><div>{pairs}</div>"


def encyclopedia(p: Page) -> str:
    text = "".join(f"<a href=#>{p.say(2)}</a> {p.say(5)} " for _ in range(5))
    rows = "".join(
        f"<tr><td><a href=#>{p.say(2)}</a></td><td><a href=#>{p.say(2)}</a></td></tr>"
        for _ in range(10)
    )
    return (
        f"<div id='head'><ul>{p.links(8)}</ul></div><div><h1>{p.say(2)}</h1><p>{text}</p><div>"
        f"<ul>{p.links(5)}</ul></div><table><tr><th>{p.say(1)}</th><th>{p.say(1)}</th></tr>{rows}"
        f"</table><ol><li>{p.say(6)} <a href=#>{p.say(2)}</a></li></ol></div><div><ul>{p.links(20)}"
        f"</ul></div>"
    )


def product(p: Page) -> str:
    rows = "".join(f"<tr><td>{p.say(1)}</td><td>{p.say(2)}</td></tr>" for _ in range(12))
    return (
        f"<div class='breadcrumb'><a href=#>{p.aside(1)}</a></div><div class='menu'><ul>"
        f"{p.links(12)}</ul></div><h1>{p.say(4)}</h1><ul><li>{p.say(5)}</li><li>{p.say(5)}</li></ul>{p.text()}"
        f"<table>{rows}</table><div class='recommend'><h3>{p.aside()}</h3><ul>{p.links(6, 4)}</ul>"
        f"</div>"
    )


def index(p: Page) -> str:
    return f"<h1>{p.say(3)}</h1><ul>" + "".join(
        f"<li><a href=#>{p.say(5)}</a></li>" for _ in range(30)
    )


PAGES: dict[str, Callable[[Page], str]] = {
    "news": news, "manual": manual, "forum": forum, "plain": plain, "tables": tables,
    "answers": answers, "encyclopedia": encyclopedia, "product": product, "index": index,
}  # fmt: skip


def compare_pages() -> None:
    from trafilatura import extract

    from embedtune.documents.html import read_html

    def ours(html: str, boilerplate: str) -> str:
        return read_html(html.encode(), "replace", tables=True, boilerplate=boilerplate).text  # type: ignore[arg-type]

    readers: dict[str, Callable[[str], str]] = {
        "visible page": lambda html: ours(html, "keep"),
        "trafilatura": lambda html: extract(html, output_format="markdown") or "",
        "with recall": lambda html: (
            extract(html, output_format="markdown", favor_recall=True) or ""
        ),
        "embedtune": lambda html: ours(html, "auto"),
    }
    print(f"{'content kept | boilerplate kept':24}" + "".join(f"{name:>16}" for name in readers))
    sums = dict.fromkeys(readers, (0.0, 0.0))
    for name, build in PAGES.items():
        for language in WORDS:
            page = Page(language)
            html = f"<html><body>{build(page)}</body></html>"
            line = f"{name + ' ' + language:24}"
            for reader, read in readers.items():
                text = re.sub(r"\W", "", read(html))
                kept, rest = (
                    sum(re.sub(r"\W", "", words) in text for words in some) / max(1, len(some))
                    for some in (page.content, page.boilerplate)
                )
                sums[reader] = (sums[reader][0] + kept, sums[reader][1] + rest)
                line += f"{kept:9.0%} |{rest:5.0%}"
            print(line)
    count = len(PAGES) * len(WORDS)
    means = (f"{kept / count:9.0%} |{rest / count:5.0%}" for kept, rest in sums.values())
    print(f"{'mean':24}" + "".join(means))


# ---- workbooks


def write_workbook(path: Path, rows: int) -> None:
    from openpyxl import Workbook

    draw = random.Random(1)
    book = Workbook(write_only=True)
    sheet = book.create_sheet("数据")
    sheet.append([f"c{number}" for number in range(10)])
    for number in range(rows):
        words = " ".join(draw.choice(WORDS["zh"] + WORDS["en"]) for _ in range(8))
        sheet.append([number, f"part {draw.randint(0, 9999)}", words, draw.random() * 100,
                      draw.random(), "x", None, draw.randint(0, 9), "y", True])  # fmt: skip
    book.save(path)


def read_workbook(reader: str, path: Path) -> int:
    """Characters, or cells, that were read."""
    if reader == "embedtune":
        from embedtune.documents.office.sheets import read_xlsx

        return sum(len(part.text) for part in read_xlsx(path.read_bytes(), tables=True))  # type: ignore[union-attr]
    if reader == "openpyxl":
        from openpyxl import load_workbook

        book = load_workbook(path, read_only=True, data_only=True)
        return sum(len(row) for sheet in book for row in sheet.iter_rows(values_only=True))
    from markitdown import MarkItDown

    return len(MarkItDown(enable_plugins=False).convert(str(path)).markdown)


def measure(reader: str, path: Path, megabytes: int) -> None:
    """In a process of its own: print what was read, CPU seconds and peak memory."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    begin = time.process_time()
    try:
        found = f"{read_workbook(reader, path):,}"
    except ImportError:
        found = "not installed"
    except MemoryError:
        found = f"over {megabytes} MB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([found, round(time.process_time() - begin, 1), peak]))


def compare_workbooks(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        write_workbook(path, rows)
        print(f"\n{rows:,} rows, {path.stat().st_size:,} bytes")
        for reader, megabytes in (("embedtune", 1024), ("openpyxl", 1024), ("markitdown", 1024),
                                  ("markitdown", 8192)):  # fmt: skip
            command = [sys.executable, __file__, "--measure", reader, str(path), str(megabytes)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.splitlines() or ['["died", 0, 0]']
            found, seconds, peak = json.loads(lines[-1])
            print(
                f"{reader:12} limit {megabytes:5} MB: {found:>16}, {seconds:6} s CPU, {peak:5} MB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        reader, path, megabytes = options.measure
        measure(reader, Path(path), int(megabytes))
        return
    compare_pages()
    compare_workbooks(options.rows)


if __name__ == "__main__":
    main()
