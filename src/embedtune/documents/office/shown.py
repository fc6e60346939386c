"""Numbers and dates as a spreadsheet shows them: the value stored, the number format applied.

The parts of ECMA-376 part 1, 18.8.30 and 18.8.31 that change the words people would search for:
decimals, thousands, per cent, currency and other literals, negative and zero sections, dates, times
and durations. Colours, conditions and fractions are left out: the number is then shown plain.
"""

import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

GENERAL = "General"
ISO_DATE = "yyyy-mm-dd"  # for the formats that every system shows in its own way
BUILT_IN = {
    1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00",
    14: ISO_DATE, 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM",
    20: "h:mm", 21: "h:mm:ss", 22: f"{ISO_DATE} h:mm", 37: "#,##0;(#,##0)", 38: "#,##0;(#,##0)",
    39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)", 41: "#,##0;-#,##0;-",
    42: "#,##0;-#,##0;-", 43: "#,##0.00;-#,##0.00;-", 44: "#,##0.00;-#,##0.00;-", 45: "mm:ss",
    46: "[h]:mm:ss", 47: "mm:ss", 49: "@",
    # Chinese ones; they have no code of their own in a file
    **dict.fromkeys((27, 36, 50, 52, 57), "yyyy年m月"),
    **dict.fromkeys((28, 29, 51, 53, 54, 58), "m月d日"),
    31: "yyyy年m月d日", 32: "h时mm分", 33: "h时mm分ss秒", 34: "h时mm分", 35: "h时mm分ss秒",
    55: "h时mm分", 56: "h时mm分ss秒",
}  # fmt: skip
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PIECE = re.compile(r'"([^"]*)"?|\\(.)|_.|\*.|\[([^\]]*)\]|(.)', re.DOTALL)
_DATE = re.compile(
    r"yyyy|yy|mmmmm|mmmm|mmm|mm|m|dddd|ddd|dd|d|hh|h|ss|s|aaaa|aaa|am/pm|a/p|上午/下午|\.0+",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0#?,]*[0#?][0#?,]*(?:\.[0#?]*)?,*(?:E[+-][0#?]+)?|\.[0#?]+", re.IGNORECASE)
_LITERAL, _ELAPSED, _CODE = "literal", "elapsed", "code"


def shown(value: float, code: str = GENERAL, *, since_1904: bool = False) -> str:
    """``value`` in number format ``code``; dates count days from 1900, or from 1904.

    >>> shown(0.1234, "0.0%"), shown(-1234.5, "#,##0.00;(#,##0.00)"), shown(45352, "yyyy年m月d日")
    ('12.3%', '(1,234.50)', '2024年3月1日')
    """
    sections = _sections(code or GENERAL)
    number = 1 if value < 0 and len(sections) > 1 else 2 if value == 0 and len(sections) > 2 else 0
    pieces = sections[number]
    if _is_date(pieces):
        return _date(value, pieces, since_1904)
    return _number(abs(value) if number == 1 else value, pieces)


@lru_cache(maxsize=1000)
def _sections(code: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Per section its pieces: (kind, text), where kind is literal, elapsed or code."""
    sections: list[list[tuple[str, str]]] = [[]]
    for match in _PIECE.finditer(code):
        quoted, escaped, bracket, plain = match.groups()
        if plain == ";":
            sections.append([])
        elif plain:
            sections[-1].append((_CODE, plain))
        elif quoted or escaped:
            sections[-1].append((_LITERAL, quoted or escaped))
        elif bracket and re.fullmatch("h+|m+|s+", bracket, re.IGNORECASE):
            sections[-1].append((_ELAPSED, bracket.lower()))
        elif bracket and bracket.startswith("$"):
            if bracket.startswith("$-F"):  # the system's own date or time
                sections[-1] = [(_CODE, letter) for letter in ISO_DATE]
                break
            sections[-1].append((_LITERAL, bracket[1:].partition("-")[0]))
    return tuple(map(tuple, sections))


def _is_date(pieces: tuple[tuple[str, str], ...]) -> bool:
    letters = "".join(text for kind, text in pieces if kind == _CODE)
    if any(kind == _ELAPSED for kind, _ in pieces):
        return True
    return "general" not in letters.lower() and bool(
        re.search("[ymdhs]|aaa", letters, re.IGNORECASE)
    )


# ---- numbers


def _number(value: float, pieces: tuple[tuple[str, str], ...]) -> str:
    code = "".join(text for kind, text in pieces if kind == _CODE)
    masks = list(_NUMBER.finditer(code))
    if not pieces:
        return ""  # an empty section hides the value
    if (
        abs(value) >= 1e15
        or "@" in code
        or re.search("general", code, re.IGNORECASE)
        or "/" in code
    ):
        return _plain(value)
    if len(masks) > 1:  # digits with something between them, as telephone numbers
        return _plain(value)
    if not masks:
        return "".join(text for _, text in pieces)
    mask = masks[0]
    before, after, place = [], [], 0
    for kind, text in pieces:
        if kind == _CODE:
            place += 1
            if mask.start() < place <= mask.end():
                continue
        (before if place <= mask.start() else after).append(text)
    scale = code.count("%")
    digits = _masked(Decimal(repr(value)).scaleb(2 * scale), mask[0])
    sign = "-" if value < 0 and re.search("[1-9]", digits) else ""
    return f"{sign}{''.join(before).lstrip()}{digits}{''.join(after).rstrip()}"


def _masked(value: Decimal, mask: str) -> str:
    """The digits of a number without its sign."""
    mask, _, exponent = re.sub("[eE]", "E", mask).partition("E")
    whole, _, fraction = mask.partition(".")
    whole, trailing = whole.rstrip(","), len(whole) - len(whole.rstrip(","))
    fraction, trailing = fraction.rstrip(","), trailing + fraction.count(",")
    value = abs(value).scaleb(-3 * trailing)
    if exponent:
        return f"{value:.{len(fraction)}E}".replace("E+", "E+0" if value.adjusted() < 10 else "E+")
    rounded = value.quantize(Decimal(1).scaleb(-len(fraction)), ROUND_HALF_UP)
    left, _, right = f"{rounded:f}".partition(".")
    least = len(fraction.rstrip("#?"))
    while len(right) > least and right.endswith("0"):
        right = right[:-1]
    left = left.zfill(whole.count("0")) if left != "0" or "0" in whole or not right else ""
    if "," in whole:
        left = f"{int(left or 0):,}".zfill(len(left))
    return f"{left}.{right}" if right else left


def _plain(value: float) -> str:
    """A number without a format: all digits of a whole one, else ten."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".10g").replace("e", "E")


# ---- dates


def _date(value: float, pieces: tuple[tuple[str, str], ...], since_1904: bool) -> str:
    if any(kind == _ELAPSED for kind, _ in pieces):
        return _duration(value, pieces)
    start = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)
    if not since_1904 and 0 < value < 60:
        start += timedelta(days=1)  # the 29 February 1900 that never was
    try:
        moment = start + timedelta(seconds=round(value * 86400, 1))
    except (OverflowError, ValueError):
        return _plain(value)
    if not 0 <= value < 2958466:  # after the year 9999
        return _plain(value)
    tokens = _tokens(pieces)
    half = any(kind == _CODE and text in ("am/pm", "a/p", "上午/下午") for kind, text in tokens)
    return "".join(
        text if kind == _LITERAL else _date_part(moment, tokens, place, half)
        for place, (kind, text) in enumerate(tokens)
    ).strip()


def _tokens(pieces: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    run = ""
    for kind, text in (*pieces, (_LITERAL, "")):
        if kind == _CODE:
            run += text
            continue
        place = 0
        for match in _DATE.finditer(run):
            tokens += [(_LITERAL, run[place : match.start()]), (_CODE, match[0].lower())]
            place = match.end()
        tokens += [(_LITERAL, run[place:]), (kind, text)]
        run = ""
    return [(kind, text) for kind, text in tokens if text]


def _date_part(moment: datetime, tokens: list[tuple[str, str]], place: int, half: bool) -> str:
    token = tokens[place][1]
    hour = (moment.hour + 11) % 12 + 1 if half else moment.hour
    if token in ("m", "mm"):
        codes = [(number, text) for number, (kind, text) in enumerate(tokens) if kind != _LITERAL]
        before = [text for number, text in codes if number < place][-1:]
        after = [text for number, text in codes if number > place][:1]
        if (before and before[0][0] == "h") or (after and after[0][0] == "s"):
            return f"{moment.minute:0{len(token)}}"
    if token.startswith(".0"):
        return f".{moment.microsecond:06}"[: len(token)]
    return {
        "yyyy": f"{moment.year:04}", "yy": f"{moment.year % 100:02}",
        "mmmmm": _MONTHS[moment.month - 1][0], "mmmm": _MONTHS[moment.month - 1],
        "mmm": _MONTHS[moment.month - 1][:3], "mm": f"{moment.month:02}", "m": f"{moment.month}",
        "dddd": _DAYS[moment.weekday()], "ddd": _DAYS[moment.weekday()][:3],
        "dd": f"{moment.day:02}", "d": f"{moment.day}", "hh": f"{hour:02}", "h": f"{hour}",
        "ss": f"{moment.second:02}", "s": f"{moment.second}",
        "aaaa": "星期" + "一二三四五六日"[moment.weekday()],
        "aaa": "周" + "一二三四五六日"[moment.weekday()],
        "am/pm": "AM" if moment.hour < 12 else "PM", "a/p": "A" if moment.hour < 12 else "P",
        "上午/下午": "上午" if moment.hour < 12 else "下午",
    }[token]  # fmt: skip


def _duration(value: float, pieces: tuple[tuple[str, str], ...]) -> str:
    seconds = round(abs(value) * 86400)
    shown = []
    for kind, text in _tokens(pieces):
        if kind == _LITERAL:
            shown.append(text)
        elif kind == _ELAPSED:
            unit = {"h": 3600, "m": 60, "s": 1}[text[0]]
            shown.append(f"{seconds // unit:0{len(text)}}")
        elif text in ("m", "mm"):
            shown.append(f"{seconds // 60 % 60:0{len(text)}}")
        elif text in ("s", "ss"):
            shown.append(f"{seconds % 60:0{len(text)}}")
    return ("-" if value < 0 else "") + "".join(shown)
