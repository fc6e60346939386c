"""Citations in an answer: only those of passages that were shown stay in it."""

import re
from collections.abc import Sequence

from embedtune.files import clean_text
from embedtune.language import HAN
from embedtune.retrieve.answer import Citation, Passage
from embedtune.retrieve.answer.prompts import NOT_FOUND

LONGEST_QUOTE = 240  # characters

# A number of four digits is a year. What stands in code is left alone, `names[0]` say.
_WORD = r"(?:passages?|sources?|段落|文段|来源|资料)?"
_INNER = rf"\^?{_WORD}[ ]?\d{{1,3}}(?:[ ]?[,，、;；–—-][ ]?\^?{_WORD}[ ]?\d{{1,3}}){{0,11}}"
GROUP = re.compile(rf"[ \t]*[\[【［][ ]?({_INNER})[ ]?[\]】］]", re.IGNORECASE)
# The end of a text that may yet become one of these.
_BEGUN = re.compile(r"(?:[ \t]*[\[【［][^\[\]【】［］\n`]{0,120}|[ \t]+|`+)\Z")
_PART = re.compile(rf"{GROUP.pattern}|`+|\n|{NOT_FOUND}", re.IGNORECASE)

SENTENCE = re.compile(r"[^。！？!?\n.]*(?:\.(?!\s|$)[^。！？!?\n.]*)*(?:[。！？!?.]+|\n|$)")
_TERM = re.compile(rf"[{HAN}]|(?:(?![{HAN}])[^\W_])+")


class CitationFilter:
    """Takes an answer piece by piece and gives it back with true citations only.

    Every citation comes out as ``[2]`` or ``[1][3]``. A number that no passage has is left out
    and kept in ``removed``; those that stay are in ``used``, in order of appearance.
    """

    def __init__(self, count: int) -> None:
        self.used: list[int] = []
        self.removed: list[int] = []
        self.refused = False  # whether the model said that the answer is not there
        self._count = count  # passages have the numbers 1 to this
        self._held = ""
        self._fence = 0  # backticks that opened the code we are in; 0 outside

    def feed(self, piece: str) -> str:
        """The text that is sure by now."""
        text = self._held + clean_text(piece)
        begun = _BEGUN.search(text)
        end = min(begun.start() if begun else len(text), _begins(NOT_FOUND, text))
        self._held = text[end:]
        return self._filtered(text[:end])

    def rest(self) -> str:
        """What was held back, when all has come."""
        text, self._held = self._held, ""
        return self._filtered(text)

    def _filtered(self, text: str) -> str:
        return _PART.sub(self._replacement, text)

    def _replacement(self, found: re.Match[str]) -> str:
        part = found[0]
        if part.startswith("`"):
            ticks = len(part)
            if not self._fence:
                self._fence = ticks
            elif ticks == self._fence or min(ticks, self._fence) >= 3:
                self._fence = 0
            return part
        if part == "\n":
            if self._fence < 3:  # no code within a line goes beyond it
                self._fence = 0
            return part
        if part.upper() == NOT_FOUND:
            self.refused = True
            return ""
        if self._fence:
            return part
        return self._cited(part, _numbers(found[1]))

    def _cited(self, part: str, numbers: Sequence[int]) -> str:
        true = [number for number in numbers if 1 <= number <= self._count]
        self.used += [number for number in true if number not in self.used]
        self.removed += [
            number for number in numbers if number not in true and number not in self.removed
        ]
        if not true:
            return ""
        blanks = part[: len(part) - len(part.lstrip())]
        return blanks + "".join(f"[{number}]" for number in true)


def _numbers(inner: str) -> list[int]:
    """``1, 3-5`` as 1, 3, 4, 5."""
    numbers: list[int] = []
    for part in re.split(r"[,，、;；]", inner):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        first, last = ends[0], ends[-1]
        numbers += range(first, last + 1) if 0 <= last - first < 20 else ends
    return list(dict.fromkeys(numbers))


def _begins(word: str, text: str) -> int:
    """Where a beginning of ``word`` stands at the end of ``text``; its length if nowhere."""
    for length in range(min(len(word) - 1, len(text)), 0, -1):
        if word.startswith(text[-length:].upper()):
            return len(text) - length
    return len(text)


def citations_in(text: str, used: Sequence[int], passages: Sequence[Passage]) -> list[Citation]:
    """The passages that a filtered answer names, in order of number, each with a quote."""
    claims: dict[int, list[str]] = {number: [] for number in used}
    before = ""
    for sentence in (match[0] for match in SENTENCE.finditer(text) if match[0].strip()):
        words = GROUP.sub("", sentence)
        # behind the full stop it belongs to what stands before it
        claim = words if _terms(words) else before
        for group in GROUP.finditer(sentence):
            for number in _numbers(group[1]):
                if number in claims:
                    behind = not _terms(sentence[: group.start()])
                    claims[number].append(before if behind and before else claim)
        before = claim
    by_number = {passage.number: passage for passage in passages}
    return [
        Citation(number, own.chunk, own.score, quote_for(" ".join(claims[number]), body_of(own)))
        for number, own in sorted((number, by_number[number]) for number in used)
    ]


def body_of(passage: Passage) -> str:
    """Its text without the title before it."""
    return passage.text.removeprefix(passage.chunk.title).strip() or passage.text


def quote_for(claim: str, passage: str) -> str:
    """The sentence of ``passage`` with most words of ``claim`` for its length, word for word; the
    first of equals. A long one is cut."""
    wanted = _terms(claim)
    best, most = "", -1.0
    for match in SENTENCE.finditer(passage):
        sentence = match[0].strip()
        terms = _terms(sentence)
        if not terms or sentence.startswith("#"):  # a heading says nothing
            continue
        fit = len(terms & wanted) / (4 + len(terms)) ** 0.5
        if fit > most:
            best, most = sentence, fit
    return shortened(best or passage.strip())


def shortened(quote: str) -> str:
    """Whole, or as much as a quote may hold."""
    return quote if len(quote) <= LONGEST_QUOTE else quote[: LONGEST_QUOTE - 1].rstrip() + "…"


def _terms(text: str) -> frozenset[str]:
    """Words, and pairs of neighbours in Chinese."""
    found: set[str] = set()
    words = _TERM.findall(text.lower())
    for one, other in zip(words, words[1:] + words[:1], strict=True):
        if len(one) > 1 or one.isascii():
            found.add(one)
        elif len(other) == 1 and not other.isascii():
            found.add(one + other)
    return frozenset(found)
