"""What a language model is asked about a set of chunks: every request, before any is sent.

Generation, the preview and the estimate all start from here, so that they speak of the same.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from embedtune.files import visible
from embedtune.language import language_of
from embedtune.queries.checks import STAGE
from embedtune.queries.comparison import choose_pairs
from embedtune.queries.examples import Examples, choose_examples, gather_examples
from embedtune.queries.prompts import (
    COMPARISON,
    STYLES,
    Prompt,
    Style,
    comparison_prompt,
    queries_prompt,
)
from embedtune.queries.worth import not_worth_asking
from embedtune.records import Chunk, Document, Query, Reject, content_id
from embedtune.settings import PositiveInt, Settings

TABLE_RULE = "|-"  # stands under the column names of a Markdown table

Persona = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class QuerySettings(Settings):
    """Where queries come from, and what they should look like."""

    model_config = ConfigDict(populate_by_name=True)

    source: Literal["llm", "extractive", "file"] = Field(
        "llm",
        alias="from",
        description="llm: written by the language model; extractive: taken from the text, free of "
        "charge; file: only the real queries in queries.file",
    )
    file: Path | None = Field(
        None,
        description="Real queries, beside those of any source: a line each (query, tab, quote or "
        "file name), JSONL or CSV",
    )
    per_chunk: PositiveInt = Field(2, description="Queries asked for a chunk")
    language: Literal["document", "en", "zh"] = Field(
        "document", description="Language of the queries; document is each chunk's own"
    )
    styles: Annotated[tuple[Style, ...], Field(min_length=1)] = Field(
        ("question", "keywords", "colloquial"),
        description=f"Styles to take turns in: {', '.join(STYLES)}; comparison asks about two "
        "passages of one document at a time, in requests of its own",
    )
    comparisons: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2,
        description="Comparison queries asked for at most, as a share of the chunks; only where "
        "styles name comparison",
    )
    personas: tuple[Persona, ...] = Field(
        (),
        description="Who asks, taking turns: a list such as [a night-shift nurse, 新来的会计]",
    )
    examples: Path | None = Field(
        None,
        description="Text file of real queries, a line each, whose tone is imitated; a handful of "
        "those in queries.file is used too",
    )
    answers: bool = Field(
        False,
        description="Have each query answered in words too, for pairs of question and answer",
    )
    ungrounded: Literal["flag", "reject"] = Field(
        "flag",
        description="What to do with a query whose evidence is not in the passage, or whose answer "
        "says more than the passage",
    )
    min_characters: PositiveInt = Field(
        20, description="Letters and digits (Chinese counts double) below which a chunk is not sent"
    )
    max_characters: PositiveInt = Field(
        12_000, description="Characters of a chunk that are sent; the rest is left out and counted"
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """One request: what it shows, and what it asks for.

    ``passages`` are one chunk, or the two of a comparison. ``styles`` has one for each query
    asked for.
    """

    passages: tuple[Chunk, ...]
    document: Document | None
    prompt: Prompt
    styles: tuple[Style, ...]
    language: str  # the queries are due in
    persona: str
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """All that the passages say."""
        return "\n".join(chunk.text for chunk in self.passages)

    @property
    def context(self) -> str:
        """What else of the document the model is shown: its title and the headings."""
        title = self.document.title if self.document else ""
        return "\n".join([title, *(label for chunk in self.passages for label in chunk.section)])

    @property
    def item(self) -> str:
        """The ids of the passages, as rejects name them."""
        return " ".join(chunk.id for chunk in self.passages)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every request, comparisons last, and a reject for each chunk that is not asked about."""

    askings: tuple[Asking, ...]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...]


def plan_requests(
    chunks: Sequence[Chunk],
    documents: Iterable[Document],
    settings: QuerySettings,
    real: Sequence[Query] = (),
) -> Plan:
    """What is asked about ``chunks``, in their order; the same input, the same requests.

    Args:
        real: The user's own queries; those flagged by ``mark_examples`` are shown as examples.

    Raises:
        ConfigError: The file of examples cannot be read.
    """
    by_id = {document.id: document for document in documents}
    examples = gather_examples(settings.examples, real)
    skipped = not_worth_asking(chunks, settings.min_characters)
    rejects = tuple(
        Reject(STAGE, *skipped[chunk.id], file=chunk.source, item=chunk.id, unusable=False)
        for chunk in chunks
        if chunk.id in skipped
    )
    worth = [chunk for chunk in chunks if chunk.id not in skipped]
    styles = tuple(style for style in settings.styles if style != COMPARISON)
    askings = [
        _of_chunk(chunk, by_id.get(chunk.document), settings, styles, examples)
        for chunk in (worth if styles else ())
    ]
    notes = []
    if COMPARISON in settings.styles:
        wanted = max(1, round(settings.comparisons * len(worth)))
        pairs = choose_pairs(worth, wanted)
        askings += [
            _of_pair(pair, by_id.get(pair[0].document), settings, examples) for pair in pairs
        ]
        if len(pairs) < wanted:
            notes.append(
                f"{len(pairs)} of {wanted} comparisons could be asked for: no more passages of one "
                "document are about related things"
            )
    limit = settings.max_characters
    cut = {
        chunk.id
        for asking in askings
        for chunk in asking.passages
        if len(chunk.text) > limit // len(asking.passages)
    }
    if cut:
        halves = ", those of comparisons to half of it" if COMPARISON in settings.styles else ""
        notes.append(f"{len(cut)} chunks were sent cut to {limit:,} characters{halves}")
    return Plan(tuple(askings), rejects, tuple(notes))


def _of_chunk(
    chunk: Chunk,
    document: Document | None,
    settings: QuerySettings,
    styles: Sequence[Style],
    examples: Examples,
) -> Asking:
    language = _language(chunk, settings)
    turn = turn_of(chunk)
    asked = tuple(styles[(turn + place) % len(styles)] for place in range(settings.per_chunk))
    shown = choose_examples(examples, language, chunk.document, turn)
    persona = _persona(settings, turn, len(styles))
    passage = chunk.text[: settings.max_characters]
    table = chunk.kind == "table"
    header = chunk.title if table and TABLE_RULE not in chunk.text.replace(" ", "") else ""
    prompt = queries_prompt(
        passage,
        language=language if language in ("en", "zh") else "",
        styles=asked,
        digest=content_id("", passage),
        source=_source(chunk, document),
        section=_section(chunk),
        examples=shown,
        persona=persona,
        answers=settings.answers,
        table=table,
        header=visible(header, 500),
    )
    return Asking((chunk,), document, prompt, asked, language, persona, shown)


def _of_pair(
    pair: tuple[Chunk, Chunk],
    document: Document | None,
    settings: QuerySettings,
    examples: Examples,
) -> Asking:
    first, second = pair
    language = _language(first, settings)
    turn = turn_of(*pair)
    shown = choose_examples(examples, language, first.document, turn)
    persona = _persona(settings, turn, 1)
    texts = [chunk.text[: max(1, settings.max_characters // 2)] for chunk in pair]
    prompt = comparison_prompt(
        texts[0],
        texts[1],
        language=language if language in ("en", "zh") else "",
        digest=content_id("", *texts),
        source=_source(first, document),
        sections=(_section(first), _section(second)),
        examples=shown,
        persona=persona,
        answers=settings.answers,
    )
    return Asking(pair, document, prompt, (COMPARISON,), language, persona, shown)


def turn_of(*chunks: Chunk) -> int:
    """Where chunks stand in any round of turns; stable, and even over the chunks."""
    name = " ".join(chunk.id for chunk in chunks)
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _persona(settings: QuerySettings, turn: int, styles: int) -> str:
    """Takes turns slower than the styles, so that each persona comes to write in all of them."""
    if not settings.personas:
        return ""
    return settings.personas[turn // styles % len(settings.personas)]


def _language(chunk: Chunk, settings: QuerySettings) -> str:
    if settings.language != "document":
        return settings.language
    return chunk.language or language_of(chunk.text)


def _source(chunk: Chunk, document: Document | None) -> str:
    return visible(document.title or document.source if document else chunk.source, 200)


def _section(chunk: Chunk) -> str:
    return visible(" › ".join(chunk.section), 200)
