"""Reads many streams at once, and says how late each chunk came after the upstream sent it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from wire.load import Exchange, percentiles, request_bytes

_STAMP = re.compile(rb"t=([0-9.]{17})")
LATE = 0.050


class Stream(Exchange):
    """One stream; notes for each chunk the seconds since it was sent. One machine, one clock."""

    def __init__(self, request: bytes, late: list[float]) -> None:
        super().__init__(request)
        self._late = late
        self.chunks = 0
        self.ended = asyncio.get_running_loop().create_future()
        self.begun = asyncio.get_running_loop().create_future()
        self.whole = False

    def on_body(self, body: bytes) -> None:
        now = time.perf_counter()
        for stamp in _STAMP.findall(body):
            self._late.append(now - float(stamp))
            self.chunks += 1
        if self.chunks and not self.begun.done():
            self.begun.set_result(None)
        self.whole = self.whole or b"[DONE]" in body

    def complete(self) -> None:
        self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)


async def read_streams(job: dict[str, Any]) -> dict[str, Any]:
    """Open streams over the span of `over` seconds, and read each to its end.

    With `hold` they are left as they are after their first chunk for so many seconds.
    """
    loop, late = asyncio.get_running_loop(), list[float]()
    request, streams = request_bytes(job), list[Stream]()
    for _ in range(job["open"]):
        made = await loop.create_connection(lambda: Stream(request, late), "127.0.0.1", job["port"])
        streams.append(made[1])
        await asyncio.sleep(job.get("over", 1.0) / job["open"])
    await asyncio.wait([stream.begun for stream in streams])
    if "hold" in job:
        await asyncio.sleep(job["hold"])
        for stream in streams:
            stream.transport.close()
    await asyncio.wait([stream.ended for stream in streams])
    wanted = job["chunks"]
    return {
        "streams": len(streams),
        "begun": sum(stream.chunks > 0 for stream in streams),
        "broken": sum(not (stream.whole and stream.chunks == wanted) for stream in streams),
        "chunks": len(late),
        "late": sum(seconds >= LATE for seconds in late),
        "worst": max(late, default=0.0) * 1000,
        **percentiles(late),
    }
