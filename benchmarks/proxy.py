"""What the proxy costs: latency, throughput, CPU and memory, beside a direct call and peers.

    python benchmarks/proxy.py [--repeat 3] [--seconds 2] [--only raw,litellm]
                               [--json] [--plot FILE.svg]

All before one scripted upstream, in rounds: each round measures everyone once, so that what
the machine does meanwhile hits all alike. Upstream, load and servers share its cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from wire.contenders import (
    ALL,
    CURIOSITY,
    DIRECT,
    KEYED,
    KEYED_CURIOSITY,
    LITELLM,
    OPTILLM,
    OURS,
    RAW,
    Contender,
    installed,
    started,
    version,
)
from wire.kernel import Others
from wire.measuring import Measuring
from wire.plot import drawn
from wire.processes import bench
from wire.report import Bound, progress, shown, table


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
    """How many times a row's requests/s at 16 connections `raw` of ours gives; its CPU, too."""
    ours = next((row for row in found if row["name"] == RAW.name), {})
    for row in found:
        row["ratio"] = _times(ours.get("rate16"), row.get("rate16"))
        row["cpu_ratio"] = _times(row.get("cpu"), ours.get("cpu"))
    return found


def _times(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def bounds(found: list[dict[str, Any]]) -> list[Bound]:
    """What is to be kept, beside what was measured."""
    by_name = {row["name"]: row for row in found}

    def of(name: str, measure: str) -> float | None:
        value = by_name.get(name, {}).get(measure)
        return None if value is None else float(value)

    raw, curiosity = RAW.name, CURIOSITY.name
    return [
        Bound("raw: requests/s against LiteLLM's proxy", of(LITELLM.name, "ratio"), 20, "×", True),
        Bound("raw: requests/s against OptiLLM", of(OPTILLM.name, "ratio"), 80, "×", True),
        Bound("raw: added p50 at 1 connection", of(raw, "added_p50"), 0.6, "ms"),
        Bound("raw: requests/s at 16 connections", of(raw, "rate16"), 2500, "/s", True),
        Bound("curiosity: requests/s at 16 connections", of(curiosity, "rate16"), 1000, "/s", True),
        Bound("raw with keys: added p50", of(KEYED.name, "added_p50"), 0.69, "ms"),
        Bound("raw with keys: requests/s at 16", of(KEYED.name, "rate16"), 2125, "/s", True),
        Bound(
            "curiosity with keys: requests/s at 16",
            of(KEYED_CURIOSITY.name, "rate16"),
            850,
            "/s",
            True,
        ),
        Bound(
            "curiosity: p50 beyond max(draft, confusion) + merge", of(curiosity, "beyond"), 3, "ms"
        ),
    ]


COLUMNS = {
    "raw's req/s ×": "ratio",
    "× raw's CPU": "cpu_ratio",
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


def measured(contenders: list[Contender], repeat: int, seconds: float) -> dict[str, Any]:
    """The rows of the table, and how much of the machine went elsewhere meanwhile."""
    with bench() as (upstream, load), started(contenders, upstream, progress) as servers:
        contenders = [one for one in contenders if not one.server or one.server in servers]
        measuring = Measuring(upstream, load, servers)
        for one in contenders:
            progress(f"warming up: {one.name}")
            measuring.warm(one, min(seconds, 1.0))
        others = Others(upstream.pid, load.pid, *(server.pid for server in servers.values()))
        for number in range(repeat):
            for one in contenders:
                progress(f"round {number + 1} of {repeat}: {one.name}")
                measuring.round(one, seconds)
        elsewhere, found = others.share, with_ratios(rows(measuring, contenders))
        for one, row in zip(contenders, found, strict=True):
            if server := servers.get(one.server):
                row["start"] = server.start_seconds
        peers = {name: version(name) for name in servers if name not in OURS}
    return {"rows": found, "versions": peers, "others_percent": elsewhere}


def chosen(only: str | None) -> list[Contender]:
    """Those whose names hold one of the words of `--only`, and direct always."""
    words = [word.strip().lower() for word in only.split(",")] if only else [""]
    wanted = [c for c in ALL if c == DIRECT or any(word in c.name.lower() for word in words)]
    for one in wanted:
        if not installed(one.server):
            progress(f"{one.name} is not installed: make bench-peers")
    return [one for one in wanted if installed(one.server)]


def printed(found: dict[str, Any]) -> None:
    """The table, and each bound beside its value."""
    cells = [
        [row["name"], *(shown(row.get(name)) for name in COLUMNS.values())] for row in found["rows"]
    ]
    print(table(["", *COLUMNS], cells))
    peers = "".join(f"{name} {number}; " for name, number in found["versions"].items())
    print(f"\n{peers}others used {found['others_percent']:.0f} % of the machine meanwhile\n")
    for bound in bounds(found["rows"]):
        print(bound)
    for row in found["rows"]:
        for error in row["errors"]:
            print(f"{row['name']}: bad replies: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", help="parts of names, separated by commas; direct always runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the table, too")
    arguments = parser.parse_args()
    begun = time.time()
    found = measured(chosen(arguments.only), arguments.repeat, arguments.seconds)
    progress(f"done in {time.time() - begun:.0f} s\n")
    if arguments.plot:
        drawn(found["rows"], arguments.plot)
    if arguments.json:
        print(json.dumps(found | {"bounds": [bound.json() for bound in bounds(found["rows"])]}))
    else:
        printed(found)


if __name__ == "__main__":
    main()
