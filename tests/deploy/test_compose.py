"""The compose file: valid, closed to all but this machine, and agreed with itself."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from honestproxy.settings import load
from tests.deploy.manifests import with_secrets_here
from tests.test_repository import ROOT

FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = {name: Path(told["file"]) for name, told in COMPOSE["secrets"].items()}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the script leaves it, elsewhere."""
    there = tmp_path_factory.mktemp("deploy") / "compose"
    shutil.copytree(FOLDER, there, ignore=shutil.ignore_patterns("secrets", "data", ".env"))
    for _ in range(2):  # the second time, everything stays
        _run(there / "secrets.sh")
        first = {file.name: file.read_bytes() for file in (there / "secrets").iterdir()}
    _run(there / "secrets.sh")
    assert first == {file.name: file.read_bytes() for file in (there / "secrets").iterdir()}
    return there


def _run(command: Path) -> None:
    found = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run([command], env={**os.environ, "PATH": found}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_it_is_valid_by_the_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([checker, *schema, FOLDER / "compose.yaml"], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_only_proxy_and_dashboard_are_reached_and_from_this_machine_alone() -> None:
    ports = {name: told["ports"] for name, told in SERVICES.items() if "ports" in told}
    assert ports.keys() == {"honestproxy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for given in ports.values() for port in given)
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert {n for n, told in SERVICES.items() if "front" in told["networks"]} == ports.keys()


def test_every_service_has_a_health_check_a_tag_and_no_way_to_more_rights() -> None:
    for name, told in SERVICES.items():
        assert "healthcheck" in told or name == "honestproxy", name  # its image has one
        assert told["image"].rpartition(":")[2] not in ("", "latest"), name
        assert "no-new-privileges:true" in told["security_opt"], name
        assert "privileged" not in told


def test_no_password_stands_in_it() -> None:
    for told in SERVICES.values():
        for name in told.get("environment", {}):
            assert not name.endswith(("PASSWORD", "KEY", "TOKEN")), name


def test_the_script_makes_every_secret_and_nobody_else_may_read_them(secrets: Path) -> None:
    for path in SECRETS.values():
        file = secrets / path
        assert file.read_text().strip(), path
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (secrets / ".env").read_text() == f"RUN_AS={os.getuid()}:{os.getgid()}\n"


def test_the_settings_are_good_and_every_secret_they_name_is_given(
    secrets: Path, tmp_path: Path
) -> None:
    contents = {name: (secrets / path).read_text() for name, path in SECRETS.items()}
    toml = (FOLDER / "honestproxy.toml").read_text("utf-8")
    path, used = with_secrets_here(toml, tmp_path, contents)
    settings = load(path, environ={})
    assert used == set(SERVICES["honestproxy"]["secrets"])
    assert settings.trace_store is not None
    assert (secrets / "secrets" / "postgres-password").read_text() in settings.trace_store
    assert (settings.host, settings.port) == ("0.0.0.0", 8400)


def test_the_keys_that_the_script_makes_open_the_door(secrets: Path) -> None:
    from honestproxy.server.access.door import Door

    door = Door(secrets / "secrets" / "keys.jsonl")
    for name, admin in (("app-key", False), ("metrics-key", True)):
        key = (secrets / "secrets" / name).read_text()
        assert door.caller({"authorization": f"Bearer {key}"}).admin is admin


async def test_a_redis_takes_the_password_that_the_script_made(secrets: Path) -> None:
    from redis.asyncio import Redis

    from tests.redis_server import RedisServer, binary

    server = RedisServer(binary(), secrets, secrets / "secrets" / "redis.conf")
    await server.start()
    try:
        url = (secrets / "secrets" / "answer-cache").read_text()
        async with Redis.from_url(url.replace("@redis:6379", f"@127.0.0.1:{server.port}")) as it:
            assert await it.ping()
    finally:
        await server.stop()


def test_every_file_that_is_mounted_is_there() -> None:
    for name, told in SERVICES.items():
        for mount in told.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith(".") and "/data/" not in source:
                assert (FOLDER / source).exists(), f"{name}: {source}"


def test_prometheus_asks_the_proxy_with_its_key() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["honestproxy:8400"]}]
    key = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert key in SERVICES["prometheus"]["secrets"]
