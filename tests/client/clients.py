"""Clients of OpenAI's SDK before a scripted upstream, and one way to call those of both kinds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from honestproxy import honest
from tests.proxy import Script, script
from tests.upstreams import Reply, Seen, Upstream, upstream

KINDS = [OpenAI, AsyncOpenAI, AzureOpenAI, AsyncAzureOpenAI]
BOTH = [OpenAI, AsyncOpenAI]
KEY = "sk-of-the-app-0123456789"


def made(kind: type, url: str, **options: Any) -> Any:
    """A client of the SDK's, as an app makes it."""
    if "Azure" in kind.__name__:
        endpoint = url.removesuffix("/v1")
        options = {"azure_endpoint": endpoint, "api_version": "2024-10-21"} | options
    else:
        options = {"base_url": url} | options
    return kind(api_key=KEY, **options)


async def called(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a method of either kind of client gives; a synchronous one has a thread to wait in."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **named)
    given = await asyncio.to_thread(function, *args, **named)
    return await given if inspect.isawaitable(given) else given


async def read(stream: Any) -> list[Any]:
    """All that a stream of either kind brings."""
    if hasattr(stream, "__aiter__"):
        return [part async for part in stream]
    return await asyncio.to_thread(list, stream)


async def closed(thing: Any) -> None:
    """Close a client or stream of either kind."""
    await called(thing.close)


@asynccontextmanager
async def plain(
    kind: type, replies: Script | Callable[[Seen], Reply] | None = None, **options: Any
) -> AsyncIterator[tuple[Any, Upstream]]:
    """A client and its upstream, without us."""
    async with upstream(replies or script()) as server:
        client = made(kind, server.url, **options)
        try:
            yield client, server
        finally:
            await closed(client)


@asynccontextmanager
async def wrapped(
    kind: type,
    replies: Script | Callable[[Seen], Reply] | None = None,
    *,
    strategy: str | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Upstream]]:
    """The same, made honest."""
    async with plain(kind, replies, **options) as (client, server):
        honestly = honest(client, strategy=strategy)
        try:
            yield honestly, server
        finally:
            await closed(honestly)
