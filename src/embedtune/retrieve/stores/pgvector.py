"""An index in a table of PostgreSQL, with the extension pgvector.

One table holds all: passages as JSON, vectors, digests; what made them stands in its comment, so
that it lives and dies with the table. Each call is one transaction. Every search reads all rows,
exactly; an index of pgvector on the column ``vector`` is used by PostgreSQL where there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import numpy as np

from embedtune.embed import Matrix
from embedtune.errors import ConfigError, ServiceError
from embedtune.files import visible
from embedtune.records import Chunk
from embedtune.retrieve import Hit
from embedtune.retrieve.stores import IndexInfo, digest_of
from embedtune.retrieve.stores.address import DEFAULT_NAME, check_name, without_password
from embedtune.retrieve.stores.database import DatabaseStore, client_of
from embedtune.retrieve.stores.rows import (
    SPARE,
    check_queries,
    check_rows,
    chunk_text,
    info_text,
    ranked,
    read_chunk,
    read_info,
)

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

TIMEOUT = 10  # seconds for a connection
# distances of pgvector; a score is what the last part makes of one
OPERATORS = {"cosine": "<=>", "dot": "<#>", "euclidean": "<->"}


class PgvectorStore(DatabaseStore):
    """``pgvector://user@host:port/database?table=NAME``; further options are those of libpq.

    The password is in the address, in ``PGPASSWORD`` or in ``~/.pgpass``.
    """

    def __init__(self, address: str) -> None:
        client_of("psycopg", "PostgreSQL", "pgvector")
        try:
            parts = urlsplit(address)
            place = f"pgvector://{(parts.netloc or '').rpartition('@')[2]}{parts.path}"
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
        except ValueError as error:
            shown = visible(without_password(address), 200)
            raise ConfigError(
                f"index {shown}: {error}; expected pgvector://user@host:5432/database?table=NAME"
            ) from None
        self._table = options.pop("table", DEFAULT_NAME)
        check_name(self._table, f"index {visible(place, 200)}: table")
        self.name = f"{visible(place, 200)}?table={self._table}"
        query = "&".join(f"{quote(key)}={quote(value)}" for key, value in options.items())
        self._target = urlunsplit(("postgresql", parts.netloc, parts.path, query, ""))
        self._connection: psycopg.Connection[Any] | None = None
        self.info()

    def info(self) -> IndexInfo | None:
        rows = self._rows("SELECT obj_description(to_regclass(%s)::oid), to_regclass(%s) IS NULL",
                          (f'"{self._table}"',) * 2)  # fmt: skip
        text, missing = rows[0]
        self._known = None if missing else read_info(text, self.name)
        return self._known

    def create(self, info: IndexInfo) -> None:
        from psycopg import sql

        self.info()  # refuses a table that is not ours
        with self._errors(), self._open().transaction():
            run = self._open().execute
            run("CREATE EXTENSION IF NOT EXISTS vector")
            run(self._sql("DROP TABLE IF EXISTS {table}"))
            run(self._sql(
                'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, digest text NOT NULL, '
                "chunk jsonb NOT NULL, vector vector({dimension}) NOT NULL)",
                dimension=sql.Literal(info.dimension),
            ))  # fmt: skip
            run(
                self._sql("COMMENT ON TABLE {table} IS {about}", about=sql.Literal(info_text(info)))
            )
        self._known = info

    def digests(self) -> Mapping[str, str]:
        return dict(self._rows(self._sql("SELECT id, digest FROM {table}"))) if self._known else {}

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        check_rows(chunks, vectors, self._known, self.name)
        statement = self._sql(
            "INSERT INTO {table} (id, digest, chunk, vector) VALUES (%s, %s, %s, %s) ON CONFLICT "
            "(id) DO UPDATE SET (digest, chunk, vector) = "
            "(EXCLUDED.digest, EXCLUDED.chunk, EXCLUDED.vector)"
        )
        rows = [
            (chunk.id, digest_of(chunk), chunk_text(chunk), _text(vector))
            for chunk, vector in zip(chunks, vectors, strict=True)
        ]
        with self._errors(), self._open().transaction(), self._open().cursor() as cursor:
            cursor.executemany(statement, rows)

    def remove(self, ids: Sequence[str]) -> None:
        if self._known:
            with self._errors():
                gone = self._sql("DELETE FROM {table} WHERE id = ANY(%s)")
                self._open().execute(gone, (list(ids),))

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        info = self._known
        check_queries(queries, info, self.name)
        if info is None:
            return []
        find = self._sql(
            f"SELECT id, vector {OPERATORS[info.similarity]} %s::vector AS distance FROM {{table}} "
            "ORDER BY distance LIMIT %s"
        )
        base = 1.0 if info.similarity == "cosine" else 0.0
        return [
            ranked(
                ((id, base - distance) for id, distance in
                 self._rows(find, (_text(query), k + SPARE))), k,
            )
            for query in queries
        ]  # fmt: skip

    def _chunks_of(self, ids: Sequence[str]) -> Mapping[str, Chunk]:
        return {id: read_chunk(text) for id, text in self._some("chunk::text", ids)}

    def _vectors_of(self, ids: Sequence[str]) -> Mapping[str, Any]:
        rows = self._some("vector::text", ids)
        return {id: np.array(text[1:-1].split(","), np.float32) for id, text in rows}

    def _delete(self) -> None:
        with self._errors():
            self._open().execute(self._sql("DROP TABLE {table}"))

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _open(self) -> "psycopg.Connection[Any]":
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._target, autocommit=True, connect_timeout=TIMEOUT,
                application_name="embedtune",
            )  # fmt: skip
        return self._connection

    def _sql(self, text: str, **parts: Any) -> "Composed":  # psycopg's own parts
        from psycopg import sql

        return sql.SQL(text).format(table=sql.Identifier(self._table), **parts)

    def _some(self, column: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        if not self._known:
            return []
        found = self._sql(f"SELECT id, {column} FROM {{table}} WHERE id = ANY(%s)")
        return self._rows(found, (list(ids),))

    def _rows(self, query: "str | Composed", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a question is answered with. It is asked again where the connection was lost."""
        import psycopg

        with self._errors():
            connection = self._open()
            try:
                return connection.execute(query, values).fetchall()
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
                return self._open().execute(query, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege) as error:
            raise ServiceError(
                f"{self.name}: {_first_line(error)}; the database needs the extension pgvector "
                "(CREATE EXTENSION vector) and the right to make tables"
            ) from error
        except psycopg.Error as error:
            raise ServiceError(f"{self.name}: {_first_line(error)}") from error


def _text(vector: np.ndarray) -> str:
    """As pgvector reads it, nothing lost of float32."""
    return "[" + ",".join(f"{number:.9g}" for number in vector.tolist()) + "]"


def _first_line(error: Exception) -> str:
    return visible(str(error).strip().split("\n")[0] or type(error).__name__, 300)
