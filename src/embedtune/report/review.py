"""The review: one self-contained page, and a table, in which people decide about queries.

The page keeps its decisions in the browser and saves them as a file; it fetches nothing.
"""

import base64
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedtune.files import neutralised
from embedtune.records import Chunk, Query
from embedtune.report.render import environment, shown

PASSAGE = 4000  # characters of a passage that are shown
COLUMNS = ("id", "decision", "text", "also_relevant", "note", "query", "status", "reason", "split",
           "style", "source", "section", "evidence", "passage", "candidates")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A query to decide about.

    ``reason`` says why a filter left it out (empty: it is in). ``relevant`` and ``candidates`` are
    chunk ids: what answers it as far as is known, and what may (found by search).
    """

    query: Query
    split: str = ""
    reason: str = ""
    relevant: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()


def review_page(
    title: str,
    items: Sequence[ReviewItem],
    chunks: Mapping[str, Chunk],
    decided: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page as one HTML text.

    Args:
        decided: Query id -> the decision made earlier, as a row of ``decisions.jsonl``.
    """
    named = dict.fromkeys(c for item in items for c in (*item.relevant, *item.candidates))
    data = {
        "title": shown(title),
        "items": [_item(item, chunks) for item in items],
        "passages": {name: _passage(chunks[name]) for name in named if name in chunks},
        "decided": decided,
    }
    env = environment()
    script, _, _ = env.loader.get_source(env, "review.js")
    style, _, _ = env.loader.get_source(env, "review.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return env.get_template("review.html.j2").render(
        title=title, data=_embedded(data), script=script, style=style, digest=digest
    )


def review_table(items: Sequence[ReviewItem], chunks: Mapping[str, Chunk]) -> str:
    """The same as CSV for a spreadsheet: fill in ``decision`` (keep, edit, reject), change
    ``text``, put chunk ids into ``also_relevant``. Cells that would run as formulas are
    neutralised by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item in items:
        query = item.query
        chunk = chunks.get(query.chunk) or next(
            (chunks[name] for name in item.relevant if name in chunks), None
        )
        row = (query.id, "", query.text, "", "", query.text, "left out" if item.reason else "in",
               item.reason, item.split, query.style, chunk.source if chunk else "",
               " > ".join(chunk.section) if chunk else "", _evidence(query, chunk),
               chunk.embedded if chunk else "", " ".join(item.candidates))  # fmt: skip
        writer.writerow([neutralised(cell) for cell in row])
    return out.getvalue()


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _item(item: ReviewItem, chunks: Mapping[str, Chunk]) -> dict[str, Any]:
    query = item.query
    return {
        "id": query.id,
        "text": query.text,
        "shown": shown(query.text),
        "language": query.language,
        "style": shown(query.style),
        "origin": shown(query.origin),
        "flags": [shown(flag) for flag in query.flags],
        "answer": shown(query.answer),
        "split": shown(item.split),
        "reason": shown(item.reason),
        "relevant": [
            {"id": name, "parts": _parts(query, chunks[name])}
            for name in item.relevant
            if name in chunks
        ],
        "candidates": [name for name in item.candidates if name in chunks],
    }


def _passage(chunk: Chunk) -> dict[str, Any]:
    return {
        "span": {"document": chunk.document, "start": chunk.start, "end": chunk.end},
        "source": shown(chunk.source),
        "page": chunk.page,
        "section": shown(" › ".join(chunk.section)),
        "text": shown(chunk.text[:PASSAGE]),
        "language": chunk.language,
    }


def _parts(query: Query, chunk: Chunk) -> list[str] | None:
    """The passage before, in and after the evidence; None where it holds none."""
    span = max(query.spans, key=chunk.span.overlap, default=None)
    if span is None or not chunk.span.overlap(span):
        return None
    start, end = max(0, span.start - chunk.start), span.end - chunk.start
    text = chunk.text[:PASSAGE]
    return [shown(text[:start]), shown(text[start:end]), shown(text[end:])]


def _evidence(query: Query, chunk: Chunk | None) -> str:
    parts = _parts(query, chunk) if chunk else None
    return parts[1] if parts else ""
