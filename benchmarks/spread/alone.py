"""A network, and processes, of one's own: Serve's replicas listen on all interfaces.

Whatever is started in there can be reached from nowhere else, and ends with the command.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

NOT_HERE = 77
"""The exit code where no namespace is granted."""
_INSIDE = "BENCHMARK_IS_ALONE"
_FLAGS = 0x8914  # SIOCSIFFLAGS
_UP = 0x1 | 0x40  # IFF_UP | IFF_RUNNING


def ensure(command: Sequence[str] | None = None) -> None:
    """Be in a namespace of one's own, with loopback and nothing else; begins a command again.

    That is this one, where none is named. Exits with `NOT_HERE` where no namespace is granted.
    """
    if os.environ.get(_INSIDE):
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _FLAGS, struct.pack("16sh", b"lo", _UP))
        return
    inside = [*_unshare(), sys.executable, *(command or sys.argv)]
    raise SystemExit(subprocess.run(inside, env={**os.environ, _INSIDE: "1"}).returncode)


def _unshare() -> list[str]:
    program = shutil.which("unshare")
    for more in ([], ["--user", "--map-root-user"]) if program else ():
        command = [program, *more, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    print("no namespace is granted here: run as root, or allow user namespaces", file=sys.stderr)
    raise SystemExit(NOT_HERE)


if __name__ == "__main__":  # python -m spread.alone -m pytest …
    ensure(["-m", "spread.alone", *sys.argv[1:]])
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
