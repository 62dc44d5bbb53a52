"""An upstream that fails in all the ways that upstreams fail, in some share of its calls.

    python -m wire.faulty [SHARE]      # in benchmarks/; prints its port, ends when its stdin does

A request carries a nonce, `[nonce 0f3a…]`, in the text of its last user message, and so does each
answer to it: an answer that reaches another's request is found out. GET /stats tells how often it
failed in which way, and how many requests are open.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from wire.upstream import DOUBT, LISTS_DOUBTS, NO_DOUBT, step_of

NONCE = re.compile(rb"\[nonce ([0-9a-f]+)\]")
HTML = "<!doctype html><title>Bad gateway</title><h1>502 Bad Gateway</h1>"
PIECES = 6
SECOND = 1.0

Fault = Callable[["Faulty", web.Request, bytes], Awaitable[web.StreamResponse]]


class Faulty:
    """The server: what it answers, and how often it failed."""

    def __init__(self, share: float, seed: int = 7) -> None:
        self._share = share
        self._random = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request, answered well or not."""
        if request.path == "/stats":
            return web.json_response({"seen": self.seen, "open": self.open})
        if request.path.endswith("/models"):
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
        body = await request.read()
        if not request.path.endswith("/chat/completions"):
            is_known = not request.path.endswith("/responses")  # those are asked by chat
            return web.json_response(
                {"object": "list", "data": []}, status=200 if is_known else 404
            )
        name = self._random.choice(list(FAULTS)) if self._random.random() < self._share else "good"
        self.seen[name] += 1
        self.open += 1
        try:
            return await FAULTS.get(name, good)(self, request, body)
        except ConnectionError:  # whoever asked is gone, as clients and deadlines will have it
            return web.Response()
        finally:
            self.open -= 1


def text(body: bytes) -> str:
    """What a good answer says: a step's own words, and the request's nonce."""
    step = step_of(body)
    found = NONCE.search(body)
    nonce = found[1].decode() if found else "0"
    if step == "confusion" and LISTS_DOUBTS in body:
        return DOUBT if int(nonce, 16) % 3 == 0 else NO_DOUBT
    return f"This is the {step} of nonce {nonce}."


def whole(body: bytes) -> bytes:
    """A good completion."""
    message = {"role": "assistant", "content": text(body)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def events(body: bytes) -> list[bytes]:
    """The same as a stream."""
    said = text(body)
    size = -(-len(said) // PIECES)
    deltas: list[dict[str, Any]] = [
        {"content": said[at : at + size]} for at in range(0, len(said), size)
    ]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    made = [json.dumps({**head, "choices": [choice]}).encode() for choice in choices]
    return [b"data: " + data + b"\n\n" for data in [*made, b"[DONE]"]]


def is_streamed(body: bytes) -> bool:
    """Whether chunks are wanted."""
    with suppress(ValueError, RecursionError):  # what is odder than Python takes isn't streamed
        asked = json.loads(body)
        return isinstance(asked, dict) and asked.get("stream") is True
    return False


async def good(_: Faulty, request: web.Request, body: bytes) -> web.StreamResponse:
    """A right answer."""
    return await sent(request, body, parts(body))


def parts(body: bytes) -> list[bytes]:
    """A good answer, as it goes over the wire."""
    return events(body) if is_streamed(body) else [whole(body)]


async def sent(request: web.Request, body: bytes, pieces: list[bytes]) -> web.StreamResponse:
    """These pieces under the head of a good answer, its length announced where it is whole."""
    streamed = is_streamed(body)
    response = web.StreamResponse()
    response.content_type = "text/event-stream" if streamed else "application/json"
    if not streamed:
        response.content_length = len(whole(body))
    await response.prepare(request)
    for piece in pieces if request.method != "HEAD" else ():
        await response.write(piece)
    return response


def refusing(status: int, **headers: str) -> Fault:
    """A fault that is told by its status, as OpenAI's API tells it."""

    async def refuse(_: Faulty, __: web.Request, ___: bytes) -> web.StreamResponse:
        error = {"message": f"scripted {status}", "type": "scripted", "param": None, "code": None}
        return web.json_response({"error": error}, status=status, headers=headers)

    return refuse


async def hang(_: Faulty, __: web.Request, ___: bytes) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def reset(_: Faulty, request: web.Request, __: bytes) -> web.StreamResponse:
    """The connection drops before any head."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def broken_off(_: Faulty, request: web.Request, body: bytes) -> web.StreamResponse:
    """The connection drops in mid-answer: half a JSON, or a stream without an end."""
    made = parts(body)
    half = made[: len(made) // 2] if len(made) > 1 else [made[0][: len(made[0]) // 2]]
    response = await sent(request, body, half)
    await asyncio.sleep(0.02)
    assert request.transport is not None
    request.transport.abort()
    return response


async def half_json(_: Faulty, request: web.Request, body: bytes) -> web.StreamResponse:
    """A head and an end that are well, and half a JSON between them."""
    cut = whole(body)[:60]
    if is_streamed(body):
        return await sent(request, body, [*events(body)[:2], b"data: " + cut + b"\n\n"])
    return web.Response(body=cut, content_type="application/json")


async def html(_: Faulty, __: web.Request, ___: bytes) -> web.StreamResponse:
    """A page of some gateway's, with a good status."""
    return web.Response(text=HTML, content_type="text/html")


async def error_body(_: Faulty, __: web.Request, ___: bytes) -> web.StreamResponse:
    """A good status over an error."""
    return web.json_response({"error": {"message": "scripted, under 200", "type": "scripted"}})


async def slow(_: Faulty, request: web.Request, body: bytes) -> web.StreamResponse:
    """One byte a second."""
    response = web.StreamResponse()
    response.content_type = "text/event-stream" if is_streamed(body) else "application/json"
    await response.prepare(request)
    for byte in b"".join(parts(body)):
        await response.write(bytes([byte]))
        await asyncio.sleep(SECOND)
    return response


async def wrong_type(_: Faulty, __: web.Request, body: bytes) -> web.StreamResponse:
    """An answer that says that it is something else."""
    return web.Response(body=b"".join(parts(body)), content_type="image/png")


FAULTS: dict[str, Fault] = {
    "429": refusing(429, **{"Retry-After": "1"}),
    "500": refusing(500),
    "503": refusing(503),
    "hang": hang,
    "reset": reset,
    "broken off": broken_off,
    "half a JSON": half_json,
    "HTML": html,
    "200 with an error": error_body,
    "a byte a second": slow,
    "wrong type": wrong_type,
}


async def main() -> None:
    """Serve until stdin ends."""
    faulty = Faulty(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
    app = web.Application(client_max_size=100_000_000)
    app.router.add_route("*", "/{path:.*}", faulty.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    await web.SockSite(runner, listener, backlog=1024).start()
    print(listener.getsockname()[1], flush=True)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    watch = threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
    )
    watch.start()
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
