"""The audit of a data set: of the user's, for the command, and of a run's, for its report."""

from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.findings import Audit
from embedtune.datasets.source import Source
from embedtune.embed.tokens import Tokens
from embedtune.files import read_json, write_json
from embedtune.pipeline.stored import Dataset
from embedtune.records import Counts

FILE = "audit.json"


def audit_data(data: Path, model: str, settings: RunSettings) -> tuple[Audit, Source]:
    """``embedtune audit``: what is wrong with a data set in any format, nothing changed.

    Raises:
        ConfigError, NothingUsable, ServiceError: See ``read_source``; a model that is not found.
    """
    from embedtune.datasets.source import read_source
    from embedtune.pipeline.untrained import tokens_of

    tokens = tokens_of(model)
    source = read_source(data, settings.columns, split=settings.split, settings=settings.source)
    return _audited(source, tokens), source


def audit_dataset(dataset: Dataset, tokens: Tokens, folder: Path) -> Audit:
    """The data set of a run, as it is trained and judged on; ``audit.json`` in ``folder``."""
    source = Source("beir", dataset.data, dataset.negatives, {}, (), (), (), Counts(0, 0))
    found = _audited(source, tokens)
    write_json(folder / FILE, found.as_json())
    return found


def load_audit(folder: Path) -> dict[str, Any] | None:
    """What ``audit_dataset`` left, as plain data for the report."""
    path = folder / FILE
    return read_json(path) if path.is_file() else None


def _audited(source: Source, tokens: Tokens) -> Audit:
    from embedtune.datasets.audit import audit
    from embedtune.retrieve.bm25 import BM25

    return audit(source, tokens=tokens, retriever=BM25(source.data.chunks))
