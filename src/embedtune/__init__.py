"""Fine-tune text embedding models on your own documents, with a verdict you can trust.

Public names are resolved on first use, so that importing the package loads nothing heavy.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "ChunkSettings": "documents.chunk",
    "DocumentSettings": "documents.read",
    "EmbedtuneError": "errors",
    "EvaluationSettings": "evaluation.settings",
    "Evaluator": "evaluation.evaluate",
    "LLMSettings": "llm.recorded",
    "QuerySettings": "queries.generate",
    "RecordedChat": "llm.recorded",
    "RecordedEmbedder": "embed.recorded",
    "SplitSettings": "datasets.split",
    "Store": "store",
    "TrainingSettings": "training.plan",
    "build_report": "report.build",
    "chunk_documents": "documents.chunk",
    "compare": "evaluation.compare",
    "extract_queries": "queries.extractive",
    "generate_queries": "queries.generate",
    "load_chat": "llm",
    "load_config": "config",
    "load_embedder": "embed",
    "load_tokens": "embed.tokens",
    "merge_into": "training.merge",
    "near_duplicates": "similar",
    "read_beir": "datasets.beir",
    "read_documents": "documents.read",
    "read_real_queries": "queries.real",
    "run_pipeline": "pipeline.run:run",  # `run` is the module of the run directory
    "split_queries": "datasets.split",
    "train": "training.train",
    "write_beir": "datasets.beir",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'embedtune' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = getattr(import_module(f"embedtune.{module}"), attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
