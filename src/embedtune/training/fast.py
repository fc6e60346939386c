"""The fast engine, for encoders that the flat forward knows.

A step encodes each distinct text of its batch once, all in one flat tensor without padding. The
loss is any that needs vectors and labels alone. Where a batch has more tokens than memory allows,
it is encoded in portions and its gradients are cached (GradCache, Gao et al. 2021,
arXiv:2101.06983): the loss sees the whole batch all the same.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from embedtune.embed.packed import Packed
from embedtune.errors import IntegrityError, ResourceError
from embedtune.records import Progress
from embedtune.training.best import BestModel, Health, History, check_finite, patience_is_over
from embedtune.training.checkpoints import load_state, prune, save_state
from embedtune.training.examples import Batch, Order, Task, role_of
from embedtune.training.plan import Plan, TrainingSettings

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
        ResourceError: Memory does not hold a single text's gradients.
    """
    import torch
    from transformers import get_scheduler

    losses = torch.nn.ModuleList(task.loss for task in tasks)
    losses.to(model.device)
    optimiser = torch.optim.AdamW(
        _groups([model, losses], settings.weight_decay), lr=plan.learning_rate
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
    state = load_state(resume, parts) if resume else {"step": 0, "rows": [], "since": []}
    written = History(history, state["rows"], settings.report_to)
    since: list[float] = state["since"]  # losses since the last entry
    health = Health(plan.learning_rate)
    stepper = Stepper(model, tasks, settings, plan)
    per_epoch = plan.steps / plan.epochs
    model.train()
    for step, batch in enumerate(
        islice(_endless(order), state["step"], plan.steps), state["step"] + 1
    ):
        loss = stepper.backward(batch)
        health.check(step, loss, batch[1])
        norm = torch.nn.utils.clip_grad_norm_(
            [weights for part in (model, losses) for weights in part.parameters()], MAX_GRADIENT
        )
        if not bool(torch.isfinite(norm)):
            raise IntegrityError(
                f"step {step}, rows {batch[1][:8]}: the gradient is {float(norm)}; nothing is "
                f"published. Lower training.learning_rate (now {plan.learning_rate:g})"
            )
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
            written.add({**where, **keep_best(model, epoch=where["epoch"], steps=step)})
            save_state(checkpoints, step, parts,
                       {"step": step, "rows": written.rows, "since": since})  # fmt: skip
            prune(checkpoints, keep=2)
            if patience_is_over(settings.patience, keep_best.folder, written.evaluated):
                break
    return written.rows


class Stepper:
    """Forward and backward of one batch, within the memory there is."""

    def __init__(
        self, model: Any, tasks: Sequence[Task], settings: TrainingSettings, plan: Plan
    ) -> None:
        self.packed = Packed(
            model, precision=plan.precision, attention_dropout=settings.attention_dropout
        )
        self.model, self.tasks = model, tasks
        self.budget = plan.tokens_at_once
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
            ResourceError: Memory ran out with one text at a time.
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

        while True:
            begin = random_state()
            try:
                return backward_in_portions(self.packed, sequences, loss_of, self.budget)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                longest = max(map(len, sequences))
                if self.budget <= longest:
                    raise ResourceError(
                        f"out of memory with one text of {longest} tokens at a time; lower "
                        "chunks.tokens or model.max_length and run the same command again"
                    ) from error
            # outside of the handler, so that what the failed try held is free
            for weights in chain(self.model.parameters(), task.loss.parameters()):
                weights.grad = None
            set_random_state(begin)
            self.budget = max(longest, min(self.budget, sum(map(len, sequences))) // 2)
            log.warning("memory is short: going on with %d tokens at a time", self.budget)


def backward_in_portions(
    packed: Any, sequences: Sequence[Sequence[int]], loss_of: Callable[[Any], Any], budget: int
) -> float:
    """The loss over the vectors of all ``sequences``, with at most ``budget`` tokens' activations
    held at a time (one sequence at least).

    Dropout draws the same in both passes, so portions change nothing but the order of sums.
    """
    import torch

    portions = list(_portions(sequences, budget))
    if len(portions) == 1:
        loss = loss_of(packed.forward(sequences, training=True))
        loss.backward()
        return float(loss.detach())
    states, vectors = [], []
    with torch.no_grad():
        for portion in portions:
            states.append(random_state())
            vectors.append(packed.forward(portion, training=True))
    leaf = torch.cat(vectors).requires_grad_()
    loss = loss_of(leaf)
    loss.backward()
    after = random_state()
    sizes = [len(portion) for portion in portions]
    for portion, state, gradient in zip(portions, states, leaf.grad.split(sizes), strict=True):
        set_random_state(state)
        packed.forward(portion, training=True).backward(gradient)
    set_random_state(after)
    return float(loss.detach())


def _portions(sequences: Sequence[Sequence[int]], budget: int) -> Iterator[list[Sequence[int]]]:
    portion: list[Sequence[int]] = []
    held = 0
    for sequence in sequences:
        if portion and held + len(sequence) > budget:
            yield portion
            portion, held = [], 0
        portion.append(sequence)
        held += len(sequence)
    yield portion


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is how torch says that memory ran out, on a processor or a GPU."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )


def random_state() -> tuple[Any, ...]:
    """Of torch, on the processor and on the GPUs."""
    import torch

    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), gpus


def set_random_state(state: tuple[Any, ...]) -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _endless(order: Order) -> Iterator[Batch]:
    return chain.from_iterable(map(order, count()))


def _groups(modules: Sequence[Any], decay: float) -> list[dict[str, Any]]:
    """Trainable weights for AdamW: biases and norms do not decay."""
    weights = [own for module in modules for own in module.parameters() if own.requires_grad]
    return [
        {"params": [own for own in weights if own.ndim > 1], "weight_decay": decay},
        {"params": [own for own in weights if own.ndim <= 1], "weight_decay": 0.0},
    ]
