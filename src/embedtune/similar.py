"""Near-duplicates: the one definition that splitting, judging and mining share.

Two texts are near-duplicates when, after normalising case, width and white space,
``fuzz.ratio`` is at least 85, or the better part (60 %) of the shorter one stands nearly
unchanged (``partial_ratio`` at least 95) in the longer one. Candidates come from MinHash over
character 3-grams (Broder 1997), which works on Chinese without a tokenizer, and, for
containment, from shared fingerprints of character 12-grams (winnowing, Schleimer et al. 2003).
"""

import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

RATIO = 85.0
PARTIAL_RATIO = 95.0
PARTIAL_SHARE = 0.6
PERMUTATIONS = 128
MIN_CHARACTERS = 12  # shorter texts are near-duplicates only when equal
COMMON_FINGERPRINT = 64  # a fingerprint in more texts than this is boilerplate, not a candidate
ALL_PAIRS = 50  # up to this many identical texts every pair is listed, beyond a star


def normalise(text: str) -> str:
    """Case, width and white space evened out."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near-duplicate texts, sorted.

    More than 50 identical texts are listed as a star around the first instead of all pairs.
    Empty texts are nobody's duplicates.
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
    for one, other in sorted(_candidates(distinct)):
        if alike(distinct[one], distinct[other]):
            firsts, seconds = classes[distinct[one]], classes[distinct[other]]
            if len(firsts) * len(seconds) > ALL_PAIRS**2:
                firsts, seconds = firsts[:1], seconds[:1]
            pairs.update((min(a, b), max(a, b)) for a in firsts for b in seconds)
    return sorted(pairs)


def alike(one: str, other: str) -> bool:
    """Whether two *normalised* texts are near-duplicates of each other."""
    from rapidfuzz import fuzz

    shorter, longer = sorted((one, other), key=len)
    # ratio is at most 200 * len(shorter) / (sum of lengths)
    if 200 * len(shorter) >= RATIO * (len(shorter) + len(longer)) and (
        fuzz.ratio(shorter, longer, score_cutoff=RATIO) >= RATIO
    ):
        return True
    found = fuzz.partial_ratio_alignment(shorter, longer, score_cutoff=PARTIAL_RATIO)
    return found is not None and (
        min(found.src_end - found.src_start, found.dest_end - found.dest_start)
        >= PARTIAL_SHARE * len(shorter)
    )


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


def _candidates(texts: Sequence[str]) -> set[tuple[int, int]]:
    return _alike_as_wholes(texts) | _sharing_a_stretch(texts)


def _hashes(text: str, length: int) -> np.ndarray:
    """32-bit hashes of the character n-grams of ``text``, in order."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    grams = np.zeros(max(1, len(codes) - length + 1), dtype=np.uint64)
    for offset in range(min(length, len(codes))):
        part = codes[offset : offset + len(grams)]
        grams = grams * np.uint64(1_000_003) + part
    grams ^= grams >> np.uint64(29)
    return (grams * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def _alike_as_wholes(texts: Sequence[str]) -> set[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    if len(texts) < 2:
        return set()
    # a ratio of 85 leaves about half of the 3-grams in common when edits are spread evenly
    index = MinHashLSH(threshold=0.4, num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    found: set[tuple[int, int]] = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)  # hashed already
        sketch.update_batch(np.unique(_hashes(text, 3)))
        found.update((other, number) for other in index.query(sketch))
        index.insert(number, sketch)
    return found


def _sharing_a_stretch(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Pairs where a third of the shorter one's fingerprints stand in the other."""
    length, window = 12, 8
    prints: list[np.ndarray] = []
    postings: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        hashes = _hashes(text, length)
        if len(hashes) > window:
            hashes = np.lib.stride_tricks.sliding_window_view(hashes, window).min(axis=1)
        own = np.unique(hashes)
        prints.append(own)
        for value in own.tolist():
            postings[value].append(number)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for numbers in postings.values():
        if 1 < len(numbers) <= COMMON_FINGERPRINT:
            for at, one in enumerate(numbers):
                for other in numbers[at + 1 :]:
                    shared[one, other] += 1
    return {
        (one, other)
        for (one, other), count in shared.items()
        if count >= max(1, min(len(prints[one]), len(prints[other])) / 3)
    }


def text_key(text: str) -> int:
    """A cheap stable hash of a text, for tie-breaking and sampling."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
