"""Near-duplicates: the one definition that splitting, judging and mining share.

Two texts are near-duplicates when, after normalising case, width and white space,
``fuzz.ratio`` is at least 85, or the shorter one stands nearly unchanged in the longer one
(``partial_ratio`` at least 95): edited copies, and texts contained in another.

Every pair is checked by rapidfuzz, so there are no false ones. Which pairs are checked is
decided by counting shared character 8-grams, sampled by their hash in long texts (Broder 1997;
Schleimer et al. 2003). It needs no tokenizer and so reads Chinese as well as English. MinHash
over 3-grams, the usual sieve, loses half of the pairs at a threshold where it is fast (0.8), and
checks a hundred times more at one where it is complete (0.4).

Where the lengths of a pair multiply to more than 8 million (from 2,800 characters each),
``partial_ratio`` would take up to hours. There the check is not complete: the 8-grams that both
hold must agree on where the texts lie beside each other, and only windows at that place are
compared, at a distance of half a percent of the shorter text. What is found still fits the
definition. What is lost are texts at the very edge of it, and those changed in nearly every word.
"""

import functools
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from embedtune.language import HAN

RATIO = 85.0
PARTIAL_RATIO = 95.0
MIN_CHARACTERS = 12  # shorter texts are near-duplicates only when equal
ALL_PAIRS = 50  # up to this many identical texts every pair is listed, beyond a star

GRAM = 8
SAMPLE = 200  # 8-grams kept of a text, about; at least one in eight
REACH = 128  # a gram links a text to this many of its holders on each side, by length
SHARED = 0.15  # share of the smaller sample in common that makes a pair worth checking

EXACT = 8_000_000  # length times length up to which a pair is checked in full: 0.03 s at most
PLACED = 1000  # 8-grams of the shorter of two long texts whose places count, up to twice that
OFTEN = 64  # a gram that the longer has more often tells no place
STRETCHES = 16  # of the shorter text, each with a place of its own in an edited copy
AGREEING = 0.2  # share of those grams that makes a place worth looking at
PLACES = 4  # of the longer text looked at, those with most grams first
STEP = 200  # parts of the shorter text: how far windows stand apart

RUN_CHARACTERS = 12  # ideographs in a row that a query has copied, or …
RUN_WORDS = 8  # … words


def normalise(text: str) -> str:
    """Case, width and white space evened out."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near-duplicate texts, sorted.

    Empty texts are nobody's duplicates. Of more than 50 identical texts, a star around the
    first is listed instead of all pairs; in a family of more than 128 alike texts, each is
    paired with those nearest in length. Either way ``components`` sees them as one.
    """
    classes: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        classes[normalise(text)].append(index)
    classes.pop("", None)
    pairs: set[tuple[int, int]] = set()
    for members in classes.values():
        ends = members if len(members) <= ALL_PAIRS else members[:1]
        pairs.update((a, b) for a in ends for b in members if a < b)
    distinct = [text for text in classes if len(text) >= MIN_CHARACTERS]
    for one, other in _candidates(distinct):
        if alike(distinct[one], distinct[other]):
            firsts, seconds = classes[distinct[one]], classes[distinct[other]]
            if len(firsts) * len(seconds) > ALL_PAIRS**2:
                firsts, seconds = firsts[:1], seconds[:1]
            pairs.update((min(a, b), max(a, b)) for a in firsts for b in seconds)
    return sorted(pairs)


def alike(one: str, other: str) -> bool:
    """Whether two *normalised* texts are near-duplicates of each other."""
    from rapidfuzz import fuzz
    from rapidfuzz.distance import LCSseq

    shorter, longer = sorted((one, other), key=len)
    if len(shorter) * len(longer) > EXACT:
        return _alike_long(shorter, longer)
    whole, part = _wanted(shorter, longer)
    common = LCSseq.similarity(shorter, longer, score_cutoff=min(whole, part))
    return common >= whole or (
        common >= part
        and fuzz.partial_ratio(shorter, longer, score_cutoff=PARTIAL_RATIO) >= PARTIAL_RATIO
    )


def _wanted(shorter: str, longer: str) -> tuple[int, int]:
    """How long a common subsequence near-duplicates have: as copies, and where one holds the
    other."""
    # ratio is 200 * (longest common subsequence) / (sum of lengths)
    whole = math.ceil(RATIO * (len(shorter) + len(longer)) / 200)
    # partial_ratio aligns a window w of the longer: 200 * common >= 95 * (shorter + w) and
    # w >= common, so common >= 95 / 105 of the shorter; "60 % of the shorter" is implied
    return whole, math.ceil(PARTIAL_RATIO / (200 - PARTIAL_RATIO) * len(shorter))


def _alike_long(shorter: str, longer: str) -> bool:
    """``alike``, looking only where the grams of both say that one lies in the other."""
    if shorter in longer:
        return True
    size = len(shorter)
    whole, part = _wanted(shorter, longer)
    at, offsets, weights = _votes(shorter, longer)
    # a longer text than that is no copy
    if whole <= size and _copy(shorter, longer, whole, at, offsets, weights):
        return True
    if part >= whole:  # held by the other, it would have been a copy
        return False
    # A window as long as the shorter with a ratio of 95 lacks 5 % of it at most, and as much of
    # its own is new: within it, offsets are at most 5 % from its start.
    order = np.argsort(offsets)
    offsets, weights = offsets[order], weights[order]
    for _ in range(PLACES):
        ends = np.searchsorted(offsets, offsets + size // 10, side="right")
        before = np.concatenate([[0.0], np.cumsum(weights)])
        votes = before[ends] - before[:-1]
        first = int(votes.argmax()) if len(votes) else 0
        if not len(votes) or votes[first] < AGREEING:
            return False
        near = slice(first, int(ends[first]))
        if _stands_at(shorter, longer, offsets[near]):
            return True
        offsets, weights = np.delete(offsets, near), np.delete(weights, near)
    return False


def _copy(
    shorter: str, longer: str, whole: int, at: np.ndarray, offsets: np.ndarray, weights: np.ndarray
) -> bool:
    """Whether ``whole`` characters are common to both, of texts whose stretches lie beside
    stretches of the other."""
    from rapidfuzz.distance import LCSseq

    stretch = len(shorter) // STRETCHES + 1
    cells = (offsets + len(shorter)) // stretch
    width = int(cells.max(initial=0)) + 1
    cells += at // stretch * width
    votes = np.bincount(cells, weights, STRETCHES * width).reshape(STRETCHES, width)
    if votes.max(axis=1).sum() < AGREEING:
        return False
    edges = [0]
    for number in range(1, STRETCHES):
        shifts = offsets[cells == number * width + votes[number].argmax()]
        edge = number * stretch + int(np.median(shifts)) if len(shifts) else 0
        edges.append(max(edges[-1], edge))
    # what they have in common piece by piece is less than the whole, and found much sooner
    pieces = (shorter[start : start + stretch] for start in range(0, len(shorter), stretch))
    windows = (longer[start:end] for start, end in pairwise([*edges, len(longer)]))
    return (
        sum(map(LCSseq.similarity, pieces, windows)) >= whole
        or LCSseq.similarity(shorter, longer, score_cutoff=whole) >= whole
    )


def _stands_at(shorter: str, longer: str, offsets: np.ndarray) -> bool:
    """Whether a window of the longer that begins between these offsets has a ratio of 95."""
    from rapidfuzz.distance import LCSseq

    size = len(shorter)
    _, part = _wanted(shorter, longer)

    def common(window: str) -> int:  # or a little more, when too little anyway
        return max(part - 1, LCSseq.similarity(shorter, window, score_cutoff=part))

    def missing(start: int) -> int:
        window = longer[max(0, start) : max(0, start + size)]
        return math.ceil(PARTIAL_RATIO * (size + len(window)) / 200) - common(window)

    start, last, slack = int(offsets[0]), int(offsets[-1]), size - part
    # over an end of the longer, windows are shorter and need less, but never less than ``part``
    start = max(-slack, start - slack if start <= slack else start)
    last = min(len(longer) - part, last + slack if last + size >= len(longer) - slack else last)
    middle = min(max(start, int(np.median(offsets))), last)
    if start > last or common(longer[max(0, start) : last + size]) < part:
        return False
    if missing(middle) <= 0:
        return True
    while start <= last:
        more = missing(start)
        if more <= 0:
            return True
        start += max(more, size // STEP)  # one character further holds one more at most
    return False


def _votes(shorter: str, longer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where sampled grams of the shorter text stand in the longer one too.

    Returns:
        Places in the shorter, offsets from there to places in the longer, and weights. All grams
        weigh 1 together, those that are nowhere in the longer included; one that is there
        several times, as common phrases are, weighs as much less.
    """
    rate = 0.5 ** max(0, (len(shorter) // PLACED).bit_length() - 1)
    own, places = _places(shorter, rate)
    theirs, others = _places(longer, rate)
    first = np.searchsorted(theirs, own, side="left")
    counts = np.searchsorted(theirs, own, side="right") - first
    telling = counts <= OFTEN
    first, counts, places = first[telling], counts[telling], places[telling]
    weights = 1 / np.maximum(counts, 1)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    at = np.repeat(places, counts)
    offsets = others[np.repeat(first, counts) + within] - at
    return at, offsets, np.repeat(weights / (weights.sum() or 1), counts)


@functools.lru_cache(maxsize=1024)
def _places(text: str, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the 8-grams that fall under ``rate``, sorted, and where each stands."""
    hashes = _hashes(text)
    places = np.flatnonzero(hashes < rate * 2**32)
    order = np.argsort(hashes[places], kind="stable")
    return hashes[places][order], places[order]


def shares_run(query: str, passage: str) -> bool:
    """Whether both hold the same 12 ideographs, or the same 8 words, in a row.

    Case and width do not count. Punctuation and blanks end no run; for ideographs a Latin word or
    a number does.
    """
    one, other = (unicodedata.normalize("NFKC", text).lower() for text in (query, passage))
    han = re.compile(rf"[{HAN}]|(?:(?![{HAN}])[^\W_])+")
    return _shares(
        han.findall(one), han.findall(other), RUN_CHARACTERS, re.compile(f"[{HAN}]")
    ) or _shares(re.findall(r"[^\W_]+", one), re.findall(r"[^\W_]+", other), RUN_WORDS)


def _shares(
    one: Sequence[str], other: Sequence[str], length: int, only: re.Pattern[str] | None = None
) -> bool:
    def runs(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for first in range(len(items) - length + 1):
            run = tuple(items[first : first + length])
            if only is None or all(map(only.fullmatch, run)):
                yield run

    wanted = set(runs(one))
    return bool(wanted) and not wanted.isdisjoint(runs(other))


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``count`` items the smallest index it is connected to."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(item) for item in range(count)]


def _candidates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that share enough 8-grams to be worth checking."""
    if len(texts) < 2:
        return
    order = np.argsort([len(text) for text in texts], kind="stable")  # rank by length
    rates = np.clip([SAMPLE / len(texts[index]) for index in order], 1 / 8, 1)
    samples = [_grams(texts[index], rate) for index, rate in zip(order, rates, strict=True)]
    sizes = np.array([len(sample) for sample in samples])
    estimates = sizes / rates  # of all 8-grams of a text
    ranks = np.repeat(np.arange(len(texts)), sizes)
    grams = np.concatenate(samples)
    by_gram = np.argsort(grams, kind="stable")  # and by rank within a gram
    holders, grams = ranks[by_gram], grams[by_gram]
    # each holder of a gram meets those after it, up to REACH: entries at + 1 … at + ahead
    ahead = np.searchsorted(grams, grams, side="right") - np.arange(len(grams)) - 1
    ahead = np.minimum(ahead, REACH)
    by_rank = np.argsort(holders, kind="stable")
    ends = np.cumsum(sizes)
    for rank in range(len(texts) - 1):
        at = by_rank[ends[rank] - sizes[rank] : ends[rank]]
        steps = ahead[at]
        within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        shared = np.bincount(holders[np.repeat(at, steps) + within + 1], minlength=len(texts))
        met = np.flatnonzero(shared)
        smaller = np.minimum(estimates[met], estimates[rank]) * np.minimum(rates[met], rates[rank])
        for other in met[shared[met] >= SHARED * smaller]:
            yield int(order[rank]), int(order[other])


def _grams(text: str, rate: float) -> np.ndarray:
    """Hashes (distinct, sorted) of the 8-grams of ``text`` that fall under ``rate``."""
    hashes = _hashes(text)
    return np.unique(hashes[hashes < rate * 2**32])


def _hashes(text: str) -> np.ndarray:
    """A hash (uint32) of each 8-gram of ``text``, in order; one of all of a shorter text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = max(1, len(codes) - GRAM + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(min(GRAM, len(codes))):
        hashes = hashes * np.uint64(1_000_003) + codes[offset : offset + count]
    hashes ^= hashes >> np.uint64(29)
    return ((hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)).astype(np.uint32)
