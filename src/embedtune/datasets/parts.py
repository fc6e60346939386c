"""Which files of a folder are train, dev and test.

Known by their names (``train.jsonl``, ``validation-00000-of-00002.parquet``, ``测试集.csv``), by
the card of a Hugging Face data set, by what ``datasets.save_to_disk`` leaves, or named by the user.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtune.datasets.tables import TYPES, type_of
from embedtune.errors import ConfigError
from embedtune.files import read_json, read_text, visible

WHOLE = "all"  # the part of data that came without splits
SPLITS = {
    name: split
    for split, names in {
        "train": "train training 训练 训练集",
        "dev": "dev validation valid val 验证 验证集 开发 开发集",
        "test": "test testing eval evaluation 测试 测试集",
    }.items()
    for name in names.split()
}
# what tools, ours among them, leave beside the data
BESIDES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json",
           "rejects.jsonl", "manifest.json", "embedtune.json")  # fmt: skip

Parts = dict[str, list[Path]]


def find_parts(
    where: Path, splits: Mapping[str, str], notes: list[str], *, config: str = "", name: str = ""
) -> Parts:
    """Split -> files. Data that names no splits is one part, ``all``.

    Args:
        where: A file, or a folder.
        splits: Split -> file or glob, as the user says, from ``where`` or from here.
        config: The configuration of a Hugging Face data set.
        name: What messages call ``where``.

    Raises:
        ConfigError: No data there, or it cannot be told which file is what.
    """
    if splits:
        return _named(where, splits)
    if where.is_file():
        return {WHOLE: [where]}
    if not where.is_dir():
        raise ConfigError(f"{where}: no such file or folder")
    name = name or str(where)
    parts = _saved(where) or _carded(where, config, name) or _guessed(where, notes, name)
    for split, files in parts.items():
        if len({type_of(file) for file in files}) > 1:
            raise ConfigError(
                f"{name}: {_listed(files)} are of several types, and all of them {split}; say "
                f"which to read, e.g. --splits {split}={visible(files[0].name)}"
            )
    order = {"train": 0, "dev": 1, "test": 2}
    return dict(sorted(parts.items(), key=lambda part: order.get(part[0], 3)))


def split_called(name: str) -> str:
    """``validation`` is dev; a name that is nobody's stands for itself."""
    return SPLITS.get(name.strip().casefold(), name.strip())


def _named(where: Path, splits: Mapping[str, str]) -> Parts:
    folder = where.parent if where.is_file() else where
    parts: Parts = {"train": [where]} if where.is_file() else {}
    faults = []
    for name, pattern in splits.items():
        relative = pattern and not Path(pattern).is_absolute()
        inside = sorted(folder.glob(pattern)) if relative else []
        files = [file for file in inside or [Path(pattern)] if file.is_file()]
        if not files:
            faults.append(f"--splits {visible(name)}={visible(pattern)}: no such file in {folder}")
        parts[split_called(name)] = files
    if faults:
        raise ConfigError(faults)
    return parts


def _saved(folder: Path) -> Parts:
    """What ``datasets.save_to_disk`` leaves: Arrow files, a folder a split."""
    names = _facts(folder / "dataset_dict.json").get("splits")
    if isinstance(names, list):
        return {split_called(name): _saved_files(folder / Path(name).name)
                for name in map(str, names)}  # fmt: skip
    return {WHOLE: files} if (files := _saved_files(folder)) else {}


def _saved_files(folder: Path) -> list[Path]:
    listed = _facts(folder / "state.json").get("_data_files")
    entries = listed if isinstance(listed, list) else []
    return [
        folder / Path(str(entry["filename"])).name
        for entry in entries
        if isinstance(entry, dict) and "filename" in entry
    ]


def _facts(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        found = read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _carded(folder: Path, wanted: str, name: str) -> Parts:
    """What the card of a Hugging Face data set says: README.md, ``configs`` in its front matter."""
    configs = card_configs(folder)
    if wanted and configs and wanted not in configs:
        raise ConfigError(f"{name}: no configuration {visible(wanted)}; there is "
                          f"{', '.join(map(visible, configs))}")  # fmt: skip
    if wanted and not configs:
        if not (folder / wanted).is_dir():
            raise ConfigError(f"{name}: no configuration {visible(wanted)}")
        return _guessed(folder / wanted, [], f"{name}:{wanted}")
    config = configs.get(wanted) or configs.get("default")
    if config is None and len(configs) > 1:
        raise ConfigError(
            f"{name}: several data sets in one: {', '.join(map(visible, configs))}; name one, "
            "as hf:OWNER/NAME:CONFIGURATION, or name its files with --splits"
        )
    config = config or next(iter(configs.values()), None)
    parts: Parts = {}
    for split, patterns in (config or {}).items():
        files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
        if not files:
            raise ConfigError(f"{name}: README.md names {visible(', '.join(patterns))} for "
                              f"{split}; no such file")  # fmt: skip
        parts[split] = files
    return parts


def card_configs(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Configuration -> split -> globs, from the card of a Hugging Face data set."""
    import yaml

    card = folder / "README.md"
    try:
        text = read_text(card) if card.is_file() else ""
        match = re.match(r"---\s*\n(.*?)\n---", text, re.S)
        facts = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    configs = facts.get("configs") if isinstance(facts, dict) else None
    found: dict[str, dict[str, list[str]]] = {}
    for entry in configs if isinstance(configs, list) else ():
        if isinstance(entry, dict) and (parts := _patterns(entry.get("data_files"))):
            found[str(entry.get("config_name", "default"))] = parts
            if entry.get("default") is True:
                found["default"] = parts
    return found


def _patterns(data_files: Any) -> dict[str, list[str]]:  # whatever the card holds
    parts: dict[str, list[str]] = defaultdict(list)
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split = WHOLE
        if isinstance(entry, dict):
            split, entry = split_called(str(entry.get("split", WHOLE))), entry.get("path")
        for pattern in entry if isinstance(entry, list) else [entry]:
            if isinstance(pattern, str) and pattern and not re.match(r"/|.*\.\.", pattern):
                parts[split].append(pattern)
    return dict(parts)


def _guessed(folder: Path, notes: list[str], name: str) -> Parts:
    """By the names of the files; in ``data/`` or a folder a split, where there are none here."""
    files = _data_files(folder)
    if not files and (folder / "data").is_dir():
        folder, files = folder / "data", _data_files(folder / "data")
    below = [] if files else sorted(path for path in folder.iterdir() if path.is_dir())
    folders: Parts = {
        SPLITS[path.name.casefold()]: _data_files(path)
        for path in below
        if path.name.casefold() in SPLITS and _data_files(path)
    }
    if folders:
        return folders
    if not files:
        hint = f"; there is {_listed(below)}: name one of them" if below else ""
        raise ConfigError(
            f"{name}: neither a BEIR folder nor files of data ({', '.join(TYPES)}) in it{hint}"
        )
    parts, others = _by_name(files)
    if not parts:
        if len(others) > 1:
            notes.append(f"{_listed(others)}: no name says which split it is; read as one")
        return {WHOLE: others}
    if others:
        notes.append(f"not read, since the name says no split: {_listed(others)}")
    return parts


def _data_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if type_of(path) and path.is_file() and path.name[0] != "." and path.name not in BESIDES
    )


def _by_name(files: Iterable[Path]) -> tuple[Parts, list[Path]]:
    """Split -> files, and the files whose names say nothing.

    ``train.jsonl`` is train, and so is ``my_train_v2.jsonl`` if there is no such file; beside
    it, ``train_v2`` is a part of its own.
    """
    exact, near, others = defaultdict(list), [], []
    for file in files:
        name = _stem(file).casefold()
        said = {SPLITS[word] for word in re.split(r"[-_.\s]+", name) if word in SPLITS}
        if name in SPLITS:
            exact[SPLITS[name]].append(file)
        elif len(said) == 1:
            near.append((said.pop(), file))
        else:
            others.append(file)
    parts: Parts = dict(exact)
    for split, file in near:
        parts.setdefault(_stem(file) if split in exact else split, []).append(file)
    return parts, others


def _stem(path: Path) -> str:
    """The name without suffixes and without the number of a shard."""
    name = path.name
    while Path(name).suffix.lower() in (*TYPES, ".gz"):
        name = Path(name).stem
    return re.sub(r"[-_.]\d+[-_.]of[-_.]\d+$", "", name)


def _listed(paths: Sequence[Path], most: int = 6) -> str:
    shown = ", ".join(visible(path.name, 40) for path in paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")
