"""Every reason a verdict can give, in words; the verdict keeps its codes and what they name."""

from collections.abc import Mapping
from string import Formatter

# A further language is a further table with the same keys.
REASONS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "ship": "Ship {candidate}: it retrieves better than {base}, {metric} {a} against {b}, a "
        "gain of {gain} (95 % interval {low} to {high}, {queries} queries in "
        "{groups} groups).",
        "ship-hybrid": "Ship {candidate} together with BM25: {metric} {a}, significantly above "
        "{candidate} alone ({b}), BM25 alone ({c}) and {base} with BM25 ({d}).",
        "worse": "Do not ship {candidate}: it is worse than {base}, {metric} {a} against {b}, a "
        "loss of {loss} (95 % interval {low} to {high}, {queries} queries in "
        "{groups} groups).",
        "bm25-wins": "Do not ship {candidate}: BM25 wins, {metric} {c} against {a} for "
        "{candidate} and {best_hybrid} for the better of the two hybrids.",
        "untuned": "No model was tuned: {base} stands as it is, {metric} {b}.",
        "same": "{candidate} ranks exactly as {base} does; there is nothing to ship.",
        "no-gain": "It is not shown that {candidate} is better than {base}: {metric} {a} against "
        "{b}, a difference of {gain} (95 % interval {low} to {high}, {queries} "
        "queries in {groups} groups).",
        "small-gain": "{candidate} is better than {base} by {gain} {metric} (95 % interval "
        "{low} to {high}, {queries} queries in {groups} groups), less than "
        "the {min_gain} that is worth a change.",
        "test-disagrees": "The interval of the gain is above zero, but with {groups} groups the "
        "randomisation test must agree, and it does not (p = {p} after Holm).",
        "below-bm25": "BM25 alone is better than {candidate}: {metric} {c} against {a}; a hybrid "
        "was not shown to beat both.",
        "probe-lost": "The model forgets too much in general. General probe {probe}: nDCG@10 "
        "{before} before, {after} after ({asked} queries); a loss of {lost} ({low} to {high}) is "
        "more than the {allowed} allowed.",
        "probe-chance": "General probe {probe}: nDCG@10 {before} before, {after} after ({asked} "
        "queries); the loss of {lost} ({low} to {high}) may be no more than the {allowed} allowed.",
        "probe-kept": "General probe {probe}: nDCG@10 {before} before, {after} after ({asked} "
        "queries); nothing that matters was forgotten.",
        "probe-uncounted": "General probe {probe} does not count: the base scores {before} "
        "({asked} queries), and only {counts_from} to {counts_to} leave a loss to be seen.",
        "no-probe": "What the model may have forgotten elsewhere was not measured (no probe).",
        "few-groups": "The test queries stand in only {groups} groups of documents; under "
        "{min_groups} nothing is shipped, and {sure} settle more.",
        "smallest": "This test set shows gains from about {smallest} up: a smaller one is missed "
        "more than once in five times.",
        "settle": "{needed} test queries or more would settle it, if the difference stays as it "
        "is: {more} more, in about {more_groups} more groups as large as the {groups} there are.",
        "settle-least": "The difference seen is smaller than what is worth a change; "
        "{needed} test queries or more would show a gain of {min_gain}: {more} more, in about "
        "{more_groups} more groups as large as the {groups} there are.",
        "cannot-settle": "The difference is so small, or so unsteady, that no realistic number of "
        "queries would settle it.",
        "blocked": "The figures alone would say {name}, but they cannot be relied on: {flags}.",
        "against": "Against {other}: {gain} {metric} (95 % interval {low} to {high}, {queries} "
        "queries in {groups} groups).",
        "against-rival": "Against the best rival, {other}: {gain} {metric} (95 % interval "
        "{low} to {high}, {queries} queries in {groups} groups).",
        "base-hybrid": "{base} with BM25, without any tuning, reaches {metric} {d}.",
        "flag": "{message}.",
        "flag-language": "Do not use {candidate} for {language} text: {message}. The verdict is "
        "on the other {queries} queries.",
    }
}


def named(text: str, facts: Mapping[str, object]) -> dict[str, str]:
    """Those of the facts that a text names."""
    return {name: str(facts[name]) for _, name, _, _ in Formatter().parse(text) if name}
