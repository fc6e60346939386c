"""Systems on one retrieval set: every text encoded once, every split against the whole corpus."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from embedtune.embed import Embedder, Matrix, Similarity
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation import metrics
from embedtune.evaluation.judged import checked_judgements, distinct_texts, groups_of_chunks
from embedtune.evaluation.statistics import score_intervals, sums_by_group
from embedtune.evaluation.systems import (
    Kind,
    System,
    matryoshka_dimensions,
    open_embedder,
    parse_systems,
)
from embedtune.records import Query, RetrievalSet, content_id
from embedtune.results import SystemScores
from embedtune.retrieve.bm25 import BM25
from embedtune.retrieve.dense import check_vectors, nearest
from embedtune.retrieve.fusion import CHOICES_OF_K, DEFAULT_K, DEPTH, fuse
from embedtune.settings import Auto, PositiveInt, Settings

logger = logging.getLogger(__name__)

KEPT = 100  # hits a query that stay in the result

Ranking = list[tuple[str, float]]


def _as_system_texts(value: Any) -> Any:  # before validation
    """``{openai: name}`` is how YAML users write ``openai:name``."""
    if not isinstance(value, list | tuple):
        return value
    return [
        ":".join(next(iter(item.items()))) if isinstance(item, dict) and len(item) == 1 else item
        for item in value
    ]


class EvaluationSettings(Settings):
    """How systems are measured and compared."""

    metric: str = Field("ndcg@10", description="The figure that decides: NAME@K, e.g. ndcg@10.")
    similarity: Similarity | Auto = Field(
        "auto", description="How vectors are compared; auto: as the model's configuration says."
    )
    dimension: PositiveInt | Literal["full"] = Field(
        "full", description="Use only the first so many numbers of each vector (Matryoshka)."
    )
    rivals: Annotated[tuple[str, ...], BeforeValidator(_as_system_texts)] = Field(
        ("bm25",), description="Systems to beat besides the base: bm25, openai:MODEL, or a model."
    )
    probe: str = Field(
        "general", description="Test of what may be forgotten: general, none, or a BEIR folder."
    )
    min_gain: float = Field(
        0.01, ge=0, le=1, description="Smallest mean gain over the base that is worth shipping."
    )
    seed: int = Field(42, ge=0, description="Seed of resampling.")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        try:
            metrics.parse_metric(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("rivals")
    @classmethod
    def _readable_rivals(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_systems(texts)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return texts

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is computed: the standard figures and the one that decides."""
        return tuple(dict.fromkeys((*metrics.STANDARD, self.metric)))


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
        allow_collapsed: bool = False,
    ) -> None:
        if not data.chunks:
            raise NothingUsable(f"{data.name}: the corpus is empty; nothing can be searched")
        self.data = data
        self.settings = settings or EvaluationSettings()
        self._embedder_of = embedder_of
        self._allow_collapsed = allow_collapsed
        self._entries, self._copies = distinct_texts(data.chunks)
        self._twins: dict[str, set[str]] = defaultdict(set)
        for one, other in near_duplicates:
            self._twins[one].add(other)
            self._twins[other].add(one)
        self._groups = groups or groups_of_chunks(data, self._twins)
        self._queries = {query.id: query for query in data.queries}
        self._judged: dict[str, dict[str, dict[str, int]]] = {}
        self._embedders: dict[tuple[str, str], Embedder] = {}
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

    def score(self, system: System, split: str, *, fusion_k: int | None = None) -> SystemScores:
        """One system on one split.

        Args:
            fusion_k: For hybrids; without it, the better of 10 and 60 on dev, and 60 where there
                is no dev.
        """
        facts: dict[str, Any] = {"system": system.label, "model": system.model}
        dims: dict[int, dict[str, float]] = {}
        if system.kind == "bm25":
            rankings = self._lexical(split)
        else:
            embedder = self.embedder(system)
            facts["model"] = embedder.name
            rankings = self._dense(embedder, split, self._chosen_dimension(embedder))
            if system.kind == "hybrid":
                k = fusion_k or self.best_fusion_k([system], split)
                facts["fusion_k"] = k
                rankings = self._fused(rankings, split, k)
            else:
                facts["similarity"] = self._similarity(embedder)
                dims = self._dims(embedder, split)
        return self._scores(system.label, system.kind, rankings, split, dims, facts)

    def score_embedder(self, embedder: Embedder, split: str) -> float:
        """Mean of the deciding metric for an embedder that changes, such as a model in training:
        nothing of it is kept."""
        vectors = self._checked(embedder, self._texts, "document")
        judged = self.judgements(split)
        asked = self._checked(embedder, [self._queries[id].text for id in judged], "query")
        rankings = self._search(embedder, asked, vectors, list(judged), None)
        return float(self._values(rankings, split, (self.settings.metric,))[0][0].mean())

    def best_fusion_k(self, hybrids: Sequence[System], split: str = "test") -> int:
        """The k of reciprocal rank fusion that is best on dev for these hybrids together; 60
        without dev, or when dev itself is measured."""
        if split == "dev" or not self.data.qrels.get("dev"):
            return DEFAULT_K
        metric = self.settings.metric
        totals = {
            k: sum(
                self._mean(self._fused(self._of_embedder(system, "dev"), "dev", k), "dev", metric)
                for system in hybrids
            )
            for k in CHOICES_OF_K
        }
        return max(totals, key=lambda k: (round(totals[k], 12), k))

    def embedder(self, system: System) -> Embedder:
        """The embedder of a system, opened once."""
        key = (system.embedder, system.model)
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
        wanted = self.settings.dimension
        if wanted == "full":
            return None
        own = self._chunk_vectors(embedder).shape[1]
        if wanted > own:
            raise ConfigError(
                f"evaluation.dimension: {wanted} is above the {own} dimensions of {embedder.name}"
            )
        return wanted

    def _checked(self, embedder: Embedder, texts: list[str], role: Any) -> Matrix:
        vectors = embedder.embed(texts, role)
        check_vectors(vectors, texts, embedder.name, allow_collapsed=self._allow_collapsed)
        return vectors

    def _chunk_vectors(self, embedder: Embedder) -> Matrix:
        if embedder.name not in self._vectors:
            self._vectors[embedder.name] = self._checked(embedder, self._texts, "document")
        return self._vectors[embedder.name]

    def _asked_vectors(self, embedder: Embedder, split: str) -> Matrix:
        key = (embedder.name, split)
        if key not in self._query_vectors:
            texts = [self._queries[id].text for id in self.judgements(split)]
            self._query_vectors[key] = self._checked(embedder, texts, "query")
        return self._query_vectors[key]

    def _of_embedder(self, system: System, split: str) -> dict[str, Ranking]:
        embedder = self.embedder(system)
        return self._dense(embedder, split, self._chosen_dimension(embedder))

    def _dense(self, embedder: Embedder, split: str, dimension: int | None) -> dict[str, Ranking]:
        key = (f"{embedder.name} {dimension or ''}", split)
        if key not in self._rankings:
            self._rankings[key] = self._search(
                embedder, self._asked_vectors(embedder, split), self._chunk_vectors(embedder),
                list(self.judgements(split)), dimension,
            )  # fmt: skip
        return self._rankings[key]

    def _search(
        self, embedder: Embedder, asked: Matrix, vectors: Matrix, queries: list[str],
        dimension: int | None,
    ) -> dict[str, Ranking]:  # fmt: skip
        ids = list(self._entries)
        found = nearest(
            asked, vectors, ids, self._depth, similarity=self._similarity(embedder),
            dimension=dimension,
        )  # fmt: skip
        return {
            query: [(ids[index], float(score)) for index, score in zip(*row, strict=True)]
            for query, *row in zip(queries, found.indices, found.scores, strict=True)
        }

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

    def _fused(self, dense: Mapping[str, Ranking], split: str, k: int) -> dict[str, Ranking]:
        lexical = self._lexical(split)
        return {
            query: [tuple(hit) for hit in fuse([ranking, lexical[query]], k=k)]
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
        measured = {}
        for dim in matryoshka_dimensions(embedder, own):
            rankings = self._dense(embedder, split, None if dim == own else dim)
            values, _ = self._values(rankings, split, names)
            measured[dim] = {n: float(v.mean()) for n, v in zip(names, values, strict=True)}
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
