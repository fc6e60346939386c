"""The child process that reads files: one JSON line in, one JSON line out.

A parser that hangs or swells can be stopped only from outside, so readers never run in the
process of the user. Started by `read.py` as ``python -m embedtune.documents.worker``.
"""

import contextlib
import hashlib
import json
import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from embedtune.documents.reading import Broken, Part
from embedtune.records import Reject

TYPES = {
    ".pdf": "pdf", ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown", ".txt": "text",
    ".text": "text", ".log": "text", ".rst": "text", ".html": "html", ".htm": "html",
    ".xhtml": "html", ".docx": "docx", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}  # fmt: skip
SWOLLEN = 20_000_000  # characters of text from a file that is 100 times smaller


def read_file(task: dict[str, Any]) -> dict[str, Any]:
    """The parts of one file, or why there are none. Never raises for what a file holds."""
    try:
        data = _bytes(task)
        parts, rejects = [], []
        for item in _parts(data, task):
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
    except Broken as error:
        return {"code": error.code, "message": str(error), "line": error.line}
    except FileNotFoundError:
        return {"code": "gone", "message": "deleted after it was listed; run again"}
    except OSError as error:
        return {"code": "unreadable", "message": error.strerror or str(error)}
    except (MemoryError, RecursionError) as error:
        kind = "memory" if isinstance(error, MemoryError) else "nesting"
        return {"code": "limits", "message": f"needs more {kind} than allowed"}
    except Exception as error:  # a parser's own fault with this file: name it and go on
        return {"code": "parser", "message": f"the parser failed ({type(error).__name__}: {error})"}


def _bytes(task: dict[str, Any]) -> bytes:
    """The file as listed; it must not change while it is read."""
    handle = os.open(
        task["path"], os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(handle, "rb") as file:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise Broken("special-file", "not a regular file")
        if before.st_size > task["most_bytes"]:
            most = f"{task['most_bytes']:,} (documents.max_megabytes)"
            raise Broken("limits", f"{before.st_size:,} bytes; the memory limit is {most}")
        data = file.read()
        after = os.fstat(handle)
    listed = task["listed"]
    if [before.st_size, before.st_mtime_ns] != listed or [
        after.st_size,
        after.st_mtime_ns,
    ] != listed:
        raise Broken("changed", "changed while it was read; run again")
    if not data:
        raise Broken("empty-file", "empty file")
    return data


def _parts(data: bytes, task: dict[str, Any]) -> Iterable[Part | Reject]:
    kind, broken, tables = task["kind"], task["broken_bytes"], task["tables"]
    if kind == "pdf":
        from embedtune.documents.pdf import read_pdf

        yield read_pdf(data, task["password"])
    elif kind == "docx":
        from embedtune.documents.office import read_docx

        yield read_docx(data, tables=tables)
    elif kind == "html":
        from embedtune.documents.html import read_html

        yield read_html(data, broken, tables=tables)
    else:
        from embedtune.documents import plain

        if kind == "markdown":
            yield plain.read_markdown(data, broken)
        elif kind in ("csv", "tsv"):
            yield from plain.read_table(data, broken, tabs=kind == "tsv")
        elif kind == "jsonl":
            yield from plain.read_json_lines(data, broken)
        else:
            yield plain.read_text(data, broken)


def limit_memory(megabytes: int) -> None:
    """Cap the address space of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tasks() -> Iterator[dict[str, Any]]:
    for line in sys.stdin.buffer:
        yield json.loads(line)


def main() -> None:
    """Answer tasks until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    limit_memory(int(sys.argv[1]))
    for task in _tasks():
        if hasattr(signal, "alarm"):
            signal.alarm(int(task["seconds"]) + 5)  # ends even an orphan that hangs
        answer = read_file(task)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        try:
            line = json.dumps(answer).encode("ascii")
        except MemoryError:
            line = b'{"code": "limits", "message": "needs more memory than allowed"}'
        answers.write(line + b"\n")
        answers.flush()
        del answer, line


if __name__ == "__main__":
    main()
