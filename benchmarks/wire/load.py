"""A client that costs next to nothing: as many requests as its connections carry, or streams.

    python -m wire.load      # in benchmarks/; for each job on stdin a result on stdout, as JSON

A job has `port`, `headers`, `body` and `connections`; then `seconds` and `expect`, the words that
a good reply holds. It may have `requests`, the most to send, `status`, that of a good reply,
`leave`, the seconds after which the client leaves, and `each`, to be told all latencies. With
`open` it is a job for streams: see `wire.streams`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import httptools
import uvloop


def request_bytes(job: dict[str, Any]) -> bytes:
    """The request, made once."""
    body = json.dumps(job["body"]).encode()
    headers = {
        "Host": f"127.0.0.1:{job['port']}",
        "Content-Type": "application/json",
        "Authorization": "Bearer none",
        **job.get("headers", {}),
        "Content-Length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + body


class Exchange(asyncio.Protocol):
    """One connection: sends a request, reads its reply, and says when that is complete."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Begin one exchange."""
        self.status, self.body = 0, []
        self.started = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.body = []

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete()

    def complete(self) -> None:
        """A whole reply is here."""
        raise NotImplementedError


class Tally:
    """What all connections of a job found."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.expect = job["expect"].encode()
        self.job = job
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.errors = self.left = 0
        self.example = ""
        self.status = job.get("status", 200)
        self.leave = job.get("leave")
        self.started = time.perf_counter()
        self.until = self.started + job["seconds"]
        self.most = job.get("requests", sys.maxsize)

    @property
    def over(self) -> bool:
        sent = len(self.latencies) + self.errors + self.left
        return time.perf_counter() >= self.until or sent >= self.most

    def bad(self, reply: str) -> None:
        self.errors += 1
        self.example = self.example or reply[:500]

    def result(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.started
        done = len(self.latencies)
        return {
            "requests": done,
            "seconds": seconds,
            "per_second": done / seconds,
            "errors": self.errors,
            "left": self.left,
            "example": self.example,
            **percentiles(self.latencies),
            "first": statistics.median(self.firsts) * 1000 if self.firsts else None,
            **({"latencies": self.latencies} if self.job.get("each") else {}),
        }


def percentiles(seconds: list[float]) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds."""
    if len(seconds) < 2:
        return dict.fromkeys(("p50", "p95", "p99"), seconds[0] * 1000 if seconds else None)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{at}": cuts[at - 1] * 1000 for at in (50, 95, 99)}


class Repeated(Exchange):
    """Sends the next request as soon as a reply is complete, until time is up."""

    def __init__(self, request: bytes, tally: Tally, renew: Callable[[], None]) -> None:
        super().__init__(request)
        self._tally = tally
        self._renew = renew
        self._first = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._tally.leave is not None:
            asyncio.get_running_loop().call_later(self._tally.leave, transport.abort)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if not self._first and self._tally.expect in body:
            self._first = time.perf_counter()

    def complete(self) -> None:
        now, tally = time.perf_counter(), self._tally
        if not self._first and tally.expect in b"".join(self.body):
            self._first = now
        if self.status == tally.status and self._first:
            tally.latencies.append(now - self.started)
            tally.firsts.append(self._first - self.started)
        else:
            body = b"".join(self.body).decode("utf-8", "replace")
            tally.bad(f"{self.status} {body}")
        self._first, self.started = 0.0, 0.0
        if tally.over or not self._parser.should_keep_alive():
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        if self.started and self._tally.leave is not None:
            self._tally.left += 1
        elif self.started:
            self._tally.bad("the connection was closed before the reply was complete")
        self._renew()


async def loaded(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job: requests one after another on each connection."""
    loop, request, tally = asyncio.get_running_loop(), request_bytes(job), Tally(job)

    async def connection() -> None:
        while not tally.over:
            closed = loop.create_future()
            made = lambda: Repeated(request, tally, lambda: closed.set_result(None))  # noqa: E731, B023
            try:
                await loop.create_connection(made, "127.0.0.1", job["port"])
            except OSError as error:
                tally.bad(str(error))
                await asyncio.sleep(0.05)
                continue
            await closed

    await asyncio.gather(*(connection() for _ in range(job["connections"])))
    return tally.result()


async def done(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job of either kind."""
    if "open" not in job:
        return await loaded(job)
    from wire.streams import read_streams

    return await read_streams(job)


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(done(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
