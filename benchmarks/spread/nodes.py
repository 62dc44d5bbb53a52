"""A Ray cluster of two nodes on this machine, and its processes by name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPUS = 2
_STORE = 120 * 2**20
_LOOPBACK = "127.0.0.1"


def prepare() -> None:
    """Set what Ray looks up as it is imported: to be called before that."""
    os.environ |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with it, nodes share one address
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


@contextmanager
def two() -> Iterator[str]:
    """Two nodes; yields the address of the head. Whoever has this environment may use them."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": CPUS, "object_store_memory": _STORE, "node_ip_address": _LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def processes(title: str) -> dict[int, int]:
    """Processes whose title holds these words, and each one's parent: the daemon of its node."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if title.encode() in (folder / "cmdline").read_bytes():
                _, _, rest = (folder / "stat").read_text().rpartition(")")
                found[int(folder.name)] = int(rest.split()[1])
        except OSError:  # it has ended
            continue
    return found


def listeners(port: int) -> int:
    """How many sockets of this machine listen on a port: each node's Serve has its own."""
    told = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sockets = [line.split()[1:4] for line in told]
    return sum(at.endswith(f":{port:04X}") and state == "0A" for at, _, state in sockets)


def worked(pid: int) -> int:
    """Ticks of CPU that a process has taken so far."""
    _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return sum(map(int, rest.split()[11:13]))
