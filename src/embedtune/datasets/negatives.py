"""Negatives to train with: settings, what was mined for each query, and the account of it.

What a negative may never be, and how they are found: see ``mining``.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeInt, model_validator

from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import disk_errors, read_jsonl
from embedtune.records import Chunk, Pair, Query, Reject
from embedtune.settings import PositiveInt, Settings


class NegativeSettings(Settings):
    """Which negatives training gets beside the other passages of its batch."""

    method: Literal["auto", "none", "hard", "farthest", "random", "given"] = Field(
        "auto",
        description="auto: given where the data has some, else none; hard: best ranked passages "
        "that are no answers; farthest: least like the answer, none used twice; random; given: "
        "those that came with the data.",
    )
    retriever: Literal["dense", "bm25", "both"] = Field(
        "dense", description="What ranks the candidates of hard negatives."
    )
    count: PositiveInt = Field(4, description="Negatives a query.")
    depth: PositiveInt = Field(100, description="Best ranked passages that are candidates.")
    skip: NonNegativeInt = Field(0, description="Candidates passed over, from the top.")
    ceiling: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.95,
        description="Highest score of a hard negative, as a share of that of the passage which "
        "answers the query (arXiv:2407.15831); null: none.",
    )
    check: str = Field(
        "none",
        description="Who is asked whether a hard or given negative answers the query after all: "
        "none, llm, or the name or folder of a cross-encoder.",
    )
    seed: NonNegativeInt = Field(42, description="Of random negatives.")

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.method == "hard" and self.depth < self.skip + self.count:
            raise ValueError(
                f"depth {self.depth} leaves fewer than {self.count} candidates after the "
                f"{self.skip} that are skipped"
            )
        return self


class Negative(NamedTuple):
    """A chunk by id; without a score where nothing was scored."""

    chunk: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Mined:
    """One query's negatives, hardest first, and what became of its candidates.

    ``candidates`` are the best ``depth`` that may be negatives and the relevant ones among them =
    negatives + relevant + alike + unfit + skipped + refused + above (except given ones, which are
    kept) + those that were not needed any more.
    """

    query: str
    negatives: tuple[Negative, ...] = ()
    candidates: int = 0
    relevant: int = 0  # judged so, near-duplicates of such, overlapping the evidence, …
    alike: int = 0  # near-duplicates of a relevant passage that nobody had listed
    unfit: int = 0  # given ones that belong to dev or test, are repeated, or have no text
    skipped: int = 0
    above: int = 0  # the ceiling
    refused: int = 0  # called answers by the check
    answers: tuple[str, ...] = ()  # the chunks of those texts: no negatives in a batch either
    checked: int = 0  # candidates shown to the check
    unchecked: bool = False  # the check had no opinion, so nothing was taken
    hardest: int = 0  # candidates looked at for the estimate …
    suspects: int = 0  # … and those scored at least as high as a relevant passage


@dataclass(frozen=True, slots=True)
class Doubt:
    """A query, passages that answer it, and candidates that should not."""

    query: Query
    relevant: tuple[Chunk, ...]
    candidates: tuple[Chunk, ...]


# For each doubt the places of the candidates that do answer; None where that cannot be said.
Check = Callable[[Sequence[Doubt]], Sequence[frozenset[int] | None]]


@dataclass(frozen=True, slots=True)
class Mining:
    """Negatives in the making: each query is mined when ``mined`` comes to it, once."""

    settings: NegativeSettings
    queries: int
    passages: int  # that may be negatives, each text once
    copies: int  # passages left out since their text is there already
    reserved: int  # passages left out since they belong to dev or test
    mined: Iterator[Mined]


@dataclass(frozen=True, slots=True)
class Account:
    """What mining came to, over all queries; the sums of ``Mined`` among it.

    ``false_negative_rate`` estimates how many negatives would be answers that nobody judged, if
    hardness alone decided. Of each query's ``count`` first candidates (after ``skip``, without
    those known to be no negatives, before ceiling and check) it is the share scored at least as
    high as the query's lowest-scored relevant passage. The retriever's own mistakes are counted
    too, so a weak retriever makes it high whatever the data; answers scored below the known one
    are not. So it is no bound: compare data sets with one retriever, and look at the passages.
    The ceiling removes all that it counts. What is left only a check can tell: ``refused_rate`` is
    the share of the candidates shown to it, all below the ceiling, that it called answers. Both
    are None where nothing was scored, or checked.
    """

    settings: NegativeSettings
    queries: int
    passages: int
    copies: int
    reserved: int
    negatives: int = 0
    candidates: int = 0
    relevant: int = 0
    alike: int = 0
    unfit: int = 0
    skipped: int = 0
    above: int = 0
    refused: int = 0  # called answers by the check
    checked: int = 0  # shown to it, where it had an opinion
    unchecked: int = 0  # queries
    too_few: int = 0  # queries with fewer than asked (given: with none)
    empty: int = 0  # queries with none
    hardest: int = 0
    suspects: int = 0

    @property
    def false_negative_rate(self) -> float | None:
        return self.suspects / self.hardest if self.hardest else None

    @property
    def refused_rate(self) -> float | None:
        return self.refused / self.checked if self.checked else None

    def lines(self) -> tuple[str, ...]:
        """For people; the estimate last."""
        settings = self.settings
        how = settings.method + (f", {settings.retriever}" if settings.method == "hard" else "")
        told = [
            f"{self.negatives:,} negatives ({how}) for {self.queries:,} queries from "
            f"{self.passages:,} passages; {self.reserved:,} of dev and test and {self.copies:,} "
            "repeated ones are left out"
        ]
        if self.too_few > self.empty:
            told.append(
                f"{self.too_few:,} queries have fewer than {settings.count} negatives, "
                f"{self.empty:,} of them none; they are not filled up"
            )
        elif self.empty:
            told.append(f"{self.empty:,} queries have no negatives; they are not filled up")
        kept = " (kept: they were given)" if settings.method == "given" else ""
        fates = (
            (self.relevant, "are relevant"),
            (self.alike, "nearly repeat a relevant passage"),
            (self.unfit, "belong to dev or test, or are repeated"),
            (self.skipped, "are skipped"),
            (self.above, f"score above {settings.ceiling} of a relevant passage{kept}"),
            (self.refused, "answer the query, says the check"),
        )
        if dropped := [f"{number:,} {what}" for number, what in fates if number]:
            told.append(f"of {self.candidates:,} candidates {', '.join(dropped)}")
        if self.unchecked:
            told.append(f"{self.unchecked:,} queries got no opinion of the check and no negatives")
        if self.refused_rate is not None:
            told.append(
                f"false negatives below the ceiling, by the check: {self.refused_rate:.1%}; these "
                "are dropped"
            )
        if self.false_negative_rate is not None:
            told.append(
                f"false negatives, estimated: {self.false_negative_rate:.1%} of the hardest "
                f"candidates ({self.suspects:,} of {self.hardest:,}) score at least as high as a "
                "passage that answers the query; mistakes of the retriever are among them"
                + ("; the ceiling drops them all" if settings.ceiling else "")
            )
        return tuple(told)


def save_negatives(mining: Mining, path: Path) -> Account:
    """Write a row a query as it is mined (query, negatives with scores, answers); whole or not
    at all.

    Raises:
        NothingUsable: Not one negative was found; nothing is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path):
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                account = tally(mining, _written(mining.mined, file))
                file.flush()
                os.fsync(file.fileno())
            if not account.negatives and mining.settings.method != "none":
                raise NothingUsable(f"no negatives: {'; '.join(account.lines())}")
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    return account


def _written(mined: Iterable[Mined], file: Any) -> Iterator[Mined]:
    for one in mined:
        row: dict[str, Any] = {
            "query": one.query,
            "negatives": [negative._asdict() for negative in one.negatives],
        }
        if one.answers:
            row["answers"] = list(one.answers)
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        yield one


def tally(mining: Mining, mined: Iterable[Mined]) -> Account:
    """The account of ``mined``, which is read to its end."""
    sums: Counter[str] = Counter()
    wanted = 1 if mining.settings.method == "given" else mining.settings.count
    for one in mined:
        sums.update({name: getattr(one, name) for name in SUMMED})
        sums["negatives"] += len(one.negatives)
        sums["too_few"] += len(one.negatives) < wanted
        sums["empty"] += not one.negatives
    return Account(
        mining.settings, mining.queries, mining.passages, mining.copies, mining.reserved, **sums
    )


SUMMED = ("candidates", "relevant", "alike", "unfit", "skipped", "above", "refused", "checked",
          "unchecked", "hardest", "suspects")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SavedNegatives:
    """Chunk ids by query: negatives, hardest first, and what the check called answers."""

    negatives: Mapping[str, tuple[str, ...]]
    answers: Mapping[str, tuple[str, ...]]


def read_negatives(path: Path) -> SavedNegatives:
    """What ``save_negatives`` left.

    Raises:
        IntegrityError: The file is damaged.
    """
    rejects: list[Reject] = []
    negatives, answers = {}, {}
    for line, row in read_jsonl(path, rejects, "negatives"):
        try:
            negatives[row["query"]] = tuple(negative["chunk"] for negative in row["negatives"])
            answers[row["query"]] = tuple(row.get("answers", ()))
        except (KeyError, TypeError) as error:
            raise IntegrityError(f"{path}:{line}: expected query and negatives: {error}") from error
    if rejects:
        raise IntegrityError(f"{path}:{rejects[0].line}: {rejects[0].message}")
    return SavedNegatives(negatives, answers)


def attach_negatives(
    pairs: Sequence[Pair], negatives: Mapping[str, Sequence[str]], chunks: Iterable[Chunk]
) -> list[Pair]:
    """The pairs with the negatives of their query, texts as they are embedded."""
    used = {id for pair in pairs for id in negatives.get(pair.query, ())}
    texts = {chunk.id: chunk.embedded for chunk in chunks if chunk.id in used}
    return [
        replace(pair, negatives=tuple((id, texts[id]) for id in negatives.get(pair.query, ())))
        for pair in pairs
    ]
