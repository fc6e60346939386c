"""The labels of numbered paragraphs in a Word document: 第十二条, 2.1, (a).

Word works them out when it shows the page, they are not in the text; but people ask for them, and
the sections of a statute are told by them. ECMA-376 part 1, 17.9.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.etree import _Element

LEVELS = 9
BULLET = ""


@dataclass(frozen=True, slots=True)
class _Level:
    start: int = 1
    format: str = "decimal"
    text: str = ""  # "%1.%2"
    legal: bool = False  # all numbers in it are shown as 1, 2, 3
    suffix: str = " "


@dataclass(slots=True)
class _List:
    """A definition (abstractNum) with its counters."""

    levels: dict[int, _Level] = field(default_factory=dict)
    style_levels: dict[str, int] = field(default_factory=dict)  # paragraph style -> level
    counters: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Use:
    """A list in the document (num): a definition, some of its levels changed."""

    definition: _List
    changed: dict[int, _Level]
    starts: dict[int, int]


class Numbering:
    """Counts as Word does; paragraphs must be asked for in the order of the text."""

    def __init__(self, numbering: "_Element | None", styles: "_Element | None") -> None:
        self._styles = {} if styles is None else {
            style.get(_w(style, "styleId"), ""): style for style in styles.iterfind("{*}style")
        }  # fmt: skip
        self._uses: dict[str, _Use] = {}
        self._started: set[tuple[str, int]] = set()
        if numbering is not None:
            self._read(numbering)

    def _read(self, root: "_Element") -> None:
        definitions: dict[str, _List] = {}
        links: dict[str, str] = {}  # definition -> the numbering style it stands for
        by_style: dict[str, str] = {}
        for item in root.iterfind("{*}abstractNum"):
            number = item.get(_w(item, "abstractNumId"), "")
            definitions[number] = known = _List()
            for level in item.iterfind("{*}lvl"):
                place = _number(level.get(_w(level, "ilvl")))
                known.levels[place] = _level(level)
                if style := _value(level, "pStyle"):
                    known.style_levels.setdefault(style, place)
            if link := _value(item, "numStyleLink"):
                links[number] = link
            if link := _value(item, "styleLink"):
                by_style[link] = number
        for item in root.iterfind("{*}num"):
            number = _value(item, "abstractNumId")
            number = by_style.get(links.get(number, ""), number)
            changed, starts = {}, {}
            for override in item.iterfind("{*}lvlOverride"):
                place = _number(override.get(_w(override, "ilvl")))
                if (level := override.find("{*}lvl")) is not None:
                    changed[place] = _level(level)
                if start := _value(override, "startOverride"):
                    starts[place] = _number(start)
            known = definitions.setdefault(number, _List())
            self._uses[item.get(_w(item, "numId"), "")] = _Use(known, changed, starts)

    def label(self, paragraph: "_Element") -> tuple[int, str] | None:
        """(level, label) of the next paragraph, the label ``BULLET`` for a bullet.

        None where it has no number. The label ends with the space that follows it, if any.
        """
        place = self._place(paragraph)
        if place is None:
            return None
        number, depth = place
        use = self._uses[number]
        levels = {**use.definition.levels, **use.changed}
        level = levels.get(depth, _Level(format="bullet"))
        if level.format == "bullet":
            return depth, BULLET
        counters = use.definition.counters
        if depth in use.starts and (number, depth) not in self._started:
            self._started.add((number, depth))
            counters[depth] = use.starts[depth]
        else:
            counters[depth] = counters[depth] + 1 if depth in counters else level.start
        for deeper in [known for known in counters if known > depth]:
            del counters[deeper]

        def shown(match: re.Match[str]) -> str:
            other = int(match[1]) - 1
            kind = levels.get(other, _Level())
            form = "decimal" if level.legal else kind.format
            return _FORMATS.get(form, str)(counters.get(other, kind.start))

        text = re.sub(r"%([1-9])", shown, level.text)
        return depth, (text + level.suffix) or " "

    def _place(self, paragraph: "_Element") -> tuple[str, int] | None:
        """Number of the list and level, from the paragraph or from its style."""
        properties = paragraph.find("{*}pPr")
        if properties is None:
            return None
        number = _value(properties, "numPr/{*}numId")
        depth = _value(properties, "numPr/{*}ilvl")
        style = _value(properties, "pStyle")
        seen: set[str] = set()
        first = style
        while style in self._styles and style not in seen and not (number and depth):
            seen.add(style)
            element = self._styles[style]
            number = number or _value(element, "pPr/{*}numPr/{*}numId")
            depth = depth or _value(element, "pPr/{*}numPr/{*}ilvl")
            style = _value(element, "basedOn")
        if number not in self._uses:  # 0 takes the number of the style away
            return None
        levels = self._uses[number].definition.style_levels
        linked = next((levels[known] for known in (first, *seen) if known in levels), 0)
        return number, min(_number(depth) if depth else linked, LEVELS - 1)


def _level(element: "_Element") -> _Level:
    suffix = _value(element, "suff")
    return _Level(
        start=_number(_value(element, "start") or "1"),
        format=_value(element, "numFmt") or "decimal",
        text=_value(element, "lvlText"),
        legal=element.find("{*}isLgl") is not None,
        suffix="" if suffix == "nothing" else " ",
    )


def _w(element: "_Element", key: str) -> str:
    """An attribute name in the namespace of its element."""
    return f"{str(element.tag).rpartition('}')[0]}}}{key}"


def _value(element: "_Element", path: str) -> str:
    found = element.find(f"{{*}}{path}")
    return "" if found is None else found.get(_w(found, "val"), "")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 7 else 0


# ---- how numbers are written

_DIGITS = "零一二三四五六七八九"
_LEGAL = "零壹贰叁肆伍陆柒捌玖"


def _chinese(number: int, digits: str = _DIGITS, units: str = "十百千") -> str:
    """12 as 十二, 105 as 一百零五; from ten thousand on in digits."""
    if not 0 < number < 10_000:
        return str(number)
    text = ""
    for place, digit in enumerate(map(int, str(number)[::-1])):
        unit = units[place - 1] if place else ""
        text = (digits[digit] + unit if digit else digits[0]) + text
    text = re.sub(f"{digits[0]}+", digits[0], text).rstrip(digits[0])
    return text[1:] if text.startswith("一十") else text


def _roman(number: int) -> str:
    if not 0 < number < 4000:
        return str(number)
    text = ""
    for value, letters in (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
        (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
    ):  # fmt: skip
        text += letters * (number // value)
        number %= value
    return text


def _letter(number: int) -> str:
    """A, B … Z, AA, BB …"""
    if not 0 < number <= 780:
        return str(number)
    return chr(65 + (number - 1) % 26) * ((number - 1) // 26 + 1)


def _one_of(signs: str) -> Callable[[int], str]:
    return lambda number: signs[number - 1] if 0 < number <= len(signs) else str(number)


def _ordinal(number: int) -> str:
    last = 0 if number // 10 % 10 == 1 else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


_CIRCLED = "".join(map(chr, (*range(0x2460, 0x2474), *range(0x3251, 0x3260))))
_FORMATS: dict[str, Callable[[int], str]] = {
    "none": lambda _: "",
    "decimalZero": "{:02}".format,
    "upperRoman": _roman,
    "lowerRoman": lambda number: _roman(number).lower(),
    "upperLetter": _letter,
    "lowerLetter": lambda number: _letter(number).lower(),
    "ordinal": _ordinal,
    **dict.fromkeys(
        ("chineseCounting", "chineseCountingThousand", "japaneseCounting", "taiwaneseCounting",
         "taiwaneseCountingThousand", "koreanCounting", "japaneseLegal"), _chinese),
    "chineseLegalSimplified": lambda number: _chinese(number, _LEGAL, "拾佰仟"),
    "ideographTraditional": _one_of("甲乙丙丁戊己庚辛壬癸"),
    "ideographZodiac": _one_of("子丑寅卯辰巳午未申酉戌亥"),
    "decimalEnclosedCircle": _one_of(_CIRCLED),
    "decimalEnclosedCircleChinese": _one_of(_CIRCLED),
    "decimalFullWidth": lambda number: str(number).translate(
        {ord(digit): chr(ord(digit) + 0xFEE0) for digit in "0123456789"}
    ),
}  # fmt: skip
