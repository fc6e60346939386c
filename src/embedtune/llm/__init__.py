"""Chat models: the contract, and the table from names to implementations.

`recorded.RecordedChat` wraps any of them with the store, retries, a shared rate limit and a
budget; stages see only that wrapper.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from embedtune.endpoint import FaultKind
from embedtune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model. Everything here is part of the key under which it is stored."""

    system: str
    user: str
    schema: Mapping[str, Any] | None = None  # JSON schema of the answer
    temperature: float = 0.7
    max_tokens: int = 1024
    attempt: int = 0  # 1 when an unusable answer is asked for once more
    facts: Mapping[str, Any] = field(default_factory=dict)  # for scripted models; not in the key


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """``text`` as the model gave it; tokens are None when the provider does not say."""

    text: str
    finish: str = "stop"  # stop, length, content_filter, refusal
    input_tokens: int | None = None
    output_tokens: int | None = None
    raw: str = ""  # the whole answer as received


class ChatFault(Exception):
    """What a chat model raises instead of an answer. ``retry_after`` is in seconds."""

    def __init__(
        self,
        kind: FaultKind,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        raw: str = "",
    ) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.code = code  # short and stable, e.g. "rate-limit"
        self.message = message
        self.retry_after = retry_after
        self.raw = raw  # the whole body as received


class ChatModel(Protocol):
    name: str  # provider, model and revision: part of the request key

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        """One try, no retries.

        Raises:
            ChatFault: No usable answer came.
        """
        ...

    async def close(self) -> None:
        """Close connections; called in the event loop that asked. Asking again is allowed."""
        ...


CHAT_MODELS = {
    "openai": "embedtune.llm.openai:OpenAIChat",
    "local": "embedtune.llm.local:LocalChat",
    "scripted": "embedtune.llm.scripted:ScriptedChat",
}
REMINDER = "\n\nYour previous answer could not be used. Give the complete JSON object only."
# With some chat templates only the closing tag is part of the answer.
THOUGHTS = re.compile(r"\A\s*(?:<think>|(?![\[{`<])).*?</think>\s*", re.DOTALL)


def asked(request: ChatRequest) -> str:
    """The user's part as it is sent: a second attempt reminds of the form."""
    return request.user + REMINDER if request.attempt else request.user


def without_thoughts(text: str) -> str:
    """An answer without what a thinking model thought aloud before it."""
    return THOUGHTS.sub("", text, count=1)


def load_chat(provider: str, **settings: Any) -> ChatModel:  # settings differ by provider
    """The chat model of that provider; only the chosen one is imported."""
    if provider not in CHAT_MODELS:
        raise ConfigError(
            f"llm.provider: unknown {provider!r}; choose from {', '.join(sorted(CHAT_MODELS))}"
        )
    module, name = CHAT_MODELS[provider].split(":")
    return getattr(import_module(module), name)(**settings)
