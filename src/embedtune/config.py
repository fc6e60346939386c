"""One settings object for a whole run, composed from YAML, ``--set`` and defaults.

Plain YAML values stay the text they are until a setting's type is known, so that ``no``,
``1.10`` and ``12:30`` never turn into something else. All faults are reported together, each
with file, line and field.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from embedtune.datasets.negatives import NegativeSettings
from embedtune.datasets.source import SourceSettings
from embedtune.datasets.split import SplitSettings
from embedtune.decode import Undecodable, decode
from embedtune.documents import DocumentSettings
from embedtune.documents.chunk import ChunkSettings
from embedtune.documents.cleaning import CleaningSettings
from embedtune.embed.remote import EmbeddingSettings
from embedtune.errors import ConfigError
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.files import visible
from embedtune.llm.recorded import LLMSettings
from embedtune.pipeline.evidence import EvidenceSettings
from embedtune.queries.filter import FilterSettings
from embedtune.queries.generate import QuerySettings
from embedtune.report.texts import ReportSettings
from embedtune.settings import Settings
from embedtune.training.options import ModelSettings
from embedtune.training.plan import TrainingSettings

MAX_NODES = 20_000  # of a configuration, aliases expanded
REFUSED = object()  # in place of a value that is a fault already
SECRET_KEY = re.compile(r"(^|_)(api_?key|key|token|password|secret)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(sk|pk|gsk|hf|xai|AIza)[-_A-Za-z0-9]{16,}")


class RunSettings(Settings):
    """Everything ``embedtune run`` reads. Each part is the settings class of one stage."""

    run: Path = Field(Path("runs/run"), description="The run directory.")
    data: Path | None = Field(
        None,
        description="Data with queries and answers, instead of documents: a BEIR folder, a file "
        "or folder of pairs, triplets, scored pairs or labelled texts, or hf:OWNER/NAME.",
    )
    columns: dict[str, str] = Field(
        {}, description="Role and column of the data, where names do not tell (anchor: query)."
    )
    source: SourceSettings = Field(SourceSettings(), description="How that data is read.")
    documents: DocumentSettings = Field(DocumentSettings(), description="What is read.")
    cleaning: CleaningSettings = Field(
        CleaningSettings(), description="Which parts of the documents are kept."
    )
    chunks: ChunkSettings = Field(ChunkSettings(), description="How documents are cut.")
    llm: LLMSettings = Field(LLMSettings(), description="The language model that writes queries.")
    queries: QuerySettings = Field(QuerySettings(), description="Where queries come from.")
    filters: FilterSettings = Field(FilterSettings(), description="Which queries are left out.")
    split: SplitSettings = Field(SplitSettings(), description="Train, dev and test.")
    model: ModelSettings = Field(ModelSettings(), description="What is fine-tuned.")
    negatives: NegativeSettings = Field(
        NegativeSettings(), description="Passages that training holds against each query."
    )
    training: TrainingSettings = Field(TrainingSettings(), description="How it is fine-tuned.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="How it is judged.")
    report: ReportSettings = Field(ReportSettings(), description="How the report is written.")
    embedding: EmbeddingSettings = Field(
        EmbeddingSettings(), description="What embedding services may cost."
    )
    evidence: EvidenceSettings = Field(
        EvidenceSettings(), description="What is measured beside the verdict."
    )

    @field_validator("run")
    @classmethod
    def _usable_name(cls, path: Path) -> Path:
        from embedtune.run import check_run_id

        try:
            check_run_id(path.name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return path


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of a YAML file (or none) with ``a.b=c`` overrides on top.

    Relative paths of the file are taken from its folder, those of overrides from here.

    Raises:
        ConfigError: All faults found, each with its place.
    """
    tree: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    faults: list[str] = []
    if path is not None:
        tree = _read_yaml(path, places, faults)
        tree = _anchored(RunSettings, tree, path.resolve().parent)
    for override in overrides:
        _apply(override, tree, places, faults)
    settings = _validated(tree, places, faults, where=str(path) if path else "--set")
    if faults or settings is None:
        raise ConfigError(faults)
    return settings


def dump_config(settings: RunSettings) -> str:
    """The settings as YAML with every default written out."""
    return yaml.safe_dump(
        settings.model_dump(mode="json", by_alias=True), allow_unicode=True, sort_keys=False
    )


def example_config() -> str:
    """A configuration with every setting at its default, explained, made from the classes."""
    lines = [
        "# Configuration of embedtune. Everything has a default except documents.paths.",
        "# Keys are read from environment variables or a .env file, never from here.",
    ]
    for name, info in RunSettings.model_fields.items():
        part = info.annotation
        if not (isinstance(part, type) and issubclass(part, Settings)):
            lines += ["", f"# {info.description}", f"# {name}: {_scalar(info.default)}"]
            continue
        lines += ["", f"{name}:  # {info.description}"]
        for key, inner in part.model_fields.items():
            value = inner.get_default(call_default_factory=True)
            if isinstance(value, Settings):
                value = {k: v for k, v in value.model_dump(mode="json").items() if v is not None}
            setting = f"{inner.alias or key}: {_scalar(value)}"
            live = (name, key) == ("documents", "paths")
            lines.append(f"  {setting if not live else 'paths: [docs/]'}  # {inner.description}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    if value is None:
        return "null"
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def load_environment(folder: Path) -> None:
    """Set what a ``.env`` file in ``folder`` names, unless the environment has it already."""
    path = folder / ".env"
    if not path.is_file():
        return
    for line in decode(path.read_bytes()).text.splitlines():
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$", line)
        if match:
            name, value = match.groups()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            else:
                value = re.sub(r"\s+#.*$", "", value)
            os.environ.setdefault(name, value)


# ---- YAML with places


def _read_yaml(path: Path, places: dict[tuple[str, ...], str], faults: list[str]) -> dict[str, Any]:
    try:
        text = decode(path.read_bytes()).text
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except Undecodable as error:
        raise ConfigError(f"{path}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        indentation = line[: len(line) - len(line.lstrip())]
        if "\t" in indentation and line.strip():
            column = indentation.index("\t") + 1
            raise ConfigError(
                f"{path}:{number}: column {column}: tabs are not allowed as indentation; use blanks"
            )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}: column {mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {visible(error)}") from error
    if root is None:
        raise ConfigError(f"{path}: the configuration is empty; see `embedtune init`")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{path}:{root.start_mark.line + 1}: the configuration must be a mapping of settings, "
            f"found a {'list' if isinstance(root, yaml.SequenceNode) else 'single value'}"
        )
    converter = _Converter(path, places, faults)
    value = converter.convert(root, ())
    return value if isinstance(value, dict) else {}


class _Converter:
    """YAML nodes to Python: scalars stay text, places are remembered, bombs are refused."""

    def __init__(self, path: Path, places: dict[tuple[str, ...], str], faults: list[str]) -> None:
        self.path, self.places, self.faults = path, places, faults
        self.nodes = 0
        self.open: set[int] = set()

    def convert(self, node: yaml.Node, field: tuple[str, ...]) -> Any:
        place = f"{self.path}:{node.start_mark.line + 1}"
        self.places.setdefault(field, place)
        self.nodes += 1
        if self.nodes > MAX_NODES or id(node) in self.open or len(field) > 50:
            raise ConfigError(f"{place}: aliases expand to too much; write the values out")
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self.faults.append(
                f"{place}: {'.'.join(field)}: the tag {visible(node.tag)} is refused"
            )
            return REFUSED
        if isinstance(node, yaml.ScalarNode):
            empty = node.style is None and node.value.lower() in ("", "null", "~")
            return None if empty else node.value
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                items = [
                    self.convert(item, (*field, str(number)))
                    for number, item in enumerate(node.value)
                ]
                return [item for item in items if item is not REFUSED]
            return self._mapping(node, field)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, field: tuple[str, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(f"{self.path}:{line}: a setting's name must be plain text")
                continue
            key = key_node.value
            name = ".".join((*field, key))
            if key in lines:
                self.faults.append(
                    f"{self.path}:{line}: {name}: stands twice, on lines {lines[key]} and {line}"
                )
                continue
            lines[key] = line
            self.places[(*field, key)] = f"{self.path}:{line}"
            if isinstance(value_node, yaml.ScalarNode) and _is_secret(key, value_node.value):
                self.faults.append(_secret_fault(f"{self.path}:{line}", name))
                continue
            value = self.convert(value_node, (*field, key))
            if value is not REFUSED:
                result[key] = value
        return result


def _is_secret(key: str, value: str) -> bool:
    return bool(value) and bool(SECRET_KEY.search(key) or SECRET_VALUE.search(value))


def _secret_fault(place: str, name: str) -> str:
    return (
        f"{place}: {name}: keys do not belong into a configuration; put it into an environment "
        "variable or a .env file and name that variable in llm.api_key_env"
    )


def _apply(
    override: str, tree: dict[str, Any], places: dict[tuple[str, ...], str], faults: list[str]
) -> None:
    name, equals, value = override.partition("=")
    field = tuple(name.strip().split("."))
    if not equals or not all(field):
        faults.append(f"--set {visible(name)}: expected key=value, e.g. training.epochs=2")
        return
    place = f"--set {name.strip()}"
    if _is_secret(field[-1], value):
        faults.append(_secret_fault("--set", name.strip()))
        return
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        faults.append(f"{place}: not YAML: {visible(error)}")
        return
    inner: dict[tuple[str, ...], str] = {}
    found = None if node is None else _Converter(Path("--set"), inner, faults).convert(node, field)
    if found is REFUSED:
        return
    here = tree
    for part in field[:-1]:
        below = here.get(part)
        if not isinstance(below, dict):
            below = here[part] = {}
        here = below
    here[field[-1]] = found
    for known in [key for key in places if key[: len(field)] == field]:
        del places[known]
    places[field] = "--set"


# ---- validation


def _validated(
    tree: dict[str, Any], places: Mapping[tuple[str, ...], str], faults: list[str], where: str
) -> RunSettings | None:
    try:
        return RunSettings.model_validate(tree)
    except ValidationError as error:
        seen: set[tuple[str, ...]] = set()
        for fault in error.errors(include_url=False):
            field = _field_of(fault["loc"])
            known = any(other[: len(field)] == field for other in seen)
            if known and fault["type"] != "extra_forbidden":
                continue  # the other members of a union
            seen.add(field)
            place = next(
                (places[field[:end]] for end in range(len(field), 0, -1) if field[:end] in places),
                where,
            )
            faults.append(f"{place}: {'.'.join(field)}: {_explained(fault, field)}")
        return None


def _field_of(location: Sequence[str | int]) -> tuple[str, ...]:
    """The setting's path without pydantic's names for the members of a union."""
    field: list[str] = []
    model: Any = RunSettings
    for part in location:
        name = str(part)
        fields = _fields_by_name(model)
        if fields is not None and not (name == model.__name__ or name.startswith("literal[")):
            field.append(name)
            model = fields.get(name)
        elif isinstance(part, int):
            field.append(name)
    return tuple(field)


def _fields_by_name(model: Any) -> dict[str, Any] | None:
    """Settings names (aliases) of a settings class -> the class below, if that is one."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    return {
        info.alias or name: next(
            (kind for kind in _members(info.annotation) if _fields_by_name(kind) is not None), None
        )
        for name, info in model.model_fields.items()
    }


def _members(annotation: Any) -> Iterator[Any]:
    from typing import get_args

    yield annotation
    for inner in get_args(annotation):
        yield from _members(inner)


def _explained(fault: Mapping[str, Any], field: tuple[str, ...]) -> str:
    if fault["type"] == "model_type":
        return f"must be a mapping with {', '.join(_known(field))}"
    if fault["type"] == "extra_forbidden":
        known = _known(field[:-1])
        near = difflib.get_close_matches(field[-1], known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"unknown setting; {hint}"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if fault["type"] in ("literal_error", "greater_than", "greater_than_equal", "less_than",
                         "less_than_equal", "int_parsing", "float_parsing", "bool_parsing",
                         "int_from_float", "string_type", "missing"):  # fmt: skip
        message = f"must be {message}" if not message.startswith("must") else message
    given = fault.get("input")
    if isinstance(given, str | int | float | list | tuple) and fault["type"] != "missing":
        message += f" (found {visible(given)!r})"
    return message


def _known(field: Sequence[str]) -> list[str]:
    """Names of the settings inside of ``field``."""
    model: Any = RunSettings
    for part in field:
        model = (_fields_by_name(model) or {}).get(part)
    return list(_fields_by_name(model) or ())


def _anchored(model: Any, tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with relative paths of path settings taken from ``folder``, and so with names
    (of models, say) that are plainly paths: ``./`` or ``../`` stand before them."""
    anchored = dict(tree)
    for name, info in model.model_fields.items():
        key = info.alias or name
        value = anchored.get(key)
        below = (_fields_by_name(model) or {}).get(key)
        if isinstance(value, dict) and below is not None:
            anchored[key] = _anchored(below, value, folder)
        else:
            join = _path_in if Path in _members(info.annotation) else _name_in
            if isinstance(value, str):
                anchored[key] = join(folder, value)
            elif isinstance(value, list):
                anchored[key] = [
                    join(folder, item) if isinstance(item, str) else item for item in value
                ]
    return anchored


def _path_in(folder: Path, path: str) -> str | None:
    """An empty path is none; it must not become the folder itself. The hub's names stay."""
    if path.startswith("hf:"):
        return path
    return str(folder / path) if path.strip() else None


def _name_in(folder: Path, name: str) -> str:
    return str(folder / name) if name.startswith(("./", "../")) else name
