"""``embedtune migrate``: an index of one model becomes one of another, without a gap in service."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed import is_service
from embedtune.embed.models import located
from embedtune.embed.opening import open_embedder
from embedtune.embed.remote import Purse
from embedtune.errors import ConfigError
from embedtune.evaluation.systems import parse_system, price_of
from embedtune.files import visible
from embedtune.pipeline.console import Console
from embedtune.pipeline.indexing import advised_score, index_embedder
from embedtune.pipeline.models import vector_store
from embedtune.pipeline.openers import Openers
from embedtune.records import Chunk
from embedtune.retrieve.index import Index, Update, keep_words, prepare, same_model, update
from embedtune.retrieve.migrate import (
    Gap,
    Pointer,
    Recalibrated,
    forget_previous,
    gap_between,
    open_place,
    point,
    read_pointer,
    recalibrate,
    relevant_of,
    roll_back,
    with_way_back,
)
from embedtune.retrieve.stores import STORES, IndexInfo, VectorStore, open_store, text_digest
from embedtune.store import Store

SAMPLE = 64  # passages that a plan embeds to measure the time
WARM = 4  # embedded before, so that loading is not measured
HITS = 10  # of each query, whose scores a threshold is found with


@dataclass(frozen=True, slots=True)
class Plan:
    """What a migration will take. ``texts``: those the new model has to embed; equal ones once,
    and those in the new index already not at all. ``seconds`` and ``bytes`` (of the vectors) are
    None for a service, which a plan asks nothing; ``usd`` is None where no price is known."""

    old: str
    old_model: str
    model: str
    passages: int
    texts: int
    characters: int
    tokens: int
    bytes: int | None
    seconds: float | None
    usd: float | None
    paid: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run did, and what is still to do where the old index changed meanwhile."""

    place: str
    info: IndexInfo
    update: Update
    gap: Gap

    def as_json(self) -> dict[str, Any]:
        return {"index": self.place, **asdict(self.info), **asdict(self.update),
                "gap": asdict(self.gap)}  # fmt: skip


def plan_migration(
    old: str, model: str, settings: RunSettings, console: Console, *, to: str | None = None
) -> Plan:
    """What ``migrate run`` would take, measured on a sample on this machine. Nothing is written,
    and no service is asked.

    Args:
        to: The new index, which may be half done.
    """
    paid = is_service(model)
    with ExitStack() as held:
        store, info = _opened(old, held)
        having: set[str] = set()
        if to is not None:
            having = {digest[:16] for digest in _opened_any(to, held).digests().values()}
        passages, missing = 0, dict[str, Chunk]()
        for chunk in store.all_chunks():
            passages += 1
            if (digest := text_digest(chunk)) not in having:
                missing.setdefault(digest, chunk)
        texts = sorted((own.embedded for own in missing.values()), key=lambda t: (len(t), t))
        characters = sum(map(len, texts))
        sample = _sample(texts)
        share = characters / max(1, sum(map(len, sample)))
        seconds = size = usd = None
        if paid:
            from embedtune.queries.estimate import count_tokens

            name, tokens = model, sum(count_tokens(text) for text in sample)
            price = settings.embedding.price
            price = price_of(parse_system(model)) if price is None else price
            usd = None if price is None else tokens * share * price / 1e6
        else:
            embedder = open_embedder(model)
            name, tokens = embedder.name, _tokens(model, sample)
            size = passages * embedder.dimension * 4
            if sample:
                console.say(f"  measuring on {len(sample)} passages")
                embedder.embed(sample[:WARM], "document")
                begin = time.perf_counter()
                embedder.embed(sample, "document")
                seconds = (time.perf_counter() - begin) * share
        return Plan(
            old, info.model, name, passages, len(texts), characters, round(tokens * share), size,
            seconds if sample or paid else 0.0, usd, paid,
        )  # fmt: skip


def run_migration(
    old: str, model: str, to: str, settings: RunSettings, console: Console
) -> Migrated:
    """Bring the new index up to date with the old one, which is only read.

    Run again it goes on after a stop, and catches up with what changed in the old index.
    """
    with ExitStack() as held:
        source, info = _opened(old, held)
        target = _opened_any(to, held)
        if source.name == target.name:
            raise ConfigError(f"--to {visible(to)}: is the old index itself; name another place")
        vectors = held.enter_context(Store(vector_store()))
        openers = Openers(vectors, console, purse=Purse(settings.embedding))
        embedder = index_embedder(model, openers)
        if same_model(info.model, embedder.name):
            raise ConfigError(f"--model {visible(model)}: made the old index already")
        place = located(model)
        made = prepare(
            target, embedder, source=place, how=info.how, weight=info.weight,
            min_score=advised_score(place),
        )  # fmt: skip
        done = update(
            target, source.all_chunks(), embedder, console.progress("passages embedded again")
        )
        keep_words(target)
        openers.tell()
    with ExitStack() as held:  # opened again: a folder shows what it held when it was opened
        gap = gap_between(_opened(old, held)[0], _opened(to, held)[0])
    return Migrated(to, made, done, gap)


def migration_status(old: str, to: str | None) -> tuple[Pointer | None, Gap | None]:
    """Where ``old`` points to, and how far the index at ``to`` (else that of before) is behind."""
    pointer = read_pointer(Path(old).expanduser())
    with ExitStack() as held:
        store, _ = _opened(old, held)
        if to is not None:
            return pointer, gap_between(store, _opened_any(to, held))
        if pointer is None or not pointer.previous:
            return pointer, None
        before = held.enter_context(closing(open_place(Path(old), pointer.previous)))
        return pointer, gap_between(store, before)


def switch(
    live: str, to: str, *, old: str | None = None, alias: str = "", partial: bool = False
) -> Pointer:
    """Let ``live`` stand for the index at ``to``, once that holds all passages of the old one.

    Args:
        live: A folder with ``current.json``, an index in a folder, or a new folder.
        old: The index of before, for a new folder.
        alias: A name inside the database that is moved too (Milvus, Qdrant, Redis).
        partial: Switch although passages are missing.
    """
    folder = _folder(live)
    with ExitStack() as held:
        known = folder.is_dir() or old is None
        before, _ = _opened(live if known else old or live, held)
        after, _ = _opened(to, held)
        gap = gap_between(before, after)
        if not gap.closed and not partial:
            raise ConfigError(
                f"{visible(to)}: {gap.line()}; bring it up to date with `embedtune migrate run`, "
                "or switch with --partial"
            )
        move = _alias_of(after, alias)
        made = point(folder, to, old=old)
        move()
        return made


def rollback(live: str, *, alias: str = "") -> tuple[Pointer, Gap]:
    """Go back to the index of before; the gap is what that does not know yet."""
    folder = _folder(live)
    pointer = with_way_back(folder)
    with ExitStack() as held:
        before = held.enter_context(closing(open_place(folder, pointer.previous)))
        _check_there(before)
        gap = gap_between(_opened(live, held)[0], before)
        move = _alias_of(before, alias)
        made = roll_back(folder)
        move()
        return made, gap


def drop_previous(live: str, *, confirmed: bool) -> str:
    """Delete the index of before; its name."""
    folder = _folder(live)
    pointer = with_way_back(folder)
    with closing(open_place(folder, pointer.previous)) as store:
        if not confirmed:
            raise ConfigError(
                f"{store.name}: would be deleted with its {len(store.digests()):,} passages, and "
                "there is no way back; say --yes"
            )
        forget_previous(folder)  # first: a pointer never names what is half deleted
        store.drop()
        return store.name


def recalibrate_threshold(
    old: str,
    to: str,
    threshold: float,
    console: Console,
    *,
    queries: Sequence[str] = (),
    data: Path | None = None,
    split: str = "dev",
    k: int = HITS,
) -> Recalibrated:
    """What a threshold on the old index's scores is on the new one's.

    Args:
        queries: A sample of what people ask: as many hits pass as before.
        data: A data set whose ``split`` judges passages of the index: passing hits are as often
            right as before.
    """
    relevant = None
    if data is not None:
        from embedtune.datasets.source import read_source

        known = read_source(data).data
        if split not in known.qrels:
            there = ", ".join(known.qrels)
            raise ConfigError(f"--split {visible(split)}: {visible(data)} has {there}")
        asked = known.queries_of(split)
        queries = [query.text for query in asked]
        relevant = relevant_of(known.qrels[split], [query.id for query in asked])
    with Store(vector_store()) as vectors, ExitStack() as held:
        openers = Openers(vectors, console)
        found = []
        for place in (old, to):
            with ExitStack() as first:
                embedder = index_embedder(_opened(place, first)[1].source, openers)
            index = held.enter_context(Index.open(place, embedder))
            if relevant is not None and not _any_there(index.store, relevant):
                raise ConfigError(
                    f"--data {visible(data)}: none of the passages judged there is in "
                    f"{index.store.name}; ids must be the same"
                )
            embedded = index.embedder.embed(queries, "query")
            found.append(index.store.nearest(embedded, k))
        return recalibrate(found[0], found[1], threshold, relevant)


# ---- opening


def _opened(place: str, held: ExitStack) -> tuple[VectorStore, IndexInfo]:
    store = _opened_any(place, held)
    return store, _check_there(store)


def _opened_any(place: str, held: ExitStack) -> VectorStore:
    return held.enter_context(closing(open_store(place)))


def _check_there(store: VectorStore) -> IndexInfo:
    info = store.info()
    if info is None:
        raise ConfigError(f"{store.name}: holds no index")
    return info


def _any_there(store: VectorStore, relevant: Sequence[set[str]]) -> bool:
    there = store.digests()
    return any(id in there for ids in relevant for id in ids)


def _folder(live: str) -> Path:
    if "://" in live or live.partition(":")[0] in STORES:
        raise ConfigError(
            f"{visible(live)}: expected a folder that stands for the index, e.g. live/; programs "
            "open that one, and a switch changes what it stands for"
        )
    return Path(live).expanduser()


def _alias_of(store: VectorStore, alias: str) -> Any:  # what moves the alias, called without any
    if not alias:
        return lambda: None
    from embedtune.retrieve.stores.address import check_name

    check_name(alias, "--alias")
    set_alias = getattr(store, "set_alias", None)
    if set_alias is None:
        raise ConfigError(f"--alias: {store.name} knows none; the folder alone says which counts")
    return lambda: set_alias(alias)


def _sample(texts: Sequence[str]) -> list[str]:
    """Some texts of all lengths, of texts in order of length."""
    count = min(SAMPLE, len(texts))
    return [texts[(2 * place + 1) * len(texts) // (2 * count)] for place in range(count)]


def _tokens(model: str, texts: Sequence[str]) -> int:
    """As the model counts them; words where it has no tokenizer of its own."""
    from embedtune.embed.tokens import WordTokens, load_tokens

    try:
        counter = WordTokens() if model.startswith("hashing") else load_tokens(model)
    except ConfigError:
        counter = WordTokens()
    return sum(counter.count(texts))
