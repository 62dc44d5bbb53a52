"""Rows in and out of the table of traces. All of it blocks: call it from a thread."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, func, not_, or_, select
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from honestproxy.document import write
from honestproxy.errors import InvalidRequest
from honestproxy.store.database import Database, writing
from honestproxy.store.schema import Row, traces

_AT_ONCE: Final = (500, 100, 10, 1)
"""Rows of one statement: few lengths, so that drivers know the statements by heart."""

PORTION: Final = 5_000
"""Rows that are deleted at once."""


def is_away(error: BaseException) -> bool:
    """Whether it is the database that fails, not what is to be stored: it may be back later."""
    if isinstance(error, DBAPIError):
        return not isinstance(error, DataError | IntegrityError)
    return isinstance(error, OSError | SQLAlchemyError) and not isinstance(error, StatementError)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which traces are asked for; None means all.

    Beside what an answer came to, `outcome` may be `error`, or `client_left`.
    """

    since: float | None = None
    outcome: str | None = None
    model: str | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query, narrowed."""
        if self.since is not None:
            query = query.where(traces.c.created >= self.since)
        if self.outcome == "client_left":
            query = query.where(traces.c.client_left)
        elif self.outcome == "error":
            failed = or_(traces.c.failed, traces.c.status >= 400)  # what was relayed may be one
            query = query.where(failed, not_(traces.c.client_left))
        elif self.outcome is not None:
            query = query.where(traces.c.outcome == self.outcome)
        if self.model is not None:
            query = query.where(traces.c.model == self.model)
        return query


class Rows:
    """The table of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine
        self._insert = _by_values if database.is_sqlite else _by_json

    def add(self, rows: Sequence[Row]) -> None:
        """Store rows, all or none; one that is there already stays as it is."""
        self._database.follow()
        with writing(self._engine) as connection:
            self._insert(connection, rows)

    def find(self, name: str) -> Row | None:
        """The row of that id."""
        with self._engine.connect() as connection:
            found = connection.execute(select(traces).where(traces.c.id == name)).first()
        return Row(*found) if found else None

    def named(self, start: str) -> str:
        """The one id that begins so. Raises InvalidRequest where there is none, or several."""
        query = select(traces.c.id).where(traces.c.id.startswith(start, autoescape=True)).limit(2)
        with self._engine.connect() as connection:
            found = [name for (name,) in connection.execute(query)]
        if len(found) == 1 or start in found:
            return found[0] if len(found) == 1 else start
        many = "several traces begin" if found else "there is no trace that begins"
        raise InvalidRequest(f"{many} with {start!r}", status=404, code="trace_not_found")

    def last(self, number: int, chosen: Filter) -> list[Row]:
        """The last rows, the newest first."""
        query = chosen.apply(select(traces)).order_by(traces.c.created.desc()).limit(number)
        with self._engine.connect() as connection:
            return [Row(*found) for found in connection.execute(query)]

    def each(self, chosen: Filter) -> Iterator[Row]:
        """All rows, the oldest first, as they are now."""
        query = chosen.apply(select(traces)).order_by(traces.c.created)
        with self._engine.connect().execution_options(yield_per=500) as connection:
            for found in connection.execute(query):
                yield Row(*found)

    def count(self) -> int:
        """How many rows there are."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(traces)).scalar_one()

    def discard(self, name: str) -> bool:
        """Delete the row of that id; whether there was one."""
        with writing(self._engine) as connection:
            gone = connection.execute(delete(traces).where(traces.c.id == name)).rowcount
        self._database.scrub()
        return gone > 0

    def purge(self, before: float | None = None) -> int:
        """Delete what is older than that, or all; how many rows that were."""
        gone = last = self.purge_some(before)
        while last == PORTION:
            gone += (last := self.purge_some(before))
        return gone

    def purge_some(self, before: float | None = None) -> int:
        """Delete no more than a portion of that, so that others can write in between."""
        old = select(traces.c.id).limit(PORTION)
        old = old if before is None else old.where(traces.c.created < before)
        with writing(self._engine) as connection:
            gone = connection.execute(delete(traces).where(traces.c.id.in_(old))).rowcount
        if gone:
            self._database.scrub()
        return gone

    def spent(self, since: float) -> dict[str, int]:
        """Tokens that each key was charged since then."""
        query = (
            select(traces.c.key_id, func.sum(traces.c.spent_tokens))
            .where(traces.c.created >= since, traces.c.key_id.is_not(None))
            .group_by(traces.c.key_id)
        )
        with self._engine.connect() as connection:
            return {key: int(total or 0) for key, total in connection.execute(query)}


def older_than(days: float) -> float:
    """The moment so many days ago."""
    return time.time() - days * 86_400


# What a row costs is mostly Python's part in binding its values: so there are few statements, and
# of each database the way with the least of that.


def _by_values(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert rows into SQLite, whose driver takes many values at little cost."""
    at = 0
    for number in _AT_ONCE:
        while len(rows) - at >= number:
            values = tuple(chain.from_iterable(rows[at : at + number]))
            connection.exec_driver_sql(_INSERTS[number], values)
            at += number


def _by_json(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert rows into PostgreSQL, as one value that it takes apart itself."""
    told = write([row._asdict() for row in rows]).decode()
    connection.exec_driver_sql(_INSERT_JSON, (told,))


def _insert(values: str) -> str:
    return f"INSERT INTO traces ({_COLUMNS}) {values} ON CONFLICT (id) DO NOTHING"


_COLUMNS: Final = ", ".join(Row._fields)
_ROW: Final = f"({', '.join('?' * len(Row._fields))})"
_INSERTS: Final = {n: _insert(f"VALUES {', '.join([_ROW] * n)}") for n in _AT_ONCE}
_INSERT_JSON: Final = _insert(
    f"SELECT {_COLUMNS} FROM json_populate_recordset(NULL::traces, %s::json)"  # noqa: S608
)
