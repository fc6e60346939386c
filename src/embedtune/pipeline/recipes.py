"""What each stage's outcome depends on: the fingerprints of ``embedtune run`` and its parts."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.negatives import NegativeSettings
from embedtune.documents.ocr import find_engine
from embedtune.files import sha256_of
from embedtune.llm.recorded import RecordedChat
from embedtune.run import Recipe, versions
from embedtune.settings import Settings
from embedtune.store import Store

FREE = ("scripted", "local")  # providers that cost nothing
UNPAID = (
    "base_url",
    "api_key_env",
    "concurrency",
    "timeout",
    "retries",
    "backoff",
    "max_wait",
    "budget",
    "price",
    "prices",
    "mode",
    "local",
)


def read_recipe(settings: RunSettings, paths: Sequence[Path], chat: RecordedChat | None) -> Recipe:
    asked = settings.cleaning.ask is not None and chat is not None
    return Recipe(
        "read",
        3,
        {
            **plain(settings.documents, "paths"),
            "cleaning": plain(settings.cleaning),
            **(plain(settings.llm, "answers", *UNPAID) if asked else {}),
        },
        {
            "chat": chat.name if asked else "none",
            "ocr": find_engine(settings.documents.ocr).name or "none",
        },
        {"files": files_digest(paths)},
    )


def chunk_recipe(settings: RunSettings, documents: str, tokenizer: str) -> Recipe:
    return Recipe(
        "chunk", 1, plain(settings.chunks), {"tokenizer": tokenizer}, {"documents": documents}
    )


def query_recipe(
    settings: RunSettings, documents: str, chunks: str, chat: RecordedChat | None
) -> Recipe:
    files = (settings.queries.file, settings.queries.examples, settings.llm.answers)
    return Recipe(
        "generate",
        2,
        {
            **plain(settings.queries, "file", "examples"),
            **(plain(settings.llm, "answers", *UNPAID) if chat else {}),
        },
        {"chat": chat.name if chat else "none"},
        {
            "documents": documents,
            "chunks": chunks,
            **{path.name: sha256_of(path) for path in files if path and path.is_file()},
        },
    )


def filter_recipe(
    settings: RunSettings,
    chunks: str,
    queries: str,
    base: str,
    chat: RecordedChat | None,
    decisions: Path,
) -> Recipe:
    judged = settings.filters.judge and chat is not None
    return Recipe(
        "filter",
        2,
        {**plain(settings.filters), **(plain(settings.llm, "answers", *UNPAID) if judged else {})},
        {"base": base, "chat": chat.name if judged else "none"},
        {
            "chunks": chunks,
            "queries": queries,
            "decisions": sha256_of(decisions) if decisions.is_file() else "",
        },
    )


def split_recipe(settings: RunSettings, chunks: str, queries: str) -> Recipe:
    return Recipe("split", 1, plain(settings.split), {}, {"chunks": chunks, "filtered": queries})


def negatives_recipe(
    own: NegativeSettings, dataset: str, base: str, chat: RecordedChat | None
) -> Recipe:
    return Recipe(
        "negatives",
        2,
        plain(own),
        {"base": base, "check": chat.name if chat and own.check == "llm" else own.check},
        {"dataset": dataset},
    )


def open_recorded_chat(settings: RunSettings, store: Store) -> RecordedChat | None:
    """The language model behind its store, where the settings need one."""
    from embedtune.llm.recorded import open_chat

    queries, llm = settings.queries, settings.llm
    labels = queries.file is not None and (llm.model is not None or llm.provider == "scripted")
    judges = (
        settings.filters.judge
        or settings.cleaning.ask is not None
        or settings.negatives.check == "llm"
    )
    if queries.source != "llm" and not labels and not judges:
        return None
    return RecordedChat(open_chat(llm), store, llm)


def training_libraries() -> dict[str, str]:
    """Versions of those that decide the bits of trained weights."""
    return versions("torch", "transformers", "sentence-transformers")


def plain(settings: Settings, *without: str) -> dict[str, Any]:
    """Settings as JSON-ready values, as they go into a recipe."""
    return settings.model_dump(mode="json", by_alias=True, exclude=set(without))


def files_digest(paths: Sequence[Path]) -> str:
    """One digest over names and contents of all regular files below ``paths``."""
    digest = hashlib.sha256()
    for path in paths:
        if str(path).startswith("hf:"):
            from embedtune.datasets.hub import fetch

            path = fetch(str(path))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            name = os.fsencode(file.relative_to(path.parent))
            try:
                state = sha256_of(file) if file.is_file() else "-"
            except OSError as error:
                state = f"unreadable {error.errno}"
            digest.update(name + b"\0" + state.encode() + b"\0")
    return digest.hexdigest()
