"""Base models ranked before any training, on dev: ``embedtune candidates``, and what ``run`` does
with several names in ``model.base``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.checks import is_plain_encoder
from embedtune.embed.facts import ModelFacts, facts_in, facts_of_static
from embedtune.embed.remote import Purse
from embedtune.embed.tokens import NO_LIMIT, Tokens, WordTokens
from embedtune.errors import ConfigError, EmbedtuneError, IntegrityError, ResourceError
from embedtune.evaluation.candidates import (
    Candidate,
    Pick,
    coverage_of,
    measure_speed,
    pick,
    ranked,
)
from embedtune.evaluation.compare import difference
from embedtune.evaluation.systems import System, parse_systems
from embedtune.files import visible, write_text
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import local
from embedtune.pipeline.measures import measure_triplet_rows
from embedtune.pipeline.models import vector_store
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.stored import Dataset, load_given
from embedtune.pipeline.trying import AXES, Axis, Tuning, evaluator_of, try_axes
from embedtune.pipeline.tune import UNKNOWN_SHARE
from embedtune.pipeline.untrained import is_static, opener, tokens_of
from embedtune.records import Chunk, unusable
from embedtune.results import SystemScores
from embedtune.store import Store
from embedtune.training.options import AS_IT_IS, ModelSettings

SPLIT = "dev"
PLAIN_POOLING = "mean"  # of encoders that have none, where the settings name none

Open = Callable[[Sequence[Chunk]], Callable[[System], Embedder]]  # by the passages searched


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models side by side on dev, best first; see ``ranked`` and ``pick``."""

    metric: str
    format: str
    queries: int
    groups: int
    bm25: SystemScores
    candidates: tuple[Candidate, ...]
    pick: Pick | None  # None where only services were named
    tried: tuple[Axis, ...] = ()
    chosen: Tuning | None = None  # how to begin with the pick, after what was tried
    unusable: bool = False

    def settings(self) -> dict[str, Any]:
        """The part of a configuration that the choice comes to; empty where nothing was chosen."""
        return self.chosen.settings() if self.chosen else {}

    def rows(self) -> list[dict[str, Any]]:
        """Of each model what a report says of it; see ``report.BaseFacts``."""
        rows = []
        for own in self.candidates:
            scores = own.scores
            low, high = scores.intervals[self.metric] if scores else (None, None)
            rows.append({
                "name": own.name, "score": scores and scores.metrics[self.metric],
                "low": low, "high": high, "parameters": own.facts.parameters,
                "licence": own.facts.licence, "unreadable": own.unreadable,
                "chosen": self.pick is not None and own.name == self.pick.name,
            })  # fmt: skip
        return rows

    def as_json(self) -> dict[str, Any]:
        return {
            "split": SPLIT,
            "metric": self.metric,
            "format": self.format,
            "queries": self.queries,
            "groups": self.groups,
            "bm25": self.bm25.as_json(),
            "candidates": [own.as_json() for own in self.candidates],
            "pick": self.pick and self.pick.as_json(),
            "tried": [axis.as_json() for axis in self.tried],
            "settings": self.settings(),
        }


def rank_candidates(
    data: Path,
    models: Sequence[str],
    settings: RunSettings,
    console: Console,
    *,
    axes: Sequence[str] = (),
    out: Path | None = None,
) -> Ranking:
    """``embedtune candidates``: what each model is worth on the dev split of ``data``, untrained.

    Args:
        models: As ``evaluate`` takes them; without any, see ``models_at_hand``.
        axes: What to try on the one that is picked, in this order; see ``try_axes``.
        out: File for the settings that the choice comes to.

    Raises:
        ConfigError: Nothing that could be a base is named; or ``out`` exists.
        NothingUsable: There are no dev queries.
        EmbedtuneError: No model could be measured; of the gravest kind there was.
    """
    systems = systems_of(models or models_at_hand(settings), settings.model)
    if unknown := [axis for axis in axes if axis not in AXES]:
        raise ConfigError(
            f"--try: {', '.join(map(visible, unknown))}: expected some of {', '.join(AXES)}"
        )
    if out is not None and (out.exists() or out.suffix not in (".yaml", ".yml")):
        raise ConfigError(f"--out {out}: expected a new .yaml file")
    given = load_given(data, settings.split, columns=settings.columns, settings=settings.source)
    with Store(vector_store()) as store:
        openers = Openers(store, console, pooling=settings.model.pooling,
                          purse=Purse(settings.embedding))  # fmt: skip

        def open_for(chunks: Sequence[Chunk]) -> Callable[[System], Embedder]:
            return opener(settings, chunks, openers.embedder)

        try:
            found = rank_bases(given, systems, settings, console, open_for, timed=True)
            if found.pick:
                first = next(own for own in found.candidates if own.name == found.pick.name)
                tuning, tried = try_axes(
                    given, Tuning(first.system), tuple(dict.fromkeys(axes)), settings, open_for,
                    console,
                )  # fmt: skip
                found = replace(found, tried=tried, chosen=tuning)
        finally:
            openers.tell()
    if out is not None and found.settings():
        import yaml

        write_text(out, yaml.safe_dump(found.settings(), allow_unicode=True, sort_keys=False))
    return found


def models_at_hand(settings: RunSettings) -> tuple[str, ...]:
    """The models of ``model.base``, then those that need no network: what sentence-transformers
    saved into the Hugging Face cache, by name, and those whose weights came as a package."""
    from embedtune.embed.models import PACKAGES

    names = [*settings.model.base, *_cached_names()]
    names += [name for name, package in PACKAGES.items() if _is_installed(package.module)]
    return tuple(dict.fromkeys(names))


def _cached_names() -> Iterator[str]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda own: own.repo_id):
        names = {file.file_name for own in repository.revisions for file in own.files}
        if repository.repo_type == "model" and {"modules.json", "model.safetensors"} <= names:
            yield repository.repo_id


def _is_installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def systems_of(names: Sequence[str], model: ModelSettings = AS_IT_IS) -> tuple[System, ...]:
    """The systems of ``names``, each as a training with these settings would begin with it.

    Raises:
        ConfigError: Not all of them are models by themselves.
    """
    systems = parse_systems(names)
    faults = [
        f"{visible(system.label)}: expected a model; BM25 is measured beside them, and `evaluate` "
        "compares all other kinds"
        for system in systems
        if system.kind not in ("dense", "api") or system.precision != "float32"
    ]
    if faults:
        raise ConfigError(faults)
    return tuple(_begun(system, model) for system in systems)


def _begun(system: System, model: ModelSettings) -> System:
    if system.embedder != "local" or is_static(system.model):
        return system
    if not system.pooling and model.pooling != "auto":
        system = replace(system, pooling=model.pooling)
    untold = system.query_prompt is None and system.document_prompt is None
    if untold and model.prompts != "auto":
        prompts = model.prompts
        system = replace(system, query_prompt=prompts.query, document_prompt=prompts.document)
    return system


def rank_bases(
    given: Dataset,
    systems: Sequence[System],
    settings: RunSettings,
    console: Console,
    open_for: Open,
    *,
    timed: bool = False,
) -> Ranking:
    """The systems by their score on dev, and which of them to train.

    What cannot be measured is a row with the reason. Models are opened one after the other, and
    none is kept.

    Args:
        timed: Measure speed too; nothing is chosen by it.

    Raises:
        NothingUsable: There are no dev queries.
        EmbedtuneError: None could be measured; of the gravest kind there was.
    """
    own = settings.evaluation

    plain = evaluator_of(given, own)
    bm25 = plain.score(System("bm25", "bm25"), SPLIT)
    groups = plain.groups(SPLIT)
    found = []
    for system in systems:
        try:
            one = _measured(system, given, settings, console, open_for, timed)
        except (EmbedtuneError, MemoryError) as error:
            one = _failed(system, error)
            console.say(f"  {system.label} cannot be measured: {one.error}")
        else:
            if one.scores:
                one = replace(one, over_bm25=difference(one.scores, bm25, groups, own))
                console.say(
                    f"  {one.name}: {own.metric} {one.scores.metrics[own.metric]:.3f} on {SPLIT}"
                )
        found.append(one)
    if not any(one.scores for one in found):
        raise _none_left(found)
    candidates = ranked(found, own.metric)
    return Ranking(
        own.metric, given.format, len(groups), len(set(groups.values())), bm25, candidates,
        pick(candidates, groups, own),
        unusable=unusable(given.rejects) or any(one.error for one in found),
    )  # fmt: skip


def _measured(
    system: System,
    given: Dataset,
    settings: RunSettings,
    console: Console,
    open_for: Open,
    timed: bool,
) -> Candidate:
    chunks = given.data.chunks
    tokens: Tokens | None = None
    facts = ModelFacts()
    made = system.embedder == "local" and is_static(system.model)
    if made:
        tokens = WordTokens(NO_LIMIT)
    elif system.embedder == "local":
        from embedtune.embed.models import resolve_model

        tokens = tokens_of(system.model)
        folder = resolve_model(system.model).path
        facts = facts_in(folder, tokens)
        if is_plain_encoder(folder) and not system.pooling:
            system = replace(system, pooling=PLAIN_POOLING)
    embedder = open_for(chunks)(system)
    evaluator = evaluator_of(given, settings.evaluation, embedder=embedder)
    scores = evaluator.score(system, SPLIT)
    asked = evaluator.queries(SPLIT)
    raw = getattr(embedder, "embedder", embedder)  # without the memory of a store
    if made:
        facts = facts_of_static(raw.model)
    dimension = evaluator.vectors(system)[1].shape[1]
    triplets = ()
    if given.format == "triplets":
        rows = given.examples.get(SPLIT, ())
        triplets = measure_triplet_rows(
            rows, SPLIT, evaluator, [system], settings.evaluation, console
        )
    speed = None
    if timed and not system.is_paid:
        speed = measure_speed(
            raw, [chunk.embedded for chunk in chunks], [query.text for query in asked]
        )
    texts = [(one.text, one.language) for one in asked]
    texts += [(chunk.embedded, chunk.language) for chunk in chunks]
    training = settings.training
    told = training.allow_unknown_tokens or training.new_tokens != "off"
    share = _unknown_share(chunks, tokens) if tokens and not told else 0.0
    return Candidate(
        system.label,
        system,
        scores,
        facts=replace(facts, dimension=dimension),
        speed=speed,
        coverage=coverage_of(texts, tokens) if tokens else (),
        triplets=triplets[0] if triplets else None,
        unreadable=share if share > UNKNOWN_SHARE else None,
    )


def _unknown_share(chunks: Sequence[Chunk], tokens: Tokens) -> float:
    texts = [chunk.embedded for chunk in chunks]
    return sum(tokens.unknown(texts)) / max(1, sum(tokens.count(texts)))


def _failed(system: System, error: EmbedtuneError | MemoryError) -> Candidate:
    known = error if isinstance(error, EmbedtuneError) else ResourceError("out of memory")
    return Candidate(system.label, system, error="; ".join(known.lines), exit_code=known.exit_code)


def _none_left(found: Sequence[Candidate]) -> EmbedtuneError:
    """What is told where no model could be measured; the gravest fault gives the exit code."""
    gravest = max(one.exit_code for one in found)
    messages = [f"{visible(one.name)}: {one.error}" for one in found]
    kinds: Mapping[int, type[EmbedtuneError]] = {
        kind.exit_code: kind for kind in EmbedtuneError.__subclasses__()
    }
    kind = kinds.get(gravest, IntegrityError)
    if issubclass(kind, ConfigError):
        return ConfigError(messages)
    return kind("no model could be measured: " + "; ".join(messages))


def bases_of(settings: RunSettings) -> tuple[System, ...]:
    """Those of ``model.base``, as systems."""
    return tuple(_begun(local(name, name), settings.model) for name in settings.model.base)
