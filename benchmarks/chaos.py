"""Chaos: many requests before an upstream that fails in all ways, from clients that leave.

    python benchmarks/chaos.py [--requests 20000] [--at-once 64] [--share 0.3] [--leave 0.05]

A real `honestproxy serve`, with metrics and a SQLite trace store. Every request must end within
its deadline as a right answer, a `draft_fallback`, or an error in OpenAI's shape; no answer may
reach another's request; nothing may stay open two seconds after the end; and what clients,
/metrics and the trace store have counted must agree. Exits 1 where anything of that fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sqlite3
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wire.hurried import Crowd, Seen
from wire.processes import Child, Server, free_port
from wire.report import progress, table

DEADLINE = 5.0
SETTLED = 2.0
"""Seconds after the end when nothing may be open any more."""
_WARMING = 1000
"""Requests after which memory, files and tasks are looked at for comparison."""
_GROWTH = 1.15
"""Memory after all is at most so many times that after the first requests: heaps fray."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Found:
    """What came of it all."""

    numbers: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def check(self, what: str, good: bool, *values: Any) -> None:
        """A claim, and the values that show it."""
        told = ", ".join(map(str, values))
        self.numbers[what] = told or good
        if not good:
            self.complaints.append(f"{what}: {told}")


class Faulty(Child):
    """The upstream."""

    def __init__(self, share: float) -> None:
        super().__init__("wire.faulty", str(share))
        self.port = int(self.line())

    def stats(self) -> dict[str, Any]:
        """How often it failed in which way, and what is open."""
        return dict(json.loads(_got(f"http://127.0.0.1:{self.port}/stats")))


@dataclass(frozen=True)
class Proxy:
    """The proxy under test."""

    server: Server
    store: Path

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All samples of /metrics, by name and labels."""
        text = _got(f"http://127.0.0.1:{self.server.port}/metrics").decode()
        found = filter(None, map(_SAMPLE.match, text.splitlines()))
        return {(one[1], frozenset(_LABEL.findall(one[2] or ""))): float(one[3]) for one in found}

    def metric(self, name: str) -> float:
        """One sample without labels."""
        return self.metrics().get((name, frozenset()), 0.0)

    @property
    def files(self) -> int:
        """File handles that are open, sockets included."""
        return len(list(Path(f"/proc/{self.server.pid}/fd").iterdir()))

    def rows(self) -> list[dict[str, Any]]:
        """What the trace store has."""
        with sqlite3.connect(self.store) as opened:
            opened.row_factory = sqlite3.Row
            return [dict(row) for row in opened.execute("SELECT * FROM traces")]


def _got(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def started(upstream: Faulty, folder: Path) -> Proxy:
    """The proxy, ready."""
    port, store = free_port(), folder / "traces.db"
    ours = Path(sys.executable).with_name("honestproxy")
    flags = {
        "--upstream": f"http://127.0.0.1:{upstream.port}/v1",
        "--port": str(port),
        "--step-timeout": str(DEADLINE - 1),
        "--turn-timeout": str(DEADLINE),
        "--trace-store": f"sqlite:///{store}",
    }
    command = [str(ours), "serve", *(word for pair in flags.items() for word in pair)]
    server = Server(command, port=port, folder=folder)
    deadline = time.monotonic() + 30
    while True:
        try:
            _got(f"http://127.0.0.1:{port}/healthz")
            return Proxy(server, store)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def crowd(proxy: Proxy, asked: argparse.Namespace, requests: int, seed: int) -> list[Seen]:
    """What clients saw of so many requests."""
    url = f"http://127.0.0.1:{proxy.server.port}/v1"
    clients = Crowd(url, requests, asked.at_once, asked.leave, DEADLINE, seed=seed)
    begun = time.monotonic()

    def told(done: int) -> None:
        if done % 200 == 0:
            progress(f"{done} of {requests}, {done / (time.monotonic() - begun):.0f}/s")

    asyncio.run(clients.run(told))
    return clients.seen


def settled(found: Found, proxy: Proxy, upstream: Faulty, before: tuple[float, int]) -> None:
    """Nothing is left open."""
    time.sleep(SETTLED)
    memory, tasks = before
    found.check("requests open at the upstream", upstream.stats()["open"] == 0)
    busy = proxy.metric("honestproxy_requests_in_flight")
    found.check("requests in flight", busy == 0, busy)
    now = proxy.metric("honestproxy_tasks")
    found.check("tasks, against before", now <= tasks, f"{now:.0f} against {tasks:.0f}")
    found.check(
        "memory, MB, against the first requests'",
        proxy.server.memory <= memory * _GROWTH,
        f"{proxy.server.memory:.1f} against {memory:.1f}",
    )


def agreed(found: Found, proxy: Proxy, seen: list[Seen]) -> None:
    """Clients, /metrics and the store have counted the same."""
    rows = {row["id"]: row for row in proxy.rows()}
    shed = proxy.metric("honestproxy_traces_shed_total")
    ended = [one for one in seen if one.end != "left"]
    stored = [one for one in ended if one.trace in rows]
    found.check("ended for the client", True, len(ended))
    found.check("of these stored", len(stored) + shed >= len(ended), len(stored))
    found.check("traces shed", True, int(shed))
    other = [one for one in stored if not _same(one, rows[one.trace])]
    found.check("stored as something else", not other, len(other), *other[:2])
    counted = Counter[tuple[str, str, str]]()
    for (name, labels), value in proxy.metrics().items():
        if name == "honestproxy_requests_total" and value:
            told = dict(labels)
            counted[told["strategy"], told["status"], told["outcome"]] += int(value)
    kept = Counter((r["strategy"] or "none", str(r["status"]), _outcome(r)) for r in rows.values())
    missing = sum(counted.values()) - sum(kept.values()) - int(shed)
    found.check("counted by /metrics and not stored, but for those shed", missing == 0, missing)
    differing = {
        key: (counted[key], kept[key]) for key in counted | kept if counted[key] != kept[key]
    }
    found.check("counted otherwise by /metrics", not differing or bool(shed), differing)
    late = sum(counted.values()) - len(ended)
    left = len(seen) - len(ended)
    found.check("left, and counted", 0 <= late <= left, f"{late} of {left}")


def _same(seen: Seen, row: dict[str, Any]) -> bool:
    failed = seen.end in ("error", "error in band")
    is_like = row["status"] == seen.status and bool(row["failed"]) is failed
    return is_like and (failed or row["outcome"] == seen.outcome)


def _outcome(row: dict[str, Any]) -> str:
    """A row's outcome in the words of /metrics."""
    if row["client_left"]:
        return "client_left"
    return "error" if row["failed"] else str(row["outcome"] or "error")


def measured(asked: argparse.Namespace) -> tuple[Found, Counter[str]]:
    """Everything, with a proxy and an upstream that are ended in any case."""
    found, upstream = Found(), Faulty(asked.share)
    with TemporaryDirectory(prefix="honestproxy-chaos-") as folder:
        proxy = None
        try:
            proxy = started(upstream, Path(folder))
            seen = crowd(proxy, asked, min(_WARMING, asked.requests // 4), seed=5)
            time.sleep(SETTLED)
            before = proxy.server.memory, proxy.metric("honestproxy_tasks")
            files = proxy.files
            begun = time.monotonic()
            seen += crowd(proxy, asked, asked.requests - len(seen), seed=11)
            found.check("seconds", True, round(time.monotonic() - begun))
            settled(found, proxy, upstream, before)
            agreed(found, proxy, seen)
            time.sleep(4.0)  # an upstream's idle connections are kept for so long, to serve again
            found.check("file handles", proxy.files <= files, f"{proxy.files} against {files}")
            found.numbers["calls by fault"] = upstream.stats()["seen"]
        finally:
            if proxy:
                proxy.server.end()
            upstream.end()
    wrong = [one for one in seen if one.complaint]
    found.check("requests that ended as they must not", not wrong, len(wrong))
    found.complaints += [f"{one.strategy}, {one.end}: {one.complaint}" for one in wrong[:20]]
    found.check("longest, s", True, round(max(one.seconds for one in seen), 2))
    ends = Counter(f"{one.end}{f', {one.outcome}' if one.end == 'answer' else ''}" for one in seen)
    return found, ends


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument(
        "--share", type=float, default=0.3, help="of the upstream's calls that fail"
    )
    parser.add_argument("--leave", type=float, default=0.05, help="of the clients that leave")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found, ends = measured(asked)
    if asked.json:
        print(json.dumps({"ends": ends, **vars(found)}, indent=2))
        return bool(found.complaints)
    rows = [[end, str(count)] for end, count in ends.most_common()]
    print(table(["how a request ended, as its client saw it", "times"], rows), end="\n\n")
    for what, value in found.numbers.items():
        print(f"{what:<58} {value}")
    for complaint in found.complaints:
        print(f"WRONG: {complaint}")
    print("chaos:", "FAILED" if found.complaints else "ok")
    return bool(found.complaints)


if __name__ == "__main__":
    sys.exit(main())
