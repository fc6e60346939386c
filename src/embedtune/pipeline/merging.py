"""``embedtune merge``: one model out of several of the same kind."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed.checks import write_checksums
from embedtune.embed.local import MemoryEmbedder
from embedtune.embed.models import resolve_model
from embedtune.errors import ConfigError, IntegrityError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.subsample import subsample_note, subsampled
from embedtune.files import visible, write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import Dataset, load_given
from embedtune.pipeline.tune import FACTS
from embedtune.records import content_id
from embedtune.run import Recipe, build_folder
from embedtune.training.merge import average_into, choose_alpha, merge_curve, merge_into

log = logging.getLogger(__name__)


def merge_models(
    tuned: Sequence[str],
    base: str | None,
    out: Path,
    settings: RunSettings,
    console: Console,
    *,
    alpha: float | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """Leave in ``out`` the mean of the ``tuned`` models' weights, merged with ``base`` where one
    is given: α · tuned + (1 − α) · base.

    Args:
        alpha: None: the best on the dev split of ``data``.

    Raises:
        ConfigError: Nothing to merge; neither ``alpha`` nor ``data`` with a ``base``, or one of
            them without.
        IntegrityError: Models of different kinds.
    """
    from embedtune.embed.loading import load_sentence_transformer

    if base is None and len(tuned) < 2:
        raise ConfigError("merge: one model and no --base; give two models, or a base")
    if base is None and (alpha is not None or data is not None):
        raise ConfigError(
            f"merge: {'--data' if alpha is None else '--alpha'} needs --base, the model that the "
            "mean of the others is weighed against"
        )
    if base is not None and (alpha is None) == (data is None):
        raise ConfigError(
            "merge: give either --alpha, or --data, on whose dev split the best one is chosen"
        )
    resolved = [resolve_model(name) for name in (*tuned, *([base] if base else []))]
    given = None
    if data is not None:
        given = load_given(data, settings.split, columns=settings.columns, settings=settings.source)
        if not given.data.qrels.get("dev"):
            raise ConfigError(f"merge: {data} has no dev split to choose on; give --alpha")
    measured = settings.evaluation.model_dump(include={"metric", "similarity", "dimension"})
    recipe = Recipe(
        "merge",
        1,
        {"alpha": alpha, **(measured if given else {})},
        {f"model {place}": model.label for place, model in enumerate(resolved)},
        {"data": _dev_digest(given) if given else ""},
    )

    def build(folder: Path) -> dict[str, Any]:
        models = [load_sentence_transformer(name, device="cpu") for name in tuned]
        target = models[0]
        _check_alike(tuned, models, console)
        average_into(target, models)
        chosen, curve, note = alpha if base else 1.0, [], ""
        if base:
            original, mean, scratch = (
                load_sentence_transformer(name, device="cpu") for name in (base, tuned[0], tuned[0])
            )
            _check_alike((tuned[0], base), (target, original), console)
            merge_into(mean, target, target, 1.0)
            if given:
                [judged] = subsampled([given.data])
                note = subsample_note(judged, given.data)
                if note:
                    console.say(note)
                evaluator = Evaluator(judged, settings.evaluation, near_duplicates=given.twins)

                def dev_score(model: Any, at: float) -> float:
                    console.say(f"  alpha {at:g}")
                    return evaluator.score_embedder(MemoryEmbedder(model, "merged"), "dev")

                console.say(f"choosing alpha on dev of {data}")
                curve = merge_curve(original, mean, scratch, dev_score)
                chosen = choose_alpha(curve, None)[0].alpha
            merge_into(target, original, mean, chosen)
        target.save(str(folder), create_model_card=False)
        facts = {"base": base, "merged": list(tuned), "alpha": chosen}
        write_json(folder / FACTS, facts)
        write_checksums(folder)
        told = [[point.alpha, point.dev] for point in curve]
        return {**facts, "curve": told, "judged_on": note}

    done = build_folder(out, recipe, build)
    return {"model": str(out), "metric": settings.evaluation.metric, **done.facts}


def told(facts: dict[str, Any]) -> str:
    """The outcome in words."""
    what = " + ".join(facts["merged"])
    if not facts["base"]:
        return f"{facts['model']}: the mean of {what}"
    lines = [f"{facts['model']}: {facts['alpha']:g} × {what} + {1 - facts['alpha']:g} × "
             f"{facts['base']}"]  # fmt: skip
    for alpha, dev in facts["curve"]:
        mark = "  ← chosen" if alpha == facts["alpha"] else ""
        lines.append(f"  alpha {alpha:.1f}: {facts['metric']} on dev {dev:.4f}{mark}")
    return "\n".join(lines)


def _dev_digest(given: Dataset) -> str:
    """What the choice of α depends on: the texts, and what dev asks."""
    dev = given.data.qrels["dev"]
    return content_id(
        "d",
        [(chunk.id, chunk.embedded) for chunk in given.data.chunks],
        [(query.id, query.text) for query in given.data.queries if query.id in dev],
        sorted((query, sorted(grades.items())) for query, grades in dev.items()),
    )


def _check_alike(names: Sequence[str], models: Sequence[Any], console: Console) -> None:
    """Weights of one shape are not enough: they must be used in the same way, and the same tokens
    must stand in the same rows."""
    first = models[0]
    for name, model in zip(names[1:], models[1:], strict=True):
        pair = f"{names[0]} and {name}"
        for what, read in (("modules", _modules), ("poolings", _poolings)):
            if read(first) != read(model):
                raise IntegrityError(
                    f"cannot merge {pair}: their {what} differ: {', '.join(read(first)) or 'none'} "
                    f"and {', '.join(read(model)) or 'none'}"
                )
        if _vocabulary(first) != _vocabulary(model):
            raise IntegrityError(f"cannot merge {pair}: their vocabularies differ")
        for what, read in (("prompts", _prompts), ("longest text", _longest)):
            if read(first) != read(model):
                console.say(
                    f"  {pair}: {what} differ ({visible(read(first))} and {visible(read(model))}); "
                    f"the merge keeps what {names[0]} has"
                )


def _modules(model: Any) -> list[str]:
    """Types, in order; of the first, also that of the network in it."""
    network = getattr(model[0], "model", None)
    inner = [type(network).__name__] if network is not None else []
    return [type(module).__name__ for module in model] + inner


def _poolings(model: Any) -> list[str]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [
        f"{module.pooling_mode}{'' if module.include_prompt else ' without the prompt'}"
        for module in model
        if isinstance(module, Pooling)
    ]


def _prompts(model: Any) -> dict[str, str]:
    return {name: prompt for name, prompt in sorted(model.prompts.items()) if prompt}


def _longest(model: Any) -> Any:  # in tokens; the library gives None or inf where there is no limit
    return model.max_seq_length


def _vocabulary(model: Any) -> dict[str, int] | None:
    tokenizer = model.tokenizer
    read = getattr(tokenizer, "get_vocab", None)
    return read() if read else None
