"""Opening a database: migrations under a lock, ownership, versions, and errors that help."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from honestproxy.errors import SettingsError
from honestproxy.store.database import KNOWN, MIGRATIONS, VERSION_TABLE, Database, default_url
from honestproxy.store.rows import Rows
from honestproxy.store.schema import metadata
from tests.postgres_server import PASSWORD, PostgresServer
from tests.store.rows import row
from tests.upstreams import free_port


def test_an_empty_database_gets_the_tables_that_the_code_works_with(url: str) -> None:
    database = Database(url)
    assert not database.is_there()
    database.prepare()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert database.is_there()
    database.close()


def test_the_last_known_version_is_the_migrations_own() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [KNOWN[-1]]


def test_what_is_stored_stays_when_it_is_opened_again(url: str) -> None:
    kept = row()
    for number in range(2):
        database = Database(url)
        database.prepare()
        if number == 0:
            Rows(database).add([kept])
        assert Rows(database).find(kept.id) == kept
        database.close()


def prepared(url: str) -> str:
    database = Database(url)
    try:
        database.prepare()
        Rows(database).add([row()])
    except SettingsError as error:
        return error.message
    finally:
        database.close()
    return "done"


def test_replicas_that_start_together_on_an_empty_database_all_come_up(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as replicas:
        assert replicas.map(prepared, [url] * 8, chunksize=1) == ["done"] * 8
    database = Database(url)
    assert Rows(database).count() == 8
    database.close()


@pytest.mark.parametrize("ask", ["prepare", "is_there"])
def test_a_database_of_others_is_left_alone(url: str, ask: str) -> None:
    database = Database(url)
    if database.path:
        database.path.parent.mkdir()
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(SettingsError, match=r"tables of others \(customers\)") as raised:
        getattr(database, ask)()
    assert PASSWORD not in raised.value.message
    assert "trace_store" in raised.value.message
    with database.engine.connect() as connection:
        tables = (
            "SELECT name FROM sqlite_master"
            if database.is_sqlite
            else ("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        )
        assert [name for (name,) in connection.execute(text(tables))] == ["customers"]
    database.close()


@pytest.mark.parametrize("ask", ["prepare", "is_there"])
def test_a_database_newer_than_we_are_is_left_alone(url: str, ask: str) -> None:
    database = Database(url)
    database.prepare()
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))
    with pytest.raises(SettingsError, match=r"newer honestproxy \(tables 0999") as raised:
        getattr(database, ask)()
    assert PASSWORD not in raised.value.message
    assert "update" in raised.value.message
    database.close()


@pytest.mark.parametrize("ask", ["prepare", "is_there"])
def test_a_file_that_is_no_database_is_said_to_be_none_and_stays_as_it_is(
    tmp_path: Path, ask: str
) -> None:
    file = tmp_path / "notes.db"
    file.write_bytes(b"Dear diary, " * 400)
    database = Database(f"sqlite:///{file}")
    with pytest.raises(SettingsError, match=r"notes\.db.*not a database"):
        getattr(database, ask)()
    database.close()
    assert file.read_bytes() == b"Dear diary, " * 400


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    database = Database(f"postgresql://app:{PASSWORD}@127.0.0.1:{free_port()}/traces")
    with pytest.raises(SettingsError, match=r"postgresql://app:\*\*\*@127.0.0.1:\d+/traces") as no:
        database.prepare()
    assert PASSWORD not in no.value.message
    database.close()


def test_a_wrong_password_is_not_repeated(postgres: PostgresServer) -> None:
    database = Database(postgres.database().replace(PASSWORD, "quite-wrong"))
    with pytest.raises(SettingsError, match="password authentication failed") as raised:
        database.prepare()
    assert "quite-wrong" not in raised.value.message
    database.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("traces.db", "give sqlite:"),
        ("", "give sqlite:"),
        ("mysql://root@127.0.0.1/traces", "'mysql' is not known here"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_names_no_database_of_ours_is_refused(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Database(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_each_way_to_write_postgresql_means_psycopg(scheme: str) -> None:
    database = Database(f"{scheme}://app:{PASSWORD}@127.0.0.1/traces?sslpassword=hidden")
    assert database.engine.dialect.driver == "psycopg"
    assert database.name == "postgresql://app:***@127.0.0.1/traces"
    database.close()


def test_the_file_and_its_log_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    database = Database(f"sqlite:///{folder / 'traces.db'}")
    database.prepare()
    Rows(database).add([row()])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    database.close()
    assert modes["traces.db"] == modes["traces.db-wal"] == 0o600
    assert set(modes.values()) == {0o600}


def test_readers_read_while_one_writes(tmp_path: Path) -> None:
    file = tmp_path / "traces.db"
    database = Database(f"sqlite:///{file}")
    database.prepare()
    with sqlite3.connect(file) as other:
        other.execute("BEGIN IMMEDIATE")
        assert Rows(database).count() == 0
        other.rollback()
    other.close()
    database.close()


def test_where_nobody_named_a_place_it_is_in_the_users_own_folder() -> None:
    assert default_url().startswith("sqlite:////")
    assert default_url().endswith("/honestproxy/traces.db")
