"""Documents, chunks, a data set or a run into an index; and out of it again."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed import Embedder, Matrix, is_service
from embedtune.embed.adapted import base_of
from embedtune.embed.models import located
from embedtune.embed.opening import open_embedder
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.embed.remote import Purse
from embedtune.embed.tokens import Tokens
from embedtune.errors import ConfigError, NothingUsable
from embedtune.evaluation.systems import parse_system
from embedtune.files import read_jsonl, read_text, visible
from embedtune.language import LANGUAGES
from embedtune.pipeline.console import Console
from embedtune.pipeline.evidence import load_evidence
from embedtune.pipeline.models import vector_store
from embedtune.pipeline.openers import Openers
from embedtune.pipeline.recipes import open_recorded_chat
from embedtune.pipeline.steps import chunk_step, read_step
from embedtune.pipeline.stored import (
    CHUNKS,
    DATASET,
    EVALUATION,
    TRAINING,
    load_chunks,
    load_dataset,
    load_judgement,
    stage_facts,
)
from embedtune.pipeline.untrained import tokens_of
from embedtune.records import Chunk, Reject, as_row, unusable
from embedtune.retrieve.disk import APPROXIMATE, DiskStore
from embedtune.retrieve.index import Found, Index, Update, check_same, keep_words, prepare, update
from embedtune.retrieve.stores import STORES, How, IndexInfo, VectorStore, open_store
from embedtune.run import Recipe, StageFolder, build_folder, verify
from embedtune.store import Store

EXPORTED = 1024  # passages held at a time


@dataclass(frozen=True, slots=True)
class Indexed:
    """What ``embedtune index`` tells. ``recall``: of the exact ten, those that FAISS finds; None
    where the search is exact."""

    place: str
    info: IndexInfo
    passages: int
    update: Update
    recall: float | None
    unusable: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.place, **asdict(self.info), "passages": self.passages,
            **asdict(self.update), "recall@10": self.recall,
        }  # fmt: skip

    def text(self) -> str:
        lines = [
            f"{visible(self.place, 200)}: {self.passages:,} passages, "
            f"{self.info.dimension} numbers each, made by {visible(self.info.model)}",
            self.update.line(),
        ]
        if (least := self.info.min_score) is not None:
            lines.append(f"questions are answered from a vector score of {least:.3f} on")
        if self.recall is not None:
            lines.append(f"FAISS finds {self.recall:.1%} of what exact search finds (recall@10)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Passages:
    """What is to be indexed, and what its run says of how."""

    chunks: Sequence[Chunk]
    how: How | None = None
    weight: float | None = None
    unusable: bool = False


def index_into(
    sources: Sequence[Path],
    place: str,
    settings: RunSettings,
    console: Console,
    *,
    model: str | None = None,
    approximate: bool = False,
    fresh: bool = False,
) -> Indexed:
    """``embedtune index``: make ``place`` hold the passages of ``sources`` and no others.

    Args:
        sources: Documents; or one run directory, folder of chunks, or BEIR folder.
        place: See ``retrieve.stores.open_store``.
        model: Name or folder; None takes the tuned one of a run, or that of the index.
        approximate: Let FAISS search.
        fresh: Begin anew, whatever is there.
    """
    _check_apart(sources, place)
    stages = _stages(sources)
    with ExitStack() as held:
        store = held.enter_context(closing(open_store(place)))
        if approximate and not isinstance(store, DiskStore):
            raise ConfigError(f"--approximate: {store.name} has indexes of its own")
        own = _model_of_run(sources, stages)
        named = model or own or _model_of(store)
        if named is None:
            raise ConfigError("--model: expected the name or folder of the model that embeds")
        source = located(named)
        kept = sources[0] / ".vectors.sqlite" if stages else None
        vectors = held.enter_context(Store(kept if kept and kept.is_file() else vector_store()))
        openers = Openers(vectors, console, purse=Purse(settings.embedding))
        embedder = index_embedder(source, openers, recorded=bool(stages))
        if not fresh:
            check_same(store, embedder)
        if stages:
            found = _of_run(sources[0], stages, tuned=source == own, console=console)
        else:
            found = _of_folders(sources, source, settings, console)
        if not found.chunks:
            raise NothingUsable(f"{visible(sources[0])}: no passages to index")
        again = isinstance(store, DiskStore) and store.derived(APPROXIMATE) is not None
        info = prepare(
            store, embedder, source=source, how=found.how, weight=found.weight,
            min_score=advised_score(source), fresh=fresh,
        )  # fmt: skip
        done = update(store, found.chunks, embedder, console.progress("passages indexed"))
        keep_words(store)
        recall = None
        if isinstance(store, DiskStore) and (approximate or again):
            if store.derived(APPROXIMATE) is None:
                store.build_approximate()
            recall = store.figures(APPROXIMATE)["recall"]
        openers.tell()
        return Indexed(place, info, len(store.digests()), done, recall, found.unusable)


def search_index(
    queries: Sequence[str],
    place: str,
    k: int,
    console: Console,
    *,
    how: Any = "auto",  # checked by `Index.search`
    model: str | None = None,
    rerank: str | None = None,
) -> tuple[str, list[list[Found]]]:
    """``embedtune search --index``: how it was searched, and the best ``k`` passages a query.

    Args:
        model: Where the model of the index is now; None: where it was.
        rerank: A cross-encoder's name or folder.
    """
    with Store(vector_store()) as vectors:
        openers = Openers(vectors, console)
        reranker = openers.reranker(parse_system(f"bm25?rerank={rerank}")) if rerank else None
        embedder = index_embedder(model, openers) if model else None
        with Index.open(place, embedder) as index:
            found = index.search(queries, k, how, reranker=reranker)
            return index.info.how if how == "auto" else how, found


def queries_in(path: Path, rejects: list[Reject]) -> list[str]:
    """A query a line; of JSONL the field ``text``.

    Raises:
        NothingUsable: There is none.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file of queries")
    if path.suffix == ".jsonl":
        found = []
        for line, row in read_jsonl(path, rejects, "search"):
            text = row.get("text")
            if isinstance(text, str) and text.strip():
                found.append(text)
            else:
                message = 'no "text"; each line needs one'
                rejects.append(Reject("search", "text", message, file=str(path), line=line))
    else:
        found = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not found:
        raise NothingUsable(f"{path}: no queries")
    return found


# ---- what is indexed


def _check_apart(sources: Sequence[Path], place: str) -> None:
    if place.partition(":")[0] in STORES:
        return
    out = Path(place).expanduser().resolve()
    for source in sources:
        if source.is_dir() and out == source.resolve():
            raise ConfigError(f"--out {visible(place)}: is what is to be indexed; choose another")
        inside = source.is_dir() and out.is_relative_to(source.resolve())
        if inside and not (source / "run.lock").exists():
            raise ConfigError(
                f"--out {visible(place)} is inside {visible(source)}: choose a folder outside the "
                "input"
            )


def _stages(sources: Sequence[Path]) -> Mapping[str, StageFolder]:
    """Of the run directory that is to be indexed; none where it is something else."""
    known = ("run.lock", "chunks.jsonl", "corpus.jsonl")
    for source in sources:
        if not source.exists():
            raise ConfigError(f"{visible(source)}: there is no such file or folder")
        if len(sources) > 1 and any((source / name).is_file() for name in known):
            raise ConfigError(
                f"{visible(source)}: is a run directory, a folder of chunks or a data set; index "
                "it alone"
            )
    if not (sources[0] / "run.lock").is_file():
        return {}
    stages = stage_facts(sources[0])
    if CHUNKS not in stages and DATASET not in stages:
        raise NothingUsable(f"{visible(sources[0])}: the run has made no passages yet")
    return stages


def _model_of_run(sources: Sequence[Path], stages: Mapping[str, StageFolder]) -> str | None:
    trained = TRAINING in stages and (sources[0] / TRAINING / "model").is_dir()
    return located(str(sources[0])) if trained else None


def _model_of(store: VectorStore) -> str | None:
    info = store.info()
    return info and info.source


def _of_run(
    run: Path, stages: Mapping[str, StageFolder], *, tuned: bool, console: Console
) -> _Passages:
    if CHUNKS in stages:
        verify(stages[CHUNKS])
        chunks: Sequence[Chunk] = load_chunks(stages[CHUNKS].path)
    else:
        verify(stages[DATASET])
        chunks = load_dataset(stages[DATASET].path).data.chunks
    if not tuned or EVALUATION not in stages:
        return _Passages(chunks)
    judgement = load_judgement(stages[EVALUATION].path)
    verdict = judgement.verdict.verdict
    console.say(f"the verdict on the tuned model of {visible(run)} is {verdict}")
    if verdict == "do-not-ship":
        console.say("  its base may do better: name it with --model")
    weight = judgement.fusion.weight if judgement.fusion.method == "scores" else 0.5
    apart = [flag.language for flag in judgement.verdict.not_for]
    if verdict == "ship" and apart:
        told = " and ".join(LANGUAGES.get(language, language) for language in apart)
        console.say(f"  but not for {told} text: the index is searched by words too (hybrid)")
    alone = verdict == "ship" and not apart
    return _Passages(chunks, "dense" if alone else "hybrid", weight)


def _of_folders(
    sources: Sequence[Path], model: str, settings: RunSettings, console: Console
) -> _Passages:
    first = sources[0]
    if (first / "chunks.jsonl").is_file():
        return _Passages(load_chunks(first))
    if (first / "corpus.jsonl").is_file():
        from embedtune.datasets.source import read_source

        source = read_source(first, settings.columns, settings=settings.source)
        return _Passages(source.data.chunks, unusable=unusable(source.rejects))
    return _of_documents(sources, model, settings, console)


def _of_documents(
    paths: Sequence[Path], model: str, settings: RunSettings, console: Console
) -> _Passages:
    tokens = _tokens(model, settings)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="embedtune-")))
        chat = None
        if settings.cleaning.ask is not None:
            answers = vector_store().with_name("answers.sqlite")
            chat = open_recorded_chat(settings, held.enter_context(Store(answers)))
        read = read_step(paths, folder, chat, settings, console)
        cut = chunk_step(folder, folder, tokens, settings, console)
        return _Passages(load_chunks(folder), unusable=unusable((*read.rejects, *cut.rejects)))


def _tokens(model: str, settings: RunSettings) -> Tokens:
    """What chunks are measured in: the model's own tokens, else those of the settings' base."""
    folder = Path(model).expanduser()
    kind = model.partition(":")[0]
    other = is_service(model) or kind == "hashing" or base_of(str(folder))
    return tokens_of(settings.model.base[0] if other else model)


def index_embedder(model: str, openers: Openers, *, recorded: bool = False) -> Embedder:
    """What is paid for, or was made by a run already, comes from a store."""
    if is_service(base_of(model) or model):
        return openers.embedder(parse_system(model))
    embedder = open_embedder(model)
    return RecordedEmbedder(embedder, openers.store) if recorded else embedder


def advised_score(source: str) -> float | None:
    """The score under which nothing should be answered, as the evaluation of the run that trained
    this model found it (the lowest precision that was asked for); None where there is no advice."""
    folder = Path(source)
    if folder.parent.name != TRAINING:
        return None
    evidence = load_evidence(folder.parent.parent / EVALUATION)
    for advice in evidence.scores.advice if evidence else ():
        if (advice.use, advice.system) == ("no-answer", "tuned"):
            known = [(own.wanted, own.threshold) for own in advice.thresholds]
            return next((score for _, score in sorted(known) if score is not None), None)
    return None


# ---- export


def export_index(place: str, out: Path) -> int:
    """The passages of an index for any other database: ``passages.parquet`` (with vectors), and
    the same as ``passages.jsonl`` and ``vectors.npy``. Rows are in order of id.

    Returns:
        How many passages there are.

    Raises:
        ConfigError: There is no index, or ``out`` holds other files.
    """
    with closing(open_store(place)) as store:
        info = store.info()
        if info is None:
            raise ConfigError(f"{store.name}: holds no index; make one with `embedtune index`")
        digests = store.digests()
        recipe = Recipe("index-export", 1, {}, {"model": info.model},
                        {"passages": str(sorted(digests.items()))})  # fmt: skip

        def build(folder: Path) -> Mapping[str, Any]:
            _write(store, info.dimension, len(digests), folder)
            return {"passages": len(digests), **asdict(info)}

        build_folder(out, recipe, build, fresh=True)
        return len(digests)


def _write(store: VectorStore, dimension: int, count: int, folder: Path) -> None:
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([
        *((name, pa.string()) for name in ("id", "document", "text", "title")),
        ("section", pa.list_(pa.string())), ("page", pa.int32()), ("source", pa.string()),
        ("vector", pa.list_(pa.float32(), dimension)),
    ])  # fmt: skip
    with (
        pq.ParquetWriter(folder / "passages.parquet", schema) as table,
        (folder / "passages.jsonl").open("w", encoding="utf-8") as lines,
        (folder / "vectors.npy").open("wb") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
        )
        for chunks, vectors in _portions(store):
            columns = {name: [getattr(chunk, name) for chunk in chunks]
                       for name in schema.names[:-1]}  # fmt: skip
            columns["section"] = [list(chunk.section) for chunk in chunks]
            flat = pa.array(vectors.ravel(), pa.float32())
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, dimension)
            table.write_table(pa.table(columns, schema))
            lines.writelines(json.dumps(as_row(c), ensure_ascii=False) + "\n" for c in chunks)
            file.write(np.ascontiguousarray(vectors, "<f4").data)


def _portions(store: VectorStore) -> Iterator[tuple[list[Chunk], Matrix]]:
    part: list[Chunk] = []
    for chunk in store.all_chunks():
        part.append(chunk)
        if len(part) == EXPORTED:
            yield part, store.vectors([chunk.id for chunk in part])
            part = []
    if part:
        yield part, store.vectors([chunk.id for chunk in part])
