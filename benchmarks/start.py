"""What a start costs: seconds until the proxy answers, and memory.

    python benchmarks/start.py [--repeat 5] [--local] [--json]

`--local` also starts it on the embedded model, which must have been fetched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

REMOTE = ["--upstream", "http://127.0.0.1:9/v1"]
HEAVY = ("torch", "transformers", "litellm")


def imported() -> float:
    """Seconds that `import honestproxy` takes, by the interpreter's own clock."""
    code = (
        "import time; t = time.perf_counter(); import honestproxy; print(time.perf_counter() - t)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code]))


def started(flags: list[str]) -> tuple[float, float, list[str]]:
    """Seconds from the command to an answer, resident MB then, and heavy libraries loaded."""
    command = [sys.executable, "-m", "honestproxy", "serve", "--port", "0", "--json", *flags]
    begun = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        with urllib.request.urlopen(url.replace("/v1", "/healthz")) as answer:
            answer.read()
        seconds = time.perf_counter() - begun
        return seconds, memory(server.pid), mapped(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)


def memory(pid: int) -> float:
    """Resident memory in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def mapped(pid: int) -> list[str]:
    """Which of the heavy libraries the process has mapped into memory."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return [name for name in HEAVY if f"/{name}/" in maps]


def rows(repeat: int, *, local: bool) -> list[dict[str, Any]]:
    """What was measured, the median, and the bound it is to keep."""
    times = statistics.median(imported() for _ in range(repeat))
    found: list[dict[str, Any]] = [{"what": "import honestproxy, s", "value": times, "bound": 0.3}]
    kinds = [("a URL as upstream", REMOTE, 1.5, 130)]
    kinds += [("the embedded model, fetched before", [], 8.0, None)] if local else []
    for name, flags, bound, most in kinds:
        runs = [started(flags) for _ in range(repeat)]
        seconds = statistics.median(run[0] for run in runs)
        found.append({"what": f"serve, {name}, s", "value": seconds, "bound": bound})
        size = statistics.median(run[1] for run in runs)
        found.append({"what": f"memory, {name}, MB", "value": size, "bound": most})
        if not local or flags:
            loaded = ", ".join(runs[0][2]) or "none"
            found.append({"what": "torch, transformers, litellm loaded", "value": loaded})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = rows(arguments.repeat, local=arguments.local)
    if arguments.json:
        print(json.dumps(found))
        return
    for row in found:
        value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.3f}"
        bound = f"  bound {row['bound']}" if row.get("bound") else ""
        print(f"{row['what']:<48} {value:>10}{bound}")


if __name__ == "__main__":
    main()
