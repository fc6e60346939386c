"""Queries: written by a language model, taken from the text, or brought by the user."""

from embedtune.queries.extractive import extract_queries
from embedtune.queries.generate import Generation, QuerySettings, generate_queries
from embedtune.queries.real import read_real_queries

__all__ = [
    "Generation",
    "QuerySettings",
    "extract_queries",
    "generate_queries",
    "read_real_queries",
]
