"""The writer: batches, bounds, outages; what goes in is written, shed or still under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy.exc import DataError, OperationalError

from honestproxy.store.database import Database
from honestproxy.store.rows import Filter, Rows
from honestproxy.store.schema import Row
from honestproxy.store.writer import Writer
from tests.postgres_server import PASSWORD, PostgresServer, postgres_server
from tests.store.rows import Queued, row

LONG = 30.0


@dataclass
class Table:
    """A table that can be away, and refuses what is called bad."""

    there: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        self.asked.set()
        if not self.there.is_set():
            raise OperationalError("INSERT", {}, Exception("gone away\nrow: a text"))
        if any(row.model == "bad" for row in rows):
            raise DataError("INSERT", {}, Exception("no such text"))
        self.batches.append([row.id for row in rows])


@pytest.fixture
def table() -> Table:
    made = Table()
    made.there.set()
    return made


def started(table: Table, **more: int) -> Writer:
    writer = Writer(table.add, "sqlite:///traces.db", **more)
    writer.start()
    return writer


def counts(writer: Writer) -> tuple[int, int, int]:
    return writer.written, writer.shed, writer.pending


def test_what_is_taken_in_is_written_in_order_and_in_batches(table: Table) -> None:
    writer, queued = started(table), [Queued() for _ in range(1234)]
    for entry in queued:
        writer.put(entry)
    assert writer.flush(LONG)
    assert counts(writer) == (1234, 0, 0)
    assert [name for batch in table.batches for name in batch] == [entry.id for entry in queued]
    assert len(table.batches) < 20
    writer.close(LONG)


def test_a_full_queue_sheds_and_counts(table: Table) -> None:
    writer = Writer(table.add, "store", most=5)
    for _ in range(8):
        writer.put(Queued())
    assert counts(writer) == (0, 3, 5)
    writer.start()
    assert writer.flush(LONG)
    assert counts(writer) == (5, 3, 0)
    writer.close(LONG)


def test_so_does_one_whose_texts_weigh_too_much(table: Table) -> None:
    writer = Writer(table.add, "store", room=100)
    for weight in (60, 60, 40, 1):
        writer.put(Queued(weight=weight))
    assert counts(writer) == (0, 2, 2)
    writer.start()
    assert writer.flush(LONG)
    writer.put(Queued(weight=100))
    assert writer.flush(LONG)
    assert counts(writer) == (3, 2, 0)
    writer.close(LONG)


def test_a_row_that_the_database_refuses_is_shed_alone(table: Table) -> None:
    writer = Writer(table.add, "store")
    for model in ("a", "bad", "b"):
        writer.put(Queued(row(model=model)))
    writer.start()
    assert writer.flush(LONG)
    assert counts(writer) == (2, 1, 0)
    writer.close(LONG)


def test_so_is_one_that_cannot_be_made(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Queued):
        def row(self) -> Row:
            raise ValueError("no row")

    writer = Writer(table.add, "store")
    for entry in (Queued(), Broken(), Queued()):
        writer.put(entry)
    writer.start()
    assert writer.flush(LONG)
    assert counts(writer) == (2, 1, 0)
    writer.close(LONG)
    assert "can't be made a row" in caplog.text


def test_while_the_database_is_away_rows_wait_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table()
    writer = started(table, most=10)
    for _ in range(9):
        writer.put(Queued())
    for _ in range(3):  # more than one try
        table.asked.clear()
        assert table.asked.wait(LONG)
    assert not writer.flush(0.01)
    assert counts(writer) == (0, 0, 9)
    table.there.set()
    assert writer.flush(LONG)
    assert counts(writer) == (9, 0, 0)
    writer.close(LONG)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "sqlite:///traces.db can't be written to (gone away): "
        "traces wait, and are shed where they are too many",
        "sqlite:///traces.db is back: traces are written again",
    ]


def test_the_end_writes_what_is_there(table: Table) -> None:
    writer = started(table)
    for _ in range(2000):
        writer.put(Queued())
    writer.close(LONG)
    assert counts(writer) == (2000, 0, 0)
    writer.put(Queued())
    assert counts(writer) == (2000, 1, 0)


def test_the_end_does_not_wait_for_ever_for_a_database_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table()
    writer = started(table)
    for _ in range(700):
        writer.put(Queued())
    assert table.asked.wait(LONG)
    writer.close(0.3)
    assert counts(writer) == (0, 700, 0)
    assert "700 traces could not be written" in caplog.text


def test_what_is_under_way_is_found(table: Table) -> None:
    table.there.clear()
    writer, one, other = started(table), Queued(), Queued()
    writer.put(one)
    assert table.asked.wait(LONG)  # one is in hand, the other waits
    writer.put(other)
    assert writer.find(one.id) == one.made
    assert writer.find(other.id) == other.made
    assert writer.find("nobody") is None
    table.there.set()
    assert writer.flush(LONG)
    assert writer.find(one.id) is None
    writer.close(LONG)


def test_the_chore_is_done_at_the_start_until_nothing_is_left(table: Table) -> None:
    done, left = threading.Event(), iter([True, True, False])
    seen: list[bool] = []

    def chore() -> bool:
        seen.append(more := next(left))
        if not more:
            done.set()
        return more

    writer = Writer(table.add, "store", chore=chore)
    writer.start()
    assert done.wait(LONG)
    writer.put(Queued())
    assert writer.flush(LONG)
    writer.close(LONG)
    assert seen == [True, True, False]


def test_a_chore_that_fails_stops_nothing(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    def chore() -> bool:
        raise OperationalError("DELETE", {}, Exception("gone away"))

    writer = Writer(table.add, "store", chore=chore)
    writer.start()
    writer.put(Queued())
    assert writer.flush(LONG)
    writer.close(LONG)
    assert "old traces can't be purged: gone away" in caplog.text


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def test_a_postgresql_that_goes_away_and_comes_back_has_every_row_once(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(own_postgres.database())
    database.prepare()
    rows = Rows(database)
    writer, queued = Writer(rows.add, database.name), [Queued() for _ in range(3000)]
    writer.start()
    for number, entry in enumerate(queued):
        writer.put(entry)
        if number == 1000:
            assert writer.flush(LONG)
            own_postgres.stop()
    assert not writer.flush(0.2)
    assert sum(counts(writer)) == 3000
    own_postgres.start()
    assert writer.flush(LONG)
    assert counts(writer) == (3000, 0, 0)
    writer.close(LONG)
    assert {found.id for found in rows.each(Filter())} == {entry.id for entry in queued}
    database.close()
    assert "is back" in caplog.text
    assert PASSWORD not in caplog.text
