"""Charts of the evidence: domain against general, index size, scores, the map."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedtune.evidence import CompressionGrid, Layout, SpaceMap
from embedtune.report.drawing import (
    BASE,
    CANDIDATE,
    INK,
    KINDS,
    MUTED,
    RIVAL,
    Picture,
    picture,
)
from embedtune.report.facts import MergeFacts

SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down")
MAP = 380  # pixels a side
SQUARE, DOT = 44, 16  # area of a query's mark and of a passage's


def tradeoff_chart(
    curve: Sequence[MergeFacts], gate: float, axes: tuple[str, str], line: str, label: str
) -> Picture:
    """Quality on dev against what is lost in general, a point a merge weight.

    Args:
        curve: By alpha; each with a loss.
        gate: The loss allowed, a line that says ``line``.
    """

    def draw(width: int) -> Any:
        import altair as alt

        rows = [
            {"loss": point.loss, "dev": point.dev, "alpha": f"α {point.alpha:g}",
             "order": point.alpha, "chosen": point.chosen}
            for point in curve
        ]  # fmt: skip
        losses = [0.0, gate, *(point.loss or 0.0 for point in curve)]
        devs = [point.dev for point in curve]
        room = max((max(losses) - min(losses)) * 0.15, 0.003)
        rise = max((max(devs) - min(devs)) * 0.2, 0.005)
        x = alt.Scale(domain=[min(losses) - room, max(losses) + room], nice=False)
        y = alt.Scale(domain=[max(0, min(devs) - rise), max(devs) + rise], nice=False)
        across = alt.X("loss:Q", title=axes[0], scale=x, axis=alt.Axis(grid=False))
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=across, y=alt.Y("dev:Q", title=axes[1], scale=y)
        )
        edge = alt.Chart(alt.Data(values=[{"loss": gate, "name": line}]))
        return alt.layer(
            edge.mark_rule(color=RIVAL, strokeDash=[4, 3]).encode(x=across),
            edge.mark_text(align="left", dx=5, baseline="top", fontSize=11, color=MUTED).encode(
                x=across, y=alt.YValue(2), text=alt.Text("name:N")
            ),
            base.mark_line(strokeWidth=1.5, color=BASE).encode(order=alt.Order("order:Q")),
            base.mark_point(filled=True, opacity=1).encode(
                color=alt.condition("datum.chosen", alt.value(CANDIDATE), alt.value(BASE)),
                size=alt.condition("datum.chosen", alt.value(170), alt.value(60)),
                shape=alt.condition("datum.chosen", alt.value("diamond"), alt.value("circle")),
            ),
            base.mark_text(dy=-13, fontSize=11, color=INK).encode(text=alt.Text("alpha:N")),
        ).properties(height=240)

    return picture(label, draw)


def compression_chart(
    grid: CompressionGrid, names: Mapping[str, str], axes: tuple[str, str], line: str, label: str
) -> Picture:
    """Quality against bytes a vector, a line a precision; the index recommended is ringed.

    Args:
        names: Precision -> what the page calls it.
        line: What the lowest quality that counts as kept is called.
    """
    full = max(index.score - index.difference for index in grid.indexes)
    precisions = list(dict.fromkeys(index.precision for index in grid.indexes))
    colours = dict(zip(precisions, KINDS, strict=False))
    shapes = dict(zip(precisions, SHAPES, strict=False))

    def draw(width: int) -> Any:
        import altair as alt

        rows = [
            {"bytes": index.memory, "score": index.score, "kind": index.precision}
            for index in grid.indexes
        ]
        values = [row["score"] for row in rows]
        room = max((max(values) - min(values)) * 0.1, 0.01)
        y = alt.Scale(domain=[max(0, min(values) - room), max(values) + room], nice=False)
        sizes = [row["bytes"] for row in rows]
        x = alt.Scale(type="log", domain=[min(sizes) * 0.8, max(sizes) * 1.25], nice=False)
        ticks = [2**power for power in range(20) if min(sizes) <= 2**power <= max(sizes)]
        across = alt.X("bytes:Q", title=axes[0], scale=x,
                       axis=alt.Axis(grid=False, values=ticks[:: 1 if width > 500 else 2],
                                     format="d"))  # fmt: skip
        up = alt.Y("score:Q", title=axes[1], scale=y)
        data = alt.Data(values=rows)
        base = alt.Chart(data).encode(
            x=across,
            y=up,
            color=alt.Color("kind:N", legend=None, scale=alt.Scale(
                domain=precisions, range=[colours[name] for name in precisions])),
        )  # fmt: skip
        best = grid.best
        ring = alt.Chart(alt.Data(values=[{"bytes": best.memory, "score": best.score}]))
        kept = alt.Chart(alt.Data(values=[{"score": full - grid.loss, "name": line}]))
        return alt.layer(
            kept.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(y=up),
            kept.mark_text(align="left", dx=4, dy=-7, fontSize=11, color=MUTED).encode(
                x=alt.XValue(0), y=up, text=alt.Text("name:N")
            ),
            base.mark_line(strokeWidth=1.5),
            base.mark_point(filled=True, size=60, opacity=1).encode(
                shape=alt.Shape("kind:N", legend=None, scale=alt.Scale(
                    domain=precisions, range=[shapes[name] for name in precisions]))
            ),
            ring.mark_point(filled=False, size=330, strokeWidth=2, color=INK).encode(
                x=across, y=up
            ),
        ).properties(height=260)  # fmt: skip

    legend = [(shapes[name].removesuffix("-up"), colours[name], names[name]) for name in precisions]
    return picture(label, draw, legend=legend)


def spread_chart(
    edges: Sequence[float], relevant: Sequence[int], irrelevant: Sequence[int],
    names: tuple[str, str], axes: tuple[str, str], label: str, *,
    lines: Sequence[tuple[float, str]] = (),
) -> Picture:  # fmt: skip
    """How many queries have their right and their best wrong passage at which score.

    Args:
        lines: Thresholds, and what they are called.
    """

    def draw(width: int) -> Any:
        import altair as alt

        rows = [
            {"from": low, "to": high, "kind": name, "count": count, "zero": 0}
            for name, counts in zip(names, (relevant, irrelevant), strict=True)
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]
        filled = [row for row in rows if row["count"]]
        start = min((row["from"] for row in filled), default=edges[0])
        end = max((row["to"] for row in filled), default=edges[-1])
        rows = [row for row in rows if start <= row["from"] < end]
        most = max(1, *(row["count"] for row in rows)) if rows else 1
        scale = alt.Scale(domain=[start, end], nice=False)
        across = alt.X("from:Q", title=axes[0], scale=scale, axis=alt.Axis(grid=False))
        up = alt.Y("count:Q", title=axes[1], scale=alt.Scale(domain=[0, most * 1.15], nice=False),
                   axis=alt.Axis(tickMinStep=1, format="d"))  # fmt: skip
        bars = alt.Chart(alt.Data(values=rows)).mark_rect(opacity=0.55).encode(
            x=across, x2=alt.X2("to:Q"), y=up, y2=alt.Y2("zero:Q"),
            color=alt.Color("kind:N", legend=None, scale=alt.Scale(
                domain=list(names), range=[CANDIDATE, RIVAL])),
        )  # fmt: skip
        marks = [{"from": place, "name": name} for place, name in lines if start <= place <= end]
        edge = alt.Chart(alt.Data(values=marks))
        return alt.layer(
            bars,
            edge.mark_rule(color=INK, strokeDash=[4, 3]).encode(x=across),
            edge.mark_text(align="right", dx=-4, baseline="top", fontSize=11, color=INK).encode(
                x=across, y=alt.YValue(2), text=alt.Text("name:N")
            ),
        ).properties(height=180)

    legend = (("square", CANDIDATE, names[0]), ("square", RIVAL, names[1]))
    return picture(label, draw, legend=legend)


def map_chart(
    space: SpaceMap, layout: Layout, chosen: Sequence[int], names: Mapping[str, str], label: str
) -> Picture:
    """One system's map: passages as dots, queries as triangles, the most frequent colours told
    apart, the text of each over it.

    Args:
        chosen: Places of the points drawn.
        names: Colour key -> what the page calls it; other points are grey.
    """
    colours = dict(zip(names, KINDS, strict=False))

    def draw(width: int) -> Any:
        import altair as alt

        rows = []
        for place in chosen:
            point, (x, y) = space.points[place], layout.places[place]
            rows.append({
                "x": round(x, 4), "y": round(y, 4), "fill": colours.get(point.colour, BASE),
                "shape": "triangle-up" if point.kind == "query" else "circle",
                "size": SQUARE if point.kind == "query" else DOT, "text": point.hover,
            })  # fmt: skip
        # the few on top of the many
        rows.sort(key=lambda row: (row["fill"] != BASE, row["shape"] != "circle"))
        chart = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, opacity=0.85, aria=True)
        return chart.encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(zero=False, nice=False, padding=6)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, nice=False, padding=6)),
            color=alt.Color("fill:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            size=alt.Size("size:Q", scale=None),
            description=alt.Description("text:N"),
        ).properties(height=MAP)

    return picture(label, draw, widths=(MAP,))
