"""The base ``static``: no folder and no name on a hub, but a model made of the data set itself.

``static:FILE`` starts it from word vectors. Where a command needs a base before there is anything
to train, this module answers for both kinds of base.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.tokens import NO_LIMIT, Tokens, WordTokens
from embedtune.errors import ConfigError
from embedtune.evaluation.compare import with_bm25
from embedtune.evaluation.evaluate import Evaluator, System
from embedtune.files import sha256_of, visible
from embedtune.records import Chunk, RetrievalSet
from embedtune.training.plan import TrainingSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STATIC = "static"
FOLDER = "untrained"  # beside the tuned model: what it is merged and compared with


def is_static(name: str) -> bool:
    return name == STATIC or name.startswith(f"{STATIC}:")


def check_static(name: str, training: TrainingSettings) -> None:
    """Raises ConfigError where ``training`` asks for what a static model cannot, or the file of
    word vectors is not there."""
    from embedtune.training.static_train import refuse_unused

    refuse_unused(training)
    file = _vectors(name)
    if file is not None and not file.is_file():
        raise ConfigError(f"{STATIC}:{visible(str(file))}: there is no such file of word vectors")


def label_of(name: str) -> str:
    """What a fingerprint says of a base."""
    from embedtune.embed.models import resolve_model

    if not is_static(name):
        return resolve_model(name).label
    file = _vectors(name)
    return f"{STATIC}:{sha256_of(file)[:16]}" if file else STATIC


def tokens_of(name: str) -> Tokens:
    """The tokenizer of a base; a static one reads every word, so words are counted."""
    from embedtune.embed.tokens import load_tokens

    return WordTokens() if is_static(name) else load_tokens(name)


def tokens_for(system: System) -> Tokens:
    """As ``tokens_of``, for any system with vectors: of an adapter that of its base. How services
    cut texts into tokens is not known, so words are counted, and none is too long."""
    from embedtune.embed.adapted import base_of

    name = base_of(system.model) or system.model
    elsewhere = system.embedder != "local" or name.startswith(("openai:", "cohere:", "hashing"))
    return WordTokens(NO_LIMIT) if elsewhere else tokens_of(name)


def untrained(
    name: str, chunks: Sequence[Chunk], seed: int, queries: Sequence[str] = ()
) -> "SentenceTransformer":
    """The static model of these passages; ``queries`` are those that it will be trained with."""
    from embedtune.training.static import StaticSettings, build_static

    settings = StaticSettings(vectors=_vectors(name), seed=seed)
    return build_static([chunk.embedded for chunk in chunks], settings, queries=queries)


def opener(
    settings: RunSettings, chunks: Sequence[Chunk], otherwise: Callable[[System], Embedder]
) -> Callable[[System], Embedder]:
    """``otherwise``, but the static base is made of ``chunks``."""
    from embedtune.embed.local import MemoryEmbedder

    def open_system(system: System) -> Embedder:
        if system.embedder == "local" and is_static(system.model):
            model = untrained(system.model, chunks, settings.training.seed)
            return MemoryEmbedder(model, f"untrained {system.model}")
        return otherwise(system)

    return open_system


def instead(training: TrainingSettings) -> TrainingSettings:
    """The settings for a static model in the place of another base: what was set for that one's
    training has no meaning for this one's."""
    return TrainingSettings(
        seed=training.seed,
        merge=training.merge,
        keep="auto" if training.keep == "average" else training.keep,
        report_to=training.report_to,
    )


def best_untuned(data: RetrievalSet, evaluator: Evaluator, models: Sequence[System]) -> System:
    """What stands for the base of a model without pretrained weights: of BM25, ``models`` and
    their hybrids the best on dev; BM25 where there is no dev."""
    bm25 = System("bm25", "bm25")
    if not data.qrels.get("dev"):
        return bm25
    metric = evaluator.settings.metric
    systems = [bm25, *models, *map(with_bm25, models)]
    return max(systems, key=lambda system: evaluator.score(system, "dev").metrics[metric])


def _vectors(name: str) -> Path | None:
    _, _, file = name.partition(":")
    return Path(file).expanduser() if file else None
