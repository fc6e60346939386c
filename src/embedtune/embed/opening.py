"""The embedder for a model's name or folder, whatever form the model has."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from embedtune.embed import Embedder, is_service, load_embedder
from embedtune.embed.models import resolve_model

# a file that tells the form of a folder -> what opens it
FORMS = {
    "embedtune_onnx.json": "embedtune.embed.onnx:OnnxEmbedder",
    "embedtune_adapter.json": "embedtune.embed.adapted:AdaptedEmbedder",
}
TORCH = "embedtune.embed.local:LocalEmbedder"


def open_embedder(name: str, **settings: Any) -> Embedder:  # settings differ by form
    """As `LocalEmbedder` for a model of sentence-transformers; exported models and adapters are
    known by a file in their folder; ``openai:MODEL``, ``cohere:MODEL`` and ``hashing:DIMENSION``
    are those of ``embed.EMBEDDERS``."""
    kind, _, rest = name.partition(":")
    if is_service(name) and rest:
        return load_embedder(kind, model=rest, **settings)
    if kind == "hashing" and (not rest or re.fullmatch(r"[1-9]\d{0,4}", rest)):
        return load_embedder(kind, dimension=int(rest or 256))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = resolve_model(name).path
    place = next((form for file, form in FORMS.items() if (folder / file).is_file()), TORCH)
    module, kind = place.split(":")
    return getattr(import_module(module), kind)(name, **settings)
