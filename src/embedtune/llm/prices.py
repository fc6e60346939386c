"""What a model costs: the user's price, the user's table, then the one that comes along.

Prices change; every row of the table that comes along says when and where it was read. A model
that no row names has no price, and its cost is told as unknown rather than guessed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from embedtune.decode import Undecodable
from embedtune.endpoint import find_address, read_variable
from embedtune.errors import ConfigError
from embedtune.files import parse_json, read_table, read_text, visible
from embedtune.records import Reject
from embedtune.settings import Settings

if TYPE_CHECKING:
    from embedtune.llm.settings import LLMSettings

BUNDLED = Path(__file__).with_name("prices.csv")
FREE = ("local", "scripted")  # providers
SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")  # gpt-5-mini-2025-08-07 costs as gpt-5-mini


class PriceSettings(Settings):
    """Price of the model, in US dollars per million tokens."""

    input: float = Field(ge=0, description="US dollars per million input tokens")
    output: float = Field(ge=0, description="US dollars per million output tokens")
    batch: float = Field(0.5, ge=0, le=1, description="Share of that which a batch costs")


class _Row(PriceSettings):
    """A row of a price table. ``model`` and ``host`` may hold ``*``."""

    model: str = Field(min_length=1)
    host: str = "*"
    known: str = ""
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, and ``batch``, the share of it that a batch costs."""

    input: float
    output: float
    batch: float = 0.5
    origin: str = ""  # where it is from, in words; empty when the user gave it

    def cost(self, input_tokens: int, output_tokens: int, *, batch: bool = False) -> float:
        """US dollars."""
        full = (input_tokens * self.input + output_tokens * self.output) / 1_000_000
        return full * self.batch if batch else full


def price_of(settings: "LLMSettings") -> Price | None:
    """The price of the model that these settings name, or None where nobody knows it.

    Raises:
        ConfigError: ``llm.prices`` cannot be read, with all its faults.
    """
    rows = _user_rows(settings.prices) if settings.prices else ()
    if settings.provider in FREE:
        return Price(0, 0)
    if settings.price is not None:
        return Price(settings.price.input, settings.price.output, settings.price.batch)
    model = settings.model or read_variable("LLM_MODEL").value or ""
    address = find_address(settings.base_url, settings.api_key_env)[0]
    row = find_row((*rows, *_bundled()), model, urlsplit(address).hostname or "")
    if row is None:
        return None
    origin = f"{settings.prices}" if row in rows else f"as known on {row.known} from {row.source}"
    return Price(row.input, row.output, row.batch, f"{origin}; {row.note}" if row.note else origin)


def embedding_price(model: str, host: str) -> float | None:
    """US dollars per million tokens of an embedding model; None where the table does not know."""
    row = find_row(_bundled(), model, host)
    return row.input if row else None


def cost_of(settings: "LLMSettings", input_tokens: int, output_tokens: int) -> float | None:
    """US dollars that so many tokens cost with these settings; None where the price is unknown."""
    price = price_of(settings)
    if price is None:
        return None
    return price.cost(input_tokens, output_tokens, batch=settings.mode == "batch")


def find_row(rows: Sequence[_Row], model: str, host: str) -> _Row | None:
    """The first row for the model as named; else for its name without the date of a snapshot."""
    name = model.lower().removeprefix("models/")
    for written in dict.fromkeys((name, SNAPSHOT.sub("", name))):
        for row in rows:
            if fnmatchcase(written, row.model.lower()) and fnmatchcase(host, row.host.lower()):
                return row
    return None


@cache
def _bundled() -> tuple[_Row, ...]:
    return tuple(_checked(BUNDLED, _csv_rows(BUNDLED)))


def _user_rows(path: Path) -> tuple[_Row, ...]:
    """Rows of a CSV, or of a JSON or YAML file: a list of rows, or rows by model."""
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return tuple(_checked(path, _csv_rows(path)))
        return tuple(_checked(path, _listed(path, _parsed(path))))
    except (OSError, Undecodable) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"llm.prices: {path} cannot be read ({reason})") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rejects: list[Reject] = []
    for line, row in read_table(path, rejects, "prices"):
        yield f"line {line}", {name: cell for name, cell in row.items() if cell.strip()}
    if rejects:
        raise ConfigError(
            [f"llm.prices: {path}: line {reject.line}: {reject.message}" for reject in rejects]
        )


def _parsed(path: Path) -> Any:  # whatever the file holds
    import yaml

    try:
        text = read_text(path)
        return parse_json(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"llm.prices: {path}: {visible(error, 200)}") from error


def _listed(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, dict):
        content = [
            {"model": model, **prices} if isinstance(prices, dict) else prices
            for model, prices in content.items()
        ]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ConfigError(
            f"llm.prices: {path}: expected a list of rows, or rows by model, each with input and "
            "output in US dollars per million tokens"
        )
    yield from ((f"row {number}", row) for number, row in enumerate(content, 1))


def _checked(path: Path, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> list[_Row]:
    faults: list[str] = []
    checked = []
    for place, row in rows:
        try:
            checked.append(_Row.model_validate(row))
        except ValidationError as error:
            faults += [
                f"llm.prices: {path}: {place}: {'.'.join(map(str, fault['loc']))}: "
                f"{fault['msg'].lower()} (found {visible(fault.get('input'))})"
                for fault in error.errors(include_url=False)
            ]
    if faults:
        raise ConfigError(faults)
    return checked
