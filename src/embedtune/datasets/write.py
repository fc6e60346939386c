"""Rows of the four formats to files that sentence-transformers and ``datasets`` load as they are.

sentence-transformers goes by the order of the columns, not by their names: anchor, positive,
negative (or negative_1, negative_2 …); sentence1, sentence2, score; text, label.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from embedtune.datasets.formats import LabelledRow, PairRow, Row
from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import write_bytes, write_json, write_jsonl, write_text

FileType = Literal["jsonl", "json", "csv", "tsv", "parquet"]
SPLIT_NAMES = {"dev": "validation", "all": "train"}  # as Hugging Face calls them


def write_examples(rows: Sequence[Row], path: Path, classes: Sequence[str] = ()) -> None:
    """Rows of one format to the type of file that the name ends in; whole or not at all.

    Texts are written exactly as they are. Where rows have different numbers of negatives, each
    negative gets a row of its own, since a column may hold no gaps. Parquet keeps labels as
    numbers with their names beside them, as ``datasets`` does.

    Args:
        classes: Names by number, where several files must agree on them; else those of the rows.

    Raises:
        ConfigError: Another type of file.
        NothingUsable: No rows; or rows with and without negatives.
    """
    columns, cells = _columns(rows)
    kind = path.suffix.lower()
    if kind == ".jsonl":
        write_jsonl(path, (dict(zip(columns, row, strict=True)) for row in cells))
    elif kind == ".json":
        write_json(path, [dict(zip(columns, row, strict=True)) for row in cells])
    elif kind in (".csv", ".tsv"):
        text = io.StringIO(newline="")
        # line ends within a cell are kept by the quotes that \r\n here makes csv put around both
        writer = csv.writer(text, delimiter="," if kind == ".csv" else "\t", lineterminator="\r\n")
        writer.writerows([columns, *cells])
        write_text(path, text.getvalue())
    elif kind == ".parquet":
        labels = [row.label for row in rows if isinstance(row, LabelledRow)]
        write_bytes(path, _parquet(columns, cells, classes or sorted(set(labels))))
    else:
        raise ConfigError(f"{path}: expected .jsonl, .json, .csv, .tsv or .parquet")


def write_parts(
    parts: Mapping[str, Sequence[Row]], folder: Path, kind: FileType | Literal["hf"]
) -> list[Path]:
    """A file a split; ``hf`` makes a folder that ``datasets.load_dataset`` loads, with a card.

    Empty splits are left out.
    """
    written = {}
    everything = [row for rows in parts.values() for row in rows]
    classes = sorted({row.label for row in everything if isinstance(row, LabelledRow)})
    for split, rows in parts.items():
        if rows:
            name = re.sub(r"\W", "_", SPLIT_NAMES.get(split, split))
            path = f"data/{name}-00000-of-00001.parquet" if kind == "hf" else f"{split}.{kind}"
            write_examples(rows, folder / path, classes)
            written[name] = path
    if kind == "hf":
        files = "".join(
            f"  - split: {split}\n    path: {path}\n" for split, path in written.items()
        )
        write_text(
            folder / "README.md",
            f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n",
        )
    return [folder / path for path in written.values()]


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[tuple[Any, ...]]]:
    if not rows:
        raise NothingUsable("there are no rows to write")
    first = rows[0]
    if isinstance(first, LabelledRow):
        return ["text", "label"], [(row.text, row.label) for row in rows]
    if not isinstance(first, PairRow):
        return ["sentence1", "sentence2", "score"], [
            (row.sentence1, row.sentence2, row.score) for row in rows
        ]
    widths = {len(row.negatives) for row in rows}
    if widths == {0}:
        return ["anchor", "positive"], [(row.anchor, row.positive) for row in rows]
    if 0 in widths:
        lacking = sum(not row.negatives for row in rows)
        raise NothingUsable(
            f"{lacking} of {len(rows)} rows have no negative, the others have; write pairs, or "
            "mine negatives for them"
        )
    (width, *more) = sorted(widths)
    if more or width == 1:
        return ["anchor", "positive", "negative"], [
            (row.anchor, row.positive, text) for row in rows for text in row.negatives
        ]
    names = [f"negative_{number}" for number in range(1, width + 1)]
    return ["anchor", "positive", *names], [
        (row.anchor, row.positive, *row.negatives) for row in rows
    ]


def _parquet(columns: list[str], cells: list[tuple[Any, ...]], classes: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = dict(zip(columns, map(list, zip(*cells, strict=True)), strict=True))
    if classes:
        number = {name: place for place, name in enumerate(classes)}
        arrays["label"] = [number[name] for name in arrays["label"]]
    table = pa.table(arrays)
    if classes:
        features = {"text": {"dtype": "string", "_type": "Value"},
                    "label": {"names": list(classes), "_type": "ClassLabel"}}  # fmt: skip
        facts = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": facts})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
