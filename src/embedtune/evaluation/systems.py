"""How users name what ranks chunks, and how a name becomes an embedder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedtune.embed import EMBEDDERS, Embedder, load_embedder
from embedtune.errors import ConfigError
from embedtune.files import visible

SHORTER_DIMENSIONS = (512, 256, 128, 64)

Kind = Literal["dense", "bm25", "hybrid", "api"]


@dataclass(frozen=True, slots=True)
class System:
    """Something that ranks chunks. ``embedder`` is a key of ``embed.EMBEDDERS``, or empty."""

    label: str
    kind: Kind
    embedder: str = ""
    model: str = ""

    def hybrid(self, label: str) -> "System":
        """This system together with BM25."""
        return System(label, "hybrid", self.embedder, self.model)


def parse_system(text: str) -> System:
    """A system as users write it: ``[label=]SYSTEM``.

    SYSTEM is ``bm25``, a model's name or folder, ``openai:MODEL``, ``hashing`` (a floor without
    any model), or ``hybrid:`` before one of the last three. The label defaults to the text.
    """
    match = re.fullmatch(r"(?:([^=:/\\]+)=)?(?!.*=$)(.+)", text.strip(), re.DOTALL)
    if not match:
        raise ConfigError(
            f"system {visible(repr(text))}: expected [label=]bm25, MODEL, "
            "openai:MODEL or hybrid:MODEL"
        )
    label, name = (match[1] or match[2]).strip(), match[2].strip()
    if name.lower() == "bm25":
        return System(label, "bm25")
    prefix, _, rest = name.partition(":")
    if prefix == "hybrid":
        inner = parse_system(rest) if rest else None
        if inner is None or inner.kind in ("bm25", "hybrid"):
            raise ConfigError(f"system {visible(text)}: expected hybrid:MODEL")
        return inner.hybrid(label)
    if prefix == "openai":
        if not rest:
            raise ConfigError(f"system {visible(text)}: expected openai:MODEL")
        return System(label, "api", "openai", rest)
    if prefix == "hashing":
        if rest and not re.fullmatch(r"[1-9]\d{0,4}", rest):
            raise ConfigError(f"system {visible(text)}: expected hashing or hashing:DIMENSION")
        return System(label, "dense", "hashing", rest)
    return System(label, "dense", "local", name)


def parse_systems(texts: Iterable[str]) -> tuple[System, ...]:
    """All systems of a list; two of one label are refused, all faults are reported together."""
    systems: list[System] = []
    faults: list[str] = []
    for text in texts:
        try:
            system = parse_system(text)
        except ConfigError as error:
            faults.extend(error.faults)
            continue
        if any(other.label == system.label for other in systems):
            faults.append(f"two systems are called {visible(system.label)}; write label=SYSTEM")
        systems.append(system)
    if faults:
        raise ConfigError(faults)
    return tuple(systems)


def open_embedder(system: System, pooling: str = "auto") -> Embedder:
    """The embedder of a dense, API or hybrid system, with default settings.

    Args:
        pooling: Of plain encoders, which have none of their own.
    """
    if system.embedder not in EMBEDDERS:
        raise ConfigError(f"system {visible(system.label)}: has no embedder")
    if system.embedder == "hashing":
        return load_embedder("hashing", dimension=int(system.model or 256))
    own = {"pooling": pooling} if system.embedder == "local" else {}
    return load_embedder(system.embedder, model=system.model, **own)


def matryoshka_dimensions(embedder: Embedder, own: int) -> tuple[int, ...]:
    """Dimensions to report, largest first: those the model was trained for, as the folder's
    ``embedtune.json`` or its card says, else its own, then 512, 256, 128 and 64 where smaller."""
    resolved = getattr(getattr(embedder, "embedder", embedder), "resolved", None)
    wanted = _trained_dimensions(Path(resolved.path)) if resolved else ()
    return (own, *sorted({d for d in wanted or SHORTER_DIMENSIONS if 0 < d < own}, reverse=True))


def _trained_dimensions(folder: Path) -> list[int]:
    for name in ("embedtune.json", "README.md"):
        if (file := folder / name).is_file():
            text = file.read_text("utf-8", "replace")
            if match := re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', text):
                return [int(dimension) for dimension in match[1].split(",") if dimension.strip()]
    return []
