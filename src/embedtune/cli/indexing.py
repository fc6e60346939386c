"""Commands over indexes: index, search."""

from collections.abc import Sequence
from pathlib import Path
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
    from embedtune.records import Chunk


def index(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Documents; or a run, a folder of chunks, or a BEIR folder."),
    ] = [],  # noqa: B006  (typer copies it)
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder of the index, or address of a database.")
    ] = "",
    model: Annotated[
        str | None,
        typer.Option("--model", help="MODEL or openai:MODEL; else that of the run or the index."),
    ] = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Let FAISS search (extra faiss).")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, whatever the index holds.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Folder for Parquet, NPY and JSONL of the whole index."),
    ] = None,
    config: Config = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make an index to search, or bring one up to date; only new and changed texts are embedded.

    Passages that are no longer in the sources are removed. Run it again to go on after a stop.

    Example: embedtune index docs/ --model model/ --out index/
    """
    from embedtune.pipeline.indexing import export_index, index_into

    if not out.strip():
        raise ConfigError("--out: expected the folder of an index, or the address of a database")
    if not sources and export is None:
        raise ConfigError("index: expected documents, a run, a folder of chunks or a BEIR folder")
    result: dict[str, Any] = {"index": out}
    lines, code = [], 0
    if sources:
        done = index_into(
            sources, out, load_settings(config, overrides), Console(quiet=quiet), model=model,
            approximate=approximate, fresh=fresh,
        )  # fmt: skip
        result, lines, code = done.as_json(), [done.text()], 4 if done.unusable else 0
    if export is not None:
        count = export_index(out, export)
        result["export"] = {"folder": str(export), "passages": count}
        lines.append(f"{export}: {count:,} passages as Parquet, and as JSONL with NPY")
    emit(result, as_json=json, text=lambda: "\n".join(lines))
    return code


def search(
    query: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    place: IndexPlace = "",
    queries: Annotated[
        Path | None, typer.Option("--queries", help="File with a query a line, or JSONL with text.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many passages.")] = 5,
    how: How = "auto",
    rerank: Rerank = None,
    model: IndexModel = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Without an index: BEIR folder, or chunks.")
    ] = None,
    system: Annotated[
        str, typer.Option("--system", help="For --data: bm25, MODEL, hybrid:MODEL, openai:MODEL.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Search an index; or, without one, a BEIR folder or the folder left by chunk.

    Example: embedtune search "who pays for night shifts?" --index index/
    """
    from embedtune.config import load_environment
    from embedtune.records import Reject

    if (query is None) == (queries is None):
        raise ConfigError("search: expected a query, or --queries with a file of them")
    if not (place or (data and system)) or (place and (data or system)):
        raise ConfigError("search: expected --index; or --data and --system, both")
    load_environment(Path.cwd())
    console = Console(quiet=quiet)
    if data is not None:
        if query is None or rerank or model or how != "auto":
            raise ConfigError("search: with --data give one query, and --system alone says how")
        from embedtune.pipeline.models import search_passages

        hits = search_passages(query, data, system, k, console)
        result = {"query": query, "system": system, "hits": _rows(hits)}
        emit(result, as_json=json, text=lambda: _shown(hits))
        return 0
    check_how(how)
    from embedtune.pipeline.indexing import queries_in, search_index

    rejects: list[Reject] = []
    texts = queries_in(queries, rejects) if queries else [query or ""]
    console.error(f"{reject.file}:{reject.line}: {reject.message}" for reject in rejects)
    used, found = search_index(texts, place, k, console, how=how, model=model, rerank=rerank)
    told: dict[str, Any] = {"index": place, "how": used}
    if queries is None:
        told |= {"query": query, "hits": _rows(found[0])}
    else:
        told["results"] = [
            {"query": text, "hits": _rows(hits)} for text, hits in zip(texts, found, strict=True)
        ]
    emit(told, as_json=json, text=lambda: _all_shown(texts, found))
    return 4 if rejects else 0


def _rows(hits: "Sequence[tuple[Chunk, float]]") -> list[dict[str, Any]]:
    return [
        {"id": chunk.id, "score": score, "source": chunk.source, "page": chunk.page,
         "section": list(chunk.section), "title": chunk.title, "text": chunk.text}
        for chunk, score in hits
    ]  # fmt: skip


def _shown(hits: "Sequence[tuple[Chunk, float]]") -> str:
    from embedtune.files import visible

    return table(
        ["passage", "score"],
        [[visible(" ".join(chunk.embedded.split()), 90), f"{score:.3f}"] for chunk, score in hits],
    )


def _all_shown(queries: Sequence[str], found: "Sequence[Sequence[tuple[Chunk, float]]]") -> str:
    from embedtune.files import visible

    if len(queries) == 1:
        return _shown(found[0])
    return "\n\n".join(
        f"{visible(query, 200)}\n{_shown(hits)}" for query, hits in zip(queries, found, strict=True)
    )
