"""Processes of a benchmark, and what the kernel says they cost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wire import kernel

HERE = Path(__file__).parent.parent


class Child:
    """A process that reads lines on stdin and writes lines on stdout."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=HERE, stdin=pipe, stdout=pipe, text=True)
        self.pid = self._process.pid

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with status {self._process.wait()}")
        return line

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Close its stdin, which ends it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()


class Upstream(Child):
    """The scripted upstream."""

    def __init__(self) -> None:
        super().__init__("wire.upstream")
        self.port = int(self.line())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """What came so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            return dict(json.loads(answer.read()))


class Load(Child):
    """The load generator."""

    def __init__(self) -> None:
        super().__init__("wire.load")

    def run(self, **job: Any) -> dict[str, Any]:
        """Do a job and give back its result."""
        self.start(**job)
        return self.result()

    def start(self, **job: Any) -> None:
        """Begin a job."""
        self.tell(json.dumps(job))

    def result(self) -> dict[str, Any]:
        """What the job that was begun has found, when it is done."""
        return dict(json.loads(self.line()))


@contextmanager
def bench() -> Iterator[tuple[Upstream, Load]]:
    """An upstream and a load, ended in any case; where this process is told to end, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    upstream, load = Upstream(), Load()
    try:
        yield upstream, load
    finally:
        load.end()
        upstream.end()


class NotReady(Exception):
    """A server gave no good answer in time; what it printed last."""


class Server:
    """A server under test, with its own process group, its output kept in a file."""

    def __init__(self, command: Sequence[str], *, port: int, folder: Path, **env: str) -> None:
        self.port = port
        self._log = folder / f"{port}.log"
        self._begun = time.perf_counter()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HONESTPROXY_")}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=inherited | env,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.start_seconds = 0.0

    def until_ready(self, body: dict[str, Any], headers: dict[str, str], seconds: float) -> None:
        """Wait until it answers a chat completion; how long that took is `start_seconds`."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none", **headers}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        why = ""
        while time.perf_counter() - self._begun < seconds and self._process.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
                    self.start_seconds = time.perf_counter() - self._begun
                    return
            except urllib.error.HTTPError as error:
                why = f"{error.code} {error.read(500)!r}"
            except OSError as error:
                why = str(error)
            time.sleep(0.02)
        self.end()
        tail = self._log.read_text("utf-8", "replace")[-2000:]
        raise NotReady(f"no good answer within {seconds:.0f} s: {why}\n{tail}")

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it and its children have used."""
        return kernel.cpu(self.pid)

    @property
    def memory(self) -> float:
        """Resident MB of it and its children."""
        return kernel.memory(self.pid)

    def end(self) -> None:
        """Stop it and its children; by force where it doesn't listen."""
        for how, wait in ((signal.SIGTERM, 8), (signal.SIGKILL, 8)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
