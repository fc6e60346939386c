"""Pooling, prompts and context of passages, tried on dev before any training."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.documents.prefix import JOINT
from embedtune.embed import Embedder
from embedtune.embed.checks import is_plain_encoder
from embedtune.embed.facts import prompts_in
from embedtune.embed.loading import own_pooling
from embedtune.errors import EmbedtuneError
from embedtune.evaluation.compare import difference
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.statistics import holm
from embedtune.evaluation.systems import System
from embedtune.files import visible
from embedtune.language import language_of
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import Dataset
from embedtune.pipeline.untrained import is_static
from embedtune.records import Chunk
from embedtune.results import Difference, SystemScores

AXES = ("pooling", "prompts", "prefix")
POOLINGS = ("mean", "cls", "max")
AS_IS = "as it is"
LEVEL = 0.05
# of the BGE models, as their cards have them; passages go without
INSTRUCTIONS = {
    "zh": "为这个句子生成表示以用于检索相关文章：",
    "en": "Represent this sentence for searching relevant passages: ",
}


@dataclass(frozen=True, slots=True)
class Tuning:
    """A model as it is begun with. ``prefix``: empty where passages stay as they are, else what
    ``chunks.prefix`` takes."""

    system: System
    prefix: str = ""

    def settings(self) -> dict[str, Any]:
        """The part of a configuration that says so; a folder is written from the root."""
        name = self.system.model
        folder = Path(name).expanduser()
        is_folder = folder.is_dir() and not is_static(name)
        model: dict[str, Any] = {"base": str(folder.resolve()) if is_folder else name}
        if self.system.pooling:
            model["pooling"] = self.system.pooling
        query, document = self.system.query_prompt, self.system.document_prompt
        if query is not None or document is not None:
            own = _own_prompts(self.system)
            model["prompts"] = {
                "query": own[0] if query is None else query,
                "document": own[1] if document is None else document,
            }
        return {"model": model, **({"chunks": {"prefix": self.prefix}} if self.prefix else {})}


@dataclass(frozen=True, slots=True)
class Choice:
    """One way that was tried. ``gain``: its scores minus those of the way it was until then; None
    for that one itself, and where ``error`` says why it could not be measured."""

    name: str
    score: float | None
    gain: Difference | None = None
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain and self.gain.as_json()}


@dataclass(frozen=True, slots=True)
class Axis:
    """What was tried of one thing; ``choices`` begins with how it was. None of them: there was
    nothing to try."""

    axis: str
    choices: tuple[Choice, ...]
    chosen: str

    @property
    def changed(self) -> bool:
        return bool(self.choices) and self.chosen != self.choices[0].name

    def as_json(self) -> dict[str, Any]:
        return {
            "axis": self.axis,
            "choices": [choice.as_json() for choice in self.choices],
            "chosen": self.chosen,
            "changed": self.changed,
        }


def try_axes(
    given: Dataset,
    begin: Tuning,
    axes: Sequence[str],
    settings: RunSettings,
    open_for: Callable[[Sequence[Chunk]], Callable[[System], Embedder]],
    console: Console,
) -> tuple[Tuning, tuple[Axis, ...]]:
    """One axis after the other, each with what was chosen before; all on dev.

    The way it was stays unless another is significantly better: interval above 0, and p under 5 %
    after Holm's correction for how many were tried.
    """
    tuning, found = begin, []
    for axis in axes:
        tuning, result = _try(given, tuning, axis, settings, open_for, console)
        found.append(result)
    return tuning, tuple(found)


def _try(
    given: Dataset,
    tuning: Tuning,
    axis: str,
    settings: RunSettings,
    open_for: Callable[[Sequence[Chunk]], Callable[[System], Embedder]],
    console: Console,
) -> tuple[Tuning, Axis]:
    own = settings.evaluation
    ways = dict(_ways(given, tuning, axis))
    if not ways:
        return tuning, Axis(axis, (), AS_IS)

    def score(way: Tuning) -> SystemScores:
        chunks = with_prefix(given.data.chunks, way.prefix)
        embedder = open_for(chunks)(way.system)
        return evaluator_of(given, own, chunks, embedder).score(way.system, "dev")

    groups = evaluator_of(given, own).groups("dev")
    before = score(tuning)
    choices = [Choice(_name(tuning, axis), before.metrics[own.metric])]
    console.say(f"  {axis}: {choices[0].name} {choices[0].score:.3f}")
    for name, way in ways.items():
        try:
            after = score(way)
        except EmbedtuneError as error:
            choices.append(Choice(name, None, error="; ".join(error.lines)))
            console.say(f"  {axis}: {name}: {visible(choices[-1].error, 300)}")
            continue
        # the same queries and judgements; only what stands before the passages is another
        after = replace(after, facts={**after.facts, "data": before.facts["data"]})
        gain = difference(after, before, groups, own)
        choices.append(Choice(name, after.metrics[own.metric], gain))
        console.say(f"  {axis}: {name} {after.metrics[own.metric]:.3f}")
    corrected = holm({one.name: one.gain.p for one in choices if one.gain})
    better = [one for one in choices
              if one.gain and one.gain.low > 0 and corrected[one.name] < LEVEL]  # fmt: skip
    if not better:
        return tuning, Axis(axis, tuple(choices), choices[0].name)
    chosen = max(better, key=lambda one: round(one.score or 0.0, 12))  # of equals the first
    return ways[chosen.name], Axis(axis, tuple(choices), chosen.name)


def evaluator_of(
    given: Dataset,
    settings: EvaluationSettings,
    chunks: Sequence[Chunk] | None = None,
    embedder: Embedder | None = None,
) -> Evaluator:
    """Measures one embedder (without it BM25 alone) and lets it go; a model that cannot read the
    text scores as chance does."""

    def open_it(system: System) -> Embedder:
        if embedder is None:
            raise ValueError(f"no embedder for {system.label}")
        return embedder

    return Evaluator(
        given.data if chunks is None else replace(given.data, chunks=tuple(chunks)), settings,
        groups=given.groups or None, near_duplicates=given.twins, embedder_of=open_it,
        allow_collapsed=True,
    )  # fmt: skip


def _name(tuning: Tuning, axis: str) -> str:
    """What is told of how it was."""
    system = tuning.system
    if axis == "pooling":
        return system.pooling or f"the model's own ({_pooling(system)})"
    if axis == "prefix":
        return tuning.prefix or AS_IS
    if system.query_prompt is not None or system.document_prompt is not None:
        return "as given"
    return "the model's own" if any(_own_prompts(system)) else "none"


# ---- the ways there are


def _ways(given: Dataset, tuning: Tuning, axis: str) -> Iterator[tuple[str, Tuning]]:
    """Name -> what to try instead of ``tuning``, without what would come to the same."""
    system = tuning.system
    if axis == "prefix":
        chunks = given.data.chunks
        now = with_prefix(chunks, tuning.prefix)
        headed = any(chunk.section for chunk in chunks)
        for prefix in ("none", "headings") if headed else ("none",):
            if with_prefix(chunks, prefix) != now:
                yield prefix, replace(tuning, prefix=prefix)
        return
    if system.embedder != "local" or is_static(system.model):
        return
    if axis == "pooling":
        if own := _pooling(system):
            for pooling in POOLINGS:
                if pooling != own:
                    yield pooling, replace(tuning, system=replace(system, pooling=pooling))
        return
    if _pooling(system) is None:  # static models read no context, so no prompt either
        return
    counted = Counter(query.language or language_of(query.text)
                      for query in given.data.queries_of("dev"))  # fmt: skip
    language = min(counted, key=lambda code: (-counted[code], code))
    ways = {"the model's own": _own_prompts(system), **_prompts(language)}
    seen = {_prompts_of(system)}
    for name, prompts in ways.items():
        if prompts not in seen:
            seen.add(prompts)
            query, document = prompts
            changed = replace(system, query_prompt=query, document_prompt=document)
            yield name, replace(tuning, system=changed)


def _prompts(language: str) -> dict[str, tuple[str, str]]:
    """Name -> texts before a query and a document; the instruction only of a known language."""
    known = {"none": ("", ""), "query: / passage: ": ("query: ", "passage: ")}
    if language in INSTRUCTIONS:
        known["instruction"] = (INSTRUCTIONS[language], "")
    return known


def _own_prompts(system: System) -> tuple[str, str]:
    from embedtune.embed.models import resolve_model

    if system.embedder != "local" or is_static(system.model):
        return "", ""
    own = prompts_in(resolve_model(system.model).path)
    return own["query"], own["document"]


def _prompts_of(system: System) -> tuple[str, str]:
    query, document = _own_prompts(system)
    return (
        query if system.query_prompt is None else system.query_prompt,
        document if system.document_prompt is None else system.document_prompt,
    )


def _pooling(system: System) -> str | None:
    """The pooling in use; None where the model has none that could be another."""
    from embedtune.embed.models import resolve_model

    folder = resolve_model(system.model).path
    if is_plain_encoder(folder):
        return system.pooling
    own = own_pooling(folder)
    return own and (system.pooling or own)


def with_prefix(chunks: Sequence[Chunk], prefix: str) -> tuple[Chunk, ...]:
    """The chunks with that context before them: "" as it is, "none", or "headings". Tables keep
    theirs, where the header row stands in it; and so do chunks without headings."""
    if not prefix:
        return tuple(chunks)

    def context(chunk: Chunk) -> str:
        if chunk.kind == "table":
            return chunk.title
        if prefix == "none":
            return ""
        return JOINT.join(chunk.section) or chunk.title

    return tuple(replace(chunk, title=context(chunk)) for chunk in chunks)
