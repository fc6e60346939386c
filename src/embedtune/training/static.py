"""Static models: one vector a word, made from the documents alone.

A text's vector is the mean of its words' vectors, which takes microseconds. Built without any
pretrained weights the model begins as lexical search, in every language; training goes on from
there.
"""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from embedtune.embed import Matrix
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.files import number_in, visible
from embedtune.retrieve.order import tie_breaker
from embedtune.settings import PositiveInt, Settings
from embedtune.training.static_tokens import build_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

SPACES = re.compile(r"[ \t]+")
K1, B = 1.5, 0.75  # of BM25, as retrieve.bm25 has them
EXACT = 2_000  # up to this many passages the decomposition is exact
MOST_PASSAGES = 20_000  # more than these do not change what words go together
FAINT = 0.01  # length of the rows of words that no passage holds, against the mean of the others


class StaticSettings(Settings):
    """How a static model is made."""

    dimensions: PositiveInt = Field(
        default=1024,
        description="Length of the vectors, at most; fewer where there are fewer passages.",
    )
    vocabulary: PositiveInt = Field(
        default=50_000, description="Words kept, the most frequent ones."
    )
    vectors: Path | None = Field(
        default=None,
        description="Word vectors to start from (.vec or .txt: a word and its numbers a line).",
    )
    seed: int = 0


def build_static(
    passages: Sequence[str], settings: StaticSettings, *, queries: Sequence[str] = ()
) -> "SentenceTransformer":
    """A model that searches ``passages`` lexically, before any training and without weights.

    The rows of the words are the right singular vectors of the matrix of BM25 weights (passages x
    words, each passage of length 1), times the word's idf: latent semantic analysis (Deerwester et
    al. 1990). With as many dimensions as passages, the cosine to a query is the lexical one; with
    fewer, the nearest there is. Since a text is the mean of its words, a word that recurs counts
    as often as it recurs: BM25's saturation can only be had on the side of the matrix.

    The order of the texts does not matter, and a text given twice counts once. Words of
    ``queries`` that no passage holds get faint random rows, for training to fill. A word that
    neither has has one faint row in common with all others such.

    With ``settings.vectors`` the file's vectors (times idf) stand beside the lexical ones, both
    with the same weight; words that the file does not have have the lexical ones alone.

    Returns:
        A sentence-transformers model that plain sentence-transformers saves and loads. Its one
        module is a ``StaticEmbedding``; ``model[0].embedding`` is the torch ``EmbeddingBag`` to
        train, ``model[0].tokenizer`` gives its ids.

    Raises:
        NothingUsable: The passages hold no word, or the word vectors none of the words.
        ConfigError: The file of word vectors is not there.
        IntegrityError: It is damaged; file and line are named.
    """
    texts = sorted(set(passages))
    tokenizer = build_tokenizer(texts, sorted(set(queries)), limit=settings.vocabulary)
    counts = counts_of(tokenizer, texts)
    if not counts.nnz:
        raise NothingUsable(
            f"static model: no word in the {len(passages)} passages; there must be letters, "
            "digits or ideographs"
        )
    idf = idf_of(counts)
    held = np.asarray(counts.sum(axis=0)).ravel() > 0
    weights = _bm25_weights(counts, idf)[_spread(texts)]
    lexical = _word_directions(weights, settings.dimensions, settings.seed) * idf[:, None]
    blocks = [_evened(lexical)]
    if settings.vectors:
        known = word_vectors(settings.vectors, tokenizer)
        if not known[held].any():
            raise NothingUsable(
                f"{settings.vectors}: none of its words occurs in the passages; word vectors of "
                "the language of the passages are needed"
            )
        blocks.append(_evened(known * idf[:, None]))
    return model_of(tokenizer, without_zeros(np.hstack(blocks), settings.seed))


def word_vectors(path: Path, tokenizer: Any) -> Matrix:
    """(number of tokens, n) float32: the file's vector of each token, zeros where it has none.

    A line is a word and its numbers, separated by spaces or tabs; a first line with the number of
    words and of dimensions (word2vec, fastText) is understood, a byte order mark passed over. A
    word that stands there more than once counts the first time, and is warned of; one that is
    written like a token goes before one that is folded into it.

    Raises:
        ConfigError: There is no such file.
        IntegrityError: A line is no word vector, or fewer lines than the first one says.
    """
    if not path.is_file():
        raise ConfigError(f"static:{visible(path)}: there is no such file of word vectors")
    vocabulary = tokenizer.get_vocab()
    rows: Matrix | None = None
    exact: set[int] = set()
    folded: set[int] = set()
    repeated: list[str] = []
    for line, word, numbers in _vector_lines(path):
        if rows is None:
            rows = np.zeros((len(vocabulary), len(numbers)), np.float32)
        token = vocabulary.get(word)
        if token is not None:
            if token in exact:
                repeated.append(f"line {line} ({visible(word, 20)})")
                continue
            exact.add(token)
        else:
            ids = tokenizer.encode(word, add_special_tokens=False).ids
            if len(ids) != 1 or ids[0] == 0 or ids[0] in exact | folded:
                continue
            token = ids[0]
            folded.add(token)
        rows[token] = numbers
    if rows is None:
        raise IntegrityError(f"{path}: no word vectors in it")
    if repeated:
        log.warning(
            "%s: %d words stand there more than once; the first vector counts: %s",
            path, len(repeated), ", ".join(repeated[:3]),
        )  # fmt: skip
    return rows


def _vector_lines(path: Path) -> Iterator[tuple[int, str, npt.NDArray[np.float32]]]:
    """(line, word, numbers); the file may be larger than memory."""
    promised, length, found, line = None, 0, 0, 0

    def fault(what: str) -> IntegrityError:
        return IntegrityError(f"{path}:{line}: {what}")

    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n ")
            except UnicodeDecodeError as error:
                raise fault("not UTF-8; save the word vectors as UTF-8 text") from error
            cells = SPACES.split(text)
            if line == 1 and len(cells) == 2 and all(map(str.isdecimal, cells)):
                promised, length = int(cells[0]), int(cells[1])
                continue
            if not text.strip():
                raise fault("an empty line where a word and its numbers are due")
            length = length or len(cells) - 1
            if length < 1 or len(cells) <= length:
                raise fault(
                    f"{len(cells) - 1} numbers after the word, expected {length}; the file is "
                    "damaged or cut short"
                )
            # a word may hold spaces itself; the numbers are the last ones
            try:
                numbers = np.array(cells[-length:], np.float32)
            except ValueError as error:
                shown = visible(text, 40)
                raise fault(f"expected a word and {length} numbers, found {shown!r}") from error
            word = " ".join(cells[:-length])
            if len(cells) - 1 > length and number_in(cells[-length - 1]) is not None:
                raise fault(f"{len(cells) - 1} numbers after the word, expected {length}")
            if not np.isfinite(numbers).all():
                raise fault(f"NaN, infinite or too large numbers for {visible(word, 20)!r}")
            found += 1
            yield line, word, numbers
    if promised is not None and found != promised:
        raise fault(
            f"the file ends after {found} words, its first line says {promised}; copy it again"
        )


def counts_of(tokenizer: Any, texts: Sequence[str]) -> Any:  # a scipy matrix, imported below
    """(texts, tokens) how often each token occurs; the unknown one, id 0, is not counted."""
    from scipy.sparse import csr_matrix

    ids: list[npt.NDArray[np.int32]] = []
    for first in range(0, len(texts), 1000):
        part = tokenizer.encode_batch(texts[first : first + 1000], add_special_tokens=False)
        ids += [np.array([id for id in encoding.ids if id], np.int32) for encoding in part]
    ends = np.cumsum([0, *map(len, ids)])
    columns = np.concatenate([*ids, np.zeros(0, np.int32)])
    shape = (len(texts), tokenizer.get_vocab_size())
    counts = csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape)
    counts.sum_duplicates()
    return counts


def idf_of(counts: Any) -> npt.NDArray[np.float64]:
    """(tokens,) BM25's inverse document frequency (Lucene's form, never below 0)."""
    holders = np.asarray((counts > 0).sum(axis=0)).ravel()
    return np.log1p((counts.shape[0] - holders + 0.5) / (holders + 0.5))


def _bm25_weights(counts: Any, idf: npt.NDArray[np.float64]) -> Any:
    """``counts`` as BM25 weighs them, each text of length 1 (or 0)."""
    from sklearn.preprocessing import normalize

    weights = counts.copy()
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    penalty = K1 * (1 - B + B * lengths / max(1.0, lengths.mean()))
    rows = np.repeat(np.arange(len(lengths)), np.diff(weights.indptr))
    weights.data = idf[weights.indices] * weights.data / (weights.data + penalty[rows])
    return normalize(weights)


def _spread(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Rows of at most ``MOST_PASSAGES`` texts, chosen by their content."""
    order = sorted(range(len(texts)), key=lambda row: tie_breaker(texts[row]))
    return np.array(sorted(order[:MOST_PASSAGES]), np.int64)


def _word_directions(weights: Any, dimensions: int, seed: int) -> npt.NDArray[np.float64]:
    """(tokens, d) the first right singular vectors of ``weights``, at most ``dimensions``."""
    if weights.shape[0] <= EXACT:
        values, left = np.linalg.eigh((weights @ weights.T).toarray().astype(np.float64))
        kept = np.argsort(-values, kind="stable")[:dimensions]
        kept = kept[values[kept] > 1e-9 * values.max()]
        left = left[:, kept]
        # the sign of a singular vector is anyone's choice: make one
        left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
        return np.asarray(weights.T @ left) / np.sqrt(values[kept])
    from sklearn.utils.extmath import randomized_svd

    most = min(dimensions, *weights.shape)
    _, _, right = randomized_svd(weights, most, n_iter=4, random_state=seed)
    return right.T


def _evened(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rows that are not zero get length 1 in the root mean square."""
    lengths = np.linalg.norm(rows, axis=1)
    return rows / math.sqrt((lengths[lengths > 0] ** 2).mean())


def without_zeros(rows: npt.NDArray[np.float64], seed: int) -> Matrix:
    """Rows of zeros become faint random ones, so that no text has a vector of zeros."""
    faint = np.random.default_rng(seed).standard_normal(rows.shape)
    faint *= FAINT / np.linalg.norm(faint, axis=1, keepdims=True)
    empty = np.linalg.norm(rows, axis=1) < 1e-9
    return np.where(empty[:, None], faint, rows).astype(np.float32)


def model_of(tokenizer: Any, rows: Matrix) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    module = StaticEmbedding(tokenizer, embedding_weights=rows)
    return SentenceTransformer(modules=[module], device="cpu", similarity_fn_name="cosine")
