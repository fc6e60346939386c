"""What evaluation leaves besides scores: the compression grid, the map, scores and thresholds.

Reports draw these; they hold numbers, ids and codes, and no sentences.
"""

from dataclasses import asdict, dataclass
from typing import Any

SIZES = (1_000_000, 100_000_000)  # vectors for which an index is sized


@dataclass(frozen=True, slots=True)
class Share:
    """``value`` of ``count`` cases, with the ends of its 95 % interval by group."""

    value: float
    low: float
    high: float
    count: int


# ---- compression


@dataclass(frozen=True, slots=True)
class CompressedIndex:
    """One way of keeping vectors, and what it costs.

    ``memory`` and ``disk``: bytes a vector. ``difference``: its score less that of all dimensions
    in float32, mean over queries, with its 95 % interval by group. ``milliseconds``: median of
    single queries, exact search with numpy (which decodes float16 slowly; an index may not).
    """

    dimension: int
    precision: str  # see `evaluation.quantise.PRECISIONS`
    memory: int
    disk: int
    score: float
    difference: float
    low: float
    high: float
    milliseconds: float

    def as_json(self) -> dict[str, Any]:
        sizes = {
            f"{place}_{vectors}": getattr(self, place) * vectors
            for place in ("memory", "disk")
            for vectors in SIZES
        }
        return {**asdict(self), **sizes}


@dataclass(frozen=True, slots=True)
class CompressionGrid:
    """All dimensions of a model in all precisions, on one split.

    ``recommended``: place in ``indexes`` of the one with the fewest bytes that loses at most
    ``loss`` with an interval above ``-margin``, on every split of ``judged_on`` (dev and this one,
    or this one alone). ``rescoring_counts``: whether the corpus is large enough for rescoring to
    be recommended. Queries may be fewer than the split has, where the corpus is large.
    """

    system: str
    metric: str
    split: str
    queries: int
    groups: int
    rows: int  # vectors searched, also while the time was taken
    indexes: tuple[CompressedIndex, ...]
    recommended: int
    judged_on: tuple[str, ...]
    rescoring_counts: bool
    loss: float
    margin: float

    @property
    def best(self) -> CompressedIndex:
        """The index recommended."""
        return self.indexes[self.recommended]

    def as_json(self) -> dict[str, Any]:
        own = asdict(self) | {"indexes": [index.as_json() for index in self.indexes]}
        return own | {"recommended": self.best.as_json()}


# ---- map


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A chunk or a query. ``colour``: its document or label; empty where nothing is shared."""

    id: str
    kind: str  # chunk or query
    colour: str
    hover: str  # at most 120 characters


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one system's vectors lie on the map, and how far that can be believed.

    ``trustworthiness``: 1 where no point has neighbours on the map that are far from it in truth
    (Venna & Kaski 2001). ``preserved``: share of the nearest neighbours in truth that are nearest
    on the map. ``silhouette``: of the chunks by colour in truth, not on the map; None where the
    colours are fewer than two.
    """

    system: str
    places: tuple[tuple[float, float], ...]  # in the order of the points
    trustworthiness: float
    preserved: float
    silhouette: float | None


@dataclass(frozen=True, slots=True)
class SpaceMap:
    """The same points in the spaces of one or two systems (before, after).

    ``method``: tsne, umap or pca. ``notice``: why it is pca although another was asked for
    ("few-points", "no-umap"), else empty. ``colours``: those of the points, the most frequent
    first. ``kept``: share of the nearest neighbours before that are nearest after, in truth; None
    with one system. ``chunks`` and ``queries``: how many there are to draw from.
    """

    method: str
    notice: str
    neighbours: int
    points: tuple[MapPoint, ...]
    colours: tuple[str, ...]
    layouts: tuple[Layout, ...]
    kept: float | None
    chunks: int
    queries: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


# ---- scores and thresholds


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """How far a system's scores tell right from wrong.

    Of each query its best relevant passage and the best of the others count; ``relevant`` and
    ``irrelevant`` are their numbers in each bin. ``auc``: chance that a relevant one has the
    higher score of two taken at random.
    """

    system: str
    queries: int
    relevant: tuple[int, ...]
    irrelevant: tuple[int, ...]
    auc: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least score from which a hit is used, for a wanted precision on dev.

    Each query is asked twice: once with its answer in the index, once with it taken out.
    ``precision``: share of right hits among those used, half of the questions having an answer.
    ``recall``: share of the questions with an answer whose hit is used and right; 1 less it is
    what is wrongly refused. ``false_hits``: share of those without an answer that get a hit.
    All None where dev shows the wanted precision nowhere; ``reached``: the greatest precision that
    it does show (the lower end of a one-sided 90 % interval).
    """

    wanted: float
    reached: float
    threshold: float | None = None
    precision: Share | None = None
    recall: Share | None = None
    false_hits: Share | None = None


@dataclass(frozen=True, slots=True)
class ThresholdAdvice:
    """Thresholds of one system for one use, chosen on dev and measured on ``split``.

    ``use``: "no-answer" (the best passage lies below it: nothing is answered) or "cache" (the
    nearest earlier question lies above it: its answer is given again). ``code``: why there is no
    advice ("no-dev", "few-queries", "few-paraphrases"), else empty. ``basis`` of the cache: what
    makes two questions one, the same "evidence" or only the same "passage".
    """

    use: str
    system: str
    split: str
    code: str
    dev: int  # queries
    test: int
    thresholds: tuple[Threshold, ...] = ()
    basis: str = ""


@dataclass(frozen=True, slots=True)
class ScoreAdvice:
    """Scores of all systems in common bins, and thresholds by use and system.

    ``edges``: one more than there are bins.
    """

    edges: tuple[float, ...]
    spreads: tuple[ScoreSpread, ...]
    advice: tuple[ThresholdAdvice, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it for one candidate; ``scores`` and ``map`` have the base too, where it has vectors.

    ``map`` is None where none is wanted.
    """

    compression: CompressionGrid
    map: SpaceMap | None
    scores: ScoreAdvice

    def as_json(self) -> dict[str, Any]:
        """Without the points of the map."""
        drawn = self.map and {
            **self.map.as_json(),
            "points": len(self.map.points),
            "layouts": [
                {name: value for name, value in asdict(layout).items() if name != "places"}
                for layout in self.map.layouts
            ],
        }
        return {
            "compression": self.compression.as_json(),
            "map": drawn,
            "scores": self.scores.as_json(),
        }
