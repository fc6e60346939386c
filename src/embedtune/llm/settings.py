"""Which language model is asked, and how; and the model that the settings describe."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from embedtune.errors import ConfigError
from embedtune.llm import ChatModel, load_chat
from embedtune.llm.budget import BudgetSettings
from embedtune.llm.prices import PriceSettings, price_of
from embedtune.settings import Auto, PositiveInt, Settings

PositiveFloat = Annotated[float, Field(gt=0)]


class LocalSettings(Settings):
    """How a model is run in this process (``provider: local``)."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers to compute in; auto: the model's own on a GPU, on a CPU bfloat16 "
        "where it computes in that, else float32",
    )
    threads: PositiveInt | Auto = Field("auto", description="Threads on a CPU; auto: torch's own")
    together: PositiveInt = Field(8, description="Requests answered at a time, of like length")


class LLMSettings(Settings):
    """The language model that writes and judges queries."""

    provider: str = Field(
        "openai",
        description="openai (any compatible address), local (a model in this process) or scripted",
    )
    model: str | None = Field(None, description="Model name, or a folder (local); else LLM_MODEL")
    base_url: str | None = Field(
        None, description="Address up to the version part; else OPENAI_BASE_URL, OPENAI_API_BASE"
    )
    api_key_env: str = Field(
        "auto",
        description="Environment variable that holds the key, or none; auto takes OPENAI_API_KEY, "
        "or GEMINI_API_KEY when only that is set",
    )
    answers: Path | None = Field(None, description="scripted: JSONL file of recorded answers")
    mode: Literal["live", "batch"] = Field(
        "live",
        description="live: an answer at a time; batch: OpenAI's Batch API, half the price, within "
        "a day",
    )
    concurrency: PositiveInt = Field(16, description="Requests in flight at most")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature")
    max_tokens: PositiveInt = Field(2048, description="Tokens an answer may have")
    extra: dict[str, Any] = Field(
        {}, description="Further fields of each request's body, e.g. {reasoning_effort: low}"
    )
    timeout: PositiveFloat = Field(
        120, description="Seconds an answer may take in all; a local model takes what it takes"
    )
    retries: int = Field(
        6, ge=0, description="Further tries after a failure, and pauses in a row for a rate limit"
    )
    backoff: PositiveFloat = Field(
        1.0, description="Seconds before the first further try; doubles each time"
    )
    max_wait: PositiveFloat = Field(
        600, description="Seconds; stop rather than wait longer when the service asks for it"
    )
    budget: BudgetSettings = Field(BudgetSettings(), description="Spending limits")
    price: PriceSettings | None = Field(
        None, description="Price of the model, where the tables do not know it"
    )
    prices: Path | None = Field(
        None,
        description="Price table of your own before the one that comes along: CSV, JSON or YAML "
        "with model, input and output, in US dollars per million tokens",
    )
    local: LocalSettings = Field(LocalSettings(), description="How a local model is run")

    @field_validator("extra", mode="before")
    @classmethod
    def _as_json(cls, value: Any) -> Any:
        """A configuration gives text; ``false`` and ``20`` are meant as JSON means them."""
        if isinstance(value, dict):
            return {key: cls._as_json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [cls._as_json(item) for item in value]
        if isinstance(value, str):
            with suppress(ValueError):
                return json.loads(value)
        return value


def open_chat(settings: LLMSettings) -> ChatModel:
    """The chat model these settings describe, without the store around it.

    Raises:
        ConfigError: All that is known to be wrong before anything is asked.
    """
    faults: list[str] = []
    if settings.mode == "batch" and settings.provider != "openai":
        faults.append(f"llm.mode: batch needs llm.provider openai, not {settings.provider}")
    try:
        price_of(settings)
    except ConfigError as error:
        faults += error.faults
    local = settings.local
    options: dict[str, Any] = {
        "openai": {
            "model": settings.model,
            "base_url": settings.base_url,
            "api_key_env": settings.api_key_env,
            "timeout": settings.timeout,
            "extra": settings.extra,
        },
        "local": {
            "model": settings.model,
            "device": local.device,
            "dtype": local.dtype,
            "threads": None if local.threads == "auto" else local.threads,
            "together": local.together,
        },
        "scripted": {"answers": settings.answers},
    }
    try:
        model = load_chat(settings.provider, **options.get(settings.provider, {}))
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    return model
