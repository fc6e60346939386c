"""Whether an answer rests on its passage: its numbers, its names, and most of its words.

An answer may say things in its own words; what it may not do is bring facts along. So numbers are
compared by value (12,000, 一万二千 and "twelve thousand" are one), names by their letters, and of
the other content words half must be known.
"""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from embedtune.language import HAN, language_of
from embedtune.queries.terms import STOPWORDS, terms_of

LONGEST_ANSWER = 1000  # characters
WORD = re.compile(rf"(?:(?![{HAN}])[^\W_])+")  # Chinese is not written in words
NAME = re.compile(r"(?<![A-Za-z\u00c0-\u024f\d])[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f\d]*")
KNOWN = 0.5  # share of an answer's content words that passage or query must hold

# Signs and units that stand for each other, within a language and across.
SAME = [
    line.split()
    for line in """
        € euro eur 欧元
        $ dollar usd 美元
        £ pound gbp 英镑
        ¥ ￥ 元 yuan rmb cny 人民币
        % percent 百分之
        kg kilogram 公斤 千克
        km kilometre kilometer 公里 千米
        metre meter 米
        cm centimetre centimeter 厘米
        mm millimetre millimeter 毫米
        kw kilowatt 千瓦
        hour 小时
        minute 分钟
        year 年 周岁 岁
        month 月
        week 周 星期
        day 日 天
    """.strip().splitlines()
]
MONTHS = """january february march april may june july august september october november
    december""".split()  # noqa: SIM905
NO_FACT = frozenset(
    """
    yes no true false need needs needed least most only about approximately up per
    是 否 不 对 是的 不是 可以 不能 不会 不可 需要 不用 无需 至少 最多 最多能 最少 大约 约 共 截至
    左右
    """.split()  # noqa: SIM905
)


def unsupported(answer: str, passage: str, query: str = "") -> str:
    """What ``answer`` says that neither ``passage`` nor ``query`` does, in words; else ""."""
    answer, known = _plain(answer), _Known(_plain(f"{passage}\n{query}"))
    mentions = list(_mentions(answer, strict=True))
    for mention in mentions:
        if not known.number(mention):
            return f"the number {mention.shown}"
    for name in _names(answer):
        if not (known.word(name.casefold()) or known.month(name.casefold())):
            return f"the name {name}"
    spelled = language_of(answer) in ("en", "zh")  # the others' words are not told apart
    terms = [
        term
        for term in dict.fromkeys(terms_of(answer) if spelled else ())
        if term not in NO_FACT and not MENTION.fullmatch(term) and any(map(str.isalpha, term))
    ]
    missing = [term for term in terms if not known.term(term)]
    # one strange word beside a number that is right is a manner of speaking
    if len(terms) - len(missing) < KNOWN * len(terms) and len(missing) > bool(mentions):
        return f"most of its words ({', '.join(missing[:5])})"
    return ""


def _plain(text: str) -> str:
    """Width and the spelling of a thousand evened out."""
    text = unicodedata.normalize("NFKC", text)
    return re.sub(r"(?<=\d)[,'’](?=\d{3}(?!\d))", "", text)


class _Known:
    """What a text says, to be asked for one thing after the other."""

    def __init__(self, text: str) -> None:
        self._joined = "".join(text.casefold().split())
        self._words = set(WORD.findall(text.casefold()))
        self._stems = {word[: _stem(word)] for word in self._words}
        for group in SAME:
            if any(self.term(name) for name in group):
                self._words |= set(group)
                self._stems |= {name[: _stem(name)] for name in group}
                self._joined += " " + " ".join(group)
        self._values = {
            value
            for mention in _mentions(text, strict=False)
            for value in (mention.value, mention.scaled)
        }

    def number(self, mention: "_Mention") -> bool:
        """By value; "26,974 million" also where the passage says "in millions" elsewhere."""
        return mention.scaled in self._values or (
            mention.value in self._values and mention.scale in self._joined
        )

    def month(self, name: str) -> bool:
        return name in MONTHS and Decimal(MONTHS.index(name) + 1) in self._values

    def word(self, word: str) -> bool:
        return word in self._words or word[: _stem(word)] in self._stems

    def term(self, term: str) -> bool:
        if not re.search(r"[^\W_]", term):  # a sign
            return term in self._joined
        if term.isascii():
            return all(map(self.word, WORD.findall(term)))
        # another cut of the same Chinese: each two neighbours stand in the passage
        return term in self._joined or (
            len(term) > 2 and all(term[i : i + 2] in self._joined for i in range(len(term) - 1))
        )


# ---- words


def _names(text: str) -> Iterator[str]:
    """Words of Latin letters with a capital or a digit, but for those that open a sentence."""
    for match in NAME.finditer(text):
        word, before = match[0], text[: match.start()].rstrip(" \t\n\"“'‘([*#>-")
        if len(word) < 2 or word.casefold() in STOPWORDS:
            continue
        opens = not before or before[-1] in ".!?。！？:："
        inner = word[1:] != word[1:].lower() or any(map(str.isdigit, word))
        if inner or (word[0].isupper() and not opens):
            yield word


def _stem(word: str) -> int:
    """How many letters of a word tell it apart: endings are left out."""
    return len(word) if any(map(str.isdigit, word)) else max(4, len(word) - 3)


# ---- numbers

ENGLISH = {
    word: value
    for value, word in (
        *enumerate(
            """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
            fifteen sixteen seventeen eighteen nineteen""".split()  # noqa: SIM905
        ),
        *zip(
            range(20, 100, 10),
            "twenty thirty forty fifty sixty seventy eighty ninety".split(),  # noqa: SIM905
            strict=True,
        ),
    )
}
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
    "百": 100, "千": 1000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
HAN_DIGITS = {
    **{sign: number for number, sign in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2,
}  # fmt: skip
HAN_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
MEASURES = tuple("年月日天周岁元条款项章节倍名人个位小秒米克吨公厘毫度页卷%")

_WORDS = "|".join([*ENGLISH, "hundred", "thousand", "million", "billion"])
_HAN = "".join(HAN_DIGITS) + "".join(HAN_UNITS)
MENTION = re.compile(
    r"(?P<digits>(?<![A-Za-z\d.])\d+(?:\.\d+)?)\s*"
    r"(?P<scale>hundred|thousand|million|billion|[百千万亿])?"
    rf"|(?P<words>(?<![^\W_])(?:{_WORDS})(?:[\s-]+(?:and\s+)?(?:{_WORDS}))*(?![^\W_]))"
    rf"|百分之(?P<percent>[{_HAN}]+)|(?P<han>[{_HAN}]+)",
    re.IGNORECASE,
)


class _Mention(NamedTuple):
    """A number as written: 26.97 and, in "26.97 billion", the scale."""

    shown: str
    value: Decimal
    scale: str = ""

    @property
    def scaled(self) -> Decimal:
        return self.value * SCALES.get(self.scale, 1)


def _mentions(text: str, *, strict: bool) -> Iterator[_Mention]:
    """The numbers in a text. ``strict`` leaves out what mostly is none: 统一, 千万, "one of"."""
    for match in MENTION.finditer(text):
        shown = match[0].strip()
        if match["digits"]:
            yield _Mention(shown, Decimal(match["digits"]), (match["scale"] or "").lower())
        elif match["words"]:
            value = _english(match["words"].lower())
            if not (strict and value == 1):
                yield _Mention(shown, value)
        elif match["percent"]:
            yield _Mention(shown, _chinese(match["percent"]))
        else:
            measured = text.startswith(MEASURES, match.end())
            counted = len(shown) > 1 and not HAN_DIGITS.keys().isdisjoint(shown)
            if not strict or counted or (measured and shown != "一"):
                yield _Mention(shown, _chinese(shown))


def _english(words: str) -> Decimal:
    total = part = 0
    for word in re.findall(r"[a-z]+", words):
        if word in ENGLISH:
            part += ENGLISH[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in SCALES:
            total, part = total + max(part, 1) * SCALES[word], 0
    return Decimal(total + part)


def _chinese(signs: str) -> Decimal:
    if len(signs) > 1 and HAN_UNITS.keys().isdisjoint(signs):
        return Decimal("".join(str(HAN_DIGITS[sign]) for sign in signs))  # 二〇二四
    total = section = digit = 0
    for sign in signs:
        if sign in HAN_DIGITS:
            digit = HAN_DIGITS[sign]
        elif HAN_UNITS[sign] >= 10**4:
            total = (total + section + digit) * HAN_UNITS[sign]
            section = digit = 0
        else:
            section, digit = section + max(digit, 1) * HAN_UNITS[sign], 0
    return Decimal(total + section + digit)
