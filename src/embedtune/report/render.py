"""From findings to HTML. Nothing reaches the page unescaped, whatever a document holds.

Every expression of the templates passes through ``shown`` and then through jinja2's own escaping,
by construction (``finalize``), so that no template can forget it. Only ``Markup`` that we made
ourselves (the charts) goes through as it is.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from embedtune.report.texts import Texts, teller

KEPT = "\n\t\u00a0\u3000\u2002\u2003\u2009\u202f"  # line breaks and spaces that do no harm
SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$])")
PASSAGE = 700  # characters of a passage that are shown


def shown(text: object) -> str:
    """``text`` with control, bidirectional, zero-width and other hidden characters as escapes.

    As ``files.visible``, but of any length, and line breaks stay.
    """
    plain = str(text).replace("\r\n", "\n").replace("\r", "\n")
    if plain.isprintable():
        return plain
    return "".join(
        character
        if character.isprintable() or character in KEPT
        else character.encode("unicode_escape").decode()
        for character in plain
    )


def cut(text: object, limit: int = PASSAGE) -> str:
    """``shown`` text of at most ``limit`` characters, an ellipsis at the end where it was cut."""
    seen = shown(str(text)[: limit + 1])
    return seen if len(seen) <= limit else seen[: limit - 1].rstrip() + "…"


def score(value: float | None) -> str:
    """Three decimals; a dash for what was not measured (never an invented zero)."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def signed(value: float | None) -> str:
    """``+0.120`` or ``−0.034``, with a real minus sign."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.3f}".replace("-", "−").replace("−0.000", "0.000").replace("+0.000", "0.000")


def chance(value: float | None) -> str:
    """A p-value: three decimals, ``< 0.001`` below."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands; other numbers as they are."""
    if value is None:
        return "–"
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else f"{value:g}"


def percent(value: float) -> str:
    return f"{value:.0%}".replace("%", "\u202f%")


def literal(text: str) -> str:
    """``text`` as a Python literal: JSON's quoting, hidden characters as Python escapes them."""
    return shown(json.dumps(str(text), ensure_ascii=False))


@cache
def environment(
    show: Callable[[object], str] = shown, *, autoescape: bool = True
) -> Any:  # jinja2.Environment; jinja2 is imported when a report is made
    """The templates' environment: strict about names, every value goes through ``show``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=PackageLoader("embedtune.report", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else show(value),
    )
    env.filters |= {
        "score": score,
        "signed": signed,
        "chance": chance,
        "number": count,
        "percent": percent,
        "cut": cut,
        "python": literal,
        "ours": Markup,  # only for the style sheet and the charts
    }
    return env


def markdown(text: object) -> str:
    """``text`` on one line, hidden characters shown, nothing in it read as Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", " ".join(cut(text, 600).split()))


def render_markdown(findings: Mapping[str, Any], texts: Texts) -> str:
    """The words and tables of the page as Markdown."""
    page = environment(markdown, autoescape=False).get_template("report.md.j2")
    text = page.render(
        **findings,
        t=teller(texts),
        stage=lambda name: texts.get(f"stage.{name}", name),
        word=lambda kind, name: texts.get(f"{kind}.{name}", name),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def render(findings: Mapping[str, Any], texts: Texts) -> str:
    """The page, from what ``build.py`` found (plain data, cases, pictures)."""
    env = environment()
    style, _, _ = env.loader.get_source(env, "report.css")
    return env.get_template("report.html.j2").render(
        **findings,
        t=teller(texts),
        stage=lambda name: texts.get(f"stage.{name}", name),
        word=lambda kind, name: texts.get(f"{kind}.{name}", name),
        style=style,
    )
