"""Systems on one retrieval set: every text encoded once, every split against the whole corpus."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from embedtune.embed import Embedder, Matrix, Similarity, document_name
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation import metrics
from embedtune.evaluation.judged import checked_judgements, distinct_texts, groups_of_chunks
from embedtune.evaluation.quantise import RESCORED, Precision, quantise
from embedtune.evaluation.quantise import nearest as quantised_nearest
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.statistics import score_intervals, sums_by_group
from embedtune.evaluation.systems import (
    Kind,
    System,
    matryoshka_dimensions,
    open_embedder,
    open_reranker,
)
from embedtune.records import Query, RetrievalSet, content_id
from embedtune.results import SystemScores
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.dense import Neighbours, check_vectors, nearest_at
from embedtune.retrieve.fusion import CHOICES, DEPTH, Fusion, fuse
from embedtune.retrieve.order import Ranking
from embedtune.retrieve.rerank import Reranker, rerank

logger = logging.getLogger(__name__)

KEPT = 100  # hits a query that stay in the result


class Evaluator:
    """Measures systems on one data set. Vectors and rankings are kept and shared: the hybrid of
    a model, its shorter dimensions and its other splits cost no further encoding.

    Chunks of equal text are one entry of the index: whichever of them is judged, the entry
    counts for it, and none takes two places in a ranking. A near-duplicate of a relevant chunk
    counts as that chunk.

    Args:
        groups: Chunk id -> group, as the split made them; without it, a chunk's ``document``,
            joined where documents share a near-duplicate or a query.
        near_duplicates: Pairs of chunk ids.
        embedder_of: Opens embedders; the caller adds caches there.
        reranker_of: Opens cross-encoders, likewise.
        allow_collapsed: Measure a model that gives all texts one vector (its tokenizer knows none
            of them) instead of refusing it; ties are broken by a hash, so it scores as chance does.

    Raises:
        NothingUsable: There are no chunks.
    """

    def __init__(
        self,
        data: RetrievalSet,
        settings: EvaluationSettings | None = None,
        *,
        groups: Mapping[str, str] | None = None,
        near_duplicates: Iterable[tuple[str, str]] = (),
        embedder_of: Callable[[System], Embedder] = open_embedder,
        reranker_of: Callable[[System], Reranker] = open_reranker,
        allow_collapsed: bool = False,
    ) -> None:
        if not data.chunks:
            raise NothingUsable(f"{data.name}: the corpus is empty; nothing can be searched")
        self.data = data
        self.settings = settings or EvaluationSettings()
        self._embedder_of = embedder_of
        self._reranker_of = reranker_of
        self._allow_collapsed = allow_collapsed
        self._entries, self._copies = distinct_texts(data.chunks)
        self._twins: dict[str, set[str]] = defaultdict(set)
        for one, other in near_duplicates:
            self._twins[one].add(other)
            self._twins[other].add(one)
        self._groups = groups or groups_of_chunks(data, self._twins)
        self._queries = {query.id: query for query in data.queries}
        self._judged: dict[str, dict[str, dict[str, int]]] = {}
        self._embedders: dict[System, Embedder] = {}
        self._rerankers: dict[str, Reranker] = {}
        self._vectors: dict[str, Matrix] = {}
        self._query_vectors: dict[tuple[str, str], Matrix] = {}
        self._rankings: dict[tuple[str, str], dict[str, Ranking]] = {}
        self._bm25: BM25 | None = None

    # what is asked

    def judgements(self, split: str) -> Mapping[str, Mapping[str, int]]:
        """Query id -> relevant chunks with grades, of the queries that have any.

        Raises:
            NothingUsable: The split has no query with a relevant chunk.
            IntegrityError: A relevant id is not in the corpus, or a judged query has no text.
        """
        if split not in self._judged:
            self._judged[split] = checked_judgements(self.data, split)
        return self._judged[split]

    def queries(self, split: str) -> tuple[Query, ...]:
        """The queries that are measured in ``split``, in the order of the data."""
        judged = self.judgements(split)
        return tuple(query for query in self.data.queries if query.id in judged)

    def groups(self, split: str) -> dict[str, str]:
        """Query id -> group, the unit of tests and intervals."""
        return {
            query: min(self._groups.get(chunk, chunk) for chunk in relevant)
            for query, relevant in self.judgements(split).items()
        }

    @property
    def corpus_size(self) -> int:
        """Different texts in the corpus."""
        return len(self._entries)

    # answers

    def score(self, system: System, split: str, *, fusion: Fusion | None = None) -> SystemScores:
        """One system on one split.

        Args:
            fusion: For hybrids; without it, see ``best_fusion``.
        """
        facts: dict[str, Any] = {"system": system.label, "model": system.model}
        dims: dict[int, dict[str, float]] = {}
        if system.kind in ("dense", "api") and system.precision == "float32":
            dims = self._dims(self.embedder(system), split)
        rankings = self._ranked(system, split, fusion, facts)
        return self._scores(system.label, system.kind, rankings, split, dims, facts)

    def score_embedder(self, embedder: Embedder, split: str) -> float:
        """Mean of the deciding metric for an embedder that changes, such as a model in training:
        nothing of it is kept."""
        vectors = self._checked(embedder, self._texts, "document")
        judged = self.judgements(split)
        asked = self._checked(embedder, [self._queries[id].text for id in judged], "query")
        dimension = self._wanted_dimension(embedder, vectors)
        rankings = self._search(embedder, asked, vectors, list(judged), [dimension])[dimension]
        return float(self._values(rankings, split, (self.settings.metric,))[0][0].mean())

    def score_rankings(
        self, label: str, rankings: Mapping[str, Sequence[tuple[str, float]]], split: str
    ) -> SystemScores:
        """Rankings that were made elsewhere: query id -> (chunk id, score), best first.

        A judged query that is not among them found nothing.
        """
        entry_of = {copy: entry for entry, copies in self._copies.items() for copy in copies}
        found: dict[str, Ranking] = {}
        for query in self.judgements(split):
            places: dict[str, float] = {}
            for chunk, score in rankings.get(query, ()):
                places.setdefault(entry_of[chunk], score)
            found[query] = list(places.items())
        return self._scores(label, "run", found, split, {}, {"system": label})

    def best_fusion(self, hybrids: Sequence[System], split: str = "test") -> Fusion:
        """The weighting that is best on dev for these hybrids together; equal weights without
        dev, or when dev itself is measured."""
        choices = CHOICES[self.settings.fusion]
        if split == "dev" or not self.data.qrels.get("dev"):
            return choices[0]
        metric = self.settings.metric
        totals = [
            sum(
                self._mean(self._fused(dense, "dev", fusion), "dev", metric)
                for dense in (self._of_embedder(system, "dev") for system in hybrids)
            )
            for fusion in choices
        ]
        best = max(range(len(choices)), key=lambda place: round(totals[place], 12))
        return choices[best]

    def embedder(self, system: System) -> Embedder:
        """The embedder of a system, opened once."""
        key = system.encoder
        if key not in self._embedders:
            self._embedders[key] = self._embedder_of(system)
        return self._embedders[key]

    def vectors(self, system: System) -> tuple[list[str], Matrix]:
        """Ids and vectors of the corpus, equal texts once: for mining and diagnosis."""
        return list(self._entries), self._chunk_vectors(self.embedder(system))

    # inside

    @property
    def _texts(self) -> list[str]:
        return [chunk.embedded for chunk in self._entries.values()]

    def _similarity(self, embedder: Embedder) -> Similarity:
        chosen = self.settings.similarity
        return embedder.similarity if chosen == "auto" else chosen

    def _chosen_dimension(self, embedder: Embedder) -> int | None:
        if self.settings.dimension == "full":
            return None
        return self._wanted_dimension(embedder, self._chunk_vectors(embedder))

    def _wanted_dimension(self, embedder: Embedder, vectors: Matrix) -> int | None:
        wanted, own = self.settings.dimension, vectors.shape[1]
        if wanted == "full":
            return None
        if wanted > own:
            raise ConfigError(
                f"evaluation.dimension: {wanted} is above the {own} dimensions of {embedder.name}"
            )
        return None if wanted == own else wanted

    def _checked(self, embedder: Embedder, texts: list[str], role: Any) -> Matrix:
        vectors = embedder.embed(texts, role)
        check_vectors(vectors, texts, embedder.name, allow_collapsed=self._allow_collapsed)
        return vectors

    def _chunk_vectors(self, embedder: Embedder) -> Matrix:
        name = document_name(embedder)
        if name not in self._vectors:
            self._vectors[name] = self._checked(embedder, self._texts, "document")
        return self._vectors[name]

    def _asked_vectors(self, embedder: Embedder, split: str) -> Matrix:
        key = (embedder.name, split)
        if key not in self._query_vectors:
            texts = [self._queries[id].text for id in self.judgements(split)]
            self._query_vectors[key] = self._checked(embedder, texts, "query")
        return self._query_vectors[key]

    def _ranked(
        self, system: System, split: str, fusion: Fusion | None, facts: dict[str, Any]
    ) -> Mapping[str, Ranking]:
        """The rankings of a system; how they were made is added to ``facts``."""
        if system.first is not None:
            first = self._ranked(system.first, split, fusion, facts)
            reranker = self._reranker(system)
            facts.update(reranker=reranker.name, depth=system.depth)
            return rerank(
                reranker,
                {query: self._queries[query].text for query in first},
                first,
                {id: chunk.embedded for id, chunk in self._entries.items()},
                depth=system.depth,
            )
        if system.kind == "bm25":
            return self._lexical(split)
        embedder = self.embedder(system)
        facts["model"] = embedder.name
        if system.precision != "float32":
            facts["precision"] = system.precision
        rankings = self._of_embedder(system, split)
        if system.kind == "hybrid":
            fusion = fusion or self.best_fusion([system], split)
            facts["fusion"] = fusion.as_json()
            return self._fused(rankings, split, fusion)
        facts["similarity"] = self._similarity(embedder)
        return rankings

    def _reranker(self, system: System) -> Reranker:
        if system.model not in self._rerankers:
            self._rerankers[system.model] = self._reranker_of(system)
        return self._rerankers[system.model]

    def _of_embedder(self, system: System, split: str) -> dict[str, Ranking]:
        embedder = self.embedder(system)
        dimension = self._chosen_dimension(embedder)
        if system.precision == "float32":
            return self._dense(embedder, split, dimension)
        key = (f"{embedder.name} {dimension or ''} {system.precision}", split)
        if key not in self._rankings:
            self._rankings[key] = self._quantised(embedder, split, dimension, system.precision)
        return self._rankings[key]

    def _dense(self, embedder: Embedder, split: str, dimension: int | None) -> dict[str, Ranking]:
        return self._at_dimensions(embedder, split, [dimension])[dimension]

    def _at_dimensions(
        self, embedder: Embedder, split: str, dimensions: Iterable[int | None]
    ) -> dict[int | None, dict[str, Ranking]]:
        """The rankings at each dimension (None: all of the vector), in one pass over the corpus."""
        keys = {dim: (f"{embedder.name} {dim or ''}", split) for dim in dimensions}
        missing = [dim for dim, key in keys.items() if key not in self._rankings]
        if missing:
            found = self._search(
                embedder, self._asked_vectors(embedder, split), self._chunk_vectors(embedder),
                list(self.judgements(split)), missing,
            )  # fmt: skip
            self._rankings.update({keys[dim]: rankings for dim, rankings in found.items()})
        return {dim: self._rankings[key] for dim, key in keys.items()}

    def _quantised(
        self, embedder: Embedder, split: str, dimension: int | None, precision: Precision
    ) -> dict[str, Ranking]:
        """As an index keeps the vectors; ranges are the corpus's own. Rescoring finds 4 times as
        many as the deciding metric looks at, as an index that is asked for so many would."""
        ids = list(self._entries)
        index = quantise(
            self._chunk_vectors(embedder)[:, :dimension], precision,
            similarity=self._similarity(embedder),
        )  # fmt: skip
        wanted = self._depth
        if precision == "binary+rescore":
            wanted = RESCORED * metrics.deepest((self.settings.metric,))
        asked = self._asked_vectors(embedder, split)[:, :dimension]
        found = quantised_nearest(asked, index, ids, wanted, rescored=wanted)
        return _named_rows(list(self.judgements(split)), found, ids)

    def _search(
        self, embedder: Embedder, asked: Matrix, vectors: Matrix, queries: list[str],
        dimensions: Sequence[int | None],
    ) -> dict[int | None, dict[str, Ranking]]:  # fmt: skip
        ids, own = list(self._entries), vectors.shape[1]
        found = nearest_at(
            asked, vectors, ids, self._depth, [dim or own for dim in dimensions],
            similarity=self._similarity(embedder),
        )  # fmt: skip
        return {dim: _named_rows(queries, found[dim or own], ids) for dim in dimensions}

    @property
    def _depth(self) -> int:
        return max(KEPT, DEPTH, metrics.deepest(self.settings.metrics))

    def _lexical(self, split: str) -> dict[str, Ranking]:
        if self._bm25 is None:
            self._bm25 = BM25(list(self._entries.values()))
        if ("bm25", split) not in self._rankings:
            judged = self.judgements(split)
            hits = self._bm25.search([self._queries[id].text for id in judged], self._depth)
            self._rankings["bm25", split] = dict(
                zip(judged, ([tuple(hit) for hit in row] for row in hits), strict=True)
            )
        return self._rankings["bm25", split]

    def _fused(
        self, dense: Mapping[str, Ranking], split: str, fusion: Fusion
    ) -> dict[str, Ranking]:
        lexical = self._lexical(split)
        return {
            query: [tuple(hit) for hit in fuse([ranking, lexical[query]], fusion)]
            for query, ranking in dense.items()
        }

    def _values(
        self, rankings: Mapping[str, Ranking], split: str, names: Sequence[str]
    ) -> tuple[list[np.ndarray], int]:
        """Per metric its values by query, and how many queries a near-duplicate counted for."""
        judged = self.judgements(split)
        stands_for = [
            self._as_judged([chunk for chunk, _ in rankings[query]], grades)
            for query, grades in judged.items()
        ]
        scored = metrics.score([ranking for ranking, _ in stands_for], list(judged.values()), names)
        return [scored[name] for name in names], sum(twin for _, twin in stands_for)

    def _mean(self, rankings: Mapping[str, Ranking], split: str, metric: str) -> float:
        return float(self._values(rankings, split, (metric,))[0][0].mean())

    def _as_judged(
        self, entries: Sequence[str], grades: Mapping[str, int]
    ) -> tuple[list[str], bool]:
        """The ranking with each entry as the judged chunk it stands for, nothing twice."""
        ranking: dict[str, None] = {}
        twin_counted = False
        for entry in entries:
            names = [chunk for chunk in self._copies[entry] if chunk in grades]
            if not names:
                copies = self._copies[entry]
                near = [t for c in copies for t in self._twins.get(c, ()) if t in grades]
                if near:
                    names = [max(near, key=lambda chunk: (grades[chunk], chunk))]
                    twin_counted = True
            ranking.update(dict.fromkeys(names or [entry]))
        return list(ranking), twin_counted

    def _dims(self, embedder: Embedder, split: str) -> dict[int, dict[str, float]]:
        own = self._chunk_vectors(embedder).shape[1]
        names = self.settings.metrics
        wanted = [None if dim == own else dim for dim in matryoshka_dimensions(embedder, own)]
        chosen = self._chosen_dimension(embedder)
        every = self._at_dimensions(embedder, split, [*wanted, chosen])
        measured = {}
        for dim in wanted:
            rankings = every[dim]
            values, _ = self._values(rankings, split, names)
            measured[dim or own] = {n: float(v.mean()) for n, v in zip(names, values, strict=True)}
        return measured

    def _scores(
        self, label: str, kind: Kind, rankings: Mapping[str, Ranking], split: str,
        dims: dict[int, dict[str, float]], facts: dict[str, Any],
    ) -> SystemScores:  # fmt: skip
        judged = self.judgements(split)
        names = self.settings.metrics
        values, twins = self._values(rankings, split, names)
        per_query = {
            name: dict(zip(judged, map(float, row), strict=True))
            for name, row in zip(names, values, strict=True)
        }
        sums = sums_by_group(list(per_query.values()), self.groups(split))
        ends = score_intervals(sums, seed=self.settings.seed)
        depth = metrics.deepest(names)
        if depth > self.corpus_size:
            logger.info("%s: only %d different texts; k above that is cut to it", self.data.name,
                        self.corpus_size)  # fmt: skip
        return SystemScores(
            name=label,
            kind=kind,
            metrics={name: float(row.mean()) for name, row in zip(names, values, strict=True)},
            per_query=per_query,
            rankings={
                query: tuple(self._named(ranking[:KEPT], judged[query]))
                for query, ranking in rankings.items()
            },
            dims=dims,
            intervals={
                name: (float(low), float(high))
                for name, (low, high) in zip(names, ends, strict=True)
            },
            facts={
                **facts,
                "data": self._digest(split),
                "groups": sums.groups,
                "corpus": self.corpus_size,
                "near_duplicate_hits": twins,
                "equal_texts": len(self.data.chunks) - self.corpus_size,
            },
        )

    def _named(self, ranking: Ranking, grades: Mapping[str, int]) -> Iterable[tuple[str, float]]:
        """Entries shown under the id that is judged, where one of equal texts is."""
        for entry, score in ranking:
            shown = [chunk for chunk in self._copies[entry] if chunk in grades]
            yield (shown[0] if shown else entry), score

    def _digest(self, split: str) -> str:
        judged = self.judgements(split)
        return content_id(
            "e",
            split,
            [(c.id, c.embedded) for c in self.data.chunks],
            [(q, sorted(grades.items()), self._queries[q].text) for q, grades in judged.items()],
        )


def _named_rows(
    queries: Sequence[str], found: Neighbours, ids: Sequence[str]
) -> dict[str, Ranking]:
    return {
        query: [(ids[index], float(score)) for index, score in zip(*row, strict=True)]
        for query, *row in zip(queries, found.indices, found.scores, strict=True)
    }


def restricted(scores: SystemScores, queries: Iterable[str]) -> SystemScores:
    """The same system on some of the queries only: means anew, no intervals nor dims."""
    chosen = sorted(set(queries))
    per_query = {
        name: {query: values[query] for query in chosen}
        for name, values in scores.per_query.items()
    }
    return SystemScores(
        name=scores.name,
        kind=scores.kind,
        metrics={n: float(np.mean(list(v.values()))) for n, v in per_query.items() if v},
        per_query=per_query,
        rankings={query: scores.rankings[query] for query in chosen},
        facts={**scores.facts, "queries": len(chosen)},
    )
