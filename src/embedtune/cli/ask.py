"""The command ask: answers from an index, with citations."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedtune.cli.console import Console, emit, table
from embedtune.cli.options import (
    Config,
    How,
    IndexModel,
    IndexPlace,
    Json,
    Overrides,
    Quiet,
    Rerank,
    check_how,
    load_settings,
)
from embedtune.errors import ConfigError

if TYPE_CHECKING:
    from embedtune.retrieve.answer import Answer

MARKS = {
    "uncited": "This answer names no passage; it may not come from the documents.",
    "nothing-found": "No passage was found.",
    "weak": "No passage is close enough to the question, so no language model was asked.",
    "model": "The language model found no answer in the passages.",
}


def ask(
    question: Annotated[str, typer.Argument(help="In any language the model reads.")],
    place: IndexPlace,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Passages shown to the LLM.")] = 6,
    how: How = "auto",
    rerank: Rerank = None,
    min_score: Annotated[
        str,
        typer.Option("--min-score", help="Least vector score to answer at all; auto: the index's."),
    ] = "auto",
    compare: Annotated[
        str | None,
        typer.Option("--compare", help="Index, or model over the same passages, as before."),
    ] = None,
    no_llm: Annotated[
        bool, typer.Option("--no-llm", help="Quote the best sentences; ask no language model.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer while it is written.")
    ] = True,
    model: IndexModel = None,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Answer a question from an index, with checked citations.

    Any OpenAI-compatible language model writes the answer; with --no-llm it is sentences of the
    documents, word for word.

    Example: embedtune ask "what does a night shift cost?" --index index/ --set llm.model=gpt-4o
    """
    from embedtune.pipeline import asking

    if not question.strip():
        raise ConfigError("the question is empty; ask something")
    check_how(how)
    least = _threshold(min_score)
    settings, console = load_settings(config, overrides), Console(quiet=quiet)
    with asking.open_answerer(
        place,
        settings,
        console,
        k=k,
        how=how,
        model=model,
        rerank=rerank,
        min_score=least,
        no_llm=no_llm,
    ) as answerer:
        if compare is None:
            piece = _print if stream and not json else None
            found = asking.ask(answerer, question, piece)
            rest = _below(found) if piece else _text(found)
            emit(found.as_json(), as_json=json, text=lambda: rest)
            return 0
        with asking.open_other(compare, answerer, console, min_score=least) as other:
            before = asking.ask(other, question)
        after = asking.ask(answerer, question)
    moved = asking.moves(before, after)
    result: dict[str, Any] = {
        "question": question,
        "before": {"index": compare, **before.as_json()},
        "after": {"index": place, **after.as_json()},
        "moves": [{"id": own.id, "before": own.before, "after": own.after} for own in moved],
    }
    shown = table(
        ["passage", "before", "after"],
        [[_line(own.text, 76), _place(own.before), _place(own.after)] for own in moved],
    )
    parts = [shown]
    for name, label, answer in (("before", compare, before), ("after", place, after)):
        parts.append(f"--- {name}: {_line(label, 70)}\n\n{_text(answer)}")
    emit(result, as_json=json, text=lambda: "\n\n".join(parts))
    return 0


def _threshold(text: str) -> Any:
    if text in ("auto", "off"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise ConfigError(f"--min-score {_line(text, 40)}: expected a number, auto or off")
    return value


def _print(piece: str) -> None:
    print(_lines(piece), end="", flush=True)


def _text(answer: "Answer") -> str:
    return (_lines(answer.text) + _below(answer)).strip()


def _below(answer: "Answer") -> str:
    """What stands under the text: where it is from, and what it is worth."""
    parts = [""]
    if answer.citations:
        lines = []
        for own in answer.citations:
            lines.append(f"[{own.number}] {_line(own.place, 200)}")
            if answer.status != "quoted":
                lines.append(f'    "{_line(own.quote, 260)}"')
        parts.append("\n".join(lines))
    notes = []
    if mark := MARKS.get(answer.reason) or MARKS.get(answer.status):
        notes.append(mark)
    if answer.best is not None and answer.reason == "weak":
        notes.append(f"The best passage has a vector score of {answer.best:.3f}.")
    if answer.removed:
        told = ", ".join(f"[{number}]" for number in answer.removed)
        notes.append(f"Removed from the answer, since no passage has that number: {told}.")
    if answer.finish == "length":
        notes.append("The answer was cut off; raise llm.max_tokens.")
    if answer.finish in ("content_filter", "refusal"):
        notes.append("The language model declined to answer.")
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _place(number: int | None) -> str:
    return "-" if number is None else str(number)


def _lines(text: str) -> str:
    """Text of a model, fit for a terminal: its lines stay, control characters do not."""
    from embedtune.files import visible

    return "\n".join(
        "\t".join(visible(part, max(1, len(part))) for part in line.split("\t"))
        for line in text.split("\n")
    )


def _line(text: str, limit: int) -> str:
    from embedtune.files import visible

    return visible(" ".join(text.split()), limit)
