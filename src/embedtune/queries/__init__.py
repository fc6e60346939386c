"""Queries: written by a language model, taken from the text, or brought by the user."""

from embedtune.queries.asking import QuerySettings
from embedtune.queries.estimate import Estimate, estimate_queries
from embedtune.queries.examples import mark_examples
from embedtune.queries.extractive import extract_queries
from embedtune.queries.generate import Generation, generate_queries
from embedtune.queries.preview import Preview, preview_queries
from embedtune.queries.real import read_real_queries

__all__ = [
    "Estimate",
    "Generation",
    "Preview",
    "QuerySettings",
    "estimate_queries",
    "extract_queries",
    "generate_queries",
    "mark_examples",
    "preview_queries",
    "read_real_queries",
]
