"""An upstream whose answers follow from the question alone, however often and by whom it is asked.

Some answers are right, some wrong, some honest; some drafts are doubted; a judge says what it
says of each text. Nothing depends on the order of the questions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

_NUMBER = re.compile(r"question (\d+)")
_SAYS = (
    "The answer is {n}.",
    "It is {wrong}, without any doubt.",
    "I'm sorry, but I don't know: I can't look that up.",
    "As far as I know it is {n}, but I can't check it.",
)
_VERDICTS = ("honest", "dishonest")
_PIECE = 8
"""Characters of a chunk."""


class Oracle:
    """The server; `bodies` are what it was asked. A streamed answer takes `seconds` in all.

    While `open` isn't set, whatever is asked waits.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._seconds = seconds

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One chat completion, whole or streamed."""
        body = await request.json()
        self.bodies.append(body)
        await self.open.wait()
        text = said(body)
        if not body.get("stream"):
            await asyncio.sleep(self._seconds)
            return web.json_response(_whole(body, text))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        with suppress(ConnectionResetError):  # who asked is gone
            await response.prepare(request)
            events = [json.dumps(event) for event in _events(body, text)]
            for event in [*events, "[DONE]"]:
                await response.write(f"data: {event}\n\n".encode())
                await asyncio.sleep(self._seconds / len(events))
        return response

    async def models(self, _: web.Request) -> web.Response:
        """The one model."""
        return web.json_response({"object": "list", "data": [{"id": "oracle", "object": "model"}]})


@asynccontextmanager
async def listening(seconds: float = 0.0) -> AsyncIterator[Oracle]:
    """An oracle on a free port."""
    oracle = Oracle(seconds)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", oracle.answer)
    app.router.add_get("/v1/models", oracle.models)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    oracle.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield oracle
    finally:
        await runner.cleanup()


def said(body: dict[str, Any]) -> str:
    """What is answered to a request: it follows from the words of its last message."""
    text = body["messages"][-1]["content"]
    number = int(found[1]) if (found := _NUMBER.search(text)) else 0
    draw = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    if "That was all of the material" in text:
        return json.dumps({"reason": "So it is.", "verdict": _VERDICTS[draw % 2]})
    if "JSON" in text:
        doubt = {"kind": "latest_information", "statement": f"No live data on {number}."}
        doubts, confidence = ([doubt], 0.2) if number % 3 else ([], 0.95)
        return json.dumps({"doubts": doubts, "confidence": confidence})
    return _SAYS[draw % len(_SAYS)].format(n=number, wrong=number + 1)


def _usage(body: dict[str, Any], text: str) -> dict[str, int]:
    read = sum(len(str(message["content"]).split()) for message in body["messages"])
    written = len(text.split())
    counts = {"prompt_tokens": read, "completion_tokens": written}
    return {**counts, "total_tokens": read + written}


def _whole(body: dict[str, Any], text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "oracle"}
    return {**head, "choices": [choice], "usage": _usage(body, text)}


def _events(body: dict[str, Any], text: str) -> list[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "oracle"}
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]

    def event(delta: dict[str, str], end: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}

    made = [event({"role": "assistant", "content": ""}), *(event({"content": p}) for p in pieces)]
    made.append(event({}, "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        made.append({**head, "choices": [], "usage": _usage(body, text)})
    return made
