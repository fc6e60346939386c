"""A finished run without the hours: its passages, a model, and a judgement."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.files import write_jsonl, write_text
from embedtune.records import Chunk, as_row
from embedtune.results import Flag, Verdict
from embedtune.retrieve.fusion import Fusion
from embedtune.run import Recipe, RunDirectory

RUN_TEXTS = [
    "the robot stops at night. who is the driver? the driver is the grower.",
    "the battery is charged. a flat battery is charged in the dock at night.",
    "the fee for a tow is the price of a crate.",
    "机器人夜班电池费用。机器人电池用电。",
]


@pytest.fixture
def make_run(tiny_model) -> Callable[..., Path]:
    """Writes a run directory with four passages and the tiny model.

    ``apart`` is a language that the verdict is not about; ``evidence`` the text of evidence.json.
    """
    from embedtune.pipeline.judge import Judgement
    from embedtune.pipeline.stored import save_judgement

    def make(folder: Path, verdict: str = "ship", apart: str = "", evidence: str = "") -> Path:
        flags = (Flag("unknown-tokens", "unread", blocks=True, language=apart),) if apart else ()
        codes = tuple(("flag-language", {"message": flag.message}) for flag in flags)
        judged = Judgement(
            Verdict(verdict, (), "tuned", "base", "bm25", {}, flags, codes=codes), (), "test", (),
            Fusion(weight=0.8), "dev", {},
        )  # fmt: skip
        chunks = [
            Chunk(f"c{number}", "d", 0, 9, "", text, ("Night",), source=f"{number}.md")
            for number, text in enumerate(RUN_TEXTS)
        ]

        def write_chunks(stage):
            write_jsonl(stage / "chunks.jsonl", map(as_row, chunks))
            return {}

        def write_model(stage):
            shutil.copytree(tiny_model, stage / "model")
            return {}

        def write_judgement(stage):
            save_judgement(stage, judged)
            if evidence:
                write_text(stage / "evidence.json", evidence)
            return {}

        with RunDirectory(folder) as run:
            run.stage("02-chunks", Recipe("chunk", 1), write_chunks)
            run.stage("08-training", Recipe("train", 1), write_model)
            run.stage("09-evaluation", Recipe("evaluate", 1), write_judgement)
        return folder

    return make
