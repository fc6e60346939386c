"""What a run would do and cost, before anything is spent or written."""

import math
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.errors import NothingUsable
from embedtune.pipeline.console import Console
from embedtune.pipeline.preflight import preflight

ANSWER_TOKENS = 60  # of one query with its evidence, as models write them
PROMPT_TOKENS = 450  # of the instructions around a passage


def plan(settings: RunSettings, console: Console) -> dict[str, Any]:
    """Documents, chunks, requests, tokens and cost of a run; reading and cutting are free.

    Token figures are estimates: the passage as the base's tokenizer counts it, and usual lengths
    of instructions and answers. ``usd`` is None without ``llm.price``.
    """
    preflight(settings)
    if settings.data is not None:
        from embedtune.datasets.beir import read_beir

        data = read_beir(settings.data).data
        return {
            "chunks": len(data.chunks),
            **{f"{name} queries": len(qrels) for name, qrels in data.qrels.items()},
            "requests": 0,
        }
    from embedtune.documents import chunk_documents, read_documents
    from embedtune.documents.cleaning import clean_documents
    from embedtune.embed.tokens import load_tokens

    paths = [Path(path) for path in settings.documents.paths]
    reading = read_documents(paths, settings.documents, console.progress("files"))
    if not reading.documents:
        raise NothingUsable("no document could be read")
    documents = clean_documents(reading.documents, settings.cleaning).documents
    tokens = load_tokens(settings.model.base[0])
    chunks = chunk_documents(documents, tokens, settings.chunks).chunks
    found: dict[str, Any] = {
        "documents": len(documents),
        "rejected files": len(reading.rejects),
        "chunks": len(chunks),
        "chunk tokens": sum(chunk.tokens for chunk in chunks),
        "requests": 0,
    }
    if settings.queries.source == "llm":
        per_chunk = settings.queries.per_chunk
        asked = len(chunks) * PROMPT_TOKENS + found["chunk tokens"]
        answered = len(chunks) * per_chunk * ANSWER_TOKENS
        price = settings.llm.price
        found |= {
            "queries": len(chunks) * per_chunk,
            "requests": len(chunks),
            "rounds of requests": math.ceil(len(chunks) / settings.llm.concurrency),
            "input tokens": asked,
            "output tokens": answered,
            "usd": round((asked * price.input + answered * price.output) / 1e6, 4)
            if price
            else None,
        }
    return found
