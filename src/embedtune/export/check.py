"""Whether an exported model may stand for the one it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtune.embed import Matrix
from embedtune.embed.onnx import Checked, GraphPrecision

SMALLEST_COSINE = 0.9999  # of a text's two vectors, where weights are not made coarser
SMALLEST_INT8_COSINE = 0.9  # int8 moves vectors by more; below this the graph is at fault
LARGEST_LOSS = 0.005  # of the metric on dev
Vectors = Matrix | Sequence[np.ndarray]

CONTROL_TEXTS = ("[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> 机器", "a")
LONG = 4_000  # characters: longer than most models read


@dataclass(frozen=True, slots=True)
class OnData:
    """Dev scores of both models."""

    metric: str
    queries: int
    before: float
    after: float


def hard_texts(texts: Sequence[str]) -> list[str]:
    """One that is longer than the model reads, one of control tokens, one of a single letter."""
    if not texts:
        return list(CONTROL_TEXTS)
    long = " ".join(texts[: 1 + LONG // max(1, min(map(len, texts)))])
    return [long[:LONG], *CONTROL_TEXTS]


def cosines(before: Vectors, after: Vectors) -> np.ndarray:
    """(n,) float64, row by row; 0 where a vector is zero or not finite."""
    wide = [np.asarray(rows, np.float64) for rows in (before, after)]
    norms = np.linalg.norm(wide[0], axis=1) * np.linalg.norm(wide[1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (wide[0] * wide[1]).sum(axis=1) / norms
    return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def judge_export(
    before: Vectors, after: Vectors, precision: GraphPrecision, on_data: OnData | None
) -> Checked:
    """The outcome with its figures. Vectors are those of the same texts, in the same order."""
    found = cosines(before, after)
    smallest, mean = float(found.min()), float(found.mean())
    bound = SMALLEST_INT8_COSINE if precision == "int8" else SMALLEST_COSINE
    reasons = []
    if smallest < bound:
        reasons.append(
            f"smallest cosine to the original's vectors {smallest:.6f}, expected at least {bound}"
        )
    if on_data and on_data.before - on_data.after > LARGEST_LOSS:
        reasons.append(
            f"{on_data.metric} on dev falls from {on_data.before:.4f} to {on_data.after:.4f}, "
            f"by more than {LARGEST_LOSS}"
        )
    unknown = precision == "int8" and on_data is None
    return Checked(
        outcome="not good" if reasons else "not checked on data" if unknown else "good",
        reasons=tuple(reasons),
        texts=len(found),
        min_cosine=smallest,
        mean_cosine=mean,
        **(
            {"metric": on_data.metric, "queries": on_data.queries, "before": on_data.before,
             "after": on_data.after}
            if on_data
            else {}
        ),
    )  # fmt: skip
