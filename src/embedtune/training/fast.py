"""The fast engine, for encoders that the flat forward knows.

A step encodes each distinct text of its batch once, all in one flat tensor without padding. The
loss is any that needs vectors and labels alone. Memory decides in how many ``portions`` that is
done, and how many processes there are (``ranks``); the loss sees the whole batch all the same.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from embedtune.embed.packed import Packed
from embedtune.records import Progress
from embedtune.training.best import BestModel, Health, History, check_finite, patience_is_over
from embedtune.training.checkpoints import load_state, prune, save_state
from embedtune.training.examples import Batch, Order, Task, role_of
from embedtune.training.memory import told_when_full
from embedtune.training.plan import Plan, TrainingSettings
from embedtune.training.portions import Portions, ShortOfMemory, random_state, set_random_state
from embedtune.training.ranks import Step, begin_with, divide, do_share, group, trained_weights

log = logging.getLogger(__name__)

MAX_GRADIENT = 1.0  # norm above which gradients are scaled down, as the trainer has it


def fit(
    model: Any,  # SentenceTransformer
    tasks: Sequence[Task],
    order: Order,
    keep_best: BestModel,
    settings: TrainingSettings,
    plan: Plan,
    *,
    checkpoints: Path,
    resume: Path | None,
    history: Path,
    progress: Progress,
) -> list[Mapping[str, float]]:
    """Train ``model`` in place; the best checkpoint's model is left where ``keep_best`` has it.

    Returns:
        The history, also in the file ``history``: see ``History``.

    Raises:
        IntegrityError: Loss, gradient, score or weights are not finite, or nothing is learnt.
        ResourceError: Memory does not hold a single text's gradients, or the disk a checkpoint.
    """
    import torch
    from transformers import get_scheduler

    losses = torch.nn.ModuleList(task.loss for task in tasks)
    losses.to(model.device)
    optimiser = torch.optim.AdamW(  # fused: one pass over the weights, as the trainer has it
        _groups([model, losses], settings.weight_decay), lr=plan.learning_rate, fused=True
    )
    scheduler = get_scheduler(
        settings.scheduler,
        optimiser,
        num_warmup_steps=math.ceil(settings.warmup * plan.steps),
        num_training_steps=plan.steps,
    )
    parts = {
        "model": model, "losses": losses, "optimiser": optimiser, "scheduler": scheduler
    }  # fmt: skip
    state = {"step": 0, "rows": [], "since": [], "tokens_at_once": plan.tokens_at_once}
    if resume:
        state |= load_state(resume, parts)
    written = History(history, state["rows"], settings.report_to)
    since: list[float] = state["since"]  # losses since the last entry
    health = Health(plan.learning_rate, state["step"])
    # portions decide the order of sums: those of the training that goes on, whatever is free now
    stepper = Stepper(model, tasks, settings, plan, state["tokens_at_once"], state["step"])
    per_epoch = plan.steps / plan.epochs
    model.train()
    for step, batch in enumerate(
        islice(_endless(order), state["step"], plan.steps), state["step"] + 1
    ):
        # asked here, so that one that was killed after its last evaluation stops there too
        if step - 1 in written.evaluated and patience_is_over(
            settings.patience, keep_best.folder, written.evaluated
        ):
            break
        loss = stepper.backward(batch)
        health.check(step, loss, batch[1])
        norm = torch.nn.utils.clip_grad_norm_(
            [weights for part in (model, losses) for weights in part.parameters()], MAX_GRADIENT
        )
        health.check_gradient(step, float(norm), batch[1])
        since.append(loss)
        where = {"step": step, "epoch": round(step / per_epoch, 4)}
        if step % plan.log_every == 0 or step == plan.steps:
            rate = scheduler.get_last_lr()[0]
            written.add({**where, "loss": sum(since) / len(since), "learning_rate": rate})
            since.clear()
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad(set_to_none=True)
        progress(step, plan.steps)
        if step % plan.evaluate_every == 0 or step == plan.steps:
            check_finite(model, step, batch[1])
            with told_when_full(checkpoints, model):
                written.add({**where, **keep_best(model, epoch=where["epoch"], steps=step)})
                save_state(checkpoints, step, parts,
                           {"step": step, "rows": written.rows, "since": since,
                            "tokens_at_once": stepper.portions.budget})  # fmt: skip
                prune(checkpoints, keep=2)
    return written.rows


class Stepper:
    """Forward and backward of one batch, within the memory there is, by all processes there are.

    Args:
        tokens_at_once: Most tokens whose activations are held, to begin with.
        done: Steps that were done before.
    """

    def __init__(
        self,
        model: Any,
        tasks: Sequence[Task],
        settings: TrainingSettings,
        plan: Plan,
        tokens_at_once: int,
        done: int,
    ) -> None:
        dropout = settings.attention_dropout
        self.packed = Packed(model, precision=plan.precision, attention_dropout=dropout)
        share = not any(task.anew for task in tasks)
        self.portions = Portions(self.packed, tokens_at_once, share=share)
        self.group, self.steps = group(), done
        self.model, self.tasks = model, tasks
        self._weights = trained_weights(model)
        begin_with(self.group, model, self.portions, plan.precision, dropout, settings.seed)
        self._ids: list[Sequence[int]] = []  # of each distinct text
        self._places = [self._place(task) for task in tasks]  # column by column, row by row

    def _place(self, task: Task) -> list[list[int]]:
        """Of each column, the places of its rows' texts in ``_ids``."""
        found = []
        for column, texts in task.examples.columns.items():
            distinct = list(dict.fromkeys(texts))
            first = len(self._ids)
            self._ids += self.packed.token_ids(distinct, role_of(column))
            place = {text: first + number for number, text in enumerate(distinct)}
            found.append([place[text] for text in texts])
        return found

    def backward(self, batch: Batch) -> float:
        """The loss of a batch; gradients are added to the weights.

        Raises:
            ResourceError: Memory ran out with one text at a time, or another process ended.
        """
        import torch

        number, rows = batch
        task = self.tasks[number]
        columns = [[places[row] for row in rows] for places in self._places[number]]
        texts = list(dict.fromkeys(chain.from_iterable(columns)))
        sequences = [self._ids[text] for text in texts]
        at = {text: place for place, text in enumerate(texts)}
        device = self.model.device
        takes = [torch.tensor([at[text] for text in column], device=device) for column in columns]
        labels = torch.tensor([task.labels[row] for row in rows], device=device)

        def loss_of(vectors: Any) -> Any:
            features = [{"sentence_embedding": vectors.index_select(0, take)} for take in takes]
            return task.loss(features, labels)

        shares = divide(sequences, self.group.size)
        while True:
            begin = random_state()
            self.group.say(Step(self.steps, shares))
            self.group.same_weights(self._weights)
            try:
                loss = do_share(self.group, self.portions, shares, self._weights, loss_of)
            except ShortOfMemory:
                for weights in chain(self.model.parameters(), task.loss.parameters()):
                    weights.grad = None
                set_random_state(begin)
            else:
                self.steps += 1
                return loss


def _endless(order: Order) -> Iterator[Batch]:
    return chain.from_iterable(map(order, count()))


def _groups(modules: Sequence[Any], decay: float) -> list[dict[str, Any]]:
    """Trainable weights for AdamW: biases and norms do not decay."""
    weights = [own for module in modules for own in module.parameters() if own.requires_grad]
    return [
        {"params": [own for own in weights if own.ndim > 1], "weight_decay": decay},
        {"params": [own for own in weights if own.ndim <= 1], "weight_decay": 0.0},
    ]
