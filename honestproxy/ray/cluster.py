"""A Ray cluster, for as long as a command needs it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from honestproxy.errors import EvaluationError

LOCAL: Final = "local"
"""The address that starts a cluster on this machine, which ends with the command."""
_HERE: Final = (LOCAL, "auto")
_REACHED_WITHIN: Final = 5.0
"""Seconds for a cluster's port to take a connection: Ray itself would try for minutes."""
_OWN: Final[dict[str, Any]] = {
    "include_dashboard": False,
    "_node_ip_address": "127.0.0.1",
    "object_store_memory": 128 * 2**20,  # answers are small, and don't go there
}
"""How a cluster of our own is started: reached from this machine alone."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What of a cluster to take: so many workers, or one a node, and what each reserves."""

    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def ray() -> Any:
    """The package. Raises EvaluationError where it isn't installed."""
    try:
        import ray as package
    except ImportError as error:
        raise EvaluationError(
            f"--ray needs Ray: pip install 'honestproxy[ray]' ({error})"
        ) from None
    return package


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at an address. Raises EvaluationError where it can't be."""
    if address == LOCAL:
        _begin_alone()
    package = ray()
    _check_reachable(address)
    try:
        package.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(_OWN if address == LOCAL else {}),
        )
    except Exception as error:  # noqa: BLE001 - Ray raises what it likes: all mean the same here
        package.shutdown()
        raise EvaluationError(f"--ray {address}: {_explained(error)}") from None
    try:
        yield package
    finally:
        package.shutdown()


def places(package: Any, reserved: Reserved) -> list[str]:
    """A node's id for each worker, spread evenly. Raises EvaluationError where they don't fit."""
    room = {node["NodeID"]: _room(node["Resources"], reserved) for node in _alive(package)}
    total, wanted = sum(room.values()), reserved.workers or sum(map(bool, room.values()))
    if not wanted or wanted > total:
        each = f"{reserved.cpus:g} CPU" + (f" and {reserved.gpus:g} GPU" if reserved.gpus else "")
        raise EvaluationError(
            f"the cluster has room for {total} workers of {each} each, and {wanted or 1} are "
            "wanted: see --ray-workers, --ray-cpus and --ray-gpus"
        )
    chosen: list[str] = []
    while len(chosen) < wanted:
        free = [node for node in room if chosen.count(node) < room[node]]
        chosen += free[: wanted - len(chosen)]
    return chosen


def _alive(package: Any) -> list[dict[str, Any]]:
    return sorted((n for n in package.nodes() if n["Alive"]), key=lambda node: node["NodeID"])


def _room(has: dict[str, float], reserved: Reserved) -> int:
    """How many workers a node has room for."""
    wanted = {"CPU": reserved.cpus, "GPU": reserved.gpus}
    return int(min(has.get(name, 0.0) // number for name, number in wanted.items() if number))


def _begin_alone() -> None:
    """See to it that a cluster of our own obeys this command alone, and tells nobody of itself.

    Ray looks these up as it is imported. Its own way would leave a token in the user's home.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _check_reachable(address: str) -> None:
    if address in _HERE:
        return
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = url.hostname, url.port or (10001 if url.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if not host or not port:
        raise EvaluationError(
            f"--ray {address}: give HOST:PORT of the cluster's head, ray://HOST:PORT, auto or local"
        )
    try:
        socket.create_connection((host, port), _REACHED_WITHIN).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise EvaluationError(
            f"--ray {address}: no cluster answers there ({why}); `ray start --head` starts one"
        ) from None


def _explained(error: Exception) -> str:
    """What Ray says, in one line; of another version, what to do about it."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "ersion mismatch" in said:
        return f"{said} Use the cluster's own versions of Ray and Python."
    if isinstance(error, ConnectionError) and "Could not find any running" in said:
        return "no cluster runs on this machine; `ray start --head` starts one, or give local"
    return said
