"""The bundled corpus: fifty documents of a fictional company, and recorded answers about them.

Written for this project; see ``scripts/build_demo.py`` for how the files are made. The answers
are matched by the quote they rest on, so that they survive another chunking.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedtune.config import RunSettings

HERE = Path(__file__).parent


def demo_settings(out: Path, overrides: Sequence[str] = ()) -> "RunSettings":
    """The settings of ``embedtune demo``, with overrides on top."""
    from embedtune.config import load_config

    own = (
        f"run={out}",
        f"documents.paths=['{HERE / 'corpus'}']",
        "llm.provider=scripted",
        f"llm.answers={HERE / 'answers.jsonl'}",
        "split.train=0.6",  # 15 of 50 documents to test on: the verdict counts documents
        "split.dev=0.1",
        "split.test=0.3",
        # more epochs and evaluations would take longer than one likes to wait
        "training.epochs=3",
        "training.minutes=0",
        "training.evaluate_every=19",
    )
    return load_config(None, [*own, *overrides])
