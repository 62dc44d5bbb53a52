"""What Linux says of processes: the CPU and memory that they use, with their children."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CORES = os.cpu_count() or 1


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have used."""
    return sum(map(_cpu, _family(pid)))


def memory(pid: int) -> float:
    """Resident MB of a process and its children."""
    return sum(map(_memory, _family(pid)))


class Others:
    """How much of the machine goes to processes that are no part of a benchmark."""

    def __init__(self, *pids: int) -> None:
        self._pids = (os.getpid(), *pids)
        self._begun, self._busy, self._ours = time.monotonic(), _busy(), self._own()

    def _own(self) -> float:
        return sum(map(_cpu, self._pids))

    @property
    def share(self) -> float:
        """In percent of all cores, since this was made."""
        theirs = _busy() - self._busy - (self._own() - self._ours)
        return max(0.0, theirs / (time.monotonic() - self._begun) / _CORES * 100)


def _family(pid: int) -> list[int]:
    found, pids = [pid], list[int]()
    while found:
        pid = found.pop()
        pids.append(pid)
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return pids


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith("VmRSS")), 0.0)


def _busy() -> float:
    """Seconds of CPU used since boot, by anyone."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    user, nice, system, _, _, *interrupts = map(int, fields)
    return sum((user, nice, system, *interrupts)) / _TICKS
