"""Pairs of passages of one document that are worth a question over both."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from embedtune.queries.terms import terms_of
from embedtune.records import Chunk, content_id
from embedtune.similar import alike, normalise

FEWEST_SHARED = 2  # rare terms two passages have in common; one may be an accident
HOLDERS = 8  # a term in more passages of its document is not rare there
CLOSE = 0.06  # cosine below which two passages are hardly about the same thing


@dataclass(frozen=True, slots=True)
class _Candidate:
    first: Chunk
    second: Chunk
    score: float  # cosine of the passages' terms, weighed by idf²


def choose_pairs(chunks: Sequence[Chunk], count: int) -> list[tuple[Chunk, Chunk]]:
    """At most ``count`` pairs of passages that are about related things.

    Both are of one document and language, of different sections (without sections: not
    neighbours), do not overlap, are no near-duplicates and share at least two terms that are rare
    in the document, the closer the better. The documents take turns, best pair first; no passage
    is in two pairs. The choice follows from the content alone.
    """
    weights = _weights(chunks)
    by_document: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_document[chunk.document].append(chunk)
    queues = [
        queue
        for own in by_document.values()
        if (queue := _disjoint(_candidates(sorted(own, key=lambda chunk: chunk.start), weights)))
    ]
    queues.sort(key=lambda queue: (-queue[0].score, _name(queue[0])))
    chosen: list[tuple[Chunk, Chunk]] = []
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and len(chosen) < count:
                chosen.append((queue[turn].first, queue[turn].second))
    return chosen


def _weights(chunks: Sequence[Chunk]) -> dict[str, dict[str, float]]:
    """Chunk id -> term -> idf² over all chunks."""
    terms = {
        chunk.id: {term for term in terms_of(chunk.text) if any(map(str.isalpha, term))}
        for chunk in chunks
    }
    frequency = Counter(term for own in terms.values() for term in own)
    return {
        chunk: {term: math.log(1 + len(terms) / frequency[term]) ** 2 for term in sorted(own)}
        for chunk, own in terms.items()
    }


def _candidates(own: Sequence[Chunk], weights: dict[str, dict[str, float]]) -> list[_Candidate]:
    """Pairs of one document's chunks, given in their order, best first."""
    holders: dict[str, list[int]] = defaultdict(list)
    for place, chunk in enumerate(own):
        for term in weights[chunk.id]:
            holders[term].append(place)
    shared: Counter[tuple[int, int]] = Counter()
    common: dict[tuple[int, int], float] = defaultdict(float)
    for term, places in holders.items():
        if len(places) <= HOLDERS:
            for one, other in combinations(places, 2):
                shared[one, other] += 1
                common[one, other] += weights[own[one].id][term]
    found = []
    for (one, other), number in shared.items():
        first, second = own[one], own[other]
        if number < FEWEST_SHARED or first.span.overlap(second.span):
            continue
        if first.section == second.section and (first.section or other - one < 2):
            continue
        if first.language != second.language:
            continue
        norm = math.sqrt(sum(weights[first.id].values()) * sum(weights[second.id].values()))
        if (score := round(common[one, other] / norm, 9)) >= CLOSE:
            found.append(_Candidate(first, second, score))
    return sorted(found, key=lambda pair: (-pair.score, _name(pair)))


def _disjoint(ranked: Sequence[_Candidate]) -> list[_Candidate]:
    """The best of them such that no passage is taken twice and none repeats its partner."""
    taken: set[str] = set()
    kept = []
    for pair in ranked:
        if taken.isdisjoint((pair.first.id, pair.second.id)) and not alike(
            normalise(pair.first.text), normalise(pair.second.text)
        ):
            taken |= {pair.first.id, pair.second.id}
            kept.append(pair)
    return kept


def _name(pair: _Candidate) -> str:
    return content_id("", pair.first.id, pair.second.id)
