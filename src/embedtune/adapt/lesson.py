"""What an adapter learns from, and the two ways in which it does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix, Similarity
from embedtune.embed.adapted import unit

BLOCK = 1024  # pairs whose logits are held at once

Change = npt.NDArray[np.float64]  # (d, d): q' = q + q · change


@dataclass(frozen=True, slots=True)
class Lesson:
    """Pairs of a query and a passage that answers it, over passages.

    Made by ``lesson``, which scales vectors: to length 1 where they are compared by cosine, else
    all by one number, so that ridge and temperature mean the same for every model.
    """

    queries: Matrix  # (n, d), a row a pair
    passages: Matrix  # (m, d)
    answers: npt.NDArray[np.int64]  # (n,) rows of ``passages``
    masked: tuple[npt.NDArray[np.int64], ...]  # of each pair the rows not held against it
    similarity: Similarity

    @property
    def pairs(self) -> int:
        return len(self.queries)


def lesson(
    queries: Matrix,
    passages: Matrix,
    answers: Sequence[int],
    masked: Sequence[npt.NDArray[np.int64]],
    similarity: Similarity,
) -> Lesson:
    """A lesson from vectors as the model gives them."""
    if similarity == "cosine":
        queries, passages = unit(queries), unit(passages)
    else:
        one, other = (np.sqrt(np.mean(np.sum(v * v, axis=1))) for v in (queries, passages))
        scale = float(np.sqrt(one * other)) or 1.0
        queries, passages = queries / scale, passages / scale
    return Lesson(queries, passages, np.asarray(answers, np.int64), tuple(masked), similarity)


def regression(taught: Lesson, ridge: float) -> Change:
    """Closed form: the ridge regression from queries to the passages that answer them, shrunk
    towards identity. Least squares of q + q · W against p, with a penalty on W.

    Args:
        ridge: In units of the mean eigenvalue of the queries' second moments.
    """
    queries = taught.queries.astype(np.float64)
    wanted = taught.passages[taught.answers] - queries
    return np.linalg.solve(_moments(taught, ridge), queries.T @ wanted)


def descent(taught: Lesson, ridge: float, temperature: float) -> Iterator[Change]:
    """Contrastive: after each step the change that lowers InfoNCE over all passages further.

    A step is a ridge regression from queries to what the loss asks of them: the passage that
    answers minus the mean of the passages that are found, weighted as the softmax has them. That is
    descent preconditioned by the queries' moments: no learning rate, no order of batches, the
    same outcome each time. Passages that may answer too are masked. The number of steps is the
    regularisation, and is chosen on dev.

    Args:
        temperature: Of the softmax over similarities.
    """
    dimension = taught.queries.shape[1]
    inverse = np.linalg.inv(_moments(taught, ridge))
    change = np.zeros((dimension, dimension))
    while True:
        asked = np.zeros((dimension, dimension))
        for first in range(0, taught.pairs, BLOCK):
            part = slice(first, first + BLOCK)
            asked += taught.queries[part].T @ _residuals(taught, change, part, temperature)
        change = change + inverse @ asked
        yield change


def low_rank(change: Change, taught: Lesson, rank: int | None) -> tuple[Matrix, Matrix]:
    """The (d, r) and (r, d) whose product comes closest to ``change`` on the queries (reduced-rank
    regression); None: as many directions as there are."""
    moved = taught.queries @ change
    values, directions = np.linalg.eigh(moved.T @ moved)
    count = int((values > values[-1] * 1e-10).sum()) if values[-1] > 0 else 0
    kept = directions[:, len(values) - min(count, rank or count) :]
    return (change @ kept).astype(np.float32), kept.T.astype(np.float32)


def _moments(taught: Lesson, ridge: float) -> Change:
    queries = taught.queries.astype(np.float64)
    moments = queries.T @ queries
    dimension = len(moments)
    return moments + ridge * np.trace(moments) / dimension * np.eye(dimension)


def _residuals(taught: Lesson, change: Change, part: slice, temperature: float) -> Matrix:
    """(b, d): what InfoNCE asks of each query of ``part``, but for the temperature."""
    queries = taught.queries[part]
    moved = queries + queries @ change.astype(np.float32)
    logits = (unit(moved) if taught.similarity == "cosine" else moved) @ taught.passages.T
    if taught.similarity == "euclidean":  # -|q - p|² / 2, without what all passages share
        logits -= np.einsum("ij,ij->i", taught.passages, taught.passages) / 2
    answers = taught.answers[part]
    rows = np.arange(len(queries))
    right = logits[rows, answers].copy()
    for row, masked in enumerate(taught.masked[part]):
        logits[row, masked] = -np.inf
    logits[rows, answers] = right
    weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    return taught.passages[answers] - weights @ taught.passages
