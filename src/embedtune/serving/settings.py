"""What a server may be told: limits, deadlines, and what happens to texts that are too long."""

from typing import Literal

from pydantic import Field

from embedtune.settings import PositiveInt, Settings


class ServerSettings(Settings):
    """Of one server; they hold for each of its models. Sizes are checked before work begins."""

    too_long: Literal["refuse", "truncate"] = Field(
        "refuse",
        description="A text longer than the model reads: refuse it (422), or cut it and mark its "
        "item with `truncated`.",
    )
    any_dimension: bool = Field(
        False,
        description="Allow every value of `dimensions` up to the model's own, not only those that "
        "it was trained for.",
    )
    max_body_bytes: PositiveInt = Field(8 << 20, description="Bytes of one request.")
    max_bodies_bytes: PositiveInt = Field(
        64 << 20, description="Bytes of all requests in memory; above it new ones get 429."
    )
    max_items: PositiveInt = Field(2048, description="Texts of one request.")
    max_text_chars: PositiveInt = Field(100_000, description="Characters of one text.")
    max_request_tokens: PositiveInt = Field(300_000, description="Tokens of one request.")
    queue_texts: PositiveInt = Field(8192, description="Texts accepted and not yet answered.")
    queue_tokens: PositiveInt = Field(
        1_000_000, description="Tokens accepted and not yet answered."
    )
    queue_seconds: float = Field(
        15.0,
        gt=0,
        description="New requests get 429 while those before them take longer than this, by the "
        "speed measured so far.",
    )
    batch_tokens: PositiveInt = Field(8192, description="Tokens that a model reads at once.")
    max_connections: PositiveInt = Field(1000, description="Open connections; others get 503.")
    header_seconds: float = Field(10.0, gt=0, description="Time to send the headers; then 408.")
    body_seconds: float = Field(30.0, gt=0, description="Time to send the body; then 408.")
    read_seconds: float = Field(
        30.0, gt=0, description="Time in which a client must take a part of its answer."
    )
    idle_seconds: float = Field(
        75.0, gt=0, description="How long a connection stays open between two requests."
    )
    grace_seconds: float = Field(
        1.0,
        ge=0,
        le=20,
        description="How long a stopping server still answers 503 before it closes its port.",
    )
    stop_seconds: float = Field(
        25.0,
        gt=0,
        le=25,
        description="How long a stopping server works on accepted requests, at most.",
    )
