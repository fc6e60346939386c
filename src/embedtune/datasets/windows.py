"""Texts as windows over their letters, and which windows stand in how many texts.

A window is 16 letters or digits, or 8 ideographs, without what stands between them: long enough
that unrelated texts share few, short enough to outlive an edit every ten words. There is no
tokenizer, so Chinese is read as well as English.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedtune.language import HAN

Numbers = npt.NDArray[np.int64]

SPAN = 16  # weight of a window: a letter or digit weighs 1, an ideograph 2
RARE = 12  # a window in no more texts than this links all of them
LINKED = 0.10  # share of the rare windows of the smaller text that makes a pair worth a look
PAIRED = 50  # and a pair of words of a short text
ALIKE = 0.50  # share of the pairs of words of the shorter text
PLACES = 8  # of a text, whose rarest windows link it too, however often they recur …
POSTINGS = 500  # … up to this
THERE = 0.60  # share of those places that another text holds too
MOST_MET = 16  # texts met that way

NUMBER = re.compile(r"(?<![A-Za-z\d])(?:[A-Za-z]+-?)?\d[A-Za-z\d]*(?:[-.,:/]\d+)*")  # and codes
NAME = re.compile(r"(?<=[^\W\d_A-Z] )[A-ZÀ-ÖØ-ÞА-Я][^\W_]*|(?<=[\d,;)] )[A-ZÀ-ÖØ-ÞА-Я][^\W_]*")
NUMERAL = re.compile("[〇零一二三四五六七八九十百千万亿两]{2,}")
LATIN = re.compile(r"[A-Za-z\d]+(?:[-.,:/]\d+)*")  # amid ideographs
CJK = rf"{HAN}\u3041-\u30ff\uac00-\ud7a3"
WORD = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+")
SHORT = 64  # weight under which a text is compared by its words: windows say too little
QUESTION = 160  # the same of questions
WIDE = ((0x1100, 0x11FF), (0x2E80, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0x20000, 0x323AF))


class Letters:
    """A text as its letters and digits, without case and width.

    ``places[i]`` is the weight of the letters before ``i``. ``facts`` holds (start, end) of the
    numbers and of the names that can be told by their capital, as offsets into ``text``. Short
    texts keep their ``words`` (and single ideographs).
    """

    def __init__(self, text: str) -> None:
        text = unicodedata.normalize("NFKC", text)
        weights = _weights()[_codes(text)]
        kept = weights > 0
        lower = text.lower()
        if len(lower) != len(text):
            lower = "".join(character.lower()[0] for character in text)
        codes = _codes(lower)[kept]
        self.codes = codes
        self.text = codes.tobytes().decode("utf-32-le", "surrogatepass")
        self.places: Numbers = np.concatenate([[0], np.cumsum(weights[kept], dtype=np.int64)])
        self.words = tuple(WORD.findall(lower)) if self.weight < 1.5 * QUESTION else ()
        wide = int(np.count_nonzero(weights == 2))
        patterns = [NUMBER, NAME]
        if wide:
            patterns = [LATIN, NUMERAL] if wide > len(text) / 4 else [NUMBER, NAME, NUMERAL]
        before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        spans = [match.span() for pattern in patterns for match in pattern.finditer(text)]
        self.facts: Numbers = before[np.array(sorted(set(spans)), dtype=np.int64).reshape(-1, 2)]

    @property
    def weight(self) -> int:
        return int(self.places[-1])

    def weight_of(self, start: int, end: int) -> int:
        return int(self.places[end] - self.places[start])

    @cached_property
    def ends(self) -> Numbers:
        """Where the window that begins at each letter ends; a shorter text is one window."""
        ends = np.searchsorted(self.places, self.places[:-1] + SPAN)
        whole = int(np.searchsorted(ends, len(self.codes), side="right"))
        return ends[: max(1, whole)].clip(max=len(self.codes))

    @cached_property
    def windows(self) -> npt.NDArray[np.uint64]:
        """Hashes of the windows, by where they begin (Karp & Rabin 1987, modulo 2**64)."""
        values = (self.codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        values ^= values >> np.uint64(29)
        powers, inverses = _powers(1 << max(12, len(values).bit_length()))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * powers[: len(values)])])
        hashes = (sums[self.ends] - sums[: len(self.ends)]) * inverses[: len(self.ends)]
        hashes ^= hashes >> np.uint64(31)
        return hashes * np.uint64(0xBF58476D1CE4E5B9)

    @cached_property
    def in_order(self) -> tuple[npt.NDArray[np.uint64], Numbers]:
        """The windows sorted, and where each begins."""
        order = np.argsort(self.windows, kind="stable")
        return self.windows[order], order


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@cache
def _weights() -> npt.NDArray[np.uint8]:
    """By code point: 1 for letters and digits, 2 for ideographs, kana and hangul, else 0."""
    table = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    for start, end in WIDE:
        table[start : end + 1] *= 2
    return table


@cache
def _powers(count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Powers of an odd base modulo 2**64, and their inverses."""
    base = 0xD6E8FEB86659FD93
    made = []
    for factor in (base, pow(base, -1, 1 << 64)):
        factors = np.full(count, factor, dtype=np.uint64)
        factors[0] = 1
        made.append(np.cumprod(factors))
    return made[0], made[1]


class WindowIndex:
    """Which windows stand in how many of ``texts`` (distinct, none empty).

    ``words`` counts in how many of the short ones a word stands.
    """

    def __init__(self, texts: Sequence[Letters]) -> None:
        self.texts = texts
        samples = [np.unique(text.windows) for text in texts]
        sizes = [len(sample) for sample in samples]
        windows = np.concatenate([*samples, np.zeros(0, dtype=np.uint64)])
        order = np.argsort(windows, kind="stable")
        self._holders = np.repeat(np.arange(len(texts)), sizes)[order]
        self._known, self._first, self._counts = np.unique(
            windows[order], return_index=True, return_counts=True
        )
        self._common: dict[int, Numbers] = {}
        self.words = Counter(word for text in texts for word in set(text.words))

    def _counts_of(self, text: Letters) -> tuple[Numbers, Numbers]:
        """For each window where it stands among the known, and how many texts hold it."""
        at = np.searchsorted(self._known, text.windows)
        return at, self._counts[at]

    def common(self, number: int) -> Numbers:
        """For each letter of a text, how many texts hold the commonest of the windows over it."""
        if number not in self._common:
            text = self.texts[number]
            _, counts = self._counts_of(text)
            common = np.ones(len(text.codes), dtype=np.int64)
            starts = np.arange(len(text.ends))
            for offset in range(int((text.ends - starts).max(initial=0))):
                within = starts[starts + offset < text.ends]
                common[within + offset] = np.maximum(common[within + offset], counts[within])
            self._common[number] = common
        return self._common[number]

    def candidates(self) -> Iterator[tuple[int, int]]:
        """Pairs of texts that share rare windows, or nearly all the rarer places of one."""
        if not len(self._known):
            return
        window = np.repeat(np.arange(len(self._known)), self._counts)
        found = {
            *_sharing(window, self._holders, most=RARE, share=LINKED),
            *self._by_places(),
            *self._by_ends(),
            *self._by_words(),
        }
        yield from sorted(found)

    def _by_words(self) -> Iterator[tuple[int, int]]:
        """Short texts, in which one edit may spoil every window, by pairs of words."""
        numbers: dict[tuple[str, str], int] = {}
        grams: list[int] = []
        holders: list[int] = []
        for holder, text in enumerate(self.texts):
            own = {numbers.setdefault(pair, len(numbers)) for pair in pairwise(text.words)}
            grams += own
            holders += [holder] * len(own)
        order = np.argsort(np.array(grams, dtype=np.int64), kind="stable")
        yield from _sharing(
            np.array(grams, dtype=np.int64)[order],
            np.array(holders, dtype=np.int64)[order],
            most=PAIRED,
            share=ALIKE,
        )

    def _by_places(self) -> Iterator[tuple[int, int]]:
        for number, text in enumerate(self.texts):
            at, counts = self._counts_of(text)
            bounds = np.linspace(0, len(counts), PLACES + 1).astype(int)
            picked = [
                first + int(counts[first:last].argmin())
                for first, last in pairwise(bounds)
                if last > first
            ]
            picked = [place for place in picked if counts[place] <= POSTINGS]
            if not picked:
                continue
            met, shared = np.unique(
                np.concatenate(
                    [self._holders[self._first[at[place]] :][: counts[place]] for place in picked]
                ),
                return_counts=True,
            )
            most = np.argsort(-shared, kind="stable")[: MOST_MET + 1]
            for other, places in zip(met[most].tolist(), shared[most].tolist(), strict=True):
                if other != number and places >= THERE * len(picked):
                    yield min(number, other), max(number, other)

    def _by_ends(self) -> Iterator[tuple[int, int]]:
        """Texts that begin within one that ends within them."""
        lasts = np.array([text.windows[-1] for text in self.texts])
        order = np.argsort(lasts, kind="stable")
        ordered = lasts[order]
        for number, text in enumerate(self.texts):
            at, counts = self._counts_of(text)
            if not 1 < counts[0] <= POSTINGS:
                continue
            holders = self._holders[self._first[at[0]] :][: counts[0]]
            low, high = (np.searchsorted(ordered, text.windows[:-1], side=side)
                         for side in ("left", "right"))  # fmt: skip
            ending = [order[first:last] for first, last in zip(low, high, strict=True)
                      if first < last]  # fmt: skip
            for other in np.intersect1d(holders, np.concatenate(ending)).tolist() if ending else ():
                first = self.texts[other].windows[0]
                if lasts[other] != lasts[number] and first != text.windows[0]:
                    yield min(number, other), max(number, other)


def _sharing(
    keys: Numbers, holders: Numbers, *, most: int, share: float
) -> Iterator[tuple[int, int]]:
    """Pairs of holders that share enough of their keys, of those that at most ``most`` hold.

    Args:
        keys: Sorted; ``holders`` beside them, ascending within a key.
        share: Of the such keys of the one with fewer; at least two.
    """
    if not len(keys):
        return
    ends = np.searchsorted(keys, keys, side="right")
    few = ends - np.searchsorted(keys, keys, side="left") <= most
    keys, holders = keys[few], holders[few]
    # each holder of a key meets those after it: entries at + 1 … at + ahead
    ahead = np.searchsorted(keys, keys, side="right") - np.arange(len(keys)) - 1
    sizes = np.bincount(holders)
    by_holder = np.argsort(holders, kind="stable")
    begin = 0
    for number, end in enumerate(np.cumsum(sizes)):
        own = by_holder[begin:end]
        begin = end
        own = own[ahead[own] > 0]
        steps = ahead[own]
        within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        met, shared = np.unique(holders[np.repeat(own, steps) + within + 1], return_counts=True)
        enough = shared >= np.maximum(2, share * np.minimum(sizes[met], sizes[number]))
        for other in met[enough].tolist():
            yield number, other
