"""How far generated queries are from real ones: length, form, and words shared with the passage.

A model tuned and judged on queries unlike those of its users proves little; so the distance is
measured wherever real queries are there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from embedtune.queries.terms import terms_of
from embedtune.records import Chunk, Query

FEWEST = 10  # real queries, below which nothing is said
SAMPLE = 2000  # queries of each kind whose passages are looked at, the first by id: ids are hashes
APART = 0.5
QUESTION = re.compile(
    r"[?？]\s*$|^\s*(?:who|whom|whose|what|when|where|which|why|how|is|are|am|was|were|do|does|did"
    r"|can|could|may|must|shall|should|will|would|has|have|had)\b"
    r"|什么|怎么|怎样|如何|哪[个些里种]|谁|多少|几[个年天次]|吗|呢|为何|为什么|是否|能否|可否",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One property of both kinds of queries.

    ``apart`` is |2 A - 1| with A the probability that a generated query has more of it than a
    real one (Mann and Whitney 1947; ties count half): 0 alike, 1 wholly apart.
    """

    name: str
    generated: float  # medians; means for shares
    real: float
    apart: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Generated queries beside real ones, language by language mixed as they come."""

    generated: int
    real: int
    measures: tuple[Measure, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """What the user should know, the widest gap first; one line when all is alike."""
        wide = sorted(
            (measure for measure in self.measures if measure.apart > APART),
            key=lambda measure: -measure.apart,
        )
        if not wide:
            return [
                f"the generated queries resemble the {self.real} real ones in length, form and "
                "words shared with the passage"
            ]
        return [
            f"generated queries differ from the {self.real} real ones in {measure.name}: "
            f"{measure.generated:.3g} against {measure.real:.3g} (apart by {measure.apart:.2f} of "
            "1); give queries.examples and styles that fit"
            for measure in wide
        ]


def query_gap(
    generated: Sequence[Query], real: Sequence[Query], chunks: Mapping[str, Chunk]
) -> Gap | None:
    """Compare generated with real queries; None with fewer than 10 real ones or no generated."""
    if len(real) < FEWEST or not generated:
        return None
    ours, theirs = ([(q, terms_of(q.text)) for q in queries] for queries in (generated, real))
    measures = []
    for name, values, middle in (
        ("length in content words", _lengths, median),
        ("share of full questions", _questions, np.mean),
        ("share of words taken from the passage", _overlaps, median),
    ):
        own, other = values(ours, chunks), values(theirs, chunks)
        if own and other:
            measures.append(
                Measure(name, float(middle(own)), float(middle(other)), _apart(own, other))
            )
    known = {term for _, terms in ours for term in terms}
    asked = [term for _, terms in theirs for term in terms]
    if asked:
        missing = sum(term not in known for term in asked) / len(asked)
        measures.append(Measure("words that no generated query has", 0.0, missing, missing))
    return Gap(len(generated), len(real), tuple(measures))


_Asked = Sequence[tuple[Query, list[str]]]  # queries with their content words


def _lengths(queries: _Asked, chunks: Mapping[str, Chunk]) -> list[float]:
    return [float(len(terms)) for _, terms in queries]


def _questions(queries: _Asked, chunks: Mapping[str, Chunk]) -> list[float]:
    return [float(bool(QUESTION.search(query.text))) for query, _ in queries]


def _overlaps(queries: _Asked, chunks: Mapping[str, Chunk]) -> list[float]:
    held: dict[str, set[str]] = {}
    shares = []
    for query, terms in sorted(queries, key=lambda asked: asked[0].id)[:SAMPLE]:
        if terms and query.chunk in chunks:
            if query.chunk not in held:
                held[query.chunk] = set(terms_of(chunks[query.chunk].embedded))
            own = set(terms)
            shares.append(len(own & held[query.chunk]) / len(own))
    return shares


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    ordered = np.sort(np.asarray(theirs, dtype=np.float64))
    values = np.asarray(ours, dtype=np.float64)
    below = np.searchsorted(ordered, values, "left")
    not_above = np.searchsorted(ordered, values, "right")
    return float(abs(2 * np.mean((below + not_above) / 2) / len(ordered) - 1))
