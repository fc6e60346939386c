"""A data set from one of the field's formats to another, on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from embedtune.config import RunSettings
from embedtune.datasets.convert import ConvertSettings, Target
from embedtune.errors import ConfigError
from embedtune.files import visible
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import load_given
from embedtune.records import RetrievalSet, unusable

WHOLE = ("beir", "llama_index")  # targets that keep passages, queries and judgements apart
TYPES = ("jsonl", "csv", "tsv", "parquet", "json", "hf")


@dataclass(frozen=True, slots=True)
class Converted:
    """What ``embedtune convert`` tells; ``rows`` by split."""

    out: Path
    format: str
    rows: Mapping[str, int]
    notes: tuple[str, ...]
    unusable: bool


def convert_data(
    data: Path,
    to: str,
    out: Path,
    kind: str,
    base: str,
    settings: RunSettings,
    console: Console,
) -> Converted:
    """Read ``data`` in whatever format it is, and write it as ``to``.

    ``out`` with an extension is one file, for data with one split; else a folder with a file of
    type ``kind`` for each split (``hf``: a folder that ``datasets.load_dataset`` loads).
    Negatives that are missing are mined for the train split with ``base``.

    Raises:
        ConfigError: Conversions that mean nothing, or several splits for one file.
        NothingUsable: No row is left.
    """
    from embedtune.datasets.convert import convert
    from embedtune.datasets.source import read_source
    from embedtune.datasets.write import write_examples, write_parts

    if to not in (targets := (*get_args(Target), *WHOLE)):
        raise ConfigError(f"--to {visible(to)}: expected one of {', '.join(targets)}")
    if kind not in TYPES:
        raise ConfigError(f"--type {visible(kind)}: expected one of {', '.join(TYPES)}")
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: holds other files; choose an empty or new folder")
    source = read_source(data, settings.columns, split=settings.split, settings=settings.source)
    unfit = unusable(source.rejects)
    for note in source.notes:
        console.say(f"  {note}")
    if to in WHOLE:
        _write_whole(source.data, to, out)
        rows = {split: len(qrels) for split, qrels in source.data.qrels.items()}
        return Converted(out, source.format, rows, source.notes, unfit)
    completed, mined = None, None
    lacking = (source.format in ("pairs", "beir") and to in ("triplets", "scored", "binary")) or (
        source.format == "scored" and to == "triplets"
    )
    if lacking:
        completed, mined = _mined(data, base, out, settings, console)
    made = convert(
        source,
        to,  # type: ignore[arg-type]  (checked above)
        ConvertSettings(
            negatives=settings.negatives.count,
            threshold=settings.source.positive_score,
            seed=settings.split.seed,
        ),
        data=completed,
        mined=mined,
    )
    parts = {split: rows for split, rows in made.parts.items() if rows}
    if out.suffix:
        write_examples(parts[_the_split(parts, out)], out)
    else:
        write_parts(parts, out, kind)  # type: ignore[arg-type]  (checked above)
    return Converted(
        out,
        source.format,
        {split: len(rows) for split, rows in parts.items()},
        (*source.notes, *made.notes),
        unfit,
    )


def _write_whole(data: RetrievalSet, to: str, out: Path) -> None:
    from embedtune.datasets.beir import write_beir
    from embedtune.datasets.llama_index import write_llama

    if to == "beir":
        write_beir(data, out)
    elif out.suffix:
        write_llama(data, _the_split(data.qrels, out), out)
    else:
        for split in data.qrels:
            write_llama(data, split, out / f"{split}.json")


def _the_split(parts: Mapping[str, Any], out: Path) -> str:
    if len(parts) > 1:
        raise ConfigError(
            f"{out}: the data has the splits {', '.join(parts)}; name a folder for their files"
        )
    return next(iter(parts))


def _mined(
    data: Path, base: str, out: Path, settings: RunSettings, console: Console
) -> tuple[Any, Mapping[str, tuple[str, ...]]]:
    from embedtune.pipeline.models import mine_for

    given = load_given(data, settings.split, columns=settings.columns, settings=settings.source)
    _, against = mine_for(given, base, out, settings, console)
    return given.data, against.negatives
