"""Answers that come packed, although that was not asked for: unpacked, passed on, or told."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from honestproxy.backends.openai_compatible import OpenAICompatible
from honestproxy.backends.packed import unpacked
from honestproxy.errors import UpstreamBroken, UpstreamError
from honestproxy.settings import Settings
from honestproxy.types import ChatRequest
from tests.proxy import ask, proxy
from tests.upstreams import Reply, answer, chunk, completion, event, events, upstream

BODY = json.dumps(completion("Paris.")).encode()
ODD = b"\x0b\x02\x80 not for us"
OTHERS = ["br", "zstd", "gzip, br", "aes"]


def bare(body: bytes) -> bytes:
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return pack.compress(body) + pack.flush()


PACKED = [
    ("gzip", gzip.compress(BODY)),
    ("X-GZip", gzip.compress(BODY)),
    ("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    ("deflate", zlib.compress(BODY)),
    ("deflate", bare(BODY)),
    ("identity", BODY),
]


def coded(body: bytes, coding: str, **more: Any) -> Reply:
    return answer(body, headers={"Content-Encoding": coding}, **more)


async def failure(reply: Reply, *, streamed: bool = False) -> UpstreamError:
    async with upstream(reply) as server:
        remote = OpenAICompatible(server.url, Settings())
        with pytest.raises(UpstreamError) as caught:  # noqa: PT012
            if streamed:
                _ = [found async for found in remote.stream(ChatRequest(ask(stream=True)))]
            await remote.complete(ChatRequest(ask()))
        await remote.aclose()
    return caught.value


async def raw(url: str, **options: Any) -> tuple[int, bytes, Any]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(f"{url}/embeddings", json={}, **options) as got,
    ):
        return got.status, await got.read(), got.headers


@pytest.mark.parametrize(("coding", "body"), PACKED)
async def test_what_is_packed_as_usual_is_unpacked_for_all(coding: str, body: bytes) -> None:
    async with proxy(lambda _: coded(body, coding), strategy="raw") as on:
        status, found, _ = await on.post(ask())
        assert (status, found["choices"][0]["message"]["content"]) == (200, "Paris.")
        status, relayed, headers = await raw(on.url)
    assert (status, relayed) == (200, BODY)
    assert headers.get("Content-Encoding", "identity") == "identity"


async def test_a_packed_stream_comes_as_it_is_made() -> None:
    pack = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    pieces = [event(chunk("Pa")), event(chunk("ris.")), event(chunk(None, "stop"))]
    sent = [pack.compress(piece) + pack.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    held = events(*sent, done=False, then="hold", headers={"Content-Encoding": "gzip"})
    async with upstream(held) as server:
        remote = OpenAICompatible(server.url, Settings())
        stream = remote.stream(ChatRequest(ask(stream=True)))
        async with asyncio.timeout(5):
            found = [await anext(stream) for _ in range(4)]
        await stream.aclose()
        await remote.aclose()
    assert "".join(one.text for one in found) == "Paris."


@pytest.mark.parametrize("coding", OTHERS)
@pytest.mark.parametrize("status", [200, 404])
async def test_what_cant_be_unpacked_is_relayed_as_it_came(coding: str, status: int) -> None:
    async with proxy(lambda _: coded(ODD, coding, status=status)) as on:
        found, relayed, headers = await raw(on.url)
    assert (found, relayed, headers["Content-Encoding"]) == (status, ODD, coding)


@pytest.mark.parametrize("coding", OTHERS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_cant_be_unpacked_is_told_where_it_must_be_read(
    coding: str, streamed: bool
) -> None:
    error = await failure(coded(ODD, coding), streamed=streamed)
    assert isinstance(error, UpstreamBroken)
    assert f"coded as {coding!r}, which can't be read here" in error.message
    refused = await failure(coded(ODD, coding, status=429), streamed=streamed)
    assert refused.status == 429
    assert f"coded as {coding!r}, which can't be read here" in refused.message


async def test_a_packed_error_tells_no_key_of_ours() -> None:
    key = "sk-operator-0123456789"
    said = json.dumps({"error": {"message": f"Incorrect API key: {key}"}}).encode()
    replies = {"gzip": gzip.compress(said), "br": said}
    for coding, body in replies.items():
        reply = coded(body, coding, status=401)
        async with proxy(lambda _, reply=reply: reply, upstream_key=key) as on:
            status, told, headers = await raw(on.url)
        assert (status, key.encode() in told) == (401, False)
        assert "Content-Encoding" not in headers
        assert (b"can't be read" if coding == "br" else b"Incorrect") in told


@pytest.mark.parametrize("body", [BODY, gzip.compress(BODY)[:-9]])
async def test_what_isnt_packed_as_it_says_is_broken(body: bytes) -> None:
    assert isinstance(await failure(coded(body, "gzip")), UpstreamBroken)
    async with proxy(lambda _: coded(body, "gzip")) as on:
        with pytest.raises(aiohttp.ClientError):
            await raw(on.url)


async def test_nothing_is_packed_as_nothing() -> None:
    async with proxy(lambda _: coded(b"", "gzip", status=400)) as on:
        assert (await raw(on.url))[:2] == (400, b"")


@settings(deadline=None, max_examples=50)
@given(data=st.data())
async def test_where_a_packed_body_is_cut_never_matters(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 65_535, 65_536, 65_537, 300_000]))
    body = data.draw(st.binary(min_size=1, max_size=20)) * (size // 10 + 1)
    coding, pack = data.draw(
        st.sampled_from([("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare)])
    )
    small = pack(body)
    cut = data.draw(st.integers(0, len(small)))

    async def parts() -> AsyncGenerator[bytes, None]:
        yield small[:cut]
        yield small[cut:]

    assert b"".join([piece async for piece in unpacked(parts(), coding)]) == body
