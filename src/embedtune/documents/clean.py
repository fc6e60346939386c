"""Text made fit for tokenizers and JSON, what was changed counted; and what of a text counts."""

import re
import unicodedata
from typing import NamedTuple

# Characters that look like an ideograph and are encoded as a radical: some PDF writers use them
# for the ideograph itself. U+2F00 to U+2FD5 decompose by NFKC; these have no decomposition
# (Unicode EquivalentUnifiedIdeograph.txt).
_SUPPLEMENT = dict(
    zip(
        "⺁⺄⺅⺆⺈⺉⺊⺋⺌⺎⺏⺑⺒⺓⺔⺕⺗⺘⺙⺛⺜⺝⺞⺟⺠⺡⺢⺣⺤⺥⺦⺨⺫⺬⺭⺮⺯⺰⺱⺲⺳⺷⺹⺺⺻⺽⺾⺿"
        "⻀⻁⻂⻃⻄⻅⻆⻇⻈⻉⻋⻌⻍⻎⻏⻐⻑⻒⻓⻔⻖⻗⻘⻙⻚⻛⻜⻝⻟⻠⻢⻣⻤⻥⻦⻧⻨⻩⻪⻫⻬⻭⻮⻯⻰⻱⻲⻳",
        "厂乙亻冂⺈刂卜㔾小兀尣尢巳幺彑彐⺗扌攵旡日月歹母民氵氺灬爫爫丬犭罒示礻⺮糹纟罓罒网⺷耂肀聿臼艹艹"
        "艹虎衤覀西见角角讠贝车辶辶辶阝钅長镸长门阝雨青韦页风飞食飠饣马骨鬼鱼鸟卤麦黄黾斉齐歯齿竜龙龜亀龟",
        strict=True,
    )
)
RADICALS = str.maketrans(
    {
        **{chr(c): unicodedata.normalize("NFKC", chr(c)) for c in range(0x2F00, 0x2FD6)},
        **_SUPPLEMENT,
    }
)
_HAS_RADICAL = re.compile("[\u2e80-\u2fdf]")
_BROKEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff]")
_MARK = "\ufeff"
LONGEST_PAGE_NUMBER = 40  # characters
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|p\.|第)?\s*\d+\s*页?(?:\W*(?:of|共)?\s*\d+\s*页?)?\W*", re.IGNORECASE
)


class Cleaned(NamedTuple):
    text: str
    removed: int  # byte-order marks inside the text
    replaced: int  # control characters and lone surrogates, now U+FFFD


def clean(text: str) -> Cleaned:
    """Line ends and form feeds as ``\\n``, control characters as U+FFFD, radicals as ideographs."""
    text = re.sub("\r\n?|\x0c|\x85", "\n", text)
    removed = text.count(_MARK)
    if removed:
        text = text.replace(_MARK, "")
    text, replaced = _BROKEN.subn("\ufffd", text)
    return Cleaned(map_radicals(text), removed, replaced)


def map_radicals(text: str) -> str:
    """Kangxi and supplement radicals as the ideographs they stand for; lengths stay the same."""
    return text.translate(RADICALS) if _HAS_RADICAL.search(text) else text


def useful_characters(text: str) -> int:
    """Letters and digits; those of Chinese, Japanese and Korean count twice."""
    return sum((ord(character) >= 0x2E80) + 1 for character in text if character.isalnum())


def has_content(text: str) -> bool:
    """Whether there is any letter that is not of a page number (Page 3 of 9, 第 3 页).

    Texts without a letter all get the same vector, and page numbers very nearly so.
    """
    place = 0
    while place < len(text):
        letter = next((at for at in range(place, len(text)) if text[at].isalpha()), len(text))
        if letter == len(text):
            return False
        begin = text.rfind("\n", 0, letter) + 1
        place = text.find("\n", letter) % (len(text) + 1)  # the end of the text for -1
        short = place - begin <= LONGEST_PAGE_NUMBER
        if not (short and _PAGE_NUMBER.fullmatch(text, begin, place)):
            return True
    return False
