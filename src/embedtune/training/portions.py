"""A batch's forward and backward pass within the memory there is.

Where a batch has more tokens than memory allows, it is encoded in portions and its gradients are
cached (GradCache, Gao et al. 2021, arXiv:2101.06983): the loss sees the whole batch all the same.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from embedtune.errors import ResourceError

log = logging.getLogger(__name__)

NO_MEMORY = (  # as torch's own allocator, C++, oneDNN and cuBLAS say it
    "can't allocate memory", "not enough memory", "out of memory", "bad_alloc",
    "could not create a primitive", "ALLOC_FAILED",
)  # fmt: skip

Sequences = Sequence[Sequence[int]]  # token ids of each text
Found = TypeVar("Found")


class ShortOfMemory(Exception):
    """Memory ran out, and there will be smaller portions: the step is to be done again."""


class Portions:
    """Encodes a batch and takes the gradient of its vectors, ``budget`` tokens at a time (one text
    at least). Dropout draws the same in both passes.

    Args:
        packed: The flat forward.
        share: Whether texts that recur in a portion share what dropout drops.
    """

    def __init__(self, packed: Any, budget: int, *, share: bool = True) -> None:
        self.packed, self.budget, self.share = packed, budget, share
        self._sequences: Sequences = ()
        self._whole: Any = None  # the vectors with their graph, where one portion holds them all
        self._states: list[tuple[Any, ...]] = []  # of random numbers, before each portion

    def forward(self, sequences: Sequences) -> Any:
        """Their vectors, without a graph."""
        import torch

        self._sequences, self._whole, self._states = sequences, None, []
        if not sequences:
            return torch.empty(0, 0)
        if len(list(self._parts())) == 1:
            self._whole = self._encoded(sequences)
            return self._whole.detach()
        vectors = []
        with torch.no_grad():
            for part in self._parts():
                self._states.append(random_state())
                vectors.append(self._encoded(part))
        return torch.cat(vectors)

    def backward(self, gradient: Any) -> None:
        """Add to the weights' gradients, given that of the vectors."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            whole.backward(gradient)
            return
        after, begin = random_state(), 0
        for part, state in zip(self._parts(), self._states, strict=True):
            set_random_state(state)
            end = begin + len(part)
            self._encoded(part).backward(gradient[begin:end])
            begin = end
        set_random_state(after)

    def smaller(self) -> None:
        """Take half as many tokens at a time from now on.

        Raises:
            ResourceError: It was one text at a time already.
        """
        self._whole = None
        longest = max(map(len, self._sequences))
        if self.budget <= longest:
            raise ResourceError(
                f"out of memory in a batch of {len(self._sequences)} texts with one of {longest} "
                "tokens at a time; lower training.batch_size, chunks.tokens or model.max_length "
                "and run the same command again"
            )
        self.budget = max(longest, min(self.budget, sum(map(len, self._sequences))) // 2)
        log.warning("memory is short: going on with %d tokens at a time", self.budget)

    def _encoded(self, sequences: Sequences) -> Any:
        return self.packed.forward(sequences, training=True, share=self.share)

    def _parts(self) -> Iterator[Sequences]:
        part: list[Sequence[int]] = []
        held = 0
        for sequence in self._sequences:
            if part and held + len(sequence) > self.budget:
                yield part
                part, held = [], 0
            part.append(sequence)
            held += len(sequence)
        if part:
            yield part


def attempt(work: Callable[[], Found], portions: Portions, worst: Callable[[int], int]) -> Found:
    """What ``work`` gives, unless memory runs out here or in another process.

    Args:
        worst: Over all processes: 0, 1 where memory is short, 2 where nothing can be done.

    Raises:
        ShortOfMemory: Do the step again; the portions are smaller where they have to be.
        ResourceError: They cannot be.
    """
    import torch

    state = 0
    try:
        found = work()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        state = 1
    hopeless = None
    if state:  # outside of the handler, so that what the failed try held is free
        try:
            portions.smaller()
        except ResourceError as error:
            state, hopeless = 2, error
    found_worst = worst(state)
    if hopeless or found_worst == 2:
        raise hopeless or ResourceError(
            "another process of this training ran out of memory with one text at a time; lower "
            "training.batch_size or chunks.tokens and run the same command again"
        )
    if found_worst:
        raise ShortOfMemory
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is how torch says that memory ran out, on a processor or a GPU."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        said in str(error) for said in NO_MEMORY
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
