"""Learning from documents that nobody has asked about yet.

Three ways: to write a passage again from the vector of what is left of it (``tsdae``), to know a
passage again whatever dropout takes (``simcse``), and to find it by a sentence of its own
(``crops``).
"""

import logging
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import visible
from embedtune.records import Chunk, Pair, Progress, content_id, no_progress
from embedtune.relevance import Overlaps, twins_of
from embedtune.retrieve.order import tie_breaker
from embedtune.training.builders import Loss, Parts
from embedtune.training.examples import Examples, from_pairs
from embedtune.training.losses import LOSSES, LossKind
from embedtune.training.options import AS_IT_IS, ModelSettings
from embedtune.training.plan import TrainingSettings
from embedtune.training.ranking import Excluded
from embedtune.training.train import Score, Trained, keep_outcome, outcome_of, train_lots

log = logging.getLogger(__name__)

Method = Literal["tsdae", "simcse", "crops"]
RATE = 3e-5  # peak learning rate: that of both papers
MOST_PASSAGES = 10_000
DELETED = 0.6  # of a passage's words, in what ``tsdae`` is shown (Wang et al. 2021, table 7)
PIECE = 64  # words that ``tsdae`` writes: each costs a choice among the whole vocabulary
BATCH = 8  # passages a step of ``tsdae``, for the same reason
WORD = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]|[^\W_\u3400-\u9fff]+|[^\w\s]|_")

# A sentence ends at Chinese marks, at Latin ones before white space, and at a line's end.
SENTENCE = re.compile(
    r"[^。！？!?；\n.]*(?:[.!?](?!\s|$)[^。！？!?；\n.]*)*(?:[。！？!?；.]+|\n|$)"
)
FEWEST_LETTERS = {True: 5, False: 15}  # of a sentence worth asking with; True: ideographs
IDEOGRAPH = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]")
LETTER = re.compile(r"[^\W_]")


def cropped_pairs(chunks: Iterable[Chunk], *, seed: int) -> list[Pair]:
    """One sentence of each passage as the query, the passage without it as what answers it.

    The inverse cloze task (Lee et al., ACL 2019): title and further sentences stay, the sentence
    leaves all places where it stands. Which sentence is drawn depends on ``seed`` and the
    passage's id alone. A passage without a second sentence worth asking with gives no pair.

    Returns:
        Pairs in the order of ``chunks``. ``query`` is an id of its own for each sentence, which no
        query of a data set has; ``chunk`` is the passage, so that whoever masks by chunk never
        holds a passage against its own sentence.
    """
    pairs = []
    for chunk in chunks:
        sentences = sentences_of(chunk.text)
        drawn = random.Random(f"{seed}/{chunk.id}")
        drawn.shuffle(sentences)
        for sentence in sentences:
            rest = chunk.text.replace(sentence, " ")
            if not sentences_of(rest):
                continue
            positive = f"{chunk.title} {rest}".strip()
            query = content_id("crop", chunk.id, sentence)
            pairs.append(Pair(query, chunk.id, sentence, positive))
            break
    return pairs


def sentences_of(text: str) -> list[str]:
    """The different sentences with enough letters to be asked with, in order, stripped."""
    found = dict.fromkeys(match[0].strip() for match in SENTENCE.finditer(text))
    return [sentence for sentence in found if _long_enough(sentence)]


def _long_enough(sentence: str) -> bool:
    ideographs = len(IDEOGRAPH.findall(sentence))
    if ideographs >= FEWEST_LETTERS[True]:
        return True
    return len(LETTER.findall(sentence)) >= FEWEST_LETTERS[False]


# ---- training


@dataclass(frozen=True, slots=True)
class Warmed:
    """A model that has read the passages."""

    method: Method
    passages: int  # read
    trained: Trained

    @property
    def note(self) -> str:
        return (
            f"the model has read {self.passages:,} passages first ({self.method}), those of dev "
            "and test among them (transductive)"
        )

    def as_json(self) -> dict[str, Any]:
        losses = [row["loss"] for row in self.trained.history if "loss" in row]
        return {
            "method": self.method,
            "passages": self.passages,
            "steps": self.trained.plan.steps,
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }


def warm_up(
    chunks: Sequence[Chunk],
    base: str,
    work: Path,
    method: Method,
    *,
    near_duplicates: Sequence[tuple[str, str]] = (),
    settings: TrainingSettings,
    model_settings: ModelSettings = AS_IT_IS,
    score: Score | None = None,
    progress: Progress = no_progress,
) -> Warmed:
    """Train ``base`` once over the passages, without any query; the model is left in
    ``work/model``.

    tsdae: Wang et al. 2021, arXiv:2104.06979. simcse: Gao et al. 2021, arXiv:2104.08821. crops:
    see ``cropped_pairs``. The passages used are all, or ``MOST_PASSAGES`` drawn by their ids; a
    passage's near-duplicates and those that overlap it are not held against it. After a kill the
    same call goes on from the last whole checkpoint; after its end it gives what was done.

    Args:
        near_duplicates: Pairs of chunk ids.
        settings: Device, precision, seed, adapters and the like; what belongs to learning from
            pairs (loss, epochs, learning rate, negatives, checkpoint) is not used.
        score: Judges base and checkpoints on dev, for the history; the last one is kept.

    Raises:
        NothingUsable: Fewer than two different passages, or none that a sentence can be cropped of.
        ConfigError: ``tsdae`` for a model that cannot decode.
        IntegrityError, ResourceError: See ``train``.
    """
    examples, kind = lesson_of(chunks, method, seed=settings.seed)
    known = outcome_of(work)
    if known:
        return Warmed(method, len(examples), known)
    trained = train_lots(
        [(examples, kind)],
        [examples],
        base,
        work,
        excluded=apart(chunks, near_duplicates),
        score=score or (lambda model: 0.0),
        settings=settings.model_copy(update={**OWN, **({"batch_size": BATCH} if method == "tsdae"
                                                       else {})}),
        model_settings=model_settings,
        corpus=len(chunks) if score else 0,
        progress=progress,
    )  # fmt: skip
    keep_outcome(trained, work)
    return Warmed(method, len(examples), trained)


OWN: Mapping[str, Any] = {
    "loss": "auto",
    "guide": None,
    "directions": "auto",
    "hardness": 0.0,
    "adaptive_layers": False,
    "epochs": 1.0,
    "learning_rate": RATE,
    "negatives_per_pair": "auto",
    "keep": "last",
    "patience": None,
    "report_to": [],
    "sampler": "conflict_free",
}  # settings of a warm-up


def lesson_of(chunks: Iterable[Chunk], method: Method, *, seed: int) -> tuple[Examples, LossKind]:
    """What a passage is learnt from, one row each, and the loss for it.

    Raises:
        NothingUsable: Fewer than two different rows.
    """
    distinct = {chunk.embedded: chunk for chunk in chunks if WORD.search(chunk.embedded)}
    drawn = sorted(distinct.values(), key=lambda chunk: tie_breaker(chunk.id))[:MOST_PASSAGES]
    if method == "tsdae":
        examples = Examples("passages", "pairs", _denoising(drawn, seed))
    elif method == "simcse":
        pairs = tuple(Pair(chunk.id, chunk.id, chunk.embedded, chunk.embedded) for chunk in drawn)
        texts = tuple(pair.positive for pair in pairs)
        # neither column is a query, so both are read with the prompt of passages
        examples = Examples("passages", "pairs", {"once": texts, "again": texts}, pairs=pairs)
    else:
        crops = [replace(pair, query=pair.chunk) for pair in cropped_pairs(drawn, seed=seed)]
        examples = from_pairs("passages", crops)
    if len(examples) < 2:
        what = " of two sentences" if method == "crops" else ""
        raise NothingUsable(
            f"training.warmup_documents: {method} needs at least 2 different passages{what}, found "
            f"{len(examples)}"
        )
    return examples, KINDS[method]


def apart(chunks: Sequence[Chunk], near_duplicates: Iterable[tuple[str, str]]) -> Excluded:
    """Chunk id -> chunks that say the same: itself, near-duplicates, those that overlap it."""
    place = {chunk.id: number for number, chunk in enumerate(chunks)}
    twins = twins_of(chunks, [(place[one], place[other]) for one, other in near_duplicates])
    overlaps = Overlaps(chunks)

    def excluded(id: str) -> frozenset[str]:
        near = (other.id for other in overlaps.of(chunks[place[id]].span))
        return frozenset(chain([id], near, twins.get(id, ())))

    return excluded


def _denoising(chunks: Sequence[Chunk], seed: int) -> dict[str, tuple[str, ...]]:
    """A piece of each passage, and what is left of it when most words are deleted."""
    rows = []
    for chunk in chunks:
        draw = random.Random(f"{seed}/{chunk.id}")
        words = list(WORD.finditer(chunk.embedded))
        first = draw.randrange(max(1, len(words) - PIECE + 1))
        words = words[first : first + PIECE]
        kept = [word for word in words if draw.random() >= DELETED] or [draw.choice(words)]
        whole = chunk.embedded[words[0].start() : words[-1].end()]
        rows.append((without(chunk.embedded, words, kept), whole))
    noisy, whole = zip(*rows, strict=True) if rows else ((), ())
    return {"noisy": noisy, "whole": whole}


def without(text: str, words: Sequence[re.Match[str]], kept: Sequence[re.Match[str]]) -> str:
    """The stretch of ``words`` with no other words than those ``kept``, blanks put together."""
    marks = {word.start() for word in kept}
    parts, at = [], words[0].start()
    for word in words:
        parts.append(text[at : word.start()])
        parts.append(word[0] if word.start() in marks else "")
        at = word.end()
    return " ".join("".join(parts).split())


def _decoder(parts: Parts) -> Loss:
    from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.utils import logging as transformers_logging

    encoder = getattr(parts.model[0], "model", None)
    config = getattr(encoder, "config", None)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            "training.warmup_documents: tsdae needs an encoder that can decode too (BERT, RoBERTa, "
            f"XLM-RoBERTa and the like), not {visible(type(encoder).__name__)}; use simcse or crops"
        )
    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    library = logging.getLogger("sentence_transformers")
    ours = library.level
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it tells of weights that are new by design
    library.setLevel(logging.ERROR)
    try:
        return DenoisingAutoEncoderLoss(parts.model, tie_encoder_decoder=True)
    finally:
        transformers_logging.set_verbosity(level)
        library.setLevel(ours)
        if bars:
            transformers_logging.enable_progress_bar()


KINDS: Mapping[Method, LossKind] = {
    "tsdae": LossKind(
        "tsdae", ("pairs",), "A passage written again from the vector of what is left of it.",
        "Wang et al. 2021, arXiv:2104.06979", _decoder, "position", flat=False, matryoshka=False,
    ),
    "simcse": replace(LOSSES["mnrl"], name="simcse", anew=True),
    "crops": LOSSES["mnrl"],
}  # fmt: skip
