"""The section on the data itself: what the audit found, lengths against the limit, balance."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedtune.language import LANGUAGES
from embedtune.report import charts
from embedtune.report.render import cut, percent
from embedtune.report.texts import Texts, teller
from embedtune.report.verdict import language_words

FINDINGS = 40  # listed; an audit has some twenty
EXAMPLES = 3
DRAWN = 4  # charts of lengths
BARS = 12  # of a balance chart
FEWEST = 2  # kinds that make a chart


def audit_section(audit: Mapping[str, Any] | None, texts: Texts) -> dict[str, Any] | None:
    """What the page shows of an audit's JSON; None without one.

    Args:
        audit: As ``Audit.as_json`` gives it.
    """
    if audit is None:
        return None
    t = teller(texts)
    counts = {
        severity: sum(finding["severity"] == severity for finding in audit["findings"])
        for severity in ("stops", "warns", "informs")
    }
    return {
        "summary": t("audit.summary", **counts),
        "findings": [_finding(finding, texts) for finding in audit["findings"][:FINDINGS]],
        "leaks": _leaks(audit),
        "leak_pairs": audit["leaks"]["pairs"],
        "lengths": [_lengths(one, audit["model"], texts) for one in _telling(audit["lengths"])],
        "balance": [
            found for one in audit["balance"] if (found := _balance(one, texts)) is not None
        ],
    }


def _finding(finding: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    message, advice = finding["message"], finding["advice"]
    own = f"finding.{finding['code']}"
    if own in texts:  # English is said where it is found
        numbers = {"percent": percent(finding["share"]), **finding["numbers"],
                   "language": language_words(finding["language"], texts)}  # fmt: skip
        message = texts[own].format(count=finding["count"], total=finding["total"], **numbers)
        advice = texts[f"{own}.do"] if advice else ""
    return {
        "code": finding["code"],
        "severity": finding["severity"],
        "message": message,
        "advice": advice,
        "examples": [
            {"ids": ", ".join(example["ids"]), "texts": example["texts"], "note": example["note"]}
            for example in finding["examples"][:EXAMPLES]
        ],
    }


def _leaks(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each kind of text and of leak, with an example."""
    rows = []
    for row in audit["leaks"]["by_kind"]:
        found = next(
            (
                finding
                for finding in audit["findings"]
                if finding["code"] == f"{row['what']}-leak-{row['kind']}"
            ),
            None,
        )
        rows.append(
            {
                "what": row["what"],
                "kind": row["kind"],
                "pairs": row["pairs"],
                "count": found["count"] if found else None,
                "share": percent(found["share"]) if found else "–",
                "example": found["examples"][0] if found and found["examples"] else None,
            }
        )
    return rows


def _telling(lengths: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lengths worth a chart: of most texts, passages before queries."""
    ordered = sorted(
        lengths, key=lambda one: (one["role"] == "query", -one["texts"], one["language"])
    )
    return ordered[:DRAWN]


def _lengths(one: Mapping[str, Any], model: str, texts: Texts) -> dict[str, Any]:
    t = teller(texts)
    language = language_words(one["language"], texts)
    numbers = {
        "what": t(f"audit.{one['role']}", language=language),
        "texts": f"{one['texts']:,}",
        "model": cut(model, 80),
        "limit": f"{one['limit']:,}",
        "cut": percent(one["cut"] / one["texts"]) if one["texts"] else "–",
        "lost": percent(one["tokens_cut"]),
        "median": f"{one['median']:,}",
        "longest": f"{one['longest']:,}",
        "unknown": percent(one["unknown"]),
    }
    label = t("audit.lengths.label", **numbers)
    line = t("audit.limit", limit=numbers["limit"])
    axes = (t("audit.tokens"), t("audit.texts"))
    # far below the limit a chart shows nothing that the sentence does not
    drawn = one["longest"] > one["limit"] / 2
    return {
        "title": t("audit.lengths.of", **numbers),
        "sentence": t("audit.lengths.sentence", **numbers),
        "chart": charts.lengths_chart(one["bars"], one["limit"], axes, line, label)
        if drawn
        else None,
    }


def _balance(one: Mapping[str, Any], texts: Texts) -> dict[str, Any] | None:
    """Bars of how many there are of each kind; nothing where there is one kind only."""
    of_languages = one["of"].endswith("by language")
    known = {name: code for code, name in LANGUAGES.items()} if of_languages else {}
    rows = [(language_words(known.get(name, name), texts), count)
            for name, count in one["rows"][:BARS]]  # fmt: skip
    kinds = len(one["rows"]) + one["others"][0]
    if kinds < FEWEST:
        return None
    t = teller(texts)
    title = texts.get(f"balance.{one['of']}") or one["of"][:1].upper() + one["of"][1:]
    if kinds > len(rows):
        title = t("audit.balance.first", of=title, shown=len(rows), kinds=f"{kinds:,}")
    numbers = "; ".join(f"{cut(name, 60)} {count:,}" for name, count in rows)
    return {
        "title": title,
        "chart": charts.counts_chart(rows, t("audit.balance.label", of=title, numbers=numbers)),
    }
