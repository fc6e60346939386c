"""A map of chunks and queries before and after, with the figures a picture cannot give."""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from embedtune.embed import Matrix, Similarity
from embedtune.evaluation.encoded import Answers, Encoded
from embedtune.evidence import Layout, MapPoint, SpaceMap
from embedtune.records import Chunk, content_id

Method = Literal["tsne", "umap", "pca"]

CHUNKS = 1500  # at most, on the map
QUERIES = 500
FEW = 25  # points, under which t-SNE and UMAP have nothing to arrange
NEIGHBOURS = 10
ITERATIONS = 500  # of t-SNE; 1000 gave the same trustworthiness
PERPLEXITY = 30
HOVER = 120  # characters
START = 1e-4  # spread of the places that t-SNE starts from, and …
EXAGGERATED = 12.0  # … how much closer neighbours are pulled at first (both are usual)
FOLLOWING = 4.0  # the same from an earlier layout: strong enough to mend it, not to undo it


def project(
    systems: Sequence[Encoded],
    answers: Answers,
    chunks: Mapping[str, Chunk],
    *,
    method: Method = "tsne",
    seed: int,
) -> SpaceMap:
    """The same points in the spaces of one or two systems, chunks and queries in one map.

    Every layout after the first starts from the first one and is turned to lie like it, so that
    a point which stays among its neighbours stays where it was. Distances are those by which the
    system searches: of vectors of length 1, except where it compares by euclidean distance.

    Args:
        systems: Of the same ``answers``.
        chunks: By id.
        seed: Chooses the points (by a hash of their ids), and goes to t-SNE and UMAP.
    """
    from sklearn.manifold import trustworthiness

    rows, places = _sampled(answers, seed)
    points = _points(answers, chunks, rows, places)
    spaces = [_space(system, rows, places) for system in systems]
    method, notice = _possible(method, spaces)
    neighbours = max(1, min(NEIGHBOURS, (len(points) - 1) // 2 - 1))
    nearest = [_neighbours(space, neighbours) for space in spaces]
    layouts: list[Layout] = []
    first: Matrix | None = None
    for system, space, near in zip(systems, spaces, nearest, strict=True):
        flat = _turned(_flat(space, method, seed, first), first)
        first = flat if first is None else first
        layouts.append(
            Layout(
                system=system.system,
                places=tuple((round(float(x), 4), round(float(y), 4)) for x, y in flat),
                trustworthiness=float(trustworthiness(space, flat, n_neighbors=neighbours))
                if len(points) > 3
                else 1.0,
                preserved=_shared(near, _neighbours(flat, neighbours)),
                silhouette=_silhouette(space, points, system.similarity),
            )
        )
    return SpaceMap(
        method=method,
        notice=notice,
        neighbours=neighbours,
        points=points,
        colours=_by_frequency(points),
        layouts=tuple(layouts),
        kept=_shared(*nearest) if len(nearest) == 2 else None,
        chunks=len(answers.ids),
        queries=len(answers.queries),
    )


def _possible(method: Method, spaces: Sequence[Matrix]) -> tuple[Method, str]:
    """The method that can be used, and why it is not the one asked for."""
    if method != "pca" and any(len(np.unique(space, axis=0)) < FEW for space in spaces):
        return "pca", "few-points"
    if method == "umap" and importlib.util.find_spec("umap") is None:
        return "pca", "no-umap"
    return method, ""


# ---- points


def _sampled(answers: Answers, seed: int) -> tuple[list[int], list[int]]:
    """Rows of chunks and places of queries; chunks that answer one of the queries come first."""

    def order(id: str) -> str:
        return content_id("m", seed, id)

    by_hash = sorted(range(len(answers.queries)), key=lambda p: order(answers.queries[p].id))
    places = sorted(by_hash[:QUERIES])
    wanted = {row for place in places for row in answers.relevant[place]}
    rows = sorted(
        range(len(answers.ids)), key=lambda row: (row not in wanted, order(answers.ids[row]))
    )
    return sorted(rows[:CHUNKS]), places


def _points(
    answers: Answers, chunks: Mapping[str, Chunk], rows: Sequence[int], places: Sequence[int]
) -> tuple[MapPoint, ...]:
    sizes = Counter(chunk.document for chunk in chunks.values())

    def colour(chunk: Chunk) -> str:  # a document of one chunk is no family
        return chunk.document if sizes[chunk.document] > 1 else ""

    points = []
    for row in rows:
        chunk = chunks[answers.ids[row]]
        text = f"{chunk.title}: {chunk.text}" if chunk.title else chunk.text
        points.append(MapPoint(chunk.id, "chunk", colour(chunk), _short(text)))
    for place in places:
        query = answers.queries[place]
        answer = chunks[min(answers.judgements[query.id])]
        points.append(MapPoint(query.id, "query", colour(answer), _short(query.text)))
    return tuple(points)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= HOVER else text[: HOVER - 1] + "…"


def _by_frequency(points: Sequence[MapPoint]) -> tuple[str, ...]:
    counts = Counter(point.colour for point in points if point.colour)
    return tuple(sorted(counts, key=lambda colour: (-counts[colour], colour)))


def _space(system: Encoded, rows: Sequence[int], places: Sequence[int]) -> Matrix:
    """(n, d) float64: euclidean distances here order points as the system does."""
    space = np.concatenate([system.rows[rows], system.asked[places]]).astype(np.float64)
    if system.similarity == "euclidean":
        return space
    return space / np.maximum(np.linalg.norm(space, axis=1, keepdims=True), 1e-30)


# ---- the map


def _flat(space: Matrix, method: Method, seed: int, start: Matrix | None) -> Matrix:
    """(n, 2) places. ``start``: places of the same points that the search begins with."""
    if method == "pca":
        return _principal(space)
    begin = _principal(space) if start is None else start
    if method == "umap":
        import umap

        begin = begin * 10 / np.abs(begin).max()  # the size that UMAP works in
        reducer = umap.UMAP(n_components=2, init=begin, random_state=seed, n_jobs=1)
        return np.asarray(reducer.fit_transform(space), np.float64)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if start is None:
        begin = begin / begin[:, 0].std() * START
    tsne = TSNE(
        init=begin.astype(np.float32),
        early_exaggeration=EXAGGERATED if start is None else FOLLOWING,
        perplexity=min(PERPLEXITY, (len(space) - 1) / 3),
        max_iter=ITERATIONS,
        random_state=seed,
    )
    with threadpool_limits(1):  # sums of several threads differ from run to run
        return np.asarray(tsne.fit_transform(space), np.float64)


def _principal(space: Matrix) -> Matrix:
    """The two directions of most variance, each with its largest coordinate positive."""
    centred = space - space.mean(axis=0)
    width = min(2, *centred.shape)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(space), 2))
    flat[:, :width] = centred @ directions[:width].T
    signs = np.sign(flat[np.abs(flat).argmax(axis=0), [0, 1]])
    return flat * np.where(signs == 0, 1, signs)


def _turned(flat: Matrix, like: Matrix | None) -> Matrix:
    """Centred; turned and mirrored, not stretched, to lie as ``like`` does (Procrustes)."""
    flat = flat - flat.mean(axis=0)
    if like is None:
        return flat
    left, _, right = np.linalg.svd(flat.T @ like)
    return flat @ (left @ right)


# ---- figures


def _neighbours(space: Matrix, k: int) -> np.ndarray:
    """(n, k) rows nearest to each row, itself left out, in no order."""
    squares = np.einsum("ij,ij->i", space, space)
    distances = squares[:, None] + squares[None] - 2 * space @ space.T
    np.fill_diagonal(distances, np.inf)
    return np.argpartition(distances, k - 1, axis=1)[:, :k]


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """Mean share of the neighbours in ``one`` that are in ``other``."""
    common = [len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)]
    return float(np.mean(common) / one.shape[1])


def _silhouette(space: Matrix, points: Sequence[MapPoint], similarity: Similarity) -> float | None:
    """Of the chunks whose colour another chunk has too, by cosine or euclidean distance."""
    from sklearn.metrics import silhouette_score

    counts = Counter(point.colour for point in points if point.kind == "chunk" and point.colour)
    own = [
        row for row, point in enumerate(points)
        if point.kind == "chunk" and counts[point.colour] > 1
    ]  # fmt: skip
    labels = [points[row].colour for row in own]
    if len(set(labels)) < 2:
        return None
    metric = "euclidean" if similarity == "euclidean" else "cosine"
    return float(silhouette_score(space[own], labels, metric=metric))
