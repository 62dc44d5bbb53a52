"""Clients that ask again where the proxy they were asking is gone, as clients of a cluster must."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp

ATTEMPTS = 6
_FIRST_WAIT = 0.25
_AGAIN = frozenset({500, 502, 503, 504})


class GoneWrongError(Exception):
    """What a client asks again after."""


@dataclass
class Crowd:
    """So many requests, half of them streamed, so many at once.

    `again` counts what was asked again, by reason; `failed` what got no answer after all
    attempts, `wrong` answers to another question.
    """

    url: str
    requests: int
    at_once: int
    expected: Callable[[str], str]
    answered: int = 0
    streamed: int = 0
    retried: int = 0
    again: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Ask all of it."""
        waiting = iter(range(self.requests))
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, waiting) for _ in range(self.at_once)))

    async def _client(self, session: aiohttp.ClientSession, waiting: Iterator[int]) -> None:
        for number in waiting:
            await self._ask(session, f"What is the answer to question {number}?", bool(number % 2))

    async def _ask(self, session: aiohttp.ClientSession, question: str, streamed: bool) -> None:
        for attempt in range(ATTEMPTS):
            try:
                text = await self._once(session, question, streamed)
                break
            except (GoneWrongError, aiohttp.ClientError, TimeoutError) as error:
                self.again[_reason(error)] += 1
                await asyncio.sleep(_FIRST_WAIT * 2**attempt)
        else:
            self.failed.append(question)
            return
        self.answered += 1
        self.streamed += streamed
        self.retried += attempt > 0
        if text != self.expected(question):
            self.wrong.append(f"{question} {text}")

    async def _once(self, session: aiohttp.ClientSession, question: str, streamed: bool) -> str:
        body = {"model": "oracle", "messages": [{"role": "user", "content": question}]}
        asked = session.post(self.url, json={**body, "stream": streamed})
        async with asked as got:
            if got.status in _AGAIN:
                raise GoneWrongError(f"status {got.status}")
            if got.status != 200:
                raise SystemExit(f"{got.status}: {await got.text()}")
            if streamed:
                return _joined(await got.read())
            return str((await got.json())["choices"][0]["message"]["content"])


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "an answer that broke off"
    return str(error) if isinstance(error, GoneWrongError) else type(error).__name__


def _joined(stream: bytes) -> str:
    """The text of a stream that has come to its end; a clean end without [DONE] is none."""
    events = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1].strip() != b"[DONE]":
        raise GoneWrongError("a stream without its end")
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)
