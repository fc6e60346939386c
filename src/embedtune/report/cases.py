"""Which questions gained and lost, what was retrieved for them, and what is hard for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedtune.records import Chunk, Qrels, Query
from embedtune.report.render import PASSAGE
from embedtune.results import Changes, Look, RankChange, SystemScores

CASES = 8  # shown each way
EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as shown, cut to a readable length; ``marked`` is the evidence, where known."""

    source: str
    page: int | None
    language: str
    title: str
    before: str
    marked: str
    after: str
    right: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One question before and after.

    ``rank_…``: of the first right passage, from 1; None when it was not found. ``top_…``: the
    first passage retrieved; None when nothing was, or when it is ``right`` (``found_…``).
    """

    query: str
    language: str
    before: float
    after: float
    rank_before: int | None
    rank_after: int | None
    right: Passage | None
    right_count: int
    top_before: Passage | None
    top_after: Passage | None
    found_before: bool
    found_after: bool
    look: Look | None = None  # what can be seen of why
    other_shared: tuple[str, ...] = ()  # terms in common with what took the right one's place

    @property
    def delta(self) -> float:
        return self.after - self.before


def deltas_of(base: SystemScores, candidate: SystemScores, metric: str) -> dict[str, float]:
    """Query id -> after minus before, for the queries that both have, largest loss first."""
    before, after = base.per_query.get(metric, {}), candidate.per_query.get(metric, {})
    deltas = {query: after[query] - before[query] for query in before if query in after}
    return dict(sorted(deltas.items(), key=lambda item: (item[1], item[0])))


def extreme_cases(
    deltas: Mapping[str, float],
    base: SystemScores,
    candidate: SystemScores,
    metric: str,
    *,
    queries: Mapping[str, Query],
    chunks: Mapping[str, Chunk],
    qrels: Qrels,
    unknown: Callable[[str], str],
    changes: Changes | None = None,
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The queries that gained most and lost most, largest change first.

    Args:
        deltas: As ``deltas_of`` gives them.
        changes: What evaluation saw of them; it names the queries where it is given.
        unknown: The text shown for a passage that is not in ``chunks``, from its id.
    """

    seen: dict[str, RankChange] = {}
    if changes:
        both = (*changes.most_gained, *changes.most_lost)
        seen = {change.look.query: change for change in both if change.look.query in deltas}

    def case(query_id: str) -> Case:
        change = seen.get(query_id)
        query = queries.get(query_id)
        relevant = {chunk for chunk, grade in qrels.get(query_id, {}).items() if grade >= 1}
        best = change.look.passage if change else _best_right(query, relevant, chunks)
        best = best or None

        def passage(chunk_id: str | None) -> Passage | None:
            if chunk_id is None:
                return None
            return _passage(chunk_id, chunks.get(chunk_id), query, chunk_id in relevant, unknown)

        before, after = base.rankings.get(query_id, ()), candidate.rankings.get(query_id, ())
        top_before, top_after = (ranking[0][0] if ranking else None for ranking in (before, after))
        return Case(
            query=query.text if query else query_id,
            language=query.language if query else "",
            before=base.per_query[metric][query_id],
            after=candidate.per_query[metric][query_id],
            # near-duplicates of a right passage are right too, which only `change` knows
            rank_before=change.rank_before if change else _rank(before, relevant),
            rank_after=change.rank_after if change else _rank(after, relevant),
            right=passage(best),
            right_count=len(relevant),
            top_before=None if top_before == best else passage(top_before),
            top_after=None if top_after == best else passage(top_after),
            found_before=best is not None and top_before == best,
            found_after=best is not None and top_after == best,
            look=change.look if change else None,
            other_shared=change.other_shared if change else (),
        )

    ordered = list(deltas)
    lost = [query for query in ordered[:CASES] if deltas[query] < -EQUAL]
    gained = [query for query in ordered[: -CASES - 1 : -1] if deltas[query] > EQUAL]
    if seen and changes:
        gained = [change.look.query for change in changes.most_gained if change.look.query in seen]
        lost = [change.look.query for change in changes.most_lost if change.look.query in seen]
    return tuple(map(case, gained)), tuple(map(case, lost))


def hardest_rows(changes: Changes, queries: Mapping[str, Query]) -> list[dict[str, Any]]:
    """What no system answers well: the question, its best and mean score, ranks by system."""
    return [
        {
            "query": queries[hard.look.query].text if hard.look.query in queries
            else hard.look.query,
            "language": queries[hard.look.query].language if hard.look.query in queries else "",
            "best": hard.best,
            "mean": hard.mean,
            "ranks": hard.ranks,
            "look": hard.look,
        }
        for hard in changes.hardest
    ]  # fmt: skip


def _rank(ranking: Sequence[tuple[str, float]], relevant: set[str]) -> int | None:
    return next((rank for rank, (chunk, _) in enumerate(ranking, 1) if chunk in relevant), None)


def _best_right(query: Query | None, relevant: set[str], chunks: Mapping[str, Chunk]) -> str | None:
    """The right passage to show: the one that holds most of the evidence, else the first by id."""

    def held(chunk_id: str) -> int:
        chunk = chunks.get(chunk_id)
        return chunk.span.overlap(query.evidence) if chunk and query and query.evidence else 0

    return min(relevant, key=lambda chunk_id: (-held(chunk_id), chunk_id), default=None)


def _passage(
    chunk_id: str,
    chunk: Chunk | None,
    query: Query | None,
    right: bool,
    unknown: Callable[[str], str],
) -> Passage:
    if chunk is None:
        return Passage("", None, "", "", unknown(chunk_id), "", "", right)
    start = end = 0
    evidence = query.evidence if query and right else None
    if evidence and evidence.document == chunk.document and len(chunk.text) == chunk.span.length:
        start = min(max(0, evidence.start - chunk.start), len(chunk.text))
        end = max(start, min(len(chunk.text), evidence.end - chunk.start))
    # the part shown begins a little before the evidence when the whole is too long
    first = max(0, min(start - PASSAGE // 5, len(chunk.text) - PASSAGE))
    last = min(len(chunk.text), first + PASSAGE)
    end = min(end, last)
    return Passage(
        source=chunk.source,
        page=chunk.page,
        language=chunk.language,
        title=chunk.title,
        before=("…" if first else "") + chunk.text[first : max(start, first)],
        marked=chunk.text[start:end],
        after=chunk.text[max(end, start, first) : last] + ("…" if last < len(chunk.text) else ""),
        right=right,
    )
