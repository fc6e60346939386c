"""What two passages share: all of it, edited or in another order, a part, or an overlap.

``similar.near_duplicates`` asks how alike two texts are. For leaks that is the wrong question: two
contracts of one form are alike to the letter and say different things, while the same sentences
in another order are not alike at all and give the answer away. Here two texts share the stretches
of 16 letters (8 ideographs) and more that both hold, in any order, and a pair is let go when its
*facts* differ: where more is lost than kept of what sets the passages of one form apart, or of
the numbers and names.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embedtune.datasets.windows import QUESTION, SHORT, Letters, Numbers, WindowIndex
from embedtune.similar import normalise

Kind = Literal["exact", "edited", "contained", "overlapping", "re-ordered"]
Mask = npt.NDArray[np.bool_]

NEAR = 0.70  # share of a text found in the other that makes it a copy
WORDS_CHANGED = 0.15  # share of the words of a sentence that may be others
WORDS_ALIKE = 0.80  # share of the words, and their order, that two sentences have in common
SOME = 0.08  # share found at once below which a pair is not looked at further
DISPLACED = 0.20  # share of what is found that stands in another order
OVERLAP = 0.20  # share of the shorter text, at the end of one and the beginning of the other
MAIN = 0.60  # share of what is found that an overlap makes up
SHORTEST = 40  # weight of an overlap: eight words, twenty ideographs
DENSE = 0.50  # share of it that is the same
LOOSE = 0.10  # share of the shorter text that an overlap may leave at its ends
MOSTLY = 0.50  # share of the shorter text found in one other only: shared wherever it stands
RECURS = 3  # what more texts hold than this is wording; what fewer hold counts by its length
FACT = 5.0  # nats that a value tells which no other text holds, at most
DIGIT = 1.15  # nats of each letter of a number or name that agrees
LOST = 2.3  # nats against a copy for each place where both have something of their own
DOUBT = 4.0  # nats asked for beyond that, since many pairs are looked at …
EDITS = 3  # … less where the wording of one text was edited, nothing from so many edits on
LONG = 24  # weight beyond which a stretch tells more than one fact
FACTS_LOST = 0.5  # numbers and names that differ, for each that is kept
FACTS_WEIGHT = 0.02  # share of the text they make up at least
GAP = 0.25  # what a letter skipped costs a chain of stretches
MISTYPED = 0.70  # a word or code this alike is the same with a typing error
CHANGED = 0.85  # and a number
STRETCH = 4  # weight of a stretch that counts between two longer ones
LONGEST = 600  # letters of a gap in which such are looked for
RUNS = 200  # stretches looked at in a pair
SMALL = frozenset(  # words whose change leaves a question what it was
    re.findall(
        r"[a-z]+|[\u4e00-\u9fff]",
        "a an the my your our their his her its this that these those is are was were be do does "
        "did can could will would should have has had i we you he she it they me us them to of in "
        "on at by for from with and or as so just please 的了吗呢吧啊嘛地得我你您他她它们这那个"
        "请问想如何怎样么麽什哪里是否可以能会要在有",
    )
)
NUMERIC = re.compile(r"[\d〇零一二三四五六七八九十百千万亿两]")
ALL_PAIRS = 50  # up to this many identical texts every pair is listed, beyond a star
COMPARED = 20_000_000  # characters compared with each other; of more, the rest for equality only


@dataclass(frozen=True, slots=True)
class Shared:
    """Two texts (one < other, indices) and what they share; ``share`` is of the shorter one."""

    one: int
    other: int
    kind: Kind
    share: float


def shared_texts(texts: Sequence[str], *, questions: bool = False) -> list[Shared]:
    """Pairs of texts of which one gives the other away, sorted.

    Texts without letters share nothing. Texts with the same letters and digits in the same order
    are exact copies; of more than 50 of them a star around the first is listed.

    Args:
        questions: Of one or two sentences each another word makes another question, so that only
            small words and typing errors count as edits. Otherwise that holds for texts of a
            dozen words only.
    """
    copies: dict[str, list[int]] = defaultdict(list)
    letters: dict[str, Letters] = {}
    for number, text in enumerate(texts):
        own = Letters(text)
        copies[own.text].append(number)
        letters.setdefault(own.text, own)
    copies.pop("", None)
    letters.pop("", None)
    found = []
    for members in copies.values():
        ends = members if len(members) <= ALL_PAIRS else members[:1]
        found += [Shared(a, b, "exact", 1.0) for a in ends for b in members if a < b]
    index = WindowIndex(list(letters.values()))
    members = list(copies.values())
    for one, other in index.candidates():
        kind, share = _judge(index, one, other, questions=questions)
        if kind is None:
            continue
        firsts, seconds = members[one], members[other]
        if len(firsts) * len(seconds) > ALL_PAIRS**2:
            firsts, seconds = firsts[:1], seconds[:1]
        found += [
            Shared(min(a, b), max(a, b), kind, round(share, 3)) for a in firsts for b in seconds
        ]
    return sorted(found, key=lambda pair: (pair.one, pair.other))


def shared_within(
    texts: Sequence[str], ranks: Sequence[int], *, questions: bool = False
) -> tuple[list[Shared], int]:
    """As ``shared_texts`` in bounded memory; and how many of the texts were compared.

    Beyond 20 million characters the others are compared for equality only: those of the lowest
    ``ranks`` stay, of one rank drawn by their hash.
    """
    chosen = list(range(len(texts)))
    if sum(map(len, texts)) > COMPARED:
        chosen.sort(key=lambda number: (ranks[number], _hash(texts[number])))
        sizes = np.cumsum([len(texts[number]) for number in chosen])
        chosen = sorted(chosen[: int(np.searchsorted(sizes, COMPARED, side="right"))])
    pairs = [
        Shared(chosen[pair.one], chosen[pair.other], pair.kind, pair.share)
        for pair in shared_texts([texts[number] for number in chosen], questions=questions)
    ]
    if len(chosen) == len(texts):
        return pairs, len(texts)
    found = {(pair.one, pair.other): pair for pair in pairs}
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        one = first.setdefault(normalise(text), number)
        if one != number:
            found.setdefault((one, number), Shared(one, number, "exact", 1.0))
    return [pair for _, pair in sorted(found.items())], len(chosen)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Run(NamedTuple):
    """A stretch that both texts hold."""

    a0: int
    a1: int
    b0: int
    b1: int


class Side:
    """One text of a pair: which of its letters the other holds, and how rare they are."""

    def __init__(self, text: Letters, common: Numbers, spans: Sequence[tuple[int, int]]) -> None:
        self.text = text
        self.common = common
        self.weights = np.diff(text.places)
        self.held: Mask = np.zeros(len(text.codes), dtype=bool)
        self.hold(spans)
        self.found = self.held.copy()  # at once, not in a gap

    def hold(self, spans: Iterable[tuple[int, int]]) -> None:
        for start, end in spans:
            self.held[start:end] = True

    @property
    def matched(self) -> int:
        return int(self.weights[self.held].sum())

    def holds_whole(self, mask: Mask) -> Mask:
        """Which of the facts lie under ``mask`` from end to end."""
        covered = np.concatenate([[0], np.cumsum(mask)])
        starts, ends = self.text.facts[:, 0], self.text.facts[:, 1]
        return covered[ends] - covered[starts] == ends - starts

    def kept(self, mask: Mask, usual: float) -> float:
        """What the letters under ``mask`` say for a copy, in nats.

        Each stretch that recurs less than the ``usual`` wording says how unlikely it is that two
        texts of one form agree in it by chance; a long one that hardly any other text holds says
        more.
        """
        spelled = 0.0
        if usual > RECURS + 1:
            # beside a slot every window is rare: there only numbers and names tell
            whole = self.holds_whole(mask) & ~self.holds_whole(mask & self.found)
            sizes = (self.text.facts[:, 1] - self.text.facts[:, 0])[whole]
            spelled = float(np.minimum(FACT, DIGIT * sizes).sum())
            mask = mask & self.found
        telling = np.concatenate([[False], mask & self._telling(usual), [False]])
        edges = np.flatnonzero(np.diff(telling))
        if not len(edges):
            return spelled
        common = np.minimum.reduceat(np.append(self.common, 1), edges)[::2]
        weight = np.add.reduceat(np.append(self.weights, 0), edges)[::2]
        nats = np.log(usual / np.clip(common, 2, usual))
        rare = np.minimum(FACT, weight / 2).clip(min=nats) + (weight - LONG).clip(min=0) / 4
        return spelled + float(np.where(common <= RECURS, rare, nats).sum())

    def lost(self, gaps: Sequence[tuple[int, int]], usual: float) -> npt.NDArray[np.float64]:
        """By gap, the weight of letters that are not the usual wording."""
        weights = np.append(self.weights * (self._telling(usual) & ~self.held), 0)
        return np.add.reduceat(weights, np.array(gaps).ravel())[::2].astype(np.float64)

    def _telling(self, usual: float) -> Mask:
        return (self.common <= RECURS) | (self.common < usual / 2)

    def facts_lost(self, gaps: Sequence[tuple[int, int]]) -> list[list[str]]:
        """By gap, the numbers and names that the other text does not hold whole."""
        found: list[list[str]] = [[] for _ in gaps]
        spans = self.text.facts[~self.holds_whole(self.held)]
        after = np.searchsorted([end for _, end in gaps], spans[:, 0], side="right")
        for number, (start, end) in zip(after.tolist(), spans.tolist(), strict=True):
            if number < len(gaps) and end > gaps[number][0]:
                found[number].append(self.text.text[start:end])
        return found


def _judge(
    index: WindowIndex, one: int, other: int, *, questions: bool = False
) -> tuple[Kind | None, float]:
    """What two texts of the index share, and which share of the shorter one it is."""
    a, b = index.texts[one], index.texts[other]
    runs = _runs(a, b)
    shorter, longer = sorted((a.weight, b.weight))
    found = sum(a.weight_of(run.a0, run.a1) for run in runs)
    limit = QUESTION if questions else SHORT
    sentences = longer < 1.5 * limit
    if found < SOME * shorter and not sentences:
        return None, 0.0
    left = Side(a, index.common(one), [(run.a0, run.a1) for run in runs])
    right = Side(b, index.common(other), [(run.b0, run.b1) for run in runs])
    if not found:
        return _short(left, right, [], RECURS + 1.0, index.words, strict=questions)
    chain = _chain(a, runs)
    main = sum(a.weight_of(run.a0, run.a1) for run in chain)
    matched = min(left.matched, right.matched)
    displaced = matched - main >= DISPLACED * matched
    differences = _mend(left, right, list(_gaps(chain, len(a.codes), len(b.codes))))
    usual = max(4.0, float(np.median(left.common[left.held])))
    share = min(left.matched, right.matched) / shorter
    near: Kind = "edited" if share * shorter >= NEAR * longer else "contained"
    if displaced:
        near, differences = "re-ordered", [Run(0, len(a.codes), 0, len(b.codes))]
    if shorter < limit:
        if sentences:
            return _short(left, right, differences, usual, index.words, strict=questions)
        if shorter >= SHORT / 2 and (a.text in b.text or b.text in a.text):
            return "contained", 1.0
        if questions:
            return None, share
    elif not _other_facts(left, right, differences, left.held, usual):
        rare = int(left.weights[left.held & (left.common <= RECURS)].sum())
        if share >= NEAR:
            return near, share
        if matched >= SHORTEST and rare >= MOSTLY * shorter:
            return "overlapping", share
    enough = main >= max(SHORTEST, OVERLAP * shorter, MAIN * matched)
    if not enough or not _dovetail(chain, a, b, LOOSE * shorter):
        return None, share
    within = np.zeros(len(a.codes), dtype=bool)
    within[chain[0].a0 : chain[-1].a1] = left.held[chain[0].a0 : chain[-1].a1]
    differences = _mend(left, right, list(_gaps(chain, len(a.codes), len(b.codes), level=True)))
    if (left.kept(within, usual) >= 1 or main >= MOSTLY * shorter) and not _other_facts(
        left, right, differences, within, usual
    ):
        return "overlapping", main / shorter
    return None, share


def _short(
    left: Side,
    right: Side,
    differences: Sequence[Run],
    usual: float,
    known: Mapping[str, int],
    *,
    strict: bool,
) -> tuple[Kind | None, float]:
    """The same of two sentences: their words are compared, letters say too little.

    In a sentence another word makes another question, so that only small words and typing errors
    count as edits. Unless ``strict``, and where no other text is like these two, words may also
    be added and left out, and one in seven may be another; but no number.

    Args:
        known: In how many short texts a word stands.
    """
    a, b = left.text, right.text
    shorter, longer = sorted((a, b), key=lambda text: text.weight)
    family = strict or usual > RECURS + 1
    whole = shorter.weight >= SHORT / 2 and shorter.text in longer.text
    if whole and shorter.weight < WORDS_ALIKE * longer.weight and not family:
        return "contained", 1.0
    count = max(len(a.words), len(b.words))
    differing = list(_changed(a.words, b.words))
    alike = 1 - sum(max(len(one), len(other)) for one, other in differing) / count
    if alike < WORDS_ALIKE:
        return None, alike
    if usual > RECURS + 1 and _other_facts(left, right, differences, left.held, usual):
        return None, alike
    changed = 0
    for one, other in differing:
        if all(NUMERIC.search("".join(words)) for words in (one, other)):
            return None, alike
        if not _same_words(one, other, known) and ((one and other) or family):
            changed += max(len(one), len(other))
    return ("edited" if changed <= (0 if family else WORDS_CHANGED * count) else None), alike


def _changed(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """The words in which two sentences differ, place by place."""
    from rapidfuzz.distance import Levenshtein

    for op in Levenshtein.opcodes(a, b):
        if op.tag != "equal":
            yield a[op.src_start : op.src_end], b[op.dest_start : op.dest_end]


def _same_words(one: Sequence[str], other: Sequence[str], known: Mapping[str, int]) -> bool:
    """Whether both are small words, or one is the other with a typing error: no other text has
    that word."""
    from rapidfuzz.distance import Indel

    if SMALL.issuperset(one) and SMALL.issuperset(other):
        return True
    if min((known[word] for word in (*one, *other)), default=0) > 1:
        return False
    return Indel.normalized_similarity("".join(one), "".join(other)) >= MISTYPED


def _other_facts(left: Side, right: Side, gaps: Sequence[Run], held: Mask, usual: float) -> bool:
    """Whether two texts of one form are about different things.

    Args:
        held: The letters of ``left`` that count as kept.
    """
    if not gaps:
        return False
    ours, theirs = [(gap.a0, gap.a1) for gap in gaps], [(gap.b0, gap.b1) for gap in gaps]
    one, other = left.lost(ours, usual), right.lost(theirs, usual)
    lost = np.minimum(one, other)
    # usual wording on one side only: one of the two was edited, no form does that by itself
    edits = int(((lost == 0) & (np.maximum(one, other) > 1)).sum())
    doubt = DOUBT * max(0.0, 1 - edits / EDITS)
    against = float((LOST * (lost / 4).clip(max=1) + (lost - LONG).clip(min=0) / 4).sum())
    if against > LOST / 2 and left.kept(held, usual) < against + math.log(usual) + doubt:
        return True
    facts_kept = int(left.holds_whole(held).sum())
    facts_lost = weight = 0
    for own, foreign in zip(left.facts_lost(ours), right.facts_lost(theirs), strict=True):
        if own and foreign:
            same, differ, letters = _compared(own, foreign)
            facts_kept += same
            facts_lost += differ
            weight += letters
    if facts_lost <= FACTS_LOST * facts_kept:
        return False
    shorter = min(left.text.weight, right.text.weight)
    return facts_lost > 2 or (facts_lost > 1 and weight >= FACTS_WEIGHT * shorter)


def _compared(left: list[str], right: list[str]) -> tuple[int, int, int]:
    """How many facts both sides of a gap hold, how many differ, and the letters of those.

    A word with a typing error is the same; a number with one is neither.
    """
    from rapidfuzz.distance import Indel

    same = 0
    for fact in tuple(left):
        alike = [Indel.normalized_similarity(fact, other) for other in right]
        best = max(range(len(right)), key=alike.__getitem__, default=None)
        if best is None:
            break
        numbers = fact.isdigit() and right[best].isdigit()
        if alike[best] >= (CHANGED if numbers else MISTYPED):
            same += fact.isalpha() or fact == right[best]
            left.remove(fact)
            del right[best]
    letters = min(sum(map(len, left)), sum(map(len, right)))
    return same, min(len(left), len(right)), letters


def _mend(left: Side, right: Side, gaps: Sequence[Run]) -> list[Run]:
    """Mark what both sides of each gap hold too, in shorter stretches; give what differs."""
    from rapidfuzz.distance import Indel

    differences = []
    for gap in gaps:
        one, other = left.text.text[gap.a0 : gap.a1], right.text.text[gap.b0 : gap.b1]
        kept = []
        if len(one) * len(other) <= LONGEST**2:
            for block in Indel.editops(one, other).as_matching_blocks():
                a0, b0 = gap.a0 + block.a, gap.b0 + block.b
                if left.text.weight_of(a0, a0 + block.size) >= STRETCH:
                    kept.append(Run(a0, a0 + block.size, b0, b0 + block.size))
        left.hold((run.a0, run.a1) for run in kept)
        right.hold((run.b0, run.b1) for run in kept)
        a1, b1 = gap.a0, gap.b0
        for run in (*kept, Run(gap.a1, gap.a1, gap.b1, gap.b1)):
            if run.a0 > a1 and run.b0 > b1:
                differences.append(Run(a1, run.a0, b1, run.b0))
            a1, b1 = run.a1, run.b1
    return differences


def _runs(a: Letters, b: Letters) -> list[Run]:
    """Stretches that both hold, in the order of ``a``; of many, the longest."""
    windows, begins = b.in_order
    places = np.searchsorted(windows, a.windows).clip(max=len(windows) - 1)
    at = np.flatnonzero(windows[places] == a.windows)
    if not len(at):
        return []
    there = begins[places[at]]
    first = np.flatnonzero((np.diff(at, prepend=-2) != 1) | (np.diff(there, prepend=-2) != 1))
    last = np.append(first[1:], len(at)) - 1
    ends = a.ends[at[last]]
    runs = [
        Run(a0, a1, b0, b0 + a1 - a0)
        for a0, a1, b0 in zip(at[first].tolist(), ends.tolist(), there[first].tolist(), strict=True)
    ]
    return sorted(sorted(runs, key=lambda run: run.a0 - run.a1)[:RUNS])


def _chain(a: Letters, runs: Sequence[Run]) -> list[Run]:
    """The heaviest chain of runs that stand in one order in both texts, overlaps cut off.

    What a link skips is taken from its weight, so that a chain does not reach for
    a far phrase that happens to recur.
    """
    best: list[tuple[float, int]] = []  # weight of the best chain ending here, the run before
    for number, run in enumerate(runs):
        top, before = float(a.weight_of(run.a0, run.a1)), -1
        for earlier in range(number):
            last = runs[earlier]
            cut = max(0, last.a1 - run.a0, last.b1 - run.b0)
            if last.a0 < run.a0 and last.b0 < run.b0 and cut < run.a1 - run.a0:
                skipped = run.a0 + run.b0 + 2 * cut - last.a1 - last.b1
                weight = best[earlier][0] + a.weight_of(run.a0 + cut, run.a1) - GAP * skipped
                if weight > top:
                    top, before = weight, earlier
        best.append((top, before))
    at = max(range(len(runs)), key=lambda number: best[number][0])
    picked = []
    while at >= 0:
        picked.append(runs[at])
        at = best[at][1]
    chain: list[Run] = []
    for run in reversed(picked):
        cut = max(0, chain[-1].a1 - run.a0, chain[-1].b1 - run.b0) if chain else 0
        chain.append(Run(run.a0 + cut, run.a1, run.b0 + cut, run.b1))
    return chain


def _gaps(
    chain: Sequence[Run], length_a: int, length_b: int, *, level: bool = False
) -> Iterator[Run]:
    """What both texts have before, between and after the runs of a chain.

    With ``level`` as much before and after it in one text as in the other.
    """
    first, last = chain[0], chain[-1]
    begin, end = (0, 0), (length_a, length_b)
    if level:
        before = min(first.a0, first.b0)
        after = min(length_a - last.a1, length_b - last.b1)
        begin = first.a0 - before, first.b0 - before
        end = last.a1 + after, last.b1 + after
    a1, b1 = begin
    for run in (*chain, Run(end[0], end[0], end[1], end[1])):
        if run.a0 > a1 and run.b0 > b1:
            yield Run(a1, run.a0, b1, run.b0)
        a1, b1 = run.a1, run.b1


def _dovetail(chain: Sequence[Run], a: Letters, b: Letters, loose: float) -> bool:
    """Whether a chain is one stretch that begins where one text does and ends where one does."""
    first, last = chain[0], chain[-1]
    before = min(a.weight_of(0, first.a0), b.weight_of(0, first.b0))
    after = min(a.weight_of(last.a1, len(a.codes)), b.weight_of(last.b1, len(b.codes)))
    main = sum(a.weight_of(run.a0, run.a1) for run in chain)
    whole = max(a.weight_of(first.a0, last.a1), b.weight_of(first.b0, last.b1))
    return max(before, after) <= loose and main >= DENSE * whole
