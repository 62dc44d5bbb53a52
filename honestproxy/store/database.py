"""A database by its URL: opened, found to be ours, and brought up to date."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from platformdirs import user_data_path
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from honestproxy.errors import SettingsError

log = logging.getLogger(__name__)

VERSION_TABLE: Final = "honestproxy_version"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
KNOWN: Final = sorted(path.stem[1:5] for path in MIGRATIONS.glob("versions/v*.py"))
"""Versions of the tables that this release knows; the last is the one that it works with."""

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_REMEDY: Final = "name another in the setting trace_store, or set traces = off"
_LOCK: Final = 0x686F6E657374  # any number will do, as long as nobody else locks it
_BUSY: Final = 10.0
"""Seconds to wait for another process that writes to the same file."""


def default_url() -> str:
    """Where traces are where nobody named a place: a file in the user's data folder."""
    return f"sqlite:///{user_data_path('honestproxy', appauthor=False) / 'traces.db'}"


def located(url: str | None) -> str:
    """Where traces are, given the setting `trace_store`."""
    return default_url() if url is None else url


def writable(url: str) -> str | None:
    """Why there can be no file at a URL of SQLite's; None where there is or can be one."""
    path = Path(_parsed(url).database or "")
    try:
        make_file(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None if os.access(path, os.W_OK) else f"{path}: it may not be written"


def make_file(path: Path) -> None:
    """An empty file that nobody else may read, before SQLite makes one that all may."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


class Database:
    """A database of traces, not connected to yet.

    Raises SettingsError for a URL that names none. `name` is the URL as it may be shown.
    """

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        self.is_sqlite = parsed.drivername.startswith("sqlite")
        shown = parsed.set(drivername=parsed.get_backend_name(), query={})
        self.name = shown.render_as_string(hide_password=True)
        self.path = Path(parsed.database or "") if self.is_sqlite else None
        self.engine = self._engine(parsed)
        self._file: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make or renew the tables where that is needed; replicas that start together take turns.

        Raises SettingsError where the database can't be used, isn't ours or is newer than we are.
        """
        with explained(self.name):
            if self.path is not None:
                self._make_file(self.path)
            with self._alone() as connection:
                version = self._version(connection)
                if version != KNOWN[-1]:
                    _migrate(connection)
            if self.path is not None:
                self._write_ahead()
                self._file = _identity(self.path)

    def follow(self) -> None:
        """Begin anew where the file that was prepared is gone, or is another by now.

        What is written to a file that was deleted is nowhere. Raises OSError where it can't be
        made anew.
        """
        if self.path is None or self._file is None or _identity(self.path) == self._file:
            return
        log.warning("%s is not the file that it was: it is opened anew", self.name)
        self.engine.dispose()
        try:
            self.prepare()
        except SettingsError as error:
            raise OSError(error.message) from None

    def scrub(self) -> None:
        """Leave nothing in SQLite's log of what was deleted; where another reads, it stays."""
        if self.is_sqlite:
            with closing(self.engine.raw_connection()) as raw:  # in no transaction
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def is_there(self) -> bool:
        """Whether there are tables of ours. Raises SettingsError as `prepare` does."""
        version = self.version()
        if version not in (None, KNOWN[-1]):
            raise _wrong(f"{self.name} is of an older honestproxy; `honestproxy serve` renews it")
        return version is not None

    def version(self) -> str | None:
        """That of the tables of ours; None where there are none.

        Raises SettingsError where the database can't be used, isn't ours or is newer than we are.
        """
        if self.path and not self.path.exists():
            return None
        with explained(self.name), self.engine.connect() as connection:
            return self._version(connection)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def _make_file(self, path: Path) -> None:
        try:
            make_file(path)
        except OSError as error:
            raise _wrong(f"{self.name}: {error.strerror}; {_REMEDY}") from None

    def _engine(self, url: URL) -> Engine:
        more: dict[str, Any] = {"connect_args": {"timeout": _BUSY}} if self.is_sqlite else {}
        if not self.is_sqlite:
            # A server that is gone without a word must not hold the writer for ever.
            given = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
            more = {"connect_args": {k: v for k, v in given.items() if k not in url.query}}
        try:
            engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, **more)
        except ImportError:
            raise _wrong(
                f"{self.name}: PostgreSQL needs `pip install 'honestproxy[postgres]'`"
            ) from None
        if self.is_sqlite:
            event.listen(engine, "connect", _on_connect)
            event.listen(engine, "begin", _on_begin)
        return engine

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction that no other process migrates beside."""
        with writing(self.engine) as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection

    def _version(self, connection: Connection) -> str | None:
        """The tables' version; None where the database is empty. Raises SettingsError."""
        tables = inspect(connection).get_table_names()
        if VERSION_TABLE not in tables:
            if tables:
                listed = ", ".join(sorted(tables)[:3])
                message = f"{self.name} has tables of others ({listed}) and none of ours"
                raise _wrong(f"{message}; {_REMEDY}")
            return None
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
        if found is not None and found not in KNOWN:
            raise _wrong(
                f"{self.name} is of a newer honestproxy (tables {found}, known here is "
                f"{KNOWN[-1]}): update, or {_REMEDY}"
            )
        return found

    def _write_ahead(self) -> None:
        """Let readers read while one writes. It is the file's own mode, and stays."""
        deadline = time.monotonic() + _BUSY
        while True:
            raw = self.engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # SQLite doesn't wait here itself while another process does so
            finally:
                raw.close()


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What the driver raises, as an error that names the database and says what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _wrong(f"{name} can't be used: {why(error)}; {_REMEDY}") from None


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, and waits for its turn at the beginning."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None where it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _wrong(message: str) -> SettingsError:
    """What is wrong with the database that the setting names."""
    return SettingsError(message, param="trace_store")


def why(error: BaseException | None) -> str:
    """What the driver said, in one line, without what was to be stored."""
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _parsed(url: str) -> URL:
    hint = "give sqlite:////FOLDER/traces.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _wrong(f"this is no database URL; {hint}") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise _wrong(f"{parsed.drivername!r} is not known here; {hint}")
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise _wrong(f"a database in memory keeps nothing; {hint}")
    if driver.startswith("sqlite") and parsed.query:
        raise _wrong(f"a file takes no options, such as {next(iter(parsed.query))!r}; {hint}")
    return parsed.set(drivername=driver)


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    # With the write-ahead log, a commit outlives the process; the last ones may be lost with
    # the machine's power, and the file stays whole in any case.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # not every build has it so


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection) -> None:
    from alembic import command  # heavy, and seldom needed
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
