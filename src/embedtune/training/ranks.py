"""Several processes on one training (``torchrun``): the first leads, the others encode for it.

The first process alone runs the command: it reads, searches, scores, chooses and writes, as if
there were no others. Each of these has the model. Of every batch they encode their share and give
the vectors; the first computes the loss of the whole batch, as one process would, and gives back
the gradient; the gradients of the weights are summed up, it takes the step, and the weights go
out with the next batch. Thus all train on one batch, with the same loss, and there is one
optimiser, one checkpoint and one verdict.

torch's default process group stays closed, so that no library takes the first process for a
part of something; the groups here are its own.
"""

import io
import os
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from embedtune.errors import ResourceError
from embedtune.training.portions import Portions, Sequences, ShortOfMemory, attempt

PATIENCE = timedelta(days=7)  # the others wait while the first mines, searches and evaluates


def rank() -> int:
    """The number of this process among those that were started together."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """How many processes were started together, by torchrun or the like."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


@dataclass(frozen=True, slots=True)
class Begin:
    """A training begins."""

    model: bytes
    device: str  # cpu or cuda; which one is each process's own
    precision: str
    attention_dropout: bool
    budget: int
    seed: int
    share: bool  # see ``Portions``


@dataclass(frozen=True, slots=True)
class Step:
    """A batch, divided."""

    number: int
    shares: Sequence[Sequences]


class Group:
    """The processes, joined. Alone, each of its methods does nothing."""

    def __init__(self, rank: int = 0, size: int = 1, gloo: Any = None) -> None:
        self.rank, self.size, self._gloo = rank, size, gloo

    def say(self, message: Any) -> None:
        """Give the others a message of the first's."""
        if self.size > 1:
            text = pickle.dumps(message)
            self._give(_tensor([len(text)]))
            self._give(_bytes(text))

    def hear(self) -> Any:
        """The message that the first gives."""
        import torch

        count = _tensor([0])
        self._give(count)
        text = torch.empty(int(count), dtype=torch.uint8)
        self._give(text)
        return pickle.loads(text.numpy().tobytes())

    def worst(self, state: int) -> int:
        if self.size == 1:
            return state
        import torch.distributed as distributed

        found = _tensor([state])
        _wait(lambda: self._gloo.allreduce([found], distributed.ReduceOp.MAX))
        return int(found)

    def gather(self, vectors: Any, counts: Sequence[int]) -> Any:
        """The vectors of all processes, one after the other."""
        if self.size == 1:
            return vectors
        import torch

        width = _tensor([vectors.shape[1]])
        self._give(width)
        found = []
        for other, count in enumerate(counts):
            if other == self.rank:
                own = vectors.float().cpu().contiguous()
            else:
                own = torch.empty(count, int(width))
            if count:
                self._give(own, other)
            found.append(own)
        return torch.cat(found).to(vectors.device)

    def share(self, vectors: Any, counts: Sequence[int]) -> Any:
        """This process's part of the gradient that the first has of all ``vectors``."""
        if self.size == 1:
            return vectors.grad
        import torch

        held = torch.empty_like(vectors) if self.rank else vectors.grad
        whole = held.detach().cpu().contiguous()
        self._give(whole)
        return whole.split(list(counts))[self.rank].to(vectors.device)

    def sum_gradients(self, weights: Sequence[Any]) -> None:
        """Add all processes' gradients up. Whether a weight has one, the first decides."""
        import torch

        if self.size == 1:
            return
        trained = _tensor([own.grad is not None for own in weights])
        self._give(trained)
        held = [own for own, one in zip(weights, trained.tolist(), strict=True) if one]
        flat = torch.cat([
            (torch.zeros_like(own) if own.grad is None else own.grad).flatten().cpu()
            for own in held
        ])  # fmt: skip
        _wait(lambda: self._gloo.allreduce([flat]))
        for own, total in zip(held, flat.split([own.numel() for own in held]), strict=True):
            own.grad = total.view_as(own).to(own.device)

    def same_weights(self, weights: Sequence[Any]) -> None:
        """The first's, in all processes."""
        import torch

        if self.size == 1:
            return
        flat = torch.cat([own.detach().flatten().cpu() for own in weights])
        self._give(flat)
        if self.rank:
            with torch.no_grad():
                for own, held in zip(
                    weights, flat.split([own.numel() for own in weights]), strict=True
                ):
                    own.copy_(held.view_as(own))

    def _give(self, tensor: Any, root: int = 0) -> None:
        _wait(lambda: self._gloo.broadcast(tensor, root))


_here = Group()


def group() -> Group:
    """The processes that this one leads; itself alone, outside of ``lead``."""
    return _here


@contextmanager
def lead() -> Iterator[None]:
    """Trainings within are shared with the other processes, which must be in ``help_out``."""
    global _here
    if world() == 1:
        yield
        return
    _here = _join()
    try:
        yield
        _here.say(None)
    finally:  # after an error they find the connection closed
        _here = Group()


def help_out() -> None:
    """Encode for the first process until it has ended.

    Raises:
        ResourceError: It has ended before its work was done.
    """
    joined = _join()
    message = joined.hear()
    while message is not None:
        message = _encode_for(joined, message)


def _encode_for(joined: Group, begin: Begin) -> Any:
    """Do the steps of a training; gives the message that is no step of it."""
    import torch

    from embedtune.embed.packed import Packed

    # the first process of this very command made it
    model = torch.load(
        io.BytesIO(begin.model), map_location=_own_device(begin.device), weights_only=False
    )
    model.train()
    portions = Portions(
        Packed(model, precision=begin.precision, attention_dropout=begin.attention_dropout),
        begin.budget,
        share=begin.share,
    )
    weights = trained_weights(model)
    while isinstance(message := joined.hear(), Step):
        torch.manual_seed(_seed(begin.seed, message.number, joined.rank))
        for own in weights:
            own.grad = None
        joined.same_weights(weights)
        try:
            do_share(joined, portions, message.shares, weights)
        except ShortOfMemory:
            continue
    return message


def do_share(
    joined: Group, portions: Portions, shares: Sequence[Sequences], weights: Sequence[Any],
    loss_of: Any = None,
) -> float:  # fmt: skip
    """One step of this process: forward, the loss where it is the first, backward; the gradients
    of all are in ``weights`` afterwards.

    Args:
        loss_of: All vectors -> the loss; None: the first computes it.

    Raises:
        ShortOfMemory, ResourceError: See ``attempt``.
    """
    own, counts = shares[joined.rank], [len(part) for part in shares]
    vectors = attempt(lambda: portions.forward(own), portions, joined.worst)
    whole = joined.gather(vectors, counts)
    loss = attempt(lambda: _loss_and_gradient(whole, loss_of), portions, joined.worst)
    gradient = joined.share(whole, counts)
    attempt(lambda: portions.backward(gradient), portions, joined.worst)
    joined.sum_gradients(weights)
    return loss


def _loss_and_gradient(vectors: Any, loss_of: Any) -> float:
    if loss_of is None:
        return 0.0
    loss = loss_of(vectors.requires_grad_())
    loss.backward()
    return float(loss.detach())


def begin_with(
    joined: Group, model: Any, portions: Portions, precision: str, dropout: bool, seed: int
) -> None:
    """Give the others the model."""
    import torch

    if joined.size > 1:
        file = io.BytesIO()
        torch.save(model, file)
        joined.say(
            Begin(
                file.getvalue(),
                model.device.type,
                precision,
                dropout,
                portions.budget,
                seed,
                portions.share,
            )
        )


def divide(sequences: Sequences, parts: int) -> list[Sequences]:
    """As many parts, in order, of about as many tokens each."""
    total = sum(map(len, sequences))
    found: list[list[Sequence[int]]] = [[] for _ in range(parts)]
    held = 0
    for sequence in sequences:
        found[min(parts - 1, held * parts // max(1, total))].append(sequence)
        held += len(sequence)
    return found


def trained_weights(model: Any) -> list[Any]:
    return [own for own in model.parameters() if own.requires_grad]


def _join() -> Group:
    from torch.distributed import PrefixStore, ProcessGroupGloo
    from torch.distributed.rendezvous import rendezvous

    store, own, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
    store.set_timeout(PATIENCE)
    gloo = ProcessGroupGloo(PrefixStore("embedtune", store), own, size, timeout=PATIENCE)
    return Group(own, size, gloo)


def _wait(begin: Callable[[], Any]) -> None:
    try:
        begin().wait()
    except RuntimeError as error:
        raise ResourceError(
            "another process of this training has ended, its own message says why; run the "
            "same command again to go on"
        ) from error


def _own_device(kind: str) -> str:
    import torch

    place = int(os.environ.get("LOCAL_RANK", "0"))
    return f"cuda:{place % torch.cuda.device_count()}" if kind == "cuda" else kind


def _seed(seed: int, step: int, rank: int) -> int:
    return random.Random(f"{seed}-{step}-{rank}").getrandbits(63)


def _tensor(numbers: Sequence[int]) -> Any:
    import torch

    return torch.tensor(numbers, dtype=torch.int64)


def _bytes(text: bytes) -> Any:
    import torch

    return torch.frombuffer(bytearray(text), dtype=torch.uint8)
