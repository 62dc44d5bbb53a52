"""Measures contenders, one after another, and keeps what was found."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from wire.contenders import CURIOSITY, Contender
from wire.processes import Load, Server, Upstream
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
        streamed = self._run(one, one.body(stream=True), connections=1, seconds=seconds / 2)
        self._keep(one, first=streamed["first"])
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
        job = {"connections": 1, "seconds": 30, "requests": 20, "each": True}
        waited = self._run(one, one.body(BEYOND), **job)["latencies"]
        spent = _turns(self._upstream.stats()["log"])
        if len(waited) == len(spent):
            beyond = [whole - theirs for whole, theirs in zip(waited, spent, strict=True)]
            self._keep(one, beyond=statistics.median(beyond) * 1000)

    def _run(self, one: Contender, body: dict[str, Any], **job: Any) -> dict[str, Any]:
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
