"""Negatives for a data set: found with the base model, left beside their account."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.mining import mine_negatives
from embedtune.datasets.negatives import (
    Account,
    Check,
    Doubt,
    NegativeSettings,
    read_negatives,
    save_negatives,
)
from embedtune.embed import Embedder
from embedtune.errors import ConfigError
from embedtune.llm.recorded import RecordedChat
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import Dataset
from embedtune.pipeline.tune import Against

FILE = "negatives.jsonl"


def chosen(settings: NegativeSettings, dataset: Dataset) -> NegativeSettings:
    """The settings with ``auto`` decided: negatives that came with the data are used."""
    if settings.method != "auto":
        return settings
    method = "given" if dataset.negatives else "none"
    return settings.model_copy(update={"method": method})


def mine_into(
    dataset: Dataset,
    folder: Path,
    open_base: Callable[[], Embedder],
    chat: RecordedChat | None,
    settings: RunSettings,
    console: Console,
) -> Account:
    """Mine as ``settings.negatives`` says; ``negatives.jsonl`` in ``folder``.

    Raises:
        NothingUsable: There is nothing to mine from.
        ConfigError: A check by a language model without one.
    """
    own = chosen(settings.negatives, dataset)
    needs_vectors = own.method in ("hard", "farthest") and not (
        own.method == "hard" and own.retriever == "bm25"
    )
    mining = mine_negatives(
        dataset.data,
        own,
        near_duplicates=dataset.twins,
        groups=dataset.groups,
        left_out=dataset.left_out,
        left_out_pairs=dataset.left_out_pairs,
        embedder=open_base() if needs_vectors else None,
        given=dataset.negatives,
        check=_check(own, chat),
        scratch=folder,
        progress=console.progress("queries mined for"),
    )
    account = save_negatives(mining, folder / FILE)
    for line in account.lines():
        console.say(f"  {line}")
    return account


def load_against(folder: Path) -> Against:
    """What ``mine_into`` left."""
    saved = read_negatives(folder / FILE)
    return Against(saved.negatives, saved.answers)


def account_facts(account: Account) -> dict[str, Any]:
    """For a manifest."""
    return {
        "queries": account.queries,
        "negatives": account.negatives,
        "false_negative_rate": account.false_negative_rate,
        "notes": list(account.lines()),
    }


def _check(settings: NegativeSettings, chat: RecordedChat | None) -> Check | None:
    if settings.check == "none":
        return None
    if settings.check == "llm":
        if chat is None:
            raise ConfigError("negatives.check: llm needs a language model; set llm.model")
        return _llm_check(chat)
    from embedtune.datasets.cross_encoder import cross_encoder_check

    return cross_encoder_check(settings.check)


def _llm_check(chat: RecordedChat) -> Check:
    """The judge of queries, asked which of the candidates answer after all."""
    from embedtune.queries.judge import ask_opinions

    def check(doubts: Sequence[Doubt]) -> list[frozenset[int] | None]:
        opinions = ask_opinions(
            [doubt.query for doubt in doubts], [doubt.candidates for doubt in doubts], chat
        )
        return [
            None if opinion.code else frozenset(place for place, _ in opinion.answers)
            for opinion in opinions
        ]

    return check
