"""How systems are measured and compared, as a configuration says it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from embedtune.embed import Similarity
from embedtune.errors import ConfigError
from embedtune.evaluation import metrics
from embedtune.evaluation.systems import parse_systems, system_text
from embedtune.retrieve.fusion import FusionMethod
from embedtune.settings import Auto, PositiveInt, Settings


def _as_system_texts(value: Any) -> Any:  # before validation
    """``{openai: name}`` is how YAML users write ``openai:name``; see ``system_text``."""
    if not isinstance(value, list | tuple):
        return value
    try:
        return [system_text(item) if isinstance(item, dict) else item for item in value]
    except ConfigError as error:
        raise ValueError(str(error)) from error


class EvaluationSettings(Settings):
    """How systems are measured and compared."""

    metric: str = Field(
        "ndcg@10", description="The figure that decides: NAME@K, e.g. ndcg@10, or dot_ndcg@10."
    )
    similarity: Similarity | Auto = Field(
        "auto", description="How vectors are compared; auto: as the model's configuration says."
    )
    dimension: PositiveInt | Literal["full"] = Field(
        "full", description="Use only the first so many numbers of each vector (Matryoshka)."
    )
    rivals: Annotated[tuple[str, ...], BeforeValidator(_as_system_texts)] = Field(
        ("bm25",),
        description="Systems to beat besides the base, as evaluate takes them: bm25, MODEL, "
        "MODEL?pooling=cls, openai:MODEL …, or mappings: {model: MODEL, pooling: cls}.",
    )
    fusion: FusionMethod = Field(
        "scores",
        description="How hybrids join a model's hits with BM25's: scores (standardised and "
        "weighted) or ranks (reciprocal, for engines that join no scores).",
    )
    probe: str = Field(
        "general", description="Test of what may be forgotten: general, none, or a BEIR folder."
    )
    min_gain: float = Field(
        0.01, ge=0, le=1, description="Smallest mean gain over the base that is worth shipping."
    )
    seed: int = Field(42, ge=0, description="Seed of resampling.")

    @model_validator(mode="before")
    @classmethod
    def _similarity_of_metric(cls, given: Any) -> Any:  # before validation
        """``dot_ndcg@10`` is how users of other tools write ndcg@10 with similarity dot."""
        if not isinstance(given, dict) or not isinstance(given.get("metric"), str):
            return given
        similarity, metric = metrics.split_metric(given["metric"])
        if not similarity:
            return given
        if given.get("similarity", "auto") not in ("auto", similarity):
            raise ValueError(
                f"metric {given['metric']} compares by {similarity}, similarity says "
                f"{given['similarity']}; set one of them"
            )
        return {**given, "metric": metric, "similarity": similarity}

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        try:
            metrics.parse_metric(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("rivals")
    @classmethod
    def _readable_rivals(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_systems(texts)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return texts

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is computed: the standard figures and the one that decides."""
        return tuple(dict.fromkeys((*metrics.STANDARD, self.metric)))
