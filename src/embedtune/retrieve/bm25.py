"""Lexical search: BM25 over stems and numbers, and over characters and their pairs in Chinese."""

import itertools
import re
import threading
import unicodedata
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix
from embedtune.language import HAN
from embedtune.records import Chunk
from embedtune.retrieve import Hit
from embedtune.retrieve.order import tie_breakers

RUN = re.compile(f"([{HAN}]+)|((?:(?![{HAN}])[^\\W_])+)")
DECIMALS = 6  # bm25s adds float32; scores closer than this are equal
STEMS = 2**18  # words whose stems are remembered

_stemming = threading.Lock()  # a stemmer holds the word it is at


def terms(text: str) -> list[str]:
    """What BM25 counts: the words of a text, English ones as their stems."""
    return [term(word) for word in words(text)]


@lru_cache(STEMS)
def term(word: str) -> str:
    """Words of the letters a to z as their stems (Porter 2, Snowball), others as they are.

    Without stems a question in the singular misses the passage in the plural: on the train and dev
    questions of onet_jobs, nvidia_10k and medquad nDCG@10 is 0.58, 0.79 and 0.55 with them, 0.47,
    0.74 and 0.54 without. A list of stop words beside stems changed at most 0.005.
    """
    if not (word.isascii() and word.isalpha()):
        return word
    with _stemming:
        return _stemmer().stemWord(word)


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def words(text: str) -> list[str]:
    """Lower-case words and numbers; Chinese as its characters and its pairs of neighbours.

    Full-width letters and digits count as plain ones (NFKC). Characters with pairs need no
    dictionary and lose to no segmenter (Nie et al., IRAL 2000): on the training and dev questions
    of a statute and of a medical forum they gave nDCG@10 0.72 and 0.31, jieba's words 0.61 and
    0.28.
    """
    found: list[str] = []
    for han, word in RUN.findall(unicodedata.normalize("NFKC", text).lower()):
        if word:
            found.append(word)
        else:
            found.extend(han)
            found.extend(map("".join, itertools.pairwise(han)))
    return found


class BM25:
    """BM25 (Lucene's variant, k1 = 1.5, b = 0.75) over the embedded texts of chunks.

    Only chunks that share a term with the query are returned.
    """

    name = "bm25"

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        import bm25s

        self._ids = np.array([chunk.id for chunk in chunks], dtype=object)
        self._ties = tie_breakers(self._ids)
        self._numbers: dict[str, int] = {}
        rows = [  # four bytes a term: a million passages hold some hundred million
            array("i", [self._numbers.setdefault(term, len(self._numbers)) for term in terms(text)])
            for text in (chunk.embedded for chunk in chunks)
        ]
        self._index = bm25s.BM25()
        if self._numbers:
            self._index.index((rows, self._numbers), show_progress=False)

    def save(self, path: Path) -> None:
        """Leave what ``load`` needs beside the ids: cutting the texts into terms takes its time."""
        words = "\n".join(self._numbers).encode()
        scores = self._index.scores if self._numbers else {}
        with path.open("wb") as file:
            np.savez(file, words=np.frombuffer(words, np.uint8), **scores)

    @classmethod
    def load(cls, path: Path, ids: Sequence[str]) -> "BM25":
        """From the file that ``save`` left, for the same chunks in the same order."""
        own = cls([])
        own._ids = np.array(ids, dtype=object)
        own._ties = tie_breakers(ids)
        with np.load(path) as kept:
            words = kept["words"].tobytes().decode()
            own._index.scores = {name: kept[name] for name in kept.files if name != "words"}
        if words:
            own._numbers = {word: number for number, word in enumerate(words.split("\n"))}
            own._index.scores["num_docs"] = int(own._index.scores["num_docs"])
            own._index.nonoccurrence_array = None  # of other variants of BM25
        return own

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        return [
            [
                Hit(self._ids[row], round(float(scores[row]), DECIMALS))
                for row in self.best(scores, k)
            ]
            for scores in map(self.scores, queries)
        ]

    def scores(self, query: str) -> Matrix:
        """(n,) float32: the score of every chunk, 0 for those that share no term."""
        known = [self._numbers[term] for term in terms(query) if term in self._numbers]
        if not known:
            return np.zeros(len(self._ids), np.float32)
        return self._index.get_scores_from_ids(known)

    def best(self, scores: Matrix, k: int) -> npt.NDArray[np.int64]:
        """Rows of the at most ``k`` best of ``scores``, best first; none that is not above 0.

        Scores that round to the same number are ordered by a hash of the id.
        """
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            values = scores[found]
            floor = np.partition(values, len(values) - k)[len(values) - k]
            found = found[values >= floor - 10.0**-DECIMALS]
        values = scores[found].astype(np.float64).round(DECIMALS)
        return found[np.lexsort((self._ties[found], -values))][:k]
