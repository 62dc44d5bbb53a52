"""An upstream that costs next to nothing: OpenAI's chat completions, answered by script.

    python -m wire.upstream      # in benchmarks/; prints its port, ends when its stdin does

One process, asyncio's protocols on uvloop, httptools, and replies that are nearly all made
beforehand. GET /stats tells how many calls came, and what they cost.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
import time
from typing import Any

import httptools
import uvloop

from wire.script import PLAIN, Script, scripted

TEXT = (
    "This is the %s. It says what a helpful assistant would say to a question of this kind, in a "
    "few plain sentences of ordinary length, so that what goes over the wire is about as long as "
    "it is in daily use: long enough to be worth sending, short enough to be read at a glance."
)
NO_DOUBT = '{"doubts": [], "confidence": 0.97}'
DOUBT = (
    '{"doubts": [{"kind": "latest_information", "statement": "No live data."}], "confidence": 0.1}'
)
LISTS_DOUBTS = b"Reply with one JSON object"
_STREAMED = re.compile(rb'"stream"\s*:\s*true')
_SEVERAL = re.compile(rb'"n"\s*:\s*([2-9])')
_WITH_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_STAMP = "t=%017.6f "


def step_of(body: bytes) -> str:
    """Which step of a strategy asks, by the words of our prompts."""
    if b"Two notes were made" in body:
        return "merge"
    return "confusion" if b"from the application" in body else "draft"


def _text(step: str, script: Script, body: bytes) -> str:
    if step == "confusion" and LISTS_DOUBTS in body:
        return DOUBT if script.doubt else NO_DOUBT
    return TEXT % step


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    return head % (status, len(body), body)


def _usage(prompt: int, completion: int) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _completion(text: str, usage: dict[str, int], count: int) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(count)]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps(head | {"choices": choices, "usage": usage}).encode()


def _event(delta: dict[str, str], finish: str | None = None, **more: Any) -> bytes:
    choices = [] if more else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": choices} | more).encode() + b"\n\n"


def _part(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_ROLE = _event({"role": "assistant", "content": ""})
_STAMPED = _part(_event({"content": _STAMP % 0})).replace((_STAMP % 0).encode(), b"t=%017.6f ")
_STOP = _event({}, "stop")
_DONE = b"data: [DONE]\n\n"
_LAST = b"0\r\n\r\n"
_MODELS = _response(b'{"object":"list","data":[{"id":"m","object":"model","created":1}]}')
_FAILED = _response(
    b'{"error":{"message":"scripted","type":"server_error"}}', b"500 Internal Server Error"
)
_MISSING = _response(b'{"error":{"message":"no such path"}}', b"404 Not Found")


class Stats:
    """What came so far."""

    def __init__(self) -> None:
        self.calls = self.prompt_tokens = self.completion_tokens = self.open = 0
        self.log: list[tuple[str, float, float]] = []

    def told(self) -> bytes:
        """As a response; the log begins anew."""
        body = json.dumps(vars(self)).encode()
        self.log = []
        return _response(body)


class Connection(asyncio.Protocol):
    """One connection: requests in turn, each answered as its script says."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._parser = httptools.HttpRequestParser(self)
        self._clock = asyncio.get_running_loop()
        self._body: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._streams = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stats.open -= self._streams
        self._streams = False

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._body = []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._path.endswith(b"/chat/completions"):
            self._chat(b"".join(self._body))
        elif self._path.endswith(b"/models"):
            self._transport.write(_MODELS)
        else:
            self._transport.write(self._stats.told() if self._path == b"/stats" else _MISSING)

    def _chat(self, body: bytes) -> None:
        came, script, step = time.perf_counter(), scripted(body), step_of(body)
        text = _text(step, script, body)
        several = _SEVERAL.search(body)
        count = int(several[1]) if several else 1
        prompt, completion = len(body) // 4, len(text) // 4 * count
        stats = self._stats
        stats.calls += 1
        stats.prompt_tokens += prompt
        stats.completion_tokens += completion
        usage = _usage(prompt, completion)

        def answer() -> None:
            if script.fail == step:
                self._transport.write(_FAILED)
            elif _STREAMED.search(body) is None:
                self._transport.write(_response(_completion(text, usage, count)))
            else:
                told = usage if _WITH_USAGE.search(body) else None
                self._stream(text, script if step == "draft" else PLAIN, told)
            if script.log:
                stats.log.append((step, came, time.perf_counter()))

        if script.delay:
            self._timer = self._clock.call_later(script.delay / 1000, answer)
        else:
            answer()

    def _stream(self, text: str, script: Script, usage: dict[str, int] | None) -> None:
        end = _STOP + (_event({}, usage=usage) if usage else b"") + _DONE
        if not (script.chunks or script.hang):
            words = [_event({"content": piece}) for piece in re.findall(r".{1,40}", text)]
            everything = _part(b"".join((_ROLE, *words, end)))
            self._transport.write(_STREAM_HEAD + everything + _LAST)
            return
        self._stats.open += 1
        self._streams = True
        self._transport.write(_STREAM_HEAD + _part(_ROLE) + _STAMPED % time.perf_counter())
        if not script.hang:
            self._next(1, self._clock.time(), script, _part(end) + _LAST)

    def _next(self, number: int, start: float, script: Script, end: bytes) -> None:
        """Wait for the time of a chunk; it may be late itself, and tells when it really went."""

        def send() -> None:
            if number == script.chunks:
                self._transport.write(end)
                self._stats.open -= 1
                self._streams = False
                return
            self._transport.write(_STAMPED % time.perf_counter())
            self._next(number + 1, start, script, end)

        self._timer = self._clock.call_at(start + number / script.rate, send)


def listening() -> socket.socket:
    """A socket on a free port; it names TCP, or asyncio would leave Nagle's algorithm on."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def until_stdin_ends() -> asyncio.Future[None]:
    """Done when whoever started this process is gone, or closes the pipe."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=wait, daemon=True).start()
    return ended


async def main() -> None:
    stats, listener = Stats(), listening()
    await asyncio.get_running_loop().create_server(lambda: Connection(stats), sock=listener)
    print(listener.getsockname()[1], flush=True)
    await until_stdin_ends()


if __name__ == "__main__":
    uvloop.run(main())
