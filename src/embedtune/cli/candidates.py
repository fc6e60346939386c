"""What ``candidates`` prints: what each model is worth, what it costs, what to take."""

from typing import TYPE_CHECKING

from embedtune.cli.console import table
from embedtune.files import visible

if TYPE_CHECKING:
    from embedtune.evaluation.candidates import Candidate
    from embedtune.pipeline.candidates import Ranking
    from embedtune.pipeline.trying import Axis
    from embedtune.results import Difference

LANGUAGES = 4  # of a card, that are shown
UNKNOWN = "unknown"


def candidates_text(ranking: "Ranking") -> str:
    """Tables of quality with cost, of facts, and of languages; then the choice, in words."""
    measured = [own for own in ranking.candidates if own.scores]
    parts = [
        f"{ranking.queries} dev queries in {ranking.groups} groups",
        _quality(ranking, measured),
        _facts(measured),
        _coverage(measured),
    ]
    failed = [own for own in ranking.candidates if own.error]
    if failed:
        parts.append("\n".join(f"not measured: {_shown(own.name)}: {own.error}" for own in failed))
    parts += [_tried(axis) for axis in ranking.tried]
    parts.append(pick_text(ranking))
    if settings := ranking.settings():
        import yaml

        parts.append(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False).rstrip())
    return "\n\n".join(part for part in parts if part)


def pick_text(ranking: "Ranking") -> str:
    """The choice and its reasons, in a few lines."""
    found, metric = ranking.pick, ranking.metric
    if found is None:
        return "none of these can be trained: name models on this machine"
    by_name = {own.name: own for own in ranking.candidates}
    chosen, best = by_name[found.name], by_name[found.best]
    name, score = _shown(found.name), _score(chosen, metric)
    alike = ", ".join(map(_shown, found.alike))
    if found.code == "only":
        alone = len(ranking.candidates) == 1
        why = "the only one named" if alone else "no other could be measured and reads the text"
        lines = [f"take {name}: {why}"]
    elif found.code == "unreadable":
        lines = [
            f"{name} is the best ({metric} {score}), but none of these models reads the text; "
            "look for one of its language, or take static, which is made of the passages"
        ]
    elif found.code == "best":
        lines = [f"take {name}: the best on dev ({metric} {score})"]
        lines += [f"  dev cannot tell it from {alike}; none of them is lighter"] if alike else []
    else:
        below = found.below
        lines = [
            f"take {name}: {metric} {score} is {below.mean:.3f} below {_shown(found.best)}, which "
            f"dev cannot tell from nothing (95 % {_ends(below)}), and it is lighter: "
            f"{_weights(chosen)} instead of {_weights(best)}" if below else f"take {name}"
        ]  # fmt: skip
    over = chosen.over_bm25
    if over and over.high < 0:
        lines.append(f"  BM25 alone is better than it ({_signed(over)}): untrained, do not go "
                     "without BM25")  # fmt: skip
    elif over and over.low <= 0:
        lines.append(f"  dev cannot tell it from BM25 ({_signed(over)})")
    return "\n".join(lines)


def _quality(ranking: "Ranking", measured: "list[Candidate]") -> str:
    metric = ranking.metric
    triplets = any(own.triplets for own in measured)
    header = ["model", metric, f"95 % of {metric}", "over bm25", "95 % of that",
              *(["triplet accuracy"] if triplets else []), "passages/s", "ms a query",
              "parameters", "MB"]  # fmt: skip
    rows = []
    for own in measured:
        low, high = own.scores.intervals[metric] if own.scores else (0.0, 1.0)
        over = own.over_bm25
        facts = own.facts
        rows.append([
            _shown(own.name), _score(own, metric), f"{low:.3f} to {high:.3f}",
            f"{over.mean:+.3f}" if over else "", _ends(over) if over else "",
            *([_accuracy(own)] if triplets else []),
            f"{own.speed.passages_per_second:,.0f}" if own.speed else "",
            f"{own.speed.query_ms:.1f}" if own.speed else "",
            _millions(facts.parameters),
            f"{facts.bytes / 1e6:,.0f}" if facts.bytes else UNKNOWN,
        ])  # fmt: skip
    low, high = ranking.bm25.intervals[metric]
    rows.append(["bm25", f"{ranking.bm25.metrics[metric]:.3f}", f"{low:.3f} to {high:.3f}",
                 *[""] * (len(header) - 3)])  # fmt: skip
    return table(header, rows)


def _accuracy(own: "Candidate") -> str:
    return f"{own.triplets.metrics['cosine_accuracy']:.3f}" if own.triplets else ""


def _facts(measured: "list[Candidate]") -> str:
    rows = []
    for own in measured:
        facts = own.facts
        named = ", ".join(facts.languages[:LANGUAGES])
        more = len(facts.languages) - LANGUAGES
        local = own.trainable and own.facts.parameters is not None
        tokens = str(facts.max_tokens) if facts.max_tokens else "any" if local else UNKNOWN
        rows.append([
            _shown(own.name), str(facts.dimension or UNKNOWN), tokens,
            visible(facts.licence) or UNKNOWN,
            (visible(named) + (f" and {more} more" if more > 0 else "")) or UNKNOWN,
        ])  # fmt: skip
    return table(["model", "dimension", "tokens read", "licence", "languages"], rows)


def _coverage(measured: "list[Candidate]") -> str:
    rows = [
        [_shown(own.name), found.language, f"{found.texts:,}", f"{found.unknown:.1%}",
         f"{found.per_word:.2f}", f"{found.cut:.1%}",
         "cannot be trained on it" if own.unreadable is not None else ""]
        for own in measured
        for found in own.coverage
    ]  # fmt: skip
    header = ["model", "language", "texts", "unknown tokens", "tokens a word", "texts cut", ""]
    return table(header, rows) if rows else ""


def _tried(axis: "Axis") -> str:
    if not axis.choices:
        return f"{axis.axis}: nothing to try here"
    rows = []
    for choice in axis.choices:
        gain = choice.gain
        rows.append([
            choice.name, "" if choice.score is None else f"{choice.score:.3f}",
            f"{gain.mean:+.3f}" if gain else "", _ends(gain) if gain else "",
        ])  # fmt: skip
    told = [f"  {choice.name}: {choice.error}" for choice in axis.choices if choice.error]
    told.append(f"  {axis.chosen}: " + (
        "clearly better" if axis.changed else "stays; no other is clearly better"
    ))  # fmt: skip
    return "\n".join([table([axis.axis, "dev", "gain", "95 % of that"], rows), *told])


def _score(own: "Candidate", metric: str) -> str:
    return f"{own.scores.metrics[metric]:.3f}" if own.scores else ""


def _ends(found: "Difference") -> str:
    return f"{found.low:+.3f} to {found.high:+.3f}"


def _signed(found: "Difference") -> str:
    return f"{found.mean:+.3f}, 95 % {_ends(found)}"


def _weights(own: "Candidate") -> str:
    """How heavy it is, in words."""
    facts = own.facts
    speed = f", {own.speed.passages_per_second:,.0f} passages a second" if own.speed else ""
    return f"{_millions(facts.computing)} weights that compute of {_millions(facts.parameters)}" + (
        f"{speed}"
    )


def _millions(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 1e6:.1f} M"


def _shown(name: str) -> str:
    return visible(name, 60)
