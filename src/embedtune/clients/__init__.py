"""Indexes as retrievers of other frameworks. Each module needs that framework (an extra)."""
