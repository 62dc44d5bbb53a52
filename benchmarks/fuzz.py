"""Fuzzing: requests of all kinds, good, odd and broken, and nothing of ours may fail.

    python benchmarks/fuzz.py [--cases 100000] [--at-once 32] [--seed 1] [--json]

A real `honestproxy serve` with keys, metrics, a trace store and a log at its most talkative,
before an upstream that answers everything well: so every 5xx is ours. Besides, whatever is
refused must be refused in OpenAI's shape, the proxy must stay up, its log must hold no traceback,
and no text, key or header value of any request. Exits 1 where anything of that fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from wire.processes import Child, Server, free_port
from wire.report import progress, table

MARK = "c0ntent"
"""A word in every text and header value: where it turns up in a log, content has leaked."""
DRAWN, BATCH = 4, 64
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
OWN = (
    *("/v1/models", "/v1/models/m", "/v1/models/m@gated", "/healthz", "/readyz", "/metrics", "/"),
    *("/v1/honesty/experiment", "/v1/honesty/feedback", "/v1/honesty/traces/x", "/openapi.json"),
)
RELAYED = ("/v1/embeddings", "/v1/files/../x", "/v1//completions", "/v1/audio/speech?x=1", "/v1/")
STRATEGIES = ("raw", "gated", "curiosity", "single", "critique", "introspect", "rwa", "")

words = st.text(max_size=12).map(lambda text: f"{MARK} {text}")
numbers = st.integers() | st.floats() | st.integers(1, 400).map(lambda digits: int("7" * digits))
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
content = (
    words
    | st.none()
    | st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "image_url", "file"]), "text": words}
        )
        | values,
        max_size=2,
    )
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "x"])},
    optional={"content": content, "name": words},
)


def mostly(well: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is well, and anything else in one case of eight."""
    return st.integers(0, 7).flatmap(lambda die: values if die == 0 else well)


honesty = st.fixed_dictionaries(
    {},
    optional={
        "strategy": mostly(st.sampled_from(STRATEGIES)),
        "capabilities": mostly(st.lists(words, max_size=2)),
        "annotate": mostly(st.booleans()),
        "threshold": mostly(st.floats(0, 1)),
        "on_failure": mostly(st.sampled_from(["draft", "error"])),
    },
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "honesty": mostly(honesty),
    "stream": mostly(st.booleans()),
    "stream_options": mostly(st.fixed_dictionaries({"include_usage": st.booleans()})),
    "n": mostly(st.integers(1, 3)),
    "tools": mostly(st.lists(st.fixed_dictionaries({"type": st.just("function")}), max_size=2)),
    "tool_choice": mostly(st.sampled_from(["none", "auto", "required"])),
    "response_format": mostly(st.just({"type": "json_object"})),
    "max_tokens": mostly(st.integers(-1, 100)),
    "logprobs": mostly(st.booleans()),
    "logit_bias": mostly(st.none()),
    "modalities": mostly(st.lists(st.sampled_from(["text", "audio"]), max_size=2)),
    "metadata": values,
    "user": mostly(words),
    "store": mostly(st.booleans()),
    "previous_response_id": mostly(words),
    "instructions": mostly(words),
}
# A model's name is no content: the log tells it.
models = st.sampled_from(["m", "m@gated", "m@raw", "", "m@nothing"] * 2) | numbers | st.none()
chats = st.fixed_dictionaries(
    {"model": models, "messages": mostly(st.lists(message, min_size=1, max_size=3))},
    optional=FIELDS,
)
asked = st.fixed_dictionaries(
    {"model": models, "input": mostly(words | st.lists(message, max_size=2))}, optional=FIELDS
)


def written(body: Any) -> bytes:
    """A body as JSON, odd numbers and lone surrogates included."""
    return json.dumps(body).encode()


good = chats.map(written) | asked.map(written)
drawn = st.tuples(st.lists(good | st.binary(), min_size=DRAWN, max_size=DRAWN), st.integers(0))

HEADERS: dict[str, tuple[str, ...]] = {
    "X-Honesty": STRATEGIES,
    "X-Honesty-Trace": ("keep", "x"),
    "Idempotency-Key": (MARK,),
    "traceparent": (f"00-{'1' * 32}-{'2' * 16}-01", MARK, ""),
    "X-Honesty-User": (MARK,),
    "Cache-Control": ("no-store", "x"),
    "Range": ("bytes=0-1",),
}
RARE: dict[str, tuple[str, ...]] = {
    "Content-Type": ("text/plain", "multipart/form-data; boundary=x", "x", ""),
    "Origin": ("http://localhost:1", "https://evil.example", MARK),
    "Host": ("evil.example", "localhost", ""),
}
METHODS = ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH")


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    is_known: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.headers} {self.body[:300]!r}"


def varied(bodies: list[bytes], chance: random.Random) -> list[Case]:
    """Requests with these bodies, whole and torn, to all sorts of places."""
    return [_case(body, chance) for body in bodies for _ in range(BATCH // DRAWN)]


def _case(body: bytes, chance: random.Random) -> Case:
    headers = {"Content-Type": "application/json"}
    for name, choices in HEADERS.items():
        if chance.random() < 0.15:
            headers[name] = chance.choice(choices)
    for name, choices in RARE.items():
        if chance.random() < 0.02:
            headers[name] = chance.choice(choices)
    if chance.random() < 0.3:
        body = _torn(body, chance)
    is_known = chance.random() > 0.02
    if chance.random() < 0.8:
        path = RESPONSES if b'"input"' in body else CHAT
        return Case("POST", path, headers, body, is_known)
    path = chance.choice([*OWN, *RELAYED, CHAT])
    return Case(chance.choice(METHODS), path, headers, body, is_known)


def _torn(body: bytes, chance: random.Random) -> bytes:
    """A body with one byte changed, or cut off there."""
    at = chance.randrange(len(body) + 1)
    return body[:at] + (chance.randbytes(1) + body[at + 1 :] if chance.random() < 0.7 else b"")


class Fuzz:
    """Sends cases, and keeps what must not have come of them."""

    def __init__(self, url: str, key: str, wanted: int, at_once: int) -> None:
        self._url = url
        self._key = key
        self._wanted = wanted
        self._places = asyncio.Semaphore(at_once)
        self._begun = time.monotonic()
        self.statuses: Counter[int] = Counter()
        self.complaints: list[str] = []

    async def send(self, session: aiohttp.ClientSession, batch: list[Case]) -> None:
        """All of these at once."""
        await asyncio.gather(*(self._sent(session, case) for case in batch))
        done = self.statuses.total()
        rate = done / (time.monotonic() - self._begun)
        progress(f"{done} of {self._wanted}, {rate:.0f}/s, {len(self.complaints)} complaints")

    async def _sent(self, session: aiohttp.ClientSession, case: Case) -> None:
        told = {**case.headers, "Authorization": f"Bearer {self._key if case.is_known else MARK}"}
        sending = {"data": case.body, "headers": told, "allow_redirects": False}
        try:
            async with (
                self._places,
                asyncio.timeout(30),
                session.request(case.method, self._url + case.path, **sending) as answer,  # type: ignore[arg-type]
            ):
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.complaints.append(f"{error!r}: {case}")
            return
        self.statuses[answer.status] += 1
        if answer.status >= 500:
            self.complaints.append(f"{answer.status} {raw[:200]!r}: {case}")
        elif answer.status >= 400 and case.method != "HEAD" and not _is_error(raw):
            self.complaints.append(f"{answer.status} in no shape of ours {raw[:200]!r}: {case}")


def _is_error(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw)["error"]["message"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("honestproxy")), *words]


def made(folder: Path) -> str:
    """A key of the proxy's own."""
    command = _command("keys", "create", "--keys", str(folder / "keys"), "--admin", "--json")
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return str(json.loads(told)["key"])


def serving(folder: Path, upstream: int) -> Server:
    """The proxy, at its most talkative."""
    port = free_port()
    flags = {
        "--upstream": f"http://127.0.0.1:{upstream}/v1",
        "--port": str(port),
        "--keys": str(folder / "keys"),
        "--trace-store": f"sqlite:///{folder / 'traces.db'}",
        "--log-level": "debug",
        "--log-format": "json",
    }
    env = {"HONESTPROXY_UPSTREAM_KEY": f"{MARK}-upstream", "HONESTPROXY_TRACES": "texts"}
    command = _command("serve", *(word for pair in flags.items() for word in pair))
    server = Server(command, port=port, folder=folder, **env)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz"):
                return server
        except OSError:
            time.sleep(0.05)
    raise SystemExit((folder / f"{port}.log").read_text("utf-8", "replace"))


def fuzzed(fuzz: Fuzz, number: int, first: int) -> None:
    """Draw so many cases and send them."""
    loop = asyncio.new_event_loop()

    async def opened() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)

    session = loop.run_until_complete(opened())

    @seed(first)
    @settings(
        max_examples=-(-number // BATCH),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def send(found: tuple[list[bytes], int]) -> None:
        bodies, variant = found
        loop.run_until_complete(fuzz.send(session, varied(bodies, random.Random(variant))))

    warnings.simplefilter("ignore")
    send()
    loop.run_until_complete(session.close())
    loop.close()


def leaks(log: str, key: str) -> Iterator[str]:
    """What the log holds and must not."""
    for line in log.splitlines():
        if MARK in line or key in line:
            yield f"the log holds content: {line[:300]}"
        elif "Traceback" in line or "honestproxy failed" in line:
            yield f"the log tells of a crash: {line[:300]}"


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given_ = parser.parse_args()
    upstream = Child("wire.faulty", "0")
    with TemporaryDirectory(prefix="honestproxy-fuzz-") as name:
        folder = Path(name)
        try:
            key = made(folder)
            server = serving(folder, int(upstream.line()))
            url = f"http://127.0.0.1:{server.port}"
            fuzz = Fuzz(url, key, given_.cases, given_.at_once)
            try:
                fuzzed(fuzz, given_.cases, given_.seed)
            finally:
                server.end()
            log = (folder / f"{server.port}.log").read_text("utf-8", "replace")
        finally:
            upstream.end()
    complaints = [*fuzz.complaints, *leaks(log, key)]
    statuses = dict(sorted(fuzz.statuses.items()))
    if given_.json:
        print(json.dumps({"statuses": statuses, "complaints": complaints}, indent=2))
        return bool(complaints)
    print(table(["status", "times"], [[str(s), f"{n:,}"] for s, n in statuses.items()]))
    print(f"{sum(statuses.values()):,} cases, {len(log.splitlines()):,} lines of log")
    for complaint in complaints[:30]:
        print(f"WRONG: {complaint}")
    print("fuzz:", f"{len(complaints)} complaints" if complaints else "ok")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
