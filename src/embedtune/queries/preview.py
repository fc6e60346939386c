"""A look at the queries of a few chunks before all are paid for."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedtune.files import visible
from embedtune.llm.recorded import RecordedChat, Usage
from embedtune.queries.asking import Asking, QuerySettings, plan_requests, turn_of
from embedtune.queries.generate import ask, read_reply
from embedtune.queries.prompts import COMPARISON
from embedtune.records import Chunk, Document, Progress, Query, Reject, no_progress

EXCERPT = 240  # characters of a passage shown


@dataclass(frozen=True, slots=True)
class Sample:
    """What one request gave. A comparison has two passages."""

    passages: tuple[Chunk, ...]
    queries: tuple[Query, ...]
    rejects: tuple[Reject, ...]

    def lines(self) -> list[str]:
        """For people: where the passage stands, how it begins, what was made of it."""
        shown = []
        for chunk in self.passages:
            place = [chunk.source, *chunk.section]
            if chunk.page is not None:
                place.append(f"p. {chunk.page}")
            shown += [visible(" › ".join(place), 120), f"  {visible(_excerpt(chunk), EXCERPT)}"]
        for query in self.queries:
            traits = ", ".join(filter(None, (query.style, query.persona, *query.flags)))
            shown.append(f"  - {visible(query.text, 500)}  [{visible(traits, 300)}]")
            if query.answer:
                shown.append(f"    = {visible(query.answer, 1000)}")
        shown += [f"  x {reject.code}: {visible(reject.message, 200)}" for reject in self.rejects]
        return shown


@dataclass(frozen=True, slots=True)
class Preview:
    """Samples, and what asking for them took. The full run pays for none of them again."""

    samples: tuple[Sample, ...]
    usage: Usage
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "samples": [
                {
                    "passages": [
                        {"chunk": chunk.id, "source": chunk.source, "section": chunk.section,
                         "page": chunk.page, "excerpt": _excerpt(chunk)[:EXCERPT]}
                        for chunk in sample.passages
                    ],
                    "queries": [asdict(query) for query in sample.queries],
                    "rejects": [asdict(reject) for reject in sample.rejects],
                }
                for sample in self.samples
            ],
            "usage": asdict(self.usage),
            "notes": self.notes,
        }  # fmt: skip


def preview_queries(
    chunks: Sequence[Chunk],
    documents: Iterable[Document],
    chat: RecordedChat,
    settings: QuerySettings,
    count: int = 5,
    progress: Progress = no_progress,
    *,
    real: Sequence[Query] = (),
) -> Preview:
    """The queries of ``count`` chunks, as the full run would make them, with what it would reject.

    Languages take turns, and the documents of each; where comparisons are asked for, one of the
    ``count`` is one. The same chunks are chosen every time. What only shows among all queries
    (repeats) is not looked for.

    Args:
        real: See `generate_queries`.

    Raises:
        ServiceError, Interrupted, ConfigError: See `generate_queries`.
    """
    plan = plan_requests(chunks, documents, settings, real)
    chosen = _spread(plan.askings, count)
    samples = []
    for asking, reply in zip(chosen, ask(chosen, chat, progress), strict=True):
        rejects: list[Reject] = []
        queries = read_reply(asking, reply, chat, settings, rejects)
        samples.append(Sample(asking.passages, tuple(queries), tuple(rejects)))
    return Preview(tuple(samples), chat.usage, (*chat.notes, *plan.notes))


def _spread(askings: Sequence[Asking], count: int) -> list[Asking]:
    """By turns over languages, then documents; which one of a document follows from its content.

    The last one is a comparison, if there is any.
    """
    singles: dict[str, dict[str, list[Asking]]] = defaultdict(lambda: defaultdict(list))
    pairs = [asking for asking in askings if COMPARISON in asking.styles]
    for asking in askings:
        if COMPARISON not in asking.styles:
            singles[asking.language][asking.passages[0].document].append(asking)
    last = pairs[:1] if count > 1 or not singles else []
    by_language = []
    for language in sorted(singles):
        queues = [sorted(own, key=_turn) for own in singles[language].values()]
        by_language.append(_in_turns(sorted(queues, key=lambda queue: _turn(queue[0]))))
    return [*_in_turns(by_language)[: count - len(last)], *last]


def _turn(asking: Asking) -> tuple[int, str]:
    return turn_of(*asking.passages), asking.item


def _in_turns(queues: Sequence[Sequence[Asking]]) -> list[Asking]:
    """The first of each, then the second of each, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _excerpt(chunk: Chunk) -> str:
    return " ".join(chunk.text.split())
