"""What of a data set can be measured: different texts, sound judgements, groups of chunks."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, RetrievalSet
from embedtune.similar import components

EXAMPLES = 3  # shown in a message
BOILERPLATE = 3  # documents a text may stand in and still join them


def distinct_texts(chunks: Sequence[Chunk]) -> tuple[dict[str, Chunk], dict[str, tuple[str, ...]]]:
    """Id -> chunk of one chunk per text, and its id -> ids of all chunks of that text."""
    copies: dict[str, list[str]] = {}
    for chunk in chunks:
        copies.setdefault(chunk.embedded, []).append(chunk.id)
    by_id = {chunk.id: chunk for chunk in chunks}
    entries = {min(ids): by_id[min(ids)] for ids in copies.values()}
    return entries, {min(ids): tuple(sorted(ids)) for ids in copies.values()}


def checked_judgements(data: RetrievalSet, split: str) -> dict[str, dict[str, int]]:
    if split not in data.qrels:
        raise NothingUsable(
            f"{data.name}: there is no split {visible(split)!r}; there are "
            f"{', '.join(sorted(data.qrels)) or 'none'}"
        )
    known = {chunk.id for chunk in data.chunks}
    asked = {query.id for query in data.queries}
    judged = {
        query: relevant
        for query, grades in data.qrels[split].items()
        if (relevant := {chunk: grade for chunk, grade in grades.items() if grade > 0})
    }
    if not judged:
        raise NothingUsable(f"{data.name}: no query of split {split!r} has a relevant chunk")
    lost = [
        f"{visible(query)} -> {visible(chunk)}"
        for query, relevant in judged.items()
        for chunk in relevant
        if chunk not in known
    ]
    if lost:
        raise IntegrityError(
            f"{data.name}: {len(lost)} relevant chunks of split {split!r} are not in the corpus, "
            f"e.g. {', '.join(lost[:EXAMPLES])}; ids there look like "
            f"{', '.join(visible(repr(id)) for id in sorted(known)[:EXAMPLES])}"
        )
    silent = [visible(query) for query in judged if query not in asked]
    if silent:
        raise IntegrityError(
            f"{data.name}: {len(silent)} judged queries of split {split!r} have "
            f"no text, e.g. {', '.join(silent[:EXAMPLES])}"
        )
    return judged


def groups_of_chunks(data: RetrievalSet, twins: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Chunk id -> group: its document, joined with those that share a query or a near-duplicate.

    A text with copies in more than three documents is boilerplate and joins nothing.
    """
    document = {chunk.id: chunk.document or chunk.id for chunk in data.chunks}
    names = sorted(set(document.values()))
    number = {name: place for place, name in enumerate(names)}
    alike: dict[str, set[str]] = defaultdict(set)
    for chunk in data.chunks:
        alike[chunk.embedded].add(chunk.id)
    joins: list[tuple[int, int]] = []

    def join(chunks: Iterable[str], most: int = len(names)) -> None:
        found = sorted({number[document[chunk]] for chunk in chunks if chunk in document})
        if len(found) <= most:
            joins.extend((found[0], other) for other in found[1:])

    for ids in (*alike.values(), *({chunk, *others} for chunk, others in twins.items())):
        join(ids, BOILERPLATE)
    for qrels in data.qrels.values():
        for grades in qrels.values():
            join(chunk for chunk, grade in grades.items() if grade > 0)
    roots = components(len(names), joins)
    return {chunk: names[roots[number[name]]] for chunk, name in document.items()}
