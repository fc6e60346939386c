"""How users name what ranks chunks, and how a name becomes an embedder.

``[label=]SYSTEM[?option=value&option=value]``, where SYSTEM is one of:

- ``bm25``;
- a model's name or folder (tuned, merged and static models are folders like any other);
- ``openai:MODEL`` and ``cohere:MODEL``, embedding services;
- ``hashing`` or ``hashing:DIMENSION``, a floor without any model;
- ``hybrid:SYSTEM``, any of the last three together with BM25.

Options are ``pooling`` (mean, cls, max, lasttoken, weightedmean), ``query_prompt`` and
``document_prompt`` of models on this machine, in the place of their own; ``precision`` (int8,
binary, binary+rescore, float16), how an index keeps the vectors; ``rerank``, a cross-encoder that
reads the first ``depth`` hits (50) of the system again. Values are written as in addresses:
``%20`` is a blank, ``%26`` an ampersand, ``%3F`` a question mark.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote, urlsplit

from embedtune.embed import EMBEDDERS, SERVICES, Embedder, is_service, load_embedder, opening
from embedtune.embed.adapted import base_of
from embedtune.embed.loading import PoolingMode
from embedtune.embed.remote import Purse
from embedtune.endpoint import find_address
from embedtune.errors import ConfigError
from embedtune.evaluation.quantise import PRECISIONS, Precision
from embedtune.files import visible
from embedtune.retrieve.rerank import DEPTH, CrossEncoderReranker, Reranker

SHORTER_DIMENSIONS = (512, 256, 128, 64)

Kind = Literal["dense", "bm25", "hybrid", "api", "rerank", "run"]

POOLINGS = get_args(PoolingMode)
OPTIONS = ("pooling", "query_prompt", "document_prompt", "precision", "rerank", "depth")
NAMED = ("system", "model", "hybrid", *SERVICES)  # what a mapping may name a system by
EXPECTED = "expected [label=]bm25, MODEL, openai:MODEL, cohere:MODEL or hybrid:MODEL"
LABEL = re.compile(r"([^=:/\\?]+)=")


@dataclass(frozen=True, slots=True)
class System:
    """Something that ranks chunks. ``embedder`` is a key of ``embed.EMBEDDERS``, or empty.

    ``pooling`` and the prompts are empty and None where the model's own are used. A system of the
    kind "rerank" reads the ``depth`` best hits of ``first`` with the cross-encoder ``model``.
    """

    label: str
    kind: Kind
    embedder: str = ""
    model: str = ""
    pooling: str = ""
    query_prompt: str | None = None
    document_prompt: str | None = None
    precision: Precision = "float32"
    first: "System | None" = None
    depth: int = DEPTH

    def hybrid(self, label: str) -> "System":
        """This system together with BM25."""
        return replace(self, label=label, kind="hybrid")

    @property
    def encoder(self) -> "System":
        """What its vectors depend on: equal for systems that share them."""
        return replace(self, label="", kind="dense", precision="float32", first=None, depth=DEPTH)

    @property
    def is_paid(self) -> bool:
        """Whether its vectors cost money."""
        return self.embedder in SERVICES


def parse_system(text: str) -> System:
    """A system as users write it, ``[label=]SYSTEM[?option=value&…]``; see above.

    The label defaults to the text. A folder whose name holds a question mark or an equals sign is
    written ``./na=me``, and with a further ``?`` at its end where what follows its own looks like
    an option: ``./odd?a=b?``.

    Raises:
        ConfigError: Says what was expected.
    """
    text = text.strip()
    match = LABEL.match(text)
    name = text[match.end() :].strip() if match else text
    if not name:
        raise ConfigError(f"system {visible(repr(text))}: {EXPECTED}")
    label = match[1].strip() if match else name
    name, given = _options_of(name, text)
    system = _named(label, name, text)
    return _with_options(system, given, text)


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


def system_text(mapping: Mapping[str, Any]) -> str:  # as YAML has it
    """The text of a system that is written as a mapping: one of ``model``, ``openai``,
    ``cohere``, ``hybrid`` and ``system``, then options and ``label`` as they are meant, e.g.
    ``{model: ./m, pooling: cls, query_prompt: "query: "}``.

    Raises:
        ConfigError: It names no system, or two, or an option that does not exist.
    """
    given = {str(key): value for key, value in mapping.items()}
    known = [key for key in NAMED if key in given]
    if len(given) == 1 and not known:
        return ":".join(map(str, next(iter(given.items()))))  # {hashing: 64}
    unknown = sorted(given.keys() - {*NAMED, *OPTIONS, "label"})
    if len(known) != 1 or unknown:
        raise ConfigError(
            f"system {visible(given)}: expected one of {', '.join(NAMED)}, and beside it only "
            f"label, {', '.join(OPTIONS)}"
        )
    [kind] = known
    name = str(given[kind])
    if kind == "model":
        if LABEL.match(name):
            name = f"./{name}"
        name += "?" if "?" in name else ""
    elif kind != "system":
        name = f"{kind}:{name}"
    options = [f"{key}={quote(str(given[key]), safe='/:+')}" for key in OPTIONS if key in given]
    if options:
        name = f"{name.removesuffix('?')}?{'&'.join(options)}"
    return f"{given['label']}={name}" if "label" in given else name


def _options_of(name: str, text: str) -> tuple[str, dict[str, str]]:
    """The name without its options, and these."""
    head, mark, tail = name.rpartition("?")
    if not mark or not (not tail or re.match(r"\w+=", tail)):
        return name, {}
    given: dict[str, str] = {}
    for part in tail.split("&") if tail else ():
        key, equals, value = part.partition("=")
        if key not in OPTIONS or not equals or key in given:
            raise ConfigError(
                f"system {visible(text)}: option {visible(repr(part))}: expected NAME=VALUE with a "
                f"name of {', '.join(OPTIONS)}, each once (a folder with ? in its name is written "
                "with a further ? at its end)"
            )
        given[key] = unquote(value)
    return head, given


def _named(label: str, name: str, text: str) -> System:
    """The system of a name, without options."""
    if name.lower() == "bm25":
        return System(label, "bm25")
    prefix, _, rest = name.partition(":")
    if prefix == "hybrid":
        inner = parse_system(rest) if rest else None
        if inner is None or inner.kind in ("bm25", "hybrid", "rerank"):
            raise ConfigError(f"system {visible(text)}: expected hybrid:MODEL")
        return inner.hybrid(label)
    if prefix in SERVICES:
        if not rest:
            raise ConfigError(f"system {visible(text)}: expected {prefix}:MODEL")
        return System(label, "api", prefix, rest)
    if prefix == "hashing":
        if rest and not re.fullmatch(r"[1-9]\d{0,4}", rest):
            raise ConfigError(f"system {visible(text)}: expected hashing or hashing:DIMENSION")
        return System(label, "dense", "hashing", rest)
    if not name:
        raise ConfigError(f"system {visible(text)}: {EXPECTED}")
    return System(label, "dense", "local", name)


def _with_options(system: System, given: Mapping[str, str], text: str) -> System:
    faults: list[str] = []
    choices = {"pooling": POOLINGS, "precision": PRECISIONS}
    for key, allowed in choices.items():
        if key in given and given[key] not in allowed:
            faults.append(
                f"{key} {visible(repr(given[key]))}: expected one of {', '.join(allowed)}"
            )
    own = [key for key in OPTIONS[:3] if key in given]
    if own and system.embedder != "local":
        faults.append(f"{own[0]}: only models on this machine have one; expected MODEL?{own[0]}=…")
    if "precision" in given and not system.embedder:
        faults.append("precision: expected a system with vectors")
    depth = given.get("depth", str(DEPTH))
    if not re.fullmatch(r"[1-9]\d{0,3}", depth):
        faults.append(f"depth {visible(repr(depth))}: expected a number from 1 to 9999")
    if "depth" in given and "rerank" not in given:
        faults.append("depth: expected only beside rerank")
    if given.get("rerank") == "":
        faults.append("rerank: expected a cross-encoder's name or folder")
    if faults:
        raise ConfigError([f"system {visible(text)}: {fault}" for fault in faults])
    kept: dict[str, Any] = {key: given[key] for key in (*OPTIONS[:3], "precision") if key in given}
    system = replace(system, **kept)
    if "rerank" not in given:
        return system
    return System(system.label, "rerank", model=given["rerank"], first=system, depth=int(depth))


def open_embedder(
    system: System, pooling: PoolingMode | Literal["auto"] = "auto", *, purse: Purse | None = None
) -> Embedder:
    """The embedder of a dense, API or hybrid system.

    Args:
        pooling: Of plain encoders, which have none of their own.
        purse: What services may cost; shared by those of a command.
    """
    if system.embedder not in EMBEDDERS:
        raise ConfigError(f"system {visible(system.label)}: has no embedder")
    if system.embedder == "hashing":
        return load_embedder("hashing", dimension=int(system.model or 256))
    if system.is_paid:
        return load_embedder(system.embedder, model=system.model, **_paying(system, purse))
    base = base_of(system.model)  # of an adapter
    paying = _paying(parse_system(base), purse) if is_service(base) else {}
    prompts = {"query": system.query_prompt, "document": system.document_prompt}
    return opening.open_embedder(
        system.model, pooling=pooling,
        pooling_instead=system.pooling or None,
        prompts_instead={role: prompt for role, prompt in prompts.items() if prompt is not None},
        **paying,
    )  # fmt: skip


def open_reranker(system: System) -> Reranker:
    """The cross-encoder of a system of that kind; loaded when first asked.

    Raises:
        ConfigError, ServiceError: It is not found, or no cross-encoder.
    """
    from embedtune.embed.cross_encoder import find_cross_encoder, load_cross_encoder

    setting = f"system {visible(system.label)}: rerank"
    found = find_cross_encoder(system.model, setting)
    return CrossEncoderReranker(
        found.label, functools.partial(load_cross_encoder, system.model, None, setting)
    )


def _paying(system: System, purse: Purse | None) -> dict[str, Any]:
    """What a service may cost, as its embedder takes it."""
    purse = purse or Purse()
    price = purse.settings.price
    return {"price": price_of(system) if price is None else price, "purse": purse}


def price_of(system: System) -> float | None:
    """US dollars per million tokens, as the table of prices has it."""
    from embedtune.embed.cohere import find_cohere
    from embedtune.llm.prices import embedding_price

    if system.embedder == "cohere":
        address = find_cohere(system.model).base_url
    else:
        address, _ = find_address(None)
    return embedding_price(system.model, urlsplit(address).hostname or "")


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
