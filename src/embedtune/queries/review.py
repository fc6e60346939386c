"""What people decided about queries: kept, edited or rejected, and what answers them too.

Decisions are records beside the run (``decisions.jsonl``); they hold for the query's id, which is
made of its text and evidence, so that they survive re-chunking and every rerun.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from embedtune.errors import ConfigError
from embedtune.files import (
    number_in,
    read_jsonl,
    read_table,
    unneutralised,
    visible,
    write_jsonl,
)
from embedtune.language import language_of
from embedtune.queries.checks import clean_query, query_id, text_fault
from embedtune.records import Chunk, Query, Reject, Span

STAGE = "review"
REVIEWED = "reviewed"  # the flag of a query somebody kept or edited: filters leave it alone
Action = Literal["keep", "edit", "reject", "undecided"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's decision about one query. ``relevant``: stretches that answer it too.

    ``undecided`` takes an earlier decision back.
    """

    query: str  # id
    action: Action
    text: str = ""  # the new wording, for edit
    relevant: tuple[Span, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Queries after the decisions. ``unknown``: decisions about queries that are not there."""

    queries: tuple[Query, ...]
    rejects: tuple[Reject, ...]
    applied: int
    unknown: int


def apply_decisions(queries: Sequence[Query], decisions: Iterable[Decision]) -> Reviewed:
    """Reject, reword and widen queries as decided; of several decisions the last one holds.

    Queries that ask the same once one of them is edited become one, with the evidence of both.
    """
    by_query = settled(decisions)
    kept: dict[str, Query] = {}
    rejects = []
    for query in queries:
        decision = by_query.get(query.id)
        if decision is not None and decision.action == "reject":
            why = f"rejected in the review{f': {decision.note}' if decision.note else ''}"
            rejects.append(Reject(STAGE, "reviewed", why, item=query.id,
                                  excerpt=visible(query.text), unusable=False))  # fmt: skip
            continue
        changed = query if decision is None else as_decided(query, decision)
        if twin := kept.get(changed.id):
            rejects.append(
                Reject(STAGE, "duplicate", "it asks what another query, as edited, asks",
                       item=query.id, excerpt=visible(changed.text), unusable=False)
            )  # fmt: skip
            more = dict.fromkeys((*twin.more_evidence, *changed.more_evidence))
            flags = dict.fromkeys((*twin.flags, *changed.flags))
            changed = replace(twin, more_evidence=tuple(more), flags=tuple(flags))
        kept[changed.id] = changed
    present = {query.id for query in queries}
    unknown = sum(query not in present for query in by_query)
    return Reviewed(tuple(kept.values()), tuple(rejects), len(by_query) - unknown, unknown)


def settled(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Query id -> the last decision about it; none for those that were taken back."""
    last = {decision.query: decision for decision in decisions}
    return {query: made for query, made in last.items() if made.action != "undecided"}


def as_decided(query: Query, decision: Decision) -> Query:
    """A query that is kept or edited; an edit changes its id, which is made of its text."""
    more = list(query.more_evidence)
    for span in decision.relevant:
        if span not in query.spans and span not in more:
            more.append(span)
    flags = tuple(flag for flag in query.flags if flag != REVIEWED)
    changed = replace(query, more_evidence=tuple(more), flags=(*flags, REVIEWED))
    if decision.action == "edit" and decision.text:
        text = clean_query(decision.text)
        identity = query_id(text, query.evidence) if query.evidence else query.id
        changed = replace(changed, id=identity, text=text, language=language_of(text), answer="")
    return changed


def read_decisions(path: Path, chunks: Mapping[str, Chunk]) -> tuple[list[Decision], list[Reject]]:
    """Decisions saved by the review page (JSONL) or filled into the CSV beside it.

    CSV rows with an empty decision are nobody's decision and are passed over, unless their text
    was changed (an edit) or passages were marked.

    Returns:
        The decisions in the order of the file, and the rows that cannot be used.

    Raises:
        ConfigError: The file cannot be read, or is neither.
    """
    rejects: list[Reject] = []
    decisions = []
    table = path.suffix.lower() in (".csv", ".tsv")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; save the decisions from the review page first")
    rows = (read_table if table else read_jsonl)(path, rejects, STAGE)
    for line, row in rows:
        fault = _row_fault(row, chunks, table)
        if fault:
            field, message = fault
            rejects.append(
                Reject(STAGE, "decision", message, file=str(path), line=line, field=field,
                       excerpt=visible(row))
            )  # fmt: skip
        elif decision := _decision(row, chunks, table):
            decisions.append(decision)
    return decisions, rejects


def save_decisions(path: Path, decisions: Iterable[Decision]) -> int:
    """Write decisions, the last one about each query; returns how many there are."""
    last = settled(decisions)
    write_jsonl(path, map(decision_row, last.values()))
    return len(last)


def decision_row(decision: Decision) -> dict[str, Any]:
    """A decision as a line of ``decisions.jsonl``."""
    row = {"query": decision.query, "decision": decision.action}
    if decision.text:
        row["text"] = decision.text
    if decision.relevant:
        row["relevant"] = [asdict(span) for span in decision.relevant]
    if decision.note:
        row["note"] = decision.note
    return row


def _row_fault(
    row: Mapping[str, Any], chunks: Mapping[str, Chunk], table: bool
) -> tuple[str, str] | None:
    """(field, message) of what is wrong with a row."""
    query, action = row.get("query" if not table else "id"), row.get("decision")
    name = "id" if table else "query"
    if not isinstance(query, str) or not query.strip():
        return name, f'no "{name}"; each row needs the id of its query'
    allowed = (*ACTIONS, "") if table else ACTIONS
    if not isinstance(action, str) or action.strip().lower() not in allowed:
        return "decision", f"{visible(repr(action), 40)}; expected {', '.join(ACTIONS)}"
    text = row.get("text", "")
    if not isinstance(text, str):
        return "text", f"{visible(repr(text), 40)}; expected text"
    edited = action.strip().lower() == "edit" or (table and text.strip() and _reworded(row))
    if edited and (fault := text_fault(clean_query(unneutralised(text)), "")):
        return "text", f"an edited query needs its new text ({fault[1]})"
    if table:
        unknown = [chunk for chunk in _named(row) if chunk not in chunks]
        if unknown:
            return "also_relevant", f"no passage has the id {visible(unknown[0], 40)}"
    elif not all(map(_is_span, _listed(row.get("relevant")))):
        return "relevant", "expected a list of {document, start, end}"
    return None


def _decision(row: Mapping[str, Any], chunks: Mapping[str, Chunk], table: bool) -> Decision | None:
    action: Any = row["decision"].strip().lower()
    text = unneutralised(row.get("text") or "")
    if not table:
        relevant = tuple(
            Span(str(entry["document"]), int(entry["start"]), int(entry["end"]))
            for entry in _listed(row.get("relevant"))
        )
        note = row.get("note")
        return Decision(row["query"], action, text, relevant, note if isinstance(note, str) else "")
    relevant = tuple(chunks[name].span for name in _named(row))
    if text.strip() and _reworded(row):
        action = "edit"
    if not action and relevant:
        action = "keep"
    if not action:
        return None
    return Decision(row["id"].strip(), action, text if action == "edit" else "", relevant,
                    row.get("note") or "")  # fmt: skip


def _reworded(row: Mapping[str, Any]) -> bool:
    """Whether the text of a row of the table was changed, and no other decision stands there."""
    text, before = (clean_query(unneutralised(row.get(name) or "")) for name in ("text", "query"))
    return text != before and row["decision"].strip().lower() in ("", "keep")


def _named(row: Mapping[str, Any]) -> list[str]:
    return re.split(r"[\s,;]+", (row.get("also_relevant") or "").strip()) if row.get(
        "also_relevant"
    ) else []  # fmt: skip


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_span(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("document"), str):
        return False
    start, end = number_in(value.get("start")), number_in(value.get("end"))
    return start is not None and end is not None and 0 <= start < end
