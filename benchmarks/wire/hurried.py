"""Clients that ask many times at once, check each answer, and leave now and then.

Every request carries a nonce of its own. What became of each is a `Seen`; whatever must not be
seen is a complaint.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

STRATEGIES = ("raw", "gated", "raw", "gated", "curiosity")
SLACK = 1.0
"""Seconds beyond the deadline for both processes to come round to it: they share two cores."""


@dataclass
class Seen:
    """What a client saw of one request: nothing of the end where it left."""

    nonce: str
    streamed: bool
    strategy: str
    status: int = 0
    outcome: str = ""
    trace: str = ""
    end: str = "left"
    seconds: float = 0.0
    complaint: str = ""


@dataclass
class Crowd:
    """So many clients at once, with what they saw."""

    url: str
    requests: int
    at_once: int
    leave: float
    deadline: float
    headers: dict[str, str] = field(default_factory=dict)
    seed: int = 11
    seen: list[Seen] = field(default_factory=list)

    async def run(self, told: Callable[[int], None]) -> None:
        """Ask all, so many at once."""
        pending = iter(range(self.requests))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def client() -> None:
                for number in pending:
                    self.seen.append(await self._asked(session, number))
                    told(len(self.seen))

            await asyncio.gather(*(client() for _ in range(self.at_once)))

    async def _asked(self, session: aiohttp.ClientSession, number: int) -> Seen:
        chance = random.Random(self.seed * 1_000_003 + number)
        seen = Seen(f"{chance.getrandbits(64):016x}", number % 2 == 1, chance.choice(STRATEGIES))
        patience = chance.random() * 0.3 if chance.random() < self.leave else None
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(patience if patience is not None else self.deadline * 4):
                await self._ask(session, seen)
        except TimeoutError:
            if patience is None:
                seen.end, seen.complaint = "never", "no end within four deadlines"
        except aiohttp.ClientError as error:
            seen.end, seen.complaint = "lost", f"the connection was lost: {error!r}"
        seen.seconds = time.perf_counter() - begun
        if patience is None and seen.seconds > self.deadline + SLACK and not seen.complaint:
            seen.complaint = f"it took {seen.seconds:.1f} s"
        return seen

    async def _ask(self, session: aiohttp.ClientSession, seen: Seen) -> None:
        question = f"[nonce {seen.nonce}] What does it cost now?"
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": question}]}
        if seen.streamed:
            body["stream"] = True
        headers = {**self.headers, "X-Honesty": seen.strategy}
        asked = session.post(f"{self.url}/chat/completions", json=body, headers=headers)
        async with asked as answer:
            seen.status = answer.status
            seen.trace = answer.headers.get("x-honesty-trace-id", "")
            seen.outcome = answer.headers.get("x-honesty-outcome", "")
            raw = await answer.read()
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        seen.end, seen.complaint = (_stream if is_stream else _whole)(seen, raw)


def _whole(seen: Seen, raw: bytes) -> tuple[str, str]:
    """How a plain reply ended, and what is wrong with it."""
    try:
        body = json.loads(raw)
    except ValueError:
        return "broken", f"{seen.status} with a body that isn't JSON: {raw[:80]!r}"
    if seen.status != 200:
        return "error", "" if _is_error(body) else f"an error in no shape of OpenAI's: {raw[:80]!r}"
    if seen.streamed:
        return "broken", "a stream was asked for"
    seen.outcome = (body.get("honesty") or {}).get("outcome") or seen.outcome
    try:
        return "answer", _foreign(seen, body["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        return "broken", f"no completion: {raw[:80]!r}"


def _stream(seen: Seen, raw: bytes) -> tuple[str, str]:
    """How a stream ended, and what is wrong with it."""
    events = [e for e in raw.decode().split("\n\n") if e and not e.startswith(":")]
    data = [event.partition("data: ")[2] for event in events]
    if not data:
        return "broken", "a stream of nothing"
    done = data[-1] == "[DONE]"
    try:
        chunks = [json.loads(item) for item in data[:-1] + ([] if done else data[-1:])]
    except ValueError:
        return "broken", f"an event that isn't JSON: {data[-2:]!r}"
    if any("error" in chunk for chunk in chunks):
        return "error in band", "" if _is_error(chunks[-1]) else f"no error at its end: {data[-1]}"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    if not done or len(ends) != 1:
        return "broken", f"it ends without an end: {data[-1]!r}, finish_reasons {ends}"
    for chunk in chunks:
        seen.outcome = (chunk.get("honesty") or {}).get("outcome") or seen.outcome
    text = "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
    return "answer", _foreign(seen, text)


def _is_error(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()


def _foreign(seen: Seen, text: str) -> str:
    return "" if text.count("nonce") == 1 and seen.nonce in text else f"a foreign answer: {text!r}"
