"""The evidence of a run beside its verdict: how small the index may be, the map, thresholds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from embedtune.evaluation.compress import compression_grid
from embedtune.evaluation.encoded import answers_of, encode
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.project import project
from embedtune.evaluation.systems import System
from embedtune.evaluation.thresholds import score_advice
from embedtune.evidence import Evidence
from embedtune.files import write_text
from embedtune.settings import Settings, Share

FILE = "evidence.json"


class EvidenceSettings(Settings):
    """What is measured beside the verdict."""

    map: Literal["tsne", "umap", "pca", "none"] = Field(
        "tsne", description="How the map of passages and queries is drawn; umap is an extra."
    )
    precision: Annotated[tuple[Share, ...], Field(max_length=5)] = Field(
        (0.9, 0.95), description="Precisions for which a score threshold is advised."
    )


def gather_evidence(
    evaluator: Evaluator,
    base: System,
    candidate: System,
    *,
    near_duplicates: Iterable[tuple[str, str]] = (),
    split: str = "test",
    settings: EvidenceSettings | None = None,
) -> Evidence:
    """All of it for one candidate. What can be chosen is chosen on dev, where the data has it.

    Args:
        evaluator: Its embedders should record their vectors, so that nothing is encoded again.
        base: Stands beside the candidate on the map and in the scores, unless it has no vectors
            (BM25) or is the same model.
        near_duplicates: The pairs of chunk ids that the evaluator was given.
    """
    settings = settings or EvidenceSettings()
    pairs = list(near_duplicates)
    systems = [candidate]
    if base.embedder and evaluator.embedder(base).name != evaluator.embedder(candidate).name:
        systems.insert(0, base)
    seed, metric = evaluator.settings.seed, evaluator.settings.metric
    answers = answers_of(evaluator, split, pairs)
    encoded = [encode(evaluator, system, split) for system in systems]
    dev = None
    if split != "dev" and evaluator.data.qrels.get("dev"):
        dev = ([encode(evaluator, system, "dev") for system in systems],
               answers_of(evaluator, "dev", pairs))  # fmt: skip
    return Evidence(
        compression=compression_grid(
            encoded[-1],
            answers,
            metric=metric,
            seed=seed,
            dev=(dev[0][-1], dev[1]) if dev else None,
        ),
        map=None
        if settings.map == "none"
        else project(
            encoded,
            answers,
            {chunk.id: chunk for chunk in evaluator.data.chunks},
            method=settings.map,
            seed=seed,
        ),
        scores=score_advice(encoded, answers, precisions=settings.precision, seed=seed, dev=dev),
    )


def save_evidence(folder: Path, evidence: Evidence) -> None:
    """Leave it in the folder of the evaluation stage."""
    write_text(folder / FILE, TypeAdapter(Evidence).dump_json(evidence).decode() + "\n")


def load_evidence(folder: Path) -> Evidence | None:
    """What ``save_evidence`` left; None where an earlier version left nothing."""
    path = folder / FILE
    return TypeAdapter(Evidence).validate_json(path.read_bytes()) if path.exists() else None
