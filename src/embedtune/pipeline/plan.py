"""What a run would do and cost, before anything is spent or written."""

import math
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.errors import NothingUsable
from embedtune.pipeline.console import Console
from embedtune.pipeline.preflight import preflight
from embedtune.pipeline.recipes import FREE
from embedtune.pipeline.untrained import tokens_of


def plan(settings: RunSettings, console: Console) -> dict[str, Any]:
    """Documents, chunks, requests, tokens and cost of a run; reading and cutting are free.

    Tokens are counted over the prompts that would be sent, as an estimate, and usual lengths of
    answers. ``usd`` is None where the model's price is not known.
    """
    preflight(settings)
    if settings.data is not None:
        from embedtune.datasets.source import read_source

        data = read_source(settings.data, settings.columns, settings=settings.source).data
        return {
            "chunks": len(data.chunks),
            **{f"{name} queries": len(qrels) for name, qrels in data.qrels.items()},
            "requests": 0,
        }
    from embedtune.documents import chunk_documents, read_documents
    from embedtune.documents.cleaning import clean_documents
    from embedtune.llm.prices import cost_of
    from embedtune.queries import estimate_queries

    paths = [Path(path) for path in settings.documents.paths]
    reading = read_documents(paths, settings.documents, console.progress("files"))
    if not reading.documents:
        raise NothingUsable("no document could be read")
    documents = clean_documents(reading.documents, settings.cleaning).documents
    tokens = tokens_of(settings.model.base[0])
    chunks = chunk_documents(documents, tokens, settings.chunks).chunks
    found: dict[str, Any] = {
        "documents": len(documents),
        "rejected files": len(reading.rejects),
        "chunks": len(chunks),
        "chunk tokens": sum(chunk.tokens for chunk in chunks),
        "requests": 0,
    }
    asked = settings.queries.source == "llm" and settings.llm.provider not in FREE
    labels = settings.queries.file is not None and settings.llm.model is not None
    if asked or labels or settings.filters.judge:
        estimate = estimate_queries(
            chunks, documents, settings.queries, real=labels, judge=settings.filters.judge
        )
        found |= {
            "queries": estimate.queries,
            "requests": estimate.requests,
            **{f"{part.name} requests": part.requests for part in estimate.parts},
            "rounds of requests": math.ceil(estimate.requests / settings.llm.concurrency),
            "input tokens": estimate.input_tokens,
            "output tokens": estimate.output_tokens,
            "usd": cost_of(settings.llm, estimate.input_tokens, estimate.output_tokens),
        }
    return found
