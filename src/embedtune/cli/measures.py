"""The tables that ``evaluate`` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedtune.cli.console import table
from embedtune.cli.runs import systems_text

if TYPE_CHECKING:
    from embedtune.evaluation.measures import Measures
    from embedtune.pipeline.measures import Evaluation


def evaluation_text(found: "Evaluation") -> str:
    """Rankings first, then what was measured row by row."""
    parts = [systems_text(found.systems)] if found.systems else []
    if found.measures:
        parts.append(measures_text(found.measures))
    return "\n\n".join(parts)


def measures_text(measures: Sequence["Measures"]) -> str:
    """A line a system, or a system and similarity; best first by the first figure."""
    from embedtune.evaluation.measures import SIMILARITIES

    names = list(measures[0].metrics)
    cosine = [name for name in names if "cosine" in name.split("_")]
    if not cosine:
        rows = [
            [own.name, *(cell for name in names for cell in (_figure(own, name), _ends(own, name)))]
            for own in sorted(measures, key=lambda own: -own.metrics[names[0]])
        ]
        header = ["system", *(cell for name in names for cell in (name, "95 %"))]
        return table(header, rows)
    main = next((name for name in ("spearman_cosine", "cosine_ap") if name in names), cosine[0])
    order = [main, *(name for name in cosine if name != main)]
    kinds = [name.replace("cosine_", "").replace("_cosine", "") for name in order]
    rows = []
    for own in sorted(measures, key=lambda own: -own.metrics[main]):
        for similarity in SIMILARITIES:
            called = [name.replace("cosine", similarity) for name in order]
            figures = [_figure(own, name) for name in called]
            rows.append([own.name, similarity, figures[0], _ends(own, called[0]), *figures[1:]])
    header = ["system", "similarity", kinds[0], "95 %", *kinds[1:]]
    return table([name.replace("_", " ") for name in header], rows)


def _figure(own: "Measures", name: str) -> str:
    return f"{own.metrics[name]:.3f}" if name in own.metrics else ""


def _ends(own: "Measures", name: str) -> str:
    if name not in own.intervals:
        return ""
    low, high = own.intervals[name]
    return f"{low:.3f} to {high:.3f}"
