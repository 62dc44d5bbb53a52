"""Environments of outside clients, installed by `make test` beside our own packages."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CLIENTS = Path(sys.prefix) / "clients"


def installed(name: str, program: str = "bin/python") -> Path:
    """A program of an environment; without it the test is skipped, or fails where CI runs it."""
    if not (CLIENTS / f".{name}").exists():
        missing = f"{name} is not installed: `make test` does that, and needs the network once"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return CLIENTS / name / program


async def run(
    *command: str | Path, env: Mapping[str, str], cwd: Path | None = None
) -> tuple[int, str]:
    """A command's exit code, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env={**os.environ, **env},
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, printed.decode()
