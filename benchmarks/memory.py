"""What the proxy keeps in memory: while a thousand streams are idle, and after many requests.

    python benchmarks/memory.py [--requests 300000] [--streams 1000] [--json]

The requests are a mix: whole and streamed, kept and merged, refused, failed in a later step, and
such as a client leaves before the answer. Memory is sampled ten times, and its growth counted
from the first sample on.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass, replace
from typing import Any

from wire.contenders import CURIOSITY, DRAFT, GATED, MERGE, RAW, Contender, started
from wire.processes import Load, Server, Upstream, bench
from wire.report import Bound, progress, shown, table
from wire.script import PLAIN, Script

SAMPLES = 10
CONNECTIONS = 16


@dataclass(frozen=True)
class Part:
    """One kind of request in the mix."""

    of_100: int
    one: Contender
    script: Script = PLAIN
    expect: str = DRAFT
    stream: bool = False
    status: int = 200
    leave: float | None = None

    def job(self, port: int, requests: int) -> dict[str, Any]:
        """As a job for the load."""
        more = {} if self.leave is None else {"leave": self.leave}
        return {
            "port": port,
            "headers": self.one.headers,
            "body": self.one.body(self.script, **({"stream": True} if self.stream else {})),
            "connections": CONNECTIONS,
            "seconds": 3600,
            "requests": requests,
            "expect": self.expect,
            "status": self.status,
            **more,
        }


MIX = (
    Part(30, RAW),
    Part(20, RAW, stream=True),
    Part(10, GATED),
    Part(6, GATED, stream=True),
    Part(6, GATED, Script(doubt=True), MERGE, stream=True),
    Part(10, CURIOSITY, expect=MERGE),
    Part(4, CURIOSITY, Script(fail="merge")),
    Part(4, RAW, Script(fail="draft"), "scripted", status=500),
    Part(4, GATED, Script(fail="draft"), "scripted", status=500),
    Part(3, RAW, Script(delay=50), leave=0.02),
    Part(3, GATED, Script(chunks=500), stream=True, leave=0.03),
)


def idle(one: Contender, streams: int, server: Server, upstream: Upstream, load: Load) -> Any:
    """Memory while so many streams have sent one chunk and no more, and after they were left."""
    before = server.memory
    body = one.body(Script(hang=True), stream=True)
    job = {"port": server.port, "headers": one.headers, "body": body}
    load.start(open=streams, over=streams / 200, hold=3.0, chunks=1, **job)
    deadline = time.monotonic() + 60
    while upstream.stats()["open"] < streams and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.0)
    during = server.memory
    begun = load.result()["begun"]
    time.sleep(1.0)
    left_open = upstream.stats()["open"]
    row = {"name": one.name, "streams": begun, "before": before, "during": during}
    return row | {"after": server.memory, "left_open": left_open}


def grown(requests: int, server: Server, upstream: Upstream, load: Load) -> dict[str, Any]:
    """Memory after each tenth of the requests, and what went wrong."""
    samples, errors, begun = list[float](), dict[str, str](), time.monotonic()
    block = requests // SAMPLES
    for number in range(SAMPLES):
        progress(f"{number * block:,} of {requests:,} requests")
        for part in MIX:
            result = load.run(**part.job(server.port, block * part.of_100 // 100))
            if result["errors"]:
                errors.setdefault(f"{part.one.name} {part.script}", result["example"])
        time.sleep(0.5)
        samples.append(server.memory)
    growth = (max(samples[1:]) / samples[0] - 1) * 100
    return {
        "samples": samples,
        "growth": growth,
        "errors": errors,
        "seconds": time.monotonic() - begun,
        "left_open": upstream.stats()["open"],
    }


def measured(requests: int, streams: int) -> dict[str, Any]:
    """Both, each on a server of its own."""
    _many_files()
    with bench() as (upstream, load):
        rows = []
        for one in (RAW, GATED):
            with started([one], upstream, progress) as servers:
                progress(f"{streams} idle streams: {one.name}")
                rows.append(idle(one, streams, servers["ours"], upstream, load))
        with started([replace(RAW, server="patient")], upstream, progress) as servers:
            return {"idle": rows, "many": grown(requests, servers["patient"], upstream, load)}


def _many_files() -> None:
    """A stream takes two connections of the proxy; each is a file, and 1,024 are a common limit."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bounds(found: dict[str, Any], streams: int) -> list[Bound]:
    """What is to be kept, beside what was measured."""
    made = []
    for row in found["idle"]:
        what = f"{streams} idle streams, {row['name']}: "
        made += [
            Bound(what + "memory", row["during"], 250, "MB"),
            Bound(what + "streams open", row["streams"], streams, at_least=True),
            Bound(what + "calls open after all left", row["left_open"], 0),
        ]
    many = found["many"]
    return [
        *made,
        Bound("growth after the first tenth of requests", many["growth"], 5, "%"),
        Bound("kinds of requests with a bad reply", len(many["errors"]), 0),
        Bound("calls open after all requests", many["left_open"], 0),
    ]


def printed(found: dict[str, Any], requests: int) -> None:
    names = ("streams", "before", "during", "after")
    rows = [[row["name"], *(shown(row[name]) for name in names)] for row in found["idle"]]
    print(table(["idle streams", "streams", "MB before", "during", "after"], rows))
    many = found["many"]
    samples = " ".join(f"{size:.1f}" for size in many["samples"])
    print(f"\n{requests:,} requests in {many['seconds']:.0f} s; MB after each tenth: {samples}\n")
    for kind, example in many["errors"].items():
        print(f"bad reply: {kind}: {example}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments.requests, arguments.streams)
    kept = bounds(found, arguments.streams)
    progress("done\n")
    if arguments.json:
        print(json.dumps(found | {"bounds": [bound.json() for bound in kept]}))
        return
    printed(found, arguments.requests)
    for bound in kept:
        print(bound)


if __name__ == "__main__":
    main()
