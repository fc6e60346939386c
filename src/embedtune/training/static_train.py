"""Training of a static model: few large steps over the whole corpus, near where it began.

Every step ranks the passages for the queries, and for sentences cropped out of passages. What is
learnt of a word is above all its weight, one number, for which few pairs are enough; then where it
moves. Both are pulled towards their start: what the pairs say nothing about stays lexical search.
"""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import write_jsonl
from embedtune.records import Chunk, Pair, Progress, no_progress
from embedtune.training.best import (
    BestModel,
    Health,
    History,
    check_finite,
    check_trackers,
    patience_is_over,
    publish,
    take_back,
)
from embedtune.training.checkpoints import last_whole_checkpoint, load_state, prune, save_state
from embedtune.training.collapse import Watch
from embedtune.training.memory import check_disk, told_when_full
from embedtune.training.plan import Plan, TrainingSettings, plan_training
from embedtune.training.ranking import Excluded
from embedtune.training.ranks import group
from embedtune.training.train import Score, Trained
from embedtune.training.warmup import cropped_pairs

log = logging.getLogger(__name__)

STEPS = 60
RATE = 0.05  # of Adam at the first step, for the weights; it falls to 0
BATCH = 512  # pairs a step, at most
CROPS = 300  # cropped sentences a step
PULL = 30.0  # times the squared moves of all words, over the number of pairs
PULL_OF_WEIGHTS = 1.0  # times the squared logarithms of their factors, over the same
STRIDE = 0.05  # of Adam's rate for the weights: that for the moves
FAINT = 1e-3  # gradients far below it move a word in proportion; plain Adam would move it as far
PASSAGES = 2000  # ranked in a step; of more, so many are drawn
EVALUATIONS = 4
NO_LAYERS = "there are no layers, only a vector a word"
ITS_OWN = "its rate falls evenly, and its words are held near their start"
ALL_AT_ONCE = "each step has all its texts at once, which takes little memory"
UNUSED = {  # setting -> why it has no meaning here
    "lora": NO_LAYERS,
    "freeze_layers": NO_LAYERS,
    "adaptive_layers": NO_LAYERS,
    "attention_dropout": NO_LAYERS,
    "gradient_checkpointing": ALL_AT_ONCE,
    "tokens_at_once": ALL_AT_ONCE,
    "new_tokens": "every word of passages and queries has a vector already",
    "guide": "it is trained with mnrl alone, which masks by what is judged",
    "teacher": "it is trained with mnrl alone; `embedtune distil` learns from a model",
    "hardness": "all passages are ranked in every step, the hard ones too",
    "directions": "queries rank passages",
    "sampler": "every step has all pairs, or as many as training.batch_size says",
    "warmup_documents": "cropped sentences of all passages are learnt from anyway",
    "search": "there is no recipe to look for",
    "warmup": ITS_OWN,
    "scheduler": ITS_OWN,
    "weight_decay": ITS_OWN,
    "trainer": "the library's trainer does not train it",
    "also": "its words are those of one corpus",
    "mixing": "its words are those of one corpus",
}
MEANT = {  # setting -> the values that say what is done anyway, and what to do instead of others
    "loss": (("auto", "mnrl"), "a static model is trained with mnrl (auto)"),
    "matryoshka": (("auto", "off"), "a static model has one length of vectors; use auto"),
    "device": (("auto", "cpu"), "a static model is trained on the processor, in seconds; use auto"),
    "keep": (("auto", "best", "last"), "of a static model steps are not averaged; use auto"),
    "seeds": (("auto", 1), "seeds of a static model are not averaged; use auto"),
    "precision": (("auto", "fp32"), "a static model is trained in fp32; use auto"),
}


def refuse_unused(settings: TrainingSettings) -> None:
    """What a static model cannot be trained with is said, not passed over.

    Raises:
        ConfigError: All such settings, each with the reason.
    """
    fields = type(settings).model_fields
    faults = [
        f"training.{name}: a static model is not trained with it ({why}); leave it out"
        for name, why in UNUSED.items()
        if getattr(settings, name) != fields[name].get_default(call_default_factory=True)
    ]
    faults += [
        f"training.{name}: {getattr(settings, name)}: {what}"
        for name, (meant, what) in MEANT.items()
        if getattr(settings, name) not in meant
    ]
    if faults:
        raise ConfigError(faults)


def train_static(
    pairs: Sequence[Pair],
    chunks: Sequence[Chunk],
    base: Path,
    work: Path,
    *,
    excluded: Excluded,
    score: Score,
    settings: TrainingSettings,
    progress: Progress = no_progress,
) -> Trained:
    """Train the static model in the folder ``base``; the result is left in ``work/model``.

    The loss is the ranking loss (MNRL) of each query, and of cropped sentences (see
    ``cropped_pairs``), over all passages, or over the batch's own and drawn ones where there are
    more than ``PASSAGES``; a pair's mined negatives are always among them. What ``excluded`` names
    is masked. After a kill the same call goes on from the last whole checkpoint, and ends with the
    same model.

    Args:
        chunks: All passages; their sentences are learnt from, judged or not.
        score: Judges a model on dev.

    Raises:
        ConfigError: A setting that has no meaning here, or several processes.
        NothingUsable: Fewer than two pairs.
        IntegrityError: Loss, gradient or weights became non-finite.
        ResourceError: The disk does not hold the checkpoints.
    """
    import torch

    from embedtune.embed.loading import load_sentence_transformer

    refuse_unused(settings)
    if group().size > 1:
        raise ConfigError(
            "several processes were started, and a static model is trained by one, in seconds; "
            "start the command without torchrun"
        )
    check_trackers(settings.report_to)
    place = {chunk.id: number for number, chunk in enumerate(chunks)}
    usable = [pair for pair in pairs if pair.chunk in place and pair.anchor.strip()]
    if len({pair.chunk for pair in usable}) < 2:
        raise NothingUsable(
            "training needs at least 2 pairs with different passages; a static model can be "
            "searched with untrained"
        )
    model = load_sentence_transformer(str(base), device="cpu")
    plan = plan_static(settings, len(usable), model.get_embedding_dimension(), len(chunks))
    words = words_of(model[0].embedding.weight)
    lesson = _Lesson(words, model[0].tokenizer, usable, chunks, place, excluded, settings, plan)
    work.mkdir(parents=True, exist_ok=True)
    check_disk(model, work)
    base_score = float(score(model))
    checkpoints, best, final = work / "checkpoints", work / "best", work / "model"
    take_back(best, final)
    resume = last_whole_checkpoint(checkpoints)
    if resume is None:
        shutil.rmtree(best, ignore_errors=True)
    else:
        log.warning("training goes on from %s", resume.name)
    weigh = torch.optim.Adam([words.factors], lr=plan.learning_rate)
    move = torch.optim.Adam([words.moves], eps=FAINT)
    parts = {"words": words, "weigh": weigh, "move": move}
    state = load_state(resume, parts) if resume else {"step": 0, "rows": [], "since": []}
    history = History(work / "history.jsonl", state["rows"], settings.report_to)
    keep_best = BestModel(
        best,
        score,
        Watch([chunk.embedded for chunk in chunks], _vectors, model),
        last=settings.keep == "last",
    )
    since: list[float] = state["since"]
    health = Health(plan.learning_rate, state["step"])
    for step in range(state["step"] + 1, plan.steps + 1):
        # asked here, so that one that was killed after its last evaluation stops there too
        if step - 1 in history.evaluated and patience_is_over(
            settings.patience, keep_best.folder, history.evaluated
        ):
            break
        rate = plan.learning_rate * (1 - (step - 1) / plan.steps)
        weigh.param_groups[0]["lr"], move.param_groups[0]["lr"] = rate, STRIDE * rate
        loss = lesson.loss(step)
        value = float(loss.detach())
        health.check(step, value)
        words.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([own.grad for own in words.parameters()])
        health.check_gradient(step, float(norm))
        since.append(value)
        where = {"step": step, "epoch": round(step * plan.epochs / plan.steps, 4)}
        if step % plan.log_every == 0 or step == plan.steps:
            mean = sum(since) / len(since)
            history.add({**where, "loss": mean, "learning_rate": rate})
            since.clear()
        weigh.step()
        move.step()
        progress(step, plan.steps)
        if step % plan.evaluate_every == 0 or step == plan.steps:
            model[0].embedding.weight.data.copy_(words())
            check_finite(model, step)
            with told_when_full(checkpoints, model):
                history.add({**where, **keep_best(model, epoch=where["epoch"], steps=step)})
                save_state(checkpoints, step, parts, {"step": step, "rows": history.rows,
                                                      "since": since})  # fmt: skip
                prune(checkpoints, keep=2)
    chosen = publish(best, final)
    rows = ({"step": 0, "epoch": 0.0, "dev": base_score}, *history.rows)
    write_jsonl(work / "history.jsonl", rows)
    for folder in (checkpoints, best):
        shutil.rmtree(folder, ignore_errors=True)
    return Trained(
        final, plan, rows, int(chosen["step"]), chosen["score"], base_score, base,
        (f"trained with the words and sentences of all {len(chunks):,} passages (transductive)",),
    )  # fmt: skip


def plan_static(settings: TrainingSettings, pairs: int, dimension: int, corpus: int) -> Plan:
    """The plan of a static training: what is ``auto`` has values of its own here."""
    batch = min(BATCH, pairs) if settings.batch_size == "auto" else settings.batch_size
    own = settings.model_copy(update={
        "matryoshka": "off",
        "batch_size": batch,
        "learning_rate": RATE if settings.learning_rate == "auto" else settings.learning_rate,
        "epochs": STEPS / math.ceil(pairs / batch) if settings.epochs == "auto"
        else settings.epochs,
        "device": "cpu",
        "precision": "fp32",
    })  # fmt: skip
    plan = plan_training(own, pairs, dimension, corpus)
    if settings.evaluate_every != "auto":
        return plan
    every = math.ceil(plan.steps / EVALUATIONS)
    log_every = max(n for n in range(1, settings.log_every + 1) if every % n == 0)
    return replace(plan, evaluate_every=every, log_every=log_every)


def words_of(start: Any) -> Any:  # a torch module; torch is imported below
    """Gives (words, dimension): each row of ``start`` times a factor of its own, and moved."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("start", start.detach().clone())
            self.factors = torch.nn.Parameter(torch.zeros(len(start), 1))  # their logarithms
            self.moves = torch.nn.Parameter(torch.zeros_like(start))

        def forward(self) -> Any:
            return self.start * self.factors.exp() + self.moves

        def way(self) -> Any:
            """How far all is from its start, as the loss counts it."""
            return PULL * self.moves.square().sum() + PULL_OF_WEIGHTS * self.factors.square().sum()

    return Module()


@dataclass(frozen=True, slots=True)
class _Bags:
    """Texts as bags of token ids."""

    ids: tuple[Any, ...]  # a tensor each

    def embed(self, weight: Any, rows: Sequence[int]) -> Any:
        """(rows, dimension): the means of the tokens' vectors, of length 1."""
        import torch

        own = [self.ids[row] for row in rows]
        ends = np.cumsum([0, *map(len, own)])[:-1]
        found = torch.nn.functional.embedding_bag(torch.cat(own), weight, torch.from_numpy(ends))
        return torch.nn.functional.normalize(found, dim=1)


def _bags(tokenizer: Any, texts: Sequence[str]) -> _Bags:
    import torch

    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return _Bags(tuple(torch.tensor(one.ids or [0]) for one in encoded))


class _Lesson:
    """The loss of each step; what is drawn depends on seed and step alone."""

    def __init__(
        self,
        words: Any,
        tokenizer: Any,
        pairs: Sequence[Pair],
        chunks: Sequence[Chunk],
        place: Mapping[str, int],
        excluded: Excluded,
        settings: TrainingSettings,
        plan: Plan,
    ) -> None:
        self.words = words
        self.plan, self.seed = plan, settings.seed
        self.passages = _bags(tokenizer, [chunk.embedded for chunk in chunks])
        self.queries = _bags(tokenizer, [pair.anchor for pair in pairs])
        self.own = np.array([place[pair.chunk] for pair in pairs])
        self.barred = [
            [place[id] for id in excluded(pair.query) if id in place and id != pair.chunk]
            for pair in pairs
        ]
        count = settings.negatives_per_pair
        most = None if count == "auto" else count
        self.hard = [
            [place[id] for id, _ in pair.negatives[:most] if id in place] for pair in pairs
        ]
        crops = cropped_pairs(chunks, seed=settings.seed)
        self.sentences = _bags(tokenizer, [crop.anchor for crop in crops])
        self.rests = _bags(tokenizer, [crop.positive for crop in crops])
        self.origin = np.array([place[crop.chunk] for crop in crops], int)

    def loss(self, step: int) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        draw = np.random.default_rng([self.seed, step])
        rows = draw.permutation(len(self.own))[: self.plan.batch_size]
        crops = draw.permutation(len(self.origin))[:CROPS]
        hard = chain.from_iterable(self.hard[row] for row in rows)
        shown = self._shown(draw, [*self.own[rows], *self.origin[crops], *hard])
        at = {passage: column for column, passage in enumerate(shown)}
        weight = self.words()
        corpus = self.passages.embed(weight, shown)

        scores = self.queries.embed(weight, rows) @ corpus.T / self.plan.temperature
        barred = [
            (line, at[passage])
            for line, row in enumerate(rows)
            for passage in self.barred[row]
            if passage in at
        ]
        if barred:
            scores = scores.index_put(
                tuple(torch.tensor(barred).T), torch.tensor(-math.inf, dtype=scores.dtype)
            )
        loss = cross_entropy(scores, torch.tensor([at[passage] for passage in self.own[rows]]))
        if len(crops):
            asked = self.sentences.embed(weight, crops)
            # the passage without the sentence stands in the place of the whole one
            rest = (asked * self.rests.embed(weight, crops)).sum(dim=1, keepdim=True)
            own = torch.tensor([at[passage] for passage in self.origin[crops]])
            scores = (asked @ corpus.T).scatter(1, own[:, None], rest) / self.plan.temperature
            loss = loss + cross_entropy(scores, own)
        return loss + self.words.way() / len(self.own)

    def _shown(self, draw: np.random.Generator, needed: Sequence[int]) -> list[int]:
        """The passages ranked in a step, the ``needed`` ones among them."""
        total = len(self.passages.ids)
        if total <= PASSAGES:
            return list(range(total))
        others = draw.choice(total, PASSAGES, replace=False)
        return sorted({int(passage) for passage in chain(needed, others)})


def _vectors(model: Any, texts: Sequence[str]) -> Any:
    from embedtune.embed.local import MemoryEmbedder

    return MemoryEmbedder(model, "in training").embed(texts, "document")
