"""What a model folder says of the model: weights, size, length, licence, languages. Nothing in it
is loaded.
"""

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedtune.embed.checks import dimension_in, read_json_object, safetensors_header
from embedtune.embed.tokens import NO_LIMIT, Tokens

LOOKED_UP = re.compile(r"(^|\.)(\w*embed\w*|shared|wte|wpe)\.weight$")  # names of tables
OTHER_ENGINES = ("onnx", "openvino")  # folders with the same weights again
KEPT = (".safetensors", ".json", ".txt", ".model")
FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
LARGEST_CARD = 1_000_000  # characters
OWN_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """None and empty: not known, not said.

    ``computing``: those of the ``parameters`` that each token of a text is multiplied with, tables
    that are only looked up left out: what encoding costs, whatever the machine does beside.
    ``bytes``: of the files that are needed. ``max_tokens``: read of a text; None also for models
    that read all.
    """

    parameters: int | None = None
    computing: int | None = None
    bytes: int | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    licence: str = ""
    languages: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def facts_in(folder: Path, tokens: Tokens) -> ModelFacts:
    """The facts of the model in ``folder``, whose tokenizer ``tokens`` is.

    Raises:
        IntegrityError: A file is damaged.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in KEPT and path.is_file() and _needed(path.relative_to(folder).parts)
    ]
    weights: dict[str, int] = {}
    for path in files:
        if path.suffix == ".safetensors":
            for name, tensor in safetensors_header(path).items():
                weights[f"{path.parent}:{name}"] = math.prod(tensor["shape"])
    card = _card(folder / "README.md")
    tables = [name for name in weights if LOOKED_UP.search(name.rpartition(":")[2])]
    return ModelFacts(
        parameters=sum(weights.values()) or None,
        computing=sum(weights.values()) - sum(weights[name] for name in tables)
        if weights
        else None,
        bytes=sum(path.stat().st_size for path in files),
        dimension=dimension_in(folder),
        max_tokens=tokens.max_tokens if tokens.max_tokens < NO_LIMIT else None,
        licence=licence_in(folder),
        languages=tuple(_texts(card.get("language"))),
    )


def licence_in(folder: Path) -> str:
    """The licence that the model's card names; empty where it names none."""
    card = _card(folder / "README.md")
    return ", ".join(_texts(card.get("license_name") or card.get("license")))


def facts_of_static(model: Any) -> ModelFacts:  # SentenceTransformer
    """Of a static model that is in memory only: its table is looked up, nothing is multiplied."""
    parameters = sum(own.numel() for own in model.parameters())
    dimension = model.get_embedding_dimension()
    return ModelFacts(parameters, 0, 4 * parameters, dimension)


def prompts_in(folder: Path) -> dict[str, str]:
    """The model's own texts before a query and before a document; empty where it has none."""
    file = folder / "config_sentence_transformers.json"
    given = read_json_object(file).get("prompts") if file.is_file() else None
    known = given if isinstance(given, dict) else {}
    return {
        role: next((str(known[name]) for name in names if known.get(name)), "")
        for role, names in OWN_PROMPTS.items()
    }


def _needed(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith((".", "checkpoint-")) for part in parts)
    return not hidden and not set(parts) & set(OTHER_ENGINES)


def _card(file: Path) -> dict[str, Any]:
    """The front matter of a model card; empty where there is none that can be read."""
    import yaml

    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            found = FRONT_MATTER.match(opened.read(LARGEST_CARD))
        # of this loader "no" stays the language that it is
        card = yaml.load(found[1], Loader=yaml.BaseLoader) if found else {}
    except (OSError, yaml.YAMLError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def _texts(value: Any) -> list[str]:  # whatever a card holds
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items if isinstance(item, str) and item.strip()]
