"""A large corpus made smaller, so that choices on dev do not read all of it every time."""

from collections.abc import Sequence
from dataclasses import replace

from embedtune.records import RetrievalSet
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.order import tie_breaker

MOST = 5000  # passages that choices on dev are made over


def subsampled(sets: Sequence[RetrievalSet]) -> list[RetrievalSet]:
    """The sets, which share their corpus, each with ``MOST`` passages where it has more.

    Kept are all that are judged in its dev split, though they be more; what BM25 finds for the dev
    queries, the first hits of all before the second of any, in half of the places that are left;
    and others by a hash of their ids. A model scores higher over these than over all: they are for
    comparing models with each other.
    """
    chunks = sets[0].chunks
    if len(chunks) <= MOST:
        return list(sets)
    index = BM25(chunks)
    by_chance = sorted((chunk.id for chunk in chunks), key=tie_breaker)
    return [_subsampled(part, index, by_chance) for part in sets]


def _subsampled(data: RetrievalSet, index: BM25, by_chance: Sequence[str]) -> RetrievalSet:
    judged = data.qrels.get("dev", {})
    kept = dict.fromkeys(chunk for grades in judged.values() for chunk in grades)
    asked = [query.text for query in data.queries if query.id in judged]
    places = max(0, MOST - len(kept)) // 2
    depth = -(-places // len(asked)) if asked else 0
    found = index.search(asked, depth) if depth else []
    hits = [row[rank].chunk for rank in range(depth) for row in found if rank < len(row)]
    others = [chunk for chunk in dict.fromkeys(hits) if chunk not in kept]
    kept.update(dict.fromkeys(others[:places]))
    for chunk in by_chance:
        if len(kept) >= MOST:
            break
        kept[chunk] = None
    return replace(data, chunks=tuple(chunk for chunk in data.chunks if chunk.id in kept))


def subsample_note(smaller: RetrievalSet, data: RetrievalSet) -> str:
    """What is said where choices are made over fewer passages than the corpus has, else empty."""
    if len(smaller.chunks) == len(data.chunks):
        return ""
    return (
        f"dev is judged over {len(smaller.chunks):,} of {len(data.chunks):,} passages "
        "(those judged, what BM25 takes for them, and some by chance)"
    )
