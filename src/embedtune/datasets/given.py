"""Splits that came with the data: never moved, their leaks found, missing parts made."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from embedtune.datasets.groups import asked_alike, boilerplate_of, relevant_in, sharing
from embedtune.datasets.split import NAMES, SplitSettings, split_queries
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import visible
from embedtune.records import Qrels, Reject, RetrievalSet
from embedtune.relevance import merge_qrels, twins_of
from embedtune.similar import components, normalise
from embedtune.similar import near_duplicates as find_near_duplicates


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Leaks between splits that came with the data."""

    left_out: tuple[str, ...]  # train queries of which no pair is left
    affected: tuple[str, ...]  # test queries in one group with train
    pairs: int  # passages judged in different splits that are near-duplicates or share text
    notes: tuple[str, ...]
    left_out_pairs: tuple[tuple[str, str], ...] = ()  # (query, passage) of the other train queries


def check_given_splits(
    data: RetrievalSet, near_duplicates: Sequence[tuple[int, int]], *, strict: bool = False
) -> LeakReport:
    """What leaks between splits that came with the data. They are never moved.

    Train pairs whose passage is in one group (same document, or joined by near-duplicates) with a
    passage of dev or test are to be left out of training, and so are all pairs of a query whose
    text is asked there too, or nearly so. They stay relevant: never a negative. Test queries in one
    group with train are flagged, so that both figures can be shown. Boilerplate (near-duplicates in
    more than 3 documents) is a leak to its direct near-duplicates but joins no groups, and so are
    passages that share text otherwise (contained, overlapping, re-ordered). Other parts
    (``test_…``) are no leak.

    Where all splits search the same passages by design (labelled texts), the texts of the queries
    are compared instead: it is they that training sees.

    Args:
        near_duplicates: Pairs of indices of passages.

    Raises:
        IntegrityError: The same query text with the same passage is in two splits; with
            ``strict``, any near-duplicate across splits too.
    """
    qrels = {name: data.qrels.get(name, {}) for name in NAMES}
    texts = {query.id: normalise(query.text) for query in data.queries}
    if data.shared_passages:
        return _check_texts(data.name, qrels, texts, strict=strict)
    _refuse_copies(data.name, qrels, texts)
    index = {chunk.id: number for number, chunk in enumerate(data.chunks)}
    twins = twins_of(data.chunks, near_duplicates)
    boilerplate = boilerplate_of({chunk.id: chunk for chunk in data.chunks}, twins)
    passages = {
        names: set[str]().union(*(relevant_in(qrels[name]) for name in names))
        for names in (("train",), ("dev", "test"))
    }
    notes: list[str] = []
    shared = sharing(data.chunks, set().union(*passages.values()), near_duplicates, notes)
    close = twins_of(data.chunks, [*near_duplicates, *shared])
    first: dict[str, int] = {}
    same_document = [
        (first.setdefault(chunk.document, i), i) for i, chunk in enumerate(data.chunks)
    ]
    joins = [
        pair for pair in near_duplicates if boilerplate.isdisjoint(data.chunks[i].id for i in pair)
    ]
    group = components(len(data.chunks), [*same_document, *joins])

    def asked_in(names: Sequence[str], query: str) -> bool:
        same = {texts[query], *(texts[other] for other in alike.get(query, ()))}
        return not same.isdisjoint(asked[names])

    def near(names: Sequence[str], chunks: Iterable[str]) -> set[str]:
        return {
            chunk
            for chunk in chunks
            if group[index[chunk]] in groups[names]
            or not passages[names].isdisjoint(close.get(chunk, ()))
        }

    split_of_query = {query: name for name in NAMES for query in qrels[name]}
    alike = asked_alike({query: texts[query] for query in split_of_query}, split_of_query)
    groups, asked = {}, {}
    for names in passages:
        groups[names] = {group[index[chunk]] for chunk in passages[names]}
        asked[names] = {texts[query] for name in names for query in qrels[name]}
    held_out = ("dev", "test")
    leaking = near(held_out, relevant_in(qrels["train"]))
    left_out: list[str] = []
    left_out_pairs: list[tuple[str, str]] = []
    for query, grades in qrels["train"].items():
        own = [chunk for chunk, grade in grades.items() if grade > 0]
        barred = [chunk for chunk in own if chunk in leaking]
        if asked_in(held_out, query) or (own and barred == own):
            left_out.append(query)
        else:
            left_out_pairs += [(query, chunk) for chunk in barred]
    trained = near(("train",), relevant_in(qrels["test"]))
    affected = tuple(
        query
        for query, grades in qrels["test"].items()
        if asked_in(("train",), query) or not trained.isdisjoint(relevant_in({query: grades}))
    )
    split_of = {chunk: name for name in reversed(NAMES) for chunk in relevant_in(qrels[name])}
    ids = [chunk.id for chunk in data.chunks]

    def across(pairs: Iterable[tuple[int, int]]) -> int:
        known = ((ids[one], ids[other]) for one, other in pairs if {ids[one], ids[other]} <= held)
        return sum(split_of[one] != split_of[other] for one, other in known)

    held = split_of.keys()
    near_pairs, sharing_text = across(near_duplicates), across(shared)
    found = f"{near_pairs} pairs of passages judged in different splits are near-duplicates"
    found += f", {sharing_text} more share text" if sharing_text else ""
    report = _report(
        data.name,
        qrels,
        tuple(left_out),
        affected,
        near_pairs + sharing_text,
        found,
        tuple(left_out_pairs),
        strict=strict,
    )
    return replace(report, notes=(*report.notes, *notes))


def _report(
    name: str,
    qrels: Mapping[str, Qrels],
    left_out: tuple[str, ...],
    affected: tuple[str, ...],
    pairs: int,
    found: str,
    left_out_pairs: tuple[tuple[str, str], ...] = (),
    *,
    strict: bool,
) -> LeakReport:
    if not (pairs or left_out or left_out_pairs or affected):
        return LeakReport((), (), 0, ())
    further = f" and {len(left_out_pairs)} further pairs" if left_out_pairs else ""
    note = (
        f"{found}; {len(left_out)} of {len(qrels['train'])} train queries{further} are left out of "
        f"training, {len(affected)} of {len(qrels['test'])} test queries are flagged"
    )
    if strict and pairs:
        raise IntegrityError(f"{name}: {note} (--strict)")
    return LeakReport(left_out, affected, pairs, (note,), left_out_pairs)


def nothing_left(data: RetrievalSet) -> NothingUsable:
    """The error for data of which ``check_given_splits`` leaves nothing to train on."""
    pairs = sum(len(relevant_in({query: own})) for query, own in data.qrels["train"].items())
    return NothingUsable(
        f"{data.name}: no train pair is left: each of the {pairs} shares its passage, its "
        "document, a near-duplicate or its question with dev or test; put all judgements into one "
        "split (qrels/train.tsv alone), and dev and test are cut from it by document, or take what "
        "is shared out of dev and test"
    )


def _check_texts(
    name: str, qrels: Mapping[str, Qrels], texts: Mapping[str, str], *, strict: bool
) -> LeakReport:
    """Leaks between splits of labelled texts, which are queries and passages at once."""
    first: dict[str, tuple[str, str]] = {}
    twice = []
    for split, part in qrels.items():
        for query, grades in part.items():
            known, where = first.setdefault(texts[query], (query, split))
            if where != split and not grades.keys().isdisjoint(qrels[where][known]):
                twice.append(f"{visible(texts[query], 60)} ({where} and {split})")
    if twice:
        total = sum(map(len, qrels.values()))
        raise IntegrityError(
            f"{name}: {len(twice)} of {total} texts ({len(twice) / total:.1%}) stand in two splits "
            f"with the same label, e.g. {'; '.join(twice[:3])}; remove them from one"
        )
    asked = [(query, split) for split, part in qrels.items() for query in part]
    pairs = 0
    close: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for one, other in find_near_duplicates([texts[query] for query, _ in asked]):
        splits = {asked[one][1], asked[other][1]}
        pairs += len(splits) == 2
        if len(splits) == 2 and "train" in splits:
            for query, split in (asked[one], asked[other]):
                close[split].add(query)
    return _report(
        name,
        qrels,
        tuple(query for query in qrels["train"] if query in close["train"]),
        tuple(query for query in qrels["test"] if query in close["test"]),
        pairs,
        f"{pairs} pairs of texts in different splits are near-duplicates",
        strict=strict,
    )


def _refuse_copies(name: str, qrels: Mapping[str, Qrels], texts: Mapping[str, str]) -> None:
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    twice = []
    for split, part in qrels.items():
        for query, grades in part.items():
            for chunk in relevant_in({query: grades}):
                first, where = seen.setdefault((texts[query], chunk), (query, split))
                if where != split:
                    twice.append(f"{visible(first)} ({where}) and {visible(query)} ({split})")
    if twice:
        total = sum(len(grades) for part in qrels.values() for grades in part.values())
        raise IntegrityError(
            f"{name}: {len(twice)} of {total} judgements ({len(twice) / total:.1%}) stand in two "
            f"splits, the same query with the same passage, e.g. {'; '.join(twice[:3])}; remove "
            "them from one"
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """Data with all of train, dev and test. ``by`` is "given" when they came with it."""

    data: RetrievalSet
    by: str = "given"
    optimistic: bool = False
    group_of_chunk: Mapping[str, str] = field(default_factory=dict)  # where all parts were made
    dropped: tuple[Reject, ...] = ()
    notes: tuple[str, ...] = ()


def complete_splits(
    data: RetrievalSet, near_duplicates: Sequence[tuple[int, int]], settings: SplitSettings
) -> Completion:
    """``data`` with train, dev and test; what it lacks is cut out of what it has.

    Args:
        near_duplicates: Pairs of indices of passages.

    Raises:
        NothingUsable: There is no train split: nothing to train on that test does not know.
    """
    have = {name for name in NAMES if data.qrels.get(name)}
    if have == set(NAMES) or not data.queries:
        return Completion(data)
    if data.shared_passages:  # divided by the rows when they were read, where there are enough
        raise NothingUsable(
            f"{data.name}: no {' and no '.join(name for name in NAMES if name not in have)} split, "
            "and too few texts to cut one; give more"
        )
    if not have:  # judgements under another name: all of them are ours to divide
        pool, rest, names = merge_qrels(data.qrels.values()), {}, NAMES
    elif "train" in have:
        names = tuple(name for name in NAMES if name == "train" or name not in have)
        pool = data.qrels["train"]
        rest = {name: part for name, part in data.qrels.items() if name not in names}
    else:
        raise NothingUsable(f"{data.name}: no train split; there is {', '.join(sorted(have))} only")
    queries = [query for query in data.queries if query.id in pool]
    split = split_queries(data.chunks, queries, pool, near_duplicates, settings, names)
    source = "train" if rest else ", ".join(map(visible, data.qrels))
    note = f"{' and '.join(names)} made of {source}, by {split.by}"
    if split.dropped:
        reasons = Counter(reject.code for reject in split.dropped)
        note += "; left out: " + ", ".join(f"{n} {code}" for code, n in sorted(reasons.items()))
    return Completion(
        RetrievalSet(data.name, data.chunks, data.queries, {**rest, **split.qrels}, bool(rest)),
        split.by,
        split.optimistic,
        {} if rest else split.group_of_chunk,
        split.dropped,
        (note, *split.notes),
    )
