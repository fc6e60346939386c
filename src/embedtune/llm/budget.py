"""What the answers have cost, what requests on their way may still cost, and the limits.

A request is sent only if the limits hold even should it, and everything on its way, cost as much
as it possibly can: its bytes as input tokens, its ``max_tokens`` as output. So a limit is never
passed, as long as the service tells the tokens it took.
"""

import json
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field

from embedtune.llm import ChatRequest, asked
from embedtune.llm.prices import Price
from embedtune.settings import PositiveInt, Settings
from embedtune.store import StoredAnswer

OVERHEAD = 64  # tokens that a chat template adds, at most


class BudgetSettings(Settings):
    """What one data set may cost. Answers taken from the store count, so that the same command
    stops at the same place until the limit is raised."""

    usd: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Most money to spend, in US dollars; needs a price (llm.price)"
    )
    tokens: PositiveInt | None = Field(None, description="Most tokens, input and output together")
    requests: PositiveInt | None = Field(None, description="Most answers to ask for")


class Cost(NamedTuple):
    """Of one request or of many."""

    requests: int
    tokens: int
    usd: float


@dataclass(slots=True)
class Tally:
    """Sums over answers. ``untold`` of them did not say how many tokens they took."""

    answers: int = 0
    input: int = 0
    output: int = 0
    usd: float = 0.0
    untold: int = 0

    def add(self, stored: StoredAnswer, price: Price | None) -> None:
        input_tokens, output_tokens = stored.input_tokens or 0, stored.output_tokens or 0
        self.answers += 1
        self.input += input_tokens
        self.output += output_tokens
        self.untold += stored.input_tokens is None or stored.output_tokens is None
        if price is not None:
            self.usd += price.cost(input_tokens, output_tokens, batch=bool(stored.batch))


class Budget:
    """Limits over the answers that a data set rests on."""

    def __init__(self, limits: BudgetSettings, price: Price | None) -> None:
        self.price = price
        self.spent = Tally()  # all answers the data set rests on
        self.bought = Tally()  # those that were not in the store
        self._limits = limits
        self._reserved = Cost(0, 0, 0.0)

    def most(self, request: ChatRequest, *, batch: bool = False) -> Cost:
        """What a request may cost; no tokenizer makes more tokens than there are bytes."""
        schema = json.dumps(request.schema) if request.schema is not None else ""
        text = f"{request.system}{asked(request)}{schema}"
        sent = len(text.encode("utf-8", "replace")) + OVERHEAD
        usd = self.price.cost(sent, request.max_tokens, batch=batch) if self.price else 0.0
        return Cost(1, sent + request.max_tokens, usd)

    def reserve(self, cost: Cost) -> str:
        """Set ``cost`` aside; or the name of the limit that it might pass, nothing set aside."""
        for name, spent, reserved, wanted in zip(
            Cost._fields, self._spent(), self._reserved, cost, strict=True
        ):
            limit = getattr(self._limits, name)
            if limit is not None and spent + reserved + wanted > limit:
                return name
        self._reserved = Cost(*(a + b for a, b in zip(self._reserved, cost, strict=True)))
        return ""

    def release(self, cost: Cost) -> None:
        """Undo `reserve`: the answer is counted, or none came."""
        self._reserved = Cost(*(a - b for a, b in zip(self._reserved, cost, strict=True)))

    def used_up(self, name: str, wanted: Cost) -> str:
        """The message that says so."""
        spent, limit = getattr(self._spent(), name), getattr(self._limits, name)
        shown = "{:.4f}" if name == "usd" else "{:,}"
        more = f", and the next request may take {shown.format(getattr(wanted, name))}"
        return (
            f"budget used up: {shown.format(spent)} of {limit:,} {name}"
            f"{'' if name == 'requests' else more}; answers so far are stored, raise "
            f"llm.budget.{name} and run the same command again"
        )

    def _spent(self) -> Cost:
        spent = self.spent
        return Cost(spent.answers, spent.input + spent.output, spent.usd)
