"""What the command line prints: results on standard output, all the rest on standard error."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from embedtune.files import visible
from embedtune.records import Progress

LONGEST_LINE = 10_000


class Console:
    """Messages and progress. Bars on a terminal, a plain line now and then elsewhere."""

    _open_line = False  # of the class: all consoles share one terminal

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.tty = sys.stderr.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        """One message line on standard error."""
        if not self.quiet:
            self._end_line()
            print(_shown(text), file=sys.stderr, flush=True)

    def error(self, lines: Iterable[str]) -> None:
        self._end_line()
        for line in lines:
            print(_shown(f"embedtune: {line}"), file=sys.stderr, flush=True)

    def progress(self, what: str) -> Progress:
        """A ``Progress`` that shows share done and time left (from a monotonic clock)."""
        if self.quiet:
            return lambda done, total: None
        begin = time.monotonic()
        shown = begin
        first: int | None = None

        def report(done: int, total: int) -> None:
            nonlocal shown, first
            now = time.monotonic()
            if first is None:
                first = done  # what was there already took no time
            pause = 0.1 if self.tty else 15
            if now - shown < pause and (done < total or not self._open_line):
                return
            shown = now
            left = ""
            if first < done < total:
                seconds = (now - begin) * (total - done) / (done - first)
                left = f", {_duration(seconds)} left"
            line = _shown(f"  {what}: {done:,} of {total:,}{left}")
            if self.tty:
                Console._open_line = True
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
                if done >= total:
                    self._end_line()
            else:
                print(line, file=sys.stderr, flush=True)

        return report

    def _end_line(self) -> None:
        if self._open_line:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            Console._open_line = False


def _shown(line: str) -> str:
    """One line, whatever file names and the like in it hold."""
    return visible(line, LONGEST_LINE)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def emit(value: dict[str, Any], *, as_json: bool, text: Callable[[], str]) -> None:
    """The result: one JSON object, or text made for people."""
    if as_json:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(value, ensure_ascii=not utf8), flush=True)
    else:
        print(text(), flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Plain aligned columns; the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell))
            if column == 0
            else " " * (width - _width(cell)) + cell
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
