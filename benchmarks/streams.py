"""How much later a chunk of a stream comes through the proxy, for one stream and for many.

    python benchmarks/streams.py [--repeat 3] [--seconds 10] [--json]

Each chunk says when the upstream sent it; the reader, on the same machine and so by the same
clock, notes how long ago that was. Beside the proxy: straight from the upstream, which shows
what the machine itself does, and for one stream a bare relay of bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from typing import Any

from wire.contenders import DIRECT, GATED, RAW, Contender, started
from wire.kernel import Others
from wire.processes import Child, Load, bench
from wire.report import Bound, progress, shown, table
from wire.script import Script

RATE = 50
BARE = Contender("bare relay of bytes", "relay")
MANY = ((DIRECT, 200), (RAW, 200), (DIRECT, 100), (GATED, 100))


class Reading:
    """Reads streams of contenders, each at its own port."""

    def __init__(self, load: Load, ports: dict[str, int]) -> None:
        self._load = load
        self._ports = ports

    def read(self, one: Contender, streams: int, seconds: float, rate: float) -> dict[str, Any]:
        """So many streams for so many seconds."""
        chunks = round(seconds * rate)
        return self._load.run(
            open=streams,
            over=1.0 if streams > 1 else 0.0,
            chunks=chunks,
            port=self._ports[one.server],
            headers=one.headers,
            body=one.body(Script(chunks=chunks, rate=rate), stream=True),
        )


def one_stream(reading: Reading, repeat: int, seconds: float) -> list[dict[str, Any]]:
    """What each adds to the median chunk of one stream, taken round by round."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(repeat):
        for one in (DIRECT, BARE, RAW, GATED):
            progress(f"one stream, round {number + 1} of {repeat}: {one.name}")
            found[one.name].append(reading.read(one, 1, seconds, 2 * RATE)["p50"])
    plain = found[DIRECT.name]
    return [
        {
            "name": name,
            "p50": statistics.median(values),
            "added": statistics.median(a - b for a, b in zip(values, plain, strict=True)),
        }
        for name, values in found.items()
    ]


def many_streams(reading: Reading, repeat: int, seconds: float) -> list[dict[str, Any]]:
    """Chunks late by 50 ms, summed over the rounds."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for number in range(repeat):
        for one, streams in MANY:
            progress(f"{streams} streams, round {number + 1} of {repeat}: {one.name}")
            result = reading.read(one, streams, seconds, RATE)
            row = rows.setdefault((one.name, streams), {"name": one.name, "streams": streams})
            for name in ("chunks", "late", "broken"):
                row[name] = row.get(name, 0) + result[name]
            for name in ("p50", "p99", "worst"):
                row[name] = max(row.get(name, 0.0), result[name])
    return list(rows.values())


def bounds(one: list[dict[str, Any]], many: list[dict[str, Any]]) -> list[Bound]:
    """What is to be kept, beside what was measured."""
    added = {row["name"]: row["added"] for row in one}
    made = [Bound("one stream, raw: added per chunk, p50", added[RAW.name], 0.5, "ms")]
    for row in many:
        if row["name"] != DIRECT.name:
            what = f"{row['streams']} streams, {row['name']}: "
            made.append(Bound(what + "chunks late by 50 ms", row["late"], 0))
            made.append(Bound(what + "streams broken", row["broken"], 0))
    return made


def measured(repeat: int, seconds: float) -> dict[str, Any]:
    """Both tables, and how much of the machine went elsewhere meanwhile."""
    with bench() as (upstream, load), started([RAW], upstream, progress) as servers:
        relay = Child("wire.relay", upstream.url)
        try:
            ports = {"": upstream.port, "relay": int(relay.line()), "ours": servers["ours"].port}
            reading = Reading(load, ports)
            _warm_up(reading)
            others = Others(upstream.pid, load.pid, relay.pid, servers["ours"].pid)
            one = one_stream(reading, repeat, min(seconds, 5))
            many = many_streams(reading, repeat, seconds)
            return {"one": one, "many": many, "others_percent": others.share}
        finally:
            relay.end()


def _warm_up(reading: Reading) -> None:
    for one in (DIRECT, BARE, RAW, GATED):
        reading.read(one, 10, 1, RATE)


def printed(found: dict[str, Any]) -> None:
    one = [[r["name"], shown(r["added"]), shown(r["p50"])] for r in found["one"]]
    print(table([f"one stream, {2 * RATE} chunks/s", "added ms p50", "ms p50"], one))
    print()
    names = ("streams", "chunks", "late", "broken", "p50", "p99", "worst")
    many = [[r["name"], *(shown(r[name]) for name in names)] for r in found["many"]]
    head = ["streams", "chunks", "late ≥ 50 ms", "broken", "ms p50", "p99", "worst"]
    print(table([f"{RATE} chunks/s each", *head], many))
    print(f"\nothers used {found['others_percent']:.0f} % of the machine meanwhile\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments.repeat, arguments.seconds)
    kept = bounds(found["one"], found["many"])
    progress("done\n")
    if arguments.json:
        print(json.dumps(found | {"bounds": [bound.json() for bound in kept]}))
        return
    printed(found)
    for bound in kept:
        print(bound)
    if any(row["late"] for row in found["many"] if row["name"] == DIRECT.name):
        print("direct was late itself: the machine was too busy for a verdict on late chunks")


if __name__ == "__main__":
    main()
