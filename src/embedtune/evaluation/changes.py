"""What changed rank and what can be seen of why; which queries no system answers."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from embedtune.embed.tokens import Tokens
from embedtune.evaluation.breakdown import EQUAL, answering
from embedtune.records import Chunk, Qrels, Query
from embedtune.results import Changes, CodeCount, HardQuery, Look, RankChange, SystemScores
from embedtune.retrieve.bm25 import term, terms, words

SHOWN = 8  # queries listed of each kind
UNKNOWN = 0.2  # share of tokens from which a text counts as one the base cannot read

CODES = (
    "no-shared-term",  # query and passage have no term in common
    "unknown-query",  # a fifth or more of the query's tokens are unknown to the base
    "unknown-passage",
    "cut",  # the passage is longer than what the base reads
    "answer-cut",  # and so is the stretch that answers, or its beginning
    "other-shares-more",  # the passage in its place has more terms of the query
    "same-document",  # the passage in its place is from the same document
    "several-right",  # more than one passage is right
)


def changes(
    base: SystemScores,
    candidate: SystemScores,
    systems: Iterable[SystemScores],
    metric: str,
    *,
    queries: Iterable[Query],
    chunks: Iterable[Chunk],
    qrels: Qrels,
    tokens: Tokens,
    near_duplicates: Iterable[tuple[str, str]] = (),
) -> Changes:
    """The largest gains and losses, and the queries that are hardest for all ``systems``.

    The codes of a query are seen, not proved, to be why: each is counted over all queries by what
    became of them, so that one that holds as often for what gained as for what lost says nothing.

    Args:
        systems: All that were measured on these queries; the two may be among them.
        tokens: Of the base.
        near_duplicates: Pairs of chunk ids; one of a right passage is right, as in the scores.
    """
    asked = {query.id: query for query in queries}
    passages = {chunk.id: chunk for chunk in chunks}
    before, after = base.per_query[metric], candidate.per_query[metric]
    relevant = _relevant(before, qrels, near_duplicates)
    looks = _looks(before, asked, passages, qrels, tokens)
    seen = {
        query: _change(look, base, candidate, metric, relevant[query], asked, passages)
        for query, look in looks.items()
    }
    delta = {query: after[query] - before[query] for query in before}
    gained = sorted((q for q in delta if delta[q] > EQUAL), key=lambda q: (-delta[q], q))
    lost = sorted((q for q in delta if delta[q] < -EQUAL), key=lambda q: (delta[q], q))
    every = tuple({scores.name: scores for scores in (base, candidate, *systems)}.values())
    hard = [_hard(look, every, metric, relevant[query]) for query, look in looks.items()]
    hard.sort(key=lambda item: (item.best, item.mean, item.look.query))
    return Changes(
        gained=len(gained),
        lost=len(lost),
        same=len(before) - len(gained) - len(lost),
        most_gained=tuple(seen[query] for query in gained[:SHOWN]),
        most_lost=tuple(seen[query] for query in lost[:SHOWN]),
        hardest=tuple(item for item in hard[:SHOWN] if item.best < 1 - EQUAL),
        unfound=sum(all(rank is None for rank in item.ranks.values()) for item in hard),
        codes=_counted(seen, set(gained), set(lost)),
    )


def _relevant(
    measured: Iterable[str], qrels: Qrels, near_duplicates: Iterable[tuple[str, str]]
) -> dict[str, set[str]]:
    """Query id -> the right passages with their near-duplicates."""
    twins: dict[str, set[str]] = defaultdict(set)
    for one, other in near_duplicates:
        twins[one].add(other)
        twins[other].add(one)
    found = {}
    for query in measured:
        right = {chunk for chunk, grade in qrels.get(query, {}).items() if grade >= 1}
        found[query] = right.union(*(twins[chunk] for chunk in right))
    return found


def _looks(
    measured: Iterable[str],
    asked: Mapping[str, Query],
    passages: Mapping[str, Chunk],
    qrels: Qrels,
    tokens: Tokens,
) -> dict[str, Look]:
    """Every query looked at; all texts are tokenised in one batch."""
    right = {
        query: answering(asked.get(query), qrels.get(query, {}), passages) for query in measured
    }
    texts = {query: asked[query].text if query in asked else "" for query in right}
    bodies = {chunk: passages[chunk].embedded for chunk in right.values() if chunk in passages}
    every = list(dict.fromkeys((*texts.values(), *bodies.values())))
    count = dict(zip(every, tokens.count(every), strict=True))
    unknown = dict(zip(every, tokens.unknown(every), strict=True))
    looks = {}
    for query, text in texts.items():
        passage = right[query] or ""
        body = bodies.get(passage, "")
        look = Look(
            query=query,
            passage=passage,
            shared=_shared(text, body),
            terms=len(set(words(text))),
            unknown=unknown[text],
            tokens=count[text],
            passage_unknown=unknown[body] if body else 0,
            passage_tokens=count[body] if body else 0,
            limit=tokens.max_tokens,
            codes=(),
        )
        cut = look.passage_tokens > tokens.max_tokens
        holds = {
            "no-shared-term": bool(body) and not look.shared,
            "unknown-query": look.unknown >= UNKNOWN * max(1, look.tokens),
            "unknown-passage": look.passage_unknown >= UNKNOWN * max(1, look.passage_tokens),
            "cut": cut,
            "answer-cut": cut
            and _answer_cut(asked.get(query), passages[passage], look.passage_tokens, tokens),
            "several-right": sum(grade >= 1 for grade in qrels.get(query, {}).values()) > 1,
        }
        looks[query] = _coded(look, holds)
    return looks


def _coded(look: Look, holds: Mapping[str, bool]) -> Look:
    """With the codes that hold added, in the order of ``CODES``."""
    codes = tuple(code for code in CODES if code in look.codes or holds.get(code))
    return replace(look, codes=codes)


def _answer_cut(query: Query | None, chunk: Chunk, count: int, tokens: Tokens) -> bool:
    """Whether what answers ends beyond the last token that is read."""
    evidence = query.evidence if query else None
    if evidence is None or evidence.document != chunk.document:
        return False
    if len(chunk.text) != chunk.span.length:  # its characters are not those of the document
        return False
    text = chunk.embedded
    spans = tokens.offsets(text)
    last = tokens.max_tokens - (count - len(spans))  # the special tokens are read too
    if not 0 < last < len(spans):
        return False
    begin = len(text) - len(chunk.text.rstrip())  # of the chunk's text, behind its title
    return begin + evidence.end - chunk.start > spans[last - 1][1]


def _shared(query: str, passage: str) -> tuple[str, ...]:
    """Words of the query whose terms the passage has too, once each, in the order of the query."""
    there = set(terms(passage))
    return tuple(word for word in dict.fromkeys(words(query)) if term(word) in there)


def _rank(ranking: Sequence[tuple[str, float]], relevant: Collection[str]) -> int | None:
    return next((rank for rank, (chunk, _) in enumerate(ranking, 1) if chunk in relevant), None)


def _change(
    look: Look,
    base: SystemScores,
    candidate: SystemScores,
    metric: str,
    relevant: Collection[str],
    asked: Mapping[str, Query],
    passages: Mapping[str, Chunk],
) -> RankChange:
    query = look.query
    before, after = base.per_query[metric][query], candidate.per_query[metric][query]
    old, new = base.rankings.get(query, ()), candidate.rankings.get(query, ())
    worse, better = (new, old) if after < before else (old, new)
    other = _in_its_place(worse, better, relevant) if abs(after - before) > EQUAL else ""
    shared: tuple[str, ...] = ()
    if other in passages and query in asked:
        shared = _shared(asked[query].text, passages[other].embedded)
        right = passages.get(look.passage)
        near = right is not None and right.document == passages[other].document
        more = len(shared) > len(look.shared)
        look = _coded(look, {"other-shares-more": more, "same-document": near})
    ranks = (_rank(old, relevant), _rank(new, relevant))
    return RankChange(look, before, after, *ranks, other, shared)


def _in_its_place(
    worse: Sequence[tuple[str, float]],
    better: Sequence[tuple[str, float]],
    relevant: Collection[str],
) -> str:
    """The first passage that stands above all right ones in the worse ranking and does not in the
    better one; empty when there is none."""
    before = set(_above(better, relevant))
    return next((chunk for chunk in _above(worse, relevant) if chunk not in before), "")


def _above(ranking: Sequence[tuple[str, float]], relevant: Collection[str]) -> list[str]:
    return [chunk for chunk, _ in takewhile(lambda hit: hit[0] not in relevant, ranking)]


def _hard(
    look: Look, systems: Sequence[SystemScores], metric: str, relevant: Collection[str]
) -> HardQuery:
    values = [scores.per_query[metric][look.query] for scores in systems]
    return HardQuery(
        look=look,
        best=max(values),
        mean=sum(values) / len(values),
        ranks={
            scores.name: _rank(scores.rankings.get(look.query, ()), relevant) for scores in systems
        },
    )


def _counted(
    seen: Mapping[str, RankChange], gained: Collection[str], lost: Collection[str]
) -> tuple[CodeCount, ...]:
    counts: dict[str, Counter[str]] = {code: Counter() for code in CODES}
    for query, change in seen.items():
        became = "gained" if query in gained else "lost" if query in lost else "same"
        for code in change.look.codes:
            counts[code][became] += 1
    return tuple(
        CodeCount(code, count["gained"], count["lost"], count["same"])
        for code, count in counts.items()
        if count
    )
