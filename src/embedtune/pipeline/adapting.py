"""``embedtune adapt``: an adapter on the queries of a model that cannot be tuned; its verdict."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedtune.adapt import fit
from embedtune.adapt.choose import IDENTITY
from embedtune.config import RunSettings
from embedtune.embed.adapted import Point, base_of, label_of, write_adapter
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import System, open_embedder, parse_system, parse_systems
from embedtune.files import visible, write_json
from embedtune.pipeline.adapter_choice import MOST_PAIRS, RECALL, choose, gather, lesson_of
from embedtune.pipeline.console import Console
from embedtune.pipeline.judge import Judgement, judge, local
from embedtune.pipeline.models import train_digest, vector_store
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.preflight import check_evaluation
from embedtune.pipeline.stored import Dataset, load_given
from embedtune.pipeline.tune import FACTS
from embedtune.pipeline.untrained import is_static, tokens_for
from embedtune.records import unusable
from embedtune.run import Recipe, build_folder
from embedtune.store import Store

FOUND_ALREADY = 0.95  # recall of the base from which on an adapter has little to add


@dataclass(frozen=True, slots=True)
class Adapted:
    """What ``embedtune adapt`` tells. ``facts`` stand in the folder's manifest too."""

    facts: Mapping[str, Any]
    judgement: Judgement
    split: str
    notes: tuple[str, ...]
    unusable: bool

    def as_json(self) -> dict[str, Any]:
        """As ``compare`` prints a verdict, with what dev said."""
        judgement = self.judgement
        return {
            **self.facts,
            "split": self.split,
            "queries": len(next(iter(judgement.systems[0].per_query.values()))),
            "systems": [scores.as_json() for scores in judgement.systems],
            "clean": [scores.as_json() for scores in judgement.clean],
            "notes": list(self.notes),
            **judgement.verdict.as_json(),
        }


def adapt_into(
    system: str,
    data: Path,
    out: Path,
    settings: RunSettings,
    console: Console,
    *,
    rank: int | None = None,
    split: str = "test",
    strict: bool = False,
) -> Adapted:
    """An adapter folder ``out`` in front of ``system``, and the verdict on it over ``split``.

    Fitted on train. Kind, steps, rank and strength are chosen on dev, or where dev is small over
    folds of train and dev. Identity is left in ``out`` unless the best gains for certain there.

    Args:
        system: ``openai:MODEL``, ``cohere:MODEL`` or a model on this machine.
        rank: Of the change of the queries; None: the best one.

    Raises:
        ConfigError: No system with vectors of its own, or data without queries and passages.
        NothingUsable: Too few queries to choose by.
    """
    base = _base_system(system, settings)
    check_evaluation(settings)
    given = load_given(
        data, settings.split, columns=settings.columns, settings=settings.source, strict=strict
    )
    if given.format in ("scored", "labelled"):
        raise ConfigError(f"{data}: {given.format} data; an adapter learns from queries and the "
                          "passages that answer them")  # fmt: skip
    for line in given.notes:
        console.say(f"  {line}")
    with Store(vector_store()) as store:
        openers = Openers(
            store, console, pooling=settings.model.pooling, purse=Purse(settings.embedding)
        )
        try:
            done = _fit_into(given, base, out, settings, console, openers, rank)
            console.say(told(done)[-1])
            judgement = judge(
                given.data,
                base,
                local(out, "adapted"),
                split=split,
                settings=settings.evaluation,
                rivals=parse_systems(settings.evaluation.rivals),
                tokens=tokens_for(base),
                near_duplicates=given.twins,
                affected=given.affected,
                embedder_of=openers.embedder,
                reranker_of=openers.reranker,
            )
        finally:
            openers.tell()
    return Adapted(done, judgement, split, given.notes, unusable(given.rejects))


def told(facts: Mapping[str, Any]) -> list[str]:
    """What dev said, in words."""
    metric, recall = facts["metric"], facts["base_recall"]
    lines = [
        f"base on {facts['chosen_on']}: {metric} {facts['dev_base']:.3f}, {RECALL} {recall:.3f} "
        f"({facts['queries']} queries)"
    ]
    if recall >= FOUND_ALREADY:
        lines.append(
            "  the base finds nearly all answers already: an adapter has little to add; look at "
            "the passages themselves, or at a reranker"
        )
    lines += [
        f"  {kind}, {'all directions' if rank is None else f'rank {rank}'}, strength "
        f"{strength:.1f}: {dev:.3f}"
        for kind, rank, strength, dev in facts["curve"]
    ]
    gain, low, high = facts["gain"]
    by = f"{gain:+.3f} (95 % {low:+.3f} to {high:+.3f})"
    if facts["kind"] == IDENTITY.kind:
        lines.append(
            f"no adapter: the best changes {metric} by {by}, which cannot be told from nothing; "
            f"{facts['adapter']} gives the base's own vectors"
        )
    else:
        lines.append(f"chosen: {facts['kind']}, rank {facts['rank']}, strength "
                     f"{facts['strength']:.1f}: {by}")  # fmt: skip
    return lines


def _base_system(text: str, settings: RunSettings) -> System:
    system = parse_system(text)
    plain = system.kind in ("dense", "api") and system.precision == "float32"
    if not plain or is_static(system.model):
        raise ConfigError(f"adapt: expected openai:MODEL, cohere:MODEL or a model, found "
                          f"{visible(text)}")  # fmt: skip
    if system.embedder == "local" and base_of(system.model):
        raise ConfigError(f"adapt: {visible(text)} is an adapter; name its base")
    if settings.evaluation.dimension != "full":
        raise ConfigError("adapt: evaluation.dimension: an adapter works on whole vectors")
    return replace(system, label="base") if system.label == text.strip() else system


def _fit_into(
    given: Dataset,
    base: System,
    out: Path,
    settings: RunSettings,
    console: Console,
    openers: Openers,
    rank: int | None,
) -> Mapping[str, Any]:
    evaluator = Evaluator(
        given.data, settings.evaluation, near_duplicates=given.twins, embedder_of=openers.embedder
    )
    label = label_of(open_embedder(base, settings.model.pooling, purse=openers.purse))
    own = _own_settings(base, settings)
    recipe = Recipe(
        "adapt",
        1,
        {"rank": rank, "metric": settings.evaluation.metric,
         "similarity": settings.evaluation.similarity, "base": own},
        {"base": label},
        {"data": train_digest(given)},
    )  # fmt: skip

    def build(folder: Path) -> dict[str, Any]:
        asked = gather(evaluator, base, given)
        found = choose(asked, settings.evaluation.metric, rank, console)
        adapter = fit(lesson_of(asked, asked.train, MOST_PAIRS), found.best.recipe)
        curve = [
            Point(own.recipe.kind, own.recipe.rank, own.recipe.strength, own.mean)
            for own in found.bests
        ]
        facts = {
            "base": _name(base),
            "base_label": label,
            "kind": found.best.recipe.kind,
            "strength": found.best.recipe.strength,
            "metric": settings.evaluation.metric,
            "dev_base": found.base.mean,
            "dev": found.best.mean,
            "curve": curve,
        }
        write_adapter(folder, adapter, {**facts, "base_settings": own})
        write_json(folder / FACTS, {"base": _name(base), "data": train_digest(given)})
        return {
            **facts,
            "curve": [list(point) for point in curve],
            "recipe": asdict(found.best.recipe),
            "rank": adapter.rank,
            "pairs": len(asked.train),
            "queries": len(found.base.values),
            "base_recall": found.recall,
            "chosen_on": found.on,
            "gain": list(found.gain),
        }

    done = build_folder(out, recipe, build)
    return {"adapter": str(out), **done.facts}


def _own_settings(base: System, settings: RunSettings) -> dict[str, Any]:
    """What makes the base's vectors differ from those of its name alone."""
    if base.embedder != "local":
        return {}
    prompts = {"query": base.query_prompt, "document": base.document_prompt}
    own = {
        "pooling": settings.model.pooling if settings.model.pooling != "auto" else None,
        "pooling_instead": base.pooling or None,
        "prompts_instead": {role: text for role, text in prompts.items() if text is not None},
    }
    return {name: value for name, value in own.items() if value}


def _name(base: System) -> str:
    """The base as it is opened from anywhere on this machine."""
    if base.embedder != "local":
        return f"{base.embedder}:{base.model}" if base.model else base.embedder
    folder = Path(base.model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base.model
