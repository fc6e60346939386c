"""The store of everything that was paid for: language-model answers and API embeddings.

One SQLite file, shared by runs and keyed by the content of the request, so that an answer is
never bought twice. WAL with ``synchronous=FULL``: what `put` reports as stored survives
``kill -9`` and a power cut. Rows are only ever added, never changed or deleted.
"""

import hashlib
import json
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedtune.errors import ConfigError, IntegrityError, LockedError, ResourceError
from embedtune.files import clean_text

# One entry a schema version, applied in order; never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS answers (
        key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, text TEXT NOT NULL,
        finish TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER, raw TEXT NOT NULL,
        created TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS faults (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
        raw TEXT NOT NULL, created TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS vectors (
        key TEXT PRIMARY KEY, vector BLOB NOT NULL, created TEXT NOT NULL);
    """,
    """
    ALTER TABLE answers ADD COLUMN batch TEXT NOT NULL DEFAULT '';
    CREATE TABLE IF NOT EXISTS batches (
        digest TEXT NOT NULL, step TEXT NOT NULL, value TEXT NOT NULL, created TEXT NOT NULL,
        PRIMARY KEY (digest, step));
    """,
)
BUSY_SECONDS = 60
LOOKUP = 500  # keys a SELECT; SQLite allows at least 999 parameters


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A model's answer as it came, and the request it belongs to."""

    model: str
    request: str  # canonical JSON of what was asked
    text: str
    finish: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    raw: str = ""  # the whole body as received
    batch: str = ""  # id of the batch it came in; batches have a price of their own


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Requests that were to be sent in one batch. ``id`` is empty where that was cut off."""

    digest: str  # ours; the service keeps it beside the batch
    model: str
    host: str
    keys: tuple[str, ...]  # of the requests
    id: str = ""  # the service's
    created: str = ""  # ISO time, when it was put together


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no blanks: equal content, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_key(value: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a request."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class Store:
    """Answers, faults and vectors by request key. Safe to use from several threads.

    Writes of one moment share a commit, made by one writer thread; a write counts as stored
    only after its commit.

    Raises:
        IntegrityError: The file is damaged, or was written by a newer version.
        LockedError: Another process held the file for over a minute.
        ResourceError: The disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._open()
            self._migrate(self._writer)
            self._reader = self._open()
        self._read_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="embedtune-store", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish all writes and close the file. Closing twice is allowed."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        with self._errors():
            self._reader.close()
            self._writer.close()

    # ---- answers

    def answer(self, key: str) -> StoredAnswer | None:
        return self.answers([key]).get(key)

    def answers(self, keys: Sequence[str]) -> dict[str, StoredAnswer]:
        """Those of ``keys`` that are stored."""
        columns = "model, request, text, finish, input_tokens, output_tokens, raw, batch"
        return {
            key: StoredAnswer(*values) for key, *values in self._select("answers", columns, keys)
        }

    def put_answer(self, key: str, answer: StoredAnswer) -> Future[None]:
        """Store an answer; the future is done when it is on disk. A key's first answer stays."""
        return self._put(
            "INSERT INTO answers VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
            (key, clean_text(answer.model), answer.request, clean_text(answer.text), answer.finish,
             answer.input_tokens, answer.output_tokens, clean_text(answer.raw), _now(),
             answer.batch),
        )  # fmt: skip

    def put_fault(self, key: str, code: str, message: str, raw: str) -> Future[None]:
        """Keep what came instead of an answer, for whoever looks into it."""
        return self._put(
            "INSERT INTO faults (key, code, message, raw, created) VALUES (?,?,?,?,?)",
            (key, code, clean_text(message), clean_text(raw), _now()),
        )

    def faults(self) -> list[tuple[str, str, str, str]]:
        """(key, code, message, raw body) of every fault, oldest first."""
        with self._errors(), self._read_lock:
            return self._reader.execute(
                "SELECT key, code, message, raw FROM faults ORDER BY id"
            ).fetchall()

    # ---- batches

    def put_batch(self, batch: StoredBatch) -> Future[None]:
        """Keep which requests a batch is made of, before it is sent."""
        content = {"model": batch.model, "host": batch.host, "keys": list(batch.keys)}
        return self._put_step(batch.digest, "requests", json.dumps(content))

    def put_batch_id(self, digest: str, batch_id: str) -> Future[None]:
        """Keep the id that the service gave."""
        return self._put_step(digest, "id", batch_id)

    def end_batch(self, digest: str, status: str) -> Future[None]:
        """Nothing more is to be had of this batch."""
        return self._put_step(digest, "end", status)

    def batches(self) -> int:
        """How many batches were ever put together."""
        with self._errors(), self._read_lock:
            (count,) = self._reader.execute(
                "SELECT count(*) FROM batches WHERE step = 'requests'"
            ).fetchone()
        return count

    def open_batches(self, model: str, host: str) -> list[StoredBatch]:
        """Batches of that model at that host that have not ended, oldest first."""
        with self._errors(), self._read_lock:
            rows = self._reader.execute(
                "SELECT one.digest, one.value, one.created, coalesce(other.value, '') "
                "FROM batches AS one LEFT JOIN batches AS other "
                "ON other.digest = one.digest AND other.step = 'id' WHERE one.step = 'requests' "
                "AND one.digest NOT IN (SELECT digest FROM batches WHERE step = 'end') "
                "ORDER BY one.rowid"
            ).fetchall()
        found = []
        for digest, value, created, batch_id in rows:
            content = json.loads(value)
            if (content["model"], content["host"]) == (model, host):
                keys = tuple(content["keys"])
                found.append(StoredBatch(digest, model, host, keys, batch_id, created))
        return found

    # ---- vectors

    def vectors(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Those of ``keys`` that are stored, as read-only float32 rows."""
        return {
            key: np.frombuffer(blob, dtype="<f4")
            for key, blob in self._select("vectors", "vector", keys)
        }

    def put_vectors(self, vectors: Mapping[str, npt.ArrayLike]) -> None:
        """Store rows by key, on disk when this returns. A key's first vector stays."""
        now = _now()
        futures = [
            self._put(
                "INSERT INTO vectors VALUES (?,?,?) ON CONFLICT DO NOTHING",
                (key, np.asarray(vector, dtype="<f4").tobytes(), now),
            )
            for key, vector in vectors.items()
        ]
        for future in futures:
            future.result()

    # ---- inside

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the tables up to date; a file killed before its first table begins again."""
        if self._version(connection) < len(MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for version in range(self._version(connection), len(MIGRATIONS)):
                    for statement in MIGRATIONS[version].split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={version + 1}")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        else:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise IntegrityError(
                f"{self.path}: written by a newer embedtune (store version {version}, this one "
                f"knows {len(MIGRATIONS)}); upgrade embedtune, or name another store"
            )
        return version

    def _select(self, table: str, columns: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        keys = list(dict.fromkeys(keys))
        for start in range(0, len(keys), LOOKUP):
            part = keys[start : start + LOOKUP]
            marks = ",".join("?" * len(part))
            with self._errors(), self._read_lock:
                rows = self._reader.execute(
                    f"SELECT key, {columns} FROM {table} WHERE key IN ({marks})", part
                ).fetchall()
            yield from rows

    def _put_step(self, digest: str, step: str, value: str) -> Future[None]:
        return self._put(
            "INSERT INTO batches VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
            (digest, step, value, _now()),
        )

    def _put(self, statement: str, values: tuple[object, ...]) -> Future[None]:
        write = _Write(statement, values, Future())
        with self._close_lock:
            if self._closed:
                raise ValueError(f"{self.path}: the store is closed")
            self._queue.put(write)
        return write.done

    def _write(self) -> None:
        """The writer thread: one commit for all writes that wait."""
        while (write := self._queue.get()) is not None:
            batch = [write]
            while not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            try:
                with self._errors():
                    self._commit(batch)
            except Exception as error:  # each caller gets it through its future
                for write in batch:
                    write.done.set_exception(error)
            else:
                for write in batch:
                    write.done.set_result(None)

    def _commit(self, batch: Sequence["_Write"]) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for write in batch:
                self._writer.execute(write.statement, write.values)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's exceptions as ours, with the file and what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            reason = str(error)
            if isinstance(error, sqlite3.OperationalError):
                if "locked" in reason:
                    raise LockedError(
                        f"{self.path}: another process holds the store ({reason}); wait for it "
                        "to end and run the same command again"
                    ) from error
                if "unable to open" in reason or "readonly" in reason:
                    raise ConfigError(
                        f"{self.path}: cannot be opened for writing ({reason}); check the "
                        "folder's permissions or name another store"
                    ) from error
                if "full" in reason or "disk I/O" in reason:
                    raise ResourceError(
                        f"{self.path}: cannot write ({reason}); free some space and run the "
                        "same command again, all answers reported so far are kept"
                    ) from error
            raise IntegrityError(
                f"{self.path}: damaged ({reason}); it holds paid answers, so do not delete it: "
                f"move it away together with its -wal file, recover what is left with "
                f'"sqlite3 OLD .recover | sqlite3 {self.path.name}", or start with an empty one'
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be opened for writing ({error.strerror}); check the "
                "folder's permissions or name another store"
            ) from error


@dataclass(frozen=True, slots=True)
class _Write:
    statement: str
    values: tuple[object, ...]
    done: Future[None]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
