"""What it costs to look: CPU a request with metrics, logs, spans or traces, against none of them.

    python benchmarks/seeing.py [--repeat 5] [--requests 3000] [--json]

One proxy for each way of looking, all before one scripted upstream, measured in turns at 16
connections, so that what the machine does meanwhile hits all alike. Spans are sampled whole, and
go to a collector that takes them at once; logs go to a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from wire.contenders import GATED, RAW
from wire.processes import Load, Server, Upstream, bench, free_port
from wire.report import Bound, progress, shown, table

NONE = "nothing"
WAYS = {
    NONE: [],
    "metrics": ["--metrics", "true"],
    "logs, text": ["--log-level", "info"],
    "logs, JSON": ["--log-level", "info", "--log-format", "json"],
    "spans": ["--otlp-endpoint", "COLLECTOR"],
    "traces, facts": ["--traces", "facts", "--trace-store", "sqlite:///facts.db"],
    "traces, texts": ["--traces", "texts", "--trace-store", "sqlite:///texts.db"],
    "metrics, JSON, spans": [
        *("--metrics", "true", "--log-level", "info", "--log-format", "json"),
        *("--otlp-endpoint", "COLLECTOR"),
    ],
}
MOST = 0.15
"""What of `raw`'s CPU the metrics may add: they are on unless told otherwise."""

Found = dict[tuple[str, str], list[float]]


class Collector(BaseHTTPRequestHandler):
    """Takes whatever it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[str]:
    """Where spans can be sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextmanager
def looked_at(upstream: Upstream, address: str) -> Iterator[dict[str, Server]]:
    """A proxy for each way of looking."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="honestproxy-bench-")))
        made = {}
        for name, words in WAYS.items():
            progress(f"starting: {name}")
            port = free_port()
            command = [str(Path(sys.executable).with_name("honestproxy")), "serve"]
            command += ["--upstream", upstream.url, "--port", str(port)]
            command += ["--traces", "off"] + (
                [] if "--metrics" in words else ["--metrics", "false"]
            )
            command += [address if word == "COLLECTOR" else word for word in words]
            made[name] = Server(command, port=port, folder=folder)
            stack.callback(made[name].end)
            made[name].until_ready(RAW.body(), RAW.headers, 60)
        yield made


def measured(repeat: int, requests: int) -> Found:
    """Milliseconds of CPU a request, round by round."""
    found: Found = defaultdict(list)
    with (
        bench() as (upstream, load),
        collector() as address,
        looked_at(upstream, address) as servers,
    ):
        for number in range(-1, repeat):  # the first round warms up
            for name, server in servers.items():
                for one in (RAW, GATED):
                    progress(f"round {number + 1} of {repeat}: {name}, {one.name}")
                    spent = _spent(load, server, one.body(), one.headers, requests)
                    if number >= 0:
                        found[one.headers["X-Honesty"], name].append(spent)
    return found


def _spent(
    load: Load, server: Server, body: dict[str, object], headers: dict[str, str], requests: int
) -> float:
    before = server.cpu
    job = {"connections": 16, "seconds": 60, "requests": requests, "expect": "This is the draft"}
    done = load.run(port=server.port, body=body, headers=headers, **job)
    return (server.cpu - before) / done["requests"] * 1000


def added(found: Found, strategy: str, name: str) -> float:
    """What a way of looking adds: the median of the differences, round by round."""
    pairs = zip(found[strategy, name], found[strategy, NONE], strict=True)
    return statistics.median(one - none for one, none in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measured(given.repeat, given.requests)
    share = added(found, "raw", "metrics") / statistics.median(found["raw", NONE])
    bound = Bound("raw: CPU that metrics add, of what it takes without", share, MOST)
    rows = [
        [name, *(shown(statistics.median(found[s, name])) for s in ("raw", "gated"))]
        + [shown(added(found, s, name) * 1000) for s in ("raw", "gated")]
        for name in WAYS
    ]
    if given.json:
        told = {f"{strategy}, {name}": values for (strategy, name), values in found.items()}
        print(json.dumps({"cpu_ms": told, "bounds": [bound.json()]}))
    else:
        print(table(["", "raw, CPU ms", "gated, CPU ms", "raw +µs", "gated +µs"], rows))
        print(bound)
    return 0 if bound.ok else 1


if __name__ == "__main__":
    sys.exit(main())
