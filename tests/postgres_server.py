"""A real PostgreSQL on loopback, for tests: pgserver's or the machine's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.upstreams import free_port

PASSWORD = "planted-secret"
_NOBODY = "nobody"
_QUIET = {"fsync": "off", "max_connections": "50", "unix_socket_directories": ""}


class PostgresServer:
    """A server that can be stopped and started again, with all that it holds."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        self._running: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {"user": _NOBODY} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, _NOBODY)

    def prepare(self) -> None:
        """Make the folder that it keeps its databases in."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        told = ["--username", "app", "--auth", "scram-sha-256", "--pwfile", str(secret)]
        where = ["--pgdata", str(self._folder / "data"), "--encoding", "utf8", "--no-sync"]
        self._run("initdb", *where, *told)

    def start(self) -> None:
        """Listen."""
        options = [word for name, value in _QUIET.items() for word in ("-c", f"{name}={value}")]
        where = ["-D", str(self._folder / "data"), "-h", "127.0.0.1", "-p", str(self._port)]
        with (self._folder / "log").open("ab") as log:
            command = [str(self._programs / "postgres"), *where, *options]
            self._running = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, **self._user
            )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._running.poll() is None, (self._folder / "log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self._folder / "log").read_text())

    def stop(self) -> None:
        """Be gone at once, and leave every client where it is."""
        if self._running is not None:
            self._running.send_signal(signal.SIGQUIT)
            self._running.wait(30)
            self._running = None

    def database(self) -> str:
        """The URL of a new, empty database, with a password that nobody else is to see."""
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://app:{PASSWORD}@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            capture_output=True,
            text=True,
            cwd=self._folder,
            timeout=60,
            **self._user,
        )
        assert done.returncode == 0, done.stderr


def _programs() -> Path:
    found = importlib.util.find_spec("pgserver")  # importing it would do more than that
    homes = [Path(found.origin).parent / "pginstall" / "bin"] if found and found.origin else []
    homes += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for home in homes:
        if all(os.access(home / name, os.X_OK) for name in ("initdb", "postgres")):
            return home
    missing = "no PostgreSQL server: install pgserver, or Debian's postgresql"
    return pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that listens, until the end; in a folder that its own user may reach."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="honestproxy-postgres-"))
    server = PostgresServer(programs, folder)
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
