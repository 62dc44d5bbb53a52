"""Whole answers kept for whoever asks the very same again; off unless the settings name a place.

Exact match alone: body, strategy, options, headers, settings, prompts and the one who asks.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from pydantic import SecretStr
from starlette.types import Message, Send

from honestproxy import __version__
from honestproxy.backends import failover
from honestproxy.pipeline import AnyRun
from honestproxy.server.account import Account
from honestproxy.server.cache.store import Store, opened
from honestproxy.settings import Settings
from honestproxy.templates import Prompts
from honestproxy.trace import Honesty
from honestproxy.types import ChatRequest, Document, Doubts, Outcome
from honestproxy.wire import reply

HEADER: Final = "x-honesty-cache"
LARGEST: Final = 1_000_000
"""Bytes of an answer that is kept; a longer one is told, and forgotten."""

_INSTEAD: Final = failover.HEADER.encode()
_GOOD: Final = frozenset({"rewritten", "draft_kept", "passed_through"})
_ELSEWHERE: Final = frozenset(
    {"host", "port", "cache", "keys", "log_format", "answer_cache", "answer_cache_seconds"}
)
"""Settings that replicas may have each their own, and that no answer hangs on."""

_NO_MATTER: Final = frozenset(
    {"Idempotency-Key", "traceparent", "tracestate", "X-Client-Request-Id"}
)
"""Headers that go upstream and differ from request to request, whatever is answered."""

_LASTING: Final = (
    *("tools", "functions", "web_search_options"),
    *("store", "conversation", "background", "prompt"),
)


class Entry(msgspec.Struct, frozen=True):
    """A kept answer: its body as it went out, and what its headers and the counts need."""

    body: bytes
    head: dict[str, str]
    kept_at: float
    outcome: Outcome
    reason: str | None = None
    doubts: Doubts | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class AnswerCache:
    """The answers of one set of settings and prompts, in a store that may outlive them."""

    def __init__(self, store: Store, settings: Settings, prompts: Prompts) -> None:
        self.store = store
        self._about = _fingerprint(settings, prompts)

    def lookup(self, account: Account, headers: Mapping[str, str]) -> Lookup | None:
        """Where the answer to a request is or will be; None where it is no matter for a cache.

        The account's request must be resolved and its run there, not begun.
        """
        asked, run = account.asked, account.run
        assert asked is not None and run is not None  # noqa: S101, PT018 - the caller's promise
        wish = _directives(headers.get("cache-control", ""))
        if "no-store" in wish or _is_its_own(asked) or run.honesty.trace.note:
            return None  # a note tells of less under load: no answer for later
        oldest = 0.0 if "no-cache" in wish else _seconds(wish.get("max-age"))
        return Lookup(self.store, self._key(account, asked, run), run, account, oldest)

    def _key(self, account: Account, asked: ChatRequest, run: AnyRun) -> str:
        """One hash of all that the answer hangs on, and of who asks."""
        trace, origin = run.honesty.trace, asked.origin
        sent = {n: v for n, v in asked.headers.items() if n not in _NO_MATTER}
        facts = (self._about, account.api, account.caller.id, trace.strategy, trace.arm)
        wish = replace(asked.options, strategy=None)  # whose doing the strategy is doesn't matter
        about = repr((*facts, asked.model, asked.query, wish, sorted(sent.items())))
        whole = hashlib.sha256(about.encode("utf-8", "surrogatepass"))
        whole.update(b"\0" + (origin if isinstance(origin, Document) else asked).raw)
        return f"honestproxy:answer:{whole.hexdigest()}"


class Lookup:
    """One request's place in the cache."""

    def __init__(
        self, store: Store, key: str, run: AnyRun, account: Account, oldest: float | None
    ) -> None:
        self._store = store
        self._key = key
        self._run = run
        self._account = account
        self._oldest = oldest
        self._head: dict[str, str] = {}
        self._parts: list[bytes] | None = []
        self._size = 0
        self._is_whole = False

    async def replayed(self, send: Send) -> bool:
        """Answer with what is kept, if anything is."""
        entry = await self._found()
        if entry is None:
            return False
        self._account.cached = True
        told = replace(self._run.honesty.trace, steps=[], ended=time.perf_counter())
        self._run.honesty = Honesty(told, entry.outcome, entry.reason, entry.doubts)
        age = max(0, int(time.time() - entry.kept_at))
        ours = {**reply.headers(self._run.honesty), HEADER: "hit", "age": str(age)}
        head = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in (entry.head | ours).items()]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": entry.body})
        return True

    def heard(self, send: Send) -> Send:
        """`send`, with what goes through it remembered."""
        self._account.missed = True

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._head = _kept_of(message["headers"])
                if any(name == _INSTEAD for name, _ in message["headers"]):
                    self._parts = None  # the one that was asked for may be back in a moment
                message["headers"] = [*message["headers"], (HEADER.encode(), b"miss")]
            else:
                self._hear(message.get("body", b""), more=message.get("more_body", False))
            await send(message)

        return sent

    def keep(self) -> None:
        """Keep what was answered, if it was a whole and good answer."""
        account, honesty = self._account, self._run.honesty
        outcome = honesty.outcome
        is_good = account.status == 200 and not account.failed and not account.left
        if self._parts is None or not self._is_whole or not is_good or outcome not in _GOOD:
            return
        body = b"".join(self._parts)
        told = (outcome, honesty.reason, honesty.doubts)
        self._store.put(self._key, _encode(Entry(body, self._head, time.time(), *told)))

    def _hear(self, body: bytes, *, more: bool) -> None:
        self._is_whole = not more
        if self._parts is None or body == reply.PING:
            return
        self._parts.append(body)
        self._size += len(body)
        if self._size > LARGEST:
            self._parts = None

    async def _found(self) -> Entry | None:
        if self._oldest is not None and self._oldest <= 0:
            return None
        value = await self._store.get(self._key)
        try:
            entry = _decode(value) if value else None
        except msgspec.DecodeError:  # nothing that we have written
            return None
        if entry and self._oldest is not None and time.time() - entry.kept_at > self._oldest:
            return None
        return entry


def answer_cache(
    settings: Settings, prompts: Prompts, before: AnswerCache | None, was: Settings | None
) -> AnswerCache | None:
    """The cache that the settings name, or None; what is kept already stays under the same name.

    Raises SettingsError for a place that is none.
    """
    place, seconds = settings.answer_cache, settings.answer_cache_seconds
    if place is None:
        return None
    same = was and (was.answer_cache, was.answer_cache_seconds) == (place, seconds)
    store = before.store if before and same else opened(place, seconds)
    return AnswerCache(store, settings, prompts)


def _fingerprint(settings: Settings, prompts: Prompts) -> str:
    """What answers hang on besides the request: version, settings, prompts.

    A model or a backend on this machine can become another under its name, between two starts:
    answers of such a one are for one start alone.
    """
    told = settings.model_dump(exclude=set(_ELSEWHERE))
    places = [settings.upstream, *(other.url for other in settings.upstreams.values())]
    distant = all(place.startswith(("http://", "https://", "litellm:")) for place in places)
    run = None if distant else uuid.uuid4().hex
    digests = {name: prompts[name].digest for name in prompts}
    about = json.dumps([__version__, told, digests, run], default=_revealed, sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()


def _revealed(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _is_its_own(asked: ChatRequest) -> bool:
    """Whether each such request does something of its own, beyond its answer.

    A call of a tool acts, and has an id of its own; what is searched is of its hour; what is
    stored, or added to a conversation, is there as often as it was asked for.
    """
    told = [form for form in (asked, asked.origin) if isinstance(form, Document)]
    return any(form.get(name) for form in told for name in _LASTING)


def _kept_of(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """What of a reply's head is as true later; limits and ids of the upstream's are not."""
    names = (b"content-type", b"content-length", b"cache-control", b"x-accel-buffering")
    return {n.decode(): v.decode("latin-1") for n, v in headers if n in names}


def _directives(header: str) -> dict[str, str]:
    parts = (part.strip().lower().partition("=") for part in header.split(","))
    return {name: value.strip('"') for name, _, value in parts if name}


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() else None
