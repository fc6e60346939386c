"""The evidence beside the verdict: how small the index may be, score thresholds, the map."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from embedtune.evidence import (
    SIZES,
    CompressedIndex,
    CompressionGrid,
    Evidence,
    ScoreAdvice,
    Share,
    SpaceMap,
    ThresholdAdvice,
)
from embedtune.report import evidence_charts
from embedtune.report.drawing import KINDS
from embedtune.report.facts import LABELS
from embedtune.report.render import count, cut, percent, score, signed
from embedtune.report.texts import Texts, teller

DRAWN = 1000  # points of a map
MILLION = 1_000_000


def compression_section(evidence: Evidence | None, texts: Texts) -> dict[str, Any] | None:
    """The grid of dimensions and precisions, and the index recommended, in words."""
    if evidence is None or not evidence.compression.indexes:
        return None
    t = teller(texts)
    grid = evidence.compression
    precisions = list(dict.fromkeys(index.precision for index in grid.indexes))
    names = {name: t(f"precision.{name}") for name in precisions}
    metric = LABELS.get(grid.metric, grid.metric)
    best = grid.best
    label = t(
        "compress.label",
        metric=metric,
        numbers="; ".join(
            f"{index.dimension} × {names[index.precision]} {score(index.score)}"
            for index in grid.indexes
        ),
    )
    axes = (t("compress.axis"), metric)
    return {
        "note": t("compress.note", queries=count(grid.queries), rows=count(grid.rows),
                  split=texts.get(f"split.{grid.split}", cut(grid.split, 40))),
        "advice": _recommended(grid, names[best.precision], t),
        "warning": "" if grid.rescoring_counts else t("compress.small", rows=count(grid.rows)),
        "chart": evidence_charts.compression_chart(
            grid, names, axes, t("compress.kept", loss=f"{grid.loss:g}"), label
        ),
        "metric": metric,
        "columns": [names[name] for name in precisions],
        "rows": _grid(grid, precisions),
        "numbers": [_numbers(index, names, index is best) for index in grid.indexes],
        "sizes": [f"{size // MILLION} M" for size in SIZES],
    }  # fmt: skip


def _recommended(grid: CompressionGrid, name: str, t: Any) -> str:
    best, full = grid.best, max(grid.indexes, key=lambda index: (index.memory, index.dimension))
    if best == full:
        return t("compress.none", dimension=best.dimension)
    return t(
        "compress.advice",
        dimension=best.dimension,
        precision=name,
        share=percent(best.memory / full.memory),
        difference=signed(best.difference),
        low=signed(best.low),
        high=signed(best.high),
        before=megabytes(full.memory * MILLION),
        after=megabytes(best.memory * MILLION),
    )


def _grid(grid: CompressionGrid, precisions: Sequence[str]) -> list[dict[str, Any]]:
    """A row a dimension: what each precision leaves, and whether it is the one recommended."""
    found = {(index.dimension, index.precision): index for index in grid.indexes}
    return [
        {
            "dimension": dimension,
            "cells": [
                {"index": index, "best": index == grid.best} if index else None
                for name in precisions
                for index in [found.get((dimension, name))]
            ],
        }
        for dimension in sorted({dimension for dimension, _ in found}, reverse=True)
    ]


def _numbers(index: CompressedIndex, names: dict[str, str], best: bool) -> dict[str, Any]:
    return {
        "name": f"{index.dimension} × {names[index.precision]}",
        "best": best,
        "score": index.score,
        "difference": index.difference,
        "low": index.low,
        "high": index.high,
        "memory": index.memory,
        "disk": index.disk,
        "sizes": [megabytes(index.memory * size) for size in SIZES],
        "milliseconds": f"{index.milliseconds:.2f}",
    }


def megabytes(size: float) -> str:
    """``1.5 GB`` or ``96 MB``: two digits that count, units of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g}\u202f{unit}"
        size /= 1000
    return f"{size:.3g}\u202fTB"


# ---- scores and thresholds


def threshold_section(evidence: Evidence | None, t: Any) -> dict[str, Any] | None:
    """Scores of right and wrong passages before and after, and the thresholds advised."""
    if evidence is None or not evidence.scores.spreads:
        return None
    scores = evidence.scores
    return {
        "spreads": [_spread(scores, place, t) for place in range(len(scores.spreads))],
        "uses": [_use(scores, use, t) for use in ("no-answer", "cache")],
    }


def _spread(scores: ScoreAdvice, place: int, t: Any) -> dict[str, Any]:
    spread = scores.spreads[place]
    names = (t("spread.relevant"), t("spread.irrelevant"))
    lines = [
        (threshold.threshold, f"{threshold.threshold:.2f}")
        for advice in scores.advice
        if advice.use == "no-answer" and advice.system == spread.system
        for threshold in advice.thresholds[:1]
        if threshold.threshold is not None
    ]
    label = t("spread.label", system=cut(spread.system, 60), queries=count(spread.queries),
              auc=score(spread.auc))  # fmt: skip
    return {
        "title": _when(place, len(scores.spreads), spread.system, t),
        "auc": t("spread.auc", auc=percent(spread.auc)),
        "chart": evidence_charts.spread_chart(
            scores.edges, spread.relevant, spread.irrelevant, names,
            (t("spread.axis"), t("queries")), label, lines=lines,
        ),
    }  # fmt: skip


def _when(place: int, total: int, system: str, t: Any) -> str:
    """“Before: NAME”; with one system, its name."""
    name = cut(system, 80)
    return name if total == 1 else f"{t('after') if place else t('before')}{t('colon')}{name}"


def _use(scores: ScoreAdvice, use: str, t: Any) -> dict[str, Any]:
    """Of one use: why there is no advice, or a row for each system and precision wanted."""
    found = [advice for advice in scores.advice if advice.use == use]
    why = next((advice for advice in found if advice.code), None)
    basis = next((advice.basis for advice in found if advice.basis), "")
    return {
        "key": use,
        "note": t(f"threshold.{use}.note"),
        "basis": t(f"threshold.basis.{basis}") if basis else "",
        "none": t(f"threshold.{why.code}", dev=count(why.dev), test=count(why.test)) if why else "",
        "rows": [row for advice in found if not advice.code for row in _thresholds(advice)],
        "absent": not found,
    }


def _thresholds(advice: ThresholdAdvice) -> list[dict[str, Any]]:
    return [
        {
            "system": advice.system,
            "wanted": percent(own.wanted),
            "reached": percent(own.reached),
            "threshold": None if own.threshold is None else f"{own.threshold:.3f}",
            "precision": _share(own.precision),
            "recall": _share(own.recall),
            "false_hits": _share(own.false_hits),
            "queries": advice.test,
        }
        for own in advice.thresholds
    ]


def _share(share: Share | None) -> tuple[str, str]:
    """Value and interval."""
    if share is None:
        return "–", ""
    return percent(share.value), f"{percent(share.low)} … {percent(share.high)}"


# ---- the map


def map_section(
    evidence: Evidence | None, documents: Mapping[str, str], t: Any
) -> dict[str, Any] | None:
    """The same points before and after, with the numbers that say what can be believed.

    Args:
        documents: Id -> name, since points are coloured by document where nothing else is known.
    """
    space = evidence.map if evidence else None
    if space is None or not space.points or not space.layouts:
        return None
    chosen = _drawn(space)
    names = {
        colour: cut(documents.get(colour) or colour, 60) for colour in space.colours[: len(KINDS)]
    }
    kinds = Counter(space.points[place].kind for place in chosen)
    pictures = []
    for place, layout in enumerate(space.layouts):
        title = _when(place, len(space.layouts), layout.system, t)
        label = t("map.label", system=title, passages=count(kinds["chunk"]),
                  queries=count(kinds["query"]),
                  trust=score(layout.trustworthiness),
                  preserved=percent(layout.preserved))  # fmt: skip
        chart = evidence_charts.map_chart(space, layout, chosen, names, label)
        pictures.append({"title": title, "chart": chart})
    return {
        "note": t("map.note", passages=count(kinds["chunk"]), queries=count(kinds["query"]),
                  method=t(f"map.{space.method}")),
        "notice": t(f"map.{space.notice}") if space.notice else "",
        "kept": "" if space.kept is None
        else t("map.kept", share=percent(space.kept), neighbours=space.neighbours),
        "pictures": pictures,
        "legend": [("circle", colour, name)
                   for colour, name in zip(KINDS, names.values(), strict=False)],
        "others": len(space.colours) > len(names),
        "rows": [
            (picture["title"], layout)
            for picture, layout in zip(pictures, space.layouts, strict=True)
        ],
        "neighbours": space.neighbours,
    }  # fmt: skip


def _drawn(space: SpaceMap) -> list[int]:
    """Places of at most ``DRAWN`` points, those whose ids' hashes come first, as many of each kind
    as their shares."""
    places = range(len(space.points))
    if len(places) <= DRAWN:
        return list(places)
    chosen: list[int] = []
    for kind in ("chunk", "query"):
        own = [place for place in places if space.points[place].kind == kind]
        own.sort(key=lambda place: (crc32(space.points[place].id.encode()), space.points[place].id))
        chosen += own[: DRAWN * len(own) // len(places)]
    return sorted(chosen)
