"""A few of the user's real queries, shown so that generated ones sound like them.

They teach the tone and nothing else. A real query is never shown for its own document, a
generated copy of one that was shown is rejected, and of the real queries that have evidence, and
so may become test questions, only a handful is ever shown.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedtune.errors import ConfigError
from embedtune.files import read_text
from embedtune.language import language_of
from embedtune.queries.checks import LONGEST_QUERY, clean_query
from embedtune.records import Query, content_id
from embedtune.similar import MIN_CHARACTERS, alike, normalise

FLAG = "example"  # of a real query that models may be shown
SHOWN = 5  # in one request
HANDFUL = 10  # real queries of a language that are ever shown, but
SHARE = 5  # at most one in so many


@dataclass(frozen=True, slots=True)
class Example:
    """A real query; ``documents`` hold its answer, as far as that is known."""

    text: str
    documents: frozenset[str] = frozenset()


Examples = Mapping[str, Sequence[Example]]  # by language


def mark_examples(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The same queries, a handful of the real ones flagged ``example``.

    Of each language at most 10, and at most a fifth; which ones follows from their text. None of
    the others is ever shown to a model that writes queries.
    """
    by_language: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        if query.origin == "user":
            by_language[query.language].append(query)
    chosen = set()
    for own in by_language.values():
        order = sorted(own, key=lambda query: content_id("", query.text))
        chosen |= {query.id for query in order[: min(HANDFUL, len(own) // SHARE)]}
    return tuple(
        replace(query, flags=(*query.flags, FLAG))
        if query.id in chosen and FLAG not in query.flags
        else query
        for query in queries
    )


def gather_examples(path: Path | None, real: Sequence[Query]) -> Examples:
    """The lines of ``path``, each once, in their order; then the flagged ones among ``real``.

    Raises:
        ConfigError: The file cannot be read.
    """
    grouped: dict[str, list[Example]] = defaultdict(list)
    for line in _lines(path) if path is not None else ():
        grouped[language_of(line)].append(Example(line))
    known = {example.text for own in grouped.values() for example in own}
    for query in real:
        if FLAG in query.flags and query.text not in known:
            documents = frozenset(span.document for span in query.spans)
            grouped[language_of(query.text)].append(Example(query.text, documents))
    return grouped


def choose_examples(examples: Examples, language: str, document: str, turn: int) -> tuple[str, ...]:
    """Up to five for a passage of ``document``, none that the document itself answers."""
    fitting = [
        example.text for example in examples.get(language, ()) if document not in example.documents
    ]
    shown = min(SHOWN, len(fitting))
    return tuple(fitting[(turn + place) % len(fitting)] for place in range(shown))


def copied_example(text: str, shown: Sequence[str]) -> bool:
    """Whether ``text`` is one of the examples, or nearly."""
    own = normalise(text)
    others = [normalise(example) for example in shown]
    return own in others or any(
        min(len(own), len(other)) >= MIN_CHARACTERS and alike(own, other) for other in others
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"queries.examples: {path} cannot be read ({error})") from error
    cleaned = (clean_query(line.partition("\t")[0])[:LONGEST_QUERY] for line in lines)
    found = [line for line in dict.fromkeys(cleaned) if line]
    if not found:
        raise ConfigError(f"queries.examples: {path} holds no line of text")
    return found
