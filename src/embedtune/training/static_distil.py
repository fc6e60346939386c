"""A static model that imitates a transformer, from what that one says of words and passages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Embedder, Matrix
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.retrieve.order import tie_breaker
from embedtune.training.static import (
    StaticSettings,
    counts_of,
    idf_of,
    model_of,
    without_zeros,
)
from embedtune.training.static_tokens import build_tokenizer
from embedtune.training.warmup import sentences_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MOST_TEXTS = 6000  # passages and sentences that are imitated: the work grows with their cube
PULL = 0.1  # towards the words' own vectors, over the mean squared length of a text's counts


def distil_static(
    teacher: Embedder, passages: Sequence[str], settings: StaticSettings
) -> "SentenceTransformer":
    """A static model whose vectors of ``passages``, and of their sentences, are near ``teacher``'s.

    Every word begins with the vector that the teacher gives it by itself, less the mean of all
    words, times its idf. From there the words are moved as little as brings the means of their
    texts near the teacher's vectors of these (ridge regression, in closed form): that says what a
    word means in this corpus, and how much it counts beside others. With fewer
    ``settings.dimensions`` than the teacher has, the principal ones of the passages are kept.
    ``settings.vectors`` is not read. The order of the passages does not matter.

    Raises:
        NothingUsable: The passages hold fewer than two words.
        IntegrityError: The teacher gives non-finite numbers.
    """
    passages = sorted(set(passages))
    tokenizer = build_tokenizer(passages, (), limit=settings.vocabulary)
    words = _words(tokenizer)[1:]
    if len(words) < 2:
        raise NothingUsable(
            f"static model: {len(words)} different words in {len(passages)} passages"
        )
    alone = _finite(teacher, words)
    idf = idf_of(counts_of(tokenizer, passages))[1:, None]
    rows = np.vstack([np.zeros((1, alone.shape[1])), (alone - alone.mean(axis=0)) * idf])
    texts = imitated(passages)
    rows = _drawn_near(rows, counts_of(tokenizer, texts), _unit(_finite(teacher, texts)))
    if settings.dimensions < rows.shape[1]:
        vectors = _unit(counts_of(tokenizer, passages) @ rows)
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        axes = axes[:, ::-1][:, : settings.dimensions]
        rows = rows @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])]))
    return model_of(tokenizer, without_zeros(rows, settings.seed))


def imitated(passages: Sequence[str]) -> list[str]:
    """The passages, then their sentences, ``MOST_TEXTS`` in all, chosen by their content."""
    sentences = {sentence for text in passages for sentence in sentences_of(text)}
    texts = sorted(set(passages), key=tie_breaker)
    texts += sorted(sentences - set(passages), key=tie_breaker)
    return texts[:MOST_TEXTS]


def _words(tokenizer: Any) -> list[str]:
    """The tokens in the order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _drawn_near(
    rows: npt.NDArray[np.float64],
    counts: Any,  # a scipy matrix, imported below
    targets: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """``rows`` moved so that the texts' vectors come near ``targets``.

    With A the ``counts``, each line divided by the length that the text has now, and λ = ``PULL``
    times the mean squared length of A's lines, it is the R with the least
    ‖A R - targets‖² + λ ‖R - rows‖², by the dual, which has a line a text and not a word.
    """
    from scipy.sparse import diags

    known = np.asarray(counts.sum(axis=1)).ravel() > 0
    counts, targets = counts[known].astype(np.float64), targets[known]
    lengths = np.linalg.norm(counts @ rows, axis=1)
    counts = diags(1 / np.maximum(lengths, 1e-9)) @ counts
    products = (counts @ counts.T).toarray()
    pull = PULL * np.trace(products) / len(products)
    products[np.diag_indices_from(products)] += pull
    return rows + counts.T @ np.linalg.solve(products, targets - counts @ rows)


def _finite(teacher: Embedder, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    vectors: Matrix = teacher.embed(texts, "document")
    if not np.isfinite(vectors).all():
        raise IntegrityError(f"{teacher.name}: the model to distil gives non-finite numbers")
    return vectors.astype(np.float64)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
