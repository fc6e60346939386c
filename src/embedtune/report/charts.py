"""Charts of the report: scores, differences, dimensions, wins, curves, lengths, counts."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedtune.report.drawing import (
    BASE,
    CANDIDATE,
    INK,
    MUTED,
    RIVAL,
    Picture,
    distinct,
    picture,
)
from embedtune.report.render import score, signed

POINTS = 300  # a line has at most this many points


def scores_chart(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], label: str
) -> Picture:
    """Scores with intervals, one line a system and metric.

    Args:
        rows: ``metric, role, value, low, high``; role is base, candidate or rival.
        names: Role -> what the page calls it, in the order of the lines.
    """

    def draw(width: int) -> Any:
        import altair as alt

        roles = [role for role in names if any(row["role"] == role for row in rows)]
        data = alt.Data(
            values=[
                {**row, "name": names[row["role"]], "shown": score(row["value"])} for row in rows
            ]
        )
        low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
        room = max((high - low) * 0.25, 0.02)
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        ends = max(0, low - room / 2), min(1, high) + room
        scale = alt.Scale(domain=list(ends), nice=False)
        step = 0.2 if ends[1] - ends[0] > 0.5 else 0.1 if ends[1] - ends[0] > 0.25 else 0.05
        ticks = [round(number * step, 2) for number in range(int(1 / step) + 1)]
        axis = alt.Axis(values=[tick for tick in ticks if ends[0] <= tick <= ends[1]])
        base = alt.Chart(data).encode(
            y=alt.Y("metric:N", sort=metrics, title=None, scale=alt.Scale(paddingInner=0.25),
                    axis=alt.Axis(grid=False, labelFontSize=13)),
            yOffset=alt.YOffset("name:N", sort=[names[role] for role in roles]),
            color=_by_role(roles, names),
        )  # fmt: skip

        def x(field: str) -> Any:
            return alt.X(field, title=None, scale=scale, axis=axis)

        return alt.layer(
            base.mark_rule(strokeWidth=2).encode(x=x("low:Q"), x2=alt.X2("high:Q")),
            base.mark_point(filled=True, size=70, opacity=1).encode(
                x=x("value:Q"), shape=_shapes(roles, names)
            ),
            base.mark_text(align="left", dx=7, fontSize=11).encode(
                x=x("high:Q"), text=alt.Text("shown:N"), color=alt.ColorValue(MUTED)
            ),
        ).properties(height=len(metrics) * len(roles) * 18 + 14 * len(metrics))

    return picture(label, draw)


def differences_chart(rows: Sequence[Mapping[str, Any]], axis: str, label: str) -> Picture:
    """Candidate minus each other system with its interval and a line at zero.

    Args:
        rows: ``name, mean, low, high``.
    """

    def draw(width: int) -> Any:
        import altair as alt

        names = distinct([row["name"] for row in rows])
        data = alt.Data(
            values=[
                {**row, "name": name, "shown": signed(row["mean"])}
                for row, name in zip(rows, names, strict=True)
            ]
        )
        ends = [0.0, *(row["low"] for row in rows), *(row["high"] for row in rows)]
        room = max((max(ends) - min(ends)) * 0.12, 0.01)
        scale = alt.Scale(domain=[min(ends) - room, max(ends) + room], nice=False)
        base = alt.Chart(data).encode(y=alt.Y("name:N", sort=names, title=None, axis=None))
        at_zero = alt.Chart(alt.Data(values=[{"at": 0}]))

        def x(field: str) -> Any:
            return alt.X(field, title=axis, scale=scale, axis=alt.Axis(grid=False))

        return alt.layer(
            at_zero.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(x=x("at:Q")),
            base.mark_rule(strokeWidth=2, color=CANDIDATE).encode(
                x=x("low:Q"), x2=alt.X2("high:Q")
            ),
            base.mark_point(filled=True, size=70, opacity=1, color=CANDIDATE).encode(x=x("mean:Q")),
            base.mark_text(dy=14, fontSize=11, color=MUTED).encode(
                x=x("mean:Q"), text=alt.Text("shown:N")
            ),
            # names above their line, from the left edge: an axis would cut long ones on a phone;
            # the reader's font may be wider than the one measured here
            base.mark_text(dy=-14, align="left", fontSize=12, color=INK, limit=width * 0.75).encode(
                x=alt.XValue(0), text=alt.Text("name:N")
            ),
        ).properties(height=56 * len(names))

    return picture(label, draw)


def dimensions_chart(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], axis: str, label: str
) -> Picture:
    """Quality by number of dimensions, a line a system.

    Args:
        rows: ``dimension, role, value``.
    """

    def draw(width: int) -> Any:
        import altair as alt

        roles = [role for role in names if any(row["role"] == role for row in rows)]
        dimensions = sorted({row["dimension"] for row in rows})
        data = alt.Data(
            values=[
                {**row, "name": names[row["role"]], "shown": score(row["value"])} for row in rows
            ]
        )
        values = [row["value"] for row in rows]
        room = max((max(values) - min(values)) * 0.25, 0.02)
        scale = alt.Scale(domain=[max(0, min(values) - room), max(values) + room], nice=False)
        base = alt.Chart(data).encode(
            x=alt.X("dimension:O", sort=dimensions, title=axis, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title="nDCG@10", scale=scale),
            color=_by_role(roles, names),
        )
        return alt.layer(
            base.mark_line(strokeWidth=2),
            base.mark_point(filled=True, size=70, opacity=1).encode(shape=_shapes(roles, names)),
            base.mark_text(dy=-12, fontSize=11).encode(
                text=alt.Text("shown:N"), color=alt.ColorValue(MUTED)
            ),
        ).properties(height=240)

    return picture(label, draw)


def wins_chart(deltas: Sequence[float], axes: tuple[str, str], label: str) -> Picture:
    """Differences of all queries, sorted: gains above the line, losses below."""
    ordered = sorted(deltas)
    step = max(1.0, len(ordered) / POINTS)
    picked = [ordered[int(number * step)] for number in range(int(len(ordered) / step))]
    picked[-1] = ordered[-1]
    width_of_one = len(ordered) / len(picked)

    def draw(width: int) -> Any:
        import altair as alt

        rows = [
            {"x": number * width_of_one, "to": (number + 1) * width_of_one,
             "gain": max(delta, 0), "loss": min(delta, 0)}
            for number, delta in enumerate(picked)
        ]  # fmt: skip
        rows.append({**rows[-1], "x": rows[-1]["to"]})  # closes the last step
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("x:Q", title=axes[0], scale=alt.Scale(domain=[0, len(ordered)], nice=False),
                    axis=alt.Axis(grid=False, tickMinStep=1, format="d")),
        )  # fmt: skip
        y = alt.Scale(domain=[min(-0.1, ordered[0]), max(0.1, ordered[-1])], nice=True)
        zero = alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(color=MUTED)
        return alt.layer(
            base.mark_area(interpolate="step-after", color=CANDIDATE).encode(
                y=alt.Y("gain:Q", title=axes[1], scale=y)
            ),
            base.mark_area(interpolate="step-after", color=RIVAL).encode(
                y=alt.Y("loss:Q", title=axes[1], scale=y)
            ),
            zero.encode(y=alt.Y("at:Q", title=axes[1], scale=y)),
        ).properties(height=200)

    return picture(label, draw)


def curve_chart(
    points: Sequence[tuple[float, float]], axis: str, label: str,
    *, mark: float | None = None, line: tuple[float, str] | None = None, whole: bool = True,
) -> Picture:  # fmt: skip
    """A value over training steps.

    Args:
        axis: What the steps are called.
        points: (step, value), ordered.
        mark: The step whose point is made larger (the best checkpoint).
        line: A level to compare with, and what it is called.
        whole: Steps are whole numbers.
    """
    every = -(-len(points) // POINTS)
    thinned = [
        point
        for number, point in enumerate(points)
        if number % every == 0 or number == len(points) - 1 or point[0] == mark
    ]

    def draw(width: int) -> Any:
        import altair as alt

        values = [value for _, value in thinned] + ([line[0]] if line else [])
        room = max((max(values) - min(values)) * 0.15, 0.005)
        scale = alt.Scale(domain=[max(0, min(values) - room), max(values) + room], nice=False)
        y = alt.Y("value:Q", title=None, scale=scale)
        rows = [{"step": step, "value": value} for step, value in thinned]
        whole_steps = {"tickMinStep": 1, "format": "d"} if whole else {}
        steps = alt.Axis(grid=False, **whole_steps)
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("step:Q", title=axis, axis=steps), y=y
        )
        layers = [base.mark_line(strokeWidth=2, color=CANDIDATE)]
        if len(thinned) <= 40:
            layers.append(base.mark_point(filled=True, size=35, opacity=1, color=CANDIDATE))
        best = [row for row in rows if row["step"] == mark]
        if best:
            layers.append(
                alt.Chart(alt.Data(values=[{**best[0], "shown": score(best[0]["value"])}]))
                .mark_point(filled=True, size=140, opacity=1, color=CANDIDATE, shape="diamond")
                .encode(x=alt.X("step:Q"), y=y)
            )
        if line:
            level = alt.Chart(alt.Data(values=[{"value": line[0], "step": 0, "name": line[1]}]))
            layers.append(level.mark_rule(color=BASE, strokeDash=[5, 4]).encode(y=y))
            layers.append(
                level.mark_text(align="right", dx=-4, dy=9, fontSize=11, color=MUTED).encode(
                    x=alt.XValue("width"), y=y, text=alt.Text("name:N")
                )
            )
        return alt.layer(*layers).properties(height=170)

    return picture(label, draw)


def lengths_chart(
    bars: Sequence[tuple[int, int, int]], limit: int, axes: tuple[str, str], line: str, label: str
) -> Picture:
    """How long texts are, and where the model stops reading.

    Args:
        bars: (from, to, texts); the last one may be much wider and is drawn like the others.
        limit: What is longer is drawn in another colour, beyond a line that says ``line``.
    """

    def draw(width: int) -> Any:
        import altair as alt

        step = bars[0][1] - bars[0][0]
        rows = [
            {"from": first, "to": first + step, "texts": texts, "zero": 0, "cut": first >= limit}
            for first, _, texts in bars
        ]
        end = max(rows[-1]["to"], limit)
        most = max(row["texts"] for row in rows)
        x = alt.Scale(domain=[0, end * 1.02], nice=False)
        axis = alt.Axis(grid=False, tickMinStep=1, format="d")
        y = alt.Y("texts:Q", title=axes[1], scale=alt.Scale(domain=[0, max(1, most) * 1.12]),
                  axis=alt.Axis(tickMinStep=1, format="d"))  # fmt: skip
        base = alt.Chart(alt.Data(values=rows)).mark_rect().encode(
            x=alt.X("from:Q", title=axes[0], scale=x, axis=axis), x2=alt.X2("to:Q"),
            y=y, y2=alt.Y2("zero:Q"),
            color=alt.condition("datum.cut", alt.value(RIVAL), alt.value(CANDIDATE)),
        )  # fmt: skip
        edge = alt.Chart(alt.Data(values=[{"from": limit, "texts": most * 1.06, "name": line}]))
        right = limit < end * 0.6
        return alt.layer(
            base,
            edge.mark_rule(color=MUTED, strokeDash=[4, 3]).encode(
                x=alt.X("from:Q", title=axes[0], scale=x, axis=axis)
            ),
            edge.mark_text(
                align="left" if right else "right", dx=6 if right else -6, fontSize=12, color=INK
            ).encode(
                x=alt.X("from:Q", title=axes[0], scale=x, axis=axis), y=y, text=alt.Text("name:N")
            ),
        ).properties(height=180)

    return picture(label, draw)


def counts_chart(rows: Sequence[tuple[str, int]], label: str) -> Picture:
    """How many there are of each kind, a bar a kind, in the order given."""

    def draw(width: int) -> Any:
        import altair as alt

        names = distinct([name for name, _ in rows])
        data = alt.Data(
            values=[
                {"name": name, "count": count, "shown": f"{count:,}"}
                for name, (_, count) in zip(names, rows, strict=True)
            ]
        )
        most = max((count for _, count in rows), default=1)
        base = alt.Chart(data).encode(
            x=alt.X("count:Q", title=None, axis=None,
                    scale=alt.Scale(domain=[0, max(1, most) * 1.25], nice=False)),
            y=alt.Y("name:N", sort=names, title=None, scale=alt.Scale(paddingInner=0.25),
                    axis=alt.Axis(grid=False, labelLimit=width * 0.4, ticks=False, domain=False)),
        )  # fmt: skip
        return alt.layer(
            base.mark_bar(color=CANDIDATE),
            base.mark_text(align="left", dx=6, fontSize=12, color=MUTED).encode(
                text=alt.Text("shown:N")
            ),
        ).properties(height=24 * len(rows))

    return picture(label, draw)


def _by_role(roles: Sequence[str], names: Mapping[str, str]) -> Any:
    import altair as alt

    colours = {"base": BASE, "candidate": CANDIDATE, "rival": RIVAL}
    domain = [names[role] for role in roles]
    return alt.Color(
        "name:N",
        legend=None,  # the page has one, which wraps on a phone
        scale=alt.Scale(domain=domain, range=[colours[role] for role in roles]),
    )


def _shapes(roles: Sequence[str], names: Mapping[str, str]) -> Any:
    import altair as alt

    shapes = {"base": "circle", "candidate": "diamond", "rival": "square"}
    domain = [names[role] for role in roles]
    return alt.Shape(
        "name:N",
        legend=None,
        scale=alt.Scale(domain=domain, range=[shapes[role] for role in roles]),
    )
