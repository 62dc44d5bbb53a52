"""The Containerfile, as far as it can be held to its promises without a container engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from honestproxy.settings import load
from tests.proxy import proxy, script
from tests.test_repository import ROOT
from tests.upstreams import free_port

FILE = ROOT / "deploy" / "Containerfile"
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what follows it, lines joined, comments gone."""
    lines = [line for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parted = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in parted]


def last_stage() -> dict[str, str]:
    """The last of each instruction in the stage that is shipped."""
    told = instructions()
    start = max(number for number, (name, _) in enumerate(told) if name == "FROM")
    return dict(told[start:])


def environment() -> dict[str, str]:
    return dict(part.split("=", 1) for part in shlex.split(last_stage()["ENV"]))


def test_a_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold", "style", FILE], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_it_runs_as_a_number_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last_stage()["USER"])


def test_its_base_is_named_by_tag() -> None:
    tag = next(rest for name, rest in instructions() if name == "ARG").partition("=")[2]
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert tag not in ("", "latest")
    assert set(bases) == {"docker.io/library/python:${PYTHON}"}


def test_signals_reach_the_proxy_itself() -> None:
    stage = last_stage()
    assert json.loads(stage["ENTRYPOINT"]) == ["honestproxy"]
    assert json.loads(stage["CMD"]) == ["serve"]
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_nothing_secret_is_baked_in() -> None:
    for name, rest in instructions():
        assert name != "ADD"
        if name in ("ARG", "ENV", "LABEL"):
            assert not re.search(r"(?i)key|token|password|secret", rest)


def test_what_it_copies_is_let_in_and_nothing_else() -> None:
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert IGNORED[IGNORED.index("*") :] == [
        "*",
        *(f"!{name}" for name in _let_in()),
        "**/__pycache__",
    ]
    assert copied == set(_let_in())
    assert all((ROOT / name).exists() for name in copied)


def test_its_environment_makes_settings_that_are_good_and_want_keys() -> None:
    settings = load(environ=environment())
    assert (settings.host, settings.keys, settings.allow_open) == ("0.0.0.0", None, False)
    assert f"{settings.port}" == last_stage()["EXPOSE"]


def test_beyond_this_machine_it_does_not_start_without_keys(tmp_path: Path) -> None:
    told = {**os.environ, **environment(), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    told |= {"HONESTPROXY_PORT": f"{free_port()}", "HONESTPROXY_UPSTREAM": "http://127.0.0.1:1/v1"}
    command = [Path(sys.executable).with_name("honestproxy"), "serve"]
    done = subprocess.run(command, env=told, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"honestproxy keys create" in done.stderr


async def test_its_health_check_tells_a_proxy_that_answers_from_none() -> None:
    command = json.loads(last_stage()["HEALTHCHECK"].partition("CMD")[2])
    assert command[0] == "python"

    def ends(port: str) -> int:
        told = {"HONESTPROXY_PORT": port, "no_proxy": "*"}
        done = subprocess.run([sys.executable, *command[1:]], env=told, capture_output=True)
        return done.returncode

    async with proxy(script()) as on:
        port = on.url.removesuffix("/v1").rpartition(":")[2]
        assert await asyncio.to_thread(ends, port) == 0
    assert await asyncio.to_thread(ends, f"{free_port()}") == 1


def _let_in() -> list[str]:
    return [line[1:] for line in IGNORED if line.startswith("!")]


@pytest.mark.parametrize("extras", ["", "litellm,postgres,redis,otel"])
def test_its_build_argument_becomes_the_extras_that_are_installed(extras: str) -> None:
    (command,) = [r for n, r in instructions() if n == "RUN" and "pip" in r]
    asked = shlex.split(command)[-1]
    shell = ["sh", "-c", f'printf %s "{asked}"']
    done = subprocess.run(shell, env={"EXTRAS": extras}, capture_output=True, text=True, check=True)
    assert done.stdout == (f".[{extras}]" if extras else ".")
