"""Finding negatives for the train queries: hard, farthest, random and given ones.

What is never a negative of a query: passages judged relevant to it, near-duplicates of those,
passages that overlap its evidence, whatever holds for another query of the same text, and the
query itself where it is a passage. What is kept for dev and test: see ``mine_negatives``.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedtune.datasets.given import nothing_left
from embedtune.datasets.groups import close_to, relevant_in
from embedtune.datasets.negatives import (
    Check,
    Doubt,
    Mined,
    Mining,
    Negative,
    NegativeSettings,
)
from embedtune.embed import Embedder, Matrix
from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, Progress, Query, RetrievalSet, no_progress
from embedtune.relevance import Overlaps, Relevance, merge_qrels, twins_of
from embedtune.retrieve.bm25 import BM25, DECIMALS
from embedtune.retrieve.dense import (
    CHUNK_BLOCK,
    Rows,
    check_vectors,
    nearest,
    pair_scores,
    scales_of,
    similarities,
    vectors_on_disk,
)
from embedtune.retrieve.fusion import fuse
from embedtune.retrieve.order import tie_breaker, tie_breakers
from embedtune.similar import MIN_CHARACTERS, alike, normalise

QUERY_BLOCK = 16_384  # queries mined at a time
SCORE_BLOCK = 2**26  # float32 scores that ``farthest`` holds: 256 MiB
COMPARED = 100  # relevant passages of a query that a candidate's letters are compared with
SHOWN = 2  # times ``count``: candidates of a query that a check sees
CLOSE = 1e-5  # float32 scores may be off by this share of the largest


def mine_negatives(
    data: RetrievalSet,
    settings: NegativeSettings,
    *,
    near_duplicates: Sequence[tuple[str, str]] = (),
    groups: Mapping[str, str] = {},
    left_out: Iterable[str] = (),
    left_out_pairs: Iterable[tuple[str, str]] = (),
    embedder: Embedder | None = None,
    given: Mapping[str, Sequence[str]] = {},
    check: Check | None = None,
    scratch: Path | None = None,
    progress: Progress = no_progress,
) -> Mining:
    """Find negatives for the train queries. Nothing is mined until the result is read.

    Candidates are train passages: all but those relevant to a query of another split, their
    near-duplicates, what overlaps them, and the other passages of a group (or document) that
    only other splits ask about. So training sees no passage of dev or test, not even as a wrong
    answer. A passage nobody asks about may be a negative unless its group is theirs: the deployed
    index holds it too. Where all splits search the same passages by design (labelled texts)
    nothing is kept apart. Equal texts are one candidate.

    ``hard`` takes the best ranked, by vectors, by BM25, or by both fused by rank. One that scores
    above p - (1 - ceiling) * |p| is dropped as a likely answer, p being the score of the query's
    lowest-scored relevant passage (positive-aware mining, Moreira et al. 2024, arXiv:2407.15831;
    above 0 that is ceiling * p, and below 0 it still demands a distance, where ceiling * p would
    let pass what beats the answer). With ``both`` the vectors' scores decide. BM25 scores follow
    the same rule: where a relevant passage shares no word with the query p is 0, and whatever
    shares one is dropped. Labelled texts are judged in full and need no ceiling.

    ``farthest`` gives each relevant passage the ``count`` passages least like it (by vectors of
    documents), none of them to two; relevant passages choose in the order of a hash of their id,
    and the last may get none. ``random`` draws from all candidates, for each query anew. ``given``
    takes all of ``given`` that pass the same tests, whatever they score: ordered by score where
    there is an embedder, else as given.

    Every negative is compared by letters with the relevant passages (``similar.alike``), so that
    none nearly repeats one even where ``near_duplicates`` is incomplete or missing.

    Memory, beyond the records, is bounded by a block: vectors lie in a file. BM25 holds its index,
    about 1 GB a million passages.

    Args:
        near_duplicates: Pairs of chunk ids.
        groups: Chunk id -> group, as the split made them; without it a chunk's ``document``.
        left_out: Train queries that are too close to dev or test.
        left_out_pairs: (query, chunk) likewise; the chunk is no negative of the query either.
        embedder: Needed for ``dense``, ``both`` and ``farthest``.
        given: Query id -> chunk ids, hardest first.
        check: Asked about up to 2 * ``count`` hard candidates a query, or all given ones. What
            it calls an answer is not taken; where it has no opinion, nothing is.
        scratch: Folder of the vectors' file (4 bytes a number).

    Raises:
        NothingUsable: No train queries, or too few passages for any query to get ``count``.
        ConfigError: The method needs an embedder, or a given chunk does not exist.
        IntegrityError: Vectors that nobody can search with (see ``check_vectors``).
    """
    if settings.method == "auto":
        settings = settings.model_copy(update={"method": "given" if given else "none"})
    if embedder is None and (
        settings.method == "farthest"
        or (settings.method == "hard" and settings.retriever != "bm25")
    ):
        raise ConfigError(f"negatives.method: {settings.method} needs an embedding model")
    judged = {
        query.id: relevant
        for query in (data.queries_of("train") if "train" in data.qrels else ())
        if (relevant := relevant_in({query.id: data.qrels["train"][query.id]}))
    }
    if not judged:
        raise NothingUsable(f"{data.name}: no train queries to find negatives for")
    for query in left_out:
        judged.pop(query, None)
    if not judged:
        raise nothing_left(data)
    for query, chunk in left_out_pairs:
        if query in judged:
            judged[query].discard(chunk)
    position = {chunk.id: place for place, chunk in enumerate(data.chunks)}
    unknown = [chunk for query in judged for chunk in given.get(query, ()) if chunk not in position]
    if settings.method == "given" and unknown:
        raise ConfigError(f"{len(unknown)} given negatives are not in the corpus, e.g. "
                          f"{visible(unknown[0])}")  # fmt: skip
    pairs = [(position[one], position[other]) for one, other in near_duplicates]
    trained = set().union(*judged.values())
    reserved = _reserved(data, trained, pairs, groups)
    corpus = _Corpus(data.chunks, reserved, trained)
    relevance = Relevance(data.queries, data.chunks, merge_qrels(data.qrels.values()), pairs)
    asked = [
        _Asked.of(query, judged[query.id], relevance.excluded(query.id), corpus)
        for query in data.queries
        if query.id in judged
    ]
    if settings.method not in ("none", "given"):
        most = max(corpus.candidates - len(one.excluded) for one in asked)
        if most < settings.count:
            raise NothingUsable(
                f"{data.name}: negatives.count: {settings.count} asked, but of "
                f"{corpus.candidates} different passages for training no query has more than "
                f"{most} that do not answer it; lower negatives.count or add documents"
            )
    miner = _Miner(settings, corpus, asked, embedder, check, scratch, progress,
                   judged_in_full=data.shared_passages)  # fmt: skip
    methods: dict[str, Callable[[], Iterator[Mined]]] = {
        "none": lambda: iter(()),
        "hard": miner.hard,
        "farthest": miner.farthest,
        "random": miner.random,
        "given": lambda: miner.given(given),
    }
    return Mining(settings, len(asked), corpus.candidates, corpus.copies, len(reserved),
                  methods[settings.method]())  # fmt: skip


# ---- the passages


def _reserved(
    data: RetrievalSet,
    trained: set[str],
    pairs: Sequence[tuple[int, int]],
    groups: Mapping[str, str],
) -> frozenset[str]:
    """Chunks that belong to dev, test or a further split."""
    if data.shared_passages:
        return frozenset()
    held = {chunk for name, qrels in data.qrels.items() if name != "train"
            for chunk in relevant_in(qrels)}  # fmt: skip
    group_of = {chunk.id: groups.get(chunk.id, chunk.document or chunk.id) for chunk in data.chunks}
    theirs = {group_of[chunk] for chunk in held & group_of.keys()}
    theirs -= {group_of[chunk] for chunk in trained & group_of.keys()}
    reserved = {chunk for chunk, group in group_of.items() if group in theirs}
    twins, overlaps = twins_of(data.chunks, pairs), Overlaps(data.chunks)
    for chunk in data.chunks:
        if chunk.id in held:
            reserved |= close_to(chunk, twins, overlaps)
    return frozenset(reserved)


class _Corpus:
    """Different texts, in the order of a hash of their ids. The first ``candidates`` of
    ``entries`` may be negatives; the others are relevant to train queries, but kept apart."""

    def __init__(
        self, chunks: Sequence[Chunk], reserved: frozenset[str], trained: set[str]
    ) -> None:
        texts = np.fromiter((_key(chunk.embedded) for chunk in chunks), np.uint64, len(chunks))
        ties = tie_breakers([chunk.id for chunk in chunks])
        order = np.lexsort((ties, texts))
        order = order[texts[order] > 0]  # by text, those without any left out
        begins = np.flatnonzero(np.diff(texts[order], prepend=np.uint64(0)))
        first = order[begins]
        text_of = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(order)))
        barred = np.zeros(len(begins), bool)
        needed = np.zeros(len(begins), bool)
        for row, text in zip(order.tolist(), text_of.tolist(), strict=True):
            barred[text] |= chunks[row].id in reserved
            needed[text] |= chunks[row].id in trained
        by_tie = np.argsort(ties[first])
        chosen = np.r_[by_tie[~barred[by_tie]], by_tie[(barred & needed)[by_tie]]].astype(np.int64)
        entries = np.full(len(begins), -1)
        entries[chosen] = np.arange(len(chosen))
        self.candidates = int((~barred).sum())
        self.copies = len(order) - len(begins)
        self.entries = [chunks[row] for row in first[chosen]]
        self.ids = [chunk.id for chunk in self.entries]
        self.entry_of = {
            chunks[row].id: entry
            for row, entry in zip(order.tolist(), entries[text_of].tolist(), strict=True)
            if entry >= 0
        }
        self._texts, self._entry_of_text = texts[first], entries

    @cached_property
    def copies_of(self) -> list[list[str]]:
        """For each entry all chunks of its text."""
        found: list[list[str]] = [[] for _ in self.entries]
        for chunk, entry in self.entry_of.items():
            found[entry].append(chunk)
        return found

    def entries_of(self, chunks: Iterable[str]) -> set[int]:
        return {self.entry_of[chunk] for chunk in chunks if chunk in self.entry_of}

    def entries_with(self, text: str) -> set[int]:
        """The entry of that very text, if there is one."""
        key = np.uint64(_key(text))
        at = np.searchsorted(self._texts, key)
        found = at < len(self._texts) and self._texts[at] == key and self._entry_of_text[at] >= 0
        return {int(self._entry_of_text[at])} if found else set()


def _key(text: str) -> int:
    """A hash of the text as ``normalise`` leaves it; 0 where nothing is left."""
    normal = normalise(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(normal, digest_size=8).digest(), "big") if normal else 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query with entries: those relevant to it, and the candidates that are no negatives."""

    query: Query
    relevant: Rows
    excluded: Rows

    @classmethod
    def of(
        cls, query: Query, relevant: Iterable[str], excluded: Iterable[str], corpus: _Corpus
    ) -> "_Asked":
        own = corpus.entries_of(relevant)
        barred = own | corpus.entries_of(excluded) | corpus.entries_with(query.text)
        return cls(
            query,
            np.array(sorted(own), np.int64),
            np.array(sorted(entry for entry in barred if entry < corpus.candidates), np.int64),
        )


# ---- the methods


class _Ranked(NamedTuple):
    """One query's candidates, best first, without those that are no negatives."""

    entries: Sequence[int]
    scores: Sequence[float]
    relevant: int  # excluded ones among the candidates
    positive: float | None  # the lowest score of a relevant passage


class _Passed(NamedTuple):
    """The account of a query so far, and the candidates that nothing speaks against."""

    account: Mined
    entries: Sequence[int]
    scores: Sequence[float | None]


class _Miner:
    """The methods over one corpus. Vectors and BM25 are made when first needed."""

    def __init__(
        self,
        settings: NegativeSettings,
        corpus: _Corpus,
        asked: Sequence[_Asked],
        embedder: Embedder | None,
        check: Check | None,
        scratch: Path | None,
        progress: Progress,
        *,
        judged_in_full: bool,
    ) -> None:
        self.settings = settings
        self.corpus = corpus
        self.asked = asked
        self.embedder: Any = embedder  # an Embedder wherever a method needs one
        self.check = check
        self.scratch = scratch
        self.progress = progress
        self.judged_in_full = judged_in_full

    @cached_property
    def vectors(self) -> Matrix:
        texts = (chunk.embedded for chunk in self.corpus.entries)
        return vectors_on_disk(self.embedder, texts, "document", folder=self.scratch)

    @cached_property
    def bm25(self) -> BM25:
        return BM25(self.corpus.entries)

    def blocks(self) -> Iterator[Sequence[_Asked]]:
        for first in range(0, len(self.asked), QUERY_BLOCK):
            yield self.asked[first : first + QUERY_BLOCK]
            self.progress(min(first + QUERY_BLOCK, len(self.asked)), len(self.asked))

    def hard(self) -> Iterator[Mined]:
        rank = {"dense": self.dense, "bm25": self.lexical, "both": self.both}
        for block in self.blocks():
            ranked = rank[self.settings.retriever](block)
            passed = [self.walk(one, own) for one, own in zip(block, ranked, strict=True)]
            yield from self.checked(block, passed, self.settings.count)

    # rankings

    def query_vectors(self, block: Sequence[_Asked]) -> Matrix:
        texts = [one.query.text for one in block]
        vectors = self.embedder.embed(texts, "query")
        # texts that differ in case only may have one vector
        check_vectors(vectors, texts, self.embedder.name, allow_collapsed=True)
        return vectors

    def scores_of(self, queries: Matrix, entries: Sequence[Sequence[int] | Rows]) -> list[Any]:
        """For each query the scores of its entries."""
        lengths = [len(own) for own in entries]
        rows = np.repeat(np.arange(len(entries)), lengths)
        flat = np.concatenate([np.asarray(own, np.int64) for own in entries])
        scores = pair_scores(queries, self.vectors, rows, flat, self.embedder.similarity)
        return np.split(scores, np.cumsum(lengths)[:-1])

    def dense(self, block: Sequence[_Asked], vectors: Matrix | None = None) -> Iterator[_Ranked]:
        queries = self.query_vectors(block) if vectors is None else vectors
        excluded = [one.excluded for one in block]
        found = nearest(
            queries,
            self.vectors[: self.corpus.candidates],
            self.corpus.ids[: self.corpus.candidates],
            self.settings.depth,
            similarity=self.embedder.similarity,
            without=excluded,
        )
        known = self.scores_of(queries, excluded)
        positives = self.scores_of(queries, [one.relevant for one in block])
        for row in range(len(block)):
            scores = found.scores[row]  # a candidate beyond the last is minus infinity
            filled = int((found.indices[row] >= 0).sum())
            yield _Ranked(
                found.indices[row, :filled].tolist(),
                scores[:filled].tolist(),
                int((known[row] >= scores[-1]).sum()),
                float(positives[row].min()) if len(positives[row]) else None,
            )

    def lexical(self, block: Sequence[_Asked]) -> Iterator[_Ranked]:
        for one in block:
            scores = self.bm25.scores(one.query.text)
            known, positives = scores[one.excluded], scores[one.relevant]
            scores[one.excluded] = scores[self.corpus.candidates :] = 0
            best = self.bm25.best(scores, self.settings.depth)
            full = len(best) == self.settings.depth
            yield _Ranked(
                best.tolist(),
                scores[best].astype(float).round(DECIMALS).tolist(),
                int((known >= scores[best[-1]] if full else known > 0).sum()),
                round(float(positives.min()), DECIMALS) if len(positives) else None,
            )

    def both(self, block: Sequence[_Asked]) -> Iterator[_Ranked]:
        vectors, depth = self.query_vectors(block), self.settings.depth
        rankings = list(zip(self.dense(block, vectors), self.lexical(block), strict=True))
        fused = []
        for ranked in rankings:
            named = [[(self.corpus.ids[entry], 0.0) for entry in own.entries] for own in ranked]
            hits = fuse(named, depth=depth)[:depth]
            fused.append([self.corpus.entry_of[hit.chunk] for hit in hits])
        scores = self.scores_of(vectors, fused)
        for entries, own, (one, other) in zip(fused, scores, rankings, strict=True):
            yield _Ranked(entries, own.tolist(), max(one.relevant, other.relevant), one.positive)

    # from candidates to negatives

    def walk(self, one: _Asked, ranked: _Ranked) -> _Passed:
        """Down the ranking until there is enough."""
        settings, limit = self.settings, self.limit(ranked.positive)
        estimated = ranked.positive is not None and not self.judged_in_full
        repeats = self.repeats(one.relevant)
        wanted = settings.count * (SHOWN if self.check else 1)
        entries: list[int] = []
        scores: list[float] = []
        nearly = above = hardest = suspects = 0
        for entry, score in list(zip(ranked.entries, ranked.scores, strict=True))[settings.skip :]:
            counts = hardest < settings.count  # for the estimate
            if score > limit and not counts:  # most often; letters are dear to compare
                above += 1
                continue
            if repeats(entry):
                nearly += 1
                continue
            if counts:
                hardest += 1
                suspects += ranked.positive is not None and score >= ranked.positive
            if score > limit:
                above += 1
                continue
            entries.append(entry)
            scores.append(score)
            if len(entries) == wanted:
                break
        account = Mined(
            one.query.id,
            candidates=len(ranked.entries) + ranked.relevant,
            relevant=ranked.relevant,
            alike=nearly,
            skipped=min(settings.skip, len(ranked.entries)),
            above=above,
            hardest=hardest if estimated else 0,
            suspects=suspects if estimated else 0,
        )
        return _Passed(account, entries, scores)

    def limit(self, positive: float | None) -> float:
        ceiling = self.settings.ceiling
        if ceiling is None or positive is None or self.judged_in_full:
            return np.inf
        return positive - (1 - ceiling) * abs(positive) + 1e-6  # what float32 vectors may be off

    def repeats(self, relevant: Rows) -> Callable[[int], bool]:
        """Whether an entry nearly repeats one of the relevant ones."""
        entries = self.corpus.entries
        texts = [normalise(entries[entry].embedded) for entry in relevant[:COMPARED]]
        long = [text for text in texts if len(text) >= MIN_CHARACTERS]

        def check(entry: int) -> bool:
            text = normalise(entries[entry].embedded)
            return len(text) >= MIN_CHARACTERS and any(alike(text, own) for own in long)

        return check

    def checked(
        self, block: Sequence[_Asked], passed: Sequence[_Passed], count: int | None
    ) -> Iterator[Mined]:
        """The first ``count`` that the check lets pass, hardest first."""
        chunks, ids = self.corpus.entries, self.corpus.ids
        opinions: dict[str, frozenset[int] | None] = {}
        if self.check is not None:
            doubts = [
                Doubt(
                    one.query,
                    tuple(chunks[entry] for entry in one.relevant[:COMPARED]),
                    tuple(chunks[entry] for entry in own.entries),
                )
                for one, own in zip(block, passed, strict=True)
                if own.entries
            ]
            asked = [doubt.query.id for doubt in doubts]
            opinions = dict(zip(asked, self.check(doubts) if doubts else (), strict=True))
        for own in passed:
            answers = opinions.get(own.account.query, frozenset())
            if answers is None:
                yield replace(own.account, unchecked=True)
                continue
            taken = [
                Negative(ids[entry], score)
                for place, (entry, score) in enumerate(zip(own.entries, own.scores, strict=True))
                if place not in answers
            ][:count]
            if all(negative.score is not None for negative in taken):
                taken.sort(key=lambda negative: -(negative.score or 0))
            yield replace(
                own.account,
                negatives=tuple(taken),
                answers=tuple(
                    chunk
                    for place in sorted(answers)
                    for chunk in self.corpus.copies_of[own.entries[place]]
                ),
                refused=len(answers),
                checked=len(own.entries) if self.check else 0,
            )

    # the other methods

    def given(self, given: Mapping[str, Sequence[str]]) -> Iterator[Mined]:
        last, entry_of = self.corpus.candidates, self.corpus.entry_of
        for block in self.blocks():
            passed = []
            for one in block:
                chunks = given.get(one.query.id, ())
                barred, repeats = set(one.excluded.tolist()), self.repeats(one.relevant)
                known = (entry_of.get(chunk, last) for chunk in chunks)
                distinct = list(dict.fromkeys(entry for entry in known if entry < last))
                allowed = [entry for entry in distinct if entry not in barred]
                entries = [entry for entry in allowed if not repeats(entry)]
                account = Mined(
                    one.query.id,
                    candidates=len(chunks),
                    relevant=len(distinct) - len(allowed),
                    alike=len(allowed) - len(entries),
                    unfit=len(chunks) - len(distinct),
                )
                passed.append(_Passed(account, entries, [None] * len(entries)))
            if self.embedder is not None:
                passed = self.scored(block, passed)
            yield from self.checked(block, passed, None)

    def scored(self, block: Sequence[_Asked], passed: Sequence[_Passed]) -> list[_Passed]:
        queries = self.query_vectors(block)
        scores = self.scores_of(queries, [own.entries for own in passed])
        positives = self.scores_of(queries, [one.relevant for one in block])
        found = []
        for own, values, relevant in zip(passed, scores, positives, strict=True):
            lowest = float(relevant.min()) if len(relevant) else None
            above = int((values > self.limit(lowest)).sum())
            found.append(_Passed(replace(own.account, above=above), own.entries, values.tolist()))
        return found

    def random(self) -> Iterator[Mined]:
        candidates = self.corpus.candidates
        for block in self.blocks():
            for one in block:
                seed = hashlib.sha256(f"{self.settings.seed}/{one.query.id}".encode()).digest()
                draw = np.random.default_rng(int.from_bytes(seed[:8], "big"))
                barred, repeats = set(one.excluded.tolist()), self.repeats(one.relevant)
                taken: list[Negative] = []
                drawn: set[int] = set()
                nearly = 0
                while len(taken) < self.settings.count and len(drawn) < candidates:
                    entry = int(draw.integers(candidates))
                    if entry in drawn:
                        continue
                    drawn.add(entry)
                    if entry in barred:
                        continue
                    if repeats(entry):
                        nearly += 1
                    else:
                        taken.append(Negative(self.corpus.ids[entry], None))
                yield Mined(
                    one.query.id,
                    tuple(taken),
                    candidates=len(drawn),
                    relevant=len(drawn & barred),
                    alike=nearly,
                )

    def farthest(self) -> Iterator[Mined]:
        own = self.least_alike()
        count = self.settings.count
        for block in self.blocks():
            for one in block:
                found = {negative for entry in one.relevant.tolist() for negative in own[entry]}
                hardest = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:count]
                taken = tuple(Negative(self.corpus.ids[entry], score) for entry, score in hardest)
                yield Mined(one.query.id, taken, candidates=len(taken))

    def least_alike(self) -> dict[int, list[tuple[int, float]]]:
        """For each relevant passage the candidates least like it that were still free.

        Among scores that float32 cannot tell apart, the exact ones decide, then the hash order of
        the entries.
        """
        ids, vectors, candidates = self.corpus.ids, self.vectors, self.corpus.candidates
        similarity = self.embedder.similarity
        barred: defaultdict[int, set[int]] = defaultdict(set)
        beside: defaultdict[int, set[int]] = defaultdict(set)  # relevant to the same queries
        for one in self.asked:
            for entry in one.relevant.tolist():
                barred[entry].update(one.excluded.tolist())
                beside[entry].update(one.relevant.tolist())
        order = sorted(barred, key=lambda entry: tie_breaker(ids[entry]))
        scales = scales_of(vectors[:candidates], similarity)
        free = np.ones(candidates, bool)
        found: dict[int, list[tuple[int, float]]] = {}
        size = max(1, min(len(order), SCORE_BLOCK // max(1, candidates)))
        for begin in range(0, len(order), size):
            block = order[begin : begin + size]
            scores = np.empty((len(block), candidates), np.float32)
            for first in range(0, candidates, CHUNK_BLOCK):
                part = slice(first, min(first + CHUNK_BLOCK, candidates))
                scores[:, part] = similarities(
                    vectors[block], vectors[part], similarity,
                    scales=None if scales is None else scales[part],
                )  # fmt: skip
            slack = CLOSE * max(1.0, float(np.abs(scores).max(initial=0)))
            scores[:, ~free] = np.inf
            for row, entry in enumerate(block):
                own = scores[row]
                own[list(barred[entry])] = np.inf
                repeats = self.repeats(np.array(sorted(beside[entry])))
                found[entry] = []
                while len(found[entry]) < self.settings.count and (low := own.min()) < np.inf:
                    close = np.flatnonzero(own <= low + slack)
                    exact = pair_scores(
                        vectors[[entry]], vectors, np.zeros(len(close), np.int64), close, similarity
                    )
                    best = int(exact.argmin())
                    chosen = int(close[best])
                    own[chosen] = np.inf
                    if not repeats(chosen):
                        scores[row:, chosen] = np.inf
                        free[chosen] = False
                        found[entry].append((chosen, float(exact[best])))
        return found
