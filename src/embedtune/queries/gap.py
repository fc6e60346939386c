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

from embedtune.queries.extractive import terms_of
from embedtune.records import Chunk, Query

FEWEST = 10  # real queries, below which nothing is said
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
            f"{measure.generated:.2g} against {measure.real:.2g} (apart by {measure.apart:.2f} of "
            "1); give queries.examples and styles that fit"
            for measure in wide
        ]


def query_gap(
    generated: Sequence[Query], real: Sequence[Query], chunks: Mapping[str, Chunk]
) -> Gap | None:
    """Compare generated with real queries; None with fewer than 10 real ones or no generated."""
    if len(real) < FEWEST or not generated:
        return None
    measures = []
    for name, value, middle in (
        ("length in content words", _length, median),
        ("share of full questions", _is_question, np.mean),
        ("share of words taken from the passage", _overlap, median),
    ):
        ours = [found for query in generated if (found := value(query, chunks)) is not None]
        theirs = [found for query in real if (found := value(query, chunks)) is not None]
        if ours and theirs:
            measures.append(
                Measure(name, float(middle(ours)), float(middle(theirs)), _apart(ours, theirs))
            )
    known = {term for query in generated for term in terms_of(query.text)}
    asked = [term for query in real for term in terms_of(query.text)]
    if asked:
        missing = sum(term not in known for term in asked) / len(asked)
        measures.append(Measure("words that no generated query has", 0.0, missing, missing))
    return Gap(len(generated), len(real), tuple(measures))


def _length(query: Query, chunks: Mapping[str, Chunk]) -> float:
    return float(len(terms_of(query.text)))


def _is_question(query: Query, chunks: Mapping[str, Chunk]) -> float:
    return float(bool(QUESTION.search(query.text)))


def _overlap(query: Query, chunks: Mapping[str, Chunk]) -> float | None:
    terms = set(terms_of(query.text))
    if not terms or query.chunk not in chunks:
        return None
    return len(terms & set(terms_of(chunks[query.chunk].embedded))) / len(terms)


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    ordered = np.sort(np.asarray(theirs, dtype=np.float64))
    values = np.asarray(ours, dtype=np.float64)
    below = np.searchsorted(ordered, values, "left")
    not_above = np.searchsorted(ordered, values, "right")
    return float(abs(2 * np.mean((below + not_above) / 2) / len(ordered) - 1))
