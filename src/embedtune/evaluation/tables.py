"""What ``evaluate --out`` leaves: tables for a spreadsheet, and files for TREC's tools."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from embedtune.evaluation.measures import Measures
from embedtune.evaluation.trec import qrels_text, run_text
from embedtune.files import neutralised
from embedtune.results import SystemScores

Row = Sequence[object]


def systems_csv(systems: Sequence[SystemScores], measures: Sequence[Measures] = ()) -> str:
    """A row a system with its figures and their intervals, and one for each shorter dimension.

    Args:
        measures: Further figures of the same systems, or of others, found by their names.
    """
    further = {own.name: own for own in measures}
    names = [*(scores.name for scores in systems)]
    names += [name for name in further if name not in names]
    ranked = {scores.name: scores for scores in systems}
    parts = {
        name: [own for own in (ranked.get(name), further.get(name)) if own is not None]
        for name in names
    }
    figures = list(dict.fromkeys(f for own in (*systems, *measures) for f in own.metrics))
    bounded = {f for own in (*systems, *measures) for f in own.intervals}
    header = ["system", "dimension", "queries", "rows", "groups"]
    for figure in figures:
        header += [figure, *([f"{figure} low", f"{figure} high"] if figure in bounded else [])]
    rows: list[Row] = []
    for name, own in parts.items():
        metrics = {f: value for part in own for f, value in part.metrics.items()}
        ends = {f: interval for part in own for f, interval in part.intervals.items()}
        queries = len(next(iter(ranked[name].per_query.values()))) if name in ranked else ""
        count = further[name].n if name in further else ""
        groups = own[0].facts.get("groups", "") if name in ranked else further[name].groups
        dims = {dim for part in own for dim in part.dims}

        def own_dimension(dim: int, own: Sequence[SystemScores | Measures] = own) -> bool:
            """Whether the figures of the first row are of so many numbers."""
            return all(part.dims.get(dim, {}).items() <= part.metrics.items() for part in own)

        full = next(filter(own_dimension, sorted(dims, reverse=True)), "")
        cells = [name, full, queries, count, groups]
        rows.append([*cells, *_figures(figures, bounded, metrics, ends)])
        for dim in sorted(dims - {full}, reverse=True):
            shorter = {f: v for part in own for f, v in part.dims.get(dim, {}).items()}
            rows.append([name, dim, *cells[2:], *_figures(figures, bounded, shorter, {})])
    return _csv(header, rows)


def _figures(
    figures: Sequence[str],
    bounded: Iterable[str],
    metrics: Mapping[str, float],
    ends: Mapping[str, tuple[float, float]],
) -> list[object]:
    cells: list[object] = []
    for figure in figures:
        cells.append(metrics.get(figure, ""))
        if figure in bounded:
            cells += ends.get(figure, ("", ""))
    return cells


def per_query_csv(
    systems: Sequence[SystemScores], relevant: Mapping[str, frozenset[str]], k: int
) -> str:
    """A row a query and system: whether something relevant is among the first ``k``, the rank of
    the first such passage (empty where none is among those kept), the first ``k`` with scores.

    Args:
        relevant: Query id -> passages that count for it, near-duplicates among them.
    """
    rows: list[Row] = []
    for query, wanted in relevant.items():
        for scores in systems:
            ranking = scores.rankings[query]
            ranks = [rank for rank, (passage, _) in enumerate(ranking, 1) if passage in wanted]
            first = ranks[0] if ranks else ""
            rows.append(
                (query, scores.name, int(bool(ranks) and ranks[0] <= k), first,
                 json.dumps([passage for passage, _ in ranking[:k]], ensure_ascii=False),
                 json.dumps([score for _, score in ranking[:k]]))
            )  # fmt: skip
    return _csv(["query", "system", "hit", "rank", "retrieved", "scores"], rows)


def trec_files(
    systems: Sequence[SystemScores], judgements: Mapping[str, Mapping[str, int]]
) -> dict[str, str]:
    """Name -> text of ``qrels.trec`` and one ``runs/NAME.trec`` a system, NAME fit for any disk."""
    files = {"qrels.trec": qrels_text(judgements)}
    for scores in systems:
        name = own = re.sub(r"[^\w.-]+", "-", scores.name).strip("-.")[-80:] or "system"
        number = 1
        while f"runs/{name}.trec" in files:
            number += 1
            name = f"{own}-{number}"
        files[f"runs/{name}.trec"] = run_text(scores.rankings, name)
    return files


def _csv(header: Row, rows: Iterable[Row]) -> str:
    """Text cells that a spreadsheet would run as formulas are neutralised by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in (header, *rows):
        writer.writerow([neutralised(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()
