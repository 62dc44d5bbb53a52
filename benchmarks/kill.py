"""kill -9 in the midst of traced requests, again and again on one store: nothing counted is lost.

    python benchmarks/kill.py [--rounds 10] [--requests 2000] [--at-once 32] [--traces facts|texts]

A real `honestproxy serve` before a scripted upstream, with a SQLite trace store that all rounds
share. In each round it is killed when a share of the requests, drawn anew, has been answered.
After that the file must be whole (`PRAGMA integrity_check`), and must hold at least as many new
rows as /metrics last told to be written, each of them whole. Exits 1 where it isn't so.

What is answered and not yet counted as written may be lost: those are no more than the proxy
writes in one go, a fifth of a second's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from wire.contenders import GATED, RAW, Contender
from wire.processes import Server, Upstream, free_port
from wire.report import progress, table
from wire.script import Script

_WRITTEN = re.compile(r"^honestproxy_traces_written_total (\S+)$", re.MULTILINE)
_POLLED = 0.02
"""Seconds between two looks at /metrics."""


@dataclass
class Round:
    """What came of one proxy's life."""

    answered: int
    written: int
    stored: int
    lost: int
    integrity: str
    broken: int

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that was counted, and nothing is broken."""
        return self.stored >= self.written and self.integrity == "ok" and not self.broken

    @property
    def verdict(self) -> str:
        """How the file was found."""
        return "ok" if self.ok else f"WRONG: {self.integrity}, {self.broken} broken"


class Crowd:
    """Clients of one proxy, until it is killed."""

    def __init__(self, server: Server, requests: int, at_once: int, kill_at: int) -> None:
        self.answered: list[str] = []
        self.written = 0
        self._server = server
        self._left = iter(range(requests))
        self._at_once = at_once
        self._kill_at = kill_at
        self._url = f"http://127.0.0.1:{server.port}"
        self._dead = False

    async def run(self) -> None:
        """Ask, count, and kill."""
        async with aiohttp.ClientSession(self._url) as session:
            looking = asyncio.create_task(self._look(session))
            await asyncio.gather(*(self._ask(session) for _ in range(self._at_once)))
            await looking

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        for number in self._left:
            if self._dead:
                return
            one: Contender = (RAW, GATED)[number % 2]
            body = one.body(Script(doubt=number % 4 == 1), stream=number % 3 == 0)
            try:
                async with session.post(
                    "/v1/chat/completions", json=body, headers=one.headers
                ) as got:
                    await got.read()
            except (aiohttp.ClientError, OSError):
                continue
            if got.status == 200:
                self.answered.append(got.headers["x-honesty-trace-id"])
            if len(self.answered) >= self._kill_at and not self._dead:
                self._dead = True
                os.killpg(self._server.pid, signal.SIGKILL)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        """What is counted as written, as late before the end as can be told."""
        while not self._dead:
            try:
                async with session.get("/metrics") as got:
                    told = _WRITTEN.search(await got.text())
            except (aiohttp.ClientError, OSError):
                continue
            self.written = int(float(told[1])) if told else 0
            await asyncio.sleep(_POLLED)


def one_round(upstream: Upstream, store: Path, asked: argparse.Namespace) -> Round:
    """Start, ask, kill, and look what is there."""
    before = _ids(store)
    port = free_port()
    ours = Path(sys.executable).with_name("honestproxy")
    where = ["--upstream", upstream.url, "--port", str(port), "--traces", asked.traces]
    command = [str(ours), "serve", *where, "--trace-store", f"sqlite:///{store}"]
    server = Server(command, port=port, folder=store.parent)
    try:
        server.until_ready(RAW.body(), RAW.headers, 60)
        kill_at = round(asked.requests * random.uniform(0.2, 0.8))
        crowd = Crowd(server, asked.requests, asked.at_once, kill_at)
        asyncio.run(crowd.run())
    finally:
        server.end()
    integrity, broken = _checked(store)
    new = _ids(store) - before
    lost = len(set(crowd.answered) - new)
    return Round(len(crowd.answered), crowd.written, len(new), lost, integrity, broken)


def _ids(store: Path) -> set[str]:
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store)) as opened:
        return {name for (name,) in opened.execute("SELECT id FROM traces")}


def _checked(store: Path) -> tuple[str, int]:
    """What SQLite finds in the file, and how many rows aren't whole."""
    with closing(sqlite3.connect(store)) as opened:
        (found,) = opened.execute("PRAGMA integrity_check").fetchone()
        rows = opened.execute("SELECT id, created, status, seconds, trace FROM traces").fetchall()
    return str(found), sum(not _whole(*row) for row in rows)


def _whole(name: str, created: float, status: int, seconds: float, trace: str | None) -> bool:
    if trace is not None:
        json.loads(trace)
    return len(name) == 32 and created > 0 and status == 200 and seconds >= 0


def measured(asked: argparse.Namespace) -> list[Round]:
    """All rounds, on one store."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found, upstream = list[Round](), Upstream()
    try:
        with TemporaryDirectory(prefix="honestproxy-kill-") as folder:
            for number in range(asked.rounds):
                progress(f"round {number + 1} of {asked.rounds}")
                found.append(one_round(upstream, Path(folder) / "traces.db", asked))
    finally:
        upstream.end()
    return found


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--traces", choices=("facts", "texts"), default="facts")
    parser.add_argument("--json", action="store_true")
    found = measured(asked := parser.parse_args())
    failed = [one for one in found if not one.ok]
    if asked.json:
        print(json.dumps([asdict(one) | {"ok": one.ok} for one in found]))
        return bool(failed)
    head = ["killed", "answered", "counted as written", "stored", "answered, not stored", "file"]
    rows = [
        [*map(str, (number, one.answered, one.written, one.stored, one.lost)), one.verdict]
        for number, one in enumerate(found, 1)
    ]
    print(table(head, rows))
    print("kill:", "FAILED" if failed else "ok")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
