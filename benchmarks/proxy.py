"""What the proxy costs: latency, throughput, CPU and memory, beside a direct call and peers.

    python benchmarks/proxy.py [--repeat 3] [--seconds 2] [--only raw,litellm] [--json]

All before one scripted upstream, in rounds: each round measures everyone once, so that what
the machine does meanwhile hits all alike. Upstream, load and servers share its cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from typing import Any

from wire.contenders import ALL, CURIOSITY, DIRECT, RAW, Contender, installed, started
from wire.processes import Load, Server, Upstream, bench
from wire.report import Bound, progress, shown, table
from wire.script import Script

CONNECTIONS = (1, 16, 64)
BEYOND = Script(delay=20, log=True)


class Measuring:
    """Measures contenders in rounds; keeps a list of values for each measure of each."""

    def __init__(self, upstream: Upstream, load: Load, servers: dict[str, Server]) -> None:
        self._upstream = upstream
        self._load = load
        self._servers = servers
        self.found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.errors: dict[str, list[str]] = defaultdict(list)

    def warm(self, one: Contender, seconds: float) -> None:
        """Requests that don't count."""
        self._run(one, one.body(), connections=16, seconds=seconds)

    def round(self, one: Contender, seconds: float) -> None:
        """One of each measure."""
        for connections in CONNECTIONS:
            self._rate(one, connections, seconds)
        if one.chunked:
            result = self._run(one, one.body(stream=True), connections=1, seconds=seconds / 2)
            self._keep(one, first=result["first"], streamed=result["p50"])
        if one == CURIOSITY:
            self._beyond(one)
        if server := self._servers.get(one.server):
            self._keep(one, memory=server.memory)

    def _rate(self, one: Contender, connections: int, seconds: float) -> None:
        server = self._servers.get(one.server)
        before, cpu = self._upstream.stats(), server.cpu if server else 0.0
        result = self._run(one, one.body(), connections=connections, seconds=seconds)
        requests, after = max(result["requests"], 1), self._upstream.stats()
        self._keep(one, **{f"rate{connections}": result["per_second"]})
        if connections == 1:
            self._keep(one, **{name: result[name] for name in ("p50", "p95", "p99")})
        if connections == 16:
            tokens = ("prompt_tokens", "completion_tokens")
            spent = sum(after[name] - before[name] for name in tokens)
            calls = after["calls"] - before["calls"]
            self._keep(one, calls=calls / requests, tokens=spent / requests)
            if server:
                self._keep(one, cpu=(server.cpu - cpu) / requests * 1000)

    def _beyond(self, one: Contender) -> None:
        """What a turn waits beyond its upstream's own max(draft, confusion) + merge."""
        self._upstream.stats()
        body, times = one.body(BEYOND), 20
        result = self._run(
            one, body, connections=1, seconds=30, requests=times, each=True, may_err=False
        )
        turns = _turns(self._upstream.stats()["log"])
        if len(turns) == len(result["latencies"]):
            beyond = [
                waited - spent for waited, spent in zip(result["latencies"], turns, strict=True)
            ]
            self._keep(one, beyond=statistics.median(beyond) * 1000)

    def _run(
        self, one: Contender, body: dict[str, Any], *, may_err: bool = True, **job: Any
    ) -> dict[str, Any]:
        server = self._servers.get(one.server)
        port = server.port if server else self._upstream.port
        result = self._load.run(port=port, headers=one.headers, body=body, expect=one.expect, **job)
        if result["errors"]:
            self.errors[one.name].append(f"{result['errors']} × {result['example']}")
        return result

    def _keep(self, one: Contender, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None:
                self.found[one.name][name].append(value)


def _turns(log: list[tuple[str, float, float]]) -> list[float]:
    """Seconds that the upstream itself took for each turn: max(draft, confusion) + merge."""
    first, turns = list[float](), list[float]()
    for step, came, answered in log:
        if step == "merge":
            turns.append(max(first, default=0.0) + answered - came)
            first = []
        else:
            first.append(answered - came)
    return turns


def rows(measuring: Measuring, contenders: list[Contender]) -> list[dict[str, Any]]:
    """Medians over the rounds; what is added to direct is taken round by round."""
    direct = measuring.found[DIRECT.name]
    made = []
    for one in contenders:
        found = measuring.found[one.name]
        row: dict[str, Any] = {"name": one.name}
        row |= {name: statistics.median(values) for name, values in found.items()}
        for name in ("p50", "p95", "p99", "first"):
            pairs = zip(found.get(name, []), direct.get(name, []), strict=False)
            added = [theirs - plain for theirs, plain in pairs]
            row[f"added_{name}"] = statistics.median(added) if added else None
        row["errors"] = measuring.errors.get(one.name, [])
        made.append(row)
    return made


def with_ratios(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times a row's requests/s at 16 connections `raw` of ours gives."""
    ours = next((row for row in found if row["name"] == RAW.name), None)
    for row in found:
        rate = row.get("rate16")
        row["ratio"] = ours["rate16"] / rate if ours and rate else None
    return found


def bounds(found: list[dict[str, Any]]) -> list[Bound]:
    """What issue is to be kept, beside what was measured."""
    by_name = {row["name"]: row for row in found}

    def of(name: str, measure: str) -> float | None:
        value = by_name.get(name, {}).get(measure)
        return None if value is None else float(value)

    raw, curiosity = RAW.name, CURIOSITY.name
    return [
        Bound("raw: requests/s against LiteLLM's proxy", of("LiteLLM", "ratio"), 20, "×", True),
        Bound("raw: requests/s against OptiLLM", of("OptiLLM", "ratio"), 80, "×", True),
        Bound("raw: added p50 at 1 connection", of(raw, "added_p50"), 0.6, "ms"),
        Bound("raw: requests/s at 16 connections", of(raw, "rate16"), 2500, "/s", True),
        Bound("curiosity: requests/s at 16 connections", of(curiosity, "rate16"), 1000, "/s", True),
        Bound(
            "curiosity: p50 beyond max(draft, confusion) + merge", of(curiosity, "beyond"), 3, "ms"
        ),
    ]


COLUMNS = {
    "raw is × faster": "ratio",
    "req/s 1": "rate1",
    "16": "rate16",
    "64": "rate64",
    "added ms p50": "added_p50",
    "p95": "added_p95",
    "p99": "added_p99",
    "first token +ms": "added_first",
    "CPU ms": "cpu",
    "MB": "memory",
    "start s": "start",
    "calls": "calls",
    "tokens": "tokens",
}


def measured(contenders: list[Contender], repeat: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of the table."""
    with bench() as (upstream, load), started(contenders, upstream, progress) as servers:
        measuring = Measuring(upstream, load, servers)
        for one in contenders:
            progress(f"warming up: {one.name}")
            measuring.warm(one, min(seconds, 1.0))
        for number in range(repeat):
            for one in contenders:
                progress(f"round {number + 1} of {repeat}: {one.name}")
                measuring.round(one, seconds)
        found = with_ratios(rows(measuring, contenders))
        for one, row in zip(contenders, found, strict=True):
            if server := servers.get(one.server):
                row["start"] = server.start_seconds
    return found


def chosen(only: str | None) -> list[Contender]:
    """Those whose names hold one of the words of `--only`, and direct always."""
    words = [word.strip().lower() for word in only.split(",")] if only else [""]
    wanted = [c for c in ALL if c == DIRECT or any(word in c.name.lower() for word in words)]
    for one in wanted:
        if not installed(one.server):
            progress(f"{one.name} is not installed: make bench-peers")
    return [one for one in wanted if installed(one.server)]


def printed(found: list[dict[str, Any]]) -> None:
    """The table, and each bound beside its value."""
    cells = [[row["name"], *(shown(row.get(name)) for name in COLUMNS.values())] for row in found]
    print(table(["", *COLUMNS], cells))
    print()
    for bound in bounds(found):
        print(bound)
    for row in found:
        for error in row["errors"]:
            print(f"{row['name']}: bad replies: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", help="parts of names, separated by commas; direct always runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    begun = time.time()
    found = measured(chosen(arguments.only), arguments.repeat, arguments.seconds)
    progress(f"done in {time.time() - begun:.0f} s\n")
    if arguments.json:
        print(json.dumps({"rows": found, "bounds": [bound.json() for bound in bounds(found)]}))
    else:
        printed(found)


if __name__ == "__main__":
    main()
