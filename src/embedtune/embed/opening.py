"""The embedder for a model's name or folder, whatever form the model has."""

from importlib import import_module
from pathlib import Path
from typing import Any

from embedtune.embed import Embedder

# a file that tells the form of a folder -> what opens it
FORMS = {
    "embedtune_onnx.json": "embedtune.embed.onnx:OnnxEmbedder",
    "embedtune_adapter.json": "embedtune.embed.adapted:AdaptedEmbedder",
}
TORCH = "embedtune.embed.local:LocalEmbedder"


def open_embedder(name: str, **settings: Any) -> Embedder:  # settings differ by form
    """As `LocalEmbedder` for a model of sentence-transformers; exported models and adapters are
    known by a file in their folder."""
    folder = Path(name).expanduser()
    place = next((form for file, form in FORMS.items() if (folder / file).is_file()), TORCH)
    module, kind = place.split(":")
    return getattr(import_module(module), kind)(name, **settings)
