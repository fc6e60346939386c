"""Which queries gained: base, candidate and their difference by document, language, length …"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from embedtune.embed.tokens import WordTokens
from embedtune.evaluation.statistics import Sums, bootstrap_t, sums_by_group
from embedtune.language import language_of
from embedtune.records import Chunk, Qrels, Query
from embedtune.results import Breakdown, Part, SystemScores

MIN_QUERIES = 20  # under either nothing is concluded of a part: it has no interval
MIN_GROUPS = 10
SHOWN = 12  # parts of one property; the rest is added up
EQUAL = 1e-9
STEP = " › "

# the first that is found counts; Chinese asks anywhere in the sentence
QUESTIONS = {
    "how-many": (r"\bhow (?:many|much|long|often|far|old|big|large|high|fast|soon)\b",
                 r"多少|多久|多长|多大|多高|多远|几[个次天年月岁种小分点号]"),
    "why": (r"\bwhy\b|\bhow come\b", r"为什么|为何|为啥|怎么会|什么原因|何故"),
    "how": (r"\bhow\b", r"怎么|怎样|如何|咋"),
    "when": (r"\bwhen\b", r"什么时候|何时|几时|啥时"),
    "where": (r"\bwhere\b", r"哪里|哪儿|何处|什么地方"),
    "who": (r"\bwho(?:m|se)?\b", r"谁|什么人|何人"),
    "which": (r"\bwhich\b", r"哪"),
    "what": (r"\bwhat(?:'?s)?\b", r"什么|啥|何为|何种"),
    "yes-no": (r"(?:^|[.!?;,]\s*)(?:is|are|was|were|am|do|does|did|can|could|may|might|must|shall|"
               r"should|will|would|has|have|had)\b",
               r"吗|是否|能不能|可不可以|是不是|有没有|要不要|会不会|可否|能否"),
}  # fmt: skip
PATTERNS = {
    kind: re.compile(f"{english}|{chinese}", re.IGNORECASE)
    for kind, (english, chinese) in QUESTIONS.items()
}


def breakdowns(
    base: SystemScores,
    candidate: SystemScores,
    metric: str,
    *,
    queries: Iterable[Query],
    chunks: Iterable[Chunk],
    qrels: Qrels,
    groups: Mapping[str, str],
    seed: int,
) -> tuple[Breakdown, ...]:
    """By document, section, style, language, length of query and of passage, and question word.

    A query counts once, where the passage that ``answering`` names stands. Lengths are in words
    and Chinese characters, cut at the thirds of these queries. Properties that all queries share
    are left out. Many parts are looked at, so that one in twenty intervals misses: they show where
    to look, and decide nothing.

    Args:
        groups: Query id -> group, the unit of the intervals.
    """
    asked = {query.id: query for query in queries if query.id in base.per_query[metric]}
    passages = {chunk.id: chunk for chunk in chunks}
    right = {
        query_id: passages.get(answering(query, qrels.get(query_id, {}), passages) or "")
        for query_id, query in asked.items()
    }
    found = {query: chunk for query, chunk in right.items() if chunk}
    properties = {
        "document": {query: _document(chunk) for query, chunk in found.items()},
        "section": {
            query: STEP.join((_document(chunk), *chunk.section))
            for query, chunk in found.items()
            if chunk.section
        },
        "style": {query.id: query.style for query in asked.values()},
        "language": {
            query.id: query.language or language_of(query.text) for query in asked.values()
        },
        "query-length": _thirds({query.id: query.text for query in asked.values()}),
        "passage-length": _thirds({query: chunk.embedded for query, chunk in found.items()}),
        "question": {query.id: question_word(query.text) for query in asked.values()},
    }
    pair = (base.per_query[metric], candidate.per_query[metric])
    made = (_breakdown(by, kinds, pair, groups, seed) for by, kinds in properties.items())
    return tuple(breakdown for breakdown in made if len(breakdown.parts) > 1)


def answering(
    query: Query | None, grades: Mapping[str, int], chunks: Mapping[str, Chunk]
) -> str | None:
    """The passage that stands for all right ones: it holds most of the evidence, else the best
    judged, else the first by id. None when nothing is relevant."""

    def held(chunk_id: str) -> int:
        chunk = chunks.get(chunk_id)
        return chunk.span.overlap(query.evidence) if chunk and query and query.evidence else 0

    relevant = [chunk_id for chunk_id, grade in grades.items() if grade >= 1]
    return min(relevant, key=lambda id: (-held(id), -grades[id], id), default=None)


def question_word(text: str) -> str:
    """What kind of question it is by its words, in English or Chinese; "none" for keywords."""
    return next((kind for kind, pattern in PATTERNS.items() if pattern.search(text)), "none")


def _document(chunk: Chunk) -> str:
    return chunk.source or chunk.document


def _thirds(texts: Mapping[str, str]) -> dict[str, str]:
    """Key -> its third by length, such as "≤7", "8-12" and ">12"; equal lengths stay together."""
    if not texts:
        return {}
    lengths = dict(zip(texts, WordTokens().count(list(texts.values())), strict=True))
    ordered = sorted(lengths.values())
    first, second = (ordered[(len(ordered) * part - 1) // 3] for part in (1, 2))

    def third(length: int) -> str:
        if length <= first:
            return f"≤{first}"
        if length > second:
            return f">{second}"
        return f"{first + 1}-{second}" if second > first + 1 else str(second)

    return {key: third(length) for key, length in lengths.items()}


def _breakdown(
    by: str,
    kinds: Mapping[str, str],
    pair: tuple[Mapping[str, float], Mapping[str, float]],
    groups: Mapping[str, str],
    seed: int,
) -> Breakdown:
    members: dict[str, list[str]] = defaultdict(list)
    for query, kind in kinds.items():
        if kind:
            members[kind].append(query)
    ordered = sorted(members, key=lambda kind: (-len(members[kind]), kind))
    # one further part is shown rather than called the rest
    shown = ordered if len(ordered) <= SHOWN + 1 else ordered[:SHOWN]
    others = [query for kind in ordered[len(shown) :] for query in members[kind]]
    return Breakdown(
        by,
        tuple(part_of(kind, members[kind], *pair, groups, seed) for kind in shown),
        part_of("", others, *pair, groups, seed) if others else None,
        len(ordered) - len(shown),
    )


def part_of(
    name: str,
    queries: Sequence[str],
    base: Mapping[str, float],
    candidate: Mapping[str, float],
    groups: Mapping[str, str],
    seed: int,
) -> Part:
    """Means of the two over some queries; an interval where they are enough."""
    differences = {query: candidate[query] - base[query] for query in queries}
    sums = sums_by_group(
        [{query: values[query] for query in queries} for values in (base, candidate)]
        + [differences],
        groups,
    )
    before, after, difference = map(float, sums.means)
    low = high = None
    if len(queries) >= MIN_QUERIES and sums.groups >= MIN_GROUPS:
        [(low, high)] = bootstrap_t(Sums(sums.values[2:], sums.queries), seed=seed).tolist()
    return Part(
        name=name,
        queries=len(queries),
        groups=sums.groups,
        base=before,
        candidate=after,
        difference=difference,
        low=None if low is None else max(-1.0, low),
        high=None if high is None else min(1.0, high),
        gained=sum(value > EQUAL for value in differences.values()),
        lost=sum(value < -EQUAL for value in differences.values()),
    )
