"""Drawing: a chart's grammar (altair) to SVG (vl-convert) that holds only shapes and text.

No browser, no script. Each chart is drawn twice, for a desktop and for a phone, since scaled text
cannot be read; the style sheet shows one of them. Colours are fixed words of a small palette (Okabe
and Ito's blue and vermilion with grey, told apart by shape too), which the style sheet exchanges in
the dark.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from zlib import crc32

from embedtune.report.render import cut, shown

# repeated in report.css, where the dark scheme exchanges them
BASE, CANDIDATE, RIVAL = "#767d88", "#0068a8", "#c05200"
INK, MUTED, GRID = "#1f2933", "#5d6673", "#dfe3e8"
# of kinds without an order, readable on white and on black (Tol's bright scheme, less its grey)
KINDS = ("#4477aa", "#ee6677", "#228833", "#b89b1b", "#66ccee", "#aa3377")
WIDE, NARROW = 776, 330

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {"svg", "g", "path", "text", "tspan", "rect", "line", "circle", "defs", "clipPath",
            "title"}  # fmt: skip
LONG = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")  # numbers with more digits than pixels need
ATTRIBUTES = {
    *("class", "id", "version", "viewBox", "width", "height", "d", "transform", "clip-path"),
    *("x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "r", "cx", "cy"),
    *("fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray"),
    *("stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "opacity"),
    *("font-family", "font-size", "font-weight", "font-style", "text-anchor"),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One chart: SVG text for wide and narrow screens, and the same in words.

    ``narrow`` is empty where one picture serves both. ``legend``: (shape, colour, name), of shapes
    circle, diamond, square or triangle.
    """

    wide: str
    narrow: str
    label: str
    legend: tuple[tuple[str, str, str], ...] = ()


def distinct(names: Sequence[str]) -> list[str]:
    """Names fit for an axis: short, visible, and no two alike."""
    labels: list[str] = []
    for name in names:
        label = plain = cut(name, 60).replace("\n", " ")
        number = 2
        while label in labels:
            label, number = f"{plain} ({number})", number + 1
        labels.append(label)
    return labels


def picture(
    label: str,
    draw: Callable[[int], Any],
    *,
    legend: Sequence[tuple[str, str, str]] = (),
    widths: Sequence[int] = (WIDE, NARROW),
) -> Picture:
    """A chart at one width or two; ``draw`` makes the grammar for a width. Its channels are made as
    such (``alt.Text("name:N")``): for a mere string altair looks through all of its schema."""
    label = shown(label)
    drawn = [_svg(draw(width), width, label) for width in widths]
    named = tuple((shape, colour, cut(name, 60)) for shape, colour, name in legend)
    return Picture(drawn[0], drawn[1] if len(drawn) > 1 else "", label, named)


def _svg(chart: Any, width: int, label: str) -> str:
    """The chart as SVG that holds only shapes and text, its own ids, and its label."""
    import altair as alt
    import vl_convert

    spec = _visible(chart.to_dict(validate=False))
    spec["width"] = width
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec["background"] = None
    spec["padding"] = {"left": 6, "right": 10, "top": 4, "bottom": 2}
    spec["config"] = {
        "aria": "description" in spec.get("encoding", {}),  # of its marks, see below
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {"labelColor": MUTED, "labelFontSize": 12, "titleColor": MUTED, "titleFontSize": 12,
                 "titleFontWeight": "normal", "titlePadding": 8, "gridColor": GRID,
                 "domainColor": GRID, "tickColor": GRID},
        "axisX": {"tickCount": 6, "labelOverlap": True},
        "axisY": {"tickCount": 5},
    }  # fmt: skip
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
    root = ElementTree.fromstring(drawn)
    prefix = f"c{crc32((drawn + label).encode()):x}-"
    _only_shapes(root, prefix)
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _visible(value: Any) -> Any:  # JSON in, JSON out
    """Every text of a chart without hidden characters: a NUL makes vl-convert abort the process."""
    if isinstance(value, dict):
        return {key: _visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_visible(item) for item in value]
    return shown(value) if isinstance(value, str) else value


def _only_shapes(element: ElementTree.Element, prefix: str) -> None:
    """Drop all that is not a shape or text, and make the ids unique on the page. What a mark's
    ``description`` says becomes its title, which a browser shows over it."""
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(SVG) not in ELEMENTS:
            element.remove(child)
        else:
            _only_shapes(child, prefix)
    said = element.attrib.pop("aria-label", "")
    if said and element.get("aria-roledescription") == "point":
        ElementTree.SubElement(element, f"{SVG}title").text = said
    for name, value in list(element.attrib.items()):
        if name not in ATTRIBUTES:
            del element.attrib[name]
        elif name == "id":
            element.set(name, prefix + value)
        elif name == "clip-path":
            element.set(name, re.sub(r"^url\(#(.*)\)$", rf"url(#{prefix}\1)", value))
        elif name == "transform":
            element.set(name, LONG.sub(lambda number: f"{float(number[0]):.2f}", value))
