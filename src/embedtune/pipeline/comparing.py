"""``embedtune report --compare``: what differs between two runs, and whether it may be compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.errors import ConfigError
from embedtune.evaluation.compare import difference
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.pipeline.judge import Judgement
from embedtune.pipeline.stored import (
    DATASET,
    EVALUATION,
    Dataset,
    load_dataset,
    load_judgement,
    stage_facts,
)
from embedtune.report.versus import Changed, Fault, Figures, Versus
from embedtune.results import Difference

NOT_COMPARED = ("run",)  # settings that say where, not what


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    settings: Mapping[str, object]  # by dotted name
    dataset: Dataset | None
    judgement: Judgement | None

    @property
    def metric(self) -> str:
        return str(self.settings.get("evaluation.metric", EvaluationSettings().metric))


def compare_runs(one: Path, other: Path) -> Versus:
    """What differs in data, settings and results.

    Figures stand side by side only where both were measured on the same passages, questions and
    judgements and decided by the same metric; else the faults say what is not the same.
    """
    alike = one.name == other.name
    first, second = (_load(run, str(run) if alike else run.name) for run in (one, other))
    faults: tuple[Fault, ...] = ()
    figures: tuple[Figures, ...] = ()
    gain = None
    if first.dataset and second.dataset and first.judgement and second.judgement:
        faults = tuple(_faults(first, second))
        if not faults:
            figures = tuple(_figures(first.judgement, second.judgement))
            gain = _gain(first.dataset, first.judgement, second.judgement, first.metric)
    return Versus(
        runs=(first.name, second.name),
        settings=tuple(_changed(first.settings, second.settings)),
        data=tuple(_changed(_data(first.dataset), _data(second.dataset))),
        faults=faults,
        unjudged=tuple(run.name for run in (first, second) if run.judgement is None),
        metric=first.metric,
        verdicts=tuple(
            run.judgement.verdict.verdict if run.judgement else "none" for run in (first, second)
        ),
        figures=figures,
        difference=gain,
    )


def _load(run: Path, name: str) -> _Run:
    stages = stage_facts(run)
    return _Run(
        name,
        _settings(run),
        load_dataset(run / DATASET) if DATASET in stages else None,
        load_judgement(run / EVALUATION) if EVALUATION in stages else None,
    )


def _settings(run: Path) -> dict[str, object]:
    """The settings of a run by dotted name."""
    import yaml

    path = run / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    flat = dict(_flat(tree, ())) if isinstance(tree, dict) else {}
    return {name: value for name, value in flat.items() if name not in NOT_COMPARED}


def _flat(tree: Mapping[str, Any], field: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*field, str(key)))
        else:
            yield ".".join((*field, str(key))), value


def _changed(one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[Changed]:
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            yield Changed(name, one.get(name), other.get(name))


def _data(dataset: Dataset | None) -> dict[str, object]:
    """What can be told of a data set in a line each."""
    if dataset is None:
        return {}
    data = dataset.data
    return {
        "format": dataset.format,
        "split.by": dataset.by,
        "passages": len(data.chunks),
        "documents": len({chunk.document for chunk in data.chunks}),
        **{f"queries.{name}": len(qrels) for name, qrels in sorted(data.qrels.items())},
        "near-duplicates": len(dataset.twins),
    }


def _faults(one: _Run, other: _Run) -> Iterator[Fault]:
    """Why figures of the two are not figures of the same thing."""
    if one.metric != other.metric:
        yield Fault("metric", one.metric, other.metric)
    splits = [run.judgement.split for run in (one, other) if run.judgement]
    if splits[0] != splits[1]:
        yield Fault("split", *splits)
        return
    split = splits[0]
    datasets = [run.dataset for run in (one, other) if run.dataset]
    corpora = [{(chunk.id, chunk.embedded) for chunk in own.data.chunks} for own in datasets]
    if corpora[0] != corpora[1]:
        yield Fault("corpus", *_alone(*corpora))
    judgements = [own.data.qrels.get(split, {}) for own in datasets]
    asked = [
        {(query.id, query.text) for query in own.data.queries if query.id in qrels}
        for own, qrels in zip(datasets, judgements, strict=True)
    ]
    if asked[0] != asked[1]:
        yield Fault("queries", *_alone(*asked), split)
        return
    unlike = sum(judgements[0][query] != judgements[1].get(query) for query in judgements[0])
    if unlike:
        yield Fault("judgements", str(unlike), split=split)
    elif corpora[0] == corpora[1] and datasets[0].groups != datasets[1].groups:
        yield Fault("grouping")


def _alone(one: set[Any], other: set[Any]) -> tuple[str, str]:
    return str(len(one - other)), str(len(other - one))


def _figures(one: Judgement, other: Judgement) -> Iterator[Figures]:
    """Systems by role, then those of one name."""
    first, second = ({own.name: own for own in found.systems} for found in (one, other))
    seen = set()
    for role, attribute in (("candidate", "candidate"), ("base", "base"), ("rival", "best_rival")):
        names = (getattr(one.verdict, attribute), getattr(other.verdict, attribute))
        if names not in seen and names[0] in first and names[1] in second:
            seen.add(names)
            yield Figures(role, names, first[names[0]].metrics, second[names[1]].metrics)
    for name in first:
        if (name, name) not in seen and name in second:
            yield Figures("", (name, name), first[name].metrics, second[name].metrics)


def _gain(dataset: Dataset, one: Judgement, other: Judgement, metric: str) -> Difference | None:
    """Candidate of the other run minus that of the one."""
    first, second = (
        next((own for own in found.systems if own.name == found.verdict.candidate), None)
        for found in (one, other)
    )
    if first is None or second is None:
        return None
    settings = EvaluationSettings.model_validate({"metric": metric})
    evaluator = Evaluator(
        dataset.data, settings, groups=dataset.groups, near_duplicates=dataset.twins
    )
    return difference(second, first, evaluator.groups(one.split), settings)
