"""The model card: a README.md as model hubs read it, with the run's own numbers."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from embedtune.report.facts import LABELS, METRICS, ReportFacts
from embedtune.report.render import cut, environment, markdown, shown
from embedtune.report.texts import ENGLISH, Texts, teller
from embedtune.report.verdict import flag_words, language_words, verdict_words
from embedtune.retrieve.fusion import Fusion

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
LANGUAGE = re.compile(r"[a-z]{2,3}")


def model_card(facts: ReportFacts, texts: Texts = ENGLISH) -> str:
    """A short README.md: YAML front matter, what was measured, how to use it.

    Folders of this machine are named by their last part only; ``base_model`` goes into the front
    matter only when it is a hub name, since hubs refuse others.
    """
    import yaml

    t = teller(texts)
    words = verdict_words(facts, texts)
    rows = _rows(facts, t("dims.full"))
    body = (
        environment(markdown, autoescape=False)
        .get_template("card.md.j2")
        .render(
            t=t,
            title=facts.title,
            base=_public(facts.base_model),
            headline=words["headline"] if facts.verdict else "",
            number=words["number"],
            queries=facts.asked,
            optimistic=bool(facts.split and facts.split.optimistic),
            rows=rows,
            not_for=[
                (language_words(flag.language, texts), flag_words(flag, texts))
                for flag in (facts.verdict.not_for if facts.verdict else ())
            ],
            metrics=METRICS,
            labels=LABELS,
            model=_public(facts.model),
            titled=any(chunk.title for chunk in facts.chunks),
            hybrid=(facts.fusion or Fusion()) if words["key"] == "ship-hybrid" else None,
        )
    )
    front = yaml.safe_dump(_front(facts), allow_unicode=True, sort_keys=False)
    return f"---\n{front}---\n\n{body.strip()}\n"


def _rows(facts: ReportFacts, full: str) -> list[tuple[str, int | str, Mapping[str, float]]]:
    """(system, dimension, metrics) of base and candidate, then of the candidate's dimensions."""
    if facts.verdict is None:
        return []
    names = dict.fromkeys((facts.verdict.base, facts.verdict.candidate))
    found = [system for name in names if (system := facts.system(name))]
    rows: list[tuple[str, int | str, Mapping[str, float]]] = [
        (_public(system.name), full, system.metrics) for system in found
    ]
    if found and found[-1].name == facts.verdict.candidate:
        dims = sorted(found[-1].dims.items(), reverse=True)
        rows += [(_public(found[-1].name), dimension, metrics) for dimension, metrics in dims]
    return rows


def _front(facts: ReportFacts) -> dict[str, Any]:
    """The front matter of model hubs, ``model-index`` as sentence-transformers writes it."""
    languages = Counter(chunk.language for chunk in facts.chunks)
    left_out = {flag.language for flag in facts.verdict.not_for} if facts.verdict else set()
    candidate = facts.system(facts.verdict.candidate) if facts.verdict else None
    known = HUB_NAME.fullmatch(facts.base_model) is not None
    front: dict[str, Any] = {
        "language": [
            name
            for name, _ in languages.most_common()
            if LANGUAGE.fullmatch(name) and name not in left_out
        ],
        "license": shown(facts.license),
        "base_model": facts.base_model if known else "",
        "base_model_relation": "finetune" if known else "",
        "datasets": [facts.dataset] if HUB_NAME.fullmatch(facts.dataset) else [],
        "pipeline_tag": "sentence-similarity",
        "library_name": "sentence-transformers",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction",
                 "information-retrieval", "embedtune"],
        "metrics": list(METRICS) if candidate else [],
    }  # fmt: skip
    if candidate:
        front["model-index"] = [
            {
                "name": cut(_public(facts.model) or facts.title, 100),
                "results": [
                    _result(facts, f"dimension {dimension}", metrics)
                    for dimension, metrics in sorted(candidate.dims.items(), reverse=True)
                ]
                or [_result(facts, "full", candidate.metrics)],
            }
        ]
    return {key: value for key, value in front.items() if value}


def _result(facts: ReportFacts, name: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "task": {"type": "information-retrieval", "name": "Information Retrieval"},
        "dataset": {
            "type": "custom",
            "name": cut(f"{facts.title}, {facts.split_name}, {name}", 160),
        },
        "metrics": [
            {"type": metric, "name": LABELS[metric], "value": round(float(metrics[metric]), 4)}
            for metric in METRICS
            if math.isfinite(metrics.get(metric, math.nan))
        ],
    }


def _public(name: str) -> str:
    """A hub name as it is, a folder by its last part: a card tells nothing about this machine."""
    return name if HUB_NAME.fullmatch(name) else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
